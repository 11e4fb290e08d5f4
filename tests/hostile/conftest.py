"""Real servers, one process of each for the whole folder, and a client that speaks HTTP by hand."""

import importlib.util
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from select import select
from typing import Any, Self

import pytest

_HERE = Path(__file__).parent
_START_S = 20.0
_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Kind:
    """How a server is started, and what it is like.

    ``single``: it serves one request at a time. ``closes``: it keeps no connection.
    ``needs`` are the modules without which there is no such server.
    """

    command: str
    needs: tuple[str, ...]
    single: bool = False
    closes: bool = False

    @property
    def asgi(self) -> bool:
        return "asgi" in self.command.split(":")[-1]


_GUNICORN = "gunicorn --bind 127.0.0.1:{port} --workers 1 --log-level critical --worker-class"
_UVICORN = "uvicorn --host 127.0.0.1 --port {port} --log-level critical --no-access-log"
_KIT = "groundfault.integrations.gunicorn"
KINDS = {
    "gunicorn-sync": Kind(f"{_GUNICORN} sync served:wsgi", ("gunicorn",), single=True, closes=True),
    "gunicorn-gthread": Kind(f"{_GUNICORN} gthread --threads 8 served:wsgi", ("gunicorn",)),
    "gunicorn-gevent": Kind(f"{_GUNICORN} gevent served:wsgi", ("gunicorn", "gevent")),
    "gunicorn-asgi": Kind(f"{_GUNICORN} asgi served:asgi", ("gunicorn",)),
    "gunicorn-uvicorn": Kind(f"{_GUNICORN} uvicorn_worker.UvicornWorker served:asgi", ("gunicorn", "uvicorn_worker")),
    "kit-sync": Kind(f"{_GUNICORN} {_KIT}.SyncWorker served:wsgi", ("gunicorn", _KIT), single=True, closes=True),
    "kit-thread": Kind(f"{_GUNICORN} {_KIT}.ThreadWorker --threads 8 served:wsgi", ("gunicorn", _KIT)),
    "uvicorn-h11-asyncio": Kind(f"{_UVICORN} --http h11 --loop asyncio served:asgi", ("uvicorn", "h11")),
    "uvicorn-h11-uvloop": Kind(f"{_UVICORN} --http h11 --loop uvloop served:asgi", ("uvicorn", "h11", "uvloop")),
    "uvicorn-httptools-asyncio": Kind(f"{_UVICORN} --http httptools --loop asyncio served:asgi", ("httptools",)),
    "uvicorn-httptools-uvloop": Kind(f"{_UVICORN} --http httptools --loop uvloop served:asgi", ("httptools", "uvloop")),
    "kit-uvicorn": Kind(
        f"{_UVICORN} --http groundfault.integrations.uvicorn:HttpToolsProtocol --loop uvloop served:asgi",
        ("httptools", "uvloop", "groundfault.integrations.uvicorn"),
    ),
    "hypercorn": Kind(
        "hypercorn --bind 127.0.0.1:{port} --graceful-timeout 1 --log-level critical served:asgi", ("hypercorn",)
    ),
    "waitress": Kind("waitress --listen 127.0.0.1:{port} --threads 8 served:wsgi", ("waitress",)),
    "cheroot": Kind("cheroot --bind 127.0.0.1:{port} --threads 8 served:wsgi", ("cheroot",)),
    "werkzeug": Kind("served", ("werkzeug",), closes=True),
    "granian": Kind("granian --interface asgi --host 127.0.0.1 --port {port} --no-log served:asgi", ("granian",)),
    "daphne": Kind("daphne --bind 127.0.0.1 --port {port} --verbosity 0 served:asgi", ("daphne",)),
}


class GarbageError(AssertionError):
    """What came from the server is no response."""


@dataclass(frozen=True)
class Response:
    """One response, whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        return "close" in self.headers.get("connection", "").lower()

    @property
    def reason(self) -> str | None:
        """Why a load shedder refused it, or None for any other response."""
        if self.status != 503 or self.headers.get("x-groundfault") != "handled":
            return None
        return self.headers.get("x-groundfault-reason")


class Connection:
    """One HTTP/1.1 connection, spoken by hand so that every byte can be hostile, and read by the book."""

    def __init__(self, address: int | str) -> None:
        unix = isinstance(address, str)
        self.socket = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        self.socket.settimeout(_TIMEOUT_S)
        try:
            self.socket.connect(address if unix else ("127.0.0.1", address))
        except OSError:
            self.socket.close()
            raise
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def reset(self) -> None:
        """Leave without a good-bye: the other end gets a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    def send(self, method: str, path: str, *lines: bytes, body: bytes = b"") -> None:
        self.send_bytes(request(method, path, *lines, body=body))

    def send_bytes(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, *, head: bool = False) -> Response:
        """Return the next response; raises ConnectionError if there is none, GarbageError if it is none.

        ``head``: it answers a HEAD request, so it has no body whatever it says. Interim responses are skipped.
        """
        while (response := self.receive_any(head=head)).status == 100:
            pass
        return response

    def receive_any(self, *, head: bool = False) -> Response:
        """As :meth:`receive`, interim responses included."""
        status, headers = self.receive_head()
        if head or status in {100, 204, 304}:
            body = b""
        elif "chunked" in headers.get("transfer-encoding", ""):
            body = b"".join(iter(self.receive_chunk, b""))
        elif "content-length" in headers:
            body = self.receive_exactly(int(headers["content-length"]))
        else:
            body = self._file.read()
        return Response(status, headers, body)

    def receive_head(self) -> tuple[int, dict[str, str]]:
        line = self._file.readline()
        if not line:
            raise ConnectionResetError
        words = line.split(None, 2)
        if not (line.endswith(b"\r\n") and words[0] in {b"HTTP/1.1", b"HTTP/1.0"} and words[1].isdigit()):
            raise GarbageError(line)
        headers: dict[str, str] = {}
        while (line := self._file.readline()) != b"\r\n":
            name, colon, value = line.decode("latin-1").partition(":")
            if not (line.endswith(b"\r\n") and colon and name and name == name.strip()):
                raise GarbageError(line)
            headers[name.lower()] = value.strip()
        return int(words[1]), headers

    def receive_chunk(self) -> bytes:
        """Return one chunk, b"" for the last."""
        size = int(self._file.readline(), 16)
        data = self.receive_exactly(size)
        if self.receive_exactly(2) != b"\r\n":
            raise GarbageError(data)
        return data

    def answers(self, within_s: float) -> bool:
        """Return whether anything comes in time."""
        return bool(select([self.socket], [], [], within_s)[0])

    def receive_some(self) -> bytes:
        """Return whatever is there; b"" at the end."""
        return self._file.read1(65536)

    def ends(self, within_s: float = 2.0) -> bool:
        """Return whether the server closes the connection in time; what it sends before that is thrown away."""
        self.socket.settimeout(within_s)
        try:
            while self._file.read1(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def receive_exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            raise ConnectionResetError
        return data


def request(method: str, path: str, *lines: bytes, body: bytes = b"") -> bytes:
    """Return the bytes of one request; ``lines`` are its headers but Host."""
    return b"\r\n".join([f"{method} {path} HTTP/1.1".encode(), b"Host: served", *lines, b"", b""]) + body


@dataclass
class Server:
    """A server that runs."""

    name: str
    address: int | str
    process: subprocess.Popen[bytes]
    control: int = 0
    kind: Kind = field(default_factory=lambda: Kind("", ()))

    def connect(self) -> Connection:
        return Connection(self.address)

    def ask(self, path: str, *lines: bytes, method: str = "GET", body: bytes = b"") -> Response:
        """Return the response to one request on a connection of its own."""
        with self.connect() as connection:
            connection.send(method, path, b"Connection: close", *lines, body=body)
            return connection.receive(head=method == "HEAD")

    def state(self, command: str = "state") -> dict[str, Any]:
        """Return what the process says about itself."""
        with socket.create_connection(("127.0.0.1", self.control), timeout=_TIMEOUT_S) as connection:
            connection.sendall(command.encode() + b"\n")
            return json.loads(connection.makefile().readline())

    def go(self) -> None:
        """Let everything end that lasts until then."""
        self.state("go")

    def seen(self, what: str) -> int:
        """Return how often the server has understood ``what``, such as ``GET /``."""
        return self.state()["seen"].get(what, 0)

    def called(self, what: str) -> int:
        """Return how often the application was called for ``what``."""
        return self.state()["called"].get(what, 0)

    def settle(self, within_s: float = 2.0) -> dict[str, Any]:
        """Return the state as soon as nothing is in flight, at the latest after so long."""
        return self.await_state(lambda state: state["in_flight"] == 0, within_s)

    def await_state(self, wanted: Callable[[dict[str, Any]], bool], within_s: float = 2.0) -> dict[str, Any]:
        """Return the state as soon as it is as wanted, and the last one if it never is."""
        end = time.monotonic() + within_s  # noqa: TID251  a real process is waited for in real time
        while not wanted(state := self.state()) and time.monotonic() < end:  # noqa: TID251  as above
            time.sleep(0.01)
        return state

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Keep every worker busy from the beginning of the block, for 0.4 s; waits for them at its end."""
        with ExitStack() as stack:
            blockers = []
            for number in range(1 if self.kind.asgi or self.kind.single else 8):
                blockers.append(stack.enter_context(self.connect()))
                blockers[-1].send("GET", "/block")
                state = self.await_state(lambda state, number=number: state["in_flight"] > number)
                assert state["in_flight"] == number + 1
            yield
            for blocker in blockers:
                assert blocker.receive().status == 200
                blocker.close()  # at once: gunicorn's sync worker waits for that

    def stop(self) -> None:
        """Stop the server as its operator would, and wait for its end."""
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)

    def assert_well(self) -> None:
        """Fail unless the server answers within a second, holds nothing, and no error of ours has happened.

        It is asked up to three times: the machine may have other things to do.
        """
        for _ in range(3):
            began = time.monotonic()  # noqa: TID251  a real process is measured in real time
            assert self.ask("/health").status == 200
            took_s = time.monotonic() - began  # noqa: TID251  as above
            if took_s < 1.0:
                break
        assert took_s < 1.0
        state = self.settle()
        assert (state["in_flight"], state["internal_errors"], state["stepped_aside"]) == (0, {}, False)


_PORTS = iter(random.sample(range(10_000, 32_000), 20_000))  # below those that the kernel gives to clients


def free_port() -> int:
    """Return a port that is free and will not be handed out again; it is bound only later."""
    for port in _PORTS:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is left")


@contextmanager
def running(
    name: str,
    words: list[str],
    address: int | str,
    *,
    environment: dict[str, str] | None = None,
    ready: str = "/health",
) -> Iterator[Server]:
    """Run ``python -m *words`` in this folder until the end of the block."""
    control = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=_HERE,
        env={
            **os.environ,
            "GROUNDFAULT_SERVICE": "served",
            "CONTROL_PORT": str(control),
            "PORT": str(address),
            "PYTHONDONTWRITEBYTECODE": "1",
            **(environment or {}),
        },
        stdout=subprocess.DEVNULL,
        stderr=None if os.environ.get("SHOW_SERVERS") else subprocess.DEVNULL,
    )
    server = Server(name, address, process, control)
    try:
        _await_answer(server, ready)
        yield server
    finally:
        server.stop()


def _await_answer(server: Server, path: str) -> None:
    end = time.monotonic() + _START_S  # noqa: TID251  a real process is waited for in real time
    while time.monotonic() < end:  # noqa: TID251  as above
        assert server.process.poll() is None, f"{server.name} died at its start"
        with suppress(OSError):
            if server.ask(path).status == 200:
                return
        time.sleep(0.05)
    pytest.fail(f"no answer from {server.name} within {_START_S} s")


@contextmanager
def _of_kind(name: str, **how: Any) -> Iterator[Server]:
    kind = KINDS[name]
    for module in kind.needs:
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            pytest.skip(f"{name} needs {module}, which is not installed")
    port = free_port()
    with running(name, kind.command.format(port=port).split(), port, **how) as server:
        server.kind = kind
        yield server


@pytest.fixture(scope="session", params=KINDS)
def server(request) -> Iterator[Server]:
    """Run each server once for all tests of this folder."""
    with _of_kind(request.param) as server:
        yield server


@pytest.fixture
def start_kind() -> Iterator[Callable[..., Server]]:
    """Return a function that starts a server by its name, for this test alone."""
    with ExitStack() as stack:
        yield lambda name, **how: stack.enter_context(_of_kind(name, **how))


@pytest.fixture(scope="session")
def run_server() -> Callable[..., AbstractContextManager[Server]]:
    """Return a function that runs uvicorn, gunicorn or any command that takes an application, until its block ends.

    Over TCP, or over a unix socket where a path is given.
    """

    def run(name: str, command: str, path: Path | None = None, **how: Any) -> AbstractContextManager[Server]:
        address = free_port() if path is None else str(path)
        if name == "uvicorn":
            command += f" --port {address}" if path is None else f" --uds {address}"
        else:
            command += f" --bind 127.0.0.1:{address}" if path is None else f" --bind unix:{address}"
        app = "asgi" if name == "uvicorn" else "wsgi"
        return running(name, [*command.split(), f"served:{app}"], address, **how)

    return run


@pytest.fixture(scope="session")
def connect_to() -> Callable[[int | str], Connection]:
    """Return a function that connects to a port of this host, or to a unix socket."""
    return Connection
