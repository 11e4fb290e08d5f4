"""The settings in force, as far as a file of live settings says them: what a proposal is compared with."""

import json
import tomllib
from pathlib import Path
from typing import Any, Final

from groundfault._clock import wall
from groundfault.advise.sources import SourceError
from groundfault.errors import SettingsError
from groundfault.settings.document import for_command, parse
from groundfault.settings.store import Document, Entry

__all__ = ["Current", "read_current"]

_NOTHING: Final = Document("")
_ADVISED: Final = frozenset({"timeout_s", "slow_call_s", "minimum_volume_per_s", "max_concurrent"})


class Current:
    """A document of live settings as it counts at wall time ``now``."""

    def __init__(self, document: Document = _NOTHING, now: float = 0.0) -> None:
        self._document = document
        self._now = now

    def of(self, service: str, resource: str, command: str) -> dict[str, Any]:
        """Return what is known of one command's settings. ``service``: a name, or ``*`` for that of no service."""
        found = for_command(self._document, service, resource, command, self._now)
        return {name: entry.value for name, entry in found.items() if name in _ADVISED}


def read_current(path: Path) -> Current:
    """Read a settings file, JSON or TOML: values by scope and name, or a list of entries as ``--diff`` writes them.

    Raises SourceError, naming the file, for one that cannot be read or is neither.
    """
    try:
        text = path.read_text("utf-8")
        held = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
        return Current(_document(held), wall())
    except (OSError, ValueError, RecursionError, SettingsError) as error:
        raise SourceError(f"the settings in {path} cannot be read: {error}") from None


def _document(held: object) -> Document:
    if not isinstance(held, list):
        return parse(held, "")
    entries = []
    for entry in held:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("scope", "name")):
            raise SettingsError("a list must be of entries with scope, name and value")
        entries.append(Entry(entry["scope"], entry["name"], entry.get("value")))
    return Document("", tuple(entries))
