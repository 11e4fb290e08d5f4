"""aioresilience: coroutines only; its limit and fallback are objects of their own, stacked around the breaker.

Of the ways into its limit, ``async with`` is the one that gives the place of a canceled call back.
"""

import inspect
from typing import Any

import aioresilience
from aioresilience.circuit_breaker import CircuitState
from aioresilience.exceptions import BulkheadFullError, CircuitBreakerOpenError

from conformance.subject import Can, Guard, Subject, Wanted, state_named


class _Guard(Guard):
    def __init__(self, breaker: aioresilience.CircuitBreaker, wanted: Wanted) -> None:
        self._breaker = breaker
        self._limit = None
        self._fallback = None
        if wanted.limit is not None:
            config = aioresilience.BulkheadConfig(max_concurrent=wanted.limit, max_waiting=0)
            self._limit = aioresilience.Bulkhead("case", config=config)
        if wanted.fallback is not None:
            self._fallback = aioresilience.FallbackHandler(aioresilience.FallbackConfig(fallback=wanted.fallback))

    async def acall(self, fn: Any, *args: Any) -> Any:
        async def guarded() -> Any:
            return await self._breaker.call(fn, *args)

        if self._fallback is not None:
            return await self._fallback.execute(guarded)
        if self._limit is not None:
            async with self._limit:
                return await guarded()
        return await self._breaker.call(fn, *args)

    def decorate(self, fn: Any) -> Any:
        return aioresilience.with_circuit_breaker(self._breaker)(fn)

    def state(self) -> str:
        return state_named(self._breaker.get_state().name)


class AioResilience(Subject):
    """Counts failures in a row; a lock of asyncio's."""

    package = "aioresilience"
    can = frozenset(
        {
            Can.ASYNC,
            Can.OVERLAP,
            Can.CALL,
            Can.LISTENER,
            Can.JUDGE,
            Can.FALLBACK,
            Can.TIMEOUT,
            Can.LIMIT,
            Can.REGISTRY,
        }
    )
    awaits_listeners = True
    refusals = (CircuitBreakerOpenError, BulkheadFullError)

    def make(self, wanted: Wanted) -> Guard:
        predicate: Any = None
        if wanted.judge_raises:
            predicate = _raise
        elif wanted.ignored:
            predicate = lambda error: not isinstance(error, wanted.ignored)  # noqa: E731  one of three
        config = aioresilience.CircuitConfig(
            failure_threshold=wanted.failures,
            recovery_timeout=wanted.sleep_s,
            success_threshold=1,
            half_open_max_calls=1,
            timeout=wanted.timeout_s,
            failure_predicate=predicate,
        )
        breaker = aioresilience.CircuitBreaker("case", config=config)
        if wanted.listener is not None:
            breaker.events.add_handler("*", _handler(wanted.listener))
        return _Guard(breaker, wanted)

    def nonsense(self, setting: str, value: Any) -> None:
        aioresilience.CircuitConfig(**{{"threshold": "failure_threshold", "sleep": "recovery_timeout"}[setting]: value})

    def same_name_twice(self) -> tuple[bool, str]:
        first = aioresilience.get_circuit_breaker("case", recovery_timeout=1.0)
        second = aioresilience.get_circuit_breaker("case", recovery_timeout=2.0)
        return first is not second, "the second gets the first one's settings"


def _handler(tell: Any) -> Any:
    async def handler(event: Any) -> None:
        answer = tell(
            getattr(event, "new_state", None) is CircuitState.OPEN and event.event_type.name == "STATE_CHANGE"
        )
        if inspect.isawaitable(answer):
            await answer

    return handler


def _raise(_error: BaseException) -> bool:
    raise RuntimeError("the classifier's own")


SUBJECT = AioResilience
