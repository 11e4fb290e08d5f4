"""Values per second, for the plots."""

import pytest

from groundfault.lab.curves import Spike
from groundfault.lab.measure import Row
from groundfault.lab.series import series

CURVE = Spike(base_rps=6, before_s=1, spike_s=2, after_s=1, rise_s=0)


def row(due, status=200, latency=0.1, kind="fan"):
    return Row(kind=kind, due=due, latency_s=latency, status=status, handled=False, lag_s=0.0)


def seen(t, wait_s, reason=None, by="saber"):
    return {"t": t, "event": "request.seen", "by": by, "queue_wait_s": wait_s, "reason": reason}


def test_goodput_by_arrival_and_offered_by_due_time():
    rows = [row(0.5), row(0.95), row(1.5, 503), row(2.5, latency=1.2), row(3.95), row(1.2, kind="innocent")]
    found = series(rows, [], CURVE)
    assert found.goodput == [1, 1, 0, 0]
    assert found.offered == [2, 1, 1, 1]


def test_innocents_per_second_and_none_where_none_asked():
    rows = [
        row(0.5, kind="innocent"),
        row(1.1, 503, kind="innocent"),
        row(1.2, kind="innocent"),
        row(3, 0, 1, "innocent"),
    ]
    assert series(rows, [], CURVE).innocents == [1.0, 0.5, None, 0.0]


def test_what_saber_measured_and_refused():
    events = [
        seen(0.1, 0.02),
        seen(0.2, 0.04),
        seen(1.1, 0.5, "queue-wait"),
        seen(1.2, None, "deadline"),
        seen(1.3, 0.1),
        seen(1.4, 9, "queue-wait", by="grouper"),
        seen(-0.5, 9),
        seen(4.5, 9),
    ]
    found = series([], events, CURVE)
    assert found.queue_wait_ms == [pytest.approx(40), pytest.approx(500), None, None]
    assert found.shed_share == [0.0, pytest.approx(2 / 3), None, None]


def change(t, old, new, pid=1):
    resource = {"by": "topps", "pid": pid, "resource": "grouper", "command": "get"}
    return {**resource, "t": t, "event": f"circuit.{new}", "old": old, "new": new}


def test_trips_with_their_moment():
    events = [change(2.5, "closed", "open"), change(1.5, "closed", "open", pid=2), change(3.0, "half-open", "open")]
    assert series([], [*events, change(9.0, "closed", "open")], CURVE).trips == [
        (1.5, "topps -> grouper"),
        (2.5, "topps -> grouper"),
    ]


def test_a_circuit_is_open_from_its_trip_until_it_closes_or_the_run_ends():
    events = [
        change(1.0, "closed", "open"),
        change(1.1, "closed", "open", pid=2),
        change(2.0, "open", "half-open"),
        change(2.1, "half-open", "open"),
        change(3.0, "open", "half-open"),
        change(3.1, "half-open", "closed"),
        change(3.5, "closed", "open"),
    ]
    assert series([], events, CURVE).open == [
        (1.0, 3.1, "topps -> grouper"),
        (1.1, 4.0, "topps -> grouper"),
        (3.5, 4.0, "topps -> grouper"),
    ]
