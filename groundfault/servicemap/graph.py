"""The map as a value: drawn together from both ends of each edge. Pure.

A caller knows which resource it calls, how often and with what outcome. The callee knows which caller asks it, how
often it refuses, and how long the requests have waited. The label that travels with a request,
``service/resource.command``, joins the two: so the map knows that what *topps* calls ``contest-db`` is the service
*saber*, though nobody has said so anywhere.
Where one end is silent, the map says so and why that may be.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

__all__ = ["OTHER", "OUTSIDE", "Edge", "Node", "Seen", "ServiceMap", "draw_up"]

OUTSIDE: Final = "(no name)"
"""The node for requests that name no caller. No valid name, so no service is called so."""

OTHER: Final = "other"
"""Callers beyond the cap of a process, and edges beyond that of the map."""

LIMIT: Final = 2000
"""Edges of a map, T5 of the threat model; the least used of any more are folded into :data:`OTHER`."""

_SILENT: Final = "does not report: a database, somebody else's service, or a hop without GroundFault"

_HALF: Final = 0.5
"""Less than half a request is what rounding leaves of counts that were extrapolated."""

ADMITTED: Final = "admitted"
SHED: Final = "shed"

Counts = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was counted over ``span_s`` seconds, or since the processes began, None.

    ``calls``: by caller and resource, then by outcome. ``requests``: by the caller's label and service, then by result,
    ``admitted`` or ``shed``; ``waits_s``: the sum of their waits. ``totals``: all requests of a service by result,
    those without a caller included.
    """

    calls: Mapping[tuple[str, str], Counts] = field(default_factory=dict)
    requests: Mapping[tuple[str, str], Counts] = field(default_factory=dict)
    waits_s: Mapping[tuple[str, str], float] = field(default_factory=dict)
    totals: Mapping[str, Counts] = field(default_factory=dict)
    span_s: float | None = None

    def since(self, earlier: "Seen", span_s: float) -> "Seen":
        """Return what came after ``earlier``. Where a count has fallen, processes began anew: it is taken whole."""
        return Seen(
            calls=_less(self.calls, earlier.calls),
            requests=_less(self.requests, earlier.requests),
            waits_s={key: _rise(value, earlier.waits_s.get(key, 0.0)) for key, value in self.waits_s.items()},
            totals=_less(self.totals, earlier.totals),
            span_s=span_s,
        )


def _less(later: Mapping[Any, Counts], earlier: Mapping[Any, Counts]) -> dict[Any, Counts]:
    return {
        key: {what: _rise(times, earlier.get(key, {}).get(what, 0)) for what, times in counts.items()}
        for key, counts in later.items()
    }


def _rise(later: float, earlier: float) -> float:
    return later - earlier if later >= earlier else later


@dataclass(frozen=True, slots=True)
class Node:
    """``kind``: ``service``, ``resource`` (called, but silent), ``outside`` or ``other``. ``notes`` are for people."""

    name: str
    kind: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Edge:
    """One caller and one callee. ``resource``: what the caller calls it, None where only the callee speaks.

    ``calls``: by outcome, as the caller counts them; ``requests``: by result, as the callee does. Empty: that end is
    silent. ``wait_s``: how long a request had waited at the callee, on the average; None where nothing tells.
    """

    caller: str
    callee: str
    resource: str | None
    calls: Counts
    requests: Counts
    wait_s: float | None
    notes: tuple[str, ...] = ()

    @property
    def volume(self) -> float:
        """How many there were, as the end says that saw more."""
        return max(sum(self.calls.values()), sum(self.requests.values()))

    def share(self, *outcomes: str) -> float:
        """Return the share of the calls that ended so; of the requests, where the caller is silent."""
        counts = self.calls or self.requests
        total = sum(counts.values())
        return sum(counts.get(outcome, 0) for outcome in outcomes) / total if total else 0.0


@dataclass(frozen=True, slots=True)
class ServiceMap:
    """Nodes by name, edges by caller and callee. ``span_s``: as in :class:`Seen`."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    span_s: float | None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it; ``rate_per_s`` is None without a span."""
        return {
            "format": 1,
            "span_s": self.span_s,
            "notes": list(self.notes),
            "nodes": [{"name": each.name, "kind": each.kind, "notes": list(each.notes)} for each in self.nodes],
            "edges": [
                {
                    "caller": each.caller,
                    "callee": each.callee,
                    "resource": each.resource,
                    "rate_per_s": None if self.span_s is None else each.volume / self.span_s,
                    "calls": dict(each.calls),
                    "requests": dict(each.requests),
                    "wait_s": each.wait_s,
                    "notes": list(each.notes),
                }
                for each in self.edges
            ],
        }


_Key = tuple[str, str, str | None]


def draw_up(seen: Seen, *, limit: int = LIMIT) -> ServiceMap:
    """Return the map of what was seen. ``limit``: edges beyond which the least used are folded into one node."""
    answering = set(seen.totals) | {service for _, service in seen.requests}
    calling = {caller for caller, _ in seen.calls}
    edges = list(_joined(_heard(seen), seen.calls))
    edges += _from_outside(edges, seen.totals)
    edges, notes = _capped(edges, limit)
    edges = [_explained(edge, answering, calling) for edge in edges]
    return ServiceMap(_nodes(edges, answering, calling), tuple(sorted(edges, key=_place)), seen.span_s, notes)


def _heard(seen: Seen) -> dict[_Key, Edge]:
    """Return the edges that callees know of, with those labels as one that differ in the command only."""
    resources: dict[str, list[str]] = {}
    for caller, name in seen.calls:
        resources.setdefault(caller, []).append(name)
    requests: dict[_Key, dict[str, float]] = {}
    waits_s: dict[_Key, float] = {}
    for (label, service), counts in seen.requests.items():
        caller, resource = _parted(label, resources)
        key = caller, service, resource
        requests[key] = _sum(requests.get(key, {}), counts)
        waits_s[key] = waits_s.get(key, 0.0) + seen.waits_s.get((label, service), 0.0)
    return {key: Edge(*key, {}, counts, _mean(waits_s[key], counts)) for key, counts in requests.items()}


def _parted(label: str, resources: Mapping[str, list[str]]) -> tuple[str, str | None]:
    """Split a label into service and resource. Names may hold dots: what the caller says of itself decides."""
    caller, slash, path = label.partition("/")
    if not slash:
        return caller, None
    known = [name for name in resources.get(caller, ()) if path.startswith(f"{name}.")]
    return caller, max(known, key=len) if known else path.rpartition(".")[0]


def _joined(heard: dict[_Key, Edge], calls: Mapping[tuple[str, str], Counts]) -> Iterator[Edge]:
    """Put what a caller says to the services that have heard it, or to the one that is called so, or by itself."""
    places: dict[tuple[str, str], list[_Key]] = {}
    for key in heard:
        if key[2] is not None:
            places.setdefault((key[0], key[2]), []).append(key)
    for (caller, resource), counts in calls.items():
        keys = places.get((caller, resource), [])
        if not keys and (caller, resource, None) in heard:  # it said who it is, and not what it called
            keys = [(caller, resource, None)]
        if not keys:
            yield Edge(caller, resource, resource, counts, {}, None)
        total = sum(sum(heard[key].requests.values()) for key in keys)
        for key in keys:
            edge = heard.pop(key)
            share = sum(edge.requests.values()) / total if total else 1 / len(keys)
            part = counts if len(keys) == 1 else {outcome: times * share for outcome, times in counts.items()}
            note = f"{resource} stands for {len(keys)} services: its outcomes are divided as the requests are"
            yield replace(edge, resource=resource, calls=part, notes=() if len(keys) == 1 else (note,))
    yield from heard.values()


def _from_outside(edges: list[Edge], totals: Mapping[str, Counts]) -> list[Edge]:
    named: dict[str, dict[str, float]] = {}
    for edge in edges:
        named[edge.callee] = _sum(named.get(edge.callee, {}), edge.requests)
    result = []
    for service, counts in totals.items():
        rest = {what: times - named.get(service, {}).get(what, 0) for what, times in counts.items()}
        rest = {what: times for what, times in rest.items() if times >= _HALF}
        if rest:
            result.append(Edge(OUTSIDE, service, None, {}, rest, None))
    return result


def _explained(edge: Edge, answering: set[str], calling: set[str]) -> Edge:
    notes = list(edge.notes)
    if not edge.requests and edge.callee in answering:
        notes.append(
            f"{edge.callee} does not name {edge.caller} as a caller: it has no adapter of GroundFault's there, no name "
            f"(GROUNDFAULT_SERVICE), or is not among the trusted_callers of {edge.callee}"
        )
    elif not edge.calls and edge.caller in calling and edge.caller not in {OUTSIDE, OTHER}:
        notes.append(f"{edge.caller} counts no such calls: those that it makes here go past its commands")
    return replace(edge, notes=tuple(notes))


def _nodes(edges: list[Edge], answering: set[str], calling: set[str]) -> tuple[Node, ...]:
    names = {edge.caller for edge in edges} | {edge.callee for edge in edges} | answering | calling
    callees = {edge.callee for edge in edges}
    return tuple(_node(name, answering, calling, callees) for name in sorted(names))


def _node(name: str, answering: set[str], calling: set[str], callees: set[str]) -> Node:
    if name == OUTSIDE:
        return Node(
            name, "outside", ("users, or a hop without GroundFault, or one that is not among the trusted_callers",)
        )
    if name == OTHER:
        return Node(name, "other", ("callers and edges beyond the caps",))
    if name in answering:
        return Node(name, "service")
    if name in calling:
        return Node(name, "service", ("makes calls, and serves nobody through a shedder of GroundFault's",))
    if name not in callees:
        return Node(name, "service", ("does not report here: only its name is known, from requests that it makes",))
    return Node(
        name, "resource", ("does not report: a database, somebody else's service, or a hop without GroundFault",)
    )


def _capped(edges: list[Edge], limit: int) -> tuple[list[Edge], tuple[str, ...]]:
    if len(edges) <= limit:
        return edges, ()
    edges = sorted(edges, key=lambda edge: (-edge.volume, _place(edge)))
    kept, folded = edges[:limit], edges[limit:]
    into: dict[str, Edge] = {}
    for edge in folded:
        known = into.get(edge.caller, Edge(edge.caller, OTHER, None, {}, {}, None))
        into[edge.caller] = replace(
            known, calls=_sum(known.calls, edge.calls), requests=_sum(known.requests, edge.requests)
        )
    # One folded edge for each caller may still be too many: then there is one for all.
    rest = list(into.values())
    if len(rest) > limit:
        rest = [
            Edge(OTHER, OTHER, None, _sums(each.calls for each in rest), _sums(each.requests for each in rest), None)
        ]
    return kept + rest, (f"{len(folded)} edges beyond the {limit} most used are folded into {OTHER}",)


def _sums(counts: Any) -> dict[str, float]:
    total: dict[str, float] = {}
    for each in counts:
        total = _sum(total, each)
    return total


def _sum(first: Counts, second: Counts) -> dict[str, float]:
    return {what: first.get(what, 0) + second.get(what, 0) for what in {**first, **second}}


def _mean(waits_s: float | None, requests: Counts) -> float | None:
    total = sum(requests.values())
    return waits_s / total if total and waits_s is not None else None


def _place(edge: Edge) -> tuple[str, str, str]:
    return edge.caller, edge.callee, edge.resource or ""
