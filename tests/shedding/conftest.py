"""One request, sent through the ASGI and the WSGI shell alike, to an application that follows a script."""

import asyncio
import io
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from groundfault.shedding.asgi import LoadShedder
from groundfault.shedding.shedder import Shedder
from groundfault.shedding.wsgi import WSGILoadShedder
from groundfault.sinks import Sinks


class KernelSocket:
    """Answers getsockopt(TCP_INFO) with a wait of its own choice."""

    def __init__(self, wait_s: float, family: int = socket.AF_INET, state: int = 1) -> None:
        self.family = family
        self.state = state
        self.wait_ms = round(wait_s * 1000)

    def getsockopt(self, level: int, option: int, length: int) -> bytes:
        info = bytearray(length)
        info[0] = self.state
        info[44:48] = self.wait_ms.to_bytes(4, "little")
        info[52:56] = self.wait_ms.to_bytes(4, "little")
        return bytes(info)


@dataclass
class Script:
    """What the application does: look around, then answer or raise.

    ``raises`` is raised before the answer, or after so many chunks of it where ``after`` is given.
    ``during`` runs first, inside the application.
    """

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=lambda: [("Content-Type", "text/plain")])
    chunks: tuple[bytes, ...] = (b"fine",)
    raises: BaseException | None = None
    after: int | None = None
    during: Callable[[], Any] = lambda: None


@dataclass
class Result:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the header's one value, or None; fails if it is there twice."""
        found = [value for each, value in self.headers if each.lower() == name.lower()]
        assert len(found) <= 1, found
        return found[0] if found else None


class Driver:
    """Sends requests through one shell."""

    script = Script

    def __init__(self, shedder: Shedder) -> None:
        self.shedder = shedder
        self.calls = 0

    def send(
        self,
        script: Script | None = None,
        *,
        method: str = "GET",
        path: str = "/",
        headers: list[tuple[str, str]] | None = None,
        wait_s: float | None = 0.0,
        peer: str | None = "127.0.0.1",
        state: int = 1,
    ) -> Result:
        """Send one request and return the whole answer; raises what the shell lets through."""
        raise NotImplementedError


class ASGIDriver(Driver):
    on_loop = True

    def send(self, script=None, *, method="GET", path="/", headers=None, wait_s=0.0, peer="127.0.0.1", state=1):
        script = script or Script()
        sent: list[dict[str, Any]] = []

        async def app(scope, receive, send):
            self.calls += 1
            script.during()
            await self._play(script, send)

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers or []],
            "client": None if peer is None else (peer, 1234),
        }
        asyncio.run(LoadShedder(app, shedder=self.shedder)(scope, _receive_of(wait_s, peer, state), send))
        start, *bodies = sent
        assert start["type"] == "http.response.start"
        return Result(
            start["status"],
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]],
            b"".join(message.get("body", b"") for message in bodies),
        )

    async def _play(self, script, send):
        if script.raises is not None and script.after is None:
            raise script.raises
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in script.headers]
        await send({"type": "http.response.start", "status": script.status, "headers": headers})
        for number, chunk in enumerate(script.chunks):
            if script.raises is not None and number == script.after:
                raise script.raises
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if script.raises is not None:
            raise script.raises
        await send({"type": "http.response.body", "body": b""})


class WSGIDriver(Driver):
    on_loop = False

    def send(self, script=None, *, method="GET", path="/", headers=None, wait_s=0.0, peer="127.0.0.1", state=1):
        script = script or Script()
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def app(environ, start_response):
            self.calls += 1
            script.during()
            if script.raises is not None and script.after is None:
                raise script.raises
            start_response(f"{script.status} Whatever", script.headers)
            return self._chunks(script)

        def start_response(status, headers, exc_info=None):
            assert not started or exc_info is not None, "called twice without exc_info"
            if started and sent:
                raise exc_info[1]
            started.append((status, headers))
            return lambda _: None

        sent: list[bytes] = []
        body = WSGILoadShedder(app, shedder=self.shedder)(
            environ_of(method, path, headers or [], wait_s, peer, state), start_response
        )
        try:
            sent.extend(chunk for chunk in body if chunk)
        finally:
            if hasattr(body, "close"):
                body.close()
        status, answered = started[-1]
        return Result(int(status.split()[0]), answered, b"".join(sent))

    def _chunks(self, script):
        for number, chunk in enumerate(script.chunks):
            if script.raises is not None and number == script.after:
                raise script.raises
            yield chunk
        if script.raises is not None:
            raise script.raises


def _receive_of(wait_s: float | None, peer: str | None, state: int) -> Callable[..., Any]:
    known: dict[str, Any] = {}
    if wait_s is not None:
        family = socket.AF_UNIX if peer is None else socket.AF_INET
        known = {"socket": KernelSocket(wait_s, family, state), "peername": peer and (peer, 1234)}
    transport = SimpleNamespace(get_extra_info=known.get)

    class Cycle:
        def __init__(self) -> None:
            self.transport = transport

        async def receive(self) -> dict[str, Any]:
            return {"type": "http.request", "body": b""}

    Cycle.__module__ = "uvicorn.protocols.http.h11_impl"
    return Cycle().receive


def environ_of(
    method: str, path: str, headers: list[tuple[str, str]], wait_s: float | None, peer: str | None, state: int = 1
) -> dict[str, Any]:
    """Return a WSGI environ as gunicorn makes it: repeated headers joined, no REMOTE_ADDR on a unix socket."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "served",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": peer or "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if wait_s is not None:
        family = socket.AF_UNIX if peer is None else socket.AF_INET
        environ["gunicorn.socket"] = KernelSocket(wait_s, family, state)
    for name, value in headers:
        key = name.upper().replace("-", "_")
        if key not in {"CONTENT_LENGTH", "CONTENT_TYPE"}:
            key = f"HTTP_{key}"
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ


@pytest.fixture(params=[ASGIDriver, WSGIDriver], ids=["asgi", "wsgi"])
def make_driver(request, clock, sink) -> Callable[..., Driver]:
    """Return a function that makes a driver for the shell, with a shedder of the settings given."""
    return lambda **settings: request.param(
        Shedder(sinks=Sinks(sink), clock=clock, wall_clock=lambda: 1_600_000_000.0, **settings)
    )


@pytest.fixture
def driver(make_driver) -> Driver:
    return make_driver(service="served")
