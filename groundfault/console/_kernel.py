"""Calls of the kernel that do not wait, made without letting go of the interpreter's lock.

Python lets go of it for each call on a socket, even for one that cannot wait. Where eight threads compute, to have it
back takes 40 ms at the mean. A request that is taken, read, answered and closed by four such calls would take four
times that; one that keeps the lock waits for it once, when it wakes up.

Where the C library cannot be called, Python's own calls do the same, and it takes longer.
"""

import ctypes
import errno
import os
import socket
from contextlib import suppress
from typing import Final, Protocol

__all__ = ["FAILED", "NONE", "Calls", "calls"]

NONE: Final = -1
FAILED: Final = -2
_TAKEN: Final = 64 * 1024
_NOBODY: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED, errno.EINTR})


class Calls(Protocol):
    """What is done with descriptors. Nothing raises, and nothing waits if the descriptors are set so."""

    def accept(self, listener: int) -> int:
        """Return a new connection, which does not block; NONE if there is none, FAILED if none can be had."""

    def receive(self, connection: int) -> bytes:
        """Return what has arrived, at most 64 KiB; nothing if nothing has."""

    def send(self, connection: int, data: bytes) -> int:
        """Return how much of it could be sent at once."""

    def close(self, connection: int) -> None:
        """Close it."""


class _OfTheLibrary:
    """Through the C library. One object for each thread: it has a buffer."""

    def __init__(self) -> None:
        # A library object of its own: its prototypes are nobody else's, as those of ctypes.pythonapi would be.
        library = ctypes.PyDLL(None, use_errno=True)
        number, size, pointer = ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p
        self._accept, self._receive, self._send = library.accept4, library.recv, library.send
        self._close = library.close
        self._accept.argtypes = (number, pointer, pointer, number)
        self._receive.argtypes = (number, pointer, size, number)
        self._send.argtypes = (number, ctypes.c_char_p, size, number)
        self._close.argtypes = (number,)
        self._receive.restype = self._send.restype = ctypes.c_ssize_t
        self._buffer = ctypes.create_string_buffer(_TAKEN)

    def accept(self, listener: int) -> int:
        connection = int(self._accept(listener, None, None, socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC))
        return connection if connection >= 0 else NONE if ctypes.get_errno() in _NOBODY else FAILED

    def receive(self, connection: int) -> bytes:
        size = self._receive(connection, self._buffer, _TAKEN, socket.MSG_DONTWAIT)
        return ctypes.string_at(self._buffer, size) if size > 0 else b""

    def send(self, connection: int, data: bytes) -> int:
        return max(0, int(self._send(connection, data, len(data), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)))

    def close(self, connection: int) -> None:
        self._close(connection)


class _OfPython:
    """Through Python's own sockets."""

    def accept(self, listener: int) -> int:
        try:
            with socket.socket(fileno=os.dup(listener)) as sock:
                connection, _ = sock.accept()
                connection.setblocking(False)  # noqa: FBT003  the standard library's signature
                return int(connection.detach())
        except OSError as error:
            return NONE if error.errno in _NOBODY else FAILED

    def receive(self, connection: int) -> bytes:
        with suppress(OSError):
            return os.read(connection, _TAKEN)
        return b""

    def send(self, connection: int, data: bytes) -> int:
        with suppress(OSError):
            return os.write(connection, data)
        return 0

    def close(self, connection: int) -> None:
        with suppress(OSError):
            os.close(connection)


def calls() -> Calls:
    """Return the calls for one thread: the quick ones where there are such."""
    try:
        return _OfTheLibrary()
    except (AttributeError, OSError, TypeError, ValueError):  # no accept4, as on macOS, or no library to be found
        return _OfPython()
