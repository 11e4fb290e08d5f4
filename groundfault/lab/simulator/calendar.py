"""What happens when, in virtual time."""

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from groundfault.lab.simulator.fleet import Request

__all__ = ["Calendar", "Timers"]


class Calendar:
    """One heap of ``(moment, number, function, argument)``: of what falls on one moment, what was noted first is first.

    ``now``: the moment it is, in seconds from the start.
    """

    __slots__ = ("heap", "now", "number")

    def __init__(self) -> None:
        self.now = 0.0
        self.heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self.number = count().__next__

    def at(self, when: float, what: Callable[[Any], None], argument: Any = None) -> None:
        """Call ``what`` with the argument at that moment."""
        heappush(self.heap, (when, self.number(), what, argument))

    def run(self, until: float) -> None:
        """Let time pass up to that moment, or until nothing is left to happen."""
        heap = self.heap
        while heap and heap[0][0] <= until:
            self.now, _, what, argument = heappop(heap)
            what(argument)
        if self.now < until and heap:
            self.now = until


class Timers:
    """Time-outs of one length: they end in the order they began, so one entry in the calendar does for all of them.

    Most requests are answered long before; what is over by then is passed over when its turn comes.
    """

    __slots__ = ("_armed", "_calendar", "_over", "_waiting")

    def __init__(self, calendar: Calendar, over: "Callable[[Request], None]") -> None:
        self._calendar = calendar
        self._over = over
        self._waiting: deque[tuple[float, Request]] = deque()
        self._armed = False

    def add(self, when: float, request: "Request") -> None:
        """Begin one that ends at that moment, which is after those of all that were begun before."""
        self._waiting.append((when, request))
        if not self._armed:
            self._armed = True
            self._calendar.at(when, self._ring)

    def _ring(self, _: None) -> None:
        waiting, now = self._waiting, self._calendar.now
        while waiting:
            when, request = waiting[0]
            if not request.open:
                waiting.popleft()
            elif when > now:
                self._calendar.at(when, self._ring)
                return
            else:
                waiting.popleft()
                self._over(request)
        self._armed = False
