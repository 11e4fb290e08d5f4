"""The history of a settings file, in a file beside it: one line of JSON for each revision, the newest last."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from groundfault.errors import SettingsError
from groundfault.settings.document import as_mapping, parse
from groundfault.settings.store import Document, Entry, Revision, StoreError

__all__ = ["History"]

_MOST_REVISIONS: Final = 200
_MOST_BYTES: Final = 8 << 20


class History:
    """The last 200 revisions, or as many as fit into 8 MiB, each with the whole document. Written under a lock only."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def revisions(self) -> list[Revision]:
        """Return all of them, the oldest first. Raises StoreError."""
        return [_revision_of(line) for line in self._lines()]

    def documents(self) -> dict[str, Document]:
        """Return the documents by version. Raises StoreError."""
        return {line["version"]: parse(line["settings"], line["version"]) for line in self._lines()}

    def last(self) -> Document | None:
        """Return the newest document. Raises StoreError."""
        line = None
        for line in self._lines():  # noqa: B007  the last one: a version that is there again is not a new one
            pass
        return None if line is None else parse(line["settings"], line["version"])

    def append(self, revision: Revision, document: Document) -> None:
        """Add a revision. Raises OSError."""
        line = {
            "version": revision.version,
            "at": revision.at,
            "actor": revision.actor,
            "reason": revision.reason,
            "changes": [[_plain(was), _plain(now)] for was, now in revision.changes],
            "settings": as_mapping(document),
        }
        lines = [*self._lines(), line][-_MOST_REVISIONS:]
        texts = [json.dumps(each) for each in lines]
        while len(texts) > 1 and sum(map(len, texts)) + len(texts) > _MOST_BYTES:
            del texts[0]
        new = self._path.with_name(f"{self._path.name}.new")
        with new.open("w", encoding="utf-8") as file:
            file.writelines(f"{text}\n" for text in texts)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"the history {self._path} cannot be read: {error}") from None
        for number, line in enumerate(text.splitlines(), 1):
            try:
                read = json.loads(line)
                _revision_of(read)
                parse(read["settings"], read["version"])
            except (ValueError, KeyError, TypeError, RecursionError, SettingsError) as error:
                raise StoreError(f"the history {self._path} is damaged in line {number}: {error}") from None
            yield read


def _plain(entry: Entry | None) -> list[Any] | None:
    return None if entry is None else [entry.scope, entry.name, entry.value, entry.expires_at, entry.then]


def _entry(plain: list[Any] | None) -> Entry | None:
    return None if plain is None else Entry(*plain)


def _revision_of(line: dict[str, Any]) -> Revision:
    changes = tuple((_entry(was), _entry(now)) for was, now in line["changes"])
    return Revision(line["version"], line["at"], line["actor"], line["reason"], changes)
