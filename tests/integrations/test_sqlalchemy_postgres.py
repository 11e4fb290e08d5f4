"""The SQLAlchemy adapter on a PostgreSQL that hangs, refuses, dies and comes back."""

import asyncio
import gc
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import psycopg
import pytest
from sqlalchemy import create_engine, event, exc, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from groundfault import errors, events
from groundfault.breaker import Registry, Resource
from groundfault.events import CircuitChanged, CommandDone, ConcurrencyChanged
from groundfault.integrations.sqlalchemy import CommandTimeoutError, instrument, uninstrument
from groundfault.vocabulary import Outcome, State

pytestmark = [
    pytest.mark.e2e,
    # psycopg's own, of a server's cursor whose connection was lost or whose task was canceled
    pytest.mark.filterwarnings("ignore:.*was deleted while still open.*:ResourceWarning"),
]

WAIT_S = 20.0
LOCK = 4711
# The test holds the lock as long as it likes, and so decides how long the statement takes.
LOCKED = select(func.pg_advisory_xact_lock_shared(LOCK)).execution_options(groundfault="season_totals")
ROWS = text("select generate_series(1, 5000)").execution_options(groundfault="season_totals", yield_per=100)
ENDLESS = select(func.pg_sleep(60)).execution_options(groundfault="season_totals")


@pytest.fixture(autouse=True)
def _nothing_left_for_the_next_module():
    """Collect those cursors here, where they are expected."""
    yield
    gc.collect()


@pytest.fixture
def registry():
    return Registry(draw=lambda: 0.0)


@pytest.fixture
def make(registry, sink):
    """Make the resource, its settings given by name."""

    def made(**settings):
        return Resource("contest-db", registry=registry, sinks=[sink], **settings)

    return made


@contextmanager
def guarded(postgres, resource, **options):
    engine = create_engine(postgres.url, **options)
    instrument(engine, resource)
    try:
        yield engine
    finally:
        uninstrument(engine)
        engine.dispose()


def run_async(postgres, resource, scenario, **options):
    async def run():
        engine = create_async_engine(postgres.url, **options)
        instrument(engine, resource)
        try:
            async with asyncio.timeout(60):
                await scenario(engine)
        finally:
            uninstrument(engine)
            await engine.dispose()

    asyncio.run(run())


@pytest.fixture
def lock(postgres):
    """Hold a lock that LOCKED waits for; calling it lets go."""
    holder = psycopg.connect(postgres.conninfo, autocommit=True)
    holder.execute("select pg_advisory_lock(%s)", (LOCK,))

    def let_go():
        holder.close()

    yield let_go
    holder.close()


def wait_for(condition):
    end = time.monotonic() + WAIT_S  # noqa: TID251  a real server is waited for in real time
    while not condition():
        assert time.monotonic() < end, "it never came to pass"  # noqa: TID251  as above
        time.sleep(0.01)


def waiting_in(postgres, count):
    with psycopg.connect(postgres.conninfo, autocommit=True) as watcher:
        query = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
        wait_for(lambda: watcher.execute(query).fetchone() == (count,))


def outcomes(sink):
    return Counter((call.command, call.outcome.value) for call in sink.of(CommandDone))


def in_flight(registry):
    return {command.name: command.snapshot().in_flight for command in registry}


def ask(engine, statement=LOCKED):
    with Session(engine) as session:
        return session.execute(statement).all()


async def aask(engine, statement=LOCKED):
    async with AsyncSession(engine) as session:
        return (await session.execute(statement)).all()


# --- only five of these at a time -------------------------------------------------------------------------------------


def test_five_queries_wait_in_the_database_and_the_sixth_is_refused_without_a_connection(
    postgres, make, registry, sink, lock
):
    resource = make()
    resource.command("season_totals", max_concurrent=5)
    with guarded(postgres, resource, pool_size=10) as engine, ThreadPoolExecutor(5) as threads:
        five = [threads.submit(ask, engine) for _ in range(5)]
        waiting_in(postgres, 5)

        for _ in range(20):
            with pytest.raises(errors.BulkheadFullError):
                ask(engine)

        assert engine.pool.checkedout() == 5
        assert ask(engine, select(1)) == [(1,)]  # everything else still works
        lock()
        for one in five:
            assert len(one.result(WAIT_S)) == 1
        assert engine.pool.checkedout() == 0

    assert [event.level for event in sink.of(ConcurrencyChanged)][:2] == ["high", "full"]
    assert outcomes(sink) == {
        ("season_totals", "success"): 5,
        ("season_totals", "bulkhead-full"): 20,
        ("query", "success"): 1,
    }
    assert set(in_flight(registry).values()) == {0}


def test_among_coroutines_the_sixth_is_refused_as_well(postgres, make, registry, sink, lock):
    resource = make()
    resource.command("season_totals", max_concurrent=5)

    async def scenario(engine):
        five = [asyncio.create_task(aask(engine)) for _ in range(5)]
        await asyncio.to_thread(waiting_in, postgres, 5)
        for _ in range(20):
            with pytest.raises(errors.BulkheadFullError):
                await aask(engine)
        assert engine.pool.checkedout() == 5
        lock()
        await asyncio.gather(*five)
        assert engine.pool.checkedout() == 0

    run_async(postgres, resource, scenario, pool_size=10)

    assert outcomes(sink) == {("season_totals", "success"): 5, ("season_totals", "bulkhead-full"): 20}
    assert set(in_flight(registry).values()) == {0}


# --- rows that are streamed -------------------------------------------------------------------------------------------


def test_rows_behind_a_servers_cursor_hold_the_place(postgres, make, registry, sink):
    with guarded(postgres, make()) as engine, engine.connect() as connection:
        result = connection.execute(ROWS)
        assert len(result.fetchmany(100)) == 100
        assert in_flight(registry)["season_totals"] == 1
        assert len(result.fetchall()) == 4900
        assert in_flight(registry)["season_totals"] == 0

    assert outcomes(sink) == {("query", "success"): 1, ("season_totals", "success"): 1}


def test_among_coroutines_they_hold_it_too(postgres, make, registry, sink):
    async def scenario(engine):
        async with engine.execution_options(groundfault="season_totals").connect() as connection:
            result = await connection.stream(ROWS)
            assert await result.fetchone() == (1,)
            assert in_flight(registry)["season_totals"] == 1
            assert len([row async for row in result]) == 4999
            assert in_flight(registry)["season_totals"] == 0

            result = await connection.stream(ROWS)
            await result.fetchone()
            await result.close()
            assert in_flight(registry)["season_totals"] == 0

    run_async(postgres, make(), scenario)

    assert outcomes(sink) == {("season_totals", "success"): 2}
    assert set(in_flight(registry).values()) == {0}


def test_a_connection_that_dies_under_a_stream_is_a_failure(postgres, make, registry, sink):
    with guarded(postgres, make()) as engine, engine.connect() as connection:
        pid = connection.scalar(select(func.pg_backend_pid()))
        result = connection.execute(ROWS)
        result.fetchone()
        with psycopg.connect(postgres.conninfo, autocommit=True) as killer:
            killer.execute("select pg_terminate_backend(%s, 10000)", (pid,))
        with pytest.raises(exc.OperationalError):
            result.fetchall()

    assert outcomes(sink)["season_totals", "failure"] == 1
    assert set(in_flight(registry).values()) == {0}


# --- time -------------------------------------------------------------------------------------------------------------


def test_the_servers_own_statement_timeout_counts_as_a_timeout(postgres, make, sink):
    options = {"options": "-c statement_timeout=100"}
    with guarded(postgres, make(), connect_args=options) as engine, pytest.raises(exc.OperationalError) as caught:
        ask(engine, ENDLESS)

    assert caught.value.orig.sqlstate == "57014"
    assert outcomes(sink) == {("season_totals", "timeout"): 1}


def test_a_transactions_own_statement_timeout_counts_as_a_timeout(postgres, make, sink):
    with guarded(postgres, make()) as engine:

        @event.listens_for(engine, "begin")
        def _bounded(connection):
            connection.exec_driver_sql("set local statement_timeout = 100")

        with pytest.raises(exc.OperationalError):
            ask(engine, ENDLESS)

    assert outcomes(sink)["season_totals", "timeout"] == 1


def test_among_coroutines_the_timeout_is_enforced_and_the_query_canceled(postgres, make, registry, sink, lock):
    resource = make(timeout_s=30.0)
    resource.command("season_totals", timeout_s=0.2)

    async def scenario(engine):
        thrown_away = []
        event.listen(engine.sync_engine, "invalidate", lambda *_: thrown_away.append(1))
        with pytest.raises(CommandTimeoutError):
            await aask(engine)
        assert (engine.pool.checkedout(), thrown_away) == (0, [1])
        await asyncio.to_thread(waiting_in, postgres, 0)  # and nobody waits in the database any more
        assert await aask(engine, select(1)) == [(1,)]

    run_async(postgres, resource, scenario)

    assert outcomes(sink) == {("season_totals", "timeout"): 1, ("query", "success"): 1}
    assert set(in_flight(registry).values()) == {0}


async def one_of_three(engine, kind):
    with suppress(errors.RejectedError):
        if kind == 0:
            async with engine.connect() as connection, connection.stream(ROWS) as rows:
                async for _ in rows:
                    pass
        elif kind == 1:
            await aask(engine)  # waits until it is canceled
        else:
            await aask(engine, select(1))


def test_a_storm_of_cancellations_loses_no_place_and_no_connection(postgres, make, registry, lock):
    resource = make(timeout_s=30.0)
    resource.command("season_totals", max_concurrent=5)
    dice = random.Random(11)

    async def scenario(engine):
        for _ in range(5):
            tasks = [asyncio.create_task(one_of_three(engine, number % 3)) for number in range(15)]
            for task in tasks:
                await asyncio.sleep(dice.choice((0, 0.001, 0.01)))
                if dice.random() < 0.5:
                    task.cancel()
            for task in tasks[1::3]:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert result is None or isinstance(result, asyncio.CancelledError), result
        assert engine.pool.checkedout() == 0
        assert set(in_flight(registry).values()) == {0}
        lock()
        await asyncio.gather(*(aask(engine) for _ in range(5)))

    run_async(postgres, resource, scenario, pool_size=8)

    assert set(in_flight(registry).values()) == {0}
    assert events.internal_errors() == {}


# --- what the database says -------------------------------------------------------------------------------------------


def test_mistakes_and_conflicts_speak_for_the_database(postgres, make, sink):
    with guarded(postgres, make()) as engine:
        for mistake in ("select 1 / 0", "select * from nowhere", "selec", "select 'x'::int"):
            with engine.connect() as connection, pytest.raises(exc.DBAPIError):
                connection.exec_driver_sql(mistake)

    assert outcomes(sink) == {("query", "success"): 4}


def test_a_role_that_has_too_many_connections_is_a_failure(postgres, make, sink):
    with psycopg.connect(postgres.conninfo, autocommit=True) as admin:
        admin.execute("drop role if exists lonely")
        admin.execute("create role lonely login connection limit 0")
    url = postgres.url.replace("postgres@", "lonely@")
    engine = create_engine(url)
    instrument(engine, make())
    with pytest.raises(exc.OperationalError, match="too many connections"):
        ask(engine, select(1))
    uninstrument(engine)

    assert outcomes(sink) == {("query", "failure"): 1}


def test_a_flush_is_refused_before_it_takes_a_connection_and_the_session_goes_on(postgres, make, sink):
    resource = make()
    with guarded(postgres, resource) as engine:
        resource.command("query").tune(mode="force_open")
        with Session(engine) as session:
            with pytest.raises(errors.CircuitOpenError):
                session.execute(select(1))
            assert engine.pool.checkedin() == 0  # not even one was made
            resource.command("query").tune(mode="enforce")
            assert session.scalar(select(1)) == 1


# --- it dies and comes back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_the_circuit_opens_when_the_server_stops_and_one_probe_closes_it(postgres, make, registry, sink, how):
    resource = make(sleep_window_s=0.1, max_sleep_window_s=0.1, timeout_s=30.0)
    query = resource.command("query")
    with guarded(postgres, resource) as engine:
        with engine.connect() as connection:
            assert connection.scalar(select(1)) == 1
            postgres.stop(how)
            with pytest.raises(exc.OperationalError):
                connection.scalar(select(1))

        refused = 0
        for _ in range(60):
            with pytest.raises(exc.OperationalError) as caught:
                ask(engine, select(1))
            refused += isinstance(caught.value, errors.CircuitOpenError)
        assert refused > 0
        assert query.snapshot().state in {State.OPEN, State.HALF_OPEN}
        assert engine.pool.checkedout() == 0

        postgres.start()
        sink.events.clear()

        def answered():
            with suppress(errors.CircuitOpenError):
                return ask(engine, select(1)) == [(1,)]

        wait_for(answered)
        assert query.snapshot().state is State.CLOSED
        assert [event.new for event in sink.of(CircuitChanged)] == [State.HALF_OPEN, State.CLOSED]
        assert set(outcomes(sink)) <= {("query", "circuit-open"), ("query", "success")}

    assert in_flight(registry) == {"query": 0}


def test_among_coroutines_it_opens_and_closes_alike(postgres, make, registry, sink):
    resource = make(sleep_window_s=0.1, max_sleep_window_s=0.1, timeout_s=30.0)
    query = resource.command("query")

    async def scenario(engine):
        assert await aask(engine, select(1)) == [(1,)]
        await asyncio.to_thread(postgres.stop)
        answers = await asyncio.gather(*(aask(engine, select(1)) for _ in range(60)), return_exceptions=True)
        assert all(isinstance(answer, exc.OperationalError) for answer in answers), answers
        with suppress(exc.OperationalError):
            await aask(engine, select(1))
        assert query.snapshot().trips >= 1
        await asyncio.to_thread(postgres.start)
        async with asyncio.timeout(WAIT_S):
            while query.snapshot().state is not State.CLOSED:
                with suppress(errors.CircuitOpenError):
                    await aask(engine, select(1))
                await asyncio.sleep(0.01)

    run_async(postgres, resource, scenario)

    assert in_flight(registry) == {"query": 0}


def test_backends_that_hang_occupy_five_threads_and_no_more(postgres, make, registry, sink, lock):
    resource = make()
    resource.command("season_totals", max_concurrent=5)
    with guarded(postgres, resource, pool_size=5, max_overflow=0, pool_timeout=WAIT_S) as engine:
        occupied = threading.Semaphore(0)
        refused = []

        def one():
            try:
                ask(engine)
            except errors.BulkheadFullError as error:
                refused.append(error)
                occupied.release()

        threads = [threading.Thread(target=one) for _ in range(50)]
        for thread in threads:
            thread.start()
        for _ in range(45):  # nobody waits for the pool: all but five are refused while the five hang
            assert occupied.acquire(timeout=WAIT_S)
        assert engine.pool.checkedout() == 5
        lock()
        for thread in threads:
            thread.join(WAIT_S)

    assert len(refused) == 45
    snapshot = resource.command("season_totals").snapshot()
    assert (snapshot.counts[Outcome.SUCCESS], snapshot.in_flight) == (5, 0)
