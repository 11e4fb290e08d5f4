"""What one hop of aiohttp says and whom it believes: headers, redirects, annotated answers.

aiohttp follows redirects above its middlewares, which see every hop but not that it is one.
"""

from contextvars import ContextVar
from typing import Final, NamedTuple

import aiohttp
from yarl import URL

from groundfault import wire
from groundfault.breaker import Command
from groundfault.integrations._http import honored_refusal, hop_headers
from groundfault.refusals import Joined

__all__ = ["follow", "honored", "is_astray", "label", "strip"]

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class _Redirect(NamedTuple):
    """Where the request under way has been sent, where it was meant for, and whose request it is."""

    owner: object
    home: URL
    target: URL


# The hops of one request follow each other in one context, so what the last one left here is found by the next.
_redirect: ContextVar[_Redirect | None] = ContextVar("groundfault_aiohttp_redirect", default=None)


def is_astray(request: aiohttp.ClientRequest, owner: object) -> bool:
    """Return whether a redirect has led the request to another service than it was meant for.

    ``owner``: the middleware that asks; what another one's request left behind says nothing about this one.
    """
    redirect = _redirect.get()
    return (
        redirect is not None
        and redirect.owner is owner
        and _origin(request.url) == _origin(redirect.target)
        and not _same_service(redirect.home, request.url)
    )


def follow(request: aiohttp.ClientRequest, response: aiohttp.ClientResponse | None, owner: object) -> None:
    """Take note of where the response sends the request; None: there is none."""
    before = _redirect.get()
    redirect = None
    if response is not None and response.status in _REDIRECTS:
        location = response.headers.get("Location") or response.headers.get("URI")
        if location is not None:
            home = before.home if before is not None and is_astray(request, owner) else request.url
            redirect = _target(owner, home, request.url, location)
    if redirect is not before:
        _redirect.set(redirect)


def _target(owner: object, home: URL, url: URL, location: str) -> _Redirect | None:
    try:
        return _Redirect(owner, home, url.join(URL(location)))
    except ValueError:  # aiohttp will say so
        return None


def _origin(url: URL) -> tuple[str | None, int | None]:
    return url.host, url.port


def _same_service(home: URL, url: URL) -> bool:
    """Whether the two differ in nothing but the step from HTTP to HTTPS."""
    if home.host != url.host:
        return False
    upgraded = (home.scheme, url.scheme) == ("http", "https") and home.is_default_port() and url.is_default_port()
    return home.port == url.port or upgraded


def label(request: aiohttp.ClientRequest, command: Command, budget_s: float | None) -> None:
    """Put this hop's headers on the request, which is made anew for every hop, in place of any it brought."""
    strip(request)
    for name, value in hop_headers(command, budget_s, tuple(request.headers)):
        request.headers[name] = value


def strip(request: aiohttp.ClientRequest) -> None:
    """Take off what the application copied from another hop."""
    for name in {name for name in request.headers if wire.is_ours(name)}:
        del request.headers[name]


def honored(response: aiohttp.ClientResponse, request: aiohttp.ClientRequest, command: Command) -> wire.Refusal | None:
    """Return what an annotated 503 says if the host that was asked is believed, else None."""
    if response.status != wire.SHED_STATUS:
        return None
    return honored_refusal(response.status, Joined(response.headers.items()), request.url.host or "", command)
