"""What the plots show, in numbers: for whoever listens to a page, and for whoever wants to know exactly. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from groundfault.lab.reports.figures import FATES, scarce
from groundfault.lab.reports.thinning import Grid, added
from groundfault.lab.reports.wording import clock, figure, shown
from groundfault.lab.runs.measures import Bound, evaluate
from groundfault.lab.runs.record import Edge, Run, Service

__all__ = ["Table", "by_second", "edges", "fates", "latency", "services", "settings", "shares", "spans"]

_ROWS: Final = 60
_CELLS: Final = 1500
_DEEP: Final = 4


@dataclass(frozen=True, slots=True)
class Table:
    """Texts: the heads of the columns, and rows, the first cell of which is the row's head."""

    columns: list[str]
    rows: list[list[str]]
    note: str = ""


def by_second(
    run: Run, columns: Mapping[str, Callable[[Grid], Sequence[str]]], start: float = 0.0, end: float | None = None
) -> Table:
    """Return a table with a row for each second, or for as many seconds as make the table short enough."""
    grid = Grid.of(
        start,
        run.seconds if end is None else min(end, run.seconds),
        max(12, min(_ROWS, _CELLS // max(1, len(columns)))),
    )
    made = [column(grid) for column in columns.values()]
    times = [clock(start, run.seconds) for start in grid.starts]
    note = (
        "" if grid.step == 1 else f"A row stands for {grid.step} seconds: rates are their mean, all else their worst."
    )
    rows = [list(row) for row in zip(times, *made, strict=True)]
    return Table(["from", *(shown(name, 60) for name in columns)], rows, note)


def fates(run: Run, start: float = 0.0, end: float | None = None) -> Table:
    """Return what the headline shows."""
    streams = scarce(run)

    def rate(name: str) -> Callable[[Grid], list[str]]:
        return lambda grid: [f"{value:,.4g}" for value in grid.rates(added(streams, name, run.seconds))]

    named = {f"{title}, /s": rate(fate) for fate, (title, _) in FATES.items() if any(added(streams, fate, run.seconds))}
    return by_second(run, {"asked for, /s": rate("due"), "goodput, /s": rate("arrived"), **named}, start, end)


def shares(values: Callable[[Grid], Sequence[float | None]]) -> Callable[[Grid], list[str]]:
    """Return a column of percentages."""
    return lambda grid: ["" if value is None else f"{value:.1f} %" for value in values(grid)]


def latency(run: Run) -> Table:
    """Return what the plot of latencies shows."""

    def percentile(share: float) -> Callable[[Grid], list[str]]:
        return lambda grid: [_ms(value) for value in grid.percentiles_ms(scarce(run), share)]

    return by_second(run, {"median": percentile(0.5), "p99": percentile(0.99)})


def _ms(value: float | None) -> str:
    return "" if value is None else figure(value, "ms")


def spans(run: Run) -> Table:
    """Return the figures of the whole run and of each of its spans, for each stream."""
    names = ["goodput_rps", "success", "late", "shed", "failed", "unsent", "p50_ms", "p99_ms"]
    heads = ["good/s", "in time", "too late", "shed", "failed", "not sent", "median", "p99"]
    rows = []
    for span in (None, *list(run.spans)[:12]):
        for stream in run.streams[:12]:
            checks = [evaluate(run, Bound(measure=name, stream=stream.name, span=span)) for name in names]
            when = "whole run" if span is None else span
            cells = ["–" if check.value is None else figure(check.value, check.unit) for check in checks]  # noqa: RUF001  a dash in a cell
            rows.append([shown(f"{when}, {stream.name}", 60), _due(run, stream.name, span), *cells])
    return Table(["span, stream", "asked for", *heads], rows)


def _due(run: Run, name: str, span: str | None) -> str:
    start, end = (0.0, float(run.seconds)) if span is None else run.spans[span]
    stream = run.stream(name)
    return f"{sum(stream.due[int(start) : max(int(start) + 1, int(end))]):,}" if stream else ""


def services(found: Sequence[Service]) -> Table:
    """Return one row for each service, and the columns that any of them has something to say in."""
    columns = ["service", "came", "shed", "longest queue wait, p95", "busiest second", "instances"]
    rows = [_service(each) for each in found]
    told = [at for at in range(len(columns)) if at == 0 or any(row[at] for row in rows)]
    return Table([columns[at] for at in told], [[row[at] for at in told] for row in rows])


def _service(each: Service) -> list[str]:
    came, shed = sum(each.arrived), sum(each.shed)
    wait = max((value for value in each.wait_p95_ms if value is not None), default=None)
    busiest = max((value for value in each.busy if value is not None), default=None)
    few, many = min(each.instances, default=0), max(each.instances, default=0)
    instances = str(many) if few == many else f"{few} to {many}"
    return [
        shown(each.name, 60),
        f"{came:,}",
        f"{shed:,} ({figure(shed / came, 'share')})" if came else f"{shed:,}",
        _ms(wait),
        "" if busiest is None else figure(busiest, "share"),
        instances if each.instances else "",
    ]


def edges(run: Run) -> Table:
    """Return one row for each edge: what was called, and how its circuits fared."""
    columns = ["edge", "calls", "bad", "refused", "trips", "not closed for", "closed again"]
    return Table(columns, [_edge(edge, run) for edge in run.edges])


def _edge(edge: Edge, run: Run) -> list[str]:
    calls, bad, refused = sum(edge.calls), sum(edge.bad), sum(edge.refused)
    return [
        shown(edge.name, 80),
        f"{calls:,}",
        f"{bad:,} ({figure(bad / calls, 'share')})" if calls else f"{bad:,}",
        f"{refused:,}",
        str(len(edge.trips)),
        figure(round(_covered(edge.open), 1), "s"),
        _closed_again(edge, run),
    ]


def _covered(open_spans: Iterable[tuple[float, float]]) -> float:
    """Return for how long any circuit was not closed."""
    covered, until = 0.0, float("-inf")
    for start, end in sorted(open_spans):
        covered += max(0.0, end - max(start, until))
        until = max(until, end)
    return covered


def _closed_again(edge: Edge, run: Run) -> str:
    if not edge.open:
        return "never open"
    last = max(end for _, end in edge.open)
    return "not within the run" if last >= run.seconds else f"at {clock(round(last, 1), run.seconds)}"


def settings(said: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return settings as names and values, those inside others by names with dots."""
    found: list[tuple[str, str]] = []
    _flatten("", said, found, _DEEP)
    return found[:200]


def _flatten(name: str, value: Any, found: list[tuple[str, str]], deep: int) -> None:
    if isinstance(value, Mapping) and value and deep:
        for inner, each in value.items():
            _flatten(f"{name}.{inner}" if name else str(inner), each, found, deep - 1)
    elif isinstance(value, list) and all(isinstance(each, str | int | float | None) for each in value):
        found.append((shown(name, 80), shown(", ".join(map(_plain, value)), 300)))
    else:
        found.append((shown(name, 80), shown(_plain(value), 300)))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:,g}" if isinstance(value, float) else str(value)
