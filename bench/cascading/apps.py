"""One service of the chain, as gunicorn loads it: ``cascading.apps:create()``."""

import json
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from time import sleep  # what a service waits for stands for a database elsewhere
from typing import TYPE_CHECKING

import requests

from cascading.guards import Changes, guarded, next_service, sickly
from cascading.parts import FREE, FREE_S, NEED, Part
from groundfault.lab.targets.faults import FaultsFile
from groundfault.sinks import default_sinks

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["create"]


def create() -> "WSGIApplication":
    """Build the application. gunicorn calls this in the worker."""
    part = Part.from_environment()
    changes = Changes(part)
    default_sinks().use(changes)
    faults = FaultsFile(Path(part.directory))
    need = _scarce(part, faults) if part.is_last else _asking(part, next_service(part, changes))
    health = json.dumps({"service": part.service, "token": part.token}).encode()

    def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        status = "200 OK"
        try:
            if path in {NEED, FREE}:
                body = need(path)
            elif path == "/healthz":
                body = health
            else:
                status, body = "404 Not Found", b"no such page\n"
        except requests.RequestException:
            status, body = "502 Bad Gateway", b"the next service does not answer\n"
        start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    protected = guarded(app, part)
    return sickly(protected, part, faults) if part.is_last else protected


def _scarce(part: Part, faults: FaultsFile) -> Callable[[str], bytes]:
    """Return what the last service does: hold one of a few slots for a while."""
    slots = threading.BoundedSemaphore(part.last.slots)

    def work(_path: str) -> bytes:
        with slots:
            sleep(part.last.work_s * faults.now().slower)
        return b"{}\n"

    return work


def _asking(part: Part, ask: Callable[[str], bytes]) -> Callable[[str], bytes]:
    """Return what the services before it do: ask the next, or turn back."""

    def work(path: str) -> bytes:
        if path == FREE and part.turns:
            sleep(FREE_S)
            return b"{}\n"
        return ask(path)

    return work
