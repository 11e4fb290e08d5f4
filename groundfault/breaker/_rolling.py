"""Three rotating windows of ten seconds: what a command did lately, and how long it took.

A success of the fast path is one ``list.append`` of its duration onto the newest window, without a lock,
and so is an outcome that is counted where no lock may be taken.
The owner folds both into counts and a histogram under its lock, from time to time and before it looks.
Appending to a list and deleting its head are atomic, so what is appended meanwhile is kept for the next fold.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from groundfault._histogram import Histogram
from groundfault.vocabulary import Outcome

__all__ = ["FOLD_AT", "MADE", "WINDOWS", "WINDOW_S", "Rolling"]

WINDOW_S: Final = 10.0
WINDOWS: Final = 3

MADE: Final = frozenset({Outcome.SUCCESS, Outcome.FAILURE, Outcome.TIMEOUT, Outcome.SHED, Outcome.IGNORED})
"""The outcomes of calls that were made, so that they took some time."""

FOLD_AT: Final = 512
"""Durations that may lie unfolded, some thirty bytes each."""


class _Window:
    """Ten seconds. ``counts`` is without the successes, which are in ``successes`` and by duration in ``histogram``."""

    __slots__ = ("counts", "durations", "histogram", "successes", "tallies")

    def __init__(self) -> None:
        self.durations: list[float] = []
        self.tallies: list[Outcome] = []
        self.successes = 0
        self.counts: dict[Outcome, int] = {}
        self.histogram = Histogram()

    @property
    def failures(self) -> int:
        return self.counts.get(Outcome.FAILURE, 0) + self.counts.get(Outcome.TIMEOUT, 0)


class Rolling:
    """The windows, newest first, and what was counted since the beginning.

    ``_taken``: how long all calls of an outcome took since then; there only once there is one, for most have none.
    """

    __slots__ = ("_is_folding", "_lifetime", "_taken", "_windows", "ends_at")

    def __init__(self, now: float) -> None:
        self._is_folding = False
        self._windows = [_Window()]
        self._lifetime: dict[Outcome, int] = {}
        self._taken: dict[Outcome, Histogram] | None = None
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
            window.histogram.add(duration_s)
        else:
            window.counts[outcome] = window.counts.get(outcome, 0) + 1
        self.count_outside(outcome, duration_s)

    def count_outside(self, outcome: Outcome, duration_s: float = 0.0) -> None:
        """Count a call that belongs to no window, because the circuit has moved since it began."""
        self._lifetime[outcome] = self._lifetime.get(outcome, 0) + 1
        if outcome in MADE:
            self._taken_by(outcome).add(duration_s)

    def fold(self) -> None:
        """Move what was appended into the counts and the histogram."""
        if self._is_folding:  # a signal handler's call, in the midst of it: what it appended is for the next time
            return
        self._is_folding = True
        try:
            for window in tuple(self._windows):
                if window.durations:
                    self._fold_durations(window)
                if window.tallies:
                    self._fold_tallies(window)
        finally:
            self._is_folding = False

    def _fold_durations(self, window: _Window) -> None:
        # Sorting floats and searching the few bounds among them is cheaper than placing each by itself.
        length = len(window.durations)
        batch = Histogram()
        batch.add_sorted(sorted(window.durations[:length]))
        window.histogram.merge(batch)
        self._taken_by(Outcome.SUCCESS).merge(batch)
        window.successes += length
        self._lifetime[Outcome.SUCCESS] = self._lifetime.get(Outcome.SUCCESS, 0) + length
        del window.durations[:length]

    def _taken_by(self, outcome: Outcome) -> Histogram:
        if self._taken is None:
            self._taken = {}
        taken = self._taken.get(outcome)
        if taken is None:
            taken = self._taken[outcome] = Histogram()
        return taken

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

    def totals(self) -> dict[Outcome, int]:
        """Return the count since the beginning of each outcome that there was: cheaper than :meth:`lifetime`."""
        self.fold()
        return self._lifetime.copy()

    @property
    def ended(self) -> int:
        """How many calls have been folded since the beginning: while it stays, so do their counts and durations."""
        return sum(self._lifetime.values())

    def taken(self) -> dict[Outcome, Histogram]:
        """Return how long calls took since the beginning, by outcome, of those outcomes that there were."""
        self.fold()
        return {outcome: histogram.copy() for outcome, histogram in (self._taken or {}).items()}

    def quantiles(self, *shares: float) -> tuple[float | None, ...]:
        """Return the durations in seconds that these shares of the successes stayed below; None without successes."""
        self.fold()
        merged = Histogram()
        for window in self._windows:
            merged.merge(window.histogram)
        return tuple(merged.quantile(share) for share in shares)
