"""Litestar behind a load shedder.

::

    from groundfault.integrations.litestar import LoadShedderPlugin

    app = Litestar(route_handlers=[...], plugins=[LoadShedderPlugin(service="grouper")])

At its start-up it wraps ``app.asgi_handler``, outside of CORS and everything in ``middleware``, and it answers what
Litestar would answer with a 500 although a dependency is behind it.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Unpack

try:
    from litestar import Litestar, Request, Response
    from litestar.exceptions import HTTPException
    from litestar.exceptions.responses import create_debug_response, create_exception_response
    from litestar.plugins import InitPlugin
except ImportError as missing:  # pragma: no cover  shown only where the extra is missing
    raise ImportError(
        "groundfault.integrations.litestar needs litestar: pip install 'groundfault[litestar]'"
    ) from missing

from groundfault.integrations._answering import answer_to
from groundfault.shedding._request import shedder_of
from groundfault.shedding.asgi import LoadShedder
from groundfault.shedding.settings import ShedderOptions
from groundfault.shedding.shedder import Shedder
from groundfault.sinks import Sink, Sinks

if TYPE_CHECKING:
    from litestar.config.app import AppConfig

__all__ = ["LoadShedderPlugin"]

_SERVER_ERROR: Final = 500


class LoadShedderPlugin(InitPlugin):
    """Refuses requests that waited too long, and annotates answers that a dependency is behind.

    ``shedder``: one made before, to be tuned or looked at from elsewhere; None makes one of ``sinks`` and ``settings``,
    which are those of :class:`~groundfault.shedding.settings.ShedderSettings`. It is the attribute ``shedder``.
    Raises :class:`~groundfault.errors.SettingsError`.

    An error that no handler of the application's own answers, and that a rejected, shed or counted-failed call is
    behind, is answered with an annotated 503. All other errors go Litestar's way, to a handler for 500 among them.
    A handler for ``Exception`` on the application takes the place of this; let it answer 503 for a dependency's doing.
    Websockets are not touched. Without a start-up (``--lifespan off``) nothing is wrapped.
    """

    def __init__(
        self,
        *,
        shedder: Shedder | None = None,
        sinks: Iterable[Sink] | Sinks | None = None,
        **settings: Unpack[ShedderOptions],
    ) -> None:
        self.shedder = shedder_of(shedder, sinks, settings)

    def on_app_init(self, app_config: "AppConfig") -> "AppConfig":
        """Have Litestar wrap itself at its start-up, and ask here about errors."""
        app_config.on_startup.append(self._wrap)
        app_config.exception_handlers.setdefault(Exception, self._handle)
        return app_config

    def _wrap(self, app: Litestar) -> None:
        if not isinstance(app.asgi_handler, LoadShedder):  # a second start-up of the same application
            app.asgi_handler = LoadShedder(app.asgi_handler, shedder=self.shedder)  # type: ignore[arg-type, assignment]  # Litestar's own names for the same callables

    def _handle(self, request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        head = request.method == "HEAD"
        answer = answer_to(error, self.shedder, accept=request.headers.get("accept"), head=head)
        if answer is None:
            return _litestars_own(request, error)
        headers = dict(answer.headers)
        return Response(answer.body, status_code=503, media_type=headers.pop("Content-Type"), headers=headers)


def _litestars_own(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """Answer as Litestar does where nobody has said how: a handler for 500, its debug page, its plain answer."""
    if not isinstance(error, HTTPException):
        handler: Any = request.scope.get("route_handler")  # none yet for an error of the router itself
        handlers = request.app.exception_handlers if handler is None else handler.resolve_exception_handlers()
        if _SERVER_ERROR in handlers:
            return handlers[_SERVER_ERROR](request, error)
    if request.app.debug and getattr(error, "status_code", _SERVER_ERROR) == _SERVER_ERROR:
        return create_debug_response(request, error)
    return create_exception_response(request, error)
