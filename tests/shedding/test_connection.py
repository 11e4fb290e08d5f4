"""The ways to a request's socket."""

import socket
from types import SimpleNamespace

import pytest

from groundfault.shedding._connection import connection_of_asgi, connection_of_wsgi
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
