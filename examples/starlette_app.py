"""Starlette: ``uvicorn --app-dir examples starlette_app:app``.

``SABER`` is where the service behind this one answers; by default nobody does, so ``/entrants`` shows what becomes of
a dependency's failure: an annotated 503, at first with the reason ``dependency``, then ``circuit-open``.
"""

import os

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from groundfault import LoadShedder, Resource, Shedder

SABER = os.environ.get("SABER", "http://127.0.0.1:9")

shedder = Shedder(service="grouper")
get_entrants = Resource("saber").command("get_entrants", timeout_s=0.5)


@get_entrants
async def ask_saber() -> str:
    """Return what saber says; raise what httpx2 raises."""
    async with httpx2.AsyncClient() as client:
        answer = await client.get(f"{SABER}/entrants")
        return answer.raise_for_status().text


async def index(request: Request) -> PlainTextResponse:
    """Answer without anybody's help."""
    return PlainTextResponse("grouper is up\n")


def in_a_thread(request: Request) -> PlainTextResponse:
    """Answer from one of anyio's threads, the queue for which is watched as well."""
    return PlainTextResponse("grouper is up\n")


async def entrants(request: Request) -> PlainTextResponse:
    """Answer with what saber says."""
    return PlainTextResponse(await ask_saber())


async def signal(request: Request) -> PlainTextResponse:
    """Say where the queue wait was read."""
    return PlainTextResponse(shedder.snapshot().signal)


app = Starlette(
    routes=[
        Route("/", index),
        Route("/thread", in_a_thread),
        Route("/entrants", entrants),
        Route("/signal", signal),
    ]
)
app.add_middleware(LoadShedder, shedder=shedder)  # after all other middleware: the last one stands outermost
