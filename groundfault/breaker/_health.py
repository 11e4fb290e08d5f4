"""A command's health check: cached, run off the path of the call, never twice at once."""

import threading
from collections.abc import Callable
from typing import NamedTuple

from groundfault._clock import Clock
from groundfault.events import note_internal_error

__all__ = ["HealthGate", "HealthNews"]


class HealthNews(NamedTuple):
    """The answer is another one than before; ``error`` is the type of what the check raised instead of answering."""

    healthy: bool
    error: str | None


class HealthGate:
    """The last known answer of a health check, at first a yes.

    The check runs on a daemon thread that ends with it, so a check that hangs holds up neither a call nor the exit;
    while it hangs the last known answer stands. ``changed`` is called on that thread after every run, with what is new.
    """

    __slots__ = ("_asked", "_began", "_changed", "_check", "_clock", "_idle", "_ttl_s", "due_at", "healthy")

    def __init__(
        self, check: Callable[[], bool], ttl_s: float, clock: Clock, changed: Callable[["HealthNews | None"], None]
    ) -> None:
        self._check = check
        self._ttl_s = ttl_s
        self._clock = clock
        self._changed = changed
        self._asked: tuple[float, Callable[[bool], None]] | None = None
        self._idle: list[None] = [None]  # holds one element while no run is under way: popping it claims the run
        self.healthy = True
        self._began = float("-inf")
        self.due_at = float("-inf")

    def refresh(self, now: float) -> None:
        """Start a run if the last answer is too old and none is under way."""
        if now >= self.due_at:
            self._start(now)

    def _start(self, now: float) -> None:
        try:
            self._idle.pop()
        except IndexError:
            return
        self.due_at = float("inf")
        self._began = now
        try:
            threading.Thread(target=self._run, args=(now,), name="groundfault-health", daemon=True).start()
        except RuntimeError as error:  # no thread to be had: the last answer stands, the next call tries again
            note_internal_error("health check thread", error)
            self.due_at = now + self._ttl_s
            self._asked = None
            self._idle.append(None)

    @property
    def hangs(self) -> bool:
        """True while a probe that was asked for is not answered."""
        return self._asked is not None and not self._idle

    def refuses(self, now: float, patience_s: float) -> bool:
        """Whether calls are to be refused: a no stands until the next answer, but not for longer than that may take."""
        return not self.healthy and (bool(self._idle) or now - self._began < patience_s)

    def retire(self) -> None:
        """Answer nobody any more: another check has taken its place."""
        self._asked = None

    def probe(self, now: float, answer: Callable[[bool], None]) -> None:
        """Ask, however fresh the last answer is, and hand the answer to ``answer`` on the thread of the run.

        The answer of a run that was begun before ``now`` says nothing about it: another one follows that.
        """
        self._asked = (now, answer)  # before the claim: whoever holds the run looks for this after giving it back
        self._start(now)

    def after_fork(self) -> None:
        """Forget a run that was under way in the parent."""
        self._idle = [None]
        self._asked = None
        self.due_at = float("-inf")

    def _run(self, began: float) -> None:
        idle = self._idle
        while True:
            raised = None
            try:
                healthy = bool(self._check())
            except BaseException as error:  # noqa: BLE001  whatever it raises, on a thread of its own, means no
                healthy, raised = False, type(error).__name__
            news = HealthNews(healthy, raised) if healthy != self.healthy else None
            self.healthy = healthy
            self.due_at = self._clock() + self._ttl_s
            asked = self._asked
            if asked is not None and began >= asked[0]:
                self._asked = None
                asked[1](healthy)
            self._changed(news)
            idle.append(None)
            if self._asked is None:
                return
            try:  # asked for while this run was under way
                idle.pop()
            except IndexError:  # and begun by whoever asked
                return
            began = self._began = self._clock()
