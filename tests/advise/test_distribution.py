"""What a distribution knows, and what it admits not to know."""

from math import exp, inf, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault._histogram import BOUNDS_S, Histogram
from groundfault.advise.distribution import FINEST_S, LONGEST_S, NOTHING, Distribution

durations = st.lists(st.floats(1e-5, 90.0), min_size=1, max_size=200)


def coarse(values):
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return Distribution.of_histogram(histogram)


@pytest.fixture(params=["logs", "process"])
def made(request, fine):
    return fine if request.param == "logs" else coarse


@given(values=durations, share=st.floats(0.01, 1.0))
def test_a_quantile_lies_in_the_span_of_the_value_that_has_that_rank(fine, values, share):
    ordered = sorted(values)
    exact = ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]
    held = fine(values)
    low, high = held.span_of(share)
    assert low <= held.quantile(share) <= high
    assert low / 1.0001 <= exact <= high * 1.0001
    assert high / low == pytest.approx(1.02)


@given(values=durations, bound=st.floats(1e-5, 100.0))
def test_never_fewer_are_above_a_bound_than_really_are(fine, values, bound):
    really = sum(value > bound * 1.0001 for value in values)
    for held in (fine(values), coarse(values)):
        assert really <= held.above(bound) <= held.count


@given(values=durations, share=st.sampled_from([0.0, 0.001, 0.01, 0.1]))
def test_no_more_than_allowed_lie_above_the_bound_that_is_given_for_it(fine, values, share):
    for held in (fine(values), coarse(values)):
        assert held.share_above(held.bound_for(share)) <= share


@given(st.lists(durations, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_merging_does_not_matter(parts, chance):
    whole = coarse([value for part in parts for value in part])
    made = [coarse(part) for part in parts]
    chance.shuffle(made)
    merged = NOTHING.merged(*made)
    assert merged == whole
    assert merged.sum_s == pytest.approx(whole.sum_s)


def test_means_are_exact_where_the_sum_was_counted_and_near_where_it_was_not(fine):
    values = [0.1, 0.2, 0.6]
    assert coarse(values).mean_s == pytest.approx(0.3)
    assert fine(values).mean_s == pytest.approx(0.3, rel=0.01)
    assert NOTHING.mean_s == NOTHING.quantile(0.5) == NOTHING.share_above(1) == NOTHING.bound_for(0.1) == 0.0


def test_what_is_beyond_the_last_bound_has_no_end():
    held = coarse([0.1] * 99 + [1000.0])
    assert held.bound_for(0.0) == inf
    assert held.bound_for(0.01) == 0.1
    assert held.quantile(1.0) == BOUNDS_S[-1]
    assert held.above(10_000.0) == 1


def test_what_prometheus_extrapolates_need_not_be_whole_nor_ascend():
    held = Distribution.of_bounds({0.1: 10.4, 0.25: 10.3, 0.5: 19.6, inf: 20.2})
    assert held.spans == ((0.0, 0.1, 10), (0.25, 0.5, 10))


@pytest.mark.parametrize("value", [0.0, 1e-9, FINEST_S, LONGEST_S, 1e12])
def test_any_duration_finds_a_span(read, line, value):
    (seen,) = read([line(duration_s=value)]).commands
    assert seen.successes.count == 1
    assert FINEST_S / 1.03 <= seen.successes.quantile(1.0) <= LONGEST_S * 1.03


def test_the_density_holds_every_value(made):
    held = made([0.001 * 1.3**at for at in range(40)])
    assert sum(held.density(log(1.5)).values()) == pytest.approx(40)
    assert all(exp(cell * log(1.5)) < 100 for cell in held.density(log(1.5)))
