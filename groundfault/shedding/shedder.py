"""The server half without HTTP: decides about requests, counts them, and says what it sees."""

import os
import random
import weakref
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import fields
from threading import RLock
from typing import Any, Final

from groundfault._clock import Clock, monotonic, wall
from groundfault.events import (
    RequestSeen,
    SettingsChanged,
    SheddingChanged,
    Sink,
    Sinks,
    internal_errors,
    note_internal_error,
    sinks_of,
)
from groundfault.shedding._admission import TokenBucket
from groundfault.shedding._law import Entry, Law
from groundfault.shedding._routes import OTHER, Route
from groundfault.shedding._rules import Rules
from groundfault.shedding._socket import self_test
from groundfault.shedding._threads import ThreadQueue
from groundfault.shedding._wait import Offset
from groundfault.shedding.settings import ShedderSettings
from groundfault.shedding.snapshot import ShedderSnapshot
from groundfault.vocabulary import Criticality, Mode, Reason
from groundfault.wire import key_fraction

__all__ = ["Admission", "Shedder", "live_shedders"]

TCP_INFO: Final = "tcp-info"
REQUEST_START: Final = "request-start"
NO_SIGNAL: Final = "none"

QUIET_S: Final = 3.0
"""So long without a refusal ends an episode of shedding; shorter pauses within one overload are common."""

_MAX_CALLERS: Final = 256
_OTHER_CALLER: Final = "other"
_ERRORS_TOLERATED: Final = 10
_ERROR_SPAN_S: Final = 60.0

_OVERLOAD: Final = frozenset({Reason.QUEUE_WAIT, Reason.CONCURRENCY})


class Admission(Entry):
    """What was decided about one request; handed back to :meth:`Shedder.answered` and :meth:`Shedder.release`.

    ``reason`` is None for an admitted request. ``refused`` is false where shadow mode lets a refused one through.
    """

    __slots__ = ("generation", "reason", "refused", "released")

    def __init__(self, name: str, route: Route, began: float, on_loop: bool, generation: int) -> None:  # noqa: FBT001  one call per request
        self.name = name
        self.route = route
        self.began = began
        self.on_loop = on_loop
        self.queued_s = 0.0
        self.predicted_s: float | None = None
        self.open = False
        self.generation = generation
        self.reason: Reason | None = None
        self.refused = False
        self.released = False


_all: "weakref.WeakSet[Shedder]" = weakref.WeakSet()


class Shedder:
    """Decides which requests of one service are refused. Thread-safe, and safe to fork.

    ``settings``, or single settings as keywords, which go before it; see
    :class:`~groundfault.shedding.settings.ShedderSettings`. Without ``settings`` and ``service`` the environment
    variable ``GROUNDFAULT_SERVICE`` names the service.
    ``GROUNDFAULT_DISABLED=1`` in the environment switches it off for good.
    ``sinks`` takes the events; None: the process-wide ones. ``clock`` and ``wall_clock`` return seconds.
    Raises :class:`~groundfault.errors.SettingsError`.

    A request goes through :meth:`admit`, then, unless it is refused, :meth:`answered` when its answer begins and
    :meth:`release` when it is over. None of them waits or calls user code other than sinks.
    """

    def __init__(
        self,
        settings: ShedderSettings | None = None,
        /,
        *,
        sinks: Iterable[Sink] | Sinks | None = None,
        clock: Clock = monotonic,
        wall_clock: Clock = wall,
        **changes: Any,
    ) -> None:
        if settings is None:
            settings = ShedderSettings()
            named = os.environ.get("GROUNDFAULT_SERVICE")
            if named and "service" not in changes:
                changes["service"] = named
        self._killed = os.environ.get("GROUNDFAULT_DISABLED", "").strip().lower() in {"1", "true", "yes", "on"}
        self._rules = Rules(settings.changed(changes), killed=self._killed)
        self.sinks = sinks_of(sinks)
        self.clock = clock
        self.wall_clock = wall_clock
        self._signal = NO_SIGNAL
        self._refused_signals: dict[str, str] = {}
        self._draining = False
        self._aside_until: float | None = None
        self._generation = 0
        self._renew()
        _all.add(self)

    def _renew(self) -> None:
        """Begin with empty state: at the start, and in the child of a fork, where the parent's requests are not."""
        now = self.clock()
        self._generation += 1
        # Guards everything below. Re-entrant, because a signal handler may serve a request of its own.
        self._lock = RLock()
        self._in_flight = 0
        self._admitted: Counter[Criticality] = Counter()
        self._shed: Counter[tuple[Reason, Criticality]] = Counter()
        self._errors: deque[float] = deque(maxlen=_ERRORS_TOLERATED)
        self._episode = False
        self._episode_shed = 0
        self._refused_at = 0.0
        self._health = TokenBucket()
        self._callers: set[str] = set()
        self._offset = Offset(now)
        self._law = Law(now, self._rules.settings.deadline_s)

    @property
    def rules(self) -> Rules:
        """The settings in force, and what follows from them."""
        return self._rules

    @property
    def settings(self) -> ShedderSettings:
        """The settings in force."""
        return self._rules.settings

    @property
    def bypassed(self) -> bool:
        """Whether requests are let through untouched: switched off, or stepped aside after internal errors."""
        if self._rules.off:
            return True
        return self._aside_until is not None and self._is_aside()

    def _is_aside(self) -> bool:
        until = self._aside_until
        if until is not None and self.clock() >= until:
            self._aside_until = until = None
        return until is not None

    def admit(
        self,
        route: str,
        wait_s: float | None,
        *,
        on_loop: bool = False,
        age_s: float | None = None,
        criticality: Criticality = Criticality.CRITICAL,
        key: str | None = None,
        budget_s: float | None = None,
        health: bool = False,
        threads: ThreadQueue | None = None,
        caller: str | None = None,
        traceparent: str | None = None,
    ) -> Admission:
        """Decide about one request; must be followed by :meth:`release` unless it is refused.

        ``route``: its label, from :func:`~groundfault.shedding._routes.route_of`.
        ``wait_s``: how long the kernel says it has waited, or None where the kernel cannot tell.
        ``on_loop``: it is served by an event loop, where the forecast applies, rather than by a worker of its own.
        ``age_s``: how long ago a trusted proxy received it. With a ``wait_s`` this only shortens its budget.
        ``key``: 1 to 16 hexadecimal digits that stand for the user; None draws lots for this request.
        ``budget_s``: how long its caller still waits, or None if it did not say.
        ``health``: it asks for one of the health paths.
        ``threads``: what stands in front of the worker threads, if its endpoint runs in one.
        """
        now = self.clock()
        u = random.random() if key is None else key_fraction(key)
        with self._lock:
            rules = self._rules
            law = self._law
            state = law.routes.find(route)
            admission = Admission(route, state, now, on_loop, self._generation)
            signal, behind_s = TCP_INFO, 0.0
            if wait_s is not None:
                if age_s is not None and wait_s < age_s <= wait_s + rules.settings.deadline_s:
                    behind_s = age_s - wait_s
            elif age_s is not None:
                signal, wait_s = REQUEST_START, self._offset.subtract(now, age_s)
            else:
                signal = NO_SIGNAL
            self._signal = signal
            law.arrive(now, admission, wait_s, threads)
            if not (health and self._health.take(now, rules.settings.health_rate_per_s)):
                left_s = None if budget_s is None else budget_s - behind_s
                admission.reason = self._first_reason(left_s) or law.judge(
                    now, admission, wait_s or 0.0, left_s, behind_s=behind_s, criticality=criticality, u=u
                )
            change = self._count(now, admission, criticality, wait_s or 0.0, traceparent)
        if change is not None:
            self.sinks.change(change)
        if self.sinks.calls:
            self.sinks.call(
                RequestSeen(
                    service=rules.settings.service,
                    route=route if state.name != OTHER else OTHER,
                    reason=admission.reason,
                    criticality=criticality,
                    queue_wait_s=wait_s,
                    signal=signal,
                    caller=caller,
                    enforced=rules.mode is Mode.ENFORCE,
                    predicted_wait_s=admission.predicted_s,
                )
            )
        return admission

    def _first_reason(self, left_s: float | None) -> Reason | None:
        """Return what refuses a request before the law is asked."""
        if self._draining:
            return Reason.DRAINING
        if left_s is not None and left_s <= 0:
            return Reason.DEADLINE
        limit = self._rules.settings.max_concurrency
        return Reason.CONCURRENCY if limit is not None and self._in_flight >= limit else None

    def _count(
        self, now: float, admission: Admission, criticality: Criticality, wait_s: float, traceparent: str | None
    ) -> SheddingChanged | None:
        reason = admission.reason
        if reason is None or self._rules.mode is not Mode.ENFORCE:
            self._in_flight += 1
            self._law.enter(now, admission)
        else:
            admission.refused = True
        if reason is None:
            self._admitted[criticality] += 1
            return self._end_of_episode(now, wait_s) if self._episode else None
        self._shed[reason, criticality] += 1
        if reason not in _OVERLOAD:  # a budget that is used up may be any client's doing: no news of this server
            return None
        self._refused_at = now
        self._episode_shed += 1
        if self._episode:
            return None
        self._episode, self._episode_shed = True, 1
        return SheddingChanged(
            service=self._rules.settings.service,
            shedding=True,
            queue_wait_s=wait_s,
            shed=1,
            reason=reason,
            traceparent=traceparent,
            predicted_wait_s=admission.predicted_s,
        )

    def _end_of_episode(self, now: float, wait_s: float) -> SheddingChanged | None:
        if not self._episode or now - self._refused_at < QUIET_S:
            return None
        self._episode = False
        return SheddingChanged(
            service=self._rules.settings.service, shedding=False, queue_wait_s=wait_s, shed=self._episode_shed
        )

    def answered(self, admission: Admission, status: int) -> None:
        """Note that the answer begins. Later calls for the same request change nothing.

        Only answers below 400 count as service times: how fast a service fails is not how fast it serves.
        """
        now = self.clock()
        with self._lock:
            if admission.open and admission.generation == self._generation:
                self._law.answered(now, admission, status)

    def release(self, admission: Admission) -> None:
        """Note that the request is over, however it ended. Synchronous; a second call changes nothing."""
        with self._lock:
            if admission.refused or admission.released or admission.generation != self._generation:
                return
            admission.released = True
            self._in_flight -= 1
            self._law.leave(admission)  # if it is still open: its client has left, or its task was cancelled

    def note_endpoint(self, admission: Admission, *, in_thread: bool) -> None:
        """Remember of the request's route whether its endpoint runs in a worker thread."""
        with self._lock:
            route = self._law.routes.find(admission.name)
            if route is not self._law.routes.other:
                route.sync = in_thread

    def route(self, name: str) -> Route:
        """Return what is known about a route: its own state, or that of all routes without one."""
        return self._law.routes.find(name)

    def fold_caller(self, caller: str | None) -> str | None:
        """Return the caller's label, or ``other`` beyond the first 256 of them."""
        if caller is None or caller in self._callers:
            return caller
        with self._lock:
            if len(self._callers) >= _MAX_CALLERS:
                return _OTHER_CALLER
            self._callers.add(caller)
        return caller

    def key_of(self, identity: str) -> str:
        """Return the key of a user or session: 16 hexadecimal digits that change every hour and tell nothing of it."""
        return self._rules.key_of(identity, self.wall_clock())

    def refuse_signal(self, signal: str, cause: str) -> None:
        """Remember why a signal could not be used, for the snapshot."""
        self._refused_signals[signal] = cause

    def failed(self, where: str, error: BaseException) -> None:
        """Count an error of ours that a request survived; after ten in a minute step aside for a minute."""
        note_internal_error(where, error)
        now = self.clock()
        with self._lock:
            self._errors.append(now)
            if len(self._errors) == _ERRORS_TOLERATED and now - self._errors[0] <= _ERROR_SPAN_S:
                self._errors.clear()
                self._aside_until = now + _ERROR_SPAN_S

    def tune(self, **changes: Any) -> ShedderSettings:
        """Replace some settings at once and return the new ones; raises SettingsError and then changes nothing.

        Everything learned is kept. Requests already inside are not touched: a lower ``max_concurrency`` refuses until
        enough of them have ended. A process started with ``GROUNDFAULT_DISABLED=1`` stays off.
        """
        with self._lock:
            old = self._rules.settings
            new = old.changed(changes)
            self._rules = Rules(new, killed=self._killed)
            self._law.set_deadline(new.deadline_s)
        names = [each.name for each in fields(new) if each.name != "key_salt"]
        was = {name: getattr(old, name) for name in names if getattr(old, name) != getattr(new, name)}
        if was:
            now = {name: getattr(new, name) for name in was}
            self.sinks.change(SettingsChanged(component=new.service, old=was, new=now))
        return new

    def drain(self) -> None:
        """Refuse everything but health checks from now on, as ``draining``: this instance is being stopped."""
        self._draining = True

    def snapshot(self) -> ShedderSnapshot:
        """Return the state of this moment."""
        now = self.clock()
        with self._lock:
            change = self._end_of_episode(now, 0.0)
            rules = self._rules
            snapshot = ShedderSnapshot(
                service=rules.settings.service,
                mode=rules.mode,
                signal=self._signal,
                signals_refused=self._refusals_of_signals(),
                in_flight=self._in_flight,
                shedding=self._episode,
                draining=self._draining,
                stepped_aside=self._is_aside(),
                thresholds=self._law.thresholds(now),
                service_time_s=self._law.service_time_s,
                admitted=dict(self._admitted),
                shed=dict(self._shed),
                internal_errors=internal_errors(),
                settings=rules.settings,
            )
        if change is not None:
            self.sinks.change(change)
        return snapshot

    def _refusals_of_signals(self) -> dict[str, str]:
        refused = dict(self._refused_signals)
        if self_test.failure is not None:
            refused[TCP_INFO] = self_test.failure
        if self._signal == TCP_INFO:
            refused.pop(TCP_INFO, None)
        return refused


def live_shedders() -> list[Shedder]:
    """Return the shedders of this process, in no order; for kits that look for the application's."""
    return list(_all)


def _renew_all() -> None:
    for shedder in list(_all):
        shedder._renew()  # noqa: SLF001  the child's end of this module's own fork handler


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
