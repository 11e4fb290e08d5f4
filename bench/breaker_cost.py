"""What a protected call costs, beside its peers, in one process and in turns.

    python bench/breaker_cost.py [--quick] [--json]

Every case runs for a short slice in each round, all cases in turn, so that a neighbor's load meets all of them alike.
Times are CPU nanoseconds per call of the thread, the loop included; the case of threads is wall time per call.
The minimum over the rounds is the estimator, for noise only adds; the median says how noisy it was.
``over`` is what a case adds to the bare call of its kind, ``ratio`` that of a peer to ours.

A peer is asked for what it has: none of them does all of what ours does
(a rate over three rotating windows, a concurrency limit, latency quantiles, outcomes by kind, live settings).
One that is not installed is left out and named.
"""

import argparse
import asyncio
import contextlib
import importlib
import json
import platform
import statistics
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter_ns, thread_time_ns
from typing import Any

from groundfault.breaker import Registry, Resource
from groundfault.errors import RejectedError

Loop = Callable[[int], Any]
THREADS = 8


class PeerError(Exception):
    """What the failing function raises."""


def payload(x: int) -> int:
    return x


async def apayload(x: int) -> int:
    return x


def on_a_thread(x: int) -> None:
    thread = threading.Thread(target=payload, args=(x,), daemon=True)
    thread.start()
    thread.join()


def failing(_: int) -> int:
    raise PeerError


@dataclass
class Case:
    """One row: a loop that makes ``n`` calls; ``kind`` names the bare call it is compared with."""

    who: str
    kind: str
    loop: Loop
    what: str = ""
    times: list[float] = field(default_factory=list)


def calls(fn: Callable[[Any], Any]) -> Loop:
    def loop(n: int) -> None:
        for _ in range(n):
            fn(1)

    return loop


def calls_through(call: Callable[..., Any]) -> Loop:
    def loop(n: int) -> None:
        for _ in range(n):
            call(payload, 1)

    return loop


def awaits(fn: Callable[[Any], Any]) -> Loop:
    """Drive a coroutine that never suspends by hand: the event loop is not what is measured."""

    async def many(n: int) -> None:
        for _ in range(n):
            await fn(1)

    def loop(n: int) -> None:
        with contextlib.suppress(StopIteration):
            many(n).send(None)

    return loop


def awaits_on_a_loop(fn: Callable[[Any], Any]) -> Loop:
    async def many(n: int) -> None:
        for _ in range(n):
            await fn(1)

    return lambda n: asyncio.run(many(n))


def refusals(fn: Callable[[Any], Any], error: type[BaseException]) -> Loop:
    def loop(n: int) -> None:
        for _ in range(n):
            try:
                fn(1)
            except error:
                continue
            raise AssertionError("the circuit is not open")

    return loop


def attempts(attempt: Callable[[], Any]) -> Loop:
    def loop(n: int) -> None:
        for _ in range(n):
            with attempt():
                payload(1)

    return loop


def in_threads(fn: Callable[[Any], Any], pool: ThreadPoolExecutor) -> Loop:
    def loop(n: int) -> None:
        barrier = threading.Barrier(THREADS)

        def work() -> None:
            barrier.wait()
            for _ in range(n // THREADS):
                fn(1)

        for done in [pool.submit(work) for _ in range(THREADS)]:
            done.result()

    return loop


def until_open(fn: Callable[[Any], Any]) -> None:
    for _ in range(50):
        with contextlib.suppress(Exception):
            fn(1)


def ours(pool: ThreadPoolExecutor) -> list[Case]:
    """Everything on: three windows, rate, volume, concurrency limit, measured timeout, quantiles."""
    resource = Resource("bench", registry=Registry(), sinks=[])
    command = resource.command("sync", max_concurrent=100, timeout_s=1.0)
    acommand = resource.command("async", max_concurrent=100)
    bounded = resource.command("bounded", max_concurrent=100, timeout_s=1.0)
    isolated = resource.command("isolated", max_concurrent=100, timeout_s=1.0, isolation="thread")
    opened = resource.command("open", sleep_window_s=3600.0, max_sleep_window_s=3600.0)
    refused = opened(failing)
    until_open(refused)
    who = "groundfault"
    return [
        Case(who, "decorated", calls(command(payload))),
        Case(who, "call", calls_through(command.call)),
        Case(who, "attempt", attempts(command.attempt)),
        Case(who, "async", awaits(acommand(apayload))),
        Case(who, "acall", awaits(lambda x: acommand.acall(apayload, x)), "and a lambda"),
        Case(who, "async timeout", awaits_on_a_loop(bounded(apayload)), "asyncio's own is in the bare row below"),
        Case(who, "thread", calls(isolated(payload)), "isolation='thread'; wall time"),
        Case(who, "open refusal", refusals(refused, RejectedError)),
        Case(who, "threads", in_threads(command(payload), pool), f"{THREADS} threads, wall time"),
    ]


def bare(pool: ThreadPoolExecutor) -> list[Case]:
    async def timed(x: int) -> int:
        async with asyncio.timeout(1.0):
            return await apayload(x)

    return [
        Case("bare", "decorated", calls(payload)),
        Case("bare", "call", calls(payload)),
        Case("bare", "attempt", calls(payload)),
        Case("bare", "async", awaits(apayload)),
        Case("bare", "acall", awaits(apayload)),
        Case("bare", "async timeout", awaits_on_a_loop(timed), "asyncio.timeout alone"),
        Case("bare", "thread", calls(on_a_thread), "threading.Thread, start and join; wall time"),
        Case("bare", "open refusal", refusals(failing, PeerError), "a function that raises"),
        Case("bare", "threads", in_threads(payload, pool)),
    ]


def pybreaker_cases(module: Any, pool: ThreadPoolExecutor) -> list[Case]:
    made = module.CircuitBreaker(fail_max=5, reset_timeout=3600)
    opened = module.CircuitBreaker(fail_max=5, reset_timeout=3600)
    refused = opened(failing)
    until_open(refused)
    return [
        Case("pybreaker", "decorated", calls(made(payload))),
        Case("pybreaker", "call", calls_through(made.call)),
        Case("pybreaker", "attempt", attempts(made.calling)),
        Case("pybreaker", "open refusal", refusals(refused, module.CircuitBreakerError)),
        Case("pybreaker", "threads", in_threads(made(payload), pool)),
    ]


def circuitbreaker_cases(module: Any, pool: ThreadPoolExecutor) -> list[Case]:
    made = module.CircuitBreaker(failure_threshold=5, recovery_timeout=3600, name="made")
    opened = module.CircuitBreaker(failure_threshold=5, recovery_timeout=3600, name="opened")
    refused = opened(failing)
    until_open(refused)
    return [
        Case("circuitbreaker", "decorated", calls(made(payload)), "no locks"),
        Case("circuitbreaker", "async", awaits(made(apayload)), "no locks"),
        Case("circuitbreaker", "open refusal", refusals(refused, module.CircuitBreakerError)),
        Case("circuitbreaker", "threads", in_threads(made(payload), pool)),
    ]


def aiobreaker_cases(module: Any, pool: ThreadPoolExecutor) -> list[Case]:
    from datetime import timedelta  # noqa: PLC0415  only this peer wants one

    made = module.CircuitBreaker(fail_max=5, timeout_duration=timedelta(hours=1))
    opened = module.CircuitBreaker(fail_max=5, timeout_duration=timedelta(hours=1))
    refused = opened(failing)
    until_open(refused)
    return [
        Case("aiobreaker", "decorated", calls(made(payload))),
        Case("aiobreaker", "call", calls_through(made.call)),
        Case("aiobreaker", "async", awaits(made(apayload))),
        Case("aiobreaker", "open refusal", refusals(refused, module.CircuitBreakerError)),
        Case("aiobreaker", "threads", in_threads(made(payload), pool)),
    ]


def interlock_cases(module: Any, pool: ThreadPoolExecutor) -> list[Case]:
    made = module.CircuitBreaker(name="made")
    limited = module.Pipeline(module.BulkheadStrategy(100), module.CircuitBreakerStrategy(made))
    opened = module.CircuitBreaker(name="opened")
    refused = opened(failing)
    for _ in range(20):
        until_open(refused)
    return [
        Case("interlock", "decorated", calls(made(payload))),
        Case("interlock+bulkhead", "decorated", calls(limited(payload))),
        Case("interlock", "call", calls_through(made.call)),
        Case("interlock", "async", awaits(made(apayload))),
        Case("interlock", "open refusal", refusals(refused, module.CircuitOpenError)),
        Case("interlock", "threads", in_threads(made(payload), pool)),
    ]


def purgatory_cases(module: Any, pool: ThreadPoolExecutor) -> list[Case]:
    made = module.SyncCircuitBreakerFactory(default_threshold=5, default_ttl=3600)
    amade = module.AsyncCircuitBreakerFactory(default_threshold=5, default_ttl=3600)
    refused = made("opened")(failing)
    until_open(refused)
    opened_state = importlib.import_module("purgatory.domain.model").OpenedState
    return [
        Case("purgatory", "decorated", calls(made("made")(payload)), "no locks"),
        Case("purgatory", "async", awaits(amade("made")(apayload)), "no locks"),
        Case("purgatory", "open refusal", refusals(refused, opened_state)),
        Case("purgatory", "threads", in_threads(made("made")(payload), pool)),
    ]


def hyx_cases(module: Any, pool: ThreadPoolExecutor) -> list[Case]:  # noqa: ARG001  asynchronous only
    made = module.consecutive_breaker(failure_threshold=5, recovery_time_secs=3600)
    return [Case("hyx", "async", awaits(made(apayload)))]


PEERS = {
    "pybreaker": pybreaker_cases,
    "circuitbreaker": circuitbreaker_cases,
    "aiobreaker": aiobreaker_cases,
    "interlock": interlock_cases,
    "purgatory": purgatory_cases,
    "hyx.circuitbreaker": hyx_cases,
}


def measure(cases: list[Case], *, rounds: int, slice_calls: int) -> None:
    for number in range(rounds + 1):
        for case in cases:
            clock = perf_counter_ns if case.kind in {"threads", "thread"} else thread_time_ns
            times = slice_calls // 20 if case.kind == "thread" else slice_calls
            started = clock()
            case.loop(times)
            if number:  # the first round warms up
                case.times.append((clock() - started) / times)


def rows(cases: list[Case]) -> list[dict[str, Any]]:
    least = {(case.who, case.kind): min(case.times) for case in cases}
    made = []
    for case in cases:
        floor = least["bare", case.kind]
        over = least[case.who, case.kind] - floor
        our_over = least["groundfault", case.kind] - floor
        made.append(
            {
                "case": case.kind,
                "who": case.who,
                "min_ns": round(least[case.who, case.kind]),
                "median_ns": round(statistics.median(case.times)),
                "over_bare_ns": round(over),
                "ratio_to_ours": round(over / our_over, 2) if case.who != "bare" and our_over > 0 else None,
                "note": case.what,
            }
        )
    return sorted(made, key=lambda row: [case.kind for case in cases].index(row["case"]))


def show(table: list[dict[str, Any]], missing: list[str]) -> None:
    print(f"CPython {platform.python_version()}, ns per call")
    print(f"{'case':14}{'who':16}{'min':>8}{'median':>9}{'over':>8}{'ratio':>8}")
    for row in table:
        ratio = "" if row["ratio_to_ours"] is None else f"{row['ratio_to_ours']:.2f}"
        numbers = f"{row['min_ns']:8}{row['median_ns']:9}{row['over_bare_ns']:8}{ratio:>8}"
        print(f"{row['case']:14}{row['who']:16}{numbers}  {row['note']}")
    for name in missing:
        print(f"{name} is not installed")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds, rougher")
    parser.add_argument("--json", action="store_true", help="rows as JSON on stdout")
    options = parser.parse_args()
    missing = []
    with ThreadPoolExecutor(THREADS) as pool:
        cases = [*bare(pool), *ours(pool)]
        for name, make in PEERS.items():
            try:
                module = importlib.import_module(name)
            except ImportError:
                missing.append(name)
                continue
            cases += make(module, pool)
        measure(cases, rounds=10 if options.quick else 60, slice_calls=2000 if options.quick else 4000)
    table = rows(cases)
    if options.json:
        json.dump({"python": platform.python_version(), "missing": missing, "rows": table}, sys.stdout, indent=1)
        print()
    else:
        show(table, missing)
    return 0


if __name__ == "__main__":
    sys.exit(main())
