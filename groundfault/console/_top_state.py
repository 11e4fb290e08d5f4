"""What the terminal looks at, and what a key makes of it. Pure: a value in, a value out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from groundfault.console.view import CommandRow, View

__all__ = ["SCREENS", "SORTS", "Looking", "chosen", "pressed"]

SORTS: Final[dict[str, Callable[[CommandRow], Any]]] = {
    "trouble": lambda row: (-row["trouble"], row["id"]),
    "errors": lambda row: (-row["error_share"], -row["trouble"], row["id"]),
    "volume": lambda row: (-row["rate_per_s"], row["id"]),
    "p99": lambda row: (-(row["p99_s"] or 0.0), row["id"]),
    "name": lambda row: (row["resource"], row["command"], row["service"] or ""),
}

Screen = Literal["commands", "details", "map", "timeline", "about", "help"]

SCREENS: Final[dict[str, Screen]] = {"m": "map", "t": "timeline", "u": "about", "?": "help", "h": "help"}

_LONGEST_FILTER: Final = 80
_STEPS: Final = {"up": -1, "k": -1, "down": 1, "j": 1, "page-up": -10, "page-down": 10, "home": -9999, "end": 9999}


@dataclass(frozen=True, slots=True)
class Looking:
    """``wanted``: words of the filter; ``typing``: they are being typed. ``selected``: the id of a command.

    ``first``: the line at which a screen that is longer than the terminal begins. ``left``: whoever looks wants to go.
    """

    screen: Screen = "commands"
    sort: str = "trouble"
    wanted: str = ""
    typing: bool = False
    selected: str | None = None
    first: int = 0
    paused: bool = False
    left: bool = False


def chosen(view: View, looking: Looking) -> list[CommandRow]:
    """Return the commands that the filter lets through, in their order."""
    words = looking.wanted.casefold().split()
    rows = view["commands"]
    if words:
        rows = [row for row in rows if all(word in _told(row) for word in words)]
    return sorted(rows, key=SORTS[looking.sort])


def _told(row: CommandRow) -> str:
    what = f"{row['service'] or ''} {row['resource']}/{row['command']} {' '.join(row['states'])} {row['level']}"
    return f"{what} {' '.join(row['modes'])}".casefold()


def pressed(looking: Looking, key: str, rows: Sequence[CommandRow]) -> Looking:
    """Return what is looked at once a key was pressed. ``rows``: those chosen, in their order."""
    if looking.typing:
        return _typed(looking, key)
    if key in _STEPS:
        return _stepped(looking, _STEPS[key], rows)
    if key in SCREENS:
        there = looking.screen == SCREENS[key]
        return replace(looking, screen="commands" if there else SCREENS[key], first=0)
    return _done(looking, key, rows)


def _done(looking: Looking, key: str, rows: Sequence[CommandRow]) -> Looking:
    if key == "enter":
        return _entered(looking, rows)
    names = list(SORTS)
    done: dict[str, dict[str, Any]] = {
        "q": {"left": True},
        "escape": {"screen": "commands", "first": 0, "wanted": looking.wanted * (looking.screen != "commands")},
        "s": {"sort": names[(names.index(looking.sort) + 1) % len(names)]},
        "p": {"paused": not looking.paused},
        "/": {"screen": "commands", "typing": True},
    }
    return replace(looking, **done.get(key, {}))


def _entered(looking: Looking, rows: Sequence[CommandRow]) -> Looking:
    if looking.screen != "commands" or not rows:
        return replace(looking, screen="commands", first=0)
    known = any(row["id"] == looking.selected for row in rows)
    return replace(looking, screen="details", first=0, selected=looking.selected if known else rows[0]["id"])


def _typed(looking: Looking, key: str) -> Looking:
    if key == "enter":
        return replace(looking, typing=False)
    if key == "escape":
        return replace(looking, typing=False, wanted="")
    if key == "backspace":
        return replace(looking, wanted=looking.wanted[:-1])
    if len(key) == 1 and key.isprintable() and len(looking.wanted) < _LONGEST_FILTER:
        return replace(looking, wanted=looking.wanted + key)
    return looking


def _stepped(looking: Looking, by: int, rows: Sequence[CommandRow]) -> Looking:
    if looking.screen not in {"commands", "details"}:
        return replace(looking, first=max(0, looking.first + by))
    if not rows:
        return looking
    ids = [row["id"] for row in rows]
    if looking.selected not in ids:
        return replace(looking, selected=ids[0] if by < len(ids) else ids[-1])
    place = min(max(0, ids.index(looking.selected) + by), len(ids) - 1)
    return replace(looking, selected=ids[place])
