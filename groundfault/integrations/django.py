"""Django behind a load shedder, under WSGI and ASGI. Settings are those of the shedder, in ``GROUNDFAULT``.

::

    MIDDLEWARE = ["groundfault.integrations.django.LoadShedderMiddleware", ...]
    GROUNDFAULT = {"service": "grouper"}

Or around the whole of Django, where a refusal is cheaper and the wait is known on more servers;
in ``wsgi.py`` or ``asgi.py``, in the place of Django's function of the same name::

    from groundfault.integrations.django import get_wsgi_application

Both may be used together: what has been decided around Django is not decided again inside.
"""

import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import cache
from typing import Any, Final

try:
    import django
    from asgiref.sync import iscoroutinefunction, markcoroutinefunction
    from django.conf import settings
    from django.core.handlers.asgi import ASGIHandler
    from django.core.handlers.wsgi import WSGIHandler
    from django.core.signals import got_request_exception
    from django.http import HttpRequest, HttpResponse
    from django.http.response import HttpResponseBase
except ImportError as missing:  # pragma: no cover  shown only where the extra is missing
    raise ImportError("groundfault.integrations.django needs django: pip install 'groundfault[django]'") from missing

from groundfault._context import serving
from groundfault.errors import SettingsError
from groundfault.integrations._answering import answer_to
from groundfault.shedding.asgi import LoadShedder
from groundfault.shedding.shedder import Shedder
from groundfault.shedding.wsgi import WSGILoadShedder
from groundfault.wire import SHED_STATUS

__all__ = ["LoadShedderMiddleware", "get_asgi_application", "get_wsgi_application", "shedder"]

_UNCAUGHT: Final = "_groundfault_uncaught"
_SERVER_ERROR: Final = 500


@cache
def shedder() -> Shedder:
    """Return the process's one shedder, made of the setting ``GROUNDFAULT`` when first asked for.

    That is a mapping of the settings of :class:`~groundfault.shedding.settings.ShedderSettings`, and may hold
    ``sinks``; without it the defaults hold. Raises :class:`~groundfault.errors.SettingsError`.
    """
    chosen = getattr(settings, "GROUNDFAULT", {})
    if not isinstance(chosen, Mapping):
        raise SettingsError(f"GROUNDFAULT must be a mapping of settings, not {chosen!r}")
    return Shedder(**chosen)


def get_wsgi_application() -> WSGILoadShedder:
    """Return Django's WSGI application behind the shedder. Raises :class:`~groundfault.errors.SettingsError`."""
    django.setup(set_prefix=False)
    return WSGILoadShedder(_WSGI(), shedder=shedder())


def get_asgi_application() -> LoadShedder:
    """Return Django's ASGI application behind the shedder. Raises :class:`~groundfault.errors.SettingsError`."""
    django.setup(set_prefix=False)
    return LoadShedder(_ASGI(), shedder=shedder())


class LoadShedderMiddleware:
    """Refuses requests that waited too long, and annotates answers that a dependency is behind. Stands first.

    Works in synchronous and asynchronous chains, and inside :func:`get_wsgi_application` and
    :func:`get_asgi_application`, where it leaves the decision to them.

    An error that no ``process_exception`` of the application's own answers, and that a rejected, shed or
    counted-failed call is behind, is answered with an annotated 503; ``got_request_exception`` is not sent, and
    nothing is logged, no more than for a refusal, because events have told of it and an overload is no time to mail
    the administrators. An error of that kind in another middleware is logged by Django, then answered alike.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self.shedder = shedder()
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        _learn_of_the_uncaught()

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Serve one request."""
        decided = serving.get() is not None
        if self._is_async:
            return self._respond(request) if decided else self._serve_scope(request, request.scope)
        if decided:
            return _finished(self._respond(request))
        scope = getattr(request, "scope", None)
        return self._serve_environ(request) if scope is None else _finished(self._serve_scope(request, scope))

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer an error of a view that no other middleware has answered."""
        return _answer_to(exception, request)

    async def _respond(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        return _mended(request, await response if self._is_async else response)

    def _serve_environ(self, request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase | None = None
        begun: list[tuple[int, list[tuple[str, str]]]] = []

        def app(_environ: Any, start_response: Any) -> tuple[bytes, ...]:
            nonlocal response
            response = _finished(self._respond(request))
            start_response(f"{response.status_code} {response.reason_phrase}", list(response.items()))
            return ()

        def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> Callable[[bytes], object]:
            begun.append((int(status[:3]), headers))
            return len

        body: Any = WSGILoadShedder(app, shedder=self.shedder)(request.environ, start_response)
        if response is None:
            return _unlogged(b"".join(body), *begun[-1])
        _change(response, *begun[-1])
        if hasattr(body, "close"):
            response._resource_closers.append(body.close)  # noqa: SLF001  as Django's own handler does with the request
        return response

    async def _serve_scope(self, request: HttpRequest, scope: Any) -> HttpResponseBase:
        response: HttpResponseBase | None = None
        sent: list[Any] = []

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            nonlocal response
            response = await self._respond(request)
            headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.items()]
            await send({"type": "http.response.start", "status": response.status_code, "headers": headers})

        async def send(message: Any) -> None:
            sent.append(message)

        await LoadShedder(app, shedder=self.shedder)(scope, _no_receive, send)
        begin = sent[0]
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in begin["headers"]]
        if response is None:
            return _unlogged(sent[1]["body"], begin["status"], headers)
        _change(response, begin["status"], headers)
        return response


class _Mending:
    """Django's handler, with a last word on errors that nobody answers."""

    def process_exception_by_middleware(self, exception: Exception, request: HttpRequest) -> HttpResponseBase | None:
        answered: HttpResponseBase | None = super().process_exception_by_middleware(exception, request)  # type: ignore[misc]  # Django's, in the classes below
        return answered or _answer_to(exception, request)

    def load_middleware(self, is_async: bool = False) -> None:  # noqa: FBT001, FBT002  Django's signature
        super().load_middleware(is_async)  # type: ignore[misc]  # Django's, in the classes below
        _learn_of_the_uncaught()


class _WSGI(_Mending, WSGIHandler):  # type: ignore[misc]  # Django ships no types
    def get_response(self, request: HttpRequest) -> HttpResponseBase:
        return _mended(request, super().get_response(request))


class _ASGI(_Mending, ASGIHandler):  # type: ignore[misc]  # Django ships no types
    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        return _mended(request, await super().get_response_async(request))


def _answer_to(error: BaseException, request: HttpRequest) -> HttpResponse | None:
    answer = answer_to(error, shedder(), accept=request.headers.get("Accept"), head=request.method == "HEAD")
    return None if answer is None else _unlogged(answer.body, SHED_STATUS, answer.headers)


def _unlogged(body: bytes, status: int, headers: Iterable[tuple[str, str]]) -> HttpResponse:
    """Return a response that Django does not log as an error of the server."""
    response = HttpResponse(body, status=status, headers=dict(headers))
    response._has_been_logged = True  # noqa: SLF001  what Django's own log_response goes by
    return response


def _learn_of_the_uncaught() -> None:
    got_request_exception.connect(_note_uncaught, dispatch_uid=_UNCAUGHT)


def _note_uncaught(sender: object, request: HttpRequest | None = None, **_: object) -> None:  # noqa: ARG001  Django passes it by name
    if request is not None:
        setattr(request, _UNCAUGHT, sys.exc_info()[1])


def _mended(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Replace Django's own 500 for an error in a middleware, which no ``process_exception`` is asked about."""
    error = request.__dict__.pop(_UNCAUGHT, None)
    if error is None or response.status_code != _SERVER_ERROR:
        return response
    answer = _answer_to(error, request)
    if answer is None:
        return response
    answer._resource_closers.extend(response._resource_closers)  # noqa: SLF001  or the request would never be closed
    return answer


def _change(response: HttpResponseBase, status: int, headers: list[tuple[str, str]]) -> None:
    """Give the response the status and the headers that the shell has made of them. Cookies are not among these."""
    if status != response.status_code:
        response.status_code = status
    kept = dict(headers)
    if kept != dict(response.items()):
        response.headers = type(response.headers)(kept)


def _finished(coroutine: Coroutine[Any, Any, HttpResponseBase]) -> HttpResponseBase:
    """Run a coroutine that waits for nothing, because all it calls is synchronous."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        answer: HttpResponseBase = done.value
        return answer
    coroutine.close()
    raise RuntimeError("a synchronous chain has waited")


async def _no_receive() -> Any:
    raise RuntimeError("Django has read the request already")
