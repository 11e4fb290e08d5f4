"""Live settings from a hub, over HTTP: the store that needs no library, and no database that every host can reach.

::

    store = HubStore("http://hub.internal:9733", token=...)

What the hub keeps them in is its own affair. Whoever waits, waits at the hub: the answer comes with the change.
"""

import os
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, Self, TypeVar
from urllib.parse import urlencode

from groundfault import wire
from groundfault._clock import monotonic
from groundfault.errors import SettingsError
from groundfault.integrations import _settings_records as records
from groundfault.integrations._hub_address import address_of, checked_token, context_for
from groundfault.integrations._hub_line import Line, LineError, Told, printable, refusal_in
from groundfault.integrations._hub_wire import body_of
from groundfault.settings.store import (
    Change,
    ConflictError,
    Document,
    MalformedError,
    NothingStoredError,
    Revision,
    StoreError,
)

__all__ = ["HubStore"]

T = TypeVar("T")

_MOST_BYTES: Final = 4 << 20
_CHEAP_S: Final = 2.0
_DEAR_S: Final = 10.0
_WRITE_S: Final = 10.0  # a person waits for it, and the hub for its database
_GRACE_S: Final = 0.5  # so much later than asked for may the hub's word come
_FRESH_S: Final = 0.5
_MOST_SAID: Final = 520

_OK: Final = 200
_NOT_MODIFIED: Final = 304
_NEWS: Final = frozenset({_OK, 422})
_REFUSED: Final = frozenset({400, 401, 403, 405, 413, 415})
_KINDS: Final[dict[str, type[StoreError]]] = {
    "conflict": ConflictError,
    "nothing-stored": NothingStoredError,
    "store": StoreError,
}


class _News(NamedTuple):
    """What the hub has said to who waited: for whom it is news, and when it came."""

    known: str | None
    told: Told
    at: float
    pid: int


class HubStore:
    """Reads and changes the live settings that a hub keeps.

    url: ``http://`` or ``https://``; a path before the hub's own is possible, and a user with a password, for a proxy.
    token: the hub's, for reading. Default None: what ``GROUNDFAULT_HUB_TOKEN`` holds, if it is set.
    steering_token: that of the hub's console, which a change takes. Default None: ``token`` where that is given, else
      what ``GROUNDFAULT_CONSOLE_TOKEN`` holds, if it is set, and what reading takes, if it is not.
    timeout_s: how long :meth:`load` waits for all of an answer, 2.0 by default, from 0.1 to 60; :meth:`write`,
      :meth:`history` and :meth:`at` have ten seconds.

    Nothing is opened before it is used, and a forked child opens its own connection.
    ``GROUNDFAULT_HUB_CA`` names a file with the only authorities to trust over ``https``.
    ``longest_retry_s``: how long whoever follows the store may pause after a failure: 10.0, and 2.0 where there is no
    document yet.
    Raises :class:`~groundfault.errors.SettingsError` for arguments that make no sense.
    """

    def __init__(
        self, url: str, *, token: str | None = None, steering_token: str | None = None, timeout_s: float = 2.0
    ) -> None:
        if not 0.1 <= timeout_s <= 60:  # noqa: PLR2004  said in the message; nan is not between them either
            raise SettingsError(f"timeout_s must be a number between 0.1 and 60, not {timeout_s!r}")
        address = address_of(url)
        self._name = address.name
        self._timeout_s = timeout_s
        steering_token = steering_token if steering_token is not None else token
        self._steering_token = checked_token(steering_token, "GROUNDFAULT_CONSOLE_TOKEN")
        self._line = Line(address, token=checked_token(token), context=context_for(address), most=_MOST_BYTES)
        self._known: str | None = None
        self._reached = False
        self._news: _News | None = None
        self.longest_retry_s = _DEAR_S

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """Return the store at a URL; ``options`` are the keywords of the class."""
        return cls(url, **options)

    @property
    def name(self) -> str:
        """The hub's address, without user and password."""
        return self._name

    def __repr__(self) -> str:
        return f"HubStore({self._name!r})"

    # --- reading ------------------------------------------------------------------------------------------------------

    def load(self, known: str | None) -> Document | None:
        """Return the document, or None if its version is still ``known``.

        Raises StoreError; NothingStoredError where the hub has nothing; MalformedError for what makes no sense.
        """
        self._reached = False
        told = self._news_for(known)
        try:
            document = self._document_in(told or self._asked_for(known, 0.0, self._timeout_s), known)
        except MalformedError as error:
            self._reached, self._known = True, error.version
            raise
        except StoreError as error:
            self.longest_retry_s = _CHEAP_S if isinstance(error, NothingStoredError) else _DEAR_S
            raise
        self._reached, self._known = True, known if document is None else document.version
        return document

    def _news_for(self, known: str | None) -> Told | None:
        """Return what the hub has just said to who waited, if that answers the question."""
        news, self._news = self._news, None
        if news is None or (news.known, news.pid) != (known, os.getpid()) or monotonic() - news.at > _FRESH_S:
            return None
        return news.told

    def _asked_for(self, known: str | None, wait_s: float, within_s: float) -> Told:
        query = {"wait_s": f"{wait_s:.3f}"}
        if known is not None:
            query["known"] = known
        return self._told(lambda: self._line.ask("GET", f"/store/document?{urlencode(query)}", within_s=within_s))

    def _document_in(self, told: Told, known: str | None) -> Document | None:
        if told.status == _NOT_MODIFIED and known is not None:
            return None
        said = self._said(told)
        version = self._checked(lambda: records.checked_version(said.get("version")))
        try:
            rows = said.get("entries")
            if not isinstance(rows, list):
                raise ValueError("entries must be a list")  # noqa: TRY004, TRY301  what is wrong is a ValueError here
            entries = tuple(records.entry_from_row(row) for row in rows)
            records.document_to_json(entries)  # for its limits
        except (ValueError, SettingsError) as error:
            raise MalformedError(self._text(records.cause_of(error, ())), version) from None
        return Document(version, entries)

    def wait(self, timeout_s: float) -> None:
        """Return when the hub says that something has changed, otherwise after ``timeout_s``."""
        until = monotonic() + timeout_s
        if self._reached and timeout_s > 0:
            self._news = None
            try:
                told = self._asked_for(self._known, timeout_s, timeout_s + _GRACE_S)
            except Exception:  # noqa: BLE001  it is only ever a reason to look sooner
                self._line.close()
            else:
                self._news = _News(self._known, told, monotonic(), os.getpid())
                if told.status in _NEWS:
                    return
        time.sleep(max(0.0, until - monotonic()))

    def close(self) -> None:
        """Let go of the connection; a later :meth:`load` opens another."""
        self._news = None
        self._line.close()

    def history(self, limit: int = 50) -> list[Revision]:
        """Return the last changes, the newest first; fewer where they are very large. Raises StoreError."""
        path = f"/store/history?{urlencode({'limit': max(0, limit)})}"
        said = self._said(self._told(lambda: self._line.ask("GET", path, within_s=_WRITE_S)))

        def revisions() -> list[Revision]:
            found = said.get("revisions")
            if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
                raise ValueError("revisions must be a list of objects")
            parts = ("version", "at", "actor", "reason", "changes")
            return [records.revision_of(*(each.get(part) for part in parts)) for each in found]

        return self._checked(revisions)

    def at(self, version: str) -> Document:
        """Return the document as it was under a version. Raises StoreError, also for one that is not known any more."""
        told = self._told(
            lambda: self._line.ask("GET", f"/store/at?{urlencode({'version': version})}", within_s=_WRITE_S)
        )
        document = self._document_in(told, None)
        if document is None or document.version != version:
            raise self._error("the answer is about another version")
        return document

    # --- writing ------------------------------------------------------------------------------------------------------

    def write(self, changes: Iterable[Change], *, reason: str, actor: str, based_on: str) -> str:
        """Apply all changes at once and return the new version, or ``based_on`` if nothing differs.

        Raises ConflictError if the version is not ``based_on`` any more, StoreError.
        """
        try:
            body = body_of(list(changes), reason, actor, based_on)
        except (ValueError, SettingsError) as error:
            raise self._error(f"{records.cause_of(error, ())}; nothing was written") from None
        self._news = None
        fate = "whether it was written is not known: look at the history"
        headers = {"Content-Type": "application/json"}
        if self._steering_token is not None:
            headers[wire.TOKEN] = self._steering_token
        try:
            told = self._line.ask("POST", "/store/write", within_s=_WRITE_S, body=body, headers=headers, once=True)
        except LineError as error:
            raise self._error(f"{error}; {fate if error.sent else 'nothing was written'}") from None
        if told.status in _REFUSED:
            fate = "nothing was written"
        elif told.status != _OK and self._kind_in(told) is not None:
            fate = ""  # the hub's store has said it
        try:
            said = self._said(told)
            return self._checked(lambda: records.checked_version(said.get("version")))
        except (ConflictError, NothingStoredError, MalformedError):
            raise
        except StoreError as error:
            raise StoreError(f"{error}; {fate}" if fate and fate not in str(error) else str(error)) from None

    # --- answers ------------------------------------------------------------------------------------------------------

    def _told(self, ask: Callable[[], Told]) -> Told:
        """Turn whatever goes wrong with a request into a StoreError."""
        try:
            return ask()
        except Exception as error:  # noqa: BLE001  a version that no URL can hold is such an error, too
            raise self._error(error if isinstance(error, LineError) else records.cause_of(error, ())) from None

    def _said(self, told: Told) -> dict[str, Any]:
        """Return the object that an answer holds. Raises the StoreError that it stands for."""
        if told.status != _OK:
            raise self._refusal(told)

        def read() -> dict[str, Any]:
            said = records.json_from(told.body)
            if not isinstance(said, dict):
                raise ValueError("it is no object")  # noqa: TRY004  what is wrong is a ValueError here
            return said

        return self._checked(read)

    def _checked(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except ValueError as error:
            raise self._error(f"the answer makes no sense: {records.cause_of(error, ())}") from None

    def _kind_in(self, told: Told) -> str | None:
        """Return which kind of error an answer says that it is; None: it says none, and may not be a hub's at all."""
        try:
            said = records.json_from(told.body)
        except ValueError:
            return None
        kind = said.get("kind") if isinstance(said, dict) else None
        return kind if isinstance(kind, str) else None

    def _refusal(self, told: Told) -> StoreError:
        kind = self._kind_in(told)
        if kind is None:
            return self._error(refusal_in(told))
        said = records.json_from(told.body)
        errors = said.get("errors")
        text = "; ".join(map(str, errors)) if isinstance(errors, list) else refusal_in(told)
        if kind == "malformed":
            return MalformedError(self._text(text), self._checked(lambda: records.checked_version(said.get("version"))))
        return self._error(text, _KINDS.get(kind, StoreError))

    def _text(self, cause: object) -> str:
        return f"settings of {self._name}: {printable(str(cause))[:_MOST_SAID]}"

    def _error(self, cause: object, kind: type[StoreError] = StoreError) -> StoreError:
        return kind(self._text(cause))
