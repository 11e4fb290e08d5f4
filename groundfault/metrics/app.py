"""``/metrics`` for an application that mounts it, without any dependency: :class:`MetricsApp`, :class:`WSGIMetricsApp`.

Making one starts this process's reports, if there is a run directory. An answer is that of all processes.
"""

import asyncio
import gzip
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing import parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from groundfault._clock import wall
from groundfault.events import note_internal_error
from groundfault.metrics.exposition import OPENMETRICS, TEXT, negotiated, render
from groundfault.metrics.report import Report
from groundfault.metrics.rundir import RUN_DIR, RunDirError, named_directory
from groundfault.metrics.writer import scrape, start

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["Answer", "MetricsApp", "WSGIMetricsApp", "answered", "has_siblings", "takes_gzip", "warn_if_alone"]

_log = logging.getLogger("groundfault")

Directory = str | os.PathLike[str] | None
Scope = Mapping[str, Any]


class Answer(NamedTuple):
    """What an HTTP server sends."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes

    @classmethod
    def of(cls, status: str, content_type: str, body: bytes, *more: tuple[str, str]) -> "Answer":
        """Return an answer with the headers that it needs."""
        return cls(status, [("Content-Type", content_type), ("Content-Length", str(len(body))), *more], body)


def answered(pull: Callable[[], Report], accept: str, accept_encoding: str) -> Answer:
    """Return the answer to a scrape: 503 with the reason if there is none. Never raises an Exception."""
    openmetrics = negotiated(accept)
    try:
        body = render(pull(), wall(), openmetrics=openmetrics)
    except RunDirError as error:
        return Answer.of(_UNAVAILABLE, _PLAIN, f"{error}\n".encode())
    except Exception as error:  # noqa: BLE001  a scrape that fails is a gap in a graph, and nothing else
        note_internal_error("metrics", error)
        return Answer.of(_UNAVAILABLE, _PLAIN, b"internal error; see the log\n")
    kind = OPENMETRICS if openmetrics else TEXT
    if takes_gzip(accept_encoding):
        # Level 1: a twentieth of the size, for a tenth of the time of the usual level.
        return Answer.of("200 OK", kind, gzip.compress(body, 1, mtime=0), ("Content-Encoding", "gzip"), _VARY)
    return Answer.of("200 OK", kind, body, _VARY)


def takes_gzip(accept_encoding: str) -> bool:
    """Whether who sent that header takes what was compressed with gzip."""
    for each in accept_encoding.lower().split(","):
        coding, _, weight = each.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


_UNAVAILABLE: Final = "503 Service Unavailable"
_VARY: Final = ("Vary", "Accept, Accept-Encoding")
_PLAIN: Final = "text/plain; charset=utf-8"
_WRONG_METHOD: Final = Answer.of("405 Method Not Allowed", _PLAIN, b"use GET\n", ("Allow", "GET, HEAD"))
_METHODS: Final = ("GET", "HEAD")


class _App:
    """What both have in common."""

    def __init__(self, directory: Directory = None) -> None:
        self.directory = named_directory(directory)
        start(self.directory)

    def _answer(self, method: str, accept: str, accept_encoding: str, *, several: bool) -> Answer:
        if method not in _METHODS:
            return _WRONG_METHOD
        if self.directory is None:
            warn_if_alone(several=several)
        return answered(partial(scrape, self.directory), accept, accept_encoding)


class MetricsApp(_App):
    """The ASGI application: ``app.add_route("/metrics", MetricsApp())``, or mounted.

    It works on a thread of its own for each scrape, for files may be slow; so it answers while other threads are busy.

    ``directory``: the run directory; None, the default, for the one that ``GROUNDFAULT_RUN_DIR`` names.
    Without one the answer is that of the process which gives it, and where there seem to be several, a warning is
    logged once.
    """

    async def __call__(self, scope: Scope, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        """Serve one scrape."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"MetricsApp serves http, not {scope['type']}")
        asked = _header(scope, b"accept"), _header(scope, b"accept-encoding")
        status, headers, body = await _on_a_thread(partial(self._answer, scope["method"], *asked, several=False))
        encoded = [(name.lower().encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": int(status[:3]), "headers": encoded})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _header(scope: Scope, wanted: bytes) -> str:
    return ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == wanted)


async def _on_a_thread(work: Callable[[], Answer]) -> Answer:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # a loop that is not asyncio's
        return work()
    executor = ThreadPoolExecutor(1, thread_name_prefix="groundfault-scrape")
    try:
        return await loop.run_in_executor(executor, work)
    finally:
        executor.shutdown(wait=False)


async def _live(receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


class WSGIMetricsApp(_App):
    """The WSGI application: ``DispatcherMiddleware(app, {"/metrics": WSGIMetricsApp()})``, or mounted otherwise.

    ``directory``: the run directory; None, the default, for the one that ``GROUNDFAULT_RUN_DIR`` names.
    Without one the answer is that of the process which gives it, and where there seem to be several, a warning is
    logged once.
    """

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Serve one scrape."""
        method = environ.get("REQUEST_METHOD", "GET")
        several = bool(environ.get("wsgi.multiprocess"))
        asked = environ.get("HTTP_ACCEPT", ""), environ.get("HTTP_ACCEPT_ENCODING", "")
        status, headers, body = self._answer(method, *asked, several=several)
        start_response(status, headers)
        return [b"" if method == "HEAD" else body]


_warned: Final[set[int]] = set()  # the process that has


def warn_if_alone(*, several: bool = False) -> None:
    """Log once that each scrape shows one process alone, if there are ``several`` or seem to be."""
    if os.getpid() in _warned or not (several or has_siblings()):
        return
    _warned.add(os.getpid())
    _log.warning(
        "metrics are those of process %d alone, and it seems to be one of several: counters will jump from scrape to "
        "scrape. Name a directory for all of them in %s, such as /dev/shm/<service>",
        os.getpid(),
        RUN_DIR,
    )


def has_siblings() -> bool:
    """Whether this looks like one of several workers: as multiprocessing makes them, or one of like children."""
    if parent_process() is not None or os.environ.get("WEB_CONCURRENCY", "1") not in {"", "0", "1"}:
        return True
    with suppress(OSError):
        parent = os.getppid()
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split()
        mine = Path("/proc/self/cmdline").read_bytes()
        for child in children:
            if int(child) != os.getpid():
                with suppress(OSError):  # it may have ended just now
                    if Path(f"/proc/{child}/cmdline").read_bytes() == mine:
                        return True
    return False
