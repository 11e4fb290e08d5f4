"""Live settings for all hosts from one place: the hub's side of ``/store/``. Standard library only.

However many hosts wait, there is one thread that looks at the store; what it has seen last is what everybody is told,
from memory. Nobody's waiting takes a thread, unless :meth:`Storing.answer` is called for it.

::

    storing = Storing(store)
    answer = await storing.answered(asked)      # on an event loop
    answer = storing.answer(asked)              # on a thread, which may take as long as was asked for
"""

import asyncio
import math
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from groundfault._clock import Clock, monotonic
from groundfault.console.asking import JSON, Answer, Asked
from groundfault.errors import SettingsError
from groundfault.events import note_internal_error
from groundfault.integrations import _settings_records as records
from groundfault.integrations._hub_wire import document_row, revision_row, write_in
from groundfault.settings.store import (
    ConflictError,
    Document,
    MalformedError,
    NothingStoredError,
    StoreError,
    WritableStore,
)

__all__ = ["LARGEST_WRITE", "LONGEST_WAIT_S", "Storing"]

LARGEST_WRITE: Final = 1 << 20
"""Bytes of a body that ``POST /store/write`` may have: a document of 64 KiB that says its scopes over and over."""

LONGEST_WAIT_S: Final = 20.0
"""Who asks to wait for longer is answered after so long."""

_LOOK_S: Final = 0.25
_PATIENCE_S: Final = 3.0
_AFTER_FAILURE_S: Final = 1.0
_LEAST_PAUSE_S: Final = 0.05
_ONE_LOOK_S: Final = 1.0  # so long a look may take that somebody waits for; hosts wait for two seconds
_TURN_S: Final = 10.0  # so long a write waits for the one before it
_MOST_HISTORY: Final = 1000
_MOST_HISTORY_BYTES: Final = 3 << 20

_Waiting = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]


class _WrongError(Exception):
    """What was asked makes no sense."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the store was last seen to hold. ``version``: None: nothing. ``answer``: for whoever does not know it."""

    version: str | None
    answer: Answer


class Storing:
    """Answers what hosts ask of a store below ``/store/``. All answers are JSON; who may ask is decided before.

    ``GET /store/document?known=VERSION&wait_s=20``: ``{"version", "entries"}``, or 304 if it is ``known`` and has not
    changed within ``wait_s``; ``GET /store/history?limit=50``; ``GET /store/at?version=``; ``POST /store/write``.
    What cannot be answered is ``{"errors": [...], "kind": ...}`` with the kind ``nothing-stored`` (404), ``conflict``
    (409), ``malformed`` (422, with ``version``), ``store`` (503) or ``request`` (400).

    ``look_s``: how long the thread waits for the store to say that something has changed before it looks again, 0.25.
    ``patience_s``: how long what was last seen still counts while the store cannot be read, 3.0; then it is 503.
    ``found``: creates the store where there is none yet, so that nobody is told that it cannot be read; None: nobody
    but the first change does. May raise StoreError.

    The thread begins with the first question and ends with :meth:`close`. The answers have no Content-Length.
    """

    def __init__(
        self,
        store: WritableStore,
        *,
        look_s: float = _LOOK_S,
        patience_s: float = _PATIENCE_S,
        clock: Clock = monotonic,
        found: Callable[[], None] | None = None,
    ) -> None:
        self._store = store
        self._found = found
        self._look_s = look_s
        self._patience_s = patience_s
        self._clock = clock
        self._turn = threading.Lock()  # one at a time writes, or reads what is past
        self._looking = threading.Lock()  # one at a time looks: the thread, or who has just written
        self._changed = threading.Condition()  # guards all below, and wakes who waits on a thread
        self._seen: _Seen | None = None
        self._good_at = 0.0
        self._trouble: str | None = None  # why the last look failed
        self._waiting: set[_Waiting] = set()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._go_on = threading.Event()  # ends the thread's pause

    def __repr__(self) -> str:
        return f"<Storing {self._store.name}>"

    # --- for event loops and threads ----------------------------------------------------------------------------------

    def version(self) -> str | None:
        """Return the version that was last seen; None: nothing was, or there is nothing."""
        seen = self._seen
        return None if seen is None else seen.version

    async def changed(self, known: str | None, timeout_s: float) -> bool:
        """Wait until something else than ``known`` is seen, ``timeout_s`` at most; return whether it is.

        ``known``: None: anything at all. Takes no thread, and may be cancelled.
        """
        self._watch()
        return await self._until(lambda: self._is_news(known), timeout_s)

    async def _until(self, is_over: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something has been seen that is awaited; return whether it has."""
        loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    waiting = (loop, loop.create_future())
                    with self._changed:
                        if is_over():
                            return True
                        self._waiting.add(waiting)
                    try:
                        await waiting[1]
                    finally:
                        with self._changed:
                            self._waiting.discard(waiting)
        return False

    async def answered(self, asked: Asked) -> Answer:
        """Return the answer, on an event loop, which is never held up. Never raises an Exception."""
        try:
            wanted = self._document_wanted(asked)
            if wanted is not None:
                known, wait_s = wanted
                await self._until(self._is_known, _ONE_LOOK_S)
                if wait_s > 0:
                    await self._until(lambda: self._is_news(known), wait_s)
                return self._document(known)
        except _WrongError as error:
            return _refusal(400, "request", str(error))
        except Exception as error:  # noqa: BLE001  no host's settings depend on this answer
            return _internal(error)
        return await asyncio.to_thread(self.answer, asked)

    def answer(self, asked: Asked) -> Answer:
        """Return the answer; may take as long as was asked for. Never raises an Exception."""
        try:
            wanted = self._document_wanted(asked)
            if wanted is None:
                return self._other(asked)
            known, wait_s = wanted
            with self._changed:
                self._changed.wait_for(self._is_known, _ONE_LOOK_S)
                if wait_s > 0:
                    self._changed.wait_for(lambda: self._is_news(known), wait_s)
            return self._document(known)
        except (_WrongError, ValueError, SettingsError) as error:
            fate = "; nothing was written" if asked.method == "POST" else ""
            return _refusal(400, "request", f"{error}{fate}")
        except ConflictError as error:
            return _refusal(409, "conflict", str(error))
        except StoreError as error:
            return _seen_instead(error).answer
        except Exception as error:  # noqa: BLE001  no host's settings depend on this answer
            return _internal(error)

    def close(self) -> None:
        """End the thread as soon as the store has answered, and let go of the store's connections."""
        self._stopped = True
        self._go_on.set()
        with self._changed:
            thread, self._thread = self._thread, None
        if thread is None:
            self._store.close()

    # --- what is asked ------------------------------------------------------------------------------------------------

    def _document_wanted(self, asked: Asked) -> tuple[str | None, float] | None:
        """Return the version that is known and how long to wait, if it is the document that is asked for."""
        path, _, query = asked.path.partition("?")
        if path != "/store/document" or asked.method not in {"GET", "HEAD"}:
            return None
        self._watch()
        said = _said(query)
        text = said.get("wait_s", "0")
        try:
            wait_s = float(text)
        except ValueError:
            wait_s = math.nan
        if not wait_s >= 0.0:
            raise _WrongError(f"wait_s must be seconds, 0 or more, not {ascii(text)[:80]}")
        return said.get("known"), min(wait_s, LONGEST_WAIT_S)

    def _other(self, asked: Asked) -> Answer:
        path, _, query = asked.path.partition("?")
        method = _METHODS.get(path)
        if method is None:
            return _refusal(404, "request", "there is no such thing below /store/")
        if asked.method != method and (asked.method, method) != ("HEAD", "GET"):
            return _refusal(405, "request", f"use {method}", ("Allow", method))
        if not self._turn.acquire(timeout=_TURN_S):
            return _refusal(503, "store", f"{self._store.name} is busy; nothing was written")
        try:
            if path == "/store/write":
                return self._write(asked.body)
            return self._history(_said(query)) if path == "/store/history" else self._at(_said(query))
        finally:
            self._turn.release()

    def _history(self, said: Mapping[str, str]) -> Answer:
        limit = said.get("limit", "50")
        if not (limit.isascii() and limit.isdigit()) or len(limit) > 9:  # noqa: PLR2004  no more digits than any has
            raise _WrongError(f"limit must be a whole number, not {ascii(limit)[:80]}")
        rows, size = [], 0
        for revision in self._store.history(min(int(limit), _MOST_HISTORY)):
            row = records.value_to_json(revision_row(revision))
            size += len(row)
            if size > _MOST_HISTORY_BYTES:
                break
            rows.append(row)
        return _json(200, f'{{"revisions":[{",".join(rows)}]}}')

    def _at(self, said: Mapping[str, str]) -> Answer:
        if "version" not in said:
            raise _WrongError("version must be said")
        return _json(200, records.value_to_json(document_row(self._store.at(said["version"]))))

    def _write(self, body: bytes | None) -> Answer:
        if body is None or len(body) > LARGEST_WRITE:
            return _refusal(413, "request", f"a change must have at most {LARGEST_WRITE} bytes; nothing was written")
        wanted = write_in(body)
        version = self._store.write(wanted.changes, reason=wanted.reason, actor=wanted.actor, based_on=wanted.based_on)
        self._look()  # so that whoever has written it reads it
        self._go_on.set()
        return _json(200, records.value_to_json({"version": version}))

    # --- what is seen -------------------------------------------------------------------------------------------------

    def _is_known(self) -> bool:
        """Return whether there is something to tell. This process may have stood still for a while, as a whole."""
        return self._trouble is not None or (self._seen is not None and self._age_s() <= self._patience_s)

    def _age_s(self) -> float:
        return self._clock() - self._good_at

    def _is_news(self, known: str | None) -> bool:
        seen = self._seen
        return self._is_known() and (seen is None or seen.version is None or seen.version != known)

    def _document(self, known: str | None) -> Answer:
        with self._changed:
            seen, trouble, age_s = self._seen, self._trouble, self._age_s()
        if seen is None or age_s > self._patience_s:
            why = trouble or f"{self._store.name} has not answered {'yet' if seen is None else f'for {age_s:.1f} s'}"
            return _refusal(503, "store", why)
        if seen.version is not None and seen.version == known:
            return Answer(304, _HEADERS[1:], b"")
        return seen.answer

    def _watch(self) -> None:
        """Have a thread that looks."""
        if self._thread is None and not self._stopped:
            with self._changed:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="groundfault-hub-store", daemon=True)
                    thread.start()
                    self._thread = thread

    def _run(self) -> None:
        while not self._stopped:
            pause_s = _AFTER_FAILURE_S
            if self._look():
                with suppress(Exception):  # it promised not to raise; the next look will tell what is the matter
                    self._store.wait(self._look_s)
                    pause_s = _LEAST_PAUSE_S
            self._go_on.wait(pause_s)
            self._go_on.clear()
        with suppress(Exception):  # it is over anyway
            self._store.close()

    def _look(self) -> bool:
        """Look at the store, and wake who waits for what has changed; return whether there is something."""
        with self._looking:
            known = self.version()
            try:
                document = self._load(known)
                seen = None if document is None else _seen_in(document)
            except (MalformedError, NothingStoredError) as error:
                seen = _seen_instead(error)
            except StoreError as error:
                self._note(str(error))
                return False
            except Exception as error:  # noqa: BLE001  a store breaks what it has promised, and the others wait for it
                note_internal_error("hub store", error)
                self._note(f"{self._store.name} cannot be read: {type(error).__name__}")
                return False
            self._take(seen)
        return seen is None or seen.version is not None

    def _load(self, known: str | None) -> Document | None:
        try:
            return self._store.load(known)
        except NothingStoredError:
            if self._found is None:
                raise
        self._found()
        return self._store.load(known)

    def _note(self, trouble: str) -> None:
        with self._changed:
            news = not self._is_known()
            self._trouble = trouble
            if news:
                self._wake()

    def _take(self, seen: _Seen | None) -> None:
        """Have seen something, or, None, that it is as it was."""
        with self._changed:
            news = (seen is not None and seen != self._seen) or not self._is_known()
            self._good_at, self._trouble = self._clock(), None
            self._seen = seen or self._seen
            if news:
                self._wake()

    def _wake(self) -> None:
        self._changed.notify_all()
        waiting, self._waiting = self._waiting, set()
        for loop in {loop for loop, _ in waiting}:
            with suppress(RuntimeError):  # its loop is closed
                loop.call_soon_threadsafe(_wake_all, [future for its, future in waiting if its is loop])


_METHODS: Final = {"/store/document": "GET", "/store/history": "GET", "/store/at": "GET", "/store/write": "POST"}
_HEADERS: Final = (("Content-Type", JSON), ("Cache-Control", "no-store"))


def _wake_all(futures: "list[asyncio.Future[None]]") -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def _said(query: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=8))
    except ValueError:
        raise _WrongError("the query makes no sense") from None


def _seen_in(document: Document) -> _Seen:
    try:
        return _Seen(document.version, _json(200, records.value_to_json(document_row(document))))
    except ValueError as error:
        return _seen_instead(MalformedError(f"what is stored {error}", document.version))


def _seen_instead(error: StoreError) -> _Seen:
    """Return what is seen where there is no document."""
    if isinstance(error, MalformedError):
        said = {"errors": [str(error)], "kind": "malformed", "version": error.version}
        return _Seen(error.version, _json(422, records.value_to_json(said)))
    if isinstance(error, NothingStoredError):
        return _Seen(None, _refusal(404, "nothing-stored", str(error)))
    return _Seen(None, _refusal(503, "store", str(error)))


def _json(status: int, text: str, *more: tuple[str, str]) -> Answer:
    return Answer(status, (*_HEADERS, *more), text.encode())


def _refusal(status: int, kind: str, text: str, *more: tuple[str, str]) -> Answer:
    said: dict[str, Any] = {"errors": [text], "kind": kind}
    return _json(status, records.value_to_json(said), *more)


def _internal(error: Exception) -> Answer:
    note_internal_error("hub store", error)
    return _refusal(500, "internal", "internal error; see the hub's log")
