"""Calls that are ended from outside: timeouts, cancellations, interrupts."""

import asyncio
import time
from contextlib import suppress

from conformance.case import Bench, Group, Seen
from conformance.subject import CLOSED, OPEN, Can
from conformance.ways import PATIENCE_S

group = Group("Timeouts, cancellations, interrupts")

_CANCEL = "I9; microsoft-agentic-harness #353, grpc-java #12834, gobreaker #107, Polly #194"


@group(
    "own-timeout",
    "Calls that run into its own timeout trip it",
    origin="I8",
    needs=(Can.TIMEOUT,),
    ways=("async",),
    real_time=True,
)
def own_timeout(bench: Bench) -> Seen:
    guard = bench.make(failures=5, timeout_s=0.02)

    async def caller() -> bool:
        scope = asyncio.timeout(PATIENCE_S)
        with suppress(Exception):
            async with scope:
                await guard.acall(asyncio.sleep, 60.0)
        return not scope.expired()

    for _ in range(5):
        if not bench.way.run(caller()):
            return Seen(ok=False, text="a call goes on after it")
    return Seen(guard.state() == OPEN, f"{guard.state()} after 5 of 5")


@group(
    "slow-calls",
    "Plain calls that return, but later than they may, trip it",
    origin="I8; resilience4j's slow calls",
    needs=(Can.SLOW,),
    ways=("sync",),
)
def slow_calls(bench: Bench) -> Seen:
    guard = bench.make(failures=5, timeout_s=1.0)
    for _ in range(5):
        with suppress(Exception):
            guard.call(bench.time.elapse, 1.5)
    return Seen(guard.state() == OPEN, f"{guard.state()} after 5 of 5")


@group(
    "cancellation-is-no-failure",
    "Callers that go away do not trip it",
    origin=_CANCEL,
    ways=("async",),
)
def cancellation_is_no_failure(bench: Bench) -> Seen:
    guard = bench.make(failures=5)
    for _ in range(20):
        bench.start(guard).cancel()
    return Seen(guard.state() == CLOSED, f"{guard.state()} after 20 cancellations")


@group(
    "cancellation-is-no-success",
    "A caller that goes away does not wipe out the failures before it",
    origin=_CANCEL,
    ways=("async",),
)
def cancellation_is_no_success(bench: Bench) -> Seen:
    guard = bench.make(failures=5)
    for _ in range(4):
        bench.bad(guard)
    bench.start(guard).cancel()
    bench.bad(guard)
    return Seen(guard.state() == OPEN, f"{guard.state()} after 4 failures, a cancellation, 1 failure of 5")


@group(
    "hung-callee-and-callers-deadline",
    "A callee that hangs trips it also when the callers' deadlines end together with its timeout",
    origin="I9",
    needs=(Can.TIMEOUT,),
    ways=("async",),
    real_time=True,
)
def hung_callee(bench: Bench) -> Seen:
    guard = bench.make(failures=5, timeout_s=0.05)

    async def hang() -> None:
        time.sleep(0.06)  # noqa: ASYNC251  a busy loop: both clocks have run out when it looks at them
        await asyncio.sleep(60.0)

    async def caller() -> None:
        with suppress(Exception):
            async with asyncio.timeout(0.05):
                await guard.acall(hang)

    for _ in range(5):
        bench.way.run(caller())
    return Seen(guard.state() == OPEN, f"{guard.state()} after 5 of 5")


@group(
    "interrupts-are-neutral",
    "KeyboardInterrupt, SystemExit and GeneratorExit go through as they are, neither failure nor success",
    origin="I10",
)
def interrupts(bench: Bench) -> Seen:
    for kind in (KeyboardInterrupt, SystemExit, GeneratorExit):
        guard = bench.make(failures=5)
        for _ in range(20):
            error = kind()
            seen = _raised(bench, guard, error)
            if isinstance(seen, bench.subject.refusals):
                break  # they were counted, and opened it
            if seen is not error:
                return Seen(ok=False, text=f"{type(seen).__name__} raised in place of {kind.__name__}")
        if guard.state() != CLOSED:
            return Seen(ok=False, text=f"{guard.state()} after {kind.__name__} alone")
        guard = bench.make(failures=5)
        for _ in range(4):
            bench.bad(guard)
        _raised(bench, guard, kind())
        bench.bad(guard)
        if guard.state() != OPEN:
            return Seen(ok=False, text=f"{guard.state()} after 4 failures, {kind.__name__}, 1 failure of 5")
    return Seen(ok=True, text="neutral, and the same object is raised")


def _raised(bench, guard, error):
    def interrupt() -> None:
        raise error

    try:
        bench.way.call(guard, interrupt)
    except BaseException as seen:  # noqa: BLE001  what is looked at
        return seen
    return None
