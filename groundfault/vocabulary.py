"""The words both halves share, as enums.

The values of :class:`Reason` and :class:`Criticality` travel on the wire;
docs/reference/wire-protocol.md says what each obliges the other side to do.
"""

from enum import StrEnum

__all__ = ["Criticality", "Mode", "Outcome", "Reason", "State"]


class State(StrEnum):
    """Where a circuit stands (Nygard, *Release It!*)."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Outcome(StrEnum):
    """How one call through a command ended.

    The first five were made, the last four never were.
    Only ``FAILURE`` and ``TIMEOUT`` speak against the callee and only ``SUCCESS`` speaks for it;
    all others are neutral: outside the failure rate, outside the volume, outside the latency statistics.
    """

    SUCCESS = "success"
    FAILURE = "failure"
    TIMEOUT = "timeout"
    SHED = "shed"
    IGNORED = "ignored"
    CIRCUIT_OPEN = "circuit-open"
    BULKHEAD_FULL = "bulkhead-full"
    THROTTLED = "throttled"
    UNHEALTHY = "unhealthy"


class Reason(StrEnum):
    """Why a service answered with an annotated 503."""

    QUEUE_WAIT = "queue-wait"
    DEADLINE = "deadline"
    CONCURRENCY = "concurrency"
    DRAINING = "draining"
    CIRCUIT_OPEN = "circuit-open"
    THROTTLED = "throttled"
    DEPENDENCY = "dependency"

    @property
    def refused_here(self) -> bool:
        """True if the answering service itself refused and did nothing, false if it passes on a fault below it."""
        return self in _REFUSED_HERE

    @property
    def retryable(self) -> bool:
        """True if one retry on another replica, within a budget, is safe and may help."""
        return self in _REFUSED_HERE and self is not Reason.DEADLINE


_REFUSED_HERE = frozenset({Reason.QUEUE_WAIT, Reason.DEADLINE, Reason.CONCURRENCY, Reason.DRAINING})


class Criticality(StrEnum):
    """How late a request is shed; the four classes of the SRE book, chapter 21.

    ``CRITICAL`` is the default for a request that says nothing.
    """

    CRITICAL_PLUS = "critical-plus"
    CRITICAL = "critical"
    SHEDDABLE_PLUS = "sheddable-plus"
    SHEDDABLE = "sheddable"

    @property
    def rank(self) -> int:
        """0 for the traffic shed last, 3 for the traffic shed first."""
        return _RANK[self]


_RANK = {criticality: rank for rank, criticality in enumerate(Criticality)}


class Mode(StrEnum):
    """How far a component acts on its decisions.

    ``SHADOW`` decides, counts and reports as ``ENFORCE`` does but refuses nothing.
    ``OFF`` exists for the server half, ``FORCE_OPEN`` and ``FORCE_CLOSED`` for a circuit.
    """

    ENFORCE = "enforce"
    SHADOW = "shadow"
    OFF = "off"
    FORCE_OPEN = "force_open"
    FORCE_CLOSED = "force_closed"
