"""Figures and verdicts in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import spike_run

from groundfault.lab.reports import wording
from groundfault.lab.runs.record import Check


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "share", "not to be had"),
        (0.0, "share", "0 %"),
        (1.0, "share", "100 %"),
        (0.85, "share", "85 %"),
        (0.9123, "share", "91.2 %"),
        (0.9975, "share", "99.75 %"),
        (0.0004, "share", "0.04 %"),
        (1234.5, "ms", "1,234 ms"),
        (2.44, "ms", "2.4 ms"),
        (4.0, "s", "4 s"),
        (4.25, "s", "4.2 s"),
        (18.44, "1/s", "18.4/s"),
        (3.0, "", "3"),
        (0.1234, "MB", "0.123 MB"),
    ],
)
def test_a_figure_with_its_unit(value, unit, text):
    assert wording.figure(value, unit) == text


def check(**fields):
    return Check(**{"measure": "goodput@spike", "title": "goodput, spike", "value": 0.5, "unit": "share", **fields})


def test_a_line_of_a_log():
    line = wording.line(check(at_least=0.85))
    assert " ".join(line.split()) == "MISSED goodput@spike 50 % at least 85 % goodput, spike"
    assert wording.line(check(at_most=0.85)).startswith("ok ")
    assert wording.line(check()).startswith("shown ")


def test_a_recovery_that_never_came_is_said_so():
    assert wording.value_of(check(measure="recovery_s@after", value=None, unit="s")) == "not within the run"


@given(st.text())
def test_no_text_of_a_run_begins_or_breaks_a_line(text):
    line = wording.line(check(measure=text, title=text, unit=f"x{text}", at_least=1.0))
    assert "\u202e" not in wording.shown(f"{text}\u202e\u200f\u061c")
    assert line.startswith("MISSED  ")
    assert len(line.splitlines()) == 1
    assert len(wording.shown(text)) <= 200


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (spike_run(bounds=()), "Not judged: the run has no bounds."),
        (spike_run(bounds=("trips<=0",)), "Passed: the one bound is met."),
        (spike_run(), "Passed: all 5 bounds are met."),
        (spike_run("unprotected", bounds=("goodput@spike>=0.85",)), "Failed: the one bound is missed."),
        (spike_run("unprotected", bounds=("goodput@spike>=0.85", "trips<=0")), "Failed: 1 of 2 bounds is missed."),
        (spike_run("plain-503"), "Failed: 3 of 5 bounds are missed."),
        (spike_run(void=["busy"]), "Void: this run says nothing about what it measured."),
    ],
)
def test_the_verdict_in_a_sentence(run, words):
    assert wording.summary(run) == words


@pytest.mark.parametrize(
    ("t", "whole", "text"),
    [(12.5, 50, "12.5 s"), (600, 600, "600 s"), (75, 3600, "0:01:15"), (86_400, 86_400, "24:00:00")],
)
def test_a_moment(t, whole, text):
    assert wording.clock(t, whole) == text
