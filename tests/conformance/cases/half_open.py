"""The moment in which a callee may have come back."""

import threading
import time
from itertools import pairwise

from conformance.case import BLOCKED, MADE, Bench, Group, Seen
from conformance.subject import CLOSED, OPEN, Can
from conformance.ways import PATIENCE_S

group = Group("Half-open")

_CALLERS = 100


@group(
    "stampede-threads",
    "Of a hundred threads that wait for it to wake, one is let through",
    origin="I1; Polly #216, opossum #819, pybreaker #96",
    ways=("sync",),
)
def stampede_threads(bench: Bench) -> Seen:
    guard = bench.make()
    bench.until_half_open(guard)
    barrier, go = threading.Barrier(_CALLERS), threading.Event()
    inside: list[None] = []
    refused: list[None] = []

    def probe() -> None:
        inside.append(None)
        go.wait(10 * PATIENCE_S)

    def work() -> None:
        barrier.wait(10 * PATIENCE_S)
        try:
            guard.call(probe)
        except bench.subject.refusals:
            refused.append(None)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(_CALLERS)]
    for thread in threads:
        thread.start()
    decided, quiet = -1, 0
    while decided < _CALLERS and quiet < 60:  # three seconds without news: the rest are behind a lock
        time.sleep(0.05)
        quiet = quiet + 1 if len(inside) + len(refused) == decided else 0
        decided = len(inside) + len(refused)
    let_through = len(inside)
    go.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    return Seen(let_through == 1, f"{let_through} of {_CALLERS} let through at once")


@group(
    "stampede-tasks",
    "Of a hundred tasks that wait for it to wake, one is let through",
    origin="I1; Micronaut #11485, safe-client-gateway #3442",
    ways=("async",),
)
def stampede_tasks(bench: Bench) -> Seen:
    guard = bench.make()
    bench.until_half_open(guard)
    inside = sum(bench.start(guard).inside for _ in range(_CALLERS))
    return Seen(inside == 1, f"{inside} of {_CALLERS} let through at once")


@group(
    "lost-probe",
    "A probe that never returns costs one sleep, not the circuit",
    origin="I3; resilience4j #935, Hystrix #1723, Polly #216, #1979",
)
def lost_probe(bench: Bench) -> Seen:
    guard = bench.make()
    bench.until_half_open(guard)
    if not bench.start(guard).inside:
        return Seen(ok=False, text="no probe was let through")
    for period in range(1, 11):
        bench.wake(guard)
        answer = bench.ask(guard)
        if answer == MADE:
            return Seen(period == 1, f"the next call is let through after {period} sleep{'s' * (period > 1)}")
        if answer == BLOCKED:
            return Seen(ok=False, text="every later caller is blocked behind it")
    return Seen(ok=False, text="still refusing 10 sleeps later")


@group(
    "slow-probe",
    "A probe that takes longer than the sleep still closes it when it succeeds",
    origin="I4; OmniRoute #13849",
    needs=(Can.OVERLAP,),
)
def slow_probe(bench: Bench) -> Seen:
    guard = bench.make()
    bench.until_half_open(guard)
    first = bench.start(guard)
    bench.wake(guard)
    bench.wake(guard)
    second = bench.start(guard)  # where there is a lease, it is over, and this is another probe
    first.end()
    state = guard.state()
    second.end()
    return Seen(state == CLOSED, f"{state} after it succeeded")


@group(
    "canceled-probe",
    "A canceled probe gives its place back at once and decides nothing",
    origin="I2; Hystrix #1621, monix #1080, litellm #39701",
    ways=("async",),
)
def canceled_probe(bench: Bench) -> Seen:
    guard = bench.make()
    bench.until_half_open(guard)
    bench.start(guard).cancel()
    return _undecided(bench, guard, "cancellation")


@group(
    "interrupted-probe",
    "A probe that ends in KeyboardInterrupt, SystemExit or GeneratorExit decides nothing either",
    origin="I2, I10",
)
def interrupted_probe(bench: Bench) -> Seen:
    for kind in (KeyboardInterrupt, SystemExit, GeneratorExit):
        guard = bench.make()
        bench.until_half_open(guard)
        bench.bad(guard, kind())
        seen = _undecided(bench, guard, kind.__name__)
        if not seen.ok:
            return seen
    return Seen(ok=True, text="place given back, nothing decided")


def _undecided(bench, guard, what: str) -> Seen:
    state = guard.state()
    if state in {CLOSED, OPEN}:
        return Seen(ok=False, text=f"{state} after a {what}")
    if not bench.good(guard):
        return Seen(ok=False, text=f"the next call is refused after a {what}")
    return Seen(ok=True, text="place given back, nothing decided")


@group(
    "jitter",
    "Two hundred breakers that tripped together do not probe together",
    origin="I37; Finagle's backoff, Envoy #8337",
    once=True,
)
def jitter(bench: Bench) -> Seen:
    waiting = [bench.make(sleep_s=30.0) for _ in range(200)]
    for guard in waiting:
        bench.trip(guard)
    most = 0
    for _ in range(64):  # half a second each
        bench.time.elapse(0.5)
        asleep = [guard for guard in waiting if not bench.good(guard)]
        most = max(most, len(waiting) - len(asleep))
        waiting = asleep
    if waiting:
        return Seen(ok=False, text=f"{len(waiting)} of 200 never probed")
    return Seen(most < 50, f"at most {most} of 200 within half a second")


@group(
    "backoff",
    "Failed probes make the sleep longer, up to a bound, and a recovery makes it short again",
    origin="interlock's backoff, Envoy's ejection time",
    needs=(Can.BACKOFF,),
    once=True,
)
def backoff(bench: Bench) -> Seen:
    guard = bench.make(sleep_s=10.0, max_sleep_s=80.0)

    def sleep() -> float:
        slept = 0.0
        while guard.state() == OPEN and slept < 500.0:
            bench.time.elapse(0.5)
            slept += 0.5
            if bench.bad(guard):
                break
        return slept

    bench.trip(guard)
    sleeps = [sleep() for _ in range(4)]
    bench.time.elapse(81.0)
    bench.good(guard)
    bench.trip(guard)
    sleeps.append(sleep())
    grows = all(before < after for before, after in pairwise(sleeps[:4]))
    ok = grows and max(sleeps) <= 80.5 and sleeps[4] <= 10.5
    return Seen(
        ok, "sleeps of " + ", ".join(f"{one:g}" for one in sleeps[:4]) + f" s, after a recovery {sleeps[4]:g} s"
    )
