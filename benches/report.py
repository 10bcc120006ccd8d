"""The figures of a run as a page: the targets first, then a table for each question, each with a sentence on what it shows."""

import statistics
import textwrap
from dataclasses import dataclass, field

from measure import LOGINS_PER_SECOND
from stage import POOL, POOL_SMALL, SHARDS
from workloads import COPY_ROWS, IDLE_CLIENTS, KEYS, PIPELINE, PROTOCOLS, TITLES

LINE_MAX = 130


@dataclass
class Results:
    """By workload's name and column. A round that failed is None in `samples`, so that rounds can be paired."""
    rounds: int
    seconds: float
    machine: str = ""
    programs: list = field(default_factory=list)
    pgbouncer_prepares: bool = True
    workloads: list = field(default_factory=list)
    samples: dict = field(default_factory=dict)
    calls: dict = field(default_factory=dict)
    instructions: dict = field(default_factory=dict)
    idle: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)
    failures: list = field(default_factory=list)

    def values(self, name, column, figure):
        return [getattr(sample, figure) if sample else None for sample in self.samples.get((name, column), [])]

    def middle(self, name, column, figure):
        values = known(self.values(name, column, figure))
        return statistics.median(values) if values else None

    def parts(self, name, column):
        """The CPU's middle, divided into user and system."""
        samples = known(self.samples.get((name, column), []))
        cpu = self.middle(name, column, "cpu")
        ticks = [sum(getattr(sample, part) for sample in samples) for part in ("user_ticks", "system_ticks")]
        return [cpu * part / sum(ticks) if cpu is not None and sum(ticks) else None for part in ticks]

    def ratios(self, figure, ours, theirs):
        """Of each round: what the machine was busy with besides is in both. A place is a workload's name and a column."""
        pairs = zip(self.values(*ours, figure), self.values(*theirs, figure))
        return [one / other for one, other in pairs if one is not None and other]

    def columns(self, table):
        """Those of a table that were measured, in the order of TITLES."""
        there = {column for workload in self.workloads if workload.table == table
                 for column in workload.columns if known(self.samples.get((workload.name, column), []))}
        return [column for column in TITLES if column in there]


def known(values):
    return [value for value in values if value is not None]


# Cells

def number(value, digits=None):
    if value is None:
        return "–"
    if digits is None:
        digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


def spread(values, digits=None):
    """Median (least–most)."""
    values = known(values)
    if not values:
        return "–"
    middle = number(statistics.median(values), digits)
    return middle if len(values) == 1 else f"{middle} ({number(min(values), digits)}–{number(max(values), digits)})"


def table(head, rows):
    if not rows:
        return ["Not measured in this run.", ""]
    return [f"| {' | '.join(head)} |", "|" + "|".join(["---"] + ["--:"] * (len(head) - 1)) + "|",
            *(f"| {' | '.join(row)} |" for row in rows), ""]


def prose(text):
    return [*textwrap.wrap(" ".join(text.split()), LINE_MAX, break_long_words=False, break_on_hyphens=False), ""]


# The page

def page(results):
    lines = ["# What a transaction costs", "", *prose(opening(results)),
             *prose(f"Machine: {results.machine}."), *(f"- {program}" for program in results.programs), "",
             *(line for note in results.notes for line in prose(note)),
             "## Targets", "", *prose("""The medians of this run beside what pgherd is meant to reach. The floor is the same figure of the bare relay, for short messages
        about the least that a proxy over epoll can cost, and beside it that of the same relay over tokio; whoever reads more than its 64 KiB at once can be cheaper with long ones. In the last
        line it is that of the server without any proxy."""), *target_table(results)]
    for title, section, sentence in sections():
        lines += [f"## {title}", "", *prose(sentence), *section(results)]
    if results.failures:
        lines += ["## What failed", "", *(f"- {failure}" for failure in results.failures), ""]
    return "\n".join(lines).rstrip() + "\n"


def opening(results):
    old = "" if results.pgbouncer_prepares else """This PgBouncer is older than 1.21 and knows no prepared statements in transaction mode:
        for the prepared protocol it runs in session mode, with a server connection for every client, which spares it the work that is
        compared."""
    return f"""Written by `make bench`; do not edit. Medians (least–most) of {results.rounds} interleaved rounds with
        {results.seconds:g} s for each load; in a round the programs take turns, in an order that changes. CPU is that of the proxy's
        process, while all clients are connected. A ratio is the median of the rounds' own ratios: what else the machine did is in both of
        its sides, so ratios are what to trust. One worker each unless said, a pool of {POOL} in transaction mode (over {SHARDS} shards
        {-(-POOL // SHARDS)} each), SCRAM on both sides, TCP on loopback; pgherd serves its metrics meanwhile. `direct` is pgbench at the
        server without a proxy; `floor` is a bare relay (`benches/floor.rs`), about the least that a program between two sockets can
        cost, and `floor of tokio` the same relay over tokio (`benches/floor_tokio.rs`). {old}"""


def sections():
    """Each table with its heading, and the sentence that says what it shows."""
    of = lambda section, name: lambda results: section(results, name)
    return [
        ("Select-only: CPU", of(cpu_section, "select"),
         "CPU µs per transaction. The relay at the floor has a server connection for each client."),
        ("Select-only: throughput and latency", of(latency_section, "select"),
         """Servers, proxy and pgbench share the processors, and every client waits for its answer before it goes on: latency over direct is
         mostly what the proxy computes."""),
        ("Other loads: CPU", of(cpu_section, "other"), f"CPU µs per transaction; a pipeline of {PIPELINE} statements is one."),
        ("Other loads: throughput and latency", of(latency_section, "other"), "As above."),
        ("Logins", of(cpu_and_rate_section, "login"),
         """CPU µs for a connection, its login and one select. All users are stored as SCRAM secrets: with plain passwords PgBouncer derives
         keys at each login, milliseconds of CPU, which would be no fair comparison. Most of the time goes by in pgbench, whose own part of
         SCRAM is dear."""),
        ("COPY", of(cpu_and_rate_section, "copy"), f"CPU µs per MB, {COPY_ROWS} rows at a time through psql, a login each time."),
        ("Routed", of(routed_section, "routed"),
         f"""One key's row of {KEYS} over {SHARDS} shards, written in the statement (simple) or as a parameter, beside PgBouncer's
         select-only, unrouted, of the same protocol and number of clients. A projection over all shards has no counterpart there: the floor
         and direct run it on one server with the same rows."""),
        ("Two workers", of(workers_section, "workers"),
         """Select-only, simple, through one worker and through two. With two processors, that the servers and pgbench need too, this shows
         the price of a second worker and its share of the work, not how far workers scale."""),
        ("Beside a stream and logins", of(beside_section, "beside"),
         f"""p99 in µs of select-only (simple, 10 clients) alone, and beside one client that reads a million rows again and again and
         {LOGINS_PER_SECOND} logins a second. Direct shows how much of it is the machine's."""),
        ("System calls", calls_section,
         """Per transaction, counted by strace in loads of their own, two lengths subtracted. strace slows the process down, so fewer waits
         are needed than without."""),
        ("Instructions", instructions_section,
         """Executed in user space per transaction, by callgrind, two lengths subtracted. How busy the machine is makes no difference."""),
        ("Idle clients", idle_section,
         "Resident KiB for each client that has logged in, run one statement, and says nothing, in a process started for this."),
    ]


def measured(results, name):
    return [workload for workload in results.workloads
            if workload.table == name and any(known(results.samples.get((workload.name, column), [])) for column in workload.columns)]


def cpu_section(results, name):
    columns = [column for column in results.columns(name) if column != "direct"]
    others = [column for column in columns if column not in ("pgherd", "pgbouncer")]
    head = ["load", "pgherd", "user", "system", "PgBouncer", "user", "system", "pgherd / PgBouncer"]
    head += [title for column in others for title in (TITLES[column], f"pgherd / {TITLES[column]}")]
    rows = []
    for workload in measured(results, name):
        ours = workload.name, "pgherd"
        row = [workload.title]
        for column in ("pgherd", "pgbouncer"):
            row += [spread(results.values(workload.name, column, "cpu"))]
            row += map(number, results.parts(workload.name, column))
        for column in ("pgbouncer", *others):
            if column != "pgbouncer":
                row.append(number(results.middle(workload.name, column, "cpu")))
            row.append(spread(results.ratios("cpu", ours, (workload.name, column)), 2))
        rows.append(row)
    return table(head, rows)


def cpu_and_rate_section(results, name):
    columns = results.columns(name)
    rows = [[workload.title, *(number(results.middle(workload.name, column, "rate"), 0) for column in columns)]
            for workload in measured(results, name)]
    return [*cpu_section(results, name), *table(["a second", *(TITLES[column] for column in columns)], rows)]


def latency_section(results, name):
    columns = results.columns(name)
    head = ["load", *(f"{TITLES[column]}, a second" for column in columns)]
    proxies = [column for column in columns if column != "direct"]
    for percent in ("p50", "p99"):
        head += [f"direct, {percent} µs", *(f"{TITLES[column]} / direct" for column in proxies)]
    rows = []
    for workload in measured(results, name):
        row = [workload.title, *(number(results.middle(workload.name, column, "rate"), 0) for column in columns)]
        for percent in ("p50", "p99"):
            row.append(number(results.middle(workload.name, "direct", percent), 0))
            row += [spread(results.ratios(percent, (workload.name, column), (workload.name, "direct")), 2) for column in proxies]
        rows.append(row)
    return table(head, rows)


def routed_section(results, name):
    rows = []
    for workload in measured(results, name):
        theirs = workload.against, "pgbouncer"
        rows.append([workload.title, spread(results.values(workload.name, "pgherd", "cpu")),
                     *map(number, results.parts(workload.name, "pgherd")),
                     number(results.middle(*theirs, "cpu")), spread(results.ratios("cpu", (workload.name, "pgherd"), theirs), 2),
                     number(results.middle(workload.name, "floor", "cpu")),
                     *(number(results.middle(workload.name, "pgherd", figure), 0) for figure in ("rate", "p50", "p99")),
                     *(number(results.middle(workload.name, "direct", figure), 0) for figure in ("rate", "p50", "p99"))])
    return table(["load", "pgherd, CPU µs", "user", "system", "PgBouncer", "pgherd / PgBouncer", "floor", "a second", "p50 µs", "p99 µs",
                  "direct, a second", "p50 µs", "p99 µs"], rows)


def workers_section(results, name):
    rows = []
    for workload in measured(results, name):
        one, two = (workload.name, "pgherd"), (workload.name, "two")
        rows.append([workload.title, *(spread(results.values(*place, "cpu")) for place in (one, two)),
                     spread(results.ratios("cpu", two, one), 2),
                     *(number(results.middle(*place, "rate"), 0) for place in (one, two)), spread(results.ratios("rate", two, one), 2),
                     spread(percents(results, workload.name), 0)])
    return table(["load", "one worker, CPU µs", "two", "two / one", "one, a second", "two", "two / one",
                  "% of the work on the first of two"], rows)


def percents(results, name):
    """The first worker's part of the work of two."""
    return [100 * shares[0] for shares in known(results.values(name, "two", "shares")) if len(shares) == 2]


def beside_section(results, name):
    columns = results.columns(name)
    rows = [[TITLES[column], *(spread(results.values(load, column, "p99"), 0) for load in ("alone", "beside")),
             spread(results.ratios("p99", ("beside", column), ("alone", column)), 2)] for column in columns]
    return table(["through", "alone", "beside", "beside / alone"], rows)


def counted_table(results, counts, told):
    """What was counted in runs of its own, by workload and column."""
    columns = [column for column in TITLES if any(column == there for _, there in counts)]
    rows = []
    for workload in results.workloads:
        cells = [counts.get((workload.name, column)) for column in columns]
        if any(cells):
            rows.append([workload.title, *(told(cell) for cell in cells)])
    return table(["load", *(TITLES[column] for column in columns)], rows)


def calls_section(results):
    return counted_table(results, results.calls, told_calls)


def told_calls(counts):
    if not counts:
        return "–"
    names = {name for _, parts in counts for name in parts}
    parts = {name: statistics.median(parts.get(name, 0) for _, parts in counts) for name in names}
    named = ", ".join(f"{name} {number(part, 1)}" for name, part in sorted(parts.items(), key=lambda part: (-part[1], part[0])))
    return f"{spread([total for total, _ in counts], 2)}: {named}"


def instructions_section(results):
    return counted_table(results, results.instructions, lambda count: number(count, 0))


def idle_section(results):
    clients = next((count for count, _ in results.idle.values()), IDLE_CLIENTS)
    return table([f"{clients} clients", "KiB per client"], [[TITLES[column], number(kib)] for column, (_, kib) in results.idle.items()])


# Targets

def target_table(results):
    return table(["target", "bar", "measured", "", "the machine's floor", "tokio's floor"], [list(row) for row in targets(results)])


def targets(results):
    def at_most(what, bar, values, digits=2, floor=(), tokio=()):
        values = known(values)
        verdict = "not measured" if not values else "met" if statistics.median(values) <= bar else "**not met**"
        return what, f"≤ {number(bar, digits)}", spread(values, digits), verdict, *(spread(of, digits) if known(of) else "" for of in (floor, tokio))

    ratio = lambda name, figure="cpu", of="pgherd": results.ratios(figure, (name, of), (name, "pgbouncer"))
    executed = lambda name: [results.instructions.get((name, "pgherd"))]
    for protocol in PROTOCOLS:
        for clients in (10, 50):
            yield at_most(f"CPU, select-only, {protocol}, {clients} clients, of PgBouncer's", 0.95 if protocol == "simple" else 0.90,
                          ratio(f"{protocol}-{clients}"), floor=ratio(f"{protocol}-{clients}", of="floor"),
                          tokio=ratio(f"{protocol}-{clients}", of="tokio"))
    for what, bar, name in [("select-only, simple", 10_000, "simple-10"), ("select-only, prepared", 13_000, "prepared-10"),
                            ("by key, simple", 16_000, "routed-simple-10"), ("by key, prepared", 16_000, "routed-prepared-10")]:
        yield at_most(f"instructions, {what}", bar, executed(name), 0)
    yield at_most("system calls, select-only, simple", 4.3, [total for total, _ in results.calls.get(("simple-10", "pgherd"), [])])
    for clients in (10, 50):
        yield at_most(f"CPU, two workers, {clients} clients, of one worker's", 1.10,
                      results.ratios("cpu", (f"workers-{clients}", "two"), (f"workers-{clients}", "pgherd")))
    for what, name in (("50 clients", "workers-50"), (f"50 clients on {POOL_SMALL} servers", "workers-few")):
        shares = percents(results, name)
        verdict = "not measured" if not shares else "met" if 40 <= statistics.median(shares) <= 60 else "**not met**"
        yield f"% of the work on the first of two workers, {what}", "40–60", spread(shares, 0), verdict, "", ""
    yield at_most("CPU, 1 MB result, of PgBouncer's", 0.7, ratio("big"), floor=ratio("big", of="floor"))
    yield at_most("CPU, COPY in, of PgBouncer's", 0.7, ratio("copy-in"), floor=ratio("copy-in", of="floor"))
    yield at_most(f"KiB per idle client, {IDLE_CLIENTS} clients", 4, [results.idle.get("pgherd", (0, None))[1]])
    yield at_most("CPU, connection and select, SCRAM, of PgBouncer's", 1.0, ratio("churn"))
    for protocol in PROTOCOLS:
        yield at_most(f"p99, select-only, {protocol}, 50 clients, of PgBouncer's", 1.15, ratio(f"{protocol}-50", "p99"),
                      floor=ratio(f"{protocol}-50", "p99", "floor"), tokio=ratio(f"{protocol}-50", "p99", "tokio"))
    yield at_most("p99 beside a stream and logins, of without", 2, results.ratios("p99", ("beside", "pgherd"), ("alone", "pgherd")),
                  floor=results.ratios("p99", ("beside", "direct"), ("alone", "direct")))
