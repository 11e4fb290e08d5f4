"""Every error this package raises.

::

    GroundFaultError
    ├── SettingsError            a setting that makes no sense; also a ValueError
    ├── RejectedError            the call was never made
    │   ├── CircuitOpenError
    │   ├── BulkheadFullError
    │   ├── ThrottledError
    │   └── UnhealthyError
    ├── ShedError                the call was made and the callee refused it with an annotated 503
    └── CommandTimeoutError      the call took longer than its timeout; also a TimeoutError

An adapter raises subclasses that are also the host library's own "never completed" error.
All of them pickle, and every rejection is a fresh instance, so no traceback grows.
"""

from typing import Any

from groundfault.vocabulary import Reason

__all__ = [
    "BulkheadFullError",
    "CircuitOpenError",
    "CommandTimeoutError",
    "GroundFaultError",
    "RejectedError",
    "SettingsError",
    "ShedError",
    "ThrottledError",
    "UnhealthyError",
]


class GroundFaultError(Exception):
    """The base of all errors raised here."""


class SettingsError(GroundFaultError, ValueError):
    """A setting out of its bounds, unknown, or in conflict with an earlier one. Names field, value and bound."""


class RejectedError(GroundFaultError):
    """A call that was never made.

    Built as ``RejectedError(resource, command, detail)``; there is no Python-level constructor,
    because a refusal must stay cheaper than the call it refuses.
    """

    args: tuple[Any, ...]
    _template = "{0}/{1} was rejected"

    @property
    def resource(self) -> str:
        """Name of the resource."""
        return str(self.args[0])

    @property
    def command(self) -> str:
        """Name of the command."""
        return str(self.args[1])

    def __str__(self) -> str:
        return self._template.format(*self.args)


class CircuitOpenError(RejectedError):
    """The circuit is open, or half-open with its probe out. ``args[2]``: seconds until a probe may be sent."""

    _template = "circuit {0}/{1} is open; next probe in {2:.1f} s"

    @property
    def retry_after_s(self) -> float:
        """Seconds until the next probe may be sent; 0.0 while one is out."""
        return float(self.args[2])


class BulkheadFullError(RejectedError):
    """As many calls are in flight as allowed. ``args[2]``: that limit."""

    _template = "{0}/{1} already has {2} calls in flight, its limit"

    @property
    def max_concurrent(self) -> int:
        """The limit that was reached."""
        return int(self.args[2])


class ThrottledError(RejectedError):
    """The callee is shedding, so only a share of the calls is sent. ``args[2]``: that share, in (0, 1)."""

    _template = "{0}/{1} is throttled: its callee is shedding, {2:.0%} of the calls are sent"

    @property
    def admitted_share(self) -> float:
        """Share of the calls that are sent at present."""
        return float(self.args[2])


class UnhealthyError(RejectedError):
    """The command's health check says no."""

    _template = "{0}/{1} was not called: its health check fails"


class ShedError(GroundFaultError):
    """The callee answered with an annotated 503: it, or something below it, refused on purpose.

    ``response`` is the client library's response, or None; it does not survive pickling.
    """

    def __init__(
        self,
        resource: str,
        command: str,
        reason: Reason | None = None,
        origin: str | None = None,
        response: Any = None,
    ) -> None:
        # First, because a host library's base class beside this one sets a `response` of its own.
        super().__init__(f"{resource}/{command} was shed by {origin or 'its callee'} ({reason or 'no reason given'})")
        self.resource = resource
        self.command = command
        self.reason = reason
        self.origin = origin
        self.response = response

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.resource, self.command, self.reason, self.origin)


class CommandTimeoutError(GroundFaultError, TimeoutError):
    """The call took longer than ``timeout_s`` seconds; with 0.0 it was not made, for its caller has given up."""

    def __init__(self, resource: str, command: str, timeout_s: float) -> None:
        super().__init__(
            f"{resource}/{command} took longer than its timeout of {timeout_s:g} s"
            if timeout_s > 0
            else f"{resource}/{command} was not called: the request being served has no time left"
        )
        self.resource = resource
        self.command = command
        self.timeout_s = timeout_s

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.resource, self.command, self.timeout_s)
