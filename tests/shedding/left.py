"""What test_left.py serves: applications that note which requests reached them."""

import json
import time

from groundfault.shedding.asgi import LoadShedder
from groundfault.shedding.wsgi import WSGILoadShedder
from groundfault.sinks import Sinks

BLOCK_S = 0.4

_reached = []


def _respond(path, shedder):
    if path == "/block":
        time.sleep(BLOCK_S)  # the only worker, or the event loop, does nothing else meanwhile
    if path != "/report":
        _reached.append(path)
        return b"{}"
    return json.dumps({"reached": _reached, "abandoned": shedder.snapshot().abandoned}).encode()


def _wsgi(environ, start_response):
    body = _respond(environ["PATH_INFO"], wsgi.shedder)
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


async def _asgi(scope, receive, send):
    body = _respond(scope["path"], asgi.shedder)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


# A deadline so long that nobody is refused for the queue which the test makes.
wsgi = WSGILoadShedder(_wsgi, service="left", sinks=Sinks(), deadline_s=20)
asgi = LoadShedder(_asgi, service="left", sinks=Sinks(), deadline_s=20)
