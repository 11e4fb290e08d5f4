"""What a client does whose callee sheds: send less, keep asking, and notice when refusing is all that is left.

The throttle is the SRE book's (chapter 21, "client-side throttling", K = 2) with a memory of one second.
Once a second the share of calls that is sent moves to twice the share that was accepted,
so the callee refuses at most about every second call and its own cost of refusing stays bounded.
It rises ever faster for as long as nothing is refused.
With the book's two minutes of memory users stay locked out for a minute after a spike of twenty seconds.

Only refusals by the callee itself count.
One that is passed on from further below says that the callee works:
throttling on it would lock out every call that does not need what is broken.
"""

from typing import Final

__all__ = ["LEAST_SHARE", "Saturation", "Throttle"]

LEAST_SHARE: Final = 0.01
"""The share that is always sent, or nothing would ever tell that the callee is back."""

_K: Final = 2.0
_PERIOD_S: Final = 1.0
_PATIENCE_S: Final = 4.0
_ENOUGH: Final = 10


class Throttle:
    """The share of calls that is sent. Idle, at no cost, until the callee refuses for the first time."""

    __slots__ = ("_calm_seconds", "_calm_since", "_ended", "_refused", "_since", "active", "share")

    def __init__(self) -> None:
        self.active = False
        self.share = 1.0
        self._since = 0.0
        self._ended = 0
        self._refused = 0
        self._calm_since = 0.0
        self._calm_seconds = 0

    def accepted(self) -> None:
        """Count a call that ended otherwise than refused by the callee.

        Calls are counted at their end, like refusals: set against calls just sent, the refusals of those sent before
        the share fell would make it fall twice.
        """
        self._ended += 1

    def refused(self, now: float) -> None:
        """Count a refusal by the callee. The first one wakes the throttle."""
        if not self.active:
            self.active = True
            self._begin(now)
        self._ended += 1
        self._refused += 1
        self._calm_since = now
        self._calm_seconds = 0

    def admits(self, draw: float) -> bool:
        """Whether to send a call; ``draw`` is a random number in [0, 1)."""
        return draw < self.share

    def judge(self, now: float) -> None:
        """Move the share, and fall idle once it is whole again.

        Each second without a refusal raises it, sent or not: the first to twice as much, the next to four times, then
        eight. A callee that is still overloaded refuses within the second, and what it accepted then sets the share;
        one that is well again must not wait for it. A quiet process would wait longest, for it sends little.
        A second with refusals and too few calls to judge by is extended, to four at most.
        """
        age = now - self._since
        if not self.active or age < _PERIOD_S:
            return
        calm = int((now - self._calm_since) / _PERIOD_S)
        judged = bool(self._refused) and (self._ended >= _ENOUGH or age >= _PATIENCE_S)
        if calm > 0:
            self._calm_since = now
        elif not judged:
            return
        if judged:
            calm -= 1  # the second that is judged
            if self._ended:
                accepted = self._ended - self._refused
                self.share = min(1.0, max(LEAST_SHARE, self.share * _K * accepted / self._ended))
        for _ in range(calm):
            if self.share >= 1.0:
                break
            self._calm_seconds += 1
            self.share = min(1.0, self.share * _K**self._calm_seconds)
        self.active = judged or self.share < 1.0
        self._begin(now)

    def _begin(self, now: float) -> None:
        self._since = now
        self._ended = 0
        self._refused = 0


_ENOUGH_REFUSALS: Final = 20


class Saturation:
    """A run of refusals by the callee without one success between them.

    An annotated 503 never trips a circuit, so a sick callee could hide behind the header for ever.
    Twenty refusals of calls that matter and no success for the patience given raise ``saturated``.
    """

    __slots__ = ("_since", "refusals", "saturated")

    def __init__(self) -> None:
        self.refusals = 0
        self.saturated = False
        self._since = 0.0

    def refused(self, now: float, patience_s: float) -> bool:
        """Count a refusal by the callee of a critical call; return True if it makes the callee saturated."""
        if not self.refusals:
            self._since = now
        self.refusals += 1
        if self.saturated or self.refusals < _ENOUGH_REFUSALS or now - self._since < patience_s:
            return False
        self.saturated = True
        return True

    def answered(self) -> bool:
        """End the run; return True if the callee was saturated."""
        ended = self.saturated
        self.refusals = 0
        self.saturated = False
        return ended
