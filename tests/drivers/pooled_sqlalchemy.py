"""Fifty clients with SQLAlchemy on psycopg 3: an engine each, with settings in `connect_args` or from a connect event."""

import contextlib
import datetime
import decimal
import uuid

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql as pg

import pooled
from pooled import BREAKS, CURSOR, DSN, READ, ROUNDS, Tally

WHEN = datetime.datetime(2026, 2, 28, 23, 59, 59, 123456, tzinfo=datetime.timezone.utc)
READ_SQL = sa.text(READ.replace("::", "\\:\\:").replace("'2024-07-01 12:00'", "'2024-07-01 12\\:00'").replace("$1", ":mark"))


class Base(orm.DeclarativeBase):
    pass


class Mark(Base):
    __tablename__ = "marks"
    id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger, primary_key=True)
    client: orm.Mapped[int]
    what: orm.Mapped[str]
    mark: orm.Mapped[str]


class Kind(Base):
    __tablename__ = "kinds"
    id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger, primary_key=True)
    client: orm.Mapped[int]
    doc = orm.mapped_column(pg.JSONB)
    list = orm.mapped_column(pg.ARRAY(sa.Integer))
    words = orm.mapped_column(pg.ARRAY(sa.Text))
    seen = orm.mapped_column(sa.DateTime(timezone=True))
    day = orm.mapped_column(sa.Date)
    amount = orm.mapped_column(sa.Numeric(20, 5))
    photo = orm.mapped_column(sa.LargeBinary)
    token = orm.mapped_column(sa.Uuid)
    feel = orm.mapped_column(pg.ENUM("calm", "cross", name="mood", create_type=False))


@contextlib.contextmanager
def connected(own):
    arguments = {"connect_timeout": 20}
    if own.number % 3:
        # Every statement is a prepared one from the first time on.
        arguments["prepare_threshold"] = 0
    if own.at_startup:
        arguments["options"] = own.options()
    engine = sa.create_engine(
        DSN.replace("postgresql://", "postgresql+psycopg://"), connect_args=arguments, pool_size=1, max_overflow=0
    )

    @sa.event.listens_for(engine, "connect")
    def sets(connection, _record):
        connection.autocommit = True
        with connection.cursor() as cursor:
            if not own.at_startup:
                for name, value in own.settings.items():
                    # A name that is a parameter would keep the server, see docs/session-state.md.
                    cursor.execute(f"SELECT set_config('{name}', %s, false)", (value,))
            if own.user != "shop":
                cursor.execute(f"SET ROLE {own.user}")
        connection.autocommit = False

    try:
        with engine.connect():
            pass
        yield engine
    finally:
        engine.dispose()


def read(own, conn, what, **changed):
    mark = own.mark()
    row = conn.execute(READ_SQL, {"mark": mark}).one()
    own.read(what, mark, list(row), {name.replace("app_tenant", "app.tenant"): value for name, value in changed.items()})


def reads(own, engine, what):
    with engine.connect() as conn:
        read(own, conn, what)
        info = conn.connection.driver_connection.info
        own.equal(f"{what}: told zone", str(info.timezone), own.settings["TimeZone"])
        own.equal(f"{what}: told name", info.parameter_status("application_name"), own.settings["application_name"])


def fails(own, what, sqlstate, work):
    try:
        work()
        found = None
    except sa.exc.DBAPIError as error:
        found = error.orig.sqlstate
    own.equal(what, found, sqlstate)


def commits(own, engine, number):
    mark, work_mem = own.mark(), f"{3073 + own.number + number}kB"
    with orm.Session(engine) as session:
        kept = Mark(client=own.number, what=f"kept {number}", mark=mark)
        session.add(kept)
        session.flush()
        with contextlib.suppress(RuntimeError), session.begin_nested():
            session.execute(sa.text("SET work_mem = '99MB'"))
            own.equal("set in a savepoint", session.scalar(sa.text("SHOW work_mem")), "99MB")
            raise RuntimeError("the savepoint is left by rolling back")

        def twice():
            with session.begin_nested():
                session.add(Mark(client=own.number, what=f"kept {number}", mark="twice"))

        fails(own, "the same row twice", "23505", twice)
        session.execute(sa.text(f"SET work_mem = '{work_mem}'"))
        session.commit()
        own.settings["work_mem"] = work_mem
        own.equal("committed", session.get(Mark, kept.id).mark, mark)
    reads(own, engine, "after a commit")


def rolls_back(own, engine, number):
    with engine.connect() as conn:
        conn.execute(sa.insert(Mark).values(client=own.number, what=f"gone {number}", mark="gone"))
        conn.execute(sa.text("SET app.tenant = 'tenant-77'"))
        conn.execute(sa.text("SELECT set_config('search_path', :path, false)"), {"path": own.place(1)})
        read(own, conn, "before a rollback", app_tenant="tenant-77", search_path=own.place(1))
        conn.rollback()
        read(own, conn, "after a rollback")
        conn.rollback()
        gone = sa.select(sa.func.count()).where(Mark.client == own.number, Mark.what == f"gone {number}")
        own.equal("rolled back", conn.scalar(gone), 0)


def sets_locally(own, engine, _number):
    with engine.begin() as conn:
        conn.execute(sa.text("SET LOCAL TIME ZONE 'Asia/Tokyo'"))
        conn.execute(sa.text("SELECT set_config('app.tenant', :tenant, true)"), {"tenant": "tenant-55"})
        conn.execute(sa.text("SELECT set_config('search_path', :path, true)"), {"path": own.place(2)})
        read(own, conn, "set locally", app_tenant="tenant-55", search_path=own.place(2), TimeZone="Asia/Tokyo")
    reads(own, engine, "after SET LOCAL")
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn:
        own.equal("isolation", conn.scalar(sa.text("SHOW transaction_isolation")), "repeatable read")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        own.equal("isolation", conn.scalar(sa.text("SHOW transaction_isolation")), "read committed")


def errs(own, engine, _number):
    with engine.connect() as conn:
        fails(own, "an error", "22012", lambda: conn.execute(sa.text("SELECT 1 / 0")))
        fails(own, "behind an error", "25P02", lambda: conn.execute(sa.text("SELECT 1")))
        conn.rollback()
        conn.execute(sa.text("SET LOCAL statement_timeout = '5ms'"))
        fails(own, "too slow", "57014", lambda: conn.execute(sa.text("SELECT pg_sleep(5)")))
        conn.rollback()
    reads(own, engine, "after errors")


def batches(own, engine, number):
    mark = own.mark()
    many = [{"client": own.number, "what": f"many {number} {at}", "mark": mark} for at in range(20)]
    with engine.begin() as conn:
        conn.execute(sa.insert(Mark), many)
        returned = conn.execute(sa.insert(Mark).returning(Mark.what, sort_by_parameter_order=True),
                                [{**row, "what": f"returned {row['what']}"} for row in many])
        own.equal("insertmanyvalues", returned.scalars().all(), [f"returned {row['what']}" for row in many])
    with engine.connect() as conn:
        found = conn.execute(sa.select(Mark.client, Mark.mark).where(Mark.mark == mark)).all()
        own.equal("executemany", [tuple(row) for row in found], [(own.number, mark)] * 40)


def streams(own, engine, _number):
    mark = own.mark()
    with engine.connect() as conn:
        options = {"stream_results": True, "max_row_buffer": 25}
        rows = conn.execution_options(**options).execute(sa.text(CURSOR.replace("::", "\\:\\:").replace("$1", ":mark")), {"mark": mark})
        own.equal("the first of a cursor", rows.fetchmany(5), [(f"{mark}-{at}",) for at in range(1, 6)])
        read(own, conn, "beside a cursor")
        own.equal("the rest of a cursor", rows.all(), [(f"{mark}-{at}",) for at in range(6, 121)])
    with orm.Session(engine) as session:
        found = session.scalars(sa.select(Mark).where(Mark.client == own.number).execution_options(yield_per=7))
        own.equal("yield_per", {row.client for row in found}, {own.number})


def copies(own, engine, number):
    mark = own.mark()
    with engine.begin() as conn, conn.connection.driver_connection.cursor() as cursor:
        with cursor.copy("COPY marks (client, what, mark) FROM STDIN") as copy:
            for at in range(30):
                copy.write_row((own.number, f"copied {number} {at}", mark))
        own.equal("copied in", cursor.rowcount, 30)
        with cursor.copy("COPY (SELECT client, mark FROM marks WHERE mark = %s) TO STDOUT", (mark,)) as copy:
            copy.set_types(["int4", "text"])
            own.equal("copied out", list(copy.rows()), [(own.number, mark)] * 30)


def types(own, engine, number):
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
        "feel": "cross" if number % 2 else "calm",
    }
    with orm.Session(engine) as session:
        kind = Kind(**values)
        session.add(kind)
        session.commit()
        session.expire_all()
        own.equal("types", {name: getattr(kind, name) for name in values}, values)
        own.equal("zone of a time", str(kind.seen.tzinfo), own.settings["TimeZone"])


def resets(own, engine, _number):
    before = own.settings["work_mem"]
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(sa.text("RESET work_mem"))
        own.settings["work_mem"] = own.startup.get("work_mem", "4MB")
    reads(own, engine, "after RESET")
    with engine.begin() as conn:
        conn.execute(sa.text(f"SET SESSION work_mem TO '{before}'"))
    own.settings["work_mem"] = before


def comes_back(own, engine, _number):
    """A connection of the engine's pool is replaced: the new one begins with what this client asks for."""
    with engine.connect() as conn:
        conn.invalidate()
        own.settings["work_mem"] = own.startup.get("work_mem", own.settings["work_mem"])
    reads(own, engine, "connected again")


def work(own, engine):
    for number in range(ROUNDS):
        reads(own, engine, "at first")
        if BREAKS and own.number == 0:
            with engine.begin() as conn:
                conn.execute(sa.text("SET app.tenant = 'tenant-1'"))
        for step in (commits, rolls_back, sets_locally, errs, batches, streams, copies, types, resets, comes_back):
            step(own, engine, number)
        reads(own, engine, "at last")
        with engine.connect() as conn:
            name, value = own.shown()
            own.equal(f"shown {name}", conn.scalar(sa.text(f"SHOW {name}")), value)


pooled.in_threads(Tally("sqlalchemy"), connected, work)
