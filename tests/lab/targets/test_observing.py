"""From the journals of a target's processes to series by second."""

import json

import pytest

from groundfault.lab.parts import Phase
from groundfault.lab.targets.chain import RunningChain, services_seen
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


def decided(t, *, by="saber", reason=None, wait_s=None):
    return {"t": t, "event": "request.seen", "by": by, "reason": reason, "queue_wait_s": wait_s}


def test_what_shedders_decided_counts_by_the_second_of_the_decision():
    rows = [decided(0.1), decided(0.9, reason="queue-full"), decided(2.0, by="grouper"), call(0.5)]
    saber, grouper = services_seen(rows, 3)
    assert (saber.name, saber.arrived, saber.answered, saber.shed) == ("saber", [2, 0, 0], [1, 0, 0], [1, 0, 0])
    assert (grouper.name, grouper.arrived, grouper.answered) == ("grouper", [0, 0, 1], [0, 0, 1])


def test_waits_are_those_of_their_service_and_second_and_none_where_nobody_waited():
    waits = [decided(0.2, wait_s=0.01 * number) for number in range(1, 21)]
    rows = [*waits, decided(1.5), decided(2.5, wait_s=0.5), decided(2.5, by="grouper", wait_s=0.25)]
    saber, grouper = services_seen(rows, 3)
    assert saber.wait_p95_ms == pytest.approx([190.0, None, 500.0])
    assert grouper.wait_p95_ms == [None, None, 250.0]


def test_the_chain_says_what_was_in_the_run_and_not_what_its_measurement_was(tmp_path):
    shift = 100.0
    rows = [decided(99.5), decided(100.0), decided(101.9, reason="queue-full"), decided(102.0), call(100.5), call(99.9)]
    (tmp_path / "saber-7.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    services, edges = RunningChain(Phase.GROUNDFAULT, tmp_path).observed(shift, 2)
    assert [(each.name, each.arrived, each.shed) for each in services] == [("saber", [1, 1], [0, 1])]
    assert [(each.name, each.calls) for each in edges] == [("topps -> saber", [1, 0])]
