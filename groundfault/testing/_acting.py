"""How a command's calls are made to fail, to be shed or to take long, without a line of it on their path.

The only place here that knows what a command holds.
A command that acts has its course and its gate replaced by ones of another class, in place,
so functions that were decorated long ago act as well, and nothing is slower where nothing acts.
Their gate says that every call needs attention, which sends it to ``attended_call``;
attempts and generators do not pass there, so as long as anything acts they are entered through :func:`_enter`.
"""

import math
import threading
from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import dataclass
from typing import Any, Final

from groundfault import _context
from groundfault.breaker import Attempt, BreakerSettings, Command
from groundfault.breaker._course import LEAST_TIMEOUT_S, Course
from groundfault.breaker._gate import Gate
from groundfault.breaker._machine import Permit
from groundfault.breaker._period import Period
from groundfault.breaker._refused import Refused
from groundfault.errors import CommandTimeoutError, ShedError
from groundfault.vocabulary import Outcome, Reason
from groundfault.wire import REASON, SHED_STATUS, Refusal, annotations

__all__ = ["LOCK", "Act", "act", "course_of", "take_over"]

LOCK: Final = threading.RLock()
"""Guards what is replaced while a block is entered or left. Re-entrant, for tuning a command tells sinks."""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Act:
    """What the calls of a command do. ``error`` is given the names of resource and command."""

    takes_s: float | None = None
    error: Callable[[str, str], BaseException] | None = None


_acts: Final[dict[Gate, list[Act]]] = {}


def course_of(command: Command) -> Course:
    """Return what a command's decorated functions hold on to."""
    course: Course = command._course  # noqa: SLF001  the one door to what a command holds
    return course


def act(command: Command, what: Act) -> Callable[[], None]:
    """Have a command's calls do ``what``, before what they do already; return what ends it."""
    course = course_of(command)
    with LOCK:
        if not _acts:
            Attempt.enter = _enter  # type: ignore[method-assign]  # put back when nothing acts any more
        acts = _acts.setdefault(course.gate, [])
        acts.append(what)
        course.gate.__class__ = _ActingGate
        course.__class__ = _ActingCourse

    def end() -> None:
        with LOCK:
            acts.remove(what)
            if not acts:
                for gate in [gate for gate, each in _acts.items() if each is acts]:
                    del _acts[gate]
                    gate.__class__ = Gate
            if course.gate not in _acts:
                course.__class__ = Course
            if not _acts:
                Attempt.enter = _PLAIN_ENTER  # type: ignore[method-assign]  # as above

    return end


def take_over(old: Gate, new: Gate) -> None:
    """Have the gate ``new`` act as ``old`` does, for it takes its place."""
    with LOCK:
        if old in _acts:
            _acts[new] = _acts[old]
            new.__class__ = old.__class__


def _latest_first(gate: Gate) -> list[Act]:
    # A copy, made at once: an iterator over the list itself would stop early where another thread ends its own.
    return _acts.get(gate, [])[::-1]


def _takes_s(gate: Gate) -> float:
    return next((each.takes_s for each in _latest_first(gate) if each.takes_s is not None), 0.0)


def _error(gate: Gate) -> BaseException | None:
    """Return what the call is to raise, made anew for each."""
    make = next((each.error for each in _latest_first(gate) if each.error is not None), None)
    return None if make is None else make(gate.resource, gate.command)


_PERIOD: Final[Any] = Gate.__dict__["period"]


class _ActingGate(Gate):
    """A gate that attends to every call."""

    __slots__ = ()

    @property
    def period(self) -> Period:
        """The period, except that no call may go ahead or be refused without the gate."""
        period: Period = copy(_PERIOD.__get__(self))
        period.quiet_limit = -1
        period.refuses_until = -math.inf
        return period

    @period.setter
    def period(self, period: Period) -> None:
        _PERIOD.__set__(self, period)


class _Answered503Error(Exception):
    """What a client library raises for the annotated 503 that stands behind ``shed``; never leaves this module."""

    def __init__(self, shed: ShedError) -> None:
        super().__init__(str(shed))
        self.shed = shed
        self.status = SHED_STATUS
        self.headers = dict(annotations(shed.reason or Reason.QUEUE_WAIT, shed.origin))
        if shed.reason is None:
            del self.headers[REASON]


_Answered503Error.__name__ = "ShedError"  # as which events name it: that is what the caller gets


class _ActingCourse(Course):
    """A course whose calls do what was asked for, and are otherwise judged and counted as ever."""

    __slots__ = ()

    def attended_call(self, started: float, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        error = self._instead(started, enforced=getattr(self.gate.settings, "isolation", "caller") == "thread")
        try:
            return super().attended_call(started, fn if error is None else _raising(error), args, kwargs)
        except _Answered503Error as answered:
            raise answered.shed from answered

    async def attended_acall(self, started: float, fn: Callable[..., Awaitable[Any]], args: Any, kwargs: Any) -> Any:
        error = self._instead(started, enforced=True)
        try:
            return await super().attended_acall(started, fn if error is None else _araising(error), args, kwargs)
        except _Answered503Error as answered:
            raise answered.shed from answered

    def _instead(self, started: float, *, enforced: bool) -> BaseException | None:
        """Return what a call raises in place of being made, if anything."""
        gate = self.gate
        if enforced and (bound_s := _bound_s(gate.settings, started)) is not None and _takes_s(gate) > bound_s:
            return CommandTimeoutError(gate.resource, gate.command, bound_s)
        error = _error(gate)
        return _Answered503Error(error) if isinstance(error, ShedError) else error

    # A call that takes long has begun that much earlier: nothing happens in the future, not even on a clock that
    # stands still.

    def returned(self, permit: Permit, settings: BreakerSettings, started: float, *rest: Any, **more: Any) -> Any:
        return super().returned(permit, settings, started - _takes_s(self.gate), *rest, **more)

    async def areturned(
        self, permit: Permit, settings: BreakerSettings, started: float, *rest: Any, **more: Any
    ) -> Any:
        return await super().areturned(permit, settings, started - _takes_s(self.gate), *rest, **more)

    def failed(
        self,
        permit: Permit,
        settings: BreakerSettings,
        started: float,
        error: BaseException,
        *rest: Any,
        **more: Any,
    ) -> Any:
        return super().failed(permit, settings, started - self._took_s(error), error, *rest, **more)

    async def afailed(
        self,
        permit: Permit,
        settings: BreakerSettings,
        started: float,
        error: BaseException,
        *rest: Any,
        **more: Any,
    ) -> Any:
        return await super().afailed(permit, settings, started - self._took_s(error), error, *rest, **more)

    def _took_s(self, error: BaseException) -> float:
        """Say how long a call took that raised: one that ran into its bound, no longer than that."""
        takes_s = _takes_s(self.gate)
        return min(takes_s, error.timeout_s) if isinstance(error, CommandTimeoutError) else takes_s


def _bound_s(settings: BreakerSettings, started: float) -> float | None:
    """Return how long a call may take where that is enforced, as ``Course.bounded`` has it."""
    context = _context.current()
    if context is None or context.deadline is None:
        return settings.timeout_s
    left_s = max(context.deadline - started, LEAST_TIMEOUT_S)
    return left_s if settings.timeout_s is None else min(settings.timeout_s, left_s)


def _raising(error: BaseException) -> Callable[..., Any]:
    def fn(*_args: Any, **_kwargs: Any) -> Any:
        raise error

    return fn


def _araising(error: BaseException) -> Callable[..., Awaitable[Any]]:
    async def fn(*_args: Any, **_kwargs: Any) -> Any:
        raise error

    return fn


_PLAIN_ENTER: Final = Attempt.enter


def _enter(self: Attempt) -> Refused | None:
    """Enter an attempt; if its command acts, end it as its call would have ended."""
    refused = _PLAIN_ENTER(self)
    gate = self._gate
    if refused is not None or gate not in _acts:
        return refused
    self.excuse(-_takes_s(gate))
    error = _error(gate)
    if error is None:
        return None
    if isinstance(error, ShedError):
        self.settle(Outcome.SHED, refusal=Refusal(error.reason, error.origin), carrier=error)
    else:
        self.fail_with(error)
    raise error
