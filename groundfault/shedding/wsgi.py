"""The server half as WSGI middleware: ``app = WSGILoadShedder(app)``. Install it outermost."""

from collections.abc import Callable, Iterable, Iterator
from sys import exc_info
from types import TracebackType
from typing import TYPE_CHECKING, Final, Unpack

from groundfault import wire
from groundfault.shedding._connection import connection_of_wsgi, lone_socket
from groundfault.shedding._propagation import Verdict
from groundfault.shedding._request import HINTS, TRACEPARENT, VISIT, Visit, arrive, retry_after, shedder_of
from groundfault.shedding._socket import read
from groundfault.shedding.settings import ShedderOptions
from groundfault.shedding.shedder import Shedder
from groundfault.sinks import Sink, Sinks

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["WSGILoadShedder"]

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
_Headers = list[tuple[str, str]]


def _environ_name(name: str) -> str:
    return "HTTP_" + name.upper().replace("-", "_")


_HINTS: Final = frozenset(map(_environ_name, HINTS))
_NAMES: Final = {
    **{name: _environ_name(name) for name in (*HINTS, TRACEPARENT)},
    "Content-Type": "CONTENT_TYPE",
    "Content-Length": "CONTENT_LENGTH",
}


class WSGILoadShedder:
    """Refuses requests that waited too long, and annotates answers that a failing dependency is behind.

    ``shedder``: one made before, to be tuned or looked at from elsewhere; None makes one of ``sinks`` and ``settings``,
    which are those of :class:`~groundfault.shedding.settings.ShedderSettings`. It is the attribute ``shedder``.
    Raises :class:`~groundfault.errors.SettingsError`.

    A request is in flight until the server closes the answer.
    """

    def __init__(
        self,
        app: "WSGIApplication",
        *,
        shedder: Shedder | None = None,
        sinks: Iterable[Sink] | Sinks | None = None,
        **settings: Unpack[ShedderOptions],
    ) -> None:
        self.app = app
        self.shedder = shedder_of(shedder, sinks, settings)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Serve one request."""
        shedder = self.shedder
        if shedder.bypassed:
            return self.app(environ, start_response)
        try:
            visit = (VISIT in environ and _handed_over(shedder, environ)) or _arrive(shedder, environ)
        except Exception as error:  # noqa: BLE001  an error of ours must not cost the request
            shedder.failed("wsgi arrival", error)
            return self.app(environ, start_response)
        answer = _Answer(visit, environ, start_response)
        if visit.refused and visit.reason is not None:
            return answer.refuse(Verdict(visit.reason, visit.rules.settings.service))
        visit.enter()
        try:
            body = self.app(environ, answer.start_response)
        except Exception as error:
            verdict = answer.verdict_on(error)
            answer.finish()
            if verdict is None:
                raise
            return answer.refuse(verdict)
        except BaseException:
            answer.finish()
            raise
        return _Whole(body, answer) if type(body) is list or type(body) is tuple else _Body(body, answer)


def _handed_over(shedder: Shedder, environ: "WSGIEnvironment") -> Visit | None:
    """Return what a worker class of ours has decided already, with the same shedder; then it is not asked twice."""
    visit = environ.pop(VISIT, None)
    if not isinstance(visit, Visit):
        return None
    if visit.shedder is shedder:
        return visit
    visit.close()
    return None


def _arrive(shedder: Shedder, environ: "WSGIEnvironment") -> Visit:
    peer = environ.get("REMOTE_ADDR") or None
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    via, hinted, continued = peer, not environ.keys().isdisjoint(_HINTS), "HTTP_EXPECT" in environ
    believing = hinted or bool(shedder.rules.classes)  # what a header says may matter, so who has sent it does
    sock = None if believing or continued else lone_socket(environ)
    if sock is not None:
        reading = read(sock)
    else:
        connection = connection_of_wsgi(environ)
        reading = connection.read(continued=continued)
        if believing:
            via = connection.peer(peer)  # some servers take REMOTE_ADDR from a header
    if not path.isascii():
        path = path.encode("latin-1", "replace").decode("utf-8", "replace")
    return arrive(
        shedder,
        environ["REQUEST_METHOD"],
        path,
        _EnvironHeaders(environ),
        hinted,
        peer,
        via,
        reading,
        False,  # noqa: FBT003  not on a loop; by place where each request pays for a name
        traced="HTTP_TRACEPARENT" in environ,
    )


class _EnvironHeaders:
    """The request's headers by name."""

    __slots__ = ("_environ",)

    def __init__(self, environ: "WSGIEnvironment") -> None:
        self._environ = environ

    def get(self, name: str, /) -> str | None:
        value = self._environ.get(_NAMES.get(name) or _NAMES.get(name.title()) or _environ_name(name))
        return value if isinstance(value, str) else None


class _Answer:
    """Stands between the application and the server: takes the protocol's headers off its answer, adds ours."""

    __slots__ = ("_environ", "_start_response", "_status", "_visit", "_write", "begun", "sent")

    def __init__(self, visit: Visit, environ: "WSGIEnvironment", start_response: "StartResponse") -> None:
        self._visit = visit
        self._environ = environ
        self._start_response = start_response
        self._status = 500
        self._write: Callable[[bytes], object] | None = None
        self.begun = False  # start_response has been called; the server may still take a replacement
        self.sent = False  # a byte of the body has been handed over: too late to change anything

    def start_response(
        self, status: str, headers: _Headers, exc_info: _ExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        status, headers = self._annotated(status, headers)
        self._write = (
            self._start_response(status, headers)
            if exc_info is None
            else self._start_response(status, headers, exc_info)
        )
        self.begun = True
        return self.write

    def write(self, data: bytes, /) -> object:
        if data:
            self.sent = True
        return self._write(data) if self._write is not None else None

    def _annotated(self, status: str, headers: _Headers) -> tuple[str, _Headers]:
        visit = self._visit
        try:
            self._status = int(status[:3])
            if not visit.rules.enforced:
                return status, headers
            verdict = visit.verdict_on_status(self._status) if visit.context.faults else None
            for name, _ in headers:
                if name[:1] in "xX" and wire.is_ours(name):
                    headers = [each for each in headers if not wire.is_ours(each[0])]
                    break
            if verdict is None:
                return status, headers
            kept = [each for each in headers if not (wire.is_ours(each[0]) or wire.is_superseded(each[0]))]
            self._status = wire.SHED_STATUS
            return _STATUS_LINE, [*kept, *wire.annotations(*verdict)]
        except Exception as error:  # noqa: BLE001  an error of ours must not cost the answer
            visit.shedder.failed("wsgi answer", error)
            return status, headers

    def verdict_on(self, error: BaseException) -> Verdict | None:
        """Return what to answer instead of raising ``error``, or None if it is too late or not ours to change."""
        return None if self.sent else self._visit.verdict_on_error(error)

    def refuse(self, verdict: Verdict) -> list[bytes]:
        """Begin an annotated 503 in the place of the application's answer, and return its body."""
        environ = self._environ
        answer = wire.answer(*verdict, accept=environ.get("HTTP_ACCEPT"), head=environ["REQUEST_METHOD"] == "HEAD")
        headers = list(answer.headers)
        later = retry_after(self._visit.rules, verdict.reason)
        if later is not None:
            headers.append(later)
        if _is_long_body(environ):
            self._close_connection()
        if self.begun:
            self._start_response(_STATUS_LINE, headers, exc_info())
        else:
            self._start_response(_STATUS_LINE, headers)
        self.sent = True
        return [answer.body] if answer.body else []

    def _close_connection(self) -> None:
        """Tell gunicorn to close: it would promise to keep the connection, then break it because of the unread body.

        Cheroot as well: it would take what is left of a chunked body for the next request.
        By their own switches, because PEP 3333 forbids applications the Connection header and gunicorn discards it.
        Other servers read what is left, or never keep a connection.
        """
        server = getattr(self._start_response, "__self__", None)
        force_close = getattr(server, "force_close", None)
        if callable(force_close):
            force_close()
        request = getattr(server, "req", None)
        if request is not None and hasattr(request, "close_connection"):
            request.close_connection = True

    def abandon(self) -> None:
        """Give the place back of an answer that was never closed."""
        self._visit.abandon()

    def finish(self) -> None:
        """End the request; a second call changes nothing."""
        self._visit.finish(self._status)


_STATUS_LINE: Final = "503 Service Unavailable"


_DRAINED: Final = 65_536  # what gunicorn reads of a body that the application left, before it gives up


def _is_long_body(environ: "WSGIEnvironment") -> bool:
    length = environ.get("CONTENT_LENGTH") or "0"
    return "HTTP_TRANSFER_ENCODING" in environ or not length.isdecimal() or int(length[:18]) > _DRAINED


class _Body:
    """The application's answer, watched to its end."""

    __slots__ = ("_answer", "_body", "_chunks", "_closed")

    def __init__(self, body: Iterable[bytes], answer: _Answer) -> None:
        self._body = body
        self._answer = answer
        self._chunks: Iterator[bytes] | None = None
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        answer = self._answer
        try:
            if self._chunks is None:
                self._chunks = iter(self._body)
            chunk = next(self._chunks)
        except StopIteration:
            raise
        except Exception as error:
            verdict = answer.verdict_on(error)
            if verdict is None:
                raise
            self._chunks = iter(answer.refuse(verdict))
            return next(self._chunks, b"")
        if chunk:
            answer.sent = True
        return chunk

    def close(self) -> None:
        """Close the application's answer, whatever it raises, and end the request."""
        if self._closed:
            return
        self._closed = True
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._answer.finish()

    def __del__(self) -> None:
        if not self._closed:  # by a server that forgets to; the place must come back all the same
            self._answer.abandon()


class _Whole:
    """An answer that is all there, in a list: nothing can go wrong with it any more, and its end is its close.

    It has a length, from which some servers derive the Content-Length.
    """

    __slots__ = ("_answer", "_chunks", "_closed")

    def __init__(self, chunks: list[bytes] | tuple[bytes, ...], answer: _Answer) -> None:
        self._chunks = chunks
        self._answer = answer
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)

    def __len__(self) -> int:
        return len(self._chunks)

    def close(self) -> None:
        """End the request."""
        if not self._closed:
            self._closed = True
            self._answer.finish()

    def __del__(self) -> None:
        if not self._closed:
            self._answer.abandon()
