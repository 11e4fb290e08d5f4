"""The gate of one command: everything that is decided under its lock.

A call that succeeds while nothing is the matter touches the gate's ``period`` alone and takes no lock;
all others come through :meth:`Gate.admit` and :meth:`Gate.settle`.
The gate decides under the lock and tells the sinks after it.
"""

import threading
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from groundfault import _context
from groundfault._clock import Clock
from groundfault._family import Family
from groundfault.breaker._bulkhead import FULL, NORMAL, Bulkhead
from groundfault.breaker._callee import Callee
from groundfault.breaker._fallback import Fallbacks
from groundfault.breaker._health import HealthGate, HealthNews
from groundfault.breaker._machine import AGAINST, Change, Circuit, Permit
from groundfault.breaker._period import Period, renewed
from groundfault.breaker._refused import Refused
from groundfault.breaker._rolling import Rolling
from groundfault.breaker.settings import BreakerSettings
from groundfault.breaker.snapshot import CommandCounts, CommandSnapshot, describe
from groundfault.errors import BulkheadFullError, CircuitOpenError, RejectedError, ThrottledError, UnhealthyError
from groundfault.events import (
    CircuitChanged,
    ConcurrencyChanged,
    Event,
    HealthChanged,
    SettingsChanged,
    note_internal_error,
)
from groundfault.sinks import Sinks
from groundfault.vocabulary import Criticality, Mode, Outcome, State

__all__ = ["NOTHING", "Gate"]

NOTHING: Final[Mapping[str, object]] = MappingProxyType({})
"""The overlay of a command of which no settings store says anything, shared by all of them."""

_UNGUARDED: Final = Permit(-1)  # for a call that goes ahead because the gate itself failed: it moves nothing


class Gate:
    """Concurrency, circuit, throttle, health and counts of one command."""

    __slots__ = (
        "__weakref__",
        "_bulkhead",
        "_callee",
        "_circuit",
        "_clock",
        "_disabled",
        "_draw",
        "_fallbacks",
        "_health",
        "_lock",
        "_rolling",
        "_sinks",
        "command",
        "declared",
        "in_flight",
        "overlay",
        "period",
        "resource",
        "settings",
    )

    def __init__(
        self,
        resource: str,
        command: str,
        settings: BreakerSettings,
        *,
        sinks: Sinks,
        clock: Clock,
        draw: Callable[[], float],
        disabled: bool = False,
        overlay: Mapping[str, object] = NOTHING,
    ) -> None:
        self.resource = resource
        self.command = command
        self._disabled = disabled
        # What code says, and what a settings store says over it; in force is the one under the other.
        self.declared = settings
        self.overlay = overlay
        self.settings = settings.changed(overlay) if overlay else settings
        self._sinks = sinks
        self._clock = clock
        self._draw = draw
        # Guards everything below but `in_flight`. Re-entrant, for a signal handler may make a protected call
        # while its own thread is in here.
        self._lock = threading.RLock()
        # One element for each call in flight. Appending and popping are atomic and the length is the gauge:
        # a limit is compared with it, never added to or taken from.
        self.in_flight: list[None] = []
        self._rolling = Rolling(clock())
        self._circuit = Circuit()
        self._callee = Callee(resource, command)
        self._bulkhead = Bulkhead()
        self._fallbacks: Fallbacks | None = None
        self._health = self._new_health()
        self.period = self._new_period()
        _gates.add(self)

    @property
    def fallbacks(self) -> Fallbacks:
        """The fallbacks of the command, made at the first one: most commands never have any."""
        with self._lock:
            if self._fallbacks is None:
                self._fallbacks = Fallbacks(self.resource, self.command)
            return self._fallbacks

    def admit(self, now: float, in_flight: list[None]) -> Permit | Refused:
        """Decide about a call. With a permit it has its element in ``in_flight``, with a refusal it has none."""
        news: list[Event] = []
        verdict: Permit | Refused = _UNGUARDED
        inside = False
        try:
            try:
                if self._health is not None:
                    self._health.refresh(now)
                with self._lock:
                    in_flight.append(None)
                    inside = True
                    verdict = self._decide(now, len(in_flight), news)
                    if isinstance(verdict, Refused):
                        # Under the lock, or the next to ask would find the place still taken.
                        inside = False
                        in_flight.pop()
            except Exception as error:  # noqa: BLE001  fail open: an error of ours must not become the caller's
                note_internal_error("breaker admission", error)
            if isinstance(verdict, Refused) and verdict.probe is not None and self._health is not None:
                self._health.probe(now, partial(self._checked, verdict.probe))
            self._tell(news)
        except BaseException:
            # A signal handler raised, and the call will not be made. A probe's slot comes back with its lease.
            if inside:
                in_flight.pop()
            raise
        if not inside and verdict is _UNGUARDED:
            in_flight.append(None)
        return verdict

    def settle(
        self, permit: Permit, outcome: Outcome, now: float, duration_s: float, *, refused_by_callee: bool = False
    ) -> None:
        """Take the outcome of a call that has left ``in_flight``."""
        news: list[Event] = []
        try:
            with self._lock:
                self._advance(now, news)
                self._take(permit, outcome, now, duration_s, refused_by_callee=refused_by_callee, news=news)
                self._watch(news)
                self._renew()
        except Exception as error:  # noqa: BLE001  fail open, as above
            note_internal_error("breaker settlement", error)
        self._tell(news)

    def _checked(self, permit: Permit, healthy: bool) -> None:  # noqa: FBT001  called back with the answer alone
        news: list[Event] = []
        with self._lock:
            now, draw, settings, rolling = self._clock(), self._draw(), self.settings, self._rolling
            change = self._circuit.checked(permit, now, healthy=healthy, settings=settings, rolling=rolling, draw=draw)
            if change is not None:
                news.append(self._circuit_changed(change))
            self._renew()
        self._tell(news)

    def _tell(self, news: list[Event]) -> None:
        for event in news:
            self._sinks.change(event)

    def fold(self) -> None:
        """Fold away what was counted without the lock; called when it is much."""
        with self._lock:
            self._rolling.fold()

    def tune(self, changes: Mapping[str, object]) -> BreakerSettings:
        """Swap what is declared; windows, circuit and calls in flight stay. A SettingsError leaves all as it was."""
        with self._lock:
            news = self._swap(self.declared.changed(changes), self.overlay)
            new = self.settings
        self._tell(news)
        return new

    def lay_over(self, overlay: Mapping[str, object]) -> BreakerSettings:
        """Swap what lies over the declared settings, in the same way."""
        with self._lock:
            news = self._swap(self.declared, overlay or NOTHING)
            new = self.settings
        self._tell(news)
        return new

    def snapshot(self) -> CommandSnapshot:
        """Describe the command as it is now."""
        news: list[Event] = []
        with self._lock:
            now = self._clock()
            self._advance(now, news)
            self._renew()
            counts = self._counted(self._rolling.lifetime(), self._gauges())
            result = describe(counts, now, circuit=self._circuit, rolling=self._rolling)
        self._tell(news)
        return result

    def counts(self, known: object) -> tuple[object, CommandCounts | None]:
        """Return a mark and the counts, or None for them if the mark is ``known``: nothing has changed."""
        news: list[Event] = []
        with self._lock:
            self._advance(self._clock(), news)
            self._rolling.fold()
            self._renew()
            gauges = self._gauges()
            mark = self._rolling.ended, self._circuit.generation, *gauges
            result = None if mark == known else self._counted(self._rolling.totals(), gauges)
        self._tell(news)
        return mark, result

    def _counted(self, totals: dict[Outcome, int], gauges: tuple[Any, ...]) -> CommandCounts:
        moves = dict(self._circuit.moves or {})
        return CommandCounts(self.resource, self.command, totals, self._rolling.taken(), moves, *gauges)

    def _gauges(self) -> tuple[Any, ...]:
        circuit, callee, settings = self._circuit, self._callee, self.settings
        healthy = self._health is None or self._health.healthy
        fallbacks = self._fallbacks.counts() if self._fallbacks is not None else (0, 0, 0)
        gauges = circuit.state, len(self.in_flight), settings.max_concurrent, callee.share, callee.saturated, healthy
        return *gauges, *fallbacks, settings

    def after_fork(self) -> None:
        """Make a child process's copy usable: what other threads held or had in flight is not there any more.

        The circuit stays where it stood. Counts begin anew, or every worker would report its parent's as well.
        """
        self._lock = threading.RLock()
        self.in_flight = []  # a new list: the thread that forked may be inside a call and will leave the old one
        self._rolling = Rolling(self._clock())
        self._circuit.release()
        self._bulkhead = Bulkhead()
        self._fallbacks = None
        if self._health is not None:
            self._health.after_fork()
        self.period = self._new_period()

    # Everything below runs under the lock.

    def _swap(self, declared: BreakerSettings, overlay: Mapping[str, object]) -> list[Event]:
        old, new = self.settings, declared.changed(overlay) if overlay else declared
        self.declared, self.overlay, self.settings = declared, overlay, new
        if (new.health_check, new.health_check_ttl_s) != (old.health_check, old.health_check_ttl_s):
            self._health = self._new_health()
        news: list[Event] = []
        self._watch(news)
        self._renew()
        if old != new:
            news.append(SettingsChanged(f"{self.resource}/{self.command}", *old.differences(new)))
        return news

    def _decide(self, now: float, in_flight: int, news: list[Event]) -> Permit | Refused:
        self._advance(now, news)
        self._watch(news)
        settings = self.settings
        refused = self._refusal(now, in_flight, news)
        permit = self._circuit.permit
        if refused is None and settings.mode is not Mode.FORCE_CLOSED:
            permit, change = self._circuit.admit(now, settings)
            if change is not None:
                news.append(self._circuit_changed(change))
            if permit.probe and self._asks_health_check():
                error = CircuitOpenError(self.resource, self.command, 0.0)
                refused = Refused(Outcome.CIRCUIT_OPEN, error, settings.mode is not Mode.SHADOW, permit)
        if refused is not None:
            self._rolling.count(refused.outcome)
        self._renew()
        return permit if refused is None else refused

    def _refusal(self, now: float, in_flight: int, news: list[Event]) -> Refused | None:
        """Ask in the order of a call: concurrency, circuit, throttle, health. The probe's lease is taken after all."""
        settings = self.settings
        enforced = settings.mode is not Mode.SHADOW
        if (limit := settings.max_concurrent) is not None:
            level = self._bulkhead.entered(in_flight, limit, now)
            if level is not None:
                taken = limit if level == FULL else in_flight
                news.append(ConcurrencyChanged(self.resource, self.command, level, taken, limit, _context.trace()))
            if in_flight > limit:
                error: RejectedError = BulkheadFullError(self.resource, self.command, limit)
                return Refused(Outcome.BULKHEAD_FULL, error, enforced)
        if settings.mode is Mode.FORCE_OPEN:
            return Refused(Outcome.CIRCUIT_OPEN, CircuitOpenError(self.resource, self.command, 0.0), enforced)
        if settings.mode is not Mode.FORCE_CLOSED:
            wait_s = self._circuit.wait_s(now)
            if wait_s is not None:
                return Refused(Outcome.CIRCUIT_OPEN, CircuitOpenError(self.resource, self.command, wait_s), enforced)
        if self._held_back():
            error = ThrottledError(self.resource, self.command, self._callee.share)
            return Refused(Outcome.THROTTLED, error, enforced)
        if self._health is not None and self._health.refuses(now, settings.lease_s) and not self._asks_health_check():
            return Refused(Outcome.UNHEALTHY, UnhealthyError(self.resource, self.command), enforced)
        return None

    def _asks_health_check(self) -> bool:
        """Whether the next probe is a health check. After one that hangs it is a call, or nothing would ever close."""
        asked = self.settings.probe == "health_check" and self._circuit.state is not State.CLOSED
        return asked and self._health is not None and not self._health.hangs

    def _held_back(self) -> bool:
        if self._callee.share >= 1.0 or self._callee.admits(self._draw()):
            return False
        if self._circuit.state is not State.CLOSED and self.settings.mode is not Mode.FORCE_CLOSED:
            return False  # this one would be the probe
        return _context.criticality() is not Criticality.CRITICAL_PLUS

    def _take(
        self,
        permit: Permit,
        outcome: Outcome,
        now: float,
        duration_s: float,
        *,
        refused_by_callee: bool,
        news: list[Event],
    ) -> None:
        settings = self.settings
        fresh = permit.generation == self._circuit.generation
        change = self._circuit.settle(
            permit,
            outcome,
            now,
            settings=settings,
            rolling=self._rolling,
            duration_s=duration_s,
            draw=self._draw() if outcome in AGAINST else 0.0,
        )
        if not refused_by_callee:
            self._callee.ended()
        if fresh and outcome is Outcome.SUCCESS:
            self._callee.answered(news)
        elif fresh and refused_by_callee:
            change = self._refused_by_callee(now, news)
        if change is not None:
            news.append(self._circuit_changed(change))

    def _refused_by_callee(self, now: float, news: list[Event]) -> Change | None:
        self._callee.refused(now)
        if not self._callee.saturates(now, _context.criticality(), self.settings, news):
            return None
        return self._circuit.saturate(now, settings=self.settings, refusals=self._callee.refusals, draw=self._draw())

    def _advance(self, now: float, news: list[Event]) -> None:
        """Let time pass: rotate the windows, judge the throttle."""
        self._rolling.roll(now)
        self._callee.judge(now, news)

    def _watch(self, news: list[Event]) -> None:
        """Report when concurrency is normal again."""
        if self._bulkhead.level == NORMAL:
            return
        in_flight, limit = len(self.in_flight), self.settings.max_concurrent
        if (level := self._bulkhead.left(in_flight, limit)) is not None:
            news.append(ConcurrencyChanged(self.resource, self.command, level, in_flight, limit or 0, _context.trace()))

    def _renew(self) -> None:
        """Replace the period if another is due. Not more often: calls in flight compare its identity."""
        self.period = self._new_period(self.period)

    def _new_period(self, before: Period | None = None) -> Period:
        health = self._health
        quiet = not (
            self._disabled
            or not self._callee.calm
            or self.settings.isolation == "thread"
            or self._bulkhead.level != NORMAL
            or (health is not None and not health.healthy)
        )
        # A health check that falls due ends a period too: the gate is where it is started.
        ends_at = self._rolling.ends_at if health is None else min(self._rolling.ends_at, health.due_at)
        return renewed(before, self.settings, self._circuit, self._rolling, ends_at=ends_at, quiet=quiet)

    def _new_health(self) -> HealthGate | None:
        check, ttl_s = self.settings.health_check, self.settings.health_check_ttl_s
        return None if check is None else HealthGate(check, ttl_s, self._clock, self._health_checked)

    def _health_checked(self, news: HealthNews | None) -> None:
        with self._lock:
            self._renew()
        if news is not None:
            self._tell([HealthChanged(self.resource, self.command, news.healthy, news.error)])

    def _circuit_changed(self, change: Change) -> CircuitChanged:
        return CircuitChanged(self.resource, self.command, *change, traceparent=_context.trace())


_gates: Final = Family(Gate.after_fork)
