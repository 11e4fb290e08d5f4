"""Tools for testing code that uses GroundFault, and GroundFault itself.

Nothing here costs anything where it is not used: a command that is forced is changed for as long as the block lasts.
The pytest fixtures are in ``groundfault.integrations.pytest``.
"""

from typing import NamedTuple, TypeVar

from groundfault.events import Event
from groundfault.testing._forcing import Forced, fail, force_open, force_shed, slow
from groundfault.testing._isolation import isolated_registry
from groundfault.vocabulary import Reason
from groundfault.wire import SHED_STATUS, answer

__all__ = [
    "Forced",
    "ManualClock",
    "RecordingSink",
    "ShedResponse",
    "fail",
    "force_open",
    "force_shed",
    "isolated_registry",
    "shed_response",
    "slow",
]

_E = TypeVar("_E", bound=Event)


class ManualClock:
    """A clock that stands still until it is told to move. Call it for the time in seconds."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now

    def advance(self, seconds: float) -> float:
        """Move forward by ``seconds`` and return the new time."""
        self.now += seconds
        return self.now


class RecordingSink:
    """A sink that keeps every event, in order."""

    prompt = True

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        """Keep the event."""
        self.events.append(event)

    def of(self, kind: type[_E]) -> list[_E]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


class ShedResponse(NamedTuple):
    """An annotated 503 for an HTTP mock: ``responses.get(url, **shed_response()._asdict())``."""

    status: int
    headers: dict[str, str]
    body: bytes


def shed_response(
    reason: Reason = Reason.QUEUE_WAIT,
    *,
    origin: str | None = None,
    accept: str | None = None,
    head: bool = False,
) -> ShedResponse:
    """Return what a service sends that sheds: the very bytes that the server half answers with.

    ``reason``: default ``queue-wait``. ``origin``: name of the service that shed; default None, it is not said.
    ``accept`` is the request's Accept header: default None, a problem document in JSON.
    ``head``: default False; True leaves the body out, as for a HEAD request.
    """
    headers, body = answer(Reason(reason), origin, accept=accept, head=head)
    return ShedResponse(SHED_STATUS, dict(headers), body)
