"""The routes of the proxy: each listens on a port of its own and passes bytes on, with a fault or without.

Bounded: a connection holds at most one read of each direction, a route at most ``max_connections`` of them, and an end
that one side has shut is closed for the other one too after ``linger_s``, whether it hears of it or not.
One event loop, no thread; everything here is called on that loop.
"""

import asyncio
import contextlib
import ipaddress
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from groundfault.lab.faults.fault import NONE, BodyCount, Fault, FaultError, Kind

__all__ = ["Route", "check_host"]

_READ: Final = 65_536
_BACKLOG: Final = 1024
_CONNECT_S: Final = 10.0
_RST: Final = struct.pack("ii", 1, 0)  # SO_LINGER for no time at all: closing sends an RST


def check_host(host: str, *, anywhere: bool) -> str:
    """Return the host if it is an address of loopback, or anything if ``anywhere``. Raises FaultError otherwise."""
    if anywhere or host == "localhost":
        return host
    try:
        is_near = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_near = False
    if not is_near:
        raise FaultError(f"host must be an address of loopback unless --anywhere is given, not {host!r:.60}")
    return host


class _Connection:
    """Two sockets, and what has become of the fault on them."""

    __slots__ = ("callee", "caller", "hit", "lost", "serial", "task", "through")

    def __init__(self, caller: asyncio.StreamWriter) -> None:
        self.caller = caller
        self.callee: asyncio.StreamWriter | None = None
        self.task: asyncio.Task[None] | None = None
        self.serial = -1
        self.hit = False
        self.lost = False
        self.through: BodyCount | None = None

    def abort(self) -> None:
        """End both sides at once; the caller gets an RST."""
        _reset(self.caller)
        if self.callee is not None:
            self.callee.transport.abort()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
    writer.transport.abort()


class Route:
    """One listening port and the address behind it.

    ``linger_s`` (2 s): so long one direction may go on after the other has ended. ``max_connections`` (4,096): any
    more are reset at once. ``draw`` gives numbers evenly from 0 to 1.
    """

    def __init__(
        self,
        name: str,
        target: tuple[str, int],
        *,
        host: str = "127.0.0.1",
        linger_s: float = 2.0,
        max_connections: int = 4096,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._target = target
        self._host = host
        self._linger_s = linger_s
        self._max = max_connections
        self._draw = draw
        self._fault = NONE
        self._serial = 0
        self._free_at = 0.0
        self._open: set[_Connection] = set()
        self._counts: Counter[str] = Counter()
        self._server: asyncio.Server | None = None
        self._place: socket.socket | None = None
        self.port = 0

    async def start(self, port: int = 0) -> None:
        """Listen; 0: on any free port. Raises OSError where that is not to be had."""
        # Never listening, this one keeps the port ours while the other one is closed, and connections are refused.
        self._place = _bound(self._host, port)
        self.port = int(self._place.getsockname()[1])
        await self._listen()

    async def _listen(self) -> None:
        sock = _bound(self._host, self.port)
        try:
            self._server = await asyncio.start_server(self._serve, sock=sock, limit=_READ, backlog=_BACKLOG)
        except BaseException:
            sock.close()
            raise

    async def set(self, fault: Fault) -> None:
        """Have this fault from now on, open connections too."""
        before, self._fault = self._fault, fault
        self._serial += 1
        self._free_at = 0.0
        if fault.kind is Kind.REFUSE:
            if self._server is not None:
                self._server.close()
                self._server = None
            self._abort(list(self._open))
        elif self._server is None:
            await self._listen()
        if before.kind is Kind.BLACKHOLE:
            self._abort([each for each in self._open if each.lost])

    def _abort(self, connections: list[_Connection]) -> None:
        for each in connections:
            self._counts["reset"] += 1
            each.abort()
            if each.task is not None:
                each.task.cancel()

    async def stop(self) -> None:
        """Listen no more, and end what is open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = [each.task for each in self._open if each.task is not None]
        self._abort(list(self._open))
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._place is not None:
            self._place.close()
            self._place = None

    def look(self) -> dict[str, Any]:
        """Return what there is to see, as JSON can hold it: port, fault, open connections, and counts since the start.

        ``taken`` connections, of which ``unreached`` found nobody behind the proxy and ``crowded`` were too many;
        ``reset`` and ``truncated`` by a fault; ``swallowed`` bytes; ``up`` and ``down``, bytes that went through.
        """
        return {
            "port": self.port,
            "target": list(self._target),
            "fault": self._fault.as_dict(),
            "open": len(self._open),
            "counts": dict(self._counts),
        }

    def _of(self, connection: _Connection) -> Fault:
        """Return the fault that this connection has now, drawn once for each fault."""
        if connection.serial != self._serial:
            connection.serial = self._serial
            connection.hit = self._draw() < self._fault.share
            connection.through = None
        return self._fault if connection.hit else NONE

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._counts["taken"] += 1
        if len(self._open) >= self._max or self._server is None:
            self._counts["crowded"] += 1
            _reset(writer)
            return
        connection = _Connection(writer)
        connection.task = asyncio.current_task()
        self._open.add(connection)
        try:
            await self._carry(connection, reader)
        except asyncio.CancelledError:
            connection.abort()  # asked for by `set` or `stop`, and nobody waits for this task's result
        finally:
            self._open.discard(connection)
            for each in (connection.caller, connection.callee):
                if each is not None:
                    each.close()

    async def _carry(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        try:
            async with asyncio.timeout(_CONNECT_S):
                answers, connection.callee = await asyncio.open_connection(*self._target, limit=_READ)
        except OSError:  # a time-out is one, too
            self._counts["unreached"] += 1
            _reset(connection.caller)
            return
        up = asyncio.ensure_future(self._up(connection, reader, connection.callee))
        down = asyncio.ensure_future(self._down(connection, answers))
        both = {up, down}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(both, timeout=self._linger_s)
        finally:
            for each in both:
                each.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _up(self, connection: _Connection, reader: asyncio.StreamReader, callee: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_READ):
                if self._of(connection).kind is Kind.BLACKHOLE:
                    self._swallow(connection, data)
                    continue
                self._counts["up"] += len(data)
                callee.write(data)
                await callee.drain()
        await self._pass_end(connection, callee)

    async def _down(self, connection: _Connection, answers: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await answers.read(_READ):
                if not await self._answer(connection, data):
                    return
        if self._of(connection).kind is not Kind.BLACKHOLE:
            await self._pass_end(connection, connection.caller)

    async def _answer(self, connection: _Connection, data: bytes) -> bool:
        """Pass on what the callee said, or what the fault leaves of it; return whether the connection goes on."""
        fault = self._of(connection)
        match fault.kind:
            case Kind.BLACKHOLE:
                self._swallow(connection, data)
                return True
            case Kind.LATENCY:
                await asyncio.sleep(fault.delay(self._draw()))
            case Kind.BANDWIDTH:
                return await self._trickle(connection, data, fault)
            case Kind.RESET | Kind.TRUNCATION:
                return await self._cut(connection, data, fault)
        await self._pass(connection, data)
        return True

    async def _pass(self, connection: _Connection, data: bytes) -> None:
        self._counts["down"] += len(data)
        connection.caller.write(data)
        await connection.caller.drain()

    async def _cut(self, connection: _Connection, data: bytes, fault: Fault) -> bool:
        if connection.through is None:
            connection.through = BodyCount(fault.after_bytes)
        at_once = fault.kind is Kind.RESET and fault.after_bytes == 0  # the head does not go through either
        through = 0 if at_once else connection.through.through(data)
        if through == len(data):
            await self._pass(connection, data)
            return True
        if through:
            await self._pass(connection, data[:through])
        if fault.kind is Kind.RESET:
            self._counts["reset"] += 1
            connection.abort()
        else:
            self._counts["truncated"] += 1
            connection.caller.close()
        return False

    async def _trickle(self, connection: _Connection, data: bytes, fault: Fault) -> bool:
        loop = asyncio.get_running_loop()
        step = max(1, int(fault.bytes_per_s / 20))
        serial = self._serial
        for at in range(0, len(data), step):
            piece = data[at : at + step]
            if serial == self._serial:  # once the fault is over, the rest need not wait
                now = loop.time()
                self._free_at = max(now, self._free_at) + len(piece) / fault.bytes_per_s
                await asyncio.sleep(self._free_at - now)
            await self._pass(connection, piece)
        return True

    def _swallow(self, connection: _Connection, data: bytes) -> None:
        connection.lost = True
        self._counts["swallowed"] += len(data)

    async def _pass_end(self, connection: _Connection, to: asyncio.StreamWriter) -> None:
        fault = self._of(connection)
        if fault.kind is Kind.SLOW_CLOSE:
            await asyncio.sleep(fault.delay(self._draw()))
        with contextlib.suppress(OSError):
            if to.can_write_eof():
                to.write_eof()


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        sock.setblocking(False)  # noqa: FBT003  socket's own signature
    except BaseException:
        sock.close()
        raise
    return sock
