"""circuitbreaker. Its documentation knows decorating only; ``call`` and ``with`` exist and are not asked about."""

from itertools import count
from typing import Any

import circuitbreaker

from conformance.subject import Can, Guard, Subject, Wanted, state_named

_numbers = count()


class _Guard(Guard):
    def __init__(self, breaker: circuitbreaker.CircuitBreaker) -> None:
        self._breaker = breaker
        self.decorate = breaker

    def state(self) -> str:
        return state_named(self._breaker.state)


class CircuitBreaker(Subject):
    """Counts failures in a row; has no lock."""

    package = "circuitbreaker"
    can = frozenset(
        {
            Can.SYNC,
            Can.ASYNC,
            Can.OVERLAP,
            Can.GENERATORS,
            Can.ASYNC_GENERATORS,
            Can.JUDGE,
            Can.FALLBACK,
            Can.REGISTRY,
        }
    )
    refusals = (circuitbreaker.CircuitBreakerError,)

    def make(self, wanted: Wanted) -> Guard:
        expected: Any = Exception
        if wanted.judge_raises:
            expected = _raise
        elif wanted.ignored:
            expected = lambda kind, _error: not issubclass(kind, wanted.ignored)  # noqa: E731  one of three
        return _Guard(
            circuitbreaker.CircuitBreaker(
                failure_threshold=wanted.failures,
                recovery_timeout=wanted.sleep_s,
                expected_exception=expected,
                fallback_function=wanted.fallback,
                name=f"case-{next(_numbers)}",
            )
        )

    def nonsense(self, setting: str, value: Any) -> None:
        name = {"threshold": "failure_threshold", "sleep": "recovery_timeout"}[setting]
        circuitbreaker.CircuitBreaker(**{name: value})

    def same_name_twice(self) -> tuple[bool, str]:
        made = [circuitbreaker.CircuitBreaker(failure_threshold=n, name="case") for n in (5, 6)]
        for one in made:
            one(lambda: None)
        listed = list(circuitbreaker.CircuitBreakerMonitor.get_circuits())
        found = sum(one in listed for one in made)
        return found == 2, f"both get theirs, the monitor lists {found} of 2"


def _raise(_kind: type[BaseException], _error: BaseException) -> bool:
    raise RuntimeError("the classifier's own")


SUBJECT = CircuitBreaker
