"""Files as the commands read them: settings in TOML or JSON, and lists of changes."""

import argparse
import json
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from groundfault.settings.document import MAX_BYTES
from groundfault.settings.store import AS_BEFORE, Change
from groundfault.settingscli.ending import REFUSED, EndingError
from groundfault.settingscli.moments import moment
from groundfault.settingscli.values import shown

__all__ = ["changes_of", "is_file", "read"]

_MOST_BYTES: Final = 1024 * 1024
_OF_A_CHANGE: Final = frozenset({"scope", "name", "value", "until", "then", "was", "why"})


def is_file(text: str) -> bool:
    """Return whether an argument means a file and no version: by its suffix, by a slash, or because there is one."""
    return text == "-" or "/" in text or text.endswith((".json", ".toml")) or Path(text).is_file()


def read(path: str) -> Any:
    """Return what a file holds: TOML by its suffix, else JSON. Raises EndingError with its name and the cause.

    Only a list of changes may be larger than what a store holds: its reasons are not stored.
    """
    name = "stdin" if path == "-" else path
    try:
        data = sys.stdin.buffer.read(_MOST_BYTES + 1) if path == "-" else _bytes_of(path)
        content = _content_of(data, path, name)
        most = _MOST_BYTES if isinstance(content, list) else MAX_BYTES
        if len(data) > most:
            raise EndingError(REFUSED, f"{name} must be at most {most} bytes, not {len(data)}")
        return content
    except OSError as error:
        raise EndingError(REFUSED, f"{name} cannot be read: {error.strerror or error}") from None
    except RecursionError:
        raise EndingError(REFUSED, f"{name} is nested too deeply") from None
    except ValueError as error:
        kind = "TOML" if path.endswith(".toml") else "JSON"
        raise EndingError(REFUSED, f"{name} is not {kind}: {error}") from None


def _bytes_of(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(_MOST_BYTES + 1)


def _content_of(data: bytes, path: str, name: str) -> Any:
    if len(data) > _MOST_BYTES:
        raise EndingError(REFUSED, f"{name} must be at most {_MOST_BYTES} bytes")
    if not data.strip():
        raise EndingError(REFUSED, f"{name} is empty: processes take that for a file that is still being written")
    text = data.decode()
    return tomllib.loads(text) if path.endswith(".toml") else json.loads(text, object_pairs_hook=_once)


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    # JSON's own reading keeps the last of two; which of them was meant, nobody knows.
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{shown(name)} stands there twice")
        found[name] = value
    return found


def changes_of(content: Any, name: str) -> tuple[list[Change], list[str]]:
    """Return the changes that a list from a file stands for, and warnings. Raises EndingError with every problem.

    Each is ``{"scope": ..., "name": ..., "value": ...}`` and perhaps ``until``; a value of null unsets.
    ``was`` and ``why`` are for who reads it.
    """
    if not isinstance(content, list):
        raise EndingError(
            REFUSED, f"{name} must be a list of changes, as `groundfault settings diff --json` prints, not a table"
        )
    changes: dict[tuple[str, str], Change] = {}
    problems: list[str] = []
    warnings: list[str] = []
    for number, each in enumerate(content, start=1):
        where = f"{name}, change {number}"
        try:
            change = _change(each)
        except ValueError as error:
            problems.append(f"{where}: {error}")
            continue
        if (change.scope, change.name) in changes:
            problems.append(f"{where}: {change.scope}:{change.name} must be said once, not twice")
        changes[change.scope, change.name] = change
        warnings += [f"{where}: {shown(key)} means nothing here" for key in each.keys() - _OF_A_CHANGE]
    if problems:
        raise EndingError(REFUSED, *problems)
    return list(changes.values()), warnings


def _change(each: Any) -> Change:
    if not isinstance(each, dict) or not {"scope", "name", "value"} <= each.keys():
        raise ValueError(f"must have scope, name and value, not {shown(each)[:80]}")
    for key in ("scope", "name"):
        if not isinstance(each[key], str):
            raise ValueError(f"{key} must be a text, not {shown(each[key])[:80]}")  # noqa: TRY004  one kind of problem
    until = each.get("until")
    then = each.get("then", AS_BEFORE)
    return Change(each["scope"], each["name"], each["value"], None if until is None else _until(until), then)


def _until(until: object) -> float:
    try:
        return moment(str(until))
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"until {error}") from None
