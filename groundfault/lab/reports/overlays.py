"""The plots of several runs, one over the other. They differ in color and in dash."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from matplotlib.figure import Figure

from groundfault.lab.look import drawn_in
from groundfault.lab.reports.canvas import Window, line
from groundfault.lab.reports.figures import scarce
from groundfault.lab.reports.thinning import Grid, added
from groundfault.lab.runs.record import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["goodput", "headline", "innocents", "latency", "p99_ms", "shares", "shed"]

_DASHES: Final[tuple[Any, ...]] = (
    "solid",
    (0, (5, 2)),
    (0, (1.2, 1.2)),
    (0, (6, 2, 1.2, 2)),
    (0, (2.5, 1.5)),
    (0, (8, 2, 1.2, 2, 1.2, 2)),
)

Values = Callable[[Run, Grid], Sequence[float | None]]


def goodput(run: Run, grid: Grid) -> list[float]:
    """Return good answers per second, by arrival."""
    return grid.rates(added(scarce(run), "arrived", run.seconds))


def innocents(run: Run, grid: Grid) -> list[float | None]:
    """Return which percentage of the innocents was served in time."""
    streams = [stream for stream in run.streams if stream.innocent]
    return _percent(grid.shares(added(streams, "good", run.seconds), added(streams, "due", run.seconds)))


def shed(run: Run, grid: Grid) -> list[float | None]:
    """Return which percentage was shed."""
    streams = scarce(run)
    return _percent(grid.shares(added(streams, "shed", run.seconds), added(streams, "due", run.seconds)))


def p99_ms(run: Run, grid: Grid) -> list[float | None]:
    """Return the 99th percentile of the latency of good answers."""
    return grid.percentiles_ms(scarce(run), 0.99)


def _percent(shares: Sequence[float | None]) -> list[float | None]:
    return [None if share is None else share * 100 for share in shares]


def headline(window: Window, runs: Sequence[Run], labels: Sequence[str]) -> Figure:
    """Draw what was asked for in the first run, above the good answers of all of them by their arrival."""
    run, scheme, grid = window.run, window.scheme, window.grid
    with drawn_in(scheme):
        figure, (above, below) = window.figure(5.4, (1, 3))
        due = grid.rates(added(scarce(run), "due", run.seconds))
        above.fill_between(grid.middles, due, color=scheme.faint, alpha=0.45, linewidth=0, zorder=2)
        marked = window.flag(above)
        above.set_ylim(0, max([*due, run.capacity_rps or 0.0]) * 1.12 or 1)
        above.set_ylabel("requests/s")
        window.few_values(above)
        window.title(above, "What was asked for", above=marked)
        highest = _lines(below, window, runs, labels, goodput)
        below.set_ylim(-0.02 * highest, highest * 1.18)  # a line at zero must not hide in the axis
        if run.capacity_rps is not None:
            for axes in (above, below):
                axes.axhline(run.capacity_rps, color=scheme.ink, linestyle="dashed", linewidth=1, zorder=1.8)
            below.set_ylim(-0.02 * highest, max(highest * 1.1, run.capacity_rps * 1.3))
            below.annotate(
                f"capacity, {run.capacity_rps:,.4g}/s",
                (1, run.capacity_rps),
                (-4, 5),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="right",
            )
        below.set_ylabel("answers/s")
        window.few_values(below)
        window.title(below, "Goodput: answers in time")
        below.legend(
            loc="upper left", bbox_to_anchor=(0, -0.2), ncols=_columns(window, labels), frameon=False, handlelength=3.2
        )
        return figure


def shares(window: Window, runs: Sequence[Run], labels: Sequence[str], values: Values, what: str) -> Figure:
    """Draw percentages."""
    with drawn_in(window.scheme):
        figure, (axes,) = window.figure(2.9)
        _lines(axes, window, runs, labels, values)
        axes.set_ylim(-2, 105)
        axes.set_yticks((0, 25, 50, 75, 100))
        axes.set_ylabel(what)
        _legend(axes, window, labels)
        return figure


def latency(window: Window, runs: Sequence[Run], labels: Sequence[str]) -> Figure:
    """Draw the 99th percentiles of the latency of good answers."""
    with drawn_in(window.scheme):
        figure, (axes,) = window.figure(2.9)
        highest = _lines(axes, window, runs, labels, p99_ms)
        axes.set_ylim(0, highest * 1.1)
        axes.set_ylabel("p99, ms")
        window.few_values(axes)
        _legend(axes, window, labels)
        return figure


def _lines(axes: "Axes", window: Window, runs: Sequence[Run], labels: Sequence[str], values: Values) -> float:
    """Draw a line for each run that has a value; return the highest value, above 0."""
    highest = 0.0
    for at, (run, label) in enumerate(zip(runs, labels, strict=True)):
        grid = Grid.of(window.start, min(window.end, run.seconds), window.canvas.values)
        found = values(run, grid)
        highest = max([highest, *(value for value in found if value is not None)])
        line(
            axes,
            grid,
            found,
            color=window.scheme.several[at],
            linestyle=_DASHES[at],
            linewidth=2.6 if at == 0 else 1.9,
            label=label,
            zorder=3 if at == 0 else 2,
        )
    return highest or 1.0


def _legend(axes: "Axes", window: Window, labels: Sequence[str]) -> None:
    """Put the legend above the plot, where no line can run through it."""
    columns = _columns(window, labels)
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, borderaxespad=0.2, handlelength=3.2
    )


def _columns(window: Window, labels: Sequence[str]) -> int:
    """Return how many labels fit beside each other, in points: each takes its letters and a sample of its line."""
    one = 6.6 * max(map(len, labels)) + 58
    return max(1, min(len(labels), int((72 * window.canvas.width - 50) / one)))
