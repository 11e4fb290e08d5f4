"""The public surface as a user types it. Checked by mypy, never run."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

import requests
from starlette.applications import Starlette

import groundfault
from groundfault import BreakerSettings, Command, Criticality, LoadShedder, Outcome, Resource, State, WSGILoadShedder
from groundfault.events import CircuitChanged, CommandDone, Event
from groundfault.integrations.requests import GroundFaultAdapter
from groundfault.shedding.settings import RequestInfo


def query(contest: int, *, limit: int = 10) -> list[str]:
    return [str(contest)] * limit


async def aquery(contest: int) -> list[str]:
    return [str(contest)]


resource = Resource("contest-db", timeout_s=0.5, max_concurrent=5)
command = resource.command("entrants", fallback=[])
assert_type(command, Command)
assert_type(command.call(query, 7, limit=3), list[str])
assert_type(command.snapshot().state, State)
assert_type(command.tune(max_concurrent=7), BreakerSettings)


async def coroutines() -> None:
    assert_type(await command.acall(aquery, 7), list[str])
    assert_type(await guarded_async(7), list[str])
    with command.attempt() as attempt:
        attempt.settle(Outcome.SUCCESS, duration_s=0.1)
    async for name in guarded_stream(7):
        assert_type(name, str)


@command
def guarded(contest: int) -> list[str]:
    return query(contest)


@command
async def guarded_async(contest: int) -> list[str]:
    return await aquery(contest)


@command
def guarded_rows(contest: int) -> Iterator[str]:
    yield str(contest)


@command
async def guarded_stream(contest: int) -> AsyncIterator[str]:
    yield str(contest)


class Repository:
    @command
    def entrants(self, contest: int) -> list[str]:
        return query(contest)


assert_type(guarded(7), list[str])
assert_type(guarded_rows(7), Iterator[str])
assert_type(Repository().entrants(7), list[str])


def sink(event: Event) -> None:
    if isinstance(event, CircuitChanged):
        assert_type(event.new, State)
    elif isinstance(event, CommandDone):
        assert_type(event.outcome, Outcome)


def criticality(request: RequestInfo) -> Criticality | None:
    return Criticality.SHEDDABLE if request.path.startswith("/ads") else None


groundfault.default_sinks().add(sink)

app = Starlette()
app.add_middleware(LoadShedder)
app.add_middleware(LoadShedder, service="saber", criticality=criticality, sinks=[sink])


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"ok"]


shedder = WSGILoadShedder(wsgi, service="saber", mode="shadow").shedder
shedder.drain()
assert_type(shedder.snapshot().in_flight, int)

session = requests.Session()
session.mount("http://saber/", GroundFaultAdapter("saber", timeout_s=0.5, on_shed="raise", sinks=[sink]))
session.mount("http://saber/", GroundFaultAdapter(resource, command=lambda request: request.method or "get"))
