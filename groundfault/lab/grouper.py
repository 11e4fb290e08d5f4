"""grouper: between topps and saber. werkzeug on gunicorn, two processes of sixteen threads.

``/scores/{n}`` asks saber. ``/contests`` knows the answer by itself.
"""

import json
from time import sleep
from typing import TYPE_CHECKING

import requests
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Request, Response

from groundfault.lab.chain import StripFromWSGI, session_for
from groundfault.lab.parts import Part
from groundfault.shedding.wsgi import WSGILoadShedder

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["create"]

TIMEOUT_S = 0.9
"""How long grouper waits for saber: a little less than topps waits for grouper."""

CONTESTS_S = 0.005
"""What ``/contests`` takes, mostly waiting, as a look into a near cache would."""


def create() -> "WSGIApplication":
    """Build the application. gunicorn calls this in each worker."""
    part = Part.from_environment()
    part.report()
    session = session_for(part, "saber", timeout_s=TIMEOUT_S)

    @Request.application
    def app(request: Request) -> Response:
        match request.path.split("/")[1:]:
            case ["scores", contest] if contest.isdigit():
                try:
                    answer = session.get(f"{part.callee}/entrants/{contest}")
                    answer.raise_for_status()
                except requests.RequestException:
                    return Response("saber does not answer", status=502)
                return Response(json.dumps({"scores": answer.json()}), mimetype="application/json")
            case ["contests"]:
                sleep(CONTESTS_S)
                return Response(json.dumps({"contests": [1, 2, 3]}), mimetype="application/json")
            case ["healthz"]:
                body = {"service": part.service, "token": part.token}
                return Response(json.dumps(body), mimetype="application/json")
        raise NotFound

    if not part.protected:
        return app
    shedder = WSGILoadShedder(app, service=part.service)
    return shedder if part.annotated else StripFromWSGI(shedder)
