"""hyx: coroutines only; timeout, limit and fallback are decorators that are stacked."""

from typing import Any

from hyx.bulkhead import bulkhead
from hyx.bulkhead.exceptions import BulkheadFull
from hyx.circuitbreaker import consecutive_breaker
from hyx.circuitbreaker.exceptions import BreakerFailing
from hyx.fallback import fallback
from hyx.timeout import timeout

from conformance.subject import Broken, Can, Guard, Subject, Wanted, state_named


class _Guard(Guard):
    def __init__(self, breaker: consecutive_breaker, wanted: Wanted) -> None:
        self._breaker = breaker
        self._wanted = wanted
        self._limit = bulkhead(max_concurrency=wanted.limit, max_capacity=wanted.limit) if wanted.limit else None

    def decorate(self, fn: Any) -> Any:
        if self._wanted.timeout_s is not None:
            fn = timeout(self._wanted.timeout_s)(fn)
        fn = self._breaker(fn)
        if self._limit is not None:
            fn = self._limit(fn)
        if self._wanted.fallback is not None:
            fn = fallback(_coroutine_function(self._wanted.fallback))(fn)
        return fn

    def ablock(self) -> Any:
        return self._breaker

    def state(self) -> str:
        return state_named(self._breaker.state.name)


def _coroutine_function(fn: Any) -> Any:
    async def handler(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return handler


class Hyx(Subject):
    """Counts failures in a row."""

    package = "hyx"
    can = frozenset({Can.ASYNC, Can.OVERLAP, Can.BLOCK, Can.FALLBACK, Can.TIMEOUT, Can.LIMIT})
    refusals = (BreakerFailing, BulkheadFull)

    def make(self, wanted: Wanted) -> Guard:
        breaker = consecutive_breaker(
            exceptions=Broken if wanted.ignored else Exception,
            failure_threshold=wanted.failures,
            recovery_time_secs=wanted.sleep_s,
            recovery_threshold=1,
        )
        return _Guard(breaker, wanted)

    def nonsense(self, setting: str, value: Any) -> None:
        consecutive_breaker(**{{"threshold": "failure_threshold", "sleep": "recovery_time_secs"}[setting]: value})


SUBJECT = Hyx
