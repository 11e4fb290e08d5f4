"""What the servers serve: an application that takes as long as the request says, behind the protection under test.

The request names its service time (``?s=0.02``), so that all variants serve the very same trace.
``OPENLOOP_KIND`` says what that time is spent on, ``OPENLOOP_PLACES`` how many share the pool,
``OPENLOOP_SHIELD`` what stands in front.
"""

import asyncio
import os
import time
from typing import Any

from groundfault import LoadShedder, WSGILoadShedder

KIND = os.environ.get("OPENLOOP_KIND", "sleep")
PLACES = int(os.environ.get("OPENLOOP_PLACES", "1"))
SHIELD = os.environ.get("OPENLOOP_SHIELD", "none")
LIMIT = int(os.environ.get("OPENLOOP_LIMIT", "0"))

_BODY = b"ok\n"
_HEADERS = [("Content-Type", "text/plain"), ("Content-Length", str(len(_BODY)))]
_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in _HEADERS]


def _seconds(query: str) -> float:
    return float(query[2:]) if query.startswith("s=") else 0.0


def _burn(seconds: float) -> None:
    """Spend CPU time, not wall time: what a neighbor on the same core takes is not counted as work."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def _spend(seconds: float) -> None:
    if KIND == "cpu":
        _burn(seconds)
    elif seconds:
        time.sleep(seconds)


def _wsgi(environ: Any, start_response: Any) -> list[bytes]:
    if SHIELD == "503":
        start_response("503 Service Unavailable", _HEADERS)
        return [_BODY]
    _spend(_seconds(environ["QUERY_STRING"]))
    start_response("200 OK", _HEADERS)
    return [_BODY]


class _Asgi:
    """An application without a framework; its pool is a semaphore, as a connection pool's would be."""

    def __init__(self) -> None:
        self._pool: asyncio.Semaphore | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await _lifespan(receive, send)
            return
        seconds = _seconds(scope["query_string"].decode())
        if KIND == "cpu":
            _burn(seconds)
        elif KIND == "io":
            await asyncio.sleep(seconds)
        elif seconds:
            self._pool = self._pool or asyncio.Semaphore(PLACES)
            async with self._pool:
                await asyncio.sleep(seconds)
        status = 503 if SHIELD == "503" else 200
        await send({"type": "http.response.start", "status": status, "headers": _RAW_HEADERS})
        await send({"type": "http.response.body", "body": _BODY})


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _starlette() -> Any:
    from starlette.applications import Starlette  # noqa: PLC0415  only this kind needs it
    from starlette.requests import Request  # noqa: PLC0415  as above
    from starlette.responses import PlainTextResponse  # noqa: PLC0415  as above
    from starlette.routing import Route  # noqa: PLC0415  as above

    def endpoint(request: Request) -> PlainTextResponse:
        time.sleep(_seconds(request.url.query))
        return PlainTextResponse("ok\n")

    async def health(request: Request) -> PlainTextResponse:  # noqa: ARG001  Starlette's signature
        return PlainTextResponse("ok\n")

    return Starlette(routes=[Route("/healthz", health), Route("/{path:path}", endpoint)])


def _aioresilience(app: Any) -> Any:
    from aioresilience import BasicLoadShedder  # noqa: PLC0415  only this variant needs it
    from aioresilience.config import LoadSheddingConfig  # noqa: PLC0415  as above
    from aioresilience.integrations.fastapi import LoadSheddingMiddleware  # noqa: PLC0415  as above

    theirs = BasicLoadShedder(config=LoadSheddingConfig(max_requests=LIMIT, max_queue_depth=LIMIT))
    return LoadSheddingMiddleware(app, load_shedder=theirs)


def _shielded(app: Any) -> Any:
    if SHIELD == "groundfault":
        return LoadShedder(app, service="bench")
    return _aioresilience(app) if SHIELD == "aioresilience" else app


def __getattr__(name: str) -> Any:
    """Make the application that the server asks for, and no other: two shedders in a process are not the usual one."""
    if name == "wsgi":
        return WSGILoadShedder(_wsgi, service="bench") if SHIELD == "groundfault" else _wsgi
    if name == "asgi":
        return _shielded(_starlette() if KIND == "threads" else _Asgi())
    raise AttributeError(name)
