"""The document of a run, ``run.json``: what was offered, what became of it, and the verdict.

Lists hold one value for each whole second of the run.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import Any, Final, Self

from groundfault._histogram import Histogram
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
        merged = Histogram()
        for number in range(start, end):
            for bucket, times in self.latencies.get(str(number), {}).items():
                merged.merge(Histogram({int(bucket): times}))
        return merged


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
    ``started_at``: seconds since the epoch, None in virtual time. ``capacity_rps``: good answers a second that the
    scarce service can give, None if it is not known. ``spans``: named stretches, ``(start, end)`` in seconds, of which
    ``spike`` is the one that matters most. ``void``: why the run says nothing, one sentence each.
    ``settings``: whatever the run was made with, as JSON can hold it. ``lag_p99_ms`` and ``lag_p50_ms``: the
    generator's own.
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
            said = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
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
        if said.get("version") != VERSION:
            raise RunError(f"version must be {VERSION}, not {said.get('version')!r:.40}")
        seconds = said.get("seconds")
        if not isinstance(seconds, int) or isinstance(seconds, bool) or not 1 <= seconds <= _MAX_SECONDS:
            raise RunError(f"seconds must be a whole number from 1 to {_MAX_SECONDS}, not {seconds!r:.40}")
        known: dict[str, Any] = _known(cls, said, "the run")
        for name, kind in _PARTS.items():
            known[name] = [
                _made(kind, each, f"{name}[{number}]", seconds)
                for number, each in enumerate(_listed(said.get(name, []), name))
            ]
        spans = known.get("spans", {})
        try:
            known["spans"] = {str(name): (float(start), float(end)) for name, (start, end) in spans.items()}
            return cls(**known)
        except (AttributeError, TypeError, ValueError) as error:
            raise RunError(f"it is no run: {error}") from error


_MAX_SECONDS: Final = 7 * 86_400
_PARTS: Final[dict[str, type[Any]]] = {
    "streams": Stream,
    "marks": Mark,
    "services": Service,
    "edges": Edge,
    "checks": Check,
}


def _known(kind: type[Any], said: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(said, Mapping):
        raise RunError(f"{where} must be an object, not {type(said).__name__}")
    names = {each.name for each in fields(kind)}
    return {name: value for name, value in said.items() if name in names}


def _listed(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise RunError(f"{where} must be a list, not {type(value).__name__}")
    return value


def _made(kind: type[Any], said: Any, where: str, seconds: int) -> Any:
    known = _known(kind, said, where)
    for name, value in known.items():
        if isinstance(value, list) and name not in {"trips", "open"}:
            _check_series(value, f"{where}.{name}", seconds)
    if "open" in known:
        known["open"] = [tuple(span) for span in known["open"]]
    try:
        return kind(**known)
    except TypeError as error:
        raise RunError(f"{where}: {error}") from error


def _check_series(values: Sequence[Any], where: str, seconds: int) -> None:
    if len(values) not in {0, seconds}:
        raise RunError(f"{where} must hold {seconds} values, one for each second, not {len(values)}")
    for number, value in enumerate(values):
        if value is not None and not (isinstance(value, int | float) and isfinite(value)):
            raise RunError(f"{where}[{number}] must be a number, not {value!r:.40}")
