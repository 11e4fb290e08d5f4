"""The tiny application that the doctor serves: it says what its shedder has seen of the request at hand.

In shadow mode, so that nothing is refused. ``/hold/300`` keeps the worker, or the event loop, for 300 ms;
``/sleep/300`` takes as long and leaves an event loop to others.
"""

import asyncio
import json
import select
import signal
from threading import local
from typing import TYPE_CHECKING, Any

from groundfault._clock import monotonic
from groundfault.events import Event, RequestSeen
from groundfault.shedding.asgi import LoadShedder, Message, Receive, Scope, Send
from groundfault.shedding.shedder import Shedder
from groundfault.shedding.wsgi import WSGILoadShedder
from groundfault.sinks import Sinks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_HOLD = "/hold/"
_SLEEP = "/sleep/"
_MOST_MS = 2000

# The shedder decides in the thread that runs the application, and right before it.
_seen = local()


def _note(event: Event) -> None:
    if isinstance(event, RequestSeen):
        _seen.event = event


shedder = Shedder(service="doctor", mode="shadow", sinks=Sinks.direct(_note))


def _hold(seconds: float) -> None:
    """Keep the whole worker, whatever it is: what gevent has patched would let others run."""
    wait = getattr(signal, "sigtimedwait", None)
    if wait is None:
        select.select((), (), (), seconds)
    else:
        wait((), seconds)


def _seconds(path: str, prefix: str) -> float:
    return min(int(path.removeprefix(prefix)), _MOST_MS) / 1e3


def _answer(path: str) -> bytes:
    entered = monotonic()
    event: RequestSeen | None = getattr(_seen, "event", None)
    if path.startswith(_HOLD):
        _hold(_seconds(path, _HOLD))
    snapshot = shedder.snapshot()
    return json.dumps(
        {
            "entered": entered,
            "wait_s": event and event.queue_wait_s,
            "signal": event and event.signal,
            "refused": dict(snapshot.signals_refused),
        }
    ).encode()


async def _asgi(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    path = scope["path"]
    if path.startswith(_SLEEP):
        await asyncio.sleep(_seconds(path, _SLEEP))
    body = _answer(path)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message: Message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _wsgi(environ: "WSGIEnvironment", start_response: "StartResponse") -> "Iterable[bytes]":
    body = _answer(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


asgi: Any = LoadShedder(_asgi, shedder=shedder)
wsgi: Any = WSGILoadShedder(_wsgi, shedder=shedder)
