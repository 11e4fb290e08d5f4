"""How steering says things in JSON: differences, refusals, and values that may have come from anywhere."""

import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from groundfault.console.answering import RefusedError
from groundfault.console.wanting import Field, problem
from groundfault.settings.document import path_of, valid_scope
from groundfault.settings.names import SERVER
from groundfault.settings.store import UNSET, Change, Document, Entry
from groundfault.settingscli.checking import examine_one
from groundfault.settingscli.differences import Difference, line_of, shown_entry
from groundfault.settingscli.planning import Plan, PlanError
from groundfault.settingscli.values import printable, shown

__all__ = ["difference_object", "refused", "safe", "told"]


def refused(error: PlanError, changes: Sequence[Change]) -> RefusedError:
    """Return the refusal, each of its lines with the input that it belongs to."""
    fields: dict[str, Change] = {}
    for change in changes:
        if change.value is not UNSET:
            entry = Entry(change.scope, change.name, change.value)
            for line in (*examine_one(entry).problems, *examine_one(entry).warnings):
                fields[line] = change
    problems = []
    for line in error.lines:
        whose = fields.get(line) or next((each for each in changes if line.startswith(path_of(each))), None)
        if whose is None:
            problems.append(problem(printable(line), "changes"))
        else:
            misplaced = not valid_scope(whose.scope) or (whose.name.startswith(SERVER) and "/" in whose.scope)
            field: Field = "name" if error.unknown else "scope" if misplaced else "value"
            problems.append(problem(printable(line), field, printable(path_of(whose))))
    return RefusedError(422, *error.lines, problems=problems)


def told(before: Document, plan: Plan, warnings: list[str]) -> dict[str, Any]:
    """Return a plan as the answer to a preview; ``fingerprint`` tells it from any other."""
    found = [difference_object(each) for each in plan.differences]
    # What was and what becomes of it, and not until when: half an hour from now is another moment with each look.
    said = [
        (each["path"], each["from"], each["to"], _then(difference))
        for each, difference in zip(found, plan.differences, strict=True)
    ]
    mark = blake2b(repr((before.version, said)).encode(), digest_size=12).hexdigest()
    return {"version": before.version, "differences": found, "warnings": warnings, "fingerprint": mark}


def _then(difference: Difference) -> str:
    after = difference[1]
    return "" if after is None else repr((after.expires_at is None, after.then))


def difference_object(difference: Difference) -> dict[str, Any]:
    """Return a difference as JSON: values by themselves, and as they are read with their ends."""
    before, after = difference
    entry = after or before
    return {
        "path": "" if entry is None else printable(path_of(entry)),
        "from": None if before is None else safe(before.value),
        "to": None if after is None else safe(after.value),
        "old": None if before is None else shown_entry(before),
        "new": None if after is None else shown_entry(after),
        "text": line_of(difference),
    }


def safe(value: Any) -> Any:
    """Return a value as JSON can hold it: a file that was edited by hand may hold a date, or what is no number."""
    if isinstance(value, Mapping):
        return {printable(str(key)): safe(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [safe(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return shown(value)
