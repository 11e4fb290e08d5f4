"""What a callee that sheds has earned: how much is sent to it, and whether refusing is all it does."""

from groundfault import _context
from groundfault.breaker._throttle import Saturation, Throttle
from groundfault.breaker.settings import BreakerSettings
from groundfault.events import Event, SaturationChanged, ThrottleChanged
from groundfault.vocabulary import Criticality

__all__ = ["Callee"]

_MATTERS = frozenset({None, Criticality.CRITICAL_PLUS, Criticality.CRITICAL})


class Callee:
    """The throttle and the saturation of one command's callee. Not safe for threads: the owner holds a lock.

    Both are made at the first refusal: most callees never shed.
    """

    __slots__ = ("_command", "_resource", "_saturation", "_throttle")

    def __init__(self, resource: str, command: str) -> None:
        self._resource = resource
        self._command = command
        self._throttle: Throttle | None = None
        self._saturation: Saturation | None = None

    @property
    def share(self) -> float:
        """Share of the calls that is sent, 1.0 in peace."""
        return 1.0 if self._throttle is None else self._throttle.share

    @property
    def saturated(self) -> bool:
        """Whether the callee has done nothing but refuse for as long as was asked."""
        return self._saturation is not None and self._saturation.saturated

    @property
    def refusals(self) -> int:
        """Refusals since the last success."""
        return 0 if self._saturation is None else self._saturation.refusals

    @property
    def calm(self) -> bool:
        """True while there is nothing to watch."""
        return not (self.refusals or (self._throttle is not None and self._throttle.active))

    def admits(self, draw: float) -> bool:
        """Whether the throttle sends a call; ``draw`` is a random number in [0, 1)."""
        return self._throttle is None or self._throttle.share >= 1.0 or self._throttle.admits(draw)

    def judge(self, now: float, news: list[Event]) -> None:
        """Let time pass."""
        throttle = self._throttle
        if throttle is None or not throttle.active:
            return
        before = throttle.share
        throttle.judge(now)
        if (before < 1.0) != (throttle.share < 1.0):
            news.append(ThrottleChanged(self._resource, self._command, throttle.share, _context.trace()))

    def ended(self) -> None:
        """Count a call that ended otherwise than refused by the callee."""
        if self._throttle is not None and self._throttle.active:
            self._throttle.accepted()

    def answered(self, news: list[Event]) -> None:
        """Take a success."""
        saturation = self._saturation
        if saturation is None or not saturation.refusals:
            return
        refusals = saturation.refusals
        if saturation.answered():
            news.append(self._saturation_changed(refusals, saturated=False))

    def refused(self, now: float) -> None:
        """Count a refusal by the callee itself."""
        if self._throttle is None:
            self._throttle = Throttle()
        self._throttle.refused(now)

    def saturates(
        self, now: float, criticality: Criticality | None, settings: BreakerSettings, news: list[Event]
    ) -> bool:
        """Count a refusal as one of a run; return whether the circuit is to open for it."""
        if criticality not in _MATTERS:
            return False
        saturation = self._saturation = self._saturation or Saturation()
        if saturation.refused(now, settings.handled_patience_s):
            news.append(self._saturation_changed(saturation.refusals, saturated=True))
        return saturation.saturated and settings.on_saturated == "open"

    def _saturation_changed(self, refusals: int, *, saturated: bool) -> SaturationChanged:
        return SaturationChanged(self._resource, self._command, saturated, refusals, _context.trace())
