import pytest

from groundfault.breaker._bulkhead import Bulkhead, high_mark


@pytest.mark.parametrize(
    ("limit", "mark"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (6, 5), (10, 8), (11, 9), (100, 80), (105, 84)]
)
def test_high_is_four_fifths_rounded_up(limit, mark):
    assert high_mark(limit) == mark


@pytest.mark.parametrize(
    ("limit", "steps"),
    [
        # (calls in flight, +1 for one that wants in or -1 for one that left, news)
        (10, [(7, 1, None), (8, 1, "high"), (9, 1, None), (10, 1, None), (11, 1, "full"), (11, 1, None)]),
        (10, [(8, 1, "high"), (7, -1, None), (6, -1, None), (5, -1, "normal"), (4, -1, None)]),
        (10, [(11, 1, "full"), (8, -1, None), (9, 1, None), (5, -1, "normal")]),
        (5, [(4, 1, "high"), (3, -1, None), (2, -1, "normal")]),
        (1, [(1, 1, None), (0, -1, None), (2, 1, "full"), (1, -1, None), (0, -1, "normal")]),
    ],
)
def test_each_level_is_reported_once(limit, steps):
    bulkhead = Bulkhead()
    for in_flight, way, news in steps:
        said = bulkhead.entered(in_flight, limit, 0.0) if way > 0 else bulkhead.left(in_flight, limit)
        assert said == news


def test_a_load_that_hovers_is_not_reported_over_and_over():
    """Two at a time, now one and now two of them."""
    bulkhead, news = Bulkhead(), []
    for step in range(600):
        now = step / 10
        news += [(now, bulkhead.entered(2, 2, now)), (now, bulkhead.left(1, 2))]
    said = [(now, level) for now, level in news if level]
    assert said == [(now, level) for now in (0.0, 10.0, 20.0, 30.0, 40.0, 50.0) for level in ("high", "normal")]


@pytest.mark.parametrize("limit", [None, 100])
def test_a_limit_that_is_raised_or_taken_away_is_normal_again(limit):
    bulkhead = Bulkhead()
    bulkhead.entered(6, 5, 0.0)
    assert bulkhead.left(5, limit) == "normal"
