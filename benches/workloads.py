"""What is measured: each load, who bears it, and how it is told."""

from dataclasses import dataclass

SEVERAL = ("odyssey", "pgcat", "pgdog")
PROXIES = ("pgherd", "pgbouncer", *SEVERAL)
ALL = (*PROXIES, "floor", "direct")
WITH_FLOORS = (*PROXIES, "floor", "tokio", "direct")

TITLES = {"pgherd": "pgherd", "two": "pgherd, 2 workers", "pgbouncer": "PgBouncer", "odyssey": "Odyssey", "pgcat": "PgCat",
          "pgdog": "PgDog", "floor": "floor", "tokio": "floor of tokio", "direct": "direct"}
PROTOCOLS = ("simple", "extended", "prepared")
CROWDS = (1, 10, 50, 200)
CROWD_MAX = 1000
# Many more than the plans that pgherd keeps: a text with a key in it is seldom seen twice.
KEYS = 20_000
COPY_ROWS = 200_000
PIPELINE = 100
IDLE_CLIENTS = 5000
# Transactions of each client, in the two runs that are subtracted.
SHORT_RUNS, RUNS, BIG_RUNS = (10, 60), (50, 450), (10, 110)

SCRIPTS = {
    "one": "SELECT 1;\n",
    "big": "SELECT * FROM big;\n",
    "insert": f"INSERT INTO blobs VALUES ('{'x' * 65536}');\n",
    "pipeline": "\\set aid random(1, 100000)\n\\startpipeline\n" + "SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n" * PIPELINE
                + "\\endpipeline\n",
    "key": f"\\set id random(1, {KEYS})\nSELECT balance FROM items WHERE id = :id;\n",
    # 50 to 100 rows.
    "some": f"\\set least random({KEYS * 7 - 700}, {KEYS * 7 - 350})\nSELECT id, balance FROM items WHERE balance > :least;\n",
}


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    table: str
    columns: tuple
    arguments: tuple = ()
    clients: int = 10
    kind: str = "pgbench"
    # Columns whose load is put somewhere else than to the process of their name.
    places: tuple = ()
    # PgBouncer's part is taken from this workload: it has no such thing itself.
    against: str = ""
    # SQL that is run on the plain server before each sample.
    before: str = ""
    sslmode: str = "disable"
    calls: tuple = ()
    instructions: tuple = ()

    def place(self, column):
        return dict(self.places).get(column, column)


def write_scripts(folder):
    for name, text in SCRIPTS.items():
        (folder / f"{name}.sql").write_text(text)


def workloads(folder, pgbouncer_prepares):
    """All of them, in the order in which they are told; their scripts are in `folder`."""
    def load(name, title, table, columns, script, clients=10, protocol="simple", **more):
        return Workload(name, title, table, columns, (*script, "-M", protocol, "-c", clients), clients, **more)

    one, big, insert, pipeline, key, some = (("-f", folder / f"{name}.sql") for name in SCRIPTS)
    select = ("-S",)
    found = []
    for protocol in PROTOCOLS:
        # Before 1.21 PgBouncer knows no prepared statements in transaction mode.
        session = (("pgbouncer", "pgbouncer-session"),) if protocol == "prepared" and not pgbouncer_prepares else ()
        for clients in CROWDS:
            columns = WITH_FLOORS if clients in (10, 50) else (*PROXIES, "direct")
            found.append(load(f"{protocol}-{clients}", f"select-only, {protocol}, {people(clients)}", "select", columns, select, clients,
                              protocol, places=session, calls=RUNS if clients == 10 else (),
                              instructions=RUNS if clients == 10 else ()))
    found += [
        load("tpcb", "TPC-B, simple, 10 clients", "other", ALL, (), calls=SHORT_RUNS),
        load("one", "`SELECT 1`, simple, 10 clients", "other", ALL, one, calls=RUNS),
        load("big", "1 MB result, 2 clients", "other", ALL, big, 2, calls=BIG_RUNS, instructions=BIG_RUNS),
        load("insert", "64 KB insert, 2 clients", "other", ALL, insert, 2, before="TRUNCATE blobs", calls=BIG_RUNS),
        load("pipeline", f"pipeline of {PIPELINE} selects, extended, 10 clients", "other", ALL, pipeline, 10, "extended", calls=SHORT_RUNS),
        load("churn", "connection and select, SCRAM, 10 clients", "login", (*PROXIES, "direct"), ("-S", "-C")),
        load("churn-tls", "the same over TLS", "login", (*PROXIES, "direct"), ("-S", "-C"), sslmode="require"),
        Workload("copy-in", "COPY in, by MB", "copy", ALL, kind="copy", before="TRUNCATE loaded"),
        Workload("copy-out", "COPY out, by MB", "copy", ALL, kind="copy"),
    ]
    for protocol in PROTOCOLS:
        for clients in (10, 50):
            found.append(load(f"routed-{protocol}-{clients}", f"by key, {protocol}, {people(clients)}", "routed", ("pgherd",), key, clients,
                              protocol, places=(("pgherd", "pgherd-routed"),), against=f"{protocol}-{clients}",
                              calls=RUNS if clients == 10 else (), instructions=RUNS if clients == 10 else ()))
    found.append(load("scatter", "plain projection, simple, 10 clients", "routed", ("pgherd", "floor", "direct"), some,
                      places=(("pgherd", "pgherd-routed"),), calls=SHORT_RUNS))
    for clients in (1, 10, 50, CROWD_MAX):
        found.append(load(f"workers-{clients}", people(clients), "workers", ("pgherd", "two"), select, clients,
                          places=(("two", "pgherd-two"),)))
    found.append(load("workers-few", "50 clients, 3 server connections", "workers", ("pgherd", "two"), select, 50,
                      places=(("pgherd", "pgherd-few"), ("two", "pgherd-two-few"))))
    found += [
        load("alone", "alone", "beside", (*PROXIES, "direct"), select),
        load("beside", "beside a stream of a million rows and 50 logins a second", "beside", (*PROXIES, "direct"), select, kind="beside"),
    ]
    return found


def people(count):
    return "1 client" if count == 1 else f"{count} clients"
