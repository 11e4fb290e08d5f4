"""interlock-cb: one breaker class, and a pipeline for timeout, limit and fallback.

A window of 30 seconds, as it has one; probes one at a time. With excluded errors, both of its means are used:
the classifier (such a call is no failure) and ``unreachable_exceptions`` (such a probe decides nothing),
the latter with its default of ten probes, without which one such probe would end the round.
"""

from typing import Any

import interlock
from interlock import CircuitBreaker, Config, Pipeline, State, WindowType

from conformance.subject import Can, Guard, Subject, Wanted, state_named

_WINDOW_S = 30
_NEVER_S = 1e9


class _Classifier:
    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted

    def is_failure(self, *, result: object, exception: Exception | None) -> bool:
        if self._wanted.judge_raises:
            raise RuntimeError("the classifier's own")
        return exception is not None and not isinstance(exception, self._wanted.ignored)


class _Listener:
    def __init__(self, wanted: Wanted) -> None:
        self._tell = wanted.listener

    def on_state_change(self, *, new: State, **_: Any) -> None:
        self._tell(new is State.OPEN)

    def on_call(self, **_: Any) -> None:
        self._tell(False)

    on_rejected = on_reset = on_call


class _Clock:
    def __init__(self, now: Any) -> None:
        self.monotonic = now


class _Guard(Guard):
    def __init__(self, breaker: CircuitBreaker, wanted: Wanted) -> None:
        self._breaker = breaker
        pipeline = Pipeline.builder()
        if wanted.fallback is not None:
            pipeline = pipeline.fallback(wanted.fallback)
        if wanted.limit is not None:
            pipeline = pipeline.bulkhead(wanted.limit)
        pipeline = pipeline.circuit_breaker(breaker)
        if wanted.timeout_s is not None:
            pipeline = pipeline.timeout(wanted.timeout_s)
        layered = wanted.fallback is not None or wanted.limit is not None or wanted.timeout_s is not None
        self._chain = pipeline.build() if layered else breaker

    def call(self, fn: Any, *args: Any) -> Any:
        return self._chain.call(fn, *args)

    async def acall(self, fn: Any, *args: Any) -> Any:
        return await self._chain.call(fn, *args)

    def decorate(self, fn: Any) -> Any:
        return self._chain(fn)

    def block(self) -> Any:
        return self._breaker

    ablock = block

    def state(self) -> str:
        return state_named(self._breaker.state.value)


class Interlock(Subject):
    """Everything but generators and settings changed in use."""

    package = "interlock"
    can = frozenset(
        {
            Can.SYNC,
            Can.ASYNC,
            Can.OVERLAP,
            Can.CALL,
            Can.BLOCK,
            Can.LISTENER,
            Can.JUDGE,
            Can.FALLBACK,
            Can.TIMEOUT,
            Can.SLOW,
            Can.LIMIT,
            Can.RATE,
            Can.WINDOW,
            Can.BACKOFF,
            Can.REGISTRY,
        }
    )
    refusals = (interlock.CircuitOpenError, interlock.BulkheadFullError)

    def make(self, wanted: Wanted) -> Guard:
        settings: dict[str, Any] = {
            "minimum_number_of_calls": wanted.failures,
            "failure_rate_threshold": 0.5,
            "wait_duration_in_open": wanted.sleep_s,
            "permitted_calls_in_half_open": 10 if wanted.ignored else 1,
            "max_concurrent_probes": 1,
            "window_type": WindowType.TIME_BASED,
            "window_size": _WINDOW_S,
            "slow_call_duration_threshold": _NEVER_S,
        }
        if wanted.max_sleep_s is not None:
            settings["wait_duration_backoff_multiplier"] = 2.0
            settings["wait_duration_in_open_max"] = wanted.max_sleep_s
        slow = wanted.timeout_s is not None and self.clock is not None
        if slow:
            settings["slow_call_duration_threshold"] = wanted.timeout_s
        breaker = CircuitBreaker(
            name="case",
            config=Config(**settings),
            clock=_Clock(self.clock) if self.clock is not None else None,
            classifier=_Classifier(wanted) if wanted.ignored or wanted.judge_raises else None,
            listener=_Listener(wanted) if wanted.listener is not None else None,
            unreachable_exceptions=wanted.ignored,
        )
        return _Guard(breaker, wanted)

    def nonsense(self, setting: str, value: Any) -> None:
        Config(**{{"threshold": "failure_rate_threshold", "sleep": "wait_duration_in_open"}[setting]: value})

    def same_name_twice(self) -> tuple[bool, str]:
        registry = interlock.Registry()
        first = registry.get("case", config=Config(wait_duration_in_open=1.0))
        second = registry.get("case", config=Config(wait_duration_in_open=2.0))
        return first is not second, "the second gets the first one's settings"


SUBJECT = Interlock
