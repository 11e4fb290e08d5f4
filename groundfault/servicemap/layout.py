"""Where the nodes of a map stand: in layers, callers first, with few crossings. Pure, and the same each time.

Circles are broken first: an edge that leads back to a node which a depth-first walk is still in does not count.
Of the rest each node stands one layer below the lowest of its callers: the longest path (Sugiyama's first two steps).
Within a layer nodes stand near the middle of their neighbors, which is where most crossings go (the barycenter rule).
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from groundfault.servicemap.graph import OTHER, Edge, Node, ServiceMap

__all__ = ["NODES", "Place", "folded", "layered"]

NODES: Final = 150
"""More than so many cannot be told apart on a page."""

_SWEEPS: Final = 4

Pair = tuple[str, str]
Counts = Mapping[str, float]


class Place(NamedTuple):
    """``layer``: from 0, callers first; ``row``: from 0, within the layer."""

    layer: int
    row: int


def layered(names: Iterable[str], edges: Iterable[Pair]) -> dict[str, Place]:
    """Return the place of each name. ``edges``: caller and callee; those between names that are not given are ignored.

    An edge leads back, and closes a circle, if its callee's layer is not below its caller's.
    """
    known = sorted(set(names))
    callees: dict[str, list[str]] = {name: [] for name in known}
    for caller, callee in sorted(set(edges)):
        if caller != callee and caller in callees and callee in callees:
            callees[caller].append(callee)
    order = _without_circles(callees)
    layers = dict.fromkeys(known, 0)
    for name in order:
        for callee in callees[name]:
            layers[callee] = max(layers[callee], layers[name] + 1)
    return _ordered(known, layers, callees)


def _without_circles(callees: dict[str, list[str]]) -> list[str]:
    """Take the edges away that close a circle; return the names, each before those that it calls."""
    called = {callee for each in callees.values() for callee in each}
    # From those that nobody calls: they are where a reader begins, too.
    begins = [name for name in callees if name not in called] + [name for name in callees if name in called]
    inside, done = set[str](), set[str]()
    order: list[str] = []
    for begin in begins:
        if begin in done:
            continue
        inside.add(begin)
        path = [(begin, iter(list(callees[begin])))]
        while path:
            name, rest = path[-1]
            callee = next(rest, None)
            if callee is None:
                path.pop()
                inside.discard(name)
                done.add(name)
                order.append(name)
            elif callee in inside:
                callees[name].remove(callee)
            elif callee not in done:
                inside.add(callee)
                path.append((callee, iter(list(callees[callee]))))
    order.reverse()
    return order


def _ordered(names: list[str], layers: dict[str, int], callees: dict[str, list[str]]) -> dict[str, Place]:
    """Put the nodes of each layer in order: down and up again, each to the middle of its neighbors."""
    rows: list[list[str]] = [[] for _ in range(max(layers.values(), default=-1) + 1)]
    for name in names:
        rows[layers[name]].append(name)
    callers: dict[str, list[str]] = {name: [] for name in names}
    for name in names:
        for callee in callees[name]:
            callers[callee].append(name)
    at = {name: float(row) for layer in rows for row, name in enumerate(layer)}
    for sweep in range(_SWEEPS):
        downward = sweep % 2 == 0
        neighbors = callers if downward else callees
        for layer in rows if downward else reversed(rows):
            middles = {
                name: sum(at[each] for each in neighbors[name]) / len(neighbors[name]) if neighbors[name] else at[name]
                for name in layer
            }
            layer.sort(key=lambda name: (middles[name], name))
            at |= {name: float(row) for row, name in enumerate(layer)}
    return {name: Place(layer, row) for layer, each in enumerate(rows) for row, name in enumerate(each)}


def folded(drawn: ServiceMap, limit: int = NODES) -> ServiceMap:
    """Return the map with ``limit`` nodes at most: the least used of more are one, :data:`OTHER`, and it is said."""
    if len(drawn.nodes) <= limit:
        return drawn
    used: dict[str, float] = {}
    for edge in drawn.edges:
        for name in {edge.caller, edge.callee}:
            used[name] = used.get(name, 0.0) + edge.volume
    ranked = sorted(
        (node for node in drawn.nodes if node.name != OTHER), key=lambda node: (-used.get(node.name, 0.0), node.name)
    )
    kept, beyond = ranked[: limit - 1], ranked[limit - 1 :]
    note = f"{len(beyond)} nodes beyond the {len(kept)} most used are folded into {OTHER}"
    nodes = sorted((*kept, Node(OTHER, "other", (note,))), key=lambda node: node.name)
    into = {node.name: node.name for node in kept}
    edges: dict[tuple[str, str, str | None], Edge] = {}
    for edge in drawn.edges:
        caller, callee = into.get(edge.caller, OTHER), into.get(edge.callee, OTHER)
        if (caller, callee) != (edge.caller, edge.callee):
            moved = replace(edge, caller=caller, callee=callee, resource=None, notes=())
        else:
            moved = edge
        key = caller, callee, moved.resource
        edges[key] = _together(edges[key], moved) if key in edges else moved
    placed = sorted(edges.values(), key=lambda edge: (edge.caller, edge.callee, edge.resource or ""))
    return ServiceMap(tuple(nodes), tuple(placed), drawn.span_s, (*drawn.notes, note))


def _together(first: Edge, second: Edge) -> Edge:
    waits = [(each.wait_s, sum(each.requests.values())) for each in (first, second) if each.wait_s is not None]
    times = sum(count for _, count in waits)
    wait_s = sum(wait * count for wait, count in waits) / times if times else None
    return replace(
        first,
        calls=_sum(first.calls, second.calls),
        requests=_sum(first.requests, second.requests),
        wait_s=wait_s,
    )


def _sum(first: Counts, second: Counts) -> dict[str, float]:
    return {what: first.get(what, 0) + second.get(what, 0) for what in {**first, **second}}
