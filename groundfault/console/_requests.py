"""Requests as they come over a socket of the console's own, and answers as they go: as much of HTTP as it takes.

Each connection carries one request; a page that asks once a second loses nothing by that.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import unquote

from groundfault.console.answering import LARGEST_BODY, finished
from groundfault.console.asking import Answer, Asked, plain

__all__ = ["CONTINUE", "MAX_HEAD", "BadRequestError", "Head", "head_of", "sent"]

MAX_HEAD: Final = 16 * 1024
_MAX_PATH: Final = 2048
_MAX_FIELDS: Final = 100
_NAME: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class BadRequestError(Exception):
    """What came is no request that is answered here. ``answer`` says so."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.answer = finished(Asked("GET", "", {}), plain(status, text))


class Head(NamedTuple):
    """A request up to its body. ``length``: of the body, None if it is more than is taken."""

    asked: Asked
    length: int | None

    @property
    def expects(self) -> bool:
        """Whether who asks waits to be told to send the body."""
        return self.asked.headers.get("expect", "").lower() == "100-continue"


def head_of(data: bytes, *, unix: bool) -> tuple[Head, bytes] | None:
    """Return the head of a request and what came behind it, None if it is not whole. Raises BadRequestError."""
    end = data.find(b"\r\n\r\n")
    if end < 0 or end > MAX_HEAD:
        if len(data) > MAX_HEAD:
            raise BadRequestError(431, "the head of the request is too long")
        return None
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    target, _, version = rest.partition(" ")
    if not method.isalpha() or version not in {"HTTP/1.1", "HTTP/1.0"}:
        raise BadRequestError(400, "this is no request in HTTP/1.1")
    if len(target) > _MAX_PATH:
        raise BadRequestError(414, "the path is too long")
    if not target.startswith("/") or not target.isascii():
        raise BadRequestError(400, "the request must name a path")
    headers = _headers(lines)
    path, mark, query = target.partition("?")
    asked = Asked(method, f"{unquote(path).replace('?', '%3F')}{mark}{query}", headers, unix=unix)
    return Head(asked, _length(headers)), data[end + 4 :]


def _headers(lines: list[str]) -> dict[str, str]:
    if len(lines) > _MAX_FIELDS:
        raise BadRequestError(431, "there are too many headers")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not name or not _NAME.issuperset(name) or "\n" in value or "\r" in value or "\0" in value:
            raise BadRequestError(400, "a header makes no sense")
        value = value.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _length(headers: Mapping[str, str]) -> int | None:
    if "transfer-encoding" in headers:
        raise BadRequestError(411, "the request must say how long it is")
    said = headers.get("content-length", "0")
    if not (said.isascii() and said.isdecimal()):
        raise BadRequestError(400, "the length of the body makes no sense")
    length = int(said[:_DIGITS]) if len(said) <= _DIGITS else LARGEST_BODY + 1
    return length if length <= LARGEST_BODY else None


_DIGITS: Final = 9


def sent(answer: Answer) -> bytes:
    """Return an answer as it is sent."""
    phrase = HTTPStatus(answer.status).phrase
    fields = "".join(f"{name}: {value}\r\n" for name, value in answer.headers)
    return f"HTTP/1.1 {answer.status} {phrase}\r\n{fields}Connection: close\r\n\r\n".encode("latin-1") + answer.body
