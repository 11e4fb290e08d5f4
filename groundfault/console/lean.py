"""The page's files as they travel: without the lines that are only for those who read the source."""

import re
from typing import Final

__all__ = ["lean"]

_FOR_READERS: Final = re.compile(rb"//.*|/\*(?:(?!\*/).)*\*/")


def lean(body: bytes) -> bytes:
    """Return a script or a style sheet without indentation, empty lines and comments that have lines of their own.

    Nothing inside a line is touched, so a string keeps what looks like a comment in it. A template literal that goes
    over several lines would lose its indentation: the page has none.
    """
    lines = (line.strip() for line in body.splitlines())
    return b"\n".join(line for line in lines if line and not _FOR_READERS.fullmatch(line)) + b"\n"
