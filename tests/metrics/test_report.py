"""Reports: what is pulled, and what becomes of it when it is put together."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_reports import counted, full

from groundfault import Registry, Resource, Shedder
from groundfault.events import note_internal_error
from groundfault.metrics import collecting
from groundfault.metrics.collecting import collect
from groundfault.metrics.report import Report, merged


def test_what_was_counted_is_in_the_report_with_the_edges_of_the_service(monkeypatch):
    registry = Registry()
    command = Resource("db", registry=registry, sinks=[]).command("get", max_concurrent=3)
    for _ in range(4):
        command.call(lambda: None)
    shedder = Shedder(service="saber", sinks=[])
    shedder.release(shedder.admit("GET /", 0.001))
    monkeypatch.setenv("GROUNDFAULT_SERVICE", "named")
    report = collect(12.0, [registry])
    seen = report.commands["db", "get"]
    assert (seen.calls, seen.durations["success"].count, seen.states, seen.limit) == (
        {"success": 4},
        4,
        {"closed": 1},
        3,
    )
    assert report.servers["saber"].requests == {("admitted", "critical"): 1}
    assert report.edges == {("named", "db", "success"): 4}
    assert [(each.pid, each.service, each.written_at) for each in report.processes] == [(os.getpid(), "named", 12.0)]


def test_one_command_in_two_registries_is_one(monkeypatch):
    registries = [Registry(), Registry()]
    for registry in registries:
        Resource("db", registry=registry, sinks=[]).command("get").call(lambda: None)
    assert collect(0.0, registries).commands["db", "get"].calls == {"success": 2}


def test_errors_of_a_parent_are_not_its_childs(monkeypatch):
    note_internal_error("here", ValueError())
    monkeypatch.setattr(collecting, "_inherited_errors", {})
    collecting._note_inherited_errors()
    assert collecting.own_errors() == {}
    note_internal_error("here", ValueError())
    note_internal_error("there", ValueError())
    assert collecting.own_errors() == {"here": 1, "there": 1}


@given(
    st.lists(st.integers(0, 20), max_size=5).flatmap(lambda calls: st.tuples(st.just(calls), st.permutations(calls)))
)
def test_the_order_in_which_processes_are_added_does_not_matter(orders):
    one, other = (merged(counted(calls, command=f"c{calls % 3}") for calls in order) for order in orders)
    assert one == other


@given(st.lists(st.integers(0, 20), max_size=5))
def test_taking_says_the_same_as_adding(calls):
    added, taken = Report(), Report()
    for times in calls:
        added.add(counted(times))
        taken.take(counted(times))
    assert added == taken


def test_adding_leaves_the_other_alone():
    one, other = counted(1), counted(2)
    merged([one, other])
    assert (one, other) == (counted(1), counted(2))


def test_totals_of_the_buried_stay_and_their_gauges_go():
    report = full()
    report.bury()
    command, server = report.commands["db", "get"], report.servers["saber"]
    assert (command.calls, command.moves) == (
        full().commands["db", "get"].calls,
        {"closed>open": 2, "open>half-open": 1},
    )
    assert (command.states, command.active, command.limit, command.admitted_share) == ({}, 0, 0, 1.0)
    assert (server.requests, server.abandoned) == (full().servers["saber"].requests, 1)
    assert (server.signals, server.active, server.backlog) == ({}, 0, None)
    assert (report.processes, report.edges) == ([], full().edges)


def test_a_dead_process_changes_no_gauge_of_the_living():
    living, dead = full(), full()
    dead.bury()
    both = merged([dead, living]).commands["db", "get"]
    mine = full().commands["db", "get"]
    for gauge in ("states", "active", "limit", "admitted_share", "saturated", "unhealthy"):
        assert getattr(both, gauge) == getattr(mine, gauge)


@pytest.mark.parametrize(("age_s", "stale"), [(0.0, False), (5.0, False), (5.1, True)])
def test_who_has_not_written_for_five_seconds_is_stale(age_s, stale):
    assert bool(counted(1, at=1000.0 - age_s).stale(1000.0)) is stale


@pytest.mark.parametrize(
    ("report", "idle"),
    [
        (Report(), True),
        (counted(0), True),
        (counted(1), False),
        (full(), False),
        (Report(internal_errors={"a": 1}), False),
    ],
)
def test_idle_is_who_has_counted_nothing(report, idle):
    assert report.is_idle is idle
