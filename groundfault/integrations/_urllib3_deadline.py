"""A deadline for a whole exchange over urllib3: connecting, sending, and the answer to its last byte.

urllib3's own timeouts bound the connect and each read, so a callee that sends a byte now and then,
of the headers or of the body, holds a call for as long as it likes.
Here the pools of a manager get connections that set the socket's timeout to what is left before each wait for it.
What they hand to urllib3 when nothing is left is an ordinary timeout.

Not bounded:

* resolving a name, for Python's resolver knows no timeout;
* further addresses of a host that has several: each may take what was left before the first;
* the pauses between urllib3's own retries, and the generator that a request's body comes from;
* the parts of one record of TLS inside TLS (behind an HTTPS proxy) or of pyOpenSSL's, and the records of what is sent
  at once over these: each may take what was left before the first.
"""

import http.client
import io
import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from typing import Any, Final, cast

from urllib3.exceptions import ConnectTimeoutError, ReadTimeoutError

from groundfault._clock import monotonic

__all__ = ["Deadline", "bound", "within"]

_log = logging.getLogger("groundfault")


class Deadline:
    """When the callee must have answered, on the monotonic clock. It stands still while nobody waits for the callee."""

    __slots__ = ("_ends_at", "_paused_at", "_source")

    def __init__(self, ends_at: float) -> None:
        self._ends_at = ends_at
        self._paused_at: float | None = None
        self._source: Callable[[], _Source | None] = _nothing

    @property
    def left_s(self) -> float:
        """Seconds left; not above 0 where the time is gone."""
        return self._ends_at - (monotonic() if self._paused_at is None else self._paused_at)

    def least(self, timeout: Any) -> float:
        """Return the smaller of ``timeout`` and what is left. Raises TimeoutError if nothing is."""
        left_s = self.left_s
        if left_s <= 0.0:
            raise TimeoutError("timed out")
        # None and urllib3's sign for "the default" bound nothing.
        return min(timeout, left_s) if isinstance(timeout, int | float) else left_s

    def hold(self, source: "_Source") -> None:
        """Remember what is being read, without keeping it alive."""
        self._source = weakref.ref(source)

    def abandon(self) -> None:
        """Close what is being read, if anything is."""
        source = self._source()
        if source is not None:
            source.close()

    def pause(self) -> None:
        """Stand still: whoever reads the answer is busy with what it has."""
        if self._paused_at is None:
            self._paused_at = monotonic()

    def resume(self) -> None:
        """Go on."""
        if self._paused_at is not None:
            self._ends_at += monotonic() - self._paused_at
            self._paused_at = None


def _nothing() -> None:
    return None


_current: ContextVar[Deadline | None] = ContextVar("groundfault_urllib3_deadline", default=None)


@contextmanager
def within(deadline: Deadline | None) -> Iterator[None]:
    """Bound every exchange that begins in this context, over the pools of a manager that is :func:`bound`."""
    token = _current.set(deadline)
    try:
        yield
    finally:
        _current.reset(token)


def bound(manager: Any) -> None:
    """Let the pools that a manager is going to make have connections that keep deadlines.

    Where the manager or a connection is not what urllib3 2 has, a warning is logged, once, and nothing is changed:
    each read has its timeout still, only the whole has none.
    """
    try:
        manager.pool_classes_by_scheme = {
            scheme: _bounded_pool(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
        }
    except Exception as error:  # noqa: BLE001  a urllib3 that is built differently still sends requests
        _warn(type(manager), error)


_warned: Final[set[str]] = set()


def _warn(kind: Any, error: object = "not a connection of urllib3") -> None:
    name = f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) else repr(kind)
    if name not in _warned:
        _warned.add(name)
        _log.warning("%s keeps no deadline (%s): timeout_s bounds each wait for the callee, not the call", name, error)


class _Source(io.RawIOBase):
    """What a response is read from: the socket, asked for no longer than is left."""

    def __init__(self, sock: Any, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline
        # pyOpenSSL's socket tells no timeout; the one inside it does.
        self._own_s = sock.gettimeout() if hasattr(sock, "gettimeout") else sock.socket.gettimeout()
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self._raw.fileno())

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._deadline.least(self._own_s))
        count: int | None = self._raw.readinto(buffer)
        return count

    def close(self) -> None:
        raw = getattr(self, "_raw", None)  # not set where the socket could make no file
        if raw is not None and not self.closed:
            with suppress(OSError):  # closed already
                self._sock.settimeout(self._own_s)  # the next exchange finds the socket as this one did
            raw.close()
        super().close()


class _Readable:
    """The socket as ``http.client.HTTPResponse`` sees it, which asks it for nothing but a file."""

    def __init__(self, sock: Any, deadline: Deadline) -> None:
        self._sock = sock
        self._source = _Source(sock, deadline)
        deadline.hold(self._source)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def makefile(self, *_arguments: Any) -> io.BufferedReader:
        return io.BufferedReader(self._source)


class _Response:
    """What is put before ``http.client.HTTPResponse``: reading headers and body ends with the deadline."""

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        deadline = _current.get()
        if deadline is not None:
            try:
                sock = _Readable(sock, deadline)
            except AttributeError as error:  # a substitute for a socket
                _warn(type(sock), error)
        super().__init__(sock, *args, **kwargs)  # type: ignore[call-arg]  # of the class that this one is put before


class _Connection:
    """What is put before a class of connections, for plain HTTP, TLS and proxies alike."""

    sock: Any
    timeout: Any

    def connect(self) -> None:
        deadline = _current.get()
        if deadline is not None:
            self.timeout = self._left(deadline, self.timeout)
        super().connect()  # type: ignore[misc]  # of the class that this one is put before

    def _new_conn(self) -> Any:
        sock = super()._new_conn()  # type: ignore[misc]  # as above
        deadline = _current.get()
        if deadline is not None:
            try:
                sock.settimeout(self._left(deadline, sock.gettimeout()))  # the handshake gets what connecting has left
            except BaseException:
                sock.close()
                raise
        return sock

    def _tunnel(self) -> None:
        super()._tunnel()  # type: ignore[misc]  # as above
        deadline = _current.get()
        if deadline is not None:
            self.sock.settimeout(self._left(deadline, self.timeout))  # the handshake gets what the proxy has left

    def _left(self, deadline: Deadline, timeout: Any) -> float:
        try:
            return deadline.least(timeout)
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "Connecting timed out.") from error

    def send(self, data: Any) -> None:
        deadline = _current.get()
        if deadline is None:
            super().send(data)  # type: ignore[misc]  # as above
            return
        try:
            if self.sock is not None:  # else it is connected now
                self.sock.settimeout(deadline.least(self.timeout))
            super().send(data)  # type: ignore[misc]  # as above
        except TimeoutError as error:  # urllib3 would take it for a connection that was cut
            raise ReadTimeoutError(self, None, "Sending timed out.") from error  # type: ignore[arg-type]  # for a pool

    def getresponse(self) -> Any:
        try:
            response = super().getresponse()  # type: ignore[misc]  # as above
        except BaseException:
            # urllib3 forgets an answer whose headers it refuses, and its socket with it.
            deadline = _current.get()
            if deadline is not None:
                deadline.abandon()
            raise
        if not isinstance(getattr(response, "_original_response", response), _Response):
            _warn(type(self))
        return response


class _Pool:
    """What is put before a class of pools."""

    block: bool

    @property
    def ConnectionCls(self) -> Any:  # noqa: N802  urllib3's name
        # Asked each time: recorders for tests and HTTP/2 put another class of connections in its place.
        kind: Any = vars(self).get("ConnectionCls") or super().ConnectionCls  # type: ignore[misc]  # as above
        if not isinstance(kind, type) or not issubclass(kind, http.client.HTTPConnection):
            _warn(kind)
            return kind
        return _bounded_connection(cast("Any", kind))

    @ConnectionCls.setter
    def ConnectionCls(self, kind: Any) -> None:  # noqa: N802  as above
        vars(self)["ConnectionCls"] = kind

    def _get_conn(self, timeout: float | None = None) -> Any:
        deadline = _current.get()
        if deadline is not None and self.block:
            timeout = max(0.0, deadline.left_s) if timeout is None else max(0.0, min(timeout, deadline.left_s))
        return super()._get_conn(timeout)  # type: ignore[misc]  # as above


@cache
def _bounded_pool(kind: Any) -> Any:
    return kind if issubclass(kind, _Pool) else _put_before(_Pool, kind)


@cache
def _bounded_connection(kind: Any) -> Any:
    if issubclass(kind, _Connection):
        return kind
    return _put_before(_Connection, kind, response_class=_put_before(_Response, kind.response_class))


def _put_before(mixin: type, kind: type, **attributes: Any) -> type:
    # Under the name of the class it stands for, because that is in the text of urllib3's errors.
    return type(kind.__name__, (mixin, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__, **attributes})
