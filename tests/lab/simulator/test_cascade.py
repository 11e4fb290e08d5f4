"""What the simulator is for: the same spike with and without protection; and the tables that the law was chosen by."""

import pytest

from groundfault.lab.runs.measures import Bound, evaluate
from groundfault.lab.simulator.model import Protection
from groundfault.lab.simulator.scenario import scenario_of
from groundfault.lab.simulator.simulation import simulate


def _figure(run, text):
    return evaluate(run, Bound.parse(text)).value


def test_a_spike_does_not_cascade_with_groundfault(the_chain):
    """Two edges, eight times the load: 0.97 of what can be had, the innocents untouched, no circuit open."""
    run = simulate(scenario_of(the_chain))

    assert _figure(run, "goodput@spike") >= 0.93
    assert _figure(run, "success.innocent@spike") >= 0.98
    assert _figure(run, "trips") == 0
    assert _figure(run, "success@before") == 1
    assert _figure(run, "recovery_s@after") <= 5


def test_it_cascades_with_plain_503s(the_chain):
    """The same refusals trip the circuits above, and the innocents are locked out with everybody else."""
    run = simulate(scenario_of(the_chain), variant=Protection.PLAIN)

    assert _figure(run, "success.innocent@spike") <= 0.65
    assert _figure(run, "trips") >= 8
    assert all(edge.trips and edge.open for edge in run.edges)
    assert all(0 <= start < end <= run.seconds for edge in run.edges for start, end in edge.open)


@pytest.mark.parametrize("variant", [Protection.BREAKERS, Protection.NONE])
def test_threads_that_wait_for_a_slow_callee_drag_the_innocents_down(the_chain, variant):
    run = simulate(scenario_of(the_chain), variant=variant)

    assert _figure(run, "goodput@spike") <= 0.35
    assert _figure(run, "success.innocent@spike") <= 0.15


def _server(factor):
    """8 workers of 20 ms, a refusal costs 2 % of that, the kernel's clock ticks every 4 ms; 0.6 of capacity before."""
    return scenario_of(
        {
            "capacity_rps": 400.0,
            "services": {
                "saber": {
                    "workers": 8,
                    "cpu": {"kind": "exponential", "mean_s": 0.020},
                    "shed_cost_s": 0.0004,
                    "clock_s": 0.004,
                }
            },
            "streams": [
                {
                    "name": "fan",
                    "to": "saber",
                    "spike": {
                        "base_rps": 240,
                        "factor": factor / 0.6,
                        "before_s": 3,
                        "spike_s": 20,
                        "after_s": 1,
                        "rise_s": 0,
                    },
                }
            ],
        }
    )


@pytest.mark.parametrize(
    ("factor", "protected", "alone"),
    [(8.0, 0.86, 0.06), (1.5, 0.99, 0.13)],
    ids=["step8x", "step1.5x"],
)
def test_the_efficiency_of_one_server_is_that_of_the_tables(factor, protected, alone):
    """The model that the law was chosen by: 0.86 of 0.857 + chance at eight times the load, and 0.06 without."""
    scenario = _server(factor)

    assert _figure(simulate(scenario), "goodput@spike") == pytest.approx(protected, abs=0.025)
    assert _figure(simulate(scenario, variant=Protection.NONE), "goodput@spike") == pytest.approx(alone, abs=0.03)


def test_the_most_critical_get_through_at_eight_times_the_load():
    """8 % critical-plus, 62 % critical, 30 % sheddable-plus: what is served is what matters most."""
    document = dict(_server(8.0).document)
    shares = {"critical-plus": 0.08, "critical": 0.62, "sheddable-plus": 0.30}
    whole = document["streams"][0]
    document["streams"] = [
        {
            **whole,
            "name": name,
            "criticality": name,
            "spike": {**whole["spike"], "base_rps": 240 * share},
        }
        for name, share in shares.items()
    ]
    run = simulate(scenario_of(document))

    assert _figure(run, "success.critical-plus@spike") >= 0.97
    assert _figure(run, "success.critical@spike") <= 0.15
    assert _figure(run, "success.sheddable-plus@spike") <= 0.02
