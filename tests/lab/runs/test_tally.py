"""Counts by second: what is counted where, and that they merge and travel."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault.lab.runs.record import Stream
from groundfault.lab.runs.tally import FATES, Fate, Tally

moments = st.floats(0, 20, allow_nan=False)
latencies = st.floats(0, 5, allow_nan=False)
requests = st.lists(st.tuples(moments, st.sampled_from(FATES), latencies), max_size=40)


def counted(requests):
    tally = Tally()
    for due, fate, latency_s in requests:
        if fate is Fate.UNSENT:
            tally.skip(due)
        else:
            tally.send(due, due + 0.002)
            tally.settle(due, fate, latency_s)
    return tally


def test_a_good_answer_counts_where_it_was_due_and_where_it_arrived():
    tally = counted([(0.5, Fate.GOOD, 0.75)])
    assert (tally.at(0).due, tally.at(0).sent, tally.at(0).arrived) == (1, 1, 0)
    assert tally.at(0).fates == [1, 0, 0, 0, 0]
    assert tally.at(1).arrived == 1
    assert tally.at(0).latencies.count == 1


@pytest.mark.parametrize("fate", [Fate.LATE, Fate.SHED, Fate.FAILED])
def test_what_is_not_good_neither_arrives_nor_has_a_latency(fate):
    tally = counted([(0.5, fate, 0.1)])
    assert tally.at(0).arrived == 0
    assert tally.at(0).latencies.count == 0
    assert tally.at(0).fates[FATES.index(fate)] == 1


def test_what_is_due_before_the_start_belongs_to_the_first_second():
    assert counted([(-0.5, Fate.SHED, 0.1)]).at(0).due == 1


def test_what_lies_behind_the_run_counts_to_its_last_second():
    stream = Stream.of("fan", counted([(1.9, Fate.GOOD, 0.9), (2.4, Fate.GOOD, 0.1)]), 2)
    assert stream.due == [0, 2]
    assert stream.arrived == [0, 2]


def test_percentiles_by_second_and_none_where_nothing_was_good():
    stream = Stream.of("fan", counted([(0.5, Fate.GOOD, 0.1), (1.5, Fate.SHED, 0.1)]), 2)
    assert stream.p99_ms[0] == pytest.approx(100, rel=0.3)
    assert stream.p50_ms[1] is None


@given(requests, requests)
def test_two_generators_together_are_as_one(ours, theirs):
    merged = counted(ours)
    merged.merge(counted(theirs))
    one, other = Stream.of("fan", merged, 30), Stream.of("fan", counted([*ours, *theirs]), 30)
    assert one == other


@given(requests)
def test_each_request_that_was_due_has_one_fate(requests):
    stream = Stream.of("fan", counted(requests), 10)
    for at in range(10):
        assert stream.due[at] == sum(getattr(stream, fate.value)[at] for fate in FATES)
    assert sum(stream.arrived) == sum(stream.good)


@given(requests)
def test_it_travels_as_json(requests):
    tally = counted(requests)
    back = Tally.from_dict(json.loads(json.dumps(tally.as_dict())))
    assert back.as_dict() == tally.as_dict()
    assert Stream.of("fan", back, 10) == Stream.of("fan", tally, 10)


LAGS = {"buckets": {}, "sum_s": 0.0}
SECOND = [1, 1, 1, [1, 0, 0, 0, 0], LAGS]


@pytest.mark.parametrize(
    "said",
    [
        {},
        [],
        None,
        {"lags": None, "seconds": {}},
        {"lags": LAGS},
        {"lags": LAGS, "seconds": []},
        {"lags": LAGS, "seconds": {"-1": SECOND}},
        {"lags": LAGS, "seconds": {"x": SECOND}},
        {"lags": LAGS, "seconds": {"0": SECOND[:4]}},
        {"lags": LAGS, "seconds": {"0": [1, 1, 1, [1], LAGS]}},
        {"lags": LAGS, "seconds": {"0": [-1, *SECOND[1:]]}},
        {"lags": LAGS, "seconds": {"0": [float("inf"), *SECOND[1:]]}},
        {"lags": {"buckets": {"72": 1}, "sum_s": 0.0}, "seconds": {}},
        {"lags": {"buckets": [], "sum_s": 0.0}, "seconds": {}},
        {"lags": {"buckets": {}, "sum_s": float("nan")}, "seconds": {}},
    ],
)
def test_what_is_no_tally_is_refused(said):
    with pytest.raises((LookupError, TypeError, ValueError)):
        Tally.from_dict(said)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(json_values, json_values, json_values)
def test_whatever_another_process_sends_raises_nothing_else(lags, seconds, second):
    for said in (lags, {"lags": lags, "seconds": seconds}, {"lags": LAGS, "seconds": {"0": second}}):
        try:
            Tally.from_dict(said)
        except (LookupError, TypeError, ValueError):
            continue
