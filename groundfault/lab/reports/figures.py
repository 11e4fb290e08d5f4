"""The plots of one run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from matplotlib.figure import Figure

from groundfault.lab.look import drawn_in
from groundfault.lab.reports.canvas import Window, line
from groundfault.lab.reports.thinning import added
from groundfault.lab.reports.wording import figure as in_words
from groundfault.lab.reports.wording import shown
from groundfault.lab.runs.record import Edge, Run, Stream

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "FATES",
    "MOST_ROWS",
    "circuits",
    "headline",
    "innocents",
    "latency",
    "rows",
    "scarce",
    "shed",
    "worst_first",
]

FATES: Final = {
    "good": ("in time", None),
    "late": ("too late", "////"),
    "shed": ("shed", None),
    "failed": ("failed", "xxxx"),
    "unsent": ("not sent", "...."),
}
"""How each fate is called and hatched, from the bottom of the stack to its top."""

MOST_ROWS: Final = 24
"""So many services or edges a plot shows; the worst of them, and the table has the others."""

_ROW: Final = 0.42


def scarce(run: Run) -> list[Stream]:
    """Return the streams that a spike is about: those that are no innocents, or all if there are no others."""
    return [stream for stream in run.streams if not stream.innocent] or run.streams


def headline(window: Window) -> Figure:
    """Draw what was asked for and what became of it, above the good answers by their arrival."""
    run, scheme = window.run, window.scheme
    with drawn_in(scheme):
        figure, (above, below) = window.figure(5.9 if window.canvas.legend > 3 else 5.4, (4, 3))  # noqa: PLR2004  a legend in one row
        peak = _fates(above, window)
        marked = window.flag(above)
        above.set_ylim(0, max(peak * 1.06, 1))
        above.set_ylabel("requests/s")
        window.few_values(above)
        window.title(above, "Asked for, and what became of it", above=marked)
        above.legend(
            loc="upper left",
            bbox_to_anchor=(0, -0.02),
            ncols=window.canvas.legend,
            frameon=False,
            handlelength=1.6,
            columnspacing=1.2,
        )
        highest = _goodput(below, window)
        capacity = run.capacity_rps
        below.set_ylim(-0.02 * highest, highest * 1.18 if capacity is None else max(highest * 1.1, capacity * 1.3))
        below.set_ylabel("answers/s")
        window.few_values(below)
        window.title(below, "Goodput: answers in time")
        return figure


def _fates(axes: "Axes", window: Window) -> float:
    """Stack what became of requests by when they were due; return the highest rate."""
    run, scheme, grid = window.run, window.scheme, window.grid
    streams = scarce(run)
    base = [0.0] * len(grid.middles)
    for fate, (title, hatch) in FATES.items():
        rates = grid.rates(added(streams, fate, run.seconds))
        top = [low + rate for low, rate in zip(base, rates, strict=True)]
        if any(rates):
            axes.fill_between(
                grid.middles,
                base,
                top,
                facecolor=scheme.fates[fate],
                edgecolor=scheme.paper,
                hatch=hatch,
                linewidth=0,
                label=title,
                zorder=2,
            )
        base = top
    due = grid.rates(added(streams, "due", run.seconds))
    axes.plot(grid.middles, due, color=scheme.ink, linewidth=1.1, label="asked for", zorder=3)
    if run.capacity_rps is not None:
        axes.axhline(run.capacity_rps, color=scheme.ink, linestyle="dashed", linewidth=1, zorder=4)
    return max([*due, run.capacity_rps or 0.0])


def _goodput(axes: "Axes", window: Window) -> float:
    """Draw the good answers by arrival, under the line of what can be had; return the highest rate, above 0."""
    run, scheme, grid = window.run, window.scheme, window.grid
    goodput = grid.rates(added(scarce(run), "arrived", run.seconds))
    line(axes, grid, goodput, color=scheme.several[0], linewidth=2.4, zorder=3)
    axes.fill_between(grid.middles, goodput, color=scheme.several[0], alpha=0.12, linewidth=0, zorder=2)
    if run.capacity_rps is not None:
        axes.axhline(run.capacity_rps, color=scheme.ink, linestyle="dashed", linewidth=1, zorder=4)
        axes.annotate(
            f"capacity, {run.capacity_rps:,.4g}/s",
            (1, run.capacity_rps),
            (-4, 5),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
        )
    return max([*goodput, run.capacity_rps or 0.0]) or 1.0


def innocents(window: Window) -> Figure:
    """Draw which share of the innocents was served in time."""
    run, scheme, grid = window.run, window.scheme, window.grid
    streams = [stream for stream in run.streams if stream.innocent]
    with drawn_in(scheme):
        figure, (axes,) = window.figure(2.5)
        shares = grid.shares(added(streams, "good", run.seconds), added(streams, "due", run.seconds))
        line(axes, grid, [None if v is None else v * 100 for v in shares], color=scheme.several[0], linewidth=2)
        _percent(axes, "served in time, %")
        return figure


def shed(window: Window) -> Figure:
    """Draw which share of the requests was shed."""
    run, scheme, grid = window.run, window.scheme, window.grid
    with drawn_in(scheme):
        figure, (axes,) = window.figure(2.5)
        shares = grid.shares(added(scarce(run), "shed", run.seconds), added(scarce(run), "due", run.seconds))
        line(axes, grid, [None if v is None else v * 100 for v in shares], color=scheme.several[0], linewidth=2)
        _percent(axes, "shed, %")
        return figure


def _percent(axes: "Axes", label: str) -> None:
    axes.set_ylim(-2, 105)
    axes.set_yticks((0, 25, 50, 75, 100))
    axes.set_ylabel(label)


def latency(window: Window) -> Figure:
    """Draw the median and the 99th percentile of the latency of good answers."""
    run, scheme, grid = window.run, window.scheme, window.grid
    with drawn_in(scheme):
        figure, (axes,) = window.figure(2.9)
        highest = 0.0
        for at, (share, title, dash) in enumerate(((0.99, "p99", "solid"), (0.5, "median", (0, (4, 1.5))))):
            values = grid.percentiles_ms(scarce(run), share)
            line(axes, grid, values, color=scheme.several[at], linestyle=dash, linewidth=2.2 - at * 0.5, label=title)
            highest = max([highest, *(value for value in values if value is not None)])
        deadline_ms = run.deadline_s * 1000
        if highest > 0.4 * deadline_ms:
            axes.axhline(deadline_ms, color=scheme.ink, linestyle="dashed", linewidth=1, label="deadline")
            highest = max(highest, deadline_ms)
        axes.set_ylim(0, highest * 1.1 or 1)
        axes.set_ylabel("ms")
        window.few_values(axes)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, borderaxespad=0.2)
        return figure


def worst_first(series: dict[str, list[float | None]]) -> dict[str, list[float | None]]:
    """Return as many of these as a plot shows, those with the largest values, in the order they came in."""
    worst = sorted(series, key=lambda name: -max((v for v in series[name] if v is not None), default=-1.0))
    kept = set(worst[:MOST_ROWS])
    return {name: values for name, values in series.items() if name in kept}


def rows(window: Window, series: dict[str, list[float | None]], unit: str) -> Figure:
    """Draw one low panel for each name, all of one height: which of many stands out, and when."""
    scheme, grid = window.scheme, window.grid
    with drawn_in(scheme):
        figure, (axes,) = window.figure(0.7 + _ROW * len(series))
        thinned = {name: grid.worst(values) for name, values in series.items()}
        highest = max((v for values in thinned.values() for v in values if v is not None), default=0.0) or 1.0
        for at, (name, values) in enumerate(thinned.items()):
            floor = [at + 0.92] * len(values)
            heights = [at + 0.92 - 0.52 * (value or 0.0) / highest for value in values]
            axes.fill_between(grid.middles, floor, heights, color=scheme.several[0], alpha=0.75, linewidth=0, zorder=2)
            axes.axhline(at + 0.92, color=scheme.faint, linewidth=0.5, zorder=1)
            worst = max((value for value in values if value is not None), default=None)
            _row_text(axes, window, at, name, in_words(worst, unit))
        _only_rows(axes, len(series))
        return figure


def circuits(window: Window, edges: Sequence[Edge]) -> Figure:
    """Draw when circuits tripped and for how long they were not closed, a row for each edge."""
    scheme = window.scheme
    with drawn_in(scheme):
        figure, (axes,) = window.figure(0.7 + _ROW * len(edges))
        for at, edge in enumerate(edges):
            axes.axhline(at + 0.92, color=scheme.faint, linewidth=0.5, zorder=1)
            bars = [(start, end - start) for start, end in edge.open]
            # Processes overlap: the more of them have their circuit open, the denser the bar.
            axes.broken_barh(bars, (at + 0.46, 0.4), color=scheme.several[1], alpha=0.35, linewidth=0, zorder=2)
            axes.scatter(edge.trips, [at + 0.66] * len(edge.trips), color=scheme.several[1], marker="X", s=42, zorder=3)
            trips = len(edge.trips)
            name = edge.name.replace("->", "→")
            _row_text(axes, window, at, name, "1 trip" if trips == 1 else f"{trips} trips")
        _only_rows(axes, len(edges))
        return figure


def _row_text(axes: "Axes", window: Window, at: int, left: str, right: str) -> None:
    places = ((0.003, left, "left"), (0.997, right, "right"))
    for x, text, side in places:
        axes.annotate(
            shown(text, window.canvas.letters - 10),
            (x, at + 0.06),
            xycoords=("axes fraction", "data"),
            ha=side,
            va="top",
            fontsize=9,
            zorder=5,
        )


def _only_rows(axes: "Axes", count: int) -> None:
    axes.set_ylim(count, 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
