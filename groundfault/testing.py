"""Tools for testing code that uses GroundFault, and GroundFault itself."""

from typing import TypeVar

from groundfault.events import Event

__all__ = ["ManualClock", "RecordingSink"]

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

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        """Keep the event."""
        self.events.append(event)

    def of(self, kind: type[_E]) -> list[_E]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]
