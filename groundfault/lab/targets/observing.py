"""What the services of a target wrote down, made into series by second."""

from collections.abc import Iterable, Mapping
from math import floor
from pathlib import Path
from typing import Any, Final

from groundfault.lab.journal import Reader
from groundfault.lab.runs.record import Edge, Service
from groundfault.vocabulary import Outcome, State

__all__ = ["edges_of", "observed", "services_of"]

_BAD: Final = frozenset({Outcome.FAILURE.value, Outcome.TIMEOUT.value})
_NEVER_MADE: Final = frozenset(
    {
        Outcome.BULKHEAD_FULL.value,
        Outcome.CIRCUIT_OPEN.value,
        Outcome.THROTTLED.value,
        Outcome.UNHEALTHY.value,
    }
)
_SHED: Final = 503


def observed(directory: Path, began: float, seconds: int) -> tuple[list[Service], list[Edge]]:
    """Read all journals of a directory."""
    rows = [{**row, "t": row["t"] - began} for row in Reader(directory, "*-*.jsonl").new()]
    rows.sort(key=lambda row: float(row["t"]))
    return services_of(rows, seconds), edges_of(rows, seconds)


def services_of(rows: Iterable[Mapping[str, Any]], seconds: int) -> list[Service]:
    """Return what came to each service, and what it answered, when it did. Its own 503s are what it shed."""
    services: dict[str, Service] = {}
    for row in rows:
        if row["event"] != "door":
            continue
        service = services.get(row["by"])
        if service is None:
            service = services[row["by"]] = Service(
                name=row["by"], arrived=[0] * seconds, shed=[0] * seconds, answered=[0] * seconds
            )
        came = floor(row["t"])
        went = floor(row["t"] + row["took_s"])
        if 0 <= came < seconds:
            service.arrived[came] += 1
        if 0 <= went < seconds:
            (service.shed if row["status"] == _SHED else service.answered)[went] += 1
    return list(services.values())


def edges_of(rows: Iterable[Mapping[str, Any]], seconds: int) -> list[Edge]:
    """Return the calls of each service to others, and what its circuits did. ``rows`` are in order of time."""
    edges: dict[tuple[str, str], Edge] = {}
    opened: dict[tuple[Any, ...], float] = {}
    for row in rows:
        event = str(row["event"])
        if event != "command.done" and not event.startswith("circuit."):
            continue
        key = (row["by"], row["resource"])
        edge = edges.get(key)
        if edge is None:
            edge = edges[key] = Edge(
                caller=key[0], callee=key[1], calls=[0] * seconds, bad=[0] * seconds, refused=[0] * seconds
            )
        if event == "command.done":
            _count(edge, row, seconds)
        else:
            _move(edge, row, opened)
    for (caller, resource, *_), since in opened.items():
        edges[caller, resource].open.append((since, float(seconds)))
    return list(edges.values())


def _count(edge: Edge, row: Mapping[str, Any], seconds: int) -> None:
    second = floor(row["t"])
    if not 0 <= second < seconds:
        return
    if row["outcome"] in _NEVER_MADE:
        edge.refused[second] += 1
    else:
        edge.calls[second] += 1
        edge.bad[second] += row["outcome"] in _BAD


def _move(edge: Edge, row: Mapping[str, Any], opened: dict[tuple[Any, ...], float]) -> None:
    circuit = (row["by"], row["resource"], row["command"], row["pid"])
    t = float(row["t"])
    if row["new"] == State.OPEN.value and row["old"] == State.CLOSED.value:
        edge.trips.append(t)
        opened[circuit] = t
    elif row["new"] == State.CLOSED.value and circuit in opened:
        edge.open.append((opened.pop(circuit), t))
