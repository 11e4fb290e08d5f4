"""What the servers of this folder serve: one application, WSGI and ASGI, protected, and bare under ``/bare``.

Before either, each request is counted as the server understood it, so that one that nobody sent is noticed.
A second port, given by ``CONTROL_PORT``, tells the state of the process whatever the server itself is doing.
Requests for ``/hold``, ``/stream`` and ``/background`` last until the control port is told ``go``.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import socket
import threading
import time
from collections import Counter
from pathlib import Path

from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, StreamingResponse

from groundfault.shedding.asgi import LoadShedder
from groundfault.shedding.shedder import Shedder
from groundfault.shedding.wsgi import WSGILoadShedder

BLOCK_S = 0.4
WORK_S = 0.02
TICK_S = 0.01
LONGEST_S = 20.0  # nothing here lasts longer, even if the test that should end it has died


class State:
    """What has happened in this process."""

    def __init__(self) -> None:
        self.seen = Counter()
        self.called = Counter()
        self.lifespan = []
        self.background = 0
        self.rounds = 0  # of "go"
        self.control_pid = 0
        self.lock = threading.Lock()

    def note(self, method, path):
        """Count a request as the server understood it."""
        with self.lock:
            self.seen[f"{method} {path}"] += 1
            if self.control_pid != os.getpid():
                self.control_pid = os.getpid()
                threading.Thread(target=self.control, daemon=True).start()

    def control(self):
        """Answer each connection to the control port: one line in, one line out."""
        port = int(os.environ.get("CONTROL_PORT", "0"))
        if not port:
            return
        try:
            listener = socket.create_server(("127.0.0.1", port))
        except OSError:  # another worker has it
            return
        while True:
            connection, _ = listener.accept()
            with contextlib.suppress(OSError), connection, connection.makefile("rw") as lines:
                if lines.readline().strip() == "go":
                    self.rounds += 1
                lines.write(json.dumps(self.told()) + "\n")

    def told(self):
        """Return everything a test may ask about."""
        snapshot = shedder.snapshot()
        with self.lock:
            return {
                "pid": os.getpid(),
                "in_flight": snapshot.in_flight,
                "abandoned": snapshot.abandoned,
                "signal": snapshot.signal,
                "internal_errors": dict(snapshot.internal_errors),
                "stepped_aside": snapshot.stepped_aside,
                "seen": dict(self.seen),
                "called": dict(self.called),
                "lifespan": list(self.lifespan),
                "background": self.background,
            }

    def waiting(self):
        """Yield once a tick until the next "go"."""
        round_at_start = self.rounds
        end = time.monotonic() + LONGEST_S  # noqa: TID251  a real process
        while self.rounds == round_at_start and time.monotonic() < end:  # noqa: TID251  as above
            yield


state = State()
shedder = Shedder()


if "USED_IN_PARENT" in os.environ:  # three requests that begin before the workers are forked, and never end
    for _ in range(3):
        shedder.admit("GET /", 0.0)

_SLEEPS_S = {"/block": BLOCK_S, "/work": WORK_S}


def _text(method, path):
    if path == "/pid":
        return f"{os.getpid()}\n"
    if path == "/fork":
        return f"{_in_flight_in_a_child()}\n"
    return f"{method} {path}\n"


def _in_flight_in_a_child():
    """Fork in the midst of everything, and return what the child's shedder says is in flight there."""
    here, there = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(there, str(shedder.snapshot().in_flight).encode())
        os._exit(0)
    os.close(there)
    with os.fdopen(here) as answer:
        told = answer.read()
    os.waitpid(pid, 0)
    return told


def _wsgi(environ, start_response):
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"].removeprefix("/bare")
    with state.lock:
        state.called[f"{method} {path}"] += 1
    if path == "/refuse":  # without a look at the body, as a shedder does
        body = b"refused\n"
        start_response("503 Service Unavailable", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return _events()
    if path == "/echo":
        body = _digest(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))).encode()
    elif path == "/hold":
        for _ in state.waiting():
            time.sleep(TICK_S)
        body = b"held\n"
    else:
        time.sleep(_SLEEPS_S.get(path, 0.0))
        body = _text(method, path).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [] if method == "HEAD" else [body]


def _events():
    for _ in state.waiting():
        yield b"data: tick\n\n"
        time.sleep(TICK_S)
    yield b"data: end\n\n"


_protected_wsgi = WSGILoadShedder(_wsgi, shedder=shedder)


def wsgi(environ, start_response):
    """Count, then serve."""
    state.note(environ["REQUEST_METHOD"], environ["PATH_INFO"])
    app = _wsgi if environ["PATH_INFO"].startswith("/bare") else _protected_wsgi
    return app(environ, start_response)


async def _asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    if scope["type"] == "websocket":
        await _echo_messages(receive, send)
        return
    method, path = scope["method"], scope["path"].removeprefix("/bare")
    state.called[f"{method} {path}"] += 1
    status = 200
    if path == "/refuse":
        status, text = 503, "refused\n"
    elif path == "/stream":
        await StreamingResponse(_async_events(), media_type="text/event-stream")(scope, receive, send)
        return
    elif path == "/background":
        await PlainTextResponse("later\n", background=BackgroundTask(_in_the_background))(scope, receive, send)
        return
    elif path == "/echo":
        body = await _whole_body(receive)
        if body is None:
            return
        text = _digest(body)
    elif path == "/hold":
        for _ in state.waiting():
            await asyncio.sleep(TICK_S)
        text = "held\n"
    else:
        time.sleep(_SLEEPS_S.get(path, 0.0))  # noqa: ASYNC251  the loop is to be blocked
        text = _text(method, path)
    await PlainTextResponse(text, status)(scope, receive, send)


async def _async_events():
    for _ in state.waiting():
        yield b"data: tick\n\n"
        await asyncio.sleep(TICK_S)
    yield b"data: end\n\n"


async def _in_the_background():
    state.background += 1
    for _ in state.waiting():
        await asyncio.sleep(TICK_S)
    state.background -= 1


async def _whole_body(receive):
    """Return the request's body, or None if the client has left before its end."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body


async def _echo_messages(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


_protected_asgi = LoadShedder(_asgi, shedder=shedder)


async def asgi(scope, receive, send):
    """Count, then serve."""
    if scope["type"] != "lifespan":
        state.note(scope.get("method", "WEBSOCKET"), scope["path"])
    bare = scope.get("path", "").startswith("/bare")
    app = _asgi if bare else _protected_asgi
    await app(scope, receive, send)


async def _lifespan(receive, send):
    while True:
        kind = (await receive())["type"].removeprefix("lifespan.")
        state.lifespan.append(kind)
        if "LIFESPAN_LOG" in os.environ:
            _append(os.environ["LIFESPAN_LOG"], f"{kind}\n")
        await send({"type": f"lifespan.{kind}.complete"})
        if kind == "shutdown":
            return


def _append(path, line):
    with Path(path).open("a") as log:
        log.write(line)


def _digest(body):
    return f"{len(body)} {hashlib.sha256(body).hexdigest()}\n"


def main():
    """Serve under werkzeug, the one server here without a command of its own."""
    from werkzeug.serving import run_simple  # noqa: PLC0415  the other servers have no use for it

    run_simple("127.0.0.1", int(os.environ["PORT"]), wsgi, threaded=True)


if __name__ == "__main__":
    main()
