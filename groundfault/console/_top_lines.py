"""Lines and columns of a terminal. Everything is a Text, never markup: names may be hostile."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from groundfault.console._top_words import Signs, fitted, harmless

__all__ = ["BAD", "HEAD", "SHED", "SOFT", "STRONG", "STYLES", "WARN", "Cell", "Column", "Drawing", "Lines", "wrapped"]

SOFT: Final = "bright_black"
STRONG: Final = "bold"
WARN: Final = "yellow"
BAD: Final = "bold bright_red"
SHED: Final = "magenta"
HEAD: Final = "underline bright_black"
STYLES: Final = {"ok": "green", "warn": WARN, "bad": BAD}

Row = Any


class Cell(NamedTuple):
    """A piece of a line."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """``width`` in cells; ``cell`` makes the piece of a row. ``middle``: what is too long is cut in its middle."""

    title: str
    width: int
    cell: Callable[[Row, int], Cell]
    right: bool = False
    middle: bool = False


class Drawing:
    """Makes lines of a given width with the signs of a terminal."""

    def __init__(self, width: int, signs: Signs) -> None:
        self.width = width
        self.signs = signs

    def safe(self, text: str) -> str:
        """Return text that does nothing but stand there."""
        return harmless(text, self.signs)

    def line(self, *cells: Cell, style: str = "") -> Text:
        """Return one line of harmless pieces, cut where the terminal ends."""
        made = Text(no_wrap=True, overflow="crop", end="", style=style)
        left = self.width
        for text, how in cells:
            if left <= 0:
                break
            piece = self.safe(text)
            cells_wide = cell_len(piece)
            if cells_wide > left:
                piece = piece[:left] if piece.isspace() else fitted(piece, left, self.signs)
                cells_wide = left
            made.append(piece, how or None)
            left -= cells_wide
        return made

    def both_ends(self, left: Sequence[Cell], right: Sequence[Cell], style: str = "") -> Text:
        """Return a line with pieces at its beginning, and others at its end if there is room."""
        right = [Cell(self.safe(text), how) for text, how in right]
        room = self.width - sum(cell_len(text) for text, _ in right)
        used = sum(cell_len(self.safe(text)) for text, _ in left)
        if used + 2 > room:
            return self.line(*left, style=style)
        return self.line(*left, Cell(" " * (room - used)), *right, style=style)

    def titles(self, columns: Sequence[Column]) -> Text:
        """Return the line above a table."""
        pieces = []
        for column in columns:
            title = fitted(column.title, column.width, self.signs)
            pieces.append(Cell(column.title.rjust(column.width)[: column.width] if column.right else title))
            pieces.append(Cell(" "))
        return self.line(*pieces[:-1], style=HEAD)

    def row(self, columns: Sequence[Column], row: Row, *, selected: bool = False) -> Text:
        """Return a line of a table. One that is ``selected`` has a pointer, and no color but the terminal's own."""
        pieces = []
        for column in columns:
            said, how = column.cell(row, column.width)
            text = self.safe(said)
            if column.right:
                text = " " * (column.width - cell_len(text)) + text
            how = "" if selected else how
            pieces += [Cell(fitted(text, column.width, self.signs, middle=column.middle), how), Cell(" ")]
        if selected:
            pieces[1] = Cell(self.signs.pointer)
            pieces.append(Cell(" " * self.width))
        return self.line(*pieces[: None if selected else -1], style="bold reverse" if selected else "")

    def segments(self, groups: Iterable[Cell], most: int = 3) -> list[Text]:
        """Return pieces that each stay whole, three spaces apart, in as many lines as they need."""
        lines: list[list[Cell]] = [[]]
        used = 0
        for text, how in groups:
            wide = cell_len(self.safe(text))
            if lines[-1] and used + 3 + wide > self.width:
                lines.append([])
                used = 0
            if lines[-1]:
                lines[-1].append(Cell("   "))
                used += 3
            lines[-1].append(Cell(text, how))
            used += wide
        return [self.line(*cells) for cells in lines[:most] if cells]


def wrapped(text: str, width: int) -> list[str]:
    """Return harmless text in lines of at most that many cells, broken at spaces where there are any."""
    lines, now = [], ""
    for word in text.split(" "):
        longer = f"{now} {word}" if now else word
        if cell_len(longer) <= width:
            now = longer
            continue
        if now:
            lines.append(now)
        now = word
        while cell_len(now) > width > 0:
            cut = width
            while cell_len(now[:cut]) > width:
                cut -= 1
            lines.append(now[: max(1, cut)])
            now = now[max(1, cut) :]
    return [*lines, now] if now or not lines else lines


class Lines:
    """Lines, one below the other: what rich shows, without asking it to lay anything out."""

    def __init__(self, lines: Sequence[Text]) -> None:
        self.lines = lines

    def __rich_console__(self, console: Console, _: ConsoleOptions) -> RenderResult:
        """Yield the pieces of all lines."""
        newline = Segment.line()
        for number, line in enumerate(self.lines):
            if number:
                yield newline
            base = console.get_style(line.style) if line.style else Style.null()
            at = 0
            for span in line.spans:
                if span.start > at:
                    yield Segment(line.plain[at : span.start], base)
                yield Segment(line.plain[span.start : span.end], base + console.get_style(span.style))
                at = span.end
            if at < len(line.plain):
                yield Segment(line.plain[at:], base)
