"""What the server half adds to a request, beside other middleware, in one process and in turns.

    python bench/shell_cost.py [--quick] [--json]

The shells are called as uvicorn and gunicorn call them: with uvicorn's own cycle of request and response,
resp. with gunicorn's environ, over the server's end of a real TCP connection, so that the kernel is really asked.
Parsing, routing and the network are left out, for they are the same in all cases.

``kept`` is one connection for all requests, ``fresh`` a connection object for each, as the server makes one for each.
Every case runs for a short slice in each round, all cases in turn, so that a neighbor's load meets all of them alike.
Times are CPU microseconds per request of the thread. The minimum over the rounds is the estimator, for noise only adds;
the median says how noisy it was. ``over`` is what a case adds to the bare application of its kind.
A refusal stands in a row of its own: ``over`` says by how much it is dearer than the bare application's 200.

A peer that is not installed is left out and named.
"""

import argparse
import asyncio
import importlib
import io
import json
import logging
import platform
import socket
import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import thread_time_ns
from typing import Any

from groundfault import LoadShedder, Shedder, WSGILoadShedder

Loop = Callable[[int], Any]

HEADERS = [
    ("host", "served.example"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "application/json"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-language", "en-US,en;q=0.5"),
    ("connection", "keep-alive"),
]
HINTED = [
    *HEADERS,
    ("x-groundfault-timeout-ms", "800"),
    ("x-groundfault-caller", "topps/saber.get"),
    ("x-groundfault-criticality", "critical-plus"),
]
BODY = b"hello\n"


@dataclass
class Case:
    """One row: a loop that serves ``n`` requests; ``kind`` names the bare application it is compared with.

    ``refusing``: whether the shedder of this case was to refuse everything, or nothing.
    """

    who: str
    kind: str
    loop: Loop
    shedder: Shedder | None = None
    refusing: bool = False
    times: list[float] = field(default_factory=list)


class Connection:
    """A loopback connection. ``touch`` is called now and then: a request that has just come has not waited.

    ``renew`` does the same with a connection of its own, where no request has come before on any.
    """

    EVERY = 10

    def __init__(self, stack: ExitStack) -> None:
        self._listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._connect()
        stack.callback(self.close)

    def _connect(self) -> None:
        self._client = socket.create_connection(self._listener.getsockname())
        self.server, _ = self._listener.accept()

    def touch(self) -> None:
        self._client.send(b"G")
        self.server.recv(1)

    def renew(self) -> None:
        self.close()
        self._connect()
        self.touch()

    def close(self) -> None:
        self._client.close()
        self.server.close()


# --- ASGI -------------------------------------------------------------------------------------------------------------


async def asgi_app(_scope: Any, _receive: Any, send: Any) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"6")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


class PassThrough:
    """The least that a middleware can do that looks at the answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500

        async def watched(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await self.app(scope, receive, watched)


class Transport:
    """As much of a transport as a connection is made of; what is written is thrown away."""

    def __init__(self, sock: socket.socket) -> None:
        self._extra = {"socket": sock, "peername": sock.getpeername(), "sockname": sock.getsockname()}

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._extra.get(name, default)

    def write(self, data: bytes) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


class Uvicorn:
    """Makes uvicorn's own objects: a protocol per connection, a cycle per request."""

    def __init__(self, connection: Connection) -> None:
        from uvicorn.config import Config  # noqa: PLC0415  a peer that may be missing
        from uvicorn.protocols.http import httptools_impl  # noqa: PLC0415  as above
        from uvicorn.server import ServerState  # noqa: PLC0415  as above

        self._config = Config(asgi_app, log_level="critical", lifespan="off", access_log=False)
        self._state = ServerState()
        self._connection = connection
        self._transport = Transport(connection.server)
        self._cycle = httptools_impl.RequestResponseCycle
        self._log = logging.getLogger("uvicorn.error")

        class Protocol(httptools_impl.HttpToolsProtocol):
            """Without the timer of the idle connection, which belongs to no request."""

            def on_response_complete(self) -> None:
                pass

        self._protocol = Protocol

    def _renew(self) -> None:
        self._connection.renew()
        self._transport = Transport(self._connection.server)

    def connect(self, loop: asyncio.AbstractEventLoop) -> Any:
        protocol: Any = self._protocol(self._config, self._state, {}, loop)
        protocol.connection_made(self._transport)
        protocol.connections.clear()
        return protocol

    def cycle(self, protocol: Any, headers: list[tuple[bytes, bytes]], event: asyncio.Event) -> Any:
        scope: Any = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": protocol.server,
            "client": protocol.client,
            "scheme": "http",
            "method": "GET",
            "path": "/hello",
            "raw_path": b"/hello",
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "state": {},
        }
        return self._cycle(
            scope=scope,
            transport=protocol.transport,
            flow=protocol.flow,
            logger=self._log,
            access_logger=self._log,
            access_log=False,
            default_headers=[(b"server", b"uvicorn"), (b"date", b"Mon, 23 Nov 2026 08:00:00 GMT")],
            message_event=event,
            expect_100_continue=False,
            keep_alive=True,
            on_response=protocol.on_response_complete,
        )

    def loop(self, app: Any, *, fresh: bool = False, headers: list[tuple[str, str]] | None = None) -> Loop:
        raw = [(name.encode(), value.encode()) for name, value in headers or HEADERS]

        async def serve(n: int) -> None:
            event = asyncio.Event()
            running = asyncio.get_running_loop()
            self._renew()
            protocol = self.connect(running)
            for number in range(n):
                if number % Connection.EVERY == 0:
                    if fresh:
                        self._renew()
                    else:
                        self._connection.touch()
                if fresh:
                    protocol = self.connect(running)
                cycle = self.cycle(protocol, list(raw), event)
                await app(cycle.scope, cycle.receive, cycle.send)
                if not cycle.response_complete:
                    raise AssertionError("not answered")

        return lambda n: asyncio.run(serve(n))


def ours(
    who: str, kind: str, loop: Callable[[Any], Loop], shell: Any, *, refusing: bool = False, **settings: Any
) -> Case:
    """Return the case of a shell of ours with everything on that costs nothing to have on."""
    shedder = Shedder(sinks=[], **settings)
    if refusing:
        shedder.drain()
    return Case(who, kind, loop(shell(shedder)), shedder, refusing)


def asgi_cases(connection: Connection) -> list[Case]:
    server = Uvicorn(connection)

    def shell(shedder: Shedder) -> LoadShedder:
        return LoadShedder(asgi_app, shedder=shedder)

    def fresh(app: Any) -> Loop:
        return server.loop(app, fresh=True)

    def hinted(app: Any) -> Loop:
        return server.loop(app, headers=HINTED)

    return [
        Case("bare", "asgi kept", server.loop(asgi_app)),
        Case("bare", "asgi fresh", fresh(asgi_app)),
        Case("pass-through", "asgi kept", server.loop(PassThrough(asgi_app))),
        ours("groundfault", "asgi kept", server.loop, shell),
        ours("groundfault", "asgi fresh", fresh, shell),
        ours("groundfault hinted", "asgi kept", hinted, shell),
        ours("groundfault callables", "asgi kept", server.loop, shell, identity=lambda _: "ann"),
        ours("groundfault refusal", "asgi kept", server.loop, shell, refusing=True),
    ]


def starlette_cases(connection: Connection) -> list[Case]:
    base = importlib.import_module("starlette.middleware.base")

    async def dispatch(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    made = base.BaseHTTPMiddleware(asgi_app, dispatch=dispatch)
    return [Case("BaseHTTPMiddleware", "asgi kept", Uvicorn(connection).loop(made))]


def aioresilience_cases(connection: Connection) -> list[Case]:
    package = importlib.import_module("aioresilience")
    middleware = importlib.import_module("aioresilience.integrations.fastapi")
    made = middleware.LoadSheddingMiddleware(asgi_app, load_shedder=package.BasicLoadShedder())
    return [Case("aioresilience", "asgi kept", Uvicorn(connection).loop(made))]


# --- WSGI -------------------------------------------------------------------------------------------------------------


def wsgi_app(_environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
    return [BODY]


class WSGIPassThrough:
    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: Any, start_response: Any) -> Any:
        def watched(status: str, headers: Any, exc_info: Any = None) -> Any:
            return start_response(status, headers, exc_info)

        return self.app(environ, watched)


def serve_wsgi(connection: Connection, app: Any, headers: list[tuple[str, str]] | None = None) -> Loop:
    """Serve with gunicorn's environ; its response's start_response and write are the loop's."""
    environ = {
        "wsgi.errors": io.StringIO(),
        "wsgi.version": (1, 0),
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.input_terminated": True,
        "SERVER_SOFTWARE": "gunicorn/27.0.1",
        "gunicorn.socket": connection.server,
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": "",
        "RAW_URI": "/hello",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "PATH_INFO": "/hello",
        "SCRIPT_NAME": "",
    }
    for name, value in headers or HEADERS:
        environ["HTTP_" + name.upper().replace("-", "_")] = value

    def start_response(_status: str, _headers: Any, _exc_info: Any = None) -> Any:
        return None

    def loop(n: int) -> None:
        for number in range(n):
            if number % Connection.EVERY == 0:
                connection.renew()
                environ["gunicorn.socket"] = connection.server
            body = app(environ.copy(), start_response)
            for _chunk in body:
                pass
            if hasattr(body, "close"):
                body.close()

    return loop


def wsgi_cases(connection: Connection) -> list[Case]:
    def shell(shedder: Shedder) -> WSGILoadShedder:
        return WSGILoadShedder(wsgi_app, shedder=shedder)

    def loop(app: Any) -> Loop:
        return serve_wsgi(connection, app)

    def hinted(app: Any) -> Loop:
        return serve_wsgi(connection, app, HINTED)

    return [
        Case("bare", "wsgi", loop(wsgi_app)),
        Case("pass-through", "wsgi", loop(WSGIPassThrough(wsgi_app))),
        ours("groundfault", "wsgi", loop, shell),
        ours("groundfault hinted", "wsgi", hinted, shell),
        ours("groundfault refusal", "wsgi", loop, shell, refusing=True),
    ]


KINDS = {
    "uvicorn": asgi_cases,
    "starlette": starlette_cases,
    "aioresilience": aioresilience_cases,
    "gunicorn": wsgi_cases,
}


def measure(cases: list[Case], *, rounds: int, slice_requests: int) -> None:
    for number in range(rounds + 1):
        for case in cases:
            started = thread_time_ns()
            case.loop(slice_requests)
            if number:  # the first round warms up
                case.times.append((thread_time_ns() - started) / slice_requests / 1e3)


def check(cases: list[Case]) -> None:
    """Fail if a case was not what its name says."""
    for case in cases:
        if case.shedder is not None:
            snapshot = case.shedder.snapshot()
            counts = [sum(snapshot.shed.values()), sum(snapshot.admitted.values())]
            right, wrong = counts if case.refusing else reversed(counts)
            # A neighbor may take the processor away for long enough that requests have really waited.
            assert wrong <= right / 50, (case.who, case.kind, right, wrong)
            assert snapshot.in_flight == 0
            assert snapshot.signal == "tcp-info", snapshot.signals_refused


def rows(cases: list[Case]) -> list[dict[str, Any]]:
    least = {(case.who, case.kind): min(case.times) for case in cases}
    return [
        {
            "case": case.kind,
            "who": case.who,
            "min_us": round(min(case.times), 2),
            "median_us": round(statistics.median(case.times), 2),
            "over_bare_us": round(min(case.times) - least["bare", case.kind], 2),
            "ratio_to_bare": round(min(case.times) / least["bare", case.kind], 2),
        }
        for case in sorted(cases, key=lambda case: case.kind)
    ]


def show(table: list[dict[str, Any]], missing: list[str]) -> None:
    print(f"CPython {platform.python_version()}, CPU µs per request")
    print(f"{'case':12}{'who':23}{'min':>8}{'median':>9}{'over':>8}{'ratio':>8}")
    for row in table:
        print(
            f"{row['case']:12}{row['who']:23}{row['min_us']:8.2f}{row['median_us']:9.2f}"
            f"{row['over_bare_us']:8.2f}{row['ratio_to_bare']:8.2f}"
        )
    for name in missing:
        print(f"{name} is not installed")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds, rougher")
    parser.add_argument("--json", action="store_true", help="rows as JSON on stdout")
    options = parser.parse_args()
    missing = []
    with ExitStack() as stack:
        connection = Connection(stack)
        cases = []
        for name, make in KINDS.items():
            try:
                cases += make(connection)
            except ImportError:
                missing.append(name)
        measure(cases, rounds=15 if options.quick else 60, slice_requests=300 if options.quick else 1000)
    check(cases)
    table = rows(cases)
    if options.json:
        json.dump({"python": platform.python_version(), "missing": missing, "rows": table}, sys.stdout, indent=1)
        print()
    else:
        show(table, missing)
    return 0


if __name__ == "__main__":
    sys.exit(main())
