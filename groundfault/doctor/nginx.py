"""Reads nginx's configuration with crossplane, includes and all, into a tree that knows files and lines."""

import glob
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from groundfault.doctor.files import UnreadableError, read

__all__ = ["Directive", "Place", "places", "read_nginx", "walk"]

_MOST_FILES: Final = 500
_DEEPEST: Final = 40
_OPEN_ENDED: Final = "is not terminated by"
PASSES: Final = ("proxy", "grpc", "uwsgi", "fastcgi", "scgi")


@dataclass(frozen=True, slots=True)
class Directive:
    """One directive. ``block``: what is in its braces, with includes in their place; None without braces."""

    name: str
    words: tuple[str, ...] = ()
    line: int = 0
    file: str = ""
    block: "tuple[Directive, ...] | None" = None

    @property
    def where(self) -> str:
        """How a finding names it."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where requests are passed on. ``family``: ``proxy``, ``uwsgi`` ...; ``around``: blocks, outermost first."""

    given: Directive
    family: str
    around: tuple[tuple[Directive, ...], ...]

    def effective(self, name: str) -> list[Directive]:
        """Return the directives of that name which hold here: an inner level replaces all of the outer ones."""
        return next((found for block in reversed(self.around) if (found := _named(block, name))), [])

    def of_family(self, name: str) -> list[Directive]:
        """Return the directives of this place's family: ``next_upstream`` means ``proxy_next_upstream``."""
        return self.effective(f"{self.family}_{name}")

    def is_on(self, name: str) -> bool:
        """Whether a switch of this place's family is on here."""
        return any(each.words[:1] == ("on",) for each in self.of_family(name))


def _named(block: Sequence[Directive], name: str) -> list[Directive]:
    return [each for each in block if each.name == name]


def walk(
    block: Sequence[Directive], around: tuple[tuple[Directive, ...], ...] = ()
) -> Iterator[tuple[Directive, tuple[tuple[Directive, ...], ...]]]:
    """Yield each directive and the blocks that it lies in, outermost first."""
    inside = (*around, tuple(block))
    for each in block:
        yield each, inside
        if each.block is not None:
            yield from walk(each.block, inside)


def places(tree: Sequence[Directive]) -> list[Place]:
    """Return the places where requests are passed on."""
    kinds = {f"{family}_pass": family for family in PASSES}
    return [
        Place(each, kinds[each.name], around)
        for each, around in walk(tree)
        if each.name in kinds and each.words and each.block is None
    ]


def read_nginx(path: str, load: Callable[[str], Any] | None = None) -> tuple[Directive, ...]:
    """Read a configuration and what it includes.

    ``load``: crossplane's parser of one file. Raises :class:`UnreadableError`, and ImportError without crossplane.
    """
    reader = _Reader(str(Path(path).parent), load or _crossplane())
    return reader.read(path, 0)


def _crossplane() -> Callable[[str], Any]:
    from crossplane import parse  # noqa: PLC0415  an extra: missed only by whoever asks for nginx

    def load(path: str) -> Any:
        # Numbers of arguments are not its to judge, for nginx is newer than its tables; a missing semicolon is.
        judged = parse(path, single=True, check_ctx=False)
        said = parse(path, single=True, check_ctx=False, check_args=False)
        open_ended = [each for each in judged["errors"] if _OPEN_ENDED in each["error"]]
        return {**said, "errors": [*said["errors"], *open_ended]}

    return load


class _Reader:
    """Follows includes itself, so that each file is looked at before it is opened, and their number is bounded."""

    def __init__(self, base: str, load: Callable[[str], Any]) -> None:
        self.base = base
        self.load = load
        self.files = 0

    def read(self, path: str, depth: int) -> tuple[Directive, ...]:
        self.files += 1
        if self.files > _MOST_FILES or depth > _DEEPEST:
            raise UnreadableError(path, "more includes than can be meant: is there a circle?")
        read(Path(path))  # for what is wrong with the file itself
        try:
            said = self.load(path)
        except RecursionError:
            raise UnreadableError(path, "has blocks nested beyond reason") from None
        for error in said["errors"]:
            cause = error["error"].removesuffix(f" in {path}:{error['line']}")
            cause = cause or "it ends in the middle of a directive"
            raise UnreadableError(path, f"is not nginx's: {cause}", error["line"] or 0)
        return self.tree(said["config"][0]["parsed"], path, depth)

    def tree(self, parsed: Sequence[Mapping[str, Any]], path: str, depth: int) -> tuple[Directive, ...]:
        found: list[Directive] = []
        for each in parsed:
            words = tuple(each["args"])
            if each["directive"] == "include" and words:
                for name in self.included(words[0], path, each["line"]):
                    found += self.read(name, depth + 1)
                continue
            block = self.tree(each["block"], path, depth) if "block" in each else None
            found.append(Directive(each["directive"], words, each["line"], path, block))
        return tuple(found)

    def included(self, pattern: str, path: str, line: int) -> list[str]:
        full = os.path.join(self.base, pattern)  # noqa: PTH118  as nginx joins it: absolute ones stay
        if glob.has_magic(full):
            return sorted(glob.glob(full))  # noqa: PTH207  a pattern, absolute or not
        if not os.path.exists(full):  # noqa: PTH110  as above
            raise UnreadableError(path, f"includes {full}, which does not exist", line)
        return [full]
