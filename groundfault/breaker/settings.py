"""The settings of one command: a frozen value, validated as a whole, swapped whole."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

from groundfault.errors import SettingsError
from groundfault.vocabulary import Mode

__all__ = ["BreakerSettings"]

_ON_SATURATED: Final = ("report", "open")
_ISOLATIONS: Final = ("caller", "thread")
_LONGEST_SLEEP_S: Final = 10.0
_PROBES: Final = ("call", "health_check")
_MOST_CALLS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """How one command is protected. All times are seconds.

    Every setting can be changed while the command is in use (``Command.tune``);
    a call keeps the settings it began with, and the windows are kept.
    Raises SettingsError, naming field, value and bound, for anything that makes no sense.

    ``timeout_s``
        A call longer than this is a timeout, which counts against the callee. Default None: no bound.
        Enforced for coroutines, handed to the client library by adapters;
        for plain functions measured, or enforced with ``isolation="thread"``.
    ``slow_call_s``
        A call that returns later than this counts against the callee as one that timed out does; its result is
        returned. Default None: only ``timeout_s`` decides. With both, the smaller one does.
    ``isolation``
        Where a plain function runs: ``caller`` (default), on the thread that calls it;
        or ``thread``, on one of its own, given up when the timeout is over.
        It keeps its place in flight until it really ends, for nothing in Python can stop it.
    ``failure_threshold``
        Share of calls, above 0 and at most 1, whose failing trips the circuit. Default 0.5 (Hystrix).
    ``minimum_volume_per_s``
        A span of windows is judged only if it holds this many calls per second of *one* window:
        ``ceil(minimum_volume_per_s * 10)`` of them. Default 2.0, so 20 calls (Hystrix's request volume threshold).
    ``sleep_window_s``
        How long an open circuit waits for its probe: half of it fixed, half random. Default 5.0 (Hystrix).
    ``max_sleep_window_s``
        The sleep window doubles with every failed probe up to this; at least ``sleep_window_s``.
        Default None: 10.0, or ``sleep_window_s`` if that is more. What doubling saves is one call per process and
        window; what it costs is found out after the outage, when the callee is well and nobody asks it.
    ``max_concurrent``
        Calls in flight at once, at least 1. Default None: unlimited, but still counted.
    ``mode``
        ``enforce`` (default), ``shadow`` (decide, count and report, refuse nothing),
        ``force_open`` (refuse everything), ``force_closed`` (the circuit never trips nor refuses).
    ``honor_handled``
        Whether an annotated 503 is neutral (True) or a failure like any other (False).
        Default None: as the adapter judges the host; a plain command honors it.
    ``handled_patience_s``
        A callee that has only refused for this long is reported as saturated. Default 10.0.
    ``on_saturated``
        ``report`` (default), or ``open``: the circuit opens as well.
    ``ignored_errors``
        Exceptions that say nothing about the callee, for instance ``(KeyError,)``. Default: none.
    ``health_check``
        A plain function; while it returns false or raises, calls are refused. Default None.
        It runs on a thread of its own, never on the path of a call.
    ``health_check_ttl_s``
        How long its answer stands. Default 1.0.
    ``probe``
        What an open circuit sends as its probe when its sleep window is over:
        ``call`` (default), the next call; or ``health_check``, which must be set then: no user's call is risked,
        unless the check hangs for longer than a probe's lease.
    ``fallback_max_concurrent``
        Callable fallbacks of the command that run at once, at least 1; beyond it the original error is raised.
        Default 100 (Hystrix has 10, for pools of ten threads). None: no limit.
    ``fallback_timeout_s``
        A callable fallback that takes longer is given up and the original error raised. Default None: no bound.
        Plain functions run on a thread of their own for it.
    """

    timeout_s: float | None = None
    slow_call_s: float | None = None
    failure_threshold: float = 0.5
    minimum_volume_per_s: float = 2.0
    sleep_window_s: float = 5.0
    max_sleep_window_s: float | None = None
    max_concurrent: int | None = None
    mode: Mode = Mode.ENFORCE
    honor_handled: bool | None = None
    handled_patience_s: float = 10.0
    on_saturated: str = "report"
    ignored_errors: tuple[type[BaseException], ...] = ()
    health_check: Callable[[], bool] | None = None
    health_check_ttl_s: float = 1.0
    isolation: str = "caller"
    probe: str = "call"
    fallback_max_concurrent: int | None = 100
    fallback_timeout_s: float | None = None

    def __post_init__(self) -> None:
        if self.timeout_s is not None:
            self._positive("timeout_s")
        if self.slow_call_s is not None:
            self._positive("slow_call_s")
        share = self._number("failure_threshold", "above 0 and at most 1")
        if not 0 < share <= 1:
            raise _wrong("failure_threshold", "above 0 and at most 1", self.failure_threshold)
        if self._number("minimum_volume_per_s", "at least 0") < 0:
            raise _wrong("minimum_volume_per_s", "at least 0", self.minimum_volume_per_s)
        self._positive("sleep_window_s")
        if self.max_sleep_window_s is not None:
            self._positive("max_sleep_window_s")
            if self.max_sleep_window_s < self.sleep_window_s:
                raise _wrong(
                    "max_sleep_window_s", f"at least sleep_window_s, {self.sleep_window_s:g}", self.max_sleep_window_s
                )
        self._check_concurrency("max_concurrent")
        self._check_mode()
        if self.honor_handled is not None and not isinstance(self.honor_handled, bool):
            raise _wrong("honor_handled", "True, False or None", self.honor_handled)
        self._positive("handled_patience_s")
        self._check_choice("on_saturated", _ON_SATURATED)
        self._check_errors()
        self._check_health()
        self._positive("health_check_ttl_s")
        self._check_choice("isolation", _ISOLATIONS)
        self._check_choice("probe", _PROBES)
        if self.probe == "health_check" and self.health_check is None:
            raise _wrong("probe", "'call' while health_check is None", self.probe)
        self._check_concurrency("fallback_max_concurrent")
        if self.fallback_timeout_s is not None:
            self._positive("fallback_timeout_s")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Build settings from names and values; an unknown name is a SettingsError like any other mistake."""
        return cls(**_known(values))

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """Return these settings with some of them changed, validated as a whole."""
        return type(self)(**{**self.as_dict(), **_known(changes)})

    def as_dict(self) -> dict[str, Any]:
        """Return all settings by name."""
        return {name: getattr(self, name) for name in _NAMES}

    def differences(self, other: Self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what differs between the two, first as it is here, then as it is there."""
        here, there = self.as_dict(), other.as_dict()
        names = [name for name in _NAMES if here[name] != there[name]]
        return {name: here[name] for name in names}, {name: there[name] for name in names}

    @property
    def minimum_volume(self) -> int:
        """Calls that a span of windows must hold to be judged, at least 1."""
        # Rounded first: 1.1 * 10 is 11.000000000000002 in binary, and nobody means twelve by it.
        return max(1, math.ceil(round(self.minimum_volume_per_s * 10.0, 9)))

    @property
    def slow_after_s(self) -> float:
        """How long a call may take and still be a success; infinite without a bound."""
        return min(math.inf if bound is None else bound for bound in (self.timeout_s, self.slow_call_s))

    @property
    def longest_sleep_s(self) -> float:
        """Where the doubling of the sleep window ends."""
        limit_s = self.max_sleep_window_s
        return max(_LONGEST_SLEEP_S, self.sleep_window_s) if limit_s is None else limit_s

    @property
    def lease_s(self) -> float:
        """How long a probe may hold its slot: no call may take longer than its timeout, so none needs more."""
        return max(self.timeout_s or 0.0, self.sleep_window_s)

    def _number(self, name: str, bound: str) -> float:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _wrong(name, f"a number {bound}", value)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise _wrong(name, f"finite and {bound}", value)
        object.__setattr__(self, name, number)
        return number

    def _positive(self, name: str) -> None:
        value = getattr(self, name)
        if self._number(name, "above 0") <= 0:
            raise _wrong(name, "above 0", value)

    def _check_choice(self, name: str, allowed: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if not isinstance(value, str) or value not in allowed:
            raise _wrong(name, " or ".join(map(repr, allowed)), value)

    def _check_concurrency(self, name: str) -> None:
        limit = getattr(self, name)
        if limit is None:
            return
        if isinstance(limit, bool) or not isinstance(limit, int):
            raise _wrong(name, "a whole number of at least 1, or None", limit)
        if not 1 <= limit <= _MOST_CALLS:
            raise _wrong(name, f"at least 1 and at most {_MOST_CALLS}" if limit > 1 else "at least 1", limit)

    def _check_mode(self) -> None:
        allowed = "'enforce', 'shadow', 'force_open' or 'force_closed'"
        try:
            mode = Mode(self.mode)
        except ValueError:
            raise _wrong("mode", allowed, self.mode) from None
        if mode is Mode.OFF:
            raise _wrong("mode", f"{allowed}; to switch everything off, set GROUNDFAULT_DISABLED=1", str(mode))
        object.__setattr__(self, "mode", mode)

    def _check_errors(self) -> None:
        errors: object = self.ignored_errors
        if not isinstance(errors, tuple) or not all(_is_error_type(error) for error in errors):
            raise _wrong("ignored_errors", "a tuple of exception types", errors)

    def _check_health(self) -> None:
        check = self.health_check
        if check is None:
            return
        if not callable(check):
            raise _wrong("health_check", "a function without parameters, or None", check)
        if inspect.iscoroutinefunction(check) or inspect.iscoroutinefunction(getattr(check, "__call__", None)):  # noqa: B004  not a test for callability
            raise _wrong("health_check", "a plain function, for it runs on a thread", check)


_NAMES: Final = tuple(field.name for field in fields(BreakerSettings))


def _is_error_type(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    for name in values:
        if name not in _NAMES:
            raise SettingsError(f"{name} is no setting of a command; there are {', '.join(_NAMES)}")
    return dict(values)


def _wrong(name: str, bound: str, value: object) -> SettingsError:
    return SettingsError(f"{name} must be {bound}, not {value!r}")
