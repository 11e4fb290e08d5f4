"""How long things took, counted in buckets that are fine enough for advice and few enough to keep for each command.

Ten buckets for each power of ten, from 10 µs to 100 s: a value is known to within a third, a quarter for the most part.
The bounds hold all of those that OpenTelemetry's conventions give durations, so what is shown of them is exact.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from typing import Any, Final, Self

__all__ = ["BOUNDS_S", "Histogram"]

_STEPS: Final = (1.0, 1.25, 1.6, 2.0, 2.5, 3.2, 4.0, 5.0, 6.3, 7.5)

BOUNDS_S: Final = (*(float(f"{step}e{power}") for power in range(-5, 2) for step in _STEPS), 100.0)
"""Upper bounds in seconds, inclusive. A bucket is known by its index; the last index, ``len(BOUNDS_S)``, has none."""


class Histogram:
    """Counts by bucket and the sum of all values, in seconds. Not thread-safe: whoever owns it guards it.

    ``buckets`` holds only those that are not empty, for most commands take about as long each time.
    """

    __slots__ = ("buckets", "sum_s")

    def __init__(self, buckets: Mapping[int, int] | None = None, sum_s: float = 0.0) -> None:
        self.buckets: dict[int, int] = dict(buckets or ())
        self.sum_s = sum_s

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and (self.buckets, self.sum_s) == (other.buckets, other.sum_s)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"<Histogram of {self.count}, {self.sum_s:g} s>"

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self.buckets.values())

    def add(self, value_s: float) -> None:
        """Count one value; below zero it counts as zero."""
        bucket = bisect_left(BOUNDS_S, value_s)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        if value_s > 0:
            self.sum_s += value_s

    def add_sorted(self, values_s: list[float]) -> None:
        """Count many values, the least first: searched for the few bounds among them instead of each by itself."""
        first, length = 0, len(values_s)
        while first < length:
            bucket = bisect_left(BOUNDS_S, values_s[first])
            end = length if bucket == len(BOUNDS_S) else bisect_right(values_s, BOUNDS_S[bucket], first)
            self.buckets[bucket] = self.buckets.get(bucket, 0) + end - first
            first = end
        self.sum_s += sum(value_s for value_s in values_s if value_s > 0)

    def merge(self, other: Self) -> None:
        """Count what the other one has counted, too."""
        mine = self.buckets
        known = mine.get  # looked up once: thousands of these are merged for a scrape
        for bucket, times in other.buckets.items():
            mine[bucket] = known(bucket, 0) + times
        self.sum_s += other.sum_s

    def copy(self) -> "Histogram":
        """Return one that later changes of this one leave alone."""
        return Histogram(self.buckets, self.sum_s)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it: counts by the index of the bucket, and the sum."""
        return {"buckets": {str(bucket): self.buckets[bucket] for bucket in sorted(self.buckets)}, "sum_s": self.sum_s}

    def below(self, bounds_s: Iterable[float]) -> list[int]:
        """Return how many values are at most as large as each of these bounds, which ascend and are among BOUNDS_S."""
        result, total, done = [], 0, -1
        for bound_s in bounds_s:
            index = bisect_left(BOUNDS_S, bound_s)
            total += sum(self.buckets.get(bucket, 0) for bucket in range(done + 1, index + 1))
            result.append(total)
            done = index
        return result

    def quantile(self, share: float) -> float | None:
        """Return the seconds that this share of the values, in [0, 1], stays below; None without values.

        Within a bucket the values are taken to be spread evenly. What lies beyond the last bound counts as that bound.
        """
        wanted = share * self.count
        if not wanted:
            return None
        below = 0
        bucket = 0
        for bucket in sorted(self.buckets):
            times = self.buckets[bucket]
            if below + times >= wanted and bucket < len(BOUNDS_S):
                low = BOUNDS_S[bucket - 1] if bucket else 0.0
                return low + (BOUNDS_S[bucket] - low) * (wanted - below) / times
            below += times
        return BOUNDS_S[min(bucket, len(BOUNDS_S) - 1)]
