"""Several runs against the first."""

import pytest
from made_runs import spike_run

from groundfault.lab.curves import Spike
from groundfault.lab.reports.comparing import direction, labels, lines, obstacles

GOOD, PLAIN, BARE = (spike_run(variant) for variant in ("groundfault", "plain-503", "unprotected"))


def test_the_same_curve_and_seed_can_be_compared():
    assert obstacles(GOOD, BARE).against == []
    assert obstacles(GOOD, BARE).mind == []


def test_another_seed_of_the_same_curve_is_minded_and_is_no_other_curve():
    for seed in ("a", "b", "c", "d"):
        found = obstacles(GOOD, spike_run(seed=seed))
        assert found.against == []
        assert found.mind == [f"its seed is “{seed}”, not “gronk”: its requests came at other moments"]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (spike_run(curve=Spike(base_rps=12, factor=6, before_s=10, spike_s=20, after_s=20)), "its curve is another"),
        (spike_run(curve=Spike(base_rps=12, before_s=14, spike_s=16, after_s=20)), "its curve is another"),
        (spike_run(curve=Spike(base_rps=12, before_s=10, spike_s=20, after_s=10)), "it took 40 s, not 50 s"),
        (spike_run(deadline_s=2.0), "its deadline is 2 s, not 1 s"),
        (spike_run(streams=GOOD.streams[:1], bounds=()), "its streams are fan, not fan, lobby"),
    ],
)
def test_what_cannot_be_compared(other, words):
    assert words in obstacles(GOOD, other).against[0]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (spike_run(capacity_rps=30.0), "its capacity is 30.0/s, not 20.0/s, and goodput is a share of it"),
        (spike_run(capacity_rps=None), "the capacity is known of one of the two only"),
        (spike_run(void=["busy"]), "it is void: busy"),
        (spike_run(spans={"spike": (10.0, 30.0)}, bounds=()), "its spans are others"),
    ],
)
def test_what_is_to_be_minded(other, words):
    found = obstacles(GOOD, other)
    assert found.against == []
    assert words in found.mind


def cells(runs):
    return {line.measure: line.cells for line in lines(runs)}


def test_differences_are_better_or_worse_in_words():
    found = cells([GOOD, PLAIN, BARE])
    assert found["goodput@spike"][0].change == ""
    assert [cell.kind for cell in found["goodput@spike"]] == ["", "worse", "worse"]
    assert found["goodput@spike"][2].change.startswith("worse by 9")
    assert found["trips"][1].change == "worse by 3"
    assert found["recovery_s@after"][2].change == "worse: not within the run"
    assert found["recovery_s@after"][2].value == "not within the run"
    assert found["recovery_s@after"][1].change == "about the same"
    assert cells([BARE, GOOD])["recovery_s@after"][1].change == "better: within the run"
    assert cells([BARE, GOOD])["success@spike"][1].kind == "better"


def test_to_shed_is_neither_better_nor_worse():
    cell = cells([GOOD, BARE])["shed@spike"][1]
    assert (cell.kind, cell.change.split()[1:]) == ("", ["points", "less"])
    assert direction("shed@spike") == 0


@pytest.mark.parametrize("place", [0, 1])
def test_a_void_run_is_compared_with_nothing(place):
    runs = [GOOD, spike_run("unprotected", void=["busy"])]
    if place == 0:
        runs.reverse()
    changes = {each[1].change for each in cells(runs).values()}
    assert changes == {"void, not compared"}


def test_a_figure_that_one_of_the_runs_has_not():
    other = spike_run(spans={}, bounds=("below_s<=3",))
    found = cells([spike_run(bounds=("goodput@after>=0.5",)), other])
    assert found["goodput@after"][1].value == "not to be had"
    assert found["below_s"][1].value.endswith(" s")


@pytest.mark.parametrize(
    ("runs", "stems", "expected"),
    [
        ([GOOD, BARE], ["a", "b"], ["groundfault", "unprotected"]),
        ([GOOD, spike_run(name="other")], ["a", "b"], ["gronk-spike", "other"]),
        ([GOOD, GOOD], ["before", "after"], ["before", "after"]),
        ([GOOD, GOOD], ["run", "run"], ["1: run", "2: run"]),
    ],
)
def test_what_to_call_each_run(runs, stems, expected):
    assert labels(runs, stems) == expected
