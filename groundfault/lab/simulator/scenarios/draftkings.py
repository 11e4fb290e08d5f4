"""An NFL Sunday at a fantasy sports company: a million requests a minute when Gronkowski scores.

The fleet is made up, see :mod:`groundfault.lab.simulator.scenarios.fleet`; so is the day. What is true of it is its
shape: a few routes that everybody opens at once at a touchdown, served by services that were built for about twice
the usual load of a game, next to routes whose users want something else and are the innocents.
"""

from collections import defaultdict
from collections.abc import Iterator
from math import ceil
from typing import Any, Final

from groundfault.lab.simulator.scenarios.fleet import CALLED_BY_EDGES, EDGES, FLEET, Kind, Link

__all__ = ["SPIKE", "SUNDAY", "document"]

SPIKE: Final = "draftkings"
SUNDAY: Final = "draftkings-sunday"
TITLES: Final = {
    SPIKE: "87 services, a touchdown, a million requests a minute: three and a half minutes at full rate",
    SUNDAY: "the same fleet from ten in the morning to eleven at night; meant for --sample 1/50",
}

_USUAL_RPS: Final = {
    "scores": 1000.0,
    "lineup": 900.0,
    "lobby": 450.0,
    "contest": 200.0,
    "wallet": 100.0,
    "profile": 150.0,
}
"""The usual load of a game, by route."""
_FANS: Final = ("scores", "lineup")  # what everybody opens at a touchdown
_FACTOR: Final = 8.0
_PEAK_RPS: Final = 1_000_000 / 60
_OTHERS_FACTOR: Final = (_PEAK_RPS - _FACTOR * sum(_USUAL_RPS[name] for name in _FANS)) / sum(
    rps for name, rps in _USUAL_RPS.items() if name not in _FANS
)
_COMES_IN_AT: Final = {"lobby": "edge-web", "wallet": "edge-web", "profile": "edge-partner"}  # others: edge-mobile

_USED: Final = 0.45  # of itself, by a service at the usual load
_USED_AT_PEAK: Final = 0.6  # by what was built for the spike
_WORKERS: Final = 2
_THREADS: Final = 2
_LEAST: Final = 3  # instances: one may be deployed and one may be sick
_EDGE_MS: Final = 0.5
_TIMEOUTS_S: Final = (0.9, 0.75, 0.6, 0.5, 0.4)  # by depth
_DEADLINE_S: Final = 1.0


def document(name: str) -> dict[str, Any]:
    """Return one of the two scenarios, as a scenario file holds it. KeyError for another name."""
    return {"name": name, "title": TITLES[name], "deadline_s": _DEADLINE_S, **_PARTS[name]()}


def _spike() -> dict[str, Any]:
    def curve(route: str) -> dict[str, Any]:
        factor = _FACTOR if route in _FANS else _OTHERS_FACTOR
        return {
            "spike": {
                "base_rps": _USUAL_RPS[route],
                "factor": round(factor, 6),
                "before_s": 60,
                "spike_s": 60,
                "after_s": 90,
                "rise_s": 2,
            }
        }

    return {
        "capacity_rps": _capacity_rps(),
        "bounds": [
            "goodput@spike>=0.9",
            "success.innocent@spike>=0.98",
            "success@before>=0.999",
            "recovery_s@after<=10",
            "p99_ms@spike",
            "trips<=0",
        ],
        "services": _services(),
        "streams": [_stream(route, curve(route)) for route in _USUAL_RPS],
    }


# Of the usual load of a game: (hour of the day, times). Lineups lock at 13:00, 16:25 and 20:20.
_DAY: Final = (
    *((10, 0.25), (11, 0.4), (12, 0.8), (12.9, 1.6), (13.1, 1.2), (14, 1.0)),
    *((16, 1.1), (16.4, 1.6), (16.6, 1.1), (19, 0.9), (20, 1.1), (20.3, 1.4), (20.5, 0.9), (22, 0.7), (23, 0.4)),
)
_TOUCHDOWNS: Final = ((13.5, 5.0), (14.25, 6.0), (15.4, 8.0), (17.2, 5.0), (18.5, 6.0), (20.9, 7.0), (22.1, 4.0))
"""The hour, and how many times the usual load of a game fans ask for; for a minute each."""
_TOUCHDOWN_S: Final = 60.0


def _sunday() -> dict[str, Any]:
    start = _DAY[0][0]
    total_s = (_DAY[-1][0] - start) * 3600.0

    def at(hour: float) -> float:
        return round((hour - start) * 3600.0, 3)

    day = [(at(hour), times) for hour, times in _DAY]

    def curve(route: str) -> dict[str, Any]:
        rps = _USUAL_RPS[route]
        points = [(second, round(times * rps, 3)) for second, times in day]
        if route in _FANS:
            for hour, times in _TOUCHDOWNS:
                points += _bump(at(hour), _between(day, at(hour)) * rps, times * rps)
        return {"points": [list(point) for point in sorted(points, key=lambda point: point[0])]}

    spans = {
        f"touchdown-{number}": [at(hour), at(hour) + _TOUCHDOWN_S] for number, (hour, _) in enumerate(_TOUCHDOWNS, 1)
    }
    worst = 1 + max(range(len(_TOUCHDOWNS)), key=lambda number: _TOUCHDOWNS[number][1])
    spans["spike"] = spans[f"touchdown-{worst}"]
    return {
        "total_s": total_s,
        "capacity_rps": _capacity_rps(),
        "spans": spans,
        "bounds": [
            "goodput>=0.95",
            "success.innocent>=0.99",
            *(f"goodput@touchdown-{number}" for number in range(1, len(_TOUCHDOWNS) + 1)),
            "below_s",
            "p99_ms",
            "trips<=0",
        ],
        "services": _services(),
        "streams": [_stream(route, curve(route)) for route in _USUAL_RPS],
    }


_PARTS: Final = {SPIKE: _spike, SUNDAY: _sunday}


def _bump(at: float, usual: float, peak: float) -> Iterator[tuple[float, float]]:
    yield at, round(usual, 3)
    yield at + 2, round(peak, 3)
    yield at + _TOUCHDOWN_S, round(peak, 3)
    yield at + _TOUCHDOWN_S + 2, round(usual, 3)


def _between(day: list[tuple[float, float]], second: float) -> float:
    """Return the day's curve at that second."""
    after = next(number for number, (t, _) in enumerate(day) if t > second)
    (t0, low), (t1, high) = day[after - 1], day[after]
    return low + (high - low) * (second - t0) / (t1 - t0)


def _stream(route: str, curve: dict[str, Any]) -> dict[str, Any]:
    to = _COMES_IN_AT.get(route, EDGES[0])
    return {"name": route, "to": to, "innocent": route not in _FANS, **curve}


def _services() -> dict[str, Any]:
    usual, peak = _loads()
    names = [*EDGES, *(name for name in FLEET if usual[name])]
    return {name: _service(name, usual[name], peak[name]) for name in names}


def _loads() -> tuple[dict[str, float], dict[str, float]]:
    """Return how many requests a second each service gets, at the usual load of a game and at a touchdown."""
    usual: dict[str, float] = defaultdict(float)
    peak: dict[str, float] = defaultdict(float)
    for route, rps in _USUAL_RPS.items():
        factor = _FACTOR if route in _FANS else _OTHERS_FACTOR
        for name, visits in _visits(route).items():
            usual[name] += rps * visits
            peak[name] += rps * visits * factor
    return usual, peak


def _capacity_rps() -> float:
    """Return how many fans a second the fleet can serve: each route as many as the narrowest service on its way can."""
    usual, peak = _loads()
    total = 0.0
    for route in _FANS:
        spare = min(
            _instances(name, usual[name], peak[name]) * _places(kind) / (usual[name] * _held_s(kind))
            for name, kind in FLEET.items()
            if name in _visits(route) and not kind.shared
        )
        total += _USUAL_RPS[route] * spare
    return round(total, 1)


def _visits(route: str) -> dict[str, float]:
    """Return how often a request of this route comes to each service, on average."""
    visits: dict[str, float] = defaultdict(float, {_COMES_IN_AT.get(route, EDGES[0]): 1.0})
    todo = [(link.to, link.made) for link in (*CALLED_BY_EDGES, Link(route))]
    while todo:
        name, share = todo.pop()
        visits[name] += share
        todo += [(link.to, share * link.made) for link in FLEET[name].links]
    return visits


def _kind(name: str) -> Kind:
    return Kind(_EDGE_MS, CALLED_BY_EDGES, shared=True, loop=True) if name in EDGES else FLEET[name]


def _places(kind: Kind) -> int:
    """Return how many requests an instance works on at once."""
    return _WORKERS if kind.loop else _WORKERS * _THREADS


def _held_s(kind: Kind) -> float:
    """Return how long a request holds such a place: a loop's for its CPU, a thread for all it waits for, too."""
    own_s = kind.ms / 1000
    return own_s if kind.loop else own_s + sum(link.made * _held_s(FLEET[link.to]) for link in kind.links)


def _instances(name: str, usual_rps: float, peak_rps: float) -> int:
    kind = _kind(name)
    wanted = peak_rps / _USED_AT_PEAK if kind.shared else usual_rps / _USED
    return max(_LEAST, ceil(wanted * _held_s(kind) / _places(kind)))


def _service(name: str, usual_rps: float, peak_rps: float) -> dict[str, Any]:
    kind, edge = _kind(name), name in EDGES
    work = "cpu" if kind.loop else "wait"
    made: dict[str, Any] = {
        "instances": _instances(name, usual_rps, peak_rps),
        "workers": _WORKERS,
        **({"loop": True} if kind.loop else {"threads": _THREADS}),
        "deadline_s": _DEADLINE_S,
        "balance": "two-choices",
        work: {"kind": "exponential", "mean_s": kind.ms / 1000},
        "shed_cost_s": 0.00005,
    }
    depth = 0 if edge else _depth(name)
    timeout_s = _TIMEOUTS_S[min(depth, len(_TIMEOUTS_S) - 1)]
    calls = [_call(link, timeout_s) for link in kind.links]
    if edge:
        routes = [route for route in _USUAL_RPS if _COMES_IN_AT.get(route, EDGES[0]) == name]
        calls += [{**_call(Link(route), timeout_s), "routes": [route]} for route in routes]
    return {**made, "calls": calls} if calls else made


def _call(link: Link, timeout_s: float) -> dict[str, Any]:
    made: dict[str, Any] = {"to": link.to, "timeout_s": timeout_s}
    if link.share < 1:
        made["probability"] = link.share
    if link.hit:
        made["cache"] = {"hit": link.hit}
    if link.soft:
        made["required"] = False
    return made


def _depth(name: str) -> int:
    """Return over how many calls a request comes from an edge to this service, by the shortest way."""
    depth, here = 1, {*(link.to for link in CALLED_BY_EDGES), *_USUAL_RPS}
    while name not in here:
        here = {link.to for each in here for link in FLEET[each].links}
        depth += 1
    return depth
