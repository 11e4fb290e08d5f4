"""From the journals of a target's processes to series by second."""

import json

import pytest

from groundfault.lab.targets.observing import edges_of, observed, services_of


def door(t, *, status=200, took_s=0.1, by="saber"):
    return {"t": t, "event": "door", "by": by, "status": status, "took_s": took_s}


def call(t, outcome="success"):
    return {"t": t, "event": "command.done", "by": "topps", "resource": "saber", "command": "get", "outcome": outcome}


def moved(t, old, new, *, pid=1):
    place = {"by": "topps", "resource": "saber", "command": "get", "pid": pid}
    return {"t": t, "event": f"circuit.{new.replace('-', '_')}", **place, "old": old, "new": new}


def test_requests_count_where_they_came_and_answers_where_they_went():
    rows = [door(0.2), door(0.95), door(1.5, status=503, took_s=0.01), door(2.9), door(-0.5)]
    (saber,) = services_of(rows, 3)
    assert saber.arrived == [2, 1, 1]
    assert saber.answered == [1, 1, 0]  # the one that came at 2.9 was answered after the end
    assert saber.shed == [0, 1, 0]


@pytest.mark.parametrize(
    ("outcome", "series"),
    [
        ("success", "calls"),
        ("shed", "calls"),
        ("failure", "bad"),
        ("timeout", "bad"),
        ("circuit-open", "refused"),
        ("bulkhead-full", "refused"),
        ("throttled", "refused"),
        ("unhealthy", "refused"),
    ],
)
def test_each_outcome_of_a_call_counts_once(outcome, series):
    (edge,) = edges_of([call(1.2, outcome), call(7.0, outcome)], 3)
    counted = {name: sum(getattr(edge, name)) for name in ("calls", "bad", "refused")}
    made = series in {"calls", "bad"}
    assert counted == {"calls": int(made), "bad": int(series == "bad"), "refused": int(not made)}


def test_a_trip_is_an_opening_from_closed_and_lasts_until_the_circuit_is_closed():
    rows = [
        moved(1.0, "closed", "open"),
        moved(2.0, "open", "half-open"),
        moved(2.1, "half-open", "open"),
        moved(4.0, "open", "half-open"),
        moved(4.1, "half-open", "closed"),
        moved(6.0, "closed", "open"),
    ]
    (edge,) = edges_of(rows, 8)
    assert edge.name == "topps -> saber"
    assert edge.trips == [1.0, 6.0]
    assert edge.open == [(1.0, 4.1), (6.0, 8.0)]


def test_circuits_of_two_processes_are_two():
    rows = [moved(1.0, "closed", "open", pid=1), moved(2.0, "closed", "open", pid=2), moved(3.0, "half-open", "closed")]
    (edge,) = edges_of(rows, 5)
    assert edge.open == [(1.0, 3.0), (2.0, 5.0)]


def test_journals_are_read_from_the_start_of_the_run_on(tmp_path):
    (tmp_path / "door-saber-7.jsonl").write_text(json.dumps(door(100.5)) + "\n" + json.dumps(door(99.0)) + "\n{half")
    (tmp_path / "topps-8.jsonl").write_text(json.dumps(call(101.5)) + "\n")
    services, edges = observed(tmp_path, 100.0, 2)
    assert services[0].arrived == [1, 0]
    assert edges[0].calls == [0, 1]
