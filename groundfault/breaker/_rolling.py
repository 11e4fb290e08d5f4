"""Three rotating windows of ten seconds: what a command did lately, and how long it took.

A success of the fast path is one ``list.append`` of its duration onto the newest window, without a lock,
and so is an outcome that is counted where no lock may be taken.
The owner folds both into counts and a histogram under its lock, from time to time and before it looks.
Appending to a list and deleting its head are atomic, so what is appended meanwhile is kept for the next fold.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from typing import Final

from groundfault.vocabulary import Outcome

__all__ = ["FOLD_AT", "WINDOWS", "WINDOW_S", "Rolling"]

WINDOW_S: Final = 10.0
WINDOWS: Final = 3

FOLD_AT: Final = 512
"""Durations that may lie unfolded, some thirty bytes each."""

_MICROSECONDS: Final = 1e6


def _bucket_of(duration_s: float) -> int:
    """Return the power of two that the duration's microseconds stay below."""
    return int(max(0.0, duration_s) * _MICROSECONDS).bit_length()


class _Window:
    """Ten seconds. ``counts`` is without the successes, which are in ``successes`` and by duration in ``histogram``."""

    __slots__ = ("counts", "durations", "histogram", "successes", "tallies")

    def __init__(self) -> None:
        self.durations: list[float] = []
        self.tallies: list[Outcome] = []
        self.successes = 0
        self.counts: dict[Outcome, int] = {}
        self.histogram: dict[int, int] = {}

    @property
    def failures(self) -> int:
        return self.counts.get(Outcome.FAILURE, 0) + self.counts.get(Outcome.TIMEOUT, 0)


class Rolling:
    """The windows, newest first, and what was counted since the beginning."""

    __slots__ = ("_lifetime", "_windows", "ends_at")

    def __init__(self, now: float) -> None:
        self._windows = [_Window()]
        self._lifetime: dict[Outcome, int] = {}
        self.ends_at = now + WINDOW_S

    @property
    def durations(self) -> list[float]:
        """Where a success of the newest window may be appended, in seconds, without a lock."""
        return self._windows[0].durations

    @property
    def tallies(self) -> list[Outcome]:
        """Where any other outcome of the newest window may be appended without a lock."""
        return self._windows[0].tallies

    def roll(self, now: float) -> None:
        """Begin a new window if the newest has ended; after a long enough gap no old one is left."""
        if now < self.ends_at:
            return
        passed = int((now - self.ends_at) // WINDOW_S) + 1
        self.fold()
        if passed >= WINDOWS:
            self.clear(now)
            return
        for _ in range(passed):
            self._windows.insert(0, _Window())
        del self._windows[WINDOWS:]
        self.ends_at += passed * WINDOW_S

    def clear(self, now: float) -> None:
        """Forget the windows, not the lifetime counts, and begin a new one."""
        self.fold()
        self._windows = [_Window()]
        self.ends_at = now + WINDOW_S

    def count(self, outcome: Outcome, duration_s: float = 0.0) -> None:
        """Count one call in the newest window."""
        window = self._windows[0]
        if outcome is Outcome.SUCCESS:
            window.successes += 1
            bucket = _bucket_of(duration_s)
            window.histogram[bucket] = window.histogram.get(bucket, 0) + 1
        else:
            window.counts[outcome] = window.counts.get(outcome, 0) + 1
        self.count_outside(outcome)

    def count_outside(self, outcome: Outcome) -> None:
        """Count a call that belongs to no window, because the circuit has moved since it began."""
        self._lifetime[outcome] = self._lifetime.get(outcome, 0) + 1

    def fold(self) -> None:
        """Move what was appended into the counts and the histogram."""
        for window in self._windows:
            if window.durations:
                self._fold_durations(window)
            if window.tallies:
                self._fold_tallies(window)

    def _fold_durations(self, window: _Window) -> None:
        # Sorting floats and searching the few powers of two among them is cheaper than placing each by itself.
        length = len(window.durations)
        batch = sorted(window.durations[:length])
        first = 0
        while first < length:
            bucket = _bucket_of(batch[first])
            # At least one: right at a power of two the two ways of comparing may round differently.
            end = max(first + 1, bisect_left(batch, (1 << bucket) / _MICROSECONDS, first))
            window.histogram[bucket] = window.histogram.get(bucket, 0) + end - first
            first = end
        window.successes += length
        self._lifetime[Outcome.SUCCESS] = self._lifetime.get(Outcome.SUCCESS, 0) + length
        del window.durations[:length]

    def _fold_tallies(self, window: _Window) -> None:
        length = len(window.tallies)
        for outcome, times in Counter(window.tallies[:length]).items():
            window.counts[outcome] = window.counts.get(outcome, 0) + times
            self._lifetime[outcome] = self._lifetime.get(outcome, 0) + times
        del window.tallies[:length]

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yield failures and volume of the newest window, of the newest two, of all three."""
        self.fold()
        failures = volume = 0
        for window in self._windows:
            failures += window.failures
            volume += window.failures + window.successes
            yield failures, volume

    def counts(self) -> dict[Outcome, int]:
        """Return every outcome's count over the windows."""
        self.fold()
        counts = dict.fromkeys(Outcome, 0)
        for window in self._windows:
            counts[Outcome.SUCCESS] += window.successes
            for outcome, times in window.counts.items():
                counts[outcome] += times
        return counts

    def lifetime(self) -> dict[Outcome, int]:
        """Return every outcome's count since the beginning."""
        self.fold()
        return {outcome: self._lifetime.get(outcome, 0) for outcome in Outcome}

    def quantiles(self, *shares: float) -> tuple[float | None, ...]:
        """Return the durations in seconds that these shares of the successes stayed below; None without successes.

        Between the two powers of two that are known the successes are taken to be spread evenly,
        so an answer is off by less than a factor of two.
        """
        self.fold()
        merged: Counter[int] = Counter()
        for window in self._windows:
            merged.update(window.histogram)
        return tuple(_quantile(merged, share) for share in shares)


def _quantile(histogram: Counter[int], share: float) -> float | None:
    wanted = share * histogram.total()
    if not wanted:
        return None
    below = 0
    bucket = 0
    for bucket in sorted(histogram):  # some thirty buckets at most
        times = histogram[bucket]
        if below + times >= wanted:
            low, high = (1 << bucket) >> 1, 1 << bucket
            return (low + (high - low) * (wanted - below) / times) / _MICROSECONDS
        below += times
    return (1 << bucket) / _MICROSECONDS
