"""A health check runs on a thread of its own; nothing here waits for it but the test, on events."""

import contextlib
import threading

import pytest

from groundfault.errors import CircuitOpenError, UnhealthyError
from groundfault.events import CircuitChanged, CommandDone, HealthChanged
from groundfault.vocabulary import Outcome, State

BOUND_S = 10.0


class Check:
    """A health check whose runs the test lets go one by one."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.runs = 0
        self.runner = None

    def __call__(self):
        self.runs += 1
        self.runner = threading.current_thread()
        self.begun.release()
        assert self.go.acquire(timeout=BOUND_S)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.fixture
def let_go():
    """Return a function that lets one run end and waits until its answer stands."""

    def let_go(check):
        assert check.begun.acquire(timeout=BOUND_S)
        check.go.release()
        check.runner.join(timeout=BOUND_S)
        assert not check.runner.is_alive()

    return let_go


@pytest.mark.parametrize("answer", [False, 0, None, ValueError(), SystemExit()])
def test_a_no_refuses_calls_and_is_neutral(way, resource, sink, clock, let_go, answer):
    check = Check(answer, True)
    command = resource.command("c", health_check=check)
    assert way(command) == "done"  # before the first answer it is taken to be healthy
    let_go(check)
    assert not command.snapshot().healthy
    for _ in range(50):
        with pytest.raises(UnhealthyError, match="saber/c was not called: its health check fails"):
            way(command)
    snapshot = command.snapshot()
    assert (snapshot.counts[Outcome.UNHEALTHY], snapshot.state, snapshot.in_flight) == (50, State.CLOSED, 0)
    assert sink.of(CommandDone)[-1].outcome is Outcome.UNHEALTHY
    assert check.runs == 1
    clock.advance(1.0)
    with pytest.raises(UnhealthyError):
        way(command)  # the last known answer stands while the next one is being found
    let_go(check)
    assert way(command) == "done"
    assert check.runs == 2


def test_the_answer_is_cached_and_calls_run_the_plain_course(resource, clock, let_go):
    check = Check(True, True)
    command = resource.command("c", health_check=check, health_check_ttl_s=3.0)
    command.call(int)
    let_go(check)
    period = command._gate.period
    assert period.quiet_limit > 0
    for _ in range(10):
        command.call(int)
        clock.advance(0.29)
    assert command._gate.period is period
    assert check.runs == 1
    clock.advance(0.2)
    command.call(int)
    let_go(check)
    assert check.runs == 2


def test_a_check_that_hangs_holds_up_nothing_and_runs_once(way, resource, clock, let_go):
    check = Check(True)
    command = resource.command("c", health_check=check)
    for _ in range(20):
        assert way(command) == "done"
        clock.advance(5.0)
    let_go(check)
    assert check.runs == 1


def test_the_health_check_is_asked_after_the_circuit_and_before_the_probe_is_leased(resource, clock, trip, let_go):
    check = Check(False, True)
    command = resource.command("c", health_check=check)
    trip(command)
    let_go(check)
    clock.advance(3.75)
    with pytest.raises(UnhealthyError):
        command.call(int)
    assert command.snapshot().state is State.OPEN  # no probe was sent
    let_go(check)
    assert command.call(lambda: 1) == 1
    assert command.snapshot().state is State.CLOSED


def test_tuning_replaces_the_check(resource, let_go):
    check = Check(False)
    command = resource.command("c", health_check=check)
    command.call(int)
    let_go(check)
    with pytest.raises(UnhealthyError):
        command.call(int)
    command.tune(health_check=None)
    assert command.call(lambda: 1) == 1


def test_no_thread_to_be_had_leaves_the_last_answer(way, resource, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    command = resource.command("c", health_check=lambda: False)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert way(command) == "done"
    assert command.snapshot().healthy


@pytest.fixture
def checked(resource, trip, clock, let_go):
    """Return a function that makes a command whose circuit is open and whose sleep window is just over."""

    def checked(check, **settings):
        command = resource.command("c", health_check=check, probe="health_check", **settings)
        trip(command)
        let_go(check)  # the run that the first call asked for
        clock.advance(3.75)
        return command

    return checked


@pytest.mark.parametrize("before", [False, True])
def test_as_the_probe_it_closes_the_circuit_and_no_call_is_risked(way, checked, let_go, before):
    check = Check(before, True)
    command = checked(check)
    called = []
    for _ in range(3):
        with pytest.raises(CircuitOpenError, match=r"next probe in 0\.0 s"):
            way(command, called.append, 1)
    assert command.snapshot().state is State.HALF_OPEN
    let_go(check)
    snapshot = command.snapshot()
    assert (snapshot.state, snapshot.counts[Outcome.SUCCESS], called, check.runs) == (State.CLOSED, 0, [], 2)
    assert way(command) == "done"


@pytest.mark.parametrize("answer", [False, OSError()])
def test_as_the_probe_it_lengthens_the_sleep_window(checked, clock, let_go, sink, answer):
    check = Check(True, answer, True)
    command = checked(check)
    with pytest.raises(CircuitOpenError):
        command.call(int)
    let_go(check)
    snapshot = command.snapshot()
    assert (snapshot.state, snapshot.sleep_window_s) == (State.OPEN, 7.5)
    assert snapshot.totals[Outcome.FAILURE] == 20  # it was no call
    assert sink.of(CircuitChanged)[-1].new is State.OPEN
    clock.advance(7.5)
    with pytest.raises(CircuitOpenError):
        command.call(int)
    let_go(check)
    assert command.snapshot().state is State.CLOSED


def test_as_the_probe_one_that_hangs_costs_a_lease_and_the_next_probe_is_a_call(checked, clock, let_go):
    check = Check(True, False, True)
    command = checked(check)
    for _ in range(3):
        with pytest.raises(CircuitOpenError):
            command.call(int)
        clock.advance(1.7)
    assert command.call(lambda: "done") == "done"
    assert (command.snapshot().state, check.runs) == (State.CLOSED, 2)
    let_go(check)  # what it says at last is stale
    assert command.snapshot().state is State.CLOSED


def test_as_the_probe_its_answer_counts_after_its_lease(checked, clock, let_go):
    check = Check(True, True)
    command = checked(check)
    with pytest.raises(CircuitOpenError):
        command.call(int)
    clock.advance(5.0)
    attempt = command.begin()  # the next probe, which is not back yet
    let_go(check)
    assert command.snapshot().state is State.CLOSED
    attempt.settle(Outcome.FAILURE)
    assert command.snapshot().state is State.CLOSED


def test_as_the_probe_an_answer_asked_for_before_the_trip_is_not_taken(resource, trip, clock, let_go):
    check = Check(True, False)
    command = resource.command("c", health_check=check, probe="health_check")
    trip(command)  # the run that the first of these calls has begun is still under way
    clock.advance(3.75)
    with pytest.raises(CircuitOpenError):
        command.call(int)
    assert check.begun.acquire(timeout=BOUND_S)
    check.go.release()
    let_go(check)  # another has followed
    assert (command.snapshot().state, check.runs) == (State.OPEN, 2)


def test_as_the_probe_its_answer_moves_nothing_after_the_circuit_has_moved(checked, let_go):
    check = Check(True, False)
    command = checked(check)
    with pytest.raises(CircuitOpenError):
        command.call(int)
    command.tune(probe="call")
    permit = command._gate._circuit._probe
    command._gate._checked(permit, True)
    assert command.snapshot().state is State.CLOSED
    let_go(check)
    assert command.snapshot().state is State.CLOSED


def test_as_the_probe_in_shadow_mode_calls_go_on(checked, let_go):
    check = Check(True, True)
    command = checked(check, mode="shadow")
    assert command.call(lambda: "done") == "done"
    assert command.snapshot().state is State.HALF_OPEN
    let_go(check)
    assert command.snapshot().state is State.CLOSED


def test_as_the_probe_without_a_thread_to_be_had_the_next_lease_asks_again(checked, clock, let_go, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    check = Check(True, True)
    command = checked(check)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(CircuitOpenError):
            command.call(int)
    clock.advance(5.0)
    with pytest.raises(CircuitOpenError):
        command.call(int)
    let_go(check)
    assert command.snapshot().state is State.CLOSED


@pytest.mark.parametrize("settings", [{}, {"probe": "health_check"}])
def test_a_no_lapses_when_the_next_answer_does_not_come(resource, clock, let_go, settings, sink):
    check = Check(False, True)
    command = resource.command("c", health_check=check, **settings)
    command.call(int)
    let_go(check)
    clock.advance(1.0)
    with pytest.raises(UnhealthyError):
        command.call(int)  # begins a run, which hangs
    clock.advance(4.9)
    with pytest.raises(UnhealthyError):
        command.call(int)
    clock.advance(0.2)
    assert command.call(lambda: "done") == "done"
    let_go(check)


def test_as_the_probe_a_no_and_then_silence_do_not_keep_the_circuit_open(checked, clock, let_go):
    check = Check(False, True)
    command = checked(check)
    with pytest.raises(CircuitOpenError):
        command.call(int)  # its probe hangs
    clock.advance(5.1)
    assert command.call(lambda: "done") == "done"
    assert command.snapshot().state is State.CLOSED
    let_go(check)


def test_another_answer_than_before_is_news(resource, sink, clock, let_go):
    check = Check(True, OSError(), False, True)
    command = resource.command("c", health_check=check)
    for _ in range(4):
        with contextlib.suppress(UnhealthyError):
            command.call(int)
        let_go(check)
        clock.advance(1.0)
    assert [(event.healthy, event.error) for event in sink.of(HealthChanged)] == [(False, "OSError"), (True, None)]
