"""The ten checks with asyncpg: always prepared, always binary."""

import asyncio
import datetime
import decimal
import json
import uuid

import asyncpg

from harness import DSN, SHARDED, Checks, equal

checks = Checks("asyncpg")
WHEN = datetime.datetime(2026, 2, 28, 23, 59, 59, 123456, tzinfo=datetime.timezone.utc)
INSERT = "INSERT INTO customers (id, name) VALUES ($1, $2)"
NAME = "SELECT name FROM customers WHERE id = $1"


async def connects(conn):
    equal(await conn.fetchval("SELECT 1"), 1)


async def tells_parameters(conn):
    assert conn.get_server_version().major >= 12, conn.get_server_version()
    settings = conn.get_settings()
    equal(settings.client_encoding.upper().replace("-", ""), "UTF8")
    equal(settings.standard_conforming_strings, "on")
    equal(settings.integer_datetimes, "on")


async def inserts_and_reads_back(conn):
    key = checks.key()
    equal(await conn.execute(INSERT, key, "Ada"), "INSERT 0 1")
    found = await conn.fetch("SELECT id, name FROM customers WHERE id = $1", key)
    equal([tuple(row) for row in found], [(key, "Ada")])


async def counts_rows(conn):
    key = checks.key()
    await conn.execute(INSERT, key, "Bob")
    equal(await conn.execute("UPDATE customers SET name = 'Rob' WHERE id = $1", key), "UPDATE 1")
    equal(await conn.execute("UPDATE customers SET name = 'Rob' WHERE id = $1 AND name = 'Bob'", key), "UPDATE 0")
    equal(await conn.execute("DELETE FROM customers WHERE id = $1", key), "DELETE 1")
    equal(await conn.fetch(NAME, key), [])


async def keeps_transactions(conn):
    key = checks.key()
    async with conn.transaction():
        await conn.execute(INSERT, key, "one")
        await conn.execute("UPDATE customers SET name = 'two' WHERE id = $1", key)
    equal(await conn.fetchval(NAME, key), "two")
    transaction = conn.transaction()
    await transaction.start()
    await conn.execute("UPDATE customers SET name = 'three' WHERE id = $1", key)
    equal(await conn.fetchval(NAME, key), "three")
    await transaction.rollback()
    equal(await conn.fetchval(NAME, key), "two")


async def survives_errors(conn):
    key = checks.key()
    await conn.execute(INSERT, key, "only")
    try:
        await conn.execute(INSERT, key, "twice")
        raise AssertionError("a duplicate key was taken")
    except asyncpg.UniqueViolationError as error:
        equal(error.sqlstate, "23505")
    equal(await conn.fetchval(NAME, key), "only")


async def runs_prepared_statements(conn):
    keys = [checks.key() for _ in range(30)]
    await conn.executemany(INSERT, [(key, f"p{number}") for number, key in enumerate(keys)][:1])
    insert = await conn.prepare(INSERT)
    for number, key in list(enumerate(keys))[1:]:
        await insert.fetch(key, f"p{number}")
    select = await conn.prepare(NAME)
    for number, key in enumerate(keys):
        equal(await select.fetchval(key), f"p{number}")


async def reads_every_shard(conn):
    keys = [checks.key() for _ in range(24)]
    mark = f"scatter {keys[0]}"
    for key in keys:
        await conn.execute(INSERT, key, mark)
    found = await conn.fetch("SELECT id, name FROM customers WHERE name = $1", mark)
    equal(sorted(tuple(row) for row in found), [(key, mark) for key in keys])


async def refuses_by_number(conn):
    sql = "SELECT id, rank() OVER (ORDER BY id) FROM customers WHERE name = 'nobody'"
    if not SHARDED:
        return equal(await conn.fetch(sql), [])
    try:
        await conn.fetch(sql)
        raise AssertionError("it was not refused")
    except asyncpg.FeatureNotSupportedError as error:
        assert "PGH" in str(error), str(error)
    equal(await conn.fetchval("SELECT 1"), 1)


async def round_trips(conn):
    rows = [
        ("Žluťoučký kůň 🐎 'quoted'", decimal.Decimal("1234567.89"), WHEN, True, uuid.uuid4(), {"a": [1, None, "ü"]}, bytes(range(256))),
        ("", decimal.Decimal("-0.01"), WHEN.replace(year=1970), False, uuid.UUID(int=0), [], b""),
        ("nothing", None, None, None, None, None, None),
    ]
    columns = "name, credit, joined, active, token, notes, photo"
    for row in rows:
        key = checks.key()
        values = [json.dumps(value) if isinstance(value, (dict, list)) else value for value in row]
        await conn.execute(f"INSERT INTO customers (id, {columns}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", key, *values)
        found = list(await conn.fetchrow(f"SELECT {columns} FROM customers WHERE id = $1", key))
        found[5] = None if found[5] is None else json.loads(found[5])
        equal(tuple(found), row)


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


async def main():
    for number, (check, what) in enumerate(ALL, 1):
        try:
            conn = await asyncpg.connect(DSN, timeout=10, command_timeout=20)
            try:
                await check(conn)
            finally:
                await conn.close(timeout=10)
            checks.note(number, what)
        except Exception as error:  # a check that fails must not stop the others
            checks.note(number, what, error)
    try:
        conn = await asyncpg.connect(DSN, timeout=10, command_timeout=20)
        for key in checks.keys:
            await conn.execute("DELETE FROM customers WHERE id = $1", key)
        await conn.close(timeout=10)
    except (OSError, asyncpg.PostgresError) as error:
        print(f"the rows could not be removed: {error}")


asyncio.run(main())
checks.finish()
