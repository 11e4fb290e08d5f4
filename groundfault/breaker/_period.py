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

__all__ = ["Period"]

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

    def __init__(
        self, settings: BreakerSettings, circuit: Circuit, rolling: Rolling, *, ends_at: float, quiet: bool
    ) -> None:
        mode, limit = settings.mode, settings.max_concurrent
        self.settings = settings
        self.permit = circuit.permit
        self.durations = rolling.durations
        self.tallies = rolling.tallies
        self.ends_at = ends_at
        self.timeout_s = settings.timeout_s
        self.slow_after = settings.slow_after_s
        self.limit = sys.maxsize if limit is None else limit
        self.refuses_until = self.wakes_at = _NEVER
        if mode is Mode.FORCE_OPEN:
            self.refuses_until = ends_at
        elif mode is Mode.ENFORCE and circuit.state is State.OPEN:
            self.wakes_at = circuit.wakes_at
            self.refuses_until = min(circuit.wakes_at, ends_at)
        elif mode is Mode.ENFORCE and circuit.state is State.HALF_OPEN and circuit.probe_out:
            self.refuses_until = min(circuit.lease_ends_at, ends_at)
        passes = mode is Mode.FORCE_CLOSED or (mode is not Mode.FORCE_OPEN and circuit.state is State.CLOSED)
        if not (quiet and passes):
            self.quiet_limit = -1
        elif limit is None or limit == 1:
            self.quiet_limit = self.limit
        else:
            self.quiet_limit = high_mark(limit) - 1  # the call that reaches the mark is the one to report it

    def says_as_much_as(self, other: "Period") -> bool:
        """Tell whether a call could not tell the two apart."""
        return (
            self.settings is other.settings
            and self.permit is other.permit
            and self.durations is other.durations
            and self.ends_at == other.ends_at
            and self.quiet_limit == other.quiet_limit
            and self.refuses_until == other.refuses_until
            and self.wakes_at == other.wakes_at
        )
