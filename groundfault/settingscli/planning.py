"""From a document and what is wanted of it to what would be written, or why it will not be.

Nothing here reads a clock, asks anybody or writes: the command line and the console decide by the same rules.
"""

import math
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Final, NamedTuple

from groundfault.settings.document import changed, differences
from groundfault.settings.names import LIVE, NOT_LIVE
from groundfault.settings.store import UNSET, Change, Document, Entry
from groundfault.settingscli.checking import examine, examine_one
from groundfault.settingscli.differences import Difference, as_changes
from groundfault.settingscli.moments import stamp
from groundfault.settingscli.values import shown

__all__ = ["LEFT_WRONG", "Plan", "PlanError", "end_after", "planned", "restoring", "unsetting"]

LEFT_WRONG: Final = "processes will still reject all of it"
"""What is to be said of a problem that was there before."""


class PlanError(Exception):
    """What is wanted will not be done. ``lines``: all that is wrong; ``unknown``: it is only that nobody knows it."""

    def __init__(self, *lines: str, unknown: bool = False) -> None:
        super().__init__(*lines)
        self.lines = lines
        self.unknown = unknown


class Plan(NamedTuple):
    """What would be written, and what is to be said of it.

    ``left_wrong``: problems that were there before, and stay; ``warnings``: names that this version does not know.
    """

    differences: tuple[Difference, ...]
    left_wrong: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def end_after(for_s: float, now: float) -> float:
    """Return when an override ends: to the second, as it is shown and written down, and not before it has begun."""
    return float(max(round(now + for_s), math.floor(now) + 1))


def unsetting(
    document: Document, scope: str, names: Iterable[str], now: float
) -> tuple[tuple[Change, ...], tuple[str, ...]]:
    """Return the changes that take names, or without any all there are, away from a scope; and what to say of them.

    Raises PlanError for what is not set there.
    """
    entries = {each.name: each for each in document.entries if each.scope == scope}
    there = sorted(entries)
    if not there:
        raise PlanError(f"nothing is set at {shown(scope)}")
    wanted = list(dict.fromkeys(names or there))
    missing = [name for name in wanted if name not in entries]
    if missing:
        raise PlanError(f"{', '.join(missing)}: not set at {scope}; set there: {', '.join(there)}")
    changes, notes = [], []
    for name in wanted:
        entry = entries[name]
        overridden = entry.then is not None and entry.expires_at is not None and entry.expires_at > now
        # Who ends an override early does not mean what was set for good before it.
        changes.append(Change(scope, name, entry.then if overridden else UNSET))
        if overridden:
            notes.append(f"this ends the override of {scope}:{name}; once more takes the value away, too")
    return tuple(changes), tuple(notes)


def restoring(before: Document, target: Document, now: float) -> tuple[tuple[Change, ...], tuple[str, ...]]:
    """Return the changes that make a document as another was, and what to say of them."""
    # An override that has ended since then would say nothing, and come back as something to be cleaned up.
    kept = tuple(_still(each, now) for each in target.entries if not _is_over(each, now))
    notes = tuple(
        f"left out, for it has expired: {each.scope}:{each.name}, {stamp(each.expires_at)}"
        for each in target.entries
        if _is_over(each, now) and each.expires_at is not None
    )
    return tuple(as_changes(differences(before, Document(target.version, kept)))), notes


def _is_over(entry: Entry, now: float) -> bool:
    return entry.expires_at is not None and entry.expires_at <= now and entry.then is None


def _still(entry: Entry, now: float) -> Entry:
    """Return what is left of an entry: the value that came after an override, once that has ended."""
    over = entry.expires_at is not None and entry.expires_at <= now
    return Entry(entry.scope, entry.name, entry.then) if over else entry


def planned(
    before: Document,
    changes: Sequence[Change],
    *,
    allow_disable: bool = False,
    allow_unknown: bool = False,
    mends: bool = False,
    restores: bool = False,
) -> Plan:
    """Return what the changes would do. ``mends``: what was wrong before may stay.

    ``restores``: what is not known is none of their doing. Raises PlanError.
    """
    after = changed(before, changes, before.version)
    left_wrong = _check_values(before, after, allow_disable=allow_disable, mends=mends)
    warnings = _check_names(before, after, refuse=not (restores or allow_unknown))
    return Plan(differences(before, after), left_wrong, warnings)


def _check_values(before: Document, after: Document, *, allow_disable: bool, mends: bool) -> tuple[str, ...]:
    """Check the whole result: one wrong value, and the processes reject everything else that is in it, too."""
    problems = examine(after, allow_disable=allow_disable).problems
    # Else, of two wrong values at two scopes, neither could be taken away.
    if problems and not (mends and set(problems) <= set(examine(before, allow_disable=allow_disable).problems)):
        raise PlanError(*problems)
    return problems


def _check_names(before: Document, after: Document, *, refuse: bool) -> tuple[str, ...]:
    """Refuse new settings that mean nothing: processes only warn of them, so a typing error would go unnoticed."""
    there = {(each.scope, each.name) for each in before.entries}
    new = [each for each in after.entries if (each.scope, each.name) not in there and each.name not in LIVE]
    lines = tuple(f"{warning}{_hint(each.name)}" for each in new for warning in examine_one(each).warnings)
    if refuse and lines:
        raise PlanError(*lines, unknown=True)
    return lines


def _hint(name: str) -> str:
    likely = () if name in NOT_LIVE else get_close_matches(name, LIVE, 1)
    return f" (did you mean {likely[0]}?)" if likely else ""
