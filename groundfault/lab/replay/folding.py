"""What of a request goes into a plan: its method and a template of its path, from which nobody can be told. Pure.

A segment of a path stays only if it looks like a word that a programmer wrote. Everything else becomes ``{n}`` (a
number) or ``{id}``. Names of people are words too, so a segment that follows one such as ``users`` does not stay
either, nor do any under one parent once there are more than :data:`MOST_CHILDREN` of them.
Of a query the keys stay that look like such words; values never do.
"""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

__all__ = ["ID", "KEY", "METHODS", "MOST_CHILDREN", "NUMBER", "OTHER", "VALUE", "Folder", "fold_segment"]

NUMBER: Final = "{n}"
ID: Final = "{id}"
VALUE: Final = "{v}"
KEY: Final = "{key}"
OTHER: Final = "other"
"""Stands for the templates that have no place under their own name."""
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
MOST_CHILDREN: Final = 48
"""Under one parent; four times as many at the top, and of keys."""
_KEYS: Final = "?"
MOST_SEGMENTS: Final = 10
MOST_KEYS: Final = 8
LONGEST_WORD: Final = 24
LONGEST_SEGMENT: Final = 40
LONGEST_PATH: Final = 2048

_WORDS: Final = re.compile(r"[A-Za-z]+[0-9]{0,2}(?:[._~-]+[A-Za-z]+[0-9]{0,2})*[_~-]?\Z")
_ONE_WORD: Final = re.compile(r"[A-Za-z]+")
_HEX: Final = re.compile(r"[a-fA-F]{8,}\Z")
_NO_VOWEL: Final = re.compile(r"[^aeiouyAEIOUY]{6,}")
_TURN: Final = re.compile(r"[a-z][A-Z]|[A-Z]{2}[a-z]")
_PIECE: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_ENCODED: Final = re.compile(r"%[0-9A-Fa-f]{2}")

# What follows these names somebody, or is a secret, even where it looks like a word.
_NAMES_AFTER: Final = frozenset(
    [
        "account",
        "accounts",
        "activate",
        "activation",
        "author",
        "authors",
        "client",
        "clients",
        "contact",
        "contacts",
        "customer",
        "customers",
        "email",
        "emails",
        "employee",
        "employees",
        "friend",
        "friends",
        "invitation",
        "invitations",
        "invite",
        "invites",
        "join",
        "key",
        "keys",
        "login-as",
        "member",
        "members",
        "name",
        "names",
        "nickname",
        "password",
        "passwords",
        "patient",
        "patients",
        "people",
        "person",
        "persons",
        "phone",
        "phones",
        "player",
        "players",
        "profile",
        "profiles",
        "reset",
        "secret",
        "secrets",
        "session",
        "sessions",
        "share",
        "student",
        "students",
        "token",
        "tokens",
        "u",
        "unsubscribe",
        "user",
        "username",
        "usernames",
        "users",
        "verify",
        "~",
    ]
)
_NAMES_NOBODY: Final = frozenset(
    [
        "all",
        "count",
        "create",
        "current",
        "edit",
        "export",
        "health",
        "import",
        "list",
        "login",
        "logout",
        "me",
        "new",
        "password",
        "profile",
        "register",
        "search",
        "self",
        "settings",
        "signup",
        "status",
    ]
)


def fold_segment(segment: str, before: str = "") -> str:
    """Return a segment of a path as a template holds it; ``before`` is the one that it follows."""
    if segment.isascii() and segment.isdecimal():
        return NUMBER
    if _names_somebody(before) and segment.lower() not in _NAMES_NOBODY:
        return ID
    return segment if _is_word(segment) else ID


def _names_somebody(before: str) -> bool:
    """Tell whether what follows this segment is somebody's: ``users``, and ``by-email`` and ``userProfile``, too."""
    if before.lower() in _NAMES_AFTER:
        return True
    words = _PIECE.findall(before[-LONGEST_WORD:])
    return bool(words) and words[-1].lower() in _NAMES_AFTER


def _is_word(text: str) -> bool:
    if len(text) > LONGEST_SEGMENT or not _WORDS.match(text):
        return False
    words = _ONE_WORD.findall(text)
    return len(words) <= 5 and all(  # noqa: PLR2004  more words than that are a title
        len(word) <= LONGEST_WORD
        and not _HEX.match(word)
        and not _NO_VOWEL.search(word)
        and len(_TURN.findall(word)) <= 1 + len(word) // 6
        for word in words
    )


class Folder:
    """Folds request targets, and remembers under which parents there are too many different segments.

    ``wide``: those parents, as ``/players``. ``is_crowded``: there were more at the top than are kept apart.
    """

    def __init__(self, wide: Iterable[str] = ()) -> None:
        self.wide: set[str] = set(wide)
        self.is_crowded = False
        self._children: dict[str, set[str]] = {}

    def fold(self, target: str) -> str | None:
        """Return the template of a request target, as ``/lineup/{n}?week={v}``; None for what is no path."""
        if not target.startswith("/"):
            scheme, found, rest = target.partition("://")
            if not found or scheme.lower() not in {"http", "https"}:
                return None
            target = "/" + rest.partition("#")[0].partition("/")[2]
        path, asked, query = target.partition("#")[0].partition("?")
        return self.fold_path(path) + (self._fold_query(query) if asked else "")

    def fold_path(self, path: str) -> str:
        """Return the template of a path."""
        # Empty ones mean nothing to most servers, and two slashes at the start mean another host.
        segments = [segment for segment in path[:LONGEST_PATH].split("/") if segment]
        folded, before = "", ""
        for number, raw in enumerate(segments):
            if number == MOST_SEGMENTS:
                return f"{folded}/{ID}"
            segment = raw.partition(";")[0]
            if "%" in segment and _ENCODED.search(segment):
                segment = unquote(segment, errors="replace")
            kept = fold_segment(segment, before)
            if kept == segment and not self._has_place(folded, kept):
                kept = ID
            folded, before = f"{folded}/{kept}", segment if segment.strip(".") else before
        return folded + "/" if path.endswith("/") or not folded else folded

    def _has_place(self, parent: str, child: str) -> bool:
        if parent in self.wide:
            return False
        children = self._children.get(parent)
        if children is None:
            if len(self._children) > MOST_CHILDREN**2:  # so many parents have names that were made up
                return False
            children = self._children[parent] = set()
        if not parent.startswith("/"):  # the top, and keys: scanners ask for whatever could be there
            if child in children or len(children) < 4 * MOST_CHILDREN:
                children.add(child)
                return True
            self.is_crowded |= not parent
            return False
        children.add(child)
        if len(children) <= MOST_CHILDREN:
            return True
        self.wide.add(parent)
        del self._children[parent]
        return False

    def refold(self, template: str) -> str:
        """Return a template that was folded before as it is folded with what is known now."""
        path, asked, query = template.partition("?")
        folded = ""
        for kept in path.split("/")[1:]:
            literal = bool(kept) and not kept.startswith("{")
            folded = f"{folded}/{ID if literal and not self._has_place(folded, kept) else kept}"
        return (folded or "/") + (self._fold_query(query) if asked else "")

    def _fold_query(self, query: str) -> str:
        """Keep the keys that look like names that a programmer gave, in their order, each once."""
        kept: dict[str, None] = {}
        for pair in query[:LONGEST_PATH].split("&"):
            key, found, _ = pair.partition("=")
            # What has no value may be one itself.
            named = found and _is_word(key.replace("[", "_").replace("]", "")) and self._has_place(_KEYS, key)
            kept[key if named else KEY] = None
            if len(kept) == MOST_KEYS:
                break
        return "?" + "&".join(f"{key}={VALUE}" for key in kept)
