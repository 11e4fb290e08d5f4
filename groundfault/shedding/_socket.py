"""The kernel's word on how long a request has waited: TCP_INFO of the socket it came on. Linux only.

One ``getsockopt`` of about a microsecond at application entry covers listen backlog, socket buffer, the server's own
queue of threads, and the lag of an event loop. Its resolution is one tick of the kernel, 4 ms usually.

Nothing here raises: where the kernel cannot be asked, the cause is returned in words.

Blind spots: unix sockets; TLS that this process terminates, on a connection's first request (the handshake comes after
the wait); HTTP/2 (frames of other streams move the reading); a proxy in front is seen only from its own connection on.
"""

import os
import socket
import sys
import threading
from struct import Struct
from typing import Any, Final

from groundfault.shedding._wait import Bracket, bracket

__all__ = ["SelfTest", "read", "self_test"]

# struct tcp_info, append-only since Linux 2.6: state u8 at 0, last_data_sent u32 at 44, last_data_recv u32 at 52, in ms
_FIELDS: Final = Struct("=B43xI4xI")
_LENGTH: Final = 56
_TCP_INFO: Final = getattr(socket, "TCP_INFO", None)
_AF_UNIX: Final = getattr(socket, "AF_UNIX", None)
_LINUX: Final = sys.platform == "linux" and _TCP_INFO is not None  # FreeBSD has the layout, in microseconds


def read(sock: Any, *, continued: bool = False) -> Bracket | str:
    """Return between what the wait lies, or why the kernel cannot tell.

    ``continued``: the server has sent ``100 Continue`` for this request, which is not the end of one in front of it.
    """
    if not _LINUX:
        return f"no usable TCP_INFO on {sys.platform}"
    if sock is None:
        return "no way to the request's socket: unknown server, or a middleware in front that replaces receive()"
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _LENGTH)
        state, sent_ms, recv_ms = _FIELDS.unpack(info)
        limits = bracket(state, recv_ms if continued else sent_ms, recv_ms)
    except OSError as error:
        if _AF_UNIX is not None and getattr(sock, "family", None) == _AF_UNIX:
            return "a unix socket, which has no TCP_INFO"
        return f"TCP_INFO: {os.strerror(error.errno) if error.errno else 'refused'}"
    except Exception as error:  # noqa: BLE001  a stranger's object in the place of a socket
        return f"TCP_INFO: {type(error).__name__}"
    return "TCP_INFO: the connection is gone" if limits is None else limits


class SelfTest:
    """Does this kernel keep the field at all? Asked once per process, off the request path.

    A user-space TCP such as gVisor's may leave it at zero, which would read as "no queue, ever".
    Until the answer is there, readings are believed: for 30 ms, and only zeros could be wrong.
    """

    _PAUSE_S: Final = 0.03
    _EXPECTED_S: Final = 0.02

    def __init__(self) -> None:
        self.failure: str | None = None
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
        except OSError as error:  # no loopback: then nothing is known against the field
            self.failure = None if error.errno else str(error)

    def _verdict(self) -> str | None:
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
            client.settimeout(1.0)
            listener.settimeout(1.0)
            client.connect(listener.getsockname())
            server, _ = listener.accept()
            with server:
                client.sendall(b"\n")
                threading.Event().wait(self._PAUSE_S)
                seen = read(server)
        if isinstance(seen, str):
            return seen
        if seen.lower_s < self._EXPECTED_S:
            return f"self-test: the kernel reads {seen.lower_s * 1e3:.0f} ms after a wait of 30 ms"
        return None


self_test: Final = SelfTest()
"""The process's one."""
