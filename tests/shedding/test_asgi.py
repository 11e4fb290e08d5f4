"""What is particular to ASGI: scopes, streams, cancellation, endpoints in threads."""

import asyncio
import contextlib
import socket
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import anyio.to_thread
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.endpoints import HTTPEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from groundfault import _context
from groundfault.breaker import Registry, Resource
from groundfault.errors import CircuitOpenError, GroundFaultError
from groundfault.events import RequestSeen, SheddingChanged, internal_errors
from groundfault.shedding._threads import ThreadQueue, runs_in_thread, thread_queue
from groundfault.shedding.asgi import LoadShedder, _answer
from groundfault.shedding.shedder import Shedder
from groundfault.sinks import Sinks
from groundfault.vocabulary import Reason


@pytest.fixture
def shedder(clock, sink):
    return Shedder(sinks=Sinks(sink), clock=clock, service="served")


def _scope(**fields):
    return {"type": "http", "http_version": "1.1", "method": "GET", "path": "/", "headers": [], **fields}


async def _never():
    await asyncio.Event().wait()


async def _nowhere(message):
    pass


@pytest.mark.parametrize("kind", ["lifespan", "websocket", "something-new"])
def test_other_scopes_pass_untouched(shedder, kind):
    seen = []

    async def app(*arguments):
        seen.append(arguments)

    shedder.drain()
    scope = {"type": kind}
    asyncio.run(LoadShedder(app, shedder=shedder)(scope, _never, _nowhere))
    ((given, receive, send),) = seen
    assert given is scope
    assert receive is _never
    assert send is _nowhere
    assert shedder.snapshot().admitted == {}


def test_a_stream_is_in_flight_until_its_last_byte_and_no_longer(shedder):
    """A background task after the answer does not count, and neither does a slow reader for the law."""
    counts = []

    def count():
        counts.append((shedder.snapshot().in_flight, shedder._law.whole.open))

    async def app(scope, receive, send):
        count()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        count()
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        count()
        await send({"type": "http.response.body", "body": b"b"})
        count()

    asyncio.run(LoadShedder(app, shedder=shedder)(_scope(), _never, _nowhere))
    count()
    assert counts == [(1, 1), (1, 0), (1, 0), (0, 0), (0, 0)]


def test_a_cancelled_request_gives_its_place_back_and_teaches_nothing(shedder, clock):
    async def app(scope, receive, send):
        await _never()

    async def scenario():
        task = asyncio.create_task(LoadShedder(app, shedder=shedder)(_scope(), _never, _nowhere))
        await asyncio.sleep(0)
        assert shedder.snapshot().in_flight == 1
        clock.advance(9.0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert shedder.snapshot().in_flight == 0
    assert shedder._law.whole.open == 0
    assert shedder.route("GET /").service_s == 0.0


def test_a_storm_of_cancellations_leaks_nothing(shedder):
    async def app(scope, receive, send):
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await _never()

    async def scenario():
        middleware = LoadShedder(app, shedder=shedder)
        for turns in range(6):
            tasks = [asyncio.create_task(middleware(_scope(), _never, _nowhere)) for _ in range(50)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(scenario())
    assert shedder.snapshot().in_flight == 0
    assert shedder._law.whole.open == 0


def test_an_application_that_never_answers_is_no_service_time(shedder, clock):
    """So one ends whose client has left while it was waiting."""

    async def app(scope, receive, send):
        clock.advance(30.0)

    asyncio.run(LoadShedder(app, shedder=shedder)(_scope(), _never, _nowhere))
    assert shedder.snapshot().in_flight == 0
    assert shedder.route("GET /").service_s == 0.0


def test_a_client_that_is_gone_before_the_answer_is_the_server_s_affair(shedder):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def gone(message):
        raise OSError("client disconnected")

    with pytest.raises(OSError, match="client disconnected"):
        asyncio.run(LoadShedder(app, shedder=shedder)(_scope(), _never, gone))
    assert shedder.snapshot().in_flight == 0
    assert internal_errors() == {}


def test_messages_of_other_kinds_pass(shedder):
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.debug", "info": {}})
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    async def send(message):
        sent.append(message["type"])

    asyncio.run(LoadShedder(app, shedder=shedder)(_scope(), _never, send))
    assert sent == ["http.response.debug", "http.response.start", "http.response.body"]


class _Cycle:
    def __init__(self, module):
        self.__class__ = type("Cycle", (_Cycle,), {"__module__": module})

    async def receive(self):
        return {"type": "http.request", "body": b""}


@pytest.mark.parametrize(
    ("module", "version", "headers", "closes"),
    [
        ("uvicorn.protocols.http.h11_impl", "1.1", [(b"content-length", b"5")], False),
        ("hypercorn.protocol", "1.1", [(b"content-length", b"5")], True),
        ("hypercorn.protocol", "1.1", [(b"content-length", b"0")], False),
        ("hypercorn.protocol", "1.1", [], False),
        ("hypercorn.protocol", "1.1", [(b"transfer-encoding", b"chunked")], True),
        ("hypercorn.protocol", "2", [(b"content-length", b"5")], False),
        ("hypercorn.protocol", "1.1", [(b"content-length", b"0" * 99 + b"7")], True),
        ("uvicorn.protocols.http.h11_impl", "1.1", [(b"expect", b"100-continue")], False),
        # Never told to continue, the client may not send it: what it sends next would be taken for the body.
        ("uvicorn.protocols.http.h11_impl", "1.1", [(b"content-length", b"5"), (b"expect", b"100-continue")], True),
        ("uvicorn.protocols.http.h11_impl", "1.0", [(b"content-length", b"5"), (b"expect", b"100-continue")], True),
    ],
)
def test_a_refusal_closes_only_where_an_unread_body_would_break_the_connection(
    shedder, module, version, headers, closes
):
    sent = []

    async def send(message):
        sent.append(message)

    shedder.drain()
    scope = _scope(http_version=version, headers=headers)
    asyncio.run(LoadShedder(None, shedder=shedder)(scope, _Cycle(module).receive, send))
    assert ((b"connection", b"close") in sent[0]["headers"]) is closes
    assert all(name == name.lower() for name, _ in sent[0]["headers"])


def test_headers_of_one_answer_are_not_those_of_the_next(shedder):
    """A server or a middleware in front may change the list that it is handed."""
    sent = []

    async def send(message):
        sent.append(message)
        if "headers" in message:
            message["headers"].append((b"x-extra", b"1"))

    shedder.drain()
    middleware = LoadShedder(None, shedder=shedder)
    for _ in range(2):
        asyncio.run(middleware(_scope(), _never, send))
    assert sent[0]["headers"] == sent[2]["headers"]


def _sync_endpoint(request):
    return PlainTextResponse("thread")


async def _async_endpoint(request):
    return PlainTextResponse("loop")


class _Endpoint(HTTPEndpoint):
    def get(self, request):
        return PlainTextResponse("class")


class _Callable:
    async def __call__(self, request):
        return PlainTextResponse("callable")


class _SyncCallable:
    def __call__(self, request):
        return PlainTextResponse("callable")


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (_sync_endpoint, True),
        (_async_endpoint, False),
        (partial(_sync_endpoint), True),
        (partial(partial(_async_endpoint)), False),
        (_Endpoint, None),
        (_Callable(), False),
        (_SyncCallable(), True),
        (None, None),
        ("name", None),
    ],
)
def test_where_an_endpoint_runs(endpoint, expected):
    assert runs_in_thread(endpoint) is expected


@pytest.mark.parametrize("as_middleware", [True, False])
def test_the_router_tells_where_an_endpoint_runs(shedder, as_middleware):
    routes = [
        Route("/sync", _sync_endpoint),
        Route("/async", _async_endpoint),
        Route("/class", _Endpoint),
    ]
    app = Starlette(routes=routes)
    if as_middleware:
        app.add_middleware(LoadShedder, shedder=shedder)
        served = app
    else:
        served = LoadShedder(app, shedder=shedder)

    async def scenario():
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(served), base_url="http://served") as client:
            for path in ("/sync", "/async", "/class", "/missing"):
                await client.get(path)

    asyncio.run(scenario())
    assert shedder.route("GET /sync").sync is True
    assert shedder.route("GET /async").sync is False
    assert shedder.route("GET /class").sync is True
    assert shedder.route("GET /missing").name == "other"
    assert shedder.route("GET /missing").sync is None


def test_the_queue_before_the_threads_is_read_from_anyio():
    async def scenario():
        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = 1
        gate = asyncio.Event()

        async def hold():
            async with limiter:
                await gate.wait()

        tasks = [asyncio.create_task(hold()) for _ in range(3)]
        await asyncio.sleep(0)
        seen = thread_queue()
        gate.set()
        await asyncio.gather(*tasks)
        return seen

    assert asyncio.run(scenario()) == ThreadQueue(waiting=2, threads=1)


def test_without_anyio_there_is_no_prediction(monkeypatch):
    monkeypatch.delitem(sys.modules, "anyio.to_thread")
    assert thread_queue() is None


def test_a_thread_limiter_that_fails_costs_only_the_prediction(shedder, monkeypatch):
    shedder._law.routes.learn("GET /", 0.0)
    shedder._law.routes.find("GET /").sync = True
    monkeypatch.setitem(sys.modules, "anyio.to_thread", SimpleNamespace())
    sent = []

    async def send(message):
        sent.append(message)

    async def app(scope, receive, send):
        await PlainTextResponse("fine")(scope, receive, send)

    asyncio.run(LoadShedder(app, shedder=shedder)(_scope(), _never, send))
    assert sent[0]["status"] == 200
    assert internal_errors() == {"anyio's thread limiter": 1}


def test_a_thread_queue_that_stands_refuses_by_its_own_ladder(shedder, clock, sink):
    """The event loop is idle, so its ladder is at rest; endpoints that need no thread are not touched."""
    for name, sync in (("sync", True), ("async", False)):
        shedder._law.routes.learn(name, 0.0)
        shedder._law.routes.find(name).sync = sync
    for _ in range(40):  # 40 threads of 200 ms
        admission = shedder.admit("sync", 0.0, on_loop=True, threads=ThreadQueue(0, 40))
        clock.advance(0.2)
        shedder.answered(admission, 200)
        shedder.release(admission)
        clock.advance(0.01)

    def reason(name, waiting):
        queue = ThreadQueue(waiting, 40) if name == "sync" else None
        admission = shedder.admit(name, 0.0, on_loop=True, threads=queue, key="80")
        shedder.release(admission)
        return admission.reason

    assert reason("sync", 0) is None
    assert reason("sync", 40) is None  # 41 calls at 200 a second: 205 ms, less than three service times
    assert reason("sync", 200) is Reason.QUEUE_WAIT  # a second
    (begun,) = sink.of(SheddingChanged)
    assert begun.queue_wait_s == 0.0
    assert begun.predicted_wait_s == sink.of(RequestSeen)[-1].predicted_wait_s == pytest.approx(1.0, rel=0.01)
    assert reason("async", 200) is None
    assert shedder.snapshot().thresholds["threads"] < 0.7
    assert shedder.snapshot().thresholds["loop"] == 0.25
    clock.advance(1.0)
    assert reason("sync", 40) is Reason.QUEUE_WAIT  # the threshold has come down to one service time
    assert reason("sync", 0) is None


def test_a_streaming_answer_of_starlette_keeps_its_context(shedder):
    seen = []

    async def stream():
        seen.append(_context.current() is not None)
        yield b"one"
        seen.append(_context.current() is not None)
        yield b"two"

    async def endpoint(request):
        return StreamingResponse(stream())

    app = LoadShedder(Starlette(routes=[Route("/", endpoint)]), shedder=shedder)

    async def scenario():
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://served") as client:
            return (await client.get("/")).text

    assert asyncio.run(scenario()) == "onetwo"
    assert seen == [True, True]
    assert _context.current() is None


def test_the_shell_imports_neither_anyio_nor_starlette():
    code = "import sys, groundfault.shedding.asgi; print({'anyio', 'starlette'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def _on_a_socket(family, peername):
    transport = SimpleNamespace(get_extra_info={"socket": SimpleNamespace(family=family), "peername": peername}.get)

    class Cycle:
        def __init__(self):
            self.transport = transport

        async def receive(self):
            return {"type": "http.request", "body": b""}

    return Cycle().receive


@pytest.mark.parametrize(
    ("family", "peername", "named", "believed"),
    [
        (socket.AF_INET, ("127.0.0.1", 1), "203.0.113.9", True),  # a proxy on this host names whom it speaks for
        (socket.AF_INET, ("203.0.113.9", 1), "127.0.0.1", False),  # X-Forwarded-For: 127.0.0.1
        (socket.AF_INET6, ("::ffff:127.0.0.1", 1, 0, 0), None, True),
        (socket.AF_INET, ("203.0.113.9", 1), None, False),  # it has reset its connection: the server knows no peer
        (socket.AF_INET, None, None, False),
        (socket.AF_UNIX, "", None, True),
        (socket.AF_UNIX, "", "203.0.113.9", True),
    ],
)
def test_trust_follows_from_the_socket_and_never_from_a_header(shedder, family, peername, named, believed):
    seen = []

    async def app(scope, receive, send):
        seen.append(_context.current().key)

    scope = _scope(headers=[(b"x-groundfault-key", b"ab")], client=named and (named, 0))
    asyncio.run(LoadShedder(app, shedder=shedder)(scope, _on_a_socket(family, peername), _nowhere))
    assert seen == ["ab" if believed else None]


def test_headers_that_can_be_read_only_once_arrive(shedder):
    sent = []

    async def app(scope, receive, send):
        headers = iter([(b"content-type", b"text/plain"), (b"X-GroundFault", b"handled")])
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body"})

    async def send(message):
        sent.append(message)

    asyncio.run(LoadShedder(app, shedder=shedder)(_scope(), _never, send))
    assert sent[0]["headers"] == [(b"content-type", b"text/plain")]


@pytest.mark.parametrize("ours", [True, False])
def test_an_iterator_of_headers_is_not_used_up_by_looking(shedder, ours):
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": iter([(b"a", b"b")])})

    async def send(message):
        sent.append(list(message["headers"]))

    shedder.tune(mode="enforce" if ours else "shadow")
    asyncio.run(LoadShedder(app, shedder=shedder)(_scope(), _never, send))
    assert sent == [[(b"a", b"b")]]


def test_what_runs_on_after_the_answer_has_no_deadline_and_no_user(shedder):
    seen = []

    async def background():
        await asyncio.sleep(0)
        seen.append(_context.current().deadline)

    async def forever(ended):
        await ended.wait()
        context = _context.current()
        seen.append((context.deadline, context.criticality, context.key, context.caller, context.traceparent))

    async def main():
        ended = asyncio.Event()
        tasks = []

        async def endpoint(request):
            assert _context.current().deadline is not None
            tasks.append(asyncio.create_task(forever(ended)))
            return PlainTextResponse("fine", background=BackgroundTask(background))

        app = LoadShedder(Starlette(routes=[Route("/", endpoint)]), shedder=shedder)
        scope = _scope(
            query_string=b"",
            client=("127.0.0.1", 1),
            headers=[
                (b"x-groundfault-timeout-ms", b"500"),
                (b"x-groundfault-criticality", b"sheddable"),
                (b"x-groundfault-key", b"ab"),
                (b"x-groundfault-caller", b"topps"),
                (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ],
        )
        await app(scope, _never, _nowhere)
        ended.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert seen == [None, (None,) * 5]


def _starlette(endpoint, **kinds):
    return Starlette(routes=[Route("/", endpoint)], exception_handlers=kinds.pop("handlers", None), **kinds)


def _get_from(app):
    async def main():
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://served") as client:
            return await client.get("/")

    return asyncio.run(main())


async def _answer_503(request, error):
    return PlainTextResponse("sorry", 503)


async def _answer_500(request, error):
    return PlainTextResponse("sorry", 500, {"X-GroundFault": "handled"})


@pytest.mark.parametrize("in_thread", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize(
    ("error", "handlers", "status", "reason"),
    [
        (CircuitOpenError, {}, 503, "circuit-open"),
        (CircuitOpenError, {GroundFaultError: _answer_503}, 503, "circuit-open"),
        (
            CircuitOpenError,
            {Exception: _answer_500},
            503,
            "circuit-open",
        ),  # it stands outside and sees no dependency's error
        (CircuitOpenError, {GroundFaultError: _answer_500}, 500, None),
        (KeyError, {}, 500, None),
        (KeyError, {KeyError: _answer_503}, 503, None),
    ],
)
def test_errors_under_starlette(shedder, in_thread, error, handlers, status, reason):
    def fail():
        if error is KeyError:
            raise KeyError
        command = Resource("saber", registry=Registry()).command("get", mode="force_open")
        command.call(lambda: None)

    async def on_the_loop(request):
        fail()

    def threaded(request):
        fail()

    app = _starlette(threaded if in_thread else on_the_loop, handlers=handlers)
    app.add_middleware(LoadShedder, shedder=shedder)
    answer = _get_from(app)
    assert (answer.status_code, answer.headers.get("x-groundfault-reason")) == (status, reason)
    assert ("x-groundfault" in answer.headers) is (reason is not None)
    assert shedder.snapshot().in_flight == 0
    assert _context.current() is None


def test_a_script_can_read_a_refusal_where_cors_stands_outside(shedder):
    """A browser hides an answer without these headers; Starlette's middleware leaves receive alone, so no wait is lost.

    Preflights are then answered in front of the shedder, and cost it nothing.
    """
    app = _starlette(_async_endpoint)
    app.add_middleware(LoadShedder, shedder=shedder)
    app.add_middleware(CORSMiddleware, allow_origins=["https://shop.example"], expose_headers=["X-GroundFault"])
    shedder.drain()

    async def main():
        transport = httpx2.ASGITransport(app)
        origin = {"Origin": "https://shop.example"}
        async with httpx2.AsyncClient(transport=transport, base_url="http://served", headers=origin) as client:
            ask = {"Access-Control-Request-Method": "GET"}
            return await client.get("/"), await client.options("/", headers=ask)

    refused, preflight = asyncio.run(main())
    assert (refused.status_code, preflight.status_code) == (503, 200)
    assert refused.headers["access-control-allow-origin"] == "https://shop.example"
    assert refused.headers["access-control-expose-headers"] == "X-GroundFault"
    assert sum(shedder.snapshot().shed.values()) == 1


def test_a_client_that_leaves_in_the_middle_of_an_answer_frees_its_place(shedder):
    """The server says so through receive(), and the application ends; the answer never does."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"

    async def leaves():
        return {"type": "http.disconnect"}

    asyncio.run(LoadShedder(app, shedder=shedder)(_scope(), leaves, _nowhere))
    assert shedder.snapshot().in_flight == 0
    assert shedder._law.whole.open == 0
    assert _context.current() is None


def test_accept_headers_are_remembered_within_bounds(shedder):
    """A client that sends another one each time fills no memory."""
    shedder.drain()
    for number in range(600):
        accept = b"text/%d" % number + b"x" * 4000
        asyncio.run(LoadShedder(None, shedder=shedder)(_scope(headers=[(b"accept", accept)]), _never, _nowhere))
    assert _answer.cache_info().currsize <= 256
