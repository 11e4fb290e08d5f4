"""topps: what the fans talk to. Starlette on uvicorn, one process.

``/lineup/{n}`` needs saber, at the far end of the chain. ``/lobby`` needs grouper only: its users are the innocents.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import requests
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from groundfault.lab.chain import StripFromASGI, session_for
from groundfault.lab.parts import Part
from groundfault.shedding.asgi import LoadShedder

__all__ = ["create"]

TIMEOUT_S = 1.0
"""How long topps waits for grouper: as long as a fan waits for topps."""

LOBBY_THREADS = 64
"""For the blocking calls of asynchronous endpoints; those of synchronous ones run on Starlette's own forty."""


def create() -> Callable[..., Any]:
    """Build the application. uvicorn calls this in the server process."""
    part = Part.from_environment()
    part.report()
    session = session_for(part, "grouper", timeout_s=TIMEOUT_S)

    def scores(contest: int | str) -> Any:
        response = session.get(f"{part.callee}/scores/{contest}")
        response.raise_for_status()
        return response.json()

    def contests() -> Any:
        response = session.get(f"{part.callee}/contests")
        response.raise_for_status()
        return response.json()

    def lineup(request: Request) -> Response:
        return JSONResponse({"lineup": scores(request.path_params["n"])})

    async def lobby(_: Request) -> Response:
        await asyncio.sleep(0.002)  # the little an endpoint does by itself
        return JSONResponse({"lobby": await asyncio.to_thread(contests)})

    async def bad_gateway(_request: Request, _error: Exception) -> Response:
        return JSONResponse({"error": "grouper does not answer"}, status_code=502)

    async def health(_: Request) -> Response:
        return JSONResponse({"service": part.service, "token": part.token})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(LOBBY_THREADS))
        yield

    routes = [Route("/lineup/{n:int}", lineup), Route("/lobby", lobby), Route("/healthz", health)]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={requests.RequestException: bad_gateway})
    if part.protected:
        app.add_middleware(LoadShedder, service=part.service)
    return app if part.annotated or not part.protected else StripFromASGI(app)
