"""Live settings between a hub and its hosts: how changes, documents and revisions are written down as JSON.

Whatever is wrong raises ValueError, or SettingsError, with a text that says what.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from groundfault.integrations import _settings_records as records
from groundfault.settings.store import AS_BEFORE, UNSET, Change, Document, Entry, Revision

__all__ = ["Write", "body_of", "document_row", "revision_row", "write_in"]

_AS_BEFORE: Final = {"as": "before"}
"""As what comes after an override: what stands there without one. No value of a setting is a table."""

_OF_A_ROW: Final = 5


class Write(NamedTuple):
    """What a host wants to have written."""

    changes: list[Change]
    reason: str
    actor: str
    based_on: str


def document_row(document: Document) -> dict[str, Any]:
    """Return a document as JSON has it."""
    return {"version": document.version, "entries": [records.row_of(entry) for entry in document.entries]}


def revision_row(revision: Revision) -> dict[str, Any]:
    """Return a revision as JSON has it."""
    return {
        "version": revision.version,
        "at": revision.at,
        "actor": revision.actor,
        "reason": revision.reason,
        "changes": records.pairs_of(revision.changes),
    }


def body_of(changes: Iterable[Change], reason: str, actor: str, based_on: str) -> bytes:
    """Return what a host sends. What no hub would take is refused here: it says more, and costs no way there."""
    rows: list[list[Any]] = []
    entries: dict[tuple[str, str], Entry | None] = {}
    for change in changes:
        entries[change.scope, change.name] = _checked(change)
        then = _AS_BEFORE if change.then is AS_BEFORE else change.then
        rows.append(
            [change.scope, change.name, change.value, change.expires_at, None if change.expires_at is None else then]
        )
    records.document_to_json(entry for entry in entries.values() if entry is not None)  # for its limits
    said = {
        "changes": rows,
        "reason": records.checked_text("reason", reason),
        "actor": records.checked_text("actor", actor),
        "based_on": records.checked_version(based_on),
    }
    return records.value_to_json(said).encode()


def _checked(change: Change) -> Entry | None:
    """Return what the change would make where nothing is yet; None for one that takes a value away."""
    scope, name, value, expires_at = change.scope, change.name, change.value, change.expires_at
    if value is UNSET:
        records.entry_of(scope, name, 0, None, None)
        return None
    then = None if expires_at is None or change.then is AS_BEFORE else change.then
    try:
        records.value_to_json([value, then])
    except ValueError as error:
        raise ValueError(f"{scope}:{name}: {error}") from None
    return records.entry_of(scope, name, value, expires_at, then)


def write_in(body: bytes) -> Write:
    """Return what a host has sent."""
    said = records.json_from(body)
    if not isinstance(said, dict):
        raise ValueError("the body must be a JSON object")  # noqa: TRY004  whatever is wrong is a ValueError here
    rows = said.get("changes")
    if not isinstance(rows, list):
        raise ValueError("changes must be a list")  # noqa: TRY004  as above
    reason, actor = said.get("reason"), said.get("actor")
    if not (isinstance(reason, str) and isinstance(actor, str)):
        raise ValueError("reason and actor must be text")  # noqa: TRY004  as above
    return Write(
        [_change_in(row) for row in rows],
        records.checked_text("reason", reason),
        records.checked_text("actor", actor),
        records.checked_version(said.get("based_on")),
    )


def _change_in(row: Any) -> Change:
    if not isinstance(row, list) or len(row) != _OF_A_ROW:
        raise ValueError(f"a change must be [scope, name, value, expires_at, then], not {ascii(row)[:80]}")
    scope, name, value, expires_at, then = row
    change = Change(scope, name, value, expires_at, AS_BEFORE if then == _AS_BEFORE or expires_at is None else then)
    _checked(change)
    return change
