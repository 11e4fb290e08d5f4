"""The columns of the tables of ``groundfault top``, by how wide the terminal is."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from rich.cells import cell_len

from groundfault.console._top_lines import BAD, SHED, SOFT, STYLES, WARN, Cell, Column, Drawing
from groundfault.console._top_words import count, share, spark, time
from groundfault.console.view import CommandRow, ServerRow, View

__all__ = ["command_columns", "name_of", "server_columns", "state_of"]

_MEDIUM: Final = 60
_USUAL: Final = 100
_WIDE: Final = 150
_CURVE: Final = 12
_LONGEST_CURVE: Final = 30
_READABLE: Final = 20
_SICK_SHARE: Final = 0.05


def name_of(row: CommandRow, *, with_service: bool) -> str:
    """Return what a command is called; with the service that calls it, where there are several."""
    called = f"{row['resource']}/{row['command']}"
    return f"{row['service']} {called}" if with_service and row["service"] else called


def state_of(row: CommandRow) -> Cell:
    """Return the worst that is true of a command's circuit, limit and mode, in words."""
    of = f"/{row['processes']:g}"
    counted: tuple[tuple[str, float, str], ...] = (
        ("OPEN", row["states"].get("open", 0), BAD),
        ("half-open", row["states"].get("half-open", 0), WARN),
        ("SATURATED", row["saturated"], WARN),
        ("unhealthy", row["unhealthy"], WARN),
    )
    for word, times, style in counted:
        if times:
            return Cell(f"{word} {times:g}{of}", style)
    if row["admitted_share"] < 1:
        return Cell(f"sends {share(row['admitted_share'])}", SHED)
    if row["limit"] is not None and row["in_flight"] >= row["limit"]:
        return Cell("FULL", WARN)
    for mode, times in row["modes"].items():
        return Cell(f"{mode} {times:g}{of}", WARN)
    return Cell(row["state"], SOFT)


def _state_width(width: int) -> int:
    if width >= _WIDE:
        return 14
    return 13 if width >= 80 else 10  # noqa: PLR2004  room for "half-open 1/8"


def _sign(draw: Drawing) -> Column:
    return Column("", 1, lambda row, _: Cell(draw.signs.levels[row["level"]], STYLES[row["level"]]))


def _curve(draw: Drawing, width: int) -> Column:
    def cell(row: dict[str, Any], wide: int) -> Cell:
        return Cell(
            spark(row["spark"], wide, draw.signs), {"bad": "bright_red", "warn": WARN}.get(row["level"], "cyan")
        )

    return Column("2 minutes"[:width], width, cell)


def _why(width: int) -> Column:
    return Column("why", width, lambda row, _: Cell("; ".join(row["why"]), BAD if row["level"] == "bad" else ""))


def _curve_and_why(draw: Drawing, width: int) -> list[Column]:
    """Return the last columns of a line that is short: the reasons only where they can be read."""
    if width < _CURVE + _READABLE:
        return [_curve(draw, min(width, _LONGEST_CURVE))]
    return [_curve(draw, _CURVE), _why(width - _CURVE - 1)]


def _time(draw: Drawing, name: str) -> Column:
    return Column(name, 7, lambda row, _: Cell(time(row[f"{name}_s"], draw.signs)), right=True)


def _rate(row: CommandRow | ServerRow, _: int) -> Cell:
    return Cell(count(row["rate_per_s"]), "" if row["rate_per_s"] else SOFT)


def _errors(row: CommandRow, _: int) -> Cell:
    return Cell(share(row["error_share"]), BAD if row["error_share"] >= _SICK_SHARE else "")


def _in_flight(row: CommandRow, _: int) -> Cell:
    if row["limit"] is None:
        return Cell(f"{row['in_flight']:g}", "" if row["in_flight"] else SOFT)
    return Cell(f"{row['in_flight']:g}/{row['limit']:g}", WARN if row["in_flight"] >= row["limit"] else "")


def command_columns(draw: Drawing, view: View, rows: Sequence[CommandRow]) -> list[Column]:
    """Return the columns of the commands: what there is room for, the name and the reasons as wide as can be."""
    several = len({row["service"] for row in view["commands"]}) > 1
    longest = max((cell_len(draw.safe(name_of(row, with_service=several))) for row in rows), default=8)
    width = draw.width

    def name(wide: int) -> Column:
        return Column("command", wide, lambda row, _: Cell(name_of(row, with_service=several)), middle=True)

    state = Column("circuit", _state_width(width), lambda row, _: state_of(row))
    rate = Column("per s", 6, _rate, right=True)
    errors = Column("errors", 6, _errors, right=True)
    if width < _MEDIUM:
        return _spread(draw, name, [state, errors], wanted=longest, last=lambda _: [])
    p99 = _time(draw, "p99")
    flight = Column("in flight", 9 if width >= _USUAL else 7, _in_flight, right=True)
    if width < _USUAL:
        flight = Column("flight", 7, _in_flight, right=True)
        last = [state, rate, errors, p99, flight]
        return _spread(draw, name, last, wanted=min(longest, 24), last=lambda left: _curve_and_why(draw, left))
    middle = [state, rate, errors, _time(draw, "p50"), *([_time(draw, "p90")] * (width >= _WIDE)), p99, flight]
    middle.append(_curve(draw, _LONGEST_CURVE if width >= _WIDE else _CURVE))
    return _spread(draw, name, middle, wanted=min(longest, 28 if width < _WIDE else 48), last=lambda left: [_why(left)])


_LEAST: Final = 8


def _spread(
    draw: Drawing,
    name: Callable[[int], Column],
    middle: list[Column],
    *,
    wanted: int,
    last: Callable[[int], list[Column]],
) -> list[Column]:
    """Return all columns: the name gets what it wants if there is so much, the last what is left."""
    first = _sign(draw)
    room = draw.width - sum(column.width + 1 for column in (first, *middle))
    wide = max(_LEAST, min(max(wanted, _LEAST), room))
    left = room - wide - 1
    tail = last(left) if left >= _LEAST else []
    if not tail:
        wide = max(_LEAST, room)
    return [first, name(wide), *middle, *tail]


def server_columns(draw: Drawing, longest: int) -> list[Column]:
    """Return the columns of the services."""
    width, signs = draw.width, draw.signs

    def name(wide: int) -> Column:
        return Column("service", wide, lambda row, _: Cell(row["service"]), middle=True)

    def wait(row: ServerRow, _: int) -> Cell:
        beyond = row["wait_p99_s"] is not None and row["threshold_s"] is not None
        beyond = beyond and (row["wait_p99_s"] or 0) > (row["threshold_s"] or 0)
        return Cell(f"{time(row['wait_p99_s'], signs)} of {time(row['threshold_s'], signs)}", WARN if beyond else "")

    def state(row: ServerRow, _: int) -> Cell:
        if row["shedding"]:
            return Cell(f"SHED {row['shedding']:g}/{row['processes']:g}", BAD)
        if row["stepped_aside"]:
            return Cell(f"ASIDE {row['stepped_aside']:g}/{row['processes']:g}", WARN)
        if row["modes"]:
            mode, times = next(iter(row["modes"].items()))
            return Cell(f"{mode} {times:g}/{row['processes']:g}", WARN)
        return Cell("admits", SOFT)

    standing = Column("door", _state_width(width), state)
    rate = Column("per s", 6, _rate, right=True)
    good = Column("good", 6, lambda row, _: Cell(count(row["goodput_per_s"])), right=True)
    shed = Column(
        "shed", 6, lambda row, _: Cell(share(row["shed_share"]), SHED if row["shed_share"] else ""), right=True
    )
    waits = Column("wait p99, limit", 17, wait, right=True)
    if width < _MEDIUM:
        return _spread(draw, name, [standing, shed], wanted=longest, last=lambda _: [])
    if width < _USUAL:
        last = [standing, rate, good, shed, waits]
        return _spread(draw, name, last, wanted=min(longest, 20), last=lambda left: _curve_and_why(draw, left))
    flying = Column("in flight", 9, lambda row, _: Cell(f"{row['in_flight']:g}"), right=True)
    middle = [standing, rate, good, shed, waits, flying, _curve(draw, _LONGEST_CURVE if width >= _WIDE else _CURVE)]
    return _spread(draw, name, middle, wanted=min(longest, 28), last=lambda left: [_why(left)])
