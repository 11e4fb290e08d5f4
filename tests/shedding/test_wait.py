import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault.shedding._wait import LEFT, Bracket, Offset, Peer, bracket, header_age

_NOW = 1_600_000_000.0


@pytest.mark.parametrize(
    ("state", "sent_ms", "recv_ms", "expected"),
    [
        (1, 0, 0, Bracket(0.0, 0.0)),
        (1, 300, 300, Bracket(0.3, 0.3)),
        (1, 5000, 120, Bracket(0.12, 5.0)),  # kept alive: the previous answer was long ago
        (1, 40, 120, Bracket(0.04, 0.12)),  # pipelined: until the answer in front was sent it waited for its own
        (8, 120, 120, Bracket(0.12, 0.12, peer=Peer.HALF_CLOSED)),  # the peer may still read
        (7, 5000, 120, Bracket(0.12, 5.0, peer=Peer.GONE)),  # reset
        (4, 0, 40, Bracket(0.0, 0.04, peer=Peer.GONE)),  # this server has shut its own half
        (9, 0, 40, Bracket(0.0, 0.04, peer=Peer.GONE)),
        (7, 0, 3_600_001, None),
        (3, 0, 0, None),  # a connection that is not made yet
        (10, 0, 0, None),  # a listener
        (0, 0, 0, None),
        (1, 0, 3_600_001, None),
        (1, 0, 2**32 - 1, None),
    ],
)
def test_the_bracket_of_a_reading(state, sent_ms, recv_ms, expected):
    assert bracket(state, sent_ms, recv_ms) == expected


def test_who_has_left_proves_nothing_about_the_queue():
    assert (LEFT.peer, LEFT.exact) == (Peer.GONE, False)


@given(st.integers(0, 255), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_no_reading_raises_and_no_bracket_is_empty(state, sent_ms, recv_ms):
    limits = bracket(state, sent_ms, recv_ms)
    assert limits is None or 0 <= limits.lower_s <= limits.upper_s


@pytest.mark.parametrize(
    ("started", "age"),
    [
        (None, None),
        (_NOW, 0.0),
        (_NOW - 0.25, 0.25),
        (_NOW + 0.05, 0.0),  # a clock that is ahead
        (_NOW + 0.0501, None),
        (_NOW - 30, 30.0),
        (_NOW - 30.001, None),
        (0.0, None),
        (1e10, None),
        (math.inf, None),
    ],
)
def test_the_age_a_header_claims(started, age):
    assert header_age(started, _NOW) == (None if age is None else pytest.approx(age))


def test_an_offset_of_clocks_is_learned_and_forgotten():
    """What every age has in common is no wait; after a minute a smaller one is forgotten."""
    offset = Offset(0.0)
    assert offset.subtract(0.0, 0.5) == 0.0
    assert offset.subtract(1.0, 0.7) == pytest.approx(0.2)
    assert offset.subtract(2.0, 0.1) == 0.0
    assert offset.subtract(29.0, 0.5) == pytest.approx(0.4)
    assert offset.subtract(31.0, 0.5) == pytest.approx(0.4)
    assert offset.subtract(59.0, 0.5) == pytest.approx(0.4)
    assert offset.subtract(62.0, 0.5) == 0.0
    assert offset.subtract(200.0, 0.9) == 0.0  # nothing is remembered over a long silence


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 30)), max_size=50))
def test_a_wait_left_after_the_offset_is_never_negative_and_never_more_than_the_age(steps):
    offset, now = Offset(0.0), 0.0
    for gone, age in steps:
        now += gone
        assert 0 <= offset.subtract(now, age) <= age
