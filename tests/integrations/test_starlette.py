"""LoadShedder as Starlette's and FastAPI's middleware, beside what an application of its own does."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from fastapi import BackgroundTasks, FastAPI, HTTPException, WebSocket
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient

from groundfault import CircuitOpenError, LoadShedder, Registry, Resource, Shedder
from groundfault._context import current

ANNOTATED = ("handled", "circuit-open", "grouper")


def annotation(answer):
    return tuple(answer.headers.get(f"X-GroundFault{part}") for part in ("", "-Reason", "-Origin"))


@pytest.fixture
def shedder():
    return Shedder(service="grouper")


@pytest.fixture
def saber():
    return Resource("saber", registry=Registry()).command("get_entrants", mode="force_open")


class Seen(list):
    """What the applications note; ``started`` counts start-ups, ``stopped`` shutdowns."""

    started = stopped = 0


@pytest.fixture
def seen():
    return Seen()


def lifespan_of(seen):
    @asynccontextmanager
    async def lifespan(app):
        seen.started += 1
        yield
        seen.stopped += 1

    return lifespan


def starlette(shedder, saber, seen, **settings):
    async def entrants(request):
        return PlainTextResponse(saber.call(lambda: "entrants"))

    async def unrelated(request):
        return PlainTextResponse(str(1 // 0))

    async def echo(socket):
        await socket.accept()
        await socket.send_text(f"{await socket.receive_text()} {current()}")
        await socket.close()

    async def work():
        seen.append((current().deadline, shedder.snapshot().in_flight))

    async def background(request):
        seen.append(current().deadline is not None)
        return PlainTextResponse("answered", background=BackgroundTask(work))

    async def stream(request):
        async def chunks():
            for chunk in ("a", "b"):
                seen.append(shedder.snapshot().in_flight)
                yield chunk

        return StreamingResponse(chunks())

    app = Starlette(
        routes=[
            Route("/entrants", entrants),
            Route("/unrelated", unrelated),
            Route("/background", background),
            Route("/stream", stream),
            WebSocketRoute("/echo", echo),
        ],
        lifespan=lifespan_of(seen),
        **settings,
    )
    app.add_middleware(LoadShedder, shedder=shedder)
    return app


def fastapi(shedder, saber, seen, **settings):
    app = FastAPI(openapi_url=None, lifespan=lifespan_of(seen), **settings)
    app.add_middleware(LoadShedder, shedder=shedder)

    @app.get("/entrants")
    async def entrants():
        return saber.call(lambda: "entrants")

    @app.get("/unrelated")
    async def unrelated():
        return 1 // 0

    @app.get("/forbidden")
    async def forbidden():
        raise HTTPException(403, "not you", headers={"X-GroundFault": "handled"})

    @app.websocket("/echo")
    async def echo(socket: WebSocket):
        await socket.accept()
        await socket.send_text(f"{await socket.receive_text()} {current()}")
        await socket.close()

    async def work():
        seen.append((current().deadline, shedder.snapshot().in_flight))

    @app.get("/background")
    async def background(tasks: BackgroundTasks):
        seen.append(current().deadline is not None)
        tasks.add_task(work)

    @app.get("/stream")
    async def stream():
        async def chunks():
            for chunk in ("a", "b"):
                seen.append(shedder.snapshot().in_flight)
                yield chunk

        return StreamingResponse(chunks())

    return app


@pytest.fixture(params=[starlette, fastapi])
def make(request, shedder, saber, seen):
    return lambda **settings: request.param(shedder, saber, seen, **settings)


def ask(app, path="/entrants", **how):
    with TestClient(app, raise_server_exceptions=False) as client:
        return client.get(path, **how)


def answering(status, seen=None):
    async def handle(request, error):
        if seen is not None:
            seen.append(type(error))
        return PlainTextResponse("handled by the application", status)

    return handle


def test_a_handler_of_the_application_wins(make):
    app = make()
    app.add_exception_handler(CircuitOpenError, answering(203))
    answer = ask(app)
    assert (answer.status_code, annotation(answer)) == (203, (None, None, None))


def test_a_handler_that_answers_503_is_annotated(make):
    app = make()
    app.add_exception_handler(CircuitOpenError, answering(503))
    answer = ask(app)
    assert (annotation(answer), answer.text) == (ANNOTATED, "handled by the application")


@pytest.mark.parametrize("kind", [500, Exception])
def test_a_handler_for_everything_sees_what_is_unrelated_and_nothing_else(make, kind, seen):
    app = make()
    app.add_exception_handler(kind, answering(500, seen))
    assert annotation(ask(app)) == ANNOTATED
    assert ask(app, "/unrelated").text == "handled by the application"
    assert seen == [ZeroDivisionError]


def test_the_debug_page_is_for_what_is_unrelated(make):
    app = make(debug=True)
    assert annotation(ask(app)) == ANNOTATED
    answer = ask(app, "/unrelated", headers={"Accept": "text/html"})
    assert (answer.status_code, "ZeroDivisionError" in answer.text) == (500, True)


def test_middleware_inside_that_runs_the_application_in_a_task_of_its_own_changes_nothing(make, shedder):
    async def dispatch(request, call_next):
        return await call_next(request)

    app = make()
    app.user_middleware.append(type(app.user_middleware[0])(BaseHTTPMiddleware, dispatch=dispatch))
    assert annotation(ask(app)) == ANNOTATED
    assert ask(app, "/unrelated").status_code == 500
    assert shedder.snapshot().in_flight == 0


def test_websockets_are_not_touched(make, shedder):
    shedder.drain()  # would refuse any request
    with TestClient(make()) as client, client.websocket_connect("/echo") as socket:
        socket.send_text("hello")
        assert socket.receive_text() == "hello None"
    assert not shedder.snapshot().shed


def test_start_up_and_shutdown_run_once(make, seen):
    ask(make())
    assert (seen.started, seen.stopped) == (1, 1)


def test_work_in_the_background_has_no_deadline_of_the_request_any_more(make, seen):
    assert ask(make(), "/background", headers={"X-GroundFault-Timeout-Ms": "500"}).status_code == 200
    assert seen == [True, (None, 0)]


def test_a_stream_is_in_flight_to_its_last_byte(make, shedder, seen):
    assert ask(make(), "/stream").text == "ab"
    assert (seen, shedder.snapshot().in_flight) == ([1, 1], 0)


def test_an_answer_fastapi_makes_of_an_error_loses_our_header(shedder, saber, seen):
    answer = ask(fastapi(shedder, saber, seen), "/forbidden")
    assert (answer.status_code, annotation(answer)) == (403, (None, None, None))


def test_a_client_that_leaves_frees_its_place(make, shedder, seen):
    """In the middle of a stream: the server says so by ``http.disconnect``, or by an error of ``send``."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/stream",
        "root_path": "",
        "query_string": b"",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }

    async def scenario():
        begun = asyncio.Event()

        async def receive():
            await begun.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            if message["type"] == "http.response.body":
                begun.set()
                await asyncio.Event().wait()  # the client reads no more

        async with asyncio.timeout(5):
            await make()(scope, receive, send)

    asyncio.run(scenario())
    assert (seen, shedder.snapshot().in_flight) == ([1], 0)
