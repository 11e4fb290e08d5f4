"""Who asks for what when: the arrivals of the cascade benchmark, and who asks again."""

import socket
import threading
from array import array
from contextlib import contextmanager
from dataclasses import replace

import pytest
from cascade import _planned
from cascading.parts import Variant
from cascading.scenarios import FREE_LANE, LOAD, NEED_LANE, RETRY_SHARE, SCENARIOS
from cascading.send import read_outcome, read_plan, write_outcome, write_plan
from openloop.generator import LATE, Generator, Outcome, Plan

from groundfault._clock import monotonic

SPIKE = SCENARIOS["spike"]


def due_of(plan, lane, start, end):
    return sum(start <= at < end and each == lane for at, each in zip(plan.due, plan.lanes, strict=True))


def test_the_same_seed_gives_the_same_arrivals_and_another_seed_others():
    one, same, other = (SPIKE.plan(80, seed, 0.0) for seed in (1, 1, 2))

    assert one == same
    assert one.due != other.due


@pytest.mark.parametrize("name", SCENARIOS)
def test_arrivals_follow_the_scenario(name):
    scenario = SCENARIOS[name]
    plan = scenario.plan(80, 1, 0.0)
    start, end = scenario.calm_s, scenario.calm_s + scenario.event_s
    base = LOAD * 20.0 * scenario.event_s * scenario.factor

    assert list(plan.due) == sorted(plan.due)
    assert 0 <= plan.due[0] < plan.due[-1] < end + scenario.after_s
    assert due_of(plan, NEED_LANE, start, end) == pytest.approx(base, rel=0.2)
    assert due_of(plan, FREE_LANE, start, end) == pytest.approx(base * scenario.innocents, rel=0.2)
    assert due_of(plan, NEED_LANE, 0, start) == pytest.approx(LOAD * 20.0 * start, rel=0.3)


def test_a_request_names_the_path_of_its_kind_and_wants_no_connection_kept():
    plan = SPIKE.plan(80, 1, 0.0)

    for lane, request in zip(plan.lanes, plan.requests, strict=True):
        assert request.startswith(b"GET /need HTTP/1.1\r\n" if lane == NEED_LANE else b"GET /free HTTP/1.1\r\n")
        assert b"Connection: close\r\n" in request


@pytest.mark.parametrize(("name", "retries"), [("spike", 0), ("down", 0), ("retries", 3), ("minute", 3)])
def test_users_retry_where_the_scenario_says_so(name, retries):
    assert SCENARIOS[name].plan(80, 1, 0.0).retries == retries


class Call:
    def __init__(self, which, attempt):
        self.which, self.attempt = which, attempt


def insisting(share, seed=1):
    generator = Generator(Plan(80, 1.0, array("d"), [], array("l"), retries=3, retry_share=share, seed=seed))
    return [which for which in range(1000) if generator._insists(Call(which, 0))]


def test_a_share_of_those_who_failed_asks_again_the_same_ones_each_time():
    assert len(insisting(RETRY_SHARE)) == pytest.approx(700, abs=50)
    assert insisting(RETRY_SHARE) == insisting(RETRY_SHARE)
    assert insisting(RETRY_SHARE) != insisting(RETRY_SHARE, seed=2)


@pytest.mark.parametrize(("share", "count"), [(1.0, 1000), (0.0, 0)])
def test_all_or_nobody_asks_again(share, count):
    assert len(insisting(share)) == count


@contextmanager
def answering(status):
    """Serve this status to everybody, a connection each; yields the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock:
                sock.recv(4096)
                sock.sendall(b"HTTP/1.1 %d So\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # wakes accept, which close alone does not
        listener.close()
        thread.join()


@pytest.mark.parametrize(("status", "share", "attempts"), [(503, 1.0, 9), (503, 0.0, 3), (200, 1.0, 3)])
def test_only_who_failed_asks_again_and_not_for_ever(status, share, attempts):
    with answering(status) as port:
        due = array("d", [0.0, 0.0, 0.01])
        plan = Plan(port, 30.0, due, [b"GET / HTTP/1.1\r\n\r\n"] * 3, array("l", [0, 1, 0]), retries=2)
        outcome = Generator(replace(plan, retry_share=share, backoff_s=0.001)).run()

    assert len(outcome.which) == attempts
    assert set(outcome.status) == {status}
    assert sum(outcome.final) == 3


def test_nobody_asks_again_after_the_end():
    with answering(503) as port:
        plan = Plan(port, 30.0, array("d", [0.0]), [b"GET / HTTP/1.1\r\n\r\n"], array("l", [0]), retries=9)
        outcome = Generator(replace(plan, backoff_s=60.0, until_s=30.0)).run()

    assert list(outcome.final) == [True]


def test_nothing_is_sent_before_the_moment_agreed_on():
    with answering(200) as port:
        begin = monotonic() + 0.3
        plan = Plan(port, 30.0, array("d", [0.0]), [b"GET / HTTP/1.1\r\n\r\n"], array("l", [0]), begin=begin)
        outcome = Generator(plan).run()

    assert monotonic() >= begin
    assert outcome.lag[0] >= 0
    assert list(outcome.due) == [0.0]


def test_plan_and_outcome_survive_their_files(tmp_path):
    plan = SCENARIOS["retries"].plan(4711, 3, 12.5)
    outcome = Outcome()
    for name, values in {"which": [0, 1], "due": [0.5, 1.5], "latency": [0.1, 1.0], "status": [200, LATE]}.items():
        getattr(outcome, name).extend(values)

    write_plan(plan, tmp_path / "plan.json")
    write_outcome(outcome, tmp_path / "outcome.json")

    assert read_plan(tmp_path / "plan.json") == plan
    assert read_outcome(tmp_path / "outcome.json") == outcome


class Options:
    def __init__(self, **given):
        self.quick = self.minute = False
        self.services = self.scenario = self.variant = None
        vars(self).update(given)


def planned(**given):
    return [(scenario.name, services, variant) for scenario, services, variant in _planned(Options(**given))]


def test_everything_but_the_minute_runs_on_both_chains():
    runs = planned()

    assert {name for name, _, _ in runs} == set(SCENARIOS) - {"minute"}
    assert {services for _, services, _ in runs} == {3, 5}
    assert ("spike", 5, Variant.NONE) in runs
    assert ("down", 5, Variant.NONE) not in runs
    assert len(runs) == len(set(runs))


def test_quick_is_three_services_with_and_without_the_annotation():
    runs = planned(quick=True)

    assert {services for _, services, _ in runs} == {3}
    assert {variant for _, _, variant in runs} == {Variant.GROUNDFAULT, Variant.PLAIN}
    assert {name for name, _, _ in runs} == set(SCENARIOS) - {"minute"}
    assert sum(scenario.curve.total_s for scenario, _, _ in _planned(Options(quick=True))) < 140  # of 180 s


def test_the_minute_comes_on_demand():
    assert [run for run in planned(minute=True) if run[0] == "minute"]
    assert {run[0] for run in planned(scenario=["minute"])} == {"minute"}
    assert planned(scenario=["minute"], services=[5], variant=["none"]) == [("minute", 5, Variant.NONE)]
