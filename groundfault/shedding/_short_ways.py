"""Two short ways to a decision, for requests of which nothing but their wait decides.

Most requests are such. Without a queue nothing is to be weighed, in a standing one hardly anything; and what a refusal
costs is what decides how much of an overload a server survives. For both ways there is one question each, and its
answer is to the last count that of the long way, :meth:`~groundfault.shedding.shedder.Shedder.decide`, or that the
long way is to be gone. ``tests/shedding/test_short_ways.py`` holds them equal.
"""

from collections.abc import Callable
from threading import RLock
from typing import TYPE_CHECKING, Final

from groundfault.shedding._admitted import Admission
from groundfault.vocabulary import Criticality, Reason

if TYPE_CHECKING:
    from groundfault._clock import Clock
    from groundfault.shedding._law import Law
    from groundfault.shedding._listener import ListenerWatch
    from groundfault.shedding._tally import Tally
    from groundfault.sinks import Sinks

__all__ = ["ShortWays"]

# Looked up once: through its class a member of an enumeration costs a tenth of a microsecond, and each request asks.
_CRITICAL: Final = Criticality.CRITICAL
_DRAINING: Final = Reason.DRAINING
_QUEUE_WAIT: Final = Reason.QUEUE_WAIT


class ShortWays:
    """Part of the shedder, and of nothing else; what is declared here is the shedder's."""

    clock: "Clock"
    sinks: "Sinks"
    _draining: bool
    _generation: int
    _law: "Law"
    _listener: "ListenerWatch"
    _lock: RLock
    _signal: str
    _tally: "Tally"
    _wait_s: float | None
    _watch_listener: Callable[[float], None]

    def is_refusing(self, *, on_loop: bool) -> bool:
        """Return whether :meth:`refuse_outright` is worth a question."""
        return self._draining or (self._tally.episode and self._law.is_pressed(on_loop=on_loop))

    def refuse_outright(self, signal: str, wait_s: float, u: float, *, on_loop: bool, exact: bool) -> Reason | None:
        """Refuse a request for its wait alone, and count it; None: the long way is to be gone, with the same ``u``.

        Only for requests of which :attr:`Rules.plain` holds, that say nothing of themselves and ask for no health path,
        and whose client is there. For them it does what the long way does.
        """
        if self.sinks.requests:  # they want to know the route
            return None
        now = self.clock()
        with self._lock:
            refused = self._law.refuses(now, wait_s, u, on_loop=on_loop, exact=exact)
            if not (self._draining or (refused and self._tally.episode)):  # the first one of an episode is an event
                return None
            reason = _DRAINING if self._draining else _QUEUE_WAIT
            self._signal = signal
            self._wait_s = wait_s
            self._tally.refuse_more(now, reason)
            self._tally.waits.add(wait_s)
        if now >= self._listener.due:
            self._watch_listener(now)
        return reason

    def admit_clear(self, admission: Admission, signal: str, wait_s: float) -> bool:
        """Admit a request that found everything clear, and count it; false: the long way is to be gone.

        Only for such requests as :meth:`refuse_outright` is for, whose wait is exact, that need no worker thread.
        """
        now = self.clock()
        if self._draining or self.sinks.requests or now >= self._listener.due:
            return False
        with self._lock:
            tally = self._tally
            if tally.episode or not self._law.admits(now, admission, wait_s):
                return False
            self._signal = signal
            self._wait_s = wait_s
            admission.generation = self._generation
            admission.began = now
            tally.admitted[_CRITICAL] += 1
            tally.in_flight += 1
            tally.waits.add(wait_s)
        return True
