"""How long things take: distributions of seconds, and endless draws from them. Pure.

A draw is one call of a C function that resumes a generator: the simulator makes a few for each simulated call.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, repeat
from math import exp, expm1, log
from random import Random
from typing import Protocol

__all__ = ["NOTHING", "Bimodal", "Distribution", "Exponential", "Fixed", "LogNormal", "Pareto", "Quantiles", "Uniform"]

Draw = Callable[[], float]


class Distribution(Protocol):
    """Seconds that something takes."""

    @property
    def mean_s(self) -> float:
        """The mean, in seconds."""

    def draws(self, dice: Random) -> Draw:
        """Return what gives another value at each call, drawn with ``dice``."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same each time."""

    seconds: float

    @property
    def mean_s(self) -> float:
        """The mean, in seconds."""
        return self.seconds

    def draws(self, dice: Random) -> Draw:  # noqa: ARG002  a distribution's shape
        """Return what gives the value at each call."""
        return repeat(self.seconds).__next__


NOTHING = Fixed(0.0)


@dataclass(frozen=True, slots=True)
class Exponential:
    """As random as arrivals."""

    mean: float

    @property
    def mean_s(self) -> float:
        """The mean, in seconds."""
        return self.mean

    def draws(self, dice: Random) -> Draw:
        """Return what gives another value at each call."""
        return _exponential(self.mean, dice.random).__next__


def _exponential(mean: float, draw: Draw) -> Iterator[float]:
    while True:
        yield -mean * log(1.0 - draw())


@dataclass(frozen=True, slots=True)
class Uniform:
    """Evenly between two bounds."""

    low: float
    high: float

    @property
    def mean_s(self) -> float:
        """The mean, in seconds."""
        return (self.low + self.high) / 2

    def draws(self, dice: Random) -> Draw:
        """Return what gives another value at each call."""
        return _uniform(self.low, self.high - self.low, dice.random).__next__


def _uniform(low: float, width: float, draw: Draw) -> Iterator[float]:
    while True:
        yield low + width * draw()


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Around a median, with a long tail: ``sigma`` is the standard deviation of the logarithm."""

    median: float
    sigma: float

    @property
    def mean_s(self) -> float:
        """The mean, in seconds."""
        return self.median * exp(self.sigma**2 / 2)

    def draws(self, dice: Random) -> Draw:
        """Return what gives another value at each call."""
        return _lognormal(log(self.median), self.sigma, dice).__next__


def _lognormal(mu: float, sigma: float, dice: Random) -> Iterator[float]:
    gauss = dice.gauss
    while True:
        yield exp(gauss(mu, sigma))


@dataclass(frozen=True, slots=True)
class Pareto:
    """A heavy tail, cut off: density falls as ``x ** -(shape + 1)`` between ``low`` and ``high``."""

    shape: float
    low: float
    high: float

    @property
    def mean_s(self) -> float:
        """The mean, in seconds."""
        a, low, high = self.shape, self.low, self.high
        span = log(high / low)
        whole = -expm1(-a * span)  # 1 - (low / high) ** a, also where that is next to nothing
        return low * a * (span if a == 1 else -expm1((1 - a) * span) / (a - 1)) / whole

    def draws(self, dice: Random) -> Draw:
        """Return what gives another value at each call."""
        return _pareto(self.shape, self.low, self.high, dice.random).__next__


def _pareto(shape: float, low: float, high: float, draw: Draw) -> Iterator[float]:
    share, power = 1 - (low / high) ** shape, -1 / shape
    while True:
        yield low * (1 - draw() * share) ** power


@dataclass(frozen=True, slots=True)
class Bimodal:
    """Mostly fast, and now and then slow."""

    fast: float
    slow: float
    slow_share: float

    @property
    def mean_s(self) -> float:
        """The mean, in seconds."""
        return self.fast + (self.slow - self.fast) * self.slow_share

    def draws(self, dice: Random) -> Draw:
        """Return what gives another value at each call."""
        return _bimodal(self.fast, self.slow, self.slow_share, dice.random).__next__


def _bimodal(fast: float, slow: float, share: float, draw: Draw) -> Iterator[float]:
    while True:
        yield slow if draw() < share else fast


@dataclass(frozen=True, slots=True)
class Quantiles:
    """As measured: points ``(share, seconds)`` from share 0 to share 1, straight between two of them."""

    points: tuple[tuple[float, float], ...]

    @property
    def mean_s(self) -> float:
        """The mean, in seconds."""
        return sum((right - left) * (low + high) / 2 for (left, low), (right, high) in pairwise(self.points))

    def draws(self, dice: Random) -> Draw:
        """Return what gives another value at each call."""
        return _quantiles(self.points, dice.random).__next__


def _quantiles(points: tuple[tuple[float, float], ...], draw: Draw) -> Iterator[float]:
    shares = [share for share, _ in points]
    while True:
        u = draw()
        at = min(bisect_right(shares, u), len(points) - 1)
        (left, low), (right, high) = points[at - 1], points[at]
        yield low + (high - low) * (u - left) / (right - left) if right > left else high
