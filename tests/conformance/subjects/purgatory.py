"""purgatory: a factory for plain code and one for coroutines, asked for whichever a case calls first."""

from typing import Any

import purgatory
from purgatory.domain.model import OpenedState

from conformance.subject import Can, Guard, Subject, Wanted, state_named

_NAME = "case"


class _Guard(Guard):
    def __init__(self, wanted: Wanted) -> None:
        exclude: list[Any] = list(wanted.ignored)
        if wanted.judge_raises:
            exclude.append((Exception, _raise))
        settings = {"default_threshold": wanted.failures, "default_ttl": wanted.sleep_s, "exclude": exclude}
        self._stores = [purgatory.SyncInMemoryUnitOfWork(), purgatory.AsyncInMemoryUnitOfWork()]
        self._sync = purgatory.SyncCircuitBreakerFactory(**settings, uow=self._stores[0])
        self._async = purgatory.AsyncCircuitBreakerFactory(**settings, uow=self._stores[1])
        if wanted.listener is not None:
            hook = _hook(wanted.listener)
            self._sync.add_listener(hook)
            self._async.add_listener(hook)

    def decorate(self, fn: Any) -> Any:
        return self._sync(_NAME)(fn)

    def adecorate(self, fn: Any) -> Any:
        return self._async(_NAME)(fn)

    def block(self) -> Any:
        return self._sync.get_breaker(_NAME)

    def ablock(self) -> Any:
        return _Block(self._async)

    def state(self) -> str:
        for store in self._stores:
            context = store.contexts.breakers.get(_NAME)
            if context is not None:
                return state_named(context.state)
        return "closed"


class _Block:
    """``async with await factory.get_breaker(name)``."""

    def __init__(self, factory: Any) -> None:
        self._factory = factory
        self._breaker: Any = None

    async def __aenter__(self) -> Any:
        self._breaker = await self._factory.get_breaker(_NAME)
        return await self._breaker.__aenter__()

    async def __aexit__(self, *error: object) -> Any:
        return await self._breaker.__aexit__(*error)


class Purgatory(Subject):
    """Counts failures in a row; has no lock."""

    package = "purgatory"
    can = frozenset({Can.SYNC, Can.ASYNC, Can.OVERLAP, Can.BLOCK, Can.LISTENER, Can.JUDGE, Can.REGISTRY})
    refusals = (OpenedState,)

    def make(self, wanted: Wanted) -> Guard:
        return _Guard(wanted)

    def nonsense(self, setting: str, value: Any) -> None:
        factory = purgatory.SyncCircuitBreakerFactory(
            **{{"threshold": "default_threshold", "sleep": "default_ttl"}[setting]: value}
        )
        factory.get_breaker(_NAME)

    def same_name_twice(self) -> tuple[bool, str]:
        factory = purgatory.SyncCircuitBreakerFactory()
        first = factory.get_breaker(_NAME, ttl=1.0)
        second = factory.get_breaker(_NAME, ttl=2.0)
        return first.context is not second.context, "the second gets the first one's settings"


def _hook(tell: Any) -> Any:
    def hook(_name: str, kind: str, event: Any) -> None:
        tell(kind == "state_changed" and event.state == "opened")

    return hook


def _raise(_error: BaseException) -> bool:
    raise RuntimeError("the classifier's own")


SUBJECT = Purgatory
