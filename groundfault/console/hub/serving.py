"""The hub's requests: what hosts send, what people look at. Each answer that may wait is made on a thread of its own.

Whoever sends something is asked who it is before the first byte of a body is read, and a body is read up to a size and
for a time. A body that ends before it is whole is not looked at: it is dropped, and said.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from groundfault.console.answering import LARGEST_BODY, Console, RefusedError
from groundfault.console.asking import JSON, Answer, Asked, plain
from groundfault.console.guarding import Guard
from groundfault.console.hub.accepting import LARGEST_SENT, UnreadableError
from groundfault.console.hub.daemons import BusyError, Daemons
from groundfault.console.hub.gate import Gate
from groundfault.console.hub.history import MAX_POINTS, History
from groundfault.console.hub.sources import FullError
from groundfault.console.hub.spans import span_of
from groundfault.console.hub.storing import LARGEST_WRITE
from groundfault.console.hub.streams import MAX_STREAMS, Receive, Send, Streams
from groundfault.console.hub.watching import Watch
from groundfault.console.pages import SAFE
from groundfault.events import note_internal_error
from groundfault.settings.store import StoreError

__all__ = ["Parts", "Stores", "application"]

MAX_PUSHES: Final = 64
"""So many bodies are read at a time."""

BODY_S: Final = 10.0
ANSWER_S: Final = 15.0

_NEVER_KEPT: Final = ("Cache-Control", "no-store")
_STREAM_HEADERS: Final = [
    (name.lower().encode(), value.encode())
    for name, value in (
        ("Content-Type", "text/event-stream; charset=utf-8"),
        ("X-Accel-Buffering", "no"),
        _NEVER_KEPT,
        *SAFE,
    )
]


class Stores(Protocol):
    """What answers below ``/store/``; see :class:`groundfault.console.hub.storing.Storing`."""

    async def answered(self, asked: Asked) -> Answer:
        """Return the answer; may wait for long, and takes no thread while it does."""

    def answer(self, asked: Asked) -> Answer:
        """Return the answer; may wait for the store."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the application is made of. ``history``: None: nothing is kept. ``stores``: None: there is no store.

    ``mill``: the one thread that takes reports in and makes views of them; ``answers``: those for everything else.
    """

    watch: Watch
    console: Console
    guard: Guard
    gate: Gate
    streams: Streams
    mill: Daemons
    answers: Daemons
    history: History | None = None
    stores: Stores | None = None
    most_pushes: int = MAX_PUSHES


class _HalfError(Exception):
    """A body ended before it was whole, or did not come in time."""


class _LargeError(Exception):
    """A body is too large."""


def application(parts: Parts) -> Starlette:
    """Return the application."""
    answering = _Answering(parts)
    return Starlette(
        routes=[
            Route("/push", answering.push, methods=["POST"]),
            Route("/events", _Events(answering, parts)),
            Route("/history.json", answering.history, methods=["GET"]),
            Route("/store/{path:path}", answering.store, methods=["GET", "POST"]),
            Route("/{path:path}", answering.console, methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]),
        ]
    )


class _Answering:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._pushes = 0

    # --- hosts --------------------------------------------------------------------------------------------------------

    async def push(self, request: Request) -> Response:
        """Take a report."""
        peer = _peer(request)
        refused = self._parts.gate.refusal(_asked(request), peer)
        if refused is not None:
            self._parts.watch.note(f"a report from {peer} was not taken: {refused.body.decode().rstrip()}")
        elif self._pushes >= self._parts.most_pushes:
            self._parts.watch.note("a report was not taken: too many are being read already")
            refused = plain(503, f"{self._parts.most_pushes} reports are being read already")
        if refused is not None:
            return _response(refused)
        self._pushes += 1
        try:
            body = await _body(request, LARGEST_SENT)
            await self._on(self._parts.mill, partial(self._parts.watch.receive, body, peer))
        except (_HalfError, _LargeError) as error:
            self._parts.watch.note(f"a report from {peer} was dropped: {error}")
            return _failed(error)
        except (BusyError, TimeoutError) as error:
            self._parts.watch.note("a report was not taken: this hub cannot keep up")
            return _failed(error)
        except (UnreadableError, FullError) as error:
            return _failed(error)
        finally:
            self._pushes -= 1
        return Response(status_code=204, headers=dict((_NEVER_KEPT, *SAFE)))

    async def store(self, request: Request) -> Response:
        """Hand out settings, or change them."""
        parts, asked = self._parts, _asked(request)
        refused = (
            parts.gate.refusal(asked, _peer(request)) if asked.method != "POST" else parts.gate.refusal_of_change(asked)
        )
        if refused is not None:
            return _response(refused)
        if parts.stores is None:
            return _response(plain(404, "this hub has no store of live settings"))
        if asked.method != "POST" and asked.path.startswith("/store/document"):
            return _response(await parts.stores.answered(asked))
        try:
            asked = asked._replace(body=await _body_or_none(request, LARGEST_WRITE))
            return _response(await self._on(parts.answers, partial(parts.stores.answer, asked)))
        except (_HalfError, BusyError, TimeoutError) as error:
            return _failed(error)

    # --- people -------------------------------------------------------------------------------------------------------

    async def console(self, request: Request) -> Response:
        """Answer whatever the console answers."""
        asked = _asked(request)
        try:
            if asked.method == "POST":
                asked = asked._replace(body=await _body_or_none(request, LARGEST_BODY))
            return _response(await self._on(self._parts.answers, partial(self._parts.console.answer, asked)))
        except (_HalfError, BusyError, TimeoutError) as error:
            return _failed(error)

    async def history(self, request: Request) -> Response:
        """Return what was."""
        asked = _asked(request)
        refused = self._parts.guard.refusal(asked)
        if refused is not None:
            return _response(refused)
        try:
            return _response(await self._on(self._parts.answers, partial(self._history, asked)))
        except (RefusedError, StoreError, BusyError, TimeoutError) as error:
            return _failed(error)

    def _history(self, asked: Asked) -> Answer:
        history = self._parts.history
        if history is None:
            raise RefusedError(404, "this hub keeps no history: it was started with --database none")
        span = span_of(asked.path.partition("?")[2], self._parts.watch.now().wall)
        width_s, points = history.points(span)
        said = {
            "from": span.from_s,
            "to": span.to_s,
            "service": span.service,
            "point_s": width_s,
            "most_points": MAX_POINTS,
            "points": points,
            "episodes": history.episodes(span),
        }
        return _json(200, said)

    async def listen(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Stream what happens."""
        parts = self._parts
        request = Request(scope)
        refused = parts.guard.refusal(_asked(request))
        if refused is None and request.method != "GET":
            refused = plain(405, "use GET", ("Allow", "GET"))
        if refused is None and parts.streams.is_full:
            refused = plain(503, f"{MAX_STREAMS} pages listen already; ask for snapshot.json instead")
        if refused is not None:
            await _response(refused)(scope, receive, send)
            return
        await parts.streams.serve(receive, send, _STREAM_HEADERS)

    async def _on(self, threads: Daemons, work: Callable[[], Any]) -> Any:
        async with asyncio.timeout(ANSWER_S):
            return await asyncio.get_running_loop().run_in_executor(threads, work)


class _Events:
    """Not a function, so that Starlette leaves the stream to it."""

    def __init__(self, answering: _Answering, parts: Parts) -> None:
        self._answering = answering
        self._parts = parts

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        await self._answering.listen(scope, receive, send)


def _peer(request: Request) -> str:
    return "" if request.client is None else request.client.host


def _asked(request: Request) -> Asked:
    query = request.scope["query_string"].decode("latin-1")
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        # Twice the same header is none that is known: of two Hosts no one is right.
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Asked(request.method, f"{request.scope['path']}{'?' if query else ''}{query}", headers, b"")


async def _body(request: Request, most: int) -> bytes:
    said = request.headers.get("content-length", "")
    if said.isdecimal() and (len(said) > 12 or int(said) > most):  # noqa: PLR2004  digits of more than anything has
        raise _LargeError(f"a body must have at most {most} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise _LargeError(f"a body must have at most {most} bytes")
    except ClientDisconnect:
        raise _HalfError(f"it ended after {len(body)} bytes, before it was whole") from None
    except TimeoutError:
        raise _HalfError(f"it was not whole after {BODY_S:g} s") from None
    return bytes(body)


async def _body_or_none(request: Request, most: int) -> bytes | None:
    try:
        return await _body(request, most)
    except _LargeError:
        return None


def _failed(error: Exception) -> Response:
    """Return the answer that says why there is no other one."""
    if isinstance(error, TimeoutError):
        return _said(504, f"no answer within {ANSWER_S:g} s")
    if isinstance(error, RefusedError):
        return _said(error.status, *error.lines)
    if isinstance(error, FullError):
        return _said(error.status, str(error))
    return _said(_STATUS.get(type(error), 503), str(error))


_STATUS: Final[dict[type[Exception], int]] = {_HalfError: 408, _LargeError: 413, UnreadableError: 422}


def _said(status: int, *lines: str) -> Response:
    return _response(_json(status, {"errors": lines}))


def _json(status: int, value: Mapping[str, Any]) -> Answer:
    return Answer(status, (("Content-Type", JSON),), json.dumps(value, allow_nan=False).encode())


def _response(answer: Answer) -> Response:
    """Return the answer as Starlette sends it, with the headers that every answer has."""
    named = {name.lower() for name, _ in answer.headers}
    more = [pair for pair in (_NEVER_KEPT, *SAFE) if pair[0].lower() not in named]
    response = Response(answer.body, status_code=answer.status)
    length = [] if answer.status == 304 or "content-length" in named else [("Content-Length", str(len(answer.body)))]  # noqa: PLR2004  Not Modified
    response.raw_headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (*answer.headers, *more, *length)
    ]
    return response


async def pulled(parts: Parts, body: bytes, name: str) -> str | None:
    """Take in a report that was asked for; return the host that it is of, None if it could not be taken."""
    work = partial(parts.watch.receive, body, name, pushed=False)
    try:
        return str((await asyncio.get_running_loop().run_in_executor(parts.mill, work)).host)
    except (UnreadableError, FullError, BusyError):
        return None  # the first two are said in the view already
    except Exception as error:  # noqa: BLE001  one console's report must not end the asking of all
        note_internal_error("hub pull", error)
        return None
