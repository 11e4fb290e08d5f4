"""What a page, a scrape or a console needs to know about one command, as one frozen value."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import TYPE_CHECKING, Any

from groundfault._histogram import Histogram
from groundfault.breaker.settings import BreakerSettings
from groundfault.vocabulary import Mode, Outcome, State

if TYPE_CHECKING:
    from groundfault.breaker._callee import Callee
    from groundfault.breaker._machine import Circuit
    from groundfault.breaker._rolling import Rolling

__all__ = ["CommandSnapshot", "describe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSnapshot:
    """One command at one moment. All times are seconds.

    ``counts`` are by outcome over the windows, up to 30 s; ``totals`` by outcome since the process began (or forked).
    ``durations``: how long the calls took that were made, by outcome, since then too.
    ``fallbacks`` were served, ``fallbacks_failed`` raised or took too long, ``fallbacks_refused`` found no place;
    all three since the process began.
    ``p50_s``, ``p95_s``, ``p99_s``: durations of successes in the windows, None without any; off by less than a third.
    ``admitted_share``: share of the calls that is sent to a shedding callee, 1.0 in peace.
    ``saturated``: the callee has done nothing but refuse for ``handled_patience_s``.
    ``healthy``: the last known answer of the health check; true without one.
    ``sleep_left_s``: until an open circuit sends its probe; ``sleep_window_s``: how long that sleep is in all.
    Both are 0.0 unless it is open. ``trips``: how often it went from closed to open.
    """

    resource: str
    command: str
    state: State
    mode: Mode
    in_flight: int
    max_concurrent: int | None
    counts: Mapping[Outcome, int]
    totals: Mapping[Outcome, int]
    durations: Mapping[Outcome, Histogram]
    fallbacks: int
    fallbacks_failed: int
    fallbacks_refused: int
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    admitted_share: float
    saturated: bool
    healthy: bool
    sleep_left_s: float
    sleep_window_s: float
    trips: int
    settings: BreakerSettings

    def as_dict(self) -> dict[str, Any]:
        """Return everything by name, in what JSON can hold: functions and types by their names."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def describe(
    resource: str,
    command: str,
    now: float,
    *,
    settings: BreakerSettings,
    in_flight: int,
    circuit: "Circuit",
    rolling: "Rolling",
    callee: "Callee",
    fallbacks: tuple[int, int, int],
    healthy: bool,
) -> CommandSnapshot:
    """Return the snapshot of what a command consists of. ``fallbacks``: served, failed, refused."""
    p50, p95, p99 = rolling.quantiles(0.5, 0.95, 0.99)
    served, failed, refused = fallbacks
    return CommandSnapshot(
        resource=resource,
        command=command,
        state=circuit.state,
        mode=settings.mode,
        in_flight=in_flight,
        max_concurrent=settings.max_concurrent,
        counts=rolling.counts(),
        totals=rolling.lifetime(),
        durations=rolling.taken(),
        fallbacks=served,
        fallbacks_failed=failed,
        fallbacks_refused=refused,
        p50_s=p50,
        p95_s=p95,
        p99_s=p99,
        admitted_share=callee.share,
        saturated=callee.saturated,
        healthy=healthy,
        sleep_left_s=max(0.0, circuit.wakes_at - now) if circuit.state is State.OPEN else 0.0,
        sleep_window_s=circuit.sleep_window_s if circuit.state is State.OPEN else 0.0,
        trips=circuit.trips,
        settings=settings,
    )


def _plain(value: object) -> Any:
    if isinstance(value, BreakerSettings):
        value = value.as_dict()
    if isinstance(value, Histogram):
        return value.as_dict()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {_plain(key): _plain(held) for key, held in value.items()}
    if isinstance(value, tuple):
        return [_plain(held) for held in value]
    return getattr(value, "__qualname__", repr(value)) if callable(value) else value
