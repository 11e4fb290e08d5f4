"""What the three services of the chain have in common: how they are told their part, and how they call each other.

::

    fans ──► topps ──► grouper ──► saber ──► contest-db (SQLite behind three connections)
             Starlette  werkzeug    WSGI
             uvicorn    gunicorn    gunicorn

Each service is written as a user would write it, in groundfault/lab/topps.py, grouper.py and saber.py.
The three phases differ here and nowhere else:

* ``unprotected``: plain HTTP with client timeouts.
* ``plain-503``: the load shedder and the circuit breakers, but the header that says "on purpose" is left out.
* ``groundfault``: the same with the header.
"""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import requests
from requests.adapters import HTTPAdapter

from groundfault import wire
from groundfault.events import Sink
from groundfault.integrations.requests import GroundFaultAdapter
from groundfault.lab.journal import Journal

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["Part", "Phase", "StripFromASGI", "StripFromWSGI", "session_for"]

VARIABLE = "GROUNDFAULT_DEMO_PART"

POOL_SIZE = 128
"""Connections a session keeps: more than any service has threads, so no call ever pays for a new one."""


class Phase(StrEnum):
    """What protects the chain; the three runs of the demo, in order."""

    UNPROTECTED = "unprotected"
    PLAIN_503 = "plain-503"
    GROUNDFAULT = "groundfault"


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What a service process is told: who it is, what protects it, whom it calls, and where it writes.

    ``callee`` is the base URL of the service it calls, empty for the last one.
    ``token`` is repeated by the health check, so that the runner knows its own processes from a stranger on the port.
    """

    service: str
    phase: Phase
    directory: str
    token: str
    callee: str = ""

    @property
    def protected(self) -> bool:
        """True if the shedder and the breakers are installed."""
        return self.phase is not Phase.UNPROTECTED

    @property
    def annotated(self) -> bool:
        """True if answers keep the header."""
        return self.phase is Phase.GROUNDFAULT

    def sinks(self) -> tuple[Sink, ...]:
        """Return where the service's events go."""
        return (Journal(Path(self.directory), self.service),)

    def environment(self) -> dict[str, str]:
        """Return the environment variable that carries all this to the process."""
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls) -> Self:
        """Read the part this process plays. KeyError if it was not started by the demo."""
        fields = json.loads(os.environ[VARIABLE])
        return cls(**{**fields, "phase": Phase(fields["phase"])})


def session_for(part: Part, callee: str, *, timeout_s: float, sinks: Iterable[Sink]) -> requests.Session:
    """Return the session a service calls ``callee`` with, shared by all its threads.

    ``timeout_s`` is the same in all phases; so is the pool.
    """
    session = requests.Session()
    session.trust_env = False  # a proxy configured on this machine has no place between the services
    adapter: HTTPAdapter
    if part.protected:
        adapter = GroundFaultAdapter(callee, timeout_s=timeout_s, sinks=sinks, pool_maxsize=POOL_SIZE)
    else:
        adapter = _TimeoutAdapter(timeout_s, pool_maxsize=POOL_SIZE)
    session.mount(part.callee + "/", adapter)
    return session


class _TimeoutAdapter(HTTPAdapter):
    """The plain adapter with a timeout for every call, as any careful client has."""

    def __init__(self, timeout_s: float, **kwargs: Any) -> None:
        self._timeout_s = timeout_s
        super().__init__(**kwargs)

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send with the timeout where the caller gave none."""
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self._timeout_s
        return super().send(request, *args, **kwargs)


class StripFromWSGI:
    """Leaves this protocol's headers out of every response of a WSGI application: a plain 503 is what remains."""

    def __init__(self, app: "WSGIApplication") -> None:
        self._app = app

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Serve one request."""

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
            return start_response(status, [pair for pair in headers if not wire.is_ours(pair[0])], *exc_info)

        return self._app(environ, start)


class StripFromASGI:
    """The same for an ASGI application."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""

        async def forward(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [pair for pair in message.get("headers", ()) if not wire.is_ours(pair[0].decode("latin-1"))]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, forward)
