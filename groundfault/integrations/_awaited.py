"""An attempt for adapters whose fallback may have to be awaited."""

from typing import Self

from groundfault._clock import Clock
from groundfault.breaker import Attempt, Command
from groundfault.breaker._ending import Ending
from groundfault.breaker._gate import Gate
from groundfault.breaker.attempt import Fallback
from groundfault.events import Sinks

__all__ = ["AwaitedAttempt"]


class AwaitedAttempt(Attempt):
    """Leave to make one call, whose end is told only when its fallback has been tried.

    ``begin``, ``settle`` and ``fail_with`` do what they do in an attempt, the permit comes back at once;
    but what is said about the end (ledger, sinks, count of fallbacks) waits for :meth:`tell`, which must follow,
    for whether a fallback was served is part of it and ``settle`` cannot await one.
    A plain success has no fallback and is told by ``settle`` itself.
    """

    __slots__ = ("_untold",)

    def __init__(self, gate: Gate, clock: Clock, sinks: Sinks) -> None:
        super().__init__(gate, clock, sinks)
        self._untold: Ending | None = None

    @classmethod
    def of(cls, command: Command) -> Self:
        """Return an attempt at a call of ``command``, its permit not yet taken."""
        plain = command.attempt()
        return cls(plain._gate, plain._clock, plain._sinks)  # noqa: SLF001  its own class's

    @property
    def replaceable(self) -> bool:
        """True if the call has ended in a way that a fallback may make good, and nothing was told yet."""
        return self._untold is not None and self._untold.replaceable

    def tell(self, *, served: bool) -> None:
        """Report the end, ``served`` if a fallback took the call's place; once, every later call does nothing."""
        ending, self._untold = self._untold, None
        if ending is not None:
            super()._say(ending, fallback=served)

    def _say(self, ending: Ending, *, fallback: Fallback) -> None:  # noqa: ARG002  comes with `tell`
        self._untold = ending
