"""From what all drivers counted to the run and its verdict. Pure."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from groundfault._histogram import Histogram
from groundfault.lab.load.options import Plan, own_settings, streams
from groundfault.lab.load.scenario import Scenario
from groundfault.lab.runs.measures import Bound, judged
from groundfault.lab.runs.record import Edge, Mark, Run, Service, Stream, Verdict
from groundfault.lab.runs.tally import Fate, Tally

__all__ = ["EXIT_CODES", "Counted", "Happened", "judge", "verdict"]

EXIT_CODES: Final = {Verdict.PASSED: 0, Verdict.FAILED: 1, Verdict.VOID: 3}
"""2 is for options that make no sense, as everywhere."""

UNSENT_SHARE: Final = 0.001
SENT_SHARE: Final = 0.01
SENT_SLACK: Final = 3
"""Where few are due in a second, so many may leave in the next: one of them is a percent or two."""

LAG_SHARE: Final = 0.99


@dataclass(slots=True)
class Counted:
    """What drivers have counted; mergeable.

    ``answered``: answers of any status. ``broken``: connections that could not be made or broke, by how.
    """

    lanes: dict[str, Tally] = field(default_factory=dict)
    answered: int = 0
    broken: dict[str, int] = field(default_factory=dict)

    def merge(self, other: "Counted") -> None:
        """Count what the other one has counted, too."""
        for name, tally in other.lanes.items():
            self.lanes.setdefault(name, Tally()).merge(tally)
        self.answered += other.answered
        for how, times in other.broken.items():
            self.broken[how] = self.broken.get(how, 0) + times

    @property
    def sent(self) -> int:
        """How many requests have left."""
        return sum(second.sent for tally in self.lanes.values() for second in tally.seconds.values())

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        lanes = {name: tally.as_dict() for name, tally in self.lanes.items()}
        return {"lanes": lanes, "answered": self.answered, "broken": dict(self.broken)}

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> "Counted":
        """Return what :meth:`as_dict` was made from. Raises LookupError, TypeError or ValueError for anything else."""
        return cls(
            lanes={str(name): Tally.from_dict(tally) for name, tally in said["lanes"].items()},
            answered=int(said["answered"]),
            broken={str(how): int(times) for how, times in said["broken"].items()},
        )


@dataclass(kw_only=True, slots=True)
class Happened:
    """What the one who conducted the run has seen besides. ``void``: reasons that came up on the way."""

    url: str
    target: str = ""
    capacity_rps: float | None = None
    started_at: float | None = None
    marks: list[Mark] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    void: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)


def judge(scenario: Scenario, plan: Plan, options: Namespace, counted: Counted, happened: Happened) -> Run:
    """Return the whole run with its checks and whatever makes it void."""
    lags = Histogram()
    for tally in counted.lanes.values():
        lags.merge(tally.lags)
    lag_s, median_s = lags.quantile(LAG_SHARE), lags.quantile(0.5)
    run = Run(
        name=scenario.name,
        title=scenario.title or scenario.name,
        source=scenario.source,
        seconds=plan.seconds,
        deadline_s=plan.deadline_s,
        streams=streams(plan, counted.lanes),
        variant=options.variant,
        target=happened.target or happened.url,
        seed=options.seed,
        started_at=happened.started_at,
        capacity_rps=happened.capacity_rps,
        lag_p99_ms=None if lag_s is None else round(lag_s * 1000, 3),
        lag_p50_ms=None if median_s is None else round(median_s * 1000, 3),
        spans=plan.spans,
        marks=sorted(happened.marks, key=lambda mark: mark.t),
        services=happened.services,
        edges=happened.edges,
        notes=happened.notes,
        settings=own_settings(scenario, options),
        versions=happened.versions,
    )
    void = [*happened.void, *_voids(run, counted, happened, options.max_lag_ms)]
    own = len(plan.bounds) - len(options.gate)
    bounds = plan.bounds if happened.target else (*_seen_from_outside(plan.bounds[:own]), *plan.bounds[own:])
    return replace(run, checks=judged(run, bounds), void=list(dict.fromkeys(void)))


def _seen_from_outside(bounds: Sequence[Bound]) -> list[Bound]:
    """Return a scenario's own bounds as they hold for a user's target, whose circuits nobody can see: shown only.

    A bound that the user asked for stays what it is, and is missed.
    """
    return [replace(each, at_least=None, at_most=None) if each.measure == "trips" else each for each in bounds]


def _voids(run: Run, counted: Counted, happened: Happened, max_lag_ms: float) -> list[str]:
    reasons = []
    due = sum(sum(stream.due) for stream in run.streams)
    unsent = sum(sum(stream.unsent) for stream in run.streams)
    if absent := not_there(counted, happened.url):
        reasons.append(absent)
    elif due == 0 and not happened.void:
        reasons.append("no request was due: the rate is too low for so short a run")
    if run.lag_p99_ms is not None and run.lag_p99_ms > max_lag_ms:
        reasons.append(f"the generator was {run.lag_p99_ms:.1f} ms late (p99), more than {max_lag_ms:g} ms")
    if unsent > UNSENT_SHARE * due:
        reasons.append(
            f"{unsent} of {due} requests were not sent, more than {UNSENT_SHARE:.1%}, "
            "for too many were open; see --max-open"
        )
    if off := _worst_second(run.streams):
        second, wanted, sent = off
        reasons.append(
            f"in second {second} of the run {sent} requests were sent and {wanted} were due, more than 1 % off"
        )
    return reasons


def not_there(counted: Counted, url: str) -> str | None:
    """Return the sentence that says so if nothing at all answered, or None."""
    if counted.answered or not counted.sent:
        return None
    if not counted.broken:
        return f"nothing at {url} answered any of {counted.sent} requests in time"
    how = max(counted.broken, key=lambda each: counted.broken[each])
    return f"nothing answered at {url}: {how} ({counted.broken[how]} of {counted.sent} requests)"


def _worst_second(streams_: list[Stream]) -> tuple[int, int, int] | None:
    """Return the second in which what was sent is farthest from what was due and was to be sent, if that is too far."""
    worst, found = 0, None
    for second in range(len(streams_[0].due) if streams_ else 0):
        wanted = sum(stream.due[second] - stream.unsent[second] for stream in streams_)
        sent = sum(stream.sent[second] for stream in streams_)
        off = abs(sent - wanted)
        if off > max(SENT_SLACK, SENT_SHARE * wanted, worst):
            worst, found = off, (second, wanted, sent)
    return found


def verdict(run: Run, run_file: str = "") -> dict[str, Any]:
    """Return the one object that a pipeline reads; docs/reference/load.md describes each field."""
    whole = run.as_dict()
    return {
        "name": run.name,
        "variant": run.variant,
        "target": run.target,
        "verdict": run.verdict.value,
        "checks": whole["checks"],
        "void": run.void,
        "requests": {fate.value: sum(sum(getattr(stream, fate.value)) for stream in run.streams) for fate in Fate},
        "lag_p99_ms": run.lag_p99_ms,
        "capacity_rps": run.capacity_rps,
        "seconds": run.seconds,
        "run_file": run_file or None,
    }
