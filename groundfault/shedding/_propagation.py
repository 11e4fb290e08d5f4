"""What a service answers when a call it made for the request ended badly. One table for both protocols.

==========================================================  =================
what happened                                               reason
==========================================================  =================
the circuit to a dependency is open                         ``circuit-open``
the throttle held the call back                             ``throttled``
bulkhead full, unhealthy, shed by it, timed out, failed     ``dependency``
==========================================================  =================

The fault is counted already by the circuit next to it; the annotated 503 keeps every other circuit from counting it.
The origin stays the service that refused first, where it is known.
"""

from typing import Final, NamedTuple

from groundfault._context import Fault, RequestContext
from groundfault.errors import CircuitOpenError, GroundFaultError, SettingsError, ShedError, ThrottledError
from groundfault.refusals import refusal_in
from groundfault.vocabulary import Outcome, Reason

__all__ = ["PASSED_ON", "Verdict", "of_error", "of_status"]

PASSED_ON: Final = frozenset({502, 503, 504})
"""Answers by which applications say that something below them failed. A 500 speaks about the application itself."""


class Verdict(NamedTuple):
    """What the annotated 503 says."""

    reason: Reason
    origin: str


def of_error(error: BaseException, context: RequestContext) -> Verdict | None:
    """Return what to answer instead of raising ``error``, or None if no call for this request stands behind it."""
    if isinstance(error, GroundFaultError):
        if isinstance(error, SettingsError):
            return None  # a mistake in the code that serves, not in what it calls
        origin = error.origin if isinstance(error, ShedError) else None
        return Verdict(_reason_of_error(error), origin or context.service)
    fault = context.fault_behind(error)
    if fault is not None:
        return _of_fault(fault, context)
    refusal = refusal_in(error)
    if refusal is not None:
        return Verdict(Reason.DEPENDENCY, refusal.origin or context.service)
    return None


def of_status(status: int, context: RequestContext) -> Verdict | None:
    """Return how to annotate an answer the application gave itself, or None to leave it as it is."""
    if status not in PASSED_ON or not context.faults:
        return None
    return _of_fault(context.faults[-1], context)


def _of_fault(fault: Fault, context: RequestContext) -> Verdict:
    if fault.outcome is Outcome.CIRCUIT_OPEN:
        reason = Reason.CIRCUIT_OPEN
    elif fault.outcome is Outcome.THROTTLED:
        reason = Reason.THROTTLED
    else:
        reason = Reason.DEPENDENCY
    return Verdict(reason, fault.origin or context.service)


def _reason_of_error(error: GroundFaultError) -> Reason:
    if isinstance(error, CircuitOpenError):
        return Reason.CIRCUIT_OPEN
    if isinstance(error, ThrottledError):
        return Reason.THROTTLED
    return Reason.DEPENDENCY
