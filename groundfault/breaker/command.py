"""A command: one kind of call to one resource, through one chokepoint.

The order of a call, as in Hystrix's flow chart with the probe's lease moved behind every other refusal:
concurrency, circuit, throttle, health check, the call under its timeout, classification, counts, fallback.

:meth:`Command.call` is written out in one piece on purpose.
While nothing is the matter it compares a few numbers with its gate's period and takes no lock;
every layer it were divided into would cost about as much as the whole.
:meth:`Command.acall` is its twin with the awaits, and ``_wrapping`` holds the pair once more for decorated functions.
"""

import os
from collections.abc import Awaitable, Callable
from random import random
from types import CoroutineType
from typing import Any, ParamSpec, TypeVar

from groundfault._clock import Clock, monotonic
from groundfault._context import serving
from groundfault.breaker._course import NO_FALLBACK, UNSERVED, Course
from groundfault.breaker._gate import Gate
from groundfault.breaker._rolling import FOLD_AT
from groundfault.breaker._wrapping import guard
from groundfault.breaker.attempt import Attempt, Fallback, UnguardedAttempt
from groundfault.breaker.settings import BreakerSettings
from groundfault.breaker.snapshot import CommandCounts, CommandSnapshot
from groundfault.sinks import Sinks, default_sinks
from groundfault.vocabulary import Outcome

__all__ = ["Command"]

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


class Command:
    """One command. Get it from ``Resource.command``, which makes it once and hands out the same one ever after.

    It may be used from any number of threads and event loops at once.
    Calling it with a function returns the function protected: ``@command`` is the decorator.
    The environment variable ``GROUNDFAULT_DISABLED=1``, read here, lets every call straight through.
    """

    __slots__ = ("_course", "_gate", "name", "resource")

    def __init__(
        self,
        resource: str,
        name: str,
        settings: BreakerSettings | None = None,
        *,
        fallback: Any = NO_FALLBACK,
        classify: Callable[[Any], Outcome | None] | None = None,
        sinks: Sinks | None = None,
        clock: Clock = monotonic,
        draw: Callable[[], float] = random,
    ) -> None:
        self.resource = resource
        self.name = name
        sinks = sinks if sinks is not None else default_sinks()
        disabled = os.environ.get("GROUNDFAULT_DISABLED") == "1"
        self._gate = Gate(
            resource, name, settings or BreakerSettings(), sinks=sinks, clock=clock, draw=draw, disabled=disabled
        )
        self._course = Course(
            self._gate, clock=clock, sinks=sinks, fallback=fallback, classify=classify, disabled=disabled
        )

    def __repr__(self) -> str:
        return f"<Command {self.resource}/{self.name}>"

    @property
    def disabled(self) -> bool:
        """True if ``GROUNDFAULT_DISABLED=1`` was set when the command was made: it guards nothing."""
        return self._course.disabled

    @property
    def settings(self) -> BreakerSettings:
        """The settings in force."""
        return self._gate.settings

    def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call ``fn`` with the arguments and return its result, or the fallback's.

        Raises what ``fn`` raises, always the original; RejectedError if the call is not made;
        TypeError if ``fn`` returned a coroutine, which needs :meth:`acall`.
        ``timeout_s`` is measured: a late result is returned and counts as a timeout.
        With ``isolation="thread"`` it is enforced: CommandTimeoutError, and ``fn`` is left to itself.
        """
        course = self._course
        gate = course.gate
        clock = course.clock
        period = gate.period
        in_flight = gate.in_flight
        started = clock()
        in_flight.append(None)
        if len(in_flight) > period.quiet_limit or started >= period.ends_at:
            in_flight.pop()
            if started < period.refuses_until and course.lockless and len(in_flight) < period.limit:
                raise course.refusal(period, started)
            return course.attended_call(started, fn, args, kwargs)
        result: Any
        try:
            # Forwarding an empty dictionary costs more than asking whether it is one.
            result = fn(*args, **kwargs) if kwargs else fn(*args)  # type: ignore[call-arg]  # no keywords
        except BaseException as error:
            in_flight.pop()
            value = course.failed(period.permit, period.settings, started, error, args, kwargs)
            if value is UNSERVED:
                raise
            return value
        in_flight.pop()
        ended = clock()
        elapsed = ended - started
        if (
            gate.period is period
            and elapsed <= period.slow_after
            and ended < period.ends_at
            and course.classify is None
            and result.__class__ is not CoroutineType
        ):
            durations = period.durations
            durations.append(elapsed)
            if len(durations) >= FOLD_AT:
                gate.fold()
            if course.sinks.commands:
                course.succeeded(elapsed)
            return result
        return course.returned(period.permit, period.settings, started, ended, result, args, kwargs)

    async def acall(self, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Await ``fn`` called with the arguments and return its result, or the fallback's, awaited if need be.

        Raises what ``fn`` raises, always the original; RejectedError if the call is not made;
        CommandTimeoutError if it took longer than ``timeout_s``, or than the budget of the request being served.
        Either is enforced by cancellation (asyncio); a cancellation from outside stays one.
        """
        course = self._course
        gate = course.gate
        clock = course.clock
        period = gate.period
        in_flight = gate.in_flight
        started = clock()
        in_flight.append(None)
        if len(in_flight) > period.quiet_limit or started >= period.ends_at:
            in_flight.pop()
            if started < period.refuses_until and course.lockless and len(in_flight) < period.limit:
                raise course.refusal(period, started)
            return await course.attended_acall(started, fn, args, kwargs)
        try:
            if period.timeout_s is None and serving.get() is None:
                result = await fn(*args, **kwargs)
            else:
                result = await course.bounded(period.timeout_s, started, fn, args, kwargs)
        except BaseException as error:
            in_flight.pop()
            value = await course.afailed(period.permit, period.settings, started, error, args, kwargs)
            if value is UNSERVED:
                raise
            return value
        in_flight.pop()
        ended = clock()
        elapsed = ended - started
        if (
            gate.period is period
            and elapsed <= period.slow_after
            and ended < period.ends_at
            and course.classify is None
        ):
            durations = period.durations
            durations.append(elapsed)
            if len(durations) >= FOLD_AT:
                gate.fold()
            if course.sinks.commands:
                course.succeeded(elapsed)
            return result
        return await course.areturned(period.permit, period.settings, started, ended, result, args, kwargs)

    def __call__(self, fn: F) -> F:
        """Return ``fn`` protected by this command, of the same kind and signature.

        Functions, coroutine functions, generator and asynchronous generator functions, methods, partials
        and callable objects. A generator is one call from its first item to its end,
        without the time that its consumer takes between them:
        closing it early is neutral, and a fallback is served only in place of a generator that was refused.
        """
        protected: F = guard(self._course, fn)
        return protected

    def attempt(self) -> Attempt:
        """Return a context manager for one call: ``with command.attempt() as attempt:``.

        Entering it raises RejectedError if the call must not be made. Fallbacks are the caller's own.
        """
        course = self._course
        kind = UnguardedAttempt if course.disabled else Attempt
        return kind(self._gate, course.clock, course.sinks)

    def begin(self, *, fallback: Fallback = False) -> Attempt:
        """Take the permit for one call now, outside a ``with`` statement: ``settle`` it or ``fail_with`` it.

        Raises RejectedError if the call must not be made.
        ``fallback``: whether something else is served then, or a callable that serves it; see ``Attempt.settle``.
        To be handed what a callable has served, make the attempt first: ``attempt()``, then its ``begin``.
        """
        course = self._course
        kind = UnguardedAttempt if course.disabled else Attempt
        return kind(self._gate, course.clock, course.sinks).begin(fallback=fallback)

    def tune(self, **changes: Any) -> BreakerSettings:
        """Change settings while in use and return all of them; emits SettingsChanged.

        Windows and circuit stay as they are, a call in flight keeps the settings it began with,
        and a ``max_concurrent`` below what is in flight refuses until enough calls have ended.
        Raises SettingsError and changes nothing if the result makes no sense.
        """
        return self._gate.tune(changes)

    def snapshot(self) -> CommandSnapshot:
        """Describe the command as it is now."""
        return self._gate.snapshot()

    def counts(self, known: object = None) -> tuple[object, CommandCounts | None]:
        """Return a mark, and counts and gauges alone: for who asks each second.

        None instead of them if the mark is still the one that is ``known``.
        """
        return self._gate.counts(known)
