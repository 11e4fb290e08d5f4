"""Quart behind a load shedder.

::

    from groundfault.integrations.quart import LoadShedder

    app = Quart(__name__)
    LoadShedder(app, service="grouper")

It wraps ``app.asgi_app``, and answers what Quart would answer with a 500 although a dependency is behind it.
"""

from collections.abc import Iterable
from typing import Any, Final, Unpack

try:
    import quart
except ImportError as missing:  # pragma: no cover  shown only where the extra is missing
    raise ImportError("groundfault.integrations.quart needs quart: pip install 'groundfault[quart]'") from missing

from groundfault.integrations._answering import answer_to
from groundfault.shedding._request import shedder_of
from groundfault.shedding.asgi import LoadShedder as ASGILoadShedder
from groundfault.shedding.settings import ShedderOptions
from groundfault.shedding.shedder import Shedder
from groundfault.sinks import Sink, Sinks

__all__ = ["LoadShedder"]

_NAME: Final = "groundfault"


class LoadShedder:
    """A Quart extension: refuses requests that waited too long, and annotates answers that a dependency is behind.

    ``app``: the application; None if :meth:`init_app` follows. ``shedder``: one made before, to be tuned or looked at
    from elsewhere; None makes one of ``sinks`` and ``settings``, which are those of
    :class:`~groundfault.shedding.settings.ShedderSettings`. It is the attribute ``shedder``, and
    ``app.extensions["groundfault"]`` is this object. Several applications of one process share it.
    Raises :class:`~groundfault.errors.SettingsError`.

    An error that no handler of the application's own answers, and that a rejected, shed or counted-failed call is
    behind, is answered with an annotated 503: functions registered by ``after_request`` see it, as they see the answer
    of an error handler; ``got_request_exception`` is not sent, and nothing is logged, because the call's own events
    have told of it. All other errors go Quart's way. Websockets are not touched.
    """

    def __init__(
        self,
        app: quart.Quart | None = None,
        *,
        shedder: Shedder | None = None,
        sinks: Iterable[Sink] | Sinks | None = None,
        **settings: Unpack[ShedderOptions],
    ) -> None:
        self.shedder = shedder_of(shedder, sinks, settings)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: quart.Quart) -> None:
        """Put ``app`` behind the shedder. Middleware that wraps ``app.asgi_app`` later stands in front of it.

        Raises RuntimeError if the application stands behind one already.
        """
        if _NAME in app.extensions:
            raise RuntimeError(f"{app.name} stands behind a LoadShedder already")
        app.extensions[_NAME] = self
        give_up = app.handle_exception

        async def handle_exception(error: Exception) -> Any:
            answer = self._answer_to(error)
            return await (give_up(error) if answer is None else app.finalize_request(answer, from_error_handler=True))

        wrapped: Any = ASGILoadShedder(app.asgi_app, shedder=self.shedder)  # type: ignore[arg-type]  # hypercorn's names for the same callables
        app.asgi_app = wrapped  # type: ignore[method-assign]  # as Quart's documentation tells middleware to
        app.handle_exception = handle_exception  # type: ignore[method-assign]  # what Quart asks when no handler has answered

    def _answer_to(self, error: Exception) -> quart.Response | None:
        request = quart.request
        answer = answer_to(error, self.shedder, accept=request.headers.get("Accept"), head=request.method == "HEAD")
        return None if answer is None else quart.Response(answer.body, 503, dict(answer.headers))
