"""A store in memory: for tests, and for an application that brings its settings along by a way of its own."""

import threading
from collections.abc import Iterable, Mapping
from typing import Any, Final

from groundfault._clock import Clock, wall
from groundfault.settings.document import changed, differences, parse
from groundfault.settings.store import Change, ConflictError, Document, Revision, StoreError

__all__ = ["MemoryStore"]


class MemoryStore:
    """A :class:`~groundfault.settings.store.WritableStore` that lives and dies with its process.

    ``settings``: what it holds at first, ``{scope: {name: value}}``; default nothing.
    ``name``: as it is called in events. ``clock`` returns the wall time, for the history.
    While ``error`` is set, to a StoreError, every reading and writing raises it.
    Versions are ``1``, ``2`` and so on. Values are kept as they are: what they may be is for those who read them.
    """

    def __init__(
        self, settings: Mapping[str, Mapping[str, Any]] | None = None, *, name: str = "memory", clock: Clock = wall
    ) -> None:
        self._name = name
        self._clock = clock
        self._revisions: list[Revision] = []
        self._documents: Final[dict[str, Document]] = {}
        self._current = self._keep(parse(settings or {}, "1"))
        # Guards all of that, and wakes who waits.
        self._changed = threading.Condition()
        self.error: StoreError | None = None

    def __repr__(self) -> str:
        return f"<MemoryStore {self._name} version {self._current.version}>"

    def _keep(self, document: Document) -> Document:
        self._documents[document.version] = document
        return document

    @property
    def name(self) -> str:
        """What it is called."""
        return self._name

    def load(self, known: str | None) -> Document | None:
        """Return the document, or None if its version is still ``known``."""
        self._answer()
        current = self._current
        return None if current.version == known else current

    def wait(self, timeout_s: float) -> None:
        """Return at the next change, or after ``timeout_s``."""
        with self._changed:
            self._changed.wait(timeout_s)

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def write(self, changes: Iterable[Change], *, reason: str, actor: str, based_on: str) -> str:
        """Apply all changes at once and return the new version. Raises ConflictError, StoreError."""
        self._answer()
        with self._changed:
            old = self._current
            if based_on != old.version:
                raise ConflictError(f"{self._name} holds version {old.version}, not {based_on} any more")
            new = self._keep(changed(old, changes, str(len(self._documents) + 1)))
            self._current = new
            self._revisions.append(Revision(new.version, self._clock(), actor, reason, differences(old, new)))
            self._changed.notify_all()
        return new.version

    def history(self, limit: int = 50) -> list[Revision]:
        """Return the last changes, the newest first."""
        self._answer()
        return self._revisions[::-1][:limit]

    def at(self, version: str) -> Document:
        """Return the document as it was under a version. Raises StoreError for one that never was."""
        self._answer()
        try:
            return self._documents[version]
        except KeyError:
            raise StoreError(f"{self._name} knows no version {version}") from None

    def _answer(self) -> None:
        if self.error is not None:
            raise self.error
