"""CPU per transaction of pgherd and of PgBouncer, in one interleaved run: `make bench` writes benches/RESULTS.md.

Starts PostgreSQL servers of its own (one plain, three shards), both proxies, and pgbench; all on loopback TCP, all in
folders and on ports of their own, all removed at the end. CPU is that of the proxy's process, from /proc, over the
whole of each pgbench run; it moves little when the machine is busy with other things, and ratios within one run move
least. Each proxy is started in a session of its own, as a service manager would: the scheduler groups by session.
"""

import argparse
import os
import platform
import pwd
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TICK = os.sysconf("SC_CLK_TCK")
USER, PASSWORD, DATABASE = "bench", "bench secret", "bench"
POOL = 20
KEYS = 3000
SHARDS = 3


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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
ENV = {**os.environ, "PGPASSWORD": PASSWORD, "LC_ALL": "C"}


def unprivileged():
    """Neither PostgreSQL nor PgBouncer runs as root."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=ENV, cwd="/", **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def psql(port, text, database=DATABASE, file=None):
    source = ["-f", file] if file else ["-c", text]
    return run(BIN / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", port, "-U", USER, "-d", database, *source)


def await_port(port, process, log):
    for _ in range(200):
        if process.poll() is not None:
            sys.exit(f"bench: {process.args[0]} ended:\n{Path(log).read_text()}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    sys.exit(f"bench: nothing listens on port {port}:\n{Path(log).read_text()}")


class Stage:
    """All processes and files of a run."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="pgherd-bench-"))
        self.folder.chmod(0o755)
        self.processes = []

    def spawn(self, name, *command, **options):
        log = self.folder / f"{name}.log"
        with open(log, "w") as out:
            process = subprocess.Popen([str(part) for part in command], stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                                       start_new_session=True, cwd="/", env=ENV, **options)
        self.processes.append(process)
        return process, log

    def own(self, path):
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(path, user.pw_uid, user.pw_gid)
        return path

    def postgres(self, name):
        folder = self.folder / name
        folder.mkdir()
        self.own(folder)
        secret = folder / "pw"
        secret.write_text(PASSWORD)
        self.own(secret)
        data, port = folder / "data", free_port()
        run(BIN / "initdb", "-D", data, "-U", USER, f"--pwfile={secret}", "-A", "scram-sha-256", "--no-sync", "-E", "UTF8",
            "--locale=C", **unprivileged())
        with open(data / "postgresql.conf", "a") as conf:
            conf.write(f"port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\n"
                       "max_connections = 300\nshared_buffers = 128MB\nmax_prepared_transactions = 100\nwal_level = logical\n")
        process, log = self.spawn(name, BIN / "postgres", "-D", data, **unprivileged())
        await_port(port, process, log)
        for _ in range(100):
            try:
                psql(port, f"CREATE DATABASE {DATABASE}", "postgres")
                break
            except RuntimeError as error:
                if "starting up" not in str(error):
                    raise
                time.sleep(0.1)
        return port

    def pgbouncer(self, server, mode):
        program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
        port = free_port()
        users = self.folder / "users.txt"
        users.write_text(f'"{USER}" "{PASSWORD}"\n')
        config = self.folder / f"pgbouncer-{mode}.ini"
        config.write_text(
            f"[databases]\n{DATABASE} = host=127.0.0.1 port={server} user={USER} password='{PASSWORD}'\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {users}\n"
            f"pool_mode = {mode}\ndefault_pool_size = {POOL}\nmax_client_conn = 1000\nlog_connections = 0\nlog_disconnections = 0\n")
        process, log = self.spawn(f"pgbouncer-{mode}", program, config, **unprivileged())
        await_port(port, process, log)
        return port, process.pid

    def pgherd(self, name, servers, workers, tables=""):
        port, http = free_port(), free_port()
        users = self.folder / "users.txt"
        users.write_text(f'"{USER}" "{PASSWORD}"\n')
        shards = "".join(
            f"[[databases.{DATABASE}.shards]]\nname = \"s{number}\"\nprimary = \"host=127.0.0.1 port={server} dbname={DATABASE} "
            f"user={USER} password='{PASSWORD}' sslmode=disable\"\n" for number, server in enumerate(servers))
        config = self.folder / f"{name}.toml"
        config.write_text(
            f"[proxy]\nlisten = [\"127.0.0.1:{port}\"]\nhttp = \"127.0.0.1:{http}\"\nworkers = {workers}\n"
            f"[auth]\nmethod = \"scram-sha-256\"\nusers_file = \"{users}\"\n"
            f"[databases.{DATABASE}]\npool = {{ size = {-(-POOL // len(servers))} }}\n{shards}{tables}")
        users.chmod(0o600)
        program = ROOT / "target/release/pgherd"
        if len(servers) > 1:
            run(program, "init", "--config", config)
        process, log = self.spawn(name, program, "run", "--config", config)
        await_port(port, process, log)
        users.chmod(0o644)
        return port, process.pid

    def close(self):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in reversed(self.processes):
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def cpu(pid):
    """User and system ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]), int(fields[12])


def measure(port, pid, arguments, seconds):
    """Transactions per second and CPU in microseconds for each: user, system."""
    before = cpu(pid)
    said = run(PGBENCH, "-h", "127.0.0.1", "-p", port, "-U", USER, "-n", "-T", seconds, *arguments, DATABASE)
    after = cpu(pid)
    count = int(re.search(r"actually processed: (\d+)", said)[1])
    failed = re.search(r"failed transactions: (\d+)", said)
    if count == 0 or (failed and int(failed[1])):
        raise RuntimeError(said)
    tps = float(re.search(r"tps = ([\d.]+)", said)[1])
    return (tps, *((late - early) * 1e6 / TICK / count for early, late in zip(before, after)))


def row(samples):
    total = [user + system for _, user, system in samples]
    middle = statistics.median
    return (middle(total), min(total), max(total), middle(user for _, user, _ in samples), middle(system for _, _, system in samples),
            middle(tps for tps, _, _ in samples))


def machine():
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    version = lambda *command: subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[0].strip()
    return (f"{model}, {os.cpu_count()} processors, Linux {platform.release()}; {version(str(BIN / 'postgres'), '--version')}; "
            f"{version(shutil.which('pgbouncer') or '/usr/sbin/pgbouncer', '--version')}; "
            f"{version(str(ROOT / 'target/release/pgherd'), '--version')}")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--seconds", type=int, default=4)
    options.add_argument("--output", type=Path, default=ROOT / "benches/RESULTS.md")
    options = options.parse_args()
    stage = Stage()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        results = compare(stage, options)
    except KeyboardInterrupt:
        sys.exit("bench: interrupted")
    finally:
        stage.close()
    write(results, options)
    failed = [result["what"] for result in results if "error" in result]
    if failed:
        sys.exit(f"bench: these failed: {', '.join(failed)}")


def compare(stage, options):
    print("bench: starting servers and proxies", flush=True)
    plain = stage.postgres("plain")
    shards = [stage.postgres(f"s{number}") for number in range(SHARDS)]
    run(PGBENCH, "-h", "127.0.0.1", "-p", plain, "-U", USER, "-i", "-s", 3, "-q", DATABASE)
    psql(plain, "CREATE TABLE big AS SELECT n, repeat('x', 1000) AS v FROM generate_series(1, 1000) n")
    psql(plain, "VACUUM ANALYZE")
    for port in shards:
        psql(port, "CREATE TABLE items (id bigint PRIMARY KEY, balance int NOT NULL, filler text)")
    rules = f"[databases.{DATABASE}.tables.items]\nkey = \"id\"\n"
    bouncer = stage.pgbouncer(plain, "transaction")
    session = stage.pgbouncer(plain, "session")
    herd = stage.pgherd("pgherd", [plain], 1)
    two = stage.pgherd("pgherd-two", [plain], 2)
    routed = stage.pgherd("pgherd-routed", shards, 1, rules)
    rows = stage.folder / "items.sql"
    rows.write_text("".join(f"INSERT INTO items VALUES ({key}, {key * 7}, '{'y' * 80}');\n" for key in range(1, KEYS + 1)))
    psql(routed[0], "", file=rows)
    for port in shards:
        psql(port, "VACUUM ANALYZE items")

    script = lambda name, text: (stage.folder / name).write_text(text) and str(stage.folder / name)
    one = script("one.sql", "SELECT 1;\n")
    big = script("big.sql", "SELECT * FROM big;\n")
    key = script("key.sql", f"\\set id random(1, {KEYS})\nSELECT balance FROM items WHERE id = :id;\n")
    select, crowd = ["-S", "-c", 10], ["-S", "-c", 50]
    workloads = [
        ("select-only, simple", select, herd, bouncer, select),
        ("select-only, simple, 50 clients", crowd, herd, bouncer, None),
        ("select-only, extended", [*select, "-M", "extended"], herd, bouncer, None),
        ("select-only, prepared (PgBouncer in session mode)", [*select, "-M", "prepared"], herd, session, None),
        ("`SELECT 1`", ["-f", one, "-c", 10], herd, bouncer, None),
        ("1 MB result", ["-f", big, "-c", 2], herd, bouncer, None),
        ("connection and select (SCRAM)", ["-S", "-C", "-c", 10], herd, bouncer, None),
        ("select-only, simple, 2 workers", select, two, bouncer, None),
        ("routed by key over 3 shards, simple (against select-only, simple)", ["-f", key, "-c", 10], routed, bouncer, select),
        ("routed by key over 3 shards, prepared (against select-only, simple)", ["-f", key, "-c", 10, "-M", "prepared"], routed, bouncer, select),
        ("routed by key over 3 shards, prepared, 50 clients (against select-only, simple, 50 clients)",
         ["-f", key, "-c", 50, "-M", "prepared"], routed, bouncer, crowd),
    ]
    results = []
    for what, arguments, ours, theirs, other in workloads:
        results.append({"what": what, "ours": [], "theirs": [], "arguments": arguments, "other": other or arguments,
                        "targets": (ours, theirs)})
    for number in range(-1, options.rounds):
        for result in results:
            if "error" in result:
                continue
            # The first round only warms up.
            seconds = options.seconds if number >= 0 else 1
            try:
                pair = [("ours", result["targets"][0], result["arguments"]), ("theirs", result["targets"][1], result["other"])]
                for name, (port, pid), arguments in pair if number % 2 else reversed(pair):
                    sample = measure(port, pid, arguments, seconds)
                    if number >= 0:
                        result[name].append(sample)
            except RuntimeError as error:
                result["error"] = str(error)
                print(f"bench: {result['what']} failed:\n{error}", flush=True)
        print(f"bench: round {number + 1} of {options.rounds} is done", flush=True)
    return results


def write(results, options):
    lines = [
        "# What a transaction costs", "",
        "Written by `make bench`; do not edit. CPU is that of the proxy's process in microseconds for each transaction: median (least–most) of",
        f"{options.rounds} interleaved rounds of {options.seconds} seconds. The ratio is that of the medians of pgherd and PgBouncer; below 1 pgherd is cheaper.",
        "Both have one worker thread (where the line does not say otherwise), a pool of 20 in transaction mode (over three shards 7 for each, so",
        "the servers have as many connections in all), SCRAM on both sides, and TCP on loopback; pgherd serves its metrics meanwhile. PgBouncer 1.18 of Debian 12 has no prepared statements in transaction mode, so there it is",
        "compared in session mode.", "",
        f"Machine: {machine()}.", "",
        "| workload | pgherd, CPU µs | user | system | tps | PgBouncer, CPU µs | user | system | tps | ratio |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for result in results:
        if "error" in result or not result["ours"]:
            lines.append(f"| {result['what']} | failed | | | | | | | | |")
            continue
        ours, theirs = row(result["ours"]), row(result["theirs"])
        figures = " | ".join(f"{total:.1f} ({least:.1f}–{most:.1f}) | {user:.1f} | {system:.1f} | {tps:.0f}"
                             for total, least, most, user, system, tps in (ours, theirs))
        lines.append(f"| {result['what']} | {figures} | {ours[0] / theirs[0]:.2f} |")
    text = "\n".join(lines) + "\n"
    options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
