"""A request whose turn for one of anyio's threads comes too late is not given it: real anyio, Starlette and FastAPI."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
import httpx2
import pytest
from fastapi import Depends, FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from groundfault import Criticality, LoadShedder, Reason, Shedder
from groundfault.events import RequestSeen, SheddingChanged
from groundfault.shedding import _threads
from groundfault.shedding._threads import latest_start, waits_for_thread
from groundfault.sinks import Sinks
from groundfault.testing import ManualClock


class Worker:
    """The one thread there is, held until it is let go, and what has run since."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self._gate = threading.Event()

    def run(self, what: str) -> PlainTextResponse:
        self.ran.append(what)
        return PlainTextResponse(what)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Hold the thread during the block; afterwards it is free again."""
        self._gate.clear()
        holding = asyncio.create_task(anyio.to_thread.run_sync(self._gate.wait))
        await until(lambda: limiter().borrowed_tokens == 1)
        try:
            yield
        finally:
            self._gate.set()
            await holding


def limiter():
    return anyio.to_thread.current_default_thread_limiter()


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  anyio has no event for what is waited for here
            await asyncio.sleep(0)


@pytest.fixture
def worker():
    return Worker()


@pytest.fixture
def shedder(clock, sink):
    return Shedder(service="grouper", sinks=Sinks(sink), clock=clock)


def starlette(worker, shedder):
    async def on_the_loop(request):
        return await run_in_threadpool(worker.run, "by an async endpoint")

    def with_background(request):
        return PlainTextResponse("answered", background=BackgroundTask(worker.run, "in the background"))

    class Endpoint(HTTPEndpoint):
        def get(self, request):
            return worker.run("class")

    app = Starlette(
        routes=[
            Route("/sync", lambda request: worker.run("sync")),
            Route("/healthz", lambda request: worker.run("health")),
            Route("/async", on_the_loop),
            Route("/background", with_background),
            Route("/class", Endpoint),
        ]
    )
    app.add_middleware(LoadShedder, shedder=shedder)
    return app


def fastapi(worker, shedder):
    app = FastAPI(openapi_url=None)
    app.add_middleware(LoadShedder, shedder=shedder)

    @app.get("/sync")
    @app.get("/healthz")
    def endpoint():
        return worker.run("sync")

    def dependency():
        worker.run("dependency")

    class Parameters:
        def __init__(self) -> None:
            worker.run("class")

    def generator():
        worker.run("generator")
        yield

    async def on_the_loop():
        return "loop"

    async def outer(value=Depends(dependency)):  # noqa: B008  FastAPI's way to say so
        return value

    def route(path, depends):
        async def endpoint(value=Depends(depends)):  # noqa: B008  as above
            return PlainTextResponse("loop")

        app.get(path)(endpoint)

    route("/dependency", dependency)
    route("/nested", outer)
    route("/parameters", Parameters)
    route("/generator", generator)
    route("/loop-only", on_the_loop)

    @app.get("/both")
    def both(value=Depends(dependency)):  # noqa: B008  as above
        return worker.run("after its dependency")

    return app


class Served:
    def __init__(self, app, shedder, clock, worker) -> None:
        self.app, self.shedder, self.clock, self.worker = app, shedder, clock, worker
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx2.AsyncClient(transport=transport, base_url="http://served")

    async def late(self, path, after_s=1.1, headers=None):
        """Let a request of a known route queue for the held thread for so long; return its answer."""
        async with self.worker.held():
            asking = asyncio.create_task(self.client.get(path, headers=headers))
            await until(lambda: limiter().statistics().tasks_waiting == 1)
            self.clock.advance(after_s)
        return await asking


def run(scenario, make, shedder, clock, worker):
    async def whole():
        limiter().total_tokens = 1
        served = Served(make(worker, shedder), shedder, clock, worker)
        async with served.client:
            await scenario(served)
        assert limiter().borrowed_tokens == 0, "a token has leaked"
        assert limiter().statistics().tasks_waiting == 0
        assert shedder.snapshot().in_flight == 0

    asyncio.run(asyncio.wait_for(whole(), 20))


@pytest.fixture
def serve(shedder, clock, worker):
    def serve(make, scenario):
        run(scenario, make, shedder, clock, worker)

    return serve


both = pytest.mark.parametrize("make", [starlette, fastapi])


async def known(served, path):
    """Have the route learned, and return how often its function has run."""
    assert (await served.client.get(path)).status_code == 200
    served.worker.ran.clear()


@both
@pytest.mark.parametrize(
    ("headers", "after_s", "reason"),
    [
        ({}, 1.1, "queue-wait"),
        ({"X-GroundFault-Timeout-Ms": "200"}, 0.3, "deadline"),
        ({"X-GroundFault-Timeout-Ms": "200"}, 0.1, None),
        ({"X-GroundFault-Timeout-Ms": "5000"}, 2.0, None),
        ({}, 0.5, None),
    ],
)
def test_a_turn_that_comes_too_late_is_passed_on(serve, shedder, worker, make, headers, after_s, reason):
    async def scenario(served):
        await known(served, "/sync")
        answer = await served.late("/sync", after_s, headers)
        if reason is None:
            assert (answer.status_code, worker.ran) == (200, ["sync"])
            return
        assert answer.status_code == 503
        assert answer.headers["x-groundfault"] == "handled"
        assert answer.headers["x-groundfault-reason"] == reason
        assert answer.headers["x-groundfault-origin"] == "grouper"
        assert worker.ran == []
        snapshot = shedder.snapshot()
        assert snapshot.shed == {(Reason(reason), Criticality.CRITICAL): 1}
        assert snapshot.admitted == {Criticality.CRITICAL: 1}
        assert (await served.client.get("/sync")).status_code == 200

    serve(make, scenario)


def test_a_refusal_for_load_begins_an_episode(serve, sink):
    async def scenario(served):
        await known(served, "/sync")
        await served.late("/sync")

    serve(starlette, scenario)
    (change,) = [event for event in sink.events if isinstance(event, SheddingChanged)]
    assert change.shedding
    assert change.predicted_wait_s == pytest.approx(1.1)
    assert sum(isinstance(event, RequestSeen) for event in sink.events) == 2


@pytest.mark.parametrize("path", ["/dependency", "/nested", "/parameters", "/generator"])
def test_dependencies_of_an_async_endpoint_wait_for_threads_too(serve, worker, path):
    async def scenario(served):
        await known(served, path)
        assert (await served.late(path)).headers["x-groundfault-reason"] == "queue-wait"
        assert worker.ran == []

    serve(fastapi, scenario)


def test_an_endpoint_whose_dependencies_all_run_on_the_loop_is_none_that_waits(serve, shedder):
    async def scenario(served):
        await known(served, "/loop-only")

    serve(fastapi, scenario)
    assert shedder.route("GET /loop-only").sync is False


def test_what_has_begun_is_not_refused_any_more(serve, worker, clock):
    """The dependency has had its thread in time; the endpoint, whose turn is late, runs all the same."""

    async def scenario(served):
        await known(served, "/both")
        ran = worker.run
        worker.run = lambda what: (clock.advance(2.0), ran(what))[1]
        assert (await served.client.get("/both")).status_code == 200
        assert worker.ran == ["dependency", "after its dependency"]

    serve(fastapi, scenario)


def test_a_method_of_an_endpoint_class_waits_for_a_thread(serve, worker):
    async def scenario(served):
        await known(served, "/class")
        assert (await served.late("/class")).status_code == 503
        assert worker.ran == []

    serve(starlette, scenario)


@pytest.mark.parametrize("path", ["/async", "/healthz"])
def test_async_endpoints_and_health_checks_keep_their_threads(serve, worker, path):
    async def scenario(served):
        await known(served, "/sync")
        await known(served, path)
        assert (await served.late(path)).status_code == 200
        assert len(worker.ran) == 1

    serve(starlette, scenario)


def test_background_work_keeps_its_thread_however_late(serve, worker, clock):
    async def scenario(served):
        await known(served, "/background")
        clock.advance(5.0)
        async with asyncio.timeout(5):
            answer = await served.client.get("/background")
        assert (answer.text, worker.ran) == ("answered", ["in the background"])

    serve(starlette, scenario)


def test_in_shadow_mode_it_is_counted_and_runs(serve, shedder, worker):
    async def scenario(served):
        await known(served, "/sync")
        shedder.tune(mode="shadow")
        answer = await served.late("/sync")
        assert (answer.status_code, worker.ran) == (200, ["sync"])
        assert shedder.snapshot().shed == {(Reason.QUEUE_WAIT, Criticality.CRITICAL): 1}

    serve(starlette, scenario)


@pytest.mark.parametrize("status", [200, 500])
def test_a_handler_for_every_error_does_not_hide_the_refusal(serve, status):
    def make(worker, shedder):
        app = starlette(worker, shedder)

        async def handle(request, error):
            return PlainTextResponse("something went wrong", status)

        from groundfault import GroundFaultError  # noqa: PLC0415  beside its only use

        app.add_exception_handler(GroundFaultError, handle)
        return app

    async def scenario(served):
        await known(served, "/sync")
        answer = await served.late("/sync")
        assert (answer.status_code, answer.headers["x-groundfault-reason"]) == (503, "queue-wait")

    serve(make, scenario)


@both
def test_a_client_that_leaves_while_it_waits_leaks_no_token(serve, worker, make):
    async def scenario(served):
        await known(served, "/sync")
        async with worker.held():
            asking = asyncio.create_task(served.client.get("/sync"))
            await until(lambda: limiter().statistics().tasks_waiting == 1)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        assert worker.ran == []

    serve(make, scenario)


def test_a_cancellation_in_the_very_turn_leaks_no_token(serve, worker, clock):
    async def scenario(served):
        await known(served, "/sync")
        for after_s in (0.1, 1.1):
            async with worker.held():
                asking = asyncio.create_task(served.client.get("/sync"))
                await until(lambda: limiter().statistics().tasks_waiting == 1)
                clock.advance(after_s)
                limiter().total_tokens = 2  # the turn comes here
                asking.cancel()
                await asyncio.wait([asking])
                limiter().total_tokens = 1

    serve(starlette, scenario)


def test_a_queue_of_doomed_requests_drains_at_once_and_the_next_is_served(serve, shedder, worker, clock):
    async def scenario(served):
        shedder.tune(deadline_s=30.0)  # so that none is refused at the door
        await known(served, "/sync")
        async with worker.held():
            asking = [asyncio.create_task(served.client.get("/sync")) for _ in range(20)]
            await until(lambda: limiter().statistics().tasks_waiting == 20)
            clock.advance(31.0)
        answers = await asyncio.gather(*asking)
        assert [each.status_code for each in answers] == [503] * 20
        assert worker.ran == []
        assert (await served.client.get("/sync")).status_code == 200

    serve(starlette, scenario)


@given(steps=st.lists(st.sampled_from(["ask", "leave", "wait", "turn"]), min_size=4, max_size=25))
def test_no_order_of_events_leaks_a_token_or_loses_a_request(steps):
    clock, worker = ManualClock(), Worker()
    shedder = Shedder(service="grouper", sinks=Sinks(), clock=clock, deadline_s=30.0)

    async def scenario(served):
        await known(served, "/sync")
        holder, asked = object(), []
        limiter().acquire_on_behalf_of_nowait(holder)
        for step in steps:
            if step == "ask":
                queued = limiter().statistics().tasks_waiting
                asked.append(asyncio.create_task(served.client.get("/sync")))
                await until(lambda: asked[-1].done() or limiter().statistics().tasks_waiting > queued)  # noqa: B023  awaited at once
            elif step == "leave" and asked:
                leaving = asked[len(asked) // 2]
                leaving.cancel()
                await asyncio.wait([leaving])
            elif step == "wait":
                clock.advance(16.0)
            elif step == "turn":
                limiter().release_on_behalf_of(holder)
                await until(lambda: not limiter().borrowed_tokens)
                limiter().acquire_on_behalf_of_nowait(holder)
        limiter().release_on_behalf_of(holder)
        ends = await asyncio.gather(*asked, return_exceptions=True)
        answered = [end for end in ends if not isinstance(end, asyncio.CancelledError)]
        served_ones = sum(answer.status_code == 200 for answer in answered)
        assert served_ones <= len(worker.ran) <= len(asked)  # one that left may have begun before
        assert all(answer.status_code in {200, 503} for answer in answered)

    run(scenario, starlette, shedder, clock, worker)


# --- anyio as it is not known here ------------------------------------------------------------------------------------


class Stranger:
    """A limiter whose tokens are not taken the way they are known to be."""

    acquire = release = None


class Rigid:
    """One whose objects cannot change their class."""

    def __setattr__(self, name, value):
        raise TypeError(f"{name} is fixed")

    async def acquire(self): ...

    def release(self): ...


@pytest.mark.parametrize("limiter", [Stranger(), Rigid()])
def test_a_limiter_of_another_shape_is_left_alone(limiter, monkeypatch):
    monkeypatch.setattr(_threads, "_derived", {})
    kind = type(limiter)
    cause = _threads._watch(limiter)
    assert "thread limiter" in cause
    assert type(limiter) is kind
    assert _threads._watch(limiter) == cause


def test_the_snapshot_says_why_turns_are_not_looked_at(serve, shedder, monkeypatch):
    monkeypatch.setattr(_threads, "_watch", lambda limiter: "anyio's thread limiter is a Stranger")

    async def scenario(served):
        await known(served, "/sync")
        assert (await served.late("/sync")).status_code == 200
        assert shedder.snapshot().signals_refused["thread-start"] == "anyio's thread limiter is a Stranger"

    serve(starlette, scenario)


def test_an_error_of_ours_costs_no_thread(serve, shedder, worker, monkeypatch):
    def broken(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(shedder, "withdraw", broken)

    async def scenario(served):
        await known(served, "/sync")
        assert (await served.late("/sync")).status_code == 200
        assert shedder.snapshot().internal_errors == {"turn for a thread": 1}

    serve(starlette, scenario)


# --- the decision -----------------------------------------------------------------------------------------------------

INF = float("inf")


@pytest.mark.parametrize(
    ("wait_s", "own_s", "deadline_s", "natural_s", "latest"),
    [
        (0.0, None, 1.0, 0.2, 100.8),
        (0.1, None, 1.0, 0.2, 100.7),
        (0.0, 0.5, 1.0, 0.2, 100.3),
        (0.1, 5.0, 1.0, 0.2, 104.7),
        (0.0, None, 1.0, INF, 101.0),
        (0.0, None, 1.0, 1.5, INF),
        (0.0, 1.2, 1.0, 1.5, 99.7),
    ],
)
def test_the_latest_start(wait_s, own_s, deadline_s, natural_s, latest):
    assert latest_start(100.0, wait_s, own_s, deadline_s, natural_s) == pytest.approx(latest)


class Ring:
    """A dependency that depends on itself."""

    def __init__(self) -> None:
        self.dependencies = [self]

    async def call(self): ...


def test_a_ring_of_dependencies_comes_to_an_end():
    async def endpoint(): ...

    route = type("Route", (), {"dependant": Ring()})
    assert waits_for_thread({"endpoint": endpoint, "route": route, "method": "GET"}) is False
