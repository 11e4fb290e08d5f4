"""The server half as ASGI middleware: ``app.add_middleware(LoadShedder)``.

Install it outermost: a middleware in front that replaces ``receive`` hides the socket, and with it the queue wait.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, Unpack

from groundfault import wire
from groundfault.events import Sink, Sinks
from groundfault.shedding._connection import connection_of_asgi
from groundfault.shedding._propagation import Verdict
from groundfault.shedding._request import HINTS, TRACEPARENT, Visit, arrive, retry_after
from groundfault.shedding._routes import route_of
from groundfault.shedding._socket import self_test
from groundfault.shedding._threads import ThreadQueue, runs_in_thread, thread_queue
from groundfault.shedding.settings import ShedderOptions
from groundfault.shedding.shedder import Shedder

__all__ = ["LoadShedder"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_HINTS: Final = frozenset(name.lower().encode() for name in HINTS)
_PICKED: Final = _HINTS | {TRACEPARENT.lower().encode()}
_BYTES: Final = {name: name.lower().encode() for name in (*HINTS, TRACEPARENT)}
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
        self.shedder = Shedder(sinks=sinks, **settings) if shedder is None else shedder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        shedder = self.shedder
        if scope["type"] != "http" or shedder.bypassed:
            await self.app(scope, receive, send)
            return
        try:
            visit = _arrive(shedder, scope, receive, send)
        except Exception as error:  # noqa: BLE001  an error of ours must not cost the request
            shedder.failed("asgi arrival", error)
            await self.app(scope, receive, send)
            return
        answer = _Answer(visit, scope, receive, send)
        reason = visit.admission.reason
        if reason is not None and visit.admission.refused:
            await answer.refuse(Verdict(reason, visit.rules.settings.service))
            return
        visit.open()
        try:
            await self.app(scope, receive, answer.send)
        except Exception as error:
            verdict = None if answer.started else visit.verdict_on_error(error)
            if not answer.started:
                visit.answered(wire.SHED_STATUS)  # it did finish, unlike a request whose client has left
            if verdict is None:
                raise
            await answer.refuse(verdict)
        finally:
            visit.close()
            _learn(visit, scope)


def _arrive(shedder: Shedder, scope: Scope, receive: Receive, send: Send) -> Visit:
    self_test.start()
    method, path = scope["method"], scope["path"]
    headers = _Headers(scope["headers"])
    connection = connection_of_asgi(scope, receive, send)
    client = scope.get("client")
    peer = client[0] if client else None
    return arrive(
        shedder,
        method=method,
        path=path,
        headers=headers,
        hinted=headers.hinted,
        peer=peer,
        via=connection.peer(peer) if headers.hinted else peer,
        reading=connection.read(),
        on_loop=True,
        threads=_threads(shedder, route_of(method, path)),
    )


def _threads(shedder: Shedder, route: str) -> ThreadQueue | None:
    if not shedder.route(route).sync:
        return None
    try:
        return thread_queue()
    except Exception as error:  # noqa: BLE001  without the prediction the request is judged by the rest
        shedder.failed("anyio's thread limiter", error)
        return None


def _learn(visit: Visit, scope: Scope) -> None:
    """Look up, once per route, whether the router ran an endpoint in a thread."""
    if visit.admission.route.sync is None:
        try:
            in_thread = runs_in_thread(scope.get("endpoint"))
            if in_thread is not None:
                visit.shedder.note_endpoint(visit.admission, in_thread=in_thread)
        except Exception as error:  # noqa: BLE001  a stranger's object; the route's kind stays unknown
            visit.shedder.failed("asgi endpoint", error)


class _Headers:
    """The request's headers by name; those of the protocol are picked in one pass, others are looked for."""

    __slots__ = ("_picked", "_raw", "hinted")

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._raw = raw
        self._picked: dict[bytes, bytes] = {}
        self.hinted = False
        for name, value in raw:
            if name in _PICKED:
                known = self._picked.get(name)
                self._picked[name] = value if known is None else b"%b,%b" % (known[:_LONGEST], value[:_LONGEST])
                self.hinted = self.hinted or name in _HINTS

    def get(self, name: str, /) -> str | None:
        wanted = _BYTES.get(name) or name.lower().encode("latin-1", "replace")
        if wanted in _PICKED:
            value = self._picked.get(wanted)
            return None if value is None else value[:_LONGEST].decode("latin-1")
        found = [value for each, value in self._raw if each.lower() == wanted]
        return b",".join(found).decode("latin-1") if found else None


class _Answer:
    """Stands between the application and the server: takes the protocol's headers off its answer, adds ours."""

    __slots__ = ("_receive", "_scope", "_send", "_visit", "started")

    def __init__(self, visit: Visit, scope: Scope, receive: Receive, send: Send) -> None:
        self._visit = visit
        self._scope = scope
        self._receive = receive
        self._send = send
        self.started = False

    async def send(self, message: Message) -> None:
        kind = message["type"]
        visit = self._visit
        if kind == "http.response.start":
            message = self._annotated(message)
            self.started = True
            await self._send(message)
            return
        await self._send(message)
        if kind == "http.response.body" and not message.get("more_body", False):
            visit.release()

    def _annotated(self, message: Message) -> Message:
        visit = self._visit
        try:
            status = message["status"]
            visit.answered(status)
            if not visit.visible:
                return message
            verdict = visit.verdict_on_status(status)
            headers = message.get("headers", ())
            if not isinstance(headers, list | tuple):  # any iterable may be sent, and some can be read only once
                message = {**message, "headers": (headers := list(headers))}
            kept = [each for each in headers if each[0][:1] not in b"xX" or not _is_ours(each)]
            if verdict is None and len(kept) == len(headers):
                return message
            if verdict is not None:
                kept = [each for each in kept if not wire.is_superseded(each[0].decode("latin-1"))]
                kept += _lower(wire.annotations(*verdict))
                status = wire.SHED_STATUS
        except Exception as error:  # noqa: BLE001  an error of ours must not cost the answer
            visit.shedder.failed("asgi answer", error)
            return message
        return {**message, "status": status, "headers": kept}

    async def refuse(self, verdict: Verdict) -> None:
        """Send an annotated 503 in the place of the application's answer."""
        self.started = True
        request = _Headers(self._scope["headers"])
        answer = wire.answer(*verdict, accept=request.get("accept"), head=self._scope["method"] == "HEAD")
        headers = _lower(answer.headers)
        later = retry_after(self._visit.rules, verdict.reason)
        if later is not None:
            headers += _lower((later,))
        if self._must_close(request):
            headers.append((b"connection", b"close"))
        await self._send({"type": "http.response.start", "status": wire.SHED_STATUS, "headers": headers})
        await self._send({"type": "http.response.body", "body": answer.body})

    def _must_close(self, request: _Headers) -> bool:
        """Uvicorn reads what is left of the body by itself; other servers keep the connection, then break it.

        A client that was never told to continue may send no body at all: then what it sends next would be taken for it.
        """
        if not self._scope.get("http_version", "1.1").startswith("1"):
            return False
        length = request.get("content-length")
        if request.get("transfer-encoding") is None and (length is None or not re.search("[1-9]", length)):
            return False
        connection = connection_of_asgi(self._scope, self._receive, self._send)
        return request.get("expect") is not None or not connection.drains_bodies


def _is_ours(header: tuple[bytes, bytes]) -> bool:
    return wire.is_ours(header[0].decode("latin-1"))


def _lower(headers: Iterable[tuple[str, str]]) -> Headers:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
