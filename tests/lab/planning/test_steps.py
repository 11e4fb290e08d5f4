"""The plan's arithmetic: never fewer than are needed, and no more changes than are worth it."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault.lab.curves import Points
from groundfault.lab.planning.demand import Fleet, PlanError, Service
from groundfault.lab.planning.reacting import Autoscaler, reacted
from groundfault.lab.planning.steps import Level, levels_of, needs_of, planned, wanted_for

_NEEDS = st.lists(st.integers(1, 6), min_size=1, max_size=9)


def _flat(levels, slots):
    ends = [level.start for level in levels[1:]] + [slots]
    return [level.instances for level, end in zip(levels, ends, strict=True) for _ in range(level.start, end)]


def _cost(levels, slots, worth):
    return sum(_flat(levels, slots)) + worth * (len(levels) - 1)


def _cheapest(needs, worth):
    """Try every way to cut the slots into stretches."""
    inner = range(1, len(needs))
    costs = []
    for number in range(len(needs)):
        for cuts in combinations(inner, number):
            edges = [0, *cuts, len(needs)]
            heights = [max(needs[a:b]) for a, b in pairwise(edges)]
            costs.append(
                (sum(h * (b - a) for h, (a, b) in zip(heights, pairwise(edges), strict=True)) + worth * number, number)
            )
    return min(costs)


@given(needs=_NEEDS, worth=st.integers(0, 12))
def test_levels_are_the_cheapest_with_the_fewest_changes_and_never_below_the_needs(needs, worth):
    levels = levels_of(needs, worth)

    assert levels[0].start == 0
    assert all(up >= need for up, need in zip(_flat(levels, len(needs)), needs, strict=True))
    assert all(before.instances != after.instances for before, after in pairwise(levels))
    assert (_cost(levels, len(needs), worth), len(levels) - 1) == _cheapest(needs, worth)


@given(needs=st.lists(st.integers(1, 50), min_size=2, max_size=60), worth=st.integers(0, 200))
def test_no_change_can_be_left_out_without_costing_more(needs, worth):
    levels = levels_of(needs, worth)
    cost = _cost(levels, len(needs), worth)

    for at in range(1, len(levels)):
        merged = Level(levels[at - 1].start, max(levels[at - 1].instances, levels[at].instances))
        assert _cost([*levels[: at - 1], merged, *levels[at + 1 :]], len(needs), worth) > cost


_CURVES = st.lists(st.tuples(st.integers(1, 4000), st.integers(0, 500)), min_size=2, max_size=12).map(
    lambda steps: Points(
        tuple((float(sum(gap for gap, _ in steps[:at])), float(rps)) for at, (_, rps) in enumerate(steps))
    )
)


@given(
    curve=_CURVES,
    headroom=st.sampled_from([0.0, 0.3, 0.5]),
    share=st.sampled_from([0.1, 1.0, 3.0]),
    ahead_s=st.sampled_from([0.0, 400.0]),
    keep_s=st.sampled_from([0.0, 700.0]),
)
def test_at_every_moment_there_are_as_many_as_are_needed_then_and_a_little_later_and_earlier(
    curve, headroom, share, ahead_s, keep_s
):
    service = Service(name="saber", rps_per_instance=25.0, share=share, headroom=headroom)
    fleet = Fleet(services=(service,), ahead_s=ahead_s, keep_s=keep_s, step_s=300.0)
    plan = planned(curve, service, fleet)

    for t, _ in curve.points:
        need = wanted_for(service, curve.rate(t))
        for moment in (t, t - ahead_s, t + keep_s):
            if 0 <= moment < curve.total_s:
                assert plan.at(moment) >= need
    assert plan.instance_hours * 3600 >= sum(plan.needs) * 300 - 1e-6


def _day():
    return Points(((0.0, 10.0), (3600.0, 10.0), (3601.0, 100.0), (7200.0, 100.0), (7201.0, 10.0), (14_400.0, 10.0)))


def test_more_are_ordered_a_start_and_a_warming_up_before_they_are_needed_and_fewer_are_let_go_at_once():
    service = Service(name="saber", rps_per_instance=10.0, headroom=0.5, start_s=240.0, warm_s=60.0, least=2)
    plan = planned(_day(), service, Fleet(services=(service,), ahead_s=600.0, keep_s=900.0, change_worth_h=0.0))

    assert [(each.order_at, each.ready_at, each.before, each.after) for each in plan.changes] == [
        (2700.0, 3000.0, 2, 20),
        (8400.0, 8400.0, 20, 2),
    ]


def test_a_change_that_is_not_worth_it_is_not_made():
    service = Service(name="saber", rps_per_instance=10.0)
    plan = planned(_day(), service, Fleet(services=(service,), change_worth_h=24.0))

    assert len(plan.levels) == 1
    assert plan.levels[0].instances == max(plan.needs)


def test_where_there_may_be_no_more_it_says_how_many_are_missing():
    service = Service(name="saber", rps_per_instance=10.0, headroom=0.5, most=12)
    plan = planned(_day(), service, Fleet(services=(service,)))

    assert plan.short == 8
    assert max(level.instances for level in plan.levels) == 12


def test_a_whole_number_of_instances_is_not_rounded_up_by_a_hair():
    service = Service(name="saber", rps_per_instance=0.1, headroom=0.3, least=1)
    assert wanted_for(service, 0.07) == 1
    assert wanted_for(service, 0.21) == 3


def test_a_spike_between_two_slots_counts_to_the_one_it_is_in():
    curve = Points(((0.0, 0.0), (310.0, 0.0), (311.0, 90.0), (312.0, 0.0), (900.0, 0.0)))
    service = Service(name="saber", rps_per_instance=10.0, headroom=0.0, least=1)

    assert needs_of(curve, service, 300.0) == [1, 9, 1]


def test_a_grid_too_fine_is_refused_with_the_finest():
    with pytest.raises(PlanError, match=r"step_s must be at least 1.44 for a curve of 14400 s, not 1"):
        needs_of(_day(), Service(name="saber", rps_per_instance=1.0), 1.0)


def test_a_reactive_fleet_has_more_only_a_start_later_and_grows_by_what_a_full_fleet_looks_like():
    service = Service(name="saber", rps_per_instance=10.0, headroom=0.5, start_s=240.0, warm_s=0.0, least=1)
    steps = reacted(_day(), service, Autoscaler(calm_s=1e9), end=6000.0)

    assert steps[0] == (0.0, 2)
    assert steps[1][0] >= 3600 + 240
    assert all(after <= 2 * before for (_, before), (_, after) in pairwise(steps))
    assert steps[-1][1] >= 15


def test_a_reactive_fleet_lets_go_what_was_not_needed_for_a_while():
    service = Service(name="saber", rps_per_instance=10.0, headroom=0.5, start_s=60.0, least=1)
    steps = reacted(_day(), service, Autoscaler())

    assert steps[-1][1] < max(number for _, number in steps)
