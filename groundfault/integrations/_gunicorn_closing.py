"""Closing connections without keeping a worker waiting, and without losing the end of an answer.

Closing a socket with unread bytes in it resets the connection, and the reset may overtake the answer. So gunicorn
from 26.0 on half-closes and then waits for the peer, up to two seconds: in the sync worker, or on the main thread of
gthread. Here a connection whose request has been read to its end, with nothing behind it, is closed at once; for any
other a thread reads what comes and throws it away, until the peer has closed, is silent for two seconds, or has had
ten.
"""

import selectors
import socket
import sys
import termios
from collections import OrderedDict
from contextlib import suppress
from fcntl import ioctl
from threading import Event, Lock, Thread
from typing import Any, Final, NamedTuple

from groundfault._clock import monotonic

__all__ = ["Closer"]

QUIET_S: Final = 2.0
"""A peer that sends nothing for so long has left, or reads nothing. gunicorn's ``close_graceful`` waits as long."""
LONGEST_S: Final = 10.0
"""So long a peer may go on sending what nobody reads: 8 MB at 6.4 Mbit/s."""
MOST: Final = 128
"""So many connections are seen off at a time; beyond, the oldest is closed as it is."""

_IDLE_S: Final = 1.0  # a thread with nothing to see off ends
_TICK_S: Final = 0.25
_AT_ONCE: Final = 4  # chunks read by whoever closes, before the thread takes over
_CHUNK: Final = 262_144
_NOTHING: Final = bytes(4)  # an int of C
# tcp(7): "MSG_TRUNC causes the received bytes of data to be discarded, rather than passed back": nothing is copied.
_DISCARD: Final = socket.MSG_DONTWAIT | (socket.MSG_TRUNC if sys.platform == "linux" else 0)


class _Leaving(NamedTuple):
    sock: Any
    until: float


class Closer:
    """Sees connections off. One per worker process; thread-safe. Does nothing before the fork."""

    def __init__(self) -> None:
        # Guards everything below; held for dictionary operations and non-blocking system calls only.
        self._lock = Lock()
        self._leaving: OrderedDict[int, _Leaving] = OrderedDict()
        self._silent_until: dict[int, float] = {}
        self._selector: selectors.BaseSelector | None = None
        self._runs = False
        self._ended = Event()
        self._read_to_end: set[int] = set()
        self._scratch = bytearray(_CHUNK)

    def note_read_to_end(self, sock: Any) -> None:
        """Remember that this connection's request has been read to its end, and that it is about to be closed."""
        fd = sock.fileno()
        if fd >= 0:  # else it has been closed meanwhile, as after an error in the middle of an answer
            self._read_to_end.add(fd)

    def close(self, sock: Any, *_args: object, **_options: object) -> None:
        """Close, at once or in the background. Never raises, never waits; takes the place of gunicorn's own."""
        fd = sock.fileno()
        if fd < 0:  # closed already
            return
        read_to_end = fd in self._read_to_end
        self._read_to_end.discard(fd)
        leaving = self._leaving.get(fd)
        if leaving is not None and leaving.sock is sock:  # closed twice, as gunicorn does after an error in an answer
            return
        try:
            if read_to_end and _is_empty(fd):
                _close(sock)
                return
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(0.0)
            if self._emptied(sock):
                _close(sock)
                return
        except (OSError, ValueError):  # the peer has gone already, or the closing thread has closed it
            _close(sock)
            return
        self._see_off(fd, sock)

    def _emptied(self, sock: Any) -> bool:
        """Read what is there; true if the peer has closed as well. Raises OSError where it was reset."""
        try:
            for _ in range(_AT_ONCE):
                if not sock.recv_into(self._scratch, _CHUNK, _DISCARD):
                    return True
        except BlockingIOError:
            pass
        return False

    def _see_off(self, fd: int, sock: Any) -> None:
        now = monotonic()
        try:
            with self._lock:
                if self._selector is None:
                    self._selector = selectors.DefaultSelector()
                while len(self._leaving) >= MOST:
                    self._end(next(iter(self._leaving)))
                self._selector.register(fd, selectors.EVENT_READ)
                self._leaving[fd] = _Leaving(sock, now + LONGEST_S)
                self._silent_until[fd] = now + QUIET_S
                if not self._runs:
                    Thread(target=self._run, name="groundfault-closing", daemon=True).start()
                    self._runs = True
        except (OSError, RuntimeError, KeyError, ValueError):  # out of descriptors or threads
            _close(sock)

    def _run(self) -> None:
        idle_since = None
        while True:
            selector = self._selector
            if selector is None:
                return
            with suppress(OSError):
                for key, _ in selector.select(_TICK_S):
                    self._read_some(key.fd)
            now = monotonic()
            with self._lock:
                for fd in [each for each, until in self._silent_until.items() if now >= until]:
                    self._end(fd)
                if self._leaving:
                    idle_since = None
                elif idle_since is None:
                    idle_since = now
                elif now - idle_since >= _IDLE_S:
                    self._runs = False
                    return

    def _read_some(self, fd: int) -> None:
        leaving = self._leaving.get(fd)
        if leaving is None:
            return
        try:
            over = self._emptied(leaving.sock)
        except OSError:
            over = True
        now = monotonic()
        with self._lock:
            if self._leaving.get(fd) is not leaving:  # closed meanwhile, and its number may be another's
                return
            if over or now >= leaving.until:
                self._end(fd)
            else:
                self._silent_until[fd] = min(now + QUIET_S, leaving.until)

    def _end(self, fd: int) -> None:
        leaving = self._leaving.pop(fd)
        self._silent_until.pop(fd, None)
        if self._selector is not None:
            with suppress(OSError, KeyError, ValueError):
                self._selector.unregister(fd)
        _close(leaving.sock)
        self._ended.set()

    def finish(self, timeout_s: float) -> None:
        """Wait for those who are leaving, at most so long, then close the rest: the process is about to end."""
        deadline = monotonic() + timeout_s
        while self._leaving and monotonic() < deadline:
            self._ended.wait(_TICK_S)
            self._ended.clear()
        with self._lock:
            for fd in list(self._leaving):
                self._end(fd)

    def __len__(self) -> int:
        """How many connections are being seen off."""
        return len(self._leaving)


def _is_empty(fd: int) -> bool:
    """Return whether nothing has come since, such as a pipelined request. Raises OSError as the socket would."""
    return ioctl(fd, termios.FIONREAD, _NOTHING) == _NOTHING


def _close(sock: Any) -> None:
    with suppress(OSError):
        sock.close()
