"""The ways to a request's socket."""

import socket
import sys
from types import SimpleNamespace

import pytest

from groundfault.shedding import _connection
from groundfault.shedding._connection import CONNECTION, connection_of_asgi, connection_of_wsgi
from groundfault.shedding._wait import Bracket


@pytest.fixture
def server_end():
    """Return the server's end of a TCP connection on which something has been sent."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        server, _ = listener.accept()
        client.sendall(b"x")
        with server:
            yield server


@pytest.mark.parametrize("name", ["gunicorn.socket", "werkzeug.socket"])
def test_the_way_to_the_socket_under_wsgi(name, server_end):
    assert isinstance(connection_of_wsgi({name: server_end}).read(), Bracket)


def test_without_a_way_there_is_a_cause(server_end):
    assert connection_of_wsgi({}).read().startswith("no way to the request's socket")
    assert connection_of_wsgi({}).peer("named") == "named"


def test_the_way_to_the_socket_under_asgi(server_end):
    class Cycle:
        transport = SimpleNamespace(get_extra_info={"socket": server_end, "peername": ("192.0.2.1", 5)}.get)

        async def receive(self):
            pass

    async def wrapped():
        pass

    connection = connection_of_asgi({}, Cycle().receive, None)
    assert isinstance(connection.read(), Bracket)
    assert connection.peer("named") == "192.0.2.1"
    assert isinstance(connection_of_asgi({}, wrapped, None).read(), str)
    assert isinstance(connection_of_asgi({}, None, None).read(), str)


def test_a_server_whose_objects_take_no_attribute_is_measured_as_well(server_end):
    class Protocol:
        __slots__ = ("transport",)

        async def receive(self):
            pass

    protocol = Protocol()
    protocol.transport = SimpleNamespace(get_extra_info={"socket": server_end}.get)
    assert isinstance(connection_of_asgi({}, protocol.receive, None).read(), Bracket)


@pytest.mark.parametrize(("layers", "tls"), [(0, False), (1, True)])
def test_the_way_to_the_socket_under_hypercorn_on_trio(server_end, layers, tls):
    stream = SimpleNamespace(socket=server_end)
    for _ in range(layers):
        stream = SimpleNamespace(transport_stream=stream)
    server = type("TCPServer", (), {"stream": stream, "protocol_send": lambda self: None})()
    protocol = type("H2Protocol", (), {"streams": {1: None}, "stream_send": lambda self: None})()
    protocol.send = server.protocol_send
    http = type("HTTPStream", (), {"__module__": "hypercorn.protocol.http_stream", "app_send": lambda self: None})()
    http.send = protocol.stream_send
    connection = connection_of_asgi({}, None, http.app_send)
    assert isinstance(connection.read(), str if tls else Bracket)  # the handshake hides the first one's wait
    assert isinstance(connection.read(), Bracket)
    protocol.streams[3] = None
    assert connection.read().startswith("HTTP/2 with several streams")
    assert connection_of_asgi({}, None, http.app_send) is connection


@pytest.fixture
def named_end():
    """Return what a server bound to all addresses says of a connection, and the connection."""
    with (
        socket.create_server(("0.0.0.0", 0)) as listener,  # noqa: S104  it is the point
        socket.create_connection(("127.0.0.1", listener.getsockname()[1])) as client,
    ):
        server, _ = listener.accept()
        client.sendall(b"x")
        with server:
            yield {"http_version": "1.1", "server": listener.getsockname(), "client": client.getsockname()}


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel by name")
def test_a_server_bound_to_all_addresses_names_its_connections_too(named_end):
    """As granian does in a container."""
    connection = connection_of_asgi(named_end, None, None)
    assert isinstance(connection.read(), Bracket)
    assert connection.peer("192.0.2.1") == "127.0.0.1"


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel by name")
def test_a_connection_that_does_not_exist_is_not_taken_for_the_listening_socket(named_end):
    """Which the kernel finds in its place; else whoever may write the client's address chooses whom to be."""
    for server in (named_end["server"], ("127.0.0.1", named_end["server"][1])):
        connection = connection_of_asgi({**named_end, "server": server, "client": ("127.0.0.1", 1)}, None, None)
        assert connection.read().startswith("sock_diag: no such connection here")
        assert connection.peer("127.0.0.1") == ""


@pytest.mark.parametrize("multithread", [True, False])
def test_what_came_before_is_known_on_servers_that_name_no_threads(server_end, multithread):
    """gevent.pywsgi keeps connections: what is pipelined there must not look like the first request on one."""
    environ = {"wsgi.input": server_end, "wsgi.multithread": multithread}
    assert connection_of_wsgi(environ).read().exact
    assert connection_of_wsgi(environ)._segments == 1


@pytest.mark.parametrize(
    ("queued", "waited_s"),
    [
        ("1600000000.25", 0.75),  # mod_wsgi from 6.0 on
        (1_600_000_000.25, 0.75),
        ("1600000000250000", 0.75),  # before, in microseconds
        ("1600000001.02", 0.0),
        ("1600000002", None),
        ("never", None),
        ("nan", None),
        (None, None),
    ],
)
def test_mod_wsgi_says_itself_when_it_took_a_request(monkeypatch, queued, waited_s):
    monkeypatch.setattr(_connection, "wall", lambda: 1_600_000_001.0)
    reading = connection_of_wsgi({"mod_wsgi.queue_start": queued}).read()
    if waited_s is None:
        assert reading == "mod_wsgi.queue_start is no time"
    else:
        assert (reading.lower_s, reading.signal) == (pytest.approx(waited_s), "mod-wsgi")


def test_uwsgi_lends_its_descriptor(monkeypatch, server_end):
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(connection_fd=server_end.fileno))
    connection = connection_of_wsgi({})
    assert isinstance(connection.read(), Bracket)
    assert connection.peer("192.0.2.1") == "127.0.0.1"
    del connection
    assert server_end.getpeername()[0] == "127.0.0.1"  # still open


def test_who_the_peer_is_the_socket_says(server_end):
    """Whatever a header has made of REMOTE_ADDR, as behind waitress' trusted_proxy."""
    environ = {"gunicorn.socket": server_end, "REMOTE_ADDR": "192.0.2.1"}
    assert connection_of_wsgi(environ).peer("192.0.2.1") == "127.0.0.1"
    server_end.close()
    assert connection_of_wsgi(environ).peer("127.0.0.1") == ""


@pytest.mark.parametrize("server", [{}, {"mod_wsgi.queue_start": "1600000000"}])
@pytest.mark.parametrize("name", ["HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP"])
def test_without_a_socket_an_address_that_may_be_of_a_header_s_making_is_nobody_s(server, name):
    """Behind werkzeug's ProxyFix, or that of granian, anybody could claim to be on this host."""
    assert connection_of_wsgi(server).peer("127.0.0.1") == "127.0.0.1"
    assert connection_of_wsgi({**server, name: "127.0.0.1"}).peer("127.0.0.1") == ""


def test_what_came_before_on_a_kept_connection_is_known_under_wsgi_too(server_end):
    environ = {"gunicorn.socket": server_end, "wsgi.multithread": True}
    assert connection_of_wsgi(environ).read().exact
    assert connection_of_wsgi(environ)._segments == 1


def test_a_connection_given_in_the_environ_goes_first(server_end):
    given = connection_of_wsgi({})
    assert connection_of_wsgi({CONNECTION: given, "gunicorn.socket": server_end}) is given
