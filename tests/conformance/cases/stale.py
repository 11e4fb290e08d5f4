"""Answers that come after the circuit has moved on."""

from conformance.case import Bench, Group, Seen
from conformance.subject import CLOSED, OPEN, Broken, Can

group = Group("Late answers")

_THREADS = "I5; Polly #218, #223, Hystrix #1350, gobreaker's generations"


@group(
    "late-success-open",
    "A success that began before the trip leaves it open",
    origin=_THREADS,
    needs=(Can.OVERLAP,),
)
def late_success_open(bench: Bench) -> Seen:
    guard = bench.make()
    slow = bench.start(guard)
    bench.trip(guard)
    slow.end()
    refused = not bench.good(guard)
    return Seen(refused, "still open" if refused else "the next call is made")


@group(
    "late-success-half-open",
    "A success that began before the trip does not close it while a probe is out",
    origin=_THREADS,
    needs=(Can.OVERLAP,),
)
def late_success_half_open(bench: Bench) -> Seen:
    guard = bench.make()
    slow = bench.start(guard)
    bench.until_half_open(guard)
    probe = bench.start(guard)
    slow.end()
    state = guard.state()
    probe.end(Broken())
    after = guard.state()
    return Seen(state != CLOSED and after == OPEN, f"{state}, and {after} after its own probe failed")


@group(
    "late-failure-half-open",
    "A failure that began before the trip does not open it again while a probe is out",
    origin=_THREADS,
    needs=(Can.OVERLAP,),
)
def late_failure_half_open(bench: Bench) -> Seen:
    guard = bench.make()
    slow = bench.start(guard)
    bench.until_half_open(guard)
    probe = bench.start(guard)
    slow.end(Broken())
    state = guard.state()
    probe.end()
    after = guard.state()
    return Seen(state != OPEN and after == CLOSED, f"{state}, and {after} after its own probe succeeded")


@group(
    "late-failure-closed",
    "Failures that began before the trip do not count after the recovery",
    origin=_THREADS,
    needs=(Can.OVERLAP,),
)
def late_failure_closed(bench: Bench) -> Seen:
    guard = bench.make(failures=5)
    slow = [bench.start(guard) for _ in range(2)]
    bench.until_half_open(guard)
    bench.good(guard)
    for one in slow:
        one.end(Broken())
    for _ in range(3):
        bench.bad(guard)
    return Seen(guard.state() == CLOSED, f"{guard.state()} after 2 late failures and 3 new ones of 5")
