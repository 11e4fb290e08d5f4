"""The server half as ASGI middleware: ``app.add_middleware(LoadShedder)``.

Install it outermost: a middleware in front that replaces ``receive`` hides the socket, and with it the queue wait.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import lru_cache
from random import random
from typing import Any, Final, Unpack

from groundfault import wire
from groundfault.shedding._connection import connection_of_asgi
from groundfault.shedding._request import HINTS, TRACEPARENT, Visit, arrive, refuse_outright, retry_after, shedder_of
from groundfault.shedding._rules import Rules
from groundfault.shedding._threads import waits_for_thread
from groundfault.shedding.settings import ShedderOptions
from groundfault.shedding.shedder import Shedder
from groundfault.sinks import Sink, Sinks
from groundfault.vocabulary import Reason

__all__ = ["LoadShedder"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_HINTS: Final = frozenset(name.lower().encode() for name in HINTS)
_X: Final = frozenset({b"x", b"X"})
_TRACE: Final = TRACEPARENT.lower().encode()
_TAKEN: Final = _HINTS | {_TRACE}
_BYTES: Final = {name: name.lower().encode() for name in (*HINTS, TRACEPARENT)}
_BODY: Final = frozenset({b"content-length", b"transfer-encoding", b"expect"})
_PICKED: Final = _HINTS | _BODY | {TRACEPARENT.lower().encode()}
_LONGEST: Final = 513  # beyond what any parser of ours takes: what is cut off here stays too long


class LoadShedder:
    """Refuses requests that waited too long, and annotates answers that a failing dependency is behind.

    ``shedder``: one made before, to be tuned or looked at from elsewhere; None makes one of ``sinks`` and ``settings``,
    which are those of :class:`~groundfault.shedding.settings.ShedderSettings`. It is the attribute ``shedder``.
    Raises :class:`~groundfault.errors.SettingsError`.

    Other scopes than ``http`` pass untouched. A request is in flight until the last byte of its answer is sent or
    the application returns, which it does when it is told that the client has left.
    """

    def __init__(
        self,
        app: Application,
        *,
        shedder: Shedder | None = None,
        sinks: Iterable[Sink] | Sinks | None = None,
        **settings: Unpack[ShedderOptions],
    ) -> None:
        self.app = app
        self.shedder = shedder_of(shedder, sinks, settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        shedder = self.shedder
        if scope["type"] != "http" or shedder.bypassed:
            await self.app(scope, receive, send)
            return
        try:
            headers = _headers_of(scope["headers"], shedder.rules)
            arrived = _arrive(shedder, scope, receive, send, headers)
        except Exception as error:  # noqa: BLE001  an error of ours must not cost the request
            shedder.failed("asgi arrival", error)
            await self.app(scope, receive, send)
            return
        if isinstance(arrived, Reason):
            rules = shedder.rules
            await _refuse(rules, arrived, rules.settings.service, scope, receive, send, headers)
            return
        visit = arrived
        answer = _Answer(visit, send)
        visit.enter()
        try:
            await self.app(scope, receive, answer.send)
        except Exception as error:
            verdict = None if answer.started else visit.verdict_on_error(error)
            if not answer.started:
                visit.answered(wire.SHED_STATUS)  # it did finish, unlike a request whose client has left
            if verdict is None:
                raise
            await _refuse(visit.rules, *verdict, scope, receive, send, headers)
        finally:
            visit.close()
            if visit.route.sync is None and "endpoint" in scope:
                _learn(visit, scope)


def _arrive(shedder: Shedder, scope: Scope, receive: Receive, send: Send, headers: "_Headers") -> Visit | Reason:
    """Return the request, admitted, or why it is refused."""
    connection = connection_of_asgi(scope, receive, send)
    client = scope.get("client")
    peer = client[0] if client else None
    reading = connection.read()
    method, path, u = scope["method"], scope["path"], None
    if not headers.hinted and shedder.is_refusing(on_loop=True):
        u = random()
        reason = refuse_outright(shedder, method, path, reading, u, on_loop=True)
        if reason is not None:
            return reason
    visit = arrive(
        shedder,
        method,
        path,
        headers,
        headers.hinted,
        peer,
        connection.peer(peer) if headers.hinted or shedder.rules.classes else peer,
        reading,
        True,  # noqa: FBT003  on a loop; by place where each request pays for a name
        traced=_TRACE in headers.picked,
        u=u,
    )
    if visit.refused and visit.reason is not None:
        return visit.reason
    return visit


def _learn(visit: Visit, scope: Scope) -> None:
    """Look up, once per route, whether its requests need a worker thread."""
    try:
        in_thread = waits_for_thread(scope)
        if in_thread is not None:
            visit.shedder.note_endpoint(visit, in_thread=in_thread)
    except Exception as error:  # noqa: BLE001  a stranger's object; the route's kind stays unknown
        visit.shedder.failed("asgi endpoint", error)


class _Headers:
    """The request's headers by name; those that matter here are picked in one pass, others are looked for.

    ``hinted``: there are some of the protocol's. ``told``: there are some that tell of a body.
    """

    __slots__ = ("_raw", "hinted", "picked", "told")

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._raw = raw
        self.picked: dict[bytes, bytes] = {}
        self.hinted = self.told = False
        for name, value in raw:
            if name in _PICKED:
                known = self.picked.get(name)
                self.picked[name] = value if known is None else b"%b,%b" % (known[:_LONGEST], value[:_LONGEST])
                if name in _HINTS:
                    self.hinted = True
                elif name in _BODY:
                    self.told = True

    def get(self, name: str, /) -> str | None:
        wanted = _BYTES.get(name) or name.lower().encode("latin-1", "replace")
        if wanted in _TAKEN:
            value = self.picked.get(wanted)
            return None if value is None else value[:_LONGEST].decode("latin-1")
        found = [value for each, value in self._raw if each.lower() == wanted]
        return b",".join(found).decode("latin-1") if found else None


def _headers_of(raw: Iterable[tuple[bytes, bytes]], rules: Rules) -> _Headers:
    """Return the headers, or an empty set of them where no more could be asked for, as of most requests."""
    if rules.plain:
        for name, _ in raw:
            if name in _PICKED:
                break
        else:
            return _NONE
    return _Headers(raw)


_NONE: Final = _Headers(())


class _Answer:
    """Stands between the application and the server: takes the protocol's headers off its answer, adds ours."""

    __slots__ = ("_send", "_visit", "started")

    def __init__(self, visit: Visit, send: Send) -> None:
        self._visit = visit
        self._send = send
        self.started = False

    def send(self, message: Message) -> Awaitable[None]:
        """Take a message of the application's. Not itself a coroutine: most messages need none of ours around them."""
        kind = message["type"]
        if kind == "http.response.start":
            self.started = True
            return self._send(self._annotated(message))
        if kind == "http.response.body" and not message.get("more_body"):
            return self._send_last(message)
        return self._send(message)

    async def _send_last(self, message: Message) -> None:
        await self._send(message)
        self._visit.release()

    def _annotated(self, message: Message) -> Message:
        visit = self._visit
        try:
            status = message["status"]
            visit.shedder.answered(visit, status)
            if not visit.rules.enforced:
                return message
            headers = message.get("headers", ())
            if type(headers) is not list:  # any iterable may be sent, and some can be read only once
                message = {**message, "headers": (headers := list(headers))}
            verdict = visit.verdict_on_status(status) if visit.context.faults or visit.reason is not None else None
            if verdict is not None:
                kept = [each for each in headers if not _is_ours(each[0]) and not _is_superseded(each[0])]
                headers = [*kept, *_lower(wire.annotations(*verdict))]
                return {**message, "status": wire.SHED_STATUS, "headers": headers}
            for name, _ in headers:
                if name[:1] in _X and _is_ours(name):
                    return {**message, "headers": [each for each in headers if not _is_ours(each[0])]}
        except Exception as error:  # noqa: BLE001  an error of ours must not cost the answer
            visit.shedder.failed("asgi answer", error)
        return message


async def _refuse(  # noqa: PLR0917  positional, because each refusal pays for a name
    rules: Rules, reason: Reason, origin: str, scope: Scope, receive: Receive, send: Send, asked: "_Headers", /
) -> None:
    """Send an annotated 503 in the place of the application's answer."""
    accepted = [value[:_LONGEST] for name, value in scope["headers"] if name == b"accept"]
    accept = accepted[0] if len(accepted) == 1 else b",".join(accepted)[:_LONGEST]
    fixed, body = _answer(reason, origin, accept, scope["method"] == "HEAD")
    answered = list(fixed)  # the server, or a middleware in front, may add to it
    later = retry_after(rules, reason)
    if later is not None:
        answered += _lower((later,))
    if asked.told and _has_body(asked.picked) and _must_close(asked.picked, scope, receive, send):
        answered.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": wire.SHED_STATUS, "headers": answered})
    await send({"type": "http.response.body", "body": body})


@lru_cache(maxsize=256)
def _answer(reason: Reason, origin: str | None, accept: bytes, head: bool) -> tuple[Headers, bytes]:  # noqa: FBT001  the key of a cache
    answer = wire.answer(reason, origin, accept=accept.decode("latin-1"), head=head)
    return _lower(answer.headers), answer.body


def _has_body(asked: dict[bytes, bytes]) -> bool:
    return b"transfer-encoding" in asked or re.search(b"[1-9]", asked.get(b"content-length", b"")) is not None


def _must_close(asked: dict[bytes, bytes], scope: Scope, receive: Receive, send: Send) -> bool:
    """Uvicorn reads what is left of the body by itself; other servers keep the connection, then break it.

    A client that was never told to continue may send no body at all: then what it sends next would be taken for it.
    """
    if not scope.get("http_version", "1.1").startswith("1"):
        return False
    return b"expect" in asked or not connection_of_asgi(scope, receive, send).drains_bodies


def _is_ours(name: bytes) -> bool:
    return wire.is_ours(name.decode("latin-1"))


def _is_superseded(name: bytes) -> bool:
    return wire.is_superseded(name.decode("latin-1"))


def _lower(headers: Iterable[tuple[str, str]]) -> Headers:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
