"""The connection a request came on: the way to its socket on each server, and what can be learned from it.

A server hands an application no socket, but each leaves a way to it. The ways are here, one for each server,
and the two shells know none of them.
"""

import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from groundfault._clock import wall
from groundfault.events import note_internal_error
from groundfault.shedding._listener import note_listener
from groundfault.shedding._paths import Way, find_owner, known_server
from groundfault.shedding._sockdiag import Address, TcpByName, towards
from groundfault.shedding._socket import MOD_WSGI, SOCK_DIAG, Connection, borrow
from groundfault.shedding._wait import Bracket, header_age

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sized

__all__ = [
    "CONNECTION",
    "Connection",
    "connection_of_asgi",
    "connection_of_transport",
    "connection_of_wsgi",
    "lone_socket",
]

CONNECTION: Final = "groundfault.connection"
"""Where a worker or protocol class may put a :class:`Connection` of its own making: into the scope or the environ."""

_NO_CONNECTION: Final = Connection(None)
_UNCOUNTED: Final = Connection(None, cause="HTTP/2, and no way to tell how many streams are open")
_MAX_PORT: Final = 65_535
_ATTRIBUTE: Final = "_groundfault_connection"


# --- ASGI -------------------------------------------------------------------------------------------------------------


def connection_of_asgi(scope: object, receive: object, send: object) -> Connection:
    """Return the connection of an ASGI request, the same object for every request on it. Never raises.

    uvicorn, gunicorn, hypercorn and daphne are known, below any middleware as well.
    """
    try:
        if isinstance(scope, dict):
            given = scope.get(CONNECTION)
            if isinstance(given, Connection):
                return given
        owner = getattr(receive, "__self__", None)
        server = known_server(type(owner))  # as for most requests; a microsecond less than to find it anew
        if server is None:
            found = find_owner(receive, send)
            if found is None:
                return _by_name(scope) if isinstance(scope, dict) else _NO_CONNECTION
            owner, server = found
        holder = server.holder(owner)
        known: object = getattr(holder, _ATTRIBUTE, None)
        if isinstance(known, Connection):
            return known
        made = _made(server.way(owner))
        with suppress(AttributeError):  # one with slots: then it is made anew for each request
            setattr(holder, _ATTRIBUTE, made)
    except Exception as error:  # noqa: BLE001  a server of another shape than expected must not cost the request
        note_internal_error("way to the connection", error)
        return _NO_CONNECTION
    return made


def _made(way: Way) -> Connection:
    transport = way.transport
    if transport is None:
        return Connection(None, drains_bodies=way.drains_bodies)
    if not hasattr(transport, "get_extra_info"):
        return _below(transport, way)
    return connection_of_transport(transport, streams=way.streams, drains_bodies=way.drains_bodies)


def connection_of_transport(
    transport: Any, *, streams: "Sized | None" = None, drains_bodies: bool = False
) -> Connection:
    """Return a new connection for a transport of asyncio's or uvloop's; raises what the transport does."""
    info = transport.get_extra_info
    sock = info("socket")
    closing = None
    if type(sock).__module__.partition(".")[0] == "uvloop":
        # It would build a socket for each question, at 5 µs.
        sock = borrow(sock.fileno(), sock.family)
        closing = transport.is_closing
    else:
        sock = getattr(sock, "_sock", sock)  # asyncio's TransportSocket, a layer of Python
    note_listener(sock)
    return Connection(
        sock,
        peername=info("peername") or "",  # none is known of a peer that has gone
        is_closing=closing,
        tls=info("sslcontext") is not None,
        streams=streams,
        drains_bodies=drains_bodies,
    )


def _below(transport: Any, way: Way) -> Connection:
    """Return the connection of a transport of Twisted's or a stream of trio's: another beneath it means TLS."""
    tls = False
    for _ in range(3):
        sock = getattr(transport, "socket", None)
        if sock is not None:
            note_listener(sock)
            return Connection(sock, tls=tls, streams=way.streams, drains_bodies=way.drains_bodies)
        transport, tls = getattr(transport, "transport", None) or getattr(transport, "transport_stream", None), True
    return _NO_CONNECTION


# --- connections without an object of their own -----------------------------------------------------------------------

_ALL_ADDRESSES: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104  what a server is bound to says that it is no address
_MAX_NAMES: Final = 16_384  # of half a kilobyte each: whoever opens connections must not fill the memory
# By socket or name, how many segments have come; in a list, so that a known one is found but not set anew.
_of_sockets: "WeakKeyDictionary[Any, list[int]]" = WeakKeyDictionary()
_of_names: "dict[Any, list[int]]" = {}


class _Kept(Connection):
    """Made anew for each request, because nothing in reach could keep it; ``memory`` keeps how much has come before."""

    __slots__ = ("_count",)

    def __init__(
        self, sock: Any, memory: "MutableMapping[Any, list[int]]", key: Any, *, tls: bool, **more: Any
    ) -> None:
        count = memory.get(key)
        super().__init__(sock, tls=tls and count is None, **more)
        if count is None:
            if len(memory) >= _MAX_NAMES:
                memory.clear()
            count = memory[key] = [0]
        self._count = count
        self._segments = count[0]

    def read(self, *, continued: bool = False) -> Bracket | str:
        before = self._segments = self._count[0]  # another object's question may have come in between
        answer = super().read(continued=continued)
        self._count[0] = self._segments
        if isinstance(answer, Bracket) and (self._segments < before or self.signal != answer.signal):
            exact = answer.exact if self._segments >= before else self._segments <= 1  # the name of an earlier one
            answer = answer._replace(exact=exact, signal=self.signal)
        return answer


class _Anonymous(Connection):
    """Of which not even the peer is known: what the server says comes from a header that anybody may send."""

    __slots__ = ()

    def peer(self, named: str | None) -> str | None:  # noqa: ARG002  just not believed
        return ""


_REWRITTEN: Final = _Anonymous(None, cause="no way to the request's socket, and a header has replaced its address")


def _by_name(scope: dict[str, Any]) -> Connection:
    """Return the connection between the two ends a server names: granian, and any other that is not known here."""
    local, remote = _address(scope.get("server")), _address(scope.get("client"))
    if _is_rewritten(scope.get("client")):
        return _REWRITTEN
    if local is None or remote is None or not TcpByName.is_possible:
        return _NO_CONNECTION
    if not str(scope.get("http_version", "1.1")).startswith("1"):
        return _UNCOUNTED
    tls = scope.get("scheme") == "https"
    if local[0] in _ALL_ADDRESSES:
        local = towards(remote[0]), local[1]
    sock = TcpByName(local, remote)
    note_listener(sock)
    return _Kept(sock, _of_names, (local, remote), tls=tls, signal=SOCK_DIAG)


def _is_rewritten(named: Any) -> bool:
    """Return whether a header has taken the place of the peer's address: what it says has no port."""
    return isinstance(named, tuple | list) and len(named) == 2 and named[1] in (0, "0")  # noqa: PLR2004  host and port


def _address(named: Any) -> Address | None:
    """Return an address of IP as two values, whatever a server writes it as; None for anything else."""
    if not isinstance(named, tuple | list) or len(named) < 2:  # noqa: PLR2004  host and port
        return None
    host, port = named[0], named[1]
    if isinstance(host, str) and (isinstance(port, int) or (isinstance(port, str) and port.isdecimal())):
        with suppress(OSError, ValueError):
            socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
            return (host, int(port)) if 0 < int(port) <= _MAX_PORT else None
    return None


# --- WSGI -------------------------------------------------------------------------------------------------------------


_FORWARDED: Final = frozenset({"HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR", "HTTP_X_REAL_IP"})
"""Of which a middleware in front, such as werkzeug's ProxyFix, makes the address of the peer."""
_HEARSAY: Final = _Anonymous(None)
_QUEUE_START: Final = "mod_wsgi.queue_start"
_MICROSECONDS: Final = 1e11  # in seconds, a time of three thousand years from now


class _Queued(Connection):
    """A request that Apache handed to a daemon process of mod_wsgi, and when it did."""

    __slots__ = ("_began", "_is_rewritable")

    def __init__(self, began: object, *, is_rewritable: bool) -> None:
        super().__init__(None, signal=MOD_WSGI)
        self._began = began
        self._is_rewritable = is_rewritable

    def peer(self, named: str | None) -> str | None:
        return "" if self._is_rewritable else named

    def read(self, *, continued: bool = False) -> Bracket | str:  # noqa: ARG002  nothing here can be mistaken for another
        try:
            began = float(str(self._began))
            age_s = header_age(began / 1e6 if began > _MICROSECONDS else began, wall())
        except ValueError:
            age_s = None
        return f"{_QUEUE_START} is no time" if age_s is None else Bracket(age_s, age_s, signal=MOD_WSGI)


def connection_of_wsgi(environ: dict[str, Any]) -> Connection:
    """Return the connection of a WSGI request. Never raises.

    gunicorn (any worker class), werkzeug, waitress, cheroot and uWSGI are known; servers whose input is a file of the
    socket's, such as wsgiref, follow from it. Apache's mod_wsgi says itself when it took the request.
    """
    try:
        given = environ.get(CONNECTION)
        if isinstance(given, Connection):
            return given
        sock = environ.get("gunicorn.socket") or environ.get("werkzeug.socket") or _socket_of(environ)
        if sock is None:
            is_rewritable = not _FORWARDED.isdisjoint(environ)
            if _QUEUE_START in environ:
                return _Queued(environ[_QUEUE_START], is_rewritable=is_rewritable)
            return _HEARSAY if is_rewritable else _NO_CONNECTION
        tls = hasattr(sock, "selected_alpn_protocol")
        note_listener(sock)
        if environ.get("wsgi.multithread") or "gunicorn.socket" not in environ:
            return _Kept(sock, _of_sockets, sock, tls=tls)
        return Connection(sock, tls=tls)  # gunicorn's sync workers serve one request on each
    except Exception as error:  # noqa: BLE001  as above
        note_internal_error("way to the connection", error)
        return _NO_CONNECTION


def lone_socket(environ: dict[str, Any]) -> socket.socket | None:
    """Return the socket of a request of which it is plain that nothing has come before it on its connection, else None.

    gunicorn's sync workers: there no object is needed that would keep what has come before.
    """
    sock = environ.get("gunicorn.socket")
    if type(sock) is not socket.socket or environ.get("wsgi.multithread") or CONNECTION in environ:
        return None
    note_listener(sock)
    return sock


def _socket_of(environ: dict[str, Any]) -> object | None:
    channel = getattr(environ.get("waitress.client_disconnected"), "__self__", None)
    if channel is not None:
        return getattr(channel, "socket", None)
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is not None and hasattr(uwsgi, "connection_fd"):
        return borrow(uwsgi.connection_fd(), -1, -1)
    source = environ.get("wsgi.input")  # cheroot, wsgiref, gevent.pywsgi: layers round a file of the socket's
    for name in ("rfile", "raw", "_sock"):
        source = getattr(source, name, source)
    return source if isinstance(source, socket.socket) else None
