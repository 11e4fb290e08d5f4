"""What a scenario may be made of."""

from argparse import Namespace
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault.lab.curves import Spike
from groundfault.lab.load.scenario import Lane, Played, Request, one_of

CURVE = Spike(base_rps=10, factor=4, before_s=2, spike_s=3, after_s=5)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: Request("lobby"), "path must start with one slash, not 'lobby'"),
        (lambda: Request("//other.host/"), "path must start with one slash"),
        (lambda: Request("/a b"), "path must be of visible ASCII letters"),
        (lambda: Request("/a\r\nHost: b"), "path must be of visible ASCII letters"),
        (lambda: Request("/{x}"), "path may hold {n} and no other braces, not '/{x}'"),
        (lambda: Request("/{n"), "path may hold {n} and no other braces"),
        (lambda: Request("/", method="get"), "method must be of capital letters, not 'get'"),
        (lambda: Request("/", headers={"A": "b\r\nC: d"}), "header 'A' must be one line"),
        (lambda: Lane("a.b", "/"), "name of a lane must be a word"),
        (lambda: Lane("a", "/", share=-1), "share of a must be at least 0, not -1"),
        (lambda: Lane("a", "/", share=float("nan")), "share of a must be at least 0, not nan"),
        (lambda: Lane("a", "/", deadline_s=0), "deadline_s of a must be above 0, not 0"),
        (lambda: Lane("a", []), "a mix must hold at least 1 request, not 0"),
        (lambda: Lane("a", [(Request("/"), -1)]), "weight[0] must be at least 0, not -1"),
        (lambda: Lane("a", [(Request("/"), 0)]), "one weight of a mix must be above 0"),
    ],
)
def test_nonsense_is_refused_by_name(made, words):
    with pytest.raises(ValueError, match="^" + words.replace("{", r"\{").replace("[", r"\[").replace(".", r"\.")):
        made()


def test_a_path_goes_with_the_lanes_method_headers_and_body():
    lane = Lane("buy", "/tickets/{n}", method="POST", headers={"A": "b"}, body=b"{}")
    assert lane.choose(7, 0.5) == Request("/tickets/{n}", "POST", {"A": "b"}, b"{}")


def test_a_mix_is_asked_for_as_often_as_its_weights_say():
    often, seldom, never = Request("/often"), Request("/seldom"), Request("/never")
    choose = one_of([(often, 3), (never, 0), (seldom, 1)])
    counts = Counter(choose(number, number / 1000).path for number in range(1000))
    assert counts == {"/often": 750, "/seldom": 250}


def test_a_callable_is_given_the_arrivals_number():
    lane = Lane("log", lambda number, _drawn: Request(f"/line/{number}"))
    assert [lane.choose(number, 0.0).path for number in (0, 5)] == ["/line/0", "/line/5"]


@pytest.mark.parametrize(
    ("success", "good", "bad"),
    [(None, [200, 204, 302], [199, 400, 404, 500, 503]), (frozenset({404}), [404], [200, 500])],
)
def test_what_a_good_answer_is(success, good, bad):
    lane = Lane("a", "/", success=success)
    assert all(lane.succeeds(status) for status in good)
    assert not any(lane.succeeds(status) for status in bad)


@given(st.floats(0.05, 20), st.floats(0, 10), st.floats(0, 10))
def test_a_curve_played_at_another_speed_keeps_its_rates_and_stretches_its_times(scale, start, length):
    played = Played(CURVE, scale)
    assert played.total_s == pytest.approx(CURVE.total_s * scale)
    assert played.peak_rps == CURVE.peak_rps
    assert played.rate(start * scale) == pytest.approx(CURVE.rate(start * scale / scale))
    due = played.expected(start * scale, (start + length) * scale)
    assert due == pytest.approx(CURVE.expected(start, start + length) * scale, abs=1e-6)


def test_a_lane_is_the_same_however_often_it_is_made():
    options = Namespace(path="/a")
    assert Lane("a", options.path) == Lane("a", options.path)
