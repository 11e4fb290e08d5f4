"""Time that does not behave."""

from conformance.case import Bench, Group, Seen
from conformance.subject import CLOSED, Can

group = Group("Clocks")

_HOUR_S = 3600.0


@group(
    "wall-clock-back",
    "A wall clock set back by an hour does not keep it open",
    origin="I21; pybreaker #24",
    once=True,
)
def wall_clock_back(bench: Bench) -> Seen:
    guard = bench.make(sleep_s=30.0)
    bench.trip(guard)
    bench.time.step_wall(-_HOUR_S)
    for half_minutes in range(1, 200):
        bench.time.elapse(31.0)
        if bench.good(guard):
            text = f"first probe after {31 * half_minutes} s"
            return Seen(half_minutes == 1, f"{text}, sleep 30 s")
    return Seen(ok=False, text="no probe in 100 minutes")


@group(
    "wall-clock-forward",
    "A wall clock set forward by an hour does not let calls through early",
    origin="I21",
    once=True,
)
def wall_clock_forward(bench: Bench) -> Seen:
    guard = bench.make(sleep_s=30.0)
    bench.trip(guard)
    bench.time.step_wall(_HOUR_S)
    made = bench.good(guard)
    return Seen(not made, "the next call is made" if made else "still refusing")


@group(
    "empty-after-idle",
    "Failures of an hour ago do not trip it",
    origin="I28; resilience4j #903, #2028",
    needs=(Can.WINDOW,),
    once=True,
)
def empty_after_idle(bench: Bench) -> Seen:
    guard = bench.make(failures=5)
    for _ in range(4):
        bench.bad(guard)
    bench.time.elapse(_HOUR_S)
    bench.bad(guard)
    return Seen(guard.state() == CLOSED, f"{guard.state()} after 4 failures, an hour, 1 failure of 5")
