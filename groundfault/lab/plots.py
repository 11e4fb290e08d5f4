"""The plots of the demo's report, in the look of groundfault/lab/look.py."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from groundfault.lab.curves import Spike
from groundfault.lab.look import Scheme, drawn_in
from groundfault.lab.series import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["headline", "innocents", "queue_wait", "shed_share", "trips"]

PHASES = ("unprotected", "plain-503", "groundfault")


_DASHES = {"unprotected": (0, (1.2, 1.2)), "plain-503": (0, (5, 2)), "groundfault": "solid"}
_LABELS = {
    "unprotected": "unprotected",
    "plain-503": "plain 503s and circuit breakers",
    "groundfault": "GroundFault",
}
_WIDTHS = {"unprotected": 1.8, "plain-503": 1.8, "groundfault": 2.6}

Runs = Mapping[str, Series]


def _seconds_axis(axes: "Axes", curve: Spike, scheme: Scheme) -> None:
    axes.axvspan(curve.before_s, curve.spike_end_s, color=scheme.band, zorder=0, linewidth=0)
    axes.set_xlim(0, curve.total_s)
    axes.margins(y=0)


def _lines(axes: "Axes", runs: Runs, scheme: Scheme, values: Callable[[Series], list[Any]]) -> None:
    for phase in PHASES:
        found = values(runs[phase]) if phase in runs else []
        if any(value is not None for value in found):
            ys = [float("nan") if value is None else value for value in found]
            xs = [second + 0.5 for second in range(len(ys))]  # a second's value stands in its middle
            axes.plot(
                xs,
                ys,
                color=scheme.runs[phase],
                linestyle=_DASHES[phase],
                linewidth=_WIDTHS[phase],
                label=_LABELS[phase],
                marker="o",  # a second between two without a value would not be seen
                markersize=2.5,
                zorder=3 if phase == "groundfault" else 2,
            )


def _legend(axes: "Axes") -> None:
    """Put the legend above the plot, where no line can run through it."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, borderaxespad=0.2)


def headline(runs: Runs, curve: Spike, capacity_rps: float, scheme: Scheme) -> Figure:
    """Draw what the fans ask for, above what they get in time, for the three runs."""
    with drawn_in(scheme):
        figure = Figure(figsize=(9.6, 5.2), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 3))
        _seconds_axis(above, curve, scheme)
        points = [point / 20 for point in range(int(curve.total_s * 20))]
        above.fill_between(points, [curve.rate(t) for t in points], color=scheme.faint, alpha=0.45, linewidth=0)
        above.axhline(capacity_rps, color=scheme.ink, linestyle="dashed", linewidth=1)
        above.set_ylim(0, curve.peak_rps * 1.12)
        above.set_ylabel("requests/s")
        above.set_title(f"What the fans ask for: {curve.factor:g} times the usual, within a second")
        above.annotate("capacity", (curve.total_s, capacity_rps), (-4, 4), textcoords="offset points", ha="right")
        above.annotate(
            f"{curve.peak_rps:.0f}/s",
            (curve.spike_end_s, curve.peak_rps),
            (6, -4),
            textcoords="offset points",
            va="top",
        )
        _seconds_axis(below, curve, scheme)
        below.axhline(capacity_rps, color=scheme.ink, linestyle="dashed", linewidth=1)
        below.annotate(
            f"capacity, {capacity_rps:.0f}/s", (curve.total_s, capacity_rps), (-4, 5), textcoords="offset points",
            ha="right",
        )  # fmt: skip
        _lines(below, runs, scheme, lambda series: series.goodput)
        below.set_ylim(-0.02 * capacity_rps, capacity_rps * 1.35)  # a line at zero must not hide in the axis
        below.set_ylabel("answers in time, per second")
        below.set_xlabel("seconds")
        below.set_title("What they get: answers within a second of asking")
        below.legend(loc="upper left", ncols=3, frameon=False)
        return figure


def innocents(runs: Runs, curve: Spike, scheme: Scheme) -> Figure:
    """Draw the share of innocents who were served in time."""
    with drawn_in(scheme):
        figure, axes = _single(curve, scheme)
        _lines(axes, runs, scheme, lambda series: [None if v is None else v * 100 for v in series.innocents])
        axes.set_ylim(-1.5, 105)
        axes.set_ylabel("served in time, %")
        _legend(axes)
        return figure


def queue_wait(runs: Runs, curve: Spike, scheme: Scheme) -> Figure:
    """Draw how long requests had waited when saber saw them."""
    with drawn_in(scheme):
        figure, axes = _single(curve, scheme)
        _lines(axes, runs, scheme, lambda series: series.queue_wait_ms)
        axes.margins(y=0.08)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("waited before saber, ms (p95)")
        _legend(axes)
        return figure


def shed_share(runs: Runs, curve: Spike, scheme: Scheme) -> Figure:
    """Draw the share of requests that saber refused."""
    with drawn_in(scheme):
        figure, axes = _single(curve, scheme)
        _lines(axes, runs, scheme, lambda series: [None if v is None else v * 100 for v in series.shed_share])
        axes.set_ylim(-1.5, 105)
        axes.set_ylabel("refused by saber, %")
        _legend(axes)
        return figure


def trips(runs: Runs, curve: Spike, scheme: Scheme) -> Figure:
    """Draw when circuits tripped and how long they stayed open, a row for each edge of each run."""
    edges = sorted({edge for run in runs.values() for _, edge in run.trips} | {"grouper -> saber", "topps -> grouper"})
    rows = [(phase, edge) for phase in PHASES[1:] if phase in runs for edge in edges]
    with drawn_in(scheme):
        figure, axes = _single(curve, scheme, height=0.6 + 0.36 * len(rows))
        for at, (phase, edge) in enumerate(rows):
            moments = [moment for moment, where in runs[phase].trips if where == edge]
            axes.axhline(at, color=scheme.faint, linewidth=0.5, zorder=1)
            bars = [(start, end - start) for start, end, where in runs[phase].open if where == edge]
            # Processes overlap: the more of them have their circuit open, the denser the bar.
            axes.broken_barh(bars, (at - 0.28, 0.56), color=scheme.runs[phase], alpha=0.3, linewidth=0, zorder=2)
            axes.scatter(moments, [at] * len(moments), color=scheme.runs[phase], marker="X", s=55, zorder=3)
            axes.annotate(f"{len(moments)}", (1.01, at), xycoords=("axes fraction", "data"), va="center")
        axes.set_yticks(range(len(rows)), [f"{phase}: {edge.replace('->', '→')}" for phase, edge in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        return figure


def _single(curve: Spike, scheme: Scheme, height: float = 2.9) -> tuple[Figure, "Axes"]:
    figure = Figure(figsize=(9.6, height), layout="constrained")
    axes = figure.subplots()
    _seconds_axis(axes, curve, scheme)
    axes.set_xlabel("seconds")
    return figure, axes
