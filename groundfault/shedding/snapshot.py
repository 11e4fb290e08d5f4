"""What a shedder shows of itself."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from groundfault._histogram import Histogram
from groundfault.shedding._listener import AcceptQueue
from groundfault.shedding.criticality import CriticalityRule
from groundfault.shedding.settings import ShedderSettings
from groundfault.vocabulary import Criticality, Mode, Reason

__all__ = ["ShedderSnapshot"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShedderSnapshot:
    """One shedder at one moment, for pages and scrapes. Times are seconds.

    ``signal`` is where the last wait came from: ``tcp-info``, ``sock-diag``, ``mod-wsgi``, ``request-start``,
    ``in-process``, ``thread-pool`` or ``none``; ``resolution_s`` is the least difference that it shows, None if that is
    not known; ``signals_refused`` says of better ones why they cannot be used. ``queue_wait_s`` is that last wait, None
    where nothing could tell.
    ``thresholds`` gives, for each queue (``workers``, ``loop``, ``threads``), the wait up to which a request is now
    admitted at a factor of 1. ``shed`` counts by reason and criticality, in shadow mode too; ``withdrawn`` are those of
    them that had been admitted, until their turn for a thread came too late; ``abandoned`` those, all as ``deadline``,
    whose client had left before they were looked at.
    ``waits``: how long the requests had waited of which a signal could tell, since the process began or forked.
    ``callers``: how many requests of each caller were admitted (None) or refused for a reason, and the sum of their
    waits; only of those that are believed to be who they say, see ``trusted_callers``.
    ``accept_queue`` is the queue in front of the listening socket; None where the kernel does not say, or before the
    first request.
    ``stepped_aside`` says that after ten internal errors within a minute requests are let through untouched for one.
    """

    service: str
    mode: Mode
    signal: str
    resolution_s: float | None
    signals_refused: Mapping[str, str]
    queue_wait_s: float | None
    in_flight: int
    shedding: bool
    draining: bool
    stepped_aside: bool
    thresholds: Mapping[str, float]
    service_time_s: float
    admitted: Mapping[Criticality, int]
    shed: Mapping[tuple[Reason, Criticality], int]
    withdrawn: Mapping[Criticality, int]
    abandoned: int
    waits: Histogram
    callers: Mapping[tuple[str, Reason | None], tuple[int, float]]
    accept_queue: AcceptQueue | None
    internal_errors: Mapping[str, int]
    settings: ShedderSettings

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it: ``shed`` by ``reason/criticality``, a callable by its name, no salt."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        plain["shed"] = {f"{reason}/{criticality}": count for (reason, criticality), count in self.shed.items()}
        plain["waits"] = self.waits.as_dict()
        plain["callers"] = [
            {"caller": caller, "reason": reason, "requests": times, "wait_s": wait_s}
            for (caller, reason), (times, wait_s) in self.callers.items()
        ]
        plain["admitted"] = {str(criticality): count for criticality, count in self.admitted.items()}
        plain["withdrawn"] = {str(criticality): count for criticality, count in self.withdrawn.items()}
        plain["accept_queue"] = None if self.accept_queue is None else self.accept_queue._asdict()
        settings = {each.name: getattr(self.settings, each.name) for each in fields(self.settings)}
        plain["settings"] = {name: _plain(value) for name, value in settings.items() if name != "key_salt"}
        return {**plain, "mode": str(self.mode)}


def _plain(value: object) -> object:
    if isinstance(value, CriticalityRule):
        given = {each.name: getattr(value, each.name) for each in fields(value) if each.init}
        return {name: _plain(each) for name, each in given.items() if each is not None}
    if isinstance(value, tuple | frozenset):
        return [_plain(each) for each in value]
    return getattr(value, "__qualname__", repr(value)) if callable(value) else value
