"""The scenarios that come with the simulator: that they make sense, and show what they are for."""

from dataclasses import replace

import pytest

from groundfault.lab.runs.measures import Bound, evaluate
from groundfault.lab.simulator.model import Protection
from groundfault.lab.simulator.sampling import sampled
from groundfault.lab.simulator.scenario import changed, scenario_of
from groundfault.lab.simulator.scenarios import demo_chain
from groundfault.lab.simulator.scenarios.built_in import BUILT_IN, chosen, document
from groundfault.lab.simulator.simulation import Simulation, simulate
from groundfault.lab.simulator.table import ScenarioError


def _figure(run, text):
    return evaluate(run, Bound.parse(text)).value


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_is_a_scenario_of_that_name_with_bounds_that_can_be_had(name):
    scenario = chosen(name)

    assert scenario.name == name
    assert scenario.title == BUILT_IN[name]
    assert "spike" in scenario.spans
    assert scenario.bounds


def test_the_fleet_has_more_than_seventy_services_that_are_all_asked_and_a_million_requests_a_minute():
    scenario = chosen("draftkings")
    asked = {stream.to for stream in scenario.streams} | {
        call.to for service in scenario.services.values() for call in service.calls
    }

    assert len(scenario.services) >= 70
    assert asked == set(scenario.services)
    assert sum(stream.curve.peak_rps for stream in scenario.streams) * 60 == pytest.approx(1_000_000, rel=1e-4)


def test_a_sunday_has_its_touchdowns_and_the_spike_is_the_highest_of_them():
    scenario = chosen("draftkings-sunday")
    fans = next(stream for stream in scenario.streams if stream.name == "scores")
    start, _ = scenario.spans["spike"]

    assert scenario.total_s == 13 * 3600
    assert fans.curve.rate(start + 30) == fans.curve.peak_rps


@pytest.fixture(scope="module")
def cascade():
    """Run the eightfold spike, shortened: 2 s before it, 4 s of it, 4 s after it."""
    changes = [
        f"streams[{number}].spike.{key}={value}"
        for number in (0, 1)
        for key, value in (("before_s", 2), ("spike_s", 4), ("after_s", 4))
    ]
    made = changed(document("cascade"), changes)
    return {variant: simulate(scenario_of(made), variant=variant) for variant in Protection}


def test_groundfault_keeps_goodput_and_innocents_where_plain_503s_lose_the_innocents(cascade):
    ours, plain = cascade[Protection.GROUNDFAULT], cascade[Protection.PLAIN]

    assert _figure(ours, "goodput@spike") >= 0.9
    assert _figure(ours, "success.innocent@spike") >= 0.97
    assert _figure(ours, "trips") == 0
    assert _figure(plain, "success.innocent@spike") <= 0.6
    assert _figure(plain, "trips") > 0


def test_without_a_shedder_the_spike_takes_everybody(cascade):
    for variant in (Protection.BREAKERS, Protection.NONE):
        assert _figure(cascade[variant], "goodput@spike") <= 0.7
        assert _figure(cascade[variant], "success.innocent@spike") <= 0.6


def test_what_refuses_everything_harms_nobody_else_if_it_says_so():
    made = changed(
        document("cascade-sick"), ["events[0].for_s=8", "total_s=25", "spans.spike=[10,18]", "spans.after=[18,25]"]
    )
    run = simulate(scenario_of(made))

    assert _figure(run, "success.innocent") == 1
    assert _figure(run, "success@spike") <= 0.05


def test_the_same_seed_makes_the_same_run_of_the_fleet():
    small = changed(
        sampled(document("draftkings"), 50).document,
        ["total_s=3", "spans={spike=[1,2]}", 'bounds=["goodput@spike"]'],
    )
    first, again, other = (simulate(scenario_of(small), seed=seed) for seed in ("1", "1", "2"))

    assert first.as_dict() == again.as_dict()
    assert first.as_dict() != other.as_dict()


def test_a_run_that_is_long_keeps_no_service_second_by_second():
    scenario = replace(
        chosen("demo", ["streams[0].spike.base_rps=0.01", "streams[1].spike.base_rps=0.01"]), total_s=7300.0
    )
    run = Simulation(scenario).run()

    assert run.services == []
    assert run.edges
    assert all(not edge.calls for edge in run.edges)
    assert "second by second" in run.notes[0]


def test_recorded_arrivals_are_simulated_in_the_tenths_of_seconds_they_were_sent_in():
    moments = {"fan": [0.05, 0.051, 1.31, 2.0, 2.99], "innocent": [0.5]}
    curve = demo_chain.Spike(base_rps=1, before_s=1, spike_s=1, after_s=1)
    run = simulate(demo_chain.with_arrivals(moments, costs=demo_chain.Costs(), curve=curve))

    assert run.stream("fan").due == [2, 1, 2]
    assert run.stream("innocent").due == [1, 0, 0]
    assert run.stream("fan").good == [2, 1, 2]


@pytest.mark.parametrize("word", ["nothing", "casca"])
def test_a_name_that_is_none_is_refused_with_those_there_are(word):
    with pytest.raises(
        ScenarioError, match=rf"'{word}' is no file, and no built-in scenario; those are demo, draftkings"
    ):
        chosen(word)
