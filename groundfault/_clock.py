"""The real clocks, imported here and nowhere else.

Every decision in this package takes ``now`` as an argument;
only the outermost objects hold a clock, and a test or a simulator hands them another one.
"""

from collections.abc import Callable
from time import monotonic, thread_time, time  # noqa: TID251  the one place the ban leaves open

Clock = Callable[[], float]
"""Returns seconds as a float."""

__all__ = ["Clock", "monotonic", "thread_cpu", "wall"]

wall = time
"""Seconds since 1970, for headers that carry wall-clock time and for display; never for a decision."""

thread_cpu = thread_time
"""Seconds of CPU that this thread has used: for what works in the background to keep within its share."""
