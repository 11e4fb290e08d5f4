"""Looks for every problem of a document at once; what is a problem, :mod:`groundfault.settings.document` decides."""

import argparse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from groundfault.errors import SettingsError
from groundfault.settings.document import parse, validate
from groundfault.settings.names import SERVER
from groundfault.settings.store import Document, Entry
from groundfault.settingscli.ending import DONE, REFUSED
from groundfault.settingscli.files import read
from groundfault.settingscli.session import Session
from groundfault.settingscli.values import printable

__all__ = ["Findings", "examine", "examine_one", "parsed", "validate_file"]


class Findings(NamedTuple):
    """What is wrong with a document, and what in it is not known; each names its path."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def examine(document: Document, *, allow_disable: bool) -> Findings:
    """Return every problem of a document, not only the first."""
    problems: list[str] = []
    sound: list[Entry] = []
    for entry in document.entries:
        try:
            validate(Document(document.version, (entry,)), allow_disable=allow_disable)
        except SettingsError as error:
            problems.append(str(error))
        else:
            sound.append(entry)
    warnings: tuple[str, ...] = ()
    try:
        warnings = validate(Document(document.version, tuple(sound)), allow_disable=allow_disable)
    except SettingsError as error:
        problems.append(str(error))
    return Findings(tuple(problems), warnings)


def examine_one(entry: Entry) -> Findings:
    """Return what is wrong with one entry, and what in it is not known."""
    return examine(Document("", (entry,)), allow_disable=True)


def parsed(content: Any, version: str) -> tuple[Document, tuple[str, ...]]:
    """Return what of a file's content can be read as a document, and what is wrong with the rest."""
    entries: list[Entry] = []
    problems: list[str] = []
    for piece in _pieces(content):
        try:
            entries += parse(piece, version).entries
        except SettingsError as error:
            problems.append(str(error))
    return Document(version, tuple(entries)), tuple(problems)


def _pieces(content: Any) -> Iterator[Any]:
    """Yield a document one setting at a time, so that each can be wrong for itself."""
    if not isinstance(content, Mapping):
        yield content
        return
    for scope, settings in content.items():
        if not isinstance(settings, Mapping):
            yield {scope: settings}
            continue
        for name, value in settings.items():
            if name == SERVER.rstrip(".") and isinstance(value, Mapping):
                yield from ({scope: {f"{SERVER}{inner}": each}} for inner, each in value.items())
            else:
                yield {scope: {name: value}}


def validate_file(options: argparse.Namespace, session: Session) -> int:
    """Say everything that is wrong with a file of settings."""
    document, misread = parsed(read(options.file), options.file)
    found = examine(document, allow_disable=options.allow_disable)
    problems = (*misread, *found.problems)
    terminal = session.terminal
    if options.json:
        terminal.say_json(
            {"valid": not problems, "settings": len(document.entries), "problems": problems, "warnings": found.warnings}
        )
    else:
        _say_all(session, "error", problems)
        _say_all(session, "warning", found.warnings)
        verdict = f"{_count(len(problems), 'error')}, {_count(len(found.warnings), 'warning')}"
        terminal.say(f"{printable(options.file)}: {_count(len(document.entries), 'setting')}, {verdict}")
    return REFUSED if problems else DONE


def _say_all(session: Session, kind: str, lines: Iterable[str]) -> None:
    color = "red" if kind == "error" else "yellow"
    for line in lines:
        session.terminal.say(f"{session.terminal.paint(kind, color)}: {printable(line)}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
