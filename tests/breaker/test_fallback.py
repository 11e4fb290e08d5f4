"""Fallbacks run under a limit and a timeout of their own, and every one is counted."""

import asyncio
import threading

import pytest

from groundfault.breaker._fallback import Fallbacks
from groundfault.breaker.settings import BreakerSettings
from groundfault.errors import BulkheadFullError, CommandTimeoutError
from groundfault.events import CommandDone
from groundfault.vocabulary import Outcome

BOUND_S = 10.0
SOON_S = 0.01


def fail(*_, **__):
    raise ConnectionError("the original")


def counts(command):
    snapshot = command.snapshot()
    return snapshot.fallbacks, snapshot.fallbacks_failed, snapshot.fallbacks_refused


def test_a_fallback_beyond_the_limit_is_not_served(resource):
    """The one that runs here makes a second call, whose fallback would be the second at once."""

    def fallback():
        with pytest.raises(ConnectionError, match="the original") as caught:
            command.call(fail)
        assert isinstance(caught.value.__context__, BulkheadFullError)
        assert str(caught.value.__context__) == "saber/c (fallback) already has 1 calls in flight, its limit"
        return "served"

    command = resource.command("c", fallback=fallback, fallback_max_concurrent=1)
    assert command.call(fail) == "served"
    assert counts(command) == (1, 0, 1)
    assert command.call(fail) == "served"  # the place came back


def test_a_coroutine_s_fallback_beyond_the_limit_is_not_served(resource):
    async def fallback():
        begun.set()
        await go.wait()
        return "served"

    async def failing():
        fail()

    async def main():
        first = asyncio.ensure_future(command.acall(failing))
        await begun.wait()
        with pytest.raises(ConnectionError) as caught:
            await command.acall(failing)
        assert isinstance(caught.value.__context__, BulkheadFullError)
        go.set()
        assert await first == "served"

    begun, go = asyncio.Event(), asyncio.Event()
    command = resource.command("c", fallback=fallback, fallback_max_concurrent=1)
    asyncio.run(main())
    assert counts(command) == (1, 0, 1)


@pytest.mark.parametrize("raised", [ValueError("its own"), BulkheadFullError("other", "command", 3)])
def test_the_place_comes_back_and_the_failure_is_counted_whatever_it_raises(way, resource, raised):
    def fallback():
        raise raised

    command = resource.command("c", fallback=fallback, fallback_max_concurrent=1)
    for _ in range(3):
        with pytest.raises(ConnectionError) as caught:
            way(command, fail)
        assert caught.value.__context__ is raised
    assert counts(command) == (0, 3, 0)


def test_a_value_needs_no_place(way, resource):
    command = resource.command("c", fallback="value", fallback_max_concurrent=1)
    assert {way(command, fail) for _ in range(5)} == {"value"}
    assert counts(command) == (5, 0, 0)


def test_a_plain_function_that_takes_too_long_is_given_up(resource):
    begun, go = threading.Event(), threading.Event()

    def fallback():
        begun.set()
        assert go.wait(BOUND_S)
        return "too late"

    command = resource.command("c", fallback=fallback, fallback_timeout_s=SOON_S, fallback_max_concurrent=1)
    with pytest.raises(ConnectionError, match="the original") as caught:
        command.call(fail)
    late = caught.value.__context__
    assert isinstance(late, CommandTimeoutError)
    assert str(late) == "saber/c (fallback) took longer than its timeout of 0.01 s"
    if begun.wait(BOUND_S):
        with pytest.raises(ConnectionError) as caught:  # it keeps its place until it ends
            command.call(fail)
        assert isinstance(caught.value.__context__, BulkheadFullError)
    go.set()
    assert counts(command) == (0, 1, 1)


def test_one_that_is_awaited_is_canceled(resource):
    canceled = []

    async def fallback():
        try:
            await asyncio.sleep(BOUND_S)
        except asyncio.CancelledError:
            canceled.append(True)
            raise

    async def failing():
        fail()

    command = resource.command("c", fallback=fallback, fallback_timeout_s=SOON_S, fallback_max_concurrent=1)
    for _ in range(2):
        with pytest.raises(ConnectionError) as caught:
            asyncio.run(command.acall(failing))
        assert isinstance(caught.value.__context__, CommandTimeoutError)
    assert (canceled, counts(command)) == ([True, True], (0, 2, 0))


def test_its_own_timeout_error_is_its_own(resource):
    async def fallback():
        raise TimeoutError("its own")

    async def failing():
        fail()

    command = resource.command("c", fallback=fallback, fallback_timeout_s=BOUND_S)
    with pytest.raises(ConnectionError) as caught:
        asyncio.run(command.acall(failing))
    assert str(caught.value.__context__) == "its own"


def test_a_cancellation_of_the_caller_goes_through_and_gives_the_place_back(resource):
    async def fallback():
        begun.set()
        await asyncio.sleep(BOUND_S)

    async def failing():
        fail()

    async def main():
        task = asyncio.ensure_future(command.acall(failing))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        command.tune(fallback_timeout_s=SOON_S)
        with pytest.raises(ConnectionError) as caught:
            await command.acall(failing)
        assert isinstance(caught.value.__context__, CommandTimeoutError)

    begun = asyncio.Event()
    command = resource.command("c", fallback=fallback, fallback_max_concurrent=1)
    asyncio.run(main())


@pytest.mark.parametrize("able", [False, True])
def test_an_adapter_s_fallback_is_under_the_same_limits(resource, able):
    def serve():
        attempt = command.begin()
        attempt.fail_with(ConnectionError(), fallback=serve)
        return able

    command = resource.command("c", fallback_max_concurrent=1)
    command.begin().fail_with(ConnectionError(), fallback=serve)
    assert counts(command) == (int(able), 0, 1)


def test_places_are_never_lost_nor_exceeded_by_threads():
    fallbacks = Fallbacks("saber", "c")
    settings = BreakerSettings(fallback_max_concurrent=3)
    most, running, lock = [0], [0], threading.Lock()

    def serve():
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        with lock:
            running[0] -= 1
        return True

    def many():
        for _ in range(300):
            try:
                fallbacks.run(settings, serve, (), {})
            except BulkheadFullError:
                continue
            fallbacks.count(served=True)

    threads = [threading.Thread(target=many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND_S)
    served, failed, refused = fallbacks.counts()
    assert (served + refused, failed) == (8 * 300, 0)
    assert 0 < most[0] <= 3
    for _ in range(3):
        fallbacks.enter(settings)
    with pytest.raises(BulkheadFullError):
        fallbacks.enter(settings)


def test_awaiting_one_without_a_timeout_needs_no_loop_of_asyncio_s():
    async def fallback():
        return "served"

    fallbacks = Fallbacks("saber", "c")
    for _ in range(3):
        with pytest.raises(StopIteration) as end:
            fallbacks.arun(BreakerSettings(fallback_max_concurrent=1), fallback, (), {}).send(None)
        assert end.value.value == "served"


def test_a_canceled_fallback_leaves_the_call_s_end_told(resource, sink):
    async def fallback():
        begun.set()
        await asyncio.sleep(BOUND_S)

    async def failing():
        fail()

    async def main():
        task = asyncio.ensure_future(command.acall(failing))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    begun = asyncio.Event()
    command = resource.command("c", fallback=fallback)
    asyncio.run(main())
    assert [(event.outcome, event.fallback) for event in sink.of(CommandDone)] == [(Outcome.FAILURE, False)]


def test_an_error_that_is_returned_is_a_result(way, resource):
    error = BulkheadFullError("other", "command", 3)
    command = resource.command("c", fallback="served", classify=lambda _result: None)
    assert way(command, lambda: error) is error
