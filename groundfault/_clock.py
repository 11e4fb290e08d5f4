"""The real clocks, imported here and nowhere else.

Every decision in this package takes ``now`` as an argument;
only the outermost objects hold a clock, and a test or a simulator hands them another one.
"""

from collections.abc import Callable
from time import monotonic, time  # noqa: TID251  the one place the ban leaves open

Clock = Callable[[], float]
"""Returns seconds as a float."""

__all__ = ["Clock", "monotonic", "wall"]

wall = time
"""Seconds since 1970, for headers that carry wall-clock time and for display; never for a decision."""
