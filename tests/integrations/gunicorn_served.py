"""Applications that test_gunicorn_servers.py has gunicorn serve."""

import json
import os
import time
from collections import Counter
from functools import cache
from urllib.parse import parse_qs

from groundfault import Shedder, WSGILoadShedder

SEEN = {"requests": 0}


def bare(environ, start_response):
    SEEN["requests"] += 1
    query = {name: values[0] for name, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
    time.sleep(float(query.get("sleep", 0)))
    if "read" in query:
        environ["wsgi.input"].read()
    body = b"x" * int(query.get("size", 6))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def _telling(environ, start_response):
    if environ["PATH_INFO"] != "/state":
        return bare(environ, start_response)
    snapshot = _guarded().shedder.snapshot()
    shed: Counter[str] = Counter()
    for (reason, _), count in snapshot.shed.items():
        shed[reason.value] += count
    state = {
        "admitted": sum(snapshot.admitted.values()),
        "shed": shed,
        "in_flight": snapshot.in_flight,
        "errors": snapshot.internal_errors,
        "app_saw": SEEN["requests"],
        "ours": [key for key in environ if key.startswith("groundfault")],
        "pid": os.getpid(),
    }
    body = json.dumps(state).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


@cache
def _guarded():
    return WSGILoadShedder(_telling, service="saber", health_paths=("/healthz", "/state"))


def __getattr__(name):  # made when gunicorn asks, so that the application without a shedder has none
    if name == "guarded":
        return _guarded()
    if name == "doubled":
        return WSGILoadShedder(WSGILoadShedder(bare, shedder=Shedder(service="inner")), service="outer").__call__
    raise AttributeError(name)
