"""The page of one run: it needs nothing from anywhere, and runs no script."""

from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from groundfault.lab import look
from groundfault.lab.reports import figures, services, tables, wording
from groundfault.lab.reports.canvas import NARROW, WIDE, Canvas, Window, worth_shading
from groundfault.lab.reports.tables import Table
from groundfault.lab.reports.thinning import added
from groundfault.lab.runs.record import Edge, Run, Service

__all__ = ["Plot", "drawn", "page", "rendered"]

_ZOOMS: Final = 4
_ZOOM_BELOW: Final = 0.2
"""A span that takes a smaller part of the run than this has a plot of its own, for in the whole it is a few pixels."""

_PLOT: Final = ".plot"


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot on a page. ``draw`` is asked once for each width."""

    title: str
    caption: str
    draw: Callable[[Window], Figure]
    table: Table | None
    start: float = 0.0
    end: float | None = None


def page(run: Run) -> str:
    """Return the page."""
    return rendered(
        "page.html.j2",
        run=run,
        verdict=run.verdict.value,
        judged=any(check.met is not None for check in run.checks),
        missed=[wording.missed(check) for check in run.checks if check.met is False],
        facts=_facts(run),
        spans=tables.spans(run),
        plots=[drawn(plot, run, number) for number, plot in enumerate(_plots(run))],
        services=tables.services(run.services) if run.services else None,
        edges=tables.edges(run) if run.edges else None,
        generator=_generator(run),
        settings=tables.settings(run.settings),
    )


def rendered(template: str, **values: Any) -> str:
    """Return a page of this room. Its policy allows its own style sheet and nothing else."""
    environment = Environment(
        loader=PackageLoader("groundfault.lab", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["plain"] = wording.shown
    style = environment.get_template("look.css").render()
    style += environment.get_template("reports/page.css").render()
    style += f"@media (prefers-color-scheme: dark) {{\n{look.darkened(_PLOT)}\n}}\n"
    return environment.get_template(f"reports/{template}").render(
        style=Markup(style),  # noqa: S704  our own files
        style_hash=b64encode(sha256(f"\n{style}".encode()).digest()).decode(),
        words=wording,
        **values,
    )


def drawn(plot: Plot, run: Run, number: int) -> dict[str, Any]:
    """Return what the template shows of a plot: a drawing for wide screens and one for phones, and its table."""
    end = run.seconds if plot.end is None else plot.end
    drawings = {canvas.name: _drawing(plot, run, end, canvas, f"p{number}-") for canvas in (WIDE, NARROW)}
    return {"title": plot.title, "caption": plot.caption, "table": plot.table, **drawings}


def _drawing(plot: Plot, run: Run, end: float, canvas: Canvas, prefix: str) -> Markup:
    figure = plot.draw(Window(run, plot.start, end, canvas, look.LIGHT))
    drawing = look.standing(look.svg(figure, look.LIGHT), f"{prefix}{canvas.name[0]}", f"Plot: {plot.title}")
    return Markup(drawing)  # noqa: S704  drawn here; matplotlib escapes the texts in it


def _plots(run: Run) -> Iterator[Plot]:
    caption = (
        "Above: what was asked for in each second, and what became of it. Below: answers that came in time, "
        "in the second they arrived."
    )
    if run.capacity_rps is not None:
        caption += " The dashed line is all that the scarce service can give."
    shaded = [wording.shown(name, 40) for name in run.spans if worth_shading(run, name)]
    if shaded:
        caption += f" Shaded: {', '.join(shaded[:12])}."
    step = Window(run, 0, run.seconds, WIDE, look.LIGHT).grid.step
    if step > 1:
        caption += f" A point stands for {step} seconds: rates are their mean, latencies and waits their worst."
    yield Plot("The run", caption, figures.headline, tables.fates(run))
    yield from _zooms(run, step)
    yield from _streams(run)
    yield from _services(run.services, run)
    yield from _circuits(run.edges)


def _zooms(run: Run, step: int) -> Iterator[Plot]:
    short = [
        (name, start, end)
        for name, (start, end) in run.spans.items()
        if step > 1 and start < min(end, run.seconds) and end - start < _ZOOM_BELOW * run.seconds
    ]
    for name, start, end in short[:_ZOOMS]:
        around = max(30.0, 0.5 * (end - start))
        first, last = max(0.0, start - around), min(float(run.seconds), end + around)
        caption = f"The same, from {wording.clock(start, run.seconds)} to {wording.clock(end, run.seconds)}"
        yield Plot(
            f"Near by: {wording.shown(name, 40)}",
            f"{caption} and a little before and after.",
            figures.headline,
            tables.fates(run, first, last),
            first,
            last,
        )


def _streams(run: Run) -> Iterator[Plot]:
    innocents = [stream for stream in run.streams if stream.innocent]
    if innocents and len(innocents) < len(run.streams):
        good, due = (added(innocents, name, run.seconds) for name in ("good", "due"))
        yield Plot(
            "The innocents",
            "Share of those who need nothing that is scarce and were served in time. Each one that was not was taken "
            "down by the others.",
            figures.innocents,
            tables.by_second(run, {"served in time": tables.shares(lambda grid: grid.shares(good, due))}),
        )
    streams = figures.scarce(run)
    if any(sum(stream.good) for stream in streams):
        yield Plot(
            "How long good answers took",
            f"From the moment each request was due; the deadline is {run.deadline_s:g} s.",
            figures.latency,
            tables.latency(run),
        )
    shed, due = (added(streams, name, run.seconds) for name in ("shed", "due"))
    if any(shed):
        yield Plot(
            "What was shed",
            "Share of the requests due in each second that were refused on purpose, as the one who asked saw it.",
            figures.shed,
            tables.by_second(run, {"shed": tables.shares(lambda grid: grid.shares(shed, due))}),
        )


def _services(found: Sequence[Service], run: Run) -> Iterator[Plot]:
    for title, caption, series, unit in (
        ("Queue wait, by service", "How long 95 of 100 requests had waited at most.", services.waits(found), "ms"),
        ("Shed, by service", "Share of the requests that came to a service.", services.shed_shares(found), "share"),
        ("How busy each service was", "Share of its workers at work.", services.busy(found), "share"),
    ):
        if series:
            yield _rows(title, caption, series, unit, run)


def _rows(title: str, caption: str, series: dict[str, list[float | None]], unit: str, run: Run) -> Plot:
    kept = figures.worst_first(series)
    left_out = len(series) - len(kept)
    caption += " The number is the highest; all rows have one scale."
    if left_out:
        caption += f" The {left_out} services with the lowest are not drawn."
    columns = {
        name: (lambda grid, values=values: [_cell(value, unit) for value in grid.worst(values)])
        for name, values in kept.items()
    }
    return Plot(title, caption, lambda window: figures.rows(window, kept, unit), tables.by_second(run, columns))


def _cell(value: float | None, unit: str) -> str:
    return "" if value is None else wording.figure(value, unit)


def _circuits(edges: Sequence[Edge]) -> Iterator[Plot]:
    eventful = sorted((edge for edge in edges if edge.trips or edge.open), key=lambda edge: -len(edge.trips))
    kept = eventful[: figures.MOST_ROWS]
    if kept:
        caption = (
            "A cross is a circuit that tripped; a bar shows how long one was not closed. The table below counts them."
        )
        yield Plot("Circuits that tripped", caption, lambda window: figures.circuits(window, kept), _trips(kept))


def _trips(edges: Sequence[Edge]) -> Table:
    moments = [[wording.shown(edge.name), ", ".join(f"{t:.1f}" for t in edge.trips[:20]) or "none"] for edge in edges]
    return Table(["edge", "seconds at which a circuit tripped (the first 20)"], moments)


def _facts(run: Run) -> list[tuple[str, str]]:
    """Return what the run was, for the lines under its title."""
    started = run.started_at
    facts = {
        "variant": run.variant,
        "target": run.target,
        "made by": run.source,
        "started": "" if started is None else _date(started),
        "length": wording.clock(run.seconds, run.seconds),
        "capacity": "not known" if run.capacity_rps is None else wording.figure(run.capacity_rps, "1/s"),
        "deadline": wording.figure(run.deadline_s, "s"),
        "seed": run.seed,
    }
    return [(name, wording.shown(value)) for name, value in facts.items() if value]


def _date(started: float) -> str:
    try:
        return datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):  # no date that a calendar has
        return f"{started:g} seconds after 1970"


def _generator(run: Run) -> list[tuple[str, str]]:
    due, sent, unsent = (
        sum(sum(getattr(stream, name)) for stream in run.streams) for name in ("due", "sent", "unsent")
    )
    lag = "not known" if run.lag_p99_ms is None else wording.figure(run.lag_p99_ms, "ms")
    return [
        ("requests due", f"{due:,}"),
        ("sent", f"{sent:,}"),
        ("not sent, for it had as many open as it may", f"{unsent:,}"),
        ("its own lag, p99", lag),
    ]
