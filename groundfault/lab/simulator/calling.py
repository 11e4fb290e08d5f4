"""The client half of a simulated hop: the cache, the command, the instance chosen, the time-out, what came of it."""

from collections.abc import Callable
from heapq import heappush
from math import exp
from random import Random
from typing import TYPE_CHECKING, Final

from groundfault._context import RequestContext
from groundfault.integrations._http import judge
from groundfault.lab.simulator.calendar import Calendar
from groundfault.lab.simulator.cores import SimulatedAttempt
from groundfault.lab.simulator.fleet import Edge, Instance, Request, ServiceState
from groundfault.lab.simulator.model import Rule
from groundfault.lab.simulator.serving import BROKEN, OK
from groundfault.sinks import Sinks
from groundfault.vocabulary import Outcome
from groundfault.wire import SHED_STATUS, Refusal

if TYPE_CHECKING:
    from groundfault.lab.simulator.serving import Serving

__all__ = ["Calling"]

_AGAINST: Final = frozenset({Outcome.FAILURE, Outcome.TIMEOUT})
_SILENT: Final = Sinks()
_SUCCESS: Final = Outcome.SUCCESS


class Calling:
    """What all callers do. ``ended``: told of the end of a user's request, of which no service is the caller."""

    def __init__(
        self,
        calendar: Calendar,
        context: RequestContext,
        dice: Random,
        serving: "Serving",
        ended: Callable[[Request], None],
    ) -> None:
        self._calendar = calendar
        self._heap = calendar.heap
        self._number = calendar.number
        self._context = context
        self._draw = dice.random
        self._serving = serving
        self._ended = ended
        self._clock = lambda: calendar.now

    def call(self, parent: Request, edge: Edge) -> None:
        """Make one call for a request that is being served; it waits for it, unless there is nothing to wait for."""
        said = edge.said
        if said.probability < 1.0 and self._draw() >= said.probability:
            return
        if said.cache is not None and self._draw() < said.cache.hit * self._warmth(edge):
            return
        if said.retries is not None:
            budget = parent.process.links[edge.index].budget
            if budget is not None:
                budget.deposit()
        if self._launch(parent, edge, 0, None):
            parent.pending += 1

    def _warmth(self, edge: Edge) -> float:
        if edge.warm < 1.0:
            warm_s = edge.said.cache.warm_s if edge.said.cache is not None else None
            if warm_s is not None:
                return 1.0 - exp(-(self._calendar.now - edge.warmed_at) / warm_s)
        return edge.warm

    def _launch(self, parent: Request, edge: Edge, tries: int, other_than: Instance | None) -> bool:
        """Send a call; false if it was refused before, which the parent's fault says then."""
        now = self._calendar.now
        deadline = parent.deadline
        said = edge.said
        if deadline is not None and deadline <= now:
            self._fault(parent, edge, Outcome.IGNORED, None)
            return False
        attempt = None
        timeout_s = said.timeout_s
        command = parent.process.links[edge.index].command
        if command is not None:
            context = self._context
            context.deadline = deadline
            context.criticality = parent.criticality
            attempt = SimulatedAttempt(command._gate, self._clock, _SILENT)  # noqa: SLF001  as Command.attempt() does, less the ledger
            refused = attempt.enter()
            if refused is not None:
                edge.counts.refused += 1
                self._fault(parent, edge, refused.outcome, None)
                return False
            timeout_s = attempt.timeout_s
        elif deadline is not None and (timeout_s is None or deadline - now < timeout_s):
            timeout_s = deadline - now
        edge.counts.calls += 1
        request = Request()
        request.parent = parent
        request.edge = edge
        request.attempt = attempt
        request.tries = tries
        request.due = now
        request.depth = parent.depth + 1
        request.u = parent.u
        request.criticality = parent.criticality
        request.route = parent.route
        request.budget_s = timeout_s if edge.tells else None
        self.send(request, edge.callee, other_than)
        if timeout_s is not None:
            if timeout_s == said.timeout_s:
                edge.timers.add(now + timeout_s, request)
            else:
                heappush(self._heap, (now + timeout_s, self._number(), self.timed_out, request))
        return True

    def send(self, request: Request, service: ServiceState, other_than: Instance | None = None) -> None:
        """Send a request to one of the service's instances."""
        now = self._calendar.now
        request.open = True
        request.left = False
        request.fault = None
        request.refusal = None
        request.admission = None
        request.step = request.pending = 0
        request.status = BROKEN
        request.service = service
        request.deadline = None if request.budget_s is None else now + request.budget_s
        route = request.route
        request.work = service.works.get(route, service.usual)
        request.groups = service.groups.get(route) or service.groups_of(route)
        request.instance = instance = service.pick(other_than)
        if instance is None:  # what a balancer answers that has nobody to send it to
            request.status = SHED_STATUS
            self._calendar.at(now, self.answered, request)
            return
        instance.load += 1
        if service.network is None:
            self._serving.arrive(request)
        else:
            self._calendar.at(now + self._travel_s(service), self._serving.arrive, request)

    def send_back(self, request: Request) -> None:
        """Send an answer over the network."""
        self._calendar.at(self._calendar.now + self._travel_s(request.service), self.answered, request)

    def _travel_s(self, service: ServiceState) -> float:
        network = service.said.network
        assert network is not None and service.network is not None  # noqa: S101, PT018  asked by who calls
        taken_s = service.network()
        if network.loss:
            again_s = network.resend_s
            while self._draw() < network.loss:
                taken_s += again_s
                again_s *= 2
        return taken_s

    def answered(self, request: Request) -> None:
        """Take an answer, if somebody still waits for it."""
        if not request.open:
            return
        self._close(request)
        if request.parent is None:
            self._ended(request)
            return
        if request.status == OK:
            edge = request.edge
            attempt = request.attempt
            if attempt is not None:
                attempt.settle(_SUCCESS)
            if edge.warm < 1.0:
                self._fetched(edge)
            parent = request.parent
            parent.pending -= 1
            if not parent.pending:
                self._serving.proceed(parent)
            return
        refusal = request.refusal if request.edge.honors else None
        self._settle(request, Outcome.FAILURE if request.status == BROKEN else judge(request.status, refusal), refusal)

    def timed_out(self, request: Request) -> None:
        """Give a call up."""
        if not request.open:
            return
        self._close(request)
        request.left = True
        if request.parent is None:
            self._ended(request)
        else:
            self._settle(request, Outcome.TIMEOUT, None)

    def _close(self, request: Request) -> None:
        request.open = False
        if request.instance is not None:
            request.instance.load -= 1

    def _fetched(self, edge: Edge) -> None:
        cache = edge.said.cache
        if cache is not None and cache.warm_fetches is not None:
            edge.warm += (1.0 - edge.warm) / cache.warm_fetches
        elif cache is None or cache.warm_s is None:
            edge.warm = 1.0

    def _settle(self, request: Request, outcome: Outcome, refusal: Refusal | None) -> None:
        """Take a call's bad end: count it, try it again or go on without."""
        edge, parent = request.edge, request.parent
        assert parent is not None  # noqa: S101  a user's request has no edge
        if outcome in _AGAINST:
            edge.counts.bad += 1
        if request.attempt is not None:
            context = self._context
            context.criticality = parent.criticality
            request.attempt.settle(outcome, refusal=refusal)
        again_s = self._again_s(request, outcome, refusal)
        if again_s is not None:
            self._calendar.at(self._calendar.now + again_s, self._try_again, request)
            return
        self._fault(parent, edge, outcome, refusal)
        self._done(parent)

    def _done(self, parent: Request) -> None:
        parent.pending -= 1
        if not parent.pending:
            self._serving.proceed(parent)

    def _fault(self, parent: Request, edge: Edge, outcome: Outcome, refusal: Refusal | None) -> None:
        if edge.said.required:
            parent.fault = edge, outcome, refusal

    def _again_s(self, request: Request, outcome: Outcome, refusal: Refusal | None) -> float | None:
        """Return after how many seconds a call is tried again; None: it is not."""
        said = request.edge.said.retries
        if said is None or request.tries >= said.most:
            return None
        parent = request.parent
        assert parent is not None  # noqa: S101  as above
        link = parent.process.links[request.edge.index]
        if said.rule is Rule.GROUNDFAULT:
            if outcome is not Outcome.SHED or refusal is None or not refusal.retryable:
                return None
            if link.command is not None and link.command._gate._callee.share < 1.0:  # noqa: SLF001  as RetryBudget.one_retry() asks, without a snapshot
                return None
        if link.budget is not None and not link.budget.withdraw():
            return None
        wait_s: float = said.backoff_s * said.factor**request.tries
        return wait_s * self._draw() if said.jitter else wait_s

    def _try_again(self, request: Request) -> None:
        parent = request.parent
        assert parent is not None  # noqa: S101  as above
        if not self._launch(parent, request.edge, request.tries + 1, request.instance):
            self._done(parent)
