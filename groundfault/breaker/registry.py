"""All commands of a process by name, and the handle on a resource that makes them."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from random import random
from typing import Any, Final, NamedTuple, Self

from groundfault._clock import Clock, monotonic
from groundfault._family import Family
from groundfault.breaker._course import NO_FALLBACK
from groundfault.breaker._gate import NOTHING
from groundfault.breaker.command import Command
from groundfault.breaker.settings import BreakerSettings
from groundfault.breaker.snapshot import CommandSnapshot
from groundfault.errors import SettingsError
from groundfault.events import SettingsChanged, note_internal_error
from groundfault.sinks import Sink, Sinks, default_sinks, sinks_of
from groundfault.vocabulary import Mode, Outcome
from groundfault.wire import NAME_GRAMMAR, valid_name

__all__ = ["OTHER", "Registry", "Resource", "all_registries", "registry"]

_log = logging.getLogger("groundfault")

OTHER: Final = "_other"
"""Resource and command name of what a full registry hands out; no valid name, so no command of one's own has it."""

_LIMIT: Final = 1000

OverlayOf = Callable[[str, str, BreakerSettings], Mapping[str, object]]
"""Given resource, command and declared settings, returns what is to lie over them; nothing that does not fit."""


class _Made(NamedTuple):
    """A command with what it was made from, for settings may be tuned later."""

    command: Command
    settings: BreakerSettings
    own: tuple[str, ...]
    fallback: Any
    classify: Callable[[Any], Outcome | None] | None

    def agree(self, asked: dict[str, Any], defaults: dict[str, Any], fallback: Any, classify: Any) -> None:
        """Raise SettingsError if something is asked for that the command was not made with.

        ``defaults`` are the resource's, which give way to what the command was given for itself.
        """
        asked = {**{field: value for field, value in defaults.items() if field not in self.own}, **asked}
        declared = self.settings.as_dict()
        if fallback is not NO_FALLBACK:
            declared["fallback"], asked["fallback"] = self.fallback, fallback
        if classify is not None:
            declared["classify"], asked["classify"] = self.classify, classify
        for field, value in asked.items():
            if value is not declared[field] and value != declared[field]:
                advice = "change a command in use with tune()"
                if field in {"fallback", "classify"}:
                    advice = "make that function once, at import, or give each application a Registry of its own"
                raise SettingsError(
                    f"{field} of {self.command.resource}/{self.command.name} must be {declared[field]!r} "
                    f"as where it was first asked for, not {value!r}; {advice}"
                )


class Registry:
    """Commands by resource and name. Iterating yields them in the order they were made.

    ``limit``: default 1000 commands. Names that come from data instead of code would grow without bound;
    beyond the limit everybody gets one shared command in shadow mode, which counts and refuses nothing:
    one circuit for callees that have nothing in common would fail them all for the sake of one.
    Nothing is ever evicted, for that would close a circuit that is open.
    ``clock`` and ``draw`` (random numbers in [0, 1)) are for tests and simulations.
    """

    def __init__(self, *, limit: int = _LIMIT, clock: Clock = monotonic, draw: Callable[[], float] = random) -> None:
        self._limit = limit
        self._clock = clock
        self._draw = draw
        # Guards the dictionary. Re-entrant, for a signal handler may ask for a command while its thread makes one.
        self._lock = threading.RLock()
        self._made: dict[tuple[str, str], _Made] = {}
        self._other: Command | None = None
        self._overlay_of: OverlayOf | None = None
        _registries.add(self)

    def __iter__(self) -> Iterator[Command]:
        commands = [made.command for made in list(self._made.values())]
        if self._other is not None:
            commands.append(self._other)
        return iter(commands)

    def __len__(self) -> int:
        return len(self._made) + (self._other is not None)

    def get(self, resource: str, name: str) -> Command | None:
        """Return a command if it exists."""
        made = self._made.get((resource, name))
        return made.command if made is not None else None

    def commands(self) -> list[Command]:
        """Return all commands but the one beyond the limit.

        Whoever changes what :meth:`overlay_with` was given, and asks here then, misses none that was made before.
        """
        with self._lock:
            return [made.command for made in self._made.values()]

    def overlay_with(self, overlay_of: OverlayOf | None) -> None:
        """Ask ``overlay_of`` for what lies over the settings of each command that is made from now on.

        Its answer is there before anybody gets the command. None: nobody is asked any more.
        It is called under the registry's lock, so it must not wait. If it raises, nothing lies over that command.
        """
        self._overlay_of = overlay_of

    def snapshot(self) -> tuple[CommandSnapshot, ...]:
        """Describe all commands as they are now."""
        return tuple(command.snapshot() for command in self)

    def after_fork(self) -> None:
        """Make a child process's copy usable: another thread may have held the lock."""
        self._lock = threading.RLock()

    def get_or_create(
        self,
        resource: str,
        name: str,
        *,
        settings: dict[str, Any],
        defaults: dict[str, Any],
        fallback: Any,
        classify: Callable[[Any], Outcome | None] | None,
        sinks: Sinks | None,
    ) -> Command:
        """Return the command of that name, made now if there is none; see ``Resource.command``."""
        key = (resource, name)
        built = BreakerSettings.of({**defaults, **settings})
        with self._lock:
            made = self._made.get(key)
            if made is not None:
                asked = {field: getattr(built, field) for field in settings}
                inherited = {field: getattr(built, field) for field in defaults if field not in settings}
                made.agree(asked, inherited, fallback, classify)
                return made.command
            if len(self._made) >= self._limit:
                return self._beyond(key)
            make = partial(Command, resource, name, built, fallback=fallback, classify=classify, sinks=sinks)
            command = self._overlaid(partial(make, clock=self._clock, draw=self._draw), resource, name, built)
            self._made[key] = _Made(command, built, tuple(settings), fallback, classify)
        if command.overlay_in_force:
            news = SettingsChanged(f"{resource}/{name}", *built.differences(command.settings))
            (sinks if sinks is not None else default_sinks()).change(news)
        return command

    def _overlaid(self, make: Callable[..., Command], resource: str, name: str, declared: BreakerSettings) -> Command:
        """Make a command with what is to lie over its settings; an error there leaves it as it was declared."""
        if self._overlay_of is not None:
            try:
                return make(overlay=self._overlay_of(resource, name, declared) or NOTHING)
            except Exception as error:  # noqa: BLE001  fail open: what is declared is what the application asked for
                note_internal_error("live settings", error)
        return make()

    def _beyond(self, key: tuple[str, str]) -> Command:
        if self._other is None:
            _log.warning(
                "%s/%s is beyond the limit of %d commands; it and all further ones share %s, which refuses nothing",
                *key,
                self._limit,
                OTHER,
            )
            settings = BreakerSettings(mode=Mode.SHADOW)
            self._other = Command(OTHER, OTHER, settings, clock=self._clock, draw=self._draw)
        return self._other


_registries: Final = Family(Registry.after_fork)
_default = Registry()


def registry() -> Registry:
    """Return the registry of every resource that was given none."""
    return _default


def all_registries() -> list[Registry]:
    """Return the registries of this process that somebody holds, in no order."""
    return _registries.members()


class Resource:
    """A handle on something that can fail on its own: a service, a database, a host.

    ``name`` must fit the grammar of names (``[a-z0-9][a-z0-9._-]{0,63}``) and be low in cardinality: never a path.
    ``sinks``: default None, the process-wide ones. ``settings``: defaults for its commands, see BreakerSettings.
    Handles of one name share their commands. Raises SettingsError.
    """

    def __init__(
        self,
        name: str,
        *,
        registry: Registry | None = None,
        sinks: Iterable[Sink] | Sinks | None = None,
        **settings: Any,
    ) -> None:
        self.name = _valid(name, "resource")
        self._registry = registry if registry is not None else _default
        self._sinks = sinks_of(sinks)
        BreakerSettings.of(settings)
        self._settings = settings

    def __repr__(self) -> str:
        return f"<Resource {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the handle: in the other process it stands for that process's resource of the same name."""
        if self._registry is not _default:
            raise TypeError(f"{self!r} is in a registry of its own, which cannot be pickled")
        sinks = None if self._sinks is default_sinks() else self._sinks
        return partial(Resource, sinks=sinks, **self._settings), (self.name,)

    def __deepcopy__(self, memo: object) -> Self:
        """Return this handle: a copy would stand for the same commands."""
        return self

    def existing(self, name: str) -> Command | None:
        """Return the command ``name`` if it has been made."""
        return self._registry.get(self.name, name)

    def command(
        self,
        name: str,
        *,
        fallback: Any = NO_FALLBACK,
        classify: Callable[[Any], Outcome | None] | None = None,
        **settings: Any,
    ) -> Command:
        """Return the command ``name``, made at the first time of asking.

        ``fallback``: a value, or a callable that is given the call's own arguments; None is a value like any other.
        It is served for a call that is refused, fails, times out or is shed, and counted apart.
        A callable runs outside the command's limits and within its own: ``fallback_max_concurrent`` and
        ``fallback_timeout_s``.
        ``classify`` looks at a result and returns its outcome, None for a success.
        ``settings``: see BreakerSettings; those not given come from the resource.
        Asking again returns the same command; asking again with other settings raises SettingsError.
        """
        return self._registry.get_or_create(
            self.name,
            _valid(name, "command"),
            settings=settings,
            defaults=self._settings,
            fallback=fallback,
            classify=classify,
            sinks=self._sinks,
        )


def _valid(name: object, what: str) -> str:
    if not isinstance(name, str) or not valid_name(name):
        raise SettingsError(f"{what} name must match {NAME_GRAMMAR}, not {name!r}")
    return name
