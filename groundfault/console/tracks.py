"""What is remembered of one command: two minutes of points, and the totals of the last ten seconds. Pure.

The lists of points grow only while there is traffic: a thousand idle commands cost nothing.
"""

from typing import Any, Final, NamedTuple

from groundfault.console.figures import short
from groundfault.console.view import POINT_S, POINTS
from groundfault.metrics.report import CommandReport

__all__ = ["BAD", "ENOUGH_S", "NONE", "Filled", "Held", "Points", "Spark", "Track"]

BAD: Final = frozenset({"failure", "timeout", "shed", "circuit-open", "bulkhead-full", "throttled", "unhealthy"})
"""Outcomes of calls that somebody has been let down by."""

NONE: Final = CommandReport("", "")
"""What a command has counted that nobody had heard of."""

_CLOSED: Final = POINTS - 1

ENOUGH_S: Final = 0.4 * POINT_S
"""Of less of the report clock a rate says little: few of the processes have written."""

Values = list[float | None]


class Points:
    """Which two seconds it is, and which of those before are known. Shared by all sparks of one observer.

    ``index``: of the open point, counted from the epoch. ``span_s``: how much of the report clock it holds so far.
    ``known``: of the closed ones, the oldest first. ``pending``: the newest of these in which nobody has written, or
    so few that a rate would say more of them than of all: what is next told covers these too.
    """

    __slots__ = ("index", "known", "pending", "span_s")

    def __init__(self, index: int) -> None:
        self.index = index
        self.span_s = 0.0
        self.known: list[bool] = []
        self.pending = 0

    def close(self) -> float:
        """Close the open point; return its span, 0.0 if too little is known of it: then that is carried over."""
        span_s = 0.0
        if self.span_s >= ENOUGH_S:
            span_s, self.span_s = self.span_s, 0.0
        self.known.append(span_s > 0)
        del self.known[:-_CLOSED]
        self.pending = 0 if span_s > 0 else self.pending + 1
        self.index += 1
        return span_s

    def forget(self) -> None:
        """Let nothing more be told of what is past: there is a gap."""
        self.pending = 0

    def fill(self, step_s: float) -> "Filled":
        """Take in a step of the report clock; return what of it belongs to the points that were pending."""
        whole_s = self.span_s + step_s
        covered = min(self.pending, int(whole_s / POINT_S), len(self.known)) if self.pending else 0
        if covered:
            self.known[-covered:] = [True] * covered
        self.pending = 0
        left = 1.0 - covered * POINT_S / whole_s if covered else 1.0
        self.span_s = whole_s * left
        return Filled(covered, left, whole_s)

    @property
    def shows_open(self) -> bool:
        """Whether enough is known of the open point to show it."""
        return self.span_s >= ENOUGH_S

    @property
    def hidden(self) -> int:
        """How many points at the end are not shown: one that is pending is soon told of."""
        return 1 if self.pending == 1 and not self.shows_open else 0

    @property
    def end(self) -> int:
        """The index of the last point that is shown."""
        return self.index if self.shows_open else self.index - 1 - self.hidden


class Filled(NamedTuple):
    """``covered``: how many pending points a step covers, ``left``: the share of it that belongs to the open one.

    ``whole_s``: the step, and what was carried over.
    """

    covered: int
    left: float
    whole_s: float


class Spark:
    """Points of one thing. ``closed`` is None while there has been nothing for two minutes; so is ``bad``."""

    __slots__ = ("bad", "closed", "count", "ill", "quiet", "well")

    def __init__(self) -> None:
        self.closed: Values | None = None
        self.bad: Values | None = None
        self.count = 0.0
        self.ill = 0.0
        self.quiet = 0
        self.well = 0

    def add(self, count: int, ill: int, points: Points, filled: Filled) -> None:
        """Take in what was counted in a step of the report clock, after :meth:`spread`."""
        covered, left, whole_s = filled
        if self.closed is None:
            self.closed = [0.0 if known else None for known in points.known]
            self.quiet = 0
        if ill and self.bad is None:
            self.bad = [None if value is None else 0.0 for value in self.closed]
            self.well = 0
        if covered:
            _raise(self.closed, covered, count / whole_s)
            if self.bad is not None:
                _raise(self.bad, covered, ill / whole_s)
        self.count += count * left
        self.ill += ill * left

    def spread(self, filled: Filled) -> None:
        """Give the pending points their part of what was carried over."""
        covered, left, whole_s = filled
        if not covered:
            return
        if self.closed is not None:
            self.closed[-covered:] = [short(self.count / whole_s)] * covered
            if self.bad is not None:
                self.bad[-covered:] = [short(self.ill / whole_s)] * covered
        self.count *= left
        self.ill *= left

    def close(self, span_s: float) -> bool:
        """Close the open point; return false if there is nothing more to remember."""
        if self.closed is None:
            return False
        self.closed.append(short(self.count / span_s) if span_s else None)
        del self.closed[:-_CLOSED]
        self.quiet = 0 if self.count else self.quiet + 1
        if self.bad is not None:
            self.bad.append(short(self.ill / span_s) if span_s else None)
            del self.bad[:-_CLOSED]
            self.well = 0 if self.ill else self.well + 1
            if self.well >= POINTS:
                self.bad = None
        if span_s:
            self.count = self.ill = 0.0
        if self.quiet >= POINTS:
            self.closed = self.bad = None
        return self.closed is not None

    def shown(self, points: Points) -> tuple[Values, Values]:
        """Return both lists as a view has them."""
        span_s = points.span_s if points.shows_open else 0.0
        if self.closed is None:
            values: Values = [0.0 if known else None for known in points.known]
        else:
            values = self.closed.copy()
        if span_s:
            values.append(short(self.count / span_s))
        elif points.hidden:
            values.pop()
        missing = POINTS - len(values)
        if missing > 0:
            values = [*[None] * missing, *values]
        if self.bad is None:
            return values, []
        bad = self.bad.copy()
        if span_s:
            bad.append(short(self.ill / span_s))
        elif points.hidden:
            bad.pop()
        return values, [*[None] * (POINTS - len(bad)), *bad]

    def remembered(self) -> Any:
        """Return what JSON can hold, for :meth:`recalled`; None for nothing."""
        return None if self.closed is None else [self.closed, self.bad]

    @classmethod
    def recalled(cls, said: Any, length: int) -> "Spark":
        """Return the spark that said so, with so many closed points. Raises ValueError for anything else."""
        spark = cls()
        if said is not None:
            closed, bad = said
            spark.closed = _values(closed, length)
            spark.bad = None if bad is None else _values(bad, length)
        return spark


def _raise(values: Values, covered: int, by: float) -> None:
    for at in range(-covered, 0):
        values[at] = short((values[at] or 0.0) + by)


def _values(said: Any, length: int) -> Values:
    if not isinstance(said, list) or len(said) != length:
        raise ValueError("points must be a list as long as the others")
    values = [None if each is None else float(each) for each in said]
    if not all(each is None or 0.0 <= each < float("inf") for each in values):
        raise ValueError("points must be numbers")
    return values


class Held(NamedTuple):
    """Totals as they stood at a mark of the report clock; ``mark``: its number, -1 for before the first."""

    mark: int
    clock_s: float
    report: CommandReport


class Track:
    """One command. ``seen``: the newest report of it, None if there is none; ``held``: the totals at the marks before.

    Reports are values that nobody changes once they were read, so they are kept as they are.
    """

    __slots__ = ("held", "name", "seen", "spark")

    def __init__(self, name: str, held: Held) -> None:
        self.name = name
        self.seen: CommandReport | None = held.report
        self.held = [held]
        self.spark = Spark()

    def hold(self, held: Held, first: int) -> None:
        """Keep newer totals; forget those before the mark ``first`` but the last of them."""
        mine = self.held
        mine.append(held)
        while mine[1].mark <= first:
            del mine[0]

    def restart(self, held: Held) -> None:
        """Count from here: what was before is of another beginning."""
        self.held = [held]
