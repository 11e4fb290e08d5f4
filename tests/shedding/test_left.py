"""Real servers: a request whose client has left while it lay in the queue does not reach the application."""

import contextlib
import json
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

_HERE = Path(__file__).parent
_START_S = 15.0
_GUNICORN = "gunicorn --bind 127.0.0.1:{port} --workers 1 --log-level error --chdir {here}"
_UVICORN = "uvicorn --host 127.0.0.1 --port {port} --log-level error --no-access-log --lifespan off --app-dir {here}"
_SERVERS = {
    "gunicorn-sync": f"{_GUNICORN} --worker-class sync left:wsgi",
    "gunicorn-gthread": f"{_GUNICORN} --worker-class gthread --threads 1 left:wsgi",
    "uvicorn-httptools-asyncio": f"{_UVICORN} --http httptools --loop asyncio left:asgi",
    "uvicorn-httptools-uvloop": f"{_UVICORN} --http httptools --loop uvloop left:asgi",
}


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def _send(connection, path):
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: left\r\nConnection: close\r\n\r\n".encode())


def _read(connection):
    with connection, connection.makefile("rb") as file:
        return file.read().partition(b"\r\n\r\n")[2]


def _get(port, path):
    connection = _connect(port)
    _send(connection, path)
    return _read(connection)


@pytest.fixture(scope="module", params=_SERVERS)
def server(request):
    """Run each server once for all tests here; yields its name and port."""
    port = _free_port()
    words = _SERVERS[request.param].format(port=port, here=_HERE).split()
    process = subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + _START_S  # noqa: TID251  a real process is waited for in real time
        while True:
            assert process.poll() is None, "the server died at its start"
            assert time.monotonic() < end, f"no answer within {_START_S} s"  # noqa: TID251  as above
            with contextlib.suppress(OSError):
                if _get(port, "/ready"):
                    break
            time.sleep(0.05)
        yield request.param, port
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def _reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _half_close(connection):
    connection.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("leave", [_reset, socket.socket.close, _half_close], ids=["reset", "close", "half-close"])
@pytest.mark.parametrize("early", [False, True], ids=["in-the-backlog", "accepted"])
def test_who_left_the_queue_is_not_served(server, leave, early):
    """The server is held up; meanwhile one client sends a request and leaves, and another one stays."""
    name, port = server
    early = early and name != "gunicorn-sync"  # whose only worker would wait for that connection
    path, stays = f"/{leave.__name__}-{early}", f"/stays-{leave.__name__}-{early}"
    before = json.loads(_get(port, "/report"))["abandoned"]
    with _connect(port) as blocker, contextlib.ExitStack() as stack:
        if early:
            leaver = stack.enter_context(_connect(port))
            time.sleep(0.05)
        _send(blocker, "/block")
        time.sleep(0.15)
        if not early:
            leaver = stack.enter_context(_connect(port))
        _send(leaver, path)
        time.sleep(0.05)
        leave(leaver)
        stayer = stack.enter_context(_connect(port))
        _send(stayer, stays)
        assert _read(blocker) == b"{}"
        assert _read(stayer) == b"{}"
        report = json.loads(_get(port, "/report"))
    assert stays in report["reached"]
    assert path not in report["reached"]
    assert report["abandoned"] - before <= 1  # 0 where the server itself has noticed


def test_who_closes_its_half_at_once_is_served_by_an_idle_server(server):
    """As nc does. Up to three attempts, for the machine may have other things to do."""
    for attempt in range(3):
        with _connect(server[1]) as connection:
            _send(connection, f"/nc-{attempt}")
            _half_close(connection)
            if _read(connection) == b"{}":
                return
    pytest.fail("refused three times")
