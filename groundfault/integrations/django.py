"""Django behind a load shedder, under WSGI and ASGI. Settings are those of the shedder, in ``GROUNDFAULT``.

::

    MIDDLEWARE = ["groundfault.integrations.django.LoadShedderMiddleware", ...]
    GROUNDFAULT = {"service": "grouper"}

Or around Django by hand, in ``wsgi.py`` or ``asgi.py``, in the place of Django's function of the same name::

    from groundfault.integrations.django import get_wsgi_application

Both may be used together: what has been decided around Django is not decided again inside.

The middleware alone does the same: it has Django's own handlers ask the shedder before they begin. Decided in the
chain a refusal would pass through several threads under ASGI, at a third of what a view of 10 ms costs,
and on a busy machine refusing alone would take all there is.
"""

import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import cache, wraps
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
    from django.utils.module_loading import import_string
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
_IN_USE: Final = "_groundfault_in_use"
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
    """Refuses requests that waited too long, and annotates answers that a dependency is behind.

    Works in synchronous and asynchronous chains, and inside :func:`get_wsgi_application` and
    :func:`get_asgi_application`. A request is refused before Django begins, wherever this stands in ``MIDDLEWARE``:
    the first of its kind gives Django's ``WSGIHandler`` and ``ASGIHandler`` a ``__call__`` that asks the shedder,
    for applications whose ``MIDDLEWARE`` holds it. Django's test clients have handlers of their own and refuse nobody.
    Let it stand first all the same: errors are answered that come from what stands behind it.

    An error that no ``process_exception`` of the application's own answers, and that a rejected, shed or
    counted-failed call is behind, is answered with an annotated 503; ``got_request_exception`` is not sent, and
    nothing is logged, because the call's own events have told of it and an overload is no time to mail
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
        _stand_in_front()

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Serve one request."""
        return self._respond(request) if self._is_async else _mended(request, self.get_response(request))

    async def _respond(self, request: HttpRequest) -> HttpResponseBase:
        return _mended(request, await self.get_response(request))

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer an error of a view that no other middleware has answered."""
        return _answer_to(exception, request)


@cache  # once per process
def _stand_in_front() -> None:
    """Have Django's handlers ask the shedder first, where the middleware is in use."""
    call_wsgi, call_asgi = WSGIHandler.__call__, ASGIHandler.__call__

    @wraps(call_wsgi)
    def wsgi(self: Any, environ: Any, start_response: Any) -> Any:
        app = call_wsgi.__get__(self)
        if not _is_undecided(self):
            return app(environ, start_response)
        return WSGILoadShedder(app, shedder=shedder())(environ, start_response)

    @wraps(call_asgi)
    async def asgi(self: Any, scope: Any, receive: Any, send: Any) -> None:
        app = call_asgi.__get__(self)
        if _is_undecided(self):
            app = LoadShedder(app, shedder=shedder())
        await app(scope, receive, send)

    WSGIHandler.__call__, ASGIHandler.__call__ = wsgi, asgi


def _is_undecided(handler: Any) -> bool:
    """Return whether the middleware is in use behind a handler of Django's, and nothing in front of it has decided."""
    if serving.get() is not None:
        return False
    known: bool | None = getattr(handler, _IN_USE, None)
    if known is None:
        chain = map(import_string, settings.MIDDLEWARE)
        known = any(isinstance(each, type) and issubclass(each, LoadShedderMiddleware) for each in chain)
        setattr(handler, _IN_USE, known)
    return known


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
    if answer is None:
        return None
    response = HttpResponse(answer.body, status=SHED_STATUS, headers=dict(answer.headers))
    response._has_been_logged = True  # noqa: SLF001  not as an error of the server; what Django's log_response goes by
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
