"""One line in the log for each finished call, to be read by ``groundfault advise`` and by people after an incident.

::

    groundfault.default_sinks().add(groundfault.call_log.log_calls(segment=lambda event: {"plan": plan.get()}))

What is to be said is gathered where the call ends; the line is written on a thread of its own, in a copy of the
context of that place, so that a handler that waits holds up no call, and a filter that adds a request's id still
finds it. The names of the fields are those of the events, and do not change: docs/reference/events.md.

``groundfault.integrations.structlog.log_calls`` does the same for structlog.
"""

import logging
from collections.abc import Callable, Mapping
from contextvars import Context, copy_context
from math import isfinite
from random import random
from typing import Any, Final, NamedTuple

from groundfault._clock import Clock, wall
from groundfault.events import CommandDone, Event, RequestSeen, name_of, note_internal_error
from groundfault.sinks import Background, said_of, shown, tamed

__all__ = ["CallLog", "Line", "Segment", "log_calls", "write_line"]

Segment = Callable[[CommandDone | RequestSeen], Mapping[str, object] | None]
"""Returns what a call is to be told apart by, such as a customer or a plan, by name; None for nothing."""

_log: Final = logging.getLogger("groundfault.calls")

_KINDS: Final = frozenset({CommandDone, RequestSeen})
_TRACE_ID: Final = slice(3, 35)  # of a traceparent of version 00
_RANDOM: Final = 14  # of its digits the last 14 are random (W3C Trace Context, level 2)


class Line(NamedTuple):
    """What is to be written. ``at``: seconds since the epoch. ``context``: that of the place where it happened."""

    level: int
    at: float
    fields: dict[str, Any]
    context: Context


class CallLog:
    """A sink that has a line written for each finished call. See :func:`log_calls`; ``write`` writes one line."""

    prompt: Final = True

    def __init__(
        self,
        write: Callable[[Line], None],
        *,
        sample: float = 1.0,
        segment: Segment | None = None,
        requests: bool = False,
        level: int = logging.INFO,
        is_wanted: Callable[[int], bool] | None = None,
        clock: Clock = wall,
        draw: Callable[[], float] = random,
    ) -> None:
        if not 0.0 < sample <= 1.0:
            raise ValueError(f"sample must be above 0 and at most 1, not {sample}")
        if segment is not None and not callable(segment):
            raise TypeError(f"segment must be callable, not {type(segment).__name__}")
        self.skips_requests = not requests
        self._sample = sample
        self._segment = segment
        self._level = level
        self._is_wanted = is_wanted
        self._clock = clock
        self._draw = draw
        self._written: Background[Line] = Background(write)

    def __repr__(self) -> str:
        return f"<CallLog of {self._sample:.0%}>"

    @property
    def lost(self) -> int:
        """How many lines found no place in the queue, 10,000."""
        return self._written.lost

    def __call__(self, event: Event) -> None:
        """Gather what is to be said, and queue it."""
        if not isinstance(event, CommandDone | RequestSeen):
            return
        if self._is_wanted is not None and not self._is_wanted(self._level):
            return
        if self._sample < 1.0 and not self._is_chosen(event):
            return
        at = self._clock()
        said: dict[str, Any] = {"event": name_of(event), "at": round(at, 3)}
        for name, value in said_of(event).items():
            if value is not None:
                said[name] = round(value, 6) if isinstance(value, float) else value
        if self._sample < 1.0:
            said["sample"] = self._sample
        if self._segment is not None:
            self._add_segment(event, said)
        self._written(Line(self._level, at, tamed(said), copy_context()))

    def _is_chosen(self, event: CommandDone | RequestSeen) -> bool:
        """Choose all calls of a trace or none, in each service that logs the same share."""
        trace = event.traceparent
        if trace is not None:
            try:
                return int(trace[_TRACE_ID][-_RANDOM:], 16) < self._sample * 16**_RANDOM
            except ValueError:  # none of ours
                pass
        return self._draw() < self._sample

    def _add_segment(self, event: CommandDone | RequestSeen, said: dict[str, Any]) -> None:
        try:
            for name, value in ((self._segment and self._segment(event)) or {}).items():
                if value is not None:
                    said.setdefault(str(name), _plain(value))
        except Exception as error:  # noqa: BLE001  a line without its segment is better than none
            note_internal_error("segment of a call", error)


def _plain(value: object) -> object:
    """Return what JSON can hold."""
    if isinstance(value, bool | int | str):
        return value
    return value if isinstance(value, float) and isfinite(value) else str(value)


def log_calls(
    *,
    sample: float = 1.0,
    segment: Segment | None = None,
    requests: bool = False,
    level: int = logging.INFO,
    logger: logging.Logger | str | None = None,
) -> CallLog:
    """Return a sink that writes a line for each finished call to the standard library's logging.

    ``sample``: share of the calls that is logged, above 0; default 1.0, all. Below, the calls of one trace are
    chosen together, those without a trace one by one, and each line says the share in its field ``sample``.
    ``segment``: called with the event where the call ends; what it returns is added to the fields, under names
    that are not theirs. What it raises is counted. Default None.
    ``requests``: a line for each request too, which makes the server half leave its cheap ways; default False.
    ``level``: of the lines, ``logging.INFO``. Where the logger does not take it, nothing is gathered.
    ``logger``: one, or its name; default None, ``groundfault.calls``.

    The line's fields are in the record's attribute ``groundfault``, and its text is made of them.
    Raises ValueError and TypeError for what cannot be.
    """
    target = _log if logger is None else logging.getLogger(logger) if isinstance(logger, str) else logger

    def write(line: Line) -> None:
        write_line(target, line)

    return CallLog(write, sample=sample, segment=segment, requests=requests, level=level, is_wanted=target.isEnabledFor)


def write_line(logger: logging.Logger, line: Line) -> None:
    """Have the logger's handlers write a line, dated when the call ended; where it takes lines of that level."""
    if not logger.isEnabledFor(line.level):
        return
    text = " ".join(f"{name}={shown(value)}" for name, value in line.fields.items() if name not in _UNTOLD)
    record = logger.makeRecord(
        logger.name, line.level, "", 0, "%s %s", (line.fields["event"], text), None, extra={"groundfault": line.fields}
    )
    record.relativeCreated += (line.at - record.created) * 1000.0
    record.created, record.msecs = line.at, float(int(line.at % 1.0 * 1000.0))
    line.context.run(logger.handle, record)


_UNTOLD: Final = frozenset({"event", "at"})  # the text begins with the one, and the handler's format has the other
