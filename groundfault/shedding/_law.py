"""The law of one process over all its queues: what is remembered, and what it makes of one request. Pure.

Three queues have a ladder each: the one before workers of their own (WSGI), the one before an event loop,
and the one inside it before worker threads. The caller brings the time, guards against threads and counts.
"""

from math import inf
from typing import Final

from groundfault.shedding._admission import (
    CROWD,
    Bounds,
    Ladder,
    bounds,
    crowded,
    forecast,
    loop_bounds,
    observe,
    passes,
    threshold,
)
from groundfault.shedding._routes import Baseline, Rate, Route, Routes
from groundfault.shedding._threads import ThreadQueue
from groundfault.vocabulary import Criticality, Reason

__all__ = ["Entry", "Law"]

_REDIRECTS: Final = 300
_LAST_GOOD: Final = 399
_ERRORS: Final = 500
_EWMA: Final = 1 / 8
_USUAL: Final = Criticality.CRITICAL


class Entry:
    """One request as the law sees it. ``queued_s`` is its predicted wait for a worker thread.

    ``predicted_s`` is the prediction that it was refused for, None if it was not.
    ``health``: a health check, whose time is none of the service's: many of them among few requests would be it.
    """

    __slots__ = ("began", "health", "name", "on_loop", "open", "predicted_s", "queued_s", "route")

    def __init__(self, name: str, route: Route, began: float, on_loop: bool) -> None:  # noqa: FBT001  one call per request
        self.name = name
        self.route = route
        self.began = began
        self.on_loop = on_loop
        self.queued_s = 0.0
        self.predicted_s: float | None = None
        self.open = False  # while it counts as open on its route
        self.health = False


class Law:
    """The state of the decisions, in the order in which a request meets them."""

    __slots__ = (
        "_deadline_s",
        "_thread_rate",
        "_thread_service_s",
        "_thread_times",
        "_worker_times",
        "loop",
        "loop_bounds",
        "routes",
        "thread_bounds",
        "threads",
        "whole",
        "worker_bounds",
        "workers",
    )

    loop_bounds: Bounds
    thread_bounds: Bounds
    worker_bounds: Bounds

    def __init__(self, now: float, deadline_s: float) -> None:
        self.workers, self.loop, self.threads = Ladder(), Ladder(), Ladder()
        self._worker_times, self._thread_times = Baseline(now), Baseline(now)
        self._thread_rate = Rate()
        self._thread_service_s = 0.0
        self.whole = Route("all", now)
        self.routes = Routes(now)
        self.set_deadline(deadline_s)

    def set_deadline(self, deadline_s: float) -> None:
        """Use another deadline from now on; everything learned is kept."""
        self._deadline_s = deadline_s
        self._renew_bounds()

    def _renew_bounds(self) -> None:
        self.worker_bounds = bounds(self._deadline_s, self._worker_times.service_s)
        self.thread_bounds = bounds(self._deadline_s, self._thread_times.service_s)
        self.loop_bounds = loop_bounds(self._deadline_s)

    @property
    def service_time_s(self) -> float:
        """Service time of a worker when nothing is wrong."""
        return self._worker_times.service_s

    def thresholds(self, now: float) -> dict[str, float]:
        """Return, for each queue, the wait up to which a factor of 1 is admitted, in seconds."""
        return {
            "workers": threshold(self.workers, now, self.worker_bounds),
            "loop": threshold(self.loop, now, self.loop_bounds),
            "threads": threshold(self.threads, now, self.thread_bounds),
        }

    def arrive(
        self, now: float, entry: Entry, wait_s: float | None, threads: ThreadQueue | None, *, exact: bool = True
    ) -> None:
        """Let the ladders see the waits of a request: what was measured, never what it says about itself.

        Not ``exact``: it has waited so long at least.
        """
        if wait_s is not None:
            if entry.on_loop:
                observe(self.loop, now, wait_s, self.loop_bounds, exact=exact)
            else:
                observe(self.workers, now, wait_s, self.worker_bounds, exact=exact)
        if threads is not None:
            entry.queued_s = self._thread_wait(now, threads)
            observe(self.threads, now, entry.queued_s, self.thread_bounds)

    def is_pressed(self, *, on_loop: bool) -> bool:
        """Return whether a queue stands before the workers, or before the event loop."""
        return (self.loop if on_loop else self.workers).backlog

    def refuses(self, now: float, wait_s: float, u: float, *, on_loop: bool, exact: bool) -> bool:
        """Let the ladder see a wait; return whether it refuses every request of that wait and fraction ``u``.

        Every one of the usual criticality that says nothing of itself, whatever its route: :meth:`arrive` and
        :meth:`judge` come to the same then. To see a wait twice changes nothing.
        """
        ladder, limits = (self.loop, self.loop_bounds) if on_loop else (self.workers, self.worker_bounds)
        observe(ladder, now, wait_s, limits, exact=exact)
        return not passes(ladder, now, wait_s, limits, criticality=_USUAL, u=u)

    def admits(self, now: float, entry: Entry, wait_s: float) -> bool:
        """Count a request that begins, if it found everything clear; else false, and nothing has changed.

        One that says nothing of itself and needs no worker thread: for it :meth:`arrive`, :meth:`judge` and
        :meth:`enter` come to the same then, at three times the cost.
        """
        ladder, limits = (self.loop, self.loop_bounds) if entry.on_loop else (self.workers, self.worker_bounds)
        route, whole = entry.route, self.whole
        if ladder.backlog or wait_s > limits.clear_s:
            return False
        if entry.on_loop and (whole.open > CROWD or route.crowd.onset < inf):
            return False
        ladder.above_since = inf
        ladder.seen = now
        entry.open = True
        if whole.open == 0:
            whole.done_at = now
        whole.open += 1
        if route.open == 0:
            route.done_at = now
        route.open += 1
        route.used_at = whole.used_at = now
        return True

    def _thread_wait(self, now: float, threads: ThreadQueue) -> float:
        """Predict how long a call that queues for a thread now will wait, in seconds.

        Calls leave the queue at the greater of two rates: what has been seen, which lags behind a load that rises,
        and what the threads can do at the service time seen last.
        """
        if not threads.waiting:
            return 0.0
        rate = self._thread_rate.per_s(now)
        if self._thread_service_s:
            rate = max(rate, threads.threads / self._thread_service_s)
        return (threads.waiting + 1) / rate if rate else 0.0

    def judge(
        self,
        now: float,
        entry: Entry,
        wait_s: float,
        left_s: float | None,
        *,
        behind_s: float,
        criticality: Criticality,
        u: float,
    ) -> Reason | None:
        """Return why the request is refused, or None.

        ``left_s``: what is left of its own budget. ``behind_s``: how long it had waited before it came here.
        """
        route, queued_s = entry.route, entry.queued_s
        limits = self.loop_bounds if entry.on_loop else self.worker_bounds
        if wait_s + queued_s > limits.clear_s:
            if left_s is None:
                late = behind_s > 0 and wait_s + behind_s > self._deadline_s
            else:
                late = wait_s + max(route.service_s, queued_s) > left_s
            if late:
                return Reason.DEADLINE
            # On a loop a route's time is mostly spent waiting, so it is no measure of what it costs the others.
            ladder, cost = (self.loop, 1.0) if entry.on_loop else (self.workers, self._cost(route))
            if not passes(ladder, now, wait_s, limits, criticality=criticality, u=u, cost=cost):
                return Reason.QUEUE_WAIT
            if queued_s > 0 and not passes(
                self.threads, now, queued_s, self.thread_bounds, criticality=criticality, u=u
            ):
                entry.predicted_s = queued_s
                return Reason.QUEUE_WAIT
        if not entry.on_loop or (self.whole.open <= CROWD and route.crowd.onset == inf):  # as of most; it saves a call
            return None
        if not crowded(
            now,
            route,
            self.whole,
            wait_s,
            criticality=criticality,
            u=u,
            deadline_s=self._deadline_s,
            own_s=left_s,
        ):
            return None
        route.note_refusal(now)
        entry.predicted_s = forecast(now, route, self.whole)
        return Reason.QUEUE_WAIT

    def _cost(self, route: Route) -> float:
        """Return how many times as long as the average request one of this route takes."""
        usual_s = self.whole.service_s
        return route.service_s / usual_s if usual_s else 1.0

    def enter(self, now: float, entry: Entry) -> None:
        """Count a request that begins."""
        entry.open = True
        entry.route.enter(now)
        self.whole.enter(now)

    def leave(self, entry: Entry) -> None:
        """Count a request that ended without an answer; it says nothing about this server."""
        if entry.open:
            entry.open = False
            entry.route.leave()
            self.whole.leave()

    def answered(self, now: float, entry: Entry, status: int) -> None:
        """Learn from an answer that begins.

        Only answers below 400 are service times: how fast a service fails is not how fast it serves.
        """
        route = entry.route
        if entry.open:  # as in leave()
            entry.open = False
            route.leave()
            self.whole.leave()
        seconds = now - entry.began
        fine = status <= _LAST_GOOD
        good = fine and not entry.health
        self.whole.complete(now, seconds if good else None)
        if route is self.routes.other:
            if not _LAST_GOOD < status < _ERRORS:
                self.routes.learn(entry.name, now, sure=status < _REDIRECTS)
            route = self.routes.find(entry.name)
        # Of its own route a health check does say how long it takes: what comes beyond the rate is judged by that.
        route.complete(now, seconds if good or (fine and route is not self.routes.other) else None)
        if not entry.on_loop:
            if good and self._worker_times.sample(now, seconds):
                self._renew_bounds()
        elif entry.route.sync:
            self._thread_rate.count(now)
            if good:
                self._note_thread_time(now, max(seconds - entry.queued_s, 0.0))

    def _note_thread_time(self, now: float, seconds: float) -> None:
        if self._thread_service_s:
            self._thread_service_s += (seconds - self._thread_service_s) * _EWMA
        else:
            self._thread_service_s = seconds
        if self._thread_times.sample(now, seconds):
            self._renew_bounds()
