"""The demo's phases as runs, for `groundfault report` and `groundfault gate`. Pure.

Their figures are by whole seconds and of what a client can tell, so they may differ a little from summary.json's:
a recovery is exact to a second, and a 503 without the header counts as failed.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import Any, Final

from groundfault.lab.curves import Spike
from groundfault.lab.demo import Recorded
from groundfault.lab.goals import JUDGED_PHASE
from groundfault.lab.measure import DEADLINE_S, SHED_STATUS, Measured, Row, percentile, phase_metrics
from groundfault.lab.parts import Phase
from groundfault.lab.runs.measures import Bound, judged
from groundfault.lab.runs.record import Edge, Mark, Run, Service, Stream
from groundfault.lab.runs.tally import Fate, Tally
from groundfault.lab.series import series
from groundfault.vocabulary import Outcome

__all__ = ["runs"]

_FIGURES: Final = (
    "goodput@spike>=0.85",
    "success.innocent@spike>=0.99",
    "recovery_s@after<=4",
    "trips<=0",
    "shed@before<=0",
    "p99_ms@spike",
    "shed@spike",
    "lag_p99_ms",
)
"""As groundfault/lab/targets.py has them; they bind the protected phase only."""

_CHAIN: Final = ("topps -> grouper", "grouper -> saber")
"""These are there even where nothing guards them, and nothing trips."""

_BAD: Final = frozenset({Outcome.FAILURE.value, Outcome.TIMEOUT.value})
_NOT_MADE: Final = frozenset(
    outcome.value for outcome in (Outcome.CIRCUIT_OPEN, Outcome.BULKHEAD_FULL, Outcome.THROTTLED, Outcome.UNHEALTHY)
)
_OK: Final = 200


def runs(recorded: Recorded, versions: Mapping[str, str]) -> dict[str, Run]:
    """Return each phase as a run, by its name."""
    return {
        phase.value: _run(phase, measured, recorded.curve, recorded.capacity_rps, versions)
        for phase, measured in recorded.phases.items()
    }


def _run(phase: Phase, measured: Measured, curve: Spike, capacity_rps: float, versions: Mapping[str, str]) -> Run:
    seconds = max(1, ceil(curve.total_s))
    drawn = series(measured.rows, measured.events, curve)
    lag_s = percentile((row.lag_s for row in measured.rows), 0.99)
    edges = sorted({*_CHAIN, *_called(measured.events), *(edge for _, edge in drawn.trips)})
    run = Run(
        name="demo",
        title=f"A spike of {curve.factor:g} times the usual traffic",
        source="demo",
        variant=phase.value,
        target="topps, grouper, saber and its database on one machine",
        seed="gronk",
        seconds=seconds,
        deadline_s=DEADLINE_S,
        capacity_rps=capacity_rps,
        lag_p99_ms=None if lag_s is None else max(0.0, round(lag_s * 1000, 3)),
        streams=[
            _stream("fan", (row for row in measured.rows if row.needs_saber), seconds),
            _stream("innocent", (row for row in measured.rows if not row.needs_saber), seconds, innocent=True),
        ],
        spans={
            "before": (0.0, curve.before_s),
            "spike": (curve.before_s, curve.spike_end_s),
            "after": (curve.spike_end_s, curve.total_s),
        },
        marks=[Mark(t=curve.before_s, text="touchdown"), Mark(t=curve.spike_end_s, text="the spike ends")],
        services=_services(measured.events, seconds),
        edges=[
            _edge(
                name,
                measured.events,
                seconds,
                trips=[t for t, edge in drawn.trips if edge == name],
                spans=[(start, end) for start, end, edge in drawn.open if edge == name],
            )
            for name in edges
        ],
        void=phase_metrics(measured, curve, capacity_rps).void,
        settings={"base_rps": round(curve.base_rps, 3), "factor": curve.factor, "rise_s": curve.rise_s},
        versions=dict(versions),
    )
    bounds = [Bound.parse(text) for text in _FIGURES]
    if phase.value != JUDGED_PHASE:
        bounds = [Bound(measure=bound.measure, stream=bound.stream, span=bound.span) for bound in bounds]
    run.checks.extend(judged(run, bounds))
    return run


def _stream(name: str, rows: Iterable[Row], seconds: int, *, innocent: bool = False) -> Stream:
    tally = Tally()
    for row in rows:
        tally.send(row.due, row.due + row.lag_s)
        tally.settle(row.due, _fate(row), row.latency_s)
    return Stream.of(name, tally, seconds, innocent=innocent)


def _fate(row: Row) -> Fate:
    if row.good:
        return Fate.GOOD
    if row.status == SHED_STATUS and row.handled:
        return Fate.SHED
    in_vain = row.status == _OK or (row.status == 0 and row.latency_s >= DEADLINE_S)
    return Fate.LATE if in_vain else Fate.FAILED


def _within(events: Sequence[Mapping[str, Any]], name: str, seconds: int) -> list[Mapping[str, Any]]:
    return [event for event in events if event["event"] == name and 0 <= event["t"] < seconds]


def _services(events: Sequence[Mapping[str, Any]], seconds: int) -> list[Service]:
    """Return those that say what they see; unprotected ones do not."""
    seen: dict[str, list[Mapping[str, Any]]] = {}
    for event in _within(events, "request.seen", seconds):
        seen.setdefault(event["by"], []).append(event)
    return [_service(name, requests, seconds) for name, requests in sorted(seen.items())]


def _service(name: str, seen: Iterable[Mapping[str, Any]], seconds: int) -> Service:
    came, shed = [0] * seconds, [0] * seconds
    waits: list[list[float]] = [[] for _ in range(seconds)]
    for event in seen:
        at = int(event["t"])
        came[at] += 1
        shed[at] += event["reason"] is not None
        if event["queue_wait_s"] is not None:
            waits[at].append(max(0.0, event["queue_wait_s"] * 1000))
    p95 = [percentile(values, 0.95) for values in waits]
    return Service(
        name=name,
        arrived=came,
        shed=shed,
        answered=[some - few for some, few in zip(came, shed, strict=True)],
        wait_p95_ms=[None if value is None else round(value, 3) for value in p95],
    )


def _called(events: Iterable[Mapping[str, Any]]) -> set[str]:
    return {f"{event['by']} -> {event['resource']}" for event in events if event["event"] == "command.done"}


def _edge(
    name: str,
    events: Sequence[Mapping[str, Any]],
    seconds: int,
    *,
    trips: Sequence[float],
    spans: Sequence[tuple[float, float]],
) -> Edge:
    caller, _, callee = name.partition(" -> ")
    calls, bad, refused = [0] * seconds, [0] * seconds, [0] * seconds
    for event in _within(events, "command.done", seconds):
        if (event["by"], event["resource"]) == (caller, callee):
            at, outcome = int(event["t"]), event["outcome"]
            calls[at] += outcome not in _NOT_MADE
            bad[at] += outcome in _BAD
            refused[at] += outcome in _NOT_MADE
    return Edge(
        caller=caller,
        callee=callee,
        calls=calls,
        bad=bad,
        refused=refused,
        trips=[round(t, 3) for t in trips],
        open=[(round(start, 3), round(end, 3)) for start, end in spans],
    )
