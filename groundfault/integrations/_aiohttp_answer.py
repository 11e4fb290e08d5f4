"""A response of aiohttp without an exchange, for fallbacks: aiohttp has no constructor for one."""

import inspect
from collections.abc import Mapping
from http.client import responses
from types import MappingProxyType, SimpleNamespace
from typing import Any, Final, NamedTuple

import aiohttp
from aiohttp.base_protocol import BaseProtocol
from multidict import CIMultiDict, CIMultiDictProxy

__all__ = ["Answer", "response_of"]

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_UNSENT: Final = SimpleNamespace(output_size=0)


class Answer(NamedTuple):
    """What a fallback answers with: bytes, decoded as they are to be read, a status and headers.

    Give a ``Content-Type`` if the application calls ``json()``. Set no ``Content-Encoding``: nothing is decoded.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = _NO_HEADERS


def response_of(
    value: aiohttp.ClientResponse | Answer | None, request: aiohttp.ClientRequest
) -> aiohttp.ClientResponse | None:
    """Return what a fallback served for ``request`` as a response. Raises TypeError if it is none."""
    if isinstance(value, Answer):
        return _response_with(value, request)
    if value is None or isinstance(value, aiohttp.ClientResponse):
        return value
    raise TypeError(f"a fallback must return an Answer, a ClientResponse or None, not {value!r}")


def _response_with(answer: Answer, request: aiohttp.ClientRequest) -> aiohttp.ClientResponse:
    """Return a response that is closed already and has its body."""
    arguments: dict[str, Any] = {
        "writer": None,
        "continue100": None,
        "timer": None,
        "request_info": request.request_info,
        "traces": [],
        "loop": request.loop,
        "session": getattr(request, "session", None),
        "stream_writer": _UNSENT,  # since aiohttp 3.14
    }
    known = inspect.signature(request.response_class).parameters
    response = request.response_class(
        request.method,
        request.original_url,
        **{name: value for name, value in arguments.items() if name in known},
    )
    response.version = request.version
    response.status = answer.status
    response.reason = responses.get(answer.status, "")
    headers = CIMultiDict(answer.headers)
    response._headers = CIMultiDictProxy(headers)  # noqa: SLF001  as aiohttp itself does when the headers have come
    raw_headers = tuple((name.encode(), value.encode()) for name, value in headers.items())
    response._raw_headers = raw_headers  # noqa: SLF001  as above
    response._body = bytes(answer.body)  # noqa: SLF001  and when the body has been read
    content = aiohttp.StreamReader(BaseProtocol(request.loop), len(answer.body) or 1, loop=request.loop)
    content.feed_data(answer.body)
    content.feed_eof()
    response.content = content
    return response
