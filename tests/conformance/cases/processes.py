"""Forks and signals. Each runs in a process of its own, under a limit of time."""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from conformance.case import Bench, Group, Seen
from conformance.subject import Broken
from conformance.ways import PATIENCE_S
from groundfault._clock import monotonic

group = Group("Forks and signals")

_CHILD_PATIENCE_S = 10.0


def _hangs_in_child(work) -> bool:
    """Run in a forked child; true if it did not come to an end."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    ends_at = monotonic() + _CHILD_PATIENCE_S
    while monotonic() < ends_at:
        done, _ = os.waitpid(pid, os.WNOHANG)
        if done:
            return False
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


@group(
    "fork-during-call",
    "A child forked while another thread is in a call can make calls of its own",
    origin="I18; gunicorn #2478, #1666",
    ways=("sync",),
    real_time=True,
    apart=True,
)
def fork_during_call(bench: Bench) -> Seen:
    guard = bench.make()
    pending = bench.start(guard)
    hung = _hangs_in_child(lambda: guard.call(int))
    pending.end()
    return Seen(not hung, "the child hangs" if hung else "the child's call is made")


@group(
    "fork-under-load",
    "Children forked while threads hammer the breaker can use it",
    origin="I18; langfuse #1654",
    ways=("sync",),
    real_time=True,
    apart=True,
    limit_s=90.0,
)
def fork_under_load(bench: Bench) -> Seen:
    guard = bench.make(failures=1_000_000)
    stop = threading.Event()

    def fail() -> None:
        raise Broken

    def ask() -> None:
        with suppress(Broken, *bench.subject.refusals):
            guard.call(fail)

    def hammer() -> None:
        while not stop.is_set():
            ask()

    sys.setswitchinterval(1e-4)  # forks meet threads in the middle of things, not only between slices
    threads = [threading.Thread(target=hammer, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    children = hung = 0
    while children < 25 and hung < 3:  # three are proof enough, and each takes its time
        children += 1
        hung += _hangs_in_child(ask)
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    return Seen(not hung, "children hang" if hung else f"{children} children made their calls")


@group(
    "signal-handler-calls",
    "A signal handler may make a protected call, whatever it interrupts",
    origin="I20",
    ways=("sync",),
    apart=True,
)
def signal_handler_calls(bench: Bench) -> Seen:
    guard = bench.make(failures=1_000_000)
    handled: list[None] = []

    def fail() -> None:
        raise Broken

    def ask() -> None:
        with suppress(Broken, *bench.subject.refusals):
            guard.call(fail)

    def handler(_signum: int, _frame: object) -> None:
        ask()
        handled.append(None)
        signal.setitimer(signal.ITIMER_REAL, 0.0003)

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0003)
    ends_at = monotonic() + 20.0
    while len(handled) < 500 and monotonic() < ends_at:
        ask()
    signal.setitimer(signal.ITIMER_REAL, 0)
    return Seen(len(handled) >= 500, f"{len(handled)} of 500 handlers made their calls")


class _InterruptError(BaseException):
    """What the handler raises."""


@group(
    "signal-handler-raises",
    "A signal handler that raises in the middle of the breaker leaves it able to recover",
    origin="I20, I3",
    ways=("sync",),
    apart=True,
    limit_s=90.0,
)
def signal_handler_raises(bench: Bench) -> Seen:  # noqa: C901  the handler and the work it interrupts
    rooms = tuple(
        str(Path(file).parent) if file.endswith("__init__.py") else file
        for name, module in sys.modules.items()
        if name == bench.subject.package and (file := module.__file__)
    )
    unusable = interrupted = 0

    def handler(_signum: int, frame) -> None:
        if frame.f_code.co_filename.startswith(rooms):
            raise _InterruptError
        signal.setitimer(signal.ITIMER_REAL, 0.00003)  # not in the library's lines: try again in a moment

    def fail() -> None:
        raise Broken

    def work(guard) -> None:
        for _ in range(100_000):  # trips it, then probes that fail
            with suppress(Broken, *bench.subject.refusals):
                guard.call(fail)
            bench.time.elapse(1.0)

    signal.signal(signal.SIGALRM, handler)
    for n in range(300):
        guard = bench.make(sleep_s=5.0)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0001 + n % 37 * 1e-5)
            work(guard)
        except _InterruptError:
            interrupted += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for _ in range(3):
            bench.wake(guard)
            if bench.good(guard):
                break
        else:
            unusable += 1
    if interrupted < 250:
        return Seen(ok=False, text=f"only {interrupted} of 300 handlers raised")
    share = max(10, round(unusable / interrupted * 10) * 10)
    return Seen(not unusable, f"unusable for 3 sleeps after about {share} %" if unusable else "usable every time")
