"""From what was recorded to what is reported. Pure: rows and events in, numbers out.

A *row* is one request as the load generator saw it, an *event* is what a service said.
The definitions here are those of docs/reference/demo.md:

* *good*: answered 200 no later than the deadline after the moment the request was due.
* *goodput*: good answers to requests that need saber, by the moment they arrived. By arrival, because only so is it
  bounded by what saber can do; answers to a backlog that was asked for earlier must not count twice.
* everything else is a share of the requests that were due in some span.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil
from statistics import linear_regression
from typing import Any

from groundfault.lab.curves import Spike

__all__ = ["Measured", "PhaseMetrics", "Row", "capacity", "percentile", "phase_metrics", "recovery_s", "voids"]

DEADLINE_S = 1.0
"""How long a fan waits."""

GOOD_SHARE = 0.99
"""Recovered means: this share of what is offered is good again."""

STEADY_S = 3.0
"""At least so much of the run must be left, and be good, for a recovery to count."""

CPU_LIMIT = 0.85
GOODPUT_LIMIT = 1.05
LAG_LIMIT_MS = 20.0
"""Beyond these a phase is void: the machine, the capacity figure or the generator was at fault, not the services."""

SHED_STATUS = 503
_OK = 200


@dataclass(frozen=True, slots=True)
class Row:
    """One request. Times in seconds from the start of the run; ``status`` is 0 where no answer came."""

    kind: str
    due: float
    latency_s: float
    status: int
    handled: bool
    lag_s: float

    @property
    def good(self) -> bool:
        """True if the answer was of use to the one who asked."""
        return self.status == _OK and self.latency_s <= DEADLINE_S

    @property
    def ended(self) -> float:
        """When the answer arrived, or the fan gave up."""
        return self.due + self.latency_s

    @property
    def needs_saber(self) -> bool:
        """True for a fan, false for an innocent."""
        return self.kind == "fan"


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Everything recorded in one phase. ``events`` are journal rows whose ``t`` counts from the start of the run."""

    rows: Sequence[Row]
    events: Sequence[Mapping[str, Any]]
    cpu: Sequence[float]
    died: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseMetrics:
    """The numbers of one phase as they stand in summary.json; docs/reference/demo.md defines each."""

    goodput_share_in_spike: float
    innocents_success_in_spike: float
    recovery_s: float | None
    trips: int
    trips_by_edge: dict[str, int]
    admitted_p99_ms: float | None
    false_shed_share_before_spike: float
    generator_lag_p99_ms: float
    shed_share_in_spike: float
    cpu_peak: float
    requests: int
    void: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return them as plain values."""
        return asdict(self)


def percentile(values: Iterable[float], share: float) -> float | None:
    """Return the smallest value that at least ``share`` of all do not exceed (nearest rank), None without any."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def _share(part: int, whole: int, empty: float) -> float:
    return part / whole if whole else empty


def capacity(rows: Sequence[Row], *, settle_s: float, until_s: float) -> float:
    """Return how many requests per second were completed while more than that were offered.

    The slope of the line through (moment of the n-th completion, n), over the completions after ``settle_s`` and before
    ``until_s``: unlike a count in a window it does not depend on where between two completions the window ends,
    nor on their coming in strides of as many as there are connections.
    Raises ValueError if fewer than ten requests were completed.
    """
    ends = sorted(row.ended for row in rows if row.status == _OK and settle_s <= row.ended < until_s)
    if len(ends) < 10:  # noqa: PLR2004  fewer say nothing
        raise ValueError(f"only {len(ends)} requests were completed while the capacity was measured")
    return linear_regression(ends, range(len(ends))).slope


def recovery_s(rows: Sequence[Row], curve: Spike) -> float | None:
    """Return how long after the spike's end service was whole again, or None if it was not within the run.

    The earliest moment such that of the requests due in the following 3 s, and of all due from it to the end of the
    run, at least 99 % were good. Candidates are the spike's end and the moments just after each request that was not.
    """
    after = sorted((row for row in rows if row.due >= curve.spike_end_s), key=lambda row: row.due)
    candidates = [curve.spike_end_s, *(row.due for row in after if not row.good)]
    for number, moment in enumerate(candidates):
        if curve.total_s - moment < STEADY_S:
            return None
        rest = [row for row in after if row.due > moment or (number == 0 and row.due == moment)]
        near = [row for row in rest if row.due < moment + STEADY_S]
        if near and all(sum(row.good for row in span) >= GOOD_SHARE * len(span) for span in (near, rest)):
            return moment - curve.spike_end_s
    return None


def trips_by_edge(events: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Count the circuits that went from closed to open, by the edge ``caller -> callee`` they guard."""
    edges = Counter(
        f"{event['by']} -> {event['resource']}"
        for event in events
        if event["event"] == "circuit.open" and event["old"] == "closed"
    )
    return dict(sorted(edges.items()))


def peak(samples: Sequence[float], span: int = 3) -> float:
    """Return the highest mean of ``span`` neighboring samples: one second says little about a machine, three do."""
    if len(samples) < span:
        return max(samples, default=0.0)
    return max(sum(samples[at : at + span]) / span for at in range(len(samples) - span + 1))


def voids(*, cpu_peak: float, goodput_share: float, lag_p99_ms: float, died: Sequence[str] = ()) -> list[str]:
    """Return why a phase says nothing about the services, one sentence each; empty if it does."""
    reasons = [f"{name} ended during the run" for name in died]
    if cpu_peak > CPU_LIMIT:
        reasons.append(f"the host's CPU was {cpu_peak:.0%} busy, more than {CPU_LIMIT:.0%}")
    if goodput_share > GOODPUT_LIMIT:
        reasons.append(f"goodput was {goodput_share:.2f} of the measured capacity, so that figure is wrong")
    if lag_p99_ms > LAG_LIMIT_MS:
        reasons.append(f"the generator was {lag_p99_ms:.1f} ms late (p99), more than {LAG_LIMIT_MS:.0f} ms")
    return reasons


def phase_metrics(measured: Measured, curve: Spike, capacity_rps: float) -> PhaseMetrics:
    """Return the numbers of one phase."""
    rows = measured.rows
    start, end = curve.before_s, curve.spike_end_s
    before = [row for row in rows if row.due < start]
    spike = [row for row in rows if start <= row.due < end]
    fans = [row for row in spike if row.needs_saber]
    innocents = [row for row in spike if not row.needs_saber]
    goodput = sum(1 for row in rows if row.needs_saber and row.good and start <= row.ended < end)
    goodput_share = goodput / (capacity_rps * curve.spike_s)
    # Who waited in vain was admitted; an error at once was not, whatever its status.
    p99_s = percentile((row.latency_s for row in fans if row.status in {_OK, 0}), 0.99)
    lag_s = percentile((row.lag_s for row in rows), 0.99) or 0.0
    edges = trips_by_edge(event for event in measured.events if 0 <= event["t"] <= curve.total_s)
    cpu_peak = peak(measured.cpu)
    void = voids(cpu_peak=cpu_peak, goodput_share=goodput_share, lag_p99_ms=lag_s * 1000, died=measured.died)
    return PhaseMetrics(
        goodput_share_in_spike=goodput_share,
        innocents_success_in_spike=_share(sum(row.good for row in innocents), len(innocents), 0.0),
        recovery_s=recovery_s(rows, curve),
        trips=sum(edges.values()),
        trips_by_edge=edges,
        admitted_p99_ms=None if p99_s is None else p99_s * 1000,
        false_shed_share_before_spike=_share(sum(row.status == SHED_STATUS for row in before), len(before), 0.0),
        generator_lag_p99_ms=lag_s * 1000,
        shed_share_in_spike=_share(sum(row.status == SHED_STATUS for row in fans), len(fans), 0.0),
        cpu_peak=cpu_peak,
        requests=len(rows),
        void=void,
    )
