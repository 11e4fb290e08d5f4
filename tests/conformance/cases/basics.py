"""What every breaker is for."""

import asyncio
import threading
from contextvars import ContextVar

from conformance.case import Bench, Group, Seen
from conformance.subject import CLOSED, OPEN, Broken, Can

group = Group("Basics")

_who: ContextVar[str] = ContextVar("conformance_who", default="nobody")


@group("trips", "Failures open it, and then nothing reaches the callee", origin="Release It!, ch. 5")
def trips(bench: Bench) -> Seen:
    guard = bench.make(failures=5)
    made = sum(bench.bad(guard) for _ in range(20))
    return Seen(made == 5, f"{made} of 20 failing calls made, 5 asked for")


@group("recovers", "After its sleep one good call closes it")
def recovers(bench: Bench) -> Seen:
    guard = bench.make()
    bench.until_half_open(guard)
    made = sum(bench.good(guard) for _ in range(10))
    return Seen(made == 10 and guard.state() == CLOSED, f"{made} of 10 calls made, then {guard.state()}")


@group("reopens", "After its sleep one bad call opens it again, for a whole sleep")
def reopens(bench: Bench) -> Seen:
    guard = bench.make()
    bench.until_half_open(guard)
    probed = bench.bad(guard)
    refused = not bench.good(guard)
    bench.wake(guard)
    again = bench.good(guard)
    return Seen(probed and refused and again, f"probe made: {probed}, next refused: {refused}, later made: {again}")


@group("clean-slate", "What went wrong before a recovery does not count after it")
def clean_slate(bench: Bench) -> Seen:
    guard = bench.make(failures=5)
    bench.until_half_open(guard)
    bench.good(guard)
    for _ in range(3):
        bench.bad(guard)
    return Seen(guard.state() == CLOSED, f"{guard.state()} after 3 new failures of 5")


@group("runs-once", "A function runs once for each call that is made", origin="I16")
def runs_once(bench: Bench) -> Seen:
    runs = 0

    def count(*, fail: bool) -> str:
        nonlocal runs
        runs += 1
        if fail:
            raise Broken
        return "done"

    def attempt(*, fail: bool) -> None:
        nonlocal made
        before = runs
        try:
            bench.way.call(guard, lambda: count(fail=fail))
        except (Broken, *bench.subject.refusals):
            pass
        made += runs > before

    made = 0
    guard = bench.make(failures=5)
    attempt(fail=False)
    for _ in range(7):  # closed, tripping, refused
        attempt(fail=True)
    bench.wake(guard)
    attempt(fail=True)  # a probe that fails
    bench.wake(guard)
    attempt(fail=False)  # one that succeeds
    attempt(fail=False)
    return Seen(runs == made, f"{runs} runs in {made} calls")


@group(
    "own-context",
    "A function runs in its caller's thread or task and sees its context variables",
    origin="resilience4j #565, #1357; spring-cloud-circuitbreaker #102",
)
def own_context(bench: Bench) -> Seen:
    def look() -> tuple[str, int]:
        task = asyncio.current_task() if bench.way.kind == "async" else None
        return _who.get(), threading.get_ident() if task is None else id(task)

    async def call() -> tuple[object, int]:
        async def body() -> tuple[str, int]:
            return look()

        return await guard.acall(body), id(asyncio.current_task())

    guard = bench.make()
    token = _who.set("the caller")
    try:
        if bench.way.kind == "async":
            (seen, where), own = bench.way.run(call())
        else:
            (seen, where), own = guard.call(look), threading.get_ident()
    finally:
        _who.reset(token)
    return Seen(seen == "the caller" and where == own, f"context of {seen}, same place: {where == own}")


@group(
    "mixed-failures",
    "A callee that fails three calls in five trips it, though successes come between",
    origin="gobreaker #21, Polly #41, failsafe #208",
    needs=(Can.RATE,),
)
def mixed_failures(bench: Bench) -> Seen:
    guard = bench.make(failures=5)
    for n in range(200):
        if n % 5 < 3:
            bench.bad(guard)
        else:
            bench.good(guard)
        if guard.state() == OPEN:
            return Seen(ok=True, text=f"open after {n + 1} calls")
    return Seen(ok=False, text="closed after 120 failures in 200 calls")
