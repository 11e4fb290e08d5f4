"""Each number of the report, against cases reckoned by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault.lab.curves import Spike
from groundfault.lab.measure import (
    Measured,
    Row,
    capacity,
    peak,
    percentile,
    phase_metrics,
    recovery_s,
    trips_by_edge,
    voids,
)

CURVE = Spike(base_rps=6, factor=8, before_s=10, spike_s=10, after_s=10, rise_s=1)


def row(due, status=200, latency=0.1, kind="fan", lag=0.0, *, handled=False):
    return Row(kind=kind, due=due, latency_s=latency, status=status, handled=handled, lag_s=lag)


def measured(rows, events=(), cpu=(0.3, 0.3, 0.3), died=()):
    return Measured(rows=rows, events=events, cpu=cpu, died=died)


@pytest.mark.parametrize(
    ("status", "latency", "good"),
    [
        (200, 0.0, True),
        (200, 1.0, True),
        (200, 1.0001, False),
        (503, 0.01, False),
        (500, 0.01, False),
        (0, 1.0, False),
    ],
)
def test_good_is_answered_in_time(status, latency, good):
    assert row(0, status, latency).good is good


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.99, None),
        ([7], 0.99, 7),
        ([3, 1, 2], 0.5, 2),
        (range(1, 101), 0.99, 99),
        (range(1, 101), 1.0, 100),
        (range(1, 201), 0.99, 198),
    ],
)
def test_percentile_by_nearest_rank(values, share, expected):
    assert percentile(values, share) == expected


class TestCapacity:
    def test_three_connections_of_a_tenth_of_a_second_are_thirty_a_second(self):
        """Whether they finish one by one or three at a time."""
        one_by_one = [row(0, latency=at / 30) for at in range(200)]
        strides = [row(0, latency=at // 3 / 10) for at in range(201)]
        assert capacity(one_by_one, settle_s=1, until_s=6) == pytest.approx(30)
        assert capacity(strides, settle_s=1, until_s=6) == pytest.approx(30, rel=0.005)

    @given(start=st.floats(0.5, 1.5), end=st.floats(4.5, 5.5))
    def test_where_the_window_begins_and_ends_hardly_matters(self, start, end):
        strides = [row(0, latency=at // 3 / 10) for at in range(201)]
        assert capacity(strides, settle_s=start, until_s=end) == pytest.approx(30, rel=0.01)

    def test_what_failed_or_came_before_it_settled_does_not_count(self):
        rows = [row(0, latency=at / 20) for at in range(100)] + [row(0, 500, at / 100) for at in range(500)]
        rows += [row(0, latency=0.5)] * 50
        assert capacity(rows, settle_s=1, until_s=6) == pytest.approx(20)

    def test_too_few_to_say(self):
        with pytest.raises(ValueError, match="only 9 requests were completed"):
            capacity([row(at, latency=0) for at in range(9)], settle_s=0, until_s=100)


class TestGoodput:
    def test_counts_answers_to_fans_by_their_arrival(self):
        rows = [
            row(9.5, latency=0.6),  # asked before the spike, answered in it: saber's work of that time
            row(10, latency=0.1),
            row(19.5, latency=0.6),  # answered after it
            row(15, latency=1.2),  # too late
            row(15, 503),
            row(15, kind="innocent"),
        ]
        assert phase_metrics(measured(rows), CURVE, 10.0).goodput_share_in_spike == pytest.approx(2 / (10 * 10))

    def test_at_capacity_it_is_one(self):
        rows = [row(10 + at / 10, latency=0.05) for at in range(100)]
        assert phase_metrics(measured(rows), CURVE, 10.0).goodput_share_in_spike == pytest.approx(1.0)


def test_innocents_by_when_they_were_due():
    rows = [row(12, kind="innocent"), row(12, 503, kind="innocent"), row(19.9, 0, 1.0, kind="innocent")]
    rows += [row(19.99, kind="innocent"), row(20, 500, kind="innocent"), row(9.9, 500, kind="innocent"), row(12, 500)]
    assert phase_metrics(measured(rows), CURVE, 10.0).innocents_success_in_spike == 0.5


def test_admitted_are_those_who_got_an_answer_or_waited_for_one_in_vain():
    rows = [row(12, latency=0.2)] * 98 + [row(12, 0, 1.0)] * 2 + [row(12, 503, 0.9)] * 50 + [row(12, 500, 0.9)] * 50
    assert phase_metrics(measured(rows), CURVE, 10.0).admitted_p99_ms == pytest.approx(1000)
    assert phase_metrics(measured(rows[:98]), CURVE, 10.0).admitted_p99_ms == pytest.approx(200)
    assert phase_metrics(measured(rows[100:]), CURVE, 10.0).admitted_p99_ms is None


def test_falsely_shed_is_a_503_before_the_spike():
    rows = [row(1), row(2), row(3, 503), row(9.99, 503, kind="innocent"), row(10, 503), row(5, 500)]
    assert phase_metrics(measured(rows), CURVE, 10.0).false_shed_share_before_spike == pytest.approx(2 / 5)


def test_lag_in_milliseconds():
    rows = [row(1, lag=0.001)] * 98 + [row(1, lag=0.05)] * 2
    assert phase_metrics(measured(rows), CURVE, 10.0).generator_lag_p99_ms == pytest.approx(50)


def test_nothing_recorded_is_no_success():
    metrics = phase_metrics(measured([], cpu=()), CURVE, 10.0)
    assert metrics.goodput_share_in_spike == 0
    assert metrics.innocents_success_in_spike == 0
    assert metrics.recovery_s is None
    assert metrics.admitted_p99_ms is None


class TestRecovery:
    """Base traffic after the spike: a request each tenth of a second from 20 to 30."""

    @staticmethod
    def rows(bad):
        return [row(20 + at / 10, 503 if bad(20 + at / 10) else 200) for at in range(100)]

    @pytest.mark.parametrize(
        ("bad", "expected"),
        [
            pytest.param(lambda _: False, 0, id="never down"),
            pytest.param(lambda t: t < 22.05, 2.0, id="down for two seconds"),
            pytest.param(lambda t: t < 21.05 or 24.95 < t < 25.05, 5.0, id="one in 50 later is too many"),
            pytest.param(lambda t: t < 26.55, 6.5, id="3.5 s of peace are enough"),
            pytest.param(lambda t: t < 27.15, None, id="less than 3 s of peace are not"),
            pytest.param(lambda _: True, None, id="never up"),
            pytest.param(lambda t: 28.95 < t < 29.05, 0, id="one in a hundred is within the share"),
            pytest.param(lambda t: 28.85 < t < 29.05, None, id="two late ones are not, and leave no time"),
        ],
    )
    def test_first_moment_from_which_all_is_well(self, bad, expected):
        recovered = recovery_s(self.rows(bad), CURVE)
        assert recovered == (None if expected is None else pytest.approx(expected))

    def test_one_failure_in_a_hundred_of_the_rest_is_forgiven_if_it_comes_late_enough(self):
        rows = [row(20 + at / 100, 503 if at == 900 else 200) for at in range(1000)]
        assert recovery_s(rows, CURVE) == 0

    def test_late_answers_and_innocents_count_as_offered_traffic(self):
        late = [row(20.5, latency=1.5), row(21.5, 500, kind="innocent")]
        assert recovery_s([*self.rows(lambda _: False), *late], CURVE) == pytest.approx(1.5)

    def test_what_was_due_before_the_end_of_the_spike_does_not_count(self):
        assert recovery_s([*self.rows(lambda _: False), row(19.99, 503)], CURVE) == 0

    def test_silence_is_no_recovery(self):
        assert recovery_s([row(12)], CURVE) is None

    @given(st.lists(st.booleans(), min_size=100, max_size=100))
    def test_whatever_happens_the_claim_holds(self, fates):
        rows = [row(20 + at / 10, 200 if fate else 500) for at, fate in enumerate(fates)]
        recovered = recovery_s(rows, CURVE)
        if recovered is not None:
            rest = [r for r in rows if r.due > 20 + recovered or (recovered == 0 and r.due == 20)]
            assert sum(r.good for r in rest) >= 0.99 * len(rest)
            assert 20 + recovered <= 27


def test_a_trip_is_a_circuit_going_from_closed_to_open():
    events = [
        {"event": "circuit.open", "old": "closed", "by": "grouper", "resource": "saber"},
        {"event": "circuit.open", "old": "closed", "by": "grouper", "resource": "saber"},
        {"event": "circuit.open", "old": "half-open", "by": "grouper", "resource": "saber"},
        {"event": "circuit.closed", "old": "half-open", "by": "grouper", "resource": "saber"},
        {"event": "circuit.open", "old": "closed", "by": "topps", "resource": "grouper"},
        {"event": "server.shedding_started", "by": "saber"},
    ]
    assert trips_by_edge(events) == {"grouper -> saber": 2, "topps -> grouper": 1}


def test_trips_outside_the_run_do_not_count():
    trip = {"event": "circuit.open", "old": "closed", "by": "topps", "resource": "grouper"}
    metrics = phase_metrics(measured([], [{**trip, "t": -1}, {**trip, "t": 5}, {**trip, "t": 31}]), CURVE, 10.0)
    assert metrics.trips == 1
    assert metrics.trips_by_edge == {"topps -> grouper": 1}


@pytest.mark.parametrize(
    ("samples", "expected"),
    [([], 0.0), ([0.5], 0.5), ([0.1, 0.9, 0.2, 0.1], 0.4), ([0.9] * 3 + [0.1] * 9, 0.9)],
)
def test_the_peak_is_a_mean_over_three_seconds(samples, expected):
    assert peak(samples) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({}, []),
        ({"cpu_peak": 0.86}, ["the host's CPU was 86% busy, more than 85%"]),
        ({"goodput_share": 1.06}, ["goodput was 1.06 of the measured capacity, so that figure is wrong"]),
        ({"lag_p99_ms": 21.0}, ["the generator was 21.0 ms late (p99), more than 20 ms"]),
        ({"died": ["saber"]}, ["saber ended during the run"]),
        ({"cpu_peak": 0.85, "goodput_share": 1.05, "lag_p99_ms": 20.0}, []),
    ],
)
def test_what_voids_a_phase(found, words):
    assert voids(**{"cpu_peak": 0.5, "goodput_share": 0.9, "lag_p99_ms": 2.0, **found}) == words


def test_a_phase_says_that_it_is_void():
    metrics = phase_metrics(measured([row(1, lag=0.5)], cpu=[0.99] * 3, died=["topps"]), CURVE, 10.0)
    assert len(metrics.void) == 3
