"""The gate: bounds, the baseline, its rules and its JUnit XML."""

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import spike_run

from groundfault.lab.reports.judging import GateError, as_dict, judge, read_rules, tolerance_of
from groundfault.lab.reports.junit import junit
from groundfault.lab.runs.measures import Bound
from groundfault.lab.runs.record import Check, Verdict

GOOD, PLAIN = spike_run(), spike_run("plain-503")


def bounds(*texts):
    return [Bound.parse(text) for text in texts]


def test_without_bounds_it_repeats_the_verdict_of_the_run():
    assert judge(GOOD, []).verdict is Verdict.PASSED
    assert judge(PLAIN, []).verdict is Verdict.FAILED
    assert judge(PLAIN, []).checks == PLAIN.checks


def test_bounds_take_the_place_of_the_run_s_own():
    assert judge(PLAIN, bounds("goodput@spike>=0.2")).verdict is Verdict.PASSED
    assert judge(GOOD, bounds("shed@spike<=0.1")).verdict is Verdict.FAILED


def test_a_void_run_is_void_whatever_its_figures_are():
    assert judge(spike_run(void=["busy"]), bounds("goodput@spike>=0.2")).verdict is Verdict.VOID
    assert judge(spike_run(void=["busy"], bounds=()), []).verdict is Verdict.VOID


@pytest.mark.parametrize(
    ("run", "texts", "words"),
    [
        (spike_run(bounds=()), [], "nothing to judge by"),
        (spike_run(bounds=("shed",)), [], "nothing to judge by"),
        (GOOD, ["goodput@overtime>=1"], "goodput@overtime: span must be one of before, spike, after, not overtime"),
        (GOOD, ["success.bots>=1"], "success.bots: stream must be one of fan, lobby, not bots"),
    ],
)
def test_what_cannot_be_judged(run, texts, words):
    with pytest.raises(GateError) as caught:
        judge(run, bounds(*texts))
    assert words in str(caught.value)


def test_a_run_may_be_as_much_worse_than_the_baseline_as_it_is_told():
    worse = spike_run(capacity=19.0, capacity_rps=20.0)
    checks = bounds("goodput@spike>=0.1")
    assert judge(worse, checks, GOOD, 0.10).verdict is Verdict.PASSED
    assert judge(worse, checks, GOOD, 0.01).verdict is Verdict.FAILED
    assert judge(GOOD, checks, worse, 0.0).verdict is Verdict.PASSED  # to be better is no fault


def test_against_a_baseline_its_own_checks_or_the_usual_figures_count():
    titles = [check.title for check in judge(PLAIN, [], GOOD).checks]
    assert "circuits tripped, against the baseline" in titles
    bare = judge(spike_run("plain-503", bounds=()), [], spike_run(bounds=()))
    assert bare.verdict is Verdict.FAILED
    assert {"goodput@spike", "trips"} <= {check.measure for check in bare.checks}


def test_what_is_known_to_a_second_may_be_a_second_worse():
    found = judge(GOOD, bounds("recovery_s@after<=9", "below_s<=50"), GOOD, 0.0)
    limits = {check.measure: check.at_most for check in found.checks if "baseline" in check.title}
    assert limits == {"recovery_s@after": 1.0, "below_s": GOOD_BELOW_S + 1}


GOOD_BELOW_S = next(check.value for check in judge(GOOD, bounds("below_s<=99")).checks)


def test_what_is_neither_better_nor_worse_has_no_baseline():
    found = judge(GOOD, bounds("shed@spike<=0.9", "lag_p99_ms<=20"), GOOD)
    assert not [check for check in found.checks if "baseline" in check.title]


def test_a_void_baseline_voids_the_judgment():
    found = judge(GOOD, [], spike_run(void=["busy"]))
    assert (found.verdict, found.void) == (Verdict.VOID, ["the baseline is void: busy"])


def test_a_baseline_of_another_deadline_is_refused():
    with pytest.raises(GateError, match=r"cannot be compared with the baseline: its deadline is 1 s, not 2 s"):
        judge(GOOD, [], spike_run(deadline_s=2.0))


@pytest.mark.parametrize(
    ("said", "value"), [("5%", 0.05), ("5 %", 0.05), ("0.05", 0.05), (0.05, 0.05), ("0%", 0.0), (1, 1.0)]
)
def test_a_tolerance(said, value):
    assert tolerance_of(said) == pytest.approx(value)


@pytest.mark.parametrize("said", ["5", "101%", "-1%", "much", "", "nan", None, [], True, "\u0665%", "1e400"])
def test_a_tolerance_that_makes_no_sense(said):
    with pytest.raises(GateError, match=r"^tolerance must be from 0% to 100%, not "):
        tolerance_of(said)


def test_rules(tmp_path):
    path = tmp_path / "gate.toml"
    path.write_text('bounds = ["trips<=0", "goodput@spike>=0.85"]\nbaseline = "old.json"\ntolerance = "3%"\n')
    rules = read_rules(path)
    assert [str(bound) for bound in rules.bounds] == ["trips", "goodput@spike"]
    assert rules.baseline == tmp_path / "old.json"
    assert rules.tolerance == pytest.approx(0.03)
    path.write_text("")
    assert (read_rules(path).bounds, read_rules(path).baseline, read_rules(path).tolerance) == ([], None, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bounds =", "is not TOML"),
        ("bound = []", "'bound' is no key; there are bounds, baseline and tolerance"),
        ('bounds = "trips<=0"', "bounds must be a list, not str"),
        ("bounds = [7]", "bounds[0] must be a text such as 'goodput@spike>=0.85', not 7"),
        ('bounds = ["speed>=1"]', "measure must be one of goodput, "),
        ("baseline = 7", "baseline must be the name of a file, not 7"),
        ("tolerance = 5", "tolerance must be from 0% to 100%, not 5"),
    ],
)
def test_rules_that_make_no_sense_are_named_with_their_file(text, words, tmp_path):
    path = tmp_path / "gate.toml"
    path.write_text(text)
    with pytest.raises(GateError) as caught:
        read_rules(path)
    assert str(caught.value).startswith(f"{path}")
    assert words in str(caught.value)


def suite(found):
    return ET.fromstring(junit(found).encode())[0]  # noqa: S314  made by the line itself


def test_junit_of_a_failed_run():
    found = suite(judge(PLAIN, bounds("goodput@spike>=0.85", "trips<=9", "shed@spike")))
    assert {name: found.attrib[name] for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "3", "failures": "1", "errors": "0", "skipped": "1",
    }  # fmt: skip
    assert [[child.tag for child in case] for case in found] == [
        ["failure", "system-out"], ["system-out"], ["skipped", "system-out"],
    ]  # fmt: skip
    assert "must be at least 85 %" in found[0][0].attrib["message"]


def test_junit_of_a_void_run_has_errors_and_no_failures():
    found = suite(judge(spike_run("unprotected", void=["busy", "late"]), []))
    assert (found.attrib["failures"], found.attrib["errors"], found.attrib["tests"]) == ("0", "2", "7")
    assert found[0][0].attrib["message"] == "void: busy"


@settings(max_examples=40)
@given(st.text(max_size=30))
def test_junit_is_xml_whatever_a_run_is_called(text):
    odd = Check(measure=text, title=text, value=1.0, at_least=2.0, unit=text)
    run = replace(GOOD, name=text, variant=text, void=[text], checks=[odd])
    assert suite(judge(run, [])).tag == "testsuite"


def test_json():
    said = as_dict(judge(PLAIN, bounds("goodput@spike>=0.85")))
    assert said["verdict"] == "failed"
    assert said["checks"][0]["met"] is False
    assert said["checks"][0]["bound"] == "at least 85 %"
