"""FastAPI: ``uvicorn --app-dir examples fastapi_app:app``.

``SABER`` is where the service behind this one answers; by default nobody does, so ``/entrants`` shows what becomes of
a dependency's failure: an annotated 503, at first with the reason ``dependency``, then ``circuit-open``.
"""

import os
from typing import Annotated

import httpx2
from fastapi import Depends, FastAPI
from fastapi.responses import PlainTextResponse

from groundfault import LoadShedder, Resource, Shedder

SABER = os.environ.get("SABER", "http://127.0.0.1:9")

shedder = Shedder(service="grouper")
get_entrants = Resource("saber").command("get_entrants", timeout_s=0.5)

app = FastAPI(default_response_class=PlainTextResponse)
app.add_middleware(LoadShedder, shedder=shedder)  # after all other middleware: the last one stands outermost


@get_entrants
async def ask_saber() -> str:
    """Return what saber says; raise what httpx2 raises."""
    async with httpx2.AsyncClient() as client:
        answer = await client.get(f"{SABER}/entrants")
        return answer.raise_for_status().text


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
async def entrants() -> str:
    """Answer with what saber says."""
    return await ask_saber()


@app.get("/signal")
async def signal() -> str:
    """Say where the queue wait was read."""
    return shedder.snapshot().signal
