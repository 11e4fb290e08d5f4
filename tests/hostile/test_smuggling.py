"""What a refused request leaves unread is never taken for a request: no answer goes astray, nothing is smuggled."""

import contextlib
from dataclasses import dataclass

import pytest

from groundfault import wire

pytestmark = pytest.mark.e2e

_DOOMED = wire.TIMEOUT_MS.encode() + b": 0"
_SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: served\r\n\r\n"
_NEXT = b"GET /next HTTP/1.1\r\nHost: served\r\n\r\n"


def _chunked(data: bytes, size: int = 4096) -> bytes:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def _length(data: bytes) -> bytes:
    return b"Content-Length: %d" % len(data)


_CHUNKED = b"Transfer-Encoding: chunked"
_LONG = _SMUGGLED * 5_000  # more than any server reads of a body that the application has left
_BODIES = {
    "none": ((), b""),
    "length": ((_length(_SMUGGLED),), _SMUGGLED),
    "long": ((_length(_LONG),), _LONG),
    "chunked": ((_CHUNKED,), _chunked(_SMUGGLED)),
    "chunked-bytewise": ((_CHUNKED,), _chunked(_SMUGGLED, 1)),
    "chunked-long": ((_CHUNKED,), _chunked(_LONG)),
    "chunk-extension": ((_CHUNKED,), _chunked(_SMUGGLED).replace(b"\r\n", b";x=1\r\n", 1)),
    "trailers": ((_CHUNKED,), _chunked(_SMUGGLED)[:-2] + b"X-Trailer: GET /smuggled HTTP/1.1\r\n\r\n"),
}
_AMBIGUOUS = {  # what a server makes of these is its own affair; a refusal must change nothing about it
    "both": ((b"Content-Length: 5", _CHUNKED), _chunked(b"") + _SMUGGLED),
    "both-the-other-way": ((_CHUNKED, _length(_chunked(b"") + _SMUGGLED)), _chunked(b"") + _SMUGGLED),
    "two-lengths": ((b"Content-Length: 0", _length(_SMUGGLED)), _SMUGGLED),
    "unknown-coding": ((b"Transfer-Encoding: xchunked", _length(_SMUGGLED)), _SMUGGLED),
    "blank-before-colon": ((b"Transfer-Encoding : chunked", _length(_SMUGGLED)), _SMUGGLED),
    "negative": ((b"Content-Length: -1",), _SMUGGLED),
    "bad-chunk": ((_CHUNKED,), b"zz\r\n" + _SMUGGLED),
}


@dataclass
class _Exchange:
    """What came back on one connection, and what the server has understood meanwhile."""

    responses: list
    smuggled: int
    nexts: int


def _exchange(server, path, lines, body, *, split_at=None):
    """Send one POST and, pipelined, ``GET /next``; read everything that comes back.

    Not to a server that closes at once: what it has not read by then would reset the connection under its answer.
    """
    behind = b"" if server.name == "werkzeug" else _NEXT
    before = server.state()["seen"]
    responses = []
    with server.connect() as connection, contextlib.suppress(ConnectionError, TimeoutError):
        connection.socket.settimeout(3.0)
        head = [f"POST {path} HTTP/1.1".encode(), b"Host: served", *lines, b"", b""]
        data = b"\r\n".join(head)
        if split_at is None:
            connection.send_bytes(data + body + behind)
        else:
            connection.send_bytes(data + body[:split_at])
            if connection.answers(0.1):  # some servers have the whole body before they call the application
                responses.append(connection.receive())
            connection.send_bytes(body[split_at:] + behind)
        while not responses or not (responses[-1].closes or responses[-1].body == b"GET /next\n"):
            responses.append(connection.receive())
    after = server.state()["seen"]
    return _Exchange(
        responses,
        after.get("GET /smuggled", 0) - before.get("GET /smuggled", 0),
        after.get("GET /next", 0) - before.get("GET /next", 0),
    )


@pytest.mark.parametrize("body", _BODIES)
def test_a_refused_body_is_never_read_as_a_request(server, body):
    exchange = _exchange(server, "/", (_DOOMED, *_BODIES[body][0]), _BODIES[body][1])
    assert exchange.smuggled == 0
    _assert_in_step(exchange)


@pytest.mark.parametrize("body", ["length", "long", "chunked", "chunked-long"])
def test_nor_is_what_of_it_comes_after_the_refusal(server, body):
    lines, data = _BODIES[body]
    exchange = _exchange(server, "/", (_DOOMED, *lines), data, split_at=len(data) // 2)
    assert exchange.smuggled == 0
    _assert_in_step(exchange)


def test_nor_is_it_where_the_request_is_refused_out_of_a_queue(server):
    """There the worker classes of ours refuse before anything is parsed. All kinds of bodies at once."""
    if server.name not in {"gunicorn-sync", "kit-sync", "kit-thread", "uvicorn-httptools-uvloop", "hypercorn"}:
        return
    before = server.state()["seen"]
    with contextlib.ExitStack() as stack:
        connections = {}
        with server.busy():
            for name, (lines, body) in _BODIES.items():
                if "long" not in name:  # more than the socket takes while nobody reads
                    connections[name] = stack.enter_context(server.connect())
                    connections[name].send("POST", "/", _DOOMED, *lines, body=body + _NEXT)
        for name, connection in connections.items():
            exchange = _Exchange([connection.receive()], 0, 1)
            if not exchange.responses[0].closes:
                exchange.responses.append(connection.receive())
            connection.close()
            assert exchange.responses[0].reason == "deadline", name
            _assert_in_step(exchange)
    after = server.state()["seen"]
    assert after.get("GET /smuggled", 0) == before.get("GET /smuggled", 0)
    if server.name.startswith("kit-") and not server.kind.asgi:
        assert after.get("POST /", 0) == before.get("POST /", 0), "refused by the middleware, not by the worker"
    server.assert_well()


def _assert_in_step(exchange):
    """First the refusal, then, if the connection lives on, the answer to the request behind it, once."""
    first, *later = exchange.responses
    assert (first.status, first.reason) == (503, "deadline")
    assert [(each.status, each.body) for each in later] == [(200, b"GET /next\n")][: len(later)]
    assert len(later) <= exchange.nexts <= 1
    if not first.closes:
        assert later, "promised to keep the connection, and closed it"


@pytest.mark.parametrize("body", _AMBIGUOUS)
def test_what_is_ambiguous_stays_the_servers_own_affair(server, body):
    """Beside the same request to the bare application, which answers 503 without a look at the body."""
    lines, data = _AMBIGUOUS[body]
    ours = _exchange(server, "/", (_DOOMED, *lines), data)
    bare = _exchange(server, "/bare/refuse", lines, data)
    assert ours.smuggled <= bare.smuggled
    assert [each.status for each in ours.responses] == [each.status for each in bare.responses][: len(ours.responses)]
    server.assert_well()


def test_a_body_that_never_ends_holds_nothing(server):
    with server.connect() as connection:
        connection.send("POST", "/", _DOOMED, b"Content-Length: 1000", body=b"x" * 10)
    with server.connect() as connection:
        connection.send("POST", "/", _DOOMED, _CHUNKED, body=b"5\r\nab")
    server.assert_well()


def test_pipelined_requests_are_answered_in_their_order(server):
    """Refused and served ones in turn; a server that keeps no connection answers the first."""
    with server.connect() as connection:
        requests = [(f"/in-turn-{number}", number % 2) for number in range(6)]
        head = [
            f"GET {path} HTTP/1.1\r\nHost: served\r\n".encode() + odd * (_DOOMED + b"\r\n") for path, odd in requests
        ]
        connection.send_bytes(b"".join(each + b"\r\n" for each in head))
        responses = []
        with contextlib.suppress(ConnectionError):
            while len(responses) < len(requests):
                responses.append(connection.receive())
    expected = [(503, "deadline") if odd else (200, None) for _, odd in requests]
    assert [(each.status, each.reason) for each in responses] == expected[: len(responses)]
    assert [each.body for each in responses[::2]] == [f"GET {path}\n".encode() for path, _ in requests[::2]][
        : len(responses[::2])
    ]
    assert len(responses) == (1 if responses[0].closes else len(requests))
