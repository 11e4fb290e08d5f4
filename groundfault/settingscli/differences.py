"""Changes of entries, as lines for people and as objects for `apply`."""

from collections.abc import Callable, Iterable
from typing import Any

from groundfault.settings.store import AS_BEFORE, Change, Entry
from groundfault.settingscli.moments import stamp
from groundfault.settingscli.values import printable, shown

__all__ = ["Difference", "Paint", "as_changes", "as_objects", "line_of", "path_of", "plain", "shown_entry"]

Paint = Callable[[str, str], str]
"""Returns a text in a color; see :meth:`groundfault.settingscli.terminal.Terminal.paint`."""

Difference = tuple[Entry | None, Entry | None]
"""What an entry was and what it becomes; None where there was or is none."""


def path_of(difference: Difference) -> str:
    """Return where it is, as all messages write it: ``scope:name``."""
    entry = difference[1] or difference[0]
    return "" if entry is None else printable(f"{entry.scope}:{entry.name}")


def shown_entry(entry: Entry) -> str:
    """Return value and end of an entry, on one line."""
    until = "" if entry.expires_at is None else f" until {stamp(entry.expires_at)}"
    then = "" if entry.then is None else f", then {shown(entry.then)}"
    return f"{shown(entry.value)}{until}{then}"


def plain(text: str, _color: str) -> str:
    """Return text in no color."""
    return text


def line_of(difference: Difference, paint: Paint = plain) -> str:
    """Return a line such as ``~ topps/contest-db:timeout_s  0.5 -> 0.8``."""
    before, after = difference
    old = "" if before is None else paint(shown_entry(before), "red")
    new = "" if after is None else paint(shown_entry(after), "green")
    mark = "~"
    if before is None:
        mark = paint("+", "green")
    elif after is None:
        mark = paint("-", "red")
    return f"{mark} {path_of(difference)}  {' -> '.join(each for each in (old, new) if each)}"


def as_changes(differences: Iterable[Difference]) -> list[Change]:
    """Return the changes that make the second of each pair out of the first."""
    changes = []
    for before, after in differences:
        if after is not None:
            then = AS_BEFORE if after.expires_at is None else after.then
            changes.append(Change(after.scope, after.name, after.value, after.expires_at, then))
        elif before is not None:
            changes.append(Change(before.scope, before.name, None))
    return changes


def as_objects(differences: Iterable[Difference]) -> list[dict[str, Any]]:
    """Return the changes as `apply` reads them, each beside what was there before: ``value`` null unsets."""
    objects = []
    for before, after in differences:
        entry = after or before
        if entry is None:
            continue
        each = {"scope": entry.scope, "name": entry.name, "value": None if after is None else after.value}
        if after is not None and after.expires_at is not None:
            each["until"] = stamp(after.expires_at)
            # Null, too: left out, it would be what stands there when the changes are made.
            each["then"] = after.then
        if before is not None:
            each["was"] = before.value
        objects.append(each)
    return objects
