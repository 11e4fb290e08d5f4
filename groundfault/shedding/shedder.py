"""The server half without HTTP: decides about requests, counts them, and says what it sees."""

import random
from collections.abc import Iterable
from threading import RLock
from typing import Any, Final

from groundfault._clock import Clock, monotonic, wall
from groundfault._family import Family
from groundfault._killswitch import is_killed
from groundfault.events import BacklogWarning, RequestSeen, internal_errors, note_internal_error
from groundfault.shedding._admission import TokenBucket
from groundfault.shedding._admitted import Admission
from groundfault.shedding._fuse import Fuse
from groundfault.shedding._law import Law
from groundfault.shedding._listener import ListenerWatch
from groundfault.shedding._routes import OTHER, Route
from groundfault.shedding._rules import named_by_environment
from groundfault.shedding._short_ways import ShortWays
from groundfault.shedding._socket import INSTEAD_OF_TCP_INFO, resolution_of, self_test
from groundfault.shedding._tally import Tally
from groundfault.shedding._threads import ThreadQueue
from groundfault.shedding._trust import Callers
from groundfault.shedding._tuning import Tuned
from groundfault.shedding._wait import NO_SIGNAL, Offset, Peer
from groundfault.shedding.settings import ShedderSettings
from groundfault.shedding.snapshot import ShedderSnapshot
from groundfault.sinks import Sink, Sinks, sinks_of
from groundfault.vocabulary import Criticality, Reason
from groundfault.wire import key_fraction

__all__ = ["Admission", "Shedder", "live_shedders"]

TCP_INFO: Final = "tcp-info"

# Looked up once: through its class a member of an enumeration costs a tenth of a microsecond, and each request asks.
_CRITICAL: Final = Criticality.CRITICAL
_HERE: Final = Peer.HERE
_GONE: Final = Peer.GONE


class Shedder(ShortWays, Tuned):
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
            settings, changes = ShedderSettings(), named_by_environment(changes)
        self._killed = is_killed()
        self._declare(settings.changed(changes))
        self.sinks = sinks_of(sinks)
        self.clock = clock
        self.wall_clock = wall_clock
        self._signal, self._wait_s = NO_SIGNAL, None
        self._refused_signals: dict[str, str] = {}
        self._draining = False
        self._generation = 0
        self._renew()
        family.add(self)

    def _renew(self) -> None:
        """Begin with empty state: at the start, and in the child of a fork, where the parent's requests are not."""
        now = self.clock()
        self._generation += 1
        # Guards everything below. Re-entrant, because a signal handler may serve a request of its own.
        self._lock = RLock()
        self._tally = Tally()
        self._fuse = Fuse()
        self._health = TokenBucket()
        self._callers = Callers()
        self._offset = Offset(now)
        self._law = Law(now, self.rules.settings.deadline_s)
        self.find_route = self._law.routes.find  # as :meth:`route`, for each request
        self._listener = ListenerWatch()
        self.self_tested = False
        self.has_threads = False  # of some route it is known that its endpoint runs in one

    @property
    def bypassed(self) -> bool:
        """Whether requests are let through untouched: switched off, or stepped aside after internal errors."""
        return self.rules.off or (self._fuse.blown_until is not None and self._fuse.is_blown(self.clock()))

    def admit(self, route: str, wait_s: float | None, *, on_loop: bool = False, **said: Any) -> Admission:
        """Decide about one request; must be followed by :meth:`release` unless it is refused.

        ``route``: its label, from :func:`~groundfault.shedding._routes.route_of`.
        ``on_loop``: it is served by an event loop, where the forecast applies, rather than by a worker of its own.
        The others are those of :meth:`decide`.
        """
        admission = Admission(route, self.route(route), on_loop)
        self.decide(admission, wait_s, **said)
        return admission

    def decide(  # noqa: C901, PLR0912  one piece, because each call in it costs each request a tenth of a microsecond
        self,
        admission: Admission,
        wait_s: float | None,
        *,
        signal: str = TCP_INFO,
        exact: bool = True,
        peer: Peer = _HERE,
        age_s: float | None = None,
        criticality: Criticality = _CRITICAL,
        key: str | None = None,
        u: float | None = None,
        budget_s: float | None = None,
        health: bool = False,
        threads: ThreadQueue | None = None,
        caller: str | None = None,
        traceparent: str | None = None,
    ) -> None:
        """Decide about one request, into ``admission``.

        ``wait_s``: how long it has waited according to ``signal``, or None where nothing can tell.
        ``exact``: whether it has waited so long indeed; else at least so long.
        ``peer``: whether its client is still there. Work for one that has left is not started.
        ``age_s``: how long ago a trusted proxy received it. With a ``wait_s`` this only shortens its budget.
        ``key``: 1 to 16 hexadecimal digits that stand for the user; None draws lots for this request.
        ``u``: the lot, if it is drawn already, in [0, 1).
        ``budget_s``: how long its caller still waits, or None if it did not say.
        ``health``: it asks for one of the health paths.
        ``threads``: what stands in front of the worker threads, if its endpoint runs in one.
        """
        now = self.clock()
        if u is None or key is not None:
            u = random.random() if key is None else key_fraction(key)
        change = None
        with self._lock:
            rules, law, tally = self.rules, self._law, self._tally
            behind_s = 0.0
            if wait_s is None or age_s is not None:
                signal, wait_s, behind_s = self._offset.place(
                    now, signal, wait_s, age_s, longest_s=rules.settings.deadline_s, wall_now=self.wall_clock()
                )
            self._signal, self._wait_s = signal, wait_s
            waited_s = wait_s or 0.0
            admission.generation = self._generation
            admission.began = now
            admission.health = health
            law.arrive(now, admission, wait_s, threads, exact=exact)
            if peer is not _HERE and self._has_left(admission, peer, wait_s):
                tally.abandoned += 1
                admission.reason = Reason.DEADLINE
            elif not health or not self._health.take(now, rules.settings.health_rate_per_s):
                left_s = None if budget_s is None else budget_s - behind_s
                if self._draining or left_s is not None or rules.settings.max_concurrency is not None:
                    admission.reason = self._first_reason(left_s)
                if admission.reason is None:
                    admission.reason = law.judge(
                        now, admission, waited_s, left_s, behind_s=behind_s, criticality=criticality, u=u
                    )
            if admission.reason is None:
                tally.admitted[criticality] += 1
                if tally.episode:
                    change = tally.end_of_episode(now, waited_s, rules.settings.service, enforced=rules.enforced)
            else:
                admission.refused = rules.enforced
                change = tally.refuse(
                    now,
                    admission.reason,
                    criticality,
                    service=rules.settings.service,
                    wait_s=waited_s,
                    predicted_s=admission.predicted_s,
                    traceparent=traceparent,
                    enforced=rules.enforced,
                )
            if wait_s is not None:
                tally.waits.add(wait_s)
            if caller is not None:
                tally.note_caller(caller, admission.reason, waited_s)
            if not admission.refused:
                tally.in_flight += 1
                law.enter(now, admission)
        if change is not None:
            change.traceparent = traceparent
            self.sinks.change(change)
        if now >= self._listener.due:
            self._watch_listener(now)
        if self.sinks.requests:
            self.sinks.request(
                RequestSeen(
                    service=rules.settings.service,
                    route=admission.name if admission.route.name != OTHER else OTHER,
                    reason=admission.reason,
                    criticality=criticality,
                    queue_wait_s=wait_s,
                    signal=signal,
                    caller=caller,
                    enforced=rules.enforced,
                    predicted_wait_s=admission.predicted_s,
                    traceparent=traceparent,
                )
            )

    def _watch_listener(self, now: float) -> None:
        """Look at the accept queue: once a second, on the request that comes first then."""
        try:
            queue = self._listener.look(now)
            if queue is not None:
                self.sinks.change(BacklogWarning(self.rules.settings.service, *queue))
        except Exception as error:  # noqa: BLE001  a gauge must not cost the request
            self.failed("accept queue", error)

    def _has_left(self, admission: Admission, peer: Peer, wait_s: float | None) -> bool:
        """Return whether nobody waits for the answer any more.

        Who has closed its sending half and found a queue is taken to have left it. Not from the first tick of the
        kernel's clock on: who is served at once may see one go by.
        """
        if peer is _GONE or wait_s is None or self.rules.settings.serve_half_closed:
            return peer is _GONE
        limits = self._law.loop_bounds if admission.on_loop else self._law.worker_bounds
        return wait_s > limits.target_s

    def _first_reason(self, left_s: float | None) -> Reason | None:
        """Return what refuses a request before the law is asked."""
        if self._draining:
            return Reason.DRAINING
        if left_s is not None and left_s <= 0:
            return Reason.DEADLINE
        limit = self.rules.settings.max_concurrency
        return Reason.CONCURRENCY if limit is not None and self._tally.in_flight >= limit else None

    def answered(self, admission: Admission, status: int) -> None:
        """Note that the answer begins. Later calls for the same request change nothing.

        Only answers below 400 count as service times: how fast a service fails is not how fast it serves.
        """
        now = self.clock()
        with self._lock:
            if admission.open and admission.generation == self._generation:
                self._law.answered(now, admission, status)

    def withdraw(
        self, admission: Admission, reason: Reason, criticality: Criticality, traceparent: str | None = None
    ) -> bool:
        """Refuse an admitted request after all, to be released as any other; return whether that is enforced."""
        now = self.clock()
        with self._lock:
            rules = self.rules
            if admission.reason is not None or admission.released or admission.generation != self._generation:
                return False
            admission.reason, late_s = reason, now - admission.began
            name, enforced = rules.settings.service, rules.enforced
            change = self._tally.withdraw(
                now, reason, criticality, name, late_s, traceparent=traceparent, enforced=enforced
            )
            if rules.enforced:  # from here on it says nothing about how fast this server is
                self._law.leave(admission)
        if change is not None:
            self.sinks.change(change)
        return rules.enforced

    def release(self, admission: Admission) -> None:
        """Note that the request is over, however it ended. Synchronous; a second call changes nothing."""
        with self._lock:
            if not (admission.refused or admission.released) and admission.generation == self._generation:
                admission.released = True
                self._tally.in_flight -= 1
                if admission.open:  # its client has left, or its task was cancelled
                    self._law.leave(admission)

    def finish(self, admission: Admission, status: int) -> None:
        """Do as :meth:`answered` and :meth:`release` at once."""
        now = self.clock()
        with self._lock:
            if admission.generation != self._generation:
                return
            if admission.open:
                self._law.answered(now, admission, status)
            if not (admission.refused or admission.released):
                admission.released = True
                self._tally.in_flight -= 1

    def note_endpoint(self, admission: Admission, *, in_thread: bool) -> None:
        """Remember of the request's route whether its endpoint runs in a worker thread."""
        with self._lock:
            route = self._law.routes.find(admission.name)
            if route is not self._law.routes.other:
                route.sync = in_thread
                self.has_threads = self.has_threads or in_thread

    def route(self, name: str) -> Route:
        """Return what is known about a route: its own state, or that of all routes without one."""
        return self._law.routes.find(name)

    def fold_caller(self, caller: str | None) -> str | None:
        """Return the caller's label, or ``other`` beyond the first 256 of them."""
        if caller is None or caller in self._callers.known:
            return caller
        with self._lock:
            return self._callers.fold(caller)

    def key_of(self, identity: str) -> str:
        """Return the key of a user or session: 16 hexadecimal digits that change every hour and tell nothing of it."""
        return self.rules.key_of(identity, self.wall_clock())

    def refuse_signal(self, signal: str, cause: str) -> None:
        """Remember why a signal could not be used, for the snapshot."""
        self._refused_signals[signal] = cause

    def failed(self, where: str, error: BaseException) -> None:
        """Count an error of ours that a request survived; after ten in a minute step aside for a minute."""
        note_internal_error(where, error)
        with self._lock:
            self._fuse.note(self.clock())

    def drain(self) -> None:
        """Refuse everything but health checks from now on, as ``draining``: this instance is being stopped."""
        self._draining = True

    def snapshot(self) -> ShedderSnapshot:
        """Return the state of this moment."""
        now = self.clock()
        self._watch_listener(now)
        with self._lock:
            rules, tally = self.rules, self._tally
            change = tally.end_of_episode(now, 0.0, rules.settings.service, enforced=rules.enforced)
            snapshot = ShedderSnapshot(
                service=rules.settings.service,
                mode=rules.mode,
                signal=self._signal,
                resolution_s=resolution_of(self._signal),
                signals_refused=self._refusals_of_signals(),
                queue_wait_s=self._wait_s,
                in_flight=tally.in_flight,
                shedding=tally.episode,
                draining=self._draining,
                stepped_aside=self._fuse.is_blown(now),
                thresholds=self._law.thresholds(now),
                service_time_s=self._law.service_time_s,
                admitted=dict(tally.admitted),
                shed=dict(tally.shed),
                withdrawn=dict(tally.withdrawn),
                abandoned=tally.abandoned,
                waits=tally.waits.copy(),
                callers=dict(tally.callers),
                accept_queue=self._listener.queue,
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
        elif self._signal in INSTEAD_OF_TCP_INFO:
            refused.setdefault(TCP_INFO, INSTEAD_OF_TCP_INFO[self._signal])
        return refused


family: Final[Family[Shedder]] = Family(Shedder._renew)  # noqa: SLF001  the child's end of the fork, for this class alone


def live_shedders() -> list[Shedder]:
    """Return the shedders of this process, in no order; for kits that look for the application's."""
    return family.members()
