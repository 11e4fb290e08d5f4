"""What goes wrong where something is sent away: counted, and in the log once a minute."""

import logging
import threading
from contextlib import suppress
from typing import Final

from groundfault._clock import Clock, monotonic

__all__ = ["Trouble"]

_log: Final = logging.getLogger("groundfault")
_INTERVAL_S: Final = 60.0


class Trouble:
    """Counts what ``what`` has lost. Never raises an Exception, and says of an error no more than it is given."""

    def __init__(self, what: str, clock: Clock = monotonic) -> None:
        self.lost = 0
        self._what = what
        self._clock = clock
        self._told_at: float | None = None
        self._lock = threading.RLock()  # guards the rest; re-entrant, for a handler of the log may come back here

    def note(self, why: str, times: int = 1) -> None:
        """Count ``times`` more, lost for the reason ``why``; a short text without secrets."""
        with self._lock:
            self.lost += times
            now = self._clock()
            due = self._told_at is None or now - self._told_at >= _INTERVAL_S
            if due:
                self._told_at = now
        if due:
            with suppress(Exception):  # a filter or handler of the application may raise
                _log.warning("%s: %s; %d lost so far", self._what, why, self.lost)

    def renew(self) -> None:
        """Begin anew in the child of a fork."""
        self.lost, self._told_at, self._lock = 0, None, threading.RLock()
