"""Values per second of a run, for the plots. Pure, like groundfault/lab/measure.py, whose words it uses."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from groundfault.lab.curves import Spike
from groundfault.lab.measure import Row, percentile

__all__ = ["Series", "series"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One value per second of the run; None where nothing happened that could be measured.

    ``goodput``: good answers to fans, by arrival. ``offered``: fans' requests, by when they were due.
    ``innocents``: share of the innocents due in that second who were served in time.
    ``queue_wait_ms``: 95th percentile of what saber measured. ``shed_share``: of the requests saber decided about.
    ``trips``: (seconds, edge) of every circuit that opened from closed.
    ``open``: (start, end, edge) of every time a circuit was not closed; half-open is not, it lets one call through.
    """

    goodput: list[float]
    offered: list[float]
    innocents: list[float | None]
    queue_wait_ms: list[float | None]
    shed_share: list[float | None]
    trips: list[tuple[float, str]]
    open: list[tuple[float, float, str]]


def series(rows: Sequence[Row], events: Iterable[Mapping[str, Any]], curve: Spike) -> Series:
    """Return the values of one phase, one for each whole second."""
    seconds = ceil(curve.total_s)
    goodput = [0.0] * seconds
    offered = [0.0] * seconds
    asked, served = [0] * seconds, [0] * seconds
    for row in rows:
        at = int(row.due)
        if row.needs_saber:
            offered[at] += 1
            if row.good and row.ended < seconds:
                goodput[int(row.ended)] += 1
        else:
            asked[at] += 1
            served[at] += row.good
    waits: list[list[float]] = [[] for _ in range(seconds)]
    decided, shed = [0] * seconds, [0] * seconds
    changes: list[Mapping[str, Any]] = []
    for event in events:
        if not 0 <= event["t"] < seconds:
            continue
        at = int(event["t"])
        if event["event"].startswith("circuit."):
            changes.append(event)
        elif event["event"] == "request.seen" and event["by"] == "saber":
            decided[at] += 1
            shed[at] += event["reason"] is not None
            if event["queue_wait_s"] is not None:
                waits[at].append(event["queue_wait_s"] * 1000)
    return Series(
        goodput=goodput,
        offered=offered,
        innocents=[good / all_ if all_ else None for good, all_ in zip(served, asked, strict=True)],
        queue_wait_ms=[percentile(values, 0.95) for values in waits],
        shed_share=[part / all_ if all_ else None for part, all_ in zip(shed, decided, strict=True)],
        trips=sorted((change["t"], _edge(change)) for change in changes if _is_trip(change)),
        open=_open_spans(changes, curve.total_s),
    )


def _is_trip(change: Mapping[str, Any]) -> bool:
    return bool(change["new"] == "open" and change["old"] == "closed")


def _edge(change: Mapping[str, Any]) -> str:
    return f"{change['by']} -> {change['resource']}"


def _open_spans(changes: Iterable[Mapping[str, Any]], end: float) -> list[tuple[float, float, str]]:
    """Pair each circuit's trips with its closings; one still open at the end of the run is open until then."""
    since: dict[tuple[Any, ...], tuple[float, str]] = {}
    spans: list[tuple[float, float, str]] = []
    for change in sorted(changes, key=lambda change: float(change["t"])):
        circuit = (change["by"], change["pid"], change["resource"], change["command"])
        if _is_trip(change):
            since[circuit] = (change["t"], _edge(change))
        elif change["new"] == "closed" and circuit in since:
            start, edge = since.pop(circuit)
            spans.append((start, change["t"], edge))
    spans += [(start, end, edge) for start, edge in since.values()]
    return sorted(spans)
