"""A graceful stop of the whole server: whoever is in the listen backlog, or still comes, is told ``draining``.

gunicorn's workers stop taking connections on SIGTERM. When they are merely replaced (reload, ``max_requests``), others
take them from the same listener. When the server stops, whoever waits in the backlog is reset with the last worker.
The two differ in this: a master that stops closes its listeners before it signals anybody.
"""

import ctypes
import os
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

__all__ = ["DRAIN_S", "Stop", "server_is_stopping"]

DRAIN_S: Final = 5.0
"""So long at most requests are told, unless ``graceful_timeout`` leaves less: what a load balancer takes to notice."""
QUIET_S: Final = 0.5
"""Nobody has come for so long: the last has been told."""
_CLOSING_QUIET_S: Final = 0.1  # handshakes under way when the door closed have ended: their round trips are shorter
_MARGIN_S: Final = 1.0  # before graceful_timeout, at which the master kills

# Fields of /proc/<pid>/stat after the name, proc_pid_stat(5): state, ppid, …, startstack. A fork keeps its parent's
# stack, and exec gives a new one: so a sibling is known from a new master, which is a child of the old one as well.
_PARENT: Final = 1
_STACK: Final = 25


def server_is_stopping(listeners: Iterable[Any], parent: int) -> bool:
    """Return whether nobody is left to take connections from these listeners but this worker and its siblings.

    Asked of ``/proc``: the parent has closed them, and nobody else holds them, such as a new master after SIGUSR2.
    False where that cannot be read, and where they were handed in from outside: then this is taken for a reload, and
    the worker just stops.
    """
    try:
        listeners = list(listeners)
        wanted = {f"socket:[{os.fstat(each.fileno()).st_ino}]" for each in listeners}
        if not wanted or any(_is_handed_in(each, parent) for each in listeners) or _holds(parent, wanted):
            return False
        siblings = parent, _origin(os.getpid())[1]
        for name in os.listdir("/proc"):  # noqa: PTH208  as in the rest of this function, names are enough
            if not name.isdecimal() or int(name) in {parent, os.getpid()}:
                continue
            with suppress(OSError, ValueError, IndexError):  # gone, or another user's
                if _origin(int(name)) != siblings and _holds(int(name), wanted):
                    return False
    except (OSError, ValueError):
        return False
    return True


def _holds(pid: int, wanted: set[str]) -> bool:
    directory = f"/proc/{pid}/fd"
    for fd in os.listdir(directory):  # noqa: PTH208  as above
        with suppress(FileNotFoundError):
            if os.readlink(f"{directory}/{fd}") in wanted:  # noqa: PTH115  as above
                return True
    return False


def _origin(pid: int) -> tuple[int, int]:
    """Return the process's parent, and where its stack began when its program was started."""
    with open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123  as above
        said = stat.read().rpartition(b")")[2].split()
    return int(said[_PARENT]), int(said[_STACK])


def _is_handed_in(listener: Any, master: int) -> bool:
    """Return whether somebody outside made this socket, and will serve it later: systemd, or who is behind ``fd://``.

    Such a one is not always to be seen in ``/proc``, belonging to root.
    """
    cfg = getattr(listener, "conf", None)
    if cfg is None:
        return False
    passed: object = cfg.env_orig.get("LISTEN_PID")  # sd_listen_fds(3); gunicorn asks for the same
    return passed == str(master) or any(isinstance(each, int) for each in cfg.address)


class Stop:
    """Where a worker stands on its way out: it tells everybody, then closes the door, then goes."""

    def __init__(self, drain_s: float = DRAIN_S) -> None:
        self.drain_s = drain_s
        self.begun = False
        self._until = 0.0
        self._latest = 0.0
        self._seen = 0.0
        self._closed_at: float | None = None

    def begin(self, now: float, graceful_timeout_s: float) -> None:
        """Begin to tell everybody who comes."""
        self.begun = True
        self._seen = now
        self._latest = now + max(0.0, graceful_timeout_s - _MARGIN_S)
        self._until = min(now + self.drain_s, self._latest)

    def saw(self, now: float) -> None:
        """Note that somebody came."""
        self._seen = now

    def is_over(self, now: float, listeners: Iterable[Any]) -> bool:
        """Return whether the worker may go. Closes the door on the way; asked every few hundredths of a second."""
        if self._closed_at is None:
            if now < self._until and now - self._seen < QUIET_S:
                return False
            self._closed_at = now
            closed = [_close_the_door(each) for each in listeners]
            return not all(closed)  # who cannot be kept out goes on coming: there is no use in waiting for quiet
        return now >= self._latest or now - max(self._seen, self._closed_at) >= _CLOSING_QUIET_S


_SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h
_FLAGS_BYTE: Final = 13  # of a TCP header, RFC 9293
_SYN: Final = 0x02
_ACK: Final = 0x10
_ONLY_SYN: Final = b"".join(
    struct.pack("=HBBI", *each)  # struct sock_filter: code, jt, jf, k
    for each in (
        (0x30, 0, 0, _FLAGS_BYTE),  # load that byte
        (0x54, 0, 0, _SYN | _ACK),  # and
        (0x15, 0, 1, _SYN),  # a new connection?
        (0x06, 0, 0, 0),  # let it go unanswered
        (0x06, 0, 0, 0xFFFFFFFF),  # all else passes
    )
)


def _close_the_door(listener: Any) -> bool:
    """Let no new connection into the backlog, but those under way; return whether that is so.

    Without this some would come between the last look and the end of the process, and be reset. A client whose SYN
    goes unanswered repeats it after a second, and then finds a closed port or the next server.
    The filter is the socket's, not this process's, and ends with it: so never for one that somebody goes on to use.
    Recent kernels allow it on TCP only with CAP_NET_ADMIN (6.18 refuses; earlier ones have allowed it to everybody).
    """
    if getattr(listener, "family", None) not in {socket.AF_INET, socket.AF_INET6}:
        return True  # the path of a unix socket has gone with the master's listener
    program = ctypes.create_string_buffer(_ONLY_SYN, len(_ONLY_SYN))
    described = struct.pack("@HP", len(_ONLY_SYN) // 8, ctypes.addressof(program))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
    except OSError:  # not Linux, or forbidden: then a few may be reset, as with stock workers
        return False
    return True
