"""The kernel's word on the wait, asked of real sockets; and every way in which it cannot be had."""

import errno
import socket
import struct
import threading
import time
from types import SimpleNamespace

import pytest

from groundfault.shedding import _socket
from groundfault.shedding._socket import Connection, SelfTest, read
from groundfault.shedding._wait import LEFT, Bracket


@pytest.fixture
def pair():
    """Return the two ends of a TCP connection."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        server, _ = listener.accept()
        with server:
            yield client, server


def test_the_kernel_knows_how_long_ago_the_last_byte_came(pair):
    client, server = pair
    client.sendall(b"GET / HTTP/1.1\r\n")
    time.sleep(0.05)
    client.sendall(b"\r\n")
    time.sleep(0.05)
    limits = read(server)
    assert 0.03 <= limits.lower_s < 0.1
    assert limits.upper_s >= limits.lower_s + 0.03
    server.recv(100)
    assert read(server).lower_s >= limits.lower_s  # reading the bytes does not reset it


def test_a_peer_that_has_closed_its_half_is_measured_still(pair):
    client, server = pair
    client.sendall(b"x")
    client.shutdown(socket.SHUT_WR)
    time.sleep(0.02)
    assert isinstance(read(server), Bracket)


def test_a_unix_socket_has_no_such_field():
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert read(one) == "a unix socket, which has no TCP_INFO"


def test_who_was_sent_away_has_left(pair):
    _, server = pair
    server.close()
    assert read(server) == LEFT


def test_a_listener_is_no_connection():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert read(listener) == "TCP_INFO: the connection is gone"


class _Telling:
    """Stands for a socket whose kernel says: this long ago sent, this long ago received, in so many segments."""

    family = socket.AF_INET

    def getsockopt(self, *_):
        sent_ms, recv_ms, segments = self.says
        return struct.pack("=B43xI4xI96xI", 1, sent_ms, recv_ms, segments)


@pytest.mark.parametrize(
    ("first", "second", "continued", "expected"),
    [
        ((9000, 0, 1), (2000, 300, 2), False, (0.3, True)),  # kept alive: the client had read the answer before
        ((9000, 0, 1), (2000, 300, 2), True, (0.3, True)),
        ((9000, 0, 2), (0, 900, 2), False, (0.0, False)),  # pipelined: served on the turn of the one in front
        ((9000, 0, 1), (0, 900, 2), False, (0.0, False)),
        ((9000, 0, 1), (0, 900, 2), True, (0.0, False)),  # likewise, or of 100 Continue: nobody can tell
        (None, (0, 900, 1), True, (0.9, True)),  # the first on its connection: what was sent is 100 Continue
        (None, (0, 4, 1), False, (0.0, True)),  # nothing but a tick of the clock
    ],
)
def test_what_a_pipelining_client_shows_moves_no_queue(first, second, continued, expected):
    """Neither does its wait for its own connection look like one, nor is its turn a proof that none stands."""
    sock = _Telling()
    connection = Connection(sock)
    if first is not None:
        sock.says = first
        connection.read()
    sock.says = second
    seen = connection.read(continued=continued)
    assert (seen.lower_s, seen.exact) == expected


def test_a_server_that_cannot_say_whether_it_closes_costs_no_request(pair):
    def is_closing():
        raise AttributeError("no transport")

    assert Connection(pair[1], is_closing=is_closing).read() == "TCP_INFO: AttributeError"


def _raising(error):
    def getsockopt(*_):
        raise error

    return SimpleNamespace(getsockopt=getsockopt, family=socket.AF_INET)


@pytest.mark.parametrize(
    ("sock", "cause"),
    [
        (None, "no way to the request's socket"),
        (object(), "TCP_INFO: object is no socket"),
        (SimpleNamespace(getsockopt=lambda *_: b"short"), "TCP_INFO: error"),
        (SimpleNamespace(getsockopt=lambda *_: 7), "TCP_INFO: TypeError"),
        (_raising(OSError(errno.ENOPROTOOPT, "no")), "TCP_INFO: Protocol not available"),
        (_raising(OSError()), "TCP_INFO: refused"),
        (_raising(RuntimeError()), "TCP_INFO: RuntimeError"),
    ],
)
def test_every_other_object_has_a_cause_and_raises_nothing(sock, cause):
    assert read(sock).startswith(cause)


def test_elsewhere_than_on_linux_there_is_no_signal(pair, monkeypatch):
    monkeypatch.setattr(_socket, "_LINUX", False)
    assert read(pair[1]).startswith("no usable TCP_INFO on ")
    test = SelfTest()
    test.start()
    assert test.failure is None


def test_this_kernel_passes_the_self_test():
    test = SelfTest()
    test.run()
    assert test.failure is None


@pytest.mark.parametrize(
    ("seen", "failure"),
    [
        (Bracket(0.0, 0.0), "self-test: the kernel reads 0 ms after a wait of 30 ms"),
        (Bracket(0.02, 0.02), None),
        (Bracket(0.5, 0.5), None),
        ("TCP_INFO: Protocol not available", "TCP_INFO: Protocol not available"),
    ],
)
def test_the_verdicts_of_the_self_test(monkeypatch, seen, failure):
    monkeypatch.setattr(_socket, "read", lambda _: seen)
    test = SelfTest()
    test.run()
    assert test.failure == failure


def test_the_self_test_runs_once_per_process_and_beside_the_request(monkeypatch):
    started = []

    class Thread(threading.Thread):
        def start(self):
            started.append(self.daemon)

    monkeypatch.setattr(threading, "Thread", Thread)
    test = SelfTest()
    for _ in range(3):
        test.start()
    assert started == [True]
    monkeypatch.setattr("os.getpid", lambda: -1)  # a child of a fork
    test.start()
    assert started == [True, True]


@pytest.mark.parametrize("failure", [OSError(errno.EADDRNOTAVAIL, "no loopback"), TimeoutError("timed out")])
def test_who_cannot_be_tested_is_not_said_to_fail(monkeypatch, failure):
    """Neither on a machine without loopback, nor in an event loop that was blocked meanwhile."""

    def no_server(*_, **__):
        raise failure

    monkeypatch.setattr(socket, "create_server", no_server)
    test = SelfTest()
    test.run()
    assert test.failure is None
