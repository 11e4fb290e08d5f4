"""The rate curve and the arrivals drawn from it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault.lab.curves import Points, Spike, arrivals

durations = st.floats(0.5, 60)
curves = st.builds(
    Spike,
    base_rps=st.floats(0.1, 50),
    factor=st.floats(1, 20),
    before_s=durations,
    spike_s=durations,
    after_s=durations,
    rise_s=st.floats(0, 0.5),
)

TEN = Spike(base_rps=10, factor=8, before_s=10, spike_s=20, after_s=20, rise_s=1)


@pytest.mark.parametrize(
    ("t", "rate"),
    [
        (-0.1, 0),
        (0, 10),
        (9.99, 10),
        (10, 10),
        (10.5, 45),
        (11, 80),
        (29.99, 80),
        (30, 10),
        (49.99, 10),
        (50, 0),
    ],
)
def test_the_curve_of_the_demo(t, rate):
    assert TEN.rate(t) == pytest.approx(rate)


def test_without_a_rise_the_peak_is_there_at_once():
    assert Spike(base_rps=10, before_s=10, rise_s=0).rate(10) == 80


@given(curve=curves, steps=st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_it_only_rises_until_the_spike_ends_and_only_falls_afterwards(curve, steps):
    def rates(start, end):
        return [curve.rate(start + step * (end - start) * 0.999) for step in sorted(steps)]

    rising = rates(0, curve.spike_end_s)
    assert all(a <= b * (1 + 1e-9) for a, b in pairwise(rising))
    assert set(rates(curve.spike_end_s, curve.total_s)) == {curve.base_rps}
    assert max(rising) <= curve.peak_rps * (1 + 1e-9)


@given(curve=curves, a=st.floats(0, 1), b=st.floats(0, 1))
def test_what_is_expected_is_the_integral_of_the_rate(curve, a, b):
    start, end = sorted((a * curve.total_s, b * curve.total_s))
    cells = 4000
    width = (end - start) / cells
    sum_of_cells = sum(curve.rate(start + (at + 0.5) * width) for at in range(cells)) * width
    one_cell = curve.peak_rps * width  # a jump inside a cell costs at most this much
    assert curve.expected(start, end) == pytest.approx(sum_of_cells, rel=1e-3, abs=3 * one_cell + 1e-9)


def test_what_is_expected_of_the_demo():
    assert TEN.expected(0, 50) == pytest.approx(10 * 30 + 45 + 80 * 19)


@given(curve=curves, seed=st.text(max_size=5))
def test_arrivals_are_ordered_within_the_curve_and_the_same_again(curve, seed):
    moments = list(arrivals(curve, seed=seed))
    assert moments == sorted(moments)
    assert all(0 <= moment < curve.total_s for moment in moments)
    assert moments == list(arrivals(curve, seed=seed))


@pytest.mark.parametrize(("start", "end"), [(0, 10), (10, 11), (11, 30), (30, 50)])
@pytest.mark.parametrize("scale", [1.0, 1 / 3])
def test_arrivals_follow_the_curve(start, end, scale):
    """Over twenty seeds the count in each part is within four standard deviations of its mean."""
    count = sum(
        sum(start <= moment < end for moment in arrivals(TEN, scale=scale, seed=f"{seed}")) for seed in range(20)
    )
    mean = 20 * scale * TEN.expected(start, end)
    assert abs(count - mean) <= 4 * mean**0.5


def test_another_seed_gives_other_arrivals():
    assert list(arrivals(TEN, seed="a")) != list(arrivals(TEN, seed="b"))


def test_nobody_arrives_at_scale_zero():
    assert list(arrivals(TEN, scale=0)) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_rps": 0}, "base_rps must be above 0, not 0"),
        ({"base_rps": float("nan")}, "base_rps must be above 0, not nan"),
        ({"base_rps": 1, "factor": 0.5}, "factor must be at least 1, not 0.5"),
        ({"base_rps": 1, "before_s": -1}, "before_s must be at least 0, not -1"),
        ({"base_rps": 1, "after_s": float("inf")}, "after_s must be at least 0, not inf"),
        ({"base_rps": 1, "spike_s": 1, "rise_s": 2}, "rise_s must be at most spike_s, 1, not 2"),
    ],
)
def test_a_curve_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Spike(**settings)


def test_what_a_day_with_a_point_for_each_second_expects_is_looked_up():
    """The segments before and behind are not gone through: a tenth of a second at a time, that would take hours."""
    curve = Points(tuple((float(t), float(t % 7)) for t in range(86_401)))
    slices = sum(curve.expected(86_000 + number / 10, 86_000 + (number + 1) / 10) for number in range(1000))

    assert slices == pytest.approx(curve.expected(86_000, 86_100))
    assert curve.expected(-5, 0.5) == pytest.approx(0.125)
    assert curve.expected(86_400, 90_000) == 0
