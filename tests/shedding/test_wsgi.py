"""What is particular to WSGI: validators, write(), exc_info, sized answers, answers closed late or elsewhere."""

import contextvars
import io
import socket
import sys
import threading
from wsgiref.handlers import SimpleHandler
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from werkzeug.middleware.lint import LintMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client, EnvironBuilder

from groundfault import _context
from groundfault.errors import CircuitOpenError, SettingsError
from groundfault.shedding._connection import connection_of_wsgi
from groundfault.shedding._request import VISIT, arrive
from groundfault.shedding.asgi import LoadShedder
from groundfault.shedding.criticality import CriticalityRule
from groundfault.shedding.shedder import Shedder, live_shedders
from groundfault.shedding.wsgi import WSGILoadShedder
from groundfault.sinks import Sinks
from groundfault.vocabulary import Criticality

_OPEN = CircuitOpenError("db", "read", 1.0)


@pytest.fixture
def shedder(clock, sink):
    return Shedder(sinks=Sinks(sink), clock=clock, service="served")


@pytest.mark.parametrize("more", [{"deadline_s": 5.0}, {"sinks": ()}, {"nonsense": 1}], ids=str)
@pytest.mark.parametrize("shell", [WSGILoadShedder, LoadShedder])
def test_settings_beside_a_shedder_are_refused(shell, more):
    with pytest.raises(SettingsError, match="belong to the shedder"):
        shell(_list, shedder=Shedder(), **more)


def _environ(**fields):
    environ = {"REMOTE_ADDR": "127.0.0.1", **fields}
    setup_testing_defaults(environ)
    return environ


def _list(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
    return [b"fine"]


def _generator(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"fi"
    yield b"ne"


def _raising_at_once(environ, start_response):
    raise _OPEN


def _raising_on_the_first_chunk(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    raise _OPEN
    yield b""


def _gateway_timeout(environ, start_response):
    start_response("504 Gateway Timeout", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"sorry"]


_APPS = [_list, _generator, _raising_at_once, _raising_on_the_first_chunk, _gateway_timeout]


@pytest.mark.parametrize("drained", [False, True])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("app", [app for app in _APPS if app is not _raising_on_the_first_chunk])
def test_werkzeug_s_lint_finds_nothing(shedder, app, method, drained):
    """Every warning is an error here, on either side of the middleware.

    Not with an answer that is replaced: werkzeug's test client raises whatever it is given as exc_info.
    """
    if drained:
        shedder.drain()
    linted = LintMiddleware(WSGILoadShedder(LintMiddleware(app), shedder=shedder))
    builder = EnvironBuilder(method=method, data=b"body" if method == "POST" else None)
    response = Client(linted).open(builder)
    expected = {_list: 200, _generator: 200, _gateway_timeout: 504}.get(app, 503)
    assert response.status_code == (503 if drained else expected)
    response.close()
    assert shedder.snapshot().in_flight == 0


@pytest.mark.parametrize("drained", [False, True])
@pytest.mark.parametrize("app", _APPS)
def test_wsgiref_s_validator_and_server_find_nothing(shedder, app, drained):
    """The standard library's server asserts among others that no application sets a hop-by-hop header."""
    if drained:
        shedder.drain()
    checked = validator(WSGILoadShedder(app, shedder=shedder))
    out, errors = io.BytesIO(), io.StringIO()
    environ = _environ(QUERY_STRING="", CONTENT_LENGTH="70000")
    handler = SimpleHandler(io.BytesIO(b"x" * 70000), out, errors, environ)
    handler.http_version = "1.1"
    handler.origin_server = True
    handler.run(checked)
    assert errors.getvalue() == ""
    expected = {_list: b"200", _generator: b"200", _gateway_timeout: b"504"}.get(app, b"503")
    assert out.getvalue().split()[1] == (b"503" if drained else expected)


def test_a_list_keeps_its_length(shedder):
    """The standard library's server derives the Content-Length of a single chunk from it."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"fine"]

    body = WSGILoadShedder(app, shedder=shedder)(_environ(), lambda *_: None)
    assert len(body) == 1
    body.close()
    stream = WSGILoadShedder(_generator, shedder=shedder)(_environ(), lambda *_: None)
    assert not hasattr(stream, "__len__")
    stream.close()


def test_write_passes_through_and_ends_what_can_be_changed(shedder):
    written = []

    def app(environ, start_response):
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"")
        write(b"begun")
        raise _OPEN

    def start_response(status, headers, exc_info=None):
        return written.append

    with pytest.raises(CircuitOpenError):
        WSGILoadShedder(app, shedder=shedder)(_environ(), start_response)
    assert written == [b"", b"begun"]
    assert shedder.snapshot().in_flight == 0


def test_an_answer_begun_but_not_sent_is_replaced_with_exc_info(shedder):
    """PEP 3333: only then may a server replace the headers it holds back."""
    calls = []

    def start_response(status, headers, exc_info=None):
        calls.append((status, exc_info and exc_info[1]))
        return lambda _: None

    body = WSGILoadShedder(_raising_on_the_first_chunk, shedder=shedder)(_environ(), start_response)
    assert b"".join(body).startswith(b"{")
    body.close()
    assert calls == [("200 OK", None), ("503 Service Unavailable", _OPEN)]


def test_an_empty_chunk_is_not_yet_an_answer(shedder):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b""
        raise _OPEN

    statuses = []
    body = WSGILoadShedder(app, shedder=shedder)(_environ(), lambda status, *_: statuses.append(status))
    assert b"".join(body)
    body.close()
    assert statuses == ["200 OK", "503 Service Unavailable"]


def test_the_application_s_own_exc_info_is_handed_on(shedder):
    def app(environ, start_response):
        start_response("200 OK", [])
        try:
            int("x")
        except ValueError:
            start_response("500 Oops", [], sys.exc_info())
        return []

    calls = []
    body = WSGILoadShedder(app, shedder=shedder)(_environ(), lambda *arguments: calls.append(arguments))
    body.close()
    assert [len(arguments) for arguments in calls] == [2, 3]
    assert isinstance(calls[1][2][1], ValueError)


def test_an_answer_is_in_flight_until_it_is_closed_and_closed_once(shedder):
    closed = []

    class Answer:
        def __iter__(self):
            return iter([b"a", b"b"])

        def close(self):
            closed.append(_context.current() is not None)
            raise ValueError("in the application's close")

    def app(environ, start_response):
        start_response("200 OK", [])
        return Answer()

    body = WSGILoadShedder(app, shedder=shedder)(_environ(), lambda *_: None)
    assert list(body) == [b"a", b"b"]
    assert shedder.snapshot().in_flight == 1
    with pytest.raises(ValueError, match="application's close"):
        body.close()
    body.close()
    assert closed == [True]
    assert shedder.snapshot().in_flight == 0
    assert _context.current() is None


def test_an_answer_that_is_never_closed_gives_its_place_back(shedder):
    """By a server that breaks the specification, or one whose worker was interrupted."""
    body = WSGILoadShedder(_generator, shedder=shedder)(_environ(), lambda *_: None)
    next(body)
    assert shedder.snapshot().in_flight == 1
    del body
    assert shedder.snapshot().in_flight == 0
    assert _context.current() is None


def test_an_answer_never_iterated_ends_with_its_close(shedder):
    body = WSGILoadShedder(_generator, shedder=shedder)(_environ(), lambda *_: None)
    body.close()
    assert shedder.snapshot().in_flight == 0


def test_the_context_lasts_while_the_answer_is_made(shedder):
    def app(environ, start_response):
        start_response("200 OK", [])
        for _ in range(2):
            yield _context.current().service.encode()

    body = WSGILoadShedder(app, shedder=shedder)(_environ(), lambda *_: None)
    assert list(body) == [b"served", b"served"]
    body.close()
    assert _context.current() is None


def test_an_answer_closed_in_another_context_ends_there(shedder):
    body = contextvars.Context().run(WSGILoadShedder(_list, shedder=shedder), _environ(), lambda *_: None)
    body.close()
    assert shedder.snapshot().in_flight == 0
    assert _context.current() is None


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_is_no_error_of_the_application_goes_its_way(shedder, error):
    def app(environ, start_response):
        raise error

    with pytest.raises(error):
        WSGILoadShedder(app, shedder=shedder)(_environ(), lambda *_: None)
    assert shedder.snapshot().in_flight == 0
    assert _context.current() is None


def test_threads_serve_at_once_and_nothing_leaks(shedder):
    started = threading.Barrier(9)

    def app(environ, start_response):
        started.wait(5)
        start_response("200 OK", [])
        yield _context.current().caller.encode()

    middleware = WSGILoadShedder(app, shedder=shedder)
    answers = {}

    def serve(number):
        body = middleware(_environ(HTTP_X_GROUNDFAULT_CALLER=f"caller-{number}"), lambda *_: None)
        answers[number] = b"".join(body)
        body.close()

    threads = [threading.Thread(target=serve, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    started.wait(5)
    for thread in threads:
        thread.join(5)
    assert answers == {number: f"caller-{number}".encode() for number in range(8)}
    assert shedder.snapshot().in_flight == 0


class _Gunicorn:
    """As much of gunicorn's response as decides about the connection."""

    def __init__(self):
        self.must_close = False

    def force_close(self):
        self.must_close = True

    def start_response(self, status, headers, exc_info=None):
        self.headers = headers


@pytest.mark.parametrize(
    ("fields", "closes"),
    [
        ({}, False),
        ({"CONTENT_LENGTH": ""}, False),
        ({"CONTENT_LENGTH": "65536"}, False),  # gunicorn reads that much by itself
        ({"CONTENT_LENGTH": "65537"}, True),
        ({"CONTENT_LENGTH": "9" * 40}, True),
        ({"CONTENT_LENGTH": "many"}, True),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, True),
    ],
)
def test_gunicorn_is_told_to_close_over_a_long_unread_body(shedder, fields, closes):
    shedder.drain()
    gunicorn = _Gunicorn()
    WSGILoadShedder(_list, shedder=shedder)(_environ(**fields), gunicorn.start_response)
    assert gunicorn.must_close is closes
    assert "Connection" not in dict(gunicorn.headers)


def test_a_mounted_application_has_its_whole_path(shedder):
    body = WSGILoadShedder(_list, shedder=shedder)(_environ(SCRIPT_NAME="/shop", PATH_INFO="/cart"), lambda *_: None)
    body.close()
    assert shedder.route("GET /shop/cart").name == "GET /shop/cart"


def _decided(shedder, environ):
    return arrive(
        shedder,
        method="GET",
        path="/",
        headers={},
        hinted=False,
        peer="127.0.0.1",
        via="127.0.0.1",
        reading=connection_of_wsgi(environ).read(),
        on_loop=False,
    )


def test_what_a_worker_has_decided_is_not_decided_again(shedder):
    seen = []

    def app(environ, start_response):
        seen.append((VISIT in environ, shedder.snapshot().in_flight, _context.current()))
        return _list(environ, start_response)

    environ = _environ()
    visit = environ[VISIT] = _decided(shedder, environ)
    body = WSGILoadShedder(app, shedder=shedder)(environ, lambda *_: None)
    body.close()
    visit.close()  # by the worker, whatever became of it
    assert seen == [(False, 1, visit.context)]
    snapshot = shedder.snapshot()
    assert (sum(snapshot.admitted.values()), snapshot.in_flight) == (1, 0)


def test_a_decision_of_somebody_else_s_is_ended_and_made_anew(shedder, clock):
    stranger = Shedder(sinks=Sinks(), clock=clock)
    for visit in (_decided(stranger, _environ()), "anything else"):
        environ = _environ(**{VISIT: visit})
        WSGILoadShedder(_list, shedder=shedder)(environ, lambda *_: None).close()
    assert stranger.snapshot().in_flight == 0
    assert sum(shedder.snapshot().admitted.values()) == 2


def test_a_kit_finds_the_shedders_of_this_process(shedder):
    assert shedder in live_shedders()
    assert all(isinstance(each, Shedder) for each in live_shedders())


def test_a_list_that_is_never_closed_gives_its_place_back(shedder):
    body = WSGILoadShedder(_list, shedder=shedder)(_environ(), lambda *_: None)
    assert list(body) == [b"fine"]
    assert shedder.snapshot().in_flight == 1
    del body
    assert shedder.snapshot().in_flight == 0
    assert _context.current() is None


def test_a_list_is_closed_once(shedder):
    body = WSGILoadShedder(_list, shedder=shedder)(_environ(), lambda *_: None)
    assert list(body) == list(body) == [b"fine"]
    body.close()
    other = shedder.admit("GET /", 0.0)
    body.close()
    assert shedder.snapshot().in_flight == 1
    shedder.release(other)


def test_what_only_looks_like_a_list_is_watched_to_its_end(shedder):
    class Failing(list):
        def __iter__(self):
            raise _OPEN

    def app(environ, start_response):
        start_response("200 OK", [])
        return Failing([b"never"])

    statuses = []
    body = WSGILoadShedder(app, shedder=shedder)(_environ(), lambda status, *_: statuses.append(status))
    assert b"".join(body).startswith(b"{")
    body.close()
    assert statuses == ["200 OK", "503 Service Unavailable"]


def test_a_client_that_leaves_in_the_middle_of_an_answer_frees_its_place(shedder):
    """The server stops reading the answer and closes it; what the application cleans up runs before that."""
    cleaned = []

    def app(environ, start_response):
        start_response("200 OK", [])
        try:
            yield b"a"
            yield b"b"
        finally:
            cleaned.append(shedder.snapshot().in_flight)

    body = WSGILoadShedder(app, shedder=shedder)(_environ(), lambda *_: None)
    assert next(body) == b"a"
    body.close()
    assert cleaned == [1]
    assert shedder.snapshot().in_flight == 0


@pytest.mark.parametrize("multithread", [False, True])
def test_a_forged_address_gains_nothing_by_a_rule_on_a_header(clock, multithread):
    """Behind a ProxyFix that believes whoever comes, and none of the protocol's own headers is there."""
    shedder = Shedder(
        sinks=(),
        clock=clock,
        criticality=[CriticalityRule("critical-plus", header="X-Plan", value="vip")],
        trusted_callers=("127.0.0.1", "10.0.0.1"),
    )
    app = ProxyFix(WSGILoadShedder(_list, shedder=shedder))
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.bind(("127.0.0.2", 0))
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            fields = {"gunicorn.socket": server, "wsgi.multithread": multithread, "REMOTE_ADDR": "127.0.0.2"}
            for forged in ("127.0.0.1", "10.0.0.1"):
                run = _environ(**fields, HTTP_X_FORWARDED_FOR=forged, HTTP_X_PLAN="vip")
                b"".join(app(run, lambda *_: None))
    admitted = shedder.snapshot().admitted
    assert {each: count for each, count in admitted.items() if count} == {Criticality.CRITICAL: 2}
