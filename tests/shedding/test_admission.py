"""The law as tables and as properties."""

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault.shedding._admission import (
    Bounds,
    Ladder,
    TokenBucket,
    bounds,
    crowded,
    loop_bounds,
    observe,
    passes,
    threshold,
)
from groundfault.shedding._routes import Route
from groundfault.vocabulary import Criticality

_LIMITS = Bounds(burst_s=0.25, target_s=0.02, clear_s=0.002, standing_s=1.0)
_PLUS, _CRITICAL, _SHEDDABLE_PLUS, _SHEDDABLE = Criticality


@pytest.mark.parametrize(
    ("deadline_s", "service_s", "expected"),
    [
        (1.0, 0.02, Bounds(0.25, 0.02, 0.002, 1.0)),
        (1.0, 0.001, Bounds(0.25, 0.005, 0.00125, 1.0)),  # the floor: the kernel's clock
        (1.0, 0.1, Bounds(0.3, 0.1, 0.002, 2.0)),  # three slow requests in a row
        (0.1, 0.001, Bounds(0.025, 0.005, 0.00125, 1.0)),
        (0.01, 0.0001, Bounds(0.0025, 0.0025, 0.000625, 1.0)),  # T never above N
    ],
)
def test_the_bounds_of_a_queue_before_workers(deadline_s, service_s, expected):
    assert bounds(deadline_s, service_s) == pytest.approx(expected)


def test_the_bounds_of_an_event_loop_do_not_follow_its_service_time():
    assert loop_bounds(1.0) == pytest.approx(Bounds(0.25, 0.02, 0.002, 1.0))
    assert loop_bounds(0.04) == pytest.approx(Bounds(0.01, 0.01, 0.002, 1.0))


@pytest.mark.parametrize(
    ("before", "now", "wait_s", "after"),
    [
        # no backlog
        (Ladder(), 10.0, 0.0, Ladder(seen=10.0)),
        (Ladder(), 10.0, 0.02, Ladder(seen=10.0)),
        (Ladder(), 10.0, 0.021, Ladder(seen=10.0, above_since=10.0)),
        (Ladder(), 10.0, 0.25, Ladder(seen=10.0, above_since=10.0)),
        (Ladder(), 10.0, 0.251, Ladder(True, 10.0, seen=10.0, above_since=10.0)),
        # waits above T that last
        (Ladder(seen=9.9, above_since=9.0), 10.0, 0.03, Ladder(seen=10.0, above_since=9.0)),
        (Ladder(seen=9.9, above_since=8.9), 10.0, 0.03, Ladder(True, 10.0, seen=10.0, above_since=8.9)),
        (Ladder(seen=9.9, above_since=8.9), 10.0, 0.02, Ladder(seen=10.0)),
        (Ladder(seen=8.9, above_since=7.0), 10.0, 0.03, Ladder(seen=10.0, above_since=10.0)),  # a lull in between
        # a backlog ends when somebody finds the queue clear, and only then
        (Ladder(True, 9.0, seen=9.9), 10.0, 0.002, Ladder(False, 9.0, 10.0, seen=10.0)),
        (Ladder(True, 9.0, seen=9.9), 10.0, 0.003, Ladder(True, 9.0, seen=10.0)),
        (Ladder(True, 9.0, seen=9.9), 10.0, 5.0, Ladder(True, 9.0, seen=10.0, above_since=10.0)),
        # one that comes back within two seconds gets no grace, and begins at less
        (Ladder(cleared=10.0, seen=9.9), 10.0, 0.02, Ladder(cleared=10.0, seen=10.0)),
        (Ladder(cleared=10.0, seen=9.9), 10.0, 0.021, Ladder(True, -inf, 10.0, 10.0, 10.0)),
        (Ladder(cleared=9.0, seen=9.9), 10.0, 0.134, Ladder(cleared=9.0, seen=10.0, above_since=10.0)),
        (Ladder(cleared=9.0, seen=9.9), 10.0, 0.136, Ladder(True, -inf, 9.0, 10.0, 10.0)),
        (Ladder(cleared=8.0, seen=9.9), 10.0, 0.249, Ladder(cleared=8.0, seen=10.0, above_since=10.0)),
        (Ladder(cleared=8.0, seen=9.9), 10.0, 0.251, Ladder(True, 10.0, 8.0, 10.0, 10.0)),
    ],
)
def test_how_a_measured_wait_moves_the_ladder(before, now, wait_s, after):
    observe(before, now, wait_s, _LIMITS)
    assert before == after


@pytest.mark.parametrize(
    ("ladder", "now", "expected"),
    [
        (Ladder(), 10.0, 0.25),
        (Ladder(True, onset=10.0), 10.0, 0.25),
        (Ladder(True, onset=10.0), 10.375, 0.125),
        (Ladder(True, onset=10.0), 10.69, 0.02),
        (Ladder(True, onset=10.0), 60.0, 0.02),
        (Ladder(True, onset=-inf), 10.0, 0.02),
    ],
)
def test_the_threshold_falls_from_n_to_t_within_a_second(ladder, now, expected):
    assert threshold(ladder, now, _LIMITS) == pytest.approx(expected)


_STANDING = Ladder(True, onset=-inf)


@pytest.mark.parametrize(
    ("criticality", "u", "limit_s"),
    [
        (_PLUS, 0.0, 0.08),
        (_PLUS, 0.99, 0.08),
        (_CRITICAL, 0.0, 0.03),
        (_CRITICAL, 0.5, 0.018),
        (_CRITICAL, 1.0, 0.006),
        (_SHEDDABLE_PLUS, 0.0, 0.006),
        (_SHEDDABLE_PLUS, 0.5, 0.004),
        (_SHEDDABLE, 0.0, 0.002),
        (_SHEDDABLE, 0.9, 0.002),
    ],
)
def test_the_ladder_in_a_backlog_that_stands(criticality, u, limit_s):
    assert passes(_STANDING, 10.0, limit_s - 1e-9, _LIMITS, criticality=criticality, u=u)
    assert not passes(_STANDING, 10.0, limit_s + 1e-6, _LIMITS, criticality=criticality, u=u)


@pytest.mark.parametrize(("cost", "times"), [(0.1, 1.0), (4.0, 1.0), (5.0, 0.8), (8.0, 0.5), (400.0, 0.01)])
def test_what_costs_several_times_the_average_stands_lower_on_the_ladder(cost, times):
    slow = {"u": 0.0, "cost": cost}
    limit_s = max(0.03 * times, _LIMITS.clear_s)
    assert passes(_STANDING, 10.0, limit_s - 1e-9, _LIMITS, criticality=_CRITICAL, **slow)
    assert not passes(_STANDING, 10.0, limit_s + 1e-6, _LIMITS, criticality=_CRITICAL, **slow)
    assert passes(_STANDING, 10.0, 0.08 - 1e-9, _LIMITS, criticality=_PLUS, **slow)
    assert passes(Ladder(), 10.0, 0.25, _LIMITS, criticality=_SHEDDABLE, **slow)


def test_no_factor_lifts_the_limit_above_n():
    young = Ladder(True, onset=10.0)
    assert passes(young, 10.0, 0.25, _LIMITS, criticality=_PLUS, u=0.0)
    assert not passes(young, 10.0, 0.2501, _LIMITS, criticality=_PLUS, u=0.0)


@pytest.mark.parametrize("criticality", Criticality)
def test_without_a_backlog_everybody_may_wait_alike(criticality):
    assert passes(Ladder(), 10.0, 0.25, _LIMITS, criticality=criticality, u=0.99)
    assert not passes(Ladder(), 10.0, 0.2501, _LIMITS, criticality=criticality, u=0.0)


_waits = st.floats(0, 2)
_units = st.floats(0, 1, exclude_max=True)
_ladders = st.builds(
    Ladder,
    backlog=st.booleans(),
    onset=st.sampled_from([-inf, 9.0, 9.9]),
    cleared=st.sampled_from([-inf, 5.0, 8.5, 9.9]),
    above_since=st.sampled_from([inf, 8.0, 9.5]),
    seen=st.sampled_from([-inf, 5.0, 9.99]),
)


def _fate(ladder, wait_s, criticality, u):
    moved = replace(ladder)
    observe(moved, 10.0, wait_s, _LIMITS)
    return passes(moved, 10.0, wait_s, _LIMITS, criticality=criticality, u=u)


@given(_ladders, _waits, _waits, st.sampled_from(Criticality), _units)
def test_who_has_waited_less_is_never_worse_off(ladder, one, other, criticality, u):
    less, more = sorted((one, other))
    assert _fate(ladder, less, criticality, u) >= _fate(ladder, more, criticality, u)


@given(_ladders, _waits, st.sampled_from(Criticality), _units, _units)
def test_a_lower_fraction_is_never_worse_off(ladder, wait_s, criticality, one, other):
    low, high = sorted((one, other))
    assert _fate(ladder, wait_s, criticality, low) >= _fate(ladder, wait_s, criticality, high)


@given(_ladders, _waits, _units, _units)
def test_the_more_critical_is_never_worse_off(ladder, wait_s, u, other):
    fates = [_fate(ladder, wait_s, criticality, u) for criticality in Criticality]
    assert fates == sorted(fates, reverse=True)
    assert _fate(ladder, wait_s, _PLUS, u) >= _fate(ladder, wait_s, _CRITICAL, other)
    assert _fate(ladder, wait_s, _CRITICAL, u) >= _fate(ladder, wait_s, _SHEDDABLE_PLUS, other)


@given(_ladders, st.floats(0, 0.002), st.sampled_from(Criticality), _units)
def test_who_finds_the_queue_clear_is_admitted(ladder, wait_s, criticality, u):
    assert _fate(ladder, wait_s, criticality, u)


@given(st.lists(st.tuples(st.floats(0, 3), _waits), max_size=60))
def test_no_history_of_short_waits_refuses_anybody(steps):
    """Waits that never exceed T are no queue, whatever the times between them."""
    ladder, now = Ladder(), 0.0
    for gone, wait_s in steps:
        now += gone
        short = min(wait_s, _LIMITS.target_s)
        observe(ladder, now, short, _LIMITS)
        assert passes(ladder, now, short, _LIMITS, criticality=_SHEDDABLE, u=0.99)


def _route(*, service_s=0.5, natural_s=0.1, opened=20, rate=40, now=10.0):
    """Build a route of these numbers; the rate is a multiple of 8."""
    route = Route("r", 0.0)
    route.complete(0.0, natural_s)
    route.service_s = service_s
    route.open = opened
    for bucket in (2, 1):
        for _ in range(rate // 8):
            route.rate.count(now - bucket / 8)
    route.done_at = now - 0.1
    return route


def _crowded(route, whole=None, *, wait_s=0.0, criticality=_CRITICAL, u=0.0, own_s=None, now=10.0):
    whole = whole or _route(opened=route.open, rate=40)
    return crowded(now, route, whole, wait_s, criticality=criticality, u=u, deadline_s=1.0, own_s=own_s)


@pytest.mark.parametrize(
    ("route", "late"),
    [
        (_route(opened=22, rate=40), False),  # 23 / 40 = 0.575
        (_route(opened=23, rate=40), False),  # exactly 0.6
        (_route(opened=24, rate=40), True),
        (_route(opened=8, rate=8), False),  # too few to judge
        (_route(opened=9, rate=8), True),
        (_route(opened=500, rate=0), False),  # nothing has finished lately: a load that has just risen
        (_route(opened=500, rate=8, service_s=0.15), False),  # takes as long as is natural
        (_route(opened=500, rate=8, service_s=0.151), True),
        (_route(opened=500, rate=8, natural_s=1.1, service_s=9.0), False),  # nobody waits one second for that
    ],
)
def test_a_route_with_many_open_is_judged_by_itself(route, late):
    assert _crowded(route) is late


@pytest.mark.parametrize(
    ("criticality", "u", "share"),
    [
        (_PLUS, 0.9, 0.8),
        (_CRITICAL, 0.0, 0.6),
        (_CRITICAL, 0.5, 0.55),
        (_SHEDDABLE_PLUS, 0.0, 0.4),
        (_SHEDDABLE_PLUS, 0.5, 0.35),
        (_SHEDDABLE, 0.9, 0.3),
    ],
)
@pytest.mark.parametrize("own_s", [None, 0.5, 2.0])
def test_the_share_of_the_deadline_that_a_forecast_may_take(criticality, u, share, own_s):
    allowed = share * (own_s or 1.0)
    forecast = 31 / 400
    route = _route(opened=30, rate=400)
    fits = {"criticality": criticality, "u": u, "own_s": own_s}
    assert not _crowded(route, wait_s=allowed - forecast - 1e-6, **fits)
    assert _crowded(route, wait_s=allowed - forecast + 1e-6, **fits)


def _standing_crowd(since_s, *, completions=None, before=400, refused=400, now=10.0, **numbers):
    """Build a route whose crowd has stood for so long; ``completions`` a second were those after its onset."""
    route = _route(**{"opened": 30, "rate": 400, "now": now} | numbers)
    route.crowd.onset = now - since_s
    route.crowd.queueing = now - 0.01
    route.crowd.before = before
    for bucket in (2, 1):
        for _ in range(refused // 8):
            route.crowd.refused.count(now - bucket / 8)
    route.crowd.rate = route.rate.mean_per_s(now) if completions is None else completions
    return route


def _longest_forecast(route, *, now=10.0, **who):
    """Return how late an answer of this route may be forecast, to a thousandth of a second."""
    own = (route.open + 1) / route.rate.per_s(now)
    crowd = {name: getattr(route.crowd, name) for name in route.crowd.__slots__}
    longest = 0.0
    for step in range(1001):
        for name, value in crowd.items():  # as it was before the last step asked
            setattr(route.crowd, name, value)
        if not _crowded(route, wait_s=step / 1000 - own, now=now, **who):
            longest = step / 1000
    return longest


@pytest.mark.parametrize(
    ("since_s", "longest_s"), [(0.0, 0.6), (0.25, 0.45), (0.4, 0.36), (0.5, 0.3), (1.0, 0.3), (5.0, 0.3), (600.0, 0.3)]
)
def test_a_crowd_that_stands_is_tightened_to_a_few_natural_times(since_s, longest_s):
    """From six tenths of the deadline to three natural times of a tenth of a second."""
    assert _longest_forecast(_standing_crowd(since_s)) == pytest.approx(longest_s, abs=0.0015)


@pytest.mark.parametrize(
    ("criticality", "u", "times"),
    [
        (_PLUS, 0.5, 4.0),
        (_CRITICAL, 0.0, 3.0),
        (_CRITICAL, 0.99, 2.5),
        (_SHEDDABLE_PLUS, 0.0, 2.0),
        (_SHEDDABLE, 0.5, 1.5),
    ],
)
def test_the_classes_of_a_crowd_that_stands(criticality, u, times):
    route = _standing_crowd(5.0)
    assert _longest_forecast(route, criticality=criticality, u=u) == pytest.approx(0.1 * times, abs=0.01)


@pytest.mark.parametrize(("refused", "longest_s"), [(96, 0.6), (104, 0.3)])
def test_a_crowd_of_which_few_are_refused_is_left_its_share_of_the_deadline(refused, longest_s):
    """A quarter of the 400 that are answered. In the first second of a crowd nobody asks."""
    assert _longest_forecast(_standing_crowd(1.1, refused=refused)) == pytest.approx(longest_s, abs=0.0015)
    assert _longest_forecast(_standing_crowd(0.9, refused=0)) == pytest.approx(0.3, abs=0.0015)


def test_a_small_pool_keeps_eight_open_requests_and_its_classes_apart():
    """Three times 50 ms would be six of them at 40 a second: two would wait, and by chance none."""
    small = {"natural_s": 0.05, "rate": 40, "opened": 3, "before": 40}
    assert _longest_forecast(_standing_crowd(5.0, **small)) == pytest.approx(8 / 40, abs=0.0015)
    assert _longest_forecast(_standing_crowd(5.0, **small), criticality=_SHEDDABLE) == pytest.approx(4 / 40, abs=0.0015)


def test_what_is_slow_without_a_queue_is_left_alone_for_half_a_minute():
    """Refusing has cost completions, so it was no queue that was refused."""
    route = _standing_crowd(2.1, completions=400)
    assert not _crowded(route, wait_s=0.5)
    assert route.crowd.spared == 40.0
    route.note_refusal(10.4)  # by its share of the deadline, which holds as ever
    assert not _crowded(route, wait_s=0.5, now=10.5)
    assert _crowded(route, wait_s=0.53, now=10.5)


@pytest.mark.parametrize(
    ("since_s", "completions", "spared"),
    [(2.1, 110, False), (2.1, 400, True), (1.9, 400, False), (2.1, 140, False), (2.1, 170, True)],
)
def test_a_fall_of_completions_must_be_more_than_chance(since_s, completions, spared):
    """The route completes 114 a second; 140 less 15 % and twice the deviation of chance is 95."""
    route = _standing_crowd(since_s, completions=completions)
    _crowded(route)
    assert (route.crowd.spared > 0) is spared


def test_a_pool_that_has_become_slower_is_given_as_much_more_time():
    """A quarter of the completions of before: each holds its place four times as long."""
    assert _longest_forecast(_standing_crowd(5.0, before=800)) == pytest.approx(0.6, abs=0.0015)
    assert _longest_forecast(_standing_crowd(5.0, before=500)) == pytest.approx(0.375, abs=0.0015)


def test_a_crowd_that_has_gone_is_forgotten_after_two_seconds():
    route = _standing_crowd(5.0)
    route.crowd.queueing = 7.9
    assert _longest_forecast(route) == pytest.approx(0.6, abs=0.0015)
    few = _standing_crowd(5.0, opened=8)
    few.crowd.queueing = 7.9
    assert not _crowded(few, wait_s=0.9)


def test_a_route_is_stuck_when_nothing_finishes_for_a_deadline():
    route = _route(opened=9, rate=0)
    route.done_at = 8.9
    assert _crowded(route)
    route.done_at = 9.0
    assert not _crowded(route)
    route.done_at, route.open = 5.0, 8
    assert not _crowded(route)


def test_a_route_of_which_nothing_has_ever_finished_is_not_judged():
    route = Route("new", 0.0)
    for _ in range(500):
        route.enter(0.0)
    assert not _crowded(route, now=100.0)


def test_a_route_with_few_open_is_judged_by_its_own_time_as_well():
    """All together are too late; only who is slow itself is refused."""
    whole = _route(opened=100, rate=40)
    assert not _crowded(_route(opened=2, service_s=0.02, natural_s=0.01), whole)
    assert not _crowded(_route(opened=2, service_s=0.6), whole)
    assert _crowded(_route(opened=2, service_s=0.61), whole)
    assert not _crowded(_route(opened=2, service_s=0.61, natural_s=0.5), whole)
    assert not _crowded(_route(opened=2, service_s=0.61), _route(opened=20, rate=40))
    assert not _crowded(_route(opened=2, service_s=0.61), _route(opened=8, rate=8))


def test_a_bucket_of_tokens_holds_a_second_and_refills():
    bucket = TokenBucket()
    assert [bucket.take(10.0, 3) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(10.34, 3) for _ in range(2)] == [True, False]
    assert [bucket.take(99.0, 3) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(200.0, 0)


def test_a_bucket_of_less_than_one_a_second_still_gives_one():
    bucket = TokenBucket()
    assert [bucket.take(now, 0.5) for now in (0.0, 1.0, 2.0, 3.0, 4.0)] == [True, False, True, False, True]


def test_a_bucket_ignores_a_clock_that_steps_back():
    bucket = TokenBucket()
    assert bucket.take(10.0, 1)
    assert not bucket.take(5.0, 1)
