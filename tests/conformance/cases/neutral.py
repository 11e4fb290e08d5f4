"""Outcomes that are neither success nor failure: excluded errors, and whatever else says nothing about the callee."""

from conformance.case import Bench, Group, Seen
from conformance.subject import CLOSED, OPEN, Neutral

group = Group("Excluded errors")


@group(
    "excluded-does-not-forgive",
    "A callee that fails four calls in five, the fifth an excluded error, trips it",
    origin="I6; erpc #1118, resilience4j #544",
)
def excluded_does_not_forgive(bench: Bench) -> Seen:
    guard = bench.make(ignored=(Neutral,))
    for n in range(250):
        bench.bad(guard, Neutral() if n % 5 == 4 else None)
        if guard.state() == OPEN:
            return Seen(ok=True, text=f"open after {n + 1} calls")
    return Seen(ok=False, text="closed after 200 failures in 250 calls")


@group(
    "excluded-does-not-dilute",
    "Excluded errors alone trip nothing, and they do not thin out the failures that follow",
    origin="I6; Polly #311, gobreaker #107",
)
def excluded_does_not_dilute(bench: Bench) -> Seen:
    guard = bench.make(failures=5, ignored=(Neutral,))
    for _ in range(100):
        bench.bad(guard, Neutral())
    if guard.state() != CLOSED:
        return Seen(ok=False, text=f"{guard.state()} after excluded errors alone")
    for _ in range(5):
        bench.bad(guard)
    return Seen(guard.state() == OPEN, f"{guard.state()} after 100 excluded errors and then 5 failures of 5")


@group(
    "excluded-probe",
    "A probe that ends in an excluded error gives its place back and decides nothing",
    origin="I7; resilience4j #544, Polly #717, Finagle's ProbeClosed",
)
def excluded_probe(bench: Bench) -> Seen:
    guard = bench.make(ignored=(Neutral,))
    bench.until_half_open(guard)
    bench.bad(guard, Neutral())
    state = guard.state()
    if state in {CLOSED, OPEN}:
        return Seen(ok=False, text=f"{state} after it")
    made = bench.good(guard)
    return Seen(made, "the next call is the probe" if made else "the next call is refused")


@group(
    "excluded-probes-do-not-wedge",
    "Twenty probes in a row that end in excluded errors leave it able to recover",
    origin="I7; Polly #1979, Hystrix #2005, #674",
)
def excluded_probes_do_not_wedge(bench: Bench) -> Seen:
    guard = bench.make(ignored=(Neutral,))
    bench.until_half_open(guard)
    for _ in range(20):
        if not bench.bad(guard, Neutral()):
            bench.wake(guard)
    for n in range(1, 41):
        if not bench.good(guard):
            bench.wake(guard)
        if guard.state() == CLOSED:
            return Seen(ok=True, text=f"closed after {n} more calls")
    return Seen(ok=False, text=f"{guard.state()} after 40 more calls")
