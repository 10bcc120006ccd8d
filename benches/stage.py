"""The stage of a benchmark: PostgreSQL servers, proxies and files, all its own, all on loopback, all gone at the end.

Every proxy has the same settings: one worker, a pool of 20 in transaction mode, SCRAM on both sides, no TLS towards
servers. Each is started in a session of its own, as a service manager would: the scheduler groups by session.
"""

import base64
import hashlib
import hmac
import os
import pwd
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOST, USER, PASSWORD, DATABASE = "127.0.0.1", "bench", "bench secret", "bench"
POOL = 20
POOL_SMALL = 3
SHARDS = 3
CLIENTS_MAX = 10_000
SERVERS_MAX = 1200
START_SECONDS = 60
COMMAND_SECONDS = 120
STOP_SECONDS = 15


@dataclass(frozen=True)
class Place:
    """Where a load can be put: a port, and the process whose cost it is (none for a bare server)."""
    port: int
    pid: int | None = None


class Absent(Exception):
    """A peer that cannot take part, and why."""


def programs():
    folders = [os.environ.get("PGHERD_PG_BIN"), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)]
    for folder in filter(None, folders):
        if Path(folder, "initdb").exists():
            return Path(folder)
    found = shutil.which("initdb")
    if not found:
        sys.exit("bench: PostgreSQL's server programs are not found; set PGHERD_PG_BIN to their folder")
    return Path(found).parent


BIN = programs()
PGBENCH = shutil.which("pgbench") or str(BIN / "pgbench")
PGHERD = ROOT / "target/release/pgherd"
FLOORS = ROOT / "target/release/examples"
ENV = {**{key: value for key, value in os.environ.items() if not key.startswith("PG")},
       "PGPASSWORD": PASSWORD, "PGSSLMODE": "disable", "LC_ALL": "C"}


def pgbouncer_program():
    return os.environ.get("PGBOUNCER") or shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"


def first_line(*command):
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=10, env=ENV)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]} ({error})"
    return ((done.stdout + done.stderr).splitlines() or [f"{command[0]} of an unknown version"])[0].strip()


def pgbouncer_prepares():
    """Prepared statements in transaction mode came with 1.21."""
    found = re.search(r"(\d+)\.(\d+)", first_line(pgbouncer_program(), "--version"))
    return found is not None and (int(found[1]), int(found[2])) >= (1, 21)


def unprivileged():
    """Neither PostgreSQL nor PgBouncer runs as root."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def run(*command, timeout=COMMAND_SECONDS, **options):
    command = [str(part) for part in command]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=ENV, cwd="/", timeout=timeout, **options)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{' '.join(command)} did not end within {timeout} s") from error
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def psql(port, text, database=DATABASE, file=None):
    source = ["-f", file] if file else ["-c", text]
    return run(BIN / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", HOST, "-p", port, "-U", USER, "-d", database, *source)


def free_port(given=set()):
    """The system may offer a port again as soon as it is let go of; here each is given once."""
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = probe.getsockname()[1]
        if port not in given:
            given.add(port)
            return port


def scram_secret():
    """What PostgreSQL would store. With the password itself PgBouncer derives its keys anew at each login."""
    salt, rounds = os.urandom(16), 4096
    salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), salt, rounds)
    key = lambda name: hmac.new(salted, name, "sha256").digest()
    text = lambda raw: base64.b64encode(raw).decode()
    return f"SCRAM-SHA-256${rounds}:{text(salt)}${text(hashlib.sha256(key(b'Client Key')).digest())}:{text(key(b'Server Key'))}"


class Stage:
    """All processes and files of a run."""

    def __init__(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.folder = Path(tempfile.mkdtemp(prefix="pgherd-bench-"))
        self.folder.chmod(0o755)
        self.processes = []
        self.secret = scram_secret()
        self.certificate, self.key = self.folder / "server.crt", self.folder / "server.key"

    def certify(self):
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 30, "-subj", "/CN=localhost",
            "-keyout", self.key, "-out", self.certificate)
        self.own(self.key)

    # Servers

    def postgres(self, name):
        """Its stored secret is the proxies' own: PgBouncer logs in with the keys that a client has proven to have."""
        folder = self.own_folder(name)
        secret = self.private(f"{name}/pw", self.secret)
        data, port = folder / "data", free_port()
        run(BIN / "initdb", "-D", data, "-U", USER, f"--pwfile={secret}", "-A", "scram-sha-256", "--no-sync", "-E", "UTF8",
            "--locale=C", **unprivileged())
        with open(data / "postgresql.conf", "a") as conf:
            conf.write(f"port = {port}\nlisten_addresses = '{HOST}'\nunix_socket_directories = ''\nfsync = off\n"
                       f"max_connections = {SERVERS_MAX}\nshared_buffers = 256MB\nmax_prepared_transactions = 100\nwal_level = logical\n"
                       f"max_wal_size = 8GB\nautovacuum = off\n"
                       f"ssl = on\nssl_cert_file = '{self.certificate}'\nssl_key_file = '{self.key}'\n")
        process, log = self.spawn(name, BIN / "postgres", "-D", data, **unprivileged())
        self.await_port(port, process, log)
        for _ in range(100):
            try:
                psql(port, f"CREATE DATABASE {DATABASE}", "postgres")
                break
            except RuntimeError as error:
                if "starting up" not in str(error):
                    raise
                time.sleep(0.1)
        return Place(port)

    # Proxies. `under` is put in front of the command: valgrind with its options.

    def pgherd(self, name, servers, workers=1, pool=POOL, tables="", under=()):
        port, http = free_port(), free_port()
        users = self.folder / f"{name}-users.txt"
        users.write_text(f'"{USER}" "{self.secret}"\n')
        users.chmod(0o600)
        shards = "".join(
            f"[[databases.{DATABASE}.shards]]\nname = \"s{number}\"\nprimary = \"host={HOST} port={server.port} dbname={DATABASE} "
            f"user={USER} password='{PASSWORD}' sslmode=disable\"\n" for number, server in enumerate(servers))
        config = self.folder / f"{name}.toml"
        config.write_text(
            f"[proxy]\nlisten = [\"{HOST}:{port}\"]\nhttp = \"{HOST}:{http}\"\nworkers = {workers}\n"
            f"[auth]\nmethod = \"scram-sha-256\"\nusers_file = \"{users}\"\n"
            f"[tls]\ncert_file = \"{self.certificate}\"\nkey_file = \"{self.key}\"\n"
            f"[databases.{DATABASE}]\npool = {{ size = {-(-pool // len(servers))} }}\n{shards}{tables}")
        if len(servers) > 1:
            run(PGHERD, "init", "--config", config)
        return self.start(name, port, *under, PGHERD, "run", "--config", config)

    def pgbouncer(self, name, server, mode="transaction", under=()):
        """In session mode every client has a server, or they would wait for each other until the end of the run."""
        port = free_port()
        users = self.private(f"{name}-users.txt", f'"{USER}" "{self.secret}"\n')
        prepared = "max_prepared_statements = 200\n" if mode == "transaction" and pgbouncer_prepares() else ""
        config = self.private(f"{name}.ini",
            f"[databases]\n{DATABASE} = host={HOST} port={server.port} user={USER} password='{PASSWORD}'\n[pgbouncer]\n"
            f"listen_addr = {HOST}\nlisten_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {users}\n"
            f"pool_mode = {mode}\ndefault_pool_size = {POOL if mode == 'transaction' else SERVERS_MAX // 4}\n"
            f"max_client_conn = {CLIENTS_MAX}\nlog_connections = 0\nlog_disconnections = 0\nserver_tls_sslmode = disable\n"
            f"client_tls_sslmode = allow\nclient_tls_cert_file = {self.certificate}\nclient_tls_key_file = {self.key}\n{prepared}")
        return self.start(name, port, *under, self.pgbouncer_copy(), config, **unprivileged())

    def pgbouncer_copy(self):
        """The user that it runs as may not be able to read somebody's own build where that lies."""
        copy = self.folder / "pgbouncer"
        if not copy.exists():
            shutil.copy(pgbouncer_program(), copy)
        return copy

    def floor(self, server, relay="floor"):
        port = free_port()
        return self.start(relay, port, FLOORS / relay, port, server.port)

    def odyssey(self, server, name="odyssey"):
        port = free_port()
        config = self.private(f"{name}.conf",
            f"daemonize no\nlog_to_stdout yes\nlog_session no\nlog_stats no\nlog_query no\nlog_format \"%t %l %m\\n\"\nworkers 1\n"
            f"resolvers 1\nclient_max {CLIENTS_MAX}\nunix_socket_dir \"{self.folder}\"\nlocks_dir \"{self.folder}\"\n"
            f"listen {{\n  host \"{HOST}\"\n  port {port}\n  tls \"allow\"\n  tls_cert_file \"{self.certificate}\"\n"
            f"  tls_key_file \"{self.key}\"\n}}\n"
            f"storage \"server\" {{\n  type \"remote\"\n  host \"{HOST}\"\n  port {server.port}\n  tls \"disable\"\n}}\n"
            f"database \"{DATABASE}\" {{\n  user \"{USER}\" {{\n    authentication \"scram-sha-256\"\n    password \"{self.secret}\"\n"
            f"    storage \"server\"\n    storage_db \"{DATABASE}\"\n    storage_user \"{USER}\"\n    storage_password \"{PASSWORD}\"\n"
            f"    pool \"transaction\"\n    pool_size {POOL}\n    pool_discard no\n    pool_reserve_prepared_statement yes\n  }}\n}}\n")
        return self.start(name, port, self.named("ODYSSEY"), config)

    def pgcat(self, server, name="pgcat"):
        """It asks clients for md5, whatever the server wants."""
        port = free_port()
        config = self.private(f"{name}.toml",
            f"[general]\nhost = \"{HOST}\"\nport = {port}\nworker_threads = 1\nadmin_username = \"admin\"\nadmin_password = \"admin\"\n"
            f"tls_certificate = \"{self.certificate}\"\ntls_private_key = \"{self.key}\"\n"
            f"[pools.{DATABASE}]\npool_mode = \"transaction\"\nprepared_statements_cache_size = 500\n"
            f"[pools.{DATABASE}.users.0]\nusername = \"{USER}\"\npassword = \"{PASSWORD}\"\npool_size = {POOL}\n"
            f"[pools.{DATABASE}.shards.0]\nservers = [[\"{HOST}\", {server.port}, \"primary\"]]\ndatabase = \"{DATABASE}\"\n")
        return self.start(name, port, self.named("PGCAT"), config)

    def pgdog(self, server, name="pgdog"):
        port = free_port()
        config = self.private(f"{name}.toml",
            f"[general]\nhost = \"{HOST}\"\nport = {port}\nworkers = 1\ndefault_pool_size = {POOL}\npooler_mode = \"transaction\"\n"
            f"auth_type = \"scram\"\nprepared_statements = \"extended\"\ntls_certificate = \"{self.certificate}\"\n"
            f"tls_private_key = \"{self.key}\"\n"
            f"[[databases]]\nname = \"{DATABASE}\"\nhost = \"{HOST}\"\nport = {server.port}\n")
        users = self.private(f"{name}-users.toml",
            f"[[users]]\nname = \"{USER}\"\ndatabase = \"{DATABASE}\"\npassword = \"{PASSWORD}\"\n")
        return self.start(name, port, self.named("PGDOG"), "--config", config, "--users", users, "run")

    @staticmethod
    def named(variable):
        program = os.environ[variable]
        if not shutil.which(program):
            raise Absent(f"{variable}={program} is no program")
        return Path(shutil.which(program)).resolve()

    # Processes and files

    def start(self, name, port, *command, **options):
        process, log = self.spawn(name, *command, **options)
        self.await_port(port, process, log)
        return Place(port, process.pid)

    def spawn(self, name, *command, **options):
        log = self.folder / f"{name}.log"
        with open(log, "w") as out:
            process = subprocess.Popen([str(part) for part in command], stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                                       start_new_session=True, cwd="/", env=ENV, **options)
        self.processes.append(process)
        return process, log

    @staticmethod
    def await_port(port, process, log):
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if process.poll() is not None:
                raise Absent(f"{Path(process.args[0]).name} ended at its start: {last_words(log)}")
            with socket.socket() as probe:
                if probe.connect_ex((HOST, port)) == 0:
                    return
            time.sleep(0.1)
        raise Absent(f"{Path(process.args[0]).name} does not listen after {START_SECONDS} s: {last_words(log)}")

    def private(self, name, text):
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return self.own(path)

    def own_folder(self, name):
        folder = self.folder / name
        folder.mkdir()
        return self.own(folder)

    @staticmethod
    def own(path):
        path.chmod(0o700 if path.is_dir() else 0o600)
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(path, user.pw_uid, user.pw_gid)
        return path

    def stop(self, *pids):
        """A graceful end, and after a while another. Without pids: everything."""
        ending = [process for process in reversed(self.processes) if not pids or process.pid in pids]
        for process in ending:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in ending:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self.processes.remove(process)

    def close(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def last_words(log):
    lines = [line.strip() for line in Path(log).read_text(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-3:]) or "it said nothing"
