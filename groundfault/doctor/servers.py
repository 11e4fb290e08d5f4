"""The servers that can be tried, and how each is started with one worker, so that one request holds up all others."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from socket import create_connection, create_server
from typing import Final

from groundfault._clock import monotonic

__all__ = ["SERVERS", "Running", "Server", "ServerError", "running", "server_names"]

START_S: Final = 15.0
"""How long a server may take until it answers; one second is usual."""
_STOP_S: Final = 5.0
_NOT_HANDED_ON: Final = frozenset({"GROUNDFAULT_DISABLED", "GUNICORN_CMD_ARGS", "WEB_CONCURRENCY"})
_POLL_S: Final = 0.02


class ServerError(RuntimeError):
    """A server did not start; the message holds the end of what it said."""


@dataclass(frozen=True, slots=True)
class Server:
    """One way to run the doctor's application.

    ``command``: what follows ``python``; ``{port}`` is filled in. ``needs``: the modules it takes.
    ``notes``: what to know about it, in a sentence each. ``blind``: it is known to leave no way to a wait.
    """

    name: str
    distribution: str
    command: tuple[str, ...]
    needs: tuple[str, ...]
    notes: tuple[str, ...] = ()
    blind: bool = False

    @property
    def missing(self) -> tuple[str, ...]:
        """The modules that are not installed here."""
        return tuple(name for name in self.needs if find_spec(name) is None)

    @property
    def version(self) -> str:
        """The version that is installed, "" if none is."""
        try:
            return version(self.distribution)
        except PackageNotFoundError:
            return ""


_QUIET: Final = ("--log-level", "warning")
_GUNICORN: Final = ("-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--workers", "1", *_QUIET)
_UVICORN: Final = ("-m", "uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--no-access-log", *_QUIET)
_WSGI: Final = "groundfault.doctor.app:wsgi"
_ASGI: Final = "groundfault.doctor.app:asgi"

_WERKZEUG: Final = """
from werkzeug.serving import run_simple
from groundfault.doctor.app import wsgi
run_simple("127.0.0.1", {port}, wsgi)
"""

LINGERS: Final = "from 26.0 on, a worker waits up to 2 s for each client to close: put a proxy in front"
_EAGER: Final = "accepts more than it can serve: its queue is in the process, and the accept queue stays empty"
_BY_ONE: Final = "takes one connection a turn of its loop: its queue is in the kernel, where the accept queue shows it"
_GREENLETS: Final = "what waits for the hub is seen; what a greenlet waits for, such as a connection of a pool, is not"


def _gunicorn(name: str, worker: str, *needs: str, notes: tuple[str, ...] = (), app: str = _WSGI) -> Server:
    command = (*_GUNICORN, "--worker-class", *worker.split(), app)
    return Server(name, "gunicorn", command, ("gunicorn", *needs), notes)


def _uvicorn(http: str, loop: str) -> Server:
    needs = ("uvicorn", *{"httptools", "uvloop", "h11"}.intersection((http, loop)))
    command = (*_UVICORN, "--http", http, "--loop", loop, _ASGI)
    return Server(f"uvicorn-{http}-{loop}", "uvicorn", command, needs, (_BY_ONE if loop == "uvloop" else _EAGER,))


SERVERS: Final[tuple[Server, ...]] = (
    _gunicorn("gunicorn-sync", "sync", notes=(LINGERS,)),
    _gunicorn("gunicorn-gthread", "gthread --threads 1", notes=(_EAGER,)),
    _gunicorn("gunicorn-gevent", "gevent", "gevent", notes=(_GREENLETS,)),
    _gunicorn("gunicorn-asgi", "asgi", notes=(_EAGER,), app=_ASGI),
    _gunicorn("gunicorn-uvicorn-worker", "uvicorn_worker.UvicornWorker", "uvicorn_worker", app=_ASGI),
    _gunicorn(
        "groundfault-uvicorn-worker",
        "groundfault.integrations.uvicorn_worker.UvicornWorker",
        "uvicorn_worker",
        app=_ASGI,
    ),
    _gunicorn("groundfault-sync", "groundfault.integrations.gunicorn.SyncWorker"),
    _gunicorn("groundfault-gthread", "groundfault.integrations.gunicorn.ThreadWorker --threads 1", notes=(_EAGER,)),
    _uvicorn("h11", "asyncio"),
    _uvicorn("h11", "uvloop"),
    _uvicorn("httptools", "asyncio"),
    _uvicorn("httptools", "uvloop"),
    Server(
        "groundfault-uvicorn",
        "uvicorn",
        (*_UVICORN, "--http", "groundfault.integrations.uvicorn:AutoProtocol", _ASGI),
        ("uvicorn",),
    ),
    Server(
        "hypercorn", "hypercorn", ("-m", "hypercorn", "--bind", "127.0.0.1:{port}", _ASGI), ("hypercorn",), (_EAGER,)
    ),
    Server(
        "waitress",
        "waitress",
        ("-m", "waitress", "--listen", "127.0.0.1:{port}", "--threads", "1", _WSGI),
        ("waitress",),
        (_EAGER,),
    ),
    Server(
        "cheroot",
        "cheroot",
        ("-m", "cheroot", "--bind", "127.0.0.1:{port}", "--threads", "1", "--max-threads", "1", _WSGI),
        ("cheroot",),
        (_EAGER,),
    ),
    Server(
        "werkzeug",
        "werkzeug",
        ("-c", _WERKZEUG),
        ("werkzeug",),
        ("for development only",),
    ),
    Server(
        "granian",
        "granian",
        ("-m", "granian", "--port", "{port}", "--interface", "asgi", *_QUIET, _ASGI),
        ("granian",),
        ("the socket is out of reach, so the kernel is asked by address: 4 µs a request",),
    ),
    Server(
        "granian-wsgi",
        "granian",
        (
            *("-m", "granian", "--port", "{port}", "--interface", "wsgi", "--blocking-threads", "1"),
            *(*_QUIET, _WSGI),
        ),
        ("granian",),
        ("says no port of the peer, so its connection cannot be asked for: set X-Request-Start in front of it",),
        blind=True,
    ),
    Server(
        "daphne",
        "daphne",
        ("-m", "daphne", "-b", "127.0.0.1", "-p", "{port}", "--no-server-name", "-v", "0", _ASGI),
        ("daphne",),
    ),
)


def server_names() -> tuple[str, ...]:
    """Return the names of all servers that can be asked for."""
    return tuple(server.name for server in SERVERS)


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers."""

    port: int
    pid: int


@contextmanager
def running(server: Server, answers: Callable[[int], bool] | None = None) -> Iterator[Running]:
    """Start a server on a free port of loopback, and stop it in the end, whatever happens.

    ``answers``: whether the server on this port does so, or an OSError; None asks for ``/ready`` by HTTP.
    Raises :class:`ServerError` if it does not answer within :data:`START_S`.
    """
    with create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="groundfault-doctor-") as place:
        log = Path(place) / "log"
        command = [sys.executable, *(word.replace("{port}", str(port)) for word in server.command)]
        with log.open("wb") as said:
            process = subprocess.Popen(  # noqa: S603  from the table above
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=place, env=_environment()
            )
        try:
            _await_answer(process, port, log, answers or _answers)
            yield Running(port, process.pid)
        finally:
            _stop(process)


def _environment() -> dict[str, str]:
    """Return this process's environment without what would have a server started otherwise, or look at nothing."""
    return {name: value for name, value in os.environ.items() if name not in _NOT_HANDED_ON}


def _await_answer(process: "subprocess.Popen[bytes]", port: int, log: Path, answers: Callable[[int], bool]) -> None:
    end = monotonic() + START_S
    while monotonic() < end and process.poll() is None:
        with suppress(OSError):
            if answers(port):
                return
        time.sleep(_POLL_S)
    words = log.read_text(errors="replace").strip().splitlines()[-1:]
    raise ServerError(f"no answer within {START_S:.0f} s" if process.poll() is None else f"it ended: {''.join(words)}")


def _answers(port: int) -> bool:
    with create_connection(("127.0.0.1", port), timeout=1.0) as client:
        client.sendall(b"GET /ready HTTP/1.1\r\nHost: doctor\r\nConnection: close\r\n\r\n")
        return client.recv(12).endswith(b" 200")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_STOP_S)
