"""What stays the same between two changes, in the form in which the plain course of a call compares it.

A period is replaced as a whole when anything it says changes:
a window ends, the circuit moves, settings are tuned, the callee begins to shed, calls crowd.
While anything is the matter it is *attended*: ``quiet_limit`` is -1, which sends every call to the gate.
A call that finds another period at its end than at its beginning asks the gate too,
so results of an earlier generation cannot slip through.
"""

import math
import sys
from typing import Final

from groundfault.breaker._bulkhead import high_mark
from groundfault.breaker._machine import Circuit
from groundfault.breaker._rolling import Rolling
from groundfault.breaker.settings import BreakerSettings
from groundfault.vocabulary import Mode, State

__all__ = ["Period", "renewed"]

_NEVER: Final = -math.inf


class Period:
    """Nothing here changes but the two lists, to which anybody may append.

    ``quiet_limit``: with more calls in flight than this, ask the gate.
    ``slow_after``: a success that took longer than this is none.
    ``refuses_until``: before this moment the circuit refuses for certain, and no lock is needed to say so;
    ``wakes_at`` is when it sends its probe, minus infinity unless it is open.
    """

    __slots__ = (
        "durations",
        "ends_at",
        "limit",
        "permit",
        "quiet_limit",
        "refuses_until",
        "settings",
        "slow_after",
        "tallies",
        "timeout_s",
        "wakes_at",
    )

    def __init__(self, settings: BreakerSettings, circuit: Circuit, rolling: Rolling, *, ends_at: float) -> None:
        self.settings = settings
        self.permit = circuit.permit
        self.durations = rolling.durations
        self.tallies = rolling.tallies
        self.ends_at = ends_at
        self.timeout_s = settings.timeout_s
        self.slow_after = settings.slow_after_s
        self.limit = sys.maxsize if settings.max_concurrent is None else settings.max_concurrent
        self.quiet_limit = -1
        self.refuses_until = self.wakes_at = _NEVER


def renewed(
    before: Period | None,
    settings: BreakerSettings,
    circuit: Circuit,
    rolling: Rolling,
    *,
    ends_at: float,
    quiet: bool,
) -> Period:
    """Return the period of this moment: ``before``, if a call could not tell the two apart."""
    quiet_limit = _quiet_limit(settings, circuit) if quiet else -1
    refuses_until, wakes_at = _refusing(settings.mode, circuit, ends_at)
    if (
        before is not None
        and before.settings is settings
        and before.permit is circuit.permit
        and before.durations is rolling.durations
        and before.ends_at == ends_at
        and before.quiet_limit == quiet_limit
        and before.refuses_until == refuses_until
        and before.wakes_at == wakes_at
    ):
        return before
    new = Period(settings, circuit, rolling, ends_at=ends_at)
    new.quiet_limit, new.refuses_until, new.wakes_at = quiet_limit, refuses_until, wakes_at
    return new


def _refusing(mode: Mode, circuit: Circuit, ends_at: float) -> tuple[float, float]:
    """Return until when everything is refused for certain, and when the circuit sends its probe."""
    if mode is Mode.FORCE_OPEN:
        return ends_at, _NEVER
    if mode is Mode.ENFORCE and circuit.state is State.OPEN:
        return min(circuit.wakes_at, ends_at), circuit.wakes_at
    if mode is Mode.ENFORCE and circuit.state is State.HALF_OPEN and circuit.probe_out:
        return min(circuit.lease_ends_at, ends_at), _NEVER
    return _NEVER, _NEVER


def _quiet_limit(settings: BreakerSettings, circuit: Circuit) -> int:
    mode, limit = settings.mode, settings.max_concurrent
    if not (mode is Mode.FORCE_CLOSED or (mode is not Mode.FORCE_OPEN and circuit.state is State.CLOSED)):
        return -1
    if limit is None:
        return sys.maxsize
    return limit if limit == 1 else high_mark(limit) - 1  # the call that reaches the mark is the one to report it
