"""Clients that take their time: a place in flight is held by requests, never by connections."""

import contextlib

import pytest

from groundfault import wire

pytestmark = pytest.mark.e2e

_DOOMED = wire.TIMEOUT_MS.encode() + b": 0"


_FEWER = 6  # than the threads of the servers that give one to each connection


@pytest.mark.parametrize(
    "beginning", [b"", b"GET / HTTP/1.1\r\nHost: served\r\nX-Drip: "], ids=["silent", "half-a-head"]
)
def test_a_connection_without_a_request_holds_no_place(server, beginning):
    with contextlib.ExitStack() as stack:
        for _ in range(_FEWER):
            stack.enter_context(server.connect()).send_bytes(beginning)
        if not server.kind.single:  # which reads one head at a time, whosever it is
            assert server.ask("/").status == 200
        assert server.settle()["in_flight"] == 0
    server.assert_well()


def test_a_body_that_never_ends_holds_one_place_at_most_and_gives_it_back(server):
    """An application that reads it waits for it, so it is in flight, until the client leaves."""
    before = server.called("POST /echo")
    with server.connect() as connection:
        connection.send("POST", "/echo", b"Content-Length: 100", body=b"x" * 10)
        server.await_state(lambda state: state["called"].get("POST /echo", 0) > before, 0.2)
        state = server.state()
        assert state["in_flight"] == state["called"].get("POST /echo", 0) - before
    server.assert_well()


def test_a_refusal_does_not_wait_for_the_body(server):
    """Unless the server itself has the whole body before it calls anybody."""
    with server.connect() as connection:
        connection.send("POST", "/", _DOOMED, b"Content-Length: 100", body=b"x" * 10)
        if connection.answers(0.5):
            assert connection.receive().reason == "deadline"
        else:
            assert server.name in {"waitress", "daphne", "cheroot"}
            assert server.state()["in_flight"] == 0
    server.assert_well()


def test_an_answer_read_slowly_is_in_flight_and_refuses_nobody(server):
    """Under ASGI a slow reader counts until its last byte, and still is no sign of overload to others."""
    if server.kind.single:
        return  # whose only worker writes the answer
    with server.connect() as reader:
        reader.send("GET", "/stream", b"Connection: close")
        assert reader.receive_head()[0] == 200
        assert [server.ask("/").status for _ in range(10)] == [200] * 10
        assert server.await_state(lambda state: state["in_flight"] == 1)["in_flight"] == 1
        server.go()
    assert server.settle()["in_flight"] == 0
