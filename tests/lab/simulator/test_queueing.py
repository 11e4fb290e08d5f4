"""What queueing theory says must come out, where it says anything."""

from math import factorial

import pytest

from groundfault.lab.simulator.scenario import scenario_of
from groundfault.lab.simulator.simulation import Simulation

_SERVICE_S = 0.01


def _simulated(work, *, workers=1, load=0.7, total_s=1200.0):
    """Return a simulation that has run, and the mean time in it, in seconds."""
    scenario = scenario_of(
        {
            "total_s": total_s,
            "deadline_s": 60.0,
            "variant": "unprotected",
            "services": {"saber": {"workers": workers, "cpu": work, "backlog": 100_000}},
            "streams": [{"name": "fan", "to": "saber", "rate": load * workers / _SERVICE_S}],
        }
    )
    simulation = Simulation(scenario, seed="3")
    simulation.run()
    counts = simulation.sources[0].counts
    return simulation, sum(counts.sums) / sum(counts.due)


def _erlang_c(workers, load):
    """Return the probability to wait, of M/M/c."""
    offered = workers * load
    last = offered**workers / factorial(workers) / (1 - load)
    return last / (sum(offered**n / factorial(n) for n in range(workers)) + last)


def test_the_mean_time_in_mm1():
    _, mean_s = _simulated({"kind": "exponential", "mean_s": _SERVICE_S})

    assert mean_s == pytest.approx(_SERVICE_S / (1 - 0.7), rel=0.06)


def test_the_mean_wait_in_md1():
    _, mean_s = _simulated(_SERVICE_S)

    assert mean_s - _SERVICE_S == pytest.approx(_SERVICE_S * 0.7 / (2 * (1 - 0.7)), rel=0.06)


def test_the_mean_wait_in_mmc():
    _, mean_s = _simulated({"kind": "exponential", "mean_s": _SERVICE_S}, workers=4, load=0.8, total_s=400.0)
    wait_s = _erlang_c(4, 0.8) * _SERVICE_S / (4 * (1 - 0.8))

    assert mean_s - _SERVICE_S == pytest.approx(wait_s, rel=0.1)


def test_the_mean_wait_in_mdc():
    """By Cosmetatos' approximation, which is good to a few percent."""
    workers, load = 4, 0.8
    _, mean_s = _simulated(_SERVICE_S, workers=workers, load=load, total_s=400.0)
    random_s = _erlang_c(workers, load) * _SERVICE_S / (workers * (1 - load))
    correction = 1 + (1 - load) * (workers - 1) * ((4 + 5 * workers) ** 0.5 - 2) / (16 * load * workers)

    assert mean_s - _SERVICE_S == pytest.approx(random_s / 2 * correction, rel=0.1)


def test_the_share_of_workers_that_is_busy_is_the_load():
    simulation, _ = _simulated(_SERVICE_S, workers=4, load=0.6, total_s=200.0)

    busy = simulation.services["saber"].counts.busy
    assert sum(busy) / len(busy) == pytest.approx(0.6, rel=0.03)


def test_threads_are_held_while_their_calls_are_out():
    """Little's law: as many are held on average as come in a second, times how long each stays."""
    scenario = scenario_of(
        {
            "total_s": 200.0,
            "deadline_s": 60.0,
            "variant": "unprotected",
            "services": {
                "topps": {"threads": 50, "wait": 0.01, "calls": [{"to": "saber", "timeout_s": 30.0}]},
                "saber": {"threads": 100, "wait": 0.09},
            },
            "streams": [{"name": "fan", "to": "topps", "rate": 100}],
        }
    )
    simulation = Simulation(scenario)
    simulation.run()

    busy = simulation.services["topps"].counts.busy
    assert 50 * sum(busy) / len(busy) == pytest.approx(100 * (0.01 + 0.09), rel=0.05)
