"""Threads, forks, signals and what an idle command costs."""

import contextlib
import os
import signal
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from groundfault import breaker
from groundfault._clock import monotonic
from groundfault.breaker import Registry, Resource
from groundfault.errors import BulkheadFullError, CircuitOpenError, RejectedError
from groundfault.vocabulary import Outcome, Reason, State
from groundfault.wire import Refusal

BOUND_S = 20.0


@pytest.fixture
def resource():
    """Return a resource on the real clock, without sinks."""
    return Resource("saber", registry=Registry(), sinks=[])


@pytest.fixture
def hurried():
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def in_threads(count, work):
    errors = []

    def run(n):
        try:
            work(n)
        except BaseException as error:  # noqa: BLE001  carried over to the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=BOUND_S)
    assert not any(thread.is_alive() for thread in threads)
    assert errors == []


def test_eight_threads_of_50_ms_take_50_ms(resource):
    """No lock is held while the function runs; a breaker that holds one takes 400 ms."""
    command = resource.command("c", max_concurrent=8)
    started = monotonic()
    in_threads(8, lambda n: command.call(time.sleep, 0.05))
    assert 0.05 <= monotonic() - started < 0.25


def test_the_function_and_its_fallback_may_ask_the_command_from_another_thread(resource):
    def ask():
        seen = []
        in_threads(1, lambda n: seen.append(command.snapshot().in_flight))
        return seen

    def ask_and_fail():
        ask()
        fail()

    command = resource.command("c", fallback=ask)
    assert command.call(ask) == [1]
    assert command.call(ask_and_fail) == [0]


@pytest.mark.usefixtures("hurried")
def test_every_success_of_every_thread_is_counted_once(resource):
    command = resource.command("c", max_concurrent=100)
    in_threads(8, lambda n: [command.call(int) for _ in range(3000)])
    snapshot = command.snapshot()
    assert snapshot.totals[Outcome.SUCCESS] == 24_000
    assert snapshot.in_flight == 0


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("limit", [1, 2, 5])
def test_never_more_than_the_limit_and_never_a_place_lost(resource, limit):
    command = resource.command("c", max_concurrent=limit)
    inside, most, refused = [], [], []

    def fn():
        inside.append(None)
        most.append(len(inside))
        time.sleep(0)
        inside.pop()

    def work(n):
        for _ in range(400):
            try:
                command.call(fn)
            except BulkheadFullError:
                refused.append(None)

    in_threads(6, work)
    assert max(most) <= limit
    snapshot = command.snapshot()
    assert snapshot.in_flight == 0
    assert snapshot.totals[Outcome.SUCCESS] == len(most)
    assert snapshot.totals[Outcome.BULKHEAD_FULL] == len(refused)
    assert len(most) + len(refused) == 2400


@pytest.mark.usefixtures("hurried")
def test_of_a_hundred_waiting_calls_one_is_the_probe(resource):
    for n in range(5):
        command = resource.command(f"c{n}", sleep_window_s=0.001)
        for _ in range(20):
            command.begin().settle(Outcome.FAILURE)
        time.sleep(0.0011)
        command.tune(sleep_window_s=5.0)
        barrier, made, go = threading.Barrier(20), [], threading.Event()

        def probe(made=made, go=go):
            made.append(None)
            go.wait(BOUND_S)

        def work(n, command=command, barrier=barrier, probe=probe, go=go):
            barrier.wait(BOUND_S)
            try:
                command.call(probe)
            except CircuitOpenError:
                if command.snapshot().totals[Outcome.CIRCUIT_OPEN] == 19:
                    go.set()

        in_threads(20, work)
        assert len(made) == 1
        assert command.snapshot().state is State.CLOSED


# Forks.


def in_child(work):
    """Run in a forked child; return its exit code, or fail if it hangs."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = work() or 0
        finally:
            os._exit(code)
    ends_at = monotonic() + BOUND_S
    while monotonic() < ends_at:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("the child hangs")


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_works_whatever_other_threads_were_doing(resource):
    """The parent's threads hammer the gate, so that some forks happen while its lock is held."""
    command = resource.command("c", max_concurrent=3, mode="force_closed")
    stop = threading.Event()

    def hammer():
        while not stop.is_set():
            with contextlib.suppress(ConnectionError, RejectedError):
                command.call(fail)

    def child():
        if command.snapshot().in_flight or sum(command.snapshot().totals.values()):
            return 2
        held = [command.begin() for _ in range(3)]
        for attempt in held:
            attempt.settle(Outcome.SUCCESS)
        return 0 if command.snapshot().totals[Outcome.SUCCESS] == 3 else 3

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert {in_child(child) for _ in range(25)} == {0}
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=BOUND_S)
    assert command.snapshot().in_flight == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_call_of_another_thread_is_not_in_flight_in_a_child(resource):
    command = resource.command("c", max_concurrent=1)
    inside, go = threading.Event(), threading.Event()

    def park():
        inside.set()
        go.wait(BOUND_S)

    thread = threading.Thread(target=command.call, args=(park,))
    thread.start()
    assert inside.wait(BOUND_S)
    try:
        assert in_child(lambda: command.snapshot().in_flight + command.call(int)) == 0
        assert command.snapshot().in_flight == 1
    finally:
        go.set()
        thread.join(timeout=BOUND_S)
    assert command.snapshot().in_flight == 0


@pytest.mark.parametrize("how", ["call", "attempt", "decorated"])
def test_a_fork_inside_a_call_leaves_both_sides_working(resource, how):
    command = resource.command("c", max_concurrent=2)
    pid = None
    if how == "call":
        pid = command.call(os.fork)
    elif how == "decorated":
        pid = command(os.fork)()
    else:
        with command.attempt():
            pid = os.fork()
    if pid == 0:
        os._exit(10 + command.snapshot().in_flight)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 10
    assert command.snapshot().in_flight == 0
    assert command.snapshot().totals[Outcome.SUCCESS] == 1


def test_an_open_circuit_stays_open_in_a_child_and_a_probe_of_the_parent_s_does_not_hold_it(resource):
    command = resource.command("c", sleep_window_s=0.001)
    for _ in range(20):
        command.begin().settle(Outcome.FAILURE)
    time.sleep(0.0011)
    probe = command.begin()
    command.tune(sleep_window_s=5.0)

    def child():
        if command.snapshot().state is not State.HALF_OPEN:
            return 2
        command.call(int)
        return 0 if command.snapshot().state is State.CLOSED else 3

    assert in_child(child) == 0
    probe.settle(Outcome.SUCCESS)


# Signals.


@pytest.fixture
def alarm():
    """Return a function that sends this process one signal after some seconds, to the handler set with ``handle``.

    One at a time: a timer that repeats can be faster than a slow machine, and then nothing else gets done.
    """
    before = signal.getsignal(signal.SIGALRM)

    def alarm(after_s, handler=None):
        if handler is not None:
            signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, after_s)

    yield alarm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def fail():
    raise ConnectionError


def test_a_signal_handler_may_make_a_protected_call(resource, alarm):
    """Also while its own thread is inside the gate, which every failing call here passes."""
    command = resource.command("c", mode="force_closed")
    handled = []

    def handler(signum, frame):
        with contextlib.suppress(ConnectionError):
            command.call(fail)
        handled.append(None)
        alarm(0.0003)

    alarm(0.0003, handler)
    ends_at = monotonic() + BOUND_S
    made = 0
    while len(handled) < 500 and monotonic() < ends_at:
        with contextlib.suppress(ConnectionError):
            command.call(fail)
        made += 1
    alarm(0)
    snapshot = command.snapshot()
    assert len(handled) >= 500
    assert snapshot.in_flight == 0
    # A handler that comes in the middle of an addition may cost a count, nothing else.
    missing = made + len(handled) - snapshot.totals[Outcome.FAILURE]
    assert 0 <= missing <= len(handled) / 10


class InterruptError(BaseException):
    """What the handler raises, anywhere."""


@pytest.mark.parametrize("attended", [False, True])
def test_a_signal_handler_that_raises_leaves_a_usable_command(resource, alarm, attended):
    """A thousand times, in the middle of whatever the command is doing."""
    command = resource.command("c", max_concurrent=1000, sleep_window_s=0.001)
    if attended:
        command.tune(mode="force_closed")
        command.begin().settle(Outcome.SHED, refusal=Refusal(Reason.QUEUE_WAIT))  # until the next success
    interrupted = 0
    room = str(Path(breaker.__file__).parent)

    def handler(signum, frame):
        if frame.f_code.co_filename.startswith(room):
            raise InterruptError
        alarm(0.00003)  # not in the lines of the test's own tools, which promise nothing: try again in a moment

    def work():
        for _ in range(100_000):
            with contextlib.suppress(ConnectionError, RejectedError):
                command.call(fail if attended else int)
                command.call(fail)

    for n in range(1000):
        try:
            alarm(0.0001 + n % 37 * 1e-5, handler)
            work()
        except InterruptError:
            interrupted += 1
        finally:
            alarm(0)
    assert interrupted > 900
    # Between two instructions of the interpreter's nothing is lost; between two lines, where a tracer looks, it may be.
    assert command.snapshot().in_flight <= (interrupted / 100 if sys.gettrace() is None else interrupted / 3)
    command.tune(mode="enforce")
    ends_at = monotonic() + BOUND_S
    while command.snapshot().state is not State.CLOSED and monotonic() < ends_at:
        with contextlib.suppress(RejectedError):
            command.call(int)
    assert command.snapshot().state is State.CLOSED
    assert command.call(lambda: "done") == "done"


# What it costs to have many.


def test_an_idle_command_takes_less_than_two_kibibytes():
    registry = Registry(limit=10_000)
    Resource("warm", registry=registry).command("up").call(int)
    resource = Resource("saber", registry=registry, sinks=[])
    names = [f"c{n}" for n in range(500)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for name in names:
            resource.command(name)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 500 < (after - before) / len(names) < 2048


def test_no_command_starts_a_thread(resource):
    before = threading.active_count()
    for n in range(50):
        resource.command(f"c{n}").call(int)
    assert threading.active_count() == before
