"""Timeouts that are enforced, cancellations that are told apart, loops that share a command."""

import asyncio
import contextlib
import threading

import pytest

from groundfault._clock import monotonic
from groundfault._context import RequestContext, serving
from groundfault.breaker import Registry, Resource
from groundfault.errors import CommandTimeoutError
from groundfault.events import CommandDone
from groundfault.vocabulary import Outcome


@pytest.fixture
def resource(sink):
    """Return a resource on the real clock."""
    return Resource("saber", registry=Registry(), sinks=[sink])


def outcomes(sink):
    return [each.outcome for each in sink.of(CommandDone)]


async def hang():
    await asyncio.Event().wait()


def test_a_timeout_is_enforced(resource, sink):
    command = resource.command("c", timeout_s=0.01)
    with pytest.raises(CommandTimeoutError, match=r"saber/c took longer than its timeout of 0\.01 s"):
        asyncio.run(command.acall(hang))
    assert outcomes(sink) == [Outcome.TIMEOUT]
    assert command.snapshot().in_flight == 0


def test_a_decorated_function_is_bounded_as_well(resource, sink):
    with pytest.raises(CommandTimeoutError):
        asyncio.run(resource.command("c", timeout_s=0.01)(hang)())
    assert outcomes(sink) == [Outcome.TIMEOUT]


def test_a_function_in_time_is_not_disturbed(resource, sink):
    async def main():
        return await resource.command("c", timeout_s=5.0).acall(asyncio.sleep, 0, "done")

    assert asyncio.run(main()) == "done"
    assert outcomes(sink) == [Outcome.SUCCESS]


def test_a_foreign_timeout_stays_the_foreigner_s(resource, sink):
    command = resource.command("c", timeout_s=5.0)

    async def main():
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.01):
                await command.acall(hang)
        assert not isinstance(caught.value, CommandTimeoutError)

    asyncio.run(main())
    assert outcomes(sink) == [Outcome.IGNORED]


def test_a_timeout_inside_is_the_function_s_own(resource, sink):
    own = TimeoutError("mine")

    async def fn():
        raise own

    with pytest.raises(TimeoutError) as caught:
        asyncio.run(resource.command("c", timeout_s=5.0).acall(fn))
    assert caught.value is own
    assert outcomes(sink) == [Outcome.TIMEOUT]


def test_a_function_that_swallows_its_cancellation_has_its_result_returned(resource, sink):
    async def stubborn():
        with contextlib.suppress(asyncio.CancelledError):
            await hang()
        return "done"

    assert asyncio.run(resource.command("c", timeout_s=0.01).acall(stubborn)) == "done"
    assert outcomes(sink) == [Outcome.TIMEOUT]


@pytest.mark.parametrize(
    ("timeout_s", "budget_s", "outcome"),
    [
        (None, 0.01, Outcome.IGNORED),
        (5.0, 0.01, Outcome.IGNORED),
        (0.01, 5.0, Outcome.TIMEOUT),
        (5.0, -1.0, Outcome.IGNORED),
    ],
)
def test_the_budget_of_the_request_bounds_the_call(resource, sink, timeout_s, budget_s, outcome):
    command = resource.command("c", timeout_s=timeout_s)

    async def main():
        serving.set(RequestContext("topps", deadline=monotonic() + budget_s))
        with pytest.raises(CommandTimeoutError) as caught:
            await command.acall(hang)
        assert caught.value.timeout_s <= 0.01

    asyncio.run(main())
    assert outcomes(sink) == [outcome]


def test_the_timeout_of_a_command_inside_is_no_budget_of_the_outer_one(resource, sink):
    inner = resource.command("inner", timeout_s=0.01)
    outer = resource.command("outer", timeout_s=5.0)
    with pytest.raises(CommandTimeoutError):
        asyncio.run(outer.acall(inner.acall, hang))
    assert outcomes(sink) == [Outcome.TIMEOUT, Outcome.TIMEOUT]


def test_a_storm_of_cancellations_leaves_nothing_in_flight(resource):
    command = resource.command("c", max_concurrent=20, timeout_s=5.0)

    @command
    async def slow():
        await asyncio.sleep(0.001)

    async def main():
        for delay in range(40):
            tasks = [asyncio.ensure_future(slow()) for _ in range(30)]
            for _ in range(delay % 5):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert command.snapshot().in_flight == 0
        await slow()

    asyncio.run(main())
    totals = command.snapshot().totals
    assert totals[Outcome.FAILURE] == totals[Outcome.TIMEOUT] == 0
    assert totals[Outcome.IGNORED] > 0
    assert sum(totals.values()) <= 40 * 30 + 1


def test_a_fallback_does_not_swallow_a_cancellation(resource, sink):
    """One that comes after ``timeout_s`` counts against the callee, and is a cancellation all the same."""
    command = resource.command("c", timeout_s=0.01, fallback="cached")

    async def main():
        started = asyncio.Event()

        async def stubborn():
            started.set()
            try:
                await hang()
            finally:
                await hang()  # does not end when its time is over

        task = asyncio.create_task(command.acall(stubborn))
        await started.wait()
        await asyncio.sleep(0.03)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert outcomes(sink) == [Outcome.TIMEOUT]
    assert command.snapshot().fallbacks == 0


def test_a_canceled_probe_gives_its_slot_back(resource, trip):
    command = resource.command("c", sleep_window_s=0.001)
    trip(command)

    async def main():
        for _ in range(200):
            await asyncio.sleep(0.0011 if command.snapshot().state == "open" else 0)
            probe = asyncio.ensure_future(command.acall(hang))
            await asyncio.sleep(0)
            assert command.snapshot().state == "half-open"
            probe.cancel()
            with pytest.raises(asyncio.CancelledError):
                await probe
        return await command.acall(asyncio.sleep, 0, "done")

    assert asyncio.run(main()) == "done"
    assert command.snapshot().state == "closed"


def test_two_event_loops_share_a_command(resource):
    command = resource.command("c", timeout_s=5.0, max_concurrent=50)

    async def main():
        for _ in range(50):
            await asyncio.gather(*(command.acall(asyncio.sleep, 0) for _ in range(10)))

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30.0)
    snapshot = command.snapshot()
    assert snapshot.totals[Outcome.SUCCESS] == 1000
    assert snapshot.in_flight == 0
