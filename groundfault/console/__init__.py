"""The console: what an on-call engineer looks at first. Standard library only; the hub and ``top`` bring their extras.

::

    app.mount("/groundfault", StatusApp(public=True))      # ASGI; WSGIStatusApp for WSGI
    groundfault.console.serve(port=9731)                   # a loopback port of its own
"""
