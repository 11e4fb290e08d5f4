"""Counts what log lines say, in memory that is bounded whatever they say.

Most lines are decoded by msgspec into the few fields that matter; the rest, and all where msgspec is missing, by way of
:func:`groundfault.advise.log_fields.find_row`. A line that makes no sense is counted, and the first few are kept.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf, log
from typing import Any, Final

from groundfault.advise.distribution import FINEST_S, LONGEST_S, PER_E, ZEROTH, Distribution
from groundfault.advise.log_fields import OUTCOMES, Fields, Row, calls_of, find_row, seconds_of, tens_of
from groundfault.advise.observed import FOLDED, MADE, Observed, Rates, RateTrack, Seen
from groundfault.advise.wording import bounded_text

__all__ = ["OTHER", "LineCounter", "Tally"]

OTHER: Final = FOLDED
"""Holds what has no place under its own name."""
MOST_COMMANDS: Final = 500
MOST_SEGMENTS: Final = 1000
MOST_CELLS: Final = 5000
"""Commands, segments of one command, and both together, that are counted under their own names."""
_MOST_KNOWN: Final = 4 * MOST_CELLS
_LONGEST_NAME: Final = 100
_SAMPLES: Final = 3
_SAMPLE_LENGTH: Final = 120
_UNNAMED: Final = "(none)"

_Key = tuple[str, str]
_Cell = tuple[str, str, str | None]


@dataclass(slots=True)
class Tally:
    """What was counted. All of it is plain and can be sent from one process to another, and merged in any order.

    ``lines`` that are not empty; of them ``told`` of a call, ``unparsed`` are no JSON, ``unread`` were too long to look
    at, ``unclear`` name a call but no duration or outcome that is one. ``folded`` calls went to ``other``.
    ``timeless`` calls have no time. ``assumed`` calls have no outcome and count as successes.
    ``sampled`` calls stand for others, which were not logged: so many of each command in ``unlogged``.
    ``segments``: how many cells there are of each command.
    """

    lines: int = 0
    told: int = 0
    unparsed: int = 0
    unread: int = 0
    unclear: int = 0
    folded: int = 0
    timeless: int = 0
    assumed: int = 0
    sampled: int = 0
    samples: list[str] = field(default_factory=list)
    cells: dict[_Cell, dict[str, dict[int, int]]] = field(default_factory=dict)
    never: dict[_Key, Counter[str]] = field(default_factory=dict)
    tracks: dict[_Key, RateTrack] = field(default_factory=dict)
    unlogged: dict[_Key, float] = field(default_factory=dict)
    segments: Counter[_Key] = field(default_factory=Counter)

    def merge(self, other: "Tally") -> None:
        """Count what the other one has counted, too."""
        for name in ("lines", "told", "unparsed", "unread", "unclear", "folded", "timeless", "assumed", "sampled"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.samples = (self.samples + other.samples)[:_SAMPLES]
        for cell, outcomes in other.cells.items():
            placed = self.place(cell)
            if placed != cell:
                self.folded += sum(sum(buckets.values()) for buckets in outcomes.values())
            mine = self.cells[placed]
            for outcome, buckets in outcomes.items():
                _add(mine.setdefault(outcome, {}), buckets)
        for key, outcomes_never in other.never.items():
            self.never.setdefault(self.place((*key, None))[:2], Counter()).update(outcomes_never)
        for key, track in other.tracks.items():
            self.tracks.setdefault(self.place((*key, None))[:2], RateTrack()).merge(track)
        for key, times in other.unlogged.items():
            placed_key = self.place((*key, None))[:2]
            self.unlogged[placed_key] = self.unlogged.get(placed_key, 0.0) + times

    def place(self, cell: _Cell) -> _Cell:
        """Return the cell that these calls are counted in, and see to it that there is one."""
        if cell in self.cells:
            return cell
        resource, command, segment = cell
        key = (resource, command)
        if key not in self.segments and len(self.segments) >= MOST_COMMANDS:
            resource = command = OTHER
            segment = None
        elif segment is not None and (self.segments[key] >= MOST_SEGMENTS or len(self.cells) >= MOST_CELLS):
            segment = OTHER
        cell = (resource, command, segment)
        if cell not in self.cells:
            self.cells[cell] = {}
            self.segments[cell[:2]] += 1
        return cell

    def observed(self, over_s: float | None) -> list[Observed]:
        """Return each command that has a name. ``over_s``: how long the log covers, if its lines do not say."""
        found: dict[_Key, Observed] = {}
        for (resource, command, segment), outcomes in sorted(self.cells.items(), key=str):
            if (resource, command) == (OTHER, OTHER):
                continue
            seen = found.setdefault((resource, command), Observed(resource=resource, command=command))
            durations = {outcome: Distribution.of_fine(buckets) for outcome, buckets in outcomes.items()}
            for outcome, distribution in durations.items():
                known = seen.durations.get(outcome)
                seen.durations[outcome] = distribution if known is None else known.merged(distribution)
            if segment is not None and durations:
                seen.segments = {**seen.segments, segment: Seen(durations)}
        for key, seen in found.items():
            made = {outcome: distribution.count for outcome, distribution in seen.durations.items()}
            seen.calls = {**made, **self.never.get(key, {})}
            track = self.tracks.get(key)
            seen.rates = None if track is None else track.rates()
            if seen.rates is None and over_s is not None:
                mean = (seen.made + self.unlogged.get(key, 0.0)) / over_s
                seen.rates = Rates(mean, mean, over_s, "the log gives no times, so the busiest time is not known")
        return list(found.values())


def _add(mine: dict[int, int], theirs: Mapping[int, int]) -> None:
    for bucket, times in theirs.items():
        mine[bucket] = mine.get(bucket, 0) + times


# Said once a minute of a call that is told of anyway, in the same words.
_SAID_TWICE: Final = b'"command.failing"'

_Place = tuple[dict[int, int] | None, Counter[str] | None, dict[int, float] | None, str]
"""Where a call is counted: durations, or else calls never made; ten seconds by number; its outcome."""


class LineCounter:
    """Counts blocks of lines into a :class:`Tally`."""

    def __init__(self, fields: Fields) -> None:
        self.tally = Tally()
        self._fields = fields
        self._known: dict[tuple[object, ...], _Place] = {}
        self._moments: dict[_Key, dict[int, float]] = {}
        self._stems: dict[str, int | None] = {}
        self._decode, self._loads = _decoders(fields)
        self._marker = fields.needed[0].rpartition(".")[2].encode()

    def count(self, block: bytes) -> None:
        """Count every line of a block."""
        tally, lines = self.tally, block.split(b"\n")
        if _SAID_TWICE in block:
            told_once = [line for line in lines if _SAID_TWICE not in line]
            tally.lines += len(lines) - len(told_once)
            lines = told_once
        if self._decode is None:
            for line in lines:
                self._count_slowly(line)
        else:
            self._count_fast(lines, self._decode)
        for key, moments in self._moments.items():
            if moments:
                track = self.tally.tracks.setdefault(key, RateTrack())
                for tens, times in moments.items():
                    track.add(tens, times)
                moments.clear()

    def _count_fast(self, lines: list[bytes], decode: Callable[[bytes], Any]) -> None:  # noqa: C901, PLR0912  calls cost
        # One loop without calls: each would cost as much as the line itself.
        tally, known, stems, marker, unit_s = self.tally, self._known, self._stems, self._marker, self._fields.unit_s
        told = timeless = read = 0
        for line in lines:
            try:
                row = decode(line)
            except (ValueError, RecursionError):  # msgspec's own errors are ValueErrors
                self._count_slowly(line)
                continue
            duration = row.duration
            if duration is None or row.resource is None or row.command is None:
                if marker in line:  # perhaps further inside
                    self._count_slowly(line)
                else:
                    read += 1
                continue
            place = known.get((row.resource, row.command, row.outcome, row.segment))
            if place is None or type(duration) is not float or row.sample is not None:
                time = _time_of(row)
                self._count_row((row.resource, row.command, row.outcome, duration, time, row.segment, row.sample))
                read += 1
                continue
            buckets, never, moments, outcome = place
            if buckets is None:
                never[outcome] += 1  # type: ignore[index]  # the one or the other is there
            else:
                duration *= unit_s
                if FINEST_S < duration < LONGEST_S:
                    at = int(log(duration) * PER_E + ZEROTH)
                    buckets[at] = buckets.get(at, 0) + 1
                elif not self._count_odd(buckets, duration):
                    read += 1
                    continue
                time = row.time0
                if time is None:
                    time = _time_of(row)
                if type(time) is str:  # most lines share all but the last digits with the line before
                    stem = time[:18] + time[-6:] if time[-3:-2] == ":" else time[:18] + time[-1:]
                    tens = stems.get(stem)
                    if tens is None:
                        tens = self._tens_of_stem(stem, time)
                else:
                    tens = int(time // 10) if type(time) is float and 1e9 <= time < 1e11 else tens_of(time)  # noqa: PLR2004  as tens_of
                if tens is None:
                    timeless += 1
                else:
                    moments[tens] = moments.get(tens, 0) + 1  # type: ignore[index, union-attr]  # a call made has them
            told += 1
        tally.told += told
        tally.timeless += timeless
        tally.lines += told + read

    def _tens_of_stem(self, stem: str, time: str) -> int | None:
        tens = tens_of(time)
        if tens is not None and len(time) > len("2026-11-23T17:00:00") and time[16] == ":":
            if len(self._stems) >= _MOST_KNOWN:
                self._stems.clear()
            self._stems[stem] = tens
        return tens

    def _count_slowly(self, line: bytes) -> None:
        line = line.strip()
        if not line:
            return
        self.tally.lines += 1
        try:
            held = self._loads(line)
        except (ValueError, RecursionError):
            start = line.find(b"{")
            try:
                held = self._loads(line[start:]) if start > 0 else None
            except (ValueError, RecursionError):
                held = None
            if held is None:
                self._keep(line)
                return
        row = find_row(held, self._fields, self._loads)
        if row is not None:
            self._count_row(row)

    def _keep(self, line: bytes) -> None:
        self.tally.unparsed += 1
        if len(self.tally.samples) < _SAMPLES:
            self.tally.samples.append(
                bounded_text(line[: 4 * _SAMPLE_LENGTH].decode("utf-8", "replace"), _SAMPLE_LENGTH)
            )

    def _count_row(self, row: Row) -> None:
        """Count a call by the careful way."""
        resource, command, said, duration, time, segment, sample = row
        tally = self.tally
        value_s = seconds_of(duration, self._fields.unit_s)
        place = self._known.get((resource, command, said, segment)) if _is_plain(segment) and _is_plain(said) else None
        if place is None:
            outcome = OUTCOMES.get(said.lower()) if isinstance(said, str) else "success" if said is None else None
            if outcome is None or (value_s is None and outcome in MADE):
                tally.unclear += 1
                return
            place = self._find_place(row, outcome)
        buckets, never, moments, outcome = place
        if never is not None:
            never[outcome] += 1
        elif value_s is None or buckets is None or moments is None:
            tally.unclear += 1
            return
        else:
            self._count_odd(buckets, value_s)
            times = calls_of(sample)
            if times > 1.0:
                self._count_unlogged((_name(resource), _name(command)), times - 1.0)
            tens = tens_of(time)
            if tens is None:
                tally.timeless += 1
            else:
                moments[tens] = moments.get(tens, 0) + times
        tally.told += 1

    def _count_unlogged(self, key: _Key, times: float) -> None:
        tally = self.tally
        tally.sampled += 1
        if key in tally.segments:  # else it is one of too many commands, on which there is no advice
            tally.unlogged[key] = tally.unlogged.get(key, 0.0) + times

    def _find_place(self, row: Row, outcome: str) -> _Place:
        """Return where a call is counted, and remember it for the next one like it."""
        resource, command, said, _, _, segment, _ = row
        tally = self.tally
        wanted = (_name(resource), _name(command), None if self._fields.segment is None else _segment(segment))
        cell = tally.place(wanted)
        tally.folded += cell != wanted
        tally.assumed += said is None
        place: _Place
        if outcome in MADE:
            moments = self._moments.setdefault(cell[:2], {})
            place = tally.cells[cell].setdefault(outcome, {}), None, moments, outcome
        else:
            place = None, tally.never.setdefault(cell[:2], Counter()), None, outcome
        # What is folded or assumed is found anew each time, so that it is known how many there were.
        if cell == wanted and said is not None and len(self._known) < _MOST_KNOWN and _is_plain(segment):
            self._known[resource, command, said, segment] = place
        return place

    def _count_odd(self, buckets: dict[int, int], value_s: float) -> bool:
        """Count a duration that may be too short or too long for its logarithm; return false for one that is none."""
        if not 0 <= value_s < inf:
            self.tally.unclear += 1
            return False
        at = int(log(min(max(value_s, FINEST_S), LONGEST_S)) * PER_E + ZEROTH)
        buckets[at] = buckets.get(at, 0) + 1
        return True


def _time_of(row: Any) -> object:
    return next((time for time in (row.time0, row.time1, row.time2, row.time3, row.time4) if time is not None), None)


def _is_plain(segment: object) -> bool:
    """Whether it equals nothing but itself: True is 1 and 1.0 to a dict, and none of them to a reader."""
    return segment is None or type(segment) in {str, int}


def _name(text: str) -> str:
    return bounded_text(text, _LONGEST_NAME) or _UNNAMED


def _segment(value: object) -> str:
    return _UNNAMED if value is None else _name(value if isinstance(value, str) else json.dumps(value, default=str))


def _decoders(fields: Fields) -> tuple[Callable[[bytes], Any] | None, Callable[[Any], Any]]:
    """Return msgspec's decoder of the few fields, if it can be had, and one of anything."""
    try:
        import msgspec  # noqa: PLC0415  part of an extra; without it, it only takes longer
    except ImportError:
        return None, json.loads
    loads: Callable[[Any], Any] = msgspec.json.decode
    times = (*fields.times, *("",) * 5)[:5]
    names = {
        "resource": fields.resource,
        "command": fields.command,
        "outcome": fields.outcome,
        "duration": fields.duration,
        "segment": fields.segment or "",
        "sample": "sample",
        **{f"time{at}": name for at, name in enumerate(times)},
    }
    # Two of ours in one of theirs, or a path: the careful way can do that.
    said = [name for name in names.values() if name]
    if len(set(said)) < len(said) or any("." in name for name in said):
        return None, loads
    unasked = {ours: theirs or f"({ours} is not read)" for ours, theirs in names.items()}
    text, value = str | None, float | str | None
    kinds: dict[str, Any] = {"resource": text, "command": text, "outcome": text, "segment": str | int | None}
    line = msgspec.defstruct("Line", [(ours, kinds.get(ours, value), None) for ours in names], rename=unasked, gc=False)
    return msgspec.json.Decoder(line).decode, loads
