"""Fifty clients with asyncpg in one event loop: always prepared, always binary, half of them with `server_settings`."""

import asyncio
import datetime
import decimal
import json
import uuid

import asyncpg

from pooled import BREAKS, CLIENTS, CURSOR, DSN, READ, ROUNDS, Own, Tally

tally = Tally("asyncpg")
WHEN = datetime.datetime(2026, 2, 28, 23, 59, 59, 123456, tzinfo=datetime.timezone.utc)
INSERT = "INSERT INTO marks (client, what, mark) VALUES ($1, $2, $3)"
COUNT = "SELECT count(*) FROM marks WHERE client = $1 AND mark = $2"


async def connected(own):
    settings = {}
    if own.at_startup:
        # Each is a parameter of the start-up message by itself.
        own.startup = dict(own.settings)
        settings = own.settings
    conn = await asyncpg.connect(DSN, timeout=30, command_timeout=60, server_settings=settings)
    await sets(own, conn)
    if own.number % 3 == 0:
        await conn.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    return conn


async def sets(own, conn):
    if not own.at_startup:
        for name, value in own.settings.items():
            await conn.execute(f"SELECT set_config('{name}', $1, false)", value)
    if own.user != "shop":
        await conn.execute(f"SET ROLE {own.user}")


async def read(own, conn, what, changed=()):
    mark = own.mark()
    own.read(what, mark, list(await conn.fetchrow(READ, mark)), changed)


async def reads(own, conn, what):
    await read(own, conn, what)
    told = conn.get_settings()
    own.equal(f"{what}: told zone", told.TimeZone, own.settings["TimeZone"])
    own.equal(f"{what}: told name", told.application_name, own.settings["application_name"])


async def fails(own, what, sqlstate, work):
    try:
        await work
        found = None
    except asyncpg.PostgresError as error:
        found = error.sqlstate
    own.equal(what, found, sqlstate)


class Leaves(Exception):
    """Rolls a transaction back."""


async def commits(own, conn, number):
    mark, work_mem = own.mark(), f"{3073 + own.number + number}kB"
    async with conn.transaction():
        await conn.execute(INSERT, own.number, f"kept {number}", mark)
        try:
            async with conn.transaction():
                await conn.execute("SET work_mem = '99MB'")
                own.equal("set in a savepoint", await conn.fetchval("SHOW work_mem"), "99MB")
                raise Leaves
        except Leaves:
            pass

        async def twice():
            async with conn.transaction():
                await conn.execute(INSERT, own.number, f"kept {number}", "twice")

        await fails(own, "the same row twice", "23505", twice())
        await conn.execute(f"SET work_mem = '{work_mem}'")
    own.settings["work_mem"] = work_mem
    own.equal("committed", await conn.fetchval(COUNT, own.number, mark), 1)
    await reads(own, conn, "after a commit")


async def rolls_back(own, conn, number):
    mark = own.mark()
    try:
        async with conn.transaction(isolation="repeatable_read"):
            await conn.execute(INSERT, own.number, f"gone {number}", mark)
            await conn.execute("SET app.tenant = 'tenant-77'")
            await conn.execute("SELECT set_config('search_path', $1, false)", own.place(1))
            await read(own, conn, "before a rollback", {"app.tenant": "tenant-77", "search_path": own.place(1)})
            raise Leaves
    except Leaves:
        pass
    await reads(own, conn, "after a rollback")
    own.equal("rolled back", await conn.fetchval(COUNT, own.number, mark), 0)


async def sets_locally(own, conn, _number):
    changed = {"app.tenant": "tenant-55", "search_path": own.place(2), "TimeZone": "Asia/Tokyo"}
    async with conn.transaction():
        await conn.execute("SET LOCAL TIME ZONE 'Asia/Tokyo'")
        await conn.fetchval("SELECT set_config('app.tenant', $1, true)", changed["app.tenant"])
        await conn.fetchval("SELECT set_config('search_path', $1, true)", changed["search_path"])
        await read(own, conn, "set locally", changed)
    await reads(own, conn, "after SET LOCAL")


async def errs(own, conn, _number):
    await fails(own, "an error alone", "22012", conn.fetchval("SELECT 1 / $1::int", 0))
    transaction = conn.transaction()
    await transaction.start()
    await fails(own, "an error", "22012", conn.fetchval("SELECT 1 / $1::int", 0))
    await fails(own, "behind an error", "25P02", conn.fetchval("SELECT $1::int", 1))
    await transaction.rollback()
    transaction = conn.transaction()
    await transaction.start()
    await conn.execute("SET LOCAL statement_timeout = '5ms'")
    await fails(own, "too slow", "57014", conn.fetchval("SELECT pg_sleep(5)"))
    await transaction.rollback()
    await reads(own, conn, "after errors")


async def batches(own, conn, number):
    mark = own.mark()
    await conn.executemany(INSERT, [(own.number, f"many {number} {at}", mark) for at in range(40)])
    own.equal("executemany", await conn.fetchval(COUNT, own.number, mark), 40)
    # It fails in the middle, so none of its rows may be there.
    mark = own.mark()
    rows = [(own.number, f"half {number} {at % 30}", mark) for at in range(40)]
    await fails(own, "a batch that fails", "23505", conn.executemany(INSERT, rows))
    own.equal("all or nothing", await conn.fetchval(COUNT, own.number, mark), 0)
    sent = await conn.fetch("SELECT $1::text AS mark, current_setting('app.tenant') AS tenant", mark)
    own.equal("a row", dict(sent[0]), {"mark": mark, "tenant": own.settings["app.tenant"]})


async def streams(own, conn, _number):
    mark = own.mark()
    async with conn.transaction():
        rows = [row["mark"] async for row in conn.cursor(CURSOR, mark, prefetch=25)]
        own.equal("a cursor", rows, [f"{mark}-{at}" for at in range(1, 121)])
        cursor = await conn.cursor(CURSOR, mark)
        await cursor.forward(10)
        await read(own, conn, "beside a cursor")
        own.equal("moved forward", (await cursor.fetchrow())["mark"], f"{mark}-11")


async def copies(own, conn, number):
    mark = own.mark()
    rows = [(own.number, f"copied {number} {at}", mark) for at in range(30)]
    told = await conn.copy_records_to_table("marks", records=rows, columns=["client", "what", "mark"], schema_name="public")
    own.equal("copied in", told, "COPY 30")
    out = bytearray()

    async def take(data):
        out.extend(data)

    await conn.copy_from_query("SELECT client, mark FROM marks WHERE mark = $1", mark, output=take)
    own.equal("copied out", out.decode(), f"{own.number}\t{mark}\n" * 30)


async def types(own, conn, number):
    doc = {"mark": own.mark(), "n": [1, None, "ü"]}
    plain = own.number % 3 != 0
    values = [
        json.dumps(doc) if plain else doc,
        [own.number, number],
        ["a,b", 'q"q', "ž"],
        WHEN + datetime.timedelta(days=own.number),
        datetime.date(2026, 1, 1 + number),
        decimal.Decimal(f"{own.number}.12345"),
        bytes(range(256)),
        uuid.uuid4(),
        "cross" if number % 2 else "calm",
    ]
    columns = "doc, list, words, seen, day, amount, photo, token, feel"
    made = await conn.fetchval(
        f"INSERT INTO kinds (client, {columns}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id",
        own.number, *values,
    )
    found = list(await conn.fetchrow(f"SELECT {columns} FROM kinds WHERE id = $1", made))
    if plain:
        found[0], values[0] = json.loads(found[0]), doc
    own.equal("types", found, values)
    # An array of a type that the driver has to ask for; it turns `jit` off meanwhile.
    moods = await conn.fetchval("SELECT $1::mood[] || 'calm'::mood", ["cross", "calm"])
    own.equal("an array of an enum", moods, ["cross", "calm", "calm"])
    own.equal("jit", await conn.fetchval("SHOW jit"), "on")


async def resets(own, conn, _number):
    """What a pool of asyncpg does with a connection that it gets back."""
    own.settings["work_mem"] = own.startup.get("work_mem", own.settings["work_mem"])
    await conn.reset()
    expected = own.startup.get("app.tenant", "")
    own.equal("after a reset", await conn.fetchval("SELECT current_setting('app.tenant', true)") or "", expected)
    own.equal("the name after a reset", await conn.fetchval("SHOW application_name"), own.startup.get("application_name", ""))
    # RESET ALL leaves the role as it is.
    own.equal("the role after a reset", await conn.fetchval("SELECT current_user::text"), own.user)
    if not own.at_startup:
        await sets(own, conn)
    await reads(own, conn, "set again")


together = asyncio.Event()
arrived = 0


async def client(number):
    global arrived
    own = Own(tally, number)
    try:
        conn = await connected(own)
        arrived += 1
        if arrived == CLIENTS:
            together.set()
        # None works before all are connected.
        await asyncio.wait_for(together.wait(), 60)
        for turn in range(ROUNDS):
            await reads(own, conn, "at first")
            if BREAKS and number == 0:
                await conn.execute("SET app.tenant = 'tenant-1'")
            for step in (commits, rolls_back, sets_locally, errs, batches, streams, copies, types, resets):
                await step(own, conn, turn)
            await reads(own, conn, "at last")
            name, value = own.shown()
            own.equal(f"shown {name}", await conn.fetchval(f"SHOW {name}"), value)
        await conn.close(timeout=20)
    except Exception:
        tally.broke(number)


async def main():
    await asyncio.gather(*(client(number) for number in range(CLIENTS)))


asyncio.run(main())
tally.finish()
