"""Has pieces of a log counted: here, or by other processes where there is enough to count."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Final, TypeVar

from groundfault.logfiles.files import BLOCK, Part, SourceError

__all__ = ["SMALL", "counted", "jobs_for"]

SMALL: Final = 32 * 2**20
"""Less than this is counted sooner than other processes have begun."""
_AHEAD: Final = 2

T = TypeVar("T")


def jobs_for(asked: int | None, known: int | None) -> int:
    """Return how many processes are to count ``known`` bytes, None if nobody knows how many there are."""
    if asked is not None:
        return asked
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if known is not None and known < SMALL else min(4, processors)


def counted(
    parts: Iterator[tuple[Part, int]], count: Callable[[Part], T], *, jobs: int, known: int | None
) -> Generator[tuple[T, int], None, None]:
    """Yield what ``count`` makes of each part, in their order, and the bytes that the part stands for.

    ``count`` travels to other processes: a function of a module, or a partial of one. ``known`` is as for
    :func:`jobs_for`. Raises SourceError if a file cannot be read any more or a process was ended.
    """
    try:
        # Of a pipe nobody knows how much is coming; for a little, no other process is begun.
        here = BLOCK if known is not None else SMALL
        for part, taken in parts:
            yield count(part), taken
            here -= BLOCK
            if here <= 0 and jobs > 1:
                break
        yield from _by_others(parts, count, jobs)
    except OSError as error:
        raise SourceError(f"a log cannot be read any more: {error}") from None
    except BrokenProcessPool:
        raise SourceError("a process that counted was ended by the system, perhaps for want of memory") from None


def _by_others(
    parts: Iterator[tuple[Part, int]], count: Callable[[Part], T], jobs: int
) -> Generator[tuple[T, int], None, None]:
    """Hand out work, a little ahead of what is being done, so that a fast reader does not fill the memory."""
    # Spawned: this process may have threads, of which a fork would take locks but not their owners.
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_begin)
    waiting: deque[tuple[Future[T], int]] = deque()
    try:
        for part, taken in parts:
            with _no_interrupts():  # the first ones start processes
                waiting.append((pool.submit(count, part), taken))
            if len(waiting) >= jobs + _AHEAD:
                yield _first(waiting)
        while waiting:
            yield _first(waiting)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # a part takes a fraction of a second


def _first(waiting: deque[tuple[Future[T], int]]) -> tuple[T, int]:
    future, taken = waiting.popleft()
    return future.result(), taken


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back for a moment. Processes that begin meanwhile are never told of it: they end with this one."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """Begin to count in a process of one's own: leave Ctrl-C to the one that was asked, and end when it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, name="groundfault-follow", daemon=True).start()
