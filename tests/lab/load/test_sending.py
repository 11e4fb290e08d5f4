"""The sending end against a server that answers as it is told, byte by byte."""

import socket
import threading
from contextlib import closing, contextmanager

import pytest

from groundfault.lab.load.scenario import Request
from groundfault.lab.load.sending import BrokenError, Client

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextmanager
def answering(*connections):
    """Serve so many connections; each answers its requests with these, one after the other, and is closed then."""
    seen = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def serve():
            for answers in connections:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(10)
                    for answer in answers:
                        asked = connection.recv(65_536)
                        if not asked:
                            break
                        seen.append(asked.partition(b" HTTP")[0].decode())
                        connection.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        try:
            with closing(Client(f"http://127.0.0.1:{listener.getsockname()[1]}", connect_s=5)) as client:
                yield client, seen
        finally:
            server.join()


@pytest.mark.parametrize(
    ("answer", "status", "length"),
    [
        (OK, 200, 2),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;a=b\r\nabc\r\n0\r\n\r\n", 200, 8),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, 13),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, 13),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, 0),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, 0),
        (b"HTTP/1.1 302 Found\r\nLocation: /else\r\nContent-Length: 0\r\n\r\n", 302, 0),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK, 200, 2),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000, 200, 300_000),
    ],
)
def test_every_kind_of_answer_is_read_to_its_end_and_no_further(answer, status, length):
    with answering([answer]) as (client, seen):
        found = client.send(Request("/lobby/{n}"), 0.5)
    assert (found.status, found.length) == (status, length)
    assert seen == ["GET /lobby/250"]


@pytest.mark.parametrize("answer", [b"\x00garbage\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"])
def test_what_is_no_whole_answer_is_broken(answer):
    with answering([answer]) as (client, _), pytest.raises(BrokenError):
        client.send(Request("/"), 0.5)


def test_what_nobody_asked_for_is_not_the_next_ones_answer():
    unasked = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
    with answering([OK, unasked], [OK]) as (client, _):
        client.send(Request("/first"), 0.5)
        ((connection, _),) = client._idle
        connection.sendall(b"POKE / HTTP/1.1\r\n\r\n")  # makes it say something more
        threading.Event().wait(0.3)
        assert client.send(Request("/second"), 0.5).status == 200


def test_a_connection_that_was_closed_meanwhile_is_not_used_again_whatever_is_to_be_sent():
    with answering([OK], [OK]) as (client, seen):
        client.send(Request("/first"), 0.5)
        threading.Event().wait(0.3)
        assert client.send(Request("/second", method="POST", body=b"{}"), 0.5).status == 200
    assert seen == ["GET /first", "POST /second"]


def test_a_request_that_the_server_has_failed_is_not_sent_twice():
    with answering([OK, b""]) as (client, seen):
        client.send(Request("/first"), 0.5)
        with pytest.raises(BrokenError, match="the connection was closed"):
            client.send(Request("/second"), 0.5)
    assert seen == ["GET /first", "GET /second"]


def test_what_was_lost_on_a_connection_that_has_long_been_idle_is_sent_once_more_if_that_changes_nothing():
    with answering([OK, b""], [OK, b""]) as (client, seen):
        client.send(Request("/first"), 0.5)
        client._idle = type(client._idle)((connection, since - 60) for connection, since in client._idle)
        assert client.send(Request("/second"), 0.5).status == 200
        client._idle = type(client._idle)((connection, since - 60) for connection, since in client._idle)
        with pytest.raises(BrokenError):
            client.send(Request("/third", method="POST"), 0.5)
    assert seen == ["GET /first", "GET /second", "GET /second", "POST /third"]
