"""The parts of the gunicorn kit: the gate, the closer, the way out, and what a configuration file becomes."""

import copy
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
from contextlib import ExitStack, nullcontext
from io import BytesIO
from types import SimpleNamespace

import pytest
from gunicorn.config import Config
from gunicorn.workers import gthread, sync

from groundfault import Shedder, WSGILoadShedder
from groundfault.events import internal_errors
from groundfault.integrations import _gunicorn_closing, _gunicorn_gate, _gunicorn_stop
from groundfault.integrations import gunicorn as kit
from groundfault.integrations._gunicorn_closing import Closer
from groundfault.integrations._gunicorn_gate import Gate
from groundfault.integrations._gunicorn_stop import Stop, server_is_stopping
from groundfault.shedding._connection import connection_of_wsgi
from groundfault.shedding._request import VISIT, Visit
from groundfault.vocabulary import Criticality, Reason

PEER = ("127.0.0.1", 1)
PLAIN = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Lying:
    """A connection whose bytes have lain there for so long."""

    def __init__(self, data: bytes = PLAIN, waited_ms: int = 600) -> None:
        self.data = data
        self.waited_ms = waited_ms
        self.segments = 0
        self.looks = 0

    def getsockopt(self, _level: int, _option: int, size: int) -> bytes:
        # established; sent nothing for an hour less a second; received so long ago; in so many segments
        return struct.pack("=B43xI4xI96xI", 1, 3_599_000, self.waited_ms, self.segments).ljust(size, b"\0")[:size]

    def recv(self, size: int, flags: int) -> bytes:
        assert flags & socket.MSG_PEEK
        assert flags & socket.MSG_DONTWAIT
        self.looks += 1
        if not self.data:
            raise BlockingIOError
        return self.data[:size]

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 80)


class Unread:
    """A parser's reader that has read nothing ahead."""

    buf = BytesIO()


def gate_of(shedder: Shedder | None, **settings: object) -> Gate:
    cfg = Config()
    for name, value in settings.items():
        cfg.set(name, value)
    gate = Gate(SimpleNamespace(cfg=cfg, log=logging.getLogger("test")), threads=False)
    gate.shedder = shedder
    return gate


# --- the gate ---


def test_what_has_not_waited_is_not_even_looked_at():
    gate, lying = gate_of(Shedder()), Lying(waited_ms=2)
    assert gate.look(lying, PEER) is None
    assert lying.looks == 0


def test_what_has_waited_too_long_is_refused_and_nothing_is_consumed():
    shedder = Shedder(service="saber")
    refused = gate_of(shedder).look(Lying(), PEER)
    data, consumed, whole, keeps = refused
    assert f"X-GroundFault-Reason: {Reason.QUEUE_WAIT}".encode() in data
    assert (consumed, whole, keeps) == (len(PLAIN), True, False)
    assert shedder.snapshot().in_flight == 0


def test_what_waited_within_the_tolerance_is_admitted_and_handed_over_once():
    shedder = Shedder()
    gate = gate_of(shedder)
    visit = gate.look(Lying(waited_ms=100), PEER)
    assert isinstance(visit, Visit)
    seen = []
    app = gate.around(lambda environ, start_response: seen.append(environ.get(VISIT)) or [])
    gate.hand_over(visit)
    app({}, None)
    app({}, None)
    assert seen == [visit, None]
    assert shedder.snapshot().in_flight == 1
    visit.close()
    assert shedder.snapshot().in_flight == 0


@pytest.mark.parametrize(
    ("data", "consumed", "whole"),
    [
        (PLAIN + PLAIN, 2 * len(PLAIN), False),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 41, True),
        (b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nabc", 41, False),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nabc", 41, False),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 52, False),
    ],
)
def test_only_exactly_one_request_is_whole(data, consumed, whole):
    refused = gate_of(Shedder()).look(Lying(data), PEER)
    assert refused[1:] == (consumed, whole, False)


@pytest.mark.parametrize("data", [PLAIN, b"GET / HTT"])
def test_what_is_left_to_the_middleware_is_still_seen_to_have_come_in_pieces(data):
    """On a connection that is kept: what has come since the last request is counted once."""
    lying = Lying(data, waited_ms=1 if data == PLAIN else 100)
    environ = {"gunicorn.socket": lying, "wsgi.multithread": True}
    lying.segments = 1
    assert connection_of_wsgi(environ).read().exact
    lying.segments = 3
    gate = gate_of(Shedder())
    gate._waiting = True  # as the request before it had
    assert gate.look(lying, PEER, SimpleNamespace(parser=SimpleNamespace(mesg=None, unreader=Unread()))) is None
    assert lying.looks == 1
    assert not connection_of_wsgi(environ).read().exact


@pytest.mark.parametrize(
    "settings",
    [{"certfile": __file__, "keyfile": __file__}, {"proxy_protocol": True}, {"protocol": "uwsgi"}],
    ids=["tls", "proxy protocol", "uwsgi"],
)
def test_what_is_not_plain_http_is_left_to_gunicorn(settings):
    lying = Lying()
    assert gate_of(Shedder(), **settings).look(lying, PEER) is None
    assert lying.looks == 0


@pytest.mark.parametrize(
    "lying",
    [Lying(b""), Lying(b"GET / HTT"), Lying(b"\x16\x03\x01"), Lying(waited_ms=0)],
    ids=["none", "half", "tls", "0"],
)
def test_what_cannot_be_read_is_left_to_gunicorn_while_draining(lying):
    shedder = Shedder()
    gate = gate_of(shedder)
    gate.drain()
    verdict = gate.look(lying, PEER)
    if lying.data == PLAIN:
        data, *rest = verdict
        assert f"X-GroundFault-Reason: {Reason.DRAINING}".encode() in data
        assert rest == [len(PLAIN), True, False]
        assert shedder.snapshot().shed[Reason.DRAINING, Criticality.CRITICAL] > 0
    else:
        assert verdict is None


def test_health_checks_are_answered_while_draining():
    gate = gate_of(Shedder())
    gate.drain()
    verdict = gate.look(Lying(b"GET /healthz HTTP/1.1\r\n\r\n", waited_ms=0), PEER)
    assert isinstance(verdict, Visit)


@pytest.mark.parametrize("mode", ["off", "shadow"])
def test_a_shedder_that_does_not_enforce_refuses_nobody(mode):
    verdict = gate_of(Shedder(mode=mode)).look(Lying(), PEER)
    assert not isinstance(verdict, tuple)


def test_headers_count_as_in_the_middleware():
    asked = []

    def identity(info):
        asked.append((info.method, info.path, info.headers.get("cookie"), info.peer))
        return "one"

    shedder = Shedder(identity=identity)
    data = b"GET /a%20b?c HTTP/1.1\r\nCOOKIE: d\r\nX-GroundFault-Criticality: sheddable\r\n\r\n"
    assert isinstance(gate_of(shedder).look(Lying(data), ("192.0.2.1", 1)), tuple)
    assert asked == [("GET", "/a b", "d", "192.0.2.1")]
    (((_, criticality), count),) = shedder.snapshot().shed.items()
    assert (criticality.value, count) == ("sheddable", 1)


def test_an_error_of_ours_leaves_the_request_to_gunicorn(monkeypatch):
    def broken(*_args, **_kwargs):
        raise RuntimeError("ours")

    monkeypatch.setattr(_gunicorn_gate, "arrive", broken)
    assert gate_of(Shedder()).look(Lying(), PEER) is None
    assert internal_errors() == {"gunicorn gate": 1}


def test_an_error_in_the_making_of_an_answer_leaves_the_request_to_gunicorn_as_well(monkeypatch):
    def broken(*_args, **_kwargs):
        raise RuntimeError("ours")

    monkeypatch.setattr(_gunicorn_gate.wire, "answer", broken)
    gate = gate_of(Shedder())
    for _ in range(3):  # the first of an episode goes the long way, the others the short one
        assert gate.look(Lying(), PEER) is None
    assert internal_errors() == {"gunicorn gate": 3}


def test_a_head_as_long_as_what_is_read_may_have_more_behind_it():
    filler = b"X-A: " + b"a" * 4000 + b"\r\n"
    data = b"GET / HTTP/1.1\r\n" + filler * 2
    data += b"X-B: " + b"b" * (8192 - len(data) - 9) + b"\r\n\r\n"
    assert len(data) == 8192
    gate = gate_of(Shedder())
    for _ in range(3):
        _, consumed, whole, _ = gate.look(Lying(data + PLAIN), PEER)
        assert (consumed, whole) == (8192, False)


def test_the_outermost_shedder_decides_before_the_parser():
    outer = WSGILoadShedder(WSGILoadShedder(lambda environ, start_response: []))
    gate = gate_of(None)
    gate.around(outer)
    assert gate.shedder is outer.shedder
    hidden = gate_of(None)
    hidden.around(outer.__call__)
    assert hidden.shedder is None


def test_the_application_can_be_copied():
    app = copy.copy(gate_of(None).around(WSGILoadShedder(len)))
    assert app.app is len


def test_an_answer_says_what_the_settings_say():
    gate = gate_of(Shedder(service="saber", retry_after_s=(7, 7)))
    answer, *_ = gate.look(Lying(b"HEAD / HTTP/1.0\r\nAccept: text/html\r\n\r\n"), PEER)
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.0 503 Service Unavailable"
    assert {"Connection: close", "X-GroundFault-Origin: saber", "Retry-After: 7"} <= set(lines)
    assert lines[2].startswith("Date: ")
    assert body == b""


def test_refusals_are_logged_once_a_minute(caplog):
    gate = gate_of(Shedder(sinks=()))
    caplog.set_level(logging.INFO)
    for _ in range(3):
        gate.look(Lying(), PEER)
    since = gate._refused_since
    gate.log_refusals(since + 59, due_s=60)
    assert not caplog.messages
    gate.log_refusals(since + 61, due_s=60)
    gate.log_refusals(since + 200, due_s=60)  # none since
    (message,) = caplog.messages
    assert message == "groundfault: refused 3 queue-wait before parsing, in 61 s"


# --- closing ---


def pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=5))
        server, _ = listener.accept()
    return stack.enter_context(server), client


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


def await_empty(closer: Closer) -> None:
    for _ in range(40):
        if not len(closer):
            return
        closer._ended.wait(0.1)
        closer._ended.clear()
    raise AssertionError(f"{len(closer)} are left")


def test_a_connection_read_to_its_end_is_closed_at_once(stack):
    closer, (server, client) = Closer(), pair(stack)
    server.sendall(b"answer")
    closer.note_read_to_end(server)
    closer.close(server)
    assert server.fileno() == -1
    assert client.recv(100) == b"answer"
    assert client.recv(100) == b""


def test_a_request_that_was_pipelined_costs_nobody_the_end_of_an_answer(stack):
    closer, (server, client) = Closer(), pair(stack)
    answer = b"y" * 200_000
    server.sendall(answer)
    client.sendall(PLAIN)  # behind the request that was read to its end
    closer.note_read_to_end(server)
    closer.close(server)
    received = b""
    while chunk := client.recv(65_536):
        received += chunk
    assert received == answer
    client.close()
    await_empty(closer)


def test_a_connection_that_was_closed_before_its_request_was_noted_is_let_be(stack):
    """As gunicorn does where the application fails in the middle of an answer, and the client has closed as well."""
    closer, (server, client) = Closer(), pair(stack)
    client.close()
    closer.close(server)
    closer.note_read_to_end(server)
    closer.close(server)
    assert server.fileno() == -1
    assert not closer._read_to_end


def test_a_connection_that_is_closed_twice_is_seen_off_once(stack):
    closer, (server, client) = Closer(), pair(stack)
    client.sendall(b"unread")
    closer.close(server)
    closer.note_read_to_end(server)
    closer.close(server)
    assert len(closer) == 1
    assert server.fileno() != -1
    assert not closer._read_to_end
    closer.finish(0.0)


def test_a_connection_with_something_left_unread_is_seen_off(stack):
    closer, (server, client) = Closer(), pair(stack)
    client.sendall(b"unread")
    closer.close(server)
    assert len(closer) == 1
    closer.finish(0.0)
    assert server.fileno() == -1


def test_a_peer_still_sending_gets_the_whole_answer(stack):
    closer, (server, client) = Closer(), pair(stack)
    client.sendall(b"x" * 100_000)
    answer = b"y" * 200_000
    server.sendall(answer)
    closer.close(server)
    for _ in range(20):
        client.sendall(b"x" * 100_000)
    received = b""
    while chunk := client.recv(65_536):
        received += chunk
    assert received == answer
    assert len(closer) == 1
    client.close()
    await_empty(closer)
    assert server.fileno() == -1


def test_a_peer_that_has_closed_is_not_waited_for(stack):
    closer, (server, client) = Closer(), pair(stack)
    client.sendall(b"x")
    client.close()
    server.recv(1, socket.MSG_PEEK)
    server.settimeout(5)
    while server.recv(100):
        pass
    closer.close(server)
    assert (len(closer), server.fileno()) == (0, -1)


def test_a_silent_peer_is_closed_after_a_while(stack, monkeypatch):
    monkeypatch.setattr(_gunicorn_closing, "QUIET_S", 0.0)
    closer, (server, _client) = Closer(), pair(stack)
    closer.close(server)
    await_empty(closer)
    assert server.fileno() == -1


def test_beyond_the_bound_the_oldest_goes(stack, monkeypatch):
    monkeypatch.setattr(_gunicorn_closing, "MOST", 2)
    closer = Closer()
    servers = [pair(stack)[0] for _ in range(3)]
    for server in servers:
        closer.close(server)
    assert [server.fileno() == -1 for server in servers] == [True, False, False]
    closer.finish(0.0)
    assert [server.fileno() for server in servers] == [-1] * 3


def test_closing_never_raises(stack):
    closer, (server, client) = Closer(), pair(stack)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()  # a reset
    closer.close(server)
    closer.close(server)
    assert len(closer) == 0


# --- the way out ---


class Door:
    family = socket.AF_INET

    def __init__(self) -> None:
        self.closed = 0

    def setsockopt(self, *_: object) -> None:
        self.closed += 1


@pytest.mark.parametrize(
    ("graceful_s", "seen_until", "over_from", "over_at"),
    [
        (30.0, 0.0, 0.5, 0.6),  # nobody comes
        (30.0, 2.0, 2.5, 2.6),  # until two seconds have passed
        (30.0, 99.0, 5.0, None),  # they do not stop: the door is closed after five seconds
        (3.0, 99.0, 2.0, 2.0),  # or a second before the master kills
    ],
)
def test_a_worker_tells_until_nobody_comes_then_closes_the_door_then_goes(graceful_s, seen_until, over_from, over_at):
    stop, door, now = Stop(), Door(), 100.0
    stop.begin(now, graceful_s)
    closed_at = over = None
    for tick in range(1, 700):
        now = 100.0 + tick / 20
        if tick / 20 <= seen_until:
            stop.saw(now)
        over = stop.is_over(now, [door])
        if door.closed and closed_at is None:
            closed_at = tick / 20
        if over:
            break
    assert closed_at == pytest.approx(over_from, abs=0.051)
    assert door.closed == 1
    expected = over_at if over_at is not None else graceful_s - 1
    assert now - 100.0 == pytest.approx(expected, abs=0.11)


class OpenDoor(Door):
    def setsockopt(self, *_: object) -> None:
        raise PermissionError


def test_who_may_not_close_the_door_does_not_wait_for_quiet():
    """Clients that go on coming would else keep it for the whole of ``graceful_timeout``."""
    stop = Stop()
    stop.begin(100.0, 30.0)
    for tick in range(100):
        stop.saw(100 + tick / 20)
        assert not stop.is_over(100 + tick / 20, [OpenDoor()])
    stop.saw(105.0)
    assert stop.is_over(105.0, [OpenDoor()])


def other_process(stack: ExitStack, *fds: int) -> int:
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=fds
    )
    stack.callback(process.wait, 10)
    assert process.stdin is not None
    stack.callback(process.stdin.close)
    return process.pid


def test_a_server_stops_only_if_nobody_else_can_take_its_connections(stack):
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    master = other_process(stack)
    assert server_is_stopping([listener], master)
    assert not server_is_stopping([listener], os.getpid())  # the master holds it: a reload
    assert not server_is_stopping([listener], 2**22 + 1)  # no such process, or not to be read
    assert not server_is_stopping([], master)
    with ExitStack() as inner:
        other_process(inner, listener.fileno())  # a new master after USR2, say: its parent is not ours
        assert not server_is_stopping([listener], master)
    assert server_is_stopping([listener], master)


def test_a_new_master_that_has_no_workers_yet_is_no_sibling(stack):
    """After SIGUSR2 it is a child of the old master, as the old workers are, and holds the listeners as they do."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    new = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    old = f"""
import os, subprocess, sys
new = subprocess.Popen({new!r}, stdin=subprocess.PIPE, pass_fds=[{listener.fileno()}])
os.close({listener.fileno()})
print("begun", flush=True)
sys.stdin.read()
new.communicate()
"""
    master = subprocess.Popen(
        [sys.executable, "-c", old], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[listener.fileno()]
    )
    stack.callback(master.communicate, timeout=10)
    assert master.stdout is not None
    assert master.stdout.readline() == b"begun\n"
    assert not server_is_stopping([listener], master.pid)


class HandedIn(socket.socket):
    """As gunicorn has listeners: with the configuration they were made by."""

    conf: SimpleNamespace


@pytest.mark.parametrize(
    ("passed", "address", "stops"),
    [("master", [("", 80)], False), ("1", [("", 80)], True), (None, [3], False), (None, ["/run/s"], True)],
    ids=["systemd", "for another process", "fd://", "its own"],
)
def test_a_listener_that_was_handed_in_is_served_again_later_and_its_door_stays_open(stack, passed, address, stops):
    """Whoever holds it meanwhile may be root, whom /proc does not show."""
    listener = stack.enter_context(HandedIn())
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    master = other_process(stack)
    env = {} if passed is None else {"LISTEN_PID": passed.replace("master", str(master)), "LISTEN_FDS": "1"}
    listener.conf = SimpleNamespace(env_orig=env, address=address)
    assert server_is_stopping([listener], master) is stops


def test_a_closed_door_lets_nobody_in_and_loses_nobody_who_is_inside(stack):
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    inside = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=5))
    closed = _gunicorn_stop._close_the_door(listener)  # recent kernels want CAP_NET_ADMIN for it
    with pytest.raises(TimeoutError) if closed else nullcontext():
        stack.enter_context(socket.create_connection(listener.getsockname(), timeout=0.2))
    server, _ = listener.accept()
    stack.enter_context(server)
    inside.sendall(b"question")
    assert server.recv(100) == b"question"
    server.sendall(b"answer")
    assert inside.recv(100) == b"answer"


# --- configuration files ---


@pytest.mark.parametrize(
    ("namespace", "worker_class"),
    [
        ({}, "SyncWorker"),
        ({"worker_class": "sync"}, "SyncWorker"),
        ({"worker_class": "sync", "threads": 4}, "ThreadWorker"),
        ({"threads": 4}, "ThreadWorker"),
        ({"threads": "4"}, "ThreadWorker"),
        ({"threads": "four"}, "SyncWorker"),
        ({"worker_class": "gthread"}, "ThreadWorker"),
        ({"worker_class": "gevent"}, None),
        ({"worker_class": kit.SyncWorker}, None),
    ],
)
def test_install_puts_our_classes_in_the_place_of_stock_ones(namespace, worker_class):
    before = namespace.get("worker_class")
    kit.install(namespace)
    expected = before if worker_class is None else f"groundfault.integrations.gunicorn.{worker_class}"
    assert namespace["worker_class"] == expected
    cfg = Config()
    cfg.set("post_worker_init", namespace["post_worker_init"])


def stock_worker(worker_class="sync"):
    cfg = Config()
    cfg.set("worker_class", worker_class)
    return SimpleNamespace(cfg=cfg, sockets=[], log=logging.getLogger("test"), ppid=0)


@pytest.mark.parametrize(
    ("worker_class", "warned"),
    [("groundfault.integrations.gunicorn.SyncWorker", True), (kit.SyncWorker, False), ("gthread", False)],
)
def test_who_gets_gunicorn_s_class_for_ours_is_told(caplog, worker_class, warned):
    """With --threads on the command line, which no configuration file sees."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        kit.post_worker_init(stock_worker(worker_class))
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert ("in the place of our SyncWorker" in caplog.text) == warned
    assert not internal_errors()


def test_install_runs_the_users_hook_first_and_ours_once():
    called = []
    namespace = {"post_worker_init": called.append}
    kit.install(namespace)
    worker = stock_worker()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        namespace["post_worker_init"](worker)
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert called == [worker]
    again = {"post_worker_init": kit.post_worker_init}
    kit.install(again)
    assert again["post_worker_init"] is kit.post_worker_init


def test_a_stock_worker_drains_when_the_server_stops(monkeypatch):
    stopping = []
    monkeypatch.setattr(kit, "server_is_stopping", lambda _sockets, _parent: bool(stopping))
    shedder, before, called = Shedder(), signal.getsignal(signal.SIGTERM), []
    signal.signal(signal.SIGTERM, lambda *_: called.append("stock"))
    try:
        kit.post_worker_init(stock_worker())
        signal.raise_signal(signal.SIGTERM)
        assert (called, shedder.snapshot().draining) == (["stock"], False)
        stopping.append(True)
        signal.raise_signal(signal.SIGTERM)
        assert (called, shedder.snapshot().draining) == (["stock"] * 2, True)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_timeout_for_all_sockets_is_not_for_the_server_s(stack):
    """As an application sets it for calls it makes; a client whose answer is large would be cut off."""

    class Listener:
        def __init__(self, sock):
            self.sock = sock
            self.accept = sock.accept

    with socket.create_server(("127.0.0.1", 0)) as sock:
        worker, listener, accepted = object.__new__(kit.SyncWorker), Listener(sock), []
        worker._kinds = {}
        worker.handle = lambda _listener, client, _addr: accepted.append(stack.enter_context(client))
        stack.callback(socket.setdefaulttimeout, socket.getdefaulttimeout())
        for timeout in (None, 5.0, 5.0):
            stack.enter_context(socket.create_connection(sock.getsockname()))
            socket.setdefaulttimeout(timeout)
            worker.accept(listener)
    assert [each.gettimeout() for each in accepted] == [None, None, None]


def test_the_worker_classes_are_gunicorns():
    assert issubclass(kit.SyncWorker, sync.SyncWorker)
    assert issubclass(kit.ThreadWorker, gthread.ThreadWorker)
