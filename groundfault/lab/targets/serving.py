"""The shell all WSGI services of the targets share: health, errors, what protects them, and a count at the door."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from groundfault._clock import Clock, monotonic
from groundfault.errors import GroundFaultError
from groundfault.integrations.requests import GroundFaultAdapter
from groundfault.lab.chain import POOL_SIZE, StripFromWSGI, TimeoutAdapter
from groundfault.lab.targets.part import Part
from groundfault.shedding.wsgi import WSGILoadShedder

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from requests.adapters import HTTPAdapter

__all__ = ["Door", "NoSuchPageError", "application", "guarded", "session_for"]

HEALTH = "/healthz"


class NoSuchPageError(Exception):
    """The service has no such path."""


def application(part: Part, answer: Callable[[str], Any]) -> "WSGIApplication":
    """Return a service that answers a path with what ``answer`` returns, as JSON.

    What it raises becomes a status, as in any framework: 404 for :class:`NoSuchPageError`, 502 for whatever went wrong
    with the service behind it. A command's refusal is left to the shedder around it, which says why.
    """
    health = {"service": part.service, "token": part.token}

    def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> "Iterable[bytes]":
        path = environ["PATH_INFO"]
        status = "200 OK"
        try:
            body = health if path == HEALTH else answer(path)
        except NoSuchPageError:
            status, body = "404 Not Found", {"error": "no such page"}
        except (requests.RequestException, GroundFaultError, OSError) as error:
            status, body = "502 Bad Gateway", {"error": type(error).__name__}
        payload = json.dumps(body).encode()
        start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(payload)))])
        return [payload]

    return app


def guarded(
    app: "WSGIApplication", part: Part, *, inside: "Callable[[WSGIApplication], WSGIApplication] | None" = None
) -> "WSGIApplication":
    """Return the application behind what protects it, and behind the :class:`Door` that counts.

    ``inside``: what stands between the two; None: nothing.
    """
    if part.protected:
        app = WSGILoadShedder(app, service=part.service)
        if not part.annotated:
            app = StripFromWSGI(app)
    return Door(app if inside is None else inside(app), part)


class Door:
    """Counts what comes and what goes, in every variant alike: a line for each answer, in the process's journal."""

    def __init__(self, app: "WSGIApplication", part: Part, clock: Clock = monotonic) -> None:
        self._app = app
        self._service = part.service
        self._directory = Path(part.directory)
        self._clock = clock
        self._fd = -1
        self._pid = 0

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> "Iterable[bytes]":
        """Serve one request."""
        if environ["PATH_INFO"] == HEALTH:
            return self._app(environ, start_response)
        came = self._clock()
        code = 500

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
            nonlocal code
            code = int(status[:3])
            return start_response(status, headers, *exc_info)

        try:
            return self._app(environ, start)
        finally:
            took_s = self._clock() - came
            self._write({"t": came, "event": "door", "by": self._service, "status": code, "took_s": took_s})

    def _write(self, row: dict[str, Any]) -> None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            path = self._directory / f"door-{self._service}-{self._pid}.jsonl"
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(self._fd, json.dumps(row).encode() + b"\n")  # one write: threads do not tear each other's lines


def session_for(part: Part, callee: str, *, timeout_s: float, **settings: Any) -> requests.Session:
    """Return a session for all instances of ``callee``. ``settings`` are the protected variants' command's."""
    session = requests.Session()
    session.trust_env = False  # a proxy configured on this machine has no place between the services
    adapter: HTTPAdapter
    if part.protected:
        honor = None if part.annotated else False
        adapter = GroundFaultAdapter(
            callee, timeout_s=timeout_s, honor_handled=honor, pool_maxsize=POOL_SIZE, **settings
        )
    else:
        adapter = TimeoutAdapter(timeout_s, pool_maxsize=POOL_SIZE)
    for url in part.callees[callee]:
        session.mount(url + "/", adapter)
    return session
