"""Plots of a command's distribution with the proposal on it, for a document: light, and told apart by any eye."""

import re
from collections.abc import Sequence
from math import exp, inf, log
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from groundfault.advise import wording
from groundfault.advise.distribution import Distribution
from groundfault.advise.proposal import Proposal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MOST", "draw", "write_plots"]

MOST: Final = 12
"""Commands in one picture; a directory takes them all."""
_SEGMENTS: Final = 4

_INK: Final = "#1f2328"
_FAINT: Final = "#636c76"
# From Okabe and Ito's palette; no two lines differ by color alone.
_ALL: Final = "#0072b2"
_CUT: Final = "#d55e00"
_OTHERS: Final = (
    ("#009e73", (0, (5, 1.5))),
    ("#cc79a7", (0, (1.2, 1))),
    ("#a06a00", (0, (5, 1, 1, 1))),
    ("#000000", (0, (2, 2))),
)
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",  # text stays text: it can be searched and read aloud
    "svg.hashsalt": "groundfault-advise",
    "font.family": "sans-serif",
    "font.size": 10,
    "figure.facecolor": "#ffffff",
    "axes.facecolor": "#ffffff",
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": _INK,
    "text.parse_math": False,  # names come from logs
    "xtick.color": _INK,
    "ytick.color": _INK,
    "hatch.linewidth": 0.6,
}
_STEP: Final = log(1.15)


def write_plots(place: Path, proposals: Sequence[Proposal], key: str | None) -> list[Path]:
    """Draw into a file that ends in ``.svg`` or ``.png``, or into a directory, a file for each command.

    Return what was written. Raises OSError.
    """
    drawn = [each for each in proposals if each.seen.successes.count]
    if place.suffix.lower() in {".svg", ".png"}:
        if drawn:
            _save(draw(drawn[:MOST], key), place)
        return [place] if drawn else []
    place.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for each in drawn:
        stem = re.sub(r"[^A-Za-z0-9._-]", "-", each.path.replace("/", "."))[:100]
        path = place / f"{stem}.svg"
        if path in written:  # names that differ only in what no file name may hold
            path = place / f"{stem}-{len(written)}.svg"
        _save(draw([each], key), path)
        written.append(path)
    return written


def _save(figure: Figure, path: Path) -> None:
    with mpl.rc_context(_STYLE):
        if path.suffix.lower() == ".png":
            figure.savefig(path, format="png", dpi=150)
        else:
            nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
            figure.savefig(path, format="svg", metadata=nothing)


def draw(proposals: Sequence[Proposal], key: str | None) -> Figure:
    """Draw commands one below the other: where their calls lie, and what share is slower than any bound."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 4.9 * len(proposals)), layout="constrained")
        parts = figure.subfigures(len(proposals), 1, squeeze=False, hspace=0.04)
        for part, proposal in zip(parts[:, 0], proposals, strict=True):
            part.suptitle(proposal.path, x=0.01, horizontalalignment="left", weight="bold", fontsize=11)
            above, below = part.subplots(2, 1, sharex=True, height_ratios=(3, 2))
            _draw_one(above, below, proposal, key)
    return figure


def _draw_one(above: "Axes", below: "Axes", proposal: Proposal, key: str | None) -> None:
    successes = proposal.seen.successes
    timeout = proposal.of("timeout_s")
    bounds = [each for each in (proposal.timeout_s, timeout.current if timeout else None) if each is not None]
    low, high = _range(proposal, bounds)
    # A segment that is most of the calls would only be drawn over them.
    few = [view.name for view in proposal.segments if view.share < 0.5]  # noqa: PLR2004  half is most of them
    segments = [name for name in few if proposal.seen.segments[name].successes.count]
    slowest = sorted(segments, key=lambda name: -proposal.seen.segments[name].successes.quantile(0.95))[:_SEGMENTS]
    _curves(above, below, successes, proposal.timeout_s, high)
    for (color, dash), name in zip(_OTHERS, slowest, strict=False):
        own = proposal.seen.segments[name].successes
        view = next(each for each in proposal.segments if each.name == name)
        label = f"{key or 'segment'} {name} ({wording.percent(view.share)} of the calls)"
        above.plot(*_steps(own), color=color, linestyle=dash, linewidth=1.6, label=label)
        below.plot(*_slower(own), color=color, linestyle=dash, linewidth=1.6)
    _marks(above, below, proposal)
    above.set_xscale("log")
    above.set_xlim(low, high)
    above.set_ylim(0, above.get_ylim()[1] * 1.08)  # room for the names of the percentiles
    above.set_yticks([])
    above.spines["left"].set_visible(False)
    above.set_ylabel("calls by duration")
    below.set_yscale("log")
    below.set_ylim(max(0.5 / successes.count, 1e-5), 1.3)
    below.set_ylabel("slower than")
    below.yaxis.set_major_locator(LogLocator(10, numticks=4))
    below.yaxis.set_major_formatter(FuncFormatter(lambda share, _: wording.percent(share)))
    below.yaxis.set_minor_formatter(NullFormatter())
    below.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if high / low < 3000 else (1,), numticks=14))  # noqa: PLR2004  decades that fit with their halves
    below.xaxis.set_major_formatter(FuncFormatter(lambda value_s, _: wording.seconds(value_s)))
    below.xaxis.set_minor_formatter(NullFormatter())
    above.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=2,
        frameon=False,
        borderaxespad=0.3,
        fontsize=8.5,
        handlelength=2.6,
    )


def _range(proposal: Proposal, bounds: Sequence[float]) -> tuple[float, float]:
    """Return the seconds between which something is to be seen."""
    every = [proposal.seen.successes, *(each.successes for each in proposal.seen.segments.values())]
    lows = [each.quantile(0.001) or each.quantile(1.0) / 2 for each in every if each.count]
    highs = [min(each.bound_for(0.0003), 2 * each.quantile(1.0)) for each in every if each.count]
    low, high = min([*lows, *bounds]), max([*highs, *bounds])
    return low / 1.3, high * 1.5


def _steps(durations: Distribution) -> tuple[list[float], list[float]]:
    """Return the outline of equal steps of the logarithm, as a share of the calls."""
    cells = durations.density(max(_STEP, _coarseness(durations)))
    step = max(_STEP, _coarseness(durations))
    xs, ys = [], []
    for cell in range(min(cells), max(cells) + 1):
        height = cells.get(cell, 0.0) / durations.count / step
        xs += [exp(cell * step), exp((cell + 1) * step)]
        ys += [height, height]
    return [xs[0], *xs, xs[-1]], [0.0, *ys, 0.0]


def _coarseness(durations: Distribution) -> float:
    """Return the width of the span that holds the p95: finer steps would show the spans, not the calls."""
    low, high = durations.span_of(0.95)
    return log(high / low) if low > 0 and high < inf else _STEP


def _slower(durations: Distribution) -> tuple[list[float], list[float]]:
    """Return the share of calls that take longer, at the end of each span."""
    spans = [span for span in durations.spans if span[1] < inf]
    every = max(1, len(spans) // 150)
    xs = [high for _, high, _ in spans[::every]] + [spans[-1][1]] if spans else []
    return xs, [durations.share_above(bound_s) or 1e-9 for bound_s in xs]


def _curves(above: "Axes", below: "Axes", successes: Distribution, timeout_s: float | None, high: float) -> None:
    xs, ys = _steps(successes)
    above.fill_between(xs, ys, color=_ALL, alpha=0.18, linewidth=0)
    above.plot(xs, ys, color=_ALL, linewidth=1.8, label=f"all {wording.count(successes.count)} successes")
    slower = _slower(successes)
    below.plot(*slower, color=_ALL, linewidth=1.8)
    if timeout_s is None:
        return
    for axes, (at, heights) in ((above, (xs, ys)), (below, slower)):
        cut = [(x, y) for x, y in zip(at, heights, strict=True) if x >= timeout_s]
        beyond = [(timeout_s, successes.share_above(timeout_s) or 1e-9)] if axes is below else []
        cut = [*beyond, *cut]
        axes.fill_between(
            [x for x, _ in cut],
            [y for _, y in cut],
            facecolor=_CUT,
            edgecolor=_CUT,
            alpha=0.35,
            hatch="////",
            linewidth=0,
        )
        axes.axvspan(timeout_s, high, color=_CUT, alpha=0.06, linewidth=0)


def _marks(above: "Axes", below: "Axes", proposal: Proposal) -> None:
    successes = proposal.seen.successes
    for share in (50, 95, 99):
        at = successes.quantile(share / 100)
        for axes in (above, below):
            axes.axvline(at, color=_FAINT, linewidth=0.8, linestyle=(0, (1, 1.5)), zorder=1)
        above.annotate(
            f"p{share}", (at, 1), (-2, -2), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="right", va="top", fontsize=8, color=_FAINT,
        )  # fmt: skip
    timeout = proposal.of("timeout_s")
    if timeout is None:
        return
    if timeout.current is not None:
        now = f"timeout_s {wording.setting(timeout.current)} now{' (as the calls show)' if timeout.read else ''}"
        _bound((above, below), timeout.current, now, color=_INK, linestyle=(0, (6, 3)), linewidth=1.4)
    if timeout.changes and timeout.value is not None:
        proposed = (
            f"timeout_s {wording.setting(timeout.value)} proposed, cuts off {wording.percent(proposal.cut_share)}"
        )
        _bound((above, below), timeout.value, proposed, color=_CUT, linewidth=2.4)
    slow = proposal.of("slow_call_s")
    if slow is not None and slow.changes and slow.value is not None:
        said = f"slow_call_s {wording.setting(slow.value)} proposed"
        _bound((above, below), slow.value, said, color=_CUT, linestyle=(0, (3, 2)), linewidth=1.4)


def _bound(both: tuple["Axes", "Axes"], at: float, label: str, **style: Any) -> None:
    for axes in both:
        axes.axvline(at, label=label, zorder=3, **style)
