"""Real servers on loopback: the wait is the kernel's, refusals come out right, and nothing hostile breaks anything."""

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

_HERE = Path(__file__).parent
_START_S = 15.0

_GUNICORN = "gunicorn --bind 127.0.0.1:{port} --workers 1 --log-level warning --chdir {here}"
_UVICORN = "uvicorn --host 127.0.0.1 --port {port} --log-level warning --no-access-log --app-dir {here}"
_SERVERS = {
    "gunicorn-sync": f"{_GUNICORN} --worker-class sync served:wsgi",
    "gunicorn-gthread": f"{_GUNICORN} --worker-class gthread --threads 1 served:wsgi",
    "uvicorn-h11-asyncio": f"{_UVICORN} --http h11 --loop asyncio served:asgi",
    "uvicorn-h11-uvloop": f"{_UVICORN} --http h11 --loop uvloop served:asgi",
    "uvicorn-httptools-asyncio": f"{_UVICORN} --http httptools --loop asyncio served:asgi",
    "uvicorn-httptools-uvloop": f"{_UVICORN} --http httptools --loop uvloop served:asgi",
}


@dataclass
class _Response:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self):
        return json.loads(self.body)


class _Connection:
    """One HTTP/1.1 connection, spoken by hand so that every byte can be hostile."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def send(self, method: str, path: str, *lines: bytes, body: bytes = b"") -> None:
        head = [f"{method} {path} HTTP/1.1".encode(), b"Host: served", *lines, b"", b""]
        self.socket.sendall(b"\r\n".join(head) + body)

    def receive(self) -> _Response:
        status_line = self.file.readline()
        if not status_line:
            raise ConnectionResetError
        headers = {}
        while (line := self.file.readline().strip()) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        return _Response(int(status_line.split()[1]), headers, self.file.read(length))

    def get(self, path: str, *lines: bytes) -> _Response:
        self.send("GET", path, *lines)
        return self.receive()


def _get(port: int, path: str, *lines: bytes) -> _Response:
    with _Connection(port) as connection:
        return connection.get(path, *lines)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module", params=_SERVERS)
def server(request) -> Iterator[tuple[str, int]]:
    """Run each server once for all tests here; yields its name and port."""
    port = _free_port()
    words = _SERVERS[request.param].format(port=port, here=_HERE).split()
    process = subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.DEVNULL)
    try:
        _await_answer(process, port)
        yield request.param, port
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def _await_answer(process: subprocess.Popen, port: int) -> None:
    end = time.monotonic() + _START_S  # noqa: TID251  a real process is waited for in real time
    while time.monotonic() < end:  # noqa: TID251  as above
        assert process.poll() is None, "the server died at its start"
        try:
            if _get(port, "/ready").status == 200:
                return
        except OSError:
            time.sleep(0.05)
    pytest.fail(f"no answer within {_START_S} s")


@pytest.mark.parametrize("keep_alive", [False, True])
def test_the_wait_is_measured_by_the_kernel(server, keep_alive):
    """The only worker is blocked for 300 ms; a request sent meanwhile knows how long it has waited, within 30 ms.

    Asked at a health path, which is never refused. Up to three attempts: the machine may have other things to do.
    """
    name, port = server
    keep_alive = keep_alive and name != "gunicorn-sync"  # which closes every connection
    for _ in range(3):
        seen, true_s = _wait_while_blocked(port, keep_alive=keep_alive)
        assert seen["signal"] == "tcp-info"
        assert seen["wait_s"] > 0.1
        if seen["wait_s"] == pytest.approx(true_s, abs=0.03):
            return
    pytest.fail(f"the kernel says {seen['wait_s']} s, the truth is {true_s:.3f} s")


def _wait_while_blocked(port: int, *, keep_alive: bool) -> tuple[dict, float]:
    """Return what the waiting request saw, and how long it really waited."""
    with ExitStack() as stack:
        waiter = None
        if keep_alive:
            waiter = stack.enter_context(_Connection(port))
            waiter.get("/ping")
        with _Connection(port) as blocker:
            blocker.send("GET", "/block")
            time.sleep(0.1)  # the worker is blocked by now
            if waiter is None:  # not earlier: a connection that says nothing takes gunicorn's only worker
                waiter = stack.enter_context(_Connection(port))
            waiter.send("GET", "/ping")
            sent = time.monotonic()  # noqa: TID251  compared with what the kernel says
            assert blocker.receive().status == 200
            unblocked = time.monotonic()  # noqa: TID251  as above
        # Closed before the answer is awaited: gunicorn's sync worker waits up to two seconds for that.
        return waiter.receive().json(), unblocked - sent


def test_a_refusal_leaves_the_connection_usable(server):
    name, port = server
    with _Connection(port) as connection:
        refused = connection.get("/work", b"X-GroundFault-Timeout-Ms: 0")
        assert refused.status == 503
        assert refused.headers["x-groundfault"] == "handled"
        assert refused.headers["x-groundfault-reason"] == "deadline"
        assert refused.headers["x-groundfault-origin"] == "served"
        assert refused.headers["cache-control"] == "no-store"
        if name == "gunicorn-sync":  # closes every connection, refused or not
            return
        assert "close" not in refused.headers.get("connection", "")
        assert connection.get("/work").status == 200


@pytest.mark.parametrize("length", [1000, 200_000])
def test_a_refused_body_never_breaks_the_next_request(server, length):
    """Where the server would choke on an unread body the connection is closed; elsewhere the next request is served."""
    _, port = server
    body = b"x" * length
    with _Connection(port) as connection:
        connection.send("POST", "/work", b"X-GroundFault-Timeout-Ms: 0", b"Content-Length: %d" % len(body), body=body)
        refused = connection.receive()
        assert refused.status == 503
        assert refused.headers["x-groundfault"] == "handled"
        if "close" not in refused.headers.get("connection", ""):
            assert connection.get("/work").status == 200
    assert _get(port, "/work").status == 200


def test_head_has_no_body(server):
    _, port = server
    with _Connection(port) as connection:
        connection.send("HEAD", "/work", b"X-GroundFault-Timeout-Ms: 0", b"Connection: close")
        answer = connection.file.read()
    assert answer.startswith(b"HTTP/1.1 503")
    assert answer.endswith(b"\r\n\r\n")


_HOSTILE = (
    [
        b"X-GroundFault-Timeout-Ms: " + value
        for value in (b"-1", b"nan", b"1e309", b"9" * 400, b"\xd9\xa1\xd9\xa2", b"0x10", b"1, 2", b"")
    ]
    + [
        b"X-Request-Start: " + value
        for value in (b"t=" + b"9" * 400, b"t=-1", b"1e309", b"inf", b"t=9999999999.999", b"0000000000", b"\xff\xfe")
    ]
    + [
        b"X-GroundFault-Criticality: \xff",
        b"X-GroundFault-Key: " + b"f" * 5000,
        b"X-GroundFault-Key: -1",
        b"X-GroundFault-Caller: ../../etc/passwd",
        b"X-GroundFault-Caller: " + b"a" * 4000,
        b"Grpc-Timeout: 99999999999S",
        b"Grpc-Timeout: 1H\tX-GroundFault: handled",
        b"Traceparent: \x80",
        b"X_GroundFault_Timeout_Ms: 0",
        b"X-GroundFault: handled",
    ]
)


def test_hostile_headers_are_never_an_error_of_the_server(server):
    _, port = server
    statuses = Counter(_get(port, "/work", line).status for line in _HOSTILE)
    statuses += Counter([_get(port, "/work", *_HOSTILE[:20]).status])
    assert set(statuses) <= {200, 400, 431}  # the server itself may refuse what is no HTTP
    assert statuses[200] >= len(_HOSTILE) / 2


def test_a_pipelined_request_is_not_refused_for_the_one_in_front(server):
    """It waits for its own connection, which is no queue of this server's."""
    name, port = server
    if name == "gunicorn-sync":  # closes after each answer
        return
    with _Connection(port) as connection:
        connection.send("GET", "/block")
        connection.send("GET", "/block")
        connection.send("GET", "/")
        assert [connection.receive().status for _ in range(3)] == [200, 200, 200]


def test_who_pipelines_and_expects_to_continue_shows_no_queue(server):
    """Else a stranger could make one appear, at the cost of everybody: such a wait begins a backlog."""
    name, port = server
    if name == "gunicorn-sync":  # as above
        return
    with _Connection(port) as connection:
        connection.send("GET", "/block")
        time.sleep(0.03)
        connection.send("POST", "/", b"Content-Length: 2", b"Expect: 100-continue", body=b"{}")
        answers = [connection.receive(), connection.receive()]
        if answers[-1].status == 100:
            answers.append(connection.receive())
        assert (answers[0].status, answers[-1].status) == (200, 200)


def test_a_refusal_instead_of_continue_ends_the_connection(server):
    """The body may never come; whatever came next would be read as the body, and fail."""
    name, port = server
    if name.startswith("gunicorn"):  # which says 100 before the application can refuse
        return
    with _Connection(port) as first, _Connection(port) as second:
        first.send("GET", "/block")
        time.sleep(0.03)
        second.send("POST", "/", b"Content-Length: 2", b"Expect: 100-continue")
        assert first.receive().status == 200
        answer = second.receive()
        assert (answer.status, answer.headers["connection"]) == (503, "close")
        with pytest.raises(ConnectionError):
            second.get("/")


def test_expecting_to_continue_hides_no_wait(server):
    """Gunicorn says 100 before the application runs, which must not look like the answer to a request in front."""
    _, port = server
    with _Connection(port) as first, _Connection(port) as second:
        first.send("GET", "/block")
        time.sleep(0.03)
        second.send("POST", "/", b"Content-Length: 2", b"Expect: 100-continue", body=b"{}")
        assert first.receive().status == 200
        answer = second.receive()
        if answer.status == 100:
            answer = second.receive()
        assert answer.status == 503


def test_an_overload_keeps_good_answers_flowing(server):
    """Three times what the worker can do, arriving whether or not it keeps up, for two seconds."""
    _, port = server
    capacity, seconds = 50, 2.0
    outcomes = asyncio.run(_open_loop(port, "/work", rate=3 * capacity, seconds=seconds))

    refused = [response for response, _ in outcomes if response is not None and response.status == 503]
    good = [response for response, took in outcomes if response is not None and response.status == 200 and took < 1.0]
    assert refused
    assert all(response.headers["x-groundfault-reason"] == "queue-wait" for response in refused)
    assert {response.status for response, _ in outcomes if response is not None} == {200, 503}
    assert len(good) >= 0.5 * capacity * seconds
    assert len(refused) + len(good) >= 0.95 * len(outcomes)


def test_the_queue_before_worker_threads_is_seen(server):
    """Forty threads of 200 ms serve 200 a second; of twice that, about half is answered in time and half refused."""
    name, port = server
    if not name.startswith("uvicorn"):
        return
    assert _get(port, "/thread").status == 200
    assert _get(port, "/snapshot").json()["thread_is_sync"] is True
    outcomes = asyncio.run(_open_loop(port, "/thread", rate=400, seconds=2.0))

    good = [response for response, took in outcomes if response is not None and response.status == 200 and took < 1.0]
    refused = [response for response, _ in outcomes if response is not None and response.status == 503]
    assert len(refused) >= 0.15 * len(outcomes)
    assert len(good) >= 0.6 * 200 * 2.0
    assert _get(port, "/snapshot").json()["in_flight"] == 1  # the one that asks


async def _open_loop(port: int, path: str, *, rate: float, seconds: float) -> list[tuple[_Response | None, float]]:
    loop = asyncio.get_running_loop()
    start = loop.time()
    tasks = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(start + number / rate - loop.time(), 0))
        tasks.append(asyncio.create_task(_one(port, path, loop)))
    return await asyncio.gather(*tasks)


async def _one(port: int, path: str, loop: asyncio.AbstractEventLoop) -> tuple[_Response | None, float]:
    began = loop.time()
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: served\r\nConnection: close\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
            headers = {name: value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
            await reader.read()
            writer.close()
            await writer.wait_closed()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return None, loop.time() - began
    return _Response(int(head[0].split()[1]), headers, b""), loop.time() - began
