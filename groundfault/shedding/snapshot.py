"""What a shedder shows of itself."""

from collections.abc import Mapping
from dataclasses import dataclass

from groundfault.shedding._listener import AcceptQueue
from groundfault.shedding.settings import ShedderSettings
from groundfault.vocabulary import Criticality, Mode, Reason

__all__ = ["ShedderSnapshot"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShedderSnapshot:
    """One shedder at one moment, for pages and scrapes. Times are seconds.

    ``signal`` is where the last wait came from: ``tcp-info``, ``sock-diag``, ``mod-wsgi``, ``request-start``,
    ``in-process`` or ``none``; ``resolution_s`` is the least difference that it shows, None if that is not known;
    ``signals_refused`` says of better ones why they cannot be used.
    ``thresholds`` gives, for each queue (``workers``, ``loop``, ``threads``), the wait up to which a request is now
    admitted at a factor of 1. ``shed`` counts by reason and criticality, in shadow mode too; ``abandoned`` are those of
    them, all as ``deadline``, whose client had left before they were looked at.
    ``accept_queue`` is the queue in front of the listening socket; None where the kernel does not say, or before the
    first request.
    ``stepped_aside`` says that after ten internal errors within a minute requests are let through untouched for one.
    """

    service: str
    mode: Mode
    signal: str
    resolution_s: float | None
    signals_refused: Mapping[str, str]
    in_flight: int
    shedding: bool
    draining: bool
    stepped_aside: bool
    thresholds: Mapping[str, float]
    service_time_s: float
    admitted: Mapping[Criticality, int]
    shed: Mapping[tuple[Reason, Criticality], int]
    abandoned: int
    accept_queue: AcceptQueue | None
    internal_errors: Mapping[str, int]
    settings: ShedderSettings
