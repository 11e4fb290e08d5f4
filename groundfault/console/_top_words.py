"""Numbers, names and signs as a terminal shows them: short, and harmless whatever they hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from rich.cells import cell_len, set_cell_size

__all__ = [
    "ASCII",
    "UNICODE",
    "Signs",
    "clock_time",
    "count",
    "fitted",
    "harmless",
    "pool",
    "share",
    "signs_for",
    "spark",
    "time",
]

_LONGEST: Final = 400
"""Characters of a text that are looked at: no line is longer."""


@dataclass(frozen=True, slots=True)
class Signs:
    """What stands for levels, gaps and heights. ``levels``: of ok, warn and bad; color is never alone."""

    levels: Mapping[str, str]
    more: str
    none: str
    arrow: str
    enter: str
    blocks: str
    pointer: str
    is_ascii: bool


UNICODE: Final = Signs({"ok": "✓", "warn": "▲", "bad": "✖"}, "…", "—", "→", "⏎", "▁▂▃▄▅▆▇█", "▸", is_ascii=False)
ASCII: Final = Signs({"ok": "+", "warn": "!", "bad": "X"}, "~", "-", "->", "Enter", "_.-:=+*#", ">", is_ascii=True)

_PLAIN: Final = {"C", "POSIX"}


def signs_for(encoding: str | None, environ: Mapping[str, str]) -> Signs:
    """Return the signs that a terminal can show, by the encoding of the output and by what the user says of it.

    Python writes UTF-8 under ``LANG=C`` too, and puts ``LC_CTYPE=C.UTF-8`` there itself (PEP 538, 540); but who says
    ``C`` has a terminal that shows ASCII.
    """
    if not (encoding or "").lower().replace("-", "").startswith("utf8"):
        return ASCII
    if environ.get("LC_ALL"):
        return ASCII if environ["LC_ALL"] in _PLAIN else UNICODE
    coerced = environ.get("LC_CTYPE", "") in {"", "C.UTF-8", "C.utf8", "UTF-8", *_PLAIN}
    return ASCII if coerced and environ.get("LANG") in _PLAIN else UNICODE


def harmless(text: str, signs: Signs) -> str:
    """Return text that moves no cursor, starts no escape sequence and turns no direction: such characters escaped."""
    text = text[:_LONGEST]
    if not text.isprintable():
        text = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
    if signs.is_ascii and not text.isascii():
        text = text.encode("ascii", "backslashreplace").decode()
    return text


def fitted(text: str, width: int, signs: Signs, *, middle: bool = False) -> str:
    """Return text of that many cells, cut at its end or in its ``middle``, or filled up with spaces."""
    cells = len(text) if text.isascii() else cell_len(text)
    if cells <= width:
        return text + " " * (width - cells)
    if width <= len(signs.more):
        return signs.more[:width]
    room = width - len(signs.more)
    if not middle:
        return set_cell_size(text, room) + signs.more
    tail, used = "", 0
    for each in reversed(text):
        used += cell_len(each)
        if used > room // 2:
            break
        tail = each + tail
    return set_cell_size(text, room - cell_len(tail)) + signs.more + tail


def count(value: float) -> str:
    """12300 -> 12.3k; 0.04 -> 0.04."""
    if value >= 1e9:  # noqa: PLR2004  the docstring says it
        return f"{_trim(value / 1e9)}G"
    if value >= 1e6:  # noqa: PLR2004  the docstring says it
        return f"{_trim(value / 1e6)}M"
    if value >= 1e4:  # noqa: PLR2004  the docstring says it
        return f"{_trim(value / 1e3)}k"
    return _trim(value)


def _trim(value: float) -> str:
    if value >= 100:  # noqa: PLR2004  three digits are enough
        return str(round(value))
    if 0 < value < 0.001:  # noqa: PLR2004  and so are three places
        return "<.001"
    return f"{value:.3g}"


_UNITS: Final = ((172_800.0, 86_400.0, "d"), (7200.0, 3600.0, "h"), (120.0, 60.0, "min"))
"""From so many seconds on, a time is told in a unit of so many."""


def time(seconds: float | None, signs: Signs) -> str:
    """0.0123 -> 12.3 ms."""
    if seconds is None:
        return signs.none
    for least_s, unit_s, unit in _UNITS:
        if seconds >= least_s:
            return f"{round(seconds / unit_s)} {unit}"
    if seconds >= 1:
        return f"{_trim(seconds)} s"
    if 0 < seconds < 0.001:  # noqa: PLR2004  that is a millisecond
        return f"{_trim(seconds * 1e6)} {'us' if signs.is_ascii else 'µs'}"
    return f"{_trim(seconds * 1e3)} ms"


def share(value: float) -> str:
    """0.034 -> 3.4 %; what is neither nothing nor all is shown as neither."""
    if 0 < value < 0.001:  # noqa: PLR2004  the docstring says it
        return "<0.1 %"
    if 0.9995 <= value < 1:  # noqa: PLR2004  the docstring says it
        return ">99.9 %"
    return f"{value * 100:.3g} %"


def spark(points: Sequence[float | None], width: int, signs: Signs) -> str:
    """Return a curve of the newest points in that many cells, from zero to its own peak; a space is not known.

    What is steady stays at half the height, so that curves below each other do not make a wall.
    """
    pooled = pool(points, width)
    known = [each for each in pooled if each is not None]
    peak = max(*known, 1.7 * sum(known) / len(known)) if known else 0.0
    top = len(signs.blocks) - 1
    cells = (
        " " if each is None else signs.blocks[0 if peak <= 0 or each <= 0 else max(1, round(each / peak * top))]
        for each in pooled
    )
    return "".join(cells).rjust(width)


def pool(points: Sequence[float | None], width: int) -> list[float | None]:
    """Return at most that many points, each the mean of as many that follow each other; None where none is known."""
    if width <= 0:
        return []
    each = max(1, -(-len(points) // width))
    start = len(points) % each and len(points) % each - each  # whole groups at the new end
    groups = (points[max(0, first) : first + each] for first in range(start, len(points), each))
    pooled: list[float | None] = []
    for group in groups:
        known = [value for value in group if value is not None]
        pooled.append(sum(known) / len(known) if known else None)
    return pooled[-width:]


def clock_time(seconds: float, form: str = "%H:%M:%S") -> str:
    """Return a time of day where the terminal is; a dash for what no clock says."""
    try:
        return datetime.fromtimestamp(seconds, UTC).astimezone().strftime(form)
    except (ValueError, OverflowError, OSError):
        return "-"
