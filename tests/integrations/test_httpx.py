"""The transports for httpx and httpx2, synchronous and asynchronous, against real HTTP servers on loopback."""

import asyncio
import dataclasses
import gc
import importlib
import inspect
import itertools
import logging
import pickle
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import uvicorn

from groundfault import LoadShedder, _context, errors, events, wire
from groundfault._clock import monotonic
from groundfault.breaker import Registry, Resource
from groundfault.events import CommandDone
from groundfault.integrations import _httpx, _httpx_network
from groundfault.vocabulary import Criticality, Outcome, Reason, State

TRUST = ssl.create_default_context()  # or each transport would read all certificates of the machine again


class Server(ThreadingHTTPServer):
    """Answers as the path says and remembers what it was asked."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hits = []
        self.connections = 0
        self.release = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        pass  # clients leave in the middle here


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for a delayed acknowledgment

    def setup(self):
        self.server.connections += 1
        super().setup()

    def log_message(self, *args):
        pass

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.hits.append((self.command, self.path, dict(self.headers), body))
        path = self.path.partition("://")[2].partition("/")[2] if "://" in self.path else self.path
        getattr(self, f"_{path.strip('/').split('/')[0].split('?')[0].replace('-', '_')}")()

    do_HEAD = do_POST = do_GET  # noqa: N815  http.server's own names

    def _answer(self, status, body=b"ok", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name == "Content-Length" for name, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _trickle(self, data):
        for byte in data:
            self.wfile.write(bytes([byte]))
            if self.server.release.wait(0.02):
                break
        self.close_connection = True

    def _in_chunks(self, chunks, status=200, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        self.wfile.write(b"0\r\n\r\n")

    def _ok(self):
        self._answer(200)

    def _empty(self):
        self._answer(204, b"")

    def _missing(self):
        self._answer(404)

    def _broken(self):
        self._answer(500)

    def _plain_503(self):
        self._answer(503)

    def _shed(self):
        whole = wire.answer(Reason.QUEUE_WAIT, "saber")
        self._answer(503, whole.body, whole.headers)

    def _passed_on(self):
        whole = wire.answer(Reason.DEPENDENCY, "saber")
        self._answer(503, whole.body, whole.headers)

    def _doubled(self):
        self._answer(503, headers=[(wire.HANDLED, "handled"), (wire.HANDLED, "handled")])

    def _handled_200(self):
        self._answer(200, headers=[(wire.HANDLED, "handled")])

    def _shed_in_chunks(self):
        self._in_chunks([b"busy"], 503, wire.annotations(Reason.QUEUE_WAIT, "saber"))

    def _shed_at_length(self):
        self._in_chunks([b"x" * 20_000] * 10, 503, wire.annotations(Reason.QUEUE_WAIT, "saber"))

    def _shed_stalling(self):
        whole = wire.answer(Reason.QUEUE_WAIT, "saber")
        self._answer(503, b"half", [*whole.headers[:-1], ("Content-Length", "8")])
        self.server.release.wait(5)
        self.close_connection = True

    def _elsewhere(self):
        where = self.path.strip("/").split("/")[1]
        self._answer(302, b"", [("Location", f"http://localhost:{self.server.server_port}/{where}")])

    def _hang(self):
        self.server.release.wait(20)
        self._answer(200)

    def _stalling_body(self):
        self._answer(200, b"half", [("Content-Length", "8")])
        self.server.release.wait(20)
        self.close_connection = True

    def _cut_body(self):
        self._answer(200, b"half", [("Content-Length", "8")])
        self.close_connection = True

    def _drip(self):
        self._answer(200, b"", [("Content-Length", "1000")])
        self._trickle(b"x" * 1000)

    def _drip_head(self):
        self._trickle(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000 + b"\r\nContent-Length: 0\r\n\r\n")

    def _drip_chunk_head(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._trickle(b"5;" + b"x" * 1000 + b"\r\nhello\r\n0\r\n\r\n")

    def _drip_500(self):
        self._answer(500, b"", [("Content-Length", "1000")])
        self._trickle(b"x" * 1000)

    def _garbage(self):
        self.wfile.write(b"no HTTP at all\r\n\r\n")
        self.close_connection = True

    def _chunks(self):
        self._in_chunks([b"one", b"two", b"three"])

    def _slow_chunks(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"a")
        self.server.release.wait(0.05)
        self.wfile.write(b"b")


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()
    thread.join()


class Way:
    """One library in one color. What is asynchronous runs on one event loop for the whole test."""

    def __init__(self, library, color):
        self.lib = importlib.import_module(library)
        self.module = importlib.import_module(f"groundfault.integrations.{library}")
        self.color = color
        self.waits = color == "async"
        self.runner = asyncio.Runner() if self.waits else None
        self.clients = []

    def run(self, value):
        if self.waits and inspect.isawaitable(value):
            return self.runner.run(_await(value), context=copy_context())
        return value

    @property
    def transport_class(self):
        return self.module.AsyncGroundFaultTransport if self.waits else self.module.GroundFaultTransport

    @property
    def default_class(self):
        return self.lib.AsyncHTTPTransport if self.waits else self.lib.HTTPTransport

    def client(self, transport, **options):
        kind = self.lib.AsyncClient if self.waits else self.lib.Client
        client = kind(transport=transport, trust_env=False, **options)
        self.clients.append(client)
        return client

    def get(self, client, url, **options):
        return self.run(client.get(url, **options))

    def stream(self, client, url, method="GET", **options):
        return self.run(client.send(client.build_request(method, url, **options), stream=True))

    def chunks(self, response):
        if not self.waits:
            yield from response.iter_raw()
            return
        chunks = response.aiter_raw()
        while (chunk := self.run(_next(chunks))) is not None:
            yield chunk

    def read(self, response):
        return self.run(response.aread() if self.waits else response.read())

    def close(self, response):
        self.run(response.aclose() if self.waits else response.close())

    def end(self):
        for client in self.clients:
            self.run(client.aclose() if self.waits else client.close())
        if self.runner is not None:
            self.runner.close()


async def _await(value):
    return await value


async def _next(chunks):
    try:
        return await anext(chunks)
    except StopAsyncIteration:
        return None


@pytest.fixture(params=["httpx", "httpx2"])
def library(request):
    return request.param


# For tests that wait: the two modules are one text, which a test below holds them to.
one_library = pytest.mark.parametrize("library", ["httpx"], indirect=True)


@pytest.fixture(params=["sync", "async"])
def color(request):
    return request.param


@pytest.fixture
def way(library, color):
    way = Way(library, color)
    yield way
    way.end()


@pytest.fixture
def asynchronous(library):
    way = Way(library, "async")
    yield way
    way.end()


@pytest.fixture
def registry():
    return Registry(draw=lambda: 0.0)  # the throttle sends every call


@pytest.fixture
def guarded(way, registry, sink):
    """Make a client whose calls go through a resource of their own."""

    def make(*, transport=None, sinks=(sink,), client=None, **settings):
        resource = Resource("saber", registry=registry, sinks=sinks, **settings)
        options = dict(transport or {})
        if "wrapping" not in options:
            options["verify"] = TRUST
        return way.client(way.transport_class(resource, **options), **(client or {}))

    return make


@pytest.fixture
def serving():
    """Pretend that a request is being served here."""
    context = _context.RequestContext("grouper", criticality=Criticality.SHEDDABLE, key="0a1b")
    token = _context.serving.set(context)
    yield context
    _context.serving.reset(token)


def command_of(registry, name="get"):
    return next(command for command in registry if command.name == name)


def outcomes(sink):
    return [event.outcome for event in sink.of(CommandDone)]


def in_flight(registry):
    return sum(command.snapshot().in_flight for command in registry)


# --- outcomes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("path", "status", "outcome"),
    [
        ("/ok", 200, Outcome.SUCCESS),
        ("/empty", 204, Outcome.SUCCESS),
        ("/missing", 404, Outcome.SUCCESS),
        ("/chunks", 200, Outcome.SUCCESS),
        ("/broken", 500, Outcome.FAILURE),
        ("/plain-503", 503, Outcome.FAILURE),
        ("/shed", 503, Outcome.SHED),
        ("/passed-on", 503, Outcome.SHED),
        ("/doubled", 503, Outcome.FAILURE),
        ("/handled-200", 200, Outcome.SUCCESS),
        ("/shed-in-chunks", 503, Outcome.SHED),
        ("/shed-at-length", 503, Outcome.SHED),
    ],
)
def test_the_response_is_returned_as_it_is_and_judged(
    way, guarded, server, registry, sink, path, status, outcome, streamed
):
    client = guarded(timeout_s=10.0)
    response = way.stream(client, server.url + path) if streamed else way.get(client, server.url + path)
    body = way.read(response)

    assert response.status_code == status
    assert body == {
        "/empty": b"",
        "/chunks": b"onetwothree",
        "/shed": wire.answer(Reason.QUEUE_WAIT, None).body,
        "/passed-on": wire.answer(Reason.DEPENDENCY, None).body,
        "/shed-in-chunks": b"busy",
        "/shed-at-length": b"x" * 200_000,
    }.get(path, b"ok")
    assert outcomes(sink) == [outcome]
    assert in_flight(registry) == 0
    assert response.request.url == server.url + path
    assert response.elapsed.total_seconds() > 0


@pytest.mark.parametrize("path", ["/ok", "/chunks", "/shed", "/shed-in-chunks", "/broken", "/shed-at-length"])
def test_a_connection_is_used_again(way, guarded, server, path):
    client = guarded(timeout_s=10.0)
    for _ in range(5):
        way.get(client, server.url + path)

    assert server.connections == 1


def test_a_shed_whose_body_nobody_reads_gives_its_connection_back(way, guarded, server):
    client = guarded(timeout_s=10.0)
    responses = [way.stream(client, server.url + "/shed") for _ in range(5)]

    assert server.connections == 1
    assert all(b"shedding load" in way.read(response) for response in responses)


def test_a_5xx_that_is_replaced_gives_its_connection_back(way, guarded, server):
    client = guarded(transport={"fallback": lambda _request: way.lib.Response(203)}, timeout_s=10.0)
    for _ in range(5):
        way.get(client, server.url + "/broken")

    assert server.connections == 1


def test_sheds_never_open_the_circuit_and_plain_503s_do(way, guarded, server, registry):
    client = guarded()
    for _ in range(40):
        way.get(client, server.url + "/shed")

    assert command_of(registry).snapshot().state is State.CLOSED

    plain = guarded(transport={"command": "plain"})
    for _ in range(20):
        way.get(plain, server.url + "/plain-503")

    assert command_of(registry, "plain").snapshot().state is State.OPEN


def test_an_open_circuit_raises_an_error_that_is_both_ours_and_the_librarys(way, guarded, server):
    client = guarded()
    for _ in range(20):
        way.get(client, server.url + "/broken")
    before = len(server.hits)

    with pytest.raises(way.lib.ConnectError) as caught:
        way.get(client, server.url + "/ok")

    assert isinstance(caught.value, errors.CircuitOpenError)
    assert isinstance(caught.value, way.module.CircuitOpenError)
    assert caught.value.request.method == "GET"
    assert "saber/get" in str(caught.value)
    assert len(server.hits) == before


def test_only_so_many_calls_at_a_time(way, guarded, server, registry):
    client = guarded(max_concurrent=1)
    response = way.stream(client, server.url + "/chunks")
    with pytest.raises(way.lib.TransportError) as caught:
        way.get(client, server.url + "/ok")
    way.close(response)

    assert isinstance(caught.value, errors.BulkheadFullError)
    assert command_of(registry).snapshot().state is State.CLOSED
    assert way.get(client, server.url + "/ok").status_code == 200


@pytest.mark.parametrize(
    ("name", "arguments", "base"),
    [
        ("CircuitOpenError", ("saber", "get", 2.0), "ConnectError"),
        ("BulkheadFullError", ("saber", "get", 5), "ConnectError"),
        ("ThrottledError", ("saber", "get", 0.25), "ConnectError"),
        ("UnhealthyError", ("saber", "get"), "ConnectError"),
        ("ShedError", ("saber", "get", Reason.QUEUE_WAIT, "saber"), "HTTPStatusError"),
        ("CommandTimeoutError", ("saber", "get", 0.5), "TimeoutException"),
    ],
)
def test_the_errors_are_the_librarys_too_and_pickle(library, name, arguments, base):
    lib = importlib.import_module(library)
    error = getattr(importlib.import_module(f"groundfault.integrations.{library}"), name)(*arguments)
    assert isinstance(error, lib.HTTPError)
    assert isinstance(error, getattr(lib, base))
    assert isinstance(error, getattr(errors, name))
    with pytest.raises(RuntimeError, match="request"):
        error.request  # noqa: B018  as for every error of the library that has none
    error.request = lib.Request("GET", "http://saber/")

    back = pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes

    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.resource == "saber"


def test_a_shed_is_raised_on_request_and_carries_the_response(way, guarded, server, sink):
    client = guarded(transport={"on_shed": "raise"})
    with pytest.raises(way.lib.HTTPStatusError) as caught:
        way.get(client, server.url + "/shed")

    assert isinstance(caught.value, errors.ShedError)
    assert (caught.value.reason, caught.value.origin) == (Reason.QUEUE_WAIT, "saber")
    assert caught.value.response.status_code == 503
    assert "shedding load" in caught.value.response.text
    assert caught.value.request.url == caught.value.response.request.url == server.url + "/shed"
    assert outcomes(sink) == [Outcome.SHED]


@pytest.mark.parametrize("honored", [True, False])
def test_the_annotation_counts_only_if_the_resource_honors_it(way, guarded, server, sink, honored):
    way.get(guarded(honor_handled=honored), server.url + "/shed")

    assert outcomes(sink) == [Outcome.SHED if honored else Outcome.FAILURE]


def test_a_strangers_annotation_is_an_ordinary_failure(way, guarded, sink):
    annotated = way.lib.MockTransport(
        lambda _request: way.lib.Response(503, headers=dict(wire.annotations(Reason.QUEUE_WAIT, "saber")))
    )
    client = guarded(transport={"wrapping": annotated})
    way.get(client, "http://saber.example.com/")
    way.get(client, "http://saber/")

    assert outcomes(sink) == [Outcome.FAILURE, Outcome.SHED]


@pytest.mark.parametrize(
    ("path", "timeout_s", "outcome"),
    [
        ("/stalling-body", 0.3, Outcome.TIMEOUT),
        ("/drip", 0.3, Outcome.TIMEOUT),
        ("/cut-body", 10.0, Outcome.FAILURE),
        ("/garbage", 10.0, Outcome.FAILURE),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
@one_library
def test_a_body_that_stalls_or_breaks_speaks_against_the_callee(
    way, guarded, server, registry, sink, path, timeout_s, outcome, streamed
):
    client = guarded(timeout_s=timeout_s)
    send = way.stream if streamed else way.get
    with pytest.raises(way.lib.TransportError):
        way.read(send(client, server.url + path))

    assert outcomes(sink) == [outcome]
    assert in_flight(registry) == 0


def test_a_refused_connection_is_a_failure_with_the_librarys_own_error(way, guarded, sink):
    with pytest.raises(way.lib.ConnectError) as caught:
        way.get(guarded(timeout_s=10.0), "http://127.0.0.1:1/ok")

    assert not isinstance(caught.value, errors.GroundFaultError)
    assert outcomes(sink) == [Outcome.FAILURE]


@pytest.mark.parametrize(
    "request_of",
    [
        {"url": "ftp://saber/ok"},
        {"url": "http://127.0.0.1:1/ok", "headers": {"X-Odd": "a\nb"}},
    ],
    ids=["scheme", "header"],
)
def test_the_callers_own_mistakes_are_ignored(way, guarded, server, sink, request_of):
    url = request_of["url"].replace(":1/", f":{server.server_port}/")
    with pytest.raises((way.lib.UnsupportedProtocol, way.lib.LocalProtocolError)):
        way.get(guarded(), url, headers=request_of.get("headers"))

    assert outcomes(sink) == [Outcome.IGNORED]


@pytest.mark.parametrize("error", [TypeError, ValueError])
def test_what_the_librarys_own_transport_cannot_understand_is_the_callers_mistake(way, guarded, sink, error):
    class Own(way.default_class):
        def handle_request(self, request):
            raise error("a timeout must be a number")

        async def handle_async_request(self, request):
            raise error("a timeout must be a number")

    with pytest.raises(error):
        way.get(guarded(transport={"wrapping": Own(verify=TRUST)}), "http://saber/", timeout="soon")

    assert outcomes(sink) == [Outcome.IGNORED]


@pytest.mark.parametrize("error", [KeyError, "ReadTimeout"])
def test_an_error_in_the_making_of_a_body_is_not_the_callees(way, guarded, server, registry, sink, error):
    kind = getattr(way.lib, error) if isinstance(error, str) else error  # the second: another server's, passed through

    def pieces():
        yield b"half"
        raise kind("the application's own")

    async def apieces():
        for piece in pieces():
            yield piece

    client = guarded(timeout_s=10.0)
    with pytest.raises(kind, match="own"):
        way.run(client.post(server.url + "/ok", content=apieces() if way.waits else pieces()))

    assert outcomes(sink) == [Outcome.IGNORED]
    assert in_flight(registry) == 0


def test_bodies_of_every_kind_arrive(way, guarded, server):
    client = guarded(timeout_s=10.0)

    async def apieces():
        yield b"x" * 300_000

    many = b"x" * 300_000
    streamed = apieces() if way.waits else iter([many])
    for options in (
        {"content": many},
        {"data": {"a": "1"}},
        {"content": streamed, "headers": {"Content-Length": "300000"}},
    ):
        way.run(client.post(server.url + "/ok", **options))

    assert [body for _, _, _, body in server.hits] == [many, b"a=1", many]


def test_errors_that_the_settings_ignore_are_ignored(way, guarded, server, sink):
    with pytest.raises(way.lib.RemoteProtocolError):
        way.get(guarded(ignored_errors=(way.lib.RemoteProtocolError,)), server.url + "/garbage")

    assert outcomes(sink) == [Outcome.IGNORED]


def test_a_5xx_that_raises_before_its_body_is_read_still_counts(way, guarded, server, registry):
    async def araising(response):
        response.raise_for_status()

    def raising(response):
        response.raise_for_status()

    client = guarded(client={"event_hooks": {"response": [araising if way.waits else raising]}})
    for path in ["/broken"] * 3 + ["/shed"]:
        with pytest.raises(way.lib.HTTPStatusError):
            way.get(client, server.url + path)

    snapshot = command_of(registry).snapshot()
    assert (snapshot.counts[Outcome.FAILURE], snapshot.counts[Outcome.SHED], snapshot.in_flight) == (3, 1, 0)


# --- streaming --------------------------------------------------------------------------------------------------------


def test_a_streamed_body_is_in_flight_until_its_end(way, guarded, server, registry, sink):
    response = way.stream(guarded(), server.url + "/chunks")
    chunks = way.chunks(response)
    first = next(chunks)

    assert in_flight(registry) == 1
    assert outcomes(sink) == []
    assert first + b"".join(chunks) == b"onetwothree"
    assert in_flight(registry) == 0
    assert outcomes(sink) == [Outcome.SUCCESS]


@pytest.mark.parametrize("begun", [False, True])
def test_a_body_closed_early_is_judged_by_its_status(way, guarded, server, registry, sink, begun):
    response = way.stream(guarded(), server.url + "/stalling-body")
    if begun:
        next(way.chunks(response))
    way.close(response)

    assert in_flight(registry) == 0
    assert outcomes(sink) == [Outcome.SUCCESS]


def test_a_forgotten_response_gives_its_permit_back(way, guarded, server, registry):
    client = guarded()
    way.stream(client, server.url + "/chunks")
    gc.collect()

    snapshot = command_of(registry).snapshot()
    assert snapshot.in_flight == 0
    assert snapshot.counts[Outcome.IGNORED] == 1


@one_library
def test_the_time_that_a_consumer_takes_is_not_the_callees(way, guarded, server, sink):
    response = way.stream(guarded(timeout_s=1.5), server.url + "/slow-chunks")
    read = b""
    for chunk in way.chunks(response):
        read += chunk
        time.sleep(0.8)

    assert read == b"ab"
    assert outcomes(sink) == [Outcome.SUCCESS]
    assert sink.of(CommandDone)[0].duration_s < 1.5


@one_library
def test_a_5xx_settles_at_once_and_its_body_is_bounded_still(way, guarded, server, registry, sink):
    response = way.stream(guarded(timeout_s=1.0), server.url + "/drip-500")

    assert outcomes(sink) == [Outcome.FAILURE]
    assert in_flight(registry) == 0
    with pytest.raises(way.module.CommandTimeoutError):
        way.read(response)
    assert outcomes(sink) == [Outcome.FAILURE]


@one_library
def test_a_command_without_a_timeout_of_its_own_streams_for_as_long_as_it_likes(way, registry, server, sink):
    saber = Resource("saber", registry=registry, sinks=[sink], timeout_s=0.2)
    saber.command("events").tune(timeout_s=None)
    transport = way.transport_class(saber, command="events")
    timer = threading.Timer(0.6, server.release.set)
    timer.start()

    assert way.get(way.client(transport), server.url + "/hang").status_code == 200
    timer.join()


# --- time -------------------------------------------------------------------------------------------------------------

FOREVER = ["/hang", "/drip-head", "/drip", "/drip-chunk-head", "/stalling-body"]


@pytest.mark.parametrize("timeout", [None, 15.0])
@pytest.mark.parametrize("path", FOREVER)
@one_library
def test_the_commands_timeout_bounds_the_whole_call(way, guarded, server, registry, sink, path, timeout):
    began = monotonic()
    with pytest.raises(way.lib.TimeoutException, match=r"saber/get took longer than its timeout of 0\.2 s") as caught:
        way.get(guarded(timeout_s=0.2), server.url + path, timeout=timeout)

    assert monotonic() - began < 8  # left alone they take fifteen or twenty seconds
    assert isinstance(caught.value, errors.CommandTimeoutError)
    assert caught.value.request.url == server.url + path
    assert outcomes(sink) == [Outcome.TIMEOUT]
    assert in_flight(registry) == 0


def test_a_shorter_timeout_of_the_request_itself_is_the_librarys_own(way, guarded, server, sink):
    with pytest.raises(way.lib.ReadTimeout) as caught:
        way.get(guarded(timeout_s=15.0), server.url + "/hang", timeout=0.1)

    assert not isinstance(caught.value, errors.GroundFaultError)
    assert outcomes(sink) == [Outcome.TIMEOUT]


@one_library
def test_waiting_for_a_connection_of_the_pool_is_bounded(way, guarded, server, sink):
    client = guarded(transport={"limits": way.lib.Limits(max_connections=1)}, timeout_s=1.0)
    response = way.stream(client, server.url + "/stalling-body")
    with pytest.raises(way.module.CommandTimeoutError):
        way.get(client, server.url + "/ok", timeout=None)
    way.close(response)

    assert outcomes(sink) == [Outcome.TIMEOUT, Outcome.SUCCESS]


def test_a_connection_that_is_never_taken_is_bounded(way, guarded, sink):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        crowd = [socket.socket() for _ in range(4)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(address)
        with pytest.raises(way.lib.TimeoutException):
            way.get(guarded(timeout_s=0.3), f"http://127.0.0.1:{address[1]}/", timeout=None)
        for one in crowd:
            one.close()

    assert outcomes(sink) == [Outcome.TIMEOUT]


def test_running_out_of_a_callers_tiny_budget_is_neutral(way, guarded, server, sink, serving):
    serving.deadline = monotonic() + 0.05
    with pytest.raises(way.lib.TimeoutException):
        way.get(guarded(timeout_s=15.0), server.url + "/hang")

    assert outcomes(sink) == [Outcome.IGNORED]


@one_library
def test_running_out_of_nearly_the_whole_timeout_is_not(way, guarded, server, sink, serving):
    serving.deadline = monotonic() + 0.9
    with pytest.raises(way.lib.TimeoutException):
        way.get(guarded(timeout_s=1.0), server.url + "/hang")

    assert outcomes(sink) == [Outcome.TIMEOUT]


def test_a_budget_already_gone_sends_nothing(way, guarded, server, registry, sink, serving):
    serving.deadline = monotonic() - 0.01
    with pytest.raises(way.module.CommandTimeoutError):
        way.get(guarded(timeout_s=3.0), server.url + "/ok")

    assert server.hits == []
    assert outcomes(sink) == [Outcome.IGNORED]
    assert in_flight(registry) == 0


@one_library
def test_a_shed_whose_body_stalls_is_given_up_in_time_and_is_a_timeout(way, guarded, server, sink):
    response = way.get(guarded(timeout_s=1.0), server.url + "/shed-stalling")

    assert (response.status_code, response.content) == (503, b"half")
    assert outcomes(sink) == [Outcome.TIMEOUT]


# --- headers ----------------------------------------------------------------------------------------------------------


def test_one_hop_tells_the_callee_who_calls_and_how_long_it_waits(way, guarded, server, serving):
    serving.deadline = monotonic() + 4.0
    way.get(
        guarded(timeout_s=30.0),
        server.url + "/ok",
        headers={"X-GroundFault-Criticality": "critical-plus", "X-GroundFault-Odd": "1", "X-Mine": "kept"},
    )

    (_, _, headers, _) = server.hits[0]
    ours = {name.lower(): value for name, value in headers.items() if wire.is_ours(name)}
    assert 1000 <= int(ours.pop(wire.TIMEOUT_MS.lower())) <= 4000
    assert ours == {
        wire.CALLER.lower(): "grouper/saber.get",
        wire.CRITICALITY.lower(): "sheddable",
        wire.KEY.lower(): "0a1b",
    }
    assert headers["X-Mine"] == "kept"


@pytest.mark.parametrize(
    ("timeout", "told"), [(0.25, "250"), ((9.0, 0.25, 9.0, 9.0), "250"), (9.0, "3000"), (None, "3000")]
)
def test_the_callee_is_told_the_smaller_of_the_two_timeouts(way, guarded, server, monkeypatch, timeout, told):
    monkeypatch.delenv("GROUNDFAULT_SERVICE", raising=False)
    way.get(guarded(timeout_s=3.0), server.url + "/ok", timeout=timeout)

    ours = {name.lower(): value for name, value in server.hits[0][2].items() if wire.is_ours(name)}
    assert ours == {wire.TIMEOUT_MS.lower(): told}


def test_neither_headers_nor_trust_follow_a_redirect_to_another_host(way, guarded, server, sink, serving):
    client = guarded(client={"follow_redirects": True}, honor_handled=True)
    response = way.get(client, server.url + "/elsewhere/shed")

    assert response.status_code == 503
    assert any(wire.is_ours(name) for name in server.hits[0][2])
    assert not any(wire.is_ours(name) for name in server.hits[1][2])
    assert not any(wire.is_ours(name) for name in response.history[0].request.headers)
    assert outcomes(sink) == [Outcome.SUCCESS]  # the other host is nobody that the command knows


def test_the_request_keeps_its_own_headers_and_extensions(way, guarded, server):
    client = guarded(timeout_s=3.0)
    extensions = {"timeout": {"read": 9.0}}
    request = way.lib.Request("GET", server.url + "/ok", extensions=extensions)
    before = list(request.headers.raw)
    way.run(client.send(request))

    assert list(request.headers.raw) == before
    assert request.extensions["timeout"]["read"] == 9.0
    assert list(extensions) == ["timeout"]


# --- fallbacks --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["plain", "awaited"])
def cached(request, way):
    """Return a fallback; in the second case one to be awaited, where that can be."""
    if request.param == "awaited" and way.waits:

        async def fallback(_request):
            await asyncio.sleep(0)
            return way.lib.Response(203, text="cached")

        return fallback
    return lambda _request: way.lib.Response(203, text="cached")


@pytest.mark.parametrize("path", ["/shed", "/passed-on", "/broken", "/plain-503", "/hang", "/garbage", "/drip-head"])
def test_a_fallback_is_served_and_counted(way, guarded, server, registry, sink, serving, cached, path):
    response = way.get(guarded(transport={"fallback": cached, "on_shed": "raise"}, timeout_s=0.3), server.url + path)

    assert (response.status_code, response.text) == (203, "cached")
    assert [event.fallback for event in sink.of(CommandDone)] == [True]
    assert command_of(registry).snapshot().fallbacks == 1
    assert in_flight(registry) == 0
    assert serving.faults == []


def test_a_fallback_is_served_for_a_rejection_too(way, guarded, server, sink, serving, cached):
    response = way.get(guarded(transport={"fallback": cached}, mode="force_open"), server.url + "/ok")

    assert response.status_code == 203
    assert server.hits == []
    assert [event.fallback for event in sink.of(CommandDone)] == [True]
    assert serving.faults == []


@pytest.mark.parametrize("path", ["/ok", "/missing"])
def test_a_fallback_is_not_served_where_nothing_is_wrong(way, guarded, server, sink, cached, path):
    assert way.get(guarded(transport={"fallback": cached}), server.url + path).status_code in {200, 404}
    assert [event.fallback for event in sink.of(CommandDone)] == [False]


def test_a_budget_that_runs_out_is_served_no_fallback(way, guarded, server, registry, sink, serving, cached):
    serving.deadline = monotonic() + 0.05
    with pytest.raises(way.lib.TimeoutException):
        way.get(guarded(transport={"fallback": cached}, timeout_s=15.0), server.url + "/hang")

    assert outcomes(sink) == [Outcome.IGNORED]
    assert command_of(registry).snapshot().fallbacks == 0


@pytest.fixture(params=["plain", "awaited"])
def failing(request, way):
    if request.param == "awaited" and way.waits:

        async def fallback(_request):
            await asyncio.sleep(0)
            return {}["cache"]

        return fallback
    return lambda _request: {}["cache"]


@pytest.mark.parametrize(("path", "mode"), [("/ok", "force_open"), ("/hang", "enforce"), ("/garbage", "enforce")])
def test_a_fallback_that_raises_leaves_the_original_error_and_its_fault(
    way, guarded, server, registry, sink, serving, failing, path, mode
):
    with pytest.raises(way.lib.HTTPError) as caught:
        way.get(guarded(transport={"fallback": failing}, timeout_s=0.2, mode=mode), server.url + path)

    causes = [caught.value.__cause__, caught.value.__cause__.__cause__]
    assert any(isinstance(cause, KeyError) for cause in causes)
    assert serving.fault_behind(caught.value) is not None
    assert [event.fallback for event in sink.of(CommandDone)] == [False]
    assert command_of(registry).snapshot().fallbacks == 0


def test_a_fallback_that_raises_leaves_the_original_response(way, guarded, server, serving, failing):
    response = way.get(guarded(transport={"fallback": failing}), server.url + "/broken")

    assert (response.status_code, response.content) == (500, b"ok")
    assert len(serving.faults) == 1


@pytest.mark.parametrize("path", ["/stalling-body", "/cut-body", "/hang", "/broken", "/plain-503", "/shed"])
@one_library
def test_the_error_the_application_sees_is_found_in_the_ledger(way, guarded, server, serving, path):
    with pytest.raises(way.lib.HTTPError) as caught:
        way.get(guarded(timeout_s=1.0), server.url + path).raise_for_status()

    fault = serving.fault_behind(caught.value)
    assert fault is not None
    assert (fault.resource, fault.reason) == ("saber", Reason.DEPENDENCY)
    assert fault.origin == ("saber" if path == "/shed" else None)
    assert serving.fault_behind(KeyError("a bug of the application")) is None


def test_an_awaited_fallback_runs_after_the_permit_has_been_given_back(asynchronous, server, registry, sink):
    way, seen = asynchronous, []

    async def fallback(_request):
        seen.append((in_flight(registry), command_of(registry).snapshot().counts[Outcome.FAILURE]))
        return way.lib.Response(203)

    resource = Resource("saber", registry=registry, sinks=[sink])
    client = way.client(way.module.AsyncGroundFaultTransport(resource, fallback=fallback))
    way.get(client, server.url + "/broken")

    assert seen == [(0, 1)]


@pytest.mark.parametrize(("path", "mode"), [("/broken", "enforce"), ("/ok", "force_open"), ("/garbage", "enforce")])
def test_a_cancellation_while_a_fallback_is_awaited_goes_on_and_leaves_a_fault(
    asynchronous, server, registry, sink, serving, path, mode
):
    way = asynchronous

    async def main():
        begun = asyncio.Event()

        async def fallback(_request):
            begun.set()
            await asyncio.Event().wait()

        resource = Resource("saber", registry=registry, sinks=[sink], mode=mode)
        client = way.client(way.module.AsyncGroundFaultTransport(resource, fallback=fallback))
        task = asyncio.create_task(client.get(server.url + path))
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    way.run(main())

    assert [event.fallback for event in sink.of(CommandDone)] == [False]
    assert len(serving.faults) == 1
    assert in_flight(registry) == 0


# --- cancellation and crowds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after_s", "outcome"), [(0.05, Outcome.IGNORED), (None, Outcome.TIMEOUT)])
def test_a_cancellation_from_outside_stays_one(asynchronous, server, registry, sink, after_s, outcome):
    way = asynchronous
    resource = Resource("saber", registry=registry, sinks=[sink], timeout_s=15.0 if after_s else 0.1)
    client = way.client(way.module.AsyncGroundFaultTransport(resource))

    async def main():
        task = asyncio.create_task(client.get(server.url + "/hang"))
        if after_s is not None:
            await asyncio.sleep(after_s)
            task.cancel()
        await asyncio.wait([task])
        return task

    task = way.run(main())

    assert task.cancelled() is (after_s is not None)
    if not task.cancelled():
        assert isinstance(task.exception(), way.module.CommandTimeoutError)
    assert outcomes(sink) == [outcome]
    assert in_flight(registry) == 0


@one_library
def test_a_consumer_that_dawdles_and_is_canceled_says_nothing_about_the_callee(asynchronous, server, registry, sink):
    way = asynchronous
    resource = Resource("saber", registry=registry, sinks=[sink], timeout_s=1.0)
    client = way.client(way.module.AsyncGroundFaultTransport(resource))

    async def consume(reading):
        async with client.stream("GET", server.url + "/stalling-body") as response:
            chunks = response.aiter_raw()
            await anext(chunks)
            await asyncio.sleep(1.1)
            reading.set()
            await anext(chunks)

    async def main():
        reading = asyncio.Event()
        task = asyncio.create_task(consume(reading))
        await reading.wait()
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    way.run(main())

    assert outcomes(sink) == [Outcome.IGNORED]
    assert in_flight(registry) == 0


PATHS = ["/ok", "/chunks", "/shed", "/broken", "/hang", "/stalling-body", "/drip", "/drip-head", "/garbage"]


async def reads_or_leaves(client, url, chance):
    if chance.random() < 0.5:
        await client.get(url)
        return
    async with client.stream("GET", url) as response:
        async for _ in response.aiter_bytes():
            if chance.random() < 0.3:
                break
            await asyncio.sleep(chance.random() / 200)


async def storm(client, server, chance, *, waves, crowd, canceled):
    """Make waves of calls and cancel some of each; return how many ended as canceled, and the errors of the others."""
    ended = []
    for _ in range(waves):
        calls = [reads_or_leaves(client, server.url + chance.choice(PATHS), chance) for _ in range(crowd)]
        tasks = [asyncio.create_task(call) for call in calls]
        for task in chance.sample(tasks, canceled):
            await asyncio.sleep(chance.random() / 500)
            task.cancel()
        await asyncio.wait(tasks)
        ended += tasks
    left = [task for task in ended if not task.cancelled()]
    return len(ended) - len(left), [error for task in left if (error := task.exception()) is not None]


@pytest.mark.parametrize("with_fallback", [False, True])
@one_library
def test_a_storm_of_cancellations_leaves_nothing_in_flight(asynchronous, server, registry, with_fallback):
    way, chance = asynchronous, random.Random(7)

    async def cached(_request):
        await asyncio.sleep(chance.random() / 100)
        return way.lib.Response(203)

    transport = way.module.AsyncGroundFaultTransport(
        Resource("saber", registry=registry, timeout_s=0.05, max_concurrent=25, mode="force_closed"),
        fallback=cached if with_fallback else None,
        limits=way.lib.Limits(max_connections=20),
    )
    client = way.client(transport)
    canceled, failed = way.run(storm(client, server, chance, waves=50, crowd=30, canceled=20))
    gc.collect()

    assert canceled > 100
    assert [error for error in failed if not isinstance(error, way.lib.HTTPError)] == []
    assert in_flight(registry) == 0
    assert events.internal_errors() == {}
    totals = command_of(registry).snapshot().totals
    assert totals[Outcome.IGNORED] > 0
    assert sum(totals.values()) == 50 * 30


def test_many_threads_leave_nothing_in_flight(library, server, registry):
    way = Way(library, "sync")
    transport = way.module.GroundFaultTransport(Resource("saber", registry=registry, timeout_s=30.0))
    paths = ["/ok", "/broken", "/shed", "/chunks", "/missing"] * 24
    with way.lib.Client(transport=transport, trust_env=False) as client, ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda path: client.get(server.url + path).status_code, paths))

    assert len(statuses) == len(paths)
    snapshot = command_of(registry).snapshot()
    assert snapshot.in_flight == 0
    assert snapshot.counts[Outcome.SUCCESS] == 72
    assert snapshot.counts[Outcome.FAILURE] == 24


# --- names and settings -----------------------------------------------------------------------------------------------


def test_commands_are_named_by_method_by_string_or_by_callable(way, guarded, server, registry):
    way.run(guarded().post(server.url + "/ok", content=b"x"))
    way.get(guarded(transport={"command": "entrants"}), server.url + "/ok")
    way.get(guarded(transport={"command": lambda request: request.url.path.strip("/")}), server.url + "/missing")

    assert {command.name for command in registry} == {"post", "entrants", "missing"}


def test_names_without_end_are_counted_together(way, guarded, registry):
    numbers = itertools.count()
    answering = way.lib.MockTransport(lambda _request: way.lib.Response(200))
    client = guarded(transport={"wrapping": answering, "command": lambda _request: f"entry-{next(numbers)}"})
    for _ in range(205):
        way.get(client, "http://saber/")

    names = {command.name for command in registry}
    assert len(names) == 201
    assert "other" in names


def test_a_url_without_a_host_is_the_callers_error_and_creates_nothing(way, guarded, registry):
    client = guarded()
    with pytest.raises((way.lib.UnsupportedProtocol, way.lib.ConnectError, way.lib.LocalProtocolError)):
        way.get(client, "http:///ok")

    assert list(registry) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_shed": "ignore"}, "on_shed must be 'return' or 'raise', not 'ignore'"),
        ({"timeout_s": -1}, "timeout_s"),
        ({"failure_threshold": 2}, "failure_threshold"),
        ({"command": "Not A Name!"}, "Not A Name!"),
        ({"no_such_setting": 1}, "no_such_setting"),
        ({"wrapping": object()}, "wrapping must be an httpx2?\\.(Async)?BaseTransport"),
    ],
)
def test_nonsense_is_refused_with_the_field_and_the_value(way, arguments, message):
    with pytest.raises(errors.SettingsError, match=message):
        way.transport_class("saber-nonsense", **arguments)


def test_what_belongs_to_another_is_to_be_set_there(way, registry):
    mock = way.lib.MockTransport(lambda _request: way.lib.Response(200))
    with pytest.raises(errors.SettingsError, match="verify, http2 belong to the transport"):
        way.transport_class("saber", wrapping=mock, verify=False, http2=False)
    with pytest.raises(errors.SettingsError, match="belong to the Resource"):
        way.transport_class(Resource("saber", registry=registry), timeout_s=1.0)


def test_a_transport_of_the_other_color_or_library_is_refused(way):
    other = Way("httpx2" if way.lib.__name__ == "httpx" else "httpx", "sync")
    for wrong in (other.lib.HTTPTransport(), way.lib.HTTPTransport() if way.waits else way.lib.AsyncHTTPTransport()):
        with pytest.raises(errors.SettingsError, match="wrapping must be"):
            way.transport_class("saber", wrapping=wrong)


def test_a_plain_client_takes_no_coroutine_function_as_fallback(library):
    async def fallback(_request): ...

    with pytest.raises(errors.SettingsError, match="fallback must be a plain callable"):
        Way(library, "sync").module.GroundFaultTransport("saber", fallback=fallback)


@pytest.mark.parametrize("wrapped", [False, True])
def test_hidden_retries_are_warned_of(way, registry, caplog, wrapped):
    resource = Resource("saber", registry=registry)
    options = {"wrapping": way.default_class(retries=3)} if wrapped else {"retries": 3}
    transport = way.transport_class(resource, **options)
    way.run(transport.aclose() if way.waits else transport.close())

    assert "transport for saber retries to connect 3 times below the circuit" in caplog.text


def test_retries_end_with_the_call(way, guarded, sink):
    began = monotonic()
    with pytest.raises(way.lib.HTTPError):
        way.get(guarded(transport={"retries": 30}, timeout_s=0.3), "http://127.0.0.1:1/", timeout=None)

    assert monotonic() - began < 5
    assert outcomes(sink) == [Outcome.TIMEOUT]


def test_the_librarys_transport_is_given_its_own_keywords(way, guarded, server):
    client = guarded(transport={"proxy": server.url}, timeout_s=10.0)

    assert way.get(client, "http://saber.internal/ok").status_code == 200
    assert server.hits[0][1] == "http://saber.internal/ok"


def test_a_proxys_drip_is_bounded_too(way, guarded, server, sink):
    with pytest.raises(way.module.CommandTimeoutError):
        way.get(
            guarded(transport={"proxy": server.url}, timeout_s=0.3), "http://saber.internal/drip-head", timeout=None
        )

    assert outcomes(sink) == [Outcome.TIMEOUT]


def test_the_kill_switch_leaves_an_ordinary_transport(way, guarded, server, serving, monkeypatch):
    monkeypatch.setenv("GROUNDFAULT_DISABLED", "1")
    serving.deadline = monotonic() - 1
    fallback = {"fallback": lambda _request: way.lib.Response(203)}
    client = guarded(transport={"on_shed": "raise", **fallback}, timeout_s=0.1, mode="force_open")

    assert way.get(client, server.url + "/shed").status_code == 503
    assert way.get(client, server.url + "/ok").status_code == 200
    assert not any(wire.is_ours(name) for _, _, headers, _ in server.hits for name in headers)
    assert serving.faults == []


# --- wrapped transports -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "outcome"), [(200, Outcome.SUCCESS), (500, Outcome.FAILURE)])
@pytest.mark.parametrize("form", ["read", "stream"])
def test_an_answer_from_memory_is_settled(way, guarded, registry, sink, status, outcome, form):
    class Inner(way.lib.AsyncBaseTransport if way.waits else way.lib.BaseTransport):
        def handle_request(self, request):
            assert request.content == b"asked"  # in memory already, as it is without us
            if form == "read":
                return way.lib.Response(status, text="told")
            return way.lib.Response(status, stream=way.lib.ByteStream(b"told"))

        async def handle_async_request(self, request):
            return self.handle_request(request)

    client = guarded(transport={"wrapping": Inner()})
    response = way.run(client.post("http://saber/", content=b"asked"))

    assert response.text == "told"
    assert outcomes(sink) == [outcome]
    assert in_flight(registry) == 0


@one_library
def test_an_application_in_the_same_process_is_guarded_as_any_other(asynchronous, registry, sink):
    way = asynchronous

    async def app(scope, receive, send):
        if scope["path"] == "/hang":
            await asyncio.Event().wait()
        if scope["path"] == "/bug":
            raise TypeError("a bug of the callee")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"served"})

    resource = Resource("saber", registry=registry, sinks=[sink], timeout_s=1.0)
    client = way.client(way.module.AsyncGroundFaultTransport(resource, wrapping=way.lib.ASGITransport(app)))

    assert way.get(client, "http://saber/ok").text == "served"
    with pytest.raises(way.module.CommandTimeoutError):
        way.get(client, "http://saber/hang")
    with pytest.raises(TypeError):
        way.get(client, "http://saber/bug")
    assert outcomes(sink) == [Outcome.SUCCESS, Outcome.TIMEOUT, Outcome.FAILURE]


def test_a_consumer_that_leaves_in_the_middle_closes_what_is_below(asynchronous, registry):
    way, done = asynchronous, []

    class Chunks(way.lib.AsyncByteStream):
        async def __aiter__(self):
            try:
                yield b"one"
                yield b"two"
            finally:
                done.append("left")

        async def aclose(self):
            done.append("closed")

    async def main():
        inner = way.lib.MockTransport(lambda _request: way.lib.Response(200, stream=Chunks()))
        transport = way.module.AsyncGroundFaultTransport(Resource("saber", registry=registry), wrapping=inner)
        response = await transport.handle_async_request(way.lib.Request("GET", "http://saber/"))
        chunks = aiter(response.stream)
        assert await anext(chunks) == b"one"
        await chunks.aclose()
        assert in_flight(registry) == 1
        await response.aclose()

    way.run(main())

    assert done == ["left", "closed"]
    assert in_flight(registry) == 0


def test_a_wrapped_transport_is_opened_and_closed_with_ours(way, registry):
    done = []

    class Inner(way.lib.AsyncBaseTransport if way.waits else way.lib.BaseTransport):
        def __enter__(self):
            done.append("opened")

        async def __aenter__(self):
            done.append("opened")

        def close(self):
            done.append("closed")

        async def aclose(self):
            done.append("closed")

    client = way.client(way.transport_class(Resource("saber", registry=registry), wrapping=Inner()))

    async def main():
        async with client:
            pass

    if way.waits:
        way.run(main())
    else:
        with client:
            pass
    assert done == ["opened", "closed"]


def test_one_transport_may_stand_behind_two_resources(way, guarded, server, registry):
    inner = way.default_class()
    first, second = (guarded(transport={"wrapping": inner, "command": name}, timeout_s=10.0) for name in ("a", "b"))
    way.get(first, server.url + "/ok")
    way.get(second, server.url + "/ok")

    assert {command.name: command.snapshot().counts[Outcome.SUCCESS] for command in registry} == {"a": 1, "b": 1}
    assert server.connections == 1


# --- the bound network ------------------------------------------------------------------------------------------------


def test_a_library_made_differently_is_warned_of_once_and_its_body_bounded_still(
    library, registry, server, sink, caplog
):
    way = Way(library, "sync")

    class Odd(way.lib.HTTPTransport):
        def __init__(self):
            self.inside = way.lib.HTTPTransport()

        def handle_request(self, request):
            return self.inside.handle_request(request)

        def close(self):
            self.inside.close()

    _httpx._warned.discard(library)
    resource = Resource("saber", registry=registry, sinks=[sink], timeout_s=0.3)
    with caplog.at_level(logging.WARNING, logger="groundfault"):
        transports = [way.module.GroundFaultTransport(resource, wrapping=Odd()) for _ in range(2)]
    for transport in transports:
        client = way.client(transport)
        with pytest.raises(way.module.CommandTimeoutError):
            client.get(server.url + "/drip")
    way.end()

    assert caplog.text.count("made differently than expected") == 1
    assert outcomes(sink) == [Outcome.TIMEOUT] * 2


class SyncBackend:
    """Stands for the library's own backend; ``SyncBackend`` is its name there."""

    def __init__(self, step=lambda: None):
        self.seen = []
        self.step = step

    def connect_tcp(self, host, port, timeout=None, **options):
        self.seen.append((host, timeout))
        self.step()
        raise OSError(f"{host} does not answer")

    connect_unix_socket = connect_tcp

    def sleep(self, seconds):
        self.seen.append(("sleep", seconds))

    def read(self, max_bytes, timeout=None):
        self.seen.append(("read", timeout))
        self.step()
        return b"x"

    def write(self, buffer, timeout=None):
        self.seen.append((len(buffer), timeout))
        self.step()


@pytest.fixture
def network(clock, monkeypatch):
    monkeypatch.setattr(_httpx_network, "monotonic", clock)
    addresses = [(0, 0, 0, "", (address, 80)) for address in ("10.0.0.1", "10.0.0.2", "10.0.0.1")]
    monkeypatch.setattr(_httpx_network.socket, "getaddrinfo", lambda *_args, **_options: addresses)
    backend = SyncBackend(lambda: clock.advance(1.0))
    return backend, _httpx_network._Network(backend)


def test_all_addresses_of_a_host_share_what_the_call_has_left(network, clock):
    backend, bound = network
    token = _httpx_network.call_ends_at(clock() + 1.5)
    with pytest.raises(OSError, match=r"10\.0\.0\.2 does not answer"):
        bound.connect_tcp("saber", 80, timeout=9.0)
    with pytest.raises(_httpx_network.Expired):
        bound.connect_tcp("saber", 80, timeout=9.0)
    _httpx_network.call_ends(token)

    assert backend.seen == [("10.0.0.1", 1.5), ("10.0.0.2", 0.5)]


def test_a_name_that_nobody_knows_is_a_failure_with_the_librarys_own_error(way, guarded, sink, monkeypatch):
    asked = []

    def unknown(host, *_args, **_options):
        asked.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(way.lib.ConnectError, match="Name or service not known"):
        way.get(guarded(timeout_s=10.0), "http://saber/")

    assert len(asked) == 1
    assert outcomes(sink) == [Outcome.FAILURE]


def test_a_wait_between_two_tries_ends_with_the_call(network, clock):
    backend, bound = network
    token = _httpx_network.call_ends_at(clock() + 0.5)
    bound.sleep(4.0)
    bound.sleep(0.25)
    _httpx_network.call_ends(token)

    assert backend.seen == [("sleep", 0.5), ("sleep", 0.25)]


def test_outside_a_call_nothing_is_bound(network):
    backend, bound = network
    with pytest.raises(OSError, match="saber does not answer"):
        bound.connect_tcp("saber", 80, timeout=9.0)
    bound.sleep(0.5)
    stream = _httpx_network._Stream(backend, None)
    stream.read(10)
    stream.write(b"x" * 200_000, timeout=7.0)

    assert backend.seen == [("saber", 9.0), ("sleep", 0.5), ("read", None), (200_000, 7.0)]


def test_a_long_write_is_bound_piece_by_piece_and_ends_the_connection(network, clock):
    backend, _ = network
    stream = _httpx_network._Stream(backend, None)
    token = _httpx_network.call_ends_at(clock() + 2.5)
    with pytest.raises(TimeoutError):
        stream.write(b"x" * 300_000, timeout=1.0)
    _httpx_network.call_ends(token)

    assert backend.seen == [(65536, 1.0), (65536, 1.0), (65536, 0.5)]


def test_both_modules_are_one_text():
    place = Path(_httpx.__file__).parent
    one, two = (place / f"{name}.py" for name in ("httpx", "httpx2"))

    assert one.read_text().replace("httpx", "httpx2").replace("_httpx2", "_httpx") == two.read_text()


MULTIPLEXING = """
import asyncio, sys
import hypercorn.asyncio, hypercorn.config

asked = set()

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    asked.add(tuple(scope["client"]))
    await asyncio.sleep({"/hang": 15.0, "/slow": 1.0}.get(scope["path"], 0.0))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"connections: %d" % len(asked)})

config = hypercorn.config.Config()
config.errorlog = None
config.bind = ["fd://" + sys.argv[1]]
asyncio.run(hypercorn.asyncio.serve(app, config, shutdown_trigger=asyncio.Event().wait))
"""


@pytest.fixture
def multiplexing():
    """Serve an ASGI application over HTTP/2 without TLS; return its URL. It says how many connections it has seen."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        with subprocess.Popen([sys.executable, "-c", MULTIPLEXING, str(number)], pass_fds=[number]) as process:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            process.kill()


@pytest.mark.e2e
@one_library
def test_a_call_whose_time_is_up_leaves_its_http2_connection_to_the_others(way, multiplexing, registry):
    url = multiplexing
    inner = way.default_class(http1=False, http2=True)
    hasty, patient = (
        way.client(
            way.transport_class(Resource(name, registry=registry, timeout_s=timeout_s), wrapping=inner, command=name),
            timeout=None,
        )
        for name, timeout_s in (("hasty", 0.3), ("patient", 30.0))
    )
    assert way.get(patient, url + "/ok").http_version == "HTTP/2"

    async def together():
        return await asyncio.gather(hasty.get(url + "/hang"), patient.get(url + "/slow"), return_exceptions=True)

    if way.waits:
        given_up, served = way.run(together())
    else:
        with ThreadPoolExecutor(2) as pool:
            calls = pool.submit(hasty.get, url + "/hang"), pool.submit(patient.get, url + "/slow")
            given_up, served = calls[0].exception(), calls[1].result()

    assert isinstance(given_up, way.module.CommandTimeoutError)
    assert served.status_code == 200
    assert way.get(patient, url + "/ok").text == "connections: 1"
    assert in_flight(registry) == 0


# --- together with the server half ------------------------------------------------------------------------------------


@pytest.fixture
def serve():
    """Serve ASGI applications with uvicorn, each on a thread; return its URL."""
    running = []

    def start(app):
        listener = socket.create_server(("127.0.0.1", 0))
        one = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        thread = threading.Thread(target=one.run, kwargs={"sockets": [listener]})
        thread.start()
        running.append((one, thread, listener))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for one, thread, listener in reversed(running):
        one.should_exit = True
        thread.join(20)
        listener.close()


def test_a_shedder_that_drains_is_heard(way, guarded, serve, sink):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"served"})

    shedding = LoadShedder(app, service="saber")
    url = serve(shedding)
    client = guarded(transport={"on_shed": "raise"}, timeout_s=10.0)

    assert way.get(client, url).text == "served"
    shedding.shedder.drain()
    with pytest.raises(way.lib.HTTPStatusError) as caught:
        way.get(client, url)

    assert (caught.value.reason, caught.value.origin) == (Reason.DRAINING, "saber")
    assert outcomes(sink) == [Outcome.SUCCESS, Outcome.SHED]


@one_library
def test_a_fault_two_services_down_is_counted_by_the_breaker_next_to_it_alone(
    way, guarded, serve, registry, sink, server
):
    below = Resource("database", registry=registry)

    async def grouper(scope, receive, send):
        transport = Way(way.lib.__name__, "async").module.AsyncGroundFaultTransport(below, command="rows")
        async with way.lib.AsyncClient(transport=transport, trust_env=False) as client:
            (await client.get(server.url + "/broken")).raise_for_status()

    url = serve(LoadShedder(grouper, service="grouper"))
    client = guarded(timeout_s=10.0)
    for _ in range(25):
        assert way.get(client, url).status_code == 503

    assert outcomes(sink) == [Outcome.SHED] * 25
    assert command_of(registry, "get").snapshot().state is State.CLOSED
    assert command_of(registry, "rows").snapshot().state is State.OPEN


@dataclasses.dataclass  # which makes it unhashable
class UnhashableError(Exception):
    what: str


def test_an_upload_that_raises_whatever_it_likes_is_ignored_and_gives_its_place_back(
    way, guarded, server, registry, sink
):
    def body():
        yield b"x"
        raise error

    async def abody():
        yield b"x"
        raise error

    error = UnhashableError("mine")
    content = abody() if way.waits else body()
    with pytest.raises(UnhashableError) as caught:
        way.run(guarded().post(server.url + "/ok", content=content))
    assert caught.value is error
    assert outcomes(sink) == [Outcome.IGNORED]
    assert registry.get("saber", "post").snapshot().in_flight == 0


@pytest.mark.parametrize("fallback", ["text", 3, []])
def test_what_is_no_fallback_is_refused(way, fallback):
    with pytest.raises(errors.SettingsError, match="fallback must be a"):
        way.transport_class("saber", fallback=fallback)


def test_a_fallback_that_serves_no_response_leaves_the_original(way, guarded, server, registry):
    client = guarded(transport={"fallback": lambda _request: "text"})
    assert way.get(client, server.url + "/broken").status_code == 500
    snapshot = next(iter(registry)).snapshot()
    assert (snapshot.fallbacks, snapshot.fallbacks_failed) == (0, 1)
