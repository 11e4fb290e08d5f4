"""Litestar: ``uvicorn --app-dir examples litestar_app:app``.

``SABER`` is where the service behind this one answers; by default nobody does, so ``/entrants`` shows what becomes of
a dependency's failure: an annotated 503, at first with the reason ``dependency``, then ``circuit-open``.
"""

import os

import httpx2
from litestar import Litestar, get

from groundfault import Resource
from groundfault.integrations.litestar import LoadShedderPlugin

SABER = os.environ.get("SABER", "http://127.0.0.1:9")

plugin = LoadShedderPlugin(service="grouper")
get_entrants = Resource("saber").command("get_entrants", timeout_s=0.5)


@get_entrants
async def ask_saber() -> str:
    """Return what saber says; raise what httpx2 raises."""
    async with httpx2.AsyncClient() as client:
        answer = await client.get(f"{SABER}/entrants")
        return answer.raise_for_status().text


@get("/")
async def index() -> str:
    """Answer without anybody's help."""
    return "grouper is up\n"


@get("/thread", sync_to_thread=True)
def in_a_thread() -> str:
    """Answer from one of asyncio's threads."""
    return "grouper is up\n"


@get("/entrants")
async def entrants() -> str:
    """Answer with what saber says."""
    return await ask_saber()


@get("/signal")
async def signal() -> str:
    """Say where the queue wait was read."""
    return plugin.shedder.snapshot().signal


app = Litestar([index, in_a_thread, entrants, signal], plugins=[plugin])
