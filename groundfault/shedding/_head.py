"""The head of an HTTP/1 request from its raw bytes, for those who decide before a server has parsed it. Pure.

Only the plainest form is read: everything that two parsers could understand differently, or that the server might
answer with an error of its own, is left to the server. So this never answers for a request that is not one,
and it never finds the end of a request where the server would not.
"""

import re
from collections.abc import Iterable
from itertools import groupby
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

__all__ = ["CHUNKED", "Form", "Head", "Limits", "noting", "read_head", "read_plainest"]

CHUNKED: Final = -1

# RFC 9112 without what is obsolete, optional or rare: origin-form, CRLF, no folded lines. No underscore in a name:
# servers differ about whether such a header exists. Methods as gunicorn has them, a subset of the token. A target that
# begins with two slashes is a path to some, an authority to others.
_HEAD: Final = re.compile(
    rb"(?!CONNECT )([A-Z]{3,20}) (/(?!/)[!\"$-~]*+) HTTP/1\.([01])"
    rb"((?:\r\n[!#$%&'*+\-.^`|~0-9A-Za-z]++:[\t -~\x80-\xff]*+)*)\r\n\r\n"
)
_PERCENT: Final = ord("%")  # to look for a byte costs a fifth of what a string of one does
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")


_CODING: Final = "transfer-encoding"
_CONTENT_LENGTH: Final = "content-length"
_CONNECTION: Final = "connection"
_ACCEPT: Final = "accept"
_KEEP: Final = "keep-alive"
_WISHES: Final = frozenset({"close", _KEEP})
_NOT_PLAIN: Final = frozenset({"expect", "upgrade"})
_WITH_MORE: Final = _NOT_PLAIN | {_CODING, _CONTENT_LENGTH}
_SINGLE: Final = frozenset({"host", "content-type"})


def noting(names: Iterable[str]) -> re.Pattern[str]:
    """Return what finds the names of the headers that matter here in a folded block of them: these, and a few more.

    One search for all: to look for one at a time costs as much for each.
    """
    folded = {each.lower() for each in names} | {_CODING, _CONTENT_LENGTH, _CONNECTION, _ACCEPT} | _NOT_PLAIN
    by_letter = [list(group) for _, group in groupby(sorted(folded), key=lambda name: name[:1])]
    each = (f"{re.escape(group[0][:1])}(?:{'|'.join(re.escape(name[1:]) for name in group)})" for group in by_letter)
    return re.compile(f"\r\n({'|'.join(each)}):([^\r]*)")  # by first letter: most headers are passed over at once


class Limits(NamedTuple):
    """What the server allows; a head beyond it is the server's to refuse.

    ``line``: longest request line. ``fields``: most header fields. ``field``: longest of them, its CRLF included.
    ``single``: names, in lower case, of headers whose repetition the server refuses.
    ``hints``: names, in lower case, of headers that ask for a closer look. ``noted``: :func:`noting` of both.
    ``prefix``: what every path begins with (``SCRIPT_NAME``).
    """

    line: int = 4094
    fields: int = 100
    field: int = 8190
    single: frozenset[str] = _SINGLE
    hints: frozenset[str] = frozenset()
    noted: re.Pattern[str] = noting(_SINGLE)
    prefix: bytes = b""


class Head:
    """A request line and headers. ``get`` looks a header up by name, whatever its case, and joins repeated ones.

    ``path`` is decoded, as text. ``size``: bytes up to and with the empty line. ``body``: bytes that follow,
    or :data:`CHUNKED`. ``keeps``: the client wants the connection kept. ``hinted``: it has some of ``hints``.
    """

    __slots__ = ("_block", "_folded", "body", "hinted", "keeps", "method", "minor", "path", "size")

    def __init__(self, method: bytes, path: bytes, minor: bytes, block: bytes, size: int) -> None:
        self.method = method.decode("latin-1")
        self.path = path.decode("utf-8", "replace")
        self.minor = minor
        self.size = size
        self.body = 0
        self.keeps = minor == b"1"
        self.hinted = False
        self._block = block  # each header with the CRLF in front of it
        self._folded = block.lower().decode("latin-1")  # as text: to search bytes costs several times as much

    def get(self, name: str, /) -> str | None:
        """Return the header's value, or None."""
        found = self._raw(name.lower())
        return None if found is None else found.decode("latin-1")

    def is_plain(self, limits: Limits) -> bool:
        """Find where the request ends, and whether the connection is to be kept; false if it is not plain to see."""
        noted = limits.noted.findall(self._folded)
        names = dict(noted)
        if not _NOT_PLAIN.isdisjoint(names):
            return False
        if len(names) < len(noted) and any([name for name, _ in noted].count(each) > 1 for each in limits.single):
            return False
        self.hinted = not limits.hints.isdisjoint(names)
        if _CODING in names:
            if _CONTENT_LENGTH in names or self.minor != b"1" or self._raw(_CODING) != b"chunked":
                return False
            self.body = CHUNKED
        elif _CONTENT_LENGTH in names:
            length = self._raw(_CONTENT_LENGTH)  # two of them are joined, and so no number
            if length is None or _LENGTH.fullmatch(length) is None:
                return False
            self.body = int(length)
        if _CONNECTION in names:
            wish = (self._raw(_CONNECTION) or b"").lower()
            if wish not in {b"close", b"keep-alive"}:  # a list or an unknown word: servers differ
                return False
            self.keeps = wish == b"keep-alive"
        return True

    def _raw(self, name: str) -> bytes | None:
        folded, wanted = self._folded, f"\r\n{name}:"
        at = folded.find(wanted)
        if at < 0:
            return None
        values = []
        while at >= 0:
            begin = at + len(wanted)
            end = folded.find("\r\n", begin)
            values.append(self._block[begin : None if end < 0 else end].strip(b" \t"))
            at = -1 if end < 0 else folded.find(wanted, end)
        return b",".join(values)


def read_head(data: bytes, limits: Limits) -> Head | None:
    """Return the head that ``data`` begins with, or None if it is the server's to read. Never raises.

    None: it is incomplete, beyond the limits, malformed, ambiguous, or asks for another protocol or ``100 Continue``.
    """
    match = _HEAD.match(data)
    if match is None:
        return None
    method, target, minor, block = match.groups()
    path = _path(target, limits.prefix)
    if path is None or not _is_within(limits, len(method) + len(target) + 10, block, match.end()):
        return None
    head = Head(method, path, minor, block, match.end())
    return head if head.is_plain(limits) else None


Form = tuple[bool, bytes, str | None]
"""What an answer depends on: whether a HEAD is answered, the minor version, and the Accept header, None without one.

In lower case or not: it means the same.
"""
Plainest = tuple[str, bool, Form]
"""The path, whether the client wants the connection kept, and the form of an answer."""


def read_plainest(data: bytes, limits: Limits) -> Plainest | None:
    """Return what matters of ``data`` if it is a head as :func:`read_head` takes, without hints and a body; else None.

    In a standing queue most requests are such, and a refusal needs no more: half the cost.
    """
    match = _HEAD.fullmatch(data)
    if match is None:
        return None
    method, target, minor, block = match.groups()
    noted = limits.noted.findall(block.lower().decode("latin-1"))
    names = dict(noted)
    if len(names) < len(noted) or not (limits.hints.isdisjoint(names) and _WITH_MORE.isdisjoint(names)):
        return None
    wish = names.get(_CONNECTION)
    if wish is None:
        keeps = minor == b"1"
    elif (wish := wish.strip(" \t")) in _WISHES:
        keeps = wish == _KEEP
    else:
        return None
    path = _path(target, limits.prefix)
    if path is None or not _is_within(limits, len(method) + len(target) + 10, block, len(data)):
        return None
    return path.decode("utf-8", "replace"), keeps, (method == b"HEAD", minor, names.get(_ACCEPT))


def _path(target: bytes, prefix: bytes) -> bytes | None:
    path = target.partition(b"?")[0]
    if prefix and not path.startswith(prefix):
        return None
    return prefix + unquote_to_bytes(path[len(prefix) :]) if _PERCENT in path else path


def _is_within(limits: Limits, line: int, block: bytes, size: int) -> bool:
    if block.count(b"\n") > limits.fields:
        return False
    if size <= limits.line and size <= limits.field:
        return True
    return line <= limits.line and max(map(len, block.split(b"\r\n"))) + 2 <= limits.field
