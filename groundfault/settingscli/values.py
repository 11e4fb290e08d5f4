"""Values and names as the command line writes and reads them."""

import argparse
import json
from typing import Any, Final

__all__ = ["LONGEST_ACTOR", "LONGEST_REASON", "assignment", "printable", "shown"]

LONGEST_REASON: Final = 500
LONGEST_ACTOR: Final = 200
"""Characters of the text that says why, and of the one that says who."""


def assignment(text: str) -> tuple[str, Any]:
    """Return name and value of ``NAME=VALUE``: the value as JSON if it is, else the text itself."""
    name, equals, value = text.partition("=")
    name = name.strip()
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, not {text!r}")
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return name, value
    if parsed is None:
        raise argparse.ArgumentTypeError(f"{name} cannot be set to null; `unset` returns to what the code declares")
    return name, parsed


def shown(value: Any) -> str:
    """Return a value as JSON, on one line and fit for a terminal."""
    return printable(json.dumps(value, ensure_ascii=False, default=str))


def printable(text: str) -> str:
    """Return text with everything escaped that could move a terminal's cursor: it may be anybody's."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
