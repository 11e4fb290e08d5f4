"""Every constant of the control law halved and doubled, on the simulated servers of the tests.

    python bench/ablation.py [--seeds N] [--only NAME ...] [--json FILE]

The shedder is the real one; the servers are those of ``tests/shedding/test_simulation.py``, on a virtual clock, so the
figures are the same on any machine. For each constant the cases are run that it can matter in: servers with workers of
their own, or event loops. ``goodput`` is answers within the deadline as a share of capacity, the mean over the
overloads; ``least`` the worst of them; ``p99`` the mean over the overloads of the 99th percentile of good answers
after the first second; ``critical+`` how much of the most critical traffic, a tenth of all, got through; ``refused``
what was refused of traffic below capacity, pauses of the process included.
"""

import argparse
import importlib.util
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from groundfault.shedding import _admission
from groundfault.vocabulary import Criticality

_SIMULATION = Path(__file__).resolve().parent.parent / "tests" / "shedding" / "test_simulation.py"
_START, _END = 10, 20


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("simulation", _SIMULATION)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["simulation"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


simulation = _load()
World, Handler, Pool, Workers, Mixed = (
    getattr(simulation, name) for name in ("_World", "_Handler", "_Pool", "_Workers", "_Mixed")
)


@dataclass(frozen=True)
class Case:
    """A simulated server and what arrives there. ``capacity`` is None where nothing should be refused."""

    name: str
    kind: str
    build: Callable[[Any], Any]
    rate: Callable[[float], float]
    capacity: float | None
    pauses: bool = False
    deadline_s: float | None = None


@dataclass
class Figures:
    goodput: float
    p99_ms: float
    critical_plus: float
    refused: float


def _spike(capacity: float, peak: float) -> Callable[[float], float]:
    return lambda t: capacity * (peak if _START <= t < _END else 0.6)


def _constant(rate: float) -> Callable[[float], float]:
    return lambda _: rate


def _pool(places: int, hold_s: float, during_s: float | None = None) -> Callable[[Any], Any]:
    slow_s = hold_s if during_s is None else during_s
    return lambda world: Pool(world, places, lambda t: slow_s if _START <= t < _END else hold_s)


def _workers(workers: int, service_s: float) -> Callable[[Any], Any]:
    return lambda world: Workers(world, workers, lambda _: service_s)


def _slow_endpoint(world: Any) -> Any:
    seconds = {"r": lambda _: 0.01, "slow": lambda t: 0.5 if _START <= t < _END else 0.01}
    handler = Mixed(world, 8, seconds)
    world.arrivals("slow", _constant(24), 25, handler)
    return handler


def _cpu(world: Any) -> Any:
    return Handler(world, 0.002, lambda _: 0.05)


def _slows(times: float) -> Callable[[Any], Any]:
    return lambda world: Handler(world, 0.002, lambda t: 0.05 * (times if _START <= t < _END else 1.0))


CASES = (
    Case("8 workers of 20 ms, 8x", "workers", _workers(8, 0.02), _spike(400, 8), 400),
    Case("8 workers of 20 ms, 1.5x", "workers", _workers(8, 0.02), _spike(400, 1.5), 400),
    Case("2 workers of 2 ms, 8x", "workers", _workers(2, 0.002), _spike(1000, 8), 1000),
    Case("16 workers of 200 ms, 8x", "workers", _workers(16, 0.2), _spike(80, 8), 80),
    Case(
        "8 workers of 20 ms, 1.5x, deadline set to 12 s",
        "workers",
        _workers(8, 0.02),
        _spike(400, 1.5),
        400,
        deadline_s=12,
    ),
    Case("8 workers, one endpoint of a twentieth 50 times slower", "workers", _slow_endpoint, _constant(456), 456),
    Case("8 workers at 0.9", "workers", _workers(8, 0.02), _constant(360), None),
    Case("8 workers at 0.8, paused", "workers", _workers(8, 0.02), _constant(320), None, pauses=True),
    Case("4 workers of 500 ms at 0.7", "workers", _workers(4, 0.5), _constant(5.6), None),
    Case("CPU of a loop, 8x", "loop", _cpu, _spike(250, 8), 250),
    Case("CPU of a loop, 1.5x", "loop", _cpu, _spike(250, 1.5), 250),
    Case("pool of 20, 100 ms, 8x", "loop", _pool(20, 0.1), _spike(200, 8), 200),
    Case("pool of 20, 100 ms, 1.5x", "loop", _pool(20, 0.1), _spike(200, 1.5), 200),
    Case("pool of 5, 20 ms, 3x", "loop", _pool(5, 0.02), _spike(250, 3), 250),
    Case("pool of 2, 50 ms, 1.5x", "loop", _pool(2, 0.05), _spike(40, 1.5), 40),
    Case("pool of 20 slows to a quarter", "loop", _pool(20, 0.1, 0.4), _constant(120), 50),
    Case("something awaited slows 8x", "loop", _slows(8), _constant(200), 200),
    Case("CPU of a loop at 0.8", "loop", _cpu, _constant(200), None),
    Case("CPU of a loop at 0.6, paused", "loop", _cpu, _constant(150), None, pauses=True),
    Case("something awaited slows 4x", "loop", _slows(4), _constant(200), None),
)

_WORKERS: tuple[str, ...] = ("workers",)
_LOOP: tuple[str, ...] = ("loop",)
_BOTH = _WORKERS + _LOOP

CONSTANTS: tuple[tuple[str, ModuleType, tuple[str, ...]], ...] = (
    ("BURST_SHARE", _admission, _BOTH),
    ("BURST_SERVICES", _admission, _WORKERS),
    ("FLOOR_S", _admission, _WORKERS),
    ("LOOP_TARGET_S", _admission, _LOOP),
    ("CLEAR_S", _admission, _BOTH),
    ("TIGHTEN_S", _admission, _BOTH),
    ("MEMORY_S", _admission, _BOTH),
    ("STANDING_S", _admission, _WORKERS),
    ("STANDING_SERVICES", _admission, _WORKERS),
    ("LULL_S", _admission, _WORKERS),
    ("LADDER", _admission, _BOTH),
    ("COSTLY", _admission, _WORKERS),
    ("CROWD", _admission, _LOOP),
    ("STANDING_CROWD", _admission, _LOOP),
    ("FORECAST", _admission, _LOOP),
    ("QUEUEING", _admission, _LOOP),
    ("TIGHT", _admission, _LOOP),
    ("LEAST", _admission, _LOOP),
    ("PRESSED", _admission, _LOOP),
    ("TIGHTEN_CROWD_S", _admission, _LOOP),
    ("TRIAL_S", _admission, _LOOP),
    ("KEPT", _admission, _LOOP),
    ("SPARED_S", _admission, _LOOP),
)


def scaled(value: Any, by: float) -> Any:
    """Return a number, or a table of numbers, times ``by``; shares of something stay below 1."""
    if isinstance(value, tuple):
        return tuple(scaled(each, by) for each in value)
    return int(value * by) if isinstance(value, int) else value * by


def run(case: Case, seed: int) -> Figures:
    """Simulate half a minute."""
    world = World(seed=seed, on_loop=case.kind == "loop")
    if case.deadline_s is not None:
        world.shedder.tune(deadline_s=case.deadline_s)
    handler = case.build(world)
    world.arrivals("r", case.rate, 25, handler)
    if case.pauses:
        for at in range(5, 25, 5):
            world.at(at, partial(world.stop if case.kind == "loop" else handler.pause, 0.5))
    world.run(40)
    event, later = world.between("r", _START, _END), world.between("r", _START + 1, _END)
    whole = world.between("r", 0, 25)
    capacity = case.capacity or event.offered / (_END - _START)
    return Figures(
        event.good / capacity / (_END - _START),
        later.p99_s * 1e3 if later.latencies else 0.0,
        event.good_share_of(Criticality.CRITICAL_PLUS),
        whole.shed_share,
    )


def row(kinds: tuple[str, ...], seeds: int) -> dict[str, float]:
    """Return the figures over all cases of these kinds."""
    overloads: list[Figures] = []
    calm: list[Figures] = []
    for case in CASES:
        if case.kind in kinds:
            (overloads if case.capacity else calm).extend(run(case, seed) for seed in range(1, seeds + 1))
    return {
        "goodput": statistics.fmean(each.goodput for each in overloads),
        "least": min(each.goodput for each in overloads),
        "p99_ms": statistics.fmean(each.p99_ms for each in overloads),
        "critical_plus": statistics.fmean(each.critical_plus for each in overloads),
        "refused": statistics.fmean(each.refused for each in calm),
    }


def _line(name: str, value: Any, figures: dict[str, float]) -> str:
    shown = f"{value:g}" if isinstance(value, float | int) else "times " + str(value[0])
    return (
        f"{name:18s} {shown:>10s} {figures['goodput']:8.3f} {figures['least']:7.3f} {figures['p99_ms']:7.0f}"
        f" {figures['critical_plus']:10.3f} {figures['refused']:9.2%}"
    )


def main() -> None:
    """Print a table: each kind of server as it is, then with every constant halved and doubled."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="names of constants")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print(f"{'constant':18s} {'value':>10s}  goodput   least     p99  critical+   refused")

    def note(name: str, value: Any, kinds: tuple[str, ...]) -> None:
        figures = row(kinds, options.seeds)
        rows.append({"constant": name, "value": value, **figures})
        print(_line(name, value, figures), flush=True)

    for title, kinds in (("all", _BOTH), ("workers", _WORKERS), ("loops", _LOOP)):
        note(title, 1, kinds)
    for name, module, kinds in CONSTANTS:
        if options.only and name not in options.only:
            continue
        usual = getattr(module, name)
        try:
            for by in (0.5, 2.0):
                value = scaled(usual, by)
                if name == "KEPT":
                    value = {0.5: 0.7, 2.0: 0.95}[by]  # a share
                setattr(module, name, value)
                note(name, (by,) if isinstance(usual, tuple) else value, kinds)
        finally:
            setattr(module, name, usual)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
