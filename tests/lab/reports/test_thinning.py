"""Few values from many: nothing is lost or made up on the way."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import spike_run

from groundfault.lab.reports.thinning import Flag, Grid, added, flags
from groundfault.lab.runs.record import Mark


@pytest.mark.parametrize(
    ("seconds", "most", "step"),
    [(5, 600, 1), (600, 600, 1), (601, 600, 2), (86_400, 600, 180), (86_400, 60, 1800), (604_800, 60, 14_400)],
)
def test_steps_are_such_as_people_count_time_in(seconds, most, step):
    grid = Grid.of(0, seconds, most)
    assert grid.step == step
    assert len(grid.starts) <= most


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=300), st.integers(5, 60))
def test_means_and_shares_keep_the_total(values, most):
    grid = Grid.of(0, len(values), most)
    lengths = [min(start + grid.step, grid.end) - start for start in grid.starts]
    total = sum(rate * length for rate, length in zip(grid.rates(values), lengths, strict=True))
    assert total == pytest.approx(sum(values))
    assert len(grid.rates(values)) == len(grid.middles) == len(grid.worst(values)) <= most
    assert max(grid.worst(values)) == max(values)


def test_a_window_amid_a_run():
    grid = Grid.of(2, 6, 100)
    assert grid.rates([9, 9, 1, 2, 3, 4, 9]) == [1, 2, 3, 4]
    assert grid.middles == [2.5, 3.5, 4.5, 5.5]


def test_a_share_of_nothing_is_none():
    grid = Grid(0, 4, 2)
    assert grid.shares([0, 0, 1, 2], [0, 0, 2, 4]) == [None, 0.5]
    assert grid.worst([None, None, 1.0, None]) == [None, 1.0]


def test_percentiles_of_a_step_are_of_all_requests_in_it():
    run = spike_run()
    found = Grid(0, 50, 10).percentiles_ms(run.streams[:1], 0.99)
    assert found[0] == pytest.approx(run.streams[0].histogram(0, 10).quantile(0.99) * 1000)
    by_second = Grid(0, 50, 1).percentiles_ms(run.streams[:1], 0.5)
    known = [(one, other) for one, other in zip(by_second, run.streams[0].p50_ms, strict=True) if one is not None]
    assert len(known) > 40
    assert all(one == pytest.approx(other, abs=0.01) for one, other in known)


def test_percentiles_without_histograms_are_the_worst_of_each_step():
    stream = spike_run().streams[0]
    bare = type(stream)(**{**{name: getattr(stream, name) for name in stream.__slots__}, "latencies": {}})
    assert Grid(0, 50, 50).percentiles_ms([bare], 0.99) == [max(v for v in stream.p99_ms if v is not None)]


def test_added_streams():
    run = spike_run()
    assert sum(added(run.streams, "due", 50)) == sum(run.streams[0].due) + sum(run.streams[1].due)
    assert added([], "due", 3) == [0, 0, 0]


def test_marks_too_near_to_be_told_apart_share_a_flag():
    marks = [Mark(t=t, text="") for t in (10, 11, 12, 50, 200)]
    assert flags(marks, 0, 100, 20) == [Flag(10, "1-3"), Flag(50, "4")]
    assert flags([], 0, 100, 20) == []


@given(st.lists(st.floats(0, 100), max_size=60))
def test_flags_never_stand_too_near_to_each_other(moments):
    found = flags([Mark(t=t, text="") for t in moments], 0, 100, 20)
    assert all(later.t - one.t >= 5 for one, later in pairwise(found))
