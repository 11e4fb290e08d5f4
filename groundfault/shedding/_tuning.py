"""How the settings of a shedder change while it is in use: by code, and by what a settings store lays over that."""

from collections.abc import Mapping
from threading import RLock
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from groundfault.events import SettingsChanged
from groundfault.shedding._rules import Rules
from groundfault.shedding.settings import ShedderSettings

if TYPE_CHECKING:
    from groundfault.shedding._law import Law
    from groundfault.sinks import Sinks

__all__ = ["Tuned"]

_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})


class Tuned:
    """Part of the shedder, and of nothing else; what is declared here is the shedder's.

    In force is what code declared under what a settings store says; neither knows of the other.
    """

    rules: Rules
    sinks: "Sinks"
    _killed: bool
    _law: "Law"
    _lock: RLock

    def _declare(self, settings: ShedderSettings) -> None:
        self._declared = settings
        self._overlay = _NOTHING
        self.rules = Rules(settings, killed=self._killed)  # the settings in force, swapped as a whole

    @property
    def settings(self) -> ShedderSettings:
        """The settings in force: the declared ones, and over them what a settings store says."""
        return self.rules.settings

    @property
    def declared(self) -> ShedderSettings:
        """The settings as code gave them, at first or with :meth:`tune`."""
        return self._declared

    @property
    def overlay_in_force(self) -> Mapping[str, object]:
        """What lies over the declared settings at present; empty where nothing does."""
        return self._overlay

    def tune(self, **changes: Any) -> ShedderSettings:
        """Replace some settings at once and return all of them; raises SettingsError and then changes nothing.

        Everything learned is kept. Requests already inside are not touched: a lower ``max_concurrency`` refuses until
        enough of them have ended. A process started with ``GROUNDFAULT_DISABLED=1`` stays off.
        What is changed are the declared settings: what a settings store says goes on lying over them.
        """
        with self._lock:
            news = self._swap(self._declared.changed(changes), self._overlay)
            new = self.settings
        self._tell(news)
        return new

    def overlay(self, changes: Mapping[str, object]) -> ShedderSettings:
        """Lay settings over the declared ones, in place of all that lay there, and return all of them.

        For what reads a settings store. An empty mapping returns to the declared settings.
        Otherwise as :meth:`tune`: SettingsChanged, what is kept, and what is raised.
        """
        with self._lock:
            news = self._swap(self._declared, changes or _NOTHING)
            new = self.settings
        self._tell(news)
        return new

    def _swap(self, declared: ShedderSettings, overlay: Mapping[str, object]) -> SettingsChanged | None:
        old, new = self.settings, declared.changed(overlay) if overlay else declared
        rules = Rules(new, killed=self._killed)
        self._declared, self._overlay, self.rules = declared, overlay, rules
        self._law.set_deadline(new.deadline_s)
        was, now = old.differences(new)
        return SettingsChanged(component=new.service, old=was, new=now) if was else None

    def _tell(self, news: SettingsChanged | None) -> None:
        if news is not None:
            self.sinks.change(news)
