"""Flask: ``gunicorn --chdir examples flask_app:app``.

``SABER`` is where the service behind this one answers; by default nobody does, so ``/entrants`` shows what becomes of
a dependency's failure: an annotated 503, at first with the reason ``dependency``, then ``circuit-open``.
"""

import os

import flask
import requests

from groundfault.integrations.flask import LoadShedder
from groundfault.integrations.requests import GroundFaultAdapter

SABER = os.environ.get("SABER", "http://127.0.0.1:9")

app = flask.Flask("grouper")
extension = LoadShedder(app, service="grouper")

session = requests.Session()
session.mount(SABER, GroundFaultAdapter("saber", timeout_s=0.5))


@app.get("/")
def index() -> str:
    """Answer without anybody's help."""
    return "grouper is up\n"


@app.get("/entrants")
def entrants() -> str:
    """Answer with what saber says."""
    answer = session.get(f"{SABER}/entrants")
    answer.raise_for_status()
    return answer.text


@app.get("/signal")
def signal() -> str:
    """Say where the queue wait was read."""
    return extension.shedder.snapshot().signal
