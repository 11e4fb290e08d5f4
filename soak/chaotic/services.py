"""The chain that is soaked: topps on uvicorn, grouper and saber on gunicorn, each in several processes.

::

    fans ──► topps ──[proxy]──► grouper ──[proxy]──► saber ──► contest-db (one connection in each worker)

``GROUNDFAULT_SOAK`` tells a process who it is. ``plant`` has saber lose what the soak must find: ``permits``,
``handles``, ``threads`` or ``memory``, a little with every tenth request; it proves that the checks can fail.
"""

import asyncio
import itertools
import json
import os
import threading
from collections.abc import AsyncIterator, Callable
from time import sleep  # what a service waits for stands for a database elsewhere

import httpx
import requests
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from groundfault import metrics
from groundfault.breaker import Command, Resource
from groundfault.integrations.httpx import AsyncGroundFaultTransport
from groundfault.integrations.requests import GroundFaultAdapter
from groundfault.settings import live
from groundfault.shedding.asgi import LoadShedder
from groundfault.shedding.wsgi import WSGILoadShedder

VARIABLE = "GROUNDFAULT_SOAK"
QUERY_S = 0.1
PIECES = 5
PLANTED_EVERY = 10
_POOL = 16


def _begun() -> dict:
    said = json.loads(os.environ[VARIABLE])
    metrics.start()
    live.install(service=said["service"])
    return said


def topps() -> Starlette:
    """Build what the fans talk to."""
    said = _begun()
    callee = said["callee"]
    session = _session("grouper", timeout_s=1.0)
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=_POOL)
    transport = AsyncGroundFaultTransport("grouper", command="feed", timeout_s=2.0, limits=limits)
    client = httpx.AsyncClient(transport=transport, trust_env=False)

    def asked(path: str) -> JSONResponse:
        try:
            response = session.get(callee + path)
            response.raise_for_status()
            return JSONResponse(response.json())
        except requests.RequestException:
            return JSONResponse({"error": "grouper does not answer"}, status_code=502)

    def lineup(request) -> JSONResponse:
        return asked(f"/scores/{request.path_params['n']}")

    async def lobby(_) -> JSONResponse:
        return await asyncio.to_thread(asked, "/contests")

    async def pieces() -> AsyncIterator[bytes]:
        try:
            async with client.stream("GET", f"{callee}/feed") as response:
                yield f"{response.status_code}\n".encode()
                async for piece in response.aiter_bytes():
                    yield piece
        except (httpx.HTTPError, AttributeError):
            # The second is anyio's, through httpcore: a connection reset before it was first used has no socket left.
            yield b"cut\n"

    async def feed(_) -> StreamingResponse:
        return StreamingResponse(pieces(), media_type="text/plain")

    async def health(_) -> JSONResponse:
        return JSONResponse({"service": "topps", "token": said["token"]})

    routes = [Route("/lineup/{n:int}", lineup), Route("/lobby", lobby), Route("/feed", feed), Route("/healthz", health)]
    app = Starlette(routes=routes)
    app.add_middleware(LoadShedder, service="topps")
    return app


def grouper() -> Callable:
    """Build what asks saber for scores, knows the contests by itself, and has a feed."""
    said = _begun()
    callee = said["callee"]
    session = _session("saber", timeout_s=0.9)

    def app(environ, start_response):
        match environ["PATH_INFO"].split("/")[1:]:
            case ["scores", contest]:
                try:
                    response = session.get(f"{callee}/entrants/{contest}")
                    response.raise_for_status()
                    return _answer(start_response, "200 OK", {"scores": response.json()})
                except requests.RequestException:
                    return _answer(start_response, "502 Bad Gateway", {"error": "saber does not answer"})
            case ["contests"]:
                sleep(0.005)
                return _answer(start_response, "200 OK", {"contests": [1, 2, 3]})
            case ["feed"]:
                start_response("200 OK", [("Content-Type", "text/plain")])
                return _feed()
            case _:
                return _answer(start_response, "200 OK", {"service": "grouper", "token": said["token"]})

    return WSGILoadShedder(app, service="grouper")


def saber() -> Callable:
    """Build the end of the chain: a database behind one connection in each worker, a tenth of a second for a query."""
    said = _begun()
    connection = threading.Lock()
    command = Resource("contest-db").command("entrants", timeout_s=0.8, max_concurrent=5)
    planted = _planted(said["plant"], command)

    @command
    def entrants(contest: str) -> dict:
        with connection:
            sleep(QUERY_S)
        return {"contest": contest, "best": list(range(10))}

    def app(environ, start_response):
        match environ["PATH_INFO"].split("/")[1:]:
            case ["entrants", contest]:
                planted()
                return _answer(start_response, "200 OK", entrants(contest))
            case _:
                return _answer(start_response, "200 OK", {"service": "saber", "token": said["token"]})

    return WSGILoadShedder(app, service="saber")


def _session(callee: str, *, timeout_s: float) -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # a proxy configured on this machine has no place between the services
    session.mount("http://", GroundFaultAdapter(callee, timeout_s=timeout_s, pool_maxsize=_POOL))
    return session


def _feed():
    for number in range(PIECES):
        sleep(0.1)
        yield f"{number}\n".encode()


def _answer(start_response, status: str, body: dict) -> list[bytes]:
    payload = json.dumps(body).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(payload)))])
    return [payload]


def _planted(plant: str, command: Command) -> Callable[[], None]:
    """Return what every request does besides: nothing, or what a soak must find."""
    numbers = itertools.count(1)
    kept: list = []

    def lose() -> None:
        if next(numbers) % PLANTED_EVERY:
            return
        if "permits" in plant:
            kept.append(command.begin())
        if "handles" in plant:
            kept.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(20))
        if "threads" in plant:
            for _ in range(5):
                threading.Thread(target=threading.Event().wait, daemon=True).start()
        if "memory" in plant:
            kept.append(b"x" * 20_000_000)

    return lose if plant else lambda: None
