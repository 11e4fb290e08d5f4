"""What a store of live settings is, and what it hands over.

A store holds one *document*: values for *names* at *scopes*, under a version that changes with each change.
It is read in the background and never on the path of a call, so it may be slow, and it may fail.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from groundfault.errors import GroundFaultError

__all__ = [
    "AS_BEFORE",
    "NOTHING_YET",
    "UNSET",
    "Change",
    "ConflictError",
    "Document",
    "Entry",
    "MalformedError",
    "NothingStoredError",
    "Revision",
    "SettingsStore",
    "StoreError",
    "WritableStore",
]

AS_BEFORE: Final = object()
"""As what comes after an override: what stands there without one."""

UNSET: Final = None
"""As the new value of a change: take the entry away. No setting is None in a store; who wants none, unsets it."""

NOTHING_YET: Final = "0"
"""The version of a store before its first change: what the first :meth:`WritableStore.write` is based on."""


class StoreError(GroundFaultError):
    """A store could not be read or written. The message names the store, without credentials, and the cause."""


class NothingStoredError(StoreError):
    """There is no document: none was ever written, or it is gone. A write based on ``NOTHING_YET`` begins one.

    An error and no empty document, so that a store that was emptied by accident takes no setting away.
    """


class MalformedError(StoreError):
    """What a store holds under ``version`` is no document at all, as text that is not JSON.

    Unlike a store that cannot be read it is there, and stays until somebody changes it: that version is rejected.
    """

    def __init__(self, message: str, version: str) -> None:
        super().__init__(message)
        self.version = version

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.version)


class ConflictError(StoreError):
    """Somebody else has changed the document since the version that a change was based on. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One value. ``scope`` and ``name`` are as :mod:`groundfault.settings.document` explains them.

    ``expires_at``: from when on it counts no more, in seconds since the epoch; None: it stays.
    ``then``: the value that counts from then on; None: none, as if there were no entry.
    """

    scope: str
    name: str
    value: Any
    expires_at: float | None = None
    then: Any = None


@dataclass(frozen=True, slots=True)
class Document:
    """Everything that a store holds, under its version: short, printable, another one after each change."""

    version: str
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """Set one value, or with the value ``UNSET`` take it away.

    ``then``: what counts after ``expires_at``, None for nothing. By default the value that stands there without an
    override: so what was set for good comes back when a change for half an hour is over.
    """

    scope: str
    name: str
    value: Any
    expires_at: float | None = None
    then: Any = AS_BEFORE

    def on(self, entry: Entry | None) -> Entry:
        """Return the entry that setting this value makes of the one there is, or None. Not for ``UNSET``."""
        if self.expires_at is None:
            return Entry(self.scope, self.name, self.value)
        then = self.then
        if then is AS_BEFORE:
            then = None if entry is None else entry.value if entry.expires_at is None else entry.then
        return Entry(self.scope, self.name, self.value, self.expires_at, then)


@dataclass(frozen=True, slots=True)
class Revision:
    """One change of the document, for the history. ``at``: seconds since the epoch.

    ``changes``: for each entry that differs, what it was and what it became, None where there was or is none.
    """

    version: str
    at: float
    actor: str
    reason: str
    changes: tuple[tuple[Entry | None, Entry | None], ...]


@runtime_checkable
class SettingsStore(Protocol):
    """Where live settings come from. All methods are called from one background thread, never from a call's.

    A store holds no connection, thread or lock when it is made, only once it is used:
    it may be made before a fork, and is used in the children.
    """

    @property
    def name(self) -> str:
        """What it is called in events, gauges and errors: low in cardinality and without credentials."""

    def load(self, known: str | None) -> Document | None:
        """Return the document, or None if its version is still ``known``.

        Raises StoreError: NothingStoredError where there is none;
        MalformedError for content that is no document, unless its version is ``known``.
        Returns or raises within a few seconds, whatever the other side does.
        """

    def wait(self, timeout_s: float) -> None:
        """Return when the document may have changed, or after ``timeout_s``. Never raises for the store's troubles."""

    def close(self) -> None:
        """Let go of connections; a later :meth:`load` makes new ones."""


@runtime_checkable
class WritableStore(SettingsStore, Protocol):
    """A store that the command line can change, with an audit trail."""

    def write(self, changes: Iterable[Change], *, reason: str, actor: str, based_on: str) -> str:
        """Apply all changes at once and return the new version.

        ``based_on``: the version that was looked at. Raises ConflictError if it is not the current one, StoreError.
        """

    def history(self, limit: int = 50) -> list[Revision]:
        """Return the last changes, the newest first."""

    def at(self, version: str) -> Document:
        """Return the document as it was under a version. Raises StoreError for one that is not known (any more)."""
