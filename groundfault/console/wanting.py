"""Reads what somebody wants of live settings out of a request's JSON, which may be anybody's and anything."""

import math
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from groundfault.console.answering import RefusedError
from groundfault.settings.document import MAX_KEYS
from groundfault.settingscli.moments import LONGEST_S
from groundfault.settingscli.values import LONGEST_ACTOR, LONGEST_REASON, printable

__all__ = ["Field", "Wanted", "Wish", "problem", "wanted_of"]

Field = Literal["scope", "name", "value", "for_s", "reason", "by", "based_on", "rollback", "changes"]

_KEYS: Final = frozenset({"changes", "rollback", "reason", "based_on", "by", "fingerprint"})
_OF_A_CHANGE: Final = frozenset({"scope", "name", "value", "for_s"})
_LONGEST_SCOPE: Final = 3 * 64 + 2
_LONGEST_NAME: Final = 64
_LONGEST_VERSION: Final = 200
_DEEPEST: Final = 8
_MOST_SHOWN: Final = 60
_MOST_PROBLEMS: Final = 50


class Wish(NamedTuple):
    """One value at one place; None takes it away. ``for_s``: for how long, None for good."""

    scope: str
    name: str
    value: Any
    for_s: float | None


class Wanted(NamedTuple):
    """What is wanted: changes, or to go back to the version ``rollback``.

    ``based_on``: the version that was looked at. ``fingerprint``: of the differences that were, None for any.
    """

    changes: tuple[Wish, ...]
    rollback: str | None
    reason: str
    by: str | None
    based_on: str
    fingerprint: str | None


def problem(text: str, field: Field, path: str = "") -> dict[str, str]:
    """Return what is wrong as the page shows it: ``field`` says beside which of its inputs."""
    return {"field": field, "path": path, "text": text}


def wanted_of(asked: Mapping[str, Any]) -> Wanted:
    """Return what a request wants. Raises RefusedError with all that is wrong with its form."""
    return _Reading(asked).wanted()


class _Reading:
    def __init__(self, asked: Mapping[str, Any]) -> None:
        self._asked = asked
        self._problems: list[dict[str, str]] = []
        self._status = 422

    def wanted(self) -> Wanted:
        self._know(self._asked, _KEYS, "the body", "changes")
        reason = self._text("reason", LONGEST_REASON, needed=True)
        by = self._text("by", LONGEST_ACTOR, needed=False)
        based_on = self._version("based_on")
        fingerprint = None if self._asked.get("fingerprint") is None else self._version("fingerprint")
        both = ("changes" in self._asked) + ("rollback" in self._asked)
        if both != 1:
            self._wrong("the body must have either changes or rollback", "changes", 400)
        changes = self._changes() if "changes" in self._asked else ()
        rollback = self._version("rollback") if "rollback" in self._asked else None
        if self._problems:
            found = self._problems[:_MOST_PROBLEMS]
            raise RefusedError(self._status, *(each["text"] for each in found), problems=found)
        return Wanted(changes, rollback, reason or "", by, based_on, fingerprint)

    def _wrong(self, text: str, field: Field, status: int = 422, path: str = "") -> None:
        # What makes no sense at all is told apart from what a person has filled in wrongly.
        self._status = min(self._status, status)
        self._problems.append(problem(text, field, path))

    def _know(self, table: Mapping[str, Any], known: frozenset[str], what: str, field: Field) -> None:
        for key in sorted(table.keys() - known):
            self._wrong(f"{what} must have {', '.join(sorted(known))} only, not {_cut(key)}", field, 400)

    def _text(self, key: Literal["reason", "by"], most: int, *, needed: bool) -> str | None:
        said = self._asked.get(key)
        if said is None and not needed:
            return None
        if said is not None and not isinstance(said, str):
            self._wrong(f"{key} must be a text, not {_cut(said)}", key, 400)
            return None
        # On one line and without what could turn a line round: it goes into logs, terminals and databases.
        words = printable(" ".join((said or "").split()))
        if not words and not needed:
            return None
        if not 0 < len(words) <= most:
            self._wrong(f"{key} must be a text of 1 to {most} characters, not {len(words)}", key)
        return words

    def _version(self, key: Literal["based_on", "rollback", "fingerprint"]) -> str:
        said = self._asked.get(key)
        if not (isinstance(said, str) and 0 < len(said) <= _LONGEST_VERSION and said.isprintable()):
            field: Field = "based_on" if key == "fingerprint" else key
            self._wrong(f"{key} must be a version, as settings.json shows it, not {_cut(said)}", field, 400)
            return ""
        return said

    def _changes(self) -> tuple[Wish, ...]:
        said = self._asked["changes"]
        if not isinstance(said, list) or not 1 <= len(said) <= MAX_KEYS:
            found = f"{len(said)} of them" if isinstance(said, list) else _cut(said)
            self._wrong(f"changes must be a list of 1 to {MAX_KEYS} changes, not {found}", "changes", 400)
            return ()
        wishes: dict[tuple[str, str], Wish] = {}
        for number, each in enumerate(said, 1):
            wish = self._wish(each, f"change {number}")
            if wish is None:
                continue
            path = wish.scope, wish.name
            if path in wishes:
                self._wrong(f"{printable(':'.join(path))} must be said once, not twice", "name")
            wishes[path] = wish
        return tuple(wishes.values())

    def _wish(self, each: Any, where: str) -> Wish | None:
        if not isinstance(each, dict) or not {"scope", "name", "value"} <= each.keys():
            self._wrong(f"{where} must have scope, name and value, not {_cut(each)}", "changes", 400)
            return None
        self._know(each, _OF_A_CHANGE, where, "changes")
        scope, name, value, for_s = each["scope"], each["name"], each["value"], each.get("for_s")
        places: tuple[tuple[Field, Any, int], ...] = (("scope", scope, _LONGEST_SCOPE), ("name", name, _LONGEST_NAME))
        for key, said, most in places:
            if not isinstance(said, str):
                self._wrong(f"{where}: {key} must be a text, not {_cut(said)}", key, 400)
                return None
            if not 0 < len(said) <= most:
                self._wrong(f"{where}: {key} must have 1 to {most} characters, not {len(said)}", key)
                return None
        path = printable(f"{scope}:{name}")
        why = _unfit(value)
        if why:
            self._wrong(f"{path} {why}", "value", path=path)
            return None
        return Wish(scope, name, value, self._for(for_s, value, path))

    def _for(self, for_s: Any, value: Any, path: str) -> float | None:
        if for_s is None:
            return None
        if value is None:
            self._wrong(f"{path}: for_s must come with a value, not with null", "for_s", path=path)
            return None
        if isinstance(for_s, bool) or not isinstance(for_s, int | float) or not 0 < for_s <= LONGEST_S:
            most = f"{LONGEST_S:.0f}, a year"
            said = f"{path}: for_s must be a number of seconds above 0 and at most {most}, not {_cut(for_s)}"
            self._wrong(said, "for_s", path=path)
            return None
        return float(for_s)


def _unfit(value: Any, depth: int = 0) -> str:
    """Return why a value can be none that a store keeps, whatever it is for; empty if it can."""
    if depth > _DEEPEST:
        return f"must be nested at most {_DEEPEST} deep"
    if isinstance(value, str):
        return "" if value.isprintable() else f"must be text that can be printed, not {_cut(value)}"
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"must be a finite number, not {value}"
    if isinstance(value, dict):
        return next(filter(None, (_unfit(each, depth + 1) for pair in value.items() for each in pair)), "")
    if isinstance(value, list):
        return next(filter(None, (_unfit(each, depth + 1) for each in value)), "")
    return ""


def _cut(value: object) -> str:
    """Return a value as messages show it: short, and of ASCII alone."""
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    text = ascii(value) if not isinstance(value, int) or abs(value) < 10**_MOST_SHOWN else "a huge number"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
