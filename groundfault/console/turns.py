"""One piece of work at a time, on a thread of its own that may hang as long as it likes: who asked does not."""

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from groundfault._clock import monotonic
from groundfault.console.answering import RefusedError

__all__ = ["Answered", "Turn", "Turns"]

_MOST_WAITING: Final = 16

Answered = Mapping[str, Any]


class Turn:
    """One piece of work. ``given_up``: nobody waits for it any more."""

    def __init__(self, work: Callable[["Turn"], Answered]) -> None:
        self._work = work
        self._made: Answered | None = None
        self._error: BaseException | None = None
        self.ended = threading.Event()
        self.given_up = False

    def do(self) -> None:
        """Do it, and keep what came of it."""
        try:
            self._made = self._work(self)
        except BaseException as error:  # noqa: BLE001  it is raised where it was asked for
            self._error = error

    def result(self) -> Answered:
        """Return what came of it, or raise it."""
        if self._error is not None:
            raise self._error
        return self._made or {}


class Turns:
    """``limit_s``: how long who asks for something waits for it, his turn and the work together.

    A piece of work that hangs keeps its one thread, and until it ends all others are refused at once.
    """

    def __init__(self, limit_s: float, name: str) -> None:
        self._limit_s = limit_s
        self._name = name
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._free = threading.Semaphore(1)  # not a lock: another thread gives it back than the one that took it
        self._seats = threading.Semaphore(_MOST_WAITING)
        self._current: Turn | None = None

    def take(self, what: str, work: Callable[[Turn], Answered]) -> Answered:
        """Return what the work returns, or raise what it raises. Raises RefusedError where it is not done in time.

        ``what`` stands in that message for who works.
        """
        if self._pid != os.getpid():
            self._begin()  # a child of a fork: whose turn it was there, it is not here
        current = self._current
        if (current is not None and current.given_up) or not self._seats.acquire(blocking=False):
            raise RefusedError(503, f"busy: {what} still has not answered what was asked before; try again")
        ends_at = monotonic() + self._limit_s
        seats = self._seats
        try:
            free = self._free.acquire(timeout=self._limit_s)
        finally:
            seats.release()
        if not free:
            raise RefusedError(503, f"busy: {what} did not get to this within {self._limit_s:g} s; try again")
        turn = Turn(work)
        self._start(turn)
        if not turn.ended.wait(max(0.0, ends_at - monotonic())):
            turn.given_up = True
            raise RefusedError(
                503,
                f"{what} has not answered within {self._limit_s:g} s; if this was a change, whether it was made "
                f"is not known: see the history",
            )
        return turn.result()

    def _start(self, turn: Turn) -> None:
        free = self._free

        def work() -> None:
            turn.do()
            self._current = None
            free.release()
            turn.ended.set()

        self._current = turn
        try:
            threading.Thread(target=work, name=self._name, daemon=True).start()
        except RuntimeError:
            self._current = None
            free.release()
            raise RefusedError(503, "this process can start no thread now; try again") from None
