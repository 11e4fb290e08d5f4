"""A command's health check: cached, run off the path of the call, never twice at once."""

import threading
from collections.abc import Callable

from groundfault._clock import Clock
from groundfault.events import note_internal_error

__all__ = ["HealthGate"]


class HealthGate:
    """The last known answer of a health check, at first a yes.

    The check runs on a daemon thread that ends with it, so a check that hangs holds up neither a call nor the exit;
    while it hangs the last known answer stands. ``changed`` is called on that thread after every run.
    """

    __slots__ = ("_answered", "_changed", "_check", "_clock", "_idle", "_ttl_s", "due_at", "healthy")

    def __init__(self, check: Callable[[], bool], ttl_s: float, clock: Clock, changed: Callable[[], None]) -> None:
        self._check = check
        self._ttl_s = ttl_s
        self._clock = clock
        self._changed = changed
        self._answered: Callable[[bool], None] | None = None
        self._idle: list[None] = [None]  # holds one element while no run is under way: popping it claims the run
        self.healthy = True
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
        try:
            threading.Thread(target=self._run, name="groundfault-health", daemon=True).start()
        except RuntimeError as error:  # no thread to be had: the last answer stands, the next call tries again
            note_internal_error("health check thread", error)
            self.due_at = now + self._ttl_s
            self._idle.append(None)

    def probe(self, answered: Callable[[bool], None]) -> None:
        """Ask now, however fresh the last answer is, and hand the answer to ``answered`` on the thread of the run.

        If a run is under way its answer is taken. One that hangs answers nobody: the probe's lease ends without it.
        """
        self._answered = answered  # before the claim: whoever holds the run looks for this after giving it back
        self._start(self._clock())

    def after_fork(self) -> None:
        """Forget a run that was under way in the parent."""
        self._idle = [None]
        self._answered = None
        self.due_at = float("-inf")

    def _run(self) -> None:
        try:
            healthy = bool(self._check())
        except BaseException:  # noqa: BLE001  whatever it raises, on a thread of its own, means no
            healthy = False
        self.healthy = healthy
        self.due_at = self._clock() + self._ttl_s
        self._idle.append(None)
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(healthy)
        self._changed()
