"""The console mounted in an application: the same over ASGI and WSGI."""

import asyncio
import gzip
import io
import json
import re
import threading
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from groundfault import LoadShedder, SettingsError, WSGILoadShedder, wire
from groundfault.console import StatusApp, WSGIStatusApp, app, basic_auth
from groundfault.console.answering import LARGEST_BODY, RefusedError

TOKEN = "sixteen-or-more-characters"  # noqa: S105  of these tests alone
VIEW = gzip.compress(b'{"format":1}')


class FakeRecorder:
    is_ready = True

    def newest(self):
        return VIEW

    def report(self):
        return gzip.compress(b"report")


class FakeSteering:
    def __init__(self):
        self.asked = []

    def shown(self, query):
        return {"store": "memory", "query": query}

    def preview(self, asked):
        raise RefusedError(409, "somebody else was faster", version="2")

    def change(self, asked):
        self.asked.append(asked)
        return {"version": "3"}


@pytest.fixture(autouse=True)
def _no_recorder(monkeypatch):
    monkeypatch.setattr(app, "recorder_in_service", lambda run_dir: FakeRecorder())


def ask_asgi(made, method="GET", path="/", *, body=b"", root="", query="", headers=(), drip=None, more=None):
    sent = []
    messages = iter(drip or [{"type": "http.request", "body": body}])

    async def send(message):
        sent.append(message)

    async def receive():
        try:
            return next(messages)
        except StopIteration:
            await asyncio.sleep(3600)

    pairs = [(b"host", b"localhost"), *((name.lower().encode(), value.encode("latin-1")) for name, value in headers)]
    scope = {
        "type": "http",
        "method": method,
        "path": root + path,
        "root_path": root,
        "query_string": query.encode(),
        "headers": pairs,
        "client": ("127.0.0.1", 1),
        **(more or {}),
    }
    asyncio.run(made(scope, receive, send))
    start, content = sent
    return start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, content["body"]


def ask_wsgi(made, method="GET", path="/", *, body=b"", root="", query="", headers=(), more=None):
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": root,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "HTTP_HOST": "localhost",
        "wsgi.input": io.BytesIO(body),
        "CONTENT_LENGTH": str(len(body)),
    }
    for name, value in headers:
        key = name.upper().replace("-", "_")
        environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
    environ.update(more or {})
    setup_testing_defaults(environ)
    answers = []

    def start(status, fields, exc_info=None):
        answers.append((status, fields))

    produced = validator(made)(environ, start) if not more and path else made(environ, start)
    content = b"".join(produced)
    if hasattr(produced, "close"):
        produced.close()
    ((status, fields),) = answers
    return int(status[:3]), {name.lower(): value for name, value in fields}, content


BOTH = pytest.mark.parametrize(
    ("make", "ask"), [(StatusApp, ask_asgi), (WSGIStatusApp, ask_wsgi)], ids=["asgi", "wsgi"]
)
WRITE = (("Content-Type", "application/json"), (wire.TOKEN, TOKEN))


@BOTH
def test_it_serves_the_page_its_files_the_view_and_the_report(make, ask):
    made = make(public=True)
    status, headers, body = ask(made)
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"<html" in body
    assert "default-src 'none'" in headers["content-security-policy"]
    status, headers, body = ask(made, path="/page/main.js")
    assert (status, headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    status, headers, body = ask(made, path="/snapshot.json", headers=[("Accept-Encoding", "gzip")])
    assert (status, headers["content-encoding"], body) == (200, "gzip", VIEW)
    assert headers["cache-control"] == "no-store"
    assert json.loads(ask(made, path="/snapshot.json")[2]) == {"format": 1}
    assert ask(made, path="/report")[2] == b"report"
    assert not [name for name in headers if name.startswith(wire.HANDLED.lower())]


@BOTH
@pytest.mark.parametrize("root", ["", "/groundfault", "/outer/in ner"])
def test_it_may_be_mounted_anywhere(make, ask, root):
    made = make(public=True)
    assert ask(made, path="/snapshot.json", root=root)[0] == 200
    if root:
        status, headers, _ = ask(made, path="", root=root)
        assert (status, headers["location"]) == (307, {"/groundfault": "groundfault/"}.get(root, "in%20ner/"))


@pytest.mark.parametrize(
    ("path", "root", "raw", "below"),
    [
        ("/console/snapshot.json", "/console", b"/console/snapshot.json", "/snapshot.json"),
        ("/snapshot.json", "/console", b"/console/snapshot.json", "/snapshot.json"),
        ("/snapshot.json", "/console", None, "/snapshot.json"),
        ("/page/main.js", "/page", b"/page/page/main.js", "/page/main.js"),  # below /page, as it was told before 2024
        ("/page/page/main.js", "/page", b"/page/page/main.js", "/page/main.js"),
        ("/api/console/", "/api/console", b"/console/", "/"),  # a proxy took /api away, and the server put it back
        ("/consoles", "/console", b"/consoles", "/consoles"),
        ("/console", "/console", b"/console", ""),
        ("/a%3Fb", "", b"/a%253Fb", "/a%3Fb"),
        ("/page/main.js/", "", b"/in/page/main.js", "/page/main.js"),  # the slash behind it is Litestar's
        ("/page/main.js/", "/api", b"/api/in/page/main.js?a=/", "/page/main.js"),
        ("/page/main.js/", "", b"/in/page/main.js/", "/page/main.js/"),
        ("/", "", b"/in", ""),
        ("/", "", b"/in/", "/"),
    ],
)
def test_the_path_below_the_mount_is_found_whichever_way_it_is_told(path, root, raw, below):
    scope = {"path": path, "root_path": root} | ({} if raw is None else {"raw_path": raw})
    assert app._below(scope)[0] == below


@BOTH
@pytest.mark.parametrize(
    "path",
    [
        "/page/../answering.py",
        "/page/..",
        "/page/",
        "/page/.",
        "/page/index.html",
        "/page/main.js/",
        "/page//etc/passwd",
        "/page/main.js\x00",
        "/page/..\\base.css",
        "/page/" + "x" * 5000,
        "/snapshot.json/",
        "//",
        "/Snapshot.json",
    ],
)
def test_there_is_nothing_beside_it(make, ask, path):
    assert ask(make(public=True), path=path)[0] == 404


@BOTH
def test_head_has_the_headers_alone(make, ask):
    status, headers, body = ask(make(public=True), "HEAD", "/snapshot.json")
    assert (status, body, headers["content-length"]) == (200, b"", "12")


@BOTH
@pytest.mark.parametrize(
    ("accepted", "packed"), [("gzip", True), ("br, GZIP;q=0.1", True), ("gzip;q=0", False), ("identity", False)]
)
def test_it_is_compressed_for_who_takes_that(make, ask, accepted, packed):
    headers = ask(make(public=True), path="/page/main.js", headers=[("Accept-Encoding", accepted)])[1]
    assert (headers.get("content-encoding") == "gzip") is packed


@BOTH
def test_a_file_that_is_known_is_not_sent_again(make, ask):
    made = make(public=True)
    mark = ask(made, path="/page/main.js")[1]["etag"]
    for known in (mark, f'"other", {mark}', "*", mark.removeprefix("W/")):
        assert ask(made, path="/page/main.js", headers=[("If-None-Match", known)])[0] == 304
    assert ask(made, path="/page/main.js", headers=[("If-None-Match", '"other"')])[0] == 200


@BOTH
def test_it_is_off_unless_told_who_may_look(make, ask):
    with pytest.raises(SettingsError, match=r"a mounted console needs auth=.*or public=True"):
        make()
    made = make(auth=basic_auth("ada", "secret"))
    assert ask(made)[0] == 401
    assert ask(made, headers=[("Authorization", "Basic YWRhOnNlY3JldA==")])[0] == 200


@BOTH
def test_an_auth_of_ones_own_is_asked_with_each_request(make, ask):
    made = make(auth=lambda asked: asked.headers.get("x-user") == "ada")
    assert ask(made, path="/snapshot.json")[0] == 401
    assert ask(made, path="/snapshot.json", headers=[("X-User", "ada")])[0] == 200


@BOTH
def test_the_token_comes_from_the_environment(make, ask, monkeypatch):
    monkeypatch.setenv("GROUNDFAULT_CONSOLE_TOKEN", "short")
    with pytest.raises(SettingsError, match="GROUNDFAULT_CONSOLE_TOKEN must be at least 16"):
        make(public=True)
    monkeypatch.setenv("GROUNDFAULT_CONSOLE_TOKEN", TOKEN)
    made = make(public=True, settings=FakeSteering())
    assert json.loads(ask(made, path="/settings.json", query="a=b")[2]) == {
        "steers": True,
        "store": "memory",
        "query": "a=b",
    }


@BOTH
@pytest.mark.parametrize(("settings", "hosts"), [(None, "localhost"), (None, ["a b"])])
def test_nonsense_is_refused_at_once(make, ask, settings, hosts):
    with pytest.raises(SettingsError, match="hosts must"):
        make(public=True, hosts=hosts, settings=settings)


@BOTH
def test_changes_are_steered(make, ask):
    steering = FakeSteering()
    made = make(public=True, token=TOKEN, settings=steering)
    status, _, body = ask(made, "POST", "/settings/change", body=b'{"reason": "x"}', headers=WRITE)
    assert (status, json.loads(body), steering.asked) == (200, {"version": "3"}, [{"reason": "x"}])
    status, _, body = ask(made, "POST", "/settings/preview", body=b"{}", headers=WRITE)
    assert (status, json.loads(body)) == (409, {"errors": ["somebody else was faster"], "version": "2"})


@BOTH
@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"[]", 400), (b"{", 400), (b"[" * 5000, 400), (b"\xff", 400), (b" " * (LARGEST_BODY + 1), 413)],
)
def test_a_body_that_makes_no_sense_is_refused(make, ask, body, status):
    steering = FakeSteering()
    made = make(public=True, token=TOKEN, settings=steering)
    assert ask(made, "POST", "/settings/change", body=body, headers=WRITE)[0] == status
    assert not steering.asked


@BOTH
def test_without_a_store_or_an_address_there_is_nothing_to_change(make, ask):
    made = make(public=True, token=TOKEN)
    assert json.loads(ask(made, path="/settings.json")[2])["store"] is None
    assert ask(made, "POST", "/settings/change", body=b"{}", headers=WRITE)[0] == 404
    made = make(public=True, token=TOKEN, settings=FakeSteering())
    assert ask(made, "POST", "/other", body=b"{}", headers=WRITE)[0] == 404


@BOTH
def test_a_body_is_not_read_for_who_may_not_write(make, ask):
    made = make(public=True, token=TOKEN, settings=FakeSteering())
    endless = {"drip": []} if ask is ask_asgi else {"more": {"wsgi.input": None}}
    assert ask(made, "POST", "/settings/change", headers=WRITE[:1], **endless)[0] == 403


def test_over_wsgi_a_body_must_say_how_long_it_is():
    made = WSGIStatusApp(public=True, token=TOKEN, settings=FakeSteering())
    for length in ("", "-1", "x", "\u0661"):
        more = {"CONTENT_LENGTH": length, "wsgi.input": None}
        assert ask_wsgi(made, "POST", "/settings/change", headers=WRITE, more=more)[0] == 411
    more = {"CONTENT_LENGTH": "9" * 30, "wsgi.input": None}
    assert ask_wsgi(made, "POST", "/settings/change", headers=WRITE, more=more)[0] == 413


def test_over_asgi_a_body_that_does_not_end_is_given_up(monkeypatch):
    monkeypatch.setattr(app, "_BODY_S", 0.05)
    made = StatusApp(public=True, token=TOKEN, settings=FakeSteering())
    part = {"type": "http.request", "body": b"{", "more_body": True}
    assert ask_asgi(made, "POST", "/settings/change", headers=WRITE, drip=[part])[0] == 408
    gone = [part, {"type": "http.disconnect"}]
    assert ask_asgi(made, "POST", "/settings/change", headers=WRITE, drip=gone)[0] == 408


@BOTH
@pytest.mark.parametrize(
    "body", [b'{"a": 1, "a": 2}', b'{"changes": [{"name": "x", "name": "y"}]}', b'{"a": 1, "\\u0061": 1}']
)
def test_a_key_that_is_said_twice_is_refused_by_its_name(make, ask, body):
    steering = FakeSteering()
    made = make(public=True, token=TOKEN, settings=steering)
    status, _, answer = ask(made, "POST", "/settings/change", body=body, headers=WRITE)
    assert status == 400
    assert re.fullmatch(r"the body must say each key once: '(a|name)' is said twice", *json.loads(answer)["errors"])
    assert not steering.asked


def test_where_no_thread_is_to_be_had_it_says_so_and_answers_again_when_there_is(monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    made = StatusApp(public=True, settings=FakeSteering())
    with monkeypatch.context() as patched:
        patched.setattr(app.threading.Thread, "start", start)
        assert {ask_asgi(made, path="/settings.json")[0] for _ in range(app._AT_ONCE + 1)} == {503}
    assert ask_asgi(made, path="/settings.json")[0] == 200


def test_the_event_loop_goes_on_while_the_store_waits_and_few_wait_at_once():
    released = threading.Event()

    class Slow(FakeSteering):
        def shown(self, query):
            released.wait(30.0)
            return {}

    made = StatusApp(public=True, settings=Slow())
    statuses = []

    async def one(path):
        async def send(message):
            if "status" in message:
                statuses.append(message["status"])

        scope = {"type": "http", "method": "GET", "path": path, "headers": [(b"host", b"localhost")]}
        await made(scope, None, send)

    async def all_of_them():
        waiting = [asyncio.create_task(one("/settings.json")) for _ in range(app._AT_ONCE + 1)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert statuses == [503]  # one too many
        await one("/snapshot.json")  # answered at once, on the loop
        assert statuses == [503, 200]
        released.set()
        await asyncio.gather(*waiting)

    asyncio.run(all_of_them())
    assert statuses == [503, 200] + [200] * app._AT_ONCE


def test_it_takes_part_in_a_lifespan_and_closes_websockets():
    sent = []

    async def drive(scope, *messages):
        messages = iter(messages)

        async def receive():
            return next(messages)

        async def send(message):
            sent.append(message["type"])

        await StatusApp(public=True)(scope, receive, send)

    asyncio.run(drive({"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}))
    asyncio.run(drive({"type": "websocket"}, {"type": "websocket.connect"}))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]
    with pytest.raises(RuntimeError, match="serves http, not smtp"):
        asyncio.run(drive({"type": "smtp"}))


def test_it_works_below_our_own_shedder():
    assert ask_asgi(LoadShedder(StatusApp(public=True)), path="/snapshot.json")[0] == 200
    assert ask_wsgi(WSGILoadShedder(WSGIStatusApp(public=True)), path="/snapshot.json")[0] == 200


def test_it_is_mounted_in_starlette_and_behind_a_dispatcher():
    starlette = pytest.importorskip("starlette.applications")
    routing = pytest.importorskip("starlette.routing")
    middleware = pytest.importorskip("werkzeug.middleware.dispatcher")
    outer = starlette.Starlette(routes=[routing.Mount("/in", app=StatusApp(public=True))])
    assert ask_asgi(outer, path="/in/snapshot.json")[0] == 200
    assert ask_asgi(outer, path="/in/page/main.js", root="/api")[0] == 200
    dispatched = middleware.DispatcherMiddleware(lambda *_: [], {"/in": WSGIStatusApp(public=True)})
    assert ask_wsgi(dispatched, path="/in/snapshot.json")[0] == 200


@pytest.mark.parametrize("outer", ["", "/api"])
def test_it_is_mounted_in_litestar_which_puts_a_slash_behind_every_path(outer):
    litestar = pytest.importorskip("litestar")
    handler = litestar.asgi("/in", is_mount=True, copy_scope=True)(StatusApp(public=True))
    mounted = litestar.Litestar(route_handlers=[handler], openapi_config=None)

    def asked(path):
        return ask_asgi(mounted, path=path, root=outer, more={"raw_path": (outer + path).encode()})

    assert [asked(path)[0] for path in ("/in/", "/in/page/main.js", "/in/snapshot.json")] == [200, 200, 200]
    assert asked("/in/page/nothing.js")[0] == 404
    status, headers, _ = asked("/in")
    assert (status, headers["location"]) == (307, "in/")


def test_a_header_that_comes_twice_is_one_with_a_comma():
    made = StatusApp(public=True)
    assert ask_asgi(made, path="/snapshot.json", headers=[("Host", "localhost")])[0] == 403
