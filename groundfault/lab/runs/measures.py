"""Figures of a run, each by a name that can be written on a command line: ``success.innocent@spike>=0.99``.

``measure[.stream][@span][>=|<= bound]``. Without a stream those that are no innocents count, all together; without a
span the whole run does. Pure.

| measure | meaning |
|---|---|
| ``goodput`` | good answers that arrived, as a share of what the scarce service can give or of what was due, if less |
| ``goodput_rps`` | good answers that arrived, per second |
| ``success`` | share of what was due that was good |
| ``shed``, ``failed``, ``late``, ``unsent`` | shares of what was due |
| ``p50_ms``, ``p99_ms`` | latency of good answers from the moment they were due, milliseconds |
| ``recovery_s`` | seconds from the span's start until 99 % was good again, for three seconds and for the rest |
| ``below_s`` | seconds in which less than 80 % of what could have been good was |
| ``trips`` | circuits that opened from closed; cannot be had where the run knows of no edges |
| ``lag_p99_ms`` | how late the generator itself was |
| ``sent_error`` | how far what was sent was from what was due, in the worst second, as a share |
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, isfinite
from typing import Final, Self

from groundfault.lab.runs.record import Check, Run, Stream

__all__ = ["MEASURES", "Bound", "MeasureError", "evaluate", "judged"]

GOOD_SHARE: Final = 0.99
STEADY_S: Final = 3
ENOUGH_SHARE: Final = 0.8
FEW: Final = 50.0  # due in a second: with fewer, one request more or less is a percent or two

_EXPRESSION: Final = re.compile(
    r"(?P<measure>[a-z0-9_]+)(\.(?P<stream>[^@<>=\s]+))?(@(?P<span>[^<>=\s]+))?\s*((?P<op>>=|<=)\s*(?P<bound>\S+))?"
)


class MeasureError(ValueError):
    """An expression makes no sense, or asks for something that the run has not. The message says what it may be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """A measure, of which stream and span, and its bound; neither bound: shown and not judged."""

    measure: str
    stream: str | None = None
    span: str | None = None
    at_least: float | None = None
    at_most: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``measure[.stream][@span][>=|<= bound]``. Raises MeasureError."""
        found = _EXPRESSION.fullmatch(text.strip())
        if found is None:
            raise MeasureError(f"{text!r:.80} must be measure[.stream][@span]>=bound, or with <=")
        if found["measure"] not in MEASURES:
            raise MeasureError(f"measure must be one of {', '.join(MEASURES)}, not {found['measure']!r:.80}")
        bound = None
        if found["op"]:
            try:
                bound = float(found["bound"])
            except ValueError:
                bound = float("nan")
            if not isfinite(bound):
                raise MeasureError(f"the bound of {text!r:.80} must be a number, not {found['bound']!r:.40}")
        return cls(
            measure=found["measure"],
            stream=found["stream"],
            span=found["span"],
            at_least=bound if found["op"] == ">=" else None,
            at_most=bound if found["op"] == "<=" else None,
        )

    def __str__(self) -> str:
        """As it is written, without the bound."""
        stream = f".{self.stream}" if self.stream else ""
        return f"{self.measure}{stream}" + (f"@{self.span}" if self.span else "")


@dataclass(frozen=True, slots=True)
class _Looked:
    """What a measure looks at: whole seconds from ``start`` up to ``end``, which is not among them."""

    run: Run
    streams: Sequence[Stream]
    start: int
    end: int

    def total(self, name: str) -> int:
        return sum(sum(getattr(stream, name)[self.start : self.end]) for stream in self.streams)

    def at(self, second: int, name: str) -> int:
        return sum(getattr(stream, name)[second] for stream in self.streams)

    def share(self, name: str) -> float | None:
        due = self.total("due")
        return self.total(name) / due if due else None

    def possible(self, second: int) -> float:
        due, capacity = self.at(second, "due"), self.run.capacity_rps
        return due if capacity is None or all(stream.innocent for stream in self.streams) else min(due, capacity)


def _goodput(looked: _Looked) -> float | None:
    possible = sum(looked.possible(second) for second in range(looked.start, looked.end))
    return looked.total("arrived") / possible if possible else None


def _goodput_rps(looked: _Looked) -> float | None:
    return looked.total("arrived") / (looked.end - looked.start)


def _quantile(share: float) -> Callable[[_Looked], float | None]:
    def quantile_ms(looked: _Looked) -> float | None:
        whole = None
        for stream in looked.streams:
            one = stream.histogram(looked.start, looked.end)
            if whole is None:
                whole = one
            else:
                whole.merge(one)
        value_s = None if whole is None else whole.quantile(share)
        return None if value_s is None else value_s * 1000

    return quantile_ms


def _recovery_s(looked: _Looked) -> float | None:
    """Look from the span's start to the end of the run; the answer is exact to a second."""
    seconds = range(looked.start, looked.run.seconds)
    due = [0, *accumulate(looked.at(second, "due") for second in seconds)]
    good = [0, *accumulate(looked.at(second, "good") for second in seconds)]

    def is_good(start: int, end: int) -> bool:
        asked = due[end] - due[start]
        return asked > 0 and good[end] - good[start] >= GOOD_SHARE * asked

    last = len(seconds)
    found = (at for at in range(last - STEADY_S + 1) if is_good(at, at + STEADY_S) and is_good(at, last))
    return next(map(float, found), None)


def _below_s(looked: _Looked) -> float | None:
    seconds = range(looked.start, looked.end)
    return float(sum(looked.at(each, "arrived") < ENOUGH_SHARE * looked.possible(each) for each in seconds))


def _trips(looked: _Looked) -> float | None:
    if not looked.run.edges:
        return None  # nobody looked, which is not the same as none
    moments = [moment for edge in looked.run.edges for moment in edge.trips]
    return float(sum(looked.start <= moment < looked.end for moment in moments))


def _sent_error(looked: _Looked) -> float | None:
    worst = 0.0
    for second in range(looked.start, looked.end):
        due, sent = looked.at(second, "due"), looked.at(second, "sent")
        if due >= FEW:
            worst = max(worst, abs(sent - due) / due)
    return worst


@dataclass(frozen=True, slots=True)
class _Measure:
    title: str
    unit: str
    of: Callable[[_Looked], float | None]


MEASURES: Final[dict[str, _Measure]] = {
    "goodput": _Measure("goodput, share of what could be had", "share", _goodput),
    "goodput_rps": _Measure("goodput", "1/s", _goodput_rps),
    "success": _Measure("served in time", "share", lambda looked: looked.share("good")),
    "shed": _Measure("shed", "share", lambda looked: looked.share("shed")),
    "failed": _Measure("failed", "share", lambda looked: looked.share("failed")),
    "late": _Measure("answered too late", "share", lambda looked: looked.share("late")),
    "unsent": _Measure("not sent", "share", lambda looked: looked.share("unsent")),
    "p50_ms": _Measure("latency of good answers, median", "ms", _quantile(0.5)),
    "p99_ms": _Measure("latency of good answers, p99", "ms", _quantile(0.99)),
    "recovery_s": _Measure("recovery", "s", _recovery_s),
    "below_s": _Measure("time below 80 % of what could be had", "s", _below_s),
    "trips": _Measure("circuits tripped", "", _trips),
    "lag_p99_ms": _Measure("the generator's own lag, p99", "ms", lambda looked: looked.run.lag_p99_ms),
    "sent_error": _Measure("sent against due, worst second", "share", _sent_error),
}


def evaluate(run: Run, bound: Bound) -> Check:
    """Return the figure with its bound. Raises MeasureError for a stream or a span that the run has not."""
    if bound.stream is None:
        streams = [each for each in run.streams if not each.innocent] or run.streams
    else:
        streams = [each for each in run.streams if each.name == bound.stream]
        if not streams and bound.stream == "innocent":
            streams = [each for each in run.streams if each.innocent]
        if not streams:
            raise MeasureError(
                f"stream must be one of {', '.join(each.name for each in run.streams)}, not {bound.stream}"
            )
    start, end = 0.0, float(run.seconds)
    if bound.span is not None:
        if bound.span not in run.spans:
            raise MeasureError(f"span must be one of {', '.join(run.spans) or 'none in this run'}, not {bound.span}")
        start, end = run.spans[bound.span]
    first, last = int(start), min(max(ceil(end), int(start) + 1), run.seconds)
    measure = MEASURES[bound.measure]
    within = first < run.seconds  # a run that was cut short may not have reached the span
    value = measure.of(_Looked(run, streams, first, last)) if within else None
    whose = f", {bound.stream}" if bound.stream else ""
    return Check(
        measure=str(bound),
        title=f"{measure.title}{whose}" + (f", {bound.span}" if bound.span else ""),
        value=None if value is None else round(value, 6),
        unit=measure.unit,
        at_least=bound.at_least,
        at_most=bound.at_most,
    )


def judged(run: Run, bounds: Sequence[Bound]) -> list[Check]:
    """Return all of these figures, in this order. Raises MeasureError as :func:`evaluate`."""
    return [evaluate(run, bound) for bound in bounds]
