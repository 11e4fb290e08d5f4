"""A small shop under gunicorn: a command with a limit, a server half, live settings and the console."""

from time import sleep

from werkzeug.middleware.dispatcher import DispatcherMiddleware

from groundfault import Resource, WSGILoadShedder, metrics
from groundfault.console import WSGIStatusApp
from groundfault.settings import live

WORK_S = 0.05

metrics.start()
live.install()

wallet = Resource("wallet").command("get", timeout_s=1.0, max_concurrent=50, fallback=b"later")


def _shop(environ, start_response):
    body = wallet.call(_asked)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def _asked():
    sleep(WORK_S)
    return b"wealth"


app = DispatcherMiddleware(WSGILoadShedder(_shop, service="shop"), {"/groundfault": WSGIStatusApp(public=True)})
