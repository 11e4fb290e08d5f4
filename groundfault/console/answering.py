"""What the console answers to what: the same in a worker, on a port of its own, and in the hub."""

import gzip
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol
from urllib.parse import quote

from groundfault.console.asking import JSON, Answer, Asked, plain
from groundfault.console.guarding import BasicAuth, Guard
from groundfault.console.pages import SAFE, file_named, page
from groundfault.events import note_internal_error
from groundfault.metrics.app import takes_gzip

__all__ = ["LARGEST_BODY", "Console", "RefusedError", "Steers", "finished"]

LARGEST_BODY: Final = 128 * 1024
"""Bytes of a request that are taken; a document of settings has 64 KiB at most."""

_PACKED: Final = (("Content-Type", JSON), ("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding"))
_NEVER_KEPT: Final = ("Cache-Control", "no-store")
_MAX_SHOWN: Final = 64


_NO_STORE: Final = "there is no store of live settings: set GROUNDFAULT_SETTINGS where this runs"


class RefusedError(Exception):
    """What was asked for is not done. ``status``: the answer's; ``lines``: why, for people; ``more``: fields beside."""

    def __init__(self, status: int, *lines: str, **more: Any) -> None:
        super().__init__(status, *lines)
        self.status = status
        self.lines = lines
        self.more = more


class Steers(Protocol):
    """What can show and change live settings. Every method may wait for the store, and may raise RefusedError."""

    def shown(self, query: str) -> Mapping[str, Any]:
        """Return what there is: store, version, document, names with their bounds, history."""

    def preview(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what a change, or a rollback, would do."""

    def change(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make a change, or a rollback."""


class Console:
    """Answers one request at a time, on whatever thread.

    ``view`` returns the newest view, as JSON that was compressed with gzip; ``report`` the report of all processes, for
    a hub. Both may raise RefusedError. ``steers``: None: there is no store.
    """

    def __init__(
        self,
        view: Callable[[], bytes],
        *,
        guard: Guard,
        report: Callable[[], bytes] | None = None,
        steers: Steers | None = None,
        live: str = "poll",
        is_ready: Callable[[], bool] | None = None,
    ) -> None:
        self._view = view
        self._report = report
        self._steers = steers
        self.guard = guard
        self._live = live
        self._is_ready = is_ready

    def may_wait(self, asked: Asked) -> bool:
        """Whether the answer may take longer than to look it up: not for an event loop."""
        if self.guard.auth is not None and not isinstance(self.guard.auth, BasicAuth):
            return True
        path = asked.path.partition("?")[0]
        if path.startswith("/settings") or path == "/report":
            return True
        return path == "/snapshot.json" and self._is_ready is not None and not self._is_ready()

    def refused(self, asked: Asked) -> Answer | None:
        """Return the answer to what is refused before its body is read, None if it is to be answered."""
        try:
            why = self.guard.refusal(asked)
        except Exception as error:  # noqa: BLE001  who is let in by what does not work? nobody
            note_internal_error("console", error)
            why = plain(500, "internal error; see the log")
        return None if why is None else finished(asked, why)

    def answer(self, asked: Asked) -> Answer:
        """Return the answer. Never raises an Exception."""
        return self.refused(asked) or self.answered(asked)

    def answered(self, asked: Asked) -> Answer:
        """Return the answer to what was not refused. Never raises an Exception."""
        try:
            given = self._said(asked)
        except Exception as error:  # noqa: BLE001  nothing of the service depends on this answer
            note_internal_error("console", error)
            given = plain(500, "internal error; see the log")
        return finished(asked, given)

    def _said(self, asked: Asked) -> Answer:
        try:
            return self._answered(asked)
        except RefusedError as refused:
            return _json(refused.status, {"errors": refused.lines, **refused.more})

    def _answered(self, asked: Asked) -> Answer:  # noqa: PLR0911  one line for each thing there is
        path, _, query = asked.path.partition("?")
        mark = asked.headers.get("if-none-match")
        if asked.method == "POST":
            return self._steered(path, asked)
        if path == "":
            return plain(307, "this way", ("Location", f"{quote(asked.root.rpartition('/')[2])}/"))
        if path == "/":
            return page(mark, live=self._live)
        if path == "/snapshot.json":
            return Answer(200, _PACKED, self._view())
        if path == "/report" and self._report is not None:
            return Answer(200, _PACKED, self._report())
        if path == "/settings.json" and self._steers is None:  # no 404: browsers note each of those as an error
            return _json(200, {"steers": False, "store": None, "errors": [_NO_STORE]})
        if path == "/settings.json":
            return _json(200, {"steers": self.guard.steers, **self._steering.shown(query)})
        if path.startswith("/page/"):
            return file_named(path.removeprefix("/page/"), mark)
        return plain(404, "no such page")

    @property
    def _steering(self) -> Steers:
        if self._steers is None:
            raise RefusedError(404, _NO_STORE)
        return self._steers

    def _steered(self, path: str, asked: Asked) -> Answer:
        steering = self._steering
        work = {"/settings/preview": steering.preview, "/settings/change": steering.change}.get(path)
        if work is None:
            return plain(404, "no such page")
        if asked.body is None:
            raise RefusedError(413, f"a request must have at most {LARGEST_BODY} bytes")
        try:
            said = json.loads(asked.body, object_pairs_hook=_once)
        except (ValueError, RecursionError):
            raise RefusedError(400, "the body must be JSON") from None
        if not isinstance(said, dict):
            raise RefusedError(400, "the body must be a JSON object")
        return _json(200, work(said))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object. Which of two values under one key was looked at is not known, so neither is taken."""
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise RefusedError(400, f"the body must say each key once: {ascii(twice)[:_MAX_SHOWN]} is said twice")
    return table


def finished(asked: Asked, given: Answer) -> Answer:
    """Return the answer with the headers that every one has, and in the coding that is taken."""
    status, headers, body = given
    named = dict(headers)
    if named.get("Content-Encoding") == "gzip" and not takes_gzip(asked.headers.get("accept-encoding", "")):
        body = gzip.decompress(body)
        headers = tuple(pair for pair in headers if pair[0] != "Content-Encoding")
    if "Cache-Control" not in named:
        headers = (*headers, _NEVER_KEPT)
    length = () if status == 304 else (("Content-Length", str(len(body))),)  # noqa: PLR2004  Not Modified
    return Answer(status, (*headers, *SAFE, *length), b"" if asked.method == "HEAD" else body)


def _json(status: int, value: Mapping[str, Any]) -> Answer:
    return Answer(status, (("Content-Type", JSON),), json.dumps(value, allow_nan=False).encode())
