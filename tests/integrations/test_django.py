"""Django's middleware and the wrapped applications beside what an application of its own does."""

import asyncio
import io
import socket
import sys
import types

import django
import pytest
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.signals import got_request_exception, request_started
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path as url

import groundfault.integrations.django as kit
from groundfault import CircuitOpenError, Registry, Resource, SettingsError, Shedder
from groundfault._context import current
from groundfault.shedding._connection import CONNECTION
from groundfault.shedding._socket import Connection

OURS = "groundfault.integrations.django.LoadShedderMiddleware"
MODULE = "groundfault_django_test"
ANNOTATED = ("handled", "circuit-open", "grouper")

if not settings.configured:
    settings.configure(ALLOWED_HOSTS=["*"], LOGGING_CONFIG=None, SECRET_KEY="for tests")  # noqa: S106  no secret
    django.setup(set_prefix=False)


class Site:
    """What the views, the middleware and the handlers below share; made anew for each test."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.saber = Resource("saber", registry=Registry()).command("get_entrants", mode="force_open")


@pytest.fixture
def site():
    return Site()


@pytest.fixture
def shedder(monkeypatch):
    shedder = Shedder(service="grouper")
    monkeypatch.setattr(kit, "shedder", lambda: shedder)
    return shedder


def views_of(site):
    """Return the views, by their paths."""

    def entrants(request):
        return HttpResponse(site.saber.call(lambda: "entrants"))

    def unrelated(request):
        return HttpResponse(1 // 0)

    def cookie(request):
        response = HttpResponse("lies", headers={"X-GroundFault": "handled", "X-Mine": "1"})
        response.set_cookie("session", "kept")
        return response

    def plain(request):
        return HttpResponse("plain")

    def stream(request):
        def chunks():
            site.seen.append(current() is not None)
            yield b"a"
            yield b"b"

        async def achunks():
            yield b"a"
            yield b"b"

        return StreamingHttpResponse(achunks() if hasattr(request, "scope") else chunks())

    async def slow(request):
        site.seen.append("begun")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            site.seen.append("cancelled")
            raise

    return {each.__name__: each for each in (entrants, unrelated, cookie, plain, stream, slow)}


def middleware_of(site):
    """Return what the application itself puts behind ours, and its page for errors that nobody answers."""

    class Answering:
        """Answers errors of views by itself."""

        sync_capable = async_capable = True

        def __init__(self, get_response):
            self.get_response = get_response
            self.is_async = iscoroutinefunction(get_response)
            if self.is_async:
                markcoroutinefunction(self)

        def __call__(self, request):
            return self.get_response(request)

        def process_exception(self, request, exception):
            site.seen.append(type(exception))
            return HttpResponse("from the cache", status=203) if isinstance(exception, CircuitOpenError) else None

    def troubled(get_response):
        """Make calls of its own, and do not catch what they raise."""

        async def on_the_loop(request):
            await get_response(request)
            return HttpResponse(site.saber.call(lambda: "help"))

        def in_a_thread(request):
            get_response(request)
            return HttpResponse(site.saber.call(lambda: "help"))

        return on_the_loop if iscoroutinefunction(get_response) else in_a_thread

    troubled.async_capable = troubled.sync_capable = True

    def handler500(request):
        site.seen.append("handler500")
        return HttpResponse("sorry", status=500)

    return {each.__name__: each for each in (Answering, troubled, handler500)}


@pytest.fixture(autouse=True)
def _urls(site):
    """Serve the views from a module, as Django wants it."""
    module = types.ModuleType(MODULE)
    module.urlpatterns = [url(path, view) for path, view in views_of(site).items()]
    vars(module).update(middleware_of(site))
    sys.modules[MODULE] = module
    with override_settings(ROOT_URLCONF=MODULE, ALLOWED_HOSTS=["*"]):
        django.urls.clear_url_caches()
        yield
    django.urls.clear_url_caches()
    del sys.modules[MODULE]


class Result:
    def __init__(self, status, headers, body=b"") -> None:
        self.status, self.body = status, body
        self.headers = {name.lower(): value for name, value in headers}

    @property
    def annotation(self):
        return tuple(self.headers.get(f"x-groundfault{part}") for part in ("", "-reason", "-origin"))


def environ(path):
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "served",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
    }


def get_wsgi(app, path):
    begun = []
    body = app(environ(path), lambda *start: begun.append(start[:2]) or len)
    content = b"".join(body)
    if hasattr(body, "close"):
        body.close()
    status, headers = begun[-1]
    return Result(int(status[:3]), headers, content)


def get_asgi(app, path, leaves=None):
    """Send one request; ``leaves`` is an event of the client's leaving."""

    async def once():
        over = asyncio.Event() if leaves is None else leaves
        messages = iter([{"type": "http.request", "body": b""}])
        sent = []

        async def receive():
            message = next(messages, None)
            if message is None:
                await over.wait()
                return {"type": "http.disconnect"}
            return message

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "query_string": b"",
            "headers": [(b"host", b"served")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        async with asyncio.timeout(10):
            await app(scope, receive, send)
        await asyncio.get_running_loop().shutdown_default_executor()
        start, *bodies = sent or [{"status": 0, "headers": []}]
        headers = [(name.decode(), value.decode()) for name, value in start["headers"]]
        return Result(start["status"], headers, b"".join(each.get("body", b"") for each in bodies))

    return asyncio.run(once())


WAYS = {
    "wsgi-wrapped": (kit.get_wsgi_application, get_wsgi, []),
    "wsgi-middleware": (get_wsgi_application, get_wsgi, [OURS]),
    "asgi-wrapped": (kit.get_asgi_application, get_asgi, []),
    "asgi-middleware": (get_asgi_application, get_asgi, [OURS]),
}


@pytest.fixture(params=WAYS)
def way(request):
    return WAYS[request.param]


@pytest.fixture
def get(way, shedder):
    """Return a function that asks an application with the middleware given behind ours."""
    make, ask, first = way

    def get(path, *middleware, **settings):
        with override_settings(MIDDLEWARE=[*first, *(f"{MODULE}.{name}" for name in middleware)], **settings):
            return ask(make(), path)

    return get


def test_a_process_exception_of_the_application_wins(get, site):
    result = get("/entrants", "Answering")
    assert (result.status, result.annotation) == (203, (None, None, None))
    assert get("/unrelated", "Answering").status == 500
    assert site.seen == [CircuitOpenError, ZeroDivisionError, "handler500"]


def test_the_page_for_500_is_for_what_is_unrelated(get, site):
    assert get("/entrants").annotation == ANNOTATED
    assert site.seen == []
    result = get("/unrelated")
    assert (result.status, result.body, result.annotation) == (500, b"sorry", (None, None, None))


def test_the_debug_page_is_for_what_is_unrelated(get):
    assert get("/entrants", DEBUG=True).annotation == ANNOTATED
    result = get("/unrelated", DEBUG=True)
    assert (result.status, b"ZeroDivisionError" in result.body) == (500, True)


def test_the_signal_is_for_what_nobody_answered(get):
    told = []

    def receiver(sender, **_):
        told.append(type(sys.exc_info()[1]))

    got_request_exception.connect(receiver)
    try:
        get("/entrants")
        assert told == []
        get("/unrelated")
        assert told == [ZeroDivisionError]
    finally:
        got_request_exception.disconnect(receiver)


def test_neither_a_refusal_nor_a_dependency_is_logged_as_an_error_of_the_server(get, shedder, caplog):
    get("/entrants")
    shedder.drain()
    assert get("/plain").status == 503
    assert caplog.records == []


@pytest.mark.parametrize("first", ["", f"{MODULE}.Answering"])
@pytest.mark.parametrize(("make", "ask"), [(get_wsgi_application, get_wsgi), (get_asgi_application, get_asgi)])
def test_the_middleware_refuses_before_django_begins(make, ask, first, shedder):
    """In the chain it would cost a third of a view under ASGI, whose every signal is sent through a thread."""
    begun = []

    def receiver(sender, **_):
        begun.append(sender)

    request_started.connect(receiver)
    try:
        with override_settings(MIDDLEWARE=list(filter(None, [first, OURS]))):
            app = make()
            assert ask(app, "/plain").status == 200
            shedder.drain()
            refused = ask(app, "/plain")
        with override_settings(MIDDLEWARE=[]):
            assert ask(make(), "/plain").status == 200, "an application without the middleware is refused"
    finally:
        request_started.disconnect(receiver)
    assert refused.annotation == ("handled", "draining", "grouper")
    assert len(begun) == 2


def test_the_test_client_of_django_is_never_refused(shedder):
    shedder.drain()
    with override_settings(MIDDLEWARE=[OURS]):
        assert Client().get("/plain").content == b"plain"
        assert asyncio.run(AsyncClient().get("/plain")).content == b"plain"


def test_what_a_middleware_raises_is_answered_too(get):
    result = get("/plain", "troubled")
    assert (result.status, result.annotation) == (503, ANNOTATED)


def test_cookies_and_headers_of_the_application_stay(get):
    result = get("/cookie")
    assert result.annotation == (None, None, None)
    assert result.headers["x-mine"] == "1"
    assert result.headers["set-cookie"].strip().startswith("session=kept")


def test_a_stream_comes_through_whole_and_ends_the_request(get, way, site, shedder):
    assert get("/stream").body == b"ab"
    assert shedder.snapshot().in_flight == 0
    if way[1] is get_wsgi:  # under ASGI the view streams otherwise
        assert site.seen == [True], "the context has ended before the stream has"


@pytest.mark.parametrize("way", ["wsgi-wrapped", "wsgi-middleware"])
def test_under_wsgi_a_stream_is_in_flight_to_its_end_however_it_comes(way, shedder):
    make, _, first = WAYS[way]
    with override_settings(MIDDLEWARE=first):
        body = make()(environ("/stream"), lambda *_: len)
        assert next(iter(body)) == b"a"
        assert shedder.snapshot().in_flight == 1
        body.close()  # the client has left
    assert shedder.snapshot().in_flight == 0


@pytest.mark.parametrize("way", ["asgi-wrapped", "asgi-middleware"])
def test_under_asgi_a_client_that_leaves_frees_its_place(way, shedder, site):
    make, _, first = WAYS[way]

    async def leave():
        while not site.seen:  # noqa: ASYNC110  a view of Django's has no event to wait for
            await asyncio.sleep(0)
        assert shedder.snapshot().in_flight == 1
        leaves.set()

    with override_settings(MIDDLEWARE=first):
        app = make()

        async def both(scope, receive, send):
            leaving = asyncio.create_task(leave())
            await app(scope, receive, send)
            await leaving

        leaves = asyncio.Event()
        get_asgi(both, "/slow", leaves)
    assert (site.seen, shedder.snapshot().in_flight) == (["begun", "cancelled"], 0)


def test_under_asgi_the_middleware_finds_a_connection_in_the_scope(shedder):
    class Kernel:
        family = socket.AF_INET

        def getsockopt(self, level, option, length):
            info = bytearray(length)
            info[0] = 1
            info[44:48] = info[52:56] = (100).to_bytes(4, "little")
            return bytes(info)

    with override_settings(MIDDLEWARE=[OURS]):
        app = get_asgi_application()

        async def with_connection(scope, receive, send):
            await app({**scope, CONNECTION: Connection(Kernel())}, receive, send)

        assert get_asgi(with_connection, "/plain").status == 200
    assert shedder.snapshot().signal == "tcp-info"


@pytest.mark.parametrize(
    "way", [WAYS["wsgi-wrapped"], WAYS["wsgi-middleware"]]
)  # under ASGI it leaves a file open then
def test_errors_that_django_lets_through_are_answered_if_a_dependency_is_behind_them(get):
    assert get("/entrants", DEBUG_PROPAGATE_EXCEPTIONS=True).annotation == ANNOTATED
    with pytest.raises(ZeroDivisionError):
        get("/unrelated", DEBUG_PROPAGATE_EXCEPTIONS=True)


# --- the setting ------------------------------------------------------------------------------------------------------


@pytest.fixture
def _shedder_as_new():
    kit.shedder.cache_clear()
    yield
    kit.shedder.cache_clear()


@pytest.mark.usefixtures("_shedder_as_new")
def test_the_settings_are_djangos():
    with override_settings(GROUNDFAULT={"service": "saber", "deadline_s": 0.5}):
        assert kit.shedder().settings.deadline_s == 0.5
        assert kit.shedder() is kit.get_wsgi_application().shedder
        assert kit.shedder() is kit.get_asgi_application().shedder
        assert kit.shedder() is kit.LoadShedderMiddleware(lambda request: None).shedder


@pytest.mark.usefixtures("_shedder_as_new")
@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"deadline_s": -1}, "deadline_s must be"),
        ({"deadlin_s": 1}, "deadlin_s is not a setting"),
        (["saber"], "GROUNDFAULT must be a mapping"),
    ],
)
def test_a_setting_that_makes_no_sense_is_told_at_the_start(chosen, message):
    with override_settings(GROUNDFAULT=chosen, MIDDLEWARE=[OURS]), pytest.raises(SettingsError, match=message):
        get_wsgi_application()


@pytest.mark.usefixtures("_shedder_as_new")
def test_without_the_setting_the_defaults_hold():
    assert kit.shedder().settings.deadline_s == 1.0


def test_websockets_reach_what_stands_beside_django(shedder):
    """Django refuses them itself; a router such as Channels' sends them elsewhere before."""
    with override_settings(MIDDLEWARE=[]):
        app = kit.get_asgi_application()
    with pytest.raises(ValueError, match="Django can only handle ASGI/HTTP connections, not websocket"):
        asyncio.run(app({"type": "websocket"}, None, None))
