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
    """

    goodput: list[float]
    offered: list[float]
    innocents: list[float | None]
    queue_wait_ms: list[float | None]
    shed_share: list[float | None]
    trips: list[tuple[float, str]]


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
    trips: list[tuple[float, str]] = []
    for event in events:
        if not 0 <= event["t"] < seconds:
            continue
        at = int(event["t"])
        if event["event"] == "request.seen" and event["by"] == "saber":
            decided[at] += 1
            shed[at] += event["reason"] is not None
            if event["queue_wait_s"] is not None:
                waits[at].append(event["queue_wait_s"] * 1000)
        elif event["event"] == "circuit.open" and event["old"] == "closed":
            trips.append((event["t"], f"{event['by']} -> {event['resource']}"))
    return Series(
        goodput=goodput,
        offered=offered,
        innocents=[good / all_ if all_ else None for good, all_ in zip(served, asked, strict=True)],
        queue_wait_ms=[percentile(values, 0.95) for values in waits],
        shed_share=[part / all_ if all_ else None for part, all_ in zip(shed, decided, strict=True)],
        trips=sorted(trips),
    )
