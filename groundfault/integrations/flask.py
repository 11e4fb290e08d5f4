"""Flask behind a load shedder.

::

    from groundfault.integrations.flask import LoadShedder

    app = Flask(__name__)
    LoadShedder(app, service="grouper")

It wraps ``app.wsgi_app``, and answers what Flask would answer with a 500 although a dependency is behind it.
"""

from collections.abc import Iterable
from typing import Any, Final, Unpack

try:
    import flask
except ImportError as missing:  # pragma: no cover  shown only where the extra is missing
    raise ImportError("groundfault.integrations.flask needs flask: pip install 'groundfault[flask]'") from missing

from groundfault.integrations._answering import answer_to
from groundfault.shedding._request import shedder_of
from groundfault.shedding.settings import ShedderOptions
from groundfault.shedding.shedder import Shedder
from groundfault.shedding.wsgi import WSGILoadShedder
from groundfault.sinks import Sink, Sinks

__all__ = ["LoadShedder"]

_NAME: Final = "groundfault"


class LoadShedder:
    """A Flask extension: refuses requests that waited too long, and annotates answers that a dependency is behind.

    ``app``: the application; None if :meth:`init_app` follows. ``shedder``: one made before, to be tuned or looked at
    from elsewhere; None makes one of ``sinks`` and ``settings``, which are those of
    :class:`~groundfault.shedding.settings.ShedderSettings`. It is the attribute ``shedder``, and
    ``app.extensions["groundfault"]`` is this object. Several applications of one process share it.
    Raises :class:`~groundfault.errors.SettingsError`.

    An error that no handler of the application's own answers, and that a rejected, shed or counted-failed call is
    behind, is answered with an annotated 503: functions registered by ``after_request`` see it, as they see the answer
    of an error handler; ``got_request_exception`` is not sent, and nothing is logged, because the call's own events
    have told of it. All other errors go Flask's way.
    """

    def __init__(
        self,
        app: flask.Flask | None = None,
        *,
        shedder: Shedder | None = None,
        sinks: Iterable[Sink] | Sinks | None = None,
        **settings: Unpack[ShedderOptions],
    ) -> None:
        self.shedder = shedder_of(shedder, sinks, settings)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: flask.Flask) -> None:
        """Put ``app`` behind the shedder. Middleware that wraps ``app.wsgi_app`` later stands in front of it.

        Raises RuntimeError if the application stands behind one already.
        """
        if _NAME in app.extensions:
            raise RuntimeError(f"{app.name} stands behind a LoadShedder already")
        app.extensions[_NAME] = self
        flasks: Any = app
        give_up = flasks.handle_exception

        def handle_exception(*given: Any) -> Any:  # the error, from Flask 3.2 on behind the context
            *context, error = given
            answer = self._answer_to(error)
            if answer is None:
                return give_up(*given)
            return flasks.finalize_request(*context, answer, from_error_handler=True)

        flasks.wsgi_app = WSGILoadShedder(
            app.wsgi_app, shedder=self.shedder
        )  # as its documentation tells middleware to
        flasks.handle_exception = handle_exception  # what Flask asks when no handler has answered

    def _answer_to(self, error: Exception) -> flask.Response | None:
        request = flask.request
        answer = answer_to(error, self.shedder, accept=request.headers.get("Accept"), head=request.method == "HEAD")
        return None if answer is None else flask.Response(answer.body, 503, list(answer.headers))
