"""The page that shows several runs beside each other, each against the first."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from matplotlib.figure import Figure

from groundfault.lab.reports import overlays, tables, wording
from groundfault.lab.reports.canvas import Window
from groundfault.lab.reports.comparing import lines
from groundfault.lab.reports.figures import scarce
from groundfault.lab.reports.page import Plot, drawn, rendered
from groundfault.lab.reports.tables import Table
from groundfault.lab.reports.thinning import Grid
from groundfault.lab.runs.record import Run

__all__ = ["comparison"]


def comparison(runs: Sequence[Run], labels: Sequence[str], mind: Mapping[str, Sequence[str]]) -> str:
    """Return the page. ``mind``: what must be said of a run, by its label, before anybody compares it."""
    first = runs[0]
    return rendered(
        "comparison.html.j2",
        runs=list(zip(labels, runs, strict=True)),
        first=first,
        mind={label: list(sentences) for label, sentences in mind.items() if sentences},
        lines=lines(runs),
        plots=[drawn(plot, first, number) for number, plot in enumerate(_plots(runs, labels))],
        edges=_edges(runs, labels),
        settings=_settings(runs, labels),
    )


def _plots(runs: Sequence[Run], labels: Sequence[str]) -> Iterator[Plot]:
    def table(values: overlays.Values, text: Callable[[float], str]) -> Table:
        def column(run: Run) -> Callable[[Grid], list[str]]:
            return lambda grid: ["" if value is None else text(value) for value in values(run, _within(grid, run))]

        shortest = min(runs, key=lambda run: run.seconds)
        return tables.by_second(shortest, {label: column(run) for label, run in zip(labels, runs, strict=True)})

    def percent(value: float) -> str:
        return f"{value:.1f} %"

    caption = "Above: what was asked for in the first run. Below: answers that came in time, when they arrived."
    if runs[0].capacity_rps is not None:
        caption += " The dashed line is all that the scarce service could give in the first run."
    yield Plot(
        "The runs",
        caption,
        lambda window: overlays.headline(window, runs, labels),
        table(overlays.goodput, lambda value: f"{value:,.4g}/s"),
    )
    if any(stream.innocent for stream in runs[0].streams) and not all(stream.innocent for stream in runs[0].streams):
        yield Plot(
            "The innocents",
            "Share of those who need nothing that is scarce and were served in time.",
            lambda window: overlays.shares(window, runs, labels, overlays.innocents, "served in time, %"),
            table(overlays.innocents, percent),
        )
    if any(sum(stream.good) for run in runs for stream in scarce(run)):
        yield Plot(
            "How long good answers took",
            "99 of 100 good answers took less. Answers that came too late are not among them.",
            lambda window: overlays.latency(window, runs, labels),
            table(overlays.p99_ms, lambda value: wording.figure(value, "ms")),
        )
    if any(sum(stream.shed) for run in runs for stream in scarce(run)):
        yield Plot(
            "What was shed",
            "Share of the requests due in each second that were refused on purpose.",
            lambda window: _shed(window, runs, labels),
            table(overlays.shed, percent),
        )


def _shed(window: Window, runs: Sequence[Run], labels: Sequence[str]) -> Figure:
    return overlays.shares(window, runs, labels, overlays.shed, "shed, %")


def _within(grid: Grid, run: Run) -> Grid:
    return Grid(grid.start, min(grid.end, run.seconds), grid.step)


def _edges(runs: Sequence[Run], labels: Sequence[str]) -> Table | None:
    """Return how often circuits tripped, by edge, in each run."""
    names = list(dict.fromkeys(edge.name for run in runs for edge in run.edges))
    if not names:
        return None
    trips = [{edge.name: str(len(edge.trips)) for edge in run.edges} for run in runs]
    rows = [[wording.shown(name, 80), *(found.get(name, "–") for found in trips)] for name in names]  # noqa: RUF001  a dash in a cell
    return Table(["edge", *labels], rows)


def _settings(runs: Sequence[Run], labels: Sequence[str]) -> Table | None:
    """Return the settings that are not the same in all runs."""
    found = [dict(tables.settings({**run.settings, "seed": run.seed, "target": run.target})) for run in runs]
    names = list(dict.fromkeys(name for each in found for name in each))
    rows = [[name, *(each.get(name, "–") for each in found)] for name in names]  # noqa: RUF001  a dash in a cell
    rows = [row for row in rows if len(set(row[1:])) > 1]
    return Table(["setting", *labels], rows) if rows else None
