"""Changes a settings file in TOML and leaves everything else in it as somebody wrote it, comments above all."""

from collections.abc import Iterable, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final

try:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError
except ImportError as missing:  # pragma: no cover  shown only where the extra is missing
    raise ImportError(
        "to change a settings file in TOML needs tomlkit: pip install 'groundfault[tomlkit]'"
    ) from missing

from groundfault.settings.store import UNSET, Change, StoreError

__all__ = ["rewritten"]

_SERVER: Final = "server"


def rewritten(text: str, changes: Iterable[Change]) -> str:
    """Return the text of a settings file with changes applied. Raises StoreError for text that is no TOML."""
    try:
        document = tomlkit.parse(text)
    except TOMLKitError as error:
        raise StoreError(f"the file cannot be changed: {error}") from None
    for change in changes:
        if change.value is UNSET:
            _unset(document, change)
        else:
            _set(document, change)
    return tomlkit.dumps(document)


def _set(document: MutableMapping[str, Any], change: Change) -> None:
    if change.scope not in document:
        document[change.scope] = tomlkit.table()
    table, name = _place(document[change.scope], change.name)
    table[name] = _item(change)


def _unset(document: MutableMapping[str, Any], change: Change) -> None:
    if change.scope not in document:
        return
    scope = document[change.scope]
    table, name = _place(scope, change.name)
    if name in table:
        del table[name]
    if table is not scope and not table:
        del scope[_SERVER]


def _place(scope: MutableMapping[str, Any], name: str) -> tuple[MutableMapping[str, Any], str]:
    """Return in which table a name stands, or is to stand: of ``server.mode`` there may be a table ``server``."""
    head, dot, rest = name.partition(".")
    nested = scope.get(_SERVER)
    if dot and head == _SERVER and name not in scope and isinstance(nested, MutableMapping):
        return nested, rest
    return scope, name


def _item(change: Change) -> Any:
    value = tomlkit.item(_inline(change.value))
    if change.expires_at is None:
        return value
    table = tomlkit.inline_table()
    table["value"] = value
    table["until"] = datetime.fromtimestamp(change.expires_at, UTC)
    if change.then is not None:
        table["then"] = tomlkit.item(_inline(change.then))
    return table


def _inline(value: Any) -> Any:
    """Return a value with its tables written in one line each, for a value is all in one place."""
    if isinstance(value, dict):
        table = tomlkit.inline_table()
        table.update({key: _inline(each) for key, each in value.items()})
        return table
    if isinstance(value, list | tuple):
        array = tomlkit.array()
        array.extend(_inline(each) for each in value)
        return array
    return value
