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


# Small scenarios whose answers are known exactly.

_BELOW = {"saber": {"wait": 0.1, "threads": 50}, "scores": {"wait": 0.3, "threads": 50}}


def _run(services, *, total_s=4.0, stream=None, **more):
    simulation = Simulation(
        scenario_of(
            {
                "total_s": total_s,
                "deadline_s": 60.0,
                "variant": "unprotected",
                "services": services,
                "streams": [{"name": "fan", "to": "topps", "rate": 1, "arrivals": "even", **(stream or {})}],
                **more,
            }
        )
    )
    return simulation, simulation.run()


def _mean_s(simulation):
    counts = simulation.sources[0].counts
    return sum(counts.sums) / sum(fates[0] for fates in counts.fates)


@pytest.mark.parametrize(
    ("calls", "taken_s"),
    [
        ([{"to": "saber"}, {"to": "scores"}], 0.41),
        ([{"to": "saber", "together": "both"}, {"to": "scores", "together": "both"}], 0.31),
        ([{"to": "saber", "count": 3}], 0.31),
        ([{"to": "saber", "count": 3, "parallel": True}], 0.11),
    ],
    ids=["one after another", "together", "three times", "three at once"],
)
def test_calls_one_after_another_take_their_sum_and_at_once_the_longest(calls, taken_s):
    simulation, _ = _run({"topps": {"threads": 10, "wait": 0.01, "calls": calls}, **_BELOW})

    assert _mean_s(simulation) == pytest.approx(taken_s)


def test_the_network_is_crossed_both_ways_also_by_what_is_refused():
    far = {"network": {"delay": 0.02}}
    services = {"topps": {"threads": 9, "calls": [{"to": "saber", "required": False}]}, "saber": {"wait": 0.1, **far}}
    served, _ = _run(services)
    refused, _ = _run(services, events=[{"at": 0, "action": "down", "service": "saber"}])

    assert _mean_s(served) == pytest.approx(0.02 + 0.1 + 0.02)
    assert _mean_s(refused) == pytest.approx(0.02 + 0.02)


def test_a_caller_gives_up_just_then_and_the_callee_goes_on():
    """Three tries of 50 ms with 100 and 200 ms between: each is worked on to its end, long after."""
    retries = {"most": 2, "backoff_s": 0.1, "jitter": False}
    call = {"to": "saber", "timeout_s": 0.05, "required": False, "retries": retries}
    simulation, run = _run({"topps": {"threads": 9, "calls": [call]}, **_BELOW})
    (edge,) = run.edges

    assert _mean_s(simulation) == pytest.approx(3 * 0.05 + 0.1 + 0.2)
    assert (sum(edge.calls), sum(edge.bad)) == (12, 12)
    assert sum(run.services[1].answered) == 12


@pytest.mark.parametrize(("variant", "scores"), [("unprotected", 4), ("groundfault", 0)])
def test_only_who_hears_a_deadline_keeps_it(variant, scores):
    """The one in the middle is given up before it would make its next call; without the kit it cannot know."""
    services = {
        "topps": {"threads": 9, "calls": [{"to": "grouper", "timeout_s": 0.2, "required": False}]},
        "grouper": {"threads": 9, "wait": 0.3, "calls": [{"to": "scores", "timeout_s": 1.0}]},
        "scores": {"threads": 9},
    }
    _, run = _run(services, variant=variant)

    assert sum(run.services[2].arrived) == scores


def test_least_loaded_takes_turns_among_equals():
    """A sick instance that is nobody's first choice gets its share of an idle fleet, and not everything."""
    services = {"topps": {"instances": 4, "balance": "least-loaded", "wait": 0.001}}
    _, run = _run(services, total_s=20.0, events=[{"at": 0, "action": "fail", "service": "topps", "instances": 1}])

    assert sum(run.streams[0].failed) == 5
