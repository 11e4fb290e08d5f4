"""Goodput under overload: real servers, an open-loop generator, and the peers in the same run.

    python bench/overload.py [--quick] [--workload NAME] [--variant NAME] [--seeds N] [--json FILE] [--envoy PATH]

Every workload is drawn once per seed and sent alike to each variant: arrivals by chance at the given rates, each
request naming its own service time, a new connection each (``--keep-alive`` to keep them), clients who leave at
their deadline. The server runs on CPU 0 and the generator on CPU 1. First the server's capacity is measured, in a
closed loop without any protection; loads are multiples of it. The cost of a refusal is measured in the same run too:
how many 503 a second one process of the bare protocol (accept, read, send, close) can answer, and an application that
refuses everything on the server at hand. Of them follows the ceiling: (1 - x·s) / (1 - s), with s in service times,
for x times the capacity.

``eff`` is service time spent on answers within the deadline, as a share of capacity or of what was offered, if less;
``worst`` the same in the worst window of a thousand good answers; ``ceil`` the bare protocol's ceiling and ``own``
that of an application behind the server's parser. A peer with several values to choose from is tuned per workload:
the best of a short search is what counts. ``noise`` is what others used of the server's CPU. A run whose generator was
late is tried again, then marked ``void``.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic, sleep  # noqa: TID251  real processes, real time
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from openloop.generator import Outcome, drive, saturate
from openloop.judge import ceiling, judge
from openloop.servers import Running, Variant, busy_s, running, variants
from openloop.workloads import CALM_S, QUICK, WORKLOADS, Server, Workload, request

_SERVER_CPU, _CLIENT_CPU = 0, 1
_PAUSE_S, _PAUSE_EVERY_S = 0.5, 5.0
_TRIES = 3
_COST_S = 2.0


class Bench:
    """One invocation: what was measured of the servers, and the rows so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        cpus = os.cpu_count() or 1
        self.server_cpu = _SERVER_CPU if cpus > 1 else None
        self.client_cpu = _CLIENT_CPU if cpus > 1 else None
        self._capacities: dict[tuple[Server, float], float] = {}
        self._costs: dict[str, float] = {}
        self.rows: list[dict[str, Any]] = []

    def in_process(self, what: Any, *arguments: Any, **more: Any) -> Any:
        """Run a function of the generator in a process of its own, and return what it returns."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_send, args=(theirs, self.options.nice, partial(what, *arguments, **more)))
        process.start()
        theirs.close()
        try:
            return ours.recv()
        finally:
            process.join(5)
            if process.is_alive():
                process.kill()

    def running(self, server: Server, variant: Variant) -> Any:
        return running(server, variant, cpu=self.server_cpu, nice=self.options.nice, envoy=self.options.envoy)

    def capacity(self, server: Server, work_s: float) -> float:
        """Return how many requests of this length the bare server answers a second."""
        if server.kind in {"io", "threads"}:
            return server.places / work_s
        key = (server, work_s)
        if key not in self._capacities:
            with self.running(server, Variant("none")) as one:
                connections = 2 * server.places + 2
                seconds = max(2.0, 12 * work_s)
                self._capacities[key] = self.in_process(
                    saturate,
                    one.port,
                    request(work_s),
                    connections=connections,
                    seconds=seconds,
                    cpu=self.client_cpu,
                )[0]
        return self._capacities[key]

    def refusal_s(self, server: Server, *, bare: bool) -> float:
        """Return how long a refusal keeps one worker busy: the bare protocol's, or an application's on this server."""
        stack = ("bare-loop" if server.on_loop else "bare-sync") if bare else server.stack
        if stack not in self._costs:
            with self.running(Server(stack, "sleep", 1), Variant("503", "503")) as one:
                _, best = self.in_process(
                    saturate,
                    one.port,
                    request(0.0),
                    connections=8,
                    seconds=_COST_S,
                    cpu=self.client_cpu,
                    status=503,
                )
                self._costs[stack] = 1 / best
        return self._costs[stack]

    def run(self, workload: Workload, variant: Variant, seed: int) -> dict[str, Any]:
        """Run once, again if the generator could not keep up."""
        row: dict[str, Any] = {}
        for _ in range(_TRIES):
            row = self._attempt(workload, variant, seed)
            if not row["void"]:
                break
        return row

    def _attempt(self, workload: Workload, variant: Variant, seed: int) -> dict[str, Any]:
        server = workload.server
        capacity = self.capacity(server, workload.work_s)
        overhead_s = max(server.places / capacity - workload.work_s, 0.0)
        mean_s = _mean_work(workload)
        with self.running(server, variant) as one:
            trace = workload.plan(
                one.port,
                server.places / (mean_s + overhead_s),
                seed,
                self.client_cpu,
                keep_alive=self.options.keep_alive,
            )
            stopped = threading.Event()
            pauses = threading.Thread(target=_pauses, args=(one, workload, stopped), daemon=True)
            if workload.pauses:
                pauses.start()
            before, busy_before = one.cpu_s(), busy_s(self.server_cpu)
            outcome: Outcome = self.in_process(drive, trace.plan)
            used, busy = one.cpu_s() - before, busy_s(self.server_cpu) - busy_before
            stopped.set()
            if workload.pauses:
                pauses.join(5)
        row = judge(workload, trace, outcome, places=server.places, overhead_s=overhead_s)
        service_s = mean_s + overhead_s
        holds_place = server.kind in {"sleep", "cpu"}
        for name, bare in (("ceiling", True), ("ceiling_own", False)):
            refusal = self.refusal_s(server, bare=bare) if holds_place else 0.0
            row[name] = ceiling(row["load"], refusal, service_s * (1 if server.kind == "sleep" else server.places))
        row |= {"workload": workload.name, "variant": variant.label, "name": variant.name, "seed": seed}
        row |= {"capacity_per_s": server.places / service_s, "server_cpu": used / workload.length_s}
        row["foreign_cpu"] = max(busy - used, 0.0) / workload.length_s
        return row

    def tuned(self, workload: Workload, choices: list[Variant]) -> Variant:
        """Return the best of a peer's values on a shorter run with a seed of its own."""
        if len(choices) == 1:
            return choices[0]
        short = replace(workload, event_s=min(workload.event_s, self.options.search_s), after_s=0.5)
        return max(choices, key=lambda each: self.run(short, each, 0)["efficiency"])


def _send(pipe: Any, nice: int, what: Callable[[], Any]) -> None:
    os.nice(nice)
    pipe.send(what())
    pipe.close()


def _mean_work(workload: Workload) -> float:
    """Return the mean service time of calm traffic, by drawing."""
    import random  # noqa: PLC0415  only here

    dice = random.Random(1)
    count = 20_000
    return sum(
        lane.share * sum(lane.takes(dice, False) for _ in range(count)) / count  # noqa: FBT003  the event is not on
        for lane in workload.lanes
    )


def _pauses(one: Running, workload: Workload, stopped: threading.Event) -> None:
    until = monotonic() + workload.length_s
    while monotonic() < until and not stopped.wait(_PAUSE_EVERY_S - _PAUSE_S):
        one.pause(_PAUSE_S)


_COLUMNS = (
    ("eff", "efficiency", "{:.2f}"),
    ("worst", "efficiency_worst", "{:.2f}"),
    ("1st s", "efficiency_first_s", "{:.2f}"),
    ("ceil", "ceiling", "{:.2f}"),
    ("own", "ceiling_own", "{:.2f}"),
    ("p50", "p50_ms", "{:.0f}"),
    ("p99", "p99_later_ms", "{:.0f}"),
    ("shed", "shed", "{:.2%}"),
    ("late", "late", "{:.1%}"),
    ("broken", "broken", "{:.1%}"),
    ("recov", "recovery_s", "{:.1f}"),
    ("health", "health", "{:.3f}"),
    ("cpu", "server_cpu", "{:.2f}"),
    ("noise", "foreign_cpu", "{:.2f}"),
)


def _mean(rows: list[dict[str, Any]], key: str) -> float | None:
    values = [row[key] for row in rows if row[key] is not None]
    return statistics.fmean(values) if values else None


def _line(rows: list[dict[str, Any]]) -> str:
    cells = []
    for _, key, form in _COLUMNS:
        value = _mean(rows, key)
        cells.append(("-" if value is None else form.format(value)).rjust(7))
    label = rows[0]["variant"] + (" void" if any(row["void"] for row in rows) else "")
    lanes = rows[0]["lanes"]
    if len(lanes) > 1:
        by_lane = {lane: statistics.fmean(row["lanes"][lane] or 0.0 for row in rows) for lane in lanes}
        cells.append("  " + " ".join(f"{lane} {share:.3f}" for lane, share in by_lane.items()))
    return str(label).ljust(30) + "".join(cells)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="the core workloads, one seed, at most four minutes")
    parser.add_argument("--workload", action="append", choices=list(WORKLOADS), help="only this one; may be repeated")
    parser.add_argument("--variant", action="append", help="only this one; may be repeated")
    parser.add_argument("--seeds", type=int, help="runs of each, each drawn anew (5, with --quick 1)")
    parser.add_argument("--keep-alive", action="store_true", help="keep connections instead of making one a request")
    parser.add_argument("--nice", type=int, default=0, help="for server and generator: -15 on a machine with neighbors")
    parser.add_argument("--envoy", help="path of an envoy binary; without it that peer is left out")
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    options = parser.parse_args()
    options.seeds = options.seeds or (1 if options.quick else 5)
    options.search_s = 3.0 if options.quick else 5.0
    return options


def main() -> None:
    """Run what was asked for and print a table per workload."""
    options = _options()
    bench = Bench(options)
    names = options.workload or (QUICK if options.quick else WORKLOADS)
    for name in names:
        workload = WORKLOADS[name]
        if options.quick:
            workload = replace(workload, event_s=min(workload.event_s, 5.0), after_s=min(workload.after_s, 2.0))
        capacity = bench.capacity(workload.server, workload.work_s)
        print(f"\n{name}: {workload.server.stack}, {workload.server.places} places, measured capacity {capacity:.0f}/s")
        print(" " * 30 + "".join(title.rjust(7) for title, _, _ in _COLUMNS), flush=True)
        for each, choices in variants(workload.server, options.envoy, quick=options.quick).items():
            if options.variant and each not in options.variant:
                continue
            variant = bench.tuned(workload, choices)
            rows = [bench.run(workload, variant, seed) for seed in range(1, options.seeds + 1)]
            bench.rows += rows
            print(_line(rows), flush=True)
            sleep(0.2)
            if options.json:
                options.json.write_text(json.dumps(bench.rows, indent=1))
    print(f"\nseconds of a refusal: {_costs(bench)}; calm for {CALM_S:.0f} s before each event")


def _costs(bench: Bench) -> str:
    return ", ".join(f"{stack} {seconds * 1e6:.0f} us" for stack, seconds in bench._costs.items())  # noqa: SLF001  this module's own


if __name__ == "__main__":
    main()
