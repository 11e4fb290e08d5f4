"""The examples of clients for redis-py and psycopg, as they stand in examples/, against real servers."""

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psycopg
import pytest
import redis as redis_py

from groundfault import CommandTimeoutError, Outcome, RejectedError, State, errors
from groundfault.breaker import Registry, Resource
from groundfault.events import CommandDone

pytestmark = pytest.mark.e2e

_EXAMPLES = Path(__file__).parents[2] / "examples"
_WAIT_S = 20.0
_LOCK = 815


def _load(name):
    spec = importlib.util.spec_from_file_location(f"examples_{name}", _EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


redis_example = _load("redis_client")
psycopg_example = _load("psycopg_client")


@pytest.fixture
def make(sink):
    """Make a command of a registry of its own."""

    def made(**settings):
        return Resource("example", registry=Registry(draw=lambda: 0.0), sinks=[sink]).command("example", **settings)

    return made


def outcomes(sink):
    return Counter(call.outcome.value for call in sink.of(CommandDone))


def wait_for(condition):
    end = time.monotonic() + _WAIT_S  # noqa: TID251  a real server is waited for in real time
    while not condition():
        assert time.monotonic() < end, "it never came to pass"  # noqa: TID251  as above
        time.sleep(0.01)


def run(name, **environment):
    done = subprocess.run(
        [sys.executable, f"{name}.py"],
        cwd=_EXAMPLES,
        env={**os.environ, "PYTHONPATH": str(_EXAMPLES.parent), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    # Where nobody answers, the log says so, once.
    told = done.stderr.splitlines()
    assert all(line.startswith("command.failing ") for line in told)
    assert len(told) <= 1
    return done.stdout


# --- redis-py ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def lookup(make, monkeypatch):
    """Give the example a command of this test's."""
    command = make(timeout_s=0.5, max_concurrent=20, sleep_window_s=0.1, max_sleep_window_s=0.1)
    monkeypatch.setattr(redis_example, "LOOKUP", command)
    return command


@contextmanager
def hung(server):
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


def computed(season):
    return f"totals of {season}"


def test_redis_answers_and_each_command_is_one_call(redis, lookup, sink):
    with redis_example.client(redis.url) as cache:
        cache.flushdb()
        assert redis_example.season_totals(cache, "2026", computed) == "totals of 2026"
        assert redis_example.season_totals(cache, "2026", lambda _season: "computed again") == "totals of 2026"
        with cache.pipeline() as pipeline:
            pipeline.watch("totals:2026")
            pipeline.multi()
            pipeline.incr("hits").incr("hits")
            assert pipeline.execute() == [1, 2]

    assert outcomes(sink) == {"success": 6}  # flushdb, get, set, get; watch, execute
    assert lookup.snapshot().in_flight == 0


def test_among_coroutines_each_command_is_one_call_too(redis, lookup, sink):
    async def scenario():
        async with redis_example.async_client(redis.url) as cache:
            await cache.flushdb()
            async with cache.pipeline() as pipeline:
                await pipeline.watch("hits")
                pipeline.multi()
                assert await pipeline.incr("hits").incr("hits").execute() == [1, 2]

    asyncio.run(scenario())

    assert outcomes(sink) == {"success": 3}


def test_a_mistake_speaks_for_redis(redis, lookup, sink):
    with redis_example.client(redis.url) as cache:
        cache.set("word", "x")
        with pytest.raises(redis_py.ResponseError):
            cache.incr("word")
        with pytest.raises(redis_py.DataError):
            cache.set("word", object())

    assert outcomes(sink) == {"success": 3}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (redis_py.ConnectionError(), Outcome.FAILURE),
        (redis_py.BusyLoadingError(), Outcome.FAILURE),
        (redis_py.AuthenticationError(), Outcome.FAILURE),
        (redis_py.ReadOnlyError(), Outcome.FAILURE),
        (redis_py.exceptions.OutOfMemoryError(), Outcome.FAILURE),
        (redis_py.exceptions.ClusterDownError("CLUSTERDOWN"), Outcome.FAILURE),
        (redis_py.exceptions.MasterDownError("MASTERDOWN"), Outcome.FAILURE),
        (redis_py.TimeoutError(), Outcome.TIMEOUT),
        (redis_py.exceptions.MaxConnectionsError(), Outcome.IGNORED),
        (redis_py.ResponseError(), Outcome.SUCCESS),
        (redis_py.WatchError(), Outcome.SUCCESS),
        (redis_py.exceptions.NoScriptError(), Outcome.SUCCESS),
        (ValueError(), None),
    ],
)
def test_what_an_error_of_redis_means(error, outcome):
    assert redis_example.outcome_of(error) is outcome


def test_a_redis_that_is_full_fails_writes(redis, lookup, sink):
    with redis_example.client(redis.url) as cache:
        cache.config_set("maxmemory", "1")
        try:
            with pytest.raises(redis_py.exceptions.OutOfMemoryError):
                cache.set("word", "x")
        finally:
            cache.config_set("maxmemory", "0")

    assert outcomes(sink)["failure"] == 1


def test_a_redis_that_hangs_opens_the_circuit_and_the_totals_are_computed(redis, lookup, sink, monkeypatch):
    lookup.tune(timeout_s=0.05)
    monkeypatch.setitem(redis_example.BOUNDS, "socket_timeout", 0.05)
    with redis_example.client(redis.url) as cache:
        cache.flushdb()
        with hung(redis):
            for _ in range(40):
                assert redis_example.season_totals(cache, "2026", computed) == "totals of 2026"
            assert lookup.snapshot().trips >= 1
            assert outcomes(sink)["timeout"] >= 10
        wait_for(
            lambda: redis_example.season_totals(cache, "2026", computed) and lookup.snapshot().state is State.CLOSED
        )


def test_among_coroutines_a_hanging_redis_is_left_at_the_timeout(redis, lookup, sink):
    lookup.tune(timeout_s=0.05)

    async def scenario():
        async with redis_example.async_client(redis.url) as cache:
            await cache.ping()
            with hung(redis):
                for _ in range(25):
                    with pytest.raises((TimeoutError, redis_py.TimeoutError, RejectedError)):
                        await cache.get("word")
                assert lookup.snapshot().trips >= 1
            async with asyncio.timeout(_WAIT_S):
                while lookup.snapshot().state is not State.CLOSED:
                    with suppress(RejectedError, TimeoutError):
                        await cache.get("word")
                    await asyncio.sleep(0.01)

    asyncio.run(scenario())

    assert lookup.snapshot().in_flight == 0


def test_a_redis_that_is_gone_is_a_failure_and_the_totals_are_computed(redis, lookup, sink):
    with redis_example.client(redis.url) as cache:
        cache.ping()
        redis.stop(signal.SIGTERM)
        for _ in range(30):
            assert redis_example.season_totals(cache, "2026", computed) == "totals of 2026"
        assert lookup.snapshot().trips >= 1
        redis.start()
        wait_for(
            lambda: redis_example.season_totals(cache, "2026", computed) and lookup.snapshot().state is State.CLOSED
        )


def test_only_so_many_redis_commands_at_a_time(redis, lookup, sink, monkeypatch):
    lookup.tune(max_concurrent=5, timeout_s=30.0)
    monkeypatch.setitem(redis_example.BOUNDS, "socket_timeout", 30.0)
    with redis_example.client(redis.url) as cache, ThreadPoolExecutor(5) as threads:
        cache.flushdb()
        five = [threads.submit(cache.blpop, ["list"], 0) for _ in range(5)]
        wait_for(lambda: lookup.snapshot().in_flight == 5)
        with pytest.raises(errors.BulkheadFullError):
            cache.get("word")
        with redis_py.Redis.from_url(redis.url) as other:
            other.rpush("list", *range(5))
        assert sorted(one.result(_WAIT_S)[1] for one in five) == [b"0", b"1", b"2", b"3", b"4"]

    assert lookup.snapshot().in_flight == 0


def test_the_redis_example_runs_as_it_stands(redis):
    with redis_py.Redis.from_url(redis.url) as client:
        client.flushdb()
    assert run("redis_client", REDIS_URL=redis.url) == "totals of 2026\nhits: 1\n"


def test_the_redis_example_runs_without_redis():
    assert run("redis_client", REDIS_URL="redis://127.0.0.1:9/0") == "totals of 2026\nno count: ConnectionError\n"


# --- psycopg ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def connections(postgres):
    """Count how many connections are taken."""

    class Connections:
        taken = 0

        def __call__(self):
            self.taken += 1
            return psycopg.connect(postgres.conninfo)

        def aconnect(self):
            self.taken += 1
            return psycopg_example.aconnect(postgres.conninfo)

    return Connections()


def test_five_reports_at_a_time_and_the_sixth_takes_no_connection(postgres, make, connections, sink):
    command = make(max_concurrent=5)

    def report():
        with psycopg_example.guarded(command, connections) as connection:
            return connection.execute("select pg_advisory_xact_lock_shared(%s)", (_LOCK,)).fetchone() is not None

    holder = psycopg.connect(postgres.conninfo, autocommit=True)
    holder.execute("select pg_advisory_lock(%s)", (_LOCK,))
    with ThreadPoolExecutor(5) as threads:
        five = [threads.submit(report) for _ in range(5)]
        query = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
        wait_for(lambda: holder.execute(query).fetchone() == (5,))
        with pytest.raises(errors.BulkheadFullError):
            report()
        assert connections.taken == 5
        holder.close()
        assert all(one.result(_WAIT_S) for one in five)

    assert outcomes(sink) == {"success": 5, "bulkhead-full": 1}
    assert command.snapshot().in_flight == 0


def test_the_server_bounds_a_statement_and_the_transaction_is_all_that_it_bounds(postgres, make, connections, sink):
    command = make(timeout_s=0.2)
    with pytest.raises(psycopg.errors.QueryCanceled), psycopg_example.guarded(command, connections) as connection:
        connection.execute("select pg_sleep(60)")

    with psycopg_example.guarded(make(), connections) as connection:
        assert connection.execute("show statement_timeout").fetchone() == ("0",)
    assert outcomes(sink) == {"timeout": 1, "success": 1}


def test_among_coroutines_the_timeout_covers_the_connection_too(make, connections, sink):
    command = make(timeout_s=0.2)

    async def scenario():
        with pytest.raises((CommandTimeoutError, psycopg.errors.QueryCanceled)):
            async with psycopg_example.aguarded(command, connections.aconnect) as connection:
                await connection.execute("select pg_sleep(60)")

        never = asyncio.Event()

        class Exhausted:
            async def __aenter__(self):
                await never.wait()

            async def __aexit__(self, *_):
                pass

        with pytest.raises(CommandTimeoutError):
            async with psycopg_example.aguarded(command, Exhausted):
                pass
        command.tune(timeout_s=10.0)
        async with psycopg_example.aguarded(command, connections.aconnect) as connection:
            assert await (await connection.execute("select 1")).fetchone() == (1,)

    asyncio.run(scenario())

    assert outcomes(sink) == {"timeout": 2, "success": 1}
    assert command.snapshot().in_flight == 0


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (psycopg.errors.QueryCanceled(), Outcome.TIMEOUT),
        (psycopg.errors.AdminShutdown(), Outcome.FAILURE),
        (psycopg.errors.TooManyConnections(), Outcome.FAILURE),
        (psycopg.errors.DiskFull(), Outcome.FAILURE),
        (psycopg.OperationalError(), Outcome.FAILURE),
        (psycopg.errors.UniqueViolation(), Outcome.SUCCESS),
        (psycopg.errors.DeadlockDetected(), Outcome.SUCCESS),
        (psycopg.errors.UndefinedTable(), Outcome.SUCCESS),
        (psycopg.ProgrammingError(), Outcome.SUCCESS),
        (KeyError(), Outcome.IGNORED),
    ],
)
def test_what_an_error_of_psycopg_means(error, outcome):
    assert psycopg_example.outcome_of(error) is outcome


def test_the_applications_own_error_is_neutral_and_rolls_back(make, connections, sink):
    def work():
        with psycopg_example.guarded(make(), connections) as connection:
            connection.execute("create table never (n int)")
            raise KeyError("the application's own")

    with pytest.raises(KeyError):
        work()

    with psycopg_example.guarded(make(), connections) as connection:
        assert connection.execute("select to_regclass('never')").fetchone() == (None,)
    assert outcomes(sink) == {"ignored": 1, "success": 1}


def test_a_server_that_stops_opens_the_circuit(postgres, make, connections, sink):
    command = make(sleep_window_s=0.1, max_sleep_window_s=0.1)
    ask = partial(psycopg_example.guarded, command, connections)
    postgres.stop()
    for _ in range(30):
        with pytest.raises((psycopg.OperationalError, RejectedError)), ask():
            pass
    assert command.snapshot().trips >= 1

    postgres.start()

    def closed():
        with suppress(RejectedError), ask() as connection:
            connection.execute("select 1")
        return command.snapshot().state is State.CLOSED

    wait_for(closed)


def test_a_block_that_is_canceled_is_neutral(make, connections, sink):
    command = make(timeout_s=30.0)

    async def scenario():
        inside = asyncio.Event()

        async def ask():
            async with psycopg_example.aguarded(command, connections.aconnect) as connection:
                inside.set()
                await connection.execute("select pg_sleep(60)")

        task = asyncio.create_task(ask())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())

    assert outcomes(sink) == {"ignored": 1}
    assert command.snapshot().in_flight == 0


def test_the_psycopg_example_runs_as_it_stands(postgres):
    assert run("psycopg_client", DATABASE=postgres.conninfo) == "totals: (5050,)\ntotals: (5050,)\n"


def test_the_psycopg_example_runs_without_postgresql(tmp_path):
    conninfo = f"host={tmp_path} dbname=postgres"
    assert run("psycopg_client", DATABASE=conninfo) == "no totals: OperationalError\n"
