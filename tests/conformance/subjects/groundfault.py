"""GroundFault. A guard is a command of a registry of its own."""

import random
from typing import Any

from conformance.subject import Can, Guard, Subject, Wanted, state_named
from groundfault import Command, RejectedError, Resource, SettingsError, State
from groundfault._clock import monotonic
from groundfault.breaker import BreakerSettings, Registry
from groundfault.events import CircuitChanged
from groundfault.sinks import Sinks

_WINDOW_S = 10.0


class _Guard(Guard):
    def __init__(self, command: Command) -> None:
        self.command = command
        self.call = command.call
        self.acall = command.acall
        self.decorate = command
        self.block = command.attempt

    def ablock(self) -> Any:
        return _Entered(self.command)

    def state(self) -> str:
        return state_named(self.command.snapshot().state)

    def tune(self, **changes: Any) -> None:
        named = {
            "failures": lambda value: {"minimum_volume_per_s": value / _WINDOW_S},
            "sleep_s": lambda value: {"sleep_window_s": value, "max_sleep_window_s": value},
            "limit": lambda value: {"max_concurrent": value},
        }
        self.command.tune(**{key: value for name, one in changes.items() for key, value in named[name](one).items()})


class _Entered:
    """``with`` is right in coroutines; this only gives it the form that the case asks for."""

    def __init__(self, command: Command) -> None:
        self._attempt = command.attempt()

    async def __aenter__(self) -> Any:
        return self._attempt.__enter__()

    async def __aexit__(self, *error: object) -> None:
        self._attempt.__exit__(*error)


class GroundFault(Subject):
    """All it has."""

    package = "groundfault"
    can = frozenset(Can)
    refusals = (RejectedError,)

    def make(self, wanted: Wanted) -> Guard:
        settings: dict[str, Any] = {
            "minimum_volume_per_s": wanted.failures / _WINDOW_S,
            "failure_threshold": 0.5,
            "sleep_window_s": wanted.sleep_s,
            "max_sleep_window_s": wanted.max_sleep_s or 2 * wanted.sleep_s,
            "ignored_errors": wanted.ignored,
            "timeout_s": wanted.timeout_s,
            "max_concurrent": wanted.limit,
        }
        if wanted.max_sleep_s is None:
            settings["max_sleep_window_s"] = wanted.sleep_s
        if wanted.fallback is not None:
            settings["fallback"] = wanted.fallback
        if wanted.judge_raises:
            settings["classify"] = _raise
        sinks = Sinks.direct(*([] if wanted.listener is None else [_sink(wanted.listener)]))
        registry = Registry(clock=self.clock or monotonic, draw=_draw.random)
        return _Guard(Resource("conformance", registry=registry, sinks=sinks).command("case", **settings))

    def nonsense(self, setting: str, value: Any) -> None:
        BreakerSettings(**{{"threshold": "failure_threshold", "sleep": "sleep_window_s"}[setting]: value})

    def same_name_twice(self) -> tuple[bool, str]:
        resource = Resource("conformance", registry=Registry(), sinks=[])
        first = resource.command("case", sleep_window_s=1.0)
        try:
            resource.command("case", sleep_window_s=2.0)
        except SettingsError:
            return resource.command("case") is first, "the second is told with an error"
        return False, "the second gets the first one's settings"


def _sink(tell: Any) -> Any:
    def sink(event: Any) -> None:
        tell(isinstance(event, CircuitChanged) and event.new is State.OPEN)

    return sink


_draw = random.Random(7)  # the jitter is real, its draws are the same in every run


def _raise(_result: object) -> None:
    raise RuntimeError("the classifier's own")


SUBJECT = GroundFault
