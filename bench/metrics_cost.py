"""What metrics cost: a call, a second of each process, a scrape.

    python bench/metrics_cost.py [--quick] [--json]

Calls: each case runs for a short slice in each round, all in turn; CPU nanoseconds of the thread per call, the least of
the rounds. ``over`` is what a case adds to the command alone. Our metrics are pulled, so nothing is called when a call
ends; what the thread that writes the report takes instead is in the second table: its CPU time per second.

A scrape: four processes with a thousand commands each, which really write into one run directory; then reading,
merging and rendering in a fifth. Beside it what prometheus_client takes to render the same samples, and what it takes
in its own multiprocess mode for histograms alone of the same processes.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections import Counter as Counts
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from random import Random
from time import perf_counter_ns, thread_time_ns
from typing import Any

import prometheus_client
from prometheus_client.multiprocess import MultiProcessCollector

from groundfault._clock import wall
from groundfault.breaker import Command, Registry, Resource, registry
from groundfault.events import CommandDone, Event
from groundfault.integrations.prometheus import GroundFaultCollector, install
from groundfault.metrics.catalogue import BUCKETS_S
from groundfault.metrics.exposition import render
from groundfault.metrics.rundir import read
from groundfault.metrics.writer import Encoder, Writer

WORKERS = 4
COMMANDS = 1000
NS_PER_MS = 1e6


def payload(x: int) -> int:
    return x


class Failed(Exception):  # noqa: N818  a benchmark's own
    pass


def fail() -> None:
    raise Failed


def least(work: Callable[[], Any], *, rounds: int, clock: Callable[[], int] = perf_counter_ns) -> float:
    """Return the least time of the rounds in milliseconds."""
    taken = []
    for _ in range(rounds):
        started = clock()
        work()
        taken.append(clock() - started)
    return min(taken) / NS_PER_MS


# --- one call ---------------------------------------------------------------------------------------------------------


def per_call(place: Path, *, rounds: int, slice_calls: int) -> list[dict[str, Any]]:
    def command(*sinks: Callable[[Event], None]) -> Command:
        return Resource("bench", registry=Registry(), sinks=sinks).command("call", max_concurrent=100)

    alone, pulled, timed = command(), command(), command()
    install(prometheus_client.CollectorRegistry(), directory=place)
    counts: Counts[str] = Counts()

    def count(event: Event) -> None:
        if isinstance(event, CommandDone):
            counts[event.outcome] += 1

    count.prompt = True  # type: ignore[attr-defined]  # a function may carry attributes; mypy has no word for it
    told = command(count)
    histogram = prometheus_client.Histogram(
        *("bench_seconds", "As an application would have it.", ["resource", "command", "outcome"]),
        buckets=BUCKETS_S,
        registry=prometheus_client.CollectorRegistry(),
    )

    def observed(x: int) -> int:
        started = perf_counter_ns()
        result: int = timed.call(payload, x)
        histogram.labels("bench", "call", "success").observe((perf_counter_ns() - started) / 1e9)
        return result

    cases: dict[str, Callable[[int], int]] = {
        "bare function": payload,
        "command alone": lambda x: alone.call(payload, x),
        "command, our collector and writer on": lambda x: pulled.call(payload, x),
        "command and a sink for CommandDone": lambda x: told.call(payload, x),
        "command and Histogram.labels().observe()": observed,
    }
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, call in cases.items():
            started = thread_time_ns()
            for _ in range(slice_calls):
                call(1)
            if number:  # the first round warms up
                taken[name].append((thread_time_ns() - started) / slice_calls)
    floor = min(taken["command alone"])
    return [
        {"case": name, "min_ns": round(min(times)), "over_ns": round(min(times) - floor)}
        for name, times in taken.items()
    ]


# --- one second of a process ------------------------------------------------------------------------------------------


def commands_with_history(where: Registry | None, count: int, seed: int, *, calls: int) -> list[Command]:
    """Make commands that have taken as long as calls do, over two powers of ten, and failed now and then."""
    random = Random(seed)
    made = []
    for number in range(count):
        resource = Resource(f"resource{number // 25}", registry=where, sinks=[])
        command = resource.command(f"command{number}", max_concurrent=10)
        for _ in range(calls):
            command.call(payload, 1)
        rolling = command._gate._rolling  # noqa: SLF001  durations of one's own choice, without waiting so long
        rolling.durations.extend(random.lognormvariate(-4.0, 0.8) for _ in range(300))
        for _ in range(3):
            try:
                command.call(fail)
            except Failed:
                continue
        made.append(command)
    return made


def per_second(place: Path, count: int, *, rounds: int) -> dict[str, Any]:
    """Return the CPU time of a report, of which there is one each second, as a share of it in percent."""
    made = commands_with_history(registry(), count, 1, calls=1)
    writer = Writer(place)
    writer.write()
    idle = least(writer.write, rounds=rounds, clock=thread_time_ns)
    taken = []
    for _ in range(rounds):
        for command in made:
            command.call(payload, 1)
        started = thread_time_ns()
        writer.write()
        taken.append((thread_time_ns() - started) / NS_PER_MS)
    size = len(Encoder().encode(0.0)[0])
    registry()._made.clear()  # noqa: SLF001  the next number of commands begins anew
    return {
        "commands": count,
        "bytes": size,
        "busy_percent": round(min(taken) / 10, 2),
        "idle_percent": round(idle / 10, 2),
    }


# --- one scrape -------------------------------------------------------------------------------------------------------


def worker(directory: str, seed: int) -> None:
    """Be one of the processes: write once, say so, and live until told otherwise."""
    made = commands_with_history(registry(), COMMANDS, seed, calls=1)
    histogram = prometheus_client.Histogram(
        *("bench_seconds", "As an application would have it.", ["resource", "command", "outcome"]),
        buckets=BUCKETS_S,
    )
    for command in made:
        for outcome in ("success", "failure"):
            histogram.labels(command.resource, command.name, outcome).observe(0.01)
    writer = Writer(directory)
    writer.write()
    print("ready", flush=True)
    sys.stdin.readline()


def per_scrape(place: Path, *, rounds: int) -> dict[str, Any]:
    theirs = place / "theirs"
    theirs.mkdir()
    workers = [
        subprocess.Popen(  # noqa: S603  this very file
            [sys.executable, __file__, "--worker", str(place / "run"), str(seed)],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(theirs)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for seed in range(WORKERS)
    ]
    try:
        for each in workers:
            if each.stdout is None or not each.stdout.readline():
                raise RuntimeError("a worker has died")
        text = render(read(place / "run", wall()), wall())
        ours = prometheus_client.CollectorRegistry()
        ours.register(GroundFaultCollector(place / "run"))
        own = prometheus_client.CollectorRegistry()
        MultiProcessCollector(own, path=str(theirs))  # type: ignore[no-untyped-call]  # it has no types
        report = read(place / "run", wall())
        few = max(2, rounds // 4)
        return {
            "lines": text.count(b"\n"),
            "bytes": len(text),
            "read_and_merge_ms": least(lambda: read(place / "run", wall()), rounds=rounds),
            "render_ms": least(lambda: render(report, wall()), rounds=rounds),
            "scrape_ms": least(lambda: render(read(place / "run", wall()), wall()), rounds=rounds),
            "generate_latest_ms": least(lambda: prometheus_client.generate_latest(ours), rounds=few),
            "their_multiprocess_ms": least(lambda: prometheus_client.generate_latest(own), rounds=few),
        }
    finally:
        for each in workers:
            each.communicate(b"\n")


def show(calls: list[dict[str, Any]], seconds: list[dict[str, Any]], scrape: dict[str, Any]) -> None:
    print(f"CPython {platform.python_version()}, prometheus_client {version('prometheus-client')}; least of the rounds")
    print(f"\n{'a call':44}{'ns':>8}{'over':>8}")
    for row in calls:
        print(f"{row['case']:44}{row['min_ns']:8}{row['over_ns']:8}")
    print(f"\n{'a second':16}{'all called':>14}{'none called':>14}{'file':>14}")
    for row in seconds:
        busy, idle = f"{row['busy_percent']:.2f} %", f"{row['idle_percent']:.2f} %"
        print(f"{row['commands']:>6} commands {busy:>14}{idle:>14}{row['bytes'] // 1000:>11} kB")
    print(f"\na scrape, {COMMANDS} commands x {WORKERS} workers: {scrape['lines']} lines, {scrape['bytes'] // 1000} kB")
    for name, label in (
        ("read_and_merge_ms", "read and merge"),
        ("render_ms", "render"),
        ("scrape_ms", "both: a scrape"),
        ("generate_latest_ms", "the same through generate_latest"),
        ("their_multiprocess_ms", "their multiprocess mode, histograms alone"),
    ):
        print(f"{label:44}{scrape[name]:8.1f} ms")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds, rougher")
    parser.add_argument("--json", action="store_true", help="everything as JSON on stdout")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker[0], int(options.worker[1]))
        return 0
    memory = Path("/dev/shm")  # noqa: S108  in memory, as a run directory should be
    place = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    rounds = 5 if options.quick else 20
    try:
        seconds = [per_second(place / f"second{count}", count, rounds=rounds) for count in (40, COMMANDS)]
        scrape = per_scrape(place, rounds=rounds)
        calls = per_call(place / "calls", rounds=3 * rounds, slice_calls=2000 if options.quick else 4000)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if options.json:
        json.dump({"calls": calls, "seconds": seconds, "scrape": scrape}, sys.stdout, indent=1)
        print()
    else:
        show(calls, seconds, scrape)
    return 0


if __name__ == "__main__":
    sys.exit(main())
