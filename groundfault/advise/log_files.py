"""Reads log files and pipes in blocks that end where a line ends: plain or gzipped, and of any size."""

import gzip
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, Final

from groundfault.advise.sources import SourceError

__all__ = ["BLOCK", "LONGEST_LINE", "Part", "Source", "blocks_of_part", "open_source", "whole_lines"]

BLOCK: Final = 4 * 2**20
LONGEST_LINE: Final = 2**20
"""A line that is longer is not looked at: no log of calls has such."""
PART: Final = 16 * 2**20
"""Of a plain file, so much is one piece of work."""
_TAIL: Final = 2**16

_GZIP: Final = b"\x1f\x8b"
_OTHERS: Final = {
    b"\x28\xb5\x2f\xfd": "zstd -dc",
    b"BZh": "bzip2 -dc",
    b"\xfd7zXZ": "xz -dc",
    b"PK\x03\x04": "unzip -p",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of work: bytes ``start`` to ``end`` of a file, or a block that has been read already."""

    path: str = ""
    start: int = 0
    end: int = 0
    block: bytes = b""


@dataclass(slots=True)
class Source:
    """One file or pipe. ``size`` in bytes, None for a pipe; ``trouble`` says why it ended early, if it did."""

    name: str
    size: int | None
    file: IO[bytes]
    packed: bool
    trouble: str = ""

    def parts(self) -> Iterator[tuple[Part, int, int]]:
        """Yield pieces of work, each with the bytes that it takes of the source, and the number of lines too long."""
        if self.size is not None and not self.packed:
            for start in range(0, self.size, PART):
                end = min(self.size, start + PART)
                yield Part(self.name, start, end), end - start, 0
            return
        at = unread = 0

        def count_unread() -> None:
            nonlocal unread
            unread += 1

        read: Callable[[int], bytes] = gzip.GzipFile(fileobj=self.file).read if self.packed else self.file.read
        try:
            for block in whole_lines(read, count_unread):
                reached = at + len(block) if self.size is None else self.file.tell()
                yield Part(block=block), reached - at, unread
                at, unread = reached, 0
        except (OSError, EOFError, zlib.error) as error:
            self.trouble = f"{self.name} ends early ({error}); what came before it counts"
        if unread:
            yield Part(), 0, unread

    def close(self) -> None:
        """Let go of the file, unless it is standard input."""
        if sys.stdin is None or self.file is not sys.stdin.buffer:
            self.file.close()


def open_source(name: str) -> Source:
    """Open a file, or standard input for ``-``. Raises SourceError, naming it, if it cannot be read."""
    if name == "-":
        if sys.stdin is None:
            raise SourceError("standard input is closed; give a file, or pipe a log into it")
        standard: Any = sys.stdin.buffer
        if sys.stdin.isatty():
            raise SourceError("standard input is this terminal; give a file, or pipe a log into it")
        head = standard.peek(8)[:8]
        _refuse_packed("standard input", head)
        return Source("standard input", None, standard, packed=head.startswith(_GZIP))
    try:
        file = Path(name).open("rb")  # noqa: SIM115  it is closed by the source
    except (OSError, ValueError) as error:
        raise SourceError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        mode = os.fstat(file.fileno())
        head = _head(file)
        _refuse_packed(name, head)
    except OSError as error:
        file.close()
        raise SourceError(f"{name} cannot be read: {error.strerror}") from None
    except SourceError:
        file.close()
        raise
    return Source(name, mode.st_size if stat.S_ISREG(mode.st_mode) else None, file, packed=head.startswith(_GZIP))


def _head(file: BufferedReader) -> bytes:
    return file.peek(8)[:8]


def _refuse_packed(name: str, head: bytes) -> None:
    for magic, unpack in _OTHERS.items():
        if head.startswith(magic):
            raise SourceError(f"{name} is packed; try: {unpack} FILE | groundfault advise --log -")


def whole_lines(read: Callable[[int], bytes], too_long: Callable[[], None]) -> Iterator[bytes]:
    """Yield what is read in blocks of whole lines; call ``too_long`` for each line that is left out for its length."""
    rest, skipping = b"", False
    while chunk := read(BLOCK):
        if skipping:
            _, found, chunk = chunk.partition(b"\n")
            if not found:
                continue
            skipping = False
        lines, found, tail = chunk.rpartition(b"\n")
        if found:
            yield rest + lines
            rest = tail
        else:
            rest += tail
        if len(rest) > LONGEST_LINE:
            too_long()
            rest, skipping = b"", True
    if rest:
        yield rest


def blocks_of_part(part: Part, too_long: Callable[[], None]) -> Iterator[bytes]:
    """Yield the lines that begin in a part of a file, in blocks; one that begins before it belongs to the last part."""
    if not part.path:
        if part.block:
            yield part.block
        return
    with Path(part.path).open("rb", buffering=0) as file:
        at = part.start
        if at:
            at = _next_line(file, at - 1, part.end)
        file.seek(at)
        ended = at >= part.end

        def read(most: int) -> bytes:
            """Read to the end of the part, and then on to the end of its last line, for as long as a line may be."""
            nonlocal at, ended
            if at < part.end:
                chunk = file.read(min(most, part.end - at)) or b""
                ended = chunk.endswith(b"\n")
            elif ended or at > part.end + LONGEST_LINE:
                chunk = b""
            else:
                head, found, _ = (file.read(_TAIL) or b"").partition(b"\n")
                chunk, ended = head + found, bool(found)
            at += len(chunk)
            return chunk

        yield from whole_lines(read, too_long)


def _next_line(file: IO[bytes], at: int, end: int) -> int:
    """Return where the line after the first line end from ``at`` on begins; ``end`` if that is not before it."""
    file.seek(at)
    while at < end:
        chunk = file.read(_TAIL)
        if not chunk:
            break
        found = chunk.find(b"\n")
        if found >= 0:
            return min(end, at + found + 1)
        at += len(chunk)
    return end
