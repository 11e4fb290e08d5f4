"""The settings in force, as far as a file of live settings says them: what a proposal is compared with."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from groundfault.advise.sources import SourceError

__all__ = ["Current", "read_current"]

_PARTS: Final = 3
_ADVISED: Final = frozenset({"timeout_s", "slow_call_s", "minimum_volume_per_s", "max_concurrent"})


class Current:
    """Values by scope and name. Of all scopes that fit a command, the most exact one wins."""

    def __init__(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        self._entries = entries

    def of(self, service: str, resource: str, command: str) -> dict[str, Any]:
        """Return what is known of one command's settings. ``service``: a name, or ``*`` for that of no service."""
        path = (service, resource, command)
        fitting = sorted((_exactness(scope), scope) for scope in self._entries if _fits(scope, path))
        found: dict[str, Any] = {}
        for _, scope in fitting:
            found.update({name: value for name, value in self._entries[scope].items() if name in _ADVISED})
        return found


def _fits(scope: str, path: tuple[str, ...]) -> bool:
    parts = scope.split("/")
    return len(parts) <= _PARTS and all(fnmatchcase(name, part) for part, name in zip(parts, path, strict=False))


def _exactness(scope: str) -> tuple[int, int, int]:
    parts = scope.split("/")
    wild = sum("*" in part or "?" in part for part in parts)
    return len(parts), -wild, len(scope.replace("*", "").replace("?", ""))


def read_current(path: Path) -> Current:
    """Read a settings file, JSON or TOML: values by scope and name, or a list of entries as ``--diff`` writes them.

    Raises SourceError, naming the file, for one that cannot be read or is neither.
    """
    try:
        text = path.read_text("utf-8")
        held = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"the settings in {path} cannot be read: {error}") from None
    entries: dict[str, dict[str, Any]] = {}
    for scope, name, value in _entries(held, path):
        entries.setdefault(scope, {})[name] = value
    return Current(entries)


def _entries(held: object, path: Path) -> Iterator[tuple[str, str, Any]]:
    if isinstance(held, dict) and all(isinstance(values, dict) for values in held.values()):
        for scope, values in held.items():
            for name, value in values.items():
                yield scope, name, value.get("value") if isinstance(value, dict) else value
    elif isinstance(held, list) and all(isinstance(entry, dict) and {"scope", "name"} <= set(entry) for entry in held):
        for entry in held:
            yield str(entry["scope"]), str(entry["name"]), entry.get("value")
    else:
        raise SourceError(f"the settings in {path} are neither values by scope and name nor a list of entries")
