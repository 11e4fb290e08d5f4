"""A sweep as a picture: a panel for each figure, against the one setting; a line for each value of the other."""

from typing import TYPE_CHECKING, Any, Final

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from groundfault.lab.look import Scheme, drawn_in
from groundfault.lab.simulator.sweep import Figure as SweptFigure
from groundfault.lab.simulator.sweep import Sweep, title_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

_DASHES: Final[tuple[Any, ...]] = ("solid", (0, (5, 2)), (0, (1.2, 1.2)), (0, (5, 1, 1, 1)), (0, (8, 2)), (0, (2, 3)))
_MARKERS: Final = ("o", "s", "^", "D", "v", "P")
_WIDE_SPAN: Final = 8.0  # from the least value to the greatest, from which on the axis is logarithmic
_TEXT_UNITS: Final = {"share": "share", "": "number"}


def draw(sweep: Sweep, scheme: Scheme) -> Figure:
    """Draw it: means with the range over the seeds, the default marked. Dots left out: the figure could not be had."""
    across, *others = sweep.axes
    lines = others[0].values if others else (None,)
    shown = sweep.points[0].figures
    with drawn_in(scheme):
        figure = Figure(figsize=(9.6, 1.0 + 2.15 * len(shown)), layout="constrained")
        panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        figure.suptitle(
            f"{sweep.title[:1].upper()}{sweep.title[1:]} ({sweep.variant})",
            x=0.01,
            ha="left",
            fontsize=11.5,
            fontweight="bold",
        )
        xs = _positions(across.values)
        for number, (axes, looked_at) in enumerate(zip(panels, shown, strict=True)):
            for at, value in enumerate(lines):
                points = [each for each in sweep.points if value is None or each.values[1] == value]
                label = None if value is None else _named(others[0].place, value, others[0].default)
                _line(axes, xs, [each.figures[number] for each in points], at=at, scheme=scheme, label=label)
            unit = _TEXT_UNITS.get(looked_at.unit, looked_at.unit)
            axes.set_title(title_of(looked_at.measure), fontsize=10.5)
            axes.set_ylabel(unit)
            axes.margins(y=0.12)
            axes.set_ylim(bottom=0)
            if looked_at.unit == "share":
                axes.set_ylim(0, max(1.05, axes.get_ylim()[1]))
            axes.grid(axis="y", color=scheme.faint, alpha=0.3, linewidth=0.6)
        _mark_default(panels, across.values, xs, across.default, scheme)
        panels[-1].set_xlabel(across.place)
        _ticks(panels[-1], across.values, xs)
        if others:
            panels[0].legend(loc="lower left", bbox_to_anchor=(0, 1.13), ncols=4, frameon=False, borderaxespad=0)
        figure.align_ylabels(panels)
        return figure


def _positions(values: tuple[Any, ...]) -> list[float]:
    """Return where values stand: where they are if they are numbers, else side by side."""
    if all(isinstance(each, int | float) and not isinstance(each, bool) for each in values):
        return [float(each) for each in values]
    return [float(at) for at in range(len(values))]


def _line(
    axes: "Axes", xs: list[float], figures: list[SweptFigure], *, at: int, scheme: Scheme, label: str | None
) -> None:
    means = [float("nan") if each.mean is None else each.mean for each in figures]
    order = sorted(range(len(xs)), key=lambda index: xs[index])
    color = scheme.several[at % len(scheme.several)]
    axes.plot(
        [xs[index] for index in order],
        [means[index] for index in order],
        color=color,
        linestyle=_DASHES[at % len(_DASHES)],
        marker=_MARKERS[at % len(_MARKERS)],
        markersize=5,
        linewidth=2,
        label=label,
        zorder=3,
    )
    for x, each in zip(xs, figures, strict=True):
        if each.least is not None and each.most is not None and each.most > each.least:
            axes.vlines(x, each.least, each.most, color=color, linewidth=4, alpha=0.3, zorder=2)


def _mark_default(panels: Any, values: tuple[Any, ...], xs: list[float], default: Any, scheme: Scheme) -> None:
    at = next((x for x, value in zip(xs, values, strict=True) if value == default), None)
    if at is None and xs == [each for each in values if isinstance(each, int | float)]:
        at = float(default) if isinstance(default, int | float) and not isinstance(default, bool) else None
    if at is None:
        return
    for axes in panels:
        axes.axvline(at, color=scheme.ink, linestyle="dashed", linewidth=1, zorder=1)
    panels[0].annotate(
        "default", (at, 0), (4, 4), xycoords=("data", "axes fraction"), textcoords="offset points", va="bottom",
        fontsize=9.5,
    )  # fmt: skip


def _ticks(axes: "Axes", values: tuple[Any, ...], xs: list[float]) -> None:
    least, most = min(xs), max(xs)
    if least > 0 and most / least >= _WIDE_SPAN:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(xs, [_word(each) for each in values])


def _named(place: str, value: Any, default: Any) -> str:
    return f"{place.rpartition('.')[2]} {_word(value)}" + (" (default)" if value == default else "")


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
