"""A plan under a spike, simulated, beside what a reactive autoscaler would have had up by then."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

from groundfault.lab.curves import Points
from groundfault.lab.planning.demand import PlanError, Service
from groundfault.lab.planning.reacting import Autoscaler, reacted
from groundfault.lab.planning.steps import Planned
from groundfault.lab.runs.record import Run
from groundfault.lab.simulator.running import Job, run_all
from groundfault.lab.simulator.scenario import scenario_of

__all__ = ["Fleets", "Instances", "Spike", "checked", "document", "worst_moment"]

_BEFORE_S: Final = 60.0
_RISE_S: Final = 1.0
_AFTER_MORE_S: Final = 60.0
_MOST_HOPS: Final = 1_500_000
_LEAST_RPS: Final = 20.0  # of an instance in the simulation; and it has four threads at least: smaller ones would
_LEAST_THREADS: Final = 4  # queue for reasons of their own
_COLD: Final = 2.0
_FRONT: Final = "users"
_DEADLINE_S: Final = 1.0
_HAIR: Final = 1e-9  # what a division leaves

Instances = Sequence[tuple[float, int]]
"""``(moment, instances in service)``, the first for the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spike:
    """What no curve foresees: ``factor`` times the curve for ``hold_s``, from second ``at`` of the curve on."""

    at: float
    factor: float
    hold_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Fleets:
    """One spike met by two fleets. ``start``: the second of the curve that is the runs' 0.

    ``possible``: the share of the spike's requests that the planned fleet can serve, by what was measured.
    ``behind_s``: for how long the reactive fleet can do less than is asked for. ``why``: why it can, in words.
    """

    spike: Spike
    start: float
    sample: int
    plan: Run
    reactive: Run
    possible: float
    behind_s: float
    why: str

    @property
    def served(self) -> dict[str, float | None]:
        """The share of requests that was served in time during the spike, by each."""
        return {name: _figure(run, "success@spike") for name, run in (("plan", self.plan), ("reactive", self.reactive))}


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A stretch of the curve with the spike in it, and who is up when in it, in seconds from its start."""

    start: float
    end: float
    curve: Points
    plan: Mapping[str, Instances]
    reactive: Mapping[str, Instances]

    def able(self, service: Service, instances: Mapping[str, Instances], t: float) -> float:
        """Return which share of its requests a service can serve at a moment of the curve."""
        asked = self.curve.rate(t) * service.share
        up = [number for at, number in instances[service.name] if at <= t - self.start + _HAIR][-1]
        return min(1.0, up * service.rps_per_instance / asked) if asked else 1.0


def worst_moment(curve: Points, services: Sequence[Service], scaler: Autoscaler) -> float:
    """Return the moment at which a reactive fleet lacks most: where what is asked for is most over what is up."""
    found, most = 0.0, -1.0
    for service in services:
        steps = reacted(curve, service, scaler)
        at = 0
        moments = sorted({*(t for t, _ in curve.points), *(t for t, _ in steps)})
        for moment in moments:
            t = min(moment, curve.total_s - _RISE_S)
            while at + 1 < len(steps) and steps[at + 1][0] <= t:
                at += 1
            lack = curve.rate(max(t, 0.0)) * service.share / (service.rps_per_instance * steps[at][1])
            if lack > most + _HAIR:
                found, most = max(t, 0.0), lack
    return found


def _stretch(curve: Points, plans: Sequence[Planned], spike: Spike, scaler: Autoscaler) -> _Stretch:
    if not 0 <= spike.at < curve.total_s:
        raise PlanError(f"the spike must be at a second from 0 to {curve.total_s:g} of the curve, not {spike.at:g}")
    start = max(0.0, spike.at - _BEFORE_S)
    slowest = max(each.service.lead_s for each in plans)
    after_s = max(spike.hold_s, scaler.over_s + slowest) + _AFTER_MORE_S
    end = min(spike.at + after_s, curve.total_s)
    spiked = _spiked(curve, spike, end)
    reactive = {each.service.name: _cut(reacted(spiked, each.service, scaler, end=end), start, end) for each in plans}
    ours = {each.service.name: _cut([(at, each.at(at)) for at in _edges(each)], start, end) for each in plans}
    return _Stretch(start, end, spiked, ours, reactive)


def _possible(stretch: _Stretch, services: Sequence[Service], spike: Spike) -> float:
    """Return what the planned fleet can serve in the middle of the spike, if services refuse whom they like."""
    t = min(spike.at + spike.hold_s / 2, stretch.end - _HAIR)
    share = 1.0
    for service in services:
        able = stretch.able(service, stretch.plan, t)
        share *= able**service.share if service.share > 1 else 1 - service.share * (1 - able)
    return share


def _behind_s(stretch: _Stretch, services: Sequence[Service]) -> float:
    seconds = range(int(stretch.end - stretch.start))
    return float(
        sum(any(stretch.able(each, stretch.reactive, stretch.start + t) < 1 for each in services) for t in seconds)
    )


def _why(services: Sequence[Service], scaler: Autoscaler) -> str:
    slowest = max(services, key=lambda each: each.lead_s)
    times = 1 / (1 - slowest.headroom)
    return (
        f"it sees a mean over {scaler.over_s:g} s, an instance takes {slowest.start_s:g} s to start and "
        f"{slowest.warm_s:g} s to warm up ({slowest.name}), and a full fleet looks no fuller when more is asked for, "
        f"so it asks for {times:.2g} times as many at once at most"
    )


def _edges(plan: Planned) -> list[float]:
    return [level.start * plan.step_s for level in plan.levels]


def _spiked(curve: Points, spike: Spike, end: float) -> Points:
    """Return the curve up to ``end``, with the spike laid over it."""
    over = min(spike.at + spike.hold_s, end)
    corners = {0.0, spike.at, min(spike.at + _RISE_S, over), over, end, *(t for t, _ in curve.points if t < end)}
    points: list[tuple[float, float]] = []
    for t in sorted(corners):
        rps = curve.rate(min(t, curve.total_s - _HAIR))
        inside = spike.at < t < over
        if t in {spike.at, over} and spike.factor != 1:
            first, second = (rps, rps) if t == spike.at else (rps * spike.factor, rps)
            points += [(t, first), (t, second)] if first != second else [(t, first)]
        else:
            points.append((t, rps * spike.factor if inside else rps))
    return Points(tuple(points))


def _cut(steps: Instances, start: float, end: float) -> list[tuple[float, int]]:
    """Return the steps within a stretch, in seconds from its start."""
    up = [number for t, number in steps if t <= start]
    return [(0.0, up[-1] if up else steps[0][1])] + [(t - start, number) for t, number in steps if start < t < end]


def checked(
    curve: Points,
    plans: Sequence[Planned],
    spike: Spike,
    scaler: Autoscaler,
    *,
    seed: str = "1",
    processes: int = 1,
    progress: Callable[[float], None] | None = None,
) -> Fleets:
    """Simulate both fleets under the spike. Raises PlanError."""
    stretch = _stretch(curve, plans, spike, scaler)
    services = [each.service for each in plans]
    total_s = stretch.end - stretch.start
    hops = stretch.curve.expected(stretch.start, stretch.end) * (1 + sum(each.share for each in services))
    least_rps = min(each.rps_per_instance for each in services)
    sample = max(1, min(ceil(hops / _MOST_HOPS), int(least_rps / _LEAST_RPS)))
    rates = _rates(stretch)
    span = (spike.at - stretch.start, min(spike.at + spike.hold_s, stretch.end) - stretch.start)
    jobs = []
    for which, instances in (("plan", stretch.plan), ("reactive", stretch.reactive)):
        scenario = scenario_of(document(which, services, instances, rates, span, total_s=total_s, sample=sample))
        jobs.append(Job(scenario, seed, scenario.variant))
    plan, reactive = run_all(jobs, processes=processes, progress=progress)
    return Fleets(
        spike,
        stretch.start,
        sample,
        plan,
        reactive,
        possible=_possible(stretch, services, spike),
        behind_s=_behind_s(stretch, services),
        why=_why(services, scaler),
    )


def _rates(stretch: _Stretch) -> list[list[float]]:
    curve, start, end = stretch.curve, stretch.start, stretch.end
    inner = [[t - start, rps] for t, rps in curve.points if start < t < end]
    return [[0.0, curve.rate(start)], *inner, [end - start, curve.rate(end - _HAIR)]]


def document(
    name: str,
    services: Sequence[Service],
    instances: Mapping[str, Instances],
    rates: Sequence[Sequence[float]],
    spike: tuple[float, float],
    *,
    total_s: float,
    sample: int = 1,
) -> dict[str, Any]:
    """Return the scenario: users whose request needs all services at once, each in its share.

    ``sample``: rates and what an instance can do are divided by it. Instances keep their number.
    """
    front = _FRONT
    while any(each.name == front for each in services):
        front += "-"
    built: dict[str, Any] = {
        front: {
            "loop": True,
            "workers": 8,
            "shedder": False,
            "deadline_s": _DEADLINE_S,
            "calls": [call for each in services for call in _calls(each)],
        }
    }
    events: list[dict[str, Any]] = []
    for service in services:
        able_rps = service.rps_per_instance / sample
        threads = max(_LEAST_THREADS, round(able_rps * service.service_s))
        steps = instances[service.name]
        built[service.name] = {
            "instances": steps[0][1],
            "threads": threads,
            "deadline_s": _DEADLINE_S,
            "balance": "two-choices",
            "wait": {"kind": "exponential", "mean_s": threads / able_rps},
            "shed_cost_s": min(0.0001, 0.02 * threads / able_rps),
            **({"cold": {"factor": _COLD, "warm_s": min(service.warm_s, 3600.0)}} if service.warm_s else {}),
        }
        events += [
            {"at": t, "action": "scale", "service": service.name, "instances": number, "notice_s": 0.0}
            for t, number in steps[1:]
        ]
    low, high = spike
    spans = {"before": [0.0, low], "spike": [low, high], "after": [high, total_s]}
    return {
        "name": name,
        "title": f"the spike, with {'the planned fleet' if name == 'plan' else 'a reactive autoscaler'}",
        "total_s": total_s,
        "deadline_s": _DEADLINE_S,
        "services": built,
        "streams": [
            {"name": "users", "to": front, "scale": 1 / sample, "points": [list(point) for point in rates]},
        ],
        "events": sorted(events, key=lambda event: float(event["at"])),
        "spans": {key: span for key, span in spans.items() if span[0] < span[1]},
        "bounds": ["success@spike", "success", "p99_ms@spike", "recovery_s@spike", "trips"],
    }


def _calls(service: Service) -> list[dict[str, Any]]:
    """Return the calls that make up its share: whole ones, and one more for some."""
    base = {"to": service.name, "together": "all", "timeout_s": _DEADLINE_S}
    whole, rest = divmod(service.share, 1.0)
    calls: list[dict[str, Any]] = []
    if whole:
        calls.append({**base, "name": "each", "count": int(whole)})
    if rest > _HAIR:
        calls.append({**base, "name": "some", "probability": rest})
    return calls


def _figure(run: Run, measure: str) -> float | None:
    return next((check.value for check in run.checks if check.measure == measure), None)
