"""The applications that test_servers.py has gunicorn and uvicorn serve, each with the console mounted in it."""

import os

import fake_making

fake_making.install()

from groundfault import LoadShedder, Resource, WSGILoadShedder  # noqa: E402  after what it is to use
from groundfault.console import StatusApp, WSGIStatusApp, serve  # noqa: E402  as above

_command = Resource("db").command("get", max_concurrent=5)


def _work():
    _command.call(lambda: None)
    return str(os.getpid()).encode()


def _wsgi(environ, start_response):
    body = _work()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


async def _asgi(scope, receive, send):
    body = _work()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


_guarded_wsgi = WSGILoadShedder(_wsgi, service="saber", mode="shadow")
_guarded_asgi = LoadShedder(_asgi, service="saber", mode="shadow")

if "CONSOLE_PORT" in os.environ:
    serve(port=int(os.environ["CONSOLE_PORT"]))
    _wsgi_console = WSGIStatusApp(public=True)
else:
    _asgi_console = StatusApp(public=True)


def wsgi(environ, start_response):
    if environ["PATH_INFO"].startswith("/console/"):
        inner = {**environ, "SCRIPT_NAME": "/console", "PATH_INFO": environ["PATH_INFO"].removeprefix("/console")}
        return _wsgi_console(inner, start_response)
    return _guarded_wsgi(environ, start_response)


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await _asgi_console(scope, receive, send)
    elif scope["path"].startswith("/console/"):
        await _asgi_console({**scope, "root_path": "/console"}, receive, send)
    else:
        await _guarded_asgi(scope, receive, send)
