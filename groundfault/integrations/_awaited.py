"""An attempt whose fallback may have to be awaited.

An :class:`Attempt` serves its fallback while it settles, and settling never waits.
Here the place is given back and the outcome counted at once as everywhere,
and only what is said about the end (ledger, events, the count of fallbacks) waits until the fallback is served::

    attempt.settle(outcome, fallback=LATER)
    await tell(attempt, serve)
"""

from collections.abc import Awaitable, Callable
from typing import Any

from groundfault.breaker import Attempt, Command
from groundfault.breaker._ending import Ending
from groundfault.breaker.attempt import Fallback

__all__ = ["LATER", "attempt_for", "tell"]


def LATER() -> bool:  # noqa: N802  a mark to pass as `fallback`; it is callable, so that any attempt understands it
    """Serve nothing now."""
    return False


def attempt_for(command: Command, *, awaited: bool) -> Attempt:
    """Return an attempt not yet begun; ``awaited``: one whose fallback is served in :func:`tell`."""
    if not awaited:
        return command.attempt()
    return _Awaited(command._gate, command._course.clock, command._course.sinks)  # noqa: SLF001  as Command.attempt does


async def tell(attempt: Attempt, serve: Callable[[], Awaitable[bool]]) -> None:
    """Await ``serve``, which returns whether it could serve something, if a fallback is due; then report the end.

    ``serve`` is to raise nothing; a cancellation goes on after the end has been reported without a fallback.
    """
    if isinstance(attempt, _Awaited) and attempt.untold is not None:
        served = False
        try:
            served = await serve()
        finally:
            attempt.tell(served=served)


class _Awaited(Attempt):
    __slots__ = ("untold",)

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.untold: Ending | None = None

    def tell(self, *, served: bool) -> None:
        ending, self.untold = self.untold, None
        if ending is not None:
            super()._say(ending, fallback=served)

    def _say(self, ending: Ending, *, fallback: Fallback) -> None:
        if fallback is LATER and ending.replaceable:
            self.untold = ending
        else:
            super()._say(ending, fallback=fallback)
