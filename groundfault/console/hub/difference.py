"""What has changed from one view to the next, so that a second of a quiet fleet costs a line and not a page.

A change holds ``sequence`` and ``made_at``, each other part of the view that differs, whole, and ``commands``:
rows that are new or differ under ``set``, ids that are ``gone``, and the ids in their ``order`` if that is another one
than the rows would have anyway: as before, with new ones behind.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

__all__ = ["applied", "difference"]

_ALWAYS: Final = ("sequence", "made_at")


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the change that turns the old view into the new one; both have the same parts."""
    change: dict[str, Any] = {name: new[name] for name in _ALWAYS}
    for name, value in new.items():
        if name != "commands" and name not in change and old[name] != value:
            change[name] = value
    rows = _rows(old["commands"], new["commands"])
    if rows:
        change["commands"] = rows
    return change


def _rows(old: Iterable[Mapping[str, Any]], new: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    before = {row["id"]: row for row in old}
    after = {row["id"]: row for row in new}
    changed = [row for name, row in after.items() if before.get(name) != row]
    gone = [name for name in before if name not in after]
    change: dict[str, Any] = {}
    if changed:
        change["set"] = changed
    if gone:
        change["gone"] = gone
    order = list(after)
    if order != _usual_order(before, after, changed):
        change["order"] = order
    return change


def _usual_order(before: Iterable[str], after: Mapping[str, Any], changed: Iterable[Mapping[str, Any]]) -> list[str]:
    kept = dict.fromkeys(name for name in before if name in after)
    return list(kept | dict.fromkeys(row["id"] for row in changed))


def applied(old: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return the new view. What a page does with a change, in the words of this language."""
    new = {**old, **{name: value for name, value in change.items() if name != "commands"}}
    rows = {row["id"]: row for row in old["commands"]}
    said = change.get("commands", {})
    rows |= {row["id"]: row for row in said.get("set", ())}
    for name in said.get("gone", ()):
        del rows[name]
    new["commands"] = [rows[name] for name in said.get("order", rows)]
    return new
