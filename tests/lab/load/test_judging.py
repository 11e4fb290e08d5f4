"""From counts to a verdict."""

import argparse
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault.lab.curves import Spike
from groundfault.lab.load.judging import EXIT_CODES, Counted, Happened, judge
from groundfault.lab.load.options import add_options, plan
from groundfault.lab.load.scenario import Lane, Scenario
from groundfault.lab.load.telling import line, table
from groundfault.lab.runs.record import Edge, Run, Verdict
from groundfault.lab.runs.tally import Fate, Tally

URL = "http://127.0.0.1:1"
SCENARIO = Scenario(
    name="try",
    lanes=(Lane("fan", "/{n}"), Lane("lobby", "/", innocent=True)),
    curve=lambda _: Spike(base_rps=100, before_s=1, spike_s=1, after_s=1),
    spans=lambda _: {"spike": (1, 2)},
    bounds=("success.fan>=0.9",),
)


def counted(*, good=300, failed=0, unsent=0, lag_s=0.001, answered=None, broken=None, moved=0):
    """Return three seconds of fans; ``moved`` of the first are sent in the second one."""
    tally = Tally()
    for number in range(good + failed):
        due = 3.0 * number / (good + failed)
        tally.send(due, due + (1.0 if number < moved else 0.0))
        tally.settle(due, Fate.GOOD if number < good else Fate.FAILED, 0.01)
    tally.lags = type(tally.lags)()
    for _ in range(good + failed):
        tally.lags.add(lag_s)
    for _ in range(unsent):
        tally.skip(0.5)
    whole = good + failed
    return Counted({"fan": tally}, answered=whole if answered is None else answered, broken=broken or {})


def run_of(of, *words, of_scenario=SCENARIO, **seen):
    parser = argparse.ArgumentParser()
    add_options(parser, of_scenario)
    options = parser.parse_args(words)
    return judge(of_scenario, plan(of_scenario, options), options, of, Happened(url=URL, **seen))


@pytest.mark.parametrize(
    ("of", "words", "verdict", "reason"),
    [
        (counted(), [], Verdict.PASSED, None),
        (counted(good=200, failed=100), [], Verdict.FAILED, None),
        (counted(), ["--gate=p99_ms<=1"], Verdict.FAILED, None),
        (counted(), ["--gate=p99_ms"], Verdict.PASSED, None),
        (counted(lag_s=0.009), [], Verdict.PASSED, None),
        (counted(lag_s=0.030), [], Verdict.VOID, "ms late (p99), more than 10 ms"),
        (counted(lag_s=0.030), ["--max-lag-ms=50"], Verdict.PASSED, None),
        (counted(good=3000, unsent=3), [], Verdict.PASSED, None),
        (counted(good=3000, unsent=4), [], Verdict.VOID, "4 of 3004 requests were not sent, more than 0.1%"),
        (counted(moved=3), [], Verdict.PASSED, None),
        (counted(moved=4), [], Verdict.VOID, "in second 0 of the run 96 requests were sent and 100 were due"),
        (counted(good=3000, moved=10), [], Verdict.PASSED, None),
        (counted(good=3000, moved=11), [], Verdict.VOID, "in second 0 of the run 989 requests were sent"),
        (counted(good=0), [], Verdict.VOID, "no request was due"),
        (
            counted(good=0, failed=300, answered=0, broken={"connection refused": 300}),
            [],
            Verdict.VOID,
            f"nothing answered at {URL}: connection refused (300 of 300 requests)",
        ),
        (
            counted(good=0, failed=300, answered=0),
            [],
            Verdict.VOID,
            f"nothing at {URL} answered any of 300 requests in time",
        ),
        (counted(good=0, failed=300, broken={"connection refused": 299}, answered=1), [], Verdict.FAILED, None),
    ],
)
def test_the_verdict(of, words, verdict, reason):
    run = run_of(of, *words)
    assert run.verdict is verdict, run.void
    if reason is None:
        assert run.void == []
    else:
        assert any(reason in each for each in run.void), run.void


def test_what_the_conductor_saw_voids_a_run_that_would_have_passed():
    run = run_of(counted(), void=["saber ended during the run", "saber ended during the run"])
    assert run.verdict is Verdict.VOID
    assert run.void == ["saber ended during the run"]


def test_circuits_of_a_users_target_cannot_be_seen_so_the_scenarios_own_bound_is_shown_and_a_gate_is_missed():
    scenario = dataclasses.replace(SCENARIO, bounds=("success.fan>=0.9", "trips@spike<=0"))
    promised = run_of(counted(), of_scenario=scenario)
    assert [(str(each.measure), each.met) for each in promised.checks] == [("success.fan", True), ("trips@spike", None)]
    assert promised.verdict is Verdict.PASSED
    assert run_of(counted(), "--gate=trips<=0", of_scenario=scenario).verdict is Verdict.FAILED
    assert run_of(counted(), of_scenario=scenario, target="three services").verdict is Verdict.FAILED
    seen = Edge(caller="topps", callee="saber", calls=[9, 9, 9], bad=[0, 0, 0], refused=[0, 0, 0])
    assert run_of(counted(), of_scenario=scenario, target="three", edges=[seen]).verdict is Verdict.PASSED


def test_each_verdict_has_an_exit_code_of_its_own_and_two_is_for_usage():
    assert EXIT_CODES == {Verdict.PASSED: 0, Verdict.FAILED: 1, Verdict.VOID: 3}


events = st.lists(
    st.tuples(st.sampled_from(["fan", "lobby"]), st.floats(0, 2.9), st.sampled_from(list(Fate)), st.integers(0, 3)),
    max_size=60,
)


@given(events)
def test_what_several_drivers_counted_is_together_what_one_would_have_counted(seen):
    alone, drivers = Counted(), [Counted() for _ in range(4)]
    for name, due, fate, driver in seen:
        for counts in (alone, drivers[driver]):
            tally = counts.lanes.setdefault(name, Tally())
            if fate is Fate.UNSENT:
                tally.skip(due)
                continue
            tally.send(due, due + 0.25)
            tally.settle(due, fate, 0.5)
            counts.answered += 1
            counts.broken["reset"] = counts.broken.get("reset", 0) + 1
    merged = Counted()
    for counts in drivers:
        merged.merge(Counted.from_dict(json.loads(json.dumps(counts.as_dict()))))
    first, second = run_of(alone), run_of(merged)
    assert first.streams == second.streams
    assert (first.verdict, first.void, merged.answered, merged.broken, merged.sent) == (
        *(second.verdict, second.void, alone.answered, alone.broken, alone.sent),
    )


def test_the_verdict_is_one_line_that_names_everything_a_pipeline_needs():
    run = run_of(counted(good=200, failed=100), "--variant=plain-503", capacity_rps=50.0)
    said = json.loads(line(run, "run.json"))
    assert "\n" not in line(run)
    assert {name: said[name] for name in ("name", "variant", "target", "verdict", "void", "run_file")} == {
        "name": "try",
        "variant": "plain-503",
        "target": URL,
        "verdict": "failed",
        "void": [],
        "run_file": "run.json",
    }
    assert [(check["measure"], check["met"]) for check in said["checks"]] == [("success.fan", False)]
    assert said["requests"] == {"good": 200, "late": 0, "shed": 0, "failed": 100, "unsent": 0}


def test_the_table_names_what_was_missed_and_why_a_run_is_void():
    text = table(run_of(counted(good=200, failed=100), void=["saber ended during the run"]))
    assert "MISSED" in text
    assert text.splitlines()[-2:] == ["  void: saber ended during the run", "try: void"]


def test_a_run_survives_its_way_to_the_file(tmp_path):
    run = run_of(counted(), capacity_rps=50.0)
    run.write(tmp_path / "run.json")
    assert Run.read(tmp_path / "run.json") == run
