"""What a run was worth. Pure: rows and events in, numbers out.

A *row* is one attempt of a user; a retry is an attempt like any other, due when the user made up his mind.
*Good* is an answer of status 200 within a second of the moment the attempt was due.
*Needy* is who needs the last service, *innocent* who does not.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from openloop.generator import Outcome, Plan

from cascading.scenarios import NEED_LANE, Scenario
from groundfault.lab.curves import Spike
from groundfault.lab.measure import Row, peak, percentile, recovery_s, trips_by_edge, voids

__all__ = ["Judged", "Recorded", "Second", "judge", "rows_of", "seconds_of"]

ENOUGH = 0.8
"""A second is a bad one if fewer than this share of what was possible was good."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """What was recorded of one run. Seconds from its start.

    ``event``: from when to when something was wrong; of a service that was down it ends with its first answer.
    ``cpu``: the host's, once a second, 0 to 1. ``own_cpu``: of it, what the chain and the generator used, on average.
    """

    rows: Sequence[Row]
    events: Sequence[Mapping[str, Any]]
    event: tuple[float, float]
    cpu: Sequence[float]
    own_cpu: float
    died: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Second:
    """One second of a run, by the attempts that were due in it."""

    start: float
    possible: float
    good: int

    @property
    def bad(self) -> bool:
        """Whether too little of what was possible was good. A second in which nothing was possible is none."""
        return self.good < ENOUGH * self.possible


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """The figures of one run; docs/reference/cascade.md defines each."""

    bad_s: int
    looked_at_s: int
    after_s: float
    innocents: float | None
    goodput: float | None
    recovery_s: float | None
    trips: int
    trips_by_edge: dict[str, int]
    shed_calm: float
    saturated: list[str]
    cpu_peak: float
    own_cpu: float
    lag_p99_ms: float
    attempts: int
    void: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return them as plain values."""
        return asdict(self)


def rows_of(plan: Plan, outcome: Outcome) -> list[Row]:
    """Return a row per attempt. Who got no answer has status 0."""
    attempts = zip(outcome.which, outcome.due, outcome.latency, outcome.status, outcome.lag, strict=True)
    return [
        Row(
            kind="fan" if plan.lanes[which] == NEED_LANE else "innocent",
            due=due,
            latency_s=latency,
            status=max(status, 0),
            handled=False,
            lag_s=lag,
        )
        for which, due, latency, status, lag in attempts
    ]


def seconds_of(scenario: Scenario, recorded: Recorded) -> list[Second]:
    """Return the whole seconds from the event's beginning to the end of the run.

    Possible is min(needy, capacity) + innocents, where the capacity of a second in which the event ends is in between.
    """
    start, end = recorded.event
    count = int(scenario.curve.total_s - start)
    needy, innocent, good = [0] * count, [0] * count, [0] * count
    for row in recorded.rows:
        at = int(row.due - start)
        if row.due >= start and at < count:
            (needy if row.needs_saber else innocent)[at] += 1
            good[at] += row.good
    found = []
    for at in range(count):
        hurt = min(max(end - start - at, 0.0), 1.0)
        capacity = scenario.last.capacity_rps * (hurt * scenario.left + 1 - hurt)
        found.append(Second(start + at, min(needy[at], capacity) + innocent[at], good[at]))
    return found


def judge(scenario: Scenario, recorded: Recorded) -> Judged:
    """Return the figures of one run."""
    rows, (start, end) = recorded.rows, recorded.event
    curve = scenario.curve
    seconds = seconds_of(scenario, recorded)
    event = [row for row in rows if start <= row.due < end]
    needy = [row for row in event if row.needs_saber]
    innocents = [row for row in event if not row.needs_saber]
    calm = [row for row in rows if row.due < start]
    edges = trips_by_edge(each for each in recorded.events if 0 <= each["t"] <= curve.total_s)
    lag_ms = 1000 * (percentile((row.lag_s for row in rows), 0.99) or 0.0)
    cpu = peak(recorded.cpu)
    return Judged(
        bad_s=sum(second.bad for second in seconds),
        looked_at_s=len(seconds),
        after_s=max(curve.total_s - end, 0.0),
        innocents=_share(innocents),
        goodput=_goodput(scenario, needy, start, end),
        recovery_s=recovery_s(rows, _around(curve, start, end)),
        trips=sum(edges.values()),
        trips_by_edge=edges,
        shed_calm=sum(not row.good for row in calm) / max(len(calm), 1),
        saturated=sorted({each["by"] for each in recorded.events if each["event"] == "command.saturated"}),
        cpu_peak=cpu,
        own_cpu=recorded.own_cpu,
        lag_p99_ms=lag_ms,
        attempts=len(rows),
        void=voids(cpu_peak=cpu, goodput_share=0.0, lag_p99_ms=lag_ms, died=recorded.died),
    )


def _share(rows: Sequence[Row]) -> float | None:
    return sum(row.good for row in rows) / len(rows) if rows else None


def _goodput(scenario: Scenario, needy: Iterable[Row], start: float, end: float) -> float | None:
    """Return good answers to needy attempts due in the event, as a share of what was possible; None of nothing."""
    needy = list(needy)
    possible = min(len(needy), scenario.last.capacity_rps * scenario.left * (end - start))
    return sum(row.good for row in needy) / possible if possible else None


def _around(curve: Spike, start: float, end: float) -> Spike:
    """Return the curve as if its spike had been the event, which is what recovery is counted from."""
    return Spike(
        base_rps=curve.base_rps,
        factor=curve.factor,
        before_s=start,
        spike_s=end - start,
        after_s=max(curve.total_s - end, 0.0),  # a service that was down may be back after the run only
        rise_s=0.0,
    )
