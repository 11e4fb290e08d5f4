"""What an alert says, for people: one line, and where to look."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from groundfault.events import (
    BacklogWarning,
    CircuitChanged,
    CommandFailing,
    ConcurrencyChanged,
    Event,
    HealthChanged,
    SaturationChanged,
    SettingsStoreChanged,
    SheddingChanged,
    ThrottleChanged,
    is_warning,
    name_of,
)
from groundfault.sinks import said_of, shown, tamed

__all__ = ["FAMILIES", "Alert", "Family", "alert_of", "subject_of"]


class Family(NamedTuple):
    """What belongs together: warnings, and the recovery that ends them. ``recovers``: the event is the recovery."""

    name: str
    recovers: bool = False


FAMILIES: Final[Mapping[str, Family]] = {
    "circuit.open": Family("circuit"),
    "circuit.closed": Family("circuit", recovers=True),
    "command.concurrency_high": Family("concurrency"),
    "command.concurrency_full": Family("concurrency"),
    "command.concurrency_normal": Family("concurrency", recovers=True),
    "command.throttle_started": Family("throttle"),
    "command.throttle_ended": Family("throttle", recovers=True),
    "command.saturated": Family("saturation"),
    "command.answering": Family("saturation", recovers=True),
    "command.unhealthy": Family("health"),
    "command.healthy": Family("health", recovers=True),
    "command.failing": Family("failing"),
    "server.backlog_high": Family("backlog"),
    "server.shedding_started": Family("shedding"),
    "server.shedding_ended": Family("shedding", recovers=True),
    "settings.rejected": Family("settings"),
    "settings.unreachable": Family("settings"),
    "settings.applied": Family("settings", recovers=True),
    "settings.reached": Family("settings", recovers=True),
}
"""By the event's dotted name. What is not here is no news for a chat."""


@dataclass(frozen=True, slots=True)
class Alert:
    """What a webhook says. ``at``: seconds since the epoch. ``held_back``: how many like it were not said before it.

    ``title`` is short, ``text`` a whole line. ``fields`` are the event's, as JSON can hold them, None left out.
    """

    name: str
    warning: bool
    title: str
    text: str
    subject: str
    service: str | None
    host: str
    pid: int
    at: float
    held_back: int
    traceparent: str | None
    runbook: str | None
    fields: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        said = {name: getattr(self, name) for name in self.__slots__ if name != "fields"}
        return {**said, "fields": dict(self.fields)}


def subject_of(event: Event) -> str:
    """Return what an event is about: ``resource/command``, a service, or a store."""
    resource = getattr(event, "resource", None)
    if resource is not None:
        return f"{resource}/{getattr(event, 'command', '')}"
    return str(getattr(event, "service", None) or getattr(event, "store", ""))


def _circuit(event: CircuitChanged) -> str:
    if event.new == "open":
        return f"{event.failures} of {event.volume} calls failed, next try in {event.sleep_window_s:.0f} s"
    return "calls go through again"


def _concurrency(event: ConcurrencyChanged) -> str:
    return f"{event.in_flight} of {event.max_concurrent} in flight"


def _throttle(event: ThrottleChanged) -> str:
    return f"{event.admitted_share:.0%} of the calls are sent"


def _saturation(event: SaturationChanged) -> str:
    return f"{event.refusals} refusals and no answer" if event.saturated else "it answers again"


def _shedding(event: SheddingChanged) -> str:
    shadow = "" if event.enforced else ", in shadow mode"
    if not event.shedding:
        return f"{event.shed} requests refused by this process{shadow}"
    if event.predicted_wait_s is not None:
        return f"{event.reason or 'load'}, a wait of {event.predicted_wait_s:.2f} s ahead{shadow}"
    return f"{event.reason or 'load'}, after {event.queue_wait_s:.2f} s in the queue{shadow}"


def _backlog(event: BacklogWarning) -> str:
    away = f", {event.overflows} turned away so far" if event.overflows else ""
    return f"{event.depth} of {event.limit} connections wait on port {event.port}{away}"


def _health(event: HealthChanged) -> str:
    return "the check says yes" if event.healthy else f"the check says no{f' ({event.error})' if event.error else ''}"


def _failing(event: CommandFailing) -> str:
    why = event.error_type or (f"status {event.status}" if event.status else "")
    return f"{event.outcome} after {event.duration_s:.2f} s{f', {why}' if why else ''}"


def _store(event: SettingsStoreChanged) -> str:
    version = "" if event.version is None else f"version {shown(event.version)}"
    why = "" if event.error is None else shown(event.error)
    return ", ".join(part for part in (version, why) if part)


_DETAILS: Final[Mapping[type, Callable[[Any], str]]] = {
    CircuitChanged: _circuit,
    ConcurrencyChanged: _concurrency,
    ThrottleChanged: _throttle,
    SaturationChanged: _saturation,
    SheddingChanged: _shedding,
    BacklogWarning: _backlog,
    HealthChanged: _health,
    CommandFailing: _failing,
    SettingsStoreChanged: _store,
}


def alert_of(
    event: Event, *, at: float, service: str | None, host: str, pid: int, held_back: int, runbooks: str | None
) -> Alert:
    """Return what to say of an event. ``runbooks``: what the event's name is appended to, or None."""
    name, subject = name_of(event), subject_of(event)
    warning = is_warning(event)
    title = f"{'Warn' if warning else 'Recovered'}: {name.replace('.', ' ').replace('_', ' ')}"
    details = _DETAILS[type(event)](event) if type(event) in _DETAILS else ""
    named = service or getattr(event, "service", None)
    by = f"{named}, pid {pid} on {host}" if named and named != subject else f"pid {pid} on {host}"
    text = f"{title} - {subject}{f', {details}' if details else ''} ({by})"
    fields = {name: value for name, value in tamed(said_of(event)).items() if value is not None}
    return Alert(
        name=name,
        warning=warning,
        title=title,
        text=text,
        subject=subject,
        service=named,
        host=host,
        pid=pid,
        at=at,
        held_back=held_back,
        traceparent=fields.get("traceparent"),
        runbook=None if runbooks is None else runbooks + name,
        fields=fields,
    )
