"""What a run was worth: goodput, waits of good answers, what was refused for nothing, who got through."""

from collections.abc import Iterable
from typing import Any

from openloop.generator import BROKEN, LATE, Outcome
from openloop.workloads import CALM_S, HEALTH, MAIN, Trace, Workload

_WINDOW = 1000
_RECOVERED = 0.99
_BUCKET_S = 0.1
MAX_LAG_S = 0.010
"""A run in which the generator was later than this for one attempt in a hundred is void."""


def quantile(values: Iterable[float], q: float) -> float | None:
    """Return the q-quantile, or None of nothing."""
    ordered = sorted(values)
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)] if ordered else None


def ceiling(load: float, refusal_s: float, service_s: float) -> float:
    """Return the share of capacity that refusing the rest leaves: (1 - x·s) / (1 - s), at least 0."""
    cost = refusal_s / service_s
    return max(0.0, (1 - load * cost) / (1 - cost)) if load > 1 and cost < 1 else 1.0


class _Window:
    """Sums over the attempts that were due in one span of time."""

    def __init__(self, start: float, end: float) -> None:
        self.start, self.end = start, end
        self.latencies: list[float] = []
        self.offered = self.offered_work = self.good_work = 0.0
        self.statuses: dict[int, int] = {}
        self.lanes: dict[int, list[int]] = {}

    def add(self, lane: int, work: float, latency: float, status: int) -> None:
        seen = self.lanes.setdefault(lane, [0, 0])
        seen[0] += 1
        seen[1] += status == 200
        if lane == HEALTH:
            return
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.offered += 1
        self.offered_work += work
        if status == 200:
            self.good_work += work
            self.latencies.append(latency)

    def share(self, lane: int) -> float | None:
        offered, good = self.lanes.get(lane, (0, 0))
        return good / offered if offered else None


def judge(workload: Workload, trace: Trace, outcome: Outcome, *, places: float, overhead_s: float) -> dict[str, Any]:
    """Return the figures of one run. ``overhead_s``: what the server adds to each request's service time."""
    plan = trace.plan
    start, end = CALM_S, CALM_S + workload.event_s
    if workload.below_capacity and workload.calm_load == workload.load(0.0):
        start = 1.0  # the same load throughout
    event, first, later = _Window(start, end), _Window(start, start + 1), _Window(start + 1, end)
    calm = _Window(1.0, CALM_S)
    everything = _Window(0.0, workload.length_s)
    completed: list[tuple[float, float]] = []
    good_after: dict[int, list[int]] = {}
    for which, due, latency, status, final in zip(
        outcome.which, outcome.due, outcome.latency, outcome.status, outcome.final, strict=True
    ):
        lane = plan.lanes[which]
        work = trace.work[which] + overhead_s
        for window in (event, first, later, calm, everything):
            if window.start <= due < window.end:
                window.add(lane, work, latency, status)
        if lane != HEALTH and status == 200 and start <= due < end:
            completed.append((due, work))
        if due >= end and final and lane != HEALTH:
            seen = good_after.setdefault(int((due - end) / _BUCKET_S), [0, 0])
            seen[0] += 1
            seen[1] += status == 200
    load = event.offered_work / places / (end - start)
    if workload.server.kind == "io":  # nothing limits it: what is offered can be served
        load = min(load, 1.0)
        places = event.offered_work / load / (end - start)
    statuses = event.statuses
    answered = everything.statuses
    return {
        "load": load,
        "efficiency": event.good_work / (min(load, 1.0) * places * (end - start)),
        "efficiency_first_s": _efficiency(first, places),
        "efficiency_worst": _worst_window(completed, places, min(load, 1.0), start, end),
        "goodput_per_s": len(event.latencies) / (end - start),
        "p50_ms": _ms(quantile(event.latencies, 0.5)),
        "p99_ms": _ms(quantile(event.latencies, 0.99)),
        "p99_later_ms": _ms(quantile(later.latencies, 0.99)),
        "shed": statuses.get(503, 0) / event.offered,
        "late": statuses.get(LATE, 0) / event.offered,
        "broken": statuses.get(BROKEN, 0) / event.offered,
        "odd": sorted(set(answered) - {200, 503, LATE, BROKEN}),
        "shed_calm": calm.statuses.get(503, 0) / max(calm.offered, 1),
        "recovery_s": _recovery(good_after) if workload.after_s else None,
        "health": everything.share(HEALTH),
        "health_event": event.share(HEALTH),
        "lanes": {lane.name: later.share(MAIN + index) for index, lane in enumerate(workload.lanes)},
        "lag_p99_ms": _ms(quantile(outcome.lag, 0.99)),
        "void": (quantile(outcome.lag, 0.99) or 0.0) > MAX_LAG_S,
        "attempts": len(outcome.which),
    }


def _efficiency(window: _Window, places: float) -> float:
    capacity = min(window.offered_work, places * (window.end - window.start))
    return window.good_work / capacity if capacity else 1.0


def _worst_window(completed: list[tuple[float, float]], places: float, load: float, start: float, end: float) -> float:
    """Return the least efficiency over windows of at least a thousand good answers, from the first second on."""
    completed.sort()
    worst, since, work, count = 2.0, start, 0.0, 0
    for index, (due, seconds) in enumerate(completed):
        work += seconds
        count += 1
        if count >= _WINDOW and len(completed) - index > _WINDOW // 2:
            worst = min(worst, work / (load * places * (due - since)))
            since, work, count = due, 0.0, 0
    return min(worst, work / (load * places * (end - since))) if end > since else worst


def _recovery(buckets: dict[int, list[int]]) -> float | None:
    """Return the first moment from which 99 % succeed for the rest of the run; None if there is none."""
    if not buckets:
        return None
    offered = good = 0
    best = None
    for bucket in range(max(buckets), -1, -1):
        seen = buckets.get(bucket, [0, 0])
        offered += seen[0]
        good += seen[1]
        if offered and good / offered >= _RECOVERED and (not seen[0] or seen[1] / seen[0] > 0.5):
            best = bucket * _BUCKET_S
    return best


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3
