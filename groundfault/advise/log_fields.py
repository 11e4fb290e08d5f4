"""Which fields of a log line mean what, and how lines that were written in another way are understood.

The usual line is flat JSON, as GroundFault's own call log writes it. Many loggers wrap it: in ``extra``, in a field
that holds JSON as text, behind a prefix. Such lines are understood too, only more slowly.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

from groundfault.logfiles.times import moment_of
from groundfault.vocabulary import Outcome

__all__ = ["OUTCOMES", "Fields", "Row", "calls_of", "fields_of", "find_row", "seconds_of", "tens_of"]

UNITS: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
# The last is the call log's own; other logs may keep other things under that name, and then one of those before holds.
_TIMES: Final = ("ts", "timestamp", "time", "@timestamp", "at")
_SAMPLE: Final = "sample"
_DEEP: Final = 3

OUTCOMES: Final[dict[str, str]] = {
    **{each.value: each.value for each in Outcome},
    **{each.value.replace("-", "_"): each.value for each in Outcome},
    "ok": "success",
    "error": "failure",
    "failed": "failure",
    "timed_out": "timeout",
    "timed-out": "timeout",
}
"""Outcomes by what a log may call them."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The names under which a log keeps what is needed. Plain strings and numbers: it travels to other processes."""

    resource: str = "resource"
    command: str = "command"
    outcome: str = "outcome"
    duration: str = "duration_s"
    unit_s: float = 1.0
    times: tuple[str, ...] = _TIMES
    segment: str | None = None

    @property
    def needed(self) -> tuple[str, str, str]:
        """What a line must hold to tell of a call."""
        return self.resource, self.command, self.duration


def fields_of(text: str | None, segment: str | None) -> Fields:
    """Read ``--fields``: ``duration_s=elapsed_ms:ms,resource=service``. Raises ValueError for what makes no sense."""
    named: dict[str, Any] = {}
    for pair in (text or "").split(","):
        if not pair.strip():
            continue
        ours, found, theirs = (part.strip() for part in pair.partition("="))
        if not found or not theirs:
            raise ValueError(f"{pair!r} is not OURS=THEIRS")
        if ours == "duration_s":
            theirs, _, unit = theirs.partition(":")
            if unit and unit not in UNITS:
                raise ValueError(f"{unit!r} is no unit; there are {', '.join(UNITS)}")
            named |= {"duration": theirs, "unit_s": UNITS[unit or "s"]}
        elif ours in {"resource", "command", "outcome"}:
            named[ours] = theirs
        elif ours == "ts":
            named["times"] = (theirs,)
        else:
            raise ValueError(f"{ours!r} is no field of ours; there are resource, command, outcome, duration_s and ts")
    return Fields(segment=segment, **named)


Row = tuple[str, str, object, object, object, object, object]
"""Resource, command, outcome, duration, time, segment, share that is logged; the last five as they were found."""

_MISSING: Final = object()
_LEAST_SAMPLE: Final = 1e-6


def find_row(held: object, fields: Fields, loads: Callable[[str], Any] = json.loads, depth: int = 0) -> Row | None:
    """Return what a line tells of a call, wherever in it that is; None if it tells of none."""
    if not isinstance(held, Mapping):
        return None
    needed = [_at(held, name) for name in fields.needed]
    if _MISSING not in needed:
        resource, command, duration = needed
        if isinstance(resource, str) and isinstance(command, str):
            time = next((held[name] for name in fields.times if name in held), None)
            segment = None if fields.segment is None else _at(held, fields.segment)
            outcome = _at(held, fields.outcome)
            return (
                resource,
                command,
                None if outcome is _MISSING else outcome,
                duration,
                time,
                None if segment is _MISSING else segment,
                held.get(_SAMPLE),
            )
    if depth >= _DEEP:
        return None
    for within in _inner(held, loads):
        row = find_row(within, fields, loads, depth + 1)
        if row is not None:
            return _completed(row, held, fields)
    return None


def _completed(row: Row, outer: Mapping[str, Any], fields: Fields) -> Row:
    """Take time and segment from the wrapping where the call itself does not hold them."""
    time = row[4] if row[4] is not None else next((outer[name] for name in fields.times if name in outer), None)
    segment = row[5]
    if segment is None and fields.segment is not None:
        found = _at(outer, fields.segment)
        segment = None if found is _MISSING else found
    return (*row[:4], time, segment, row[6])


def _at(held: Mapping[str, Any], name: str) -> object:
    """Return the value at a name, or at a path with dots."""
    if name in held:
        return held[name]
    value: object = held
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return _MISSING
        value = value[part]
    return value


def _inner(held: Mapping[str, Any], loads: Callable[[str], Any]) -> Iterator[object]:
    for value in held.values():
        if isinstance(value, Mapping):
            yield value
        elif isinstance(value, str) and value.startswith("{"):
            try:
                yield loads(value)
            except (ValueError, RecursionError):
                continue


def calls_of(sample: object) -> float:
    """Return for how many calls a line stands: more than one where it says that only a share of them is logged."""
    if isinstance(sample, bool) or not isinstance(sample, int | float) or not _LEAST_SAMPLE <= sample < 1:
        return 1.0
    return 1.0 / sample


def seconds_of(value: object, unit_s: float) -> float | None:
    """Return a duration in seconds; None for what is none."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = value * unit_s
    except OverflowError:
        return None
    return result if isfinite(result) and result >= 0 else None


def tens_of(value: object) -> int | None:
    """Return the number of the ten seconds since the epoch in which a time lies; None for what is no time."""
    moment = moment_of(value)
    return None if moment is None else int(moment // 10)
