"""How long a request has waited, from whatever signals there are. Pure: readings come in, seconds go out.

The kernel knows best (Linux, ``struct tcp_info``): ``tcpi_last_data_recv`` is how long ago the request's last byte
arrived, whatever queues it has passed since; ``tcpi_last_data_sent`` is how long ago this connection was made or last
answered. The true wait of a whole request lies between them, and for the usual request of one segment it is the lower.
"""

from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple

__all__ = [
    "IN_PROCESS",
    "LEFT",
    "NO_SIGNAL",
    "REQUEST_START",
    "THREAD_POOL",
    "Bracket",
    "Offset",
    "Peer",
    "bracket",
    "header_age",
]

REQUEST_START: Final = "request-start"
IN_PROCESS: Final = "in-process"
THREAD_POOL: Final = "thread-pool"
NO_SIGNAL: Final = "none"

_MAX_READING_MS: Final = 3_600_000  # an hour: no server leaves a request lying for longer, so it is not a wait

_EARLIEST_S: Final = -0.05  # clocks kept by NTP agree better than this
_LATEST_S: Final = 30.0  # usual limit of proxies in front; a header older than this was not meant for this attempt


class Peer(Enum):
    """What the other end of the connection has done by the time its request is looked at.

    ``HALF_CLOSED``: it has closed its sending half. So do most clients that leave; a few, such as ``nc``, then read on.
    ``GONE``: nothing can be sent to it any more. Either it has reset the connection, or this server has closed it.
    """

    HERE = "here"
    HALF_CLOSED = "half-closed"
    GONE = "gone"


# The states of include/net/tcp_states.h in which a request can be found.
_PEERS: Final = {
    1: Peer.HERE,  # ESTABLISHED
    8: Peer.HALF_CLOSED,  # CLOSE_WAIT
    7: Peer.GONE,  # CLOSE, after a reset
    **dict.fromkeys((4, 5, 6, 9, 11), Peer.GONE),  # FIN_WAIT1 and 2, TIME_WAIT, LAST_ACK, CLOSING: our half is closed
}


class Bracket(NamedTuple):
    """Bounds of one request's wait, in seconds.

    ``exact``: the lower one is the wait. Else the request came in pieces, of which only the last has waited so little,
    or behind another on its connection: a client that drips or pipelines keeps it near zero, so it is no proof that
    nobody else waits.
    ``peer``: whether anybody still waits for the answer. ``signal``: what it comes from, as in the snapshot.
    """

    lower_s: float
    upper_s: float
    exact: bool = True
    peer: Peer = Peer.HERE
    signal: str = "tcp-info"


LEFT: Final = Bracket(0.0, 0.0, exact=False, peer=Peer.GONE)
"""For a connection that the server itself knows to be closed, so that the kernel cannot be asked how long it waited."""


@lru_cache(maxsize=4096)  # milliseconds of a busy server are few and come again and again; half a microsecond each
def bracket(state: int, last_data_sent_ms: int, last_data_recv_ms: int) -> Bracket | None:
    """Return between what the wait lies, or None if the readings say nothing.

    Who was answered while the request lay there has pipelined it. Until then it waited for its own connection,
    which is no queue of this server's, or any client could make one appear; so its wait is counted from that answer.
    """
    peer = _PEERS.get(state)
    if peer is None or last_data_recv_ms > _MAX_READING_MS:
        return None
    sent_s, recv_s = last_data_sent_ms / 1e3, last_data_recv_ms / 1e3
    if sent_s < recv_s:
        return Bracket(sent_s, recv_s, peer=peer)
    return Bracket(recv_s, sent_s, peer=peer)


def header_age(started: float | None, wall_now: float) -> float | None:
    """Return how many seconds ago a proxy in front says it received the request, or None if that cannot be.

    A start up to 50 ms in the future is a clock that differs, and counts as now.
    """
    if started is None:
        return None
    age = wall_now - started
    return max(age, 0.0) if _EARLIEST_S <= age <= _LATEST_S else None


class Offset:
    """What two clocks differ by, plus the way between: the least age seen in the last 30 to 60 s.

    Subtracted where an age is the only signal of the wait: a constant error of 15 ms alone makes a shedder
    refuse a fifth of the traffic of a server that is not overloaded.
    """

    __slots__ = ("_ahead_s", "_before", "_least", "_since")

    _HALF_S: Final = 30.0
    _STEP_S: Final = 0.05  # a clock that is slewed, by 500 ppm at most, moves so far in a hundred seconds

    def __init__(self, now: float) -> None:
        self._since = now
        self._least = float("inf")
        self._before = float("inf")
        self._ahead_s: float | None = None

    def subtract(self, now: float, age_s: float) -> float:
        """Learn from ``age_s`` and return how much longer than the least age it is."""
        gone = now - self._since
        if gone >= self._HALF_S:
            self._before = self._least if gone < 2 * self._HALF_S else float("inf")
            self._least = float("inf")
            self._since = now
        self._least = min(self._least, age_s)
        return age_s - min(self._least, self._before)

    def _watch(self, now: float, wall_now: float) -> None:
        """Begin anew if the wall clock has been set since the last call: ages before and after do not compare.

        Else a clock put forward by two seconds would look like a queue of two seconds, until a minute has passed.
        That of the proxy's host cannot be watched.
        """
        before_s, self._ahead_s = self._ahead_s, wall_now - now
        if before_s is not None and abs(self._ahead_s - before_s) > self._STEP_S:
            self._since = now
            self._least = self._before = float("inf")

    def place(
        self, now: float, signal: str, wait_s: float | None, age_s: float | None, *, longest_s: float, wall_now: float
    ) -> tuple[str, float | None, float]:
        """Return the signal to go by, the wait it gives, and how long the request had waited before it came here.

        ``wait_s`` is what ``signal`` says, if anything; ``age_s`` what a trusted proxy does. Beside a wait of our
        own the age only adds what has gone before, up to ``longest_s``: one that says more is not believed.
        A stamp of this process's own is the last resort: it sees nothing of what came before the process looked.
        ``wall_now`` is the time of the clock that ``age_s`` was taken by.
        """
        self._watch(now, wall_now)
        if wait_s is None and age_s is None:
            return NO_SIGNAL, None, 0.0
        if age_s is not None and (wait_s is None or signal == IN_PROCESS):
            return REQUEST_START, self.subtract(now, age_s), 0.0
        behind_s = 0.0 if age_s is None or wait_s is None else age_s - wait_s
        return signal, wait_s, behind_s if 0 < behind_s <= longest_s else 0.0
