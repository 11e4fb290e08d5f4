"""One attempt at a call: the permit, to be settled exactly once."""

from collections.abc import Callable
from enum import Enum
from types import TracebackType
from typing import Any, Final, Literal, Self

from groundfault import _context
from groundfault._clock import Clock
from groundfault.breaker._course import LEAST_TIMEOUT_S, SHADOWED
from groundfault.breaker._ending import Ending, classify_error, had_time, made, report, within_timeout
from groundfault.breaker._gate import Gate
from groundfault.breaker._refused import Refused
from groundfault.breaker._rolling import FOLD_AT
from groundfault.sinks import Sinks
from groundfault.vocabulary import Outcome
from groundfault.wire import Refusal

__all__ = ["LATER", "Attempt", "Fallback", "UnguardedAttempt"]


class _Later(Enum):
    LATER = "later"


LATER: Final = _Later.LATER
"""Says that a fallback, if one is due, is tried by :meth:`Attempt.serve`."""

Fallback = bool | Callable[[], object] | Literal[_Later.LATER]
"""Whether something else is served, or what serves it, or that it will be tried later."""

_NEARLY: Final = 0.9  # of a bound: client libraries round, and a timer may ring a moment early


class Attempt:
    """Leave to make one call, from ``Command.attempt()`` or ``Command.begin()``.

    ``timeout_s`` is how long the call may take, in seconds, None for no bound:
    the setting, or what is left of the budget of the request being served if that is less.
    It is never below a millisecond, for client libraries refuse a timeout of zero.
    ``capped`` is true if the budget is the bound; running out of it is then neutral unless the callee was given
    at least half of its own timeout, because a caller in a hurry must not trip the circuit for everybody.

    ``served`` is what a callable fallback served, ``fallback_error`` what it raised; None before, and without one.

    As a context manager it ends as a success, or as what the exception means, unless it was settled inside.
    The exception is always re-raised as it is. Neither entering nor leaving waits, so ``with`` is right in coroutines.
    An attempt that is forgotten without being settled gives its place back when it is collected and counts as ignored.
    """

    __slots__ = (
        "_clock",
        "_gate",
        "_in_flight",
        "_open",
        "_period",
        "_permit",
        "_settings",
        "_shadowed",
        "_sinks",
        "_started",
        "_untold",
        "capped",
        "fallback_error",
        "served",
        "timeout_s",
    )

    def __init__(self, gate: Gate, clock: Clock, sinks: Sinks) -> None:
        self._gate = gate
        self._clock = clock
        self._sinks = sinks
        # One element while the permit is held: popping it is what makes settling happen once, from whatever thread.
        self._open: list[None] | None = None
        self._untold: Ending | None = None
        self.served: Any = None
        self.fallback_error: Exception | None = None

    def begin(self, *, fallback: Fallback = False) -> Self:
        """Take the permit. Raises RejectedError if the call must not be made; ``fallback``: see :meth:`settle`."""
        refused = self.enter()
        if refused is None:
            return self
        self._say(Ending(refused.outcome, 0.0, carrier=refused.error), fallback=fallback)
        raise refused.error

    def enter(self) -> Refused | None:
        """Take the permit, or return the refusal, which is counted but not yet reported."""
        gate = self._gate
        self._period = period = gate.period
        self._in_flight = in_flight = gate.in_flight
        self._settings = settings = period.settings
        self._shadowed: Outcome | None = None
        self._permit = period.permit
        self._started = started = self._clock()
        in_flight.append(None)
        if len(in_flight) > period.quiet_limit or started >= period.ends_at:
            in_flight.pop()
            verdict = gate.admit(started, in_flight)
            if not isinstance(verdict, Refused):
                self._permit = verdict
            elif verdict.enforced:
                return verdict
            else:
                self._permit, self._shadowed = SHADOWED, verdict.outcome
        self._open = [None]
        context = _context.serving.get()
        self.timeout_s = settings.timeout_s
        self.capped = False
        deadline = context.deadline if context is not None else None
        if deadline is not None:
            left_s = max(deadline - started, LEAST_TIMEOUT_S)
            if self.timeout_s is None or left_s < self.timeout_s:
                self.timeout_s = left_s
                self.capped = True
        return None

    def settle(
        self,
        outcome: Outcome,
        *,
        duration_s: float | None = None,
        refusal: Refusal | None = None,
        carrier: object = None,
        fallback: Fallback = False,
    ) -> None:
        """Give the permit back and say how the call ended; once, every later call does nothing.

        ``duration_s``: default None, the time since the permit was taken.
        ``refusal``: what an annotated 503 said, for ``SHED``. Without one it slows nobody down.
        ``carrier``: the exception or response that the application gets to see.
        ``fallback``: whether something else is served instead, so that the request being served has no fault;
        or a callable that serves it, called where a fallback is due, after the permit has been given back:
        what it returns is then ``served``, None and False meaning nothing, and what it raises ``fallback_error``;
        or ``LATER``, which :meth:`serve` must follow.

        A success or a shed that took longer than the setting ``timeout_s`` counts as a timeout,
        and a shed as a failure where ``honor_handled`` is false.
        Raises ValueError for an outcome of calls that are never made.
        """
        outcome = made(outcome)
        held = self._open
        if not held:
            return
        try:
            held.pop()
        except IndexError:  # another thread was faster
            return
        gate, period = self._gate, self._period
        self._leave()
        ended = self._clock()
        if duration_s is None or not duration_s >= 0.0:  # nan is no duration either
            duration_s = ended - self._started
        if (
            outcome is Outcome.SUCCESS
            and fallback is not True
            and gate.period is period
            and period.quiet_limit >= 0
            and self._permit is period.permit
            and duration_s <= period.slow_after
            and ended < period.ends_at
        ):
            period.durations.append(duration_s)
            if len(period.durations) >= FOLD_AT:
                gate.fold()
            if self._sinks.commands:
                report(gate.resource, gate.command, Ending(outcome, duration_s), self._sinks, fallback=False)
            return
        if outcome is Outcome.TIMEOUT and self._ran_out(duration_s) and not had_time(self._settings, duration_s):
            outcome = Outcome.IGNORED
        outcome, late = within_timeout(outcome, self._settings, duration_s)
        self._end(
            Ending(outcome, duration_s, carrier=carrier, refusal=refusal, shadowed=self._shadowed, late=late),
            ended,
            fallback=fallback,
        )

    def fail_with(self, error: BaseException, *, fallback: Fallback = False) -> Outcome:
        """Settle with what ``error`` means for the callee, and return that. ``error`` itself is left alone."""
        held = bool(self._open)
        ended = self._clock()
        duration_s = ended - self._started if held else 0.0
        outcome, refusal = classify_error(error, self._settings, duration_s, capped=self._ran_out(duration_s))
        if held:
            self.settle(outcome, duration_s=duration_s, refusal=refusal, carrier=error, fallback=fallback)
        return outcome

    async def serve(self, fallback: Callable[..., Any] | None, *args: Any) -> Any:
        """Serve the fallback of a call that ended with ``LATER``, if one is due, and report that end.

        ``fallback`` is given ``args``, and awaited if need be, within the limits of the command's fallbacks.
        Returns what it served, None for nothing: none was due, or it had none.
        Raises what it raised, BulkheadFullError if there was no place for it, CommandTimeoutError if it took too long.
        """
        ending, self._untold = self._untold, None
        if ending is None:
            return None
        served = None
        try:
            if fallback is not None:
                served = await self._gate.fallbacks.arun(self._gate.settings, fallback, args, {})
        finally:
            self._say(ending, fallback=served is not None)
        return served

    def excuse(self, duration_s: float) -> None:
        """Leave out of the call's duration what was not the callee's doing."""
        self._started += duration_s

    def __enter__(self) -> Self:
        return self.begin() if self._open is None else self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.settle(Outcome.SUCCESS)
        elif self._open:
            self.fail_with(error)

    def __del__(self) -> None:
        if not self._open:
            return
        self._open = None
        # No lock here: the garbage collector runs at any moment, also while another command's lock is held.
        # A probe's slot comes back with its lease.
        self._leave()
        self._gate.period.tallies.append(Outcome.IGNORED)

    def _ran_out(self, duration_s: float) -> bool:
        """Whether it was the request's budget that ended the call, and no shorter timeout of the client library's."""
        if not self.capped or self.timeout_s is None:
            return False
        return self.timeout_s <= LEAST_TIMEOUT_S or duration_s >= _NEARLY * self.timeout_s

    def _leave(self) -> None:
        if self._shadowed is None:  # a call that shadow mode let through was never counted in flight
            self._in_flight.pop()

    def _end(self, ending: Ending, ended: float, *, fallback: Fallback) -> None:
        gate, refusal = self._gate, ending.refusal
        if self._shadowed is None:
            by_callee = ending.outcome is Outcome.SHED and refusal is not None and refusal.by_callee
            gate.settle(self._permit, ending.outcome, ended, ending.duration_s, refused_by_callee=by_callee)
        self._say(ending, fallback=fallback)

    def _say(self, ending: Ending, *, fallback: Fallback) -> None:
        if fallback is LATER:
            if ending.replaceable:
                self._untold = ending
                return
            fallback = False
        gate = self._gate
        served = (ending.replaceable and self._serve(fallback)) if callable(fallback) else fallback
        if served:
            gate.fallbacks.count(served=True)
        report(gate.resource, gate.command, ending, self._sinks, fallback=served)

    def _serve(self, fallback: Callable[[], object]) -> bool:
        try:
            # What it returns in time: one that was given up may still be running, and has nothing more to say.
            served = self._gate.fallbacks.run(self._gate.settings, fallback, (), {})
        except Exception as error:  # noqa: BLE001  the original error is the caller's, whatever the fallback's was
            self.fallback_error = error
            return False
        self.served = None if served is False else served
        return self.served is not None


class UnguardedAttempt(Attempt):
    """What stands in for an attempt while GroundFault is switched off: bounds nothing, counts nothing."""

    __slots__ = ()

    def enter(self) -> Refused | None:
        """Let the call pass."""
        self._settings = self._gate.settings
        self._started = 0.0
        self.timeout_s = None
        self.capped = False
        return None
