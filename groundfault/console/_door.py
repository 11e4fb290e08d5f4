"""Answers on one listening socket, in a process whose other threads may leave it no turn.

Several threads wait at the door, and a request wakes all of them: whichever gets the interpreter's lock first answers.
With one, and eight threads that compute, a hundredth of the answers took 240 ms; see ``bench/console_port.py``.
What cannot be answered at once, be it for a slow client or a store that waits, gets a thread of its own, a few at most.
"""

import select
import socket
import threading
from contextlib import suppress
from time import sleep
from typing import Final

from groundfault._clock import monotonic
from groundfault.console._kernel import FAILED, Calls, calls
from groundfault.console._requests import CONTINUE, BadRequestError, Head, head_of, sent
from groundfault.console.answering import Console
from groundfault.events import note_internal_error

__all__ = ["Door"]

_AT_THE_DOOR: Final = 16
_SLOW: Final = 32
_SLOW_S: Final = 10.0  # so long a client may take altogether, to send its request and to take the answer
_LINGER_S: Final = 0.5  # so long what is still sent by a client that was refused is read, that it sees the answer
_NO_MORE_S: Final = 0.2  # a pause where no connection can be had, as when there are too many files open
_CHUNK: Final = 64 * 1024


class Door:
    """Answers on ``listener``, which listens and does not block, until :meth:`close`.

    Raises RuntimeError where no thread is to be had.
    """

    def __init__(self, listener: socket.socket, console: Console, *, slow_s: float = _SLOW_S) -> None:
        self._listener = listener
        self._console = console
        self._slow_s = slow_s
        self._unix = listener.family == getattr(socket, "AF_UNIX", None)
        self._closing = False
        self._slow = threading.BoundedSemaphore(_SLOW)
        self._bell, self._ringer = socket.socketpair()
        self._threads: list[threading.Thread] = []
        try:
            for _ in range(_AT_THE_DOOR):
                thread = threading.Thread(target=self._wait, name="groundfault-console-door", daemon=True)
                thread.start()
                self._threads.append(thread)
        except RuntimeError:
            if not self._threads:  # one will do
                self.abandon()
                raise

    def close(self, timeout_s: float = 1.0) -> None:
        """Answer no more. Connections that are being answered go on."""
        self._closing = True
        with suppress(OSError):
            self._ringer.shutdown(socket.SHUT_RDWR)
        until = monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - monotonic()))
        self.abandon()

    def abandon(self) -> None:
        """Close the files alone, as in the child of a fork, where there are no threads."""
        for each in (self._listener, self._bell, self._ringer):
            with suppress(OSError):
                each.close()

    def _wait(self) -> None:
        try:
            self._answer_all()
        except Exception as error:  # noqa: BLE001  there are others at the door
            note_internal_error("console port", error)

    def _answer_all(self) -> None:
        kernel, listener = calls(), self._listener.fileno()
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(self._bell.fileno(), select.POLLIN)
        while True:
            poll.poll()
            if self._closing:
                return
            while (connection := kernel.accept(listener)) >= 0:
                self._answer(kernel, connection)
            if connection == FAILED:
                sleep(_NO_MORE_S)

    def _answer(self, kernel: Calls, connection: int) -> None:
        try:
            data = kernel.receive(connection)
            left = self._answer_to(data)
            if left is not None:
                left = left[kernel.send(connection, left) :]
                if not left:
                    kernel.close(connection)
                    return
        except Exception as error:  # noqa: BLE001  that client has no answer, the next one has
            note_internal_error("console port", error)
            kernel.close(connection)
            return
        if not self._slow.acquire(blocking=False):
            kernel.close(connection)
            return
        try:
            sock = socket.socket(fileno=connection)
        except OSError:  # it is gone
            kernel.close(connection)
            self._slow.release()
            return
        try:
            threading.Thread(
                target=self._slowly, args=(sock, data, left), name="groundfault-console-slow", daemon=True
            ).start()
        except RuntimeError:  # no thread is to be had
            sock.close()
            self._slow.release()

    def _answer_to(self, data: bytes) -> bytes | None:
        """Return the answer if it is to be had at once, None if not."""
        try:
            found = head_of(data, unix=self._unix)
        except BadRequestError as bad:
            return sent(bad.answer)
        if found is None:
            return None
        asked = found[0].asked
        if asked.method == "POST" or self._console.may_wait(asked):
            return None
        return sent(self._console.answer(asked))

    # --- on a thread of its own ---------------------------------------------------------------------------------------

    def _slowly(self, sock: socket.socket, data: bytes, left: bytes | None) -> None:
        try:
            with sock:
                until = monotonic() + self._slow_s
                if left is None:
                    try:
                        left = self._answer_slowly(sock, data, until)
                    except BadRequestError as bad:
                        left = sent(bad.answer)
                if left:
                    _bounded(sock, until)
                    sock.sendall(left)
                    _linger(sock)
        except OSError:  # the client took too long, or is gone
            pass
        except Exception as error:  # noqa: BLE001  that client has no answer, the next one has
            note_internal_error("console port", error)
        finally:
            self._slow.release()

    def _answer_slowly(self, sock: socket.socket, data: bytes, until: float) -> bytes:
        head, rest = _head(sock, data, until, unix=self._unix)
        if not head:
            return b""
        refused = self._console.refused(head.asked)  # first, so that nobody without the token has a body read
        if refused is not None:
            return sent(refused)
        asked = head.asked
        if asked.method == "POST":
            asked = asked._replace(body=_body(sock, head, rest, until))
        return sent(self._console.answered(asked))


def _bounded(sock: socket.socket, until: float) -> None:
    left_s = until - monotonic()
    if left_s <= 0:
        raise TimeoutError
    sock.settimeout(left_s)


def _head(sock: socket.socket, data: bytes, until: float, *, unix: bool) -> tuple[Head | None, bytes]:
    while (found := head_of(data, unix=unix)) is None:
        _bounded(sock, until)
        more = sock.recv(_CHUNK)
        if not more:
            return None, b""
        data += more
    return found


def _body(sock: socket.socket, head: Head, rest: bytes, until: float) -> bytes | None:
    if head.length is None:
        return None
    if head.expects and not rest:
        _bounded(sock, until)
        sock.sendall(CONTINUE)
    parts, size = [rest], len(rest)
    while size < head.length:
        _bounded(sock, until)
        more = sock.recv(_CHUNK)
        if not more:
            raise ConnectionError
        parts.append(more)
        size += len(more)
    return b"".join(parts)[: head.length]


def _linger(sock: socket.socket) -> None:
    """Read a little of what still comes: a socket that is closed with something unread takes its answer back."""
    sock.shutdown(socket.SHUT_WR)
    until = monotonic() + _LINGER_S
    while True:
        _bounded(sock, until)
        if not sock.recv(_CHUNK):
            return
