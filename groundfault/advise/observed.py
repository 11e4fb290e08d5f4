"""What was seen of one command, wherever it was read: the only thing that the rules of advice look at."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from groundfault.advise.distribution import NOTHING, Distribution
from groundfault.vocabulary import Outcome

__all__ = ["FOLDED", "MADE", "Observed", "RateTrack", "Rates", "Seen"]

FOLDED: Final = "other"
"""Stands for all segments beyond those that there was room for."""

MADE: Final = (Outcome.SUCCESS, Outcome.FAILURE, Outcome.TIMEOUT, Outcome.SHED, Outcome.IGNORED)
"""The outcomes of calls that were made; only they have a duration."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Calls made per second, by all processes together.

    ``usual_per_s``: half of the time it is more, half of the time less, counting only when there were calls at all.
    ``peak_per_s``: the mean of the busiest ``over_s`` seconds. ``note`` says what they are if not measured like that.
    """

    usual_per_s: float
    peak_per_s: float
    over_s: float
    note: str = ""


@dataclass(slots=True)
class Seen:
    """Durations by outcome, of a command or of one segment of its calls."""

    durations: dict[str, Distribution] = field(default_factory=dict)

    @property
    def successes(self) -> Distribution:
        """How long the successes took."""
        return self.durations.get(Outcome.SUCCESS, NOTHING)

    @property
    def timed_out(self) -> Distribution:
        """How long it took until calls were given up, or came back too late."""
        return self.durations.get(Outcome.TIMEOUT, NOTHING)

    @property
    def made(self) -> int:
        """How many calls were made."""
        return sum(self.durations[outcome].count for outcome in MADE if outcome in self.durations)


@dataclass(slots=True)
class Observed(Seen):
    """One command.

    ``calls`` by outcome, those never made included. ``segments`` by name. ``rates``: None where no time is known.
    ``processes`` that call it, None if unknown. ``settings``: those of its settings that the source knows.
    """

    resource: str = ""
    command: str = ""
    calls: Mapping[str, int] = field(default_factory=dict)
    segments: Mapping[str, Seen] = field(default_factory=dict)
    rates: Rates | None = None
    processes: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """``resource/command``."""
        return f"{self.resource}/{self.command}"

    @property
    def asked(self) -> int:
        """How many calls were asked for, made or not."""
        return max(self.made, sum(self.calls.values()))

    @property
    def refused(self) -> int:
        """How many calls were shed by the callee, or never made."""
        return sum(times for outcome, times in self.calls.items() if outcome not in MADE or outcome == Outcome.SHED)


class RateTrack:
    """Counts calls by spans of time that begin as ten seconds and double when there are too many of them.

    So its size is bounded, whatever the log covers, and the order in which parts of a log are merged does not matter.
    """

    __slots__ = ("cells", "doubled")

    FIRST_S: Final = 10
    MOST: Final = 2000

    def __init__(self, cells: Mapping[int, float] | None = None, doubled: int = 0) -> None:
        self.cells: dict[int, float] = dict(cells or ())
        self.doubled = doubled

    def add(self, tens: int, times: float = 1) -> None:
        """Count calls of the ten seconds with this number since the epoch."""
        cell = tens >> self.doubled
        self.cells[cell] = self.cells.get(cell, 0) + times
        while len(self.cells) > self.MOST:
            self._coarsen(self.doubled + 1)

    def merge(self, other: "RateTrack") -> None:
        """Count what the other one has counted, too."""
        if other.doubled > self.doubled:
            self._coarsen(other.doubled)
        shift = self.doubled - other.doubled
        _fold(self.cells, other.cells.items(), shift)
        while len(self.cells) > self.MOST:
            self._coarsen(self.doubled + 1)

    def rates(self) -> Rates | None:
        """Return the usual rate and the greatest; None without calls.

        The first and the last span are cut off by the log's ends and left out, unless there are no others.
        """
        spans = sorted(self.cells)
        whole = [self.cells[at] for at in spans[1:-1]] or [self.cells[at] for at in spans]
        if not whole:
            return None
        over_s = float(self.FIRST_S << self.doubled)
        note = "" if len(spans) > 2 else f"the log covers hardly more than {over_s:g} s"  # noqa: PLR2004  the two ends
        return Rates(sorted(whole)[len(whole) // 2] / over_s, max(whole) / over_s, over_s, note)

    def _coarsen(self, doubled: int) -> None:
        shift, self.doubled = doubled - self.doubled, doubled
        before, self.cells = self.cells, {}
        _fold(self.cells, before.items(), shift)


def _fold(into: dict[int, float], cells: Iterable[tuple[int, float]], shift: int) -> None:
    for cell, times in cells:
        into[cell >> shift] = into.get(cell >> shift, 0) + times
