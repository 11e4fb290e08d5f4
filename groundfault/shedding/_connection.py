"""The connection a request came on: the way to its socket on each server, and what can be learned from it.

A server hands an application no socket, but each leaves a way to it. The ways are here, one for each server,
and the two shells know none of them.
"""

import socket
from typing import Any, Final
from weakref import WeakKeyDictionary

from groundfault.events import note_internal_error
from groundfault.shedding._paths import Way, find_owner
from groundfault.shedding._socket import Connection, borrow
from groundfault.shedding._wait import Bracket

__all__ = ["CONNECTION", "Connection", "connection_of_asgi", "connection_of_wsgi"]

CONNECTION: Final = "groundfault.connection"
"""Where a worker or protocol class may put a :class:`Connection` of its own making: into the scope or the environ."""

_NO_CONNECTION: Final = Connection(None)
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
        found = find_owner(receive, send)
        if found is None:
            return _NO_CONNECTION
        owner, server = found
        holder = server.holder(owner)
        known: object = getattr(holder, _ATTRIBUTE, None)
        if isinstance(known, Connection):
            return known
        made = _made(server.way(owner))
        setattr(holder, _ATTRIBUTE, made)
    except Exception as error:  # noqa: BLE001  a server of another shape than expected must not cost the request
        note_internal_error("way to the connection", error)
        return _NO_CONNECTION
    return made


def _made(way: Way) -> Connection:
    transport = way.transport
    if transport is None:
        return Connection(None, drains_bodies=way.drains_bodies)
    info = getattr(transport, "get_extra_info", None)
    if info is None:
        return _of_twisted(transport)
    sock = info("socket")
    closing = None
    if type(sock).__module__.partition(".")[0] == "uvloop":
        # It would build a socket for each question, at 5 µs.
        sock = borrow(sock.fileno(), sock.family)
        closing = transport.is_closing
    else:
        sock = getattr(sock, "_sock", sock)  # asyncio's TransportSocket, a layer of Python
    return Connection(
        sock,
        peername=info("peername"),
        is_closing=closing,
        tls=info("sslcontext") is not None,
        streams=way.streams,
        drains_bodies=way.drains_bodies,
    )


def _of_twisted(transport: Any) -> Connection:
    tls = False
    for _ in range(3):
        sock = getattr(transport, "socket", None)
        if sock is not None:
            return Connection(sock, tls=tls)
        transport, tls = getattr(transport, "transport", None), True
    return _NO_CONNECTION


# --- WSGI -------------------------------------------------------------------------------------------------------------

_counted: "WeakKeyDictionary[Any, int]" = WeakKeyDictionary()


class _Kept(Connection):
    """Made anew for each request, because a socket has no place to keep it; what has come before is kept beside it."""

    __slots__ = ()

    def read(self, *, continued: bool = False) -> Bracket | str:
        try:
            self._segments = _counted.get(self._sock, 0)
            answer = super().read(continued=continued)
            _counted[self._sock] = self._segments
        except TypeError as error:  # a stranger's object that nothing can refer to
            return f"TCP_INFO: {error}"
        return answer


def connection_of_wsgi(environ: dict[str, Any]) -> Connection:
    """Return the connection of a WSGI request. Never raises.

    gunicorn (any worker class), werkzeug, waitress and cheroot are known; servers whose input is a file of the
    socket's, such as wsgiref, follow from it.
    """
    try:
        given = environ.get(CONNECTION)
        if isinstance(given, Connection):
            return given
        sock = environ.get("gunicorn.socket") or environ.get("werkzeug.socket") or _socket_of(environ)
        if sock is None:
            return _NO_CONNECTION
        tls = hasattr(sock, "selected_alpn_protocol")
        return (_Kept if environ.get("wsgi.multithread") else Connection)(sock, tls=tls)
    except Exception as error:  # noqa: BLE001  as above
        note_internal_error("way to the connection", error)
        return _NO_CONNECTION


def _socket_of(environ: dict[str, Any]) -> object | None:
    channel = getattr(environ.get("waitress.client_disconnected"), "__self__", None)
    if channel is not None:
        return getattr(channel, "socket", None)
    source = environ.get("wsgi.input")  # cheroot, wsgiref, gevent.pywsgi: layers round a file of the socket's
    for name in ("rfile", "raw", "_sock"):
        source = getattr(source, name, source)
    return source if isinstance(source, socket.socket) else None
