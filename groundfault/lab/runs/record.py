"""The document of a run, ``run.json``: what was offered, what became of it, and the verdict.

Lists hold one value for each whole second of the run.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NoReturn, Self

from groundfault._histogram import BOUNDS_S, Histogram
from groundfault.lab.runs._reading import PlaceError, made, shown
from groundfault.lab.runs.tally import FATES, Tally

__all__ = ["FORMAT", "VERSION", "Check", "Edge", "Mark", "Run", "RunError", "Service", "Stream", "Verdict"]

FORMAT: Final = "groundfault-run"
VERSION: Final = 1


class RunError(Exception):
    """This is no run, or one of another version. The message names the file and the place in it."""


class Verdict(StrEnum):
    """What a run says: ``passed``, ``failed``, or ``void``: nothing, for what measured it was at fault."""

    PASSED = "passed"
    FAILED = "failed"
    VOID = "void"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """Requests of one kind, by second. :class:`~groundfault.lab.runs.tally.Fate` says what the fates mean.

    ``innocent``: they need nothing that is scarce. Percentiles are of the good ones, None where there were none.
    """

    name: str
    innocent: bool = False
    due: list[int]
    sent: list[int]
    arrived: list[int]
    good: list[int]
    late: list[int]
    shed: list[int]
    failed: list[int]
    unsent: list[int]
    p50_ms: list[float | None]
    p99_ms: list[float | None]
    latencies: dict[str, dict[str, int]] = field(default_factory=dict)
    """By second, the fine histogram of the good ones: counts by index of a bucket. What percentiles are made from."""

    @classmethod
    def of(cls, name: str, tally: Tally, seconds: int, *, innocent: bool = False) -> Self:
        """Return what was counted in the first ``seconds`` seconds; what lies behind counts to the last."""
        by_second = _gathered(tally, seconds)
        counts = {fate.value: [each.fates[index] for each in by_second] for index, fate in enumerate(FATES)}
        return cls(
            name=name,
            innocent=innocent,
            due=[each.due for each in by_second],
            sent=[each.sent for each in by_second],
            arrived=[each.arrived for each in by_second],
            p50_ms=[_ms(each.latencies.quantile(0.5)) for each in by_second],
            p99_ms=[_ms(each.latencies.quantile(0.99)) for each in by_second],
            latencies={
                str(number): {str(bucket): times for bucket, times in sorted(each.latencies.buckets.items())}
                for number, each in enumerate(by_second)
                if each.latencies.buckets
            },
            **counts,
        )

    def histogram(self, start: int, end: int) -> Histogram:
        """Return the latencies of the good ones that were due in these seconds; ``end`` is not among them."""
        counts: dict[str, int] = {}
        for number in range(start, end):
            for bucket, times in self.latencies.get(str(number), _NONE).items():
                counts[bucket] = counts.get(bucket, 0) + times
        return Histogram({int(bucket): times for bucket, times in counts.items()})


_NONE: Final[Mapping[str, int]] = {}


def _gathered(tally: Tally, seconds: int) -> list[Any]:
    whole = Tally()
    for number, second in tally.seconds.items():
        whole.at(min(number, seconds - 1)).merge(second)
    return [whole.at(number) for number in range(seconds)]


def _ms(value_s: float | None) -> float | None:
    return None if value_s is None else round(value_s * 1000, 3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """One service by second: requests that came, were shed and answered; p95 of their queue wait; share of it busy."""

    name: str
    arrived: list[int]
    shed: list[int]
    answered: list[int]
    wait_p95_ms: list[float | None] = field(default_factory=list)
    busy: list[float | None] = field(default_factory=list)
    instances: list[int] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Edge:
    """Calls of one service to another, by second: made, ended badly, and refused before they were made.

    ``trips``: moments at which a circuit of this edge opened from closed. ``open``: spans in which one was not closed.
    """

    caller: str
    callee: str
    calls: list[int] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    trips: list[float] = field(default_factory=list)
    open: list[tuple[float, float]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """``caller -> callee``."""
        return f"{self.caller} -> {self.callee}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """Something that happened at ``t`` seconds: a touchdown, a fault put in, a worker killed."""

    t: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One figure and its bound. ``value`` None: it could not be had, which meets no bound.

    ``measure``: as in :mod:`groundfault.lab.runs.measures`. ``at_least`` and ``at_most``: at most one is given;
    neither is a figure that is shown and not judged.
    """

    measure: str
    title: str
    value: float | None
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the bound is met; None if there is none."""
        if self.at_least is None and self.at_most is None:
            return None
        if self.value is None:
            return False
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Everything a run has to say.

    ``source``: ``locust``, ``replay``, ``simulator``, ``demo`` or ``soak``. ``target``: what the load
    went to, in words. ``variant``: what protected it, as ``groundfault``, or whatever tells runs apart.
    ``started_at``: seconds since the epoch, None in virtual time and where nobody looked.
    ``capacity_rps``: good answers a second that the scarce service can give, None if it is not known.
    ``spans``: named stretches, ``(start, end)`` in seconds, of which ``spike`` is the one that matters most.
    ``void``: why the run says nothing, one sentence each. ``settings``: whatever the run was made with, as JSON can
    hold it. ``lag_p99_ms`` and ``lag_p50_ms``: the generator's own.
    """

    name: str
    title: str
    source: str
    seconds: int
    deadline_s: float
    streams: list[Stream]
    variant: str = ""
    target: str = ""
    seed: str = ""
    started_at: float | None = None
    capacity_rps: float | None = None
    lag_p99_ms: float | None = None
    lag_p50_ms: float | None = None
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    void: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """Void if anything makes it so, else failed if any bound is missed, else passed."""
        if self.void:
            return Verdict.VOID
        return Verdict.FAILED if any(check.met is False for check in self.checks) else Verdict.PASSED

    def stream(self, name: str) -> Stream | None:
        """Return the stream of that name."""
        return next((each for each in self.streams if each.name == name), None)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        checks = [{**asdict(check), "met": check.met} for check in self.checks]
        return {"format": FORMAT, "version": VERSION, "verdict": self.verdict.value, **asdict(self), "checks": checks}

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(self.as_dict(), allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what :meth:`write` wrote. Raises RunError, naming file and place; OSError if it cannot be opened."""
        try:
            said = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        except RecursionError:
            raise RunError(f"{path} is not JSON that can be read: it is nested too deeply") from None
        except ValueError as error:
            raise RunError(f"{path} is not JSON: {error}") from error
        try:
            return cls.from_dict(said)
        except RunError as error:
            raise RunError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, said: Any) -> Self:
        """Return the run that :meth:`as_dict` described; what a later release added is passed over. Raises RunError."""
        if not isinstance(said, Mapping) or said.get("format") != FORMAT:
            raise RunError(f'it is no run: "format" must be "{FORMAT}"')
        if said.get("version") != VERSION or isinstance(said["version"], bool):
            raise RunError(f"version must be {VERSION}, not {shown(said.get('version'))}")
        try:
            run: Self = made(cls, said, "")
            _check(run)
        except PlaceError as error:
            raise RunError(str(error)) from error
        return run


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON's")


_MAX_SECONDS: Final = 7 * 86_400


def _check(run: Run) -> None:
    """Raise PlaceError for what the annotations cannot say."""
    if not 1 <= run.seconds <= _MAX_SECONDS:
        raise PlaceError(f"seconds must be a whole number from 1 to {_MAX_SECONDS}, not {run.seconds}")
    for name in ("deadline_s", "capacity_rps", "lag_p99_ms", "started_at"):
        value = getattr(run, name)
        if value is not None and (value < 0 or (value == 0 and name == "deadline_s")):
            raise PlaceError(f"{name} must be {'above' if name == 'deadline_s' else 'at least'} 0, not {value:g}")
    for name, (start, end) in run.spans.items():
        if not 0 <= start <= end:
            raise PlaceError(f"spans.{name:.40} must go from at least 0 to no earlier, not from {start:g} to {end:g}")
    for at, check in enumerate(run.checks):
        if check.at_least is not None and check.at_most is not None:
            raise PlaceError(f"checks[{at}] must have at_least or at_most, not both")
    _check_parts(run)
    for number, stream in enumerate(run.streams):
        _check_latencies(stream, f"streams[{number}].latencies", run.seconds)


def _check_parts(run: Run) -> None:
    for kind in ("streams", "services", "edges"):
        names: set[str] = set()
        for at, part in enumerate(getattr(run, kind)):
            if part.name in names:
                raise PlaceError(f"{kind}[{at}]: {part.name!r:.60} is there twice")
            names.add(part.name)
            _check_series(part, f"{kind}[{at}]", run.seconds, may_be_empty=kind != "streams")
    for at, edge in enumerate(run.edges):
        for number, (start, end) in enumerate(edge.open):
            if end < start:
                raise PlaceError(f"edges[{at}].open[{number}] must end no earlier than {start:g}, not at {end:g}")


_MOMENTS: Final = frozenset({"trips", "open"})


def _check_series(part: Stream | Service | Edge, place: str, seconds: int, *, may_be_empty: bool) -> None:
    for each in fields(part):
        values = getattr(part, each.name)
        if each.name in _MOMENTS or not isinstance(values, list):
            continue
        if len(values) != seconds and (values or not may_be_empty):
            raise PlaceError(f"{place}.{each.name} must hold {seconds} values, one for each second, not {len(values)}")
        least = min((value for value in values if value is not None), default=0)
        if least < 0:
            raise PlaceError(f"{place}.{each.name}[{values.index(least)}] must be at least 0, not {least:g}")


def _check_latencies(stream: Stream, place: str, seconds: int) -> None:
    for number, buckets in stream.latencies.items():
        if number not in _numbers(seconds):
            raise PlaceError(f"{place}: {number!r:.40} must be a second of the run, from 0 to {seconds - 1}")
        for bucket, times in buckets.items():
            if bucket not in _BUCKETS:
                raise PlaceError(f"{place}.{number}: {bucket!r:.40} must be a bucket from 0 to {len(BOUNDS_S)}")
            if times < 0:
                raise PlaceError(f"{place}.{number}.{bucket} must be at least 0, not {times}")


@lru_cache(maxsize=4)
def _numbers(seconds: int) -> frozenset[str]:
    return frozenset(map(str, range(seconds)))


_BUCKETS: Final = frozenset(map(str, range(len(BOUNDS_S) + 1)))
