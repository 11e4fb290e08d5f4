"""The service map as the console shows it: of the window, in layers. Pure.

Layers are found anew only when a node or an edge comes or goes.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from groundfault.console.figures import finite, percent, short
from groundfault.console.observing import Observer
from groundfault.console.tracks import ENOUGH_S
from groundfault.console.view import POINT_S, POINTS, WINDOW_S, Level, MapEdge, MapNode, MapView
from groundfault.metrics.report import ADMITTED, Report
from groundfault.servicemap.graph import SHED, Edge, Node, Seen, ServiceMap, draw_up
from groundfault.servicemap.layout import NODES, Place, folded, layered

__all__ = ["EDGES", "map_of", "seen_by"]

EDGES: Final = 400
"""More than so many cannot be followed on a page; the least used of any more are one."""

_KEPT_S: Final = POINTS * POINT_S  # so long an edge stays on the map without traffic
_AGAINST: Final = ("failure", "timeout")
_NOT_SENT: Final = ("circuit-open", "bulkhead-full", "throttled", "unhealthy")
_BAD: Final = 0.05
_POOR: Final = 0.01
_HALF: Final = 0.5
_ENOUGH: Final = 10  # calls in the window, for a share of them to say something

Counts = dict[str, float]
Pair = tuple[str, str]


def map_of(observers: Sequence[Observer]) -> MapView:
    """Return the map of all that these have seen in the window."""
    drawn = folded(draw_up(_together(seen_by(each) for each in observers), limit=EDGES), NODES)
    places = _places(
        tuple(node.name for node in drawn.nodes), tuple((edge.caller, edge.callee) for edge in drawn.edges)
    )
    edges = [_edge(edge, places) for edge in drawn.edges]
    return {"nodes": _nodes(drawn, edges, places), "edges": edges, "notes": list(drawn.notes)}


@lru_cache(maxsize=8)
def _places(names: tuple[str, ...], edges: tuple[Pair, ...]) -> dict[str, Place]:
    return layered(names, edges)


def seen_by(observer: Observer) -> Seen:
    """Return what was counted in the window, in calls per :data:`WINDOW_S`.

    Edges without traffic stay for two minutes, and those of resources that a living process has for as long as it has.
    """
    report = observer.report
    if report is None or not observer.marks:
        return Seen()
    first, last = observer.marks[0], observer.marks[-1]
    span_s = last.clock_s - first.clock_s
    scale = WINDOW_S / max(span_s, ENOUGH_S)
    calls = _calls(first.edges, last.edges, scale)
    requests: dict[Pair, Counts] = {}
    waits_s: dict[Pair, float] = {}
    totals: dict[str, Counts] = {}
    for name, server in last.servers.items():
        base = first.servers.get(name)
        known = {} if base is None else base.callers
        for (caller, reason), (times, wait_s) in server.callers.items():
            before = known.get((caller, reason), (0, 0.0))
            counts = requests.setdefault((caller, name), {})
            _add(counts, ADMITTED if reason == ADMITTED else SHED, max(0, times - before[0]) * scale)
            waits_s[caller, name] = waits_s.get((caller, name), 0.0) + max(0.0, wait_s - before[1]) * scale
        totals[name] = {}
        earlier = {} if base is None else base.requests
        for key, times in server.requests.items():
            _add(totals[name], ADMITTED if key[0] == ADMITTED else SHED, max(0, times - earlier.get(key, 0)) * scale)
    _pass_over(observer, report, calls, requests, totals)
    return Seen(calls, requests, {key: waits_s[key] for key in requests}, totals, WINDOW_S)


def _calls(
    earlier: dict[tuple[str, str, str], int], later: dict[tuple[str, str, str], int], scale: float
) -> dict[Pair, Counts]:
    calls: dict[Pair, Counts] = {}
    known = earlier.get
    for edge, times in later.items():
        caller, resource, outcome = edge
        _add(calls.setdefault((caller, resource), {}), outcome, max(0, times - known(edge, 0)) * scale)
    return calls


def _pass_over(
    observer: Observer,
    report: Report,
    calls: dict[Pair, Counts],
    requests: dict[Pair, Counts],
    totals: dict[str, Counts],
) -> None:
    """Take away what has had no traffic for long: of a resource that nobody has any more, or of processes long dead."""
    now, drawn = observer.looked_at, observer.drawn
    resources = {resource for (resource, _), command in report.commands.items() if command.states}
    for kind, held in (("calls", calls), ("requests", requests)):
        for pair, counts in list(held.items()):
            if any(counts.values()):
                drawn[kind, *pair] = now
            elif not (kind == "calls" and pair[1] in resources) and (kind, *pair) not in drawn:
                del held[pair]
    for key in [key for key, at in drawn.items() if now - at > _KEPT_S]:
        del drawn[key]
    for name in list(totals):
        if not report.servers[name].signals if name in report.servers else True:
            asked = any(totals[name].values()) or any(service == name for _, service in requests)
            if not asked:
                del totals[name]


def _together(seen: Iterable[Seen]) -> Seen:
    whole = Seen({}, {}, {}, {}, WINDOW_S)
    calls: dict[Pair, Counts] = {}
    requests: dict[Pair, Counts] = {}
    waits_s: dict[Pair, float] = {}
    totals: dict[str, Counts] = {}
    for each in seen:
        for edge, outcomes in each.calls.items():
            for what, times in outcomes.items():
                _add(calls.setdefault(edge, {}), what, times)
        for edge, results in each.requests.items():
            for what, times in results.items():
                _add(requests.setdefault(edge, {}), what, times)
        for edge, wait_s in each.waits_s.items():
            waits_s[edge] = waits_s.get(edge, 0.0) + wait_s
        for name, results in each.totals.items():
            mine = totals.setdefault(name, {})
            for what, times in results.items():
                _add(mine, what, times)
    return Seen(calls, requests, waits_s, totals, whole.span_s)


def _add(counts: Counts, what: str, times: float) -> None:
    counts[what] = counts.get(what, 0.0) + times


def _edge(edge: Edge, places: dict[str, Place]) -> MapEdge:
    failed, shed, not_sent = edge.share(*_AGAINST), edge.share(SHED), edge.share(*_NOT_SENT)
    level: Level = "ok"
    if failed >= _BAD or edge.share("circuit-open") >= _BAD or shed >= _HALF:
        level = "bad" if edge.volume >= _ENOUGH else "warn"
    elif shed + not_sent >= _POOR or failed >= _POOR:
        level = "warn"
    return {
        "caller": edge.caller,
        "callee": edge.callee,
        "resource": edge.resource,
        "rate_per_s": short(edge.volume / WINDOW_S),
        "failed_share": short(failed),
        "shed_share": short(shed),
        "not_sent_share": short(not_sent),
        "wait_s": finite(edge.wait_s),
        "level": level,
        "back": places[edge.callee].layer <= places[edge.caller].layer,
        "notes": list(edge.notes),
    }


def _nodes(drawn: ServiceMap, edges: list[MapEdge], places: dict[str, Place]) -> list[MapNode]:
    troubled: dict[str, list[MapEdge]] = {}
    for row in edges:
        if row["rate_per_s"] and row["failed_share"] + row["shed_share"] + row["not_sent_share"] >= _POOR:
            troubled.setdefault(row["caller"], []).append(row)
    requests: dict[str, Counts] = {}
    for edge in drawn.edges:
        # What a silent callee sheds is known from its callers alone.
        known = edge.requests or {SHED: edge.calls.get(SHED, 0), ADMITTED: edge.volume - edge.calls.get(SHED, 0)}
        for what, times in known.items():
            _add(requests.setdefault(edge.callee, {}), what, times)
    return [_node(each, troubled.get(each.name, []), requests.get(each.name, {}), places) for each in drawn.nodes]


def _node(node: Node, troubled: list[MapEdge], requests: Counts, places: dict[str, Place]) -> MapNode:
    total = sum(requests.values())
    shed = requests.get(SHED, 0.0) / total if total else 0.0
    notes = list(node.notes)
    if shed >= _POOR:
        notes.insert(0, f"sheds {percent(shed)} of its requests")
    worst = max((row["failed_share"] + row["shed_share"] + row["not_sent_share"] for row in troubled), default=0.0)
    level: Level = "ok"
    if shed >= _BAD or (worst >= _HALF and any(row["level"] == "bad" for row in troubled)):
        level = "bad"
    elif shed >= _POOR or troubled:
        level = "warn"
    place = places[node.name]
    return {
        "name": node.name,
        "kind": node.kind,
        "layer": place.layer,
        "row": place.row,
        "level": level,
        "suffers": bool(troubled),
        "sheds": shed >= _POOR,
        "notes": notes,
    }
