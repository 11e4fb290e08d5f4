"""One request and one answer, as the console sees them behind any server."""

from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["JSON", "TEXT", "Answer", "Asked", "plain"]

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"


class Asked(NamedTuple):
    """``path`` is below where the console is mounted, and begins with ``/`` unless it is empty; headers in lower case.

    ``body``: what came with it, ``None`` if that was more than is taken. ``root``: where the console is mounted.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None = b""
    root: str = ""


class Answer(NamedTuple):
    """``status``: a number, as 200."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def plain(status: int, text: str, *headers: tuple[str, str]) -> Answer:
    """Return an answer that is a line of text."""
    return Answer(status, (("Content-Type", TEXT), *headers), f"{text}\n".encode())
