"""What the end-to-end tests serve: an application of each kind behind its shedder.

One worker serves one request at a time, so the last event is that of the request being served.
"""

import json
import time

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from groundfault.doctor.app import asgi as doctor
from groundfault.events import RequestSeen
from groundfault.shedding.asgi import LoadShedder
from groundfault.shedding.wsgi import WSGILoadShedder
from groundfault.sinks import Sinks

BLOCK_S = 0.3
WORK_S = 0.02

_seen = []
_sinks = Sinks.direct(_seen.append)


def _last():
    event = next(event for event in reversed(_seen) if isinstance(event, RequestSeen))
    ladder = asgi.shedder._law.loop
    seen = {"wait_s": event.queue_wait_s, "signal": event.signal, "route": event.route}
    return json.dumps({**seen, "backlog": ladder.backlog, "cleared": ladder.cleared})


def _respond(path):
    if path == "/block":
        time.sleep(BLOCK_S)
    if path == "/work":
        time.sleep(WORK_S)
    return _last()


def _wsgi(environ, start_response):
    body = _respond(environ["PATH_INFO"]).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


async def _on_the_loop(request):
    return Response(_respond(request.url.path), media_type="application/json")


def _in_a_thread(request):
    time.sleep(0.2)
    return PlainTextResponse("done")


async def _snapshot(request):
    snapshot = asgi.shedder.snapshot()
    sync = asgi.shedder.route("GET /thread").sync
    return Response(json.dumps({"in_flight": snapshot.in_flight, "thread_is_sync": sync}))


wsgi = WSGILoadShedder(_wsgi, service="served", sinks=_sinks)

starlette = Starlette(
    routes=[
        Route("/thread", _in_a_thread),
        Route("/snapshot", _snapshot),
        Route("/{path:path}", _on_the_loop, methods=["GET", "POST"]),
    ]
)
asgi = LoadShedder(starlette, service="served", sinks=_sinks)


async def _pass_on(request, call_next):
    return await call_next(request)


# The last middleware an application ought to be, behind those that hide most.
below = Starlette(
    routes=[Mount("/", app=doctor)],
    middleware=[
        Middleware(TrustedHostMiddleware, allowed_hosts=["*"]),
        Middleware(BaseHTTPMiddleware, dispatch=_pass_on),
        Middleware(CORSMiddleware, allow_origins=["*"]),
        Middleware(SessionMiddleware, secret_key="none"),  # noqa: S106  nothing is kept in it
        Middleware(GZipMiddleware),
        Middleware(BaseHTTPMiddleware, dispatch=_pass_on),
    ],
)
