"""Makes requests wait on a real server, and compares what its shedder saw with how long they really waited.

Both ends are on one machine, so that CLOCK_MONOTONIC is the same: the truth is from just before the request is sent
to the entry of the application.
"""

import json
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Self

from groundfault._clock import monotonic

__all__ = ["Client", "Reading", "hold_up"]

_TIMEOUT_S: Final = 6.0


@dataclass(frozen=True, slots=True)
class Reading:
    """One request that waited. ``seen_s`` is None where no signal could measure it.

    ``true_s`` counts from just before it was sent. ``sending_s`` is how long that took: the kernel got it within.
    """

    kept_alive: bool
    true_s: float
    sending_s: float
    seen_s: float | None
    signal: str
    refused: dict[str, str]

    @property
    def error_s(self) -> float | None:
        """What the shedder saw beyond the truth; None where it saw nothing.

        The truth is where it comes nearest between before and after the sending, during which this process may have
        had to wait for a processor.
        """
        if self.seen_s is None:
            return None
        return self.seen_s - min(max(self.seen_s, self.true_s - self.sending_s), self.true_s)


class Client:
    """One HTTP/1.1 connection to the doctor's application. Raises OSError, and ValueError for what is no answer."""

    def __init__(self, port: int) -> None:
        self._socket = self.connect(port)
        self._file = self._socket.makefile("rb")
        self._sent = 0.0
        self._sending_s = 0.0
        self.kept = False

    def connect(self, port: int) -> socket.socket:
        """Return a new connection to the server."""
        return socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)

    def head(self) -> str:
        """Return further lines of a request's head, each with its end."""
        return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, path: str) -> None:
        """Send one request."""
        request = f"GET {path} HTTP/1.1\r\nHost: doctor\r\n{self.head()}\r\n".encode()
        self._sent = monotonic()
        self._socket.sendall(request)
        self._sending_s = monotonic() - self._sent

    def receive(self) -> Reading:
        """Return what the application says about the request sent last."""
        was_kept = self.kept
        status = self._file.readline()
        length, chunked, self.kept = 0, False, status.startswith(b"HTTP/1.1")
        while (line := self._file.readline().strip().lower()) != b"":
            name, _, value = line.partition(b":")
            if name == b"content-length":
                length = int(value)
            elif name == b"connection" and b"close" in value:
                self.kept = False
            elif name == b"transfer-encoding":
                chunked = True
        if chunked:
            length = int(self._file.readline(), 16)
        said: dict[str, Any] = json.loads(self._file.read(length))
        if chunked:
            while self._file.readline().strip() != b"":
                pass
            self._file.readline()
            self._file.readline()
        true_s = said["entered"] - self._sent
        return Reading(was_kept, true_s, self._sending_s, said["wait_s"], said["signal"], said["refused"])


def hold_up(
    port: int, hold_s: float, delays_s: tuple[float, ...], *, kept_alive: bool, connect: type[Client] = Client
) -> list[Reading]:
    """Hold the server's only worker for ``hold_s`` and let requests come meanwhile, each after one of ``delays_s``.

    ``kept_alive``: they come on connections that have been answered before; where the server keeps none the list is
    empty. ``connect``: what makes the connections.
    """
    with ExitStack() as stack:
        waiting = []
        if kept_alive:
            for _ in delays_s:
                client = stack.enter_context(connect(port))
                client.send("/")
                client.receive()
                waiting.append(client)
            if not all(client.kept for client in waiting):
                return []
        with connect(port) as holder:
            holder.send(f"/hold/{hold_s * 1e3:.0f}")
            began = monotonic()
            for number, delay_s in enumerate(sorted(delays_s)):
                time.sleep(max(began + delay_s - monotonic(), 0.0))
                if not kept_alive:  # not earlier: a connection that says nothing keeps a worker of gunicorn's
                    waiting.append(stack.enter_context(connect(port)))
                waiting[number].send("/")
            holder.receive()
        # Closed before the others are read: a worker of gunicorn's may wait for that.
        readings = []
        for client in waiting:
            with client:
                readings.append(client.receive())
        return readings
