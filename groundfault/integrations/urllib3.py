"""The chokepoint for urllib3: a pool manager.

::

    saber = GroundFaultPoolManager("saber", timeout_s=0.5)
    response = saber.request("GET", "http://saber/scores")

One manager is for one callee: each hop to its host is one call of a command.
What a redirect leads to on another host is another callee's, and is sent as by any ``PoolManager``.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, Literal, NamedTuple

try:
    import urllib3
    from urllib3 import exceptions
    from urllib3.util import parse_url
except ImportError as missing:  # pragma: no cover  shown only where the extra is missing
    raise ImportError("groundfault.integrations.urllib3 needs urllib3: pip install 'groundfault[urllib3]'") from missing

from groundfault import errors, wire
from groundfault._clock import monotonic
from groundfault.breaker import Command, Resource
from groundfault.integrations._http import (
    BODY_LIMIT,
    CommandNames,
    budget_is_gone,
    honored_refusal,
    hop_headers,
    judge,
    resource_of,
)
from groundfault.integrations._urllib3_body import WatchedBody, outcome_of
from groundfault.integrations._urllib3_deadline import Deadline, bound, within
from groundfault.sinks import Sink
from groundfault.vocabulary import Outcome

__all__ = [
    "BulkheadFullError",
    "CircuitOpenError",
    "CommandTimeoutError",
    "GroundFaultPoolManager",
    "Request",
    "ShedError",
    "ThrottledError",
    "UnhealthyError",
]


class CircuitOpenError(errors.CircuitOpenError, exceptions.HTTPError):
    """The circuit is open; also a ``urllib3.exceptions.HTTPError``."""


class BulkheadFullError(errors.BulkheadFullError, exceptions.HTTPError):
    """As many calls are in flight as allowed; also a ``urllib3.exceptions.HTTPError``."""


class ThrottledError(errors.ThrottledError, exceptions.HTTPError):
    """The callee is shedding and only a share of the calls is sent; also a ``urllib3.exceptions.HTTPError``."""


class UnhealthyError(errors.UnhealthyError, exceptions.HTTPError):
    """The health check says no; also a ``urllib3.exceptions.HTTPError``."""


class ShedError(errors.ShedError, exceptions.HTTPError):
    """The callee answered with an annotated 503; also a ``urllib3.exceptions.HTTPError``, with its ``response``."""


class CommandTimeoutError(errors.CommandTimeoutError, exceptions.TimeoutError):
    """The caller's budget was already used up; also a ``urllib3.exceptions.TimeoutError``."""


_REJECTIONS: Final[dict[type[errors.RejectedError], type[errors.RejectedError]]] = {
    errors.CircuitOpenError: CircuitOpenError,
    errors.BulkheadFullError: BulkheadFullError,
    errors.ThrottledError: ThrottledError,
    errors.UnhealthyError: UnhealthyError,
}

# Redirects are followed as ever. Anything else that is tried again is tried outside the command, or it would see one
# failure where the callee saw four; and urllib3's default tries a 503 with Retry-After again, shed or not.
_NO_RETRIES: Final = urllib3.Retry(
    total=None, connect=False, read=False, redirect=3, status=0, other=0, respect_retry_after_header=False
)


class Request(NamedTuple):
    """What a callable that names commands is given: the method and the target, a path with its query."""

    method: str
    target: str


class GroundFaultPoolManager(urllib3.PoolManager):
    """Sends every request to one callee through a command of ``resource``.

    resource: name of the callee, or a :class:`~groundfault.Resource` that carries settings and sinks.
    command: the command's name, or a callable that names it from the :class:`Request`; default: the HTTP method.
    on_shed: ``"return"`` hands an annotated 503 back as it is; ``"raise"`` raises :class:`ShedError`.
    sinks: where events go; default: the process-wide sinks. Only with a resource given by name.
    pool: keywords for ``urllib3.PoolManager``: ``num_pools``, ``headers``, ``maxsize``, ``block``, ``retries``, ...
    All other keywords are :class:`~groundfault.BreakerSettings`, again only with a resource given by name.

    ``retries`` follows redirects and retries nothing else by default; those of urllib3 hide inside one call.
    ``timeout_s`` bounds the whole call: connecting, sending, the headers and the body to its last byte;
    with ``preload_content=False`` the time spent waiting for the callee, without what the application takes between
    reads. A ``timeout`` of the request or the pool holds as well. Raises :class:`~groundfault.SettingsError`.
    """

    def __init__(
        self,
        resource: str | Resource,
        *,
        command: str | Callable[[Request], str] | None = None,
        on_shed: Literal["return", "raise"] = "return",
        sinks: Iterable[Sink] | None = None,
        pool: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        resource = resource_of(resource, on_shed=on_shed, sinks=sinks, settings=settings)
        super().__init__(**{"retries": _NO_RETRIES, **(pool or {})})
        bound(self)
        self._names: CommandNames[Request] = CommandNames(resource, command, lambda request: request.method)
        self._raise_when_shed = on_shed == "raise"

    def connection_from_host(self, *args: Any, **kwargs: Any) -> Any:
        """Return the pool for a host, guarded: the manager itself asks for it at each hop."""
        pool = super().connection_from_host(*args, **kwargs)
        return _GuardedPool(pool, self._names, raise_when_shed=self._raise_when_shed)


class _GuardedPool:
    """A pool whose ``urlopen`` is a call of a command; everything else is passed through."""

    # Borrowed, for the pool's own would call the pool's own urlopen.
    request = urllib3.PoolManager.request
    request_encode_url = urllib3.PoolManager.request_encode_url
    request_encode_body = urllib3.PoolManager.request_encode_body

    def __init__(self, pool: Any, names: CommandNames[Request], *, raise_when_shed: bool) -> None:
        self._pool = pool
        self._names = names
        self._raise_when_shed = raise_when_shed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def urlopen(
        self, method: str, url: str, body: Any = None, headers: Any = None, retries: Any = None, *rest: Any, **more: Any
    ) -> Any:
        """Send one request as one call of its command, with urllib3's own retries if it is to have any."""
        command = self._names.command_for(Request(method, url))
        if command.disabled or _led_elsewhere(retries, self._pool.host):
            return self._pool.urlopen(method, url, body, headers, retries, *rest, **more)
        try:
            attempt = command.begin()
        except errors.RejectedError as rejection:
            raise _REJECTIONS[type(rejection)](*rejection.args) from rejection
        started = monotonic()
        deadline = None if attempt.timeout_s is None else Deadline(started + attempt.timeout_s)
        try:
            _check_budget(command)
            patience_s = _patience_s(more.get("timeout"), attempt.timeout_s)
            outgoing = _outgoing(self._pool.headers if headers is None else headers, command, patience_s)
            with within(deadline):
                response = self._pool.urlopen(method, url, body, outgoing, retries, *rest, **more)
        except BaseException as error:
            outcome = outcome_of(error)
            if outcome is None or isinstance(error, command.settings.ignored_errors):
                attempt.fail_with(error)
            else:
                attempt.settle(outcome, duration_s=monotonic() - started, carrier=error)
            raise
        spent_s = monotonic() - started
        refusal = honored_refusal(response.status, response.headers, self._pool.host, command)
        outcome = judge(response.status, refusal)
        if not more.get("preload_content", True):
            body = WatchedBody(response, attempt, spent_s=spent_s, deadline=deadline, response=response)
            if outcome is Outcome.SUCCESS:
                body.settle_if_ended()
                return body
            response = body
        shed = None
        if refusal is not None and self._raise_when_shed:
            shed = ShedError(command.resource, command.name, refusal.reason, refusal.origin, response)
        attempt.settle(outcome, duration_s=spent_s, refusal=refusal, carrier=shed or response)
        if shed is not None:
            _leave(response)
            try:
                raise shed
            finally:
                del shed  # or it and this frame, which its traceback names, would keep each other
        return response


def _check_budget(command: Command) -> None:
    if budget_is_gone():
        raise CommandTimeoutError(command.resource, command.name, 0.0)


def _led_elsewhere(retries: Any, host: str) -> bool:
    """Return whether a redirect has led from the callee to another host."""
    came_by = (step.url for step in getattr(retries, "history", ()) if step.redirect_location)
    first = next(came_by, None)
    return first is not None and parse_url(first).host != host


def _outgoing(headers: Any, command: Command, patience_s: float | None) -> urllib3.HTTPHeaderDict:
    """Copy the headers with this hop's: on the original they would follow a redirect to another host."""
    outgoing = urllib3.HTTPHeaderDict(headers)
    for name in [name for name in outgoing if wire.is_ours(name)]:
        del outgoing[name]
    for name, value in hop_headers(command, patience_s, tuple(outgoing)):
        outgoing[name] = value
    return outgoing


def _patience_s(timeout: Any, limit_s: float | None) -> float | None:
    """Return how long the callee may take to answer."""
    total = timeout.total if isinstance(timeout, urllib3.Timeout) else timeout
    if not isinstance(total, int | float):
        return limit_s
    return total if limit_s is None else min(total, limit_s)


def _leave(response: Any) -> None:
    """Read a refusal's body so that its connection can be used again; one of another length is closed."""
    if response.length_remaining is None or response.length_remaining > BODY_LIMIT:
        response.close()
        return
    with suppress(exceptions.HTTPError):
        response.data  # noqa: B018  reading it keeps it on the response
