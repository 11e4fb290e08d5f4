"""Protocols for uvicorn: ``uvicorn --http groundfault.integrations.uvicorn:HttpToolsProtocol app:app``.

Nothing else changes, access logs included. What they add to the stock protocols of the same names:

* The connection is in the scope, so that a ``LoadShedder`` finds its signal below any middleware.
* Over a unix socket, where the kernel says nothing, the time since a request's bytes came into this process is known.
* While the server stops, whoever still sends a request on a kept-alive connection is told ``draining`` and then closed,
  instead of finding the connection reset.
"""

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, ClassVar, Final

from uvicorn.protocols.http.h11_impl import H11Protocol as _H11Protocol

from groundfault._clock import monotonic
from groundfault.events import note_internal_error
from groundfault.shedding._connection import CONNECTION, Connection, connection_of_transport
from groundfault.shedding.shedder import live_shedders

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as _HttpToolsProtocol
except ImportError:  # httptools is not installed, and whoever asks for it is told so
    _HttpToolsProtocol = None  # type: ignore[assignment, misc]  # the class itself is not there

__all__ = ["AutoProtocol", "H11Protocol", "HttpToolsProtocol"]

_DRAINING: Final = "_groundfault_draining"
_CLOSE: Final = (b"connection", b"close")


if TYPE_CHECKING:
    _Either = _H11Protocol
else:
    _Either = object


class _Protocol(_Either):
    """What is added to both of uvicorn's HTTP protocols.

    ``drain_grace_s``: how long an idle connection is kept open while the server stops, 1 s; at most half of uvicorn's
    ``--timeout-graceful-shutdown``. A request that comes meanwhile is answered, and ends it.
    """

    drain_grace_s: ClassVar[float] = 1.0

    app: Any
    _groundfault_connection: Connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        """Look for the socket once, for all requests to come."""
        super().connection_made(transport)
        try:
            connection = connection_of_transport(transport, drains_bodies=True)
            self._groundfault_connection = connection  # where a shedder without the scope looks for it, too
            self._served = self.app
            self._stamps = connection.is_unix
            self.app = self._serve
        except Exception as error:  # noqa: BLE001  without its signal the server serves on
            note_internal_error("uvicorn connection", error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything, so that nothing waits for the garbage collector."""
        super().connection_lost(exc)
        self.app = getattr(self, "_served", self.app)

    def data_received(self, data: bytes) -> None:
        """Note when the bytes came, where nothing better can."""
        if getattr(self, "_stamps", False):
            self._groundfault_connection.stamp(monotonic())
        super().data_received(data)

    def _serve(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        scope[CONNECTION] = self._groundfault_connection
        if getattr(self.server_state, _DRAINING, False):
            self._announce_the_end()
        served: Any = self._served
        answer: Awaitable[None] = served(scope, receive, send)
        return answer

    def shutdown(self) -> None:
        """Begin to stop, as uvicorn asks: tell whoever comes now, and wait a moment for them."""
        setattr(self.server_state, _DRAINING, True)
        for shedder in live_shedders():
            shedder.drain()
        cycle: Any = self.cycle  # None before the first request
        if cycle is not None and not cycle.response_complete:
            self._announce_the_end()
            super().shutdown()
            return
        limit_s = self.config.timeout_graceful_shutdown
        grace_s = self.drain_grace_s if limit_s is None else min(self.drain_grace_s, limit_s / 2)
        self._unset_keepalive_if_required()
        self.loop.call_later(grace_s, self._end)

    def _announce_the_end(self) -> None:
        """Let the answer at hand say that it is the connection's last; h11 would close without a word."""
        cycle = self.cycle
        cycle.keep_alive = False
        if not cycle.response_started and _CLOSE not in cycle.default_headers:
            cycle.default_headers = [*cycle.default_headers, _CLOSE]

    def _end(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()


class H11Protocol(_Protocol, _H11Protocol):
    """uvicorn's ``--http h11``, and what :mod:`groundfault.integrations.uvicorn` adds."""


if _HttpToolsProtocol is not None:

    class HttpToolsProtocol(_Protocol, _HttpToolsProtocol):  # type: ignore[misc]  # the mixin fits both
        """uvicorn's ``--http httptools``, and what :mod:`groundfault.integrations.uvicorn` adds."""

    AutoProtocol: type = HttpToolsProtocol
    """As uvicorn's ``--http auto``: httptools where it is installed, otherwise h11."""

else:
    AutoProtocol = H11Protocol


def __getattr__(name: str) -> Any:
    if name == "HttpToolsProtocol":
        raise ImportError("HttpToolsProtocol needs httptools: pip install httptools, or use H11Protocol")
    raise AttributeError(f"module {__name__} has no attribute {name}")
