"""How a settings document is written down in a database, and what is refused when it is read back.

Values are JSON and nothing else. Whatever is wrong raises ValueError with a text that says what; the store says where.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from secrets import token_hex
from typing import Any, Final

from groundfault.errors import SettingsError
from groundfault.settings.document import MAX_BYTES, MAX_KEYS, as_mapping, parse, size_of
from groundfault.settings.store import UNSET, Change, Document, Entry, Revision

__all__ = [
    "Differences",
    "cause_of",
    "changed",
    "checked_text",
    "checked_version",
    "document_from_json",
    "document_to_json",
    "entry_from_row",
    "entry_of",
    "json_from",
    "new_version",
    "number_of",
    "pairs_of",
    "revision_of",
    "row_of",
    "value_from_json",
    "value_to_json",
]

_MAX_NAME: Final = 255
_MAX_VERSION: Final = 64
_MAX_TEXT: Final = 2000
_MAX_CAUSE: Final = 300
_SHOWN: Final = 80
_LATEST_S: Final = 253402300799.0  # the last second of the year 9999

Differences = tuple[tuple[Entry | None, Entry | None], ...]


def value_to_json(value: Any) -> str:
    """Return the value as compact JSON in ASCII."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"JSON cannot hold it: {error}") from None


def value_from_json(text: Any) -> Any:
    """Return the value that the JSON says; NaN, infinite and endless ones are refused."""
    if not isinstance(text, str):
        raise ValueError(f"it is no text but {type(text).__name__}")  # noqa: TRY004  whatever is wrong is a ValueError here
    if len(text) > MAX_BYTES:
        raise ValueError(f"it is longer than {MAX_BYTES} characters")
    return json_from(text)


def json_from(text: str | bytes) -> Any:
    """Return what JSON of any length says, without NaN and what is no number for Python."""
    try:
        return json.loads(text, parse_constant=_refused, parse_float=_finite, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):  # else the last one would win, and nobody would notice
        keys = [key for key, _ in pairs]
        raise ValueError(f"it says {_shown(next(key for key in keys if keys.count(key) > 1))} twice")
    return found


def _refused(name: str) -> Any:
    raise ValueError(f"it holds {name}, which is no value of a setting")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds {text[:_SHOWN]}, which is too large for a float")
    return value


def entry_of(scope: Any, name: Any, value: Any, expires_at: Any, then: Any) -> Entry:
    """Return the entry; scope, name and time of expiry are checked, the values are what JSON held."""
    for what, text in (("scope", scope), ("name", name)):
        if not isinstance(text, str) or not text or len(text) > _MAX_NAME or not text.isprintable():
            raise ValueError(
                f"{what} must be printable text of 1 to {_MAX_NAME} characters, not {_shown(text)} "
                f"(scope {_shown(scope)}, name {_shown(name)})"
            )
    path = f"{_shown(scope)}:{_shown(name)}"
    if value is None:
        raise ValueError(f"{path} is null; a value that is not wanted is unset")
    for each in (value, then):
        if isinstance(each, Mapping):  # in the form of JSON files, that is a value with its end
            raise ValueError(f"{path} is a table, and no setting's value is one")  # noqa: TRY004  whatever is wrong is a ValueError here
    if expires_at is not None and not _is_time(expires_at):
        raise ValueError(f"expires_at of {path} must be seconds between 1970 and 9999, not {_shown(expires_at)}")
    if then is not None and expires_at is None:
        raise ValueError(f"{path} never ends, and yet something comes after it")
    return Entry(scope, name, value, None if expires_at is None else float(expires_at), then)


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _LATEST_S


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def document_to_json(entries: Iterable[Entry]) -> str:
    """Return the document in the form of JSON files, for any database's text; no larger than it may be."""
    document = Document("", tuple(entries))
    if len(document.entries) > MAX_KEYS:
        raise ValueError(f"{len(document.entries)} settings are more than the {MAX_KEYS} that a document may hold")
    size = size_of(document)
    if size > MAX_BYTES:
        raise ValueError(f"{size} bytes of settings are more than the {MAX_BYTES} that a document may hold")
    return value_to_json(as_mapping(document))


def document_from_json(text: Any) -> tuple[Entry, ...]:
    """Return the entries of a document in the form of JSON files."""
    entries = parse(value_from_json(text), "").entries
    if len(entries) > MAX_KEYS:
        raise ValueError(f"it holds {len(entries)} settings, and {MAX_KEYS} are allowed")
    return tuple(entry_of(each.scope, each.name, each.value, each.expires_at, each.then) for each in entries)


def changed(entries: Iterable[Entry], changes: Iterable[Change]) -> tuple[list[Entry], Differences]:
    """Return the entries after the changes, in order, and what differs."""
    before = {(entry.scope, entry.name): entry for entry in entries}
    after = dict(before)
    for change in changes:
        key = (change.scope, change.name)
        if change.value is UNSET:
            after.pop(key, None)
        else:
            try:
                new = change.on(before.get(key))
                value_to_json([new.value, new.then])
            except ValueError as error:
                raise ValueError(f"{_shown(change.scope)}:{_shown(change.name)}: {error}") from None
            after[key] = entry_of(*key, new.value, new.expires_at, new.then)
    differences = tuple(
        (before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if not _same(before.get(key), after.get(key))
    )
    return [after[key] for key in sorted(after)], differences


def _same(one: Entry | None, other: Entry | None) -> bool:
    """Tell entries apart as JSON does: for Python, True and 1 and 1.0 are equal."""
    if one is None or other is None:
        return one is other
    values = [value_to_json([each.value, each.then]) for each in (one, other)]
    return one.expires_at == other.expires_at and values[0] == values[1]


def cause_of(error: object, secrets: Iterable[str]) -> str:
    """Return what an error says, in one line, without ``secrets`` and not endlessly."""
    said = " ".join(str(error).split())
    if isinstance(error, BaseException) and type(error) not in {
        ValueError,
        SettingsError,
    }:  # those are ours and say it all
        said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    for secret in secrets:
        said = said.replace(secret, "***")
    return said[:_MAX_CAUSE]


def checked_text(what: str, text: str) -> str:
    """Return who or why, fit for every database: what cannot be printed is replaced, what is endless is refused."""
    if not text.strip() or len(text) > _MAX_TEXT:
        raise ValueError(f"{what} must be text of 1 to {_MAX_TEXT} characters, not {len(text)}")
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)


def new_version(number: int) -> str:
    """Return the version of the change with this number, which no other history has: a backup may be played back."""
    return f"{number}-{token_hex(3)}"


def checked_version(version: Any) -> str:
    """Return the version, if it can be one."""
    if not isinstance(version, str) or not 0 < len(version) <= _MAX_VERSION or not version.isprintable():
        raise ValueError(f"version must be printable text of 1 to {_MAX_VERSION} characters, not {_shown(version)}")
    return version


def number_of(version: str) -> int:
    """Return which change made this version."""
    number = version.partition("-")[0]
    if not (number.isascii() and number.isdigit()):
        raise ValueError(f"version {_shown(version)} does not begin with the number of a change")
    return int(number)


def entry_from_row(row: Any) -> Entry:
    """Return the entry that :func:`row_of` wrote down."""
    if not isinstance(row, list) or len(row) != 5:  # noqa: PLR2004  the five that an entry has
        raise ValueError(f"a setting must be [scope, name, value, expires_at, then], not {_shown(row)}")
    scope, name, value, expires_at, then = row
    return entry_of(scope, name, value, expires_at, then)


def row_of(entry: Entry | None) -> list[Any] | None:
    """Return an entry as JSON has it, None for none."""
    return None if entry is None else [entry.scope, entry.name, entry.value, entry.expires_at, entry.then]


def pairs_of(differences: Differences) -> list[Any]:
    """Return what differs as JSON has it: pairs of rows, None where there was or is none."""
    return [[row_of(side) for side in pair] for pair in differences]


def revision_of(version: Any, at: Any, actor: Any, reason: Any, pairs: Any) -> Revision:
    """Return the revision that was written down; ``pairs`` as :func:`pairs_of` makes them."""
    checked_version(version)
    if not (_is_time(at) and isinstance(actor, str) and isinstance(reason, str)):
        raise ValueError(f"version {_shown(version)} needs a time, who and why")
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):  # noqa: PLR2004  before and after
        raise ValueError(f"version {_shown(version)} must say in pairs what it changed")
    sides: list[Sequence[Entry | None]] = [
        [None if row is None else entry_from_row(row) for row in pair] for pair in pairs
    ]
    return Revision(version, float(at), actor, reason, tuple((before, after) for before, after in sides))
