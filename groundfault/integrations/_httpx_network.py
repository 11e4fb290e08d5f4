"""The network under a synchronous transport, bound to the time that a call has left.

httpcore takes a timeout for each connect, read and write, so a callee that sends one byte at a time is never too slow.
A network backend that looks at the call's end before each of them is.
Where the library is made differently than expected, nothing is bound and the caller is told so.
"""

import socket
import sys
from contextvars import ContextVar, Token
from types import ModuleType
from typing import Any, Final

from groundfault._clock import monotonic

__all__ = ["Expired", "bind_network", "call_ends", "call_ends_at"]

_PIECE: Final = 65536
"""Bytes written at a time: one write of a long body would start its timeout anew with each part that is taken."""

_ends_at: ContextVar[float | None] = ContextVar("groundfault_call_ends_at", default=None)


class Expired(BaseException):
    """A call's time is up.

    No ``Exception``: HTTP/2 connections of httpcore remember one as the end of the whole connection,
    and the other requests on it have done nothing wrong.
    """


def call_ends_at(ends_at: float | None) -> Token[float | None]:
    """Bind what this thread does on bound networks from here on; None for no bound. Undo it with :func:`call_ends`."""
    return _ends_at.set(ends_at)


def call_ends(token: Token[float | None]) -> None:
    """Undo :func:`call_ends_at`."""
    _ends_at.reset(token)


def bind_network(transport: Any) -> bool:
    """Bind the network of the library's own transport; false if it is not made as expected."""
    pool: Any = getattr(transport, "_pool", None)
    backend = getattr(pool, "_network_backend", None)
    if isinstance(backend, _Network):
        return True
    if not all(callable(getattr(backend, name, None)) for name in ("connect_tcp", "connect_unix_socket", "sleep")):
        return False
    pool._network_backend = _Network(backend)  # noqa: SLF001  nothing public leads there
    return True


def _left_s() -> float | None:
    ends_at = _ends_at.get()
    if ends_at is None:
        return None
    left_s = ends_at - monotonic()
    if left_s <= 0:
        raise Expired
    return left_s


def _within(own_s: float | None) -> float | None:
    """Return the smaller of a timeout and what the call has left."""
    left_s = _left_s()
    if left_s is None or own_s is None:
        return own_s if left_s is None else left_s
    return min(own_s, left_s)


class _Network:
    """A network backend of httpcore, bound. ``backend`` does the work."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._core = sys.modules.get(type(backend).__module__.partition(".")[0])
        self._resolves = type(backend).__name__ == "SyncBackend"  # another one may want the name for itself

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> "_Stream":
        """Connect to the first of the host's addresses that answers, all of them within what the call has left.

        The name is looked up here, because the standard library gives each address the whole timeout anew.
        """
        addresses = self._addresses(host, port) if self._resolves and _left_s() is not None else [host]
        for address in addresses[:-1]:
            try:
                return self._stream(self._backend.connect_tcp(address, port, timeout=_within(timeout), **options))
            except Exception:  # noqa: BLE001, S112  the next address may answer; if none does, the last one says why
                continue
        return self._stream(self._backend.connect_tcp(addresses[-1], port, timeout=_within(timeout), **options))

    def connect_unix_socket(self, path: str, timeout: float | None = None, **options: Any) -> "_Stream":
        return self._stream(self._backend.connect_unix_socket(path, timeout=_within(timeout), **options))

    def sleep(self, seconds: float) -> None:
        """Wait before another try to connect, which is not made if the call ends before."""
        left_s = _left_s()
        self._backend.sleep(seconds if left_s is None else min(seconds, left_s))

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise getattr(self._core, "ConnectError", OSError)(error) from error  # as the library does
        except UnicodeError:  # a name that is none: for the library to refuse
            return [host]
        return list(dict.fromkeys(str(address[0]) for *_, address in found)) or [host]

    def _stream(self, stream: Any) -> "_Stream":
        return _Stream(stream, self._core)


class _Stream:
    """A network stream of httpcore, bound."""

    def __init__(self, stream: Any, core: ModuleType | None) -> None:
        self._stream = stream
        self._core = core

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            return bytes(self._stream.read(max_bytes, timeout=_within(timeout)))
        except getattr(self._core, "TimeoutException", ()):
            _left_s()  # raises, if it was the call's end that cut this read short
            raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write in pieces. One that is given up must end the connection, so its error is the library's own."""
        if _ends_at.get() is None:
            self._stream.write(buffer, timeout=timeout)
            return
        for start in range(0, len(buffer), _PIECE):
            try:
                within = _within(timeout)
            except Expired:
                raise getattr(self._core, "WriteTimeout", TimeoutError)("The call has no time left.") from None
            self._stream.write(buffer[start : start + _PIECE], timeout=within)

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> "_Stream":
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _within(timeout)), self._core)
