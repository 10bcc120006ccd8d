"""The ten checks with psycopg 3."""

import datetime
import decimal
import uuid

import psycopg
from psycopg.types.json import Jsonb

from harness import DSN, SHARDED, Checks, equal

checks = Checks("psycopg")
WHEN = datetime.datetime(2026, 2, 28, 23, 59, 59, 123456, tzinfo=datetime.timezone.utc)


def connects(conn):
    equal(conn.execute("SELECT 1").fetchone(), (1,))


def tells_parameters(conn):
    info = conn.info
    assert info.server_version >= 120000, info.server_version
    equal(info.parameter_status("client_encoding"), "UTF8")
    equal(info.parameter_status("standard_conforming_strings"), "on")
    equal(info.parameter_status("integer_datetimes"), "on")


def inserts_and_reads_back(conn):
    key = checks.key()
    found = conn.execute("INSERT INTO customers (id, name) VALUES (%s, %s)", (key, "Ada")).rowcount
    equal(found, 1)
    equal(conn.execute("SELECT id, name FROM customers WHERE id = %s", (key,)).fetchall(), [(key, "Ada")])


def counts_rows(conn):
    key = checks.key()
    conn.execute("INSERT INTO customers (id, name) VALUES (%s, 'Bob')", (key,))
    equal(conn.execute("UPDATE customers SET name = 'Rob' WHERE id = %s", (key,)).rowcount, 1)
    equal(conn.execute("UPDATE customers SET name = 'Rob' WHERE id = %s AND name = 'Bob'", (key,)).rowcount, 0)
    equal(conn.execute("DELETE FROM customers WHERE id = %s", (key,)).rowcount, 1)
    equal(conn.execute("SELECT id FROM customers WHERE id = %s", (key,)).fetchall(), [])


def keeps_transactions(conn):
    key = checks.key()
    name = lambda: conn.execute("SELECT name FROM customers WHERE id = %s", (key,)).fetchone()
    with conn.transaction():
        conn.execute("INSERT INTO customers (id, name) VALUES (%s, 'one')", (key,))
        conn.execute("UPDATE customers SET name = 'two' WHERE id = %s", (key,))
    equal(name(), ("two",))
    with conn.transaction(force_rollback=True):
        conn.execute("UPDATE customers SET name = 'three' WHERE id = %s", (key,))
        equal(name(), ("three",))
    equal(name(), ("two",))


def survives_errors(conn):
    key = checks.key()
    conn.execute("INSERT INTO customers (id, name) VALUES (%s, 'only')", (key,))
    try:
        conn.execute("INSERT INTO customers (id, name) VALUES (%s, 'twice')", (key,))
        raise AssertionError("a duplicate key was taken")
    except psycopg.errors.UniqueViolation as error:
        equal(error.sqlstate, "23505")
    equal(conn.execute("SELECT name FROM customers WHERE id = %s", (key,)).fetchone(), ("only",))


def runs_prepared_statements(conn):
    keys = [checks.key() for _ in range(30)]
    for number, key in enumerate(keys):
        conn.execute("INSERT INTO customers (id, name) VALUES (%s, %s)", (key, f"p{number}"), prepare=True)
    for number, key in enumerate(keys):
        found = conn.execute("SELECT name FROM customers WHERE id = %s", (key,), prepare=True, binary=number % 2 == 1)
        equal(found.fetchall(), [(f"p{number}",)])


def reads_every_shard(conn):
    keys = [checks.key() for _ in range(24)]
    mark = f"scatter {keys[0]}"
    for key in keys:
        conn.execute("INSERT INTO customers (id, name) VALUES (%s, %s)", (key, mark))
    found = conn.execute("SELECT id, name FROM customers WHERE name = %s", (mark,)).fetchall()
    equal(sorted(found), [(key, mark) for key in keys])


def refuses_by_number(conn):
    sql = "SELECT id, rank() OVER (ORDER BY id) FROM customers WHERE name = 'nobody'"
    if not SHARDED:
        return equal(conn.execute(sql).fetchall(), [])
    try:
        conn.execute(sql)
        raise AssertionError("it was not refused")
    except psycopg.errors.FeatureNotSupported as error:
        assert "PGH" in str(error), str(error)
    equal(conn.execute("SELECT 1").fetchone(), (1,))


def round_trips(conn):
    rows = [
        ("Žluťoučký kůň 🐎 'quoted'", decimal.Decimal("1234567.89"), WHEN, True, uuid.uuid4(), {"a": [1, None, "ü"]}, bytes(range(256))),
        ("", decimal.Decimal("-0.01"), WHEN.replace(year=1970), False, uuid.UUID(int=0), [], b""),
        ("nothing", None, None, None, None, None, None),
    ]
    columns = "name, credit, joined, active, token, notes, photo"
    for row in rows:
        key = checks.key()
        values = [Jsonb(value) if isinstance(value, (dict, list)) else value for value in row]
        sql = f"INSERT INTO customers (id, {columns}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
        conn.execute(sql, [key, *values])
        for binary in (False, True):
            found = conn.execute(f"SELECT {columns} FROM customers WHERE id = %s", (key,), binary=binary)
            equal(found.fetchone(), row)


ALL = [
    (connects, "connect, and a first statement"),
    (tells_parameters, "version and parameters"),
    (inserts_and_reads_back, "insert with parameters, read back"),
    (counts_rows, "UPDATE and DELETE count their rows"),
    (keeps_transactions, "COMMIT keeps, ROLLBACK undoes"),
    (survives_errors, "an error has its SQLSTATE, the session goes on"),
    (runs_prepared_statements, "a prepared statement, many keys"),
    (reads_every_shard, "a projection over all shards"),
    (refuses_by_number, "refused by number, or runs on one shard"),
    (round_trips, "values of every kind"),
]

for number, (check, what) in enumerate(ALL, 1):
    try:
        with psycopg.connect(DSN, autocommit=True, connect_timeout=10) as conn:
            check(conn)
        checks.note(number, what)
    except Exception as error:  # a check that fails must not stop the others
        checks.note(number, what, error)
try:
    with psycopg.connect(DSN, autocommit=True, connect_timeout=10) as conn:
        for key in checks.keys:
            conn.execute("DELETE FROM customers WHERE id = %s", (key,))
except psycopg.Error as error:
    print(f"the rows could not be removed: {error}")
checks.finish()
