"""The page's files, as they are sent: read once, compressed once, under a policy that lets nothing else in."""

import gzip
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Final

from groundfault.console.asking import Answer, plain
from groundfault.console.bundling import scripts
from groundfault.console.lean import lean

__all__ = ["LATER", "SAFE", "SCRIPT", "STYLE", "file_named", "page"]

SCRIPT: Final = "console.js"
LATER: Final = "later.js"
STYLE: Final = "console.css"
"""All modules of the page, those that are wanted only when something is to be changed, and all style sheets."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)

SAFE: Final = (
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
"""Headers of every answer."""

_KINDS: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@cache
def _names() -> frozenset[str]:
    """Return the names of the files there are. What is asked for is looked up here, and never in the file system."""
    place = files("groundfault.console") / "page"
    there = {each.name for each in place.iterdir() if each.is_file() and each.name.rpartition(".")[2] in _KINDS}
    return frozenset({*there, SCRIPT, LATER, STYLE})


def _text(name: str) -> str:
    if name in {SCRIPT, LATER}:
        first, later = scripts("main", lambda module: _text(f"{module}.js"), as_file=SCRIPT, later=LATER)
        return first if name == SCRIPT else later
    if name == STYLE:
        return "".join(_text(each) for each in sorted(_names()) if each.endswith(".css") and each != STYLE)
    return (files("groundfault.console") / "page" / name).read_text(encoding="utf-8")


@cache
def _content(name: str, live: str) -> tuple[bytes, str]:
    """Return a file, compressed, and its mark: a weak one, for it is that of what was not compressed, too."""
    body = _text(name).replace("{{live}}", live).encode()
    if name.endswith((".js", ".css")):
        body = lean(body)
    return gzip.compress(body, 9, mtime=0), f'W/"{sha256(body).hexdigest()[:16]}"'


def page(asked_mark: str | None = None, *, live: str = "poll") -> Answer:
    """Return the page itself. ``live``: whether it asks each second, ``poll``, or listens, ``events``."""
    return _sent("index.html", asked_mark, live)


def file_named(name: str, asked_mark: str | None = None) -> Answer:
    """Return a file of the page, or 404. ``asked_mark``: If-None-Match."""
    if name == "index.html":
        return plain(404, "no such file")
    return _sent(name, asked_mark, "")


def _sent(name: str, asked_mark: str | None, live: str) -> Answer:
    if name not in _names():
        return plain(404, "no such file")
    compressed, mark = _content(name, live)
    same = (("ETag", mark), ("Cache-Control", "no-cache"), ("Vary", "Accept-Encoding"))
    if asked_mark is not None and _is_among(mark, asked_mark):
        return Answer(304, same, b"")
    kind = ("Content-Type", _KINDS[name.rpartition(".")[2]])
    return Answer(200, (kind, ("Content-Encoding", "gzip"), *same), compressed)


def _is_among(mark: str, asked: str) -> bool:
    """Whether who asks has the file already. ``asked``: a list of marks, or ``*``."""
    bare = mark.removeprefix("W/")
    return any(each.strip().removeprefix("W/") in {bare, "*"} for each in asked.split(","))
