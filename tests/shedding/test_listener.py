"""The kernel asked about sockets that are not at hand, and the queue in front of accept."""

import errno
import socket
import struct
import threading
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault.events import BacklogWarning
from groundfault.shedding import _connection, _listener, _sockdiag
from groundfault.shedding._connection import connection_of_asgi
from groundfault.shedding._listener import AcceptQueue, ListenerWatch, note_listener, overflows
from groundfault.shedding._sockdiag import Accepting, SockDiag, TcpByName
from groundfault.shedding._socket import Connection
from groundfault.shedding._wait import Bracket
from groundfault.shedding.shedder import Shedder
from groundfault.sinks import Sinks


@pytest.fixture(autouse=True)
def _no_port_known(monkeypatch):
    monkeypatch.setattr(_listener, "_ports", set())


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request):
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family, backlog=4) as listener:
        yield listener


@pytest.fixture
def pair(listener):
    with socket.create_connection(listener.getsockname()[:2]) as client:
        server, _ = listener.accept()
        with server:
            yield client, server


def name_of(sock):
    return sock.getsockname()[:2], sock.getpeername()[:2]


# --- connections by name ----------------------------------------------------------------------------------------------


def test_a_connection_is_found_by_its_addresses(pair):
    client, server = pair
    client.sendall(b"x")
    connection = Connection(TcpByName(*name_of(server)), signal="sock-diag")
    assert isinstance(connection.read(), Bracket)
    assert connection.peer(None) == client.getsockname()[0]


def test_a_name_that_is_nobodys_has_a_cause_and_no_peer():
    connection = Connection(TcpByName(("127.0.0.1", 1), ("192.0.2.1", 2)))
    assert connection.read().startswith("sock_diag: no such connection here")
    assert connection.peer("192.0.2.1") == ""


def scope_of(server, client, **more):
    return {"server": server, "client": client, "scheme": "http", "http_version": "1.1", **more}


@pytest.mark.parametrize("ports", [int, str])  # granian writes them as text
def test_a_server_that_names_both_ends_needs_no_socket(pair, ports):
    client, server = pair
    client.sendall(b"x")
    here, there = ((host, ports(port)) for host, port in name_of(server))
    reading = connection_of_asgi(scope_of(here, there), None, None).read()
    assert (reading.signal, reading.exact) == ("sock-diag", True)


def test_by_name_too_a_request_in_pieces_is_a_lower_bound_only(pair):
    client, server = pair
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    here, there = name_of(server)
    client.sendall(b"x")
    assert connection_of_asgi(scope_of(here, there), None, None).read().exact
    for _ in range(3):
        client.sendall(b"x")
        _sleep()
    assert not connection_of_asgi(scope_of(here, there), None, None).read().exact
    assert connection_of_asgi(scope_of(here, there), None, None).read().exact


def _sleep():
    threading.Event().wait(0.01)  # the kernel's clock, which nobody can wind


def test_what_is_remembered_of_names_is_bounded_and_forgives(monkeypatch, pair):
    """A name may be used again: who has sent less than was known of it is somebody else."""
    client, server = pair
    client.sendall(b"x")
    here, there = name_of(server)
    known = {(here, there): [7], "other": [1]}
    monkeypatch.setattr(_connection, "_of_names", known)
    assert connection_of_asgi(scope_of(here, there), None, None).read().exact
    assert known[here, there] == [1]
    monkeypatch.setattr(_connection, "_MAX_NAMES", 2)
    assert isinstance(connection_of_asgi(scope_of(there, here), None, None).read(), Bracket)
    assert list(known) == [(there, here)]


def test_by_name_too_tls_hides_a_first_request(pair):
    client, server = pair
    client.sendall(b"x")
    here, there = name_of(server)
    first, second = (connection_of_asgi(scope_of(here, there, scheme="https"), None, None).read() for _ in range(2))
    assert first.startswith("TLS in this process")
    assert isinstance(second, Bracket)


@pytest.mark.parametrize(
    ("server", "client", "version", "cause"),
    [
        (None, ("127.0.0.1", 5), "1.1", "no way"),
        (("127.0.0.1", 80), None, "1.1", "no way"),
        (("127.0.0.1", 80), ("testclient", 5), "1.1", "no way"),
        (("127.0.0.1", 80), ("127.0.0.1", 0), "1.1", "no way"),  # as behind a proxy's headers
        (("127.0.0.1", 80), ("127.0.0.1", 65_536), "1.1", "no way"),
        (("127.0.0.1", 80), ("127.0.0.1", "-1"), "1.1", "no way"),
        (("/run/served.sock", None), ("127.0.0.1", 5), "1.1", "no way"),
        (("127.0.0.1", 80), ("127.0.0.1", 5), "2", "HTTP/2"),
        (("127.0.0.1", 1), ("::1", 5), "1.1", "tcp-info"),
        (("127.0.0.1", 1), ("127.0.0.1", 2), "1.1", "sock_diag: no such connection"),
    ],
)
def test_what_names_no_connection_of_ip_has_a_cause(server, client, version, cause):
    found = connection_of_asgi(scope_of(server, client, http_version=version), None, None).read()
    assert found.lower().startswith(cause.lower()) or found.startswith("TCP_INFO")


@pytest.mark.parametrize("port", [0, "0"])
def test_an_address_from_a_header_is_nobodys(port):
    """As uvicorn's proxy headers write it, and granian's: whoever is named there may have written it himself."""
    connection = connection_of_asgi(scope_of(("127.0.0.1", 80), ("127.0.0.1", port)), None, None)
    assert connection.read() == "no way to the request's socket, and a header has replaced its address"
    assert connection.peer("127.0.0.1") == ""


_any = st.one_of(st.none(), st.integers(), st.text(), st.binary(), st.floats(), st.lists(st.integers()))


@given(st.tuples(_any, _any), st.one_of(_any, st.tuples(_any, _any), st.lists(_any)))
def test_no_name_raises(server, client):
    connection = connection_of_asgi(scope_of(server, client), None, None)
    assert isinstance(connection.read(), str)
    connection.peer("named")


# --- netlink itself ---------------------------------------------------------------------------------------------------


class Netlink:
    """Gives prepared answers to whatever is asked; ``{number}`` of each is that of the question, plus ``off``."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def send(self, question):
        self.number = struct.unpack_from("=IHHII", question)[3]

    def recv(self, size):
        if not self.answers:
            raise BlockingIOError(errno.EAGAIN, "nothing there")
        kind, off, body = self.answers.pop(0)
        return struct.pack("=IHHII", 16 + len(body), kind, 0, self.number + off, 0) + body


def asked(*answers):
    diag = SockDiag()
    diag._socket = Netlink(*answers)
    return diag


HERE, THERE = ("127.0.0.1", 1), ("127.0.0.1", 2)
FOUND = struct.pack("!6xH64x", THERE[1])  # struct inet_diag_msg, with the port at the other end
LISTENING = bytes(72)


def test_an_answer_to_an_older_question_is_skipped():
    attribute = struct.pack("=HH", 8, 2) + b"info"
    diag = asked((20, -1, FOUND + struct.pack("=HH", 8, 2) + b"else"), (20, 0, FOUND + attribute))
    assert diag.tcp_info(HERE, THERE) == b"info"


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ((2, 0, struct.pack("=i", -errno.ENOENT)), errno.ENOENT),
        ((2, 0, struct.pack("=i", -errno.EPERM)), errno.EPERM),
        ((20, 0, FOUND), errno.ENODATA),
        ((20, 0, FOUND + struct.pack("=HH", 0, 0)), errno.ENODATA),
        ((20, 0, LISTENING + struct.pack("=HH", 8, 2) + b"info"), errno.ENOENT),
        ((20, 0, b""), errno.ENOENT),
    ],
)
def test_every_other_answer_is_an_oserror(answer, number):
    with pytest.raises(OSError) as caught:  # noqa: PT011  its number is looked at
        asked(answer).tcp_info(HERE, THERE)
    assert caught.value.errno == number


@given(st.lists(st.tuples(st.integers(0, 40), st.just(0), st.binary(max_size=200)), max_size=4))
def test_no_answer_does_worse(answers):
    for ask in (lambda diag: diag.tcp_info(HERE, THERE), lambda diag: diag.accepting(80)):
        with suppress(OSError):
            ask(asked(*answers))


def test_a_system_without_netlink_says_so(monkeypatch):
    monkeypatch.setattr(_sockdiag, "_NETLINK", None)
    with pytest.raises(OSError, match="Address family not supported"):
        SockDiag().tcp_info(HERE, THERE)


def test_the_child_of_a_fork_asks_for_itself(pair):
    here, there = name_of(pair[1])
    diag = SockDiag()
    diag.tcp_info(here, there)
    parents = diag._socket
    diag._forget()
    assert diag._socket is None
    assert diag.tcp_info(here, there)
    assert diag._socket is not parents
    diag._socket.close()
    parents.close()


# --- the queue in front of accept -------------------------------------------------------------------------------------


def test_the_depth_and_the_limit_of_a_queue_are_the_kernels(listener):
    address = listener.getsockname()[:2]
    with socket.create_connection(address), socket.create_connection(address):
        assert _sockdiag.sock_diag.accepting(address[1]) == [Accepting(2, 4)]
    assert _sockdiag.sock_diag.accepting(1) == []


def test_a_port_is_learned_from_a_connection(pair):
    with socket.socket(socket.AF_UNIX) as unix:
        note_listener(unix)
    note_listener(object())
    assert _listener._ports == set()
    note_listener(pair[1])
    note_listener(pair[0])  # one is enough
    assert _listener._ports == {pair[1].getsockname()[1]}


class Kernel:
    def __init__(self, depth=0, limit=10, count=0):
        self.depth, self.limit, self.count = depth, limit, count
        self.asked = 0

    def ask(self, port):
        self.asked += 1
        return [Accepting(self.depth, self.limit)] if self.limit is not None else []

    def watch(self):
        _listener._ports.add(8000)
        return ListenerWatch(self.ask, lambda: self.count)


def test_it_is_looked_at_once_a_second():
    kernel = Kernel()
    watch = kernel.watch()
    for tenths in range(30):
        watch.look(100 + tenths / 10)
    assert kernel.asked == 3


@pytest.mark.parametrize(("depth", "warns"), [(0, False), (5, False), (6, True), (11, True)])
def test_more_than_half_full_is_worth_a_warning(depth, warns):
    watch = Kernel(depth).watch()
    assert watch.look(100.0) == (AcceptQueue(8000, depth, 10, 0) if warns else None)
    assert watch.queue == AcceptQueue(8000, depth, 10, 0)


def test_whoever_was_turned_away_is_worth_one_as_well():
    """Counted from when this process began; news once, and once a minute."""
    kernel = Kernel(count=500)
    watch = kernel.watch()
    assert watch.look(100.0) is None
    kernel.count = 507
    assert watch.look(105.0) is None  # the counters are read every ten seconds
    assert watch.look(110.0) == AcceptQueue(8000, 0, 10, 7)
    kernel.count = 508
    assert watch.look(130.0) is None
    assert watch.look(170.0) == AcceptQueue(8000, 0, 10, 8)
    assert watch.look(240.0) is None


def test_where_the_kernel_is_silent_there_is_no_gauge():
    def refused(port):
        raise PermissionError(errno.EPERM, "a container's rules")

    _listener._ports.add(8000)
    watch = ListenerWatch(refused, lambda: None)
    assert watch.look(100.0) is None
    assert watch.queue is None
    assert _listener._ports == set()  # the next connection may say better


def test_without_a_port_nothing_is_asked():
    kernel = Kernel()
    watch = ListenerWatch(kernel.ask, lambda: 0)
    assert watch.look(100.0) is None
    assert kernel.asked == 0


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("TcpExt: A ListenOverflows ListenDrops\nTcpExt: 1 26 30\nIpExt: X\nIpExt: 5\n", 26),
        ("TcpExt: A B\nTcpExt: 1 2\n", None),
        ("TcpExt: ListenOverflows\n", None),
        ("TcpExt: ListenOverflows\nTcpExt: many\n", None),
        ("", None),
    ],
)
def test_the_counter_is_read_by_its_name(tmp_path, text, count):
    (tmp_path / "netstat").write_text(text)
    assert overflows(tmp_path / "netstat") == count
    assert overflows(tmp_path / "nothing") is None


def test_a_shedder_shows_the_queue_and_warns_of_it(listener, clock, sink):
    shedder = Shedder(service="served", sinks=Sinks(sink), clock=clock)
    assert shedder.snapshot().accept_queue is None
    note_listener(listener)
    address = listener.getsockname()[:2]
    with socket.create_connection(address), socket.create_connection(address), socket.create_connection(address):
        clock.advance(1.0)
        shedder.admit("GET /", 0.0)
        warning = next(event for event in sink.events if isinstance(event, BacklogWarning))
        assert (warning.service, warning.port, warning.depth, warning.limit) == ("served", address[1], 3, 4)
        assert shedder.snapshot().accept_queue[:3] == (address[1], 3, 4)


def test_an_error_of_the_gauge_costs_no_request(clock, monkeypatch):
    shedder = Shedder(service="served", sinks=(), clock=clock)

    def broken(*_):
        raise RuntimeError

    monkeypatch.setattr(ListenerWatch, "look", broken)
    assert shedder.admit("GET /", 0.0).reason is None
    assert set(shedder.snapshot().internal_errors) == {"accept queue"}
