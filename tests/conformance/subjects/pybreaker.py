"""pybreaker. Its asynchronous entry point needs Tornado, so plain functions only.

``throw_new_error_on_trip=False`` is its own remedy for the error that a tripping call hides.
Its lock is held during the call, so calls of one breaker cannot overlap.
"""

from typing import Any

import pybreaker

from conformance.subject import Can, Guard, Subject, Wanted, state_named


class _Listener(pybreaker.CircuitBreakerListener):
    def __init__(self, tell: Any) -> None:
        self._tell = tell

    def before_call(self, *_: Any, **__: Any) -> None:
        self._tell(False)

    def failure(self, *_: Any) -> None:
        self._tell(False)

    def success(self, *_: Any) -> None:
        self._tell(False)

    def state_change(self, _breaker: Any, _old: Any, new: Any) -> None:
        self._tell(new.name == pybreaker.STATE_OPEN)


class _Guard(Guard):
    def __init__(self, breaker: pybreaker.CircuitBreaker) -> None:
        self._breaker = breaker
        self.call = breaker.call
        self.decorate = breaker
        self.block = breaker.calling

    def state(self) -> str:
        return state_named(self._breaker.current_state)

    def tune(self, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(self._breaker, {"failures": "fail_max", "sleep_s": "reset_timeout"}[name], value)


class PyBreaker(Subject):
    """Counts failures in a row."""

    package = "pybreaker"
    can = frozenset({Can.SYNC, Can.CALL, Can.BLOCK, Can.GENERATORS, Can.LISTENER, Can.JUDGE, Can.TUNE})
    refusals = (pybreaker.CircuitBreakerError,)

    def make(self, wanted: Wanted) -> Guard:
        exclude: list[Any] = list(wanted.ignored)
        if wanted.judge_raises:
            exclude.append(_raise)
        breaker = pybreaker.CircuitBreaker(
            fail_max=wanted.failures,
            reset_timeout=wanted.sleep_s,
            exclude=exclude,
            listeners=[_Listener(wanted.listener)] if wanted.listener is not None else None,
            throw_new_error_on_trip=False,
        )
        return _Guard(breaker)

    def nonsense(self, setting: str, value: Any) -> None:
        pybreaker.CircuitBreaker(**{{"threshold": "fail_max", "sleep": "reset_timeout"}[setting]: value})


def _raise(_error: BaseException) -> bool:
    raise RuntimeError("the classifier's own")


SUBJECT = PyBreaker
