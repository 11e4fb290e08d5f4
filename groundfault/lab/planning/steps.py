"""From a curve to levels: how many instances are needed, and the plan with few changes that never has fewer. Pure."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import ceil
from typing import Final

from groundfault.lab.curves import Points
from groundfault.lab.planning.demand import Fleet, PlanError, Service

__all__ = ["Change", "Level", "Planned", "levels_of", "needs_of", "planned", "wanted_for"]

_MOST_SLOTS: Final = 10_000
_HAIR: Final = 1e-9  # what a division leaves must not cost an instance


@dataclass(frozen=True, slots=True)
class Level:
    """From slot ``start`` on, so many instances are ready."""

    start: int
    instances: int


@dataclass(frozen=True, slots=True)
class Change:
    """One change. Seconds from the curve's start; ``order_at`` may lie before it. Fewer are let go when ready."""

    service: str
    order_at: float
    ready_at: float
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan of one service. ``needs``: instances needed in each slot, ahead and keep not counted.

    ``short``: how many instances are missing at worst, because there may be no more.
    """

    service: Service
    step_s: float
    needs: tuple[int, ...]
    levels: tuple[Level, ...]
    short: int

    def at(self, t: float) -> int:
        """Return how many instances are ready at a moment."""
        slot = int(max(t, 0.0) / self.step_s)
        return self.levels[bisect_right(self.levels, slot, key=lambda level: level.start) - 1].instances

    @property
    def changes(self) -> list[Change]:
        """What has to be done, in order."""
        lead_s = self.service.lead_s
        made = []
        for before, after in pairwise(self.levels):
            ready_at = after.start * self.step_s
            order_at = ready_at - lead_s if after.instances > before.instances else ready_at
            made.append(Change(self.service.name, order_at, ready_at, before.instances, after.instances))
        return made

    @property
    def instance_hours(self) -> float:
        """What it costs."""
        ends = [level.start for level in self.levels[1:]] + [len(self.needs)]
        slots = sum(level.instances * (end - level.start) for level, end in zip(self.levels, ends, strict=True))
        return slots * self.step_s / 3600


def wanted_for(service: Service, rps: float) -> int:
    """Return how many instances are needed for so many requests of the curve a second."""
    able = service.rps_per_instance * (1 - service.headroom)
    return max(service.least, ceil(rps * service.share / able - _HAIR))


def needs_of(curve: Points, service: Service, step_s: float) -> list[int]:
    """Return how many instances are needed in each slot, at its busiest moment. Raises PlanError for too many slots."""
    slots = ceil(curve.total_s / step_s - _HAIR)
    if slots > _MOST_SLOTS:
        least = curve.total_s / _MOST_SLOTS
        raise PlanError(f"step_s must be at least {least:.4g} for a curve of {curve.total_s:g} s, not {step_s:g}")
    peaks = [0.0] * slots
    for t, rps in curve.points:
        slot = int(t / step_s)
        for each in {slot, slot - 1} if t == slot * step_s else {slot}:  # a slot's ends belong to it
            if 0 <= each < slots:
                peaks[each] = max(peaks[each], rps)
    for slot in range(slots):
        edges = (curve.rate(slot * step_s), curve.rate((slot + 1) * step_s))
        peaks[slot] = max(peaks[slot], *edges)
    return [wanted_for(service, peak) for peak in peaks]


def planned(curve: Points, service: Service, fleet: Fleet) -> Planned:
    """Return the plan of one service. Raises PlanError."""
    needs = needs_of(curve, service, fleet.step_s)
    ahead, keep = (ceil(each / fleet.step_s - _HAIR) for each in (fleet.ahead_s, fleet.keep_s))
    wide = [max(needs[max(0, slot - keep) : slot + ahead + 1]) for slot in range(len(needs))]
    short = 0
    if service.most is not None:
        short = max(0, max(needs) - service.most)
        wide = [min(each, service.most) for each in wide]
    worth = ceil(fleet.change_worth_h * 3600 / fleet.step_s * max(wide) - _HAIR)
    return Planned(service, fleet.step_s, tuple(needs), tuple(levels_of(wide, worth)), short)


def levels_of(needs: Sequence[int], worth: int) -> list[Level]:
    """Return the cheapest levels that never lie below the needs: instances times slots, and ``worth`` for each change.

    Of equally cheap ones the one with the fewest changes. An edge of a cheapest plan lies where needs change, so only
    those places are tried: quadratic in their number.
    """
    runs = [(need, len(list(same))) for need, same in groupby(needs)]
    best: list[tuple[int, int, int, int]] = [
        (0, 0, 0, 0)
    ]  # of the first runs: cost, changes, last level's start, height
    for end in range(1, len(runs) + 1):
        height = length = 0
        found: tuple[int, int, int, int] | None = None
        for start in range(end - 1, -1, -1):
            need, slots = runs[start]
            height, length = max(height, need), length + slots
            cost, changes, *_ = best[start]
            changed = 1 if start else 0
            option = (cost + height * length + worth * changed, changes + changed, start, height)
            if found is None or option[:2] < found[:2]:
                found = option
        assert found is not None  # noqa: S101  one level for all is always there
        best.append(found)
    starts = [0]
    for _, slots in runs:
        starts.append(starts[-1] + slots)
    levels: list[Level] = []
    end = len(runs)
    while end:
        _, _, start, height = best[end]
        levels.append(Level(starts[start], height))
        end = start
    return levels[::-1]
