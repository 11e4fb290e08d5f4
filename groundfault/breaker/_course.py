"""The course of a call where it is not plain: refused, attended, failed, late, classified, made good by a fallback.

``Command.call`` and its twins hold the plain course and come here for everything else.
Each step that has to await exists twice, the second with an ``a`` in front; they differ in nothing but the await.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import Any, Final

from groundfault._clock import Clock
from groundfault._context import serving
from groundfault.breaker._ending import Ending, classify_error, classify_result, report
from groundfault.breaker._gate import Gate
from groundfault.breaker._isolation import GivenUp, run_on_thread
from groundfault.breaker._machine import Permit
from groundfault.breaker._period import Period
from groundfault.breaker._refused import Refused
from groundfault.breaker._rolling import FOLD_AT
from groundfault.breaker.settings import BreakerSettings
from groundfault.errors import CircuitOpenError, CommandTimeoutError, GroundFaultError
from groundfault.events import note_internal_error
from groundfault.sinks import Sinks
from groundfault.vocabulary import Outcome

__all__ = ["LEAST_TIMEOUT_S", "NO_FALLBACK", "SHADOWED", "UNSERVED", "Course"]

LEAST_TIMEOUT_S: Final = 0.001
"""The shortest bound that is set: client libraries refuse a timeout of zero."""


class _Mark:
    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


NO_FALLBACK: Final[Any] = _Mark("NO_FALLBACK")
"""Says that a command has no fallback; None would be one."""

UNSERVED: Final[Any] = _Mark("UNSERVED")
"""Says that no fallback was served."""

SHADOWED: Final = Permit(-1)
"""The permit of a call that shadow mode let through."""


class Course:
    """What the calls of one command have in common beside its gate."""

    __slots__ = ("classify", "clock", "disabled", "fallback", "gate", "lockless", "sinks")

    def __init__(
        self,
        gate: Gate,
        *,
        clock: Clock,
        sinks: Sinks,
        fallback: Any,
        classify: Callable[[Any], Outcome | None] | None,
        disabled: bool,
    ) -> None:
        self.gate = gate
        self.clock = clock
        self.sinks = sinks
        self.fallback = fallback
        self.classify = classify
        self.disabled = disabled
        self.lockless = fallback is NO_FALLBACK and not disabled  # an open circuit's refusal ends where it began

    def refusal(self, period: Period, now: float) -> CircuitOpenError:
        """Count and report a refusal by an open circuit, without a lock; return what to raise."""
        period.tallies.append(Outcome.CIRCUIT_OPEN)
        if len(period.tallies) >= FOLD_AT:
            self.gate.fold()
        gate = self.gate
        error = CircuitOpenError(gate.resource, gate.command, period.wakes_at - now if period.wakes_at > now else 0.0)
        if self.sinks.commands or serving.get() is not None:
            self._say(Ending(Outcome.CIRCUIT_OPEN, 0.0, carrier=error))
        return error

    def succeeded(self, duration_s: float) -> None:
        """Report a plain success."""
        self._say(Ending(Outcome.SUCCESS, duration_s))

    def attended_call(self, started: float, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Make a call if the gate lets it."""
        if self.disabled:
            return fn(*args, **kwargs)
        settings = self.gate.settings
        in_flight = self.gate.in_flight
        permit = self.gate.admit(started, in_flight)
        shadowed = None
        if isinstance(permit, Refused):
            if permit.enforced:
                value = self.recover(Ending(permit.outcome, 0.0, carrier=permit.error), args, kwargs)
                if value is UNSERVED:
                    raise permit.error
                return value
            # It occupies no place, as if it had been refused.
            shadowed, permit, in_flight = permit.outcome, SHADOWED, [None]
        place = in_flight
        try:
            if settings.isolation == "thread":
                place = [None]  # the call's own is given back by its thread
                result = self._isolated(settings.timeout_s, started, in_flight, fn, args, kwargs)
            else:
                result = fn(*args, **kwargs)
        except BaseException as error:
            place.pop()
            value = self.failed(permit, settings, started, error, args, kwargs, shadowed=shadowed)
            if value is UNSERVED:
                raise
            return value
        place.pop()
        return self.returned(permit, settings, started, self.clock(), result, args, kwargs, shadowed=shadowed)

    async def attended_acall(self, started: float, fn: Callable[..., Awaitable[Any]], args: Any, kwargs: Any) -> Any:
        """Do as :meth:`attended_call`, awaiting."""
        if self.disabled:
            return await fn(*args, **kwargs)
        settings = self.gate.settings
        in_flight = self.gate.in_flight
        permit = self.gate.admit(started, in_flight)
        shadowed = None
        if isinstance(permit, Refused):
            if permit.enforced:
                value = await self.arecover(Ending(permit.outcome, 0.0, carrier=permit.error), args, kwargs)
                if value is UNSERVED:
                    raise permit.error
                return value
            shadowed, permit, in_flight = permit.outcome, SHADOWED, [None]
        try:
            result = await self.bounded(settings.timeout_s, started, fn, args, kwargs)
        except BaseException as error:
            in_flight.pop()
            value = await self.afailed(permit, settings, started, error, args, kwargs, shadowed=shadowed)
            if value is UNSERVED:
                raise
            return value
        in_flight.pop()
        return await self.areturned(permit, settings, started, self.clock(), result, args, kwargs, shadowed=shadowed)

    async def bounded(
        self, timeout_s: float | None, started: float, fn: Callable[..., Awaitable[Any]], args: Any, kwargs: Any
    ) -> Any:
        """Await ``fn`` for ``timeout_s`` at most, or for what the request being served has left if that is less."""
        timeout_s = _within_budget(timeout_s, started)
        if timeout_s is None:
            return await fn(*args, **kwargs)
        scope = asyncio.timeout(timeout_s)
        try:
            async with scope:
                return await fn(*args, **kwargs)
        except TimeoutError as error:
            if not scope.expired():  # fn's own: somebody else's clock ran out
                raise
            raise CommandTimeoutError(self.gate.resource, self.gate.command, timeout_s) from error

    def _isolated(  # noqa: PLR0917  as below
        self,
        timeout_s: float | None,
        started: float,
        in_flight: list[None],
        fn: Callable[..., Any],
        args: Any,
        kwargs: Any,
    ) -> Any:
        """Call ``fn`` on a thread of its own, for as long as :meth:`bounded` would await it."""
        timeout_s = _within_budget(timeout_s, started)
        try:
            return run_on_thread(fn, args, kwargs, timeout_s, in_flight.pop)
        except GivenUp:
            raise CommandTimeoutError(self.gate.resource, self.gate.command, timeout_s or 0.0) from None

    def failed(  # noqa: PLR0917  once a call: a record of these would cost more than passing them
        self,
        permit: Permit,
        settings: BreakerSettings,
        started: float,
        error: BaseException,
        args: Any,
        kwargs: Any,
        *,
        shadowed: Outcome | None = None,
    ) -> Any:
        """End a call that raised. Return the fallback's value, or UNSERVED: then ``error`` is to be raised on."""
        return self.recover(self._end_with_error(permit, settings, started, error, shadowed), args, kwargs)

    async def afailed(  # noqa: PLR0917  once a call: a record of these would cost more than passing them
        self,
        permit: Permit,
        settings: BreakerSettings,
        started: float,
        error: BaseException,
        args: Any,
        kwargs: Any,
        *,
        shadowed: Outcome | None = None,
    ) -> Any:
        """Do as :meth:`failed`, awaiting the fallback."""
        return await self.arecover(self._end_with_error(permit, settings, started, error, shadowed), args, kwargs)

    def returned(  # noqa: PLR0917  once a call: a record of these would cost more than passing them
        self,
        permit: Permit,
        settings: BreakerSettings,
        started: float,
        ended: float,
        result: Any,
        args: Any,
        kwargs: Any,
        *,
        shadowed: Outcome | None = None,
    ) -> Any:
        """End a call that returned ``result``; return that or the fallback's value."""
        if isinstance(result, CoroutineType):
            result.close()
            error = TypeError(
                f"{self.gate.resource}/{self.gate.command}: {result.__qualname__}() needs acall, not call"
            )
            self._say(self._end(permit, Ending(Outcome.IGNORED, ended - started, carrier=error), ended))
            raise error
        ending = self._end_with_result(permit, settings, started, ended, result, shadowed=shadowed)
        value = self.recover(ending, args, kwargs)
        return result if value is UNSERVED else value

    async def areturned(  # noqa: PLR0917  once a call: a record of these would cost more than passing them
        self,
        permit: Permit,
        settings: BreakerSettings,
        started: float,
        ended: float,
        result: Any,
        args: Any,
        kwargs: Any,
        *,
        shadowed: Outcome | None = None,
    ) -> Any:
        """Do as :meth:`returned`, awaiting the fallback."""
        ending = self._end_with_result(permit, settings, started, ended, result, shadowed=shadowed)
        value = await self.arecover(ending, args, kwargs)
        return result if value is UNSERVED else value

    def _end_with_error(
        self,
        permit: Permit,
        settings: BreakerSettings,
        started: float,
        error: BaseException,
        shadowed: Outcome | None,
    ) -> Ending:
        ended = self.clock()
        duration_s = ended - started
        # Our own timeout error under a tighter bound than the setting: it was the request's budget that ran out.
        capped = (
            isinstance(error, CommandTimeoutError)
            and (error.resource, error.command) == (self.gate.resource, self.gate.command)
            and (settings.timeout_s is None or error.timeout_s < settings.timeout_s)
        )
        outcome, refusal = classify_error(error, settings, duration_s, capped=capped)
        ending = Ending(outcome, duration_s, carrier=error, refusal=refusal, shadowed=shadowed)
        return self._end(permit, ending, ended)

    def _end_with_result(
        self,
        permit: Permit,
        settings: BreakerSettings,
        started: float,
        ended: float,
        result: Any,
        *,
        shadowed: Outcome | None,
    ) -> Ending:
        duration_s = ended - started
        outcome, late = classify_result(result, self.classify, settings, duration_s)
        ending = Ending(outcome, duration_s, carrier=result, shadowed=shadowed, late=late)
        return self._end(permit, ending, ended)

    def _end(self, permit: Permit, ending: Ending, ended: float) -> Ending:
        if ending.shadowed is None:
            by_callee = ending.outcome is Outcome.SHED and ending.refusal is not None and ending.refusal.by_callee
            self.gate.settle(permit, ending.outcome, ended, ending.duration_s, refused_by_callee=by_callee)
        return ending

    def recover(self, ending: Ending, args: Any, kwargs: Any) -> Any:
        """Report the end of a call after serving its fallback, if it has one and calls for it."""
        fallback = self.fallback
        if fallback is NO_FALLBACK or not ending.replaceable:
            return self._say(ending)
        try:
            value = fallback
            if callable(fallback):
                value = self.gate.fallbacks.run(self.gate.settings, fallback, args, kwargs)
        except Exception as error:  # noqa: BLE001  the original error is the caller's, whatever the fallback's was
            return self._without_fallback(ending, error)
        return self._say(ending, value)

    async def arecover(self, ending: Ending, args: Any, kwargs: Any) -> Any:
        """Do as :meth:`recover`, awaiting."""
        fallback = self.fallback
        if fallback is NO_FALLBACK or not ending.replaceable:
            return self._say(ending)
        try:
            value = fallback
            if callable(fallback):
                value = await self.gate.fallbacks.arun(self.gate.settings, fallback, args, kwargs)
        except Exception as error:  # noqa: BLE001  as above
            return self._without_fallback(ending, error)
        except BaseException:  # canceled: the call has ended all the same
            self._say(ending)
            raise
        return self._say(ending, value)

    def _without_fallback(self, ending: Ending, error: Exception) -> Any:
        original = ending.carrier
        if isinstance(original, BaseException):
            _chain(original, error)
        elif not isinstance(error, GroundFaultError):  # one of those found nothing to serve, as a cache may
            # There is no error to hang this one onto: the call's own result is returned, and this must not be silent.
            note_internal_error(f"fallback of {self.gate.resource}/{self.gate.command}", error)
        return self._say(ending)

    def _say(self, ending: Ending, value: Any = UNSERVED) -> Any:
        served = value is not UNSERVED
        if served:
            self.gate.fallbacks.count(served=True)
        report(self.gate.resource, self.gate.command, ending, self.sinks, fallback=served)
        return value


def _within_budget(timeout_s: float | None, started: float) -> float | None:
    """Return the bound of a call: its timeout, or what the request being served has left if that is less."""
    context = serving.get()
    deadline = context.deadline if context is not None else None  # once: the end of the request takes it away
    if deadline is None:
        return timeout_s
    left_s = max(deadline - started, LEAST_TIMEOUT_S)
    return left_s if timeout_s is None else min(timeout_s, left_s)


def _chain(original: BaseException, error: BaseException) -> None:
    """Make ``error`` the context of ``original``, without a loop and without losing what ``original`` came from.

    Raised while ``original`` was being handled, ``error`` has it somewhere down its own chain of contexts.
    """
    if error is original:
        return
    link = error
    for _ in range(100):  # an application may have made a loop of its own
        if link.__context__ is None:
            break
        if link.__context__ is original:
            link.__context__ = original.__context__
            break
        link = link.__context__
    original.__context__ = error
