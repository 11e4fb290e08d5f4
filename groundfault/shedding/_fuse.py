"""When to stand aside: after ten internal errors within a minute, for a minute. Pure; the caller guards it."""

from collections import deque
from typing import Final

__all__ = ["Fuse"]

_TOLERATED: Final = 10
_SPAN_S: Final = 60.0


class Fuse:
    """``blown_until``: a reading of the monotonic clock, None while all is well."""

    __slots__ = ("_errors", "blown_until")

    def __init__(self) -> None:
        self.blown_until: float | None = None
        self._errors: deque[float] = deque(maxlen=_TOLERATED)

    def note(self, now: float) -> None:
        """Count an internal error."""
        self._errors.append(now)
        if len(self._errors) == _TOLERATED and now - self._errors[0] <= _SPAN_S:
            self._errors.clear()
            self.blown_until = now + _SPAN_S

    def is_blown(self, now: float) -> bool:
        """Return whether requests are to be let through untouched; ends it when its time is up."""
        if self.blown_until is not None and now >= self.blown_until:
            self.blown_until = None
        return self.blown_until is not None
