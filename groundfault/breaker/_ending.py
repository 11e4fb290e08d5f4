"""How a call ended: what an exception means, and what is said about it afterwards."""

from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Any, Final

from groundfault import _context
from groundfault._clock import monotonic
from groundfault.breaker._machine import AGAINST
from groundfault.breaker._rolling import MADE
from groundfault.breaker.settings import BreakerSettings
from groundfault.errors import RejectedError, ShedError
from groundfault.events import CommandDone, CommandFailing, note_internal_error
from groundfault.refusals import refusal_in
from groundfault.sinks import Sinks
from groundfault.vocabulary import Outcome, Reason
from groundfault.wire import Refusal

__all__ = ["Ending", "classify_error", "classify_result", "had_time", "made", "report", "within_timeout"]

_RECOVERABLE = frozenset(Outcome) - {Outcome.SUCCESS, Outcome.IGNORED}

_REASONS = {Outcome.CIRCUIT_OPEN: Reason.CIRCUIT_OPEN, Outcome.THROTTLED: Reason.THROTTLED}

_TELL_S: Final = 60.0
_told: dict[tuple[str, str], float] = {}  # as long as there are commands: their number is bounded

# Interruptions that come from the process or from a generator's consumer and never from a deadline.
_UNTIMED = (KeyboardInterrupt, SystemExit, GeneratorExit)


# Results that other errors may hold as well: "is this the very object" would find a fault behind KeyError(0).
_SHARED = (int, float, complex, str, bytes, tuple, frozenset, Enum)


class Ending:
    """One call's end. ``carrier`` is the exception or response that the application sees of it.

    ``shadowed`` is the refusal that shadow mode did not carry out, None everywhere else.
    ``late`` is true where the application has its result after all, only later than ``timeout_s``.
    """

    __slots__ = ("carrier", "duration_s", "late", "outcome", "refusal", "shadowed")

    def __init__(
        self,
        outcome: Outcome,
        duration_s: float,
        *,
        carrier: object = None,
        refusal: Refusal | None = None,
        shadowed: Outcome | None = None,
        late: bool = False,
    ) -> None:
        self.outcome = outcome
        self.duration_s = duration_s
        self.carrier = carrier
        self.refusal = refusal
        self.shadowed = shadowed
        self.late = late

    @property
    def recoverable(self) -> bool:
        """True if it is a fault of the request being served, unless a fallback makes it good."""
        return self.outcome in _RECOVERABLE and not self.late

    @property
    def replaceable(self) -> bool:
        """True if a fallback may take its place. A cancellation goes on, whatever it says about the callee.

        A rejection or shed of a command inside says nothing about this one's callee, and leaves the caller without.
        """
        carrier = self.carrier
        if self.outcome is Outcome.IGNORED and isinstance(carrier, (RejectedError, ShedError)):
            return True
        return self.recoverable and (not isinstance(carrier, BaseException) or isinstance(carrier, Exception))


def classify_error(
    error: BaseException, settings: BreakerSettings, duration_s: float, *, capped: bool = False
) -> tuple[Outcome, Refusal | None]:
    """Say what an exception out of a call means for the callee.

    ``capped``: the request's budget, not ``timeout_s``, bounded the call.
    A refusal that took longer than ``timeout_s`` is a timeout, annotated or not.
    """
    try:
        return _classify_error(error, settings, duration_s, capped=capped)
    except Exception as own:  # noqa: BLE001  a stranger's exception may raise from any attribute
        note_internal_error("classification of an error", own)
        return Outcome.FAILURE, None


def _classify_error(
    error: BaseException, settings: BreakerSettings, duration_s: float, *, capped: bool
) -> tuple[Outcome, Refusal | None]:
    outcome, refusal = Outcome.FAILURE, None
    too_long = settings.timeout_s is not None and duration_s > settings.timeout_s
    if isinstance(error, (RejectedError, ShedError, *settings.ignored_errors)):
        # The first two come from a nested command, whose own breaker has already taken note.
        outcome = Outcome.IGNORED
    elif not isinstance(error, Exception):
        # A cancellation, whatever the framework calls it: somebody stopped waiting.
        # That says nothing about the callee, unless it had been given all its time already.
        outcome = Outcome.TIMEOUT if too_long and not isinstance(error, _UNTIMED) else Outcome.IGNORED
    elif isinstance(error, TimeoutError):
        outcome = Outcome.IGNORED if capped and not had_time(settings, duration_s) else Outcome.TIMEOUT
    elif settings.honor_handled is not False:
        refusal = refusal_in(error)
        if refusal is not None:
            outcome = Outcome.TIMEOUT if too_long else Outcome.SHED
    return outcome, refusal


def had_time(settings: BreakerSettings, duration_s: float) -> bool:
    """Whether a callee that ran into the budget of the request being served had long enough to be held to account.

    Half of its own timeout. If no such call counted, a callee that hangs at the end of a chain of equal timeouts would
    never trip, for each hop leaves a little less; if all did, callers in a hurry could trip the circuit for everybody.
    """
    return settings.timeout_s is not None and duration_s >= settings.timeout_s / 2


def classify_result(
    result: Any, classify: Callable[[Any], Outcome | None] | None, settings: BreakerSettings, duration_s: float
) -> tuple[Outcome, bool]:
    """Say what a result means for the callee, and whether it is a good one that only came too late."""
    outcome = Outcome.SUCCESS
    if classify is not None:
        try:
            outcome = made(classify(result) or Outcome.SUCCESS)
        except Exception as error:  # noqa: BLE001  a classifier changes no call's fate
            note_internal_error("classifier", error)
            return Outcome.FAILURE, False
    return within_timeout(outcome, settings, duration_s)


def within_timeout(outcome: Outcome, settings: BreakerSettings, duration_s: float) -> tuple[Outcome, bool]:
    """Turn an outcome into what the settings make of it: too late is a timeout, and not every shed is honored."""
    if outcome is Outcome.SHED and settings.honor_handled is False:
        outcome = Outcome.FAILURE
    if outcome is Outcome.SUCCESS and duration_s > settings.slow_after_s:
        return Outcome.TIMEOUT, True
    if outcome is Outcome.SHED and settings.timeout_s is not None and duration_s > settings.timeout_s:
        return Outcome.TIMEOUT, False
    return outcome, False


def made(outcome: Outcome) -> Outcome:
    """Return the outcome if it is one of calls that were made. Raises ValueError for any other."""
    if outcome not in MADE:
        raise ValueError(f"a call that was made ends as one of {', '.join(sorted(MADE))}, not {outcome}")
    return Outcome(outcome)


def report(resource: str, command: str, ending: Ending, sinks: Sinks, *, fallback: bool) -> None:
    """Write the end of a call into the ledger of the request being served, and tell the sinks."""
    context = _context.current()
    outcome, refusal, carrier = ending.outcome, ending.refusal, ending.carrier
    if context is not None and (fallback or ending.recoverable):
        if fallback:
            context.recover(carrier)
        else:
            reason = _REASONS.get(outcome, Reason.DEPENDENCY)
            origin = refusal.origin if refusal is not None and outcome is Outcome.SHED else None
            kept = None if isinstance(carrier, _SHARED) else carrier
            context.note(_context.Fault(resource, command, outcome, reason, origin, kept))
    if outcome in AGAINST and ending.shadowed is None:
        _tell_failing(resource, command, ending, sinks)
    if sinks.commands:
        sinks.command(
            CommandDone(
                resource,
                command,
                ending.shadowed or outcome,
                ending.duration_s,
                reason=refusal.reason if refusal is not None else None,
                origin=refusal.origin if refusal is not None else None,
                error_type=type(carrier).__name__ if isinstance(carrier, BaseException) else None,
                fallback=fallback,
                enforced=ending.shadowed is None,
                caller=context.caller if context is not None else None,
                traceparent=context.traceparent if context is not None else None,
            )
        )


def _tell_failing(resource: str, command: str, ending: Ending, sinks: Sinks) -> None:
    now, name = monotonic(), (resource, command)
    last = _told.get(name)
    if last is not None and now - last < _TELL_S:
        return
    _told[name] = now
    carrier = ending.carrier
    error_type = type(carrier).__name__ if isinstance(carrier, BaseException) else None
    status = None
    with suppress(Exception):  # an attribute of a stranger's object may raise
        status = getattr(carrier, "status_code", None) or getattr(carrier, "status", None)
    sinks.change(
        CommandFailing(
            resource,
            command,
            ending.outcome,
            ending.duration_s,
            error_type,
            status if isinstance(status, int) else None,
            _context.trace(),
        )
    )
