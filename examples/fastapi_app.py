"""FastAPI: ``uvicorn --app-dir examples fastapi_app:app``.

``SABER`` is where the service behind this one answers; by default nobody does, so ``/entrants`` shows what becomes of
a dependency's failure: an annotated 503, at first with the reason ``dependency``, then ``circuit-open``.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx2
from fastapi import Depends, FastAPI, Request
from fastapi.responses import PlainTextResponse

from groundfault import LoadShedder, Shedder
from groundfault.integrations.httpx2 import AsyncGroundFaultTransport

SABER = os.environ.get("SABER", "http://127.0.0.1:9")

shedder = Shedder(service="grouper")


@asynccontextmanager
async def lifespan(running: FastAPI) -> AsyncIterator[None]:
    """Keep one client, and with it its connections, for as long as the application runs."""
    transport = AsyncGroundFaultTransport("saber", command="get_entrants", timeout_s=0.5, max_concurrent=50)
    async with httpx2.AsyncClient(base_url=SABER, transport=transport) as client:
        running.state.saber = client
        yield


app = FastAPI(default_response_class=PlainTextResponse, lifespan=lifespan)
app.add_middleware(LoadShedder, shedder=shedder)  # after all other middleware: the last one stands outermost


def contest(number: int = 1) -> int:
    """Wait for one of anyio's threads, as every dependency declared with ``def`` does. That queue is watched too."""
    return number


@app.get("/")
async def index(number: Annotated[int, Depends(contest)]) -> str:
    """Answer without anybody's help."""
    return f"grouper is up for contest {number}\n"


@app.get("/thread")
def in_a_thread() -> str:
    """Answer from one of anyio's threads."""
    return "grouper is up\n"


@app.get("/entrants")
async def entrants(request: Request) -> str:
    """Answer with what saber says; raise what httpx2 raises."""
    client: httpx2.AsyncClient = request.app.state.saber
    answer = await client.get("/entrants")
    return answer.raise_for_status().text


@app.get("/signal")
async def signal() -> str:
    """Say where the queue wait was read."""
    return shedder.snapshot().signal
