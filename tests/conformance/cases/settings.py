"""Settings, names, and what it costs to have many."""

import gc
import math
import threading
import tracemalloc

from conformance.case import Bench, Group, Seen
from conformance.subject import CLOSED, OPEN, Can

group = Group("Settings, names, cost")

_NONSENSE = {
    "threshold": (-1, 0, math.nan, math.inf, True, "5"),
    "sleep": (-1, 0, math.nan, math.inf, True, "30"),
}


@group(
    "nonsense-settings",
    "Negative, zero, nan, infinite, boolean and textual thresholds and sleeps are refused when they are set",
    origin="I27",
    once=True,
)
def nonsense_settings(bench: Bench) -> Seen:
    accepted = []
    for setting, values in _NONSENSE.items():
        for value in values:
            try:
                bench.subject.nonsense(setting, value)
            except Exception:  # noqa: BLE001, S112  however it says no
                continue
            accepted.append(f"{setting} {value!r}")
    asked = sum(len(values) for values in _NONSENSE.values())
    return Seen(not accepted, f"{asked - len(accepted)} of {asked} refused")


@group(
    "low-volume",
    "One failure in a quiet service is not a hundred per cent",
    origin="I28; failsafe #208",
    needs=(Can.RATE,),
    once=True,
)
def low_volume(bench: Bench) -> Seen:
    guard = bench.make(failures=20)
    for _ in range(19):
        bench.bad(guard)
    quiet = guard.state()
    bench.bad(guard)
    return Seen(quiet == CLOSED and guard.state() == OPEN, f"{quiet} after 19 failures of 20, then {guard.state()}")


@group(
    "tuning-keeps-counts",
    "A threshold changed in use applies at once, and what was counted stays",
    origin="I32; resilience4j #299, #850, #2181, Polly #1578",
    needs=(Can.TUNE,),
    once=True,
)
def tuning_keeps_counts(bench: Bench) -> Seen:
    guard = bench.make(failures=20)
    for _ in range(6):
        bench.bad(guard)
    guard.tune(failures=7)
    before = guard.state()
    bench.bad(guard)
    return Seen(before == CLOSED and guard.state() == OPEN, f"{guard.state()} after 6 failures, threshold 7, 1 failure")


@group(
    "tuning-keeps-the-circuit",
    "Changing settings does not close an open breaker",
    origin="I32",
    needs=(Can.TUNE,),
    once=True,
)
def tuning_keeps_the_circuit(bench: Bench) -> Seen:
    guard = bench.make(failures=5)
    bench.trip(guard)
    guard.tune(failures=50, sleep_s=60.0)
    refused = not bench.good(guard)
    return Seen(refused and guard.state() == OPEN, f"{guard.state()} after it")


@group(
    "tuning-refuses-nonsense",
    "Nonsense is refused in use as well, and changes nothing",
    origin="I27, I32",
    needs=(Can.TUNE,),
    once=True,
)
def tuning_refuses_nonsense(bench: Bench) -> Seen:
    accepted = []
    for setting, value in (("failures", -1), ("failures", math.nan), ("sleep_s", -1.0), ("sleep_s", math.nan)):
        guard = bench.make(failures=5)
        try:
            guard.tune(**{setting: value})
        except (TypeError, ValueError):
            bench.trip(guard)
            bench.wake(guard)
            if not bench.good(guard):
                return Seen(ok=False, text=f"{setting} {value!r} was refused, and yet changed something")
        else:
            accepted.append(f"{setting} {value!r}")
    return Seen(not accepted, f"accepted: {', '.join(accepted)}" if accepted else "all refused")


@group(
    "one-name-two-settings",
    "Two places that ask for one name with different settings are told, or both get what they asked for",
    origin="pybreaker #28, Polly #1578",
    needs=(Can.REGISTRY,),
    once=True,
)
def one_name_two_settings(bench: Bench) -> Seen:
    return Seen(*bench.subject.same_name_twice())


@group(
    "idle-cost",
    "A thousand idle breakers take less than 4 KiB each and no thread or timer",
    origin="I30; opossum #248, #809, Hystrix #1737",
    once=True,
)
def idle_cost(bench: Bench) -> Seen:
    def used(times: int) -> list[object]:
        made = [bench.make() for _ in range(times)]
        for guard in made:
            bench.good(guard)
        return made

    warm = used(20)
    threads = threading.active_count()
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        kept = used(1000)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    each = (after - before) / len(kept)
    more = max(0, threading.active_count() - threads)  # those of an earlier case may end meanwhile
    del warm
    return Seen(each < 4096 and more == 0, f"about {each / 1024:.0f} KiB each, threads: {more}")
