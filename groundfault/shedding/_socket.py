"""The kernel's word on how long a request has waited: TCP_INFO of the socket it came on. Linux only.

One ``getsockopt`` of about a microsecond at application entry covers listen backlog, socket buffer, the server's own
queue of threads, and the lag of an event loop. Its resolution is one tick of the kernel, 4 ms usually.

Nothing here raises: where the kernel cannot be asked, the cause is returned in words.

Blind spots: unix sockets; TLS that this process terminates, on a connection's first request (the handshake comes after
the wait); HTTP/2 with several streams open (frames of the others move the reading); a proxy in front is seen only from
its own connection on.
"""

import errno
import os
import socket
import sys
import threading
from collections.abc import Callable, Sized
from itertools import pairwise
from math import inf
from struct import Struct
from struct import error as struct_error
from typing import Any, Final

from groundfault._clock import monotonic
from groundfault.shedding._wait import IN_PROCESS, LEFT, REQUEST_START, Bracket, bracket

__all__ = [
    "INSTEAD_OF_TCP_INFO",
    "MOD_WSGI",
    "NO_WAY",
    "SOCK_DIAG",
    "TCP_INFO",
    "Connection",
    "SelfTest",
    "borrow",
    "read",
    "resolution_of",
    "self_test",
]

TCP_INFO: Final = "tcp-info"
SOCK_DIAG: Final = "sock-diag"
MOD_WSGI: Final = "mod-wsgi"

# struct tcp_info, append-only since Linux 2.6: state u8 at 0, last_data_sent u32 at 44, last_data_recv u32 at 52, in
# ms; data_segs_in u32 at 152, since Linux 4.6
_FIELDS: Final = Struct("=B43xI4xI96xI")
_OLD_FIELDS: Final = Struct("=B43xI4xI")
_OPTION: Final = getattr(socket, "TCP_INFO", None)
_AF_UNIX: Final = getattr(socket, "AF_UNIX", None)
_LINUX: Final = sys.platform == "linux" and _OPTION is not None  # FreeBSD has the layout, in microseconds

_TICK_S: Final = 0.01
"""Bounds as close as this say the same: two ticks of most kernels, one of the slowest."""

_UNIX: Final = "a unix socket, which has no TCP_INFO"
NO_WAY: Final = "no way to the request's socket: unknown server, or a middleware in front that replaces receive()"
_GONE: Final = "TCP_INFO: the connection is gone"
_MULTIPLEXED: Final = "HTTP/2 with several streams open: frames of the others move the reading"
_HANDSHAKE: Final = "TLS in this process: a handshake follows the wait of a connection's first request and hides it"


class Connection:
    """One TCP connection, or what stands in its place where there is no way to it. Nothing here raises.

    Made once per connection where the server has an object for it, so that a request on a kept-alive connection costs
    one ``getsockopt``.

    ``sock``: needs no more than ``getsockopt``, and is never closed from here; None: there is no way, for ``cause``.
    ``signal``: the name of what is asked, as in the snapshot.
    ``peername``: the address at the other end, as the socket gives it; None: it is asked when it matters.
    ``is_closing``: asked before the socket is, where its descriptor may belong to somebody else by now.
    ``tls``: this process terminates TLS on it.
    ``streams``: the requests open on it, where HTTP/2 lets there be several.
    ``drains_bodies``: the server reads what is left of a request's body by itself and keeps the connection.
    """

    __slots__ = (
        "_ask",
        "_came_at",
        "_cause",
        "_handshake",
        "_hides",
        "_is_closing",
        "_peername",
        "_segments",
        "_sock",
        "_streams",
        "drains_bodies",
        "signal",
    )

    def __init__(
        self,
        sock: Any,
        *,
        cause: str = NO_WAY,
        signal: str = TCP_INFO,
        peername: object = None,
        is_closing: Callable[[], bool] | None = None,
        tls: bool = False,
        streams: Sized | None = None,
        drains_bodies: bool = False,
    ) -> None:
        self.signal = signal
        self.drains_bodies = drains_bodies
        self._sock = sock  # also keeps a borrowed one alive
        self._peername = peername
        self._is_closing = is_closing
        self._handshake = tls
        self._streams = streams
        self._hides = tls or streams is not None  # such a reading is not always one of the request at hand
        self._segments = 0
        self._came_at: float | None = None
        self._ask = getattr(sock, "getsockopt", None) if _LINUX else None
        if not _LINUX:
            cause = f"no usable TCP_INFO on {sys.platform}"
        elif sock is not None and self._ask is None:
            cause = f"TCP_INFO: {type(sock).__name__} is no socket"
        self._cause = cause

    def read(self, *, continued: bool = False) -> Bracket | str:
        """Return between what the wait of the request at hand lies, or in words why that cannot be told.

        ``continued``: the server has sent ``100 Continue`` for it, which on a connection's first request is not the
        end of one in front of it. On later ones nobody can tell, and the wait counts from it: else whoever pipelines
        would show a queue that there is not.
        Asked once per request. Not ``exact`` is one that came in several segments since the last question, and one that
        was there before the last answer: it was served on that one's turn.
        """
        ask = self._ask
        try:
            if ask is None or (self._is_closing is not None and self._is_closing()):
                return self._cause if ask is None else LEFT
            info = ask(socket.IPPROTO_TCP, _OPTION, 160)
            try:
                state, sent_ms, recv_ms, segments = _FIELDS.unpack_from(info)
            except struct_error:
                (state, sent_ms, recv_ms), segments = _OLD_FIELDS.unpack_from(info), 0
            came, self._segments = segments - self._segments, segments
            if (continued and came == segments) or self._streams is not None:  # HTTP/2 sends frames of its own before
                sent_ms = recv_ms
            limits = bracket(state, sent_ms, recv_ms)
        except Exception as failure:  # noqa: BLE001  a stranger's object may stand in the place of a socket
            return self._why_not(failure)
        if limits is None:
            return _GONE
        if self._hides and (cause := self._hidden_by()):
            return cause
        if (came > 1 or sent_ms < recv_ms) and limits.upper_s - limits.lower_s > _TICK_S:
            return limits._replace(exact=False)
        return limits

    def _hidden_by(self) -> str | None:
        if self._streams is not None and len(self._streams) > 1:
            return _MULTIPLEXED
        if self._handshake:
            self._handshake = False
            return _HANDSHAKE
        return None

    def _why_not(self, failure: Exception) -> Bracket | str:
        if not isinstance(failure, OSError):
            return f"TCP_INFO: {type(failure).__name__}"
        if self.is_unix:
            if self._came_at is None:
                return _UNIX
            return Bracket(max(monotonic() - self._came_at, 0.0), inf, exact=False, signal=IN_PROCESS)
        if failure.errno == errno.EBADF:  # asyncio has closed it
            return LEFT
        if failure.errno == errno.ENOENT:
            return "sock_diag: no such connection here; has something in front rewritten the peer's address?"
        return f"TCP_INFO: {os.strerror(failure.errno) if failure.errno else 'refused'}"

    def stamp(self, now: float) -> None:
        """Note that bytes of a request have come into this process, for a socket of which the kernel says nothing.

        ``now`` is the time of :data:`groundfault._clock.monotonic`. What they had waited before that nobody knows.
        """
        self._came_at = now

    @property
    def is_unix(self) -> bool:
        """Whether it is a unix socket, of which only the process itself can say how long a request has waited."""
        return _AF_UNIX is not None and getattr(self._sock, "family", None) == _AF_UNIX

    def peer(self, named: str | None) -> str | None:
        """Return the address at the other end of the socket, None for a unix socket, "" if it is not known.

        ``named`` is what the server says, believed only where there is no way to the socket:
        behind uvicorn's ``--forwarded-allow-ips`` it is taken from ``X-Forwarded-For``, and it is None as well for
        a TCP peer that has reset its connection already.
        """
        if self._sock is None:
            return named
        if isinstance(self._peername, tuple):  # no unix socket has such a one, and its family costs half a microsecond
            return str(self._peername[0])
        if self.is_unix:
            return None
        if self._peername is None:
            ask = getattr(self._sock, "getpeername", None)
            if ask is None:  # only a stand-in for a socket
                return named or ""
            self._peername = _answer_of(ask)
        return str(self._peername[0]) if isinstance(self._peername, tuple) else ""


def _answer_of(ask: Callable[[], object]) -> object:
    try:
        return ask()
    except Exception:  # noqa: BLE001  the connection is gone, and nobody is known
        return ""


def read(sock: Any, *, continued: bool = False) -> Bracket | str:
    """Return between what the wait of the first request on a connection lies, or why the kernel cannot tell."""
    try:  # as for most: without an object that would be asked once
        if _LINUX and not continued:
            state, sent_ms, recv_ms, segments = _FIELDS.unpack_from(sock.getsockopt(socket.IPPROTO_TCP, _OPTION, 160))
            limits = bracket(state, sent_ms, recv_ms)
            if limits is not None and (segments <= 1 or limits.upper_s - limits.lower_s <= _TICK_S):
                return limits
    except Exception:  # noqa: BLE001, S110  asked once more, for the cause
        pass
    return Connection(sock).read(continued=continued)


class _Borrowed(socket.socket):
    """A descriptor that belongs to somebody else: it is never closed from here."""

    __slots__ = ()

    def __del__(self) -> None:
        self.detach()


def borrow(descriptor: int, family: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Return a socket of somebody else's descriptor, which closes nothing when it goes.

    The number may be given to another connection once the owner has closed it: ask the owner before each use.
    No duplicate is made, because that would hold back the FIN of a connection the server has closed.
    Raises OSError if there is no such descriptor.
    """
    return _Borrowed(family, kind, 0, fileno=descriptor)


class SelfTest:
    """Does this kernel keep the field at all? Asked once per process, off the request path.

    A user-space TCP such as gVisor's may leave it at zero, which would read as "no queue, ever".
    Until the answer is there, readings are believed: for 30 ms, and only zeros could be wrong.
    ``failure`` says in words why the field is not to be used, None if it is. ``tick_s`` is the least step it makes, in
    seconds: what it resolves; None until it is known.
    """

    _PAUSE_S: Final = 0.03
    _EXPECTED_S: Final = 0.02
    _SAMPLES: Final = 60

    def __init__(self) -> None:
        self.failure: str | None = None
        self.tick_s: float | None = None
        self._pid = 0

    def start(self) -> None:
        """Begin in a thread of its own if this process has not yet; a fork's child asks again."""
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        if _LINUX:
            threading.Thread(target=self.run, name="groundfault-self-test", daemon=True).start()

    def run(self) -> None:
        """Send a byte over loopback, wait 30 ms, and see whether the kernel says so."""
        try:
            self.failure = self._verdict()
        except OSError:  # no loopback, or no turn in time in a process that is busy: nothing is known against the field
            self.failure = None

    def _verdict(self) -> str | None:
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
            client.settimeout(1.0)
            listener.settimeout(1.0)
            client.connect(listener.getsockname())
            server, _ = listener.accept()
            with server:
                client.sendall(b"\n")
                connection = Connection(server)
                steps = set()
                for _ in range(self._SAMPLES):
                    threading.Event().wait(self._PAUSE_S / self._SAMPLES)
                    seen = connection.read()
                    if isinstance(seen, str):
                        return seen
                    steps.add(round(seen.lower_s * 1e3))
                seen = read(server)
        self.tick_s = min((later - sooner for sooner, later in pairwise(sorted(steps))), default=0) / 1e3 or None
        if isinstance(seen, str):
            return seen
        if seen.lower_s < self._EXPECTED_S:
            return f"self-test: the kernel reads {seen.lower_s * 1e3:.0f} ms after a wait of 30 ms"
        return None


self_test: Final = SelfTest()
"""The process's one."""

INSTEAD_OF_TCP_INFO: Final = {SOCK_DIAG: NO_WAY, MOD_WSGI: NO_WAY, IN_PROCESS: _UNIX}
"""By signal: why it is in use although a better one exists."""


def resolution_of(signal: str) -> float | None:
    """Return the least difference in seconds that a signal shows, None if it is not known."""
    if signal in (TCP_INFO, SOCK_DIAG):
        return self_test.tick_s
    return 0.001 if signal == REQUEST_START else None
