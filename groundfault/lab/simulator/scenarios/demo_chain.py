"""The chain of ``groundfault demo``, to be simulated with what was measured of the real one.

::

    fans ──► topps ──► lineup-threads ──► topps-session ──► grouper ──► saber ──► contest-db
    lobby ─► topps ─────────────────────► topps-session ──► grouper

topps is an event loop that hands blocking calls to threads, forty for lineups and more for the lobby; both call with
one session, so with one circuit. Threads and session are services of their own here, for there requests wait and there
they are refused. grouper's two workers have connections of their own. saber's five threads share two connections.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from groundfault.lab.curves import Spike
from groundfault.lab.simulator.model import Scenario
from groundfault.lab.simulator.scenario import scenario_of

__all__ = ["NAME", "TITLES", "Costs", "Recorded", "document", "with_arrivals"]

NAME: Final = "demo"
TITLES: Final = {NAME: "the chain of groundfault demo under its spike, eight times the load for 20 s"}

_LINEUP_THREADS: Final = 40  # Starlette's own
_LOBBY_THREADS: Final = 64
_GROUPER_WORKERS: Final = 2
_GROUPER_THREADS: Final = 16
_SABER_THREADS: Final = 5
_CONNECTIONS: Final = 2
_ROUND_TRIP_S: Final = 0.1
_TOPPS_TIMEOUT_S: Final = 1.0
_GROUPER_TIMEOUT_S: Final = 0.9
_QUERY_TIMEOUT_S: Final = 0.8
_LOBBY_SHARE: Final = 1 / 3
_LOAD: Final = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What was measured, seconds: a query, and what a request costs each service besides."""

    query_s: float = _ROUND_TRIP_S
    topps_s: float = 0.003
    grouper_s: float = 0.002
    contests_s: float = 0.005
    saber_s: float = 0.002
    shed_s: float = 0.001


def document(name: str = NAME, *, costs: Costs | None = None, curve: Spike | None = None) -> dict[str, Any]:
    """Return the scenario, as a scenario file holds it. ``curve``: of the fans; the innocents are a third as many."""
    costs = costs or Costs()
    capacity_rps = _CONNECTIONS / costs.query_s
    curve = curve or Spike(base_rps=_LOAD * capacity_rps)
    common = {"deadline_s": 1.0, "shed_cost_s": costs.shed_s}
    plain = {"shedder": False, "deadline_s": 1.0}
    unguarded = {"breaker": {"mode": "force_closed"}}
    spike = {
        "factor": curve.factor,
        "before_s": curve.before_s,
        "spike_s": curve.spike_s,
        "after_s": curve.after_s,
        "rise_s": curve.rise_s,
    }
    return {
        "name": name,
        "title": TITLES[NAME],
        "deadline_s": 1.0,
        "capacity_rps": capacity_rps,
        "services": {
            "topps": {
                **common,
                "loop": True,
                "cpu": costs.topps_s,
                "calls": [
                    {"to": "lineup-threads", "routes": ["fan"], **unguarded},
                    {"to": "topps-session", "name": "lobby", "routes": ["innocent"], **unguarded},
                ],
            },
            "lineup-threads": {
                **plain,
                "threads": _LINEUP_THREADS,
                "calls": [{"to": "topps-session", "name": "lineup", **unguarded}],
            },
            "topps-session": {
                **plain,
                "threads": _LINEUP_THREADS + _LOBBY_THREADS,
                "calls": [{"to": "grouper", "timeout_s": _TOPPS_TIMEOUT_S}],
            },
            "grouper": {
                **common,
                "instances": _GROUPER_WORKERS,
                "balance": "random",
                "threads": _GROUPER_THREADS,
                "cpu": costs.grouper_s,
                "routes": {"innocent": {"wait": costs.contests_s}},
                "calls": [{"to": "saber", "routes": ["fan"], "timeout_s": _GROUPER_TIMEOUT_S}],
            },
            "saber": {
                **common,
                "threads": _SABER_THREADS,
                "cpu": costs.saber_s,
                "calls": [{"to": "contest-db", "name": "entrants", "timeout_s": _QUERY_TIMEOUT_S}],
            },
            "contest-db": {**plain, "threads": _CONNECTIONS, "wait": costs.query_s},
        },
        "streams": [
            {"name": "fan", "to": "topps", "spike": {"base_rps": curve.base_rps, **spike}},
            {
                "name": "innocent",
                "to": "topps",
                "innocent": True,
                "spike": {"base_rps": curve.base_rps * _LOBBY_SHARE, **spike},
            },
        ],
        "bounds": ["goodput@spike", "success.innocent@spike", "shed@spike", "recovery_s@after", "trips"],
    }


@dataclass(frozen=True, slots=True)
class Recorded:
    """A curve made of requests that were really sent: it has as many in any stretch as there were."""

    moments: Sequence[float]
    total_s: float
    slice_s: float = 0.1

    @property
    def peak_rps(self) -> float:
        """The highest rate in one of its slices, in requests per second."""
        slices = [int(moment / self.slice_s) for moment in self.moments]
        return max((slices.count(each) for each in set(slices)), default=0) / self.slice_s

    def rate(self, t: float) -> float:
        """Return the rate in the slice around the moment."""
        start = int(t / self.slice_s) * self.slice_s
        return self.expected(start, start + self.slice_s) / self.slice_s

    def expected(self, start: float, end: float) -> float:
        """Return how many requests there were between two moments."""
        return float(sum(start <= moment < end for moment in self.moments))


def with_arrivals(moments: Mapping[str, Sequence[float]], *, costs: Costs, curve: Spike) -> Scenario:
    """Return the scenario with requests of each stream at these moments, exact to a tenth of a second."""
    scenario = scenario_of(document(costs=costs, curve=curve))
    streams = tuple(
        replace(each, curve=Recorded(sorted(moments[each.name]), curve.total_s), even=True) for each in scenario.streams
    )
    return replace(scenario, streams=streams)
