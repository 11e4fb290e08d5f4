"""The Quart extension beside what an application of its own does: handlers, sockets, start-up, background work."""

import asyncio
from contextlib import suppress

import pytest
import quart

from groundfault import CircuitOpenError, Registry, Resource, Shedder
from groundfault._context import current
from groundfault.integrations.quart import LoadShedder

ANNOTATED = ("handled", "circuit-open", "grouper")


def annotation(answer):
    return tuple(answer.headers.get(f"X-GroundFault{part}") for part in ("", "-Reason", "-Origin"))


@pytest.fixture
def shedder():
    return Shedder(service="grouper")


@pytest.fixture
def app(shedder):
    saber = Resource("saber", registry=Registry()).command("get_entrants", mode="force_open")
    app = quart.Quart("grouper")

    @app.get("/entrants")
    async def entrants():
        return saber.call(lambda: "entrants")

    @app.get("/thread")
    def thread():
        return saber.call(lambda: "entrants")

    @app.get("/unrelated")
    async def unrelated():
        return 1 // 0

    LoadShedder(app, shedder=shedder)
    return app


def get(app, path="/entrants", **how):
    async def once():
        answer = await app.test_client().get(path, **how)
        await answer.get_data()
        await asyncio.get_running_loop().shutdown_default_executor()
        return answer

    return asyncio.run(once())


def test_an_application_made_later_is_put_behind_it():
    extension = LoadShedder(service="grouper")
    app = quart.Quart("other")
    extension.init_app(app)
    assert app.extensions["groundfault"] is extension
    with pytest.raises(RuntimeError, match="other stands behind a LoadShedder already"):
        extension.init_app(app)


@pytest.mark.parametrize("kind", [CircuitOpenError, Exception])
def test_a_handler_of_the_application_wins(app, kind):
    @app.errorhandler(kind)
    async def handle(error):
        return "from the cache", 203

    answer = get(app)
    assert (answer.status_code, annotation(answer)) == (203, (None, None, None))


def test_a_handler_that_answers_503_is_annotated(app):
    app.register_error_handler(CircuitOpenError, lambda error: ("please come back", 503))
    assert annotation(get(app, "/thread")) == ANNOTATED


def test_a_handler_for_500_sees_what_is_unrelated_and_nothing_else(app):
    seen = []

    @app.errorhandler(500)
    async def handle(error):
        seen.append(type(error.original_exception))
        return "sorry", 500

    assert annotation(get(app)) == ANNOTATED
    assert get(app, "/unrelated").status_code == 500
    assert seen == [ZeroDivisionError]


def test_functions_after_the_request_see_the_answer(app):
    seen = []

    @app.after_request
    async def after(response):
        seen.append(response.status_code)
        return response

    get(app)
    assert seen == [503]


@pytest.mark.parametrize("setting", ["TESTING", "DEBUG", "PROPAGATE_EXCEPTIONS"])
def test_where_errors_are_shown_only_the_unrelated_are(app, setting):
    app.config[setting] = True
    assert annotation(get(app)) == ANNOTATED
    with suppress(ZeroDivisionError):  # which of these settings raise, and which show a page, is Quart's to say
        answer = get(app, "/unrelated")
        assert answer.status_code == 500
        assert "by zero" in asyncio.run(answer.get_data(as_text=True))


def test_websockets_are_not_touched(app, shedder):
    @app.websocket("/echo")
    async def echo():
        await quart.websocket.send(f"{await quart.websocket.receive()} {current()}")

    shedder.drain()  # would refuse any request

    async def talk():
        async with app.test_client().websocket("/echo") as socket:
            await socket.send("hello")
            return await socket.receive()

    assert asyncio.run(talk()) == "hello None"
    assert not shedder.snapshot().shed


def test_start_up_and_shutdown_run_once(app):
    order = []
    app.before_serving(lambda: order.append("started"))
    app.after_serving(lambda: order.append("stopped"))

    async def whole():
        async with app.test_app() as running:
            assert (await running.test_client().get("/entrants")).status_code == 503
        await asyncio.get_running_loop().shutdown_default_executor()

    asyncio.run(whole())
    assert order == ["started", "stopped"]


def test_work_in_the_background_has_no_deadline_of_the_request_any_more(app):
    deadlines = []
    answered = None

    @app.get("/background")
    async def background():
        async def work():
            await answered.wait()
            deadlines.append(current().deadline)

        deadlines.append(current().deadline is not None)
        app.add_background_task(work)
        return "answered"

    async def whole():
        nonlocal answered
        answered = asyncio.Event()
        async with app.test_app() as running:
            answer = await running.test_client().get("/background", headers={"X-GroundFault-Timeout-Ms": "500"})
            assert answer.status_code == 200
            answered.set()

    asyncio.run(whole())
    assert deadlines == [True, None]


def test_a_client_that_leaves_frees_its_place(app, shedder):
    begun = None

    @app.get("/slow")
    async def slow():
        begun.set()
        await asyncio.Event().wait()

    async def whole():
        nonlocal begun
        begun = asyncio.Event()
        async with asyncio.timeout(5), app.test_client().request("/slow") as connection:
            await connection.send_complete()
            await begun.wait()
            assert shedder.snapshot().in_flight == 1
            await connection.disconnect()

    asyncio.run(whole())
    assert shedder.snapshot().in_flight == 0
