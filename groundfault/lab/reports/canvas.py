"""What all plots of runs share: a wide and a narrow size, the time axis with its spans and marks, legends."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from groundfault.lab.look import Scheme
from groundfault.lab.reports.thinning import Flag, Grid, flags
from groundfault.lab.reports.wording import shown
from groundfault.lab.runs.record import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["NARROW", "WIDE", "Canvas", "Window", "gaps", "line", "worth_shading"]

_TICKS: Final = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
_MINUTES_FROM_S: Final = 600


@dataclass(frozen=True, slots=True)
class Canvas:
    """One size of drawing: inches, how many values fit side by side, and how much text does."""

    name: str
    width: float
    values: int
    ticks: int
    legend: int
    flags: int
    letters: int


WIDE: Final = Canvas("wide", 9.6, 600, 10, 5, 20, 70)
NARROW: Final = Canvas("narrow", 4.2, 240, 5, 3, 8, 36)


@dataclass(frozen=True, slots=True)
class Window:
    """The stretch of a run that a plot shows, on a canvas, in a scheme."""

    run: Run
    start: float
    end: float
    canvas: Canvas
    scheme: Scheme

    @property
    def grid(self) -> Grid:
        """Where the values stand."""
        return Grid.of(self.start, min(self.end, self.run.seconds), self.canvas.values)

    def figure(self, height: float, rows: Sequence[float] = (1,)) -> tuple[Figure, list["Axes"]]:
        """Return a figure of this height in inches with panels one above the other, which share the time axis."""
        figure = Figure(figsize=(self.canvas.width, height), layout="constrained")
        panels = list(figure.subplots(len(rows), 1, sharex=True, height_ratios=tuple(rows), squeeze=False)[:, 0])
        for axes in panels:
            self._time_axis(axes)
        self._label_times(panels[-1])
        return figure, panels

    def _time_axis(self, axes: "Axes") -> None:
        for name, (start, end) in self.run.spans.items():
            if worth_shading(self.run, name) and start < self.end and end > self.start:
                axes.axvspan(start, end, color=self.scheme.band, zorder=0, linewidth=0)
        for flag in self._flags():
            axes.axvline(flag.t, color=self.scheme.ink, linewidth=0.6, linestyle=(0, (1, 2)), zorder=1.5)
        axes.set_xlim(self.start, self.end)
        axes.margins(y=0)

    def _flags(self) -> list[Flag]:
        return flags(self.run.marks, self.start, self.end, self.canvas.flags)

    def _label_times(self, axes: "Axes") -> None:
        length = self.end - self.start
        step = next((step for step in _TICKS if length <= step * self.canvas.ticks), _TICKS[-1])
        axes.xaxis.set_major_locator(MultipleLocator(step))
        if self.run.seconds <= _MINUTES_FROM_S:
            axes.set_xlabel("seconds")
            return
        hours = step % 60 == 0 and self.run.seconds > 2 * 3600
        axes.xaxis.set_major_formatter(FuncFormatter(_as_hours if hours else _as_minutes))
        axes.set_xlabel("hours:minutes" if hours else "minutes:seconds")

    def flag(self, axes: "Axes") -> bool:
        """Put the numbers of the marks above the panel; return whether there are any."""
        found = self._flags()
        for each in found:
            axes.annotate(
                each.text,
                (each.t, 1),
                (0, 3),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=9,
                fontweight="bold",
            )
        return bool(found)

    def title(self, axes: "Axes", text: str, *, above: bool = False) -> None:
        """Put a title above the panel; ``above``: and above the marks' numbers."""
        axes.set_title(shown(text, self.canvas.letters), pad=18 if above else 6)

    def few_values(self, axes: "Axes") -> None:
        """Let the value axis have as many numbers as can be read."""
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(_as_number))


def worth_shading(run: Run, name: str) -> bool:
    """Tell whether a span lies amid the run: one that begins or ends with it would shade all that is left."""
    start, end = run.spans[name]
    return name.startswith("spike") or (start > 0 and end <= run.seconds - 1)


def _as_number(value: float, _: Any) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _as_hours(t: float, _: Any) -> str:
    return f"{round(t) // 3600}:{round(t) // 60 % 60:02d}"


def _as_minutes(t: float, _: Any) -> str:
    return f"{round(t) // 60}:{round(t) % 60:02d}"


def gaps(values: Sequence[float | None]) -> list[float]:
    """Return the values with gaps where there are none."""
    return [float("nan") if value is None else value for value in values]


def line(axes: "Axes", grid: Grid, values: Sequence[float | None], **how: Any) -> None:
    """Draw a line, and a dot for each value that has no neighbor, which as a line would not be seen."""
    axes.plot(grid.middles, gaps(values), **how)
    alone = [
        (t, value)
        for at, (t, value) in enumerate(zip(grid.middles, values, strict=True))
        if value is not None and not _beside(values, at)
    ]
    if alone:
        xs, ys = zip(*alone, strict=True)
        axes.scatter(xs, ys, color=how["color"], s=9, zorder=how.get("zorder", 2), linewidth=0)


def _beside(values: Sequence[float | None], at: int) -> bool:
    return any(0 <= near < len(values) and values[near] is not None for near in (at - 1, at + 1))
