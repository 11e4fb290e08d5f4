"""Fixtures for tests of code that uses GroundFault. A plugin: where GroundFault is installed, pytest has them.

Nothing happens to a test that asks for none of them, and nothing beyond pytest itself is imported until one does.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from groundfault.vocabulary import Reason

if TYPE_CHECKING:
    from groundfault.breaker import Command, Registry, Resource
    from groundfault.testing import ManualClock, RecordingSink

__all__ = ["GroundFaultFixture", "groundfault", "groundfault_clock", "groundfault_events", "groundfault_registry"]


@pytest.fixture
def groundfault_clock() -> "ManualClock":
    """Return a clock that stands at 1000.0 s until ``advance`` moves it.

    In a test that also asks for ``groundfault_registry`` or ``groundfault``, every command of the process runs on it.
    """
    from groundfault.testing import ManualClock  # noqa: PLC0415  no test tools in a run that uses none

    return ManualClock()


@pytest.fixture
def groundfault_events() -> "Iterator[RecordingSink]":
    """Record every event of components that have no sinks of their own, beside the process-wide sinks in use."""
    from groundfault.sinks import default_sinks  # noqa: PLC0415  as above
    from groundfault.testing import RecordingSink  # noqa: PLC0415  as above

    sinks = default_sinks()
    before = sinks.changes
    recording = RecordingSink()
    sinks.add(recording)
    yield recording
    sinks.use(*before)


@pytest.fixture
def groundfault_registry(request: pytest.FixtureRequest) -> "Iterator[Registry]":
    """Give the test the process-wide registry as new; see :func:`groundfault.testing.isolated_registry`.

    Commands made at import keep working, and no state leaks into the test or out of it.
    For a whole suite, put ``usefixtures = groundfault_registry`` into pytest's configuration.
    """
    from groundfault.testing import isolated_registry  # noqa: PLC0415  as above

    clock = request.getfixturevalue("groundfault_clock") if "groundfault_clock" in request.fixturenames else None
    with isolated_registry(clock=clock) as registry:
        yield registry


class GroundFaultFixture:
    """What the fixture ``groundfault`` is: the registry as new, what happens, and ways to make things go wrong.

    What is forced stays so until the test ends.
    For less than a test, use the blocks of ``groundfault.testing``, which have the same names and arguments.
    """

    def __init__(self, registry: "Registry", events: "RecordingSink", ends: ExitStack) -> None:
        self.registry = registry
        self.events = events
        self._ends = ends

    def force_open(self, target: "Command | Resource") -> None:
        """Have every call of a command or a resource refused; see :func:`groundfault.testing.force_open`."""
        from groundfault import testing  # noqa: PLC0415  as above

        self._ends.enter_context(testing.force_open(target))

    def force_shed(
        self,
        target: "Command | Resource",
        *,
        reason: Reason | None = Reason.QUEUE_WAIT,
        origin: str | None = None,
    ) -> None:
        """Have every call of a command or a resource shed; see :func:`groundfault.testing.force_shed`."""
        from groundfault import testing  # noqa: PLC0415  as above

        self._ends.enter_context(testing.force_shed(target, reason=reason, origin=origin))

    def fail(self, target: "Command | Resource", error: BaseException | type[BaseException]) -> None:
        """Have every call of a command or a resource raise ``error``; see :func:`groundfault.testing.fail`."""
        from groundfault import testing  # noqa: PLC0415  as above

        self._ends.enter_context(testing.fail(target, error))

    def slow(self, target: "Command | Resource", seconds: float) -> None:
        """Have every call of a command or a resource take longer; see :func:`groundfault.testing.slow`."""
        from groundfault import testing  # noqa: PLC0415  as above

        self._ends.enter_context(testing.slow(target, seconds))


@pytest.fixture
def groundfault(groundfault_registry: "Registry", groundfault_events: "RecordingSink") -> Iterator[GroundFaultFixture]:
    """Give the test the registry as new, its events, and ways to make calls fail, be shed, refused or slow."""
    with ExitStack() as ends:
        yield GroundFaultFixture(groundfault_registry, groundfault_events, ends)
