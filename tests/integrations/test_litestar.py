"""The Litestar plugin beside what an application of its own does: handlers on each layer, sockets, start-up."""

import asyncio

import pytest
from litestar import Litestar, Response, WebSocket, get, websocket
from litestar.background_tasks import BackgroundTask
from litestar.exceptions import NotAuthorizedException
from litestar.middleware import DefineMiddleware
from litestar.response import Stream
from litestar.testing import TestClient

from groundfault import CircuitOpenError, LoadShedder, Registry, Resource, Shedder
from groundfault._context import current
from groundfault.integrations.litestar import LoadShedderPlugin

ANNOTATED = ("handled", "circuit-open", "grouper")


def annotation(answer):
    return tuple(answer.headers.get(f"X-GroundFault{part}") for part in ("", "-Reason", "-Origin"))


def answering(status):
    def handle(request, error):
        return Response(f"{type(error).__name__} is handled", status_code=status)

    return handle


@pytest.fixture
def shedder():
    return Shedder(service="grouper")


@pytest.fixture
def saber():
    return Resource("saber", registry=Registry()).command("get_entrants", mode="force_open")


@pytest.fixture
def make(shedder, saber):
    """Return a function that makes an application of three endpoints, or others."""

    def make(*handlers, on_entrants=None, protected=True, **settings):
        @get("/entrants", exception_handlers=on_entrants or {})
        async def entrants() -> str:
            return saber.call(lambda: "entrants")

        @get("/unrelated", exception_handlers=on_entrants or {})
        async def unrelated() -> str:
            return str(1 // 0)

        @get("/forbidden")
        async def forbidden() -> None:
            raise NotAuthorizedException("not you")

        plugin = LoadShedderPlugin(shedder=shedder)
        return Litestar(
            [entrants, unrelated, forbidden, *handlers],
            plugins=[plugin] if protected else [],
            logging_config=None,
            openapi_config=None,
            **settings,
        )

    return make


def ask(app, path="/entrants", **how):
    with TestClient(app, raise_server_exceptions=False) as client:
        return client.get(path, **how)


def test_it_makes_its_own_shedder():
    plugin = LoadShedderPlugin(service="grouper", deadline_s=0.5)
    assert plugin.shedder.settings.deadline_s == 0.5
    assert ask(Litestar([], plugins=[plugin], logging_config=None, openapi_config=None), "/").status_code == 404


@pytest.mark.parametrize("kind", [CircuitOpenError, Exception])
@pytest.mark.parametrize("layer", ["application", "endpoint"])
def test_a_handler_of_the_application_wins(make, kind, layer):
    handlers = {kind: answering(203)}
    app = make(exception_handlers=handlers) if layer == "application" else make(on_entrants=handlers)
    answer = ask(app)
    assert (answer.status_code, annotation(answer)) == (203, (None, None, None))


def test_a_handler_that_answers_503_is_annotated(make):
    answer = ask(make(exception_handlers={CircuitOpenError: answering(503)}))
    assert (annotation(answer), answer.text) == (ANNOTATED, "CircuitOpenError is handled")


@pytest.mark.parametrize("layer", ["application", "endpoint"])
def test_a_handler_for_500_sees_what_is_unrelated_and_nothing_else(make, layer):
    handlers = {500: answering(500)}
    app = make(exception_handlers=handlers) if layer == "application" else make(on_entrants=handlers)
    assert annotation(ask(app)) == ANNOTATED
    answer = ask(app, "/unrelated")
    assert (answer.status_code, answer.text) == (500, "ZeroDivisionError is handled")


@pytest.mark.parametrize("path", ["/unrelated", "/forbidden", "/nowhere"])
@pytest.mark.parametrize("accept", ["application/json", "text/html"])
@pytest.mark.parametrize("debug", [True, False])
def test_an_unrelated_error_is_answered_just_as_without_the_plugin(make, path, accept, debug):
    app, bare = make(debug=debug), make(debug=debug, protected=False)
    headers = {"Accept": accept}
    ours, theirs = ask(app, path, headers=headers), ask(bare, path, headers=headers)
    assert (ours.status_code, ours.headers["content-type"]) == (theirs.status_code, theirs.headers["content-type"])
    if not (debug and path == "/unrelated"):  # that page is made of the frames, which differ
        assert ours.text == theirs.text
    else:
        assert "ZeroDivisionError" in ours.text
        assert "ZeroDivisionError" in theirs.text


def test_it_stands_outside_of_all_middleware(make, shedder):
    seen = []

    class Middleware:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            seen.append(current())
            await self.app(scope, receive, send)

    ask(make(middleware=[DefineMiddleware(Middleware)]))
    assert seen[0].service == "grouper"


def test_websockets_are_not_touched(make, shedder):
    @websocket("/echo")
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(f"{await socket.receive_text()} {current()}")
        await socket.close()

    shedder.drain()  # would refuse any request
    with TestClient(make(echo)) as client, client.websocket_connect("/echo") as socket:
        socket.send_text("hello")
        assert socket.receive_text() == "hello None"
    assert not shedder.snapshot().shed


def test_start_up_and_shutdown_run_once_and_twice_is_wrapped_once(make):
    order = []
    app = make(on_startup=[lambda: order.append("started")], on_shutdown=[lambda: order.append("stopped")])
    for _ in range(2):
        assert annotation(ask(app)) == ANNOTATED
    assert order == ["started", "stopped"] * 2
    assert isinstance(app.asgi_handler, LoadShedder)
    assert not isinstance(app.asgi_handler.app, LoadShedder)


def test_work_in_the_background_has_no_deadline_of_the_request_any_more(make, shedder):
    deadlines = []

    async def work() -> None:
        deadlines.append((current().deadline, shedder.snapshot().in_flight))

    @get("/background")
    async def background() -> Response[str]:
        deadlines.append(current().deadline is not None)
        return Response("answered", background=BackgroundTask(work))

    answer = ask(make(background), "/background", headers={"X-GroundFault-Timeout-Ms": "500"})
    assert answer.status_code == 200
    assert deadlines == [True, (None, 0)]


def test_a_client_that_leaves_frees_its_place(make, shedder):
    seen = []

    @get("/stream")
    async def stream() -> Stream:
        async def chunks():
            for chunk in ("a", "b"):
                seen.append(shedder.snapshot().in_flight)
                yield chunk

        return Stream(chunks())

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/stream",
        "raw_path": b"/stream",
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

        app = make(stream)
        async with asyncio.timeout(5), app.lifespan():
            await app(scope, receive, send)

    asyncio.run(scenario())
    assert (seen, shedder.snapshot().in_flight) == ([1], 0)
