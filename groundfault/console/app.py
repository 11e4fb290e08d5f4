"""The console for an application that mounts it, without any dependency: :class:`StatusApp`, :class:`WSGIStatusApp`.

Making one starts this process's recorder, and its reports if there is a run directory.
It is polled; nothing is streamed, for a stream would hold a worker, or keep a server from stopping.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from groundfault.console.answering import LARGEST_BODY, Console, Steers, finished
from groundfault.console.asking import Answer, Asked, plain
from groundfault.console.assembling import assembled
from groundfault.console.guarding import Auth
from groundfault.console.recording import recorder_in_service
from groundfault.errors import SettingsError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["StatusApp", "WSGIStatusApp"]

Directory = str | os.PathLike[str] | None
Scope = Mapping[str, Any]

_BODY_S: Final = 10.0  # so long a body may take
_AT_ONCE: Final = 8  # answers that wait, such as for the store of settings
_BUSY: Final = finished(Asked("GET", "", {}), plain(503, "too many requests wait for an answer of the console"))


class _App:
    """What both have in common."""

    def __init__(
        self,
        run_dir: Directory = None,
        *,
        auth: Auth | None = None,
        public: bool = False,
        token: str | None = None,
        hosts: Iterable[str] = (),
        settings: "str | Steers | None" = None,
    ) -> None:
        if auth is None and not public:
            raise SettingsError(
                "a mounted console needs auth=, such as basic_auth(user, password), or public=True if everybody who "
                "reaches the application may look"
            )
        self.console: Console = assembled(
            partial(recorder_in_service, run_dir), hosts=hosts, auth=auth, token=token, settings=settings
        )


class StatusApp(_App):
    """The console as an ASGI application: ``app.mount("/groundfault", StatusApp(auth=...))``.

    ``run_dir``: the run directory of the service; None, the default, for the one that ``GROUNDFAULT_RUN_DIR`` names;
    without one it shows the process that answers, alone.

    ``auth``: called with each request (:class:`~groundfault.console.asking.Asked`), on a thread unless it is
    :func:`basic_auth`; only if it returns true is anything answered. ``public``: everybody may look instead.
    One of them is needed.

    ``token``: what a request must carry that changes settings; None, the default, for what
    ``GROUNDFAULT_CONSOLE_TOKEN`` holds; without one nobody can. ``settings``: the address of the store of live
    settings; None, the default, for the one that ``GROUNDFAULT_SETTINGS`` names.

    ``hosts``: the names, besides those of the loopback interface, that the console may be addressed by; ``*`` for any.

    Raises SettingsError.
    """

    _waiting = 0

    async def __call__(self, scope: Scope, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            raise RuntimeError(f"StatusApp serves http, not {scope['type']}")
        status, headers, body = await self._answer(_asked(scope), receive)
        encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, asked: Asked, receive: Callable[..., Any]) -> Answer:
        console = self.console
        if not console.may_wait(asked):
            return console.answer(asked)
        refused = await self._on_a_thread(partial(console.refused, asked))
        if refused is not None:
            return refused
        if asked.method == "POST":
            try:
                asked = asked._replace(body=await _within(_BODY_S, _body(receive)))
            except (TimeoutError, ConnectionError):
                return finished(asked, plain(408, "the body took too long"))
        return await self._on_a_thread(partial(console.answered, asked)) or _BUSY

    async def _on_a_thread(self, work: Callable[[], Answer | None]) -> Answer | None:
        """Do it on a thread of its own, which a hanging store cannot take from anybody else, nor hold up an exit."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a loop that is not asyncio's
            return work()
        if self._waiting >= _AT_ONCE:
            return _BUSY
        self._waiting += 1
        done: asyncio.Future[Answer | None] = loop.create_future()

        def finish(answer: Answer | None) -> None:
            self._waiting -= 1
            if not done.done():
                done.set_result(answer)

        def run() -> None:
            answer = work()
            try:
                loop.call_soon_threadsafe(finish, answer)
            except RuntimeError:  # the loop is closed, and who asked is gone
                self._waiting -= 1

        try:
            threading.Thread(target=run, name="groundfault-console-answer", daemon=True).start()
        except RuntimeError:  # no thread is to be had
            self._waiting -= 1
            return _BUSY
        return await done


def _asked(scope: Scope) -> Asked:
    path, root = _below(scope)
    query = scope.get("query_string", b"").decode("latin-1")
    headers = _joined((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"])
    return Asked(scope["method"], _whole(path, query), headers, root=root)


def _below(scope: Scope) -> tuple[str, str]:
    """Return the path below where the console is mounted, and that place.

    A path holds the place that it is below, or it does not: servers and frameworks came to agree on the former in 2024.
    What arrived on the wire tells them apart, where there is any doubt.
    """
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    raw = scope.get("raw_path")
    came = None if raw is None else unquote(raw.partition(b"?")[0].decode("latin-1"))
    if came is not None and path.endswith("/") and came.endswith(path[:-1]) and not came.endswith("/"):
        path = path[:-1]  # Litestar puts a slash behind every path below a mount, and does not say where that is
        return path, came.removesuffix(path)
    if not root or not (path == root or path.startswith(f"{root}/")):
        return path, root
    if came == root + path:
        return path, root
    return path[len(root) :], root


def _whole(path: str, query: str) -> str:
    path = path.replace("?", "%3F")
    return f"{path}?{query}" if query else path


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in pairs:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


async def _body(receive: Callable[..., Any]) -> bytes | None:
    """Return the request's body, None if there is more than is taken. Raises ConnectionError if nobody waits."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > LARGEST_BODY:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


async def _within(bound_s: float, work: Any) -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # a loop that is not asyncio's: bounded by its server alone
        return await work
    return await asyncio.wait_for(work, bound_s)


async def _live(receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


class WSGIStatusApp(_App):
    """The console as a WSGI application: ``DispatcherMiddleware(app, {"/groundfault": WSGIStatusApp(auth=...)})``.

    Its settings are those of :class:`StatusApp`.
    """

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Serve one request."""
        status, headers, body = self._answer(environ)
        start_response(f"{status} {HTTPStatus(status).phrase}", list(headers))
        return [body]

    def _answer(self, environ: "WSGIEnvironment") -> Answer:
        asked = _asked_of(environ)
        refused = self.console.refused(asked)  # first, so that nobody without the token has a body read
        if refused is not None:
            return refused
        if asked.method == "POST":
            length = environ.get("CONTENT_LENGTH", "")
            if not (length.isascii() and length.isdecimal()):
                return finished(asked, plain(411, "the request must say how long it is"))
            asked = asked._replace(body=_read(environ["wsgi.input"], int(length[:9])))
        return self.console.answered(asked)


def _read(stream: Any, length: int) -> bytes | None:
    return None if length > LARGEST_BODY else stream.read(length)


def _asked_of(environ: "WSGIEnvironment") -> Asked:
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_") and isinstance(value, str)
    }
    headers["content-type"] = environ.get("CONTENT_TYPE", "")
    path, root = (_text(environ.get(name, "")) for name in ("PATH_INFO", "SCRIPT_NAME"))
    return Asked(
        environ.get("REQUEST_METHOD", "GET"), _whole(path, environ.get("QUERY_STRING", "")), headers, root=root
    )


def _text(native: str) -> str:
    return native.encode("latin-1", "replace").decode("utf-8", "replace")
