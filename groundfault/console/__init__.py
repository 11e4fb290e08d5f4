"""The console: what an on-call engineer looks at first. Standard library only; the hub and ``top`` bring their extras.

::

    app.mount("/groundfault", StatusApp(public=True))      # ASGI; WSGIStatusApp for WSGI
    groundfault.console.serve(port=9731)                   # a loopback port of its own
"""

from groundfault.console.app import StatusApp, WSGIStatusApp
from groundfault.console.guarding import basic_auth
from groundfault.console.port import serve

__all__ = ["StatusApp", "WSGIStatusApp", "basic_auth", "serve"]
