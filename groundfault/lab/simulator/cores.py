"""The real cores for simulated processes: with a virtual clock, drawn numbers, and nothing of this process touched."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Any, Final

from groundfault import _context
from groundfault._clock import Clock
from groundfault._context import Fault, RequestContext
from groundfault._family import aside
from groundfault._killswitch import NAME, is_killed
from groundfault.breaker.attempt import Attempt, Fallback
from groundfault.breaker.command import Command
from groundfault.breaker.settings import BreakerSettings
from groundfault.events import CircuitChanged, Event
from groundfault.retries import RetryBudget
from groundfault.shedding._propagation import of_status
from groundfault.shedding.settings import ShedderSettings
from groundfault.shedding.shedder import Shedder
from groundfault.sinks import Sinks
from groundfault.vocabulary import Outcome, Reason
from groundfault.wire import SHED_STATUS, Refusal

if TYPE_CHECKING:
    from contextvars import Token

__all__ = ["Cores", "SimulatedAttempt", "SwitchedOffError", "serving_alone"]

_SILENT: Final = Sinks()
_REASONS: Final = {Outcome.CIRCUIT_OPEN: Reason.CIRCUIT_OPEN, Outcome.THROTTLED: Reason.THROTTLED}


class SwitchedOffError(RuntimeError):
    """``GROUNDFAULT_DISABLED`` is set: the cores would do nothing, and a simulation of them would say nothing."""

    def __init__(self) -> None:
        super().__init__(f"{NAME} switches the cores off that are to be simulated: unset it")


class SimulatedAttempt(Attempt):
    """An attempt whose end is told to the circuit alone: the log of failing commands is this process's own."""

    __slots__ = ()

    def _say(self, ending: object, *, fallback: Fallback) -> None:
        pass


@contextmanager
def serving_alone(context: RequestContext) -> Iterator[None]:
    """Let the cores see ``context`` as the request being served, and nobody else."""
    token: Token[RequestContext | None] = _context.serving.set(context)
    try:
        yield
    finally:
        _context.serving.reset(token)


class Cores:
    """Makes shedders and commands on one virtual clock. Raises SwitchedOffError."""

    def __init__(self, clock: Clock, draw: Callable[[], float]) -> None:
        if is_killed(os.environ):
            raise SwitchedOffError
        self._clock = clock
        self._draw = draw
        self._refusals: dict[tuple[Reason, str | None], Refusal] = {}
        self._passed: dict[tuple[str, Outcome, str | None], Refusal] = {}

    def shedder(self, service: str, deadline_s: float, max_concurrency: int | None) -> Shedder:
        """Return a process's shedder."""
        settings = ShedderSettings(service=service, deadline_s=deadline_s, max_concurrency=max_concurrency)
        with aside():
            made = Shedder(settings, sinks=_SILENT, clock=self._clock, wall_clock=self._clock)
        made._listener.due = inf  # noqa: SLF001  the accept queues it would look at are those of the real kernel
        return made

    def command(
        self, resource: str, name: str, settings: Mapping[str, Any], changed: Callable[[CircuitChanged], None]
    ) -> Command:
        """Return a process's command; ``changed`` is told of its circuit."""

        def tell(event: Event) -> None:
            if isinstance(event, CircuitChanged):
                changed(event)

        tell.changes_only = True  # type: ignore[attr-defined]  # a function may carry attributes
        with aside():
            return Command(
                resource,
                name,
                BreakerSettings.of(settings),
                sinks=Sinks.direct(tell),
                clock=self._clock,
                draw=self._draw,
            )

    def budget(self, ratio: float) -> RetryBudget:
        """Return a process's retry budget, without the few a second that are allowed in any case."""
        with aside():
            return RetryBudget(ratio=ratio, minimum_per_s=0.0, clock=self._clock)

    def refusal(self, reason: Reason, origin: str | None) -> Refusal:
        """Return what an annotated 503 says; the same object for the same words."""
        key = (reason, origin)
        made = self._refusals.get(key)
        if made is None:
            made = self._refusals[key] = Refusal(reason, origin)
        return made

    def passed_on(self, service: str, resource: str, outcome: Outcome, refusal: Refusal | None) -> Refusal:
        """Return what ``service`` answers whose call to ``resource`` ended so: by the rule of the real server half."""
        origin = refusal.origin if refusal is not None and outcome is Outcome.SHED else None
        key = (service, outcome, origin)
        passed = self._passed.get(key)
        if passed is None:
            fault = Fault(resource, resource, outcome, _REASONS.get(outcome, Reason.DEPENDENCY), origin, None)
            verdict = of_status(SHED_STATUS, RequestContext(service, faults=[fault]))
            assert verdict is not None  # noqa: S101  there is a fault
            passed = self._passed[key] = self.refusal(verdict.reason, verdict.origin)
        return passed
