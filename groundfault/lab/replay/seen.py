"""What was seen in access logs: counts by second and by minute, bounded whatever the logs hold, and mergeable."""

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from groundfault.lab.replay.folding import ID, OTHER, Folder

__all__ = ["MOST_HOURS", "MOST_PLACES", "MOST_TEMPLATES", "Seen", "Why"]

MOST_HOURS: Final = 8 * 24
"""Of so many hours something is kept; those with the fewest requests give way."""
MOST_TEMPLATES: Final = 400
MOST_PLACES: Final = 5
MOST_SAID: Final = 3
RARE: Final = 0.001
"""The share of all requests below which a segment at the top is rare."""
JUMP_S: Final = 60
"""A clock that goes back by more than that was set; by less, it is the order in which answers ended."""
_HOUR_S: Final = 3600
_MINUTES: Final = 60


class Why:
    """Why a line is not counted as a request."""

    UNKNOWN: Final = "is no access log line of a kind that is known"
    TOO_LONG: Final = "is longer than a log line can be (1 MiB)"
    NO_JSON: Final = "is broken JSON"
    NO_REQUEST: Final = "tells of no request (a method and a path)"
    NO_TIME: Final = "has no time that can be read"
    METHOD: Final = "has a method that is none of the usual"
    TARGET: Final = "asks for what is no path"


@dataclass(slots=True)
class Seen:
    """Counts of a log, or of a part of one.

    ``lines``: not blank ones; ``parsed`` of them are requests, for the others ``refused`` says why, and ``places``
    holds the first few. ``requests``: as ``parsed``, but a line of a sample counts for all that it stands for.
    ``physical``: all lines, to number them by. ``hours``: requests by second, for each hour since the epoch;
    ``totals``: the sum of each; ``mix``: requests by minute, for each hour and each template.
    ``zones``: seconds seen, by their distance from UTC in minutes.
    ``backwards``: how often a line was older than the one before it; ``jumps``: the first few times by a lot.
    ``first`` and ``last``: the times of the first and the last line that have one. ``within``: what is asked for, in
    seconds since the epoch; ``outside`` of it lay so many requests. ``gave_way``: requests in hours that had to.
    """

    lines: int = 0
    parsed: int = 0
    requests: int = 0
    physical: int = 0
    sampled: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    places: list[tuple[str, int, str]] = field(default_factory=list)
    hours: dict[int, "array[int]"] = field(default_factory=dict)
    totals: Counter[int] = field(default_factory=Counter)
    mix: dict[int, dict[str, "array[int]"]] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    zones: Counter[int] = field(default_factory=Counter)
    backwards: int = 0
    jumps: list[tuple[str, int, int]] = field(default_factory=list)
    first: int | None = None
    last: int | None = None
    folder: Folder = field(default_factory=Folder)
    templates: set[str] = field(default_factory=set)
    within: tuple[float, float] | None = None
    outside: int = 0
    gave_way: int = 0

    def refuse(self, why: str, number: int) -> None:
        """Count a line that is no request."""
        self.lines += 1
        self.refused[why] += 1
        if len(self.places) < MOST_PLACES:
            self.places.append(("", number, why))

    def follow(self, second: int, number: int) -> None:
        """Take notice of a line's time, if it is another than the time of the line before it."""
        if self.first is None:
            self.first = second
        if self.last is not None and second < self.last:
            self.backwards += 1
            if self.last - second > JUMP_S and len(self.jumps) < MOST_SAID:
                self.jumps.append(("", number, second - self.last))
        self.last = second

    def add(self, seconds: Mapping[int, int], minutes: Mapping[int, Mapping[str, int]]) -> None:
        """Add requests by second and by minute; both are of the same ones."""
        new: Counter[int] = Counter()
        for second, times in seconds.items():
            if self.within is None or self.within[0] <= second < self.within[1]:
                new[second // _HOUR_S] += times
            else:
                self.outside += times
        self.requests += new.total()
        self._make_room(new)
        for second, times in seconds.items():
            hour, at = divmod(second, _HOUR_S)
            if hour in new and (self.within is None or self.within[0] <= second < self.within[1]):
                self.hours[hour][at] += times
        for minute, counts in minutes.items():
            hour, at = divmod(minute, _MINUTES)
            if hour in new and self._is_wanted(minute):
                for template, times in counts.items():
                    self._row(hour, template)[at] += times

    def _is_wanted(self, minute: int) -> bool:
        return self.within is None or (self.within[0] < 60 * (minute + 1) and 60 * minute < self.within[1])

    def _row(self, hour: int, template: str) -> "array[int]":
        rows = self.mix[hour]
        if template not in rows:
            if template not in self.templates:
                if len(self.templates) >= MOST_TEMPLATES:
                    template = OTHER
                self.templates.add(template)
            rows.setdefault(template, array("Q", bytes(8 * _MINUTES)))
        return rows[template]

    def _make_room(self, new: Counter[int]) -> None:
        """Make room for the hours of new requests, before any of it is taken; what finds none leaves ``new``."""
        totals = self.totals + new
        if len(totals) > MOST_HOURS:
            ranked = sorted(totals, key=lambda hour: (-totals[hour], hour))
            for hour in ranked[MOST_HOURS:]:
                lost = totals.pop(hour)
                self.requests -= lost
                self.gave_way += lost
                self.hours.pop(hour, None)
                self.mix.pop(hour, None)
                new.pop(hour, None)
        self.totals = totals
        for hour in new:
            if hour not in self.hours:
                self.hours[hour] = array("Q", bytes(8 * _HOUR_S))
                self.mix[hour] = {}

    def merge(self, other: "Seen", name: str = "", base: int = 0) -> None:
        """Count what another one has seen in what comes next: lines of the file ``name``, after its line ``base``."""
        self.places += [(name, base + number, why) for _, number, why in other.places]
        if other.first is not None:
            if self.last is not None:
                self.follow(other.first, 1)
                self.jumps[-1:] = [
                    (name, base + 1, by_s) if not said else (said, at, by_s) for said, at, by_s in self.jumps[-1:]
                ]
            self.first = other.first if self.first is None else self.first
            self.last = other.last
        self.jumps += [(name, base + number, by_s) for _, number, by_s in other.jumps]
        del self.places[MOST_PLACES:], self.jumps[MOST_SAID:]
        for each in ("lines", "parsed", "requests", "sampled", "backwards", "outside", "gave_way"):
            setattr(self, each, getattr(self, each) + getattr(other, each))
        self.refused.update(other.refused)
        self.statuses.update(other.statuses)
        self.zones.update(other.zones)
        self.folder.wide |= other.folder.wide
        self.folder.is_crowded |= other.folder.is_crowded
        new = Counter(other.totals)
        self._make_room(new)
        for hour in new:
            mine = self.hours[hour]
            for at, times in enumerate(other.hours[hour]):
                if times:
                    mine[at] += times
            for template, row in other.mix[hour].items():
                self._merge_row(hour, template, row)

    def _merge_row(self, hour: int, template: str, row: "array[int]") -> None:
        refolded = self._refold(template)
        if refolded not in self.templates and len(self.templates) >= MOST_TEMPLATES:
            self.fold_again()
        mine = self._row(hour, refolded)
        for at, times in enumerate(row):
            if times:
                mine[at] += times

    def _refold(self, template: str) -> str:
        method, found, path = template.partition(" ")
        return f"{method} {self.folder.refold(path)}" if found else template

    def fold_again(self) -> None:
        """Fold all templates once more, with all that is known now of parents with too many children."""
        while True:
            known = len(self.folder.wide)
            renamed = {template: self._refold(template) for template in sorted(self.templates)}
            if any(old != new for old, new in renamed.items()):
                self._rename(renamed)
            elif len(self.folder.wide) == known:
                return

    def _rename(self, renamed: Mapping[str, str]) -> None:
        mix, self.mix, self.templates = self.mix, {hour: {} for hour in self.mix}, set()
        for hour, rows in mix.items():
            for template, row in sorted(rows.items()):
                mine = self._row(hour, renamed[template])
                for at, times in enumerate(row):
                    mine[at] += times

    def fold_rare(self) -> None:
        """Fold the rare segments at the top, if there were too many: what scanners try, or names of customers."""
        if not self.folder.is_crowded:
            return
        tops: Counter[str] = Counter()
        for rows in self.mix.values():
            for template, row in rows.items():
                tops[_top_of(template)] += sum(row)
        rare = {top for top, times in tops.items() if top and times < RARE * tops.total() and not top.startswith("{")}
        self._rename(
            {
                template: template.replace(f"/{top}", f"/{ID}", 1) if (top := _top_of(template)) in rare else template
                for template in sorted(self.templates)
            }
        )


def _top_of(template: str) -> str:
    """Return the first segment of a template's path; empty if it has none."""
    return template.partition(" /")[2].partition("?")[0].partition("/")[0]
