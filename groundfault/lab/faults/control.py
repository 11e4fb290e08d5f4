"""The control line: one JSON object a line over a loopback connection, one line in answer.

    {"do": "route", "name": "saber", "to": ["127.0.0.1", 8001], "port": 0}
    {"do": "fault", "name": "saber", "fault": {"kind": "latency", "delay_s": 0.3, "jitter_s": 0.1}}
    {"do": "look"}
    {"do": "stop"}

An answer holds ``ok``; if that is false, ``error`` says why, and nothing has changed.
"""

import asyncio
import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, Self

from groundfault.lab.faults.fault import NONE, Fault, FaultError
from groundfault.lab.faults.proxy import Route, check_host

__all__ = ["Board", "Remote"]

_LINE: Final = 65_536
_ROUTES: Final = 256
_PATIENCE_S: Final = 10.0


class Board:
    """The process's side: all routes, and the line on which they are told.

    ``host``: where routes listen. ``anywhere``: routes may listen and lead elsewhere than to loopback; the control
    line itself never listens anywhere else. ``max_connections`` of each route.
    """

    def __init__(self, *, host: str = "127.0.0.1", anywhere: bool = False, max_connections: int = 4096) -> None:
        self._host = check_host(host, anywhere=anywhere)
        self._anywhere = anywhere
        self._max = max_connections
        self._routes: dict[str, Route] = {}
        self._ended = asyncio.Event()

    async def run(self, *, port: int = 0, ready: "asyncio.Future[int] | None" = None) -> None:
        """Serve until told to stop. ``ready`` is given the control line's port."""
        server = await asyncio.start_server(self._talk, "127.0.0.1", port, limit=_LINE)
        try:
            if ready is not None:
                ready.set_result(server.sockets[0].getsockname()[1])
            await self._ended.wait()
        finally:
            server.close()
            for route in self._routes.values():
                await route.stop()

    def end(self) -> None:
        """Have :meth:`run` return."""
        self._ended.set()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, ValueError):  # ValueError: a line that is too long
                while not self._ended.is_set() and (line := await reader.readline()):
                    answer = await self.told(line)
                    writer.write(json.dumps(answer).encode() + b"\n")
                    await writer.drain()
        except asyncio.CancelledError:
            writer.transport.abort()  # the process ends
        finally:
            writer.close()

    async def told(self, line: bytes) -> dict[str, Any]:
        """Do what one line says and return the answer."""
        try:
            said = json.loads(line)
            return {"ok": True, **await self._do(said)}
        except (FaultError, ValueError, RecursionError, OSError) as error:
            return {"ok": False, "error": str(error)}

    async def _do(self, said: Any) -> dict[str, Any]:
        if not isinstance(said, dict):
            raise FaultError("a line must hold one JSON object")
        match said.get("do"):
            case "route":
                return await self._add(said)
            case "fault":
                wanted = said.get("fault", {})
                if not isinstance(wanted, dict):
                    raise FaultError(f"fault must be an object, not {wanted!r:.40}")
                await self._named(said).set(Fault.from_dict(wanted))
                return {}
            case "look":
                return {"routes": {name: route.look() for name, route in self._routes.items()}}
            case "stop":
                self.end()
                return {}
            case other:
                raise FaultError(f"do must be route, fault, look or stop, not {other!r:.40}")

    async def _add(self, said: Mapping[str, Any]) -> dict[str, Any]:
        name, port = said.get("name"), said.get("port", 0)
        if not isinstance(name, str) or not name:
            raise FaultError(f"name must be a text, not {name!r:.40}")
        if name in self._routes:
            raise FaultError(f"there is a route {name!r:.40} already")
        if len(self._routes) >= _ROUTES:
            raise FaultError(f"there are at most {_ROUTES} routes")
        match said.get("to"):
            case [str(host), int(to_port)] if 0 < to_port < 65536:  # noqa: PLR2004  the ports there are
                target = check_host(host, anywhere=self._anywhere), to_port
            case other:
                raise FaultError(f"to must be a host and a port, not {other!r:.60}")
        if not isinstance(port, int) or not 0 <= port < 65536:  # noqa: PLR2004  as above
            raise FaultError(f"port must be between 0 and 65535, not {port!r:.40}")
        route = Route(name, target, host=self._host, max_connections=self._max)
        await route.start(port)
        self._routes[name] = route
        return {"port": route.port}

    def _named(self, said: Mapping[str, Any]) -> Route:
        route = self._routes.get(str(said.get("name")))
        if route is None:
            raise FaultError(f"there is no route {said.get('name')!r:.40}")
        return route


class Remote:
    """The other side of the line, blocking: for a test or a program that is not asynchronous.

    Every method raises FaultError if it is refused, OSError if the process is gone.
    """

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S)
        self._file = self._sock.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up. The proxy goes on."""
        self._file.close()
        self._sock.close()

    def route(self, name: str, to: tuple[str, int], *, port: int = 0) -> int:
        """Begin a route and return the port it listens on."""
        return int(self._ask({"do": "route", "name": name, "to": list(to), "port": port})["port"])

    def set(self, name: str, fault: Fault) -> None:
        """Have a route make this fault from now on."""
        self._ask({"do": "fault", "name": name, "fault": fault.as_dict()})

    def heal(self, name: str) -> None:
        """Have a route make none."""
        self.set(name, NONE)

    def look(self) -> dict[str, dict[str, Any]]:
        """Return what :meth:`Route.look` says, by name."""
        routes: dict[str, dict[str, Any]] = self._ask({"do": "look"})["routes"]
        return routes

    def stop(self) -> None:
        """End the proxy."""
        self._ask({"do": "stop"})

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        self._sock.sendall(json.dumps(question).encode() + b"\n")
        line = self._file.readline()
        if not line:
            raise ConnectionResetError("the proxy has hung up")
        answer: dict[str, Any] = json.loads(line)
        if not answer.get("ok"):
            raise FaultError(str(answer.get("error")))
        return answer
