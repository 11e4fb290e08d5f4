"""The server half of a simulated hop: it queues, is admitted or not, does its work, makes its calls, is answered."""

from collections.abc import Callable
from heapq import heappush
from random import Random
from typing import TYPE_CHECKING, Final

from groundfault.lab.simulator.calendar import Calendar
from groundfault.lab.simulator.cores import Cores
from groundfault.lab.simulator.fleet import Instance, Process, Request
from groundfault.lab.simulator.model import Protection
from groundfault.shedding._wait import Peer
from groundfault.shedding.shedder import Admission, Shedder
from groundfault.vocabulary import Criticality, Reason
from groundfault.wire import SHED_STATUS

if TYPE_CHECKING:
    from groundfault.lab.simulator.calling import Calling

__all__ = ["BROKEN", "DEEPEST", "ERROR", "OK", "Serving"]

OK: Final = 200
ERROR: Final = 500
BROKEN: Final = 0  # no answer at all: the connection was refused or broke
DEEPEST: Final = 64
"""Hops after which a request that calls itself fails: with no work on the way it would do so for ever."""

_RESEND_S: Final = (1.0, 2.0, 4.0)  # of a connection's first packet that found the accept queue full (Linux)
_CRITICAL: Final = Criticality.CRITICAL
_SIGNAL: Final = "tcp-info"


class Serving:
    """What all servers do. ``calling`` is the other half, which is told when an answer is on its way."""

    def __init__(self, calendar: Calendar, cores: Cores, dice: Random) -> None:
        self._calendar = calendar
        self._heap = calendar.heap
        self._number = calendar.number
        self._cores = cores
        self._draw = dice.random
        self.calling: Calling
        self.served = 0

    def arrive(self, request: Request) -> None:
        """Take a request that has come in."""
        request.service.counts.arrived += 1
        self.served += 1
        self._enter(request)

    def _enter(self, request: Request) -> None:
        now = self._calendar.now
        instance = request.instance
        service = request.service
        request.arrived = now
        if not instance.plain:
            if instance.hangs:
                return
            if instance.refuses:
                self._turn_away(request, BROKEN)
                return
        if request.depth > DEEPEST:
            self._turn_away(request, ERROR)
        elif service.said.threads is None:
            instance.turn = turn = (instance.turn + 1) % len(instance.processes)
            request.process = process = instance.processes[turn]
            if process.spending:
                process.ready.append((request, None, None))
            else:
                process.spending = True
                self._run(process, request, *self._begin_on_loop(request))
        elif instance.free:
            self._begin(instance.free.popleft(), request)
        elif len(instance.queue) < service.said.backlog:
            instance.queue.append(request)
        else:
            self._send_again(request)

    def _send_again(self, request: Request) -> None:
        """Let the client's kernel try again: the accept queue is full, and this one says nothing."""
        tried = request.step
        if tried < len(_RESEND_S) and request.open:
            request.step += 1
            self._calendar.at(self._calendar.now + _RESEND_S[tried], self._once_more, request)

    def _once_more(self, request: Request) -> None:
        if request.open:
            self._enter(request)

    # A worker thread takes the request.

    def _begin(self, process: Process, request: Request) -> None:
        now = self._calendar.now
        service = request.service
        counts = service.counts
        counts.using += 1
        counts.held -= now
        request.process = process
        request.step = 0
        process.instance.inside += 1
        waited_s = now - request.arrived
        if service.clock_s:
            waited_s = _ticks(now, request.arrived, service.clock_s)
        counts.waits.append(waited_s)
        if (process.shedder is not None or not process.instance.plain) and self._refused(
            process, request, waited_s, on_loop=False
        ):
            cost_s = service.said.shed_cost_s
            if service.single:
                heappush(self._heap, (now + cost_s, self._number(), self._answer, request))
            else:
                self._spend(process, request, cost_s, self._answer)
            return
        work = request.work
        pace = 1.0 if process.instance.plain else process.instance.pace(now)
        if service.single:
            taken_s = work.cpu() if work.has_cpu else 0.0
            if work.has_wait:
                taken_s += work.wait()
            heappush(self._heap, (now + taken_s * pace, self._number(), self.proceed, request))
        elif work.has_cpu:
            self._spend(process, request, work.cpu() * pace, self._wait)
        else:
            heappush(self._heap, (now + work.wait() * pace, self._number(), self.proceed, request))

    def _wait(self, request: Request) -> None:
        work = request.work
        if work.has_wait:
            now = self._calendar.now
            instance = request.instance
            pace = 1.0 if instance.plain else instance.pace(now)
            heappush(self._heap, (now + work.wait() * pace, self._number(), self.proceed, request))
        else:
            self.proceed(request)

    # The CPU of one process: first in, first out.

    def _spend(self, process: Process, request: Request, cost_s: float, then: Callable[[Request], None]) -> None:
        if process.spending:
            process.ready.append((request, cost_s, then))
        else:
            process.spending = True
            self._run(process, request, cost_s, then)

    def _run(self, process: Process, request: Request, cost_s: float, then: Callable[[Request], None]) -> None:
        service = request.service
        if service.said.threads is None:
            service.counts.held += cost_s
        heappush(self._heap, (self._calendar.now + cost_s, self._number(), self._spent, (process, request, then)))

    def _spent(self, what: tuple[Process, Request, Callable[[Request], None]]) -> None:
        process, request, then = what
        if process.ready:
            following, cost_s, after = process.ready.popleft()
            if cost_s is None or after is None:
                cost_s, after = self._begin_on_loop(following)
            self._run(process, following, cost_s, after)
        else:
            process.spending = False
        then(request)

    def _begin_on_loop(self, request: Request) -> tuple[float, Callable[[Request], None]]:
        """Return what it costs an event loop to come to the request, and what is next."""
        now = self._calendar.now
        service, process, instance = request.service, request.process, request.instance
        request.step = 0
        instance.inside += 1
        waited_s = now - request.arrived
        if service.clock_s:
            waited_s = _ticks(now, request.arrived, service.clock_s)
        service.counts.waits.append(waited_s)
        if (process.shedder is not None or not instance.plain) and self._refused(
            process, request, waited_s, on_loop=True
        ):
            return service.said.shed_cost_s, self._answer
        work = request.work
        pace = 1.0 if instance.plain else instance.pace(now)
        return (work.cpu() * pace if work.has_cpu else 0.0), self._wait

    # The decision.

    def _refused(self, process: Process, request: Request, waited_s: float, *, on_loop: bool) -> bool:
        """Ask the shedder, or what is sick; note what is answered instead."""
        instance = process.instance
        if instance.shams and self._draw() < instance.shams:
            self._refuse(request, Reason.QUEUE_WAIT)
            return True
        shedder = process.shedder
        if shedder is None:
            return False
        route = request.route
        said_s = request.budget_s
        if request.criticality is _CRITICAL and not request.left and shedder.rules.plain:
            # The short ways: to the last count what the long one does, as long as the request's budget decides nothing.
            found = shedder.find_route(route)
            if shedder.is_refusing(on_loop=on_loop) and (said_s is None or waited_s + found.service_s <= said_s):
                reason = shedder.refuse_outright(_SIGNAL, waited_s, request.u, on_loop=on_loop, exact=True)
                if reason is not None:
                    self._refuse(request, reason)
                    return True
            if said_s is None or said_s > 0:
                admission = Admission(route, found, on_loop)
                if shedder.admit_clear(admission, _SIGNAL, waited_s):
                    request.admission = admission
                    return False
        admission = self._decided(shedder, request, waited_s, on_loop=on_loop)
        if admission.refused and admission.reason is not None:
            self._refuse(request, admission.reason)
            return True
        request.admission = admission
        return False

    def _decided(self, shedder: Shedder, request: Request, waited_s: float, *, on_loop: bool) -> Admission:
        return shedder.admit(
            request.route,
            waited_s,
            on_loop=on_loop,
            peer=Peer.HALF_CLOSED if request.left else Peer.HERE,
            criticality=request.criticality,
            u=request.u,
            budget_s=request.budget_s,
        )

    def _refuse(self, request: Request, reason: Reason) -> None:
        service = request.service
        service.counts.shed += 1
        request.status = SHED_STATUS
        if service.protection is Protection.GROUNDFAULT or request.instance.shams:
            request.refusal = self._cores.refusal(reason, service.name)

    # After the work: calls, more work, the answer.

    def proceed(self, request: Request) -> None:
        """Make the next calls of a request, or finish it."""
        groups, calling = request.groups, self.calling
        while request.fault is None and request.step < len(groups):
            group = groups[request.step]
            request.step += 1
            request.pending = 1  # so that what ends at once does not come back here
            for edge in group:
                calling.call(request, edge)
            request.pending -= 1
            if request.pending:
                return
        if request.fault is not None:
            self._fail(request)
        elif request.work.after:
            self._finish(request)
        else:
            self._good(request)

    def _fail(self, request: Request) -> None:
        assert request.fault is not None  # noqa: S101  asked by who calls
        edge, outcome, refusal = request.fault
        request.status = SHED_STATUS
        service = request.service
        if service.protection is Protection.GROUNDFAULT:
            request.refusal = self._cores.passed_on(service.name, edge.callee.name, outcome, refusal)
        self._answer(request)

    def _finish(self, request: Request) -> None:
        now = self._calendar.now
        instance, work = request.instance, request.work
        pace = 1.0 if instance.plain else instance.pace(now)
        if request.service.single:
            taken_s = (work.after_cpu() + work.after_wait()) * pace
            heappush(self._heap, (now + taken_s, self._number(), self._good, request))
        else:
            self._spend(request.process, request, work.after_cpu() * pace, self._wait_after)

    def _wait_after(self, request: Request) -> None:
        now = self._calendar.now
        instance = request.instance
        pace = 1.0 if instance.plain else instance.pace(now)
        heappush(self._heap, (now + request.work.after_wait() * pace, self._number(), self._good, request))

    def _good(self, request: Request) -> None:
        fails = request.instance.fails
        request.status = ERROR if fails and self._draw() < fails else OK
        request.service.counts.answered += 1
        self._answer(request)

    def _answer(self, request: Request) -> None:
        """Let the worker go, and send the answer."""
        admission = request.admission
        process = request.process
        if admission is not None:
            shedder = process.shedder
            assert shedder is not None  # noqa: S101  who else would have admitted it
            shedder.finish(admission, request.status)
            request.admission = None
        instance = process.instance
        instance.inside -= 1
        service = request.service
        if service.said.threads is not None:
            counts = service.counts
            counts.using -= 1
            counts.held += self._calendar.now
            if instance.queue:
                self._begin(process, instance.queue.popleft())
            else:
                instance.free.append(process)
        if service.network is None:
            self.calling.answered(request)
        else:
            self.calling.send_back(request)

    def _turn_away(self, request: Request, status: int) -> None:
        """Answer what no worker has taken: that, too, has its way back."""
        request.status = status
        if request.service.network is None:
            self._calendar.at(self._calendar.now, self.calling.answered, request)
        else:
            self.calling.send_back(request)

    def idle(self, instance: Instance) -> bool:
        """Return whether nobody is being served there."""
        return not instance.inside and not instance.queue


def _ticks(now: float, arrived: float, clock_s: float) -> float:
    return (int(now / clock_s) - int(arrived / clock_s)) * clock_s
