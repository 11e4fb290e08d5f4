"""Plain functions on threads of their own. Nothing here waits but for events that the test itself brings about."""

import contextlib
import contextvars
import gc
import os
import threading
import weakref

import pytest

from groundfault import _context, events
from groundfault.errors import BulkheadFullError, CommandTimeoutError
from groundfault.events import CommandDone
from groundfault.vocabulary import Mode, Outcome, State

BOUND_S = 10.0
SOON_S = 0.01


class Hanging:
    """A function that hangs until it is let go."""

    def __init__(self):
        self.begun = threading.Event()
        self.go = threading.Event()
        self.ended = threading.Event()

    def __call__(self, answer="late"):
        self.begun.set()
        assert self.go.wait(BOUND_S)
        self.ended.set()
        if isinstance(answer, BaseException):
            raise answer
        return answer


def settled(command, in_flight):
    """Wait until so many calls are in flight: a thread gives its place back just after its function has ended."""
    for thread in threading.enumerate():
        if thread.name == "groundfault-call":
            thread.join(BOUND_S)
    return command.snapshot().in_flight == in_flight


@pytest.fixture
def isolated(resource):
    return resource.command("c", isolation="thread", timeout_s=SOON_S, minimum_volume_per_s=0.0)


@pytest.fixture
def patient(resource):
    return resource.command("patient", isolation="thread", timeout_s=60.0)


def test_a_call_runs_on_a_thread_of_its_own_and_ends_as_it_would_here(patient, sink):
    ident, answer = patient.call(lambda a, *, b: (threading.get_ident(), a + b), 1, b=2)
    assert (ident != threading.get_ident(), answer) == (True, 3)
    original = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        patient.call(Hanging.__call__, _Ready(), original)
    assert caught.value is original
    assert [event.outcome for event in sink.of(CommandDone)] == [Outcome.SUCCESS, Outcome.FAILURE]
    assert settled(patient, 0)


class _Ready(Hanging):
    def __init__(self):
        super().__init__()
        self.go.set()


def test_a_call_that_hangs_is_given_up_and_counts_as_a_timeout(isolated, sink):
    hanging = Hanging()
    with pytest.raises(CommandTimeoutError, match=r"saber/c took longer than its timeout of 0\.01 s"):
        isolated.call(hanging)
    assert not hanging.ended.is_set()
    assert sink.of(CommandDone)[-1].outcome is Outcome.TIMEOUT
    assert isolated.snapshot().state is State.OPEN  # one is enough where no volume is asked for
    hanging.go.set()
    assert settled(isolated, 0)
    assert hanging.ended.is_set()


def test_it_keeps_its_place_until_it_really_ends(resource):
    command = resource.command("five", isolation="thread", timeout_s=SOON_S, max_concurrent=2)
    hanging = [Hanging(), Hanging()]
    for one in hanging:
        with pytest.raises(CommandTimeoutError):
            command.call(one)
    with pytest.raises(BulkheadFullError):
        command.call(int)
    for one in hanging:
        one.go.set()
    assert settled(command, 0)
    command.tune(timeout_s=60.0)
    assert command.call(lambda: 1) == 1


def test_what_comes_after_that_is_nobody_s(isolated):
    hanging = Hanging()
    with pytest.raises(CommandTimeoutError):
        isolated.call(hanging, ValueError())
    hanging.go.set()
    assert settled(isolated, 0)
    assert isolated.snapshot().totals[Outcome.FAILURE] == 0


@pytest.mark.parametrize(
    ("timeout_s", "left_s", "outcome"),
    [(60.0, SOON_S, Outcome.IGNORED), (None, SOON_S, Outcome.IGNORED), (SOON_S, 60.0, Outcome.TIMEOUT)],
)
def test_the_budget_of_the_request_being_served_caps_it(resource, sink, timeout_s, left_s, outcome, clock):
    command = resource.command("capped", isolation="thread", timeout_s=timeout_s)
    hanging = Hanging()
    token = _context.serving.set(_context.RequestContext("s", deadline=clock() + left_s))
    try:
        with pytest.raises(CommandTimeoutError):
            command.call(hanging)
    finally:
        _context.serving.reset(token)
        hanging.go.set()
    assert sink.of(CommandDone)[-1].outcome is outcome


def test_it_sees_the_context_of_its_caller(patient):
    variable = contextvars.ContextVar("variable")
    variable.set("here")
    assert patient.call(variable.get) == "here"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_what_is_no_exception_is_raised_here_and_is_neutral(patient, sink, error):
    def leave():
        raise error

    with pytest.raises(type(error)) as caught:
        patient.call(leave)
    assert caught.value is error
    assert sink.of(CommandDone)[-1].outcome is Outcome.IGNORED


def test_a_decorated_function_and_shadow_mode_as_well(resource, clock, trip):
    command = resource.command("c", isolation="thread", mode=Mode.SHADOW)
    here = threading.get_ident()
    trip(command)
    assert command(threading.get_ident)() != here
    assert command.snapshot().state is State.OPEN
    assert settled(command, 0)


def test_where_no_thread_can_be_had_it_is_called_here(patient, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    before = events.internal_errors().get("thread for a call", 0)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert patient.call(threading.get_ident) == threading.get_ident()
    assert events.internal_errors()["thread for a call"] == before + 1
    assert patient.snapshot().in_flight == 0


def test_an_interruption_while_the_thread_is_started_loses_no_place(patient, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupt)
        with pytest.raises(KeyboardInterrupt):
            patient.call(int)
    assert patient.snapshot().in_flight == 0


def test_an_error_is_let_go_without_the_garbage_collector(patient):
    """Its traceback holds the frames that it came through, so it must not be held by them."""

    class Thing:
        pass

    def fail(thing):
        raise ValueError(thing)

    thing = Thing()
    there = weakref.ref(thing)
    gc.disable()
    try:
        with contextlib.suppress(ValueError):
            patient.call(fail, thing)
        assert settled(patient, 0)
        del thing
        assert there() is None
    finally:
        gc.enable()


def test_tuned_while_in_use(resource):
    command = resource.command("c")
    here = threading.get_ident()
    assert command.call(threading.get_ident) == here
    command.tune(isolation="thread")
    assert command.call(threading.get_ident) != here
    command.tune(isolation="caller")
    assert command.call(threading.get_ident) == here


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_while_one_hangs_leaves_a_child_with_nothing_in_flight(resource):
    command = resource.command("c", isolation="thread", timeout_s=SOON_S, max_concurrent=1)
    hanging = Hanging()
    with pytest.raises(CommandTimeoutError):
        command.call(hanging)
    child = os.fork()
    if not child:
        code = 1
        try:
            command.tune(timeout_s=BOUND_S)
            code = 0 if command.call(lambda: 7) == 7 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    hanging.go.set()
    assert settled(command, 0)
