"""What a page, a scrape or a console needs to know about one command, as one frozen value."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from groundfault._histogram import Histogram
from groundfault.breaker.settings import BreakerSettings
from groundfault.vocabulary import Mode, Outcome, State

if TYPE_CHECKING:
    from groundfault.breaker._machine import Circuit
    from groundfault.breaker._rolling import Rolling

__all__ = ["CommandCounts", "CommandSnapshot", "describe"]


class CommandCounts(NamedTuple):
    """What only ever grows of a command, and its gauges: fields of its snapshot, for an eighth of the price."""

    resource: str
    command: str
    totals: Mapping[Outcome, int]
    durations: Mapping[Outcome, Histogram]
    moves: Mapping[tuple[State, State], int]
    state: State
    in_flight: int
    max_concurrent: int | None
    admitted_share: float
    saturated: bool
    healthy: bool
    fallbacks: int
    fallbacks_failed: int
    fallbacks_refused: int
    settings: BreakerSettings


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
    Both are 0.0 unless it is open. ``trips``: how often it went from closed to open;
    ``moves``: how often from each state to another.
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
    moves: Mapping[tuple[State, State], int]
    settings: BreakerSettings

    def as_dict(self) -> dict[str, Any]:
        """Return everything by name, in what JSON can hold: functions and types by their names."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def describe(counted: CommandCounts, now: float, *, circuit: "Circuit", rolling: "Rolling") -> CommandSnapshot:
    """Return the snapshot of a command whose owner holds its lock."""
    p50, p95, p99 = rolling.quantiles(0.5, 0.95, 0.99)
    is_open = circuit.state is State.OPEN
    return CommandSnapshot(
        **counted._asdict(),
        mode=counted.settings.mode,
        counts=rolling.counts(),
        p50_s=p50,
        p95_s=p95,
        p99_s=p99,
        sleep_left_s=max(0.0, circuit.wakes_at - now) if is_open else 0.0,
        sleep_window_s=circuit.sleep_window_s if is_open else 0.0,
        trips=circuit.trips,
    )


def _plain(value: object) -> Any:
    if isinstance(value, BreakerSettings):
        value = value.as_dict()
    if isinstance(value, Histogram):
        return value.as_dict()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {_key(key): _plain(held) for key, held in value.items()}
    if isinstance(value, tuple):
        return [_plain(held) for held in value]
    return getattr(value, "__qualname__", repr(value)) if callable(value) else value


def _key(value: object) -> str:
    return ">".join(value) if isinstance(value, tuple) else str(value)
