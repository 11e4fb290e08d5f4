"""What a service knows about the request it is serving, and which of its calls ended badly.

The server half opens a :class:`RequestContext`; the client half reads the budget and the propagated headers from it
and writes faults into its ledger. Without a request being served there is no context and nothing is kept.

One context variable holds one mutable object:
contexts are copied into worker threads and tasks, so an endpoint that runs elsewhere still writes into the same ledger.
"""

from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple

from groundfault.vocabulary import Criticality, Outcome, Reason

__all__ = ["LEDGER_LIMIT", "Fault", "RequestContext", "criticality", "current", "serving", "trace"]

LEDGER_LIMIT = 16
"""Faults kept per request. The newest is the one that is answered with; older ones are kept for their errors."""


class Fault(NamedTuple):
    """One call that ended badly for the request and was not made good by a fallback.

    ``carrier`` is what the application saw of it, an exception or a response:
    an error that reaches the server half is put down to this fault only if it is, or comes from, that very object.
    """

    resource: str
    command: str
    outcome: Outcome
    reason: Reason
    origin: str | None
    carrier: object


@dataclass(slots=True)
class RequestContext:
    """The request being served. All times are seconds; ``deadline`` is a reading of the monotonic clock.

    ``at_thread`` is called once, when a worker thread could begin on the request, and raises if it has come too late.
    """

    service: str
    deadline: float | None = None
    criticality: Criticality | None = None
    key: str | None = None
    caller: str | None = None
    traceparent: str | None = None
    faults: list[Fault] = field(default_factory=list)
    at_thread: Callable[[], None] | None = None

    def note(self, fault: Fault) -> None:
        """Write a fault into the ledger. Threads may call this at once: each of the two list operations is atomic."""
        self.faults.append(fault)
        del self.faults[:-LEDGER_LIMIT]

    def recover(self, carrier: object) -> None:
        """Strike out the faults that ``carrier`` stands for: a fallback further out has made them good.

        An error stands for those behind it too: ``raise_for_status()`` puts another one around the response.
        """
        self._strike_out(carrier)
        if isinstance(carrier, BaseException):
            for _ in range(LEDGER_LIMIT):
                fault = self.fault_behind(carrier)
                if fault is None:
                    break
                self._strike_out(fault.carrier)

    def _strike_out(self, carrier: object) -> None:
        if carrier is None:  # says nothing about which fault is meant
            return
        for place in range(len(self.faults) - 1, -1, -1):  # backwards: what is struck out moves nothing still to come
            with suppress(IndexError):  # another thread has just struck one out, or the ledger was full
                if self.faults[place].carrier is carrier:
                    del self.faults[place]

    def end(self) -> None:
        """Forget everything: tasks and threads that the request has started may live on for as long as the process.

        The budget was its caller's, who has the answer; the key was its user's;
        and carriers are exceptions, whose tracebacks lead back to the request.
        """
        self.deadline = self.criticality = self.key = self.caller = self.traceparent = self.at_thread = None
        self.faults.clear()

    def fault_behind(self, error: BaseException) -> Fault | None:
        """Return the fault that ``error`` is, explicitly comes from, wraps, or carries the response of; else None.

        A group of errors (``asyncio.TaskGroup``) is put down to a fault only if each of its members is.
        """
        return self._fault_behind(error, LEDGER_LIMIT) if self.faults else None

    def _fault_behind(self, error: BaseException | None, hops: int) -> Fault | None:
        if error is None or hops == 0:  # a chain of causes may be a ring
            return None
        fault = self._fault_of(error)
        if fault is not None:
            return fault
        if not isinstance(error, BaseExceptionGroup):
            return self._fault_behind(error.__cause__, hops - 1)
        for member in error.exceptions:
            fault = self._fault_behind(member, hops - 1)
            if fault is None:
                return None
        return fault

    def _fault_of(self, error: BaseException) -> Fault | None:
        try:
            # The arguments too: requests wraps urllib3's error in its own without naming it as the cause.
            seen: tuple[object, ...] = (error, getattr(error, "response", None), *error.args)
            # And the headers: they are all that aiohttp's error keeps of the response.
            headers = getattr(error, "headers", None)
        except Exception:  # noqa: BLE001  a property of a stranger's error may raise; then it carries nothing
            seen, headers = (error,), None
        for fault in reversed(self.faults):
            carrier = fault.carrier
            if carrier is not None and any(thing is carrier for thing in seen):
                return fault
            if headers is not None and _headers_of(carrier) is headers:
                return fault
        return None


def _headers_of(carrier: object) -> object:
    try:
        return getattr(carrier, "headers", None)
    except Exception:  # noqa: BLE001  as above
        return None


serving: ContextVar[RequestContext | None] = ContextVar("groundfault_serving", default=None)


def current() -> RequestContext | None:
    """Return the request being served here, or None."""
    return serving.get()


def criticality() -> Criticality | None:
    """Return how much the request being served here matters, or None."""
    context = serving.get()
    return context.criticality if context is not None else None


def trace() -> str | None:
    """Return the ``traceparent`` of the request being served here, or None."""
    context = serving.get()
    return context.traceparent if context is not None else None
