"""The suite's own honesty: every case can be failed, a hang is found out, and the page is what the cases say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from conformance import page
from conformance.case import FAIL, HANGS, NOT_APPLICABLE, PASS, Case, put
from conformance.cases import CASES
from conformance.contrary import CONTRARY, OpenDoor
from conformance.invariants import INVARIANTS
from conformance.runner import HERE, run_apart
from conformance.subject import Can
from conformance.subjects import LABELS, NAMES, load

ROOT = Path(__file__).resolve().parents[2]
STAMP = "after as many failures as it was told"  # a case that could not even begin proves nothing about itself


@pytest.mark.parametrize("case", [case for case in CASES.values() if not case.apart], ids=lambda case: case.id)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_breaker_that_is_wrong_on_purpose_fails_the_case(case, monkeypatch):
    for module in ("ways", "case", "cases.half_open", "cases.interruptions", "cases.user_code"):
        monkeypatch.setattr(f"conformance.{module}.PATIENCE_S", 0.3)
    seen = {}
    for subject in CONTRARY:
        verdict, text = seen[subject.__name__] = put(case, subject)
        if verdict == FAIL and STAMP not in text:
            return
    pytest.fail(f"nothing fails it: {seen}")


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.id)
def test_each_invariant_that_a_case_names_is_explained(case):
    assert {int(number) for number in re.findall(r"\bI(\d+)\b", case.origin)} <= set(INVARIANTS)


def test_each_invariant_that_is_explained_has_a_case():
    named = {int(number) for case in CASES.values() for number in re.findall(r"\bI(\d+)\b", case.origin)}
    assert named == set(INVARIANTS)


def test_a_library_is_not_asked_for_what_it_does_not_have():
    class Small(OpenDoor):
        can = frozenset({Can.ASYNC})

    assert put(CASES["limit-holds"], Small) == (NOT_APPLICABLE, "needs a concurrency limit")
    assert put(CASES["stampede-threads"], Small) == (NOT_APPLICABLE, "needs plain functions")


def test_one_bad_way_of_calling_is_enough_to_fail():
    class Split(OpenDoor):
        def make(self, wanted):
            guard = super().make(wanted)
            guard.call = lambda fn, *args: None
            return guard

    verdict, text = put(CASES["original-error"], Split)
    assert verdict == FAIL
    assert text.startswith("sync: ")


@pytest.mark.e2e
def test_a_case_that_hangs_is_ended_and_named(monkeypatch):
    once = CASES["trips"]
    impatient = {name: getattr(once, name) for name in Case.__slots__} | {"limit_s": 0.01}
    monkeypatch.setitem(CASES, "trips", Case(**impatient))
    assert run_apart("groundfault", "trips").verdict == HANGS


@pytest.mark.e2e
def test_the_suite_runs_as_a_program():
    run = subprocess.run(
        [sys.executable, str(HERE), "--subject", "groundfault", "--case", "trips"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.split()[:3] == ["trips", "groundfault", PASS]


# The page.


@pytest.fixture(scope="module")
def printed():
    return page.parse(page.generated())


def test_the_page_has_a_verdict_for_each_case_and_library_in_the_words_of_the_cases(printed):
    """Read back and written again, it is the same: cases, titles, origins, columns and sums are those of the code."""
    results, peers, python = printed
    assert {(one.subject, one.case) for one in results} == {(name, case) for name in NAMES for case in CASES}
    assert page.render(results, peers, python) == page.generated()


def test_the_page_says_of_groundfault_what_the_tests_say(printed):
    ours = {one.case: one.verdict for one in printed[0] if one.subject == "groundfault"}
    assert ours == dict.fromkeys(CASES, PASS)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_not_applicable_where_the_adapter_does(printed, name):
    subject = pytest.importorskip(f"conformance.subjects.{name}").SUBJECT
    assert subject is load(name)
    printed_so = {one.case for one in printed[0] if one.subject == name and one.verdict == NOT_APPLICABLE}
    assert printed_so == {case.id for case in CASES.values() if case.missing(subject)}


def test_the_page_is_about_the_pinned_versions(printed):
    pins = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert printed[1] == {label: pins[label] for name, label in LABELS.items() if name != "groundfault"}
