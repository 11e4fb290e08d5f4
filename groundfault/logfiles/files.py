"""Reads log files and pipes in blocks that end where a line ends: plain or packed, and of any size."""

import gzip
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, Final

from groundfault.errors import GroundFaultError

__all__ = [
    "BLOCK",
    "BROKEN",
    "LONGEST_LINE",
    "Part",
    "Source",
    "SourceError",
    "blocks_of_part",
    "open_source",
    "whole_lines",
]

BLOCK: Final = 4 * 2**20
LONGEST_LINE: Final = 2**20
"""A line that is longer is not looked at: no log of calls has such."""
PART: Final = 16 * 2**20
"""Of a plain file, so much is one piece of work."""
_TAIL: Final = 2**16

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_OTHERS: Final = {
    _ZSTD: "zstd -dc",
    b"BZh": "bzip2 -dc",
    b"\xfd7zXZ": "xz -dc",
    b"PK\x03\x04": "unzip -p",
}


class SourceError(GroundFaultError):
    """A source could not be read. The message names it and the cause, without credentials."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of work: bytes ``start`` to ``end`` of a file, or a block that has been read already."""

    path: str = ""
    start: int = 0
    end: int = 0
    block: bytes = b""


@dataclass(slots=True)
class Source:
    """One file or pipe. ``size`` in bytes, None for a pipe; ``trouble`` says why it ended early, if it did.

    ``unpack``: a reader of what is unpacked, None for what is plain.
    """

    name: str
    size: int | None
    file: IO[bytes]
    unpack: Callable[[int], bytes] | None = None
    trouble: str = ""
    _head: bytes = b""

    def peek(self, most: int = 4096) -> bytes:
        """Return the first bytes, unpacked; they are read again. To be called before :meth:`parts`, or not at all."""
        try:
            while len(self._head) < most and (chunk := self._read(most - len(self._head))):
                self._head += chunk
        except BROKEN:  # whoever reads on from here is told
            pass
        return self._head[:most]

    def read(self, most: int) -> bytes:
        """Read on, unpacked; empty at the end. Raises OSError, EOFError or another error for what is broken."""
        head, self._head = self._head[:most], self._head[most:]
        return head + self._read(most - len(head))

    def _read(self, most: int) -> bytes:
        return self.file.read(most) if self.unpack is None else self.unpack(most)

    def parts(self) -> Iterator[tuple[Part, int, int]]:
        """Yield pieces of work, each with the bytes that it takes of the source, and the number of lines too long.

        These lines stand before the piece.
        """
        if self.size is not None and self.unpack is None:
            for start in range(0, self.size, PART):
                end = min(self.size, start + PART)
                yield Part(self.name, start, end), end - start, 0
            self._look_for_less(self.size)
            return
        at = unread = 0

        def count_unread() -> None:
            nonlocal unread
            unread += 1

        try:
            for block in whole_lines(self.read, count_unread):
                reached = at + len(block) if self.size is None else self.file.tell()
                yield Part(block=block), reached - at, unread
                at, unread = reached, 0
        except BROKEN as error:
            self.trouble = f"{self.name} ends early ({error}); what came before it counts"
        if unread:
            yield Part(), 0, unread

    def _look_for_less(self, size: int) -> None:
        left = os.fstat(self.file.fileno()).st_size
        if left < size:
            self.trouble = f"{self.name} became shorter while it was read; what was read before that counts"

    def close(self) -> None:
        """Let go of the file, unless it is standard input."""
        if sys.stdin is None or self.file is not sys.stdin.buffer:
            self.file.close()


# Whoever unpacks has errors of its own: zstandard's and the standard library's are no OSErrors.
BROKEN: Final = (OSError, EOFError, zlib.error, RuntimeError, ValueError)


def open_source(name: str, instead: str = "groundfault advise --log -") -> Source:
    """Open a file, or standard input for ``-``. Raises SourceError, naming it, if it cannot be read.

    ``instead``: the command that reads a pipe, for the advice on files that are packed in another way.
    """
    if name == "-":
        if sys.stdin is None:
            raise SourceError("standard input is closed; give a file, or pipe a log into it")
        standard: Any = sys.stdin.buffer
        if sys.stdin.isatty():
            raise SourceError("standard input is this terminal; give a file, or pipe a log into it")
        unpack = _unpacker("standard input", standard, standard.peek(8)[:8], instead)
        return Source("standard input", None, standard, unpack)
    try:
        file = Path(name).open("rb")  # noqa: SIM115  it is closed by the source
    except (OSError, ValueError) as error:
        raise SourceError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        mode = os.fstat(file.fileno())
        unpack = _unpacker(name, file, file.peek(8)[:8], instead)
    except OSError as error:
        file.close()
        raise SourceError(f"{name} cannot be read: {error.strerror}") from None
    except SourceError:
        file.close()
        raise
    return Source(name, mode.st_size if stat.S_ISREG(mode.st_mode) else None, file, unpack)


def _unpacker(name: str, file: BufferedReader, head: bytes, instead: str) -> Callable[[int], bytes] | None:
    """Return what reads a packed file, told by its first bytes; None for a plain one."""
    if head.startswith(_GZIP):
        return gzip.GzipFile(fileobj=file).read
    if head.startswith(_ZSTD):
        opened = _open_zstd(file)
        if opened is not None:
            return opened
    for magic, unpack in _OTHERS.items():
        if head.startswith(magic):
            raise SourceError(f"{name} is packed; try: {unpack} FILE | {instead}")
    return None


def _open_zstd(file: BufferedReader) -> Callable[[int], bytes] | None:
    """Return a reader by way of the standard library (from Python 3.14) or of zstandard, None if neither is there."""
    try:
        read: Callable[[int], bytes] = import_module("compression.zstd").ZstdFile(file).read
    except ImportError:
        try:
            unpacker = import_module("zstandard").ZstdDecompressor()
        except ImportError:
            return None
        read = unpacker.stream_reader(file, read_across_frames=True).read
    return read


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
