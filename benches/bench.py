"""`make bench`: what pgherd costs beside its peers, in one interleaved run, written to benches/RESULTS.md.

Starts PostgreSQL servers of its own (one plain, three shards), the proxies, and pgbench. PgBouncer is always there: the
installed one, or the binary that PGBOUNCER names. Odyssey, PgCat and PgDog take part where ODYSSEY, PGCAT or PGDOG
names their binary. All of it is on loopback, in folders and on ports of its own, and gone at the end.
"""

import argparse
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import measure
import report
from client import Client
from stage import (BIN, DATABASE, HOST, PGBENCH, PGHERD, POOL_SMALL, ROOT, SHARDS, USER, Absent, Stage, first_line, pgbouncer_prepares,
                   pgbouncer_program, psql, run, unprivileged)
from workloads import COPY_ROWS, IDLE_CLIENTS, KEYS, SEVERAL, TITLES, workloads, write_scripts

SCALE = 10
RULES = f"[databases.{DATABASE}.tables.items]\nkey = \"id\"\n"
# After so many failures a load is left alone.
FAILURES_MAX = 2
CALL_ROUNDS_MAX = 3
WARM_SECONDS = 0.3


def main():
    options = arguments()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    stage = Stage()
    try:
        bench = Bench(stage, options)
        bench.rounds()
        bench.counted()
    except KeyboardInterrupt:
        sys.exit("bench: interrupted")
    except Absent as reason:
        sys.exit(f"bench: {reason}")
    finally:
        stage.close()
    text = report.page(bench.results)
    print(text)
    if options.output:
        options.output.write_text(text)
        print(f"bench: written to {options.output}")
    if bench.results.failures:
        sys.exit("bench: some of it failed:\n" + "\n".join(bench.results.failures))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2, help="of each load in each round")
    parser.add_argument("--only", default="",
                        help="loads whose names begin with one of these words, with commas between; `list` shows them")
    parser.add_argument("--no-calls", action="store_true", help="do not count system calls")
    parser.add_argument("--no-instructions", action="store_true", help="do not count instructions")
    parser.add_argument("--no-idle", action="store_true", help="do not measure idle clients")
    parser.add_argument("--output", type=Path,
                        help="where to write the page; by default benches/RESULTS.md, and nowhere when a part is left out")
    options = parser.parse_args()
    if options.only == "list":
        print("\n".join([workload.name for workload in workloads(Path(), True)] + ["idle"]))
        sys.exit()
    if not options.output and not (options.only or options.no_calls or options.no_instructions or options.no_idle):
        options.output = ROOT / "benches/RESULTS.md"
    return options


class Bench:
    def __init__(self, stage, options):
        self.stage, self.options = stage, options
        prepares = pgbouncer_prepares()
        self.results = report.Results(options.rounds, options.seconds, machine(), pgbouncer_prepares=prepares)
        write_scripts(stage.folder)
        everything = workloads(stage.folder, prepares)
        names = {name for workload in everything if self.wanted(workload.name) for name in (workload.name, workload.against)}
        self.results.workloads = [workload for workload in everything if workload.name in names]
        say("starting servers and proxies")
        stage.certify()
        self.servers()
        self.places = {"direct": self.plain, **{name: start() for name, start in self.own_places().items()}}
        self.peers()

    def wanted(self, name):
        words = [word for word in self.options.only.split(",") if word]
        return not words or any(name.startswith(word) for word in words)

    # What stands on the stage

    def servers(self):
        self.plain = self.stage.postgres("plain")
        self.shards = [self.stage.postgres(f"s{number}") for number in range(SHARDS)]
        run(PGBENCH, "-h", HOST, "-p", self.plain.port, "-U", USER, "-i", "-s", SCALE, "-q", DATABASE)
        items = "CREATE TABLE items (id bigint PRIMARY KEY, balance int NOT NULL, filler text)"
        for server in (self.plain, *self.shards):
            psql(server.port, items)
        psql(self.plain.port, "CREATE TABLE big AS SELECT n, repeat('x', 1000) AS v FROM generate_series(1, 1000) n; "
                              "CREATE UNLOGGED TABLE blobs (v text); CREATE UNLOGGED TABLE loaded (id int, x int, v text)")
        self.csv = self.stage.folder / "loaded.csv"
        self.csv.write_text("".join(f"{row},{row % 1000},{'x' * 80}\n" for row in range(COPY_ROWS)))
        psql(self.plain.port, f"CREATE UNLOGGED TABLE stored AS SELECT n AS id, n % 1000 AS x, repeat('x', 80) AS v "
                              f"FROM generate_series(0, {COPY_ROWS - 1}) n")

    def own_places(self):
        """pgherd in its several sizes, and what is always beside it."""
        stage, plain = self.stage, [self.plain]
        places = {
            "pgherd": lambda: stage.pgherd("pgherd", plain),
            "pgherd-few": lambda: stage.pgherd("pgherd-few", plain, pool=POOL_SMALL),
            "pgherd-two": lambda: stage.pgherd("pgherd-two", plain, workers=2),
            "pgherd-two-few": lambda: stage.pgherd("pgherd-two-few", plain, workers=2, pool=POOL_SMALL),
            "pgherd-routed": self.routed,
            "pgbouncer": lambda: stage.pgbouncer("pgbouncer", self.plain),
            "floor": lambda: stage.floor(self.plain),
            "tokio": lambda: stage.floor(self.plain, "floor_tokio"),
        }
        if not self.results.pgbouncer_prepares:
            places["pgbouncer-session"] = lambda: stage.pgbouncer("pgbouncer-session", self.plain, "session")
        return places

    def routed(self):
        place = self.stage.pgherd("pgherd-routed", self.shards, tables=RULES)
        rows = self.stage.folder / "items.sql"
        rows.write_text("".join(f"INSERT INTO items VALUES ({key}, {key * 7}, '{'y' * 80}');\n" for key in range(1, KEYS + 1)))
        psql(place.port, "", file=rows)
        psql(self.plain.port, f"INSERT INTO items SELECT n, n * 7, repeat('y', 80) FROM generate_series(1, {KEYS}) n")
        for server in (self.plain, *self.shards):
            psql(server.port, "VACUUM ANALYZE")
        return place

    def peers(self):
        self.results.programs = [first_line(program, "--version") for program in (BIN / "postgres", PGHERD, pgbouncer_program())]
        unnamed = []
        for name in SEVERAL:
            if name.upper() not in os.environ:
                unnamed.append(TITLES[name])
                continue
            try:
                place = getattr(self.stage, name)(self.plain)
                Client(place.port).close()
                self.places[name] = place
                self.results.programs.append(f"{TITLES[name]}: {first_line(os.environ[name.upper()], '--version')}")
            except (Absent, RuntimeError, OSError) as reason:
                self.fail(TITLES[name], f"takes no part: {reason}")
        if unnamed:
            self.results.notes.append(f"Not in this run, because no variable names a binary: {', '.join(unnamed)}.")
        if "pgcat" in self.places:
            self.results.notes.append("PgCat logs clients in by md5; it has no SCRAM for them.")

    # Rounds

    def rounds(self):
        failures = {}
        for number in range(-1, self.options.rounds):
            begun = time.monotonic()
            for workload in self.results.workloads:
                columns = [column for column in workload.columns
                           if workload.place(column) in self.places and failures.get((workload.name, column), 0) < FAILURES_MAX]
                for column in columns if number % 2 else reversed(columns):
                    sample = self.sample(workload, column, number, failures)
                    # The first round only warms up.
                    if number >= 0:
                        self.results.samples.setdefault((workload.name, column), []).append(sample)
            done = "warmed up" if number < 0 else f"round {number + 1} of {self.options.rounds} is done"
            say(f"{done}, {time.monotonic() - begun:.0f} s")

    def sample(self, workload, column, number, failures):
        try:
            return self.measure(workload, self.places[workload.place(column)], self.options.seconds if number >= 0 else WARM_SECONDS)
        except (RuntimeError, OSError) as error:
            # A round that only warms up may be too short for something; what is wrong will be wrong again.
            if number >= 0:
                failures[workload.name, column] = failures.get((workload.name, column), 0) + 1
                self.fail(f"{workload.title} through {TITLES[column]}, round {number + 1}", error)

    def measure(self, workload, place, seconds):
        if workload.before:
            psql(self.plain.port, workload.before)
        if workload.kind == "copy":
            way = f"loaded FROM '{self.csv}'" if workload.name == "copy-in" else "stored TO '/dev/null'"
            return measure.copy(place, f"\\copy {way} (FORMAT csv)", self.csv.stat().st_size, seconds)
        if workload.kind == "beside":
            return measure.beside(self.stage, place, workload.arguments, workload.clients, seconds)
        return measure.pgbench(self.stage, place, workload.arguments, workload.clients, seconds, workload.sslmode)

    # Figures that are counted in runs of their own

    def counted(self):
        if not self.options.no_calls:
            self.count_calls()
        if not self.options.no_instructions:
            self.count_instructions()
        if not self.options.no_idle and self.wanted("idle"):
            self.measure_idle()

    def count_calls(self):
        """How many events one wait finds depends on what else the machine does: those of the targets are counted more often."""
        say("counting system calls")
        for number in range(min(CALL_ROUNDS_MAX, self.options.rounds)):
            for workload in self.results.workloads:
                if not workload.calls or (number and workload.table != "select"):
                    continue
                for column in workload.columns if number % 2 else reversed(workload.columns):
                    place = self.places.get(workload.place(column))
                    if place and place.pid:
                        with self.failing(f"system calls, {workload.title} through {TITLES[column]}"):
                            counted = measure.calls(self.stage, place, workload.arguments, workload.clients, workload.calls)
                            self.results.calls.setdefault((workload.name, column), []).append(counted)

    def count_instructions(self):
        """pgherd's and PgBouncer's; each place is started once more, under callgrind."""
        stage, plain = self.stage, self.plain
        starts = {
            "pgherd": lambda prefix: stage.pgherd("pgherd-callgrind", [plain], under=prefix),
            "pgherd-routed": lambda prefix: stage.pgherd("pgherd-routed-callgrind", self.shards, tables=RULES, under=prefix),
            "pgbouncer": lambda prefix: stage.pgbouncer("pgbouncer-callgrind", plain, under=prefix),
            "pgbouncer-session": lambda prefix: stage.pgbouncer("pgbouncer-session-callgrind", plain, "session", under=prefix),
        }
        for name, start in starts.items():
            loads = [(workload, column) for workload in self.results.workloads if workload.instructions
                     for column in workload.columns if workload.place(column) == name]
            if not loads:
                continue
            say(f"counting instructions of {name}")
            with self.failing(f"instructions of {name}"):
                grind = measure.Callgrind(self.stage, name, unprivileged() if name.startswith("pgbouncer") else {})
                place = start(grind.prefix)
                for workload, column in loads:
                    self.results.instructions[workload.name, column] = grind.instructions(
                        place, workload.arguments, workload.clients, workload.instructions)
                self.stage.stop(place.pid)

    def measure_idle(self):
        clients = min(IDLE_CLIENTS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500)
        say(f"{clients} idle clients")
        starts = {"pgherd": lambda: self.stage.pgherd("pgherd-idle", [self.plain]),
                  "pgbouncer": lambda: self.stage.pgbouncer("pgbouncer-idle", self.plain)}
        for name in filter(self.places.get, SEVERAL):
            starts[name] = lambda name=name: getattr(self.stage, name)(self.plain, f"{name}-idle")
        for name, start in starts.items():
            with self.failing(f"idle clients of {TITLES[name]}"):
                place = start()
                self.results.idle[name] = clients, measure.idle(place, clients)
                self.stage.stop(place.pid)

    def failing(self, what):
        return Failing(self, what)

    def fail(self, what, error):
        told = f"{what}: {' '.join(str(error).split())[:300]}"
        self.results.failures.append(told)
        say(told)


class Failing:
    """What goes wrong within is told, and the run goes on."""

    def __init__(self, bench, what):
        self.bench, self.what = bench, what

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        if kind and issubclass(kind, (RuntimeError, OSError, Absent, subprocess.SubprocessError)):
            self.bench.fail(self.what, error)
            return True
        return False


def machine():
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{model}, {os.cpu_count()} processors, Linux {platform.release()}"


def say(text):
    print(f"bench: {text}", flush=True)


if __name__ == "__main__":
    main()
