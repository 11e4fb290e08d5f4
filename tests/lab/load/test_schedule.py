"""Who sends what, when."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundfault.lab.curves import Points, Spike, arrivals
from groundfault.lab.load.scenario import Lane
from groundfault.lab.load.schedule import drawn, expected, schedule

CURVE = Spike(base_rps=20, factor=3, before_s=1, spike_s=1, after_s=1)
LANES = (Lane("fan", "/{n}"), Lane("innocent", "/lobby", share=1 / 3), Lane("nobody", "/", share=0))


@settings(max_examples=15)
@given(drivers=st.integers(1, 9), seed=st.text(max_size=8), scale=st.floats(0.1, 3))
def test_the_shares_of_all_drivers_are_together_exactly_what_one_would_send(drivers, seed, scale):
    lanes = (*LANES, Lane("query", "/all", curve=Points(((0, 5), (2, 5)))))
    alone = list(schedule(lanes, CURVE, seed=seed, time=scale))
    shares = [
        list(schedule(lanes, CURVE, seed=seed, driver=driver, drivers=drivers, time=scale)) for driver in range(drivers)
    ]
    assert sorted(due for share in shares for due in share) == alone
    assert all(one.t <= other.t for share in shares for one, other in pairwise(share))
    for lane in range(len(lanes)):
        counts = [sum(due.lane == lane for due in share) for share in shares]
        assert max(counts) - min(counts) <= 1


def test_each_lane_has_arrivals_of_its_own_at_its_share():
    due = list(schedule(LANES, CURVE, seed="s"))
    assert [each.t for each in due if each.lane == 0] == list(arrivals(CURVE, seed="s/fan"))
    assert [each.t for each in due if each.lane == 1] == list(arrivals(CURVE, scale=1 / 3, seed="s/innocent"))
    assert not [each for each in due if each.lane == 2]
    assert [each.number for each in due if each.lane == 0] == list(range(sum(each.lane == 0 for each in due)))


def test_another_seed_gives_other_arrivals():
    first, second = (list(schedule(LANES, CURVE, seed=seed)) for seed in "ab")
    assert first != second


def test_how_many_are_expected_of_all_lanes():
    lanes = (*LANES, Lane("query", "/all", curve=Points(((0, 5), (2, 5)))))
    assert expected(LANES, CURVE) == pytest.approx(CURVE.expected(0, 3) * 4 / 3)
    assert expected(lanes, CURVE, time=0.5) == pytest.approx(CURVE.expected(0, 3) * 4 / 3 + 5)


def test_what_is_drawn_for_an_arrival_is_spread_evenly_and_known_without_those_before_it():
    values = [drawn(42, number) for number in range(10_000)]
    assert all(0 <= value < 1 for value in values)
    tenths = Counter(int(value * 10) for value in values)
    assert all(850 < tenths[tenth] < 1150 for tenth in range(10))
    assert drawn(42, 9_999) == values[-1]
    assert drawn(43, 0) != values[0]
