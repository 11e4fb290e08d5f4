"""The table of the runs, as text for a terminal and as markdown between two markers of a page."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from groundfault.lab.measure import STEADY_S

__all__ = ["BEGIN", "END", "around", "line", "markdown", "title", "write"]

BEGIN, END = "<!-- cascade: measured -->", "<!-- cascade: end -->"

Row = Mapping[str, Any]

_COLUMNS = (
    ("services", 8),
    ("variant", 11),
    ("s below 80 %", 12),
    ("innocents", 9),
    ("goodput", 7),
    ("recovery", 8),
    ("trips", 5),
    ("per edge", 24),
    ("CPU", 10),
    ("lag", 7),
)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        str(row["services"]),
        row["variant"] + (" VOID" if row["void"] else ""),
        f"{row['bad_s']} of {row['looked_at_s']}",
        _number(row["innocents"], 3),
        _number(row["goodput"], 2),
        _recovery(row),
        str(row["trips"]),
        ", ".join(f"{edge.replace(' -> ', '→')} {count}" for edge, count in row["trips_by_edge"].items()) or "-",
        f"{row['cpu_peak']:.0%} ({row['own_cpu']:.0%})",
        f"{row['lag_p99_ms']:.0f} ms",
    )


def _recovery(row: Row) -> str:
    if row["recovery_s"] is None:  # the last moment it could have been found at
        return f"> {max(row['after_s'] - STEADY_S, 0.0):.0f} s"
    return f"{row['recovery_s']:.1f} s"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def title() -> str:
    """Return the head of the terminal's table."""
    return "  ".join(name.ljust(width) for name, width in _COLUMNS).rstrip()


def line(row: Row) -> str:
    """Return one run as a line of the terminal's table, with what makes it void."""
    cells = "  ".join(cell.ljust(width) for cell, (_, width) in zip(_cells(row), _COLUMNS, strict=True)).rstrip()
    return "\n".join([cells, *(f"         void: {reason}" for reason in row["void"])])


def markdown(rows: Sequence[Row], *, machine: str) -> str:
    """Return all runs as tables, one a scenario. ``machine``: a line that says what they ran on."""
    parts = [machine]
    for scenario in dict.fromkeys(row["title"] for row in rows):
        parts.append(f"**{scenario[0].upper()}{scenario[1:]}**")
        table = [_bar(name for name, _ in _COLUMNS), _bar("---" for _ in _COLUMNS)]
        table += [_bar(_cells(row)) for row in rows if row["title"] == scenario]
        parts.append("\n".join(table))
    return "\n\n".join(parts) + "\n"


def _bar(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def around(page: Path) -> tuple[str, str]:
    """Return what stands before and after the page's markers.

    Raises ValueError if it has not one of each, in their order, OSError if it cannot be read.
    """
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{page} must hold {BEGIN} and then {END}, once each")
    before, _, rest = text.partition(BEGIN)
    return before, rest.partition(END)[2]


def write(page: Path, tables: str) -> None:
    """Put the tables between the page's markers. Raises as :func:`around` does."""
    before, after = around(page)
    page.write_text(f"{before}{BEGIN}\n\n{tables}\n{END}{after}", encoding="utf-8")
