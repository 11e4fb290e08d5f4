"""Lays a document over the commands and shedders of this process: over all of them, or over none.

A command is given its share when it is made, before anybody can call it; so is a shedder.
Everything but :meth:`Overlays.overlay_of` and the birth of a shedder happens on one thread.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol

from groundfault._clock import Clock
from groundfault.breaker import BreakerSettings, Registry
from groundfault.errors import SettingsError
from groundfault.events import note_internal_error
from groundfault.settings.document import Table, in_force, next_expiry, path_of
from groundfault.settings.names import SERVER
from groundfault.settings.store import Document, Entry
from groundfault.shedding.shedder import Shedder, family

__all__ = ["Overlays"]

_log = logging.getLogger("groundfault")

_NAMELESS: Final = "service"
_MOST_STEPS: Final = 32
_MOST_BLAMED: Final = 4
_SET_BACK_S: Final = 1.0


class _Settings(Protocol):
    """The settings of a command or a shedder."""

    def changed(self, changes: Mapping[str, Any]) -> Any:
        """Return them with some changed, or raise SettingsError."""


class _Laid:
    """A document that is laid over a service, and what of it did not fit whom."""

    def __init__(self, document: Document, service: str) -> None:
        self.document = document
        self.service = service
        self.table = Table(document, service)
        self.misfits: dict[str, str] = {}


class Overlays:
    """What a document means for this process.

    ``service``: None, the one that the process' shedders are named after, if they agree. ``shedders``: None, all of it.
    """

    def __init__(
        self,
        *,
        service: str | None,
        registries: Iterable[Registry],
        shedders: Iterable[Shedder] | None,
        wall_clock: Clock,
    ) -> None:
        self._service = service
        self._registries = tuple(registries)
        self._shedders = None if shedders is None else tuple(shedders)
        self._wall_clock = wall_clock
        self._laid = _Laid(Document(""), self.service)  # swapped as a whole
        self._checked: _Laid | None = None
        self._renewed_at = wall_clock()
        self._ends_at: float | None = None

    @property
    def service(self) -> str:
        """The name of this service in scopes."""
        if self._service is not None:
            return self._service
        names = {shedder.declared.service for shedder in self.shedders()}
        return names.pop() if len(names) == 1 else _NAMELESS

    @property
    def document(self) -> Document:
        """What is laid over everything, and over whatever will be made."""
        return self._laid.document

    @property
    def misfits(self) -> dict[str, str]:
        """Return by component why it is as code declared it, although the document says something of it."""
        return dict(self._laid.misfits)

    def shedders(self) -> list[Shedder]:
        """Return the shedders that a document is laid over."""
        return family.members() if self._shedders is None else list(self._shedders)

    def commands(self) -> list[tuple[str, str]]:
        """Return the commands that a document is laid over, by resource and name."""
        return [(each.resource, each.name) for registry in self._registries for each in registry.commands()]

    def begin(self) -> None:
        """Take part in every birth from now on."""
        for registry in self._registries:
            registry.overlay_with(self.overlay_of)
        if self._shedders is None:
            family.untell(self._born)
            family.tell(self._born)

    def end(self) -> None:
        """Take part no more, and leave everything as code declared it."""
        for registry in self._registries:
            registry.overlay_with(None)
        family.untell(self._born)
        self.lay(Document(""))

    def check(self, document: Document) -> None:
        """Raise SettingsError, with paths, if a document does not fit a command or a shedder.

        Neither now nor when one override after the other has ended. It must have been validated.
        """
        now = self._wall_clock()
        self._checked = _Laid(document, self.service)
        for registry in self._registries:
            for command in registry.commands():
                entries = self._checked.table.for_command(command.resource, command.name)
                _check(f"{command.resource}/{command.name}", command.declared, entries, now)
        for shedder in self.shedders():
            entries = Table(document, shedder.declared.service).for_shedder()
            _check(shedder.declared.service, shedder.declared, entries, now)

    def lay(self, document: Document) -> None:
        """Lay a document that was checked over everything; whoever it does not fit after all stays as declared."""
        checked, self._checked = self._checked, None
        self._laid = checked if checked is not None and checked.document is document else _Laid(document, self.service)
        self.renew()

    def renew(self) -> None:
        """Lay the same document over everything as of now: overrides may have ended, the service may have its name."""
        laid = self._laid
        if laid.service != self.service:
            self._laid = laid = _Laid(laid.document, self.service)
        now = self._renewed_at = self._wall_clock()
        self._ends_at = next_expiry(laid.document, now)
        for registry in self._registries:
            for command in registry.commands():
                values = _values(laid.table.for_command(command.resource, command.name), now)
                if values != command.overlay_in_force:
                    self._apply(f"{command.resource}/{command.name}", laid, command.overlay, values)
        for shedder in self.shedders():
            self._cover(shedder, laid)

    def is_due(self) -> bool:
        """Return whether :meth:`renew` would change something: an override has ended, or the service got its name.

        A wall clock that was set back may bring an override back.
        """
        now = self._wall_clock()
        ended = self._ends_at is not None and now >= self._ends_at
        return ended or now < self._renewed_at - _SET_BACK_S or self._laid.service != self.service

    def left_s(self) -> float | None:
        """Return how long it is until the next override ends, None if none will."""
        return None if self._ends_at is None else self._ends_at - self._wall_clock()

    def overlay_of(self, resource: str, name: str, declared: BreakerSettings) -> Mapping[str, object]:
        """Return what lies over a command that is being made."""
        laid = self._laid
        values = _values(laid.table.for_command(resource, name), self._wall_clock())
        try:
            declared.changed(values)
        except SettingsError as error:
            self._misfit(f"{resource}/{name}", laid, error)
            return {}
        return values

    def _born(self, shedder: Shedder) -> None:
        try:
            while True:
                laid = self._laid
                self._cover(shedder, laid)
                if laid is self._laid:  # another document may have come in between, and missed this shedder
                    return
        except Exception as error:  # noqa: BLE001  fail open: whoever makes a shedder gets one
            note_internal_error("live settings", error)

    def _cover(self, shedder: Shedder, laid: _Laid) -> None:
        service = shedder.declared.service
        table = laid.table if service == laid.service else Table(laid.document, service)
        values = _values(table.for_shedder(), self._wall_clock())
        if values != shedder.overlay_in_force:
            self._apply(service, laid, shedder.overlay, values)

    def _apply(
        self,
        component: str,
        laid: _Laid,
        overlay: Callable[[Mapping[str, object]], object],
        values: Mapping[str, object],
    ) -> None:
        try:
            overlay(values)
        except SettingsError as error:
            overlay({})
            self._misfit(component, laid, error)

    def _misfit(self, component: str, laid: _Laid, error: SettingsError) -> None:
        if component not in laid.misfits:
            laid.misfits[component] = str(error)
            _log.warning(
                "version %s of the live settings does not fit %s, which stays as declared: %s",
                laid.document.version,
                component,
                error,
            )


def _values(entries: Iterable[Entry], now: float) -> dict[str, object]:
    return {name.removeprefix(SERVER): entry.value for name, entry in in_force(entries, now).items()}


def _check(component: str, declared: _Settings, entries: list[Entry], now: float) -> None:
    for winners in _over_time(entries, now):
        values = {name.removeprefix(SERVER): entry.value for name, entry in winners.items()}
        try:
            declared.changed(values)
        except SettingsError as error:
            raise SettingsError(f"{_blamed(declared, winners)} does not fit {component}: {error}") from None


def _over_time(entries: list[Entry], now: float) -> Iterator[dict[str, Entry]]:
    """Yield what counts now, and what will when one override after the other has ended."""
    for _ in range(_MOST_STEPS):
        winners = in_force(entries, now)
        if not winners:
            return
        yield winners
        ends = [entry.expires_at for entry in winners.values() if entry.expires_at is not None]
        if not ends:
            return
        now = min(ends)


def _blamed(declared: _Settings, winners: Mapping[str, Entry]) -> str:
    """Return the path of the entry that does not fit by itself, or of all that do not fit together."""
    for name, entry in winners.items():
        try:
            declared.changed({name.removeprefix(SERVER): entry.value})
        except SettingsError:
            return path_of(entry)
    paths = sorted(map(path_of, winners.values()))
    return " with ".join(paths[:_MOST_BLAMED]) + (" and others" if len(paths) > _MOST_BLAMED else "")
