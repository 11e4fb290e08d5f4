"""The cascade tables, simulated with the real cores, beside the figures of the model that the rules were chosen with.

Run from a checkout: ``python -m bench.simulated_cascades``; it takes a few minutes, ``--jobs 2`` half as long. That
model drove a sketch of the law and of a breaker (design.md tells of both); this one drives what is shipped, so where
the two differ, either the shipped code does or the chain has been drawn a little differently.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from groundfault.lab.runs.measures import Bound, evaluate
from groundfault.lab.runs.record import Run
from groundfault.lab.simulator.model import Protection
from groundfault.lab.simulator.running import Job, run_all
from groundfault.lab.simulator.scenario import scenario_of
from groundfault.lab.simulator.scenarios import cascades

_THREE: Final = (Protection.BREAKERS, Protection.PLAIN, Protection.GROUNDFAULT)
_NO: Final = (None, None, None, "")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table. ``before``: the older model's goodput, innocents, seconds below 80 %, and trips by edge."""

    scenario: str
    variant: Protection
    before: tuple[float | None, float | None, float | None, str]


def _rows(scenario: str, *before: tuple[float | None, float | None, float | None, str]) -> Iterator[Row]:
    for variant, figures in zip(_THREE, before, strict=True):
        yield Row(scenario, variant, figures)


ROWS: Final[tuple[Row, ...]] = (
    *_rows("cascade", (0.13, 0.028, 56.2, "0/0"), (0.63, 0.552, 14.2, "8/8"), (0.97, 0.995, 2.8, "0/0")),
    *_rows("cascade-users", (0.13, 0.029, 96.0, "0/0"), (0.57, 0.378, 19.8, "12/9"), (1.14, 0.999, 3.0, "0/0")),
    *_rows(
        "cascade-four-edges",
        (0.12, 0.033, 96.0, "0/0/0/0"),
        (0.29, 0.243, 28.0, "13/8/8/6"),
        (1.12, 0.981, 12.0, "0/0/0/0"),
    ),
    *_rows(
        "cascade-blip",
        (0.04, 0.011, 396.0, "0/0/0/0"),
        (0.15, 0.100, 62.0, "27/18/16/14"),
        (1.01, 1.000, 3.5, "0/0/0/0"),
    ),
    *_rows("cascade-retries", _NO, (0.64, 0.200, 27.5, "12/10"), (1.15, 0.300, 21.0, "0/0")),
    *_rows("cascade-retries-budget", _NO, _NO, (1.10, 0.996, 14.0, "0/0")),
    *_rows("cascade-brownout", _NO, (0.93, 1.000, 9.0, "4/4"), (0.96, 1.000, 0.0, "0/0")),
    *_rows("cascade-down", _NO, (None, 0.350, 41.0, "12/4"), (None, 0.912, 7.0, "4/4")),
    *_rows("cascade-sick", _NO, (None, 0.350, 41.0, "12/4"), (None, 1.000, 28.0, "0/0")),
    *_rows("cascade-fan-out", _NO, (0.60, 0.516, 20.0, "8/3"), (0.27, 1.000, 19.5, "0/0")),
    *_rows("cascade-fan-out-3x", _NO, (0.49, 1.000, 23.5, "4/0"), (0.49, 1.000, 18.8, "0/0")),
)


def _figure(runs: Sequence[Run], text: str) -> float | None:
    found = [evaluate(run, Bound.parse(text)).value for run in runs]
    had = [value for value in found if value is not None]
    return fmean(had) if len(had) == len(found) else None


def _trips(runs: Sequence[Run]) -> str:
    edges = range(len(runs[0].edges))
    return "/".join(f"{fmean(len(run.edges[edge].trips) for run in runs):.0f}" for edge in edges)


def main() -> int:
    """Print the table, as it stands in the documentation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", action="append", choices=tuple(cascades.TITLES))
    options = parser.parse_args()
    rows = [row for row in ROWS if not options.only or row.scenario in options.only]
    seeds = [str(number) for number in range(1, options.seeds + 1)]
    jobs = [Job(scenario_of(cascades.document(row.scenario)), seed, row.variant) for row in rows for seed in seeds]
    runs = run_all(jobs, processes=options.jobs)
    heads = ("scenario", "variant", "goodput", "(model)", "innocents", "(model)", "s below 80 %", "(model)")
    print(f"| {' | '.join((*heads, 'recovery, s', 'trips', '(model)'))} |\n|{'---|' * (len(heads) + 3)}")
    for row in rows:
        each = [next(runs) for _ in seeds]
        goodput = None if each[0].capacity_rps is None else _figure(each, "goodput@spike")
        below = _figure(each, "below_s" if each[0].capacity_rps is not None else "below_s.innocent")
        figures = (
            (_share(goodput), _share(row.before[0])),
            (_share(_figure(each, "success.innocent@spike")), _share(row.before[1])),
            (_seconds(below), _seconds(row.before[2])),
        )
        cells = [cell for pair in figures for cell in pair]
        recovery = _seconds(_figure(each, "recovery_s@after"), never="never")
        cells += [recovery, _trips(each), row.before[3] or "-"]
        print(f"| `{row.scenario}` | {row.variant.value} | {' | '.join(cells)} |", flush=True)
    return 0


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 0.995 else f"{value:.3f}"


def _seconds(value: float | None, never: str = "-") -> str:
    return never if value is None else f"{value:.1f}"


if __name__ == "__main__":
    sys.exit(main())
