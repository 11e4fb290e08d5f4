"""How long calls took, as counts of spans of seconds: what is known, and how exactly.

Logs are counted in spans of two percent, a process's own histograms in spans of a quarter to a third,
and what Prometheus holds is coarser still. A distribution remembers its spans, so advice can be honest about them:
what may lie beyond a bound counts as lying beyond it.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from itertools import accumulate
from math import exp, inf, log
from typing import Final

from groundfault._histogram import BOUNDS_S, Histogram

__all__ = ["FINEST_S", "LONGEST_S", "NOTHING", "PER_E", "ZEROTH", "Distribution"]

PER_E: Final = 1.0 / log(1.02)
"""Fine spans in a factor of e: each is two percent wide."""
FINEST_S: Final = 1e-6
LONGEST_S: Final = 1e5
"""Shorter durations count as the one, longer ones as the other: more than a day is no call."""
ZEROTH: Final = -int(log(FINEST_S) * PER_E) + 1
"""Added to the logarithm of a duration in fine spans, it gives the span's index, at least 0."""
_FUZZ: Final = 1.0 + 1e-9  # a bound that was computed is not the very number that was written


class Distribution:
    """Counts of calls by span of seconds, ``(low, high]``. ``sum_s``: exact where it was counted. It never changes."""

    __slots__ = ("_heaped", "count", "spans", "sum_s")

    def __init__(self, spans: Iterable[tuple[float, float, int]] = (), sum_s: float | None = None) -> None:
        self.spans = tuple(sorted(span for span in spans if span[2] > 0))
        self._heaped = tuple(accumulate(times for _, _, times in self.spans))
        self.count = self._heaped[-1] if self._heaped else 0
        self.sum_s = sum(times * _middle(low, high) for low, high, times in self.spans) if sum_s is None else sum_s

    def __repr__(self) -> str:
        return f"<Distribution of {self.count}, {self.sum_s:g} s>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Distribution) and self.spans == other.spans

    __hash__ = None  # type: ignore[assignment]  # nobody needs it

    @classmethod
    def of_histogram(cls, histogram: Histogram) -> "Distribution":
        """Return what a process has counted for itself."""
        ends = (0.0, *BOUNDS_S, inf)
        return cls(((ends[at], ends[at + 1], times) for at, times in histogram.buckets.items()), histogram.sum_s)

    @classmethod
    def of_fine(cls, buckets: Mapping[int, int]) -> "Distribution":
        """Return what was counted in fine spans, by their index."""
        return cls((exp((at - ZEROTH) / PER_E), exp((at + 1 - ZEROTH) / PER_E), times) for at, times in buckets.items())

    @classmethod
    def of_bounds(cls, below: Mapping[float, float], sum_s: float | None = None) -> "Distribution":
        """Return what Prometheus holds: how many values are at most as large as each bound, the last one infinite.

        What was extrapolated is no whole number, and need not even ascend; it is rounded, and made to.
        """
        spans, low, done = [], 0.0, 0
        for high in sorted(below):
            reached = max(done, round(below[high]))
            spans.append((low, high, reached - done))
            low, done = high, reached
        return cls(spans, sum_s)

    @property
    def mean_s(self) -> float:
        """The mean; 0.0 without values."""
        return self.sum_s / self.count if self.count else 0.0

    def merged(self, *others: "Distribution") -> "Distribution":
        """Return the values of this one and of the others together."""
        together: dict[tuple[float, float], int] = {}
        for each in (self, *others):
            for low, high, times in each.spans:
                together[low, high] = together.get((low, high), 0) + times
        spans = ((low, high, times) for (low, high), times in together.items())
        return Distribution(spans, self.sum_s + sum(other.sum_s for other in others))

    def quantile(self, share: float) -> float:
        """Return the seconds that this share of the values stays below, values spread evenly within their span.

        In the last, endless span it is the span's beginning. 0.0 without values.
        """
        found = self._span_of(share)
        if found is None:
            return 0.0
        (low, high, times), before = found
        return low if high == inf else low + (high - low) * min(1.0, (share * self.count - before) / times)

    def span_of(self, share: float) -> tuple[float, float]:
        """Return the span in which the quantile lies: more is not known of it. Without values, nothing is."""
        found = self._span_of(share)
        return (0.0, inf) if found is None else found[0][:2]

    def above(self, bound_s: float) -> int:
        """Return how many values may lie above the bound: all of a span that reaches beyond it count."""
        beyond = bound_s * _FUZZ
        return sum(times for _, high, times in self.spans if high > beyond)

    def share_above(self, bound_s: float) -> float:
        """Return the share of the values that may lie above the bound; 0.0 without values."""
        return self.above(bound_s) / self.count if self.count else 0.0

    def bound_for(self, may_exceed: float) -> float:
        """Return the least end of a span above which no more than this share of the values lies; may be infinite."""
        allowed = int(may_exceed * self.count * _FUZZ)
        bound, left = inf, 0
        for _, high, times in sorted(self.spans, key=lambda span: span[1], reverse=True):
            if left > allowed:
                break
            bound = high
            left += times
        return bound if self.spans else 0.0

    def density(self, step: float) -> dict[int, float]:
        """Return how many values lie in each of equal spans of the logarithm, ``log(seconds) // step``."""
        cells: dict[int, float] = {}
        for low, high, times in self.spans:
            start, end = (log(edge) / step for edge in _drawn(low, high))
            cell = int(start // 1)
            while cell < end:
                part = (min(end, cell + 1) - max(start, cell)) / (end - start)
                if part > 0:
                    cells[cell] = cells.get(cell, 0.0) + times * part
                cell += 1
        return cells

    def _span_of(self, share: float) -> tuple[tuple[float, float, int], int] | None:
        wanted = share * self.count
        at = bisect_left(self._heaped, wanted)
        if not self.spans:
            return None
        at = min(at, len(self.spans) - 1)
        return self.spans[at], self._heaped[at - 1] if at else 0


def _middle(low: float, high: float) -> float:
    return low if high == inf else (low + high) / 2


def _drawn(low: float, high: float) -> tuple[float, float]:
    """Return edges that have a logarithm: a span that begins at zero, or never ends, is given a factor of two."""
    if low <= 0.0:
        low = (1.0 if high == inf else high) / 2
    return low, low * 2 if high == inf else high


NOTHING: Final = Distribution()
