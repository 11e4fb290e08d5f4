"""How much traffic arrives when: a rate curve and the arrivals drawn from it. Pure; no clock, no I/O.

The load is *open-loop*: requests arrive when the curve says so, however slowly the service answers.
A closed loop (a fixed number of users who wait for their answers) slows down with the service
and so never shows it an overload.
"""

import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Protocol, Self

__all__ = ["Curve", "Points", "Spike", "arrivals", "share_of"]


class Curve(Protocol):
    """Requests per second over time, in seconds from the start of the run."""

    @property
    def total_s(self) -> float:
        """How long it all takes, in seconds."""

    @property
    def peak_rps(self) -> float:
        """The highest rate, in requests per second."""

    def rate(self, t: float) -> float:
        """Return the requests per second due at that moment; 0.0 before the start and after the end."""

    def expected(self, start: float, end: float) -> float:
        """Return how many requests are due between two moments on average."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spike:
    """A Gronk spike: one touchdown, and everybody opens the app at once.

    ``base_rps`` requests per second for ``before_s`` seconds, then a rise over ``rise_s`` to ``factor`` times as many,
    held until ``spike_s`` seconds after the rise began, then the base again at once, for ``after_s``.
    The sudden end is the hard case for recovery: whatever has piled up by then is seen against the clock from there.

    Raises ValueError for a rate that is not positive, a factor below 1, or a duration that is negative
    or, for ``rise_s``, longer than the spike.
    """

    base_rps: float
    factor: float = 8.0
    before_s: float = 10.0
    spike_s: float = 20.0
    after_s: float = 20.0
    rise_s: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.base_rps < float("inf"):
            raise ValueError(f"base_rps must be above 0, not {self.base_rps:g}")
        if not 1 <= self.factor < float("inf"):
            raise ValueError(f"factor must be at least 1, not {self.factor:g}")
        for name in ("before_s", "spike_s", "after_s", "rise_s"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be at least 0, not {value:g}")
        if self.rise_s > self.spike_s:
            raise ValueError(f"rise_s must be at most spike_s, {self.spike_s:g}, not {self.rise_s:g}")

    @property
    def spike_end_s(self) -> float:
        """When the spike ends, in seconds from the start."""
        return self.before_s + self.spike_s

    @property
    def total_s(self) -> float:
        """How long it all takes, in seconds."""
        return self.spike_end_s + self.after_s

    @property
    def peak_rps(self) -> float:
        """The highest rate, in requests per second."""
        return self.base_rps * self.factor

    def rate(self, t: float) -> float:
        """Return the requests per second due ``t`` seconds after the start; 0.0 before it and after the end."""
        if not 0 <= t < self.total_s:
            return 0.0
        if not self.before_s <= t < self.spike_end_s:
            return self.base_rps
        into = t - self.before_s
        share = into / self.rise_s if into < self.rise_s else 1.0
        return self.base_rps * (1.0 + (self.factor - 1.0) * share)

    def expected(self, start: float, end: float) -> float:
        """Return how many requests are due between two moments on average: the integral of :meth:`rate`."""
        corners = (0.0, self.before_s, self.before_s + self.rise_s, self.spike_end_s, self.total_s)
        total = 0.0
        for left, right in pairwise(corners):
            a, b = max(start, left), min(end, right)
            if a < b:  # linear between two corners, so the rate in the middle is the mean
                total += self.rate((a + b) / 2) * (b - a)
        return total


@dataclass(frozen=True, slots=True)
class Points:
    """A curve drawn through points ``(t, rps)``, straight between two of them; it ends at the last one.

    Two points at the same moment make a step. Raises ValueError for fewer than two points, times that do not ascend
    from 0, and rates that are negative or not finite, naming the point.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if len(self.points) < 2:  # noqa: PLR2004  a line has two ends
            raise ValueError(f"points must be at least 2, not {len(self.points)}")
        before = 0.0
        for number, (t, rps) in enumerate(self.points):
            if not (isfinite(t) and t >= before) or (number == 0 and t != 0):
                wanted = "be 0" if number == 0 else f"be at least {before:g}"
                raise ValueError(f"points[{number}]: the time must {wanted}, not {t:g}")
            if not (isfinite(rps) and rps >= 0):
                raise ValueError(f"points[{number}]: the rate must be at least 0, not {rps:g}")
            before = t
        if before <= 0:
            raise ValueError(f"points[{len(self.points) - 1}]: the time must be above 0, not {before:g}")

    @classmethod
    def spikes(
        cls, base_rps: float, spikes: Iterable[tuple[float, float, float]], *, total_s: float, rise_s: float = 1.0
    ) -> Self:
        """Return a curve with several spikes ``(at_s, factor, hold_s)``, each with the given rise and as long a fall.

        Raises ValueError if they overlap or reach beyond the end.
        """
        points = [(0.0, base_rps)]
        for at_s, factor, hold_s in spikes:
            peak = base_rps * factor
            points += [
                (at_s, base_rps),
                (at_s + rise_s, peak),
                (at_s + hold_s, peak),
                (at_s + hold_s + rise_s, base_rps),
            ]
        return cls((*points, (total_s, base_rps)))

    @property
    def total_s(self) -> float:
        """How long it all takes, in seconds."""
        return self.points[-1][0]

    @property
    def peak_rps(self) -> float:
        """The highest rate, in requests per second."""
        return max(rps for _, rps in self.points)

    def scaled(self, rate: float = 1.0, *, time: float = 1.0) -> "Points":
        """Return it with all rates multiplied by ``rate``, and all times by ``time``: 0.1 plays it in a tenth."""
        return Points(tuple((t * time, rps * rate) for t, rps in self.points))

    def rate(self, t: float) -> float:
        """Return the requests per second due at that moment; 0.0 before the start and after the end."""
        if not 0 <= t < self.total_s:
            return 0.0
        after = bisect_right(self.points, (t, float("inf")))
        (t0, r0), (t1, r1) = self.points[after - 1], self.points[after]
        return r0 + (r1 - r0) * (t - t0) / (t1 - t0)

    def expected(self, start: float, end: float) -> float:
        """Return how many requests are due between two moments on average."""
        total = 0.0
        first = max(bisect_right(self.points, (start,)) - 1, 0)  # a day may have a point for each second
        for number in range(first, len(self.points) - 1):
            (t0, r0), (t1, r1) = self.points[number], self.points[number + 1]
            if t0 >= end:
                break
            a, b = max(start, t0), min(end, t1)
            if a < b:
                total += (r0 + (r1 - r0) * ((a + b) / 2 - t0) / (t1 - t0)) * (b - a)
        return total


def share_of(moments: Iterable[float], driver: int, drivers: int) -> Iterator[float]:
    """Yield every ``drivers``-th of these, from the one with the index ``driver`` on.

    All drivers draw the same arrivals and send each its own share of them: together exactly what was drawn,
    however many they are.
    """
    for number, moment in enumerate(moments):
        if number % drivers == driver:
            yield moment


def arrivals(curve: Curve, *, scale: float = 1.0, seed: str = "gronk") -> Iterator[float]:
    """Yield the moments, in seconds from the start, at which requests are due: a non-homogeneous Poisson process.

    ``scale`` multiplies the curve. The same curve, scale and seed give the same moments, on every machine.
    By thinning (Lewis and Shedler 1979): candidates at the peak rate, each kept with probability rate / peak.
    """
    peak = curve.peak_rps * scale
    if peak <= 0:
        return
    dice = random.Random(seed)
    t = dice.expovariate(peak)
    while t < curve.total_s:
        if dice.random() * peak < curve.rate(t) * scale:
            yield t
        t += dice.expovariate(peak)
