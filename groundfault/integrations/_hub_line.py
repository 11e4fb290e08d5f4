"""One connection to a hub: kept open between requests, and every request over in time, whatever the other side does.

What is sent, what drips, what never ends: all of it together has the time that was given, and no more. Redirects are
not followed, proxies of the environment are not used, and of an answer no more is read than was asked for.
"""

import json
import os
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, Final

from groundfault import wire
from groundfault._clock import monotonic
from groundfault.integrations import _settings_forks  # noqa: F401  for what it imports before any fork
from groundfault.integrations._hub_address import PORTS, Address
from groundfault.integrations._settings_records import cause_of

__all__ = ["Line", "LineError", "Told", "printable", "refusal_in"]

_PIECE: Final = 64 * 1024
_LEAST_S: Final = 0.001
_MOST_SHOWN: Final = 500
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

_inherited: list[object] = []
"""What a forked child has from its parent: kept, so that nothing of it is finalized there."""


class LineError(Exception):
    """There was no answer. The message says why, without secrets; ``sent``: the hub may have got the request."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why, sent)
        self.why = why
        self.sent = sent

    def __str__(self) -> str:
        return self.why


@dataclass(frozen=True, slots=True)
class Told:
    """An answer. ``status``: as 200; ``body``: all of it."""

    status: int
    body: bytes


# --- time -------------------------------------------------------------------------------------------------------------


class _Timed:
    """A socket on which everything together ends at ``until``, by the monotonic clock.

    It has what http.client wants of a socket. Its buffer is without a lock: that of ``makefile`` has one, and in the
    child of a fork it would stay held for ever by a thread of the parent.
    """

    def __init__(self, sock: socket.socket, until: float) -> None:
        self.sock = sock
        self.until = until
        self.rest = bytearray()
        self._readers = 0
        self._ends = False

    def in_time(self) -> socket.socket:
        """Return the socket, set to wait as long as there is time. Raises TimeoutError."""
        left_s = self.until - monotonic()
        if left_s <= 0.0:
            raise TimeoutError("no answer in time")
        self.sock.settimeout(max(left_s, _LEAST_S))
        return self.sock

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self.in_time().send(view[:_PIECE]) :]

    def makefile(self, _mode: str) -> "_Reader":
        self._readers += 1
        return _Reader(self)

    def let_go(self) -> None:
        """Have one reader less."""
        self._readers -= 1
        if self._ends and self._readers <= 0:
            self.sock.close()

    def close(self) -> None:
        """End, as soon as nobody reads from it any more."""
        self._ends = True
        if self._readers <= 0:
            self.sock.close()


class _Reader:
    """What http.client reads an answer from."""

    def __init__(self, timed: _Timed) -> None:
        self._timed = timed
        self.closed = False

    def _more(self) -> bool:
        data = self._timed.in_time().recv(_PIECE)
        self._timed.rest += data
        return bool(data)

    def _take(self, size: int) -> bytes:
        rest = self._timed.rest
        taken = bytes(rest[:size])
        del rest[:size]
        return taken

    def readline(self, limit: int) -> bytes:
        """Return a line with its end, or ``limit`` bytes, or what there was before the end."""
        rest, looked = self._timed.rest, 0
        while True:
            end = rest.find(b"\n", looked, limit)
            if end >= 0:
                return self._take(end + 1)
            looked = len(rest)
            if looked >= limit or not self._more():
                return self._take(limit)

    def read(self, size: int) -> bytes:
        """Return as many bytes, fewer only at the end."""
        while len(self._timed.rest) < size and self._more():
            pass
        return self._take(size)

    def flush(self) -> None:
        """Do nothing: it is only read from."""

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._timed.let_go()


class _Connection(HTTPConnection):
    """Never connects by itself, which :class:`Line` does in time."""

    auto_open = 0
    sock: Any


_Request = tuple[str, str, bytes | None, dict[str, str]]


# --- the connection ---------------------------------------------------------------------------------------------------


class Line:
    """One connection to a hub, for one thread at a time; opened when it is used, and again when it was lost.

    ``most``: bytes that an answer may have. A forked child opens one of its own.
    Looking up the host's name is the one thing that the time limits do not hold for.
    """

    def __init__(self, address: Address, *, token: str | None, context: ssl.SSLContext | None, most: int) -> None:
        self._address = address
        self._context = context
        self._most = most
        self._headers = {"Accept": "application/json", "User-Agent": "groundfault"}
        if token is not None:
            self._headers[wire.TOKEN] = token
        if address.authorization is not None:
            self._headers["Authorization"] = address.authorization
        self._secrets = (*address.secrets, *(() if token is None else (token,)))
        self._pid = os.getpid()
        self._opened: tuple[_Connection, _Timed] | None = None

    def ask(
        self,
        method: str,
        path: str,
        *,
        within_s: float,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        once: bool = False,
    ) -> Told:
        """Return the answer. All of it takes ``within_s`` seconds at most. Raises LineError.

        A connection that the hub has closed in the meantime is opened anew, once; or, with ``once``, always: then the
        request leaves this process one time at most.
        """
        if self._pid != os.getpid():
            self.begin_anew()
        until = monotonic() + within_s
        if once:
            self.close()
        request = (method, f"{self._address.prefix}{path}", body, {**self._headers, **(headers or {})})
        try:
            if self._opened is not None:
                with suppress(ConnectionError):  # RemoteDisconnected is one too: idle connections do get closed
                    return self._asked(*self._opened, request, until)
            self.close()
            self._opened = self._open(until)
            return self._asked(*self._opened, request, until)
        except Exception as error:  # noqa: BLE001  whatever it is, there was no answer
            sent = self._opened is not None
            self.close()
            raise LineError(printable(cause_of(error, self._secrets)), sent=sent) from None
        except BaseException:
            self.close()
            raise

    def _asked(self, connection: _Connection, timed: _Timed, request: _Request, until: float) -> Told:
        timed.until = until
        method, path, body, headers = request
        # Whoever refuses a body unread has said why before closing.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        try:
            told = Told(answer.status, self._body_of(answer))
        finally:
            answer.close()
        if answer.will_close or timed.rest:  # what comes unasked belongs to no answer
            self.close()
        return told

    def _body_of(self, answer: HTTPResponse) -> bytes:
        if answer.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise ValueError("the answer is compressed, which was not asked for")
        if (answer.length or 0) > self._most:
            raise ValueError(f"the answer has more than {self._most} bytes")
        pieces, size = [], 0
        while piece := answer.read(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > self._most:
                raise ValueError(f"the answer has more than {self._most} bytes")
        if answer.length:
            raise HTTPException("the answer ends before its end")
        return b"".join(pieces)

    def _open(self, until: float) -> tuple[_Connection, _Timed]:
        address = self._address
        sock = _connected(address.host, address.port, until)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_hostname=address.host, do_handshake_on_connect=False)
                sock.settimeout(max(until - monotonic(), _LEAST_S))
                sock.do_handshake()
        except BaseException:
            sock.close()
            raise
        connection = _Connection(address.host, address.port)
        connection.default_port = PORTS[address.scheme]
        connection.sock = timed = _Timed(sock, until)
        return connection, timed

    def close(self) -> None:
        """Let go of the connection; a later request opens another."""
        opened, self._opened = self._opened, None
        if opened is not None and self._pid == os.getpid():
            connection, timed = opened
            with suppress(Exception):  # it is lost anyway
                connection.close()
            timed.sock.close()

    def begin_anew(self) -> None:
        """Leave to the parent of a fork what is the parent's: its end here must not be felt there."""
        self._pid = os.getpid()
        opened, self._opened = self._opened, None
        if opened is not None:
            _inherited.append(opened)
            with suppress(OSError):
                os.close(opened[1].sock.detach())


def _connected(host: str, port: int, until: float) -> socket.socket:
    """Return a connection to the first address that answers; each has its share of the time."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    last: OSError = OSError("the name has no address")
    for number, (family, kind, protocol, _, place) in enumerate(found):
        left_s = until - monotonic()
        if left_s <= 0.0:
            raise TimeoutError("no connection in time") from last
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(max(left_s / (len(found) - number), _LEAST_S))
            sock.connect(place)
        except OSError as error:
            sock.close()
            last = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise last


def refusal_in(told: Told) -> str:
    """Return what an answer that is none of those hoped for says, in a line fit to be shown."""
    if told.status in _REDIRECTS:
        return f"it answers {told.status}, and redirects are not followed"
    try:
        errors = json.loads(told.body)["errors"]
        said = "; ".join(each for each in errors if isinstance(each, str))
    except (ValueError, LookupError, TypeError, RecursionError):
        said = told.body[:_MOST_SHOWN].decode("utf-8", "replace")
    said = printable(said)[:_MOST_SHOWN]
    return f"it answers {told.status}: {said}" if said else f"it answers {told.status}"


def printable(text: str) -> str:
    """Return text that came from elsewhere in one line, with signs that can be shown."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(text.split()))
