"""The sending end: HTTP/1.1 over kept connections, by gevent, with as little as can be done for each request.

Locust's fast client takes up to twice the CPU for each, and the tail of the lag grows with it (bench/generator_lag.py).
What the wire says is parsed by geventhttpclient's parser; what is sent is put together once per kind.
"""

import ssl
from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import gevent
from gevent import socket
from gevent.ssl import SSLContext, SSLSocket, create_default_context
from geventhttpclient._parser import HTTPParseError
from geventhttpclient.response import HTTPResponse

from groundfault._clock import monotonic
from groundfault.lab.load.scenario import NUMBERS, Request

__all__ = ["Answer", "BrokenError", "Client"]

_BLOCK: Final = 65_536
_STALE_S: Final = 1.0
"""Servers close connections that idle too long. What was lost on one that has idled for this is sent once more;
on a younger one the server has failed a request, and sending it again would hide that and add load to it."""

_REMEMBERED: Final = 10_000
"""So many requests are kept put together; a replay may make a new one for each arrival."""

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})


class Answer(NamedTuple):
    """What came back. ``headers`` by their names in lower case, a repeated one joined by commas."""

    status: int
    headers: Mapping[str, str]
    length: int

    def get(self, name: str, /) -> str | None:
        """Return the value of a header, whatever the case of its name."""
        return self.headers.get(name.lower())


class BrokenError(Exception):
    """No answer: the connection could not be made, or broke. The message says how, in few words.

    ``refused``: it could not be made.
    """

    def __init__(self, how: str, *, refused: bool) -> None:
        super().__init__(how)
        self.refused = refused


class _Reply(HTTPResponse):
    """A response whose body is counted and not kept, and whose headers are kept as they are."""

    def __init__(self, method: str) -> None:
        super().__init__(method)
        self.size = 0
        self.found: dict[str, str] = {}

    def _flush_header(self) -> None:
        name = self._current_header_field
        if name is not None:
            name, value = name.lower(), self._current_header_value or ""
            self.found[name] = f"{self.found[name]}, {value}" if name in self.found else value
            self._current_header_field = self._current_header_value = None

    def _on_body(self, buf: bytearray) -> None:
        self.size += len(buf)


class Client:
    """Connections to one place. Not for threads: its greenlets share it.

    ``url``: ``http://host:port/prefix`` or ``https``. ``insecure``: certificates are not verified.
    Raises ValueError for any other kind of URL.
    """

    def __init__(self, url: str, *, connect_s: float = 10.0, insecure: bool = False) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"host must be a URL with http:// or https://, not {url!r:.200}")
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if self._secure else 80)
        self._prefix = parts.path.rstrip("/")
        self._connect_s = connect_s
        self._tls = _tls(insecure=insecure) if self._secure else None
        self._idle: deque[tuple[socket.socket, float]] = deque()
        self._known: dict[int, tuple[Request, list[bytes]]] = {}
        self._authority = parts.netloc.rpartition("@")[2]
        self._addresses: list[tuple[int, tuple[object, ...]]] = []

    def warm(self) -> None:
        """Look the host's name up, once for the whole run. Raises BrokenError."""
        try:
            found = socket.getaddrinfo(self._host, self._port, 0, socket.SOCK_STREAM)
        except OSError as error:
            raise BrokenError(f"the name {self._host} is not known ({error})", refused=True) from error
        self._addresses = [(family, address) for family, _, _, _, address in found]

    def close(self) -> None:
        """Close the connections that are idle."""
        while self._idle:
            self._idle.pop()[0].close()

    def send(self, request: Request, drawn: float) -> Answer:
        """Send it and return the answer. Raises BrokenError; a gevent.Timeout on the way closes the connection."""
        data = (b"%d" % (1 + int(drawn * NUMBERS))).join(self._pieces(request))
        kept, idle_s = self._take()
        if kept is not None:
            try:
                return self._exchange(kept, data, request.method)
            except _StaleError:
                if request.method not in _IDEMPOTENT or idle_s < _STALE_S:
                    raise BrokenError("the connection was closed", refused=False) from None
        try:
            return self._exchange(self._connect(), data, request.method)
        except _StaleError:
            raise BrokenError("the connection was closed", refused=False) from None

    def _exchange(self, connection: socket.socket, data: bytes, method: str) -> Answer:
        keep = False
        reply = _Reply(method)
        begun = False
        try:
            connection.sendall(data)
            while not reply.message_complete or reply.get_code() < 200:  # noqa: PLR2004  1xx: the answer is still to come
                block = connection.recv(_BLOCK)
                if not block and not begun:
                    raise _StaleError
                begun = True
                reply.feed(block)
                if not block and not reply.message_complete:
                    raise BrokenError("the connection was closed in the middle of an answer", refused=False)
            keep = not reply.should_close()
        except (ConnectionResetError, BrokenPipeError) as error:
            if not begun:
                raise _StaleError from error
            raise BrokenError("the connection was reset", refused=False) from error
        except (OSError, HTTPParseError) as error:
            raise BrokenError(f"{type(error).__name__}: {error}"[:120], refused=False) from error
        finally:
            if keep:
                self._idle.append((connection, monotonic()))
            else:
                connection.close()
        return Answer(reply.get_code(), reply.found, reply.size)

    def _take(self) -> tuple[socket.socket | None, float]:
        """Return an idle connection that is as it was left, and for how long it has been idle."""
        while self._idle:
            connection, since = self._idle.pop()  # the one used last is the least likely to have been closed
            if _is_open(connection):
                return connection, monotonic() - since
            connection.close()
        return None, 0.0

    def _connect(self) -> socket.socket:
        if not self._addresses:
            self.warm()
        problem: OSError | None = None
        for family, address in self._addresses:
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.settimeout(self._connect_s)
                connection.connect(address)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is not None:
                    connection = self._tls.wrap_socket(connection, server_hostname=self._host)
                connection.settimeout(None)
            except OSError as error:
                connection.close()
                problem = error
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        raise BrokenError(_connect_words(problem), refused=True)

    def _pieces(self, request: Request) -> list[bytes]:
        known = self._known.get(id(request))
        if known is not None and known[0] is request:
            return known[1]
        made = self._made(request)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[id(request)] = (request, made)
        return made

    def _made(self, request: Request) -> list[bytes]:
        """Return the bytes between the places where the number stands."""
        headers = {"Host": self._authority, "User-Agent": "groundfault-lab", "Accept": "*/*", **request.headers}
        if request.body or request.method in {"POST", "PUT", "PATCH"}:
            headers["Content-Length"] = str(len(request.body))
        pieces = [piece.encode("latin-1") for piece in f"{self._prefix}{request.path}".split("{n}")]
        rest = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        pieces[0] = request.method.encode("latin-1") + b" " + pieces[0]
        pieces[-1] += f" HTTP/1.1\r\n{rest}\r\n".encode("latin-1") + request.body
        return pieces


class _StaleError(Exception):
    """The connection ended before a single byte of the answer came."""


def _is_open(connection: socket.socket) -> bool:
    """Return whether nothing has come on it: an answer that nobody asked for, or its end."""
    if isinstance(connection, SSLSocket):  # it does not let itself be looked into; its end shows when it is used
        return True
    connection.settimeout(0.0)
    try:
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        connection.settimeout(None)
        return True
    except OSError:
        return False
    return False


def _tls(*, insecure: bool) -> SSLContext:
    context = create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _connect_words(error: OSError | None) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, gevent.Timeout | TimeoutError):
        return "connecting took too long"
    return f"no connection: {error}"[:120]
