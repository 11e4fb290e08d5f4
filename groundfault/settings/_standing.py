"""How a process stands with its store: judges what was read, puts in force what is good, says what changed."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from groundfault._clock import Clock
from groundfault.errors import SettingsError
from groundfault.events import SettingsStoreChanged
from groundfault.settings._applying import Overlays
from groundfault.settings._reading import Reading
from groundfault.settings.document import differences, validate
from groundfault.settings.store import Document, MalformedError, SettingsStore
from groundfault.sinks import Sinks

__all__ = ["Standing", "Status"]

_log = logging.getLogger("groundfault")

_JITTER: Final = 0.2
_LONGEST_RETRY_S: Final = 10.0
_LONGEST_ERROR: Final = 500
_MOST_WARNINGS: Final = 10
_MOST_DOUBLINGS: Final = 10

State = Literal["starting", "applied", "rejected", "unreachable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How live settings stand in this process.

    ``state``: ``starting`` until the store was first read; ``applied``: what it holds is in force;
    ``rejected``: what it holds is not, and the last good version is;
    ``unreachable``: it cannot be read, and the last good version is in force.
    ``version``: of what is in force; None: nothing but what code declared. ``entries``: how many it has.
    ``age_s``: how long ago that was last known to be the store's; None: never. It grows while there is trouble.
    ``reachable``: None until the store was first read.
    ``rejected``: how many versions were, since this process began to follow the store.
    ``error``: why it is rejected or unreachable. ``retry_s``: from the last failure to the next try; None: it hangs.
    ``warnings``: what in the document this version of the package does not know.
    ``misfits``: by command or service that stays as declared, although the document says something of it, why.
    """

    store: str
    service: str
    state: State
    version: str | None
    entries: int
    age_s: float | None
    reachable: bool | None
    rejected: int
    error: str | None
    retry_s: float | None
    warnings: tuple[str, ...]
    misfits: dict[str, str]


class Standing:
    """What is known of the store, and what of it is in force. Everything here happens on one thread, but reading it."""

    def __init__(
        self,
        overlays: Overlays,
        store: SettingsStore,
        *,
        poll_s: float,
        allow_disable: bool,
        sinks: Sinks,
        clock: Clock,
        draw: Callable[[], float],
    ) -> None:
        self._overlays = overlays
        self._store = store
        self._poll_s = poll_s
        self._allow_disable = allow_disable
        self._sinks = sinks
        self._clock = clock
        self._draw = draw
        self.version: str | None = None
        self._warnings: tuple[str, ...] = ()
        self._confirmed_at: float | None = None
        self.begin_anew(store)

    def begin_anew(self, store: SettingsStore) -> None:
        """Forget what is known of the store; what is in force stays."""
        self._store = store
        self.state: State = "starting"
        self.seen: str | None = None  # the version that the store was last seen to hold
        self._refused: str | None = None  # the last one that was rejected
        self._rejected = 0
        self._error: str | None = None
        self._failures = 0
        self._retry_s: float | None = None

    def forget(self) -> None:
        """Have nothing in force."""
        self.version, self._warnings, self._confirmed_at = None, (), None
        self.begin_anew(self._store)

    def status(self) -> Status:
        """Return how things stand."""
        overlays, confirmed_at = self._overlays, self._confirmed_at
        return Status(
            store=self._store.name,
            service=overlays.service,
            state=self.state,
            version=self.version,
            entries=len(overlays.document.entries),
            age_s=None if confirmed_at is None else max(0.0, self._clock() - confirmed_at),
            reachable=None if self.state == "starting" else self.state != "unreachable",
            rejected=self._rejected,
            error=self._error,
            retry_s=self._retry_s,
            warnings=self._warnings,
            misfits=overlays.misfits,
        )

    def take(self, reading: Reading) -> None:
        """Judge what was read."""
        reading.pause_s = self._jittered(self._poll_s)
        error, document = reading.error, reading.document
        if reading.cached_age_s is not None and document is not None:
            self._take_cached(document, reading.cached_age_s)
            return
        if isinstance(error, MalformedError):
            self._reject(error.version, str(error))
        elif error is not None:
            self._failures += 1
            longest_s = min(_LONGEST_RETRY_S, getattr(self._store, "longest_retry_s", _LONGEST_RETRY_S))
            reading.pause_s = self._jittered(
                min(self._poll_s * 2 ** min(self._failures - 1, _MOST_DOUBLINGS), longest_s)
            )
            self.unreachable(_said(error), reading.pause_s)
            return
        elif document is None:
            self._see(reading)
        else:
            self._consider(document, reading)
        self._failures = 0
        self._retry_s = None

    def _see(self, reading: Reading) -> None:
        """Take it that the store holds what it held last time."""
        if self.seen == self.version:
            self._confirm(reading)
        elif self.state == "unreachable":
            self._change("rejected", self.seen, error=f"version {self.seen} is still there, and is still no good")

    def _confirm(self, reading: Reading) -> None:
        self._confirmed_at = self._clock()
        self._refused = None
        reading.confirmed = True
        if self.state != "applied":
            self._change("reached", self.version)

    def _consider(self, document: Document, reading: Reading) -> None:
        if document.version == self.version and not differences(self._overlays.document, document):
            self.seen = document.version
            self._confirm(reading)
            return
        try:
            self._put_in_force(document)
        except Exception as error:  # noqa: BLE001  whatever is the matter with it, it is not good
            self._reject(document.version, _said(error))
            return
        self.seen, self._refused = document.version, None
        self._confirmed_at = self._clock()
        reading.keep = document
        self._change("applied", document.version)

    def _put_in_force(self, document: Document) -> None:
        warnings = validate(document, allow_disable=self._allow_disable)
        self._overlays.check(document)
        self.version, self._warnings = document.version, warnings
        self._overlays.lay(document)
        for warning in warnings[:_MOST_WARNINGS]:
            _log.warning("live settings of %s, version %s: %s", self._store.name, document.version, warning)

    def _take_cached(self, document: Document, age_s: float) -> None:
        if self.version is not None:
            return
        try:
            self._put_in_force(document)
        except SettingsError as error:
            _log.warning("the copy of live settings of %s is ignored: %s", self._store.name, error)
            return
        self._confirmed_at = self._clock() - age_s
        self._tell("applied", document.version)

    def _reject(self, version: str, why: str) -> None:
        self.seen = version
        news = version != self._refused
        if news:
            self._rejected += 1
            self._refused = version
        if news or self.state != "rejected":
            self._change("rejected", version, error=f"{why} (settings of {self._store.name}, version {version})")

    def unreachable(self, why: str, retry_s: float | None) -> None:
        """Say why the store cannot be read, and when it is tried again; None: it has not answered yet."""
        self._retry_s = retry_s
        error = why if self._store.name in why else f"{self._store.name}: {why}"
        if self.state == "unreachable":
            self._error = error
        else:
            self._change("unreachable", None, error=error)

    def _change(self, status: str, version: str | None, *, error: str | None = None) -> None:
        self.state = "applied" if status == "reached" else status  # type: ignore[assignment]  # one of the four
        self._error = None if error is None else error[:_LONGEST_ERROR]
        self._tell(status, version)

    def _tell(self, status: str, version: str | None) -> None:
        confirmed_at = self._confirmed_at
        self._sinks.change(
            SettingsStoreChanged(
                store=self._store.name,
                status=status,
                version=version,
                age_s=None if confirmed_at is None else max(0.0, self._clock() - confirmed_at),
                error=self._error,
                retry_s=self._retry_s if status == "unreachable" else None,
            )
        )

    def _jittered(self, seconds: float) -> float:
        """Return it a fifth shorter to a fifth longer: the processes of a fleet shall not all ask at once."""
        return seconds * (1 - _JITTER + 2 * _JITTER * self._draw())


def _said(error: Exception) -> str:
    """Return what an error says; one that is not ours is named too."""
    text = str(error)
    return (
        text
        if isinstance(error, SettingsError) or type(error).__module__.startswith("groundfault.")
        else (f"{type(error).__name__}: {text}")
    )
