"""aiobreaker."""

from datetime import timedelta
from typing import Any

import aiobreaker

from conformance.subject import Can, Guard, Subject, Wanted, state_named


class _Listener(aiobreaker.CircuitBreakerListener):
    def __init__(self, tell: Any) -> None:
        self._tell = tell

    def before_call(self, *_: Any, **__: Any) -> None:
        self._tell(False)

    def failure(self, *_: Any) -> None:
        self._tell(False)

    def success(self, *_: Any) -> None:
        self._tell(False)

    def state_change(self, _breaker: Any, _old: Any, new: Any) -> None:
        self._tell(new.state is aiobreaker.CircuitBreakerState.OPEN)


class _Guard(Guard):
    def __init__(self, breaker: aiobreaker.CircuitBreaker) -> None:
        self._breaker = breaker
        self.call = breaker.call
        self.acall = breaker.call_async
        self.decorate = breaker

    def state(self) -> str:
        return state_named(self._breaker.current_state.name)

    def tune(self, **changes: Any) -> None:
        if "failures" in changes:
            self._breaker.fail_max = changes["failures"]
        if "sleep_s" in changes:
            self._breaker.timeout_duration = timedelta(seconds=changes["sleep_s"])


class AioBreaker(Subject):
    """Counts failures in a row; has no lock."""

    package = "aiobreaker"
    can = frozenset({Can.SYNC, Can.ASYNC, Can.OVERLAP, Can.CALL, Can.GENERATORS, Can.LISTENER, Can.JUDGE, Can.TUNE})
    refusals = (aiobreaker.CircuitBreakerError,)

    def make(self, wanted: Wanted) -> Guard:
        exclude: list[Any] = list(wanted.ignored)
        if wanted.judge_raises:
            exclude.append(_raise)
        breaker = aiobreaker.CircuitBreaker(
            fail_max=wanted.failures,
            timeout_duration=timedelta(seconds=wanted.sleep_s),
            exclude=exclude,
            listeners=[_Listener(wanted.listener)] if wanted.listener is not None else None,
        )
        return _Guard(breaker)

    def nonsense(self, setting: str, value: Any) -> None:
        if setting == "threshold":
            aiobreaker.CircuitBreaker(fail_max=value)
        elif isinstance(value, str):
            aiobreaker.CircuitBreaker(timeout_duration=value)
        else:
            aiobreaker.CircuitBreaker(timeout_duration=timedelta(seconds=value))


def _raise(_error: BaseException) -> bool:
    raise RuntimeError("the classifier's own")


SUBJECT = AioBreaker
