"""Everything that happens is said once, as an event handed to sinks.

Two kinds. *Calls* happen all the time: :class:`CommandDone` per finished call, :class:`RequestSeen` per request.
*Changes* are rare: a circuit that trips, shedding that begins, a limit that is reached.
A component builds an event only if someone listens to its kind.

Who is told is the matter of :mod:`groundfault.sinks`.
"""

import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from groundfault._clock import monotonic
from groundfault.vocabulary import Criticality, Outcome, Reason, State

__all__ = [
    "BacklogWarning",
    "CircuitChanged",
    "CommandDone",
    "CommandFailing",
    "ConcurrencyChanged",
    "Event",
    "HealthChanged",
    "RequestSeen",
    "SaturationChanged",
    "SettingsChanged",
    "SettingsStoreChanged",
    "SheddingChanged",
    "Sink",
    "ThrottleChanged",
    "internal_errors",
    "is_warning",
    "name_of",
    "note_internal_error",
]

_log = logging.getLogger("groundfault")


@dataclass(slots=True)
class CommandDone:
    """One call through a command has ended, or was never made.

    ``caller`` and ``traceparent`` are those of the request that it was made for, as with the events below.

    ``duration_s`` is 0.0 for calls never made. ``reason`` and ``origin`` come from an annotated 503.
    ``fallback`` says that a fallback was served. ``enforced`` is false where shadow mode let a refused call through.
    """

    resource: str
    command: str
    outcome: Outcome
    duration_s: float
    reason: Reason | None = None
    origin: str | None = None
    error_type: str | None = None
    fallback: bool = False
    enforced: bool = True
    caller: str | None = None
    traceparent: str | None = None


@dataclass(slots=True)
class RequestSeen:
    """The server half has decided about one request.

    ``reason`` is None for an admitted request. ``queue_wait_s`` is None where no signal could measure it;
    ``signal`` names the one that did. ``predicted_wait_s`` is how long a request that a forecast refused would have
    waited inside the process, None for all others. ``enforced`` is false in shadow mode.
    """

    service: str
    route: str
    reason: Reason | None
    criticality: Criticality
    queue_wait_s: float | None
    signal: str
    caller: str | None = None
    enforced: bool = True
    predicted_wait_s: float | None = None
    traceparent: str | None = None


@dataclass(slots=True)
class CircuitChanged:
    """A circuit moved from ``old`` to ``new``. The counts are those of the span of windows that was judged.

    ``sleep_window_s`` is how long an open circuit now waits before its probe, 0.0 for the other states.
    """

    resource: str
    command: str
    old: State
    new: State
    failures: int
    volume: int
    sleep_window_s: float
    traceparent: str | None = None


@dataclass(slots=True)
class ConcurrencyChanged:
    """Command concurrency is ``high`` (four fifths of the limit), ``full`` (calls are refused), or ``normal`` again."""

    resource: str
    command: str
    level: str
    in_flight: int
    max_concurrent: int
    traceparent: str | None = None


@dataclass(slots=True)
class ThrottleChanged:
    """The share of calls that is sent to a shedding callee has begun to fall below 1.0, or is 1.0 again."""

    resource: str
    command: str
    admitted_share: float
    traceparent: str | None = None


@dataclass(slots=True)
class SaturationChanged:
    """The callee has done nothing but refuse for ``handled_patience_s``, or has answered again."""

    resource: str
    command: str
    saturated: bool
    refusals: int
    traceparent: str | None = None


@dataclass(slots=True)
class SheddingChanged:
    """A server has begun or ended shedding. ``shed`` counts this episode's refusals so far.

    Not ``enforced``: in shadow mode, where those were let through. ``traceparent``: of the request that was the first
    to be refused, or the first to find it ended.
    ``queue_wait_s`` was measured. ``predicted_wait_s`` is given where a forecast decided: how long the request would
    have waited inside the process, for a thread or for its answer.
    """

    service: str
    shedding: bool
    queue_wait_s: float
    shed: int
    reason: Reason | None = None
    traceparent: str | None = None
    predicted_wait_s: float | None = None
    enforced: bool = True


@dataclass(slots=True)
class BacklogWarning:
    """The queue in front of ``accept`` is more than half full, or has turned connections away. Once a minute at most.

    ``depth`` of ``limit`` places on ``port`` are taken. ``overflows`` counts who was turned away since the process
    began to count, anywhere in its network namespace; None where the kernel does not say. Whoever is turned away waits
    for a second or more before it is tried again, and no server sees that wait.
    """

    service: str
    port: int
    depth: int
    limit: int
    overflows: int | None = None


@dataclass(slots=True)
class HealthChanged:
    """A command's health check gives another answer than before. ``error``: the type of what it raised instead."""

    resource: str
    command: str
    healthy: bool
    error: str | None = None


@dataclass(slots=True)
class CommandFailing:
    """A call has failed or timed out; said of the first, then once a minute at most for each command.

    So that a log tells of a callee in trouble before, or without, its circuit trips. ``error_type`` is that of the
    exception, ``status`` that of the answer; neither says more, for texts and addresses may hold what is secret.
    """

    resource: str
    command: str
    outcome: Outcome
    duration_s: float
    error_type: str | None = None
    status: int | None = None
    traceparent: str | None = None


@dataclass(slots=True)
class SettingsChanged:
    """Settings were swapped. ``component`` is ``resource/command`` or the service."""

    component: str
    old: dict[str, Any]
    new: dict[str, Any]


@dataclass(slots=True)
class SettingsStoreChanged:
    """The store of live settings has been read to another effect than before.

    ``status``: ``applied``, ``version`` is in force from now on; ``rejected``, ``version`` is not, and the last good
    one stays; ``unreachable``, nothing could be read, for the reason ``error``, and the next try is in ``retry_s``;
    ``reached``, it can be read again and holds what is in force.
    ``age_s``: how long ago the settings in force were last known to be the store's; None: never.
    """

    store: str
    status: str
    version: str | None = None
    age_s: float | None = None
    error: str | None = None
    retry_s: float | None = None


Event = (
    CommandDone
    | RequestSeen
    | CircuitChanged
    | ConcurrencyChanged
    | ThrottleChanged
    | SaturationChanged
    | SheddingChanged
    | BacklogWarning
    | HealthChanged
    | CommandFailing
    | SettingsChanged
    | SettingsStoreChanged
)
Sink = Callable[[Event], None]


def name_of(event: Event) -> str:
    """Return the event's dotted name, the same in every log and webhook."""
    name = _NAMES[type(event)]
    return name if isinstance(name, str) else name(event)


_NAMES: dict[type, str | Callable[[Any], str]] = {
    BacklogWarning: "server.backlog_high",
    CircuitChanged: lambda event: f"circuit.{event.new.value.replace('-', '_')}",
    CommandDone: "command.done",
    CommandFailing: "command.failing",
    ConcurrencyChanged: lambda event: f"command.concurrency_{event.level}",
    HealthChanged: lambda event: "command.healthy" if event.healthy else "command.unhealthy",
    RequestSeen: "request.seen",
    SaturationChanged: lambda event: "command.saturated" if event.saturated else "command.answering",
    SettingsChanged: "settings.changed",
    SettingsStoreChanged: lambda event: f"settings.{event.status}",
    SheddingChanged: lambda event: "server.shedding_started" if event.shedding else "server.shedding_ended",
    ThrottleChanged: lambda event: "command.throttle_started" if event.admitted_share < 1 else "command.throttle_ended",
}


_WARN = frozenset(
    {
        "circuit.open",
        "command.concurrency_high",
        "command.concurrency_full",
        "command.throttle_started",
        "command.saturated",
        "command.failing",
        "command.unhealthy",
        "settings.rejected",
        "settings.unreachable",
        "server.backlog_high",
        "server.shedding_started",
    }
)


def is_warning(event: Event) -> bool:
    """Return true for news that an operator should be told of, false for recoveries and the frequent kind."""
    return name_of(event) in _WARN


_LOG_INTERVAL_S = 60.0
_internal_errors: Counter[str] = Counter()
_last_logged: dict[str, float] = {}


def note_internal_error(where: str, error: BaseException) -> None:
    """Count an error of ours that was survived; log it with its traceback, once a minute for each place.

    Never raises an Exception, whatever the logging set-up does.
    """
    _internal_errors[where] += 1  # without a lock: two threads at once may lose a count, never an error
    now = monotonic()
    last = _last_logged.get(where)
    if last is None or now - last >= _LOG_INTERVAL_S:
        _last_logged[where] = now
        with suppress(Exception):  # a filter or handler of the application may raise
            _log.error(
                "internal error in %s (%d so far); the call or request went on without it",
                where,
                _internal_errors[where],
                exc_info=error,
            )


def internal_errors() -> dict[str, int]:
    """Return how many errors of ours were survived, by place."""
    return dict(_internal_errors)
