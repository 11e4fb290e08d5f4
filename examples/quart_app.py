"""Quart: ``uvicorn --app-dir examples quart_app:app``, or ``hypercorn quart_app:app`` in this directory.

``SABER`` is where the service behind this one answers; by default nobody does, so ``/entrants`` shows what becomes of
a dependency's failure: an annotated 503, at first with the reason ``dependency``, then ``circuit-open``.
"""

import os

import httpx2
from quart import Quart

from groundfault import Resource
from groundfault.integrations.quart import LoadShedder

SABER = os.environ.get("SABER", "http://127.0.0.1:9")

app = Quart("grouper")
extension = LoadShedder(app, service="grouper")
get_entrants = Resource("saber").command("get_entrants", timeout_s=0.5)


@get_entrants
async def ask_saber() -> str:
    """Return what saber says; raise what httpx2 raises."""
    async with httpx2.AsyncClient() as client:
        answer = await client.get(f"{SABER}/entrants")
        return answer.raise_for_status().text


@app.get("/")
async def index() -> str:
    """Answer without anybody's help."""
    return "grouper is up\n"


@app.get("/thread")
def in_a_thread() -> str:
    """Answer from one of asyncio's threads."""
    return "grouper is up\n"


@app.get("/entrants")
async def entrants() -> str:
    """Answer with what saber says."""
    return await ask_saber()


@app.get("/signal")
async def signal() -> str:
    """Say where the queue wait was read."""
    return extension.shedder.snapshot().signal
