"""A sink that may wait has a thread of its own; whatever it or the process does, no call feels it."""

import logging
import os
import signal
import subprocess
import sys
import threading
from unittest.mock import Mock

import pytest

from groundfault import events
from groundfault import sinks as sinks_module
from groundfault.events import CircuitChanged, CommandDone
from groundfault.sinks import Background, Sinks, flush
from groundfault.vocabulary import Outcome, State

LONG_S = 20.0  # for what takes a moment; the machine may stand still


def call(number=0):
    return CommandDone("saber", "get", Outcome.SUCCESS, float(number))


TRIPPED = CircuitChanged("saber", "get", State.CLOSED, State.OPEN, failures=12, volume=20, sleep_window_s=5.0)


class Slow:
    """A sink that waits until it is let go, and says on which thread it was told."""

    def __init__(self):
        self.told = []
        self.threads = set()
        self.began = threading.Event()
        self.go = threading.Event()

    def __call__(self, event):
        self.began.set()
        assert self.go.wait(LONG_S)
        self.threads.add(threading.current_thread())
        self.told.append(event)


@pytest.fixture
def slow():
    sink = Slow()
    yield sink
    sink.go.set()


@pytest.fixture
def quick(monkeypatch):
    """Let threads without work end at once."""
    monkeypatch.setattr(sinks_module, "_IDLE_S", 0.001)


def until(condition):
    waited = threading.Event()
    for _ in range(int(LONG_S / 0.005)):
        if condition():
            return
        waited.wait(0.005)
    raise AssertionError("it never came to that")


# --- telling ----------------------------------------------------------------------------------------------------------


def test_a_waiting_sink_is_told_in_order_on_a_thread_of_its_own(slow):
    sinks = Sinks(slow)
    sent = [call(1), TRIPPED, call(2)]
    sinks.command(sent[0])
    sinks.change(sent[1])
    sinks.command(sent[2])
    assert slow.told == []  # nobody has waited for it
    slow.go.set()
    assert flush(LONG_S)
    assert slow.told == sent
    (thread,) = slow.threads
    assert thread is not threading.current_thread()
    assert (thread.daemon, thread.name) == (True, "groundfault-Slow")


def test_no_event_is_no_thread(slow):
    before = threading.active_count()
    background = Background(slow)
    assert threading.active_count() == before
    assert not background.is_pending
    assert flush(LONG_S)


def test_flushing_in_vain_says_so(slow):
    background = Background(slow)
    background(call())
    assert not background.flush(0.0)
    assert not flush(0.0)
    slow.go.set()
    assert background.flush(LONG_S)


def test_one_thread_serves_all_events(slow):
    slow.go.set()
    background = Background(slow)
    for number in range(5):
        background(call(number))
        assert background.flush(LONG_S)
    assert len(slow.threads) == 1


def test_a_thread_without_work_ends_and_the_next_event_begins_another(slow, quick):
    slow.go.set()
    background = Background(slow)
    background(call(1))
    until(lambda: not background.is_pending)
    (first,) = slow.threads
    first.join(LONG_S)
    assert not first.is_alive()
    background(call(2))
    assert background.flush(LONG_S)
    assert [event.duration_s for event in slow.told] == [1.0, 2.0]
    assert len(slow.threads) == 2


def test_nothing_is_lost_or_told_twice_while_threads_come_and_go(quick, monkeypatch):
    """Eight threads cause events; the thread that tells ends at every chance."""
    monkeypatch.setattr(sinks_module, "_IDLE_S", 0.0)
    told = []
    background = Background(lambda event: told.append(event.duration_s), capacity=10**6)
    pause = threading.Event()

    def cause(first):
        for number in range(first, first + 500):
            background(call(number))
            if number % 7 == 0:
                pause.wait(0.0002)

    causes = [threading.Thread(target=cause, args=(1000 * each,)) for each in range(8)]
    for each in causes:
        each.start()
    for each in causes:
        each.join(LONG_S)
    assert background.flush(LONG_S)
    assert sorted(told) == sorted(float(1000 * each + number) for each in range(8) for number in range(500))


# --- what finds no place ----------------------------------------------------------------------------------------------


def test_beyond_its_capacity_calls_are_lost_and_counted_and_changes_are_not(slow, caplog):
    background = Background(slow, capacity=3)
    sinks = Sinks(background)
    sinks.command(call(0))
    assert slow.began.wait(LONG_S)  # it has the first one; three may wait
    for number in range(1, 6):
        sinks.command(call(number))
    sinks.change(TRIPPED)
    assert background.lost == 2
    assert events.internal_errors() == {"sink Slow": 2}
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    slow.go.set()
    assert background.flush(LONG_S)
    assert slow.told == [call(0), call(1), call(2), call(3), TRIPPED]


def test_changes_too_have_an_end(slow, monkeypatch):
    monkeypatch.setattr(sinks_module, "_SPARE", 2)
    background = Background(slow, capacity=1)
    background(call(0))
    assert slow.began.wait(LONG_S)
    for _ in range(3):
        background(TRIPPED)
    with pytest.raises(BufferError, match="1 events wait for it; 1 more are lost"):
        background(TRIPPED)
    assert background.lost == 1


def test_threads_count_what_is_lost_together(slow):
    background = Background(slow, capacity=1)
    background(call())
    assert slow.began.wait(LONG_S)
    background(call())

    def lose():
        for _ in range(500):
            with pytest.raises(BufferError):
                background(call())

    threads = [threading.Thread(target=lose) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(LONG_S)
    assert background.lost == 2000


def test_a_capacity_is_at_least_one(slow):
    with pytest.raises(ValueError, match="capacity must be at least 1, not 0"):
        Background(slow, capacity=0)


# --- sinks that fail --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError("sink"), SystemExit(1), KeyboardInterrupt()])
def test_what_a_sink_raises_ends_neither_its_thread_nor_the_process(error, slow):
    def sink(event):
        if event is TRIPPED:
            raise error
        slow(event)

    slow.go.set()
    background = Background(sink)
    for event in (call(1), TRIPPED, call(2)):
        background(event)
    assert background.flush(LONG_S)
    assert slow.told == [call(1), call(2)]
    assert len(slow.threads) == 1
    assert events.internal_errors() == {"sink sink": 1}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_should_its_thread_end_all_the_same_the_next_event_begins_another(slow, monkeypatch):
    """As where a handler of the application's log raises SystemExit."""

    def last_straw(where, error):
        raise SystemExit

    slow.go.set()
    ended = []

    def sink(event):
        if event is TRIPPED:
            ended.append(threading.current_thread())
            raise RuntimeError("sink")
        slow(event)

    monkeypatch.setattr(sinks_module, "note_internal_error", last_straw)
    background = Background(sink)
    background(call(1))
    background(TRIPPED)
    until(lambda: not background.is_pending)
    ended[0].join(LONG_S)  # or it would end in the midst of the next test, and be laid to its charge
    background(call(2))
    assert background.flush(LONG_S)
    assert slow.told == [call(1), call(2)]


class Unnamable:
    """A sink that raises when asked for its name."""

    prompt = True

    @property
    def __name__(self):
        raise RuntimeError("name")

    def __call__(self, event):
        raise RuntimeError("sink")


def test_a_sink_that_cannot_even_be_named_is_isolated():
    Sinks(Unnamable()).change(TRIPPED)
    assert events.internal_errors() == {"sink Unnamable": 1}


# --- threads that cannot be had ---------------------------------------------------------------------------------------


def test_where_no_thread_can_be_had_the_event_waits_for_the_next_one(slow, monkeypatch):
    def exhausted(thread):
        raise RuntimeError("can't start new thread")

    slow.go.set()
    sinks = Sinks(slow)
    with monkeypatch.context() as exhaustion:
        exhaustion.setattr(threading.Thread, "start", exhausted)
        sinks.command(call(1))
        assert not flush(LONG_S)  # and does not wait for what cannot come
    assert events.internal_errors() == {"sink Slow": 1}
    sinks.command(call(2))
    assert flush(LONG_S)
    assert slow.told == [call(1), call(2)]


def test_a_signal_handler_that_raises_while_the_thread_starts_leaves_it_to_the_next_event(slow, monkeypatch):
    start = threading.Thread.start

    def interrupted(thread):
        start(thread)
        raise KeyboardInterrupt

    slow.go.set()
    background = Background(slow)
    with monkeypatch.context() as interruption:
        interruption.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            background(call(1))
    background(call(2))
    assert background.flush(LONG_S)
    until(lambda: len(slow.told) == 2)
    assert sorted(event.duration_s for event in slow.told) == [1.0, 2.0]


def test_a_signal_handler_may_cause_an_event_while_its_own_thread_is_in_here(slow, monkeypatch):
    start = threading.Thread.start
    slow.go.set()
    background = Background(slow)

    def signalled(thread):
        os.kill(os.getpid(), signal.SIGUSR1)
        start(thread)

    previous = signal.signal(signal.SIGUSR1, lambda *_: background(TRIPPED))
    try:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", signalled)
            background(call(1))
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert background.flush(LONG_S)
    assert slow.told == [call(1), TRIPPED]


# --- fork and exit ----------------------------------------------------------------------------------------------------


def test_what_is_queued_at_a_fork_is_told_by_the_parent_alone_and_the_child_begins_anew(slow):
    background = Background(slow, capacity=2)
    for number in range(4):
        with pytest.raises(BufferError) if number == 3 else Sentinel():
            background(call(number))
        assert slow.began.wait(LONG_S)
    assert background.lost == 1
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover  another process
        try:
            said = [background.lost, int(background.is_pending)]
            slow.go = threading.Event()
            slow.go.set()
            background(call(9))
            said += [int(background.flush(LONG_S)), *(int(event.duration_s) for event in slow.told)]
            os.write(writing, bytes(said))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        assert list(answer.read()) == [0, 0, 1, 9]
    os.waitpid(child, 0)
    slow.go.set()
    assert background.flush(LONG_S)
    assert [event.duration_s for event in slow.told] == [0.0, 1.0, 2.0]


class Sentinel:
    """A context in which nothing is raised."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


EXIT = """
import sys, threading, time
from groundfault.events import CommandDone
from groundfault.sinks import Sinks

def sink(event):
    {sink}
    print(event.duration_s, flush=True)

def other(event):
    print("other", flush=True)

sinks = Sinks(sink, other)
for number in range(3):
    sinks.command(CommandDone("saber", "get", "success", number))
{end}
"""


def run(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    ("sink", "end", "told"),
    [
        pytest.param("time.sleep(0.02)", "", 3, id="slow"),
        pytest.param("time.sleep(0.02)", "sys.exit(0)", 3, id="sys.exit"),
        pytest.param("time.sleep(0.02)", "import os; os._exit(0)", 0, id="os._exit"),
        pytest.param(
            "time.sleep(0.02)",
            "import os; from groundfault.sinks import flush; flush(30); os._exit(0)",
            3,
            id="flushed",
        ),
        pytest.param("time.sleep(600)", "", 0, id="hanging"),
    ],
)
def test_at_the_end_of_the_process_what_is_queued_is_told_but_not_for_ever(sink, end, told):
    done = run(EXIT.format(sink=sink, end=end))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.split()
    assert [line for line in lines if line != "other"] == ["0", "1", "2"][:told]
    if "os._exit" not in end:  # one that hangs does not take the other's turn
        assert lines.count("other") == 3


SLOW_LOG = """
import logging, time
import groundfault
from groundfault.call_log import log_calls

class Slow(logging.Handler):
    def emit(self, record):
        time.sleep(0.4)
        print("told", flush=True)

logging.basicConfig(level=logging.INFO, handlers=[Slow()])
groundfault.default_sinks().use(log_calls())
command = groundfault.Resource("saber").command("get")
for _ in range(60):
    command.call(int)
"""


def test_a_slow_log_does_not_hold_the_end_of_the_process_up_line_by_line():
    """What ends after the farewell, logging itself, waits for the handler's lock, which each line takes again."""
    done = run(SLOW_LOG)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("told") < 30


GREENLETS = """
from gevent import monkey
if {before}:
    monkey.patch_all()
from groundfault.events import CommandDone
from groundfault.sinks import Background
told = []
background = Background(told.append)
if not {before}:
    monkey.patch_all()
import gevent
ticks = 0

def tick():
    global ticks
    while True:
        gevent.sleep(0.005)
        ticks += 1

ticking = gevent.spawn(tick)
for number in range(3):
    background(CommandDone("saber", "get", "success", number))
    gevent.sleep(0.1)
assert [event.duration_s for event in told] == [0, 1, 2], told
assert ticks > 20, f"the hub stood still: {{ticks}} ticks"
assert background.flush(30)
"""


@pytest.mark.parametrize("before", [True, False])
def test_among_greenlets_nobody_is_held_up(before):
    done = run(GREENLETS.format(before=before))
    assert done.returncode == 0, done.stderr


# --- what can be a sink -----------------------------------------------------------------------------------------------


async def coroutine_function(event):
    raise AssertionError("nobody awaits it")


class AsyncSink:
    async def __call__(self, event):
        raise AssertionError("nobody awaits it")


@pytest.mark.parametrize(
    ("sink", "why"),
    [
        (None, "a sink must be callable, not NoneType"),
        ("log", "a sink must be callable, not str"),
        (coroutine_function, "not a coroutine function: coroutine_function"),
        (AsyncSink(), "not a coroutine function: AsyncSink"),
    ],
)
def test_what_cannot_be_a_sink_is_told_at_once(sink, why):
    sinks = Sinks()
    for take in (sinks.use, sinks.add):
        with pytest.raises(TypeError, match=why):
            take(sink)
    assert sinks.changes == ()


def test_a_mock_takes_everything():
    """Each of its attributes is true; only True itself promises something."""
    mock = Mock()
    sinks = Sinks(mock)
    sinks.command(call())
    sinks.change(TRIPPED)
    assert flush(LONG_S)
    assert [each.args for each in mock.call_args_list] == [(call(),), (TRIPPED,)]
    assert len(sinks.requests) == 1


@pytest.mark.parametrize("promise", ["changes_only", "skips_requests"])
def test_what_a_waiting_sink_does_not_take_is_not_queued(promise):
    def sink(event):
        raise AssertionError("never told")

    setattr(sink, promise, True)
    sinks = Sinks(sink)
    assert len(sinks.changes) == 1
    assert sinks.requests == ()
    assert len(sinks.commands) == (promise == "skips_requests")
