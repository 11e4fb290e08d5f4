"""uvicorn with our protocols: the signal, the stop, the logs."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from groundfault.doctor.servers import Server, running
from groundfault.doctor.waiting import Client

uvicorn = pytest.importorskip("uvicorn")
pytestmark = pytest.mark.e2e

APPLICATION = """
import asyncio
from groundfault import LoadShedder

class Hiding:
    '''Leaves no way from its receive and send to those of the server.'''

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        received, sent = asyncio.Queue(), asyncio.Queue()
        task = asyncio.create_task(self.app(scope, received.get, sent.put))
        await received.put(await receive())
        while True:
            message = await sent.get()
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                return await task


async def plain(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/slow":
        await asyncio.sleep(0.4)
    body = shedder.snapshot().signal.encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


app = LoadShedder(plain, service="served")
shedder = app.shedder
hidden = Hiding(app)
"""

KIT = "groundfault.integrations.uvicorn"
PROTOCOLS = ["H11Protocol", "HttpToolsProtocol"]
WAYS = [(http, loop) for http in PROTOCOLS for loop in ("asyncio", "uvloop")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("application")
    (place / "application.py").write_text(APPLICATION)
    return place


def command(place, *more, app="app", protocol="AutoProtocol"):
    return (
        *("-m", "uvicorn", "--app-dir", str(place), "--port", "{port}", "--http", f"{KIT}:{protocol}"),
        *("--log-level", "warning", *more, f"application:{app}"),
    )


def started(place, *more, **how):
    return running(Server("uvicorn's kit", "uvicorn", command(place, *more, **how), ("uvicorn",)))


class Plain(Client):
    """Speaks to an application of its own."""

    def ask(self, path="/"):
        """Return status, reason of a refusal, body, and whether the server says that it closes."""
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: served\r\n\r\n".encode())
        status = self._file.readline()
        if not status:
            raise ConnectionResetError
        length, reason, closes = 0, "", False
        while (line := self._file.readline().decode().strip().lower()) != "":
            name, _, value = line.partition(": ")
            length = int(value) if name == "content-length" else length
            reason = value if name == "x-groundfault-reason" else reason
            closes = closes or (name, value) == ("connection", "close")
        return int(status.split()[1]), reason, self._file.read(length).decode(), closes


@pytest.mark.parametrize(("protocol", "loop"), WAYS)
def test_the_signal_is_found_below_what_hides_everything(place, protocol, loop):
    """A name in the scope gets through."""
    with started(place, "--loop", loop, app="hidden", protocol=protocol) as instance, Plain(instance.port) as client:
        client.ask()
        assert client.ask()[2] == "tcp-info"


def test_with_the_stock_protocol_it_is_asked_for_by_address(place):
    with started(place, "--http", "h11", app="hidden") as instance, Plain(instance.port) as client:
        client.ask()
        assert client.ask()[2] == "sock-diag"


def test_each_of_several_workers_has_it(place):
    with started(place, "--workers", "2", app="hidden") as instance:
        for _ in range(10):
            with Plain(instance.port) as client:
                assert client.ask()[2] == "tcp-info"


@pytest.mark.parametrize(("protocol", "loop"), WAYS)
def test_while_it_stops_it_says_so_to_whoever_comes_on_a_kept_connection(place, protocol, loop):
    """Instead of a reset, an annotated answer that may be tried elsewhere; what is in flight is answered as ever."""
    with started(place, "--loop", loop, protocol=protocol) as instance, ThreadPoolExecutor() as pool:
        clients = [Plain(instance.port) for _ in range(5)]
        slow = Plain(instance.port)
        assert all(client.ask()[0] == 200 for client in clients)
        in_flight = pool.submit(slow.ask, "/slow")
        time.sleep(0.1)
        os.kill(instance.pid, signal.SIGTERM)
        time.sleep(0.3)  # a tenth of a second is how often uvicorn looks
        for client in clients:
            with client:
                status, reason, _, closes = client.ask()
                assert (status, reason, closes) == (503, "draining", True)
        with slow:
            status, _, _, closes = in_flight.result(5)
            assert (status, closes) == (200, True)


def test_idle_connections_hold_it_up_for_a_second_only(place):
    with started(place) as instance, closing(Plain(instance.port)._socket) as idle:
        before = time.monotonic()  # noqa: TID251  a real process is waited for in real time
        os.kill(instance.pid, signal.SIGTERM)
        idle.settimeout(5)
        assert idle.recv(1) == b""
        assert 0.5 < time.monotonic() - before < 3  # noqa: TID251  as above


def test_a_shorter_time_to_stop_is_kept(place):
    with (
        started(place, "--timeout-graceful-shutdown", "1") as instance,
        closing(Plain(instance.port)._socket) as idle,
    ):
        before = time.monotonic()  # noqa: TID251  as above
        os.kill(instance.pid, signal.SIGTERM)
        idle.settimeout(5)
        assert idle.recv(1) == b""
        assert time.monotonic() - before < 0.95  # noqa: TID251  as above


@pytest.mark.parametrize("kit", [False, True])
def test_access_logs_are_what_they_were(place, kit):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    http = f"{KIT}:AutoProtocol" if kit else "auto"
    words = ["-m", "uvicorn", "--app-dir", str(place), "--port", str(port), "--http", http, "application:app"]
    process = subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=place
    )
    try:
        end = time.monotonic() + 10  # noqa: TID251  as above
        while time.monotonic() < end:  # noqa: TID251  as above
            try:
                with Plain(port) as client:
                    client.ask("/path?query=1")
                    name = client._socket.getsockname()
                break
            except OSError:
                time.sleep(0.05)
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=10)
    assert f'INFO:     127.0.0.1:{name[1]} - "GET /path?query=1 HTTP/1.1" 200 OK' in said.splitlines()


def test_the_worker_class_for_gunicorn_uses_them(place):
    pytest.importorskip("uvicorn_worker")
    words = (
        *("-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--chdir", str(place), "--log-level", "warning"),
        *("--worker-class", "groundfault.integrations.uvicorn_worker.UvicornWorker", "application:hidden"),
    )
    with running(Server("worker", "gunicorn", words, ("gunicorn",))) as instance, Plain(instance.port) as client:
        assert client.ask()[2] == "tcp-info"
        os.kill(instance.pid, signal.SIGTERM)
        time.sleep(0.5)
        assert client.ask()[1] == "draining"


def test_without_httptools_the_error_says_what_to_do():
    code = (
        "import sys; sys.modules['httptools'] = None\n"
        f"import {KIT} as kit; assert kit.AutoProtocol is kit.H11Protocol\n"
        f"try:\n    from {KIT} import HttpToolsProtocol\n"
        "except ImportError as error:\n    print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert run.stdout == "HttpToolsProtocol needs httptools: pip install httptools, or use H11Protocol\n"
