"""The circuit: closed, open, half-open, and what may move it.

:data:`TRANSITIONS` is the whole rule; what is not in it cannot happen. Around it hold four more:

* Every state change begins a new *generation*. A call counts only in the generation it was admitted in,
  so what began before the last change moves nothing, however late it ends.
* Half-open sends exactly one *probe* at a time.
* A probe is a *lease*. It gives its slot back when it ends, however it ends, and loses it when the lease is over:
  a probe that was lost, hung or canceled costs one lease and never the circuit.
  Probes of one half-open episode share its generation, so a success that comes after its lease still closes.
* A neutral ending (shed, ignored) moves nothing and returns the slot at once.

The trip test runs on failures only, for a success cannot raise their share (Polly specifies the same).
It looks at the newest window alone, the newest two and all three:
a sudden outage trips within seconds, and a quiet command is still judged.
"""

from enum import Enum
from typing import Final, NamedTuple

from groundfault.breaker._rolling import Rolling
from groundfault.breaker.settings import BreakerSettings
from groundfault.vocabulary import Mode, Outcome, State

__all__ = ["AGAINST", "TRANSITIONS", "Change", "Circuit", "Permit", "Trigger"]


class Trigger(Enum):
    """What can move a circuit."""

    FAILURES = "failure share reached"
    SATURATION = "callee only refuses"
    PROBE_SENT = "probe sent"
    PROBE_SUCCEEDED = "probe succeeded"
    PROBE_FAILED = "probe failed"


TRANSITIONS: Final[dict[tuple[State, Trigger], State]] = {
    (State.CLOSED, Trigger.FAILURES): State.OPEN,
    (State.CLOSED, Trigger.SATURATION): State.OPEN,
    (State.OPEN, Trigger.PROBE_SENT): State.HALF_OPEN,
    (State.HALF_OPEN, Trigger.PROBE_SUCCEEDED): State.CLOSED,
    (State.HALF_OPEN, Trigger.PROBE_FAILED): State.OPEN,
}

AGAINST: Final = frozenset({Outcome.FAILURE, Outcome.TIMEOUT})
"""The outcomes that speak against the callee."""


class Permit:
    """Leave to make one call. The calls of a closed circuit share one; a probe has its own, for it is a lease."""

    __slots__ = ("generation", "probe")

    def __init__(self, generation: int, *, probe: bool = False) -> None:
        self.generation = generation
        self.probe = probe


class Change(NamedTuple):
    """A state change, with the counts of the span that was judged; see ``events.CircuitChanged``."""

    old: State
    new: State
    failures: int
    volume: int
    sleep_window_s: float


class Circuit:
    """One circuit. Not safe for threads by itself: the owner holds a lock.

    ``moves``: how often it went from one state to another. None until it first does: most circuits never do.
    ``wakes_at`` is when an open circuit sends its probe, ``lease_ends_at`` when a probe that is out loses its slot.
    """

    __slots__ = (
        "_failed_probes",
        "_probe",
        "generation",
        "lease_ends_at",
        "moves",
        "permit",
        "sleep_window_s",
        "state",
        "wakes_at",
    )

    def __init__(self) -> None:
        self.state = State.CLOSED
        self.generation = 0
        self.permit = Permit(0)
        self.moves: dict[tuple[State, State], int] | None = None
        self.wakes_at = 0.0
        self.lease_ends_at = 0.0
        self.sleep_window_s = 0.0
        self._failed_probes = 0
        self._probe: Permit | None = None

    @property
    def trips(self) -> int:
        """How often it went from closed to open."""
        return 0 if self.moves is None else self.moves.get((State.CLOSED, State.OPEN), 0)

    @property
    def probe_out(self) -> bool:
        """True while a probe holds the slot, if only until its lease is over."""
        return self._probe is not None

    def wait_s(self, now: float) -> float | None:
        """Return None if a call may be made now, else how long until a probe may be sent, 0.0 while one is out."""
        if self.state is State.CLOSED:
            return None
        if self.state is State.OPEN:
            return None if now >= self.wakes_at else self.wakes_at - now
        return None if self._probe is None or now >= self.lease_ends_at else 0.0

    def admit(self, now: float, settings: BreakerSettings) -> tuple[Permit, Change | None]:
        """Issue the permit for a call that ``wait_s`` has let through. Outside the closed state it is the probe's."""
        if self.state is State.CLOSED:
            return self.permit, None
        change = None
        if self.state is State.OPEN:
            change = self._move(Trigger.PROBE_SENT)
        self._probe = Permit(self.generation, probe=True)
        self.lease_ends_at = now + settings.lease_s
        return self._probe, change

    def settle(
        self,
        permit: Permit,
        outcome: Outcome,
        now: float,
        *,
        settings: BreakerSettings,
        rolling: Rolling,
        duration_s: float = 0.0,
        draw: float = 0.0,
    ) -> Change | None:
        """Take a call's outcome. ``draw`` is a random number in [0, 1) for the sleep window, should it open."""
        if permit.generation != self.generation:
            rolling.count_outside(outcome, duration_s)
            return None
        if permit is self._probe:
            self._probe = None
        change = None
        if permit.probe and outcome is Outcome.SUCCESS:
            change = self._succeed(now, rolling)
        rolling.count(outcome, duration_s)
        if outcome in AGAINST:
            if permit.probe:
                change = self._fail(now, settings, draw)
            elif self.state is State.CLOSED and settings.mode is not Mode.FORCE_CLOSED:
                change = self._judge(now, settings, rolling, draw)
        return change

    def checked(
        self, permit: Permit, now: float, *, healthy: bool, settings: BreakerSettings, rolling: Rolling, draw: float
    ) -> Change | None:
        """Take the answer of a health check that was the probe. It was no call, so it is counted nowhere."""
        if permit.generation != self.generation:
            return None
        return self._succeed(now, rolling) if healthy else self._fail(now, settings, draw)

    def saturate(self, now: float, *, settings: BreakerSettings, refusals: int, draw: float) -> Change | None:
        """Open because the callee does nothing but refuse; only a closed circuit that may trip does."""
        if self.state is not State.CLOSED or settings.mode is Mode.FORCE_CLOSED:
            return None
        return self._open(Trigger.SATURATION, now, settings, draw, failures=0, volume=refusals)

    def release(self) -> None:
        """Take the slot back from a probe that no longer exists, in a process that begins to count anew."""
        self._probe = None
        self.moves = None

    def _succeed(self, now: float, rolling: Rolling) -> Change:
        self._failed_probes = 0
        rolling.clear(now)
        return self._move(Trigger.PROBE_SUCCEEDED)

    def _fail(self, now: float, settings: BreakerSettings, draw: float) -> Change:
        self._failed_probes += 1
        return self._open(Trigger.PROBE_FAILED, now, settings, draw, failures=1, volume=1)

    def _judge(self, now: float, settings: BreakerSettings, rolling: Rolling, draw: float) -> Change | None:
        least = settings.minimum_volume
        for failures, volume in rolling.spans():
            if volume >= least and failures >= settings.failure_threshold * volume:
                return self._open(Trigger.FAILURES, now, settings, draw, failures=failures, volume=volume)
        return None

    def _open(
        self, trigger: Trigger, now: float, settings: BreakerSettings, draw: float, *, failures: int, volume: int
    ) -> Change:
        # Equal jitter, half fixed and half random: with a fixed window, every process of a fleet that tripped
        # together would probe together.
        # The exponent is capped where any doubling is past every bound, before floats overflow.
        longest = min(settings.sleep_window_s * 2.0 ** min(self._failed_probes, 64), settings.longest_sleep_s)
        self.sleep_window_s = longest / 2 + longest / 2 * draw
        self.wakes_at = now + self.sleep_window_s
        return self._move(trigger, failures, volume)

    def _move(self, trigger: Trigger, failures: int = 0, volume: int = 0) -> Change:
        old, self.state = self.state, TRANSITIONS[self.state, trigger]
        moves = self.moves = self.moves or {}
        moves[old, self.state] = moves.get((old, self.state), 0) + 1
        self.generation += 1
        self.permit = Permit(self.generation)
        self._probe = None
        if self.state is not State.OPEN:
            return Change(old, self.state, failures, volume, 0.0)
        return Change(old, self.state, failures, volume, self.sleep_window_s)
