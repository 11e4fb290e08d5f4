"""Values by second, made as few as can be seen: a day has 86,400 of them and a page 700 pixels. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final, Self

from groundfault._histogram import Histogram
from groundfault.lab.runs.record import Mark, Stream

__all__ = ["Flag", "Grid", "added", "flags"]

_STEPS: Final = (1, 2, 5, 10, 15, 20, 30, 60, 120, 180, 300, 600, 900, 1800, 3600, 7200, 14_400)


@dataclass(frozen=True, slots=True)
class Grid:
    """A stretch of a run from ``start`` up to ``end``, in whole seconds, cut into steps of ``step`` seconds."""

    start: int
    end: int
    step: int

    @classmethod
    def of(cls, start: float, end: float, most: int) -> Self:
        """Return one with ``most`` steps at most, each as long as people count time. It holds a second at least."""
        first = int(start)
        last = max(first + 1, ceil(end))
        step = next((step for step in _STEPS if (last - first) <= step * most), _STEPS[-1])
        return cls(first, last, step)

    @property
    def starts(self) -> range:
        """Where the steps begin, in seconds."""
        return range(self.start, self.end, self.step)

    @property
    def middles(self) -> list[float]:
        """Where a value stands: in the middle of its step, the last of which may be shorter."""
        return [(start + min(start + self.step, self.end)) / 2 for start in self.starts]

    def rates(self, values: Sequence[int]) -> list[float]:
        """Return what there was a second in each step, on average."""
        return [sum(part) / len(part) for part in self._cut(values)]

    def shares(self, parts: Sequence[int], wholes: Sequence[int]) -> list[float | None]:
        """Return what share of the one the other is in each step; None where there was none."""
        totals = zip(map(sum, self._cut(parts)), map(sum, self._cut(wholes)), strict=True)
        return [part / whole if whole else None for part, whole in totals]

    def worst(self, values: Sequence[float | None]) -> list[float | None]:
        """Return the largest value of each step; None where there is none."""
        return [max((value for value in part if value is not None), default=None) for part in self._cut(values)]

    def percentiles_ms(self, streams: Sequence[Stream], share: float) -> list[float | None]:
        """Return this percentile of the latencies of the good ones of each step, of all these streams together."""
        if not any(stream.latencies for stream in streams):
            by_second = [stream.p50_ms if share <= 0.5 else stream.p99_ms for stream in streams]  # noqa: PLR2004  of the two there are
            return self.worst([_largest(values) for values in zip(*by_second, strict=True)])
        return [self._percentile_ms(streams, start, share) for start in self.starts]

    def _percentile_ms(self, streams: Sequence[Stream], start: int, share: float) -> float | None:
        merged = Histogram()
        for stream in streams:
            merged.merge(stream.histogram(start, min(start + self.step, self.end)))
        value_s = merged.quantile(share)
        return None if value_s is None else value_s * 1000

    def _cut(self, values: Sequence[Any]) -> Iterator[Sequence[Any]]:
        return (values[start : min(start + self.step, self.end)] for start in self.starts)


def _largest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def added(streams: Iterable[Stream], name: str, seconds: int) -> list[int]:
    """Return by second what these streams count under this name, together."""
    columns = [getattr(stream, name) for stream in streams]
    if len(columns) == 1:
        return list(columns[0])  # of a day it is worth it
    return [sum(values) for values in zip(*columns, strict=True)] if columns else [0] * seconds


@dataclass(frozen=True, slots=True)
class Flag:
    """A place on the time axis with the numbers of the marks that are there; the first mark has the number 1."""

    t: float
    text: str


def flags(marks: Sequence[Mark], start: float, end: float, most: int) -> list[Flag]:
    """Return where the marks stand, each with its number; those too near to be told apart share a flag."""
    placed: list[tuple[float, int, int]] = []
    apart = (end - start) / most
    inside = [(mark.t, number) for number, mark in enumerate(marks, 1) if start <= mark.t <= end]
    for t, number in sorted(inside):
        if placed and t - placed[-1][0] < apart:
            at, first, last = placed[-1]
            placed[-1] = (at, min(first, number), max(last, number))
        else:
            placed.append((t, number, number))
    return [Flag(t, str(first) if first == last else f"{first}-{last}") for t, first, last in placed]
