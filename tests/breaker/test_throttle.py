import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault.breaker._throttle import LEAST_SHARE, Saturation, Throttle


def throttle(share, sent, refused, refused_at=0.0):
    """Make one that woke at 0.0."""
    made = Throttle()
    made.active = True
    made.share = share
    for _ in range(sent - refused):
        made.accepted()
    for _ in range(refused):
        made.refused(refused_at)
    return made


@pytest.mark.parametrize(
    ("share", "sent", "refused", "age", "after"),
    [
        (1.0, 100, 40, 0.99, 1.0),  # not yet
        (1.0, 100, 40, 1.0, 1.0),  # more than half accepted: all are sent
        (1.0, 100, 50, 1.0, 1.0),
        (1.0, 100, 80, 1.0, 0.4),  # twice the accepted share
        (0.4, 40, 20, 1.0, 0.4),  # settles where every second call is accepted
        (0.4, 40, 30, 1.0, 0.2),
        (0.4, 40, 10, 1.0, 0.6),
        (1.0, 100, 100, 1.0, LEAST_SHARE),
        (0.01, 10, 10, 1.0, LEAST_SHARE),  # never less
        (0.5, 9, 9, 1.0, 0.5),  # too few to judge
        (0.5, 9, 9, 3.99, 0.5),
        (0.5, 9, 9, 4.0, LEAST_SHARE),  # four seconds are enough of waiting
        (0.5, 9, 3, 4.0, 0.5 * 2 * 6 / 9),
    ],
)
def test_a_second_with_refusals(share, sent, refused, age, after):
    made = throttle(share, sent, refused, refused_at=age - 0.5)
    made.judge(age)
    assert made.share == pytest.approx(after)


@pytest.mark.parametrize(
    ("share", "sent", "refused", "calm_s", "after"),
    [
        (0.4, 40, 0, 0.99, 0.4),  # not yet
        (0.4, 40, 0, 1.0, 0.8),  # nothing refused for a second: twice as much
        (0.4, 1, 0, 1.0, 0.8),  # however few were sent
        (0.4, 0, 0, 1.0, 0.8),
        (0.4, 9, 9, 1.0, 0.8),  # and whatever was refused before it, if that was too little to judge by
        (0.8, 40, 30, 1.0, 0.4),  # if not, that second is judged
        (0.8, 40, 30, 2.0, 0.8),  # and the next one is calm
        (0.8, 40, 0, 1.0, 1.0),  # never more than all
        (0.01, 0, 0, 2.0, 0.08),  # then four times
        (0.01, 0, 0, 3.0, 0.64),  # then eight times
        (0.01, 0, 0, 4.0, 1.0),
        (0.01, 0, 0, 1e9, 1.0),
    ],
)
def test_seconds_without(share, sent, refused, calm_s, after):
    made = throttle(share, sent, refused)
    made.judge(calm_s)
    assert made.share == pytest.approx(after)


def test_seconds_without_are_counted_from_the_last_refusal():
    made = throttle(0.01, 0, 0)
    made.judge(1.0)
    made.judge(2.0)
    assert made.share == pytest.approx(0.08)
    made.refused(2.5)
    made.judge(3.0)
    made.judge(3.49)
    assert made.share == pytest.approx(0.08)
    made.judge(3.5)
    assert made.share == pytest.approx(0.16)


def test_it_sleeps_until_the_first_refusal_and_again_after_a_second_without():
    made = Throttle()
    made.judge(9.0)
    assert not made.active
    made.refused(10.0)
    assert made.active
    for _ in range(9):
        made.refused(10.5)
    for _ in range(10):
        made.accepted()
    made.judge(11.0)
    assert made.share == 1.0  # half were accepted
    assert made.active
    made.accepted()
    made.judge(12.0)
    assert not made.active


def test_a_second_is_judged_once():
    made = throttle(1.0, 100, 80)
    made.judge(1.0)
    made.judge(1.0)
    made.judge(1.9)
    assert made.share == 0.4


def test_refusals_of_calls_sent_before_the_share_fell_do_not_make_it_fall_twice():
    """The callee takes 20 of 100 calls a second and answers after 0.4 s, so each second ends what the last one sent."""
    made, shares, late = Throttle(), [], 0
    made.refused(0.0)
    for second in range(10):
        sent = 100 * made.share
        ending = [late, sent * 0.6]
        late = sent * 0.4
        for calls, span_s in zip(ending, (0.4, 0.6), strict=True):
            taken = min(round(calls), round(20 * span_s))
            for _ in range(taken):
                made.accepted()
            for _ in range(round(calls) - taken):
                made.refused(second + 0.9)
        made.judge(second + 1.0)
        shares.append(made.share)
    assert min(shares) > 0.2  # 0.4 is right; counted against the calls just sent it came down to 0.1


def test_it_follows_a_spike_down_at_once_and_up_within_seconds():
    """The callee takes 100 of 800 calls a second for 20 s, then all."""
    made, shares = Throttle(), []
    for second in range(30):
        offered = 800 if second < 20 else 100
        sent = round(offered * made.share)
        for _ in range(max(0, sent - 100)):
            made.refused(float(second))
        for _ in range(min(sent, 100)):
            made.accepted()
        made.judge(second + 1.0)
        shares.append(made.share)
    assert shares[0] == pytest.approx(0.25)
    assert all(0.2 < share < 0.3 for share in shares[:20])
    assert shares[21] == 1.0
    assert not made.active


@given(
    st.floats(LEAST_SHARE, 1.0),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), st.floats(0, 10)), max_size=30),
)
def test_the_share_stays_within_its_bounds_and_falls_only_on_refusals(share, seconds):
    made = throttle(share, 0, 0)
    now = 0.0
    refused_since_judged = 0
    for sent, refused, wait in seconds:
        for _ in range(sent):
            made.accepted()
        for _ in range(refused):
            made.refused(now)
        refused_since_judged += refused
        now += wait
        before = made.share
        made.judge(now)
        assert LEAST_SHARE <= made.share <= 1.0
        if made.share < before:
            assert refused_since_judged
        if wait >= 4:
            refused_since_judged = 0
        assert made.active or made.share == 1.0


@given(st.floats(LEAST_SHARE, 1.0), st.floats(0, 1, exclude_max=True))
def test_a_call_is_sent_with_the_share_as_its_chance(share, draw):
    assert throttle(share, 0, 0).admits(draw) is (draw < share)


@pytest.mark.parametrize(
    ("refusals", "span_s", "saturated"),
    [(19, 100.0, False), (20, 9.9, False), (20, 10.0, True), (200, 9.9, False), (200, 60.0, True)],
)
def test_saturation_takes_twenty_refusals_and_the_patience(refusals, span_s, saturated):
    made = Saturation()
    for n in range(refusals):
        made.refused(5.0 + span_s * n / (refusals - 1), 10.0)
    assert made.saturated is saturated


def test_one_success_ends_saturation_and_begins_the_count_anew():
    made = Saturation()
    news = [made.refused(float(n), 10.0) for n in range(25)]
    assert news.count(True) == 1
    assert news.index(True) == 19
    assert made.answered() is True
    assert made.answered() is False
    assert not any(made.refused(100.0 + n, 10.0) for n in range(19))
    assert made.refused(math.nextafter(110.0, math.inf) + 9, 10.0)
