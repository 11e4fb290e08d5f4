"""The SQLAlchemy adapter on SQLite, where a function of the test's own says how long a statement takes.

What takes a server that can hang and die is in test_sqlalchemy_postgres.py.
"""

import asyncio
import gc
import pickle
import random
import sqlite3
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial

import psycopg
import pytest
from sqlalchemy import ForeignKey, create_engine, event, exc, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload, sessionmaker
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

import groundfault.integrations.sqlalchemy as adapter_module
from groundfault import _context, errors, events
from groundfault._clock import monotonic
from groundfault.breaker import Registry, Resource
from groundfault.breaker import registry as default_registry
from groundfault.events import CommandDone, ConcurrencyChanged
from groundfault.integrations._sqlalchemy_errors import outcome_of
from groundfault.integrations.sqlalchemy import instrument, uninstrument
from groundfault.vocabulary import Outcome, State

WAIT_S = 10.0
SLOW = select(func.hold())


class Base(DeclarativeBase):
    pass


class Season(Base):
    __tablename__ = "season"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    contests: Mapped[list["Contest"]] = relationship(back_populates="season")


class Contest(Base):
    __tablename__ = "contest"
    id: Mapped[int] = mapped_column(primary_key=True)
    season_id: Mapped[int] = mapped_column(ForeignKey("season.id"))
    season: Mapped[Season] = relationship(back_populates="contests")


class Holding:
    """The SQL function ``hold()``: it returns when it is let go, and knows how many are inside."""

    def __init__(self):
        self.release = threading.Event()
        self.entered = threading.Semaphore(0)
        self.calls = 0

    def __call__(self):
        self.calls += 1
        self.entered.release()
        assert self.release.wait(WAIT_S)
        return "held"

    def await_inside(self, count):
        for _ in range(count):
            assert self.entered.acquire(timeout=WAIT_S)


@pytest.fixture
def holding():
    holding = Holding()
    yield holding
    holding.release.set()


@pytest.fixture
def registry():
    return Registry(draw=lambda: 0.0)


@pytest.fixture
def resource(registry, sink):
    return Resource("contest-db", registry=registry, sinks=[sink])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "contests.db"


@pytest.fixture
def sent():
    """Collect what SQLite was asked to do, without what opens and ends transactions."""
    return []


@pytest.fixture
def engine(path, holding, sent):
    """Make an engine on a file with a pool of 20 and two seasons of two contests each; not instrumented yet."""
    engine = create_engine(f"sqlite:///{path}", poolclass=QueuePool, pool_size=20, max_overflow=0)

    @event.listens_for(engine, "connect")
    def _connected(connection, _record):
        connection.create_function("hold", 0, holding)
        connection.set_trace_callback(lambda sql: None if sql in {"BEGIN ", "COMMIT", "ROLLBACK"} else sent.append(sql))

    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Season(name=name, contests=[Contest(), Contest()]) for name in ("first", "second")])
        session.commit()
    sent.clear()
    yield engine
    engine.dispose()


@pytest.fixture
def filled(engine, path):
    """Return the path to what ``engine`` has filled."""
    return path


@contextmanager
def instrumented(engine, resource, **options):
    instrument(engine, resource, **options)
    try:
        yield
    finally:
        uninstrument(engine)


@pytest.fixture
def guarded(engine, resource):
    with instrumented(engine, resource):
        yield engine


@pytest.fixture
def serving():
    """Pretend that a request is being served here."""
    context = _context.RequestContext("grouper")
    token = _context.serving.set(context)
    yield context
    _context.serving.reset(token)


def calls(sink):
    """Return command and outcome of each call that has ended, and forget them."""
    done = [(call.command, call.outcome.value) for call in sink.of(CommandDone)]
    sink.events.clear()
    return done


def in_flight(registry):
    return {command.name: command.snapshot().in_flight for command in registry}


def named(statement, name="season_totals"):
    return statement.execution_options(groundfault=name)


# --- only five of these at a time -------------------------------------------------------------------------------------


def by_session(engine):
    with Session(engine) as session:
        return session.scalar(named(SLOW))


def by_session_call(engine):
    with Session(engine) as session:
        return session.execute(SLOW, execution_options={"groundfault": "season_totals"}).scalar()


def by_session_in_a_transaction(engine):
    with sessionmaker(engine).begin() as session:
        return session.scalars(named(SLOW)).one()


def by_engine(engine):
    with engine.execution_options(groundfault="season_totals").connect() as connection:
        return connection.scalar(SLOW)


def by_engine_begin(engine):
    with engine.execution_options(groundfault="season_totals").begin() as connection:
        return connection.scalar(SLOW)


def by_connection(engine):
    with engine.connect().execution_options(groundfault="season_totals") as connection:
        return connection.scalar(SLOW)


def by_statement(engine):
    with engine.connect() as connection:
        return connection.scalar(named(SLOW))


def by_nobody(engine):
    with engine.connect() as connection:
        return connection.scalar(SLOW)


EARLY = [by_session, by_session_call, by_session_in_a_transaction, by_engine, by_engine_begin]


@pytest.mark.parametrize("ask", EARLY)
def test_five_run_at_a_time_and_the_sixth_is_refused_before_it_takes_a_connection(
    guarded, resource, registry, sink, holding, ask
):
    resource.command("season_totals", max_concurrent=5)
    with ThreadPoolExecutor(5) as threads:
        five = [threads.submit(ask, guarded) for _ in range(5)]
        holding.await_inside(5)
        taken = []
        event.listen(guarded, "checkout", lambda *_: taken.append(1))

        with pytest.raises(adapter_module.BulkheadFullError) as caught:
            ask(guarded)

        assert guarded.pool.checkedout() == 5
        assert taken == []
        assert (caught.value.command, caught.value.max_concurrent) == ("season_totals", 5)
        assert in_flight(registry)["season_totals"] == 5
        holding.release.set()
        assert [one.result(WAIT_S) for one in five] == ["held"] * 5

    assert [event.level for event in sink.of(ConcurrencyChanged)][:2] == ["high", "full"]
    assert Counter(calls(sink)) == {("season_totals", "success"): 5, ("season_totals", "bulkhead-full"): 1}
    assert set(in_flight(registry).values()) == {0}
    assert guarded.pool.checkedout() == 0
    assert ask(guarded) == "held"


def test_the_engines_own_command_is_refused_before_a_connection_is_taken(engine, resource, registry, holding):
    resource.command("any", max_concurrent=5)
    with instrumented(engine, resource, command="any"), ThreadPoolExecutor(5) as threads:
        five = [threads.submit(by_nobody, engine) for _ in range(5)]
        holding.await_inside(5)

        with pytest.raises(errors.BulkheadFullError):
            engine.connect()
        with Session(engine) as session:
            session.add(Season(name="third"))
            with pytest.raises(errors.BulkheadFullError):
                session.flush()

        assert engine.pool.checkedout() == 5
        holding.release.set()
        assert [one.result(WAIT_S) for one in five] == ["held"] * 5

    assert in_flight(registry) == {"any": 0}


@pytest.mark.parametrize("ask", [by_statement, by_connection])
def test_a_connection_already_taken_does_not_carry_a_refused_statement_to_the_database(
    guarded, resource, registry, sink, holding, sent, ask
):
    resource.command("season_totals", max_concurrent=5)
    with ThreadPoolExecutor(5) as threads:
        five = [threads.submit(ask, guarded) for _ in range(5)]
        holding.await_inside(5)
        before = len(sent)

        with pytest.raises(errors.BulkheadFullError):
            ask(guarded)

        assert len(sent) == before
        assert guarded.pool.checkedout() == 5
        holding.release.set()
        assert [one.result(WAIT_S) for one in five] == ["held"] * 5

    # Taking those connections was a call of the engine's command, for nobody had said otherwise.
    assert Counter(calls(sink)) == {
        ("query", "success"): 6,
        ("season_totals", "success"): 5,
        ("season_totals", "bulkhead-full"): 1,
    }
    assert set(in_flight(registry).values()) == {0}


def test_a_refused_statement_leaves_the_transaction_as_it_was(guarded, resource):
    totals = resource.command("season_totals")
    with Session(guarded) as session:
        session.add(Season(name="third"))
        session.flush()
        totals.tune(mode="force_open")

        with pytest.raises(errors.CircuitOpenError):
            session.scalars(named(select(Season.name)))

        session.commit()
        assert session.scalars(select(Season.name)).all() == ["first", "second", "third"]


def test_eight_connections_run_side_by_side(guarded, holding):
    with ThreadPoolExecutor(8) as threads:
        eight = [threads.submit(by_session, guarded) for _ in range(8)]
        holding.await_inside(8)  # all of them are inside at once
        holding.release.set()
        assert [one.result(WAIT_S) for one in eight] == ["held"] * 8


# --- one statement is one call ----------------------------------------------------------------------------------------


def orm_select(session):
    session.scalars(named(select(Season))).all()


def orm_get(session):
    session.get(Season, 1)


def orm_lazy_load(session):
    season = session.scalars(named(select(Season))).first()
    assert len(season.contests) == 2


def orm_eager_load(session):
    for season in session.scalars(named(select(Season).options(selectinload(Season.contests)))):
        assert len(season.contests) == 2


def orm_eager_load_in_parts(session):
    statement = select(Season).options(selectinload(Season.contests)).execution_options(yield_per=1)
    for part in session.scalars(named(statement)).partitions():
        assert len(part[0].contests) == 2


def orm_query(session):
    session.query(Season).execution_options(groundfault="season_totals").count()


def orm_flush(session):
    session.add(Season(name="third"))
    session.flush()


def orm_autoflush(session):
    session.add(Season(name="third"))
    session.scalars(named(select(Season.name))).all()


def orm_update(session):
    session.execute(named(update(Season).where(Season.id == 1).values(name="renamed")))


def orm_bulk_insert(session):
    session.execute(named(insert(Season)), [{"name": f"n{n}"} for n in range(3)])


def orm_refresh(session):
    season = session.get(Season, 1)
    session.refresh(season)


def core_through_the_session(session):
    session.connection().execute(named(select(Season)))


def core_text(session):
    session.execute(text("select 1").execution_options(groundfault="season_totals"))


def savepoint(session):
    with session.begin_nested():
        session.add(Season(name="third"))


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (orm_select, ["season_totals"]),
        (orm_get, ["query"]),
        (orm_lazy_load, ["season_totals", "query"]),
        (orm_eager_load, ["season_totals"] * 2),
        (orm_eager_load_in_parts, ["season_totals"] * 3),
        (orm_query, ["season_totals"]),
        (orm_flush, ["query"]),
        (orm_autoflush, ["season_totals", "query", "season_totals"]),  # the flush's connection was taken for the query
        (orm_update, ["season_totals"]),
        (orm_bulk_insert, ["season_totals"]),
        (orm_refresh, ["query"] * 2),
        (core_through_the_session, ["query", "season_totals"]),
        (core_text, ["season_totals"]),
        (savepoint, ["query"]),
    ],
)
def test_each_statement_of_a_session_is_one_call(guarded, registry, sink, act, expected):
    with Session(guarded) as session:
        act(session)
        session.commit()

    assert Counter(calls(sink)) == Counter((name, "success") for name in expected)
    assert set(in_flight(registry).values()) == {0}


@pytest.mark.parametrize(
    ("execute", "count"),
    [
        (lambda connection: connection.execute(select(Season)), 1),
        (lambda connection: connection.exec_driver_sql("select 1"), 1),
        (lambda connection: connection.exec_driver_sql("insert into season values (?, ?)", [(8, "a"), (9, "b")]), 1),
        (lambda connection: connection.execute(text("update season set name = :n"), [{"n": "a"}, {"n": "a"}]), 1),
        (lambda connection: connection.execute(insert(Season).returning(Season.id), [{"name": "a"}, {"name": "b"}]), 1),
        (lambda connection: [connection.execute(select(1)) for _ in range(3)], 3),
        (lambda connection: connection.exec_driver_sql("savepoint a"), 1),  # only the connection that was taken
        (lambda connection: connection.commit(), 1),
        (lambda connection: None, 1),
    ],
)
def test_each_statement_of_a_connection_is_one_call(guarded, registry, sink, execute, count):
    with guarded.connect() as connection, suppress(exc.IntegrityError):
        execute(connection)

    assert calls(sink) == [("query", "success")] * count
    assert in_flight(registry) == {"query": 0}


def test_what_ends_a_transaction_is_never_refused(guarded, resource):
    query = resource.command("query")
    with Session(guarded) as session:
        session.add(Season(name="third"))
        with session.begin_nested():
            session.add(Season(name="fourth"))
            session.flush()
            query.tune(mode="force_open")
        session.commit()
        query.tune(mode="enforce")
        assert len(session.scalars(select(Season)).all()) == 4

    with Session(guarded) as session:
        nested = session.begin_nested()
        session.add(Season(name="fifth"))
        session.flush()
        query.tune(mode="force_open")
        nested.rollback()
        session.rollback()


def test_a_raw_connection_is_one_call_when_it_is_taken(guarded, registry, sink):
    raw = guarded.raw_connection()
    assert in_flight(registry) == {"query": 0}
    raw.cursor().execute("select 1")
    raw.close()

    assert calls(sink) == [("query", "success")]


@pytest.mark.parametrize("pool", [NullPool, StaticPool])
def test_other_pools_work_alike(path, resource, registry, sink, pool):
    engine = create_engine(f"sqlite:///{path}", poolclass=pool, connect_args={"check_same_thread": False})
    with instrumented(engine, resource), engine.connect() as one, engine.connect() as other:
        assert in_flight(registry) == {"query": 2}
        assert (one.scalar(select(1)), other.scalar(select(2))) == (1, 2)

    assert calls(sink) == [("query", "success")] * 2
    assert in_flight(registry) == {"query": 0}
    engine.dispose()


def test_a_static_pool_that_mixes_up_its_users_loses_no_place(path, resource, registry):
    engine = create_engine(f"sqlite:///{path}", poolclass=StaticPool)
    with instrumented(engine, resource):
        kept = engine.connect()
        with engine.connect() as passing:
            passing.scalar(select(1))
        assert kept.scalar(select(1)) == 1
        kept.close()

    assert in_flight(registry) == {"query": 0}
    engine.dispose()


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine_says", "connection_says", "statement_says", "call_says", "expected"),
    [
        (None, None, None, None, "query"),
        ("engine", None, None, None, "engine"),
        ("engine", "connection", None, None, "connection"),
        ("engine", "connection", "statement", None, "statement"),
        ("engine", None, "statement", None, "statement"),
        ("engine", "connection", "statement", "call", "call"),
        (None, None, "statement", None, "statement"),
        (None, None, "statement", "call", "call"),
        (None, "connection", None, "call", "call"),
    ],
)
def test_the_most_particular_name_counts(
    guarded, sink, engine_says, connection_says, statement_says, call_says, expected
):
    def options(name):
        return {"groundfault": name} if name else {}

    engine = guarded.execution_options(**options(engine_says))
    with engine.connect().execution_options(**options(connection_says)) as connection:
        connection.execute(select(1).execution_options(**options(statement_says)), execution_options=options(call_says))

    assert calls(sink)[-1] == (expected, "success")


@pytest.mark.parametrize(
    ("session_says", "statement_says", "call_says", "expected"),
    [
        ("session", None, None, "session"),
        ("session", "statement", None, "statement"),
        ("session", "statement", "call", "call"),
        (None, "statement", "call", "call"),
    ],
)
def test_a_session_names_its_statements_too(guarded, sink, session_says, statement_says, call_says, expected):
    def options(name):
        return {"groundfault": name} if name else {}

    with Session(guarded, execution_options=options(session_says)) as session:
        session.scalars(
            select(Season).execution_options(**options(statement_says)), execution_options=options(call_says)
        ).all()

    assert calls(sink) == [(expected, "success")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Season_Totals", "season_totals"), ("no name", "other"), ("", "other"), (5, "other"), (["x"], "other")],
)
def test_what_is_no_name_counts_under_other(guarded, sink, name, expected):
    with guarded.connect() as connection:
        connection.execute(select(1), execution_options={"groundfault": name})

    assert calls(sink)[-1] == (expected, "success")


def test_names_beyond_two_hundred_count_under_other(guarded, registry):
    with guarded.connect() as connection:
        for number in range(250):
            connection.execute(select(1), execution_options={"groundfault": f"n{number}"})

    assert len(list(registry)) == 201
    assert next(command for command in registry if command.name == "other").snapshot().counts[Outcome.SUCCESS] == 51


def test_a_command_itself_may_stand_for_its_name(guarded, resource, registry, holding):
    totals = resource.command("season_totals", max_concurrent=1)
    with Session(guarded) as session, ThreadPoolExecutor(1) as threads:
        one = threads.submit(by_session, guarded)
        holding.await_inside(1)

        with pytest.raises(errors.BulkheadFullError):
            session.execute(named(select(1), totals))

        holding.release.set()
        assert one.result(WAIT_S) == "held"


def test_a_command_made_beforehand_is_used_as_it_is(engine, registry):
    contest_db = Resource("contest-db", registry=registry, timeout_s=3.0, max_concurrent=20)
    contest_db.command("season_totals", max_concurrent=5)
    with instrumented(engine, contest_db), Session(engine) as session:
        session.scalars(named(select(Season))).all()
        session.scalars(named(select(Season), "another")).all()

    assert {command.name: command.settings.max_concurrent for command in registry} == {
        "season_totals": 5,
        "query": 20,
        "another": 20,
    }


def test_a_name_given_to_a_session_does_not_outlive_its_statement(guarded, sink):
    with Session(guarded) as session:
        with pytest.raises(exc.CompileError):
            session.execute(named(insert(Season).values(nothing=1)))
        assert calls(sink) in ([], [("season_totals", "success")])  # whether a connection was taken before it was seen
        session.rollback()
    sink.events.clear()

    with guarded.connect():
        pass

    assert calls(sink) == [("query", "success")]


def test_a_listener_that_answers_without_the_database_costs_no_call(guarded, sink):
    cached = Session(guarded)
    with Session(guarded) as other:
        frozen = other.execute(select(Season.name)).freeze()
    calls(sink)
    event.listen(cached, "do_orm_execute", lambda _state: frozen())

    assert cached.scalars(named(select(Season.name))).all() == ["first", "second"]
    assert calls(sink) == []
    cached.close()


# --- rows that are streamed -------------------------------------------------------------------------------------------

STREAMED = named(select(Season.id)).execution_options(yield_per=1)


def test_a_stream_holds_its_place_until_its_rows_are_fetched(guarded, registry, sink):
    with guarded.connect() as connection:
        result = connection.execute(STREAMED)
        assert in_flight(registry)["season_totals"] == 1
        assert result.scalars().all() == [1, 2]
        assert in_flight(registry)["season_totals"] == 0
        connection.execute(select(1))

    assert calls(sink) == [("query", "success"), ("season_totals", "success"), ("query", "success")]


def let_go(result, connection):
    result.fetchone()
    result.close()


def give_the_connection_back(result, connection):
    result.fetchone()
    connection.close()


def have_the_connection_invalidated(result, connection):
    connection.invalidate()


@pytest.mark.parametrize("end", [let_go, give_the_connection_back, have_the_connection_invalidated])
def test_a_stream_that_is_left_gives_its_place_back(guarded, registry, sink, end):
    connection = guarded.connect()
    result = connection.execute(STREAMED)
    end(result, connection)

    assert in_flight(registry) == {"query": 0, "season_totals": 0}
    connection.close()
    assert calls(sink) == [("query", "success"), ("season_totals", "success")]


def test_a_stream_that_is_forgotten_gives_its_place_back_and_counts_as_ignored(guarded, registry):
    with guarded.connect() as connection:
        result = connection.execute(STREAMED)
        result.fetchone()
        del result
        gc.collect()
        totals = next(command for command in registry if command.name == "season_totals").snapshot()
        assert (totals.in_flight, totals.counts[Outcome.IGNORED]) == (0, 1)


def test_a_stream_that_breaks_ends_as_its_error(guarded, registry, sink):
    endless = text("with recursive c(x) as (select 1 union all select x + 1 from c) select x from c")
    with guarded.connect() as connection:
        result = connection.execute(named(endless).execution_options(yield_per=10))
        result.fetchone()
        connection.connection.driver_connection.interrupt()
        with pytest.raises(exc.OperationalError, match="interrupted"):
            result.fetchall()

    assert calls(sink)[-1] == ("season_totals", "timeout")
    assert in_flight(registry) == {"query": 0, "season_totals": 0}


def test_the_time_between_the_rows_of_a_stream_is_the_applications(engine, resource, sink, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("groundfault.integrations._sqlalchemy_call.monotonic", lambda: now[0])
    with instrumented(engine, resource), engine.connect() as connection:
        result = connection.execute(STREAMED)
        result.fetchone()
        now[0] += 60.0
        result.fetchall()

    assert [call.duration_s for call in sink.of(CommandDone)] == [0.0, 0.0]


def test_a_statement_without_rows_is_no_stream(guarded, registry, sink):
    with guarded.connect() as connection:
        result = connection.execute(
            named(update(Season).values(name=Season.name)).execution_options(stream_results=True)
        )
        assert (in_flight(registry)["season_totals"], result.rowcount) == (0, 2)

    assert calls(sink)[-1] == ("season_totals", "success")


# --- errors -----------------------------------------------------------------------------------------------------------


class DriverError(Exception):
    pass


def driver_error(name, base):
    return type(name, (base,), {})


_DATABASE_ERROR = driver_error("DatabaseError", DriverError)


class FakeDriver:
    """The errors of a driver as PEP 249 orders them."""

    Error = DriverError
    DatabaseError = _DATABASE_ERROR
    InterfaceError = driver_error("InterfaceError", DriverError)
    OperationalError = driver_error("OperationalError", _DATABASE_ERROR)
    InternalError = driver_error("InternalError", _DATABASE_ERROR)
    IntegrityError = driver_error("IntegrityError", _DATABASE_ERROR)
    ProgrammingError = driver_error("ProgrammingError", _DATABASE_ERROR)
    DataError = driver_error("DataError", _DATABASE_ERROR)
    NotSupportedError = driver_error("NotSupportedError", _DATABASE_ERROR)


class FakeDialect:
    def __init__(self, name, driver):
        self.name = name
        self.loaded_dbapi = driver


def sqlite_error(code, kind=sqlite3.OperationalError):
    error = kind("as it says")
    error.sqlite_errorcode = code
    return error


def of_postgres(sqlstate):
    return "postgresql", psycopg, psycopg.errors.lookup(sqlstate)("as it says")


def of_mysql(number):
    return "mysql", FakeDriver, FakeDriver.OperationalError(number, "as it says")


def of_sqlite(code):
    return "sqlite", sqlite3, sqlite_error(code)


def of_any(kind):
    return "oracle", FakeDriver, getattr(FakeDriver, kind)("as it says")


def of_python(error):
    return "oracle", FakeDriver, error


@pytest.mark.parametrize(
    ("case", "outcome"),
    [
        (of_postgres("57014"), Outcome.TIMEOUT),  # query_canceled
        (of_postgres("57P01"), Outcome.FAILURE),  # admin_shutdown
        (of_postgres("57P03"), Outcome.FAILURE),  # cannot_connect_now
        (of_postgres("53300"), Outcome.FAILURE),  # too_many_connections
        (of_postgres("53100"), Outcome.FAILURE),  # disk_full
        (of_postgres("08006"), Outcome.FAILURE),  # connection_failure
        (of_postgres("28P01"), Outcome.FAILURE),  # invalid_password
        (of_postgres("58030"), Outcome.FAILURE),  # io_error
        (of_postgres("XX000"), Outcome.FAILURE),  # internal_error
        (of_postgres("25P03"), Outcome.IGNORED),  # idle_in_transaction_session_timeout
        (of_postgres("40001"), Outcome.SUCCESS),  # serialization_failure
        (of_postgres("40P01"), Outcome.SUCCESS),  # deadlock_detected
        (of_postgres("55P03"), Outcome.SUCCESS),  # lock_not_available
        (of_postgres("23505"), Outcome.SUCCESS),  # unique_violation
        (of_postgres("42P01"), Outcome.SUCCESS),  # undefined_table
        (of_postgres("22012"), Outcome.SUCCESS),  # division_by_zero
        (of_postgres("0A000"), Outcome.SUCCESS),  # feature_not_supported
        (("postgresql", psycopg, psycopg.OperationalError("server closed the connection")), Outcome.FAILURE),
        (("postgresql", psycopg, psycopg.InterfaceError("the connection is closed")), Outcome.FAILURE),
        (of_sqlite(sqlite3.SQLITE_ERROR), Outcome.SUCCESS),
        (of_sqlite(sqlite3.SQLITE_CONSTRAINT_UNIQUE), Outcome.SUCCESS),
        (of_sqlite(sqlite3.SQLITE_BUSY), Outcome.TIMEOUT),
        (of_sqlite(sqlite3.SQLITE_BUSY_SNAPSHOT), Outcome.TIMEOUT),
        (of_sqlite(sqlite3.SQLITE_INTERRUPT), Outcome.TIMEOUT),
        (of_sqlite(sqlite3.SQLITE_CANTOPEN), Outcome.FAILURE),
        (of_sqlite(sqlite3.SQLITE_IOERR), Outcome.FAILURE),
        (of_sqlite(sqlite3.SQLITE_FULL), Outcome.FAILURE),
        (of_sqlite(sqlite3.SQLITE_CORRUPT), Outcome.FAILURE),
        (of_mysql(1205), Outcome.SUCCESS),  # lock wait timeout
        (of_mysql(1213), Outcome.SUCCESS),  # deadlock
        (of_mysql(1054), Outcome.SUCCESS),  # unknown column
        (of_mysql(3024), Outcome.TIMEOUT),  # max_execution_time
        (of_mysql(1040), Outcome.FAILURE),  # too many connections
        (of_mysql(1053), Outcome.FAILURE),  # shutdown in progress
        (of_mysql(2006), Outcome.FAILURE),  # server has gone away
        (of_mysql(2013), Outcome.FAILURE),  # lost connection
        (of_any("OperationalError"), Outcome.FAILURE),
        (of_any("InterfaceError"), Outcome.FAILURE),
        (of_any("InternalError"), Outcome.FAILURE),
        (of_any("DatabaseError"), Outcome.FAILURE),
        (of_any("IntegrityError"), Outcome.SUCCESS),
        (of_any("ProgrammingError"), Outcome.SUCCESS),
        (of_any("DataError"), Outcome.SUCCESS),
        (of_any("NotSupportedError"), Outcome.SUCCESS),
        (of_python(exc.TimeoutError("the pool")), Outcome.TIMEOUT),
        (of_python(exc.OperationalError("select", {}, FakeDriver.OperationalError("gone"))), Outcome.FAILURE),
        (of_python(exc.IntegrityError("insert", {}, FakeDriver.IntegrityError("taken"))), Outcome.SUCCESS),
        (of_python(exc.InvalidRequestError("misused")), Outcome.IGNORED),
        (of_python(OverflowError("too large for the driver")), Outcome.IGNORED),
        (of_python(TypeError("not for the driver")), Outcome.IGNORED),
        (of_python(OSError("of a driver that lets it through")), None),
        (of_python(asyncio.CancelledError()), None),
        (of_python(errors.BulkheadFullError("other-db", "query", 5)), None),
    ],
    ids=lambda case: type(case[2]).__name__ if isinstance(case, tuple) else None,
)
def test_what_an_error_means(case, outcome):
    name, driver, error = case
    assert outcome_of(error, FakeDialect(name, driver)) is outcome


@pytest.mark.parametrize(
    ("statement", "error", "outcome"),
    [
        (text("select * from nothing"), exc.OperationalError, "success"),
        (text("insert into season values (1, 'first')"), exc.IntegrityError, "success"),
        (text("select :n").bindparams(n=2**100), OverflowError, "ignored"),
        (text("select :n").bindparams(n=object()), exc.ProgrammingError, "success"),
    ],
)
def test_the_original_error_is_raised(guarded, registry, sink, statement, error, outcome):
    with guarded.connect() as connection, pytest.raises(error) as caught:
        connection.execute(statement)

    assert not isinstance(caught.value, errors.GroundFaultError)
    assert calls(sink) == [("query", outcome)]
    assert in_flight(registry) == {"query": 0}


def test_ignored_errors_say_nothing_about_the_database(engine, registry, sink):
    resource = Resource("contest-db", registry=registry, sinks=[sink], ignored_errors=(sqlite3.IntegrityError,))
    with instrumented(engine, resource), engine.connect() as connection, pytest.raises(exc.IntegrityError):
        connection.execute(text("insert into season values (1, 'first')"))

    assert calls(sink) == [("query", "ignored")]


@pytest.mark.parametrize(
    "error",
    [
        adapter_module.CircuitOpenError("contest-db", "query", 2.0),
        adapter_module.BulkheadFullError("contest-db", "query", 5),
        adapter_module.ThrottledError("contest-db", "query", 0.25),
        adapter_module.UnhealthyError("contest-db", "query"),
        adapter_module.CommandTimeoutError("contest-db", "query", 0.5),
    ],
)
def test_the_adapters_errors_are_sqlalchemys_errors_and_pickle(error):
    assert isinstance(error, exc.OperationalError)
    assert isinstance(error, errors.GroundFaultError)
    assert "contest-db/query" in str(error)

    back = pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes

    assert type(back) is type(error)
    assert (str(back), back.resource, back.command) == (str(error), "contest-db", "query")


def test_a_refused_autoflush_says_so_in_its_details(guarded, resource):
    query = resource.command("query")
    with Session(guarded) as session:
        session.scalars(select(Season)).all()
        session.add(Season(name="third"))
        query.tune(mode="force_open")
        with pytest.raises(adapter_module.CircuitOpenError) as caught:
            session.scalars(named(select(Season))).all()

    assert "autoflush" in caught.value.detail[0]
    assert isinstance(caught.value.orig, errors.CircuitOpenError)


def test_a_rejection_is_a_fault_of_the_request_and_neutral_for_a_command_around_it(guarded, resource, sink, serving):
    resource.command("season_totals").tune(mode="force_open")
    outer = resource.command("report")

    @outer
    def report():
        with Session(guarded) as session:
            return session.scalars(named(select(Season))).all()

    with pytest.raises(adapter_module.CircuitOpenError) as caught:
        report()

    assert calls(sink) == [("season_totals", "circuit-open"), ("report", "ignored")]
    assert serving.fault_behind(caught.value).command == "season_totals"


def test_a_failure_is_a_fault_of_the_request(path, resource, sink, serving):
    engine = create_engine(f"sqlite:///{path.parent}/missing/contests.db")
    with instrumented(engine, resource), pytest.raises(exc.OperationalError) as caught:
        engine.connect()

    assert serving.fault_behind(caught.value).outcome is Outcome.FAILURE
    assert calls(sink) == [("query", "failure")]


def test_a_database_that_cannot_be_reached_opens_the_circuit_and_one_probe_closes_it(path, registry, sink):
    place = path.parent / "missing"
    resource = Resource("contest-db", registry=registry, sinks=[sink], sleep_window_s=0.02, max_sleep_window_s=0.02)
    query = resource.command("query")
    engine = create_engine(f"sqlite:///{place}/contests.db")
    attempts = []
    event.listen(engine, "do_connect", lambda *_: attempts.append(1))
    with instrumented(engine, resource):
        for _ in range(20):
            with pytest.raises(exc.OperationalError, match="unable to open"), engine.connect():
                pass
        assert query.snapshot().state is State.OPEN
        before = len(attempts)
        query.tune(sleep_window_s=60.0, max_sleep_window_s=60.0)

        place.mkdir()
        answers = 0
        for _ in range(2000):
            with suppress(errors.CircuitOpenError), Session(engine) as session:
                answers += session.scalar(select(1))
            if query.snapshot().state is State.CLOSED:
                break
            threading.Event().wait(0.005)

        assert (answers, len(attempts)) == (1, before + 1)
        assert query.snapshot().state is State.CLOSED
    engine.dispose()


def test_a_pool_that_has_none_to_give_is_a_timeout(path, resource, sink, registry):
    engine = create_engine(f"sqlite:///{path}", poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=0.05)
    with instrumented(engine, resource):
        with engine.connect() as held:
            held.scalar(select(1))
            with pytest.raises(exc.TimeoutError):
                engine.connect()

        assert calls(sink) == [("query", "success"), ("query", "timeout")]
        assert in_flight(registry) == {"query": 0}
        with engine.connect() as again:
            assert again.scalar(select(1)) == 1
    engine.dispose()


def test_waiting_for_the_pool_is_not_the_databases_time(path, registry, sink):
    resource = Resource("contest-db", registry=registry, sinks=[sink], timeout_s=0.2)
    engine = create_engine(f"sqlite:///{path}", poolclass=QueuePool, pool_size=1, max_overflow=0)
    with instrumented(engine, resource), ThreadPoolExecutor(1) as threads:
        held = engine.connect()
        held.scalar(select(1))
        waiting = threads.submit(lambda: engine.connect().close())
        threading.Event().wait(0.3)
        held.close()
        waiting.result(WAIT_S)

    assert sink.of(CommandDone)[-1].duration_s < 0.2
    engine.dispose()


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_late_result_is_returned_and_counts_as_a_timeout(engine, registry, sink, holding):
    resource = Resource("contest-db", registry=registry, sinks=[sink], timeout_s=0.01)
    timer = threading.Timer(0.05, holding.release.set)
    timer.start()
    with instrumented(engine, resource):
        assert by_session(engine) == "held"
    timer.join()

    assert calls(sink) == [("season_totals", "timeout")]


def test_a_budget_already_gone_sends_nothing(guarded, registry, sink, sent, serving):
    with guarded.connect() as connection:
        connection.scalar(select(1))
        sent.clear()
        calls(sink)
        serving.deadline = monotonic() - 0.01

        with pytest.raises(adapter_module.CommandTimeoutError):
            connection.scalar(select(1))
        with pytest.raises(adapter_module.CommandTimeoutError):
            guarded.connect()

        connection.commit()

    assert sent == []
    assert calls(sink) == [("query", "ignored")] * 2
    assert in_flight(registry) == {"query": 0}


# --- instrumenting ----------------------------------------------------------------------------------------------------


def test_instrumenting_twice_is_an_error_that_names_the_engine(guarded, resource):
    with pytest.raises(errors.SettingsError, match="instrumented as 'contest-db' already") as caught:
        instrument(guarded, resource)
    assert "sqlite" in str(caught.value)


def test_an_engine_that_shares_a_pool_is_not_instrumented_by_itself(engine, resource):
    with pytest.raises(errors.SettingsError, match="instrument that one"):
        instrument(engine.execution_options(groundfault="reports"), resource)


def test_settings_belong_to_a_resource_that_is_passed(engine, resource):
    with pytest.raises(errors.SettingsError, match="belong to the Resource"):
        instrument(engine, resource, timeout_s=1.0)


@pytest.mark.parametrize("wrong", [{"command": "no name"}, {"timeout_s": -1}, {"tiemout_s": 1}])
def test_nonsense_instruments_nothing(engine, wrong):
    with pytest.raises(errors.SettingsError):
        instrument(engine, "nonsense-db", **wrong)
    with pytest.raises(errors.SettingsError, match="not instrumented"):
        uninstrument(engine)


def test_a_name_and_settings_make_a_resource_in_the_default_registry(engine, sink):
    made = instrument(engine, "sqlalchemy-test-db", command="lookup", timeout_s=3.0, sinks=[sink])
    try:
        made.command("season_totals", max_concurrent=5)
        by = {c.name: c.settings for c in default_registry() if c.resource == "sqlalchemy-test-db"}
        assert (by["lookup"].timeout_s, by["lookup"].max_concurrent) == (3.0, None)
        assert (by["season_totals"].timeout_s, by["season_totals"].max_concurrent) == (3.0, 5)
        with engine.connect() as connection:
            connection.execute(select(1))
        assert calls(sink) == [("lookup", "success")]
    finally:
        uninstrument(engine)


def test_uninstrumenting_leaves_nothing_behind(engine, resource, sink):
    before = dict(vars(engine))
    reports = engine.execution_options(groundfault="reports")
    instrument(engine, resource)
    later = engine.execution_options(groundfault="later")
    for one in (reports, later):
        with one.connect() as connection:
            connection.execute(select(1))
    uninstrument(engine)
    calls(sink)

    assert {name: value for name, value in vars(engine).items() if name != "_has_events"} == before
    for one in (engine, reports, later):
        assert not {"connect", "raw_connection", "execution_options"} & set(vars(one))
        with one.connect() as connection:
            connection.execute(named(select(1)))
    with Session(engine) as session:
        session.execute(named(select(1)))
    assert calls(sink) == []

    instrument(engine, resource)
    by_nobody_quick(engine)
    uninstrument(engine)
    assert calls(sink) == [("query", "success")]


def by_nobody_quick(engine):
    with engine.connect() as connection:
        connection.execute(select(1))


def test_what_was_wrapped_around_connect_since_stays(engine, resource):
    instrument(engine, resource)
    engine.connect = wrapper = partial(lambda inner: inner(), engine.connect)
    uninstrument(engine)

    assert engine.connect is wrapper
    by_nobody_quick(engine)


def test_an_engine_made_by_execution_options_before_is_guarded_too(engine, resource, sink):
    reports = engine.execution_options(groundfault="reports")
    with instrumented(engine, resource):
        for _ in range(2):
            by_nobody_quick(reports)
        assert calls(sink) == [("reports", "success")] * 2
        resource.command("reports").tune(mode="force_open")
        with pytest.raises(errors.CircuitOpenError):
            reports.connect()


def test_two_engines_at_once_keep_to_themselves(engine, path, registry, sink):
    other = create_engine(f"sqlite:///{path}")
    with (
        instrumented(engine, Resource("contest-db", registry=registry, sinks=[sink])),
        instrumented(other, Resource("other-db", registry=registry, sinks=[sink])),
    ):
        by_nobody_quick(engine)
        by_nobody_quick(other)
        with Session(other) as session:
            session.execute(named(select(1)))

    done = [(call.resource, call.command) for call in sink.of(CommandDone)]
    assert done == [("contest-db", "query"), ("other-db", "query"), ("other-db", "season_totals")]
    other.dispose()


def test_a_new_pool_is_guarded_like_the_old_one(guarded, registry, sink):
    by_nobody_quick(guarded)
    guarded.dispose()
    by_nobody_quick(guarded)
    with guarded.connect():
        assert in_flight(registry) == {"query": 1}

    assert calls(sink) == [("query", "success")] * 3
    assert in_flight(registry) == {"query": 0}


def test_a_connection_that_was_invalidated_takes_another_one(guarded, registry, sink):
    with guarded.connect() as connection:
        connection.invalidate()
        assert in_flight(registry) == {"query": 0}
        connection.rollback()
        assert connection.scalar(select(1)) == 1

    assert calls(sink) == [("query", "success")] * 3
    assert in_flight(registry) == {"query": 0}


def test_a_connection_that_is_forgotten_gives_its_place_back(guarded, registry):
    connection = guarded.connect()
    assert in_flight(registry) == {"query": 1}
    del connection
    gc.collect()

    assert in_flight(registry) == {"query": 0}
    assert guarded.pool.checkedout() == 0


def test_listeners_before_and_after_still_execute_statements(engine, resource, sink):
    seen = []
    event.listen(engine, "do_execute", lambda *_: seen.append("before"))
    with instrumented(engine, resource):
        event.listen(engine, "do_execute", lambda *_: seen.append("after"))

        @event.listens_for(engine, "do_execute")
        def _replace(cursor, sql, parameters, context):
            cursor.execute("select 'another'")
            return True

        with engine.connect() as connection:
            assert connection.scalar(select(1)) == "another"

    assert seen == ["before", "after"]
    assert calls(sink) == [("query", "success")]


def test_switched_off_it_does_nothing(engine, monkeypatch, sink):
    monkeypatch.setenv("GROUNDFAULT_DISABLED", "1")
    resource = Resource("contest-db", registry=Registry(), sinks=[sink], mode="force_open", timeout_s=0.001)
    with instrumented(engine, resource):
        by_nobody_quick(engine)
        with Session(engine) as session:
            assert session.scalars(STREAMED).all() == [1, 2]

    assert sink.events == []


def test_an_error_of_its_own_bookkeeping_costs_no_connection(guarded, registry, monkeypatch):
    monkeypatch.setattr("sqlalchemy.engine.Connection.info", property(lambda _self: {}["info"]))
    with guarded.connect() as connection:
        assert connection.scalar(select(1)) == 1
        assert connection.execute(STREAMED).scalars().all() == [1, 2]

    assert events.internal_errors() == {"connection of SQLAlchemy": 2}
    assert in_flight(registry) == {"query": 0, "season_totals": 0}


def test_shadow_mode_refuses_nothing(engine, registry, sink, holding):
    resource = Resource("contest-db", registry=registry, sinks=[sink], mode="shadow", max_concurrent=1)
    with instrumented(engine, resource), ThreadPoolExecutor(3) as threads:
        three = [threads.submit(by_session, engine) for _ in range(3)]
        holding.await_inside(3)
        holding.release.set()
        assert [one.result(WAIT_S) for one in three] == ["held"] * 3

    assert Counter(calls(sink)) == {("season_totals", "bulkhead-full"): 2, ("season_totals", "success"): 1}


# --- asyncio ----------------------------------------------------------------------------------------------------------


@contextmanager
def async_guarded(path, resource, **options):
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", **options)
    instrument(engine, resource)
    try:
        yield engine
    finally:
        uninstrument(engine)


COUNT_FOREVER = text("with recursive c(x) as (select 1 union all select x + 1 from c) select count(*) from c")


def test_among_coroutines_five_run_at_a_time(path, resource, registry, sink, holding):
    resource.command("season_totals", max_concurrent=5)

    async def ask(engine):
        async with AsyncSession(engine) as session:
            return await session.scalar(named(SLOW))

    async def scenario(engine):
        event.listen(
            engine.sync_engine, "connect", lambda connection, _: connection.create_function("hold", 0, holding)
        )
        five = [asyncio.create_task(ask(engine)) for _ in range(5)]
        await asyncio.to_thread(holding.await_inside, 5)
        with pytest.raises(adapter_module.BulkheadFullError):
            await ask(engine)
        assert engine.pool.checkedout() == 5
        with pytest.raises(errors.BulkheadFullError):
            await engine.execution_options(groundfault="season_totals").connect()
        assert engine.pool.checkedout() == 5
        holding.release.set()
        assert await asyncio.gather(*five) == ["held"] * 5
        await engine.dispose()

    with async_guarded(path, resource) as engine:
        asyncio.run(scenario(engine))

    assert Counter(calls(sink)) == {("season_totals", "success"): 5, ("season_totals", "bulkhead-full"): 2}
    assert set(in_flight(registry).values()) == {0}


def test_among_coroutines_each_statement_is_one_call(filled, resource, registry, sink):
    async def scenario(engine):
        async with AsyncSession(engine) as session:
            assert len((await session.scalars(named(select(Season)))).all()) == 2
            session.add(Season(name="third"))
            await session.commit()
        async with engine.begin() as connection:
            await connection.execute(select(1))
            result = await connection.stream(STREAMED)
            assert in_flight(registry)["season_totals"] == 1
            assert [row.id async for row in result] == [1, 2, 3]
            assert in_flight(registry)["season_totals"] == 0
        await engine.dispose()

    with async_guarded(filled, resource) as engine:
        asyncio.run(scenario(engine))

    assert calls(sink) == [
        ("season_totals", "success"),
        ("query", "success"),
        ("query", "success"),
        ("season_totals", "success"),
    ]
    assert set(in_flight(registry).values()) == {0}


def test_among_coroutines_the_timeout_is_enforced_and_the_connection_thrown_away(path, registry, sink):
    resource = Resource("contest-db", registry=registry, sinks=[sink], timeout_s=30.0)
    resource.command("endless", timeout_s=0.05)

    async def scenario(engine):
        invalidated = []
        event.listen(engine.sync_engine, "invalidate", lambda *_: invalidated.append(1))
        async with engine.connect() as connection:
            with pytest.raises(adapter_module.CommandTimeoutError) as caught:
                await connection.scalar(named(COUNT_FOREVER, "endless"))
        assert caught.value.timeout_s == 0.05
        assert invalidated == [1]
        assert asyncio.current_task().cancelling() == 0
        assert engine.pool.checkedout() == 0
        async with engine.connect() as connection:
            assert await connection.scalar(select(1)) == 1
        await engine.dispose()

    with async_guarded(path, resource) as engine:
        asyncio.run(scenario(engine))

    assert calls(sink) == [("query", "success"), ("endless", "timeout"), ("query", "success")]
    assert set(in_flight(registry).values()) == {0}


def test_running_out_of_a_callers_tiny_budget_is_neutral(path, registry, sink, serving):
    resource = Resource("contest-db", registry=registry, sinks=[sink], timeout_s=30.0)

    async def scenario(engine):
        async with engine.connect() as connection:
            await connection.scalar(select(1))
            serving.deadline = monotonic() + 0.1
            with pytest.raises(adapter_module.CommandTimeoutError):
                await connection.scalar(COUNT_FOREVER)
        await engine.dispose()

    with async_guarded(path, resource) as engine:
        asyncio.run(scenario(engine))

    assert calls(sink) == [("query", "success"), ("query", "ignored")]


def test_a_cancellation_by_somebody_else_stays_one_and_is_neutral(path, registry, sink):
    resource = Resource("contest-db", registry=registry, sinks=[sink], timeout_s=30.0)

    async def scenario(engine):
        began = asyncio.Event()
        # Interrupted, so that its thread ends: SQLAlchemy closes the connection only then.
        driver = []

        async def ask():
            async with engine.connect() as connection:
                driver.append((await connection.get_raw_connection()).driver_connection)
                began.set()
                await connection.scalar(COUNT_FOREVER)

        task = asyncio.create_task(ask())
        await began.wait()
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.sleep(0)
        await driver[0].interrupt()
        with pytest.raises(asyncio.CancelledError):
            await task
        await engine.dispose()

    with async_guarded(path, resource) as engine:
        asyncio.run(scenario(engine))

    assert calls(sink) == [("query", "ignored")]
    assert set(in_flight(registry).values()) == {0}


def test_a_storm_of_cancellations_loses_no_place(filled, resource, registry):
    resource.command("season_totals", max_concurrent=5)
    dice = random.Random(7)

    async def ask(engine, number):
        with suppress(errors.RejectedError):
            if number % 3 == 0:
                async with engine.connect() as connection:
                    async for _ in await connection.stream(STREAMED):
                        await asyncio.sleep(0)
            else:
                async with AsyncSession(engine) as session:
                    await session.scalars(named(select(Season)))
                    await session.scalars(select(Contest))

    async def scenario(engine):
        for _ in range(20):
            tasks = [asyncio.create_task(ask(engine, number)) for number in range(12)]
            for task in tasks:
                await asyncio.sleep(dice.choice((0, 0, 0.001)))
                if dice.random() < 0.7:
                    task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert result is None or isinstance(result, asyncio.CancelledError), result
        assert engine.pool.checkedout() == 0
        await engine.dispose()

    with async_guarded(filled, resource) as engine:
        asyncio.run(scenario(engine))
    gc.collect()

    assert set(in_flight(registry).values()) == {0}
    assert events.internal_errors() == {}


def test_a_pool_that_has_none_to_give_within_the_timeout_is_a_timeout(path, registry, sink):
    resource = Resource("contest-db", registry=registry, sinks=[sink], timeout_s=0.05)

    async def scenario(engine):
        async with engine.connect() as held:
            await held.scalar(select(1))
            with pytest.raises(adapter_module.CommandTimeoutError):
                await engine.connect()
        async with engine.connect() as again:
            assert await again.scalar(select(1)) == 1
        await engine.dispose()

    with async_guarded(path, resource, poolclass=None, pool_size=1, max_overflow=0) as engine:
        asyncio.run(scenario(engine))

    assert ("query", "timeout") in calls(sink)
    assert in_flight(registry) == {"query": 0}


def test_instrumenting_an_async_engine_is_instrumenting_its_sync_engine(path, resource):
    with async_guarded(path, resource) as engine:
        with pytest.raises(errors.SettingsError, match="already"):
            instrument(engine.sync_engine, resource)
        with pytest.raises(errors.SettingsError, match="instrument that one"):
            instrument(engine.execution_options(groundfault="reports"), resource)
