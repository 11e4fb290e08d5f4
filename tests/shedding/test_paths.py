"""From receive and send to the server's own object, through whatever a middleware has put in front of it."""

import asyncio
import gc
import socket
import threading
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault.shedding import _paths
from groundfault.shedding._connection import CONNECTION, connection_of_asgi
from groundfault.shedding._paths import find_owner
from groundfault.shedding._socket import Connection, borrow
from groundfault.shedding._wait import LEFT, Bracket


class Transport:
    def __init__(self, sock=None):
        self.known = {"socket": sock, "peername": ("192.0.2.1", 5)}

    def get_extra_info(self, name):
        return self.known.get(name)


class Protocol:
    """Stands in the place of uvicorn's, one for each connection."""

    def __init__(self, sock=None):
        self.transport = Transport(sock)

    def on_response_complete(self):
        pass


class RequestResponseCycle:
    """Likewise, one for each request."""

    def __init__(self, protocol):
        self.transport = protocol.transport
        self.on_response = protocol.on_response_complete

    async def receive(self):
        pass

    async def send(self, message):
        pass


RequestResponseCycle.__module__ = "uvicorn.protocols.http.h11_impl"


@pytest.fixture
def cycle():
    return RequestResponseCycle(Protocol())


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch):
    monkeypatch.setattr(_paths, "_routes", {})


# --- wrappers ---------------------------------------------------------------------------------------------------------


def by_closure(function):
    async def wrapped(*arguments):
        return await function(*arguments)

    return wrapped


def by_partial(function):
    async def call(inner, *arguments):
        return await inner(*arguments)

    return partial(call, function)


def by_method(function):
    class Request:
        def __init__(self):
            self._receive = function

        async def receive(self):
            return await self._receive()

    return Request().receive


def by_callable(function):
    class Wrapper:
        def __init__(self):
            self.inner = function

        async def __call__(self):
            return await self.inner()

    return Wrapper()


WRAPPERS = [by_closure, by_partial, by_method, by_callable]


@given(st.lists(st.sampled_from(WRAPPERS), max_size=5))
def test_any_few_layers_of_wrappers_lead_to_the_owner(layers):
    cycle = RequestResponseCycle(Protocol())
    receive = cycle.receive
    for layer in layers:
        receive = layer(receive)
    for _ in range(2):  # the second time by the way remembered
        owner, _ = find_owner(receive, None)
        assert owner is cycle


def test_send_leads_there_as_well(cycle):
    async def receive_of_a_queue():
        pass

    assert find_owner(receive_of_a_queue, by_closure(by_partial(cycle.send)))[0] is cycle


def test_the_way_remembered_leads_to_each_requests_own_owner():
    cycles = [RequestResponseCycle(Protocol()) for _ in range(5)]
    assert [find_owner(by_closure(by_method(cycle.receive)), None)[0] for cycle in cycles] == cycles
    assert len(_paths._routes) == 1


def test_a_wrapper_round_something_else_is_searched_anew(cycle):
    assert find_owner(by_closure(by_method(cycle.receive)), None)[0] is cycle
    assert find_owner(by_closure(cycle.receive), None)[0] is cycle


def test_what_leads_nowhere_is_given_up_after_a_few_tries(monkeypatch):
    walks = []
    walk = _paths._walk
    monkeypatch.setattr(_paths, "_walk", lambda pair: walks.append(1) or walk(pair))

    async def nowhere():
        pass

    for _ in range(50):
        assert find_owner(by_closure(nowhere), None) is None
    assert len(walks) == _paths._TRIES


def test_a_maze_is_left_in_time():
    """Every object of it leads to ten others; looking at few is enough to know."""

    class Maze:
        looked_at = 0

        def __init__(self, depth):
            if depth:
                for number in range(10):
                    setattr(self, f"way_{number}", Maze(depth - 1))

        def __call__(self):
            pass

    assert _paths._walk((Maze(3), None)) == ((), None)


class Hostile:
    """Answers to every name, and to none honestly."""

    def __getattribute__(self, name):
        raise RuntimeError(name)


class Everything:
    """As a mock does: each attribute is another such thing."""

    def __getattr__(self, name):
        return Everything()

    def __call__(self):
        return self


ODD = [lambda: None, lambda: 7, lambda: "receive", Hostile, Everything, lambda: Everything, list, lambda: print]


@pytest.mark.parametrize("make", ODD)
def test_nothing_that_stands_in_the_place_of_receive_raises(make):
    odd = make()
    for receive, send in [(odd, None), (None, odd), (odd, odd)]:
        connection = connection_of_asgi({}, receive, send)
        assert isinstance(connection.read(), str)
        assert connection.peer("named") in {"named", ""}


def test_wrappers_made_at_run_time_do_not_fill_the_memory(cycle):
    for number in range(2 * _paths._REMEMBERED):
        names = {"inner": cycle.receive}
        exec(f"def outer(inner):\n def wrapped_{number}(): return inner()\n return wrapped_{number}", names)  # noqa: S102
        assert find_owner(names["outer"](cycle.receive), None)[0] is cycle
    assert len(_paths._routes) <= _paths._REMEMBERED


# --- one connection for all its requests ------------------------------------------------------------------------------


@pytest.fixture
def pair():
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        server, _ = listener.accept()
        with server:
            yield client, server


def test_every_request_on_a_connection_gets_the_same_object(pair):
    protocol = Protocol(pair[1])
    first, second = (connection_of_asgi({}, RequestResponseCycle(protocol).receive, None) for _ in range(2))
    other = connection_of_asgi({}, RequestResponseCycle(Protocol(pair[1])).receive, None)
    assert first is second
    assert other is not first
    assert first.drains_bodies
    assert first.peer(None) == "192.0.2.1"


def test_what_a_kit_puts_into_the_scope_goes_before_everything_else(cycle):
    given = Connection(None, cause="as the kit says")
    assert connection_of_asgi({CONNECTION: given}, cycle.receive, None) is given
    assert connection_of_asgi({CONNECTION: "of somebody else"}, cycle.receive, None) is not given


def test_a_request_in_pieces_is_a_lower_bound_only(pair):
    client, server = pair
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection = Connection(server)
    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    pause()
    assert connection.read().exact  # one piece
    server.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
    pause()
    client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n")
    pause()
    client.sendall(b"{")
    pause()
    client.sendall(b"}")
    in_pieces = connection.read()
    assert not in_pieces.exact
    assert in_pieces.lower_s < in_pieces.upper_s
    assert connection.read().exact  # nothing more has come since


def pause():
    """Let the kernel's clock go on; it has the only clock here, and nobody can wind it."""
    threading.Event().wait(0.02)


# --- borrowed descriptors ---------------------------------------------------------------------------------------------


def test_a_borrowed_descriptor_is_never_closed(pair):
    client, server = pair
    borrowed = borrow(server.fileno(), server.family)
    client.sendall(b"x")
    assert isinstance(Connection(borrowed).read(), Bracket)
    del borrowed
    gc.collect()
    server.sendall(b"still open")
    assert client.recv(100) == b"still open"


def test_who_is_closing_is_not_asked(pair):
    """By then the descriptor may be another connection's."""
    connection = Connection(borrow(pair[1].fileno(), pair[1].family), is_closing=lambda: True)
    assert connection.read() is LEFT


def test_borrowing_what_is_not_open_fails(pair):
    number = pair[1].fileno()
    pair[1].close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        borrow(number, socket.AF_INET)


def test_a_server_that_is_uvloops_lends_its_descriptor():
    uvloop = pytest.importorskip("uvloop")

    async def serve():
        loop = asyncio.get_running_loop()
        seen = loop.create_future()

        class Server(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport

            def on_response_complete(self):
                pass

            def data_received(self, data):
                cycle = RequestResponseCycle(self)
                connection = connection_of_asgi({}, cycle.receive, None)
                before = connection.read()
                self.transport.abort()
                seen.set_result((before, connection.read()))

        server = await loop.create_server(Server, "127.0.0.1", 0)
        async with server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"x")
            answers = await asyncio.wait_for(seen, 5)
            writer.close()
            return answers

    before, after = uvloop.run(serve())
    assert isinstance(before, Bracket)
    assert before.exact
    assert after is LEFT
