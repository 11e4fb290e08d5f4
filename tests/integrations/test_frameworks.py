"""One suite over every framework: what becomes of errors, of headers the application sets, and of streams."""

import asyncio
import io
import socket
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import django
import flask
import pytest
import quart
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path as url
from fastapi import FastAPI
from litestar import Litestar, Response, route
from litestar.response import Stream
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

import groundfault.integrations.django as django_kit
import groundfault.integrations.flask as flask_kit
import groundfault.integrations.quart as quart_kit
from groundfault import Command, LoadShedder, Registry, Resource, SettingsError, Shedder
from groundfault._context import current
from groundfault.errors import ShedError
from groundfault.integrations.litestar import LoadShedderPlugin
from groundfault.vocabulary import Reason

# --- what the applications do -----------------------------------------------------------------------------------------


class Saber:
    """The dependency, as new for each test."""

    closed: Command
    opened: Command


@pytest.fixture(autouse=True)
def _saber_as_new():
    saber = Resource("saber", registry=Registry())
    Saber.closed = saber.command("get_entrants")
    Saber.opened = saber.command("get_grid", mode="force_open")


def fail():
    raise ConnectionError("saber is gone")


def unrelated():
    raise ValueError("a mistake of the application's own")


def shed():
    raise ShedError("saber", "get_entrants", Reason.QUEUE_WAIT, "saber")


def misset():
    raise SettingsError("deadline_s must be a number")


def make_good():
    try:
        Saber.closed.call(fail)
    except ConnectionError:
        return "made good"


def wrapped():
    try:
        Saber.closed.call(fail)
    except ConnectionError as error:
        raise RuntimeError("no entrants") from error


BEHAVIOR: dict[str, Callable[[], Any]] = {
    "/fine": lambda: "fine",
    "/open": lambda: Saber.opened.call(fail),
    "/failed": lambda: Saber.closed.call(fail),
    "/wrapped": wrapped,
    "/shed": shed,
    "/unrelated": unrelated,
    "/misset": misset,
    "/good": make_good,
    "/context": lambda: f"{current().service} {current().criticality} {current().deadline is not None}",
}
LIES = {"X-GroundFault": "handled", "X-GroundFault-Reason": "draining", "x-groundfault-origin": "liar", "X-Mine": "1"}


# --- one exchange, WSGI or ASGI ---------------------------------------------------------------------------------------


class KernelSocket:
    """Answers getsockopt(TCP_INFO) with a wait of its own choice."""

    family = socket.AF_INET

    def __init__(self, wait_s: float) -> None:
        self.wait_ms = round(wait_s * 1000)

    def getsockopt(self, level: int, option: int, length: int) -> bytes:
        info = bytearray(length)
        info[0] = 1
        info[44:48] = self.wait_ms.to_bytes(4, "little")
        info[52:56] = self.wait_ms.to_bytes(4, "little")
        return bytes(info)


@dataclass
class Result:
    status: int
    headers: dict[str, str]
    body: bytes
    raised: Exception | None = None
    sent: list[dict[str, Any]] = field(default_factory=list)

    @property
    def annotation(self) -> tuple[str | None, ...]:
        return tuple(self.headers.get(f"x-groundfault{part}") for part in ("", "-reason", "-origin"))


def get_wsgi(app, path, headers=(), method="GET", wait_s=0.0):
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "served",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "gunicorn.socket": KernelSocket(wait_s),
    }
    environ |= {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers}
    begun = []

    def start_response(status, answered, exc_info=None):
        begun.append((int(status[:3]), {name.lower(): value for name, value in answered}))
        return len

    body = app(environ, start_response)
    try:
        content = b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()
    return Result(*begun[-1], content)


def receive_of(wait_s, messages, over):
    """Return what uvicorn hands over: a bound method of an object that knows the transport."""

    class Cycle:
        transport = types.SimpleNamespace(
            get_extra_info={"socket": KernelSocket(wait_s), "peername": ("127.0.0.1", 1234)}.get
        )

        async def receive(self):
            message = next(messages, None)
            if message is None:
                await over.wait()
                return {"type": "http.disconnect"}
            return message

    Cycle.__module__ = "uvicorn.protocols.http.h11_impl"
    return Cycle().receive


async def get_asgi(app, path, headers=(), method="GET", wait_s=0.0):
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"served"), *((name.lower().encode(), value.encode()) for name, value in headers)],
        "client": ("127.0.0.1", 1234),
        "server": ("127.0.0.1", 80),
    }
    sent = []

    over = asyncio.Event()

    async def send(message):
        sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            over.set()

    body = iter([{"type": "http.request", "body": b"", "more_body": False}])
    raised = None
    try:
        async with asyncio.timeout(10):
            await app(scope, receive_of(wait_s, body, over), send)
    except Exception as error:  # noqa: BLE001  Starlette answers with a 500, then raises for the server's log
        raised = error
    start, *bodies = sent
    names = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return Result(start["status"], names, b"".join(each.get("body", b"") for each in bodies), raised, sent)


async def started(app):
    """Run the start-up of an ASGI application; what it learns there it keeps."""
    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    outgoing: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    task = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}}, incoming.get, outgoing.put))
    await incoming.put({"type": "lifespan.startup"})
    assert (await outgoing.get())["type"] == "lifespan.startup.complete"

    async def stop():
        await incoming.put({"type": "lifespan.shutdown"})
        assert (await outgoing.get())["type"] == "lifespan.shutdown.complete"
        await task

    return stop


async def chunks():
    for chunk in (b"a", b"b", b"c"):
        yield chunk


# --- the frameworks ---------------------------------------------------------------------------------------------------


def flask_app(shedder):

    app = flask.Flask("grouper")
    for path, behave in BEHAVIOR.items():
        app.add_url_rule(path, path, behave)
    app.add_url_rule("/lying", "lying", lambda: ("lies", 200, LIES))
    app.add_url_rule("/lying503", "lying503", lambda: ("lies", 503, LIES))
    app.add_url_rule("/stream", "stream", lambda: flask.Response(iter([b"a", b"b", b"c"])))
    flask_kit.LoadShedder(app, shedder=shedder)
    return app


def quart_app(shedder, *, in_threads=False):

    app = quart.Quart("grouper")

    def on_the_loop(behave):
        async def view():
            return behave()

        return view

    for path, behave in BEHAVIOR.items():
        app.add_url_rule(path, path, behave if in_threads else on_the_loop(behave))
    app.add_url_rule("/lying", "lying", on_the_loop(lambda: ("lies", 200, LIES)))
    app.add_url_rule("/lying503", "lying503", on_the_loop(lambda: ("lies", 503, LIES)))

    app.add_url_rule("/stream", "stream", on_the_loop(chunks))
    quart_kit.LoadShedder(app, shedder=shedder)
    return app


def litestar_app(shedder, *, in_threads=False):

    def handler(path, behave, returns=str):
        if in_threads:

            def endpoint():
                return behave()

            endpoint.__annotations__["return"] = returns
            return route(path, http_method=["GET", "HEAD"], sync_to_thread=True)(endpoint)

        async def endpoint():
            return behave()

        endpoint.__annotations__["return"] = returns
        return route(path, http_method=["GET", "HEAD"])(endpoint)

    def lie(status):
        return lambda: Response("lies", status_code=status, headers=LIES)

    return Litestar(
        [
            *(handler(path, behave) for path, behave in BEHAVIOR.items()),
            handler("/lying", lie(200), Response[str]),
            handler("/lying503", lie(503), Response[str]),
            handler("/stream", lambda: Stream(iter([b"a", b"b", b"c"])), Stream),
        ],
        plugins=[LoadShedderPlugin(shedder=shedder)],
        logging_config=None,
        openapi_config=None,
    )


def _starlette_routes(kind, *, in_threads=False):

    def endpoint(behave):
        if in_threads:
            return lambda request: behave()

        async def on_the_loop(request):
            return behave()

        return on_the_loop

    def said(behave):
        return lambda: PlainTextResponse(behave())

    routes = {path: endpoint(said(behave)) for path, behave in BEHAVIOR.items()}
    routes["/lying"] = endpoint(lambda: PlainTextResponse("lies", 200, LIES))
    routes["/lying503"] = endpoint(lambda: PlainTextResponse("lies", 503, LIES))
    routes["/stream"] = endpoint(lambda: StreamingResponse(iter([b"a", b"b", b"c"])))
    return [kind(path, each) for path, each in routes.items()]


def starlette_app(shedder, *, in_threads=False):

    app = Starlette(routes=_starlette_routes(Route, in_threads=in_threads))
    app.add_middleware(LoadShedder, shedder=shedder)
    return app


def fastapi_app(shedder, *, in_threads=False):

    app = FastAPI(openapi_url=None)

    def add(path, endpoint):
        endpoint.__annotations__ = {"request": Request}
        app.add_api_route(path, endpoint, methods=["GET", "HEAD"])

    _starlette_routes(add, in_threads=in_threads)
    app.add_middleware(LoadShedder, shedder=shedder)
    return app


OURS = "groundfault.integrations.django.LoadShedderMiddleware"
MODULE = "groundfault_test_middleware"
COMMON = "django.middleware.common.CommonMiddleware"


def sync_only(get_response):
    """Make the chain in front of it a synchronous one, as middleware written as a function does."""

    def in_a_thread(request):
        return get_response(request)

    return in_a_thread


def django_app(monkeypatch, *, protocol, middleware, wrapped, in_threads=True):

    def view(behave):
        if in_threads:
            return lambda request: behave()

        async def on_the_loop(request):
            return behave()

        return on_the_loop

    urls = types.ModuleType("groundfault_test_urls")
    urls.urlpatterns = [
        *(url(path[1:], view(lambda behave=behave: HttpResponse(behave()))) for path, behave in BEHAVIOR.items()),
        url("lying", view(lambda: HttpResponse("lies", headers=LIES))),
        url("lying503", view(lambda: HttpResponse("lies", status=503, headers=LIES))),
        url("stream", lambda request: StreamingHttpResponse(chunks() if protocol == "asgi" else iter([b"abc"]))),
    ]
    sys.modules[urls.__name__] = urls
    module = sys.modules.setdefault(MODULE, types.ModuleType(MODULE))
    module.sync_only = sync_only
    if not settings.configured:
        settings.configure(LOGGING_CONFIG=None, SECRET_KEY="for tests")  # noqa: S106  no secret
    for setting, value in {"ROOT_URLCONF": urls.__name__, "ALLOWED_HOSTS": ["*"], "MIDDLEWARE": middleware}.items():
        monkeypatch.setattr(settings, setting, value, raising=False)
    django.urls.clear_url_caches()
    if wrapped:
        return django_kit.get_wsgi_application() if protocol == "wsgi" else django_kit.get_asgi_application()
    return get_wsgi_application() if protocol == "wsgi" else get_asgi_application()


def django_variant(protocol, middleware, *, wrapped=False, in_threads=True):
    def make(shedder, monkeypatch):

        monkeypatch.setattr(django_kit, "shedder", lambda: shedder)
        return django_app(monkeypatch, protocol=protocol, middleware=middleware, wrapped=wrapped, in_threads=in_threads)

    return make


def plain(make, **how):
    return lambda shedder, monkeypatch: make(shedder, **how)


FRAMEWORKS = {
    "flask": ("wsgi", plain(flask_app)),
    "django-wsgi-wrapped": ("wsgi", django_variant("wsgi", [COMMON], wrapped=True)),
    "django-wsgi-middleware": ("wsgi", django_variant("wsgi", [OURS, COMMON])),
    "django-wsgi-both": ("wsgi", django_variant("wsgi", [OURS, COMMON], wrapped=True)),
    "django-asgi-wrapped": ("asgi", django_variant("asgi", [COMMON], wrapped=True)),
    "django-asgi-wrapped-async-views": ("asgi", django_variant("asgi", [], wrapped=True, in_threads=False)),
    "django-asgi-middleware": ("asgi", django_variant("asgi", [OURS, COMMON])),
    "django-asgi-middleware-async-views": ("asgi", django_variant("asgi", [OURS], in_threads=False)),
    "django-asgi-middleware-sync-chain": ("asgi", django_variant("asgi", [OURS, f"{MODULE}.sync_only"])),
    "django-asgi-both": ("asgi", django_variant("asgi", [OURS, COMMON], wrapped=True)),
    "starlette": ("asgi", plain(starlette_app)),
    "starlette-threads": ("asgi", plain(starlette_app, in_threads=True)),
    "fastapi": ("asgi", plain(fastapi_app)),
    "fastapi-threads": ("asgi", plain(fastapi_app, in_threads=True)),
    "litestar": ("asgi", plain(litestar_app)),
    "litestar-threads": ("asgi", plain(litestar_app, in_threads=True)),
    "quart": ("asgi", plain(quart_app)),
    "quart-threads": ("asgi", plain(quart_app, in_threads=True)),
}
NO_LIFESPAN = "django"


@pytest.fixture
def shedder():
    return Shedder(service="grouper")


@pytest.fixture(params=FRAMEWORKS)
def name(request):
    return request.param


@pytest.fixture
def get(name, shedder, monkeypatch):
    """Return a function that sends one request to the framework's application, after its start-up."""
    protocol, make = FRAMEWORKS[name]
    app = make(shedder, monkeypatch)
    if protocol == "wsgi":
        return lambda path, headers=(), **how: get_wsgi(app, path, headers, **how)

    async def once(path, headers=(), **how):
        stop = None if name.startswith(NO_LIFESPAN) else await started(app)
        try:
            return await get_asgi(app, path, headers, **how)
        finally:
            if stop is not None:
                await stop()
            await asyncio.get_running_loop().shutdown_default_executor()

    return lambda path, headers=(), **how: asyncio.run(once(path, headers, **how))


# --- what holds for all of them ---------------------------------------------------------------------------------------


def test_an_ordinary_answer_is_left_alone(get, shedder):
    result = get("/fine")
    assert (result.status, result.body) == (200, b"fine")
    assert result.annotation == (None, None, None)
    assert (shedder.snapshot().in_flight, sum(shedder.snapshot().admitted.values())) == (0, 1)


@pytest.mark.parametrize(
    ("path", "reason", "origin"),
    [
        ("/open", "circuit-open", "grouper"),
        ("/failed", "dependency", "grouper"),
        ("/wrapped", "dependency", "grouper"),
        ("/shed", "dependency", "saber"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_a_dependency_did_is_answered_with_an_annotated_503(get, path, reason, origin, method, shedder):
    result = get(path, method=method)
    assert result.status == 503
    assert result.annotation == ("handled", reason, origin)
    assert result.headers["cache-control"] == "no-store"
    assert "retry-after" not in result.headers
    assert result.raised is None
    assert bool(result.body) is (method == "GET")
    assert shedder.snapshot().in_flight == 0


def test_the_answer_is_of_a_kind_that_the_client_accepts(get):
    result = get("/open", [("Accept", "text/html")])
    assert result.headers["content-type"].startswith("text/plain")
    assert result.body.startswith(b"Ground Fault: ")
    assert get("/open").headers["content-type"].startswith("application/problem+json")


def test_the_code_that_serves_knows_the_request_wherever_it_runs(get):
    headers = [("X-GroundFault-Criticality", "sheddable"), ("X-GroundFault-Timeout-Ms", "500")]
    assert get("/context", headers).body == b"grouper sheddable True"


@pytest.mark.parametrize("path", ["/unrelated", "/misset"])
def test_an_error_that_no_dependency_is_behind_stays_a_500(get, path):
    result = get(path)
    assert result.status == 500
    assert result.annotation == (None, None, None)


def test_an_error_after_a_fault_that_was_made_good_stays_a_500(get):
    assert get("/good").status == 200


@pytest.mark.parametrize(("path", "status"), [("/lying", 200), ("/lying503", 503)])
def test_no_header_of_ours_that_the_application_sets_leaks_out(get, path, status):
    result = get(path)
    assert (result.status, result.annotation) == (status, (None, None, None))
    assert result.headers["x-mine"] == "1"


def test_in_shadow_mode_nothing_a_client_sees_changes(get, shedder):
    shedder.tune(mode="shadow")
    assert get("/open").status == 500
    assert get("/lying").annotation == ("handled", "draining", "liar")


def test_switched_off_it_is_not_there(get, shedder):
    shedder.tune(mode="off")
    assert get("/open").status == 500
    assert get("/fine").status == 200
    assert not shedder.snapshot().admitted


def test_a_refusal_reaches_the_client_and_nothing_else_runs(get, shedder):
    shedder.drain()
    result = get("/unrelated")
    assert (result.status, result.annotation) == (503, ("handled", "draining", "grouper"))
    assert shedder.snapshot().in_flight == 0


def test_a_stream_comes_through_whole_and_ends_the_request(get, shedder):
    result = get("/stream")
    assert (result.status, result.body, result.raised) == (200, b"abc", None)
    assert shedder.snapshot().in_flight == 0


def test_the_wait_is_known(get, shedder):
    get("/fine", wait_s=0.1)
    assert shedder.snapshot().signal == "tcp-info"


def test_a_path_that_does_not_exist_is_a_404(get):
    result = get("/nowhere")
    assert (result.status, result.annotation) == (404, (None, None, None))
