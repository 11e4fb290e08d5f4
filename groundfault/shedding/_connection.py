"""The connection a request came on: the way to its socket on each server, and what can be learned from it.

A server hands an application no socket, but each leaves a way to it. The ways are here, one for each server,
and the two shells know none of them.
"""

import socket
from typing import Any, Final, Protocol

from groundfault.shedding._socket import read
from groundfault.shedding._wait import Bracket

__all__ = ["Connection", "connection_of_asgi", "connection_of_wsgi"]

TCP_INFO: Final = "tcp-info"
_AF_UNIX: Final = getattr(socket, "AF_UNIX", None)


class Connection(Protocol):
    """What the shells ask of a connection. Nothing here raises.

    ``signal``: the name of what measures the wait here, as in the snapshot.
    ``drains_bodies``: the server reads what is left of a request's body by itself and keeps the connection.
    """

    signal: str
    drains_bodies: bool

    def read(self, *, continued: bool = False) -> Bracket | str:
        """Return between what the wait of the request at hand lies, or in words why that cannot be told.

        ``continued``: the server has sent ``100 Continue`` for it, which is not the end of one in front of it.
        """

    def peer(self, named: str | None) -> str | None:
        """Return the address at the other end of the socket, None for a unix socket, "" if it is not known.

        ``named`` is what the server says, believed only where there is no way to the socket:
        behind uvicorn's ``--forwarded-allow-ips`` it is taken from ``X-Forwarded-For``, and it is None as well for
        a TCP peer that has reset its connection already.
        """


class _Socket:
    """A connection whose socket object is at hand."""

    __slots__ = ("_peername", "_sock", "drains_bodies", "signal")

    def __init__(self, sock: Any, *, peername: object = None, drains_bodies: bool = False) -> None:
        self.signal = TCP_INFO
        self._sock = sock
        self._peername = peername
        self.drains_bodies = drains_bodies

    def read(self, *, continued: bool = False) -> Bracket | str:
        return read(self._sock, continued=continued)

    def peer(self, named: str | None) -> str | None:
        if self._sock is None:
            return named
        if _AF_UNIX is not None and getattr(self._sock, "family", None) == _AF_UNIX:
            return None
        return str(self._peername[0]) if isinstance(self._peername, tuple) else ""


def connection_of_wsgi(environ: dict[str, Any]) -> Connection:
    """Return the connection of a WSGI request: gunicorn (any worker class), werkzeug."""
    return _Socket(environ.get("gunicorn.socket") or environ.get("werkzeug.socket"))


def connection_of_asgi(scope: object, receive: object, send: object) -> Connection:  # noqa: ARG001  other servers' ways need them
    """Return the connection of an ASGI request: uvicorn (h11 or httptools, asyncio or uvloop).

    ``receive`` is a bound method of the server's own object as long as no middleware in front has replaced it.
    """
    owner = getattr(receive, "__self__", None)
    transport = getattr(owner, "transport", None)
    drains_bodies = type(owner).__module__.startswith("uvicorn.")
    if transport is None:
        return _Socket(None, drains_bodies=drains_bodies)
    return _Socket(
        transport.get_extra_info("socket"),
        peername=transport.get_extra_info("peername"),
        drains_bodies=drains_bodies,
    )
