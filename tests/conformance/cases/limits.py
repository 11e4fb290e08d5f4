"""Concurrency limits."""

import asyncio
import random
from contextlib import suppress

from conformance.case import Bench, Group, Seen
from conformance.subject import CLOSED, Broken, Can

group = Group("Concurrency limit")


def _room(bench, guard, limit: int) -> int:
    """How many of twice the limit get in."""
    pending = [bench.start(guard) for _ in range(2 * limit)]
    inside = sum(one.inside for one in pending)
    for one in pending:
        one.end()
    return inside


@group(
    "limit-holds",
    "Never more calls inside than the limit, and as many as the limit",
    origin="I11",
    needs=(Can.LIMIT,),
)
def limit_holds(bench: Bench) -> Seen:
    guard = bench.make(limit=3)
    rooms = [_room(bench, guard, 3) for _ in range(3)]
    return Seen(rooms == [3, 3, 3], f"{', '.join(map(str, rooms))} inside, limit 3")


@group(
    "places-come-back",
    "A place comes back after a result, an error, an interrupt and a cancellation",
    origin="I11; resilience4j #263, #332, #1569, failsafe #393",
    needs=(Can.LIMIT,),
)
def places_come_back(bench: Bench) -> Seen:
    guard = bench.make(limit=3, failures=1_000)
    for _ in range(10):
        bench.good(guard)
        for error in (Broken(), KeyboardInterrupt(), SystemExit(), GeneratorExit()):
            bench.bad(guard, error)
        if bench.way.kind == "async":
            bench.start(guard).cancel()
    room = _room(bench, guard, 3)
    return Seen(room == 3, f"room for {room} of 3 after it")


@group(
    "cancellation-storm",
    "No place is lost in a storm of cancellations at any moment",
    origin="I11; resilience4j #263, failsafe #400",
    needs=(Can.LIMIT,),
    ways=("async",),
)
def cancellation_storm(bench: Bench) -> Seen:
    guard = bench.make(limit=10, failures=1_000_000)
    draw = random.Random(7)

    async def body() -> None:
        for _ in range(draw.randrange(4)):
            await asyncio.sleep(0)

    async def caller() -> None:
        with suppress(*bench.subject.refusals):
            await guard.acall(body)

    async def burst() -> None:
        tasks = [asyncio.create_task(caller()) for _ in range(30)]
        for task in draw.sample(tasks, 15):
            for _ in range(draw.randrange(3)):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    for _ in range(50):
        bench.way.run(burst())
    room = _room(bench, guard, 10)
    return Seen(room == 10, f"room for {room} of 10 after 50 bursts of 30 calls")


@group(
    "limit-is-neutral",
    "Calls turned away by the limit neither trip it nor thin out its failures",
    origin="Hystrix's health counts, envoy #25487",
    needs=(Can.LIMIT, Can.OVERLAP),
)
def limit_is_neutral(bench: Bench) -> Seen:
    guard = bench.make(limit=2, failures=5)
    inside = [bench.start(guard) for _ in range(2)]
    for _ in range(100):
        bench.good(guard)
    state = guard.state()
    for one in inside:
        one.end(Broken())
    for _ in range(3):
        bench.bad(guard)
    return Seen(state == CLOSED and guard.state() != CLOSED, f"{state}, then {guard.state()} after 5 failures of 5")


@group(
    "limit-below-in-flight",
    "A limit lowered below what is inside lets nobody in until enough have left, and then holds",
    origin="I32; trio's CapacityLimiter",
    needs=(Can.LIMIT, Can.TUNE_LIMIT),
)
def limit_below_in_flight(bench: Bench) -> Seen:
    guard = bench.make(limit=5, failures=1_000)
    inside = [bench.start(guard) for _ in range(5)]
    guard.tune(limit=2)
    early = bench.good(guard)
    for one in inside:
        one.end()
    room = _room(bench, guard, 2)
    return Seen(not early and room == 2, f"let in early: {early}, then room for {room} of 2")
