"""Decorating: which kind of function it is, asked once, and a wrapper of the same kind.

``_wrap_function`` and ``_wrap_coroutine_function`` repeat ``Command.call`` and ``Command.acall`` line by line,
for a wrapper that called them would cost half as much again. A test holds the lines together.
"""

import functools
import inspect
from collections.abc import Callable
from types import CoroutineType
from typing import Any

from groundfault._context import serving
from groundfault.breaker._course import UNSERVED, Course
from groundfault.breaker._ending import Ending
from groundfault.breaker._rolling import FOLD_AT
from groundfault.breaker.attempt import Attempt, UnguardedAttempt

__all__ = ["guard"]


def guard(course: Course, fn: Any) -> Any:
    """Return ``fn`` protected. Raises TypeError for what cannot be called."""
    if isinstance(fn, (classmethod, staticmethod)):
        return type(fn)(guard(course, fn.__func__))
    if not callable(fn):
        raise TypeError(f"a command decorates functions and other callables, not {fn!r}")
    if _is(inspect.iscoroutinefunction, fn):
        return _wrap_coroutine_function(course, fn)
    if _is(inspect.isasyncgenfunction, fn):
        return _wrap_async_generator_function(course, fn)
    if _is(inspect.isgeneratorfunction, fn):
        return _wrap_generator_function(course, fn)
    return _wrap_function(course, fn)


def _is(kind: Callable[[object], bool], fn: Any) -> bool:
    """Ask about a function, or about what a callable object runs; partials are seen through."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return kind(fn) or (not inspect.isroutine(fn) and not inspect.isclass(fn) and kind(type(fn).__call__))


def _wrap_function(course: Course, fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def guarded(*args: Any, **kwargs: Any) -> Any:
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
        try:
            result = fn(*args, **kwargs) if kwargs else fn(*args)
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

    return guarded


def _wrap_coroutine_function(course: Course, fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
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

    return guarded


def _attempt(course: Course) -> Attempt:
    return (UnguardedAttempt if course.disabled else Attempt)(course.gate, course.clock, course.sinks)


# Both kinds of generators are delegated to by hand, item by item: `yield from` has no asynchronous form,
# and the time that a consumer takes for an item must not count. Whoever reads slowly would trip the circuit.


def _wrap_generator_function(course: Course, fn: Callable[..., Any]) -> Any:
    @functools.wraps(fn)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        attempt = _attempt(course)
        refused = attempt.enter()
        if refused is not None:
            substitute = course.recover(Ending(refused.outcome, 0.0, carrier=refused.error), args, kwargs)
            if substitute is UNSERVED:
                raise refused.error
            return (yield from substitute)
        with attempt:
            source = fn(*args, **kwargs)
            try:
                item = next(source)
                while True:
                    try:
                        handed_out = course.clock()
                        try:
                            sent = yield item
                        finally:
                            attempt.excuse(course.clock() - handed_out)
                    except GeneratorExit:
                        source.close()
                        raise
                    except BaseException as error:  # noqa: BLE001  thrown in by the consumer: it is the source's
                        item = source.throw(error)
                    else:
                        item = source.send(sent)
            except StopIteration as end:
                return end.value

    return guarded


def _wrap_async_generator_function(course: Course, fn: Callable[..., Any]) -> Any:  # noqa: C901  delegation written out
    @functools.wraps(fn)
    async def guarded(*args: Any, **kwargs: Any) -> Any:  # noqa: C901  delegation written out
        attempt = _attempt(course)
        refused = attempt.enter()
        if refused is not None:
            substitute = await course.arecover(Ending(refused.outcome, 0.0, carrier=refused.error), args, kwargs)
            if substitute is UNSERVED:
                raise refused.error
            if hasattr(substitute, "__aiter__"):
                async for item in substitute:
                    yield item
            else:
                for item in substitute:
                    yield item
            return
        with attempt:
            source = fn(*args, **kwargs)
            try:
                item = await anext(source)
                while True:
                    try:
                        handed_out = course.clock()
                        try:
                            sent = yield item
                        finally:
                            attempt.excuse(course.clock() - handed_out)
                    except GeneratorExit:
                        await source.aclose()
                        raise
                    except BaseException as error:  # noqa: BLE001  thrown in by the consumer: it is the source's
                        item = await source.athrow(error)
                    else:
                        item = await source.asend(sent)
            except StopAsyncIteration:
                return

    return guarded
