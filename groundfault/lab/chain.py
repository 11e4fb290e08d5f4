"""How the services of the chain call each other, and what the plain-503 phase leaves out.

Each service is written as a user would write it, in groundfault/lab/topps.py, grouper.py and saber.py.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter

from groundfault import wire
from groundfault.integrations.requests import GroundFaultAdapter
from groundfault.lab.parts import Part

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["StripFromASGI", "StripFromWSGI", "TimeoutAdapter", "session_for"]

POOL_SIZE = 128
"""Connections a session keeps: more than any service has threads, so no call ever pays for a new one."""


def session_for(part: Part, callee: str, *, timeout_s: float) -> requests.Session:
    """Return the session a service calls ``callee`` with, shared by all its threads.

    ``timeout_s`` is the same in all phases; so is the pool.
    """
    session = requests.Session()
    session.trust_env = False  # a proxy configured on this machine has no place between the services
    adapter: HTTPAdapter
    if part.protected:
        adapter = GroundFaultAdapter(callee, timeout_s=timeout_s, pool_maxsize=POOL_SIZE)
    else:
        adapter = TimeoutAdapter(timeout_s, pool_maxsize=POOL_SIZE)
    session.mount(part.callee + "/", adapter)
    return session


class TimeoutAdapter(HTTPAdapter):
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
