"""What the pooled checks in Python share: what each client sets, the question that reads it back, and the count."""

import itertools
import os
import sys
import threading
import traceback

DSN = os.environ["PGHERD_DSN"]
CLIENTS = int(os.environ.get("PGHERD_CLIENTS", "50"))
ROUNDS = int(os.environ.get("PGHERD_ROUNDS", "1"))
# One client changes a setting behind its own back: its checks must notice.
BREAKS = os.environ.get("PGHERD_BREAKS") == "1"
FAILURES_SHOWN_MAX = 12

# With what noon of 1 July 2024 is in it, and with what day '01/02/03' is.
ZONES = [
    ("Europe/Prague", 1719828000),
    ("Asia/Tokyo", 1719802800),
    ("America/New_York", 1719849600),
    ("UTC", 1719835200),
    ("Asia/Kathmandu", 1719814500),
]
ORDERS = [("MDY", "2003-01-02"), ("DMY", "2003-02-01"), ("YMD", "2001-02-03")]
NOON = dict(ZONES)
DAY = {f"ISO, {order}": day for order, day in ORDERS}

SETTINGS = ["application_name", "TimeZone", "DateStyle", "search_path", "work_mem", "statement_timeout", "app.tenant"]

# Constants are read under the client's settings when the statement is prepared, names when it is planned, and the
# policy of `notes` when it runs. `$1` becomes the driver's own sign for a parameter.
READ = (
    "SELECT $1::text AS mark, "
    + ", ".join(f"current_setting('{name}')" for name in SETTINGS)
    + ", current_user::text, '01/02/03'::date::text, extract(epoch FROM '2024-07-01 12:00'::timestamptz)::bigint,"
    " (SELECT name::text FROM here), (SELECT string_agg(body, ',') FROM notes)"
)
READ_NAMES = ["mark", *SETTINGS, "current_user", "a day", "a noon", "here", "notes"]
CURSOR = "SELECT $1::text || '-' || n AS mark FROM generate_series(1, 120) AS n"


class Tally:
    def __init__(self, driver):
        self.driver, self.checks, self.failures, self.lock = driver, 0, [], threading.Lock()

    def check(self, who, what, found, expected):
        with self.lock:
            self.checks += 1
            if found != expected:
                self.failures.append(f"client {who}, {what}: {found!r} instead of {expected!r}")

    def broke(self, who):
        """The client cannot go on: its checks that were not made must not be missed."""
        error = sys.exc_info()[1]
        here = os.path.dirname(os.path.abspath(__file__))
        steps = [frame for frame in traceback.extract_tb(error.__traceback__) if os.path.dirname(frame.filename) == here]
        path = " > ".join(f"{frame.name}:{frame.lineno}" for frame in steps)
        with self.lock:
            self.failures.append(f"client {who}, at {path}: {type(error).__name__}: {error}")

    def finish(self):
        for failure in self.failures[:FAILURES_SHOWN_MAX]:
            print("FAILED", failure)
        print(f"{self.driver}: {CLIENTS} clients, {self.checks} checks, {len(self.failures)} failed")
        sys.exit(1 if self.failures or not self.checks else 0)


class Own:
    """What one client has set, as it knows it, and its marks, which nobody else has."""

    def __init__(self, tally, number):
        self.tally, self.number, self.marks = tally, number, itertools.count()
        self.user = "pooled_keeper" if number % 5 == 0 else "shop"
        self.settings = {
            "application_name": f"{tally.driver}-{number}",
            "TimeZone": ZONES[number % len(ZONES)][0],
            "DateStyle": f"ISO, {ORDERS[number % len(ORDERS)][0]}",
            "search_path": self.place(0),
            "work_mem": f"{2049 + number}kB",
            "statement_timeout": f"{60001 + number}ms",
            "app.tenant": f"tenant-{number}",
        }
        # What RESET leads to: settings of the start-up message, or what the server has.
        self.startup = {}

    @property
    def at_startup(self):
        """Whether this client asks for its settings in the start-up message; others say SET."""
        return self.number % 2 == 0

    def place(self, further):
        """A search_path, as both `options` and set_config take it."""
        return f"place_{(self.number + further) % 4},public"

    def options(self):
        self.startup = dict(self.settings)
        return " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in self.settings.items())

    def mark(self):
        return f"{self.tally.driver}-{self.number}-{next(self.marks)}"

    def shown(self):
        """One setting to ask for with SHOW, another for each client, and its value."""
        return list(self.settings.items())[self.number % len(SETTINGS)]

    def equal(self, what, found, expected):
        self.tally.check(self.number, what, found, expected)

    def expects(self, mark, changed=()):
        settings = {**self.settings, **dict(changed)}
        row = [mark, *(settings[name] for name in SETTINGS), self.user]
        tenant = settings["app.tenant"].removeprefix("tenant-")
        place = settings["search_path"].split(",")[0]
        return [*row, DAY[settings["DateStyle"]], NOON[settings["TimeZone"]], place, f"note of {tenant}"]

    def read(self, what, mark, row, changed=()):
        """Holds a row of READ to what this client has set, and to what it has `changed` for a while."""
        expected = self.expects(mark, changed)
        self.equal(f"{what}: columns", len(row), len(expected))
        for name, found, wanted in zip(READ_NAMES, row, expected):
            self.equal(f"{what}: {name}", found, wanted)


def in_threads(tally, connect, work, owns=None):
    """All are connected before any works, and each is at work while the others are."""
    together = threading.Barrier(CLIENTS, timeout=60)

    def client(own):
        try:
            with connect(own) as connection:
                together.wait()
                work(own, connection)
        except threading.BrokenBarrierError:
            pass  # another client was not connected, and says so
        except Exception:
            together.abort()
            tally.broke(own.number)

    owns = owns or [Own(tally, number) for number in range(CLIENTS)]
    threads = [threading.Thread(target=client, args=(own,)) for own in owns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally.finish()
