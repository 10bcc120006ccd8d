"""Fifty clients with Django on psycopg 3: a database alias each, with settings in OPTIONS or from `connection_created`."""

import contextlib
import datetime
import decimal
import urllib.parse
import uuid

import django
from django.conf import settings

import pooled
from pooled import BREAKS, CLIENTS, CURSOR, DSN, READ, ROUNDS, Own, Tally

tally = Tally("django")
WHEN = datetime.datetime(2026, 2, 28, 23, 59, 59, 123456, tzinfo=datetime.timezone.utc)
owns = {f"client_{number}": Own(tally, number) for number in range(CLIENTS)}


def alias(own):
    url = urllib.parse.urlsplit(DSN)
    # Parameters of the server instead of the driver, and prepared statements, for some.
    options = {"connect_timeout": 30, "server_side_binding": own.number % 3 != 0}
    if own.number % 3 == 1:
        options["prepare_threshold"] = 0
    if own.number % 4 == 3:
        options["isolation_level"] = django.db.backends.postgresql.psycopg_any.IsolationLevel.REPEATABLE_READ
    if own.user != "shop":
        options["assume_role"] = own.user
    if own.at_startup:
        options["options"] = own.options()
    return {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": url.hostname,
        "PORT": url.port,
        "USER": url.username,
        "PASSWORD": urllib.parse.unquote(url.password or ""),
        "NAME": url.path[1:],
        "TIME_ZONE": own.settings["TimeZone"],
        "CONN_MAX_AGE": None,
        "OPTIONS": options,
    }


import django.db.backends.postgresql.psycopg_any  # noqa: E402  needs no settings

settings.configure(
    DATABASES={"default": {}, **{name: alias(own) for name, own in owns.items()}},
    INSTALLED_APPS=["django.contrib.postgres"],
    USE_TZ=True,
    TIME_ZONE="UTC",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

from django.contrib.postgres.fields import ArrayField  # noqa: E402
from django.db import DatabaseError, connections, models, transaction  # noqa: E402
from django.db.backends.signals import connection_created  # noqa: E402
from django.db.models.functions import Now  # noqa: E402


class Mark(models.Model):
    client = models.IntegerField()
    what = models.TextField()
    mark = models.TextField()

    class Meta:
        app_label, db_table, managed = "pooled", "marks", False


class Kind(models.Model):
    client = models.IntegerField()
    doc = models.JSONField()
    list = ArrayField(models.IntegerField())
    words = ArrayField(models.TextField())
    seen = models.DateTimeField()
    day = models.DateField()
    amount = models.DecimalField(max_digits=20, decimal_places=5)
    photo = models.BinaryField()
    token = models.UUIDField()

    class Meta:
        app_label, db_table, managed = "pooled", "kinds", False


def sets(connection, **_):
    """As a project does it that has a setting for each tenant."""
    own = owns[connection.alias]
    if own.at_startup:
        return
    with connection.cursor() as cursor:
        for name, value in own.settings.items():
            if name == "TimeZone":
                continue  # Django has set it
            cursor.execute(f"SELECT set_config('{name}', %s, false)", [value])


connection_created.connect(sets)


@contextlib.contextmanager
def connected(own):
    connection = connections[f"client_{own.number}"]
    connection.ensure_connection()
    try:
        yield connection
    finally:
        connection.close()


def ask(connection, sql, values=()):
    with connection.cursor() as cursor:
        cursor.execute(sql, list(values))
        return list(cursor.fetchone())


def read(own, connection, what, changed=()):
    mark = own.mark()
    own.read(what, mark, ask(connection, READ.replace("$1", "%s"), [mark]), changed)


def reads(own, connection, what):
    read(own, connection, what)
    info = connection.connection.info
    own.equal(f"{what}: told zone", str(info.timezone), own.settings["TimeZone"])
    own.equal(f"{what}: told name", info.parameter_status("application_name"), own.settings["application_name"])


def fails(own, what, sqlstate, work):
    try:
        work()
        found = None
    except DatabaseError as error:
        found = error.__cause__.sqlstate
    own.equal(what, found, sqlstate)


class Leaves(Exception):
    """Rolls a transaction back."""


def marks(own):
    return Mark.objects.using(f"client_{own.number}")


def atomic(own):
    return transaction.atomic(using=f"client_{own.number}")


def commits(own, connection, number):
    mark, work_mem = own.mark(), f"{3073 + own.number + number}kB"
    with atomic(own):
        kept = marks(own).create(client=own.number, what=f"kept {number}", mark=mark)
        with contextlib.suppress(Leaves), atomic(own):
            ask(connection, "SELECT set_config('work_mem', '99MB', false)")
            own.equal("set in a savepoint", ask(connection, "SHOW work_mem"), ["99MB"])
            raise Leaves

        def twice():
            with atomic(own):
                marks(own).create(client=own.number, what=f"kept {number}", mark="twice")

        fails(own, "the same row twice", "23505", twice)
        locked = marks(own).select_for_update().get(client=own.number, what=f"kept {number}")
        own.equal("locked", (locked.id, locked.mark), (kept.id, mark))
        ask(connection, "SELECT set_config('work_mem', %s, false)", [work_mem])
    own.settings["work_mem"] = work_mem
    own.equal("committed", marks(own).get(pk=kept.pk).mark, mark)
    made = marks(own).get_or_create(client=own.number, what=f"kept {number}", defaults={"mark": "twice"})
    own.equal("get_or_create", (made[0].mark, made[1]), (mark, False))
    reads(own, connection, "after a commit")


def rolls_back(own, connection, number):
    with contextlib.suppress(Leaves), atomic(own):
        marks(own).create(client=own.number, what=f"gone {number}", mark="gone")
        ask(connection, "SELECT set_config('app.tenant', 'tenant-77', false)")
        ask(connection, "SELECT set_config('search_path', %s, false)", [own.place(1)])
        read(own, connection, "before a rollback", {"app.tenant": "tenant-77", "search_path": own.place(1)})
        raise Leaves
    reads(own, connection, "after a rollback")
    own.equal("rolled back", marks(own).filter(client=own.number, what=f"gone {number}").exists(), False)


def sets_locally(own, connection, _number):
    with atomic(own):
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL TIME ZONE 'Asia/Tokyo'")
            cursor.execute("SELECT set_config('app.tenant', %s, true)", ["tenant-55"])
            cursor.execute("SELECT set_config('search_path', %s, true)", [own.place(2)])
        changed = {"app.tenant": "tenant-55", "search_path": own.place(2), "TimeZone": "Asia/Tokyo"}
        read(own, connection, "set locally", changed)
    reads(own, connection, "after SET LOCAL")
    level = "repeatable read" if own.number % 4 == 3 else "read committed"
    own.equal("isolation in autocommit", ask(connection, "SHOW transaction_isolation"), ["read committed"])
    with atomic(own):
        own.equal("isolation", ask(connection, "SHOW transaction_isolation"), [level])


def errs(own, connection, _number):
    fails(own, "an error alone", "22012", lambda: ask(connection, "SELECT 1 / %s::int", [0]))
    connection.set_autocommit(False)
    fails(own, "an error", "22012", lambda: ask(connection, "SELECT 1 / %s::int", [0]))
    fails(own, "behind an error", "25P02", lambda: ask(connection, "SELECT %s::int", [1]))
    connection.rollback()
    ask(connection, "SELECT set_config('statement_timeout', '5ms', true)")
    fails(own, "too slow", "57014", lambda: ask(connection, "SELECT pg_sleep(5)"))
    connection.rollback()
    connection.set_autocommit(True)
    reads(own, connection, "after errors")


def batches(own, connection, number):
    mark = own.mark()
    many = [Mark(client=own.number, what=f"many {number} {at}", mark=mark) for at in range(20)]
    made = marks(own).bulk_create(many, batch_size=7)
    own.equal("bulk_create", all(row.pk for row in made), True)
    with connection.cursor() as cursor:
        rows = [(own.number, f"executemany {number} {at}", mark) for at in range(20)]
        cursor.executemany("INSERT INTO marks (client, what, mark) VALUES (%s, %s, %s)", rows)
    own.equal("executemany", list(marks(own).filter(mark=mark).values_list("client", flat=True)), [own.number] * 40)
    for row in made:
        row.mark = f"{row.mark} again"
    own.equal("bulk_update", marks(own).bulk_update(made, ["mark"]), 20)
    own.equal("updated", marks(own).filter(mark=f"{mark} again", client=own.number).count(), 20)


def streams(own, connection, number):
    mark = own.mark()
    rows = [Mark(client=own.number, what=f"streamed {number} {at}", mark=f"{mark}-{at:03}") for at in range(60)]
    marks(own).bulk_create(rows)
    mine = marks(own).filter(mark__startswith=f"{mark}-").order_by("mark")
    expected = [row.mark for row in rows]
    with atomic(own):
        iterator = mine.iterator(chunk_size=25)
        found = [next(iterator).mark]
        read(own, connection, "beside a cursor")
        own.equal("a cursor", found + [row.mark for row in iterator], expected)
    # Outside of a transaction the cursor is one WITH HOLD.
    own.equal("a cursor with hold", [row.mark for row in mine.iterator(chunk_size=25)], expected)
    with atomic(own), connection.chunked_cursor() as cursor:
        cursor.execute(CURSOR.replace("$1", "%s"), [mark])
        own.equal("chunks", cursor.fetchmany(50) + cursor.fetchall(), [(f"{mark}-{at}",) for at in range(1, 121)])


def copies(own, connection, number):
    mark = own.mark()
    with connection.cursor() as cursor:
        with cursor.copy("COPY marks (client, what, mark) FROM STDIN") as copy:
            for at in range(30):
                copy.write_row((own.number, f"copied {number} {at}", mark))
        own.equal("copied in", cursor.rowcount, 30)
        with cursor.copy(f"COPY (SELECT client, mark FROM marks WHERE mark = '{mark}') TO STDOUT") as copy:
            own.equal("copied out", b"".join(copy).decode(), f"{own.number}\t{mark}\n" * 30)


def types(own, _connection, number):
    values = {
        "client": own.number,
        "doc": {"mark": own.mark(), "n": [1, None, "ü"]},
        "list": [own.number, number],
        "words": ["a,b", 'q"q', "ž"],
        "seen": WHEN + datetime.timedelta(days=own.number),
        "day": datetime.date(2026, 1, 1 + number),
        "amount": decimal.Decimal(f"{own.number}.12345"),
        "photo": bytes(range(256)),
        "token": uuid.uuid4(),
    }
    kinds = Kind.objects.using(f"client_{own.number}")
    made = kinds.create(**values)
    found = kinds.annotate(at=Now()).get(pk=made.pk, doc__mark=values["doc"]["mark"], list__contains=[own.number])
    own.equal("types", {name: getattr(found, name) for name in values} | {"photo": bytes(found.photo)}, values)
    # Truncated by the server, in the zone that Django names.
    own.equal("a date in the zone", kinds.filter(pk=made.pk, seen__date=values["seen"].date()).count(), 1)


def resets(own, connection, _number):
    before = own.settings["work_mem"]
    with connection.cursor() as cursor:
        cursor.execute("RESET work_mem")
        own.settings["work_mem"] = own.startup.get("work_mem", "4MB")
        reads(own, connection, "after RESET")
        cursor.execute(f"SET work_mem TO '{before}'")
    own.settings["work_mem"] = before


def comes_back(own, connection, _number):
    """As after CONN_MAX_AGE: the new connection begins with what this client asks for."""
    connection.close()
    if own.at_startup:
        own.settings["work_mem"] = own.startup["work_mem"]
    reads(own, connection, "connected again")


def work(own, connection):
    for number in range(ROUNDS):
        reads(own, connection, "at first")
        if BREAKS and own.number == 0:
            ask(connection, "SELECT set_config('app.tenant', 'tenant-1', false)")
        for step in (commits, rolls_back, sets_locally, errs, batches, streams, copies, types, resets, comes_back):
            step(own, connection, number)
        reads(own, connection, "at last")
        name, value = own.shown()
        own.equal(f"shown {name}", ask(connection, f"SHOW {name}"), [value])


pooled.in_threads(tally, connected, work, owns.values())
