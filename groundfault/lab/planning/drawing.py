"""A plan as a picture: the curve, what is needed and what is up; and the spike, met by both fleets."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from groundfault.lab.curves import Points
from groundfault.lab.look import Scheme, drawn_in
from groundfault.lab.planning.checking import Fleets, Instances
from groundfault.lab.planning.steps import Planned
from groundfault.lab.runs.record import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MOST", "draw_plan", "draw_spike"]

MOST: Final = 8
"""Services in one picture, the largest first."""
_HOURS: Final = (0.25, 0.5, 1, 2, 3, 6, 12, 24)


def draw_plan(
    curve: Points, origin_s: float, plans: Sequence[Planned], reactive: Mapping[str, Instances], scheme: Scheme
) -> Figure:
    """Draw the curve above each service's levels. ``origin_s``: the second of the day that is the curve's 0."""
    shown = sorted(plans, key=lambda each: -max(level.instances for level in each.levels))[:MOST]
    with drawn_in(scheme):
        figure = Figure(figsize=(9.6, 1.6 + 1.7 * len(shown)), layout="constrained")
        panels = list(figure.subplots(len(shown) + 1, 1, sharex=True, squeeze=False)[:, 0])
        top, *others = panels
        hours = [(origin_s + t) / 3600 for t, _ in curve.points]
        top.fill_between(hours, [rps for _, rps in curve.points], color=scheme.faint, alpha=0.45, linewidth=0)
        top.set_title("What is expected")
        top.set_ylabel("requests/s")
        top.set_ylim(bottom=0)
        for axes, plan in zip(others, shown, strict=True):
            _levels(axes, plan, reactive[plan.service.name], total_s=curve.total_s, origin_s=origin_s, scheme=scheme)
        handles, labels = others[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        panels[-1].set_xlim(hours[0], hours[-1])
        span = hours[-1] - hours[0]
        panels[-1].xaxis.set_major_locator(MultipleLocator(next((each for each in _HOURS if span / each <= 14), 24)))  # noqa: PLR2004  so many fit
        panels[-1].xaxis.set_major_formatter(
            FuncFormatter(lambda hour, _: f"{int(hour) % 24}:{round(hour * 60) % 60:02d}")
        )
        figure.align_ylabels(panels)
        return figure


def _levels(
    axes: "Axes", plan: Planned, reactive: Instances, *, total_s: float, origin_s: float, scheme: Scheme
) -> None:
    def hour(t: float) -> float:
        return (origin_s + t) / 3600

    edges = [hour(min(slot * plan.step_s, total_s)) for slot in range(len(plan.needs) + 1)]
    axes.stairs(plan.needs, edges, fill=True, color=scheme.faint, alpha=0.35, label="needed", zorder=1)
    xs, ys = _stairs(reactive, total_s)
    axes.plot([hour(x) for x in xs], ys, color=scheme.several[1], linestyle=(0, (1.2, 1.2)), linewidth=1.6,
              label="a reactive autoscaler has", zorder=2)  # fmt: skip
    steps = [(level.start * plan.step_s, level.instances) for level in plan.levels]
    xs, ys = _stairs(steps, total_s)
    axes.plot([hour(x) for x in xs], ys, color=scheme.several[0], linewidth=2.4, label="planned", zorder=3)
    orders = [change for change in plan.changes if change.after > change.before]
    axes.scatter(
        [hour(max(change.order_at, 0.0)) for change in orders],
        [change.before for change in orders],
        color=scheme.several[0],
        marker="^",
        s=42,
        label="ordered",
        zorder=4,
    )
    axes.set_title(plan.service.name)
    axes.set_ylabel("instances")
    axes.set_ylim(0, max(*ys, *plan.needs) * 1.15)


def _stairs(steps: Instances, total_s: float) -> tuple[list[float], list[float]]:
    xs: list[float] = []
    ys: list[float] = []
    for at, (t, number) in enumerate(steps):
        xs += [t, steps[at + 1][0] if at + 1 < len(steps) else total_s]
        ys += [number, number]
    return xs, ys


def draw_spike(fleets: Fleets, scheme: Scheme) -> Figure:
    """Draw what was asked for and what was served in time, by both fleets, second by second."""
    with drawn_in(scheme):
        figure = Figure(figsize=(9.6, 3.4), layout="constrained")
        axes = figure.subplots()
        low, high = fleets.plan.spans["spike"]
        axes.axvspan(low, high, color=scheme.band, linewidth=0, zorder=0)
        due = _rates(fleets.plan, "due", fleets.sample)
        axes.plot(*due, color=scheme.ink, linewidth=1, linestyle="dashed", label="asked for", zorder=2)
        looks: tuple[tuple[str, Run, str, Any, float], ...] = (
            ("a reactive autoscaler", fleets.reactive, scheme.several[1], (0, (1.2, 1.2)), 2.0),
            ("the plan", fleets.plan, scheme.several[0], "solid", 2.4),
        )
        for name, run, color, dash, width in looks:
            axes.plot(*_rates(run, "arrived", fleets.sample), color=color, linestyle=dash, linewidth=width, zorder=3,
                      label=f"served in time with {name}")  # fmt: skip
        axes.set_xlim(0, fleets.plan.seconds)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("seconds")
        axes.set_ylabel("requests/s")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, borderaxespad=0.2)
        return figure


def _rates(run: Run, name: str, sample: int) -> tuple[list[float], list[float]]:
    """Return the middles of seconds and the rates in them, of the whole fleet; several seconds in one if it is long."""
    values = [sum(getattr(stream, name)[second] for stream in run.streams) * sample for second in range(run.seconds)]
    width = max(1, run.seconds // 240)
    starts = range(0, run.seconds - width + 1, width)
    return [start + width / 2 for start in starts], [sum(values[start : start + width]) / width for start in starts]
