"""The queue in front of ``accept``: how full it is, and whether the kernel has turned anybody away.

A connection that finds it full is not refused: its first packet is thrown away, and the client tries again after a
second, three, seven. No server and no request ever shows that, so it is watched from outside, and warned of early.

The queue is only in the kernel where workers accept one connection at a time (gunicorn's ``sync``, a blocked event
loop). Threads and event loops with time accept what comes, and their accept queue stays empty.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from groundfault.shedding._sockdiag import Accepting, sock_diag

__all__ = ["AcceptQueue", "ListenerWatch", "note_listener", "overflows"]

LOOK_S: Final = 1.0
"""The queue is looked at so often at most: about 30 µs on the request that happens to come then."""
COUNT_S: Final = 10.0
"""The counters are read so often at most: a third of a millisecond, because the kernel writes out all of them."""
WARN_S: Final = 60.0
"""One warning in so long at most."""
HIGH: Final = 0.5
"""So full is worth a warning: half of it fills in half the time the whole does."""

_COUNTERS: Final = Path("/proc/net/netstat")
_PREFIX: Final = b"TcpExt:"

_ports: set[int] = set()


def note_listener(sock: Any) -> None:
    """Remember the port that a connection came to as the one that this process serves, unless one is known already.

    Never raises.
    """
    if not _ports:
        with suppress(Exception):  # a unix socket, a stranger's object, a connection that is gone
            name = sock.getsockname()
            if isinstance(name, tuple):
                _ports.add(int(name[1]))


class AcceptQueue(NamedTuple):
    """The fullest listening socket of those that this process serves.

    ``depth`` connections wait to be accepted, ``limit`` may; one more is turned away. ``overflows``: how many have been
    since this process began to count, anywhere in its network namespace; None where that cannot be read.
    """

    port: int
    depth: int
    limit: int
    overflows: int | None = None

    @property
    def is_high(self) -> bool:
        """Whether more than half of it is taken."""
        return self.limit > 0 and self.depth > self.limit * HIGH


def overflows(path: Path = _COUNTERS) -> int | None:
    """Return how many connections have found an accept queue full in this network namespace; None: it is not known.

    Since the namespace was made. ``ListenOverflows`` of ``/proc/net/netstat``.
    """
    try:
        rows = [line.split() for line in path.read_bytes().splitlines() if line.startswith(_PREFIX)]
        return int(rows[1][rows[0].index(b"ListenOverflows")])
    except (OSError, ValueError, IndexError):
        return None


class ListenerWatch:
    """Looks at the accept queues now and then. ``now`` is in seconds, on any clock that does not step.

    Where the kernel does not answer, there is simply nothing to see: containers may forbid it, other systems have none.
    """

    __slots__ = ("_ask", "_base", "_count", "_counted_at", "_overflows", "_warned_at", "_warned_of", "due", "queue")

    def __init__(
        self,
        ask: Callable[[int], list[Accepting]] = sock_diag.accepting,
        count: Callable[[], int | None] = overflows,
    ) -> None:
        self._ask = ask
        self._count = count
        self._base: int | None = None
        self._overflows: int | None = None
        self._counted_at = float("-inf")
        self._warned_at = float("-inf")
        self._warned_of = 0
        self.due = float("-inf") if sys.platform == "linux" else float("inf")
        self.queue: AcceptQueue | None = None

    def look(self, now: float) -> AcceptQueue | None:
        """Look, if a second has gone by; return what was seen if somebody is to be warned of it."""
        if now < self.due:
            return None
        self.due = now + LOOK_S
        if not _ports:
            return None
        self._read_counters(now)
        self.queue = queue = self._fullest()
        if queue is None or now - self._warned_at < WARN_S:
            return None
        lost = queue.overflows or 0
        if not queue.is_high and lost <= self._warned_of:
            return None
        self._warned_at, self._warned_of = now, lost
        return queue

    def _fullest(self) -> AcceptQueue | None:
        found: list[AcceptQueue] = []
        for port in tuple(_ports):
            with suppress(OSError):
                found += [AcceptQueue(port, *each, self._overflows) for each in self._ask(port)]
            if not found:  # it was another process's, or is closed: the next connection tells
                _ports.discard(port)
        return max(found, key=lambda queue: queue.depth / max(queue.limit, 1), default=None)

    def _read_counters(self, now: float) -> None:
        if now - self._counted_at < COUNT_S:
            return
        self._counted_at = now
        total = self._count()
        if total is not None:
            if self._base is None:
                self._base = total
            self._overflows = max(total - self._base, 0)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ports.clear)
