"""Distributions with known answers, and what no proposal ever does."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault.advise.proposal import Wishes
from groundfault.advise.rules import propose
from groundfault.advise.timeouts import kinds_of, least_calls
from groundfault.breaker.settings import BreakerSettings


def lognormal(count, median_s, spread, seed=3):
    chance = random.Random(seed)
    return [median_s * chance.lognormvariate(0, spread) for _ in range(count)]


def timeout_of(seen, current=(), **wishes):
    return propose(seen, dict(current), Wishes(**wishes)).of("timeout_s")


# --- timeout_s --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("median_s", "spread", "value"),
    [
        (0.1, 0.0, 0.22),  # p95 is the median; 2 % of width, rounded up
        (0.1, 0.3, 0.35),  # p95 = 0.164
        (0.05, 0.4, 0.2),  # p95 = 0.0966
        (1.0, 0.3, 3.5),
    ],
)
def test_the_timeout_is_twice_the_p95_rounded_up(observe, median_s, spread, value):
    advice = timeout_of(observe(lognormal(20_000, median_s, spread)))
    assert advice.value == value
    assert "twice that" in advice.why
    assert "It cuts off" in advice.why


def test_a_long_tail_gets_a_longer_timeout_and_a_slow_call_bound_at_twice_the_p95(observe):
    proposal = propose(observe(lognormal(100_000, 0.05, 1.0)), {}, Wishes())
    timeout, slow = proposal.of("timeout_s"), proposal.of("slow_call_s")
    assert timeout.value == 1.2  # p99.9 = 0.05 * e**3.09 = 1.1
    assert "which would cut off 0.9" in timeout.why
    assert slow.value == 0.55  # p95 = 0.259
    assert proposal.cut_share <= 0.001
    BreakerSettings(timeout_s=timeout.value, slow_call_s=slow.value)


def test_two_kinds_of_calls_are_told_apart_and_the_slow_kind_is_not_cut_off(observe):
    cached, missed = lognormal(9_700, 0.002, 0.3), lognormal(300, 0.3, 0.3)
    proposal = propose(observe(cached + missed), {}, Wishes())
    assert proposal.of("timeout_s").value >= 0.5  # not 2 x 3 ms
    assert any("two kinds of calls: 97 % take about" in text and "3 % about" in text for text in proposal.cautions)


@pytest.mark.parametrize("spread", [0.1, 0.5, 1.0, 1.5])
def test_one_kind_of_calls_is_not_taken_for_two(fine, spread):
    assert kinds_of(fine(lognormal(50_000, 0.05, spread))) is None


def test_no_timeout_is_shorter_than_a_pause_of_the_process(observe):
    advice = timeout_of(observe([0.0002] * 5_000))
    assert advice.value == 0.01
    assert "any pause" in advice.why


def test_too_few_calls_make_no_proposal_and_say_how_many_are_missing(observe):
    proposal = propose(observe([0.1] * 400), {}, Wishes())
    assert proposal.of("timeout_s").value is None
    assert "400 successes are too few to know the slowest in 1,000: 600 more are needed" in proposal.of("timeout_s").why
    assert proposal.confidence == "none"
    assert proposal.changes == []
    assert timeout_of(observe([0.1] * 1_000)).value is not None
    assert least_calls(Wishes(may_cut=0.05)) == 200


def test_if_too_many_time_out_nobody_knows_the_p95(observe):
    advice = timeout_of(observe([0.1] * 9_000, timeouts=[0.5] * 1_000))
    assert advice.value is None
    assert "10 % of the calls time out" in advice.why
    assert "Give them 1 s for a while" in advice.why
    assert (advice.current, advice.read) == (0.5, True)


def test_what_timed_out_counts_as_slower_than_all_others(observe):
    """4 % at the timeout: the p95 of the successes alone would be that of the fast ones."""
    fast, slow = [0.1] * 9_200, [0.4] * 400
    assert "The p95 is 101 ms" in timeout_of(observe(fast + slow)).why
    proposal = propose(observe(fast + slow, timeouts=[0.5] * 400), {}, Wishes())
    assert proposal.of("timeout_s").value == 0.85
    assert any("4 % of the calls were given up at the timeout" in text for text in proposal.cautions)
    assert any("beyond it, where nothing has been seen" in text for text in proposal.cautions)
    assert proposal.confidence == "low"


def test_timeouts_without_a_duration_count_as_slower_than_all_others_too(observe):
    seen = observe([0.1] * 9_700 + [0.2] * 200, calls={"timeout": 400})
    assert timeout_of(seen).value == pytest.approx(0.4, abs=0.05)  # the p95 of 10,300 lies among the 0.2
    assert timeout_of(observe([0.1] * 9_900)).value == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize(
    ("current", "changes"), [(None, True), (0.2, True), (0.3, False), (0.35, False), (0.4, False), (0.5, True)]
)
def test_a_value_that_is_nearly_right_is_left_alone(observe, current, changes):
    advice = timeout_of(observe(lognormal(20_000, 0.1, 0.3)), {} if current is None else {"timeout_s": current})
    assert advice.value == 0.35
    assert advice.changes is changes


def test_calls_that_take_minutes_get_no_timeout_that_settings_do_not_allow(observe):
    assert timeout_of(observe([200.0] * 2_000)).value is None


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"failures": [0.1] * 600}, "fail. What is seen in an incident"),
        ({"calls": {"circuit-open": 700}}, "shed or never made"),
        ({"calls": {"shed": 700}}, "shed or never made"),
    ],
)
def test_data_of_an_incident_is_called_that(observe, more, words):
    proposal = propose(observe([0.1] * 9_000, **more), {}, Wishes())
    assert any(words in text for text in proposal.cautions)
    assert proposal.confidence == "low"


def test_milliseconds_taken_for_seconds_are_suspected(observe):
    proposal = propose(observe([80.0] * 2_000), {}, Wishes())
    assert any("--fields duration_s=NAME:ms" in text for text in proposal.cautions)


values = st.lists(st.floats(1e-4, 10.0), min_size=1, max_size=60)


@given(values=values, may_cut=st.sampled_from([0.001, 0.01, 0.05]))
def test_no_proposal_cuts_off_more_than_it_may(observe, values, may_cut):
    real = values * (1 + 2_000 // len(values))
    advice = timeout_of(observe(real), may_cut=may_cut)
    assert advice.value is not None
    assert sum(value > advice.value * 1.0001 for value in real) <= may_cut * len(real)


@given(values=values, factor=st.floats(1.0, 10.0))
def test_slower_calls_never_make_a_shorter_timeout(observe, values, factor):
    real = values * (1 + 2_000 // len(values))
    before, after = (timeout_of(observe([each * by for each in real])) for by in (1.0, factor))
    assert after.value >= before.value


# --- minimum_volume_per_s ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "processes", "value", "words"),
    [
        (48.0, 4, 3.0, "30 calls, which 10 s of that hold"),
        (1000.0, 1, 10.0, "100 calls, which 10 s"),
        (2.0, 1, 1.0, "10 calls, which 10 s"),
        (0.6, 1, 1.0, "10 calls, which 20 s"),
        (0.3, 1, 0.5, "5 calls, which 20 s"),
        (0.1, 1, None, "too quiet to be judged: 30 s hold 3 calls"),
    ],
)
def test_a_command_is_judged_at_its_usual_rate_and_not_at_night(observe, rate, processes, value, words):
    advice = propose(observe([0.1] * 2_000, rate=rate, processes=processes), {}, Wishes()).of("minimum_volume_per_s")
    assert advice.value == value
    assert words in advice.why
    if value is not None:  # at its usual rate, the windows hold enough to be judged
        assert rate / processes * 30 >= BreakerSettings(minimum_volume_per_s=value).minimum_volume


# --- max_concurrent ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peak", "mean_s", "processes", "value"),
    [
        (40.0, 0.1, 4, 6),  # 1 in flight
        (1.0, 0.01, 1, 5),  # hardly any
        (200.0, 0.1, 1, 60),  # 20 in flight: 57.9
        (2000.0, 0.5, 10, 240),  # 100 in flight
    ],
)
def test_the_limit_is_littles_law_with_room(observe, peak, mean_s, processes, value):
    seen = observe([mean_s] * 2_000, rate=peak / 2, peak=peak, processes=processes)
    advice = propose(seen, {}, Wishes()).of("max_concurrent")
    assert advice.value == pytest.approx(value, rel=0.05)
    assert isinstance(advice.value, int)
    assert "Little's law" in advice.why


def test_the_peak_to_expect_may_be_greater_than_the_one_seen(observe):
    seen = observe([0.1] * 2_000, rate=100.0, processes=1)
    once, thrice = (propose(seen, {}, Wishes(peak_factor=factor)).of("max_concurrent").value for factor in (1.0, 3.0))
    assert 2 * once < thrice <= 3 * once


@pytest.mark.parametrize(
    ("calls", "known", "words"),
    [
        (2_000, {}, "--over"),
        (2_000, {"rate": 10.0}, "--processes"),
        (150, {"rate": 10.0, "processes": 2}, "150 calls are too few"),
    ],
    ids=["no times", "no processes", "few calls"],
)
def test_what_is_missing_for_rates_is_said(observe, calls, known, words):
    proposal = propose(observe([0.1] * calls, **known), {}, Wishes())
    for name in ("minimum_volume_per_s", "max_concurrent"):
        assert proposal.of(name).value is None
        assert words in proposal.of(name).why
    assert {each.name for each in proposal.changes} <= {"timeout_s"}


def test_processes_may_be_said_and_settings_come_from_the_source_where_nothing_else_is_known(observe):
    seen = observe([0.1] * 2_000, rate=40.0, max_concurrent=6)
    advice = propose(seen, {}, Wishes(processes=4)).of("max_concurrent")
    assert (advice.value, advice.current, advice.changes) == (6, 6.0, False)
    assert propose(seen, {"max_concurrent": 50}, Wishes(processes=4)).of("max_concurrent").changes


# --- segments ---------------------------------------------------------------------------------------------------------


def test_a_small_segment_that_would_be_cut_off_is_named_with_alternatives(observe):
    few, most = lognormal(60, 2.0, 0.2), lognormal(99_940, 0.1, 0.3)
    proposal = propose(observe(few + most, segments={"heavy": few, "usual": most}), {}, Wishes(), "plan")
    assert proposal.of("timeout_s").value < 1.0
    (caution,) = proposal.cautions
    assert caution.startswith("plan heavy (0.06 % of the calls) is slower by nature: its p95 is 2.7")
    assert "it would lose 100 % of its successes" in caution
    heavy, usual = proposal.segments
    assert heavy.name == "heavy"
    assert heavy.sparing_s > 5.0
    assert f"Either give all timeout_s {heavy.sparing_s:g}, with slow_call_s" in caution
    assert usual.sparing_s is None


def test_no_segment_is_named_when_all_are_alike(observe):
    parts = {name: lognormal(10_000, 0.1, 0.3, seed) for seed, name in enumerate(("free", "pro", "team"))}
    whole = [value for part in parts.values() for value in part]
    assert propose(observe(whole, segments=parts), {}, Wishes(), "plan").cautions == []


def test_a_handful_of_calls_is_no_segment_to_warn_of(observe):
    few, most = [5.0] * 10, [0.1] * 20_000
    assert propose(observe(few + most, segments={"new": few, "old": most}), {}, Wishes()).cautions == []


def test_of_many_segments_only_the_worst_are_said(observe):
    most = [0.1] * 900_000
    parts = {f"customer-{number}": [2.0] * 60 for number in range(10)}
    proposal = propose(observe(most + [2.0] * 600, segments={**parts, "others": most}), {}, Wishes(), "customer")
    assert len(proposal.cautions) == 6
    assert proposal.cautions[-1] == "The same goes for 5 more: --json names them all."


def test_segments_that_were_not_looked_at_one_by_one_are_said(observe):
    kept, rest = lognormal(50_000, 0.1, 0.3), lognormal(50_000, 0.1, 0.3, 7)
    proposal = propose(observe(kept + rest, segments={"c1": kept, "other": rest}), {}, Wishes(), "customer")
    (caution,) = proposal.cautions
    assert caution.startswith("50 % of the calls are of a customer beyond the first that there was room for")
