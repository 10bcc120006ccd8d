"""One figure at a time, from outside of what is measured: /proc and clocks for CPU, pgbench for load and latency,
strace for system calls, callgrind for instructions. Nothing is asked of the proxies themselves.
"""

import contextlib
import re
import signal
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from client import Client, Neighbours
from stage import BIN, DATABASE, ENV, HOST, PGBENCH, USER, run

LOOK_SECONDS = 0.02
# At the start of a load connections warm up, at its end they are closed: neither is in the window that counts.
EDGE_SECONDS = 0.05
TRANSACTIONS_MIN = 10
# Rarer system calls are in the total only.
CALLS_TOLD_MIN = 0.05
STREAM = "SELECT n, repeat('x', 50) FROM generate_series(1, 1000000) n"
LOGINS_PER_SECOND = 50
# What a client may take to connect, when all connect one after the other: most of it is pgbench's part of SCRAM.
CONNECT_SECONDS = 0.02
LATE_SECONDS = 60
LOAD_SECONDS_MAX = 600


@dataclass
class Sample:
    """Of one load: units (transactions, or MB) a second; CPU in µs a unit; latency in µs; each worker's share of the work.

    User and system time are known in ticks only, too coarse for one load: the rounds' ticks together divide the CPU.
    """
    rate: float
    cpu: float | None = None
    user_ticks: int = 0
    system_ticks: int = 0
    p50: float | None = None
    p99: float | None = None
    shares: list = field(default_factory=list)


@dataclass
class Look:
    """What a process has used until now."""
    time: float
    total: float = 0
    user: int = 0
    system: int = 0
    workers: tuple = ()


def look(pid):
    now = time.time()
    if pid is None:
        return Look(now)
    # The kernel's number of another process's CPU clock; it counts in nanoseconds, where /proc has ticks of 10 ms.
    total = time.clock_gettime((~pid << 3) | 2)
    user, system = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return Look(now, total, int(user), int(system), workers(pid))


def workers(pid):
    """CPU of the threads of pgherd that serve clients."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            name = (task / "comm").read_text().strip()
            if name.startswith("worker-"):
                found.append((name, int((task / "schedstat").read_text().split()[0])))
    return tuple(used for _, used in sorted(found))


def with_cpu(sample, place, before, after, units):
    if place.pid:
        sample.cpu = (after.total - before.total) * 1e6 / units
        sample.user_ticks, sample.system_ticks = after.user - before.user, after.system - before.system
        used = [late - early for early, late in zip(before.workers, after.workers)]
        sample.shares = [part / sum(used) for part in used] if sum(used) else []
    return sample


def pgbench_command(place, arguments):
    return [PGBENCH, "-h", HOST, "-p", str(place.port), "-U", USER, "-n", *map(str, arguments)]


def pgbench(stage, place, arguments, clients, seconds, sslmode="disable"):
    """Its own clock counts connecting too, which takes a crowd seconds, so it is told when to end: by the signal of that clock."""
    said, prefix = stage.folder / "pgbench-said", stage.folder / "pgbench-log"
    command = [*pgbench_command(place, arguments), "-T", str(LOAD_SECONDS_MAX), "--log", f"--log-prefix={prefix}", DATABASE]
    looks = []
    with open(said, "w") as out, ended(subprocess.Popen(command, stdout=out, stderr=out, env={**ENV, "PGSSLMODE": sslmode})) as process:
        log = Path(f"{prefix}.{process.pid}")
        late = time.monotonic() + 1 + clients * CONNECT_SECONDS
        until = None
        while process.poll() is None:
            looks.append(look(place.pid))
            now = time.monotonic()
            # The first lines of the log; where they are long in coming, because it is written by the block, a while.
            if until is None and (now > late or (log.exists() and log.stat().st_size)):
                until = now + seconds
            if until is not None and now > until + LATE_SECONDS:
                raise RuntimeError(f"pgbench did not end within {LATE_SECONDS} s: {said.read_text()}")
            if until is not None and now > until:
                process.send_signal(signal.SIGALRM)
            time.sleep(LOOK_SECONDS)
    text = said.read_text()
    transactions = [transaction(line) for line in log.read_text().splitlines()] if log.exists() else []
    log.unlink(missing_ok=True)
    failed = re.search(r"failed transactions: (\d+)", text)
    if process.returncode != 0 or (failed and int(failed[1])):
        raise RuntimeError(" / ".join(line for line in text.splitlines() if "error" in line or "FATAL" in line) or text)
    return window(place, transactions, looks)


@contextlib.contextmanager
def ended(process):
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def transaction(line):
    """When it ended, and what it took, in µs."""
    _, _, took, _, seconds, microseconds, *_ = line.split()
    return int(seconds) + int(microseconds) / 1e6, int(took)


def window(place, transactions, looks):
    """What happened between two looks, a little within the load."""
    if len(transactions) < TRANSACTIONS_MIN:
        raise RuntimeError(f"only {len(transactions)} transactions: too few to measure")
    begin, end = min(transactions)[0] + EDGE_SECONDS, max(transactions)[0] - EDGE_SECONDS
    inside = [one for one in looks if begin <= one.time <= end]
    if place.pid is None:
        inside = [Look(begin), Look(end)]
    if len(inside) < 2:
        raise RuntimeError("the load was too short to measure")
    first, last = inside[0], inside[-1]
    took = sorted(took for at, took in transactions if first.time < at <= last.time)
    if len(took) < TRANSACTIONS_MIN:
        raise RuntimeError(f"only {len(took)} transactions: too few to measure")
    sample = Sample(len(took) / (last.time - first.time), p50=took[len(took) // 2], p99=took[int(len(took) * 0.99)])
    return with_cpu(sample, place, first, last, len(took))


def beside(stage, place, arguments, clients, seconds):
    """The load, with a stream and logins for company."""
    with Neighbours(place.port, STREAM, LOGINS_PER_SECOND) as neighbours:
        time.sleep(0.3)
        sample = pgbench(stage, place, arguments, clients, seconds)
    if neighbours.error:
        raise RuntimeError(f"the neighbours: {neighbours.error}")
    return sample


def copy(place, command, file_bytes, seconds):
    """COPY through psql, as often as there is time for. The unit is a MB of the file."""
    psql = [BIN / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", HOST, "-p", place.port, "-U", USER, "-d", DATABASE]
    first, count = look(place.pid), 0
    while count == 0 or time.time() - first.time < seconds:
        run(*psql, "-c", command)
        count += 1
    last, megabytes = look(place.pid), count * file_bytes / 1e6
    return with_cpu(Sample(megabytes / (last.time - first.time)), place, first, last, megabytes)


def count_twice(count, place, arguments, clients, lengths):
    """Loads of two lengths, subtracted: logging in and warming up are in both."""
    counts = [count(lambda: run(*pgbench_command(place, arguments), "-t", length, DATABASE)) for length in lengths]
    return lambda part: (part(counts[1]) - part(counts[0])) / ((lengths[1] - lengths[0]) * clients)


def calls(stage, place, arguments, clients, lengths):
    """System calls of the process for each transaction: all, and by name."""
    def count(load):
        summary, said = stage.folder / "strace", stage.folder / "strace-said"
        with open(said, "w") as out, ended(subprocess.Popen(
                ["strace", "-f", "-c", "-U", "name,calls", "-o", summary, "-p", str(place.pid)], stderr=out, env=ENV)) as process:
            until = time.monotonic() + 5
            while "attached" not in said.read_text():
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(said.read_text().strip() or "strace does not attach")
                time.sleep(0.05)
            time.sleep(0.2)
            load()
            process.send_signal(signal.SIGINT)
            process.wait(10)
        rows = [line.split() for line in summary.read_text().splitlines()]
        counts = {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}
        names.update(counts)
        return counts

    names = set()
    each = count_twice(count, place, arguments, clients, lengths)
    parts = {name: each(lambda counts: counts.get(name, 0)) for name in names}
    if "total" not in parts:
        raise RuntimeError("strace counted nothing")
    return parts.pop("total"), {name: part for name, part in parts.items() if part >= CALLS_TOLD_MIN}


class Callgrind:
    """A process that runs under callgrind. `prefix` is put in front of its command, `instructions` asks it.

    vgdb has to run as the same user (`owner`), or the process waits for it forever.
    """

    REPEATS = 3

    def __init__(self, stage, name, owner):
        self.owner = owner
        self.folder = stage.own_folder(f"callgrind-{name}")
        self.dumps = 0
        self.prefix = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={self.folder}/out", f"--vgdb-prefix={self.folder}/gdb"]

    def dump(self, pid):
        """What was executed since the last dump."""
        run("vgdb", f"--vgdb-prefix={self.folder}/gdb", f"--pid={pid}", "dump", **self.owner)
        self.dumps += 1
        file = self.folder / f"out.{self.dumps}"
        found = re.search(r"^(?:totals|summary): *(\d+)", file.read_text(), re.M)
        file.unlink()
        if not found:
            raise RuntimeError("callgrind's dump has no total")
        return int(found[1])

    def instructions(self, place, arguments, clients, lengths):
        """The middle one of a few: a server may be logged in to during any of the runs, and in either of two that are subtracted."""
        def count(load):
            self.dump(place.pid)
            load()
            return self.dump(place.pid)

        run(*pgbench_command(place, arguments), "-t", lengths[1], DATABASE)
        return statistics.median(count_twice(count, place, arguments, clients, lengths)(lambda total: total) for _ in range(self.REPEATS))


def idle(place, clients):
    """Resident KiB for each client that has logged in, run one statement, and then says nothing."""
    resident = lambda: int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{place.pid}/status").read_text())[1])
    first = Client(place.port)
    first.query("SELECT 1")
    before, sessions = resident(), []
    try:
        for _ in range(clients):
            sessions.append(Client(place.port))
        for session in sessions:
            session.query("SELECT 1")
        time.sleep(1)
        return (resident() - before) / clients
    finally:
        for session in (first, *sessions):
            session.close()
