"""Nothing is lost and nothing is made up: each request that is due has one fate, each permit and thread comes back."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundfault.lab.runs.record import Run
from groundfault.lab.simulator.model import Protection
from groundfault.lab.simulator.scenario import scenario_of
from groundfault.lab.simulator.simulation import Simulation

_NAMES = ("topps", "grouper", "saber")

_seconds = st.one_of(
    st.floats(0.0, 0.02),
    st.builds(lambda mean: {"kind": "exponential", "mean_s": mean}, st.floats(0.001, 0.03)),
    st.builds(
        lambda slow: {"kind": "bimodal", "fast_s": 0.002, "slow_s": slow, "slow_share": 0.05}, st.floats(0.01, 1.0)
    ),
    st.just({"kind": "pareto", "shape": 1.5, "low_s": 0.001, "high_s": 1.0}),
    st.just({"kind": "quantiles", "points": [[0, 0.001], [0.5, 0.01], [1, 0.2]]}),
)
_retries = st.fixed_dictionaries(
    {"most": st.integers(0, 1), "rule": st.sampled_from(["plain", "groundfault"])},
    optional={"budget": st.floats(0, 1), "backoff_s": st.floats(0, 0.2)},
)


def _calls(to):
    return st.fixed_dictionaries(
        {"to": st.just(to), "timeout_s": st.floats(0.02, 2.0)},
        optional={
            "probability": st.floats(0, 1),
            "count": st.integers(1, 3),
            "parallel": st.booleans(),
            "required": st.booleans(),
            "retries": _retries,
            "cache": st.fixed_dictionaries({"hit": st.floats(0, 1)}, optional={"warm_fetches": st.floats(1, 50)}),
            "breaker": st.fixed_dictionaries({}, optional={"max_concurrent": st.integers(1, 5)}),
        },
    )


@st.composite
def _services(draw):
    services = {}
    for number, name in enumerate(_NAMES):
        service = draw(
            st.fixed_dictionaries(
                {"workers": st.integers(1, 3), "instances": st.integers(1, 3)},
                optional={
                    "cpu": _seconds,
                    "wait": _seconds,
                    "after_cpu": _seconds,
                    "backlog": st.integers(0, 40),
                    "clock_s": st.just(0.004),
                    "balance": st.sampled_from(["round-robin", "random", "least-loaded", "two-choices"]),
                    "network": st.fixed_dictionaries({"delay": _seconds, "loss": st.floats(0, 0.3)}),
                    "thrash": st.just({"above": 2, "slope": 0.5}),
                    "cold": st.just({"factor": 3.0, "warm_s": 1.0}),
                    "max_concurrency": st.integers(1, 10),
                },
            )
        )
        if draw(st.booleans()):
            service["loop"] = True
        else:
            service["threads"] = draw(st.integers(1, 4))
        below = _NAMES[number + 1 :]
        service["calls"] = [
            {**draw(_calls(to)), "name": f"call-{place}"} for place, to in enumerate(below) if draw(st.booleans())
        ]
        services[name] = service
    return services


_events = st.lists(
    st.fixed_dictionaries(
        {
            "at": st.floats(0.0, 3.0),
            "action": st.sampled_from(["slow", "fail", "handled", "down", "hang", "deploy", "scale", "clear-caches"]),
            "service": st.sampled_from(_NAMES),
            "for_s": st.floats(0.1, 2.0),
            "instances": st.integers(1, 4),
            "factor": st.floats(0.5, 5.0),
            "notice_s": st.floats(0.0, 1.0),
            "start_s": st.floats(0.0, 1.0),
        }
    ),
    max_size=3,
)


@given(
    services=_services(),
    events=_events,
    variant=st.sampled_from(Protection),
    rate=st.floats(10, 250),
    again=st.booleans(),
    propagates=st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_each_request_has_one_fate_and_nothing_leaks(services, events, variant, rate, again, propagates):
    stream = {"name": "fan", "to": "topps", "rate": rate, "deadline_s": 0.8}
    if again:
        stream["again"] = {"share": 0.6, "delay": 0.2, "most": 2}
    scenario = scenario_of(
        {"total_s": 4, "services": services, "streams": [stream], "events": events, "propagates": propagates}
    )
    simulation = Simulation(scenario, variant=variant)
    run = simulation.run()

    for each in run.streams:
        for second in range(run.seconds):
            fates = (each.good, each.late, each.shed, each.failed, each.unsent)
            assert sum(fate[second] for fate in fates) == each.due[second]
        assert sum(each.arrived) == sum(each.good)
    simulation.calendar.run(100_000.0)  # a server that thrashes has long to do with what its users have given up
    assert simulation.leaks() == []
    assert not run.void


@pytest.mark.parametrize("even", [True, False])
def test_as_many_requests_are_due_as_the_curve_says(even):
    scenario = scenario_of(
        {
            "services": {"saber": {"threads": 100}},
            "streams": [
                {
                    "name": "fan",
                    "to": "saber",
                    "points": [[0, 0], [10, 1000], [20, 1000], [20, 0], [25, 0]],
                    "arrivals": "even" if even else "poisson",
                }
            ],
        }
    )
    run = Simulation(scenario).run()

    assert sum(run.streams[0].due) == pytest.approx(15_000, abs=1 if even else 500)
    assert sum(run.streams[0].due[20:]) == 0
    assert run.seconds == 25


def test_a_deploy_of_a_protected_service_fails_nobody():
    """Instances that stop say so, and the caller tries another one; without protection their port is just closed."""
    document = {
        "total_s": 30,
        "services": {
            "topps": {
                "threads": 64,
                "wait": 0.002,
                "calls": [{"to": "saber", "timeout_s": 1.0, "retries": {"rule": "groundfault", "budget": 1.0}}],
            },
            "saber": {"instances": 4, "workers": 2, "threads": 4, "wait": 0.01, "cold": {"factor": 3, "warm_s": 2}},
        },
        "streams": [{"name": "fan", "to": "topps", "rate": 200}],
        "events": [{"at": 5, "action": "deploy", "service": "saber", "start_s": 2.0}],
    }
    good = {}
    for variant in (Protection.GROUNDFAULT, Protection.NONE):
        run = Simulation(scenario_of(document), variant=variant).run()
        good[variant] = sum(run.streams[0].good) / sum(run.streams[0].due)
        saber = next(each for each in run.services if each.name == "saber")
        assert min(saber.instances) == 3
        assert saber.instances[-1] == 4

    assert good[Protection.GROUNDFAULT] >= 0.999
    assert good[Protection.NONE] < 0.97


def test_one_sick_instance_of_seven_that_always_says_handled():
    """One retry elsewhere makes nearly all of it good."""

    def good(retries):
        run = Simulation(
            scenario_of(
                {
                    "total_s": 20,
                    "services": {
                        "topps": {"threads": 64, "calls": [{"to": "saber", "timeout_s": 1.0, **retries}]},
                        "saber": {"instances": 7, "threads": 8, "wait": 0.01},
                    },
                    "streams": [{"name": "fan", "to": "topps", "rate": 200}],
                    "events": [{"at": 5, "action": "handled", "service": "saber", "instances": 1}],
                }
            )
        ).run()
        return sum(run.streams[0].good[5:]) / sum(run.streams[0].due[5:])

    assert good({}) == pytest.approx(6 / 7, abs=0.03)
    assert good({"retries": {"rule": "groundfault", "budget": 0.3}}) >= 0.98


def test_a_cleared_cache_sends_everything_below_until_it_is_warm():
    run = Simulation(
        scenario_of(
            {
                "total_s": 20,
                "services": {
                    "topps": {
                        "threads": 64,
                        "calls": [{"to": "saber", "timeout_s": 1.0, "cache": {"hit": 0.9, "warm_fetches": 300}}],
                    },
                    "saber": {"threads": 64, "wait": 0.005},
                },
                "streams": [{"name": "fan", "to": "topps", "rate": 300, "arrivals": "even"}],
                "events": [{"at": 10, "action": "clear-caches", "service": "saber"}],
            }
        )
    ).run()
    calls = run.edges[0].calls

    assert sum(calls[:10]) / 10 == pytest.approx(30, rel=0.2)
    assert calls[10] >= 180
    assert calls[19] <= 60


def test_what_is_due_as_the_end_comes_is_due_before_it():
    scenario = scenario_of(
        {
            "total_s": 1,
            "services": {"saber": {}},
            "streams": [{"name": "fan", "to": "saber", "rate": 0.5, "arrivals": "even"}],
        }
    )

    assert Simulation(scenario).run().streams[0].due == [1]


def test_circuits_that_move_after_the_last_arrivals_leave_a_run_that_can_be_read(tmp_path):
    """The calls of a short run time out after its end: their trips are none of it."""
    scenario = scenario_of(
        {
            "total_s": 2,
            "deadline_s": 60,
            "variant": "breakers-only",
            "services": {
                "topps": {"threads": 500, "calls": [{"to": "saber", "timeout_s": 3.0}]},
                "saber": {"threads": 500, "wait": 100.0},
            },
            "streams": [{"name": "fan", "to": "topps", "rate": 50}],
        }
    )
    simulation = Simulation(scenario)
    run = simulation.run()
    run.write(tmp_path / "run.json")

    assert simulation.services["topps"].edges[0].counts.trips
    assert (run.edges[0].trips, run.edges[0].open) == ([], [])
    assert Run.read(tmp_path / "run.json").edges == run.edges
