"""A request from arrival to last byte, on every server: streams, HEAD, Expect, websockets, clients that leave."""

import base64
import os

import pytest

from groundfault import wire

pytestmark = pytest.mark.e2e

_DOOMED = wire.TIMEOUT_MS.encode() + b": 0"


def test_an_answer_counts_until_its_last_byte(server):
    with server.connect() as connection:
        connection.send("GET", "/stream", b"Connection: close")
        assert connection.receive_head()[0] == 200
        assert connection.receive_some()
        assert server.state()["in_flight"] == 1
        server.go()
        assert connection.ends()
    assert server.settle()["in_flight"] == 0


def test_clients_that_leave_midway_free_their_places(server):
    """Within two seconds, by the server's own means; the stream itself would go on for twenty.

    gunicorn's asgi worker swallows what is sent to nobody, and cancels the application three seconds later.
    """
    for number in range(1 if server.kind.single else 6):
        connection = server.connect()
        connection.send("GET", "/stream")
        assert connection.receive_head()[0] == 200
        assert connection.receive_some()
        if number % 2:
            connection.close()
        else:
            connection.reset()
    try:
        assert server.settle(4.5 if server.name == "gunicorn-asgi" else 2.0)["in_flight"] == 0
    finally:
        server.go()


def test_a_client_that_leaves_before_the_answer_frees_its_place_with_it(server):
    """Nobody can take a call back that the application is in the midst of; its end is counted as ever."""
    before = server.called("GET /hold")
    connection = server.connect()
    connection.send("GET", "/hold")
    assert server.await_state(lambda state: state["called"].get("GET /hold", 0) > before)["in_flight"] == 1
    connection.close()
    server.go()
    assert server.settle()["in_flight"] == 0
    server.assert_well()


@pytest.mark.parametrize("lines", [(), (_DOOMED,)], ids=["served", "refused"])
def test_head_has_no_body(server, lines):
    with server.connect() as connection:
        connection.send("HEAD", "/", b"Connection: close", *lines)
        status, headers = connection.receive_head()
        assert status == (503 if lines else 200)
        assert connection.receive_some() == b""
    assert headers.get(wire.HANDLED.lower()) == (wire.HANDLED_VALUE if lines else None)
    server.assert_well()


def test_a_client_that_is_told_to_continue_is_served(server):
    with server.connect() as connection:
        connection.send("POST", "/echo", b"Content-Length: 5", b"Expect: 100-continue", b"Connection: close")
        if not connection.answers(1.0):
            pytest.fail("neither told to continue nor answered")
        first = connection.receive_any()
        if first.status == 100:
            connection.send_bytes(b"hello")
            first = connection.receive()
        assert first.status == 200
        assert first.body.startswith(b"5 ")
    server.assert_well()


def test_a_client_that_is_refused_instead_may_keep_its_body(server):
    """Told to continue or not, the refusal comes, and what follows is in step or the connection is over."""
    with server.connect() as connection:
        connection.send("POST", "/", b"Content-Length: 5", b"Expect: 100-continue", _DOOMED)
        first = connection.receive_any()
        if first.status == 100:  # said by the server before the application was called
            connection.send_bytes(b"hello")
            first = connection.receive()
        assert (first.status, first.reason) == (503, "deadline")
        if not first.closes:
            connection.send("GET", "/next")
            assert connection.receive().body == b"GET /next\n"
        elif server.name not in {"daphne", "werkzeug"}:  # which say so, and leave it to the client
            assert connection.ends()
    server.assert_well()


def test_a_body_that_the_application_leaves_unread_is_the_servers_affair(server):
    """As it is for the bare application."""
    body = b"GET /smuggled HTTP/1.1\r\n\r\n" * 100
    length = b"Content-Length: %d" % len(body)
    smuggled = server.seen("GET /smuggled")
    ours, bare = (server.ask(path, length, method="POST", body=body) for path in ("/", "/bare/"))
    assert (ours.status, ours.body) == (bare.status, bare.body) == (200, b"POST /\n")
    assert server.seen("GET /smuggled") == smuggled
    server.assert_well()


def test_what_runs_after_the_answer_holds_no_place(server):
    if not server.kind.asgi:
        return  # WSGI has no such thing
    assert server.ask("/background").status == 200
    state = server.await_state(lambda state: state["background"] == 1 and state["in_flight"] == 0)
    assert (state["background"], state["in_flight"]) == (1, 0)
    server.go()
    assert server.await_state(lambda state: state["background"] == 0)["background"] == 0


def test_a_websocket_passes_untouched(server):
    if not server.kind.asgi:
        return  # WSGI has no such thing
    key = base64.b64encode(os.urandom(16))
    upgrade = (
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: " + key,
    )
    with server.connect() as connection:
        connection.send("GET", "/socket", *upgrade, _DOOMED)
        status, headers = connection.receive_head()
        assert status == 101
        assert not any(wire.is_ours(name) for name in headers)
        for text in (b"hello", b"again"):
            connection.send_bytes(_masked(text))
            assert connection.receive_exactly(2 + len(text)) == bytes([0x81, len(text)]) + text
        assert server.state()["in_flight"] == 0
    server.assert_well()


def _masked(text: bytes) -> bytes:
    mask = b"\1\2\3\4"
    return bytes([0x81, 0x80 | len(text)]) + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(text))


def test_the_lifespan_begins_once(server):
    """Daphne knows no lifespan."""
    expected = ["startup"] if server.kind.asgi and server.name != "daphne" else []
    assert server.state()["lifespan"] == expected


@pytest.mark.parametrize("name", ["uvicorn-httptools-uvloop", "hypercorn"])
def test_the_lifespan_ends_once(start_kind, tmp_path, name):
    log = tmp_path / "lifespan"
    server = start_kind(name, environment={"LIFESPAN_LOG": str(log)})
    server.stop()
    assert log.read_text().split() == ["startup", "shutdown"]


def test_nothing_is_begun_for_a_client_that_has_left_the_queue(server):
    """The workers are busy, a client gives up waiting; when its turn comes the application is not called."""
    if server.name in {"gunicorn-gevent", "werkzeug", "granian"}:
        return  # two take every request at once, so there is no queue to leave; granian hides its sockets
    before = server.state()
    with server.busy():
        leavers = [server.connect() for _ in range(4)]
        for number, leaver in enumerate(leavers):
            leaver.send("GET", "/left")
            if number % 2:
                leaver.close()
            else:
                leaver.reset()
    server.assert_well()
    assert server.called("GET /left") == 0
    assert server.state()["abandoned"] >= before["abandoned"] + 2  # hypercorn itself forgets those that reset
