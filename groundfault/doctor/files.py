"""Reads files that somebody else has written: bounded, and every failure is a finding that names the file."""

import stat
from pathlib import Path
from typing import Final

from groundfault.doctor.finding import Finding, problem

__all__ = ["LARGEST", "UnreadableError", "read", "unreadable"]

LARGEST: Final = 4 * 1024 * 1024
"""Bytes of one file; a proxy's configuration is a hundredth of that."""


class UnreadableError(Exception):
    """A file that cannot be read, or not be understood. ``line`` counts from 1; 0 if it is the whole file."""

    def __init__(self, path: str, cause: str, line: int = 0) -> None:
        super().__init__(path, cause, line)
        self.path = path
        self.cause = cause
        self.line = line


def read(path: Path) -> str:
    """Return the text of a file. Raises :class:`UnreadableError`: missing, no file, too long, forbidden, binary."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UnreadableError(str(path), "is a directory" if stat.S_ISDIR(found.st_mode) else "is no regular file")
        if found.st_size > LARGEST:
            raise UnreadableError(str(path), f"is longer than {LARGEST >> 20} MiB")
        content = path.read_bytes()
    except OSError as failure:
        raise UnreadableError(str(path), failure.strerror or type(failure).__name__) from None
    except ValueError:  # a name that no system call takes
        raise UnreadableError(repr(str(path)), "is no name of a file") from None
    if b"\0" in content:
        raise UnreadableError(str(path), "is no text")
    return content.decode("utf-8", "replace")


def unreadable(check: str, error: UnreadableError) -> Finding:
    """Return the finding for a file that was asked for and says nothing."""
    where = f"{error.path}:{error.line}" if error.line else error.path
    return problem(check, where, error.cause, "nothing is known of this configuration", "name a file that can be read")
