"""One request and one answer, as the console sees them behind any server."""

from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["JSON", "TEXT", "Answer", "Asked", "plain"]

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"


class Asked(NamedTuple):
    """``path`` is below where the console is mounted, and begins with ``/`` unless it is empty; headers in lower case.

    A ``?`` in the path begins the query; one that is part of the path itself stays encoded, as ``%3F``.
    What came several times among the headers has a comma between.
    ``body``: what came with it, ``None`` if that was more than is taken. ``root``: where the console is mounted.
    ``unix``: whether it came over a unix socket.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None = b""
    root: str = ""
    unix: bool = False


class Answer(NamedTuple):
    """``status``: a number, as 200."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def plain(status: int, text: str, *headers: tuple[str, str]) -> Answer:
    """Return an answer that is a line of text."""
    return Answer(status, (("Content-Type", TEXT), *headers), f"{text}\n".encode())
