"""The applications that test_servers.py has gunicorn and uvicorn serve: each request makes one call."""

import json
import os

from groundfault import LoadShedder, Resource, WSGILoadShedder
from groundfault.integrations.prometheus import GroundFaultCollector
from groundfault.metrics import MetricsApp, WSGIMetricsApp

_command = Resource("db").command("get", max_concurrent=5)


def _work():
    _command.call(lambda: None)
    return json.dumps({"pid": os.getpid()}).encode()


def _wsgi_app(environ, start_response):
    body = _work()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


async def _asgi_app(scope, receive, send):
    body = _work()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


_wsgi_guarded = WSGILoadShedder(_wsgi_app, service="saber", mode="shadow")
_asgi_guarded = LoadShedder(_asgi_app, service="saber", mode="shadow")


if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    from prometheus_client import CollectorRegistry, Counter, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    _theirs = Counter("theirs", "Requests, as the application itself counts them.")
    _ours = GroundFaultCollector()

    def _in_their_registry(environ, start_response):
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        registry.register(_ours)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [generate_latest(registry)]

    _metrics_of_wsgi = WSGIMetricsApp()

    def wsgi(environ, start_response):
        if environ["PATH_INFO"] == "/metrics":
            return _metrics_of_wsgi(environ, start_response)
        if environ["PATH_INFO"] == "/theirs":
            return _in_their_registry(environ, start_response)
        _theirs.inc()
        return _wsgi_guarded(environ, start_response)


_metrics_of_asgi = MetricsApp()


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan" or scope["path"] == "/metrics":
        await _metrics_of_asgi(scope, receive, send)
    else:
        await _asgi_guarded(scope, receive, send)
