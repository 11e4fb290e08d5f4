"""What a scenario is played against, where the user names nothing: the scenario's own local target. Pure protocols."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from groundfault.lab.runs.record import Edge, Service

__all__ = ["VARIANTS", "Running", "Target", "TargetError"]

VARIANTS: Final = ("groundfault", "plain-503", "unprotected")
"""What may protect a target: everything, everything but the headers that say "on purpose", or nothing."""


class TargetError(Exception):
    """The target cannot be started or cannot do what it is asked. The message is one line and voids the run."""


class Running(Protocol):
    """A target that runs. All of it is called in the one process that started it."""

    @property
    def url(self) -> str:
        """Where to send to, without a slash at the end."""

    @property
    def capacity_rps(self) -> float | None:
        """Good answers a second that its scarce service can give; None if it is not known."""

    def act(self, name: str) -> None:
        """Do what the timeline asks for, such as putting a fault in. Raises TargetError if it cannot."""

    def died(self) -> Sequence[str]:
        """Return the names of what has ended although nobody asked it to."""

    def observed(self, began: float, seconds: int) -> tuple[list[Service], list[Edge]]:
        """Return what its services have reported, by second of the run.

        ``began``: the monotonic clock's reading at second 0.
        """

    def stop(self) -> None:
        """End all of it, and wait until nothing is left. Called once, whatever has happened."""


class Target(Protocol):
    """Something that can be started: real processes, on loopback only."""

    @property
    def title(self) -> str:
        """What it is, in a few words."""

    def start(self, variant: str, directory: Path) -> Running:
        """Start it, wait until it answers, and return it. ``directory``: exists, is empty, and is removed afterwards.

        Whatever is raised in here, a kill of the greenlet included, must leave nothing running. Raises TargetError.
        """
