"""A client of a few lines, for what pgbench cannot do: thousands of idle sessions, a long stream, logins at a fixed pace."""

import base64
import hashlib
import hmac
import os
import socket
import struct
import threading
import time

from stage import DATABASE, HOST, PASSWORD, USER

CHUNK_BYTES = 256 * 1024
ANSWER_SECONDS = 60
READY = b"Z\0\0\0\5I"
SALTED = {}


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection((HOST, port), ANSWER_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""
        self.login()

    def login(self):
        words = b"".join(word.encode() + b"\0" for word in ("user", USER, "database", DATABASE))
        self.socket.sendall(struct.pack(">II", len(words) + 9, 196608) + words + b"\0")
        while True:
            tag, body = self.message()
            if tag == b"Z":
                return
            if tag == b"R":
                self.authenticate(int.from_bytes(body[:4], "big"), body[4:])

    def authenticate(self, method, body):
        if method == 5:
            inner = hashlib.md5((PASSWORD + USER).encode()).hexdigest()
            self.send(b"p", b"md5" + hashlib.md5(inner.encode() + body).hexdigest().encode() + b"\0")
        elif method == 10:
            self.first = "n=,r=" + base64.b64encode(os.urandom(18)).decode()
            opening = b"n,," + self.first.encode()
            self.send(b"p", b"SCRAM-SHA-256\0" + struct.pack(">I", len(opening)) + opening)
        elif method == 11:
            self.send(b"p", self.proof(body.decode()))
        elif method not in (0, 12):
            raise RuntimeError(f"the login asks for method {method}")

    def proof(self, challenge):
        """The password is stretched once for each salt: a client's cost is not what is measured."""
        said = dict(part.split("=", 1) for part in challenge.split(","))
        seed = said["s"], int(said["i"])
        if seed not in SALTED:
            SALTED[seed] = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), base64.b64decode(seed[0]), seed[1])
        key = hmac.new(SALTED[seed], b"Client Key", "sha256").digest()
        last = "c=biws,r=" + said["r"]
        signed = ",".join((self.first, challenge, last)).encode()
        signature = hmac.new(hashlib.sha256(key).digest(), signed, "sha256").digest()
        proof = bytes(one ^ other for one, other in zip(key, signature))
        return f"{last},p={base64.b64encode(proof).decode()}".encode()

    def query(self, text):
        """Runs it and lets the rows go by unread."""
        self.send(b"Q", text.encode() + b"\0")
        tail = b""
        while not tail.endswith(READY):
            chunk = self.socket.recv(CHUNK_BYTES)
            if not chunk:
                raise RuntimeError("the connection was closed during an answer")
            tail = (tail + chunk)[-len(READY):] if len(chunk) < len(READY) else chunk[-len(READY):]

    def send(self, tag, body):
        self.socket.sendall(tag + struct.pack(">I", len(body) + 4) + body)

    def message(self):
        """One message of the login. What follows the last one is nothing, so `query` may read past this buffer."""
        while len(self.rest) < 5 or len(self.rest) < 1 + int.from_bytes(self.rest[1:5], "big"):
            chunk = self.socket.recv(8192)
            if not chunk:
                raise RuntimeError("the connection was closed during the login")
            self.rest += chunk
        size = 1 + int.from_bytes(self.rest[1:5], "big")
        message, self.rest = self.rest[:size], self.rest[size:]
        if message[:1] == b"E":
            raise RuntimeError(message[5:].replace(b"\0", b" ").decode(errors="replace"))
        return message[:1], message[5:]

    def close(self):
        try:
            self.send(b"X", b"")
        except OSError:
            pass
        self.socket.close()


class Neighbours:
    """Company for another load on the same port: a client that streams, and logins at a pace. A context."""

    def __init__(self, port, stream, logins_per_second):
        self.port, self.stream, self.pace = port, stream, 1 / logins_per_second
        self.ended = threading.Event()
        self.error = None
        self.threads = [threading.Thread(target=self.work, args=(task,), daemon=True) for task in (self.reader, self.logins)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join(ANSWER_SECONDS)

    def work(self, task):
        try:
            task()
        except (OSError, RuntimeError) as error:
            self.error = error

    def reader(self):
        client = Client(self.port)
        while not self.ended.is_set():
            client.query(self.stream)
        client.close()

    def logins(self):
        due = time.monotonic()
        while not self.ended.wait(max(0, due - time.monotonic())):
            Client(self.port).close()
            due += self.pace
