"""What one run of ``groundfault settings`` works with: a store, a terminal, a clock, what processes report."""

from functools import cached_property
from types import TracebackType
from typing import Self

from groundfault._clock import Clock
from groundfault.settings.opening import open_store
from groundfault.settings.store import (
    NOTHING_YET,
    Document,
    NothingStoredError,
    SettingsStore,
    StoreError,
    WritableStore,
)
from groundfault.settingscli.ending import REFUSED, USAGE, EndingError
from groundfault.settingscli.processes import Reports, Running, running_versions
from groundfault.settingscli.terminal import Terminal

__all__ = ["Session"]


class Session:
    """Opens the store when it is first asked for, and closes it in the end.

    ``url``: where the store is; None: nowhere, which matters only to what needs one.
    ``clock`` returns the wall time in seconds.
    """

    def __init__(self, url: str | None, *, terminal: Terminal, reports: Reports, clock: Clock) -> None:
        self.terminal = terminal
        self.clock = clock
        self._url = url
        self._reports = reports

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if "store" in self.__dict__:
            self.store.close()

    @cached_property
    def store(self) -> SettingsStore:
        """The store. Raises EndingError without one; SettingsError, ImportError as ``open_store`` does."""
        if self._url is None:
            raise EndingError(USAGE, "say which store: --store URL, or GROUNDFAULT_SETTINGS=URL")
        return open_store(self._url)

    @property
    def writable(self) -> WritableStore:
        """The store. Raises EndingError if it cannot be changed from here and keeps no history."""
        store = self.store
        if not isinstance(store, WritableStore):
            raise EndingError(REFUSED, f"{store.name} can be read only: it takes no changes and keeps no history")
        return store

    def running(self) -> list[Running]:
        """Return what the processes of this host run."""
        return running_versions(self._reports())

    def load(self) -> Document:
        """Return what the store holds now. Raises StoreError."""
        document = self.store.load(None)
        if document is None:
            raise StoreError(f"{self.store.name} handed over no document")
        return document

    def load_or_begin(self) -> Document:
        """Return what the store holds now; where nothing was ever stored, say so and return what begins it."""
        try:
            return self.load()
        except NothingStoredError as error:
            self.terminal.note(f"this will begin it: {error}")
            return Document(NOTHING_YET)

    def at(self, version: str) -> Document:
        """Return what the store held under a version. Raises StoreError, EndingError for one that is not known."""
        store = self.writable
        try:
            return store.at(version)
        except StoreError as error:
            # A version that is not known is the operator's mistake, and no trouble with the store, if that answers.
            store.history(1)
            raise EndingError(REFUSED, str(error)) from None
