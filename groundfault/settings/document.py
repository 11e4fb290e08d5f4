"""What a document says: for whom an entry counts, which of several wins, until when; and how it is written down.

A scope is ``service[/resource[/command]]``, each part a name or a pattern with ``*`` and ``?``:
``*`` is the fleet, ``topps`` a service, ``*/contest-db`` a resource wherever it is called.
A name is a setting of :class:`~groundfault.breaker.settings.BreakerSettings`, or ``server.`` and one of
:class:`~groundfault.shedding.settings.ShedderSettings`; those stand at scopes of one part only.

Of all entries whose scope matches the most specific one wins: the one of more parts, then of fewer parts with a
wildcard, then of more literal characters, then the scope that sorts last. What order they stand in says nothing.

Nothing here reads a clock, holds a lock or does I/O.
"""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase, translate
from operator import itemgetter
from typing import Any, Final

from groundfault.errors import SettingsError
from groundfault.settings.names import LIVE, NOT_LIVE, SERVER, checked, disables
from groundfault.settings.store import UNSET, Change, Document, Entry

__all__ = [
    "MAX_BYTES",
    "MAX_KEYS",
    "Table",
    "as_mapping",
    "changed",
    "differences",
    "for_command",
    "for_shedder",
    "in_force",
    "next_expiry",
    "parse",
    "path_of",
    "size_of",
    "unmatched",
    "until_of",
    "valid_scope",
    "validate",
]

MAX_BYTES: Final = 64 * 1024
"""A document is no larger than this, written as JSON; nor is a file."""

MAX_KEYS: Final = 2000
"""A document has no more entries than this."""

_MOST_PARTS: Final = 3
_LONGEST_PART: Final = 64
_LONGEST_SHOWN: Final = 80
_OF_A_PART: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-*?")
_WILD: Final = frozenset("*?")
_LATEST_S: Final = 253402300799.0  # the last second of the year 9999


def path_of(entry: Entry | Change) -> str:
    """Return how messages name an entry: ``scope:name``."""
    return f"{entry.scope}:{entry.name}"


_Ranked = tuple[int, Entry]
_first: Final = itemgetter(0)


# --- scopes -----------------------------------------------------------------------------------------------------------


def valid_scope(scope: object) -> bool:
    """Return whether it is one: one to three parts of what names are made of, ``*`` and ``?``."""
    if not isinstance(scope, str):
        return False
    parts = scope.split("/")
    return len(parts) <= _MOST_PARTS and all(
        0 < len(part) <= _LONGEST_PART and _OF_A_PART.issuperset(part) for part in parts
    )


def _rank(scope: str) -> tuple[int, int, int, str]:
    """Return how specific a scope is: of two that match, the greater one wins."""
    parts = scope.split("/")
    wild = sum(not _WILD.isdisjoint(part) for part in parts)
    literal = sum(character not in _WILD for part in parts for character in part)
    return len(parts), -wild, literal, scope


def _matches(scope: str, place: tuple[str, ...]) -> bool:
    parts = scope.split("/")
    return len(parts) <= len(place) and all(map(fnmatchcase, place, parts))


def _is_everybody(scope: str) -> bool:
    """Return whether nothing in a scope names anything, so that it can cover a whole fleet."""
    return _WILD.issuperset(scope.replace("/", ""))


class Table:
    """A document as one service looks things up in it."""

    def __init__(self, document: Document, service: str) -> None:
        ranked = sorted(document.entries, key=lambda entry: _rank(entry.scope))
        self._named: dict[tuple[str, ...], list[_Ranked]] = {}  # by what stands behind the service, if no pattern does
        self._patterns: dict[tuple[str, ...], list[_Ranked]] = {}
        self._server: list[Entry] = []
        for rank, entry in enumerate(ranked):
            if entry.name not in LIVE:
                continue
            head, *rest = entry.scope.split("/")
            if not fnmatchcase(service, head):
                continue
            if entry.name.startswith(SERVER):
                if not rest:
                    self._server.append(entry)
            else:
                group = self._named if all(_WILD.isdisjoint(part) for part in rest) else self._patterns
                group.setdefault(tuple(rest), []).append((rank, entry))
        # Compiled, for one document may have a thousand of them, and one process a thousand commands.
        self._compiled = [([re.compile(translate(part)).match for part in each], each) for each in self._patterns]

    def for_shedder(self) -> list[Entry]:
        """Return all entries for the shedders of the service, the more specific the later."""
        return self._server

    def for_command(self, resource: str, command: str) -> list[Entry]:
        """Return all entries for one command, the more specific the later."""
        place = (resource, command)
        found = [*self._named.get((), ()), *self._named.get(place[:1], ()), *self._named.get(place, ())]
        for matches, each in self._compiled:
            if all(match(part) for match, part in zip(matches, place, strict=False)):
                found += self._patterns[each]
        found.sort(key=_first)
        return [entry for _, entry in found]


def in_force(entries: Iterable[Entry], now: float) -> dict[str, Entry]:
    """Return by name which entry counts at wall time ``now``; ``entries`` as a Table gives them."""
    counting: dict[str, Entry] = {}
    for entry in entries:
        if entry.expires_at is None or now < entry.expires_at:
            counting[entry.name] = entry
        elif entry.then is not None:
            counting[entry.name] = Entry(entry.scope, entry.name, entry.then)
    return counting


def for_command(document: Document, service: str, resource: str, command: str, now: float) -> dict[str, Entry]:
    """Return what a document changes for a command at wall time ``now``: by setting, the entry that wins."""
    return in_force(Table(document, service).for_command(resource, command), now)


def for_shedder(document: Document, service: str, now: float) -> dict[str, Entry]:
    """Return what a document changes for a service's shedder: by setting, without ``server.``, the entry that wins."""
    entries = in_force(Table(document, service).for_shedder(), now)
    return {name.removeprefix(SERVER): entry for name, entry in entries.items()}


def next_expiry(document: Document, now: float) -> float | None:
    """Return the wall time at which the next entry ends, None if none will."""
    return min(
        (each.expires_at for each in document.entries if each.expires_at and each.expires_at > now), default=None
    )


def unmatched(document: Document, service: str, commands: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return the scopes within a service that none of its commands, given as (resource, command), is in."""
    places = [(service, *command) for command in commands]
    return tuple(
        sorted(
            scope
            for scope in {entry.scope for entry in document.entries}
            if "/" in scope
            and fnmatchcase(service, scope.split("/")[0])
            and not any(_matches(scope, place) for place in places)
        )
    )


# --- validation -------------------------------------------------------------------------------------------------------


def validate(document: Document, *, allow_disable: bool = False) -> tuple[str, ...]:
    """Check a document as a whole; return warnings: what in it this version does not know, and leaves alone.

    ``allow_disable``: whether a scope without any name in it may set a mode other than ``enforce``.
    Raises SettingsError for the first entry that makes no sense, with its path, value and bound.
    """
    if len(document.entries) > MAX_KEYS:
        raise SettingsError(f"a document must have at most {MAX_KEYS} keys, not {len(document.entries)}")
    warnings: list[str] = []
    seen: set[tuple[str, str]] = set()
    for entry in document.entries:
        _check_form(entry)
        if (entry.scope, entry.name) in seen:
            raise SettingsError(f"{path_of(entry)} must be said once, not twice")
        seen.add((entry.scope, entry.name))
        if entry.name in LIVE:
            _check(entry, allow_disable=allow_disable)
            if entry.then is not None:
                _check(Entry(entry.scope, entry.name, entry.then), allow_disable=allow_disable)
        elif entry.name in NOT_LIVE:
            warnings.append(f"{path_of(entry)} cannot be set live: {NOT_LIVE[entry.name]}")
        else:
            warnings.append(f"{path_of(entry)} is no setting that this version knows")
    size = size_of(document)
    if size > MAX_BYTES:
        raise SettingsError(f"a document must be at most {MAX_BYTES} bytes, not {size}")
    return tuple(warnings)


def _check_form(entry: Entry) -> None:
    if not valid_scope(entry.scope):
        raise SettingsError(
            f"{_shown(entry.scope)}:{_shown(entry.name)}: the scope must be service[/resource[/command]], "
            f"of lower-case names with * and ?"
        )
    name: object = entry.name
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_PART or not name.isprintable():
        raise SettingsError(f"{entry.scope}:{_shown(entry.name)}: a name must be 1 to {_LONGEST_PART} characters")
    at: object = entry.expires_at
    if at is not None and (isinstance(at, bool) or not isinstance(at, int | float) or not 0 < at <= _LATEST_S):
        raise SettingsError(f"{path_of(entry)}: until must be a moment between 1970 and 9999, not {_shown(at)}")
    if entry.value is None:
        raise SettingsError(f"{path_of(entry)} must have a value; to have none, unset it")
    if entry.then is not None and entry.expires_at is None:
        raise SettingsError(f"{path_of(entry)}: then must come with until: it counts when the other value has ended")


def _check(entry: Entry, *, allow_disable: bool) -> None:
    if entry.name.startswith(SERVER) and "/" in entry.scope:
        raise SettingsError(f"{path_of(entry)} must be at a scope of one part: a service has one server half")
    bound = checked(entry.name, entry.value)
    if bound is not None:
        raise SettingsError(f"{path_of(entry)} must be {bound}, not {_shown(entry.value)}")
    if not allow_disable and disables(entry.name, entry.value) and _is_everybody(entry.scope):
        raise SettingsError(
            f"{path_of(entry)} must be 'enforce' at a scope that names nothing, not {entry.value!r}: "
            f"a store switches a whole fleet off only where allow_disable=True was given"
        )


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


# --- the mapping form -------------------------------------------------------------------------------------------------


def parse(mapping: object, version: str) -> Document:
    """Return the document that a mapping from JSON or TOML stands for, not validated yet.

    ``{scope: {name: value}}``, a value that ends ``{"value": ..., "until": ...}``, where ``until`` is a moment with its
    time zone, as text or as TOML's own; with a ``"then"``, if another value comes after it.
    ``{"server": {name: value}}`` is ``server.name``.
    Raises SettingsError, with the path, where it has another form.
    """
    if not isinstance(mapping, Mapping):
        raise SettingsError(f"a document must be a table of scopes, not {_shown(mapping)}")
    entries: list[Entry] = []
    for scope, settings in mapping.items():
        if not isinstance(settings, Mapping):
            raise SettingsError(f"{_shown(scope)} must be a table of settings, not {_shown(settings)}")
        for name, value in settings.items():
            if name == "server" and isinstance(value, Mapping):
                entries += [_entry(scope, f"{SERVER}{inner}", each) for inner, each in value.items()]
            else:
                entries.append(_entry(scope, name, value))
    return Document(version, tuple(entries))


def _entry(scope: str, name: str, value: object) -> Entry:
    if not isinstance(value, Mapping):
        return Entry(scope, name, value)
    if "value" not in value or not value.keys() <= {"value", "until", "then"}:
        raise SettingsError(
            f"{scope}:{name} must be a value, or a table of value, until and then, not {_shown(dict(value))}"
        )
    until = value.get("until")
    expires_at = None if until is None else _moment(f"{scope}:{name}", until)
    return Entry(scope, name, value["value"], expires_at, value.get("then"))


def _moment(path: str, until: object) -> float:
    try:
        at = until if isinstance(until, datetime) else datetime.fromisoformat(str(until))
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise SettingsError(
            f"{path}: until must be as in 2026-11-23T20:00:00Z, with its time zone, not {_shown(until)}"
        )
    return at.timestamp()


def as_mapping(document: Document) -> dict[str, dict[str, Any]]:
    """Return a document in the form that :func:`parse` reads and JSON can hold, scopes and names in order."""
    mapping: dict[str, dict[str, Any]] = {}
    for entry in sorted(document.entries, key=lambda entry: (entry.scope, entry.name)):
        mapping.setdefault(entry.scope, {})[entry.name] = _plain(entry)
    return mapping


def _plain(entry: Entry) -> Any:
    if entry.expires_at is None:
        return entry.value
    ending = {"value": entry.value, "until": until_of(entry.expires_at)}
    return ending if entry.then is None else {**ending, "then": entry.then}


def until_of(expires_at: float) -> str:
    """Return a moment as it is written down."""
    return datetime.fromtimestamp(expires_at, UTC).isoformat().replace("+00:00", "Z")


def size_of(document: Document) -> int:
    """Return how many bytes a document is, as JSON. Raises SettingsError if it holds what JSON cannot."""
    try:
        return len(json.dumps(as_mapping(document), allow_nan=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise SettingsError(f"a document must hold what JSON can hold: {error}") from None


# --- change -----------------------------------------------------------------------------------------------------------


def changed(document: Document, changes: Iterable[Change], version: str) -> Document:
    """Return the document with changes applied, under a new version. To unset what is not set changes nothing."""
    entries = {(entry.scope, entry.name): entry for entry in document.entries}
    for change in changes:
        key = change.scope, change.name
        if change.value is UNSET:
            entries.pop(key, None)
        else:
            entries[key] = change.on(entries.get(key))
    return Document(version, tuple(entries.values()))


def differences(old: Document, new: Document) -> tuple[tuple[Entry | None, Entry | None], ...]:
    """Return each entry that differs, by scope and name: as it was and as it became, None where there is none."""
    was = {(entry.scope, entry.name): entry for entry in old.entries}
    now = {(entry.scope, entry.name): entry for entry in new.entries}
    return tuple(
        (was.get(key), now.get(key)) for key in sorted(was.keys() | now.keys()) if was.get(key) != now.get(key)
    )
