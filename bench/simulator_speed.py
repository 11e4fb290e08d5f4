"""How many simulated calls a second one core makes: a single service and a chain, with the cores and without them.

Run from a checkout: ``python bench/simulator_speed.py``; ``--profile`` says where the time goes. A call is one hop: a
request that comes in at a service. The best of several rounds counts, for a busy machine only ever slows it down.
"""

import argparse
import cProfile
import gc
import pstats
import sys
from typing import Any

from groundfault._clock import thread_cpu
from groundfault.lab.simulator.model import Protection
from groundfault.lab.simulator.scenario import scenario_of
from groundfault.lab.simulator.simulation import Simulation

LOAD = 0.7
OVERLOAD = 3.0
SECONDS = 20.0


def _exponential(mean_s: float) -> dict[str, Any]:
    return {"kind": "exponential", "mean_s": mean_s}


def _single(load: float) -> dict[str, Any]:
    """8 workers of 5 ms."""
    return {
        "total_s": SECONDS,
        "services": {"saber": {"workers": 8, "cpu": _exponential(0.005), "shed_cost_s": 0.0001}},
        "streams": [{"name": "fan", "to": "saber", "rate": 1600 * load}],
    }


def _chain(load: float) -> dict[str, Any]:
    """Three services, the last of which is the scarce one, with breakers on both edges."""
    front = {"workers": 4, "threads": 64, "wait": _exponential(0.003)}
    return {
        "total_s": SECONDS,
        "services": {
            "topps": {**front, "calls": [{"to": "grouper", "timeout_s": 1.5}]},
            "grouper": {**front, "calls": [{"to": "saber", "timeout_s": 1.0}]},
            "saber": {"workers": 8, "wait": _exponential(0.010), "shed_cost_s": 0.0001},
        },
        "streams": [{"name": "fan", "to": "topps", "rate": 800 * load}],
    }


CASES = {
    "single service": (_single, LOAD),
    "single service, 3x": (_single, OVERLOAD),
    "chain of three": (_chain, LOAD),
    "chain of three, 3x": (_chain, OVERLOAD),
}


def measured(document: dict[str, Any], variant: Protection, rounds: int) -> float:
    """Return simulated calls per second of CPU, of the best round."""
    scenario = scenario_of(document)
    best = 0.0
    for number in range(rounds):
        simulation = Simulation(scenario, seed=str(number), variant=variant)
        before = thread_cpu()
        gc.disable()  # as in `groundfault simulate`
        simulation.run()
        best = max(best, simulation.calls / (thread_cpu() - before))
        gc.enable()
    return best


def main() -> int:
    """Print the table, or the profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    if options.profile:
        simulation = Simulation(scenario_of(_chain(LOAD)))
        profile = cProfile.Profile()
        profile.runcall(simulation.run)
        pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(25)
        return 0
    print(f"{'':24}{'with the cores':>16}{'without':>12}   calls per second of CPU")
    for name, (build, load) in CASES.items():
        figures = [
            measured(build(load), variant, options.rounds) for variant in (Protection.GROUNDFAULT, Protection.NONE)
        ]
        print(f"{name:24}{figures[0]:>16,.0f}{figures[1]:>12,.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
