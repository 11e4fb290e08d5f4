"""The demo's chain, really run and simulated with the same arrivals and service times, and how far the two differ.

Run from a checkout: ``python -m bench.simulator_validation``; it takes about three minutes. Servers listen on loopback
only. Each phase is run for real first; what the simulation is given is what that run shows of a calm chain before the
spike (see :func:`costs`), the capacity that was measured, and the moments at which requests were due.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final

from rich.console import Console

from groundfault.lab.demo import Plan, Recorded, run
from groundfault.lab.display import Display
from groundfault.lab.measure import Measured, Row, phase_metrics
from groundfault.lab.parts import CONNECTIONS, Phase
from groundfault.lab.runs.measures import Bound, evaluate
from groundfault.lab.simulator.model import Protection
from groundfault.lab.simulator.scenarios.demo_chain import Costs, with_arrivals
from groundfault.lab.simulator.simulation import simulate

CONTESTS_S: Final = 0.005
LOBBY_ASLEEP_S: Final = 0.002
_LEAST_S: Final = 0.0003
_ERROR: Final = 400
_CALM: Final = 0.25


@dataclass(frozen=True, slots=True)
class Figures:
    """What is compared. Shares of 0 to 1; seconds, None for never.

    ``refused``: of the fans due in the spike, who got an error for an answer, annotated or not.
    """

    goodput: float
    refused: float
    innocents: float
    recovery_s: float | None
    trips: int


def costs(measured: Measured, capacity_rps: float, before_s: float) -> Costs:
    """Return what requests cost, from the quick quarter of those before the spike: what waits there is not queues.

    A lobby request is topps and grouper and nothing else; what a lineup takes beyond that and its query is saber's.
    """
    query_s = CONNECTIONS / capacity_rps

    def quick(kind: str) -> float:
        taken = sorted(row.latency_s for row in measured.rows if row.kind == kind and row.good and row.due < before_s)
        return median(taken[: max(1, round(len(taken) * _CALM))]) if taken else 0.0

    lobby_s, lineup_s = quick("innocent"), quick("fan")
    own_s = max(lobby_s - CONTESTS_S - LOBBY_ASLEEP_S, 4 * _LEAST_S)
    return Costs(
        query_s=query_s,
        contests_s=CONTESTS_S,
        topps_s=own_s / 2,
        grouper_s=own_s / 2,
        saber_s=min(max(lineup_s - lobby_s - query_s, _LEAST_S), query_s / 2),
        shed_s=max(own_s / 4, _LEAST_S),
    )


def real(measured: Measured, recorded: Recorded) -> Figures:
    """Return the figures of a phase that was really run."""
    curve = recorded.curve
    metrics = phase_metrics(measured, curve, recorded.capacity_rps)
    fans = [row for row in measured.rows if row.needs_saber and curve.before_s <= row.due < curve.spike_end_s]
    return Figures(
        goodput=metrics.goodput_share_in_spike,
        refused=sum(row.status >= _ERROR for row in fans) / max(len(fans), 1),
        innocents=metrics.innocents_success_in_spike,
        recovery_s=metrics.recovery_s,
        trips=metrics.trips,
    )


def simulated(phase: Phase, measured: Measured, recorded: Recorded, *, seed: str = "1") -> Figures:
    """Return the figures of the same phase, simulated."""
    curve = recorded.curve
    found = costs(measured, recorded.capacity_rps, curve.before_s)
    scenario = with_arrivals(_moments(measured.rows, curve.total_s), costs=found, curve=curve)
    run_ = simulate(scenario, seed=seed, variant=Protection(phase.value))

    def figure(text: str) -> float | None:
        return evaluate(run_, Bound.parse(text)).value

    fans = run_.stream("fan")
    assert fans is not None
    start, end = int(curve.before_s), int(curve.spike_end_s)
    arrived = sum(fans.arrived[start:end]) / (recorded.capacity_rps * curve.spike_s)
    return Figures(
        goodput=arrived,
        refused=(figure("shed.fan@spike") or 0.0) + (figure("failed.fan@spike") or 0.0),
        innocents=figure("success.innocent@spike") or 0.0,
        recovery_s=figure("recovery_s@after"),
        trips=sum(len(edge.trips) for edge in run_.edges),
    )


def _moments(rows: Sequence[Row], total_s: float) -> Mapping[str, list[float]]:
    return {
        kind: [row.due for row in rows if row.kind == kind and 0 <= row.due < total_s] for kind in ("fan", "innocent")
    }


def compare(plan: Plan, phases: Sequence[Phase], *, seed: str = "1") -> Iterator[dict[str, Any]]:
    """Yield, for each phase, both figures, and why the real one says nothing, if so."""
    with Display(Console(stderr=True)) as display:
        recorded = run(plan, display, phases=phases)
    for phase in phases:
        measured = recorded.phases[phase]
        void = phase_metrics(measured, recorded.curve, recorded.capacity_rps).void
        yield {
            "phase": phase.value,
            "void": void,
            "real": asdict(real(measured, recorded)),
            "simulated": asdict(simulated(phase, measured, recorded, seed=seed)),
            "costs": asdict(costs(measured, recorded.capacity_rps, recorded.curve.before_s)),
        }


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter phases, noisier figures")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = list(compare(Plan.quick() if options.quick else Plan(), tuple(Phase)))
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    print(f"{'':34}{'real':>10}{'simulated':>12}{'difference':>12}")
    for row in rows:
        for name, value in row["real"].items():
            other = row["simulated"][name]
            difference = "" if value is None or other is None else f"{other - value:+.3f}"
            print(f"{row['phase']:<16}{name:<18}{_shown(value):>10}{_shown(other):>12}{difference:>12}")
        for why in row["void"]:
            print(f"{row['phase']:<16}void: {why}")
    return 0


def _shown(value: float | None) -> str:
    return "never" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main())
