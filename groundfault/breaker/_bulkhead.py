"""How full a command is: when to say so, and when to say that it is over.

The limit itself is exact and not decided here (``len(in_flight) > limit``); this is the news about it.
``high`` at four fifths of the limit, ``full`` when calls are refused, ``normal`` below three fifths:
the gap between them keeps a load that hovers at one mark from being reported over and over.
A limit of two has no such gap, so each of the two warnings is given at most once in ten seconds.
"""

import math
from typing import Final

__all__ = ["FULL", "HIGH", "NORMAL", "Bulkhead", "high_mark"]

NORMAL: Final = "normal"
HIGH: Final = "high"
FULL: Final = "full"

_HIGH_SHARE: Final = 0.8
_NORMAL_SHARE: Final = 0.6
_REPEAT_S: Final = 10.0


def high_mark(limit: int) -> int:
    """Return from how many calls in flight on concurrency counts as high."""
    return math.ceil(round(_HIGH_SHARE * limit, 9))


class Bulkhead:
    """The level that was last reported."""

    __slots__ = ("_full_at", "_high_at", "level")

    def __init__(self) -> None:
        self.level = NORMAL
        self._high_at = -math.inf
        self._full_at = -math.inf

    def entered(self, in_flight: int, limit: int, now: float) -> str | None:
        """Take a call that wants in, itself included in ``in_flight``; return the level to report, or None."""
        if in_flight > limit:
            if self.level == FULL or now - self._full_at < _REPEAT_S:
                return None
            self._full_at = now
            self.level = FULL
            return FULL
        # A limit of one is reached by every single call, which is no news.
        if self.level == NORMAL and limit > 1 and in_flight >= high_mark(limit) and now - self._high_at >= _REPEAT_S:
            self._high_at = now
            self.level = HIGH
            return HIGH
        return None

    def left(self, in_flight: int, limit: int | None) -> str | None:
        """Take the calls that remain in flight, under a limit that may have changed; return the level to report."""
        if self.level == NORMAL or (limit is not None and in_flight >= _NORMAL_SHARE * limit):
            return None
        self.level = NORMAL
        return NORMAL
