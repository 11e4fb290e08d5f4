"""The chokepoint for requests: a transport adapter.

::

    session = requests.Session()
    session.mount("http://saber/", GroundFaultAdapter("saber", timeout_s=0.5))

A command is settled when the response's body has been read to its end or closed, not when its headers arrive:
a body that stalls is a failure of the callee too. A response that is forgotten unread gives its permit back when it is
collected.
One ``send`` covers all of urllib3's own retries, so with ``max_retries`` several attempts count as one call.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal
from urllib.parse import urlsplit

try:
    import requests
    from requests import exceptions
    from requests.adapters import HTTPAdapter
except ImportError as missing:  # pragma: no cover  shown only where the extra is missing
    raise ImportError(
        "groundfault.integrations.requests needs requests: pip install 'groundfault[requests]'"
    ) from missing

from groundfault import _context, errors, wire
from groundfault._clock import monotonic
from groundfault.breaker import Attempt, Command, Resource
from groundfault.events import Sink, note_internal_error
from groundfault.integrations._http import BODY_LIMIT, CommandNames, hop_headers, is_internal, judge
from groundfault.integrations._requests_body import WatchedBody, outcome_of
from groundfault.vocabulary import Outcome

__all__ = [
    "BulkheadFullError",
    "CircuitOpenError",
    "CommandTimeoutError",
    "GroundFaultAdapter",
    "ShedError",
    "ThrottledError",
    "UnhealthyError",
]

_log = logging.getLogger("groundfault")

Fallback = Callable[[requests.PreparedRequest], requests.Response]
Timeout = Any  # what requests takes: None, seconds, (connect, read), or urllib3's own


class _NeverSent(exceptions.ConnectionError):
    """A rejection that ``except requests.RequestException`` catches too."""

    def __init__(self, resource: str, command: str, detail: object = None, *, request: Any = None) -> None:
        super().__init__(request=request)
        self.args = (resource, command, detail)  # OSError would read three arguments as errno, text and file name

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args


class CircuitOpenError(errors.CircuitOpenError, _NeverSent):
    """The circuit is open; also a ``requests.ConnectionError``."""


class BulkheadFullError(errors.BulkheadFullError, _NeverSent):
    """As many calls are in flight as allowed; also a ``requests.ConnectionError``."""


class ThrottledError(errors.ThrottledError, _NeverSent):
    """The callee is shedding and only a share of the calls is sent; also a ``requests.ConnectionError``."""


class UnhealthyError(errors.UnhealthyError, _NeverSent):
    """The health check says no; also a ``requests.ConnectionError``."""


class ShedError(errors.ShedError, exceptions.HTTPError):
    """The callee answered with an annotated 503; also a ``requests.HTTPError`` with its ``response``."""


class CommandTimeoutError(errors.CommandTimeoutError, exceptions.Timeout):
    """The caller's budget was already used up; also a ``requests.Timeout``."""


_REJECTIONS: Final[dict[type[errors.RejectedError], type[_NeverSent]]] = {
    errors.CircuitOpenError: CircuitOpenError,
    errors.BulkheadFullError: BulkheadFullError,
    errors.ThrottledError: ThrottledError,
    errors.UnhealthyError: UnhealthyError,
}


class GroundFaultAdapter(HTTPAdapter):
    """Sends every request through a command of ``resource``.

    resource: name of the callee, or a :class:`~groundfault.Resource` that carries settings and sinks.
    command: the command's name, or a callable that names it from the ``PreparedRequest``; default: the HTTP method.
      Give low-cardinality names, never the path; see :class:`~groundfault.integrations._http.CommandNames`.
    on_shed: ``"return"`` hands an annotated 503 back as it is, so that existing code sees a plain 503;
      ``"raise"`` raises :class:`ShedError`.
    fallback: a callable given the ``PreparedRequest``; the ``Response`` it returns is served instead of a rejection,
      a failure, a timeout, a 5xx or a shed, and counted. One that raises leaves the original error as it is.
    sinks: where events go; default: the process-wide sinks. Only with a resource given by name.
    pool_connections, pool_maxsize, pool_block, max_retries: as for ``requests.adapters.HTTPAdapter``.
    All other keywords are :class:`~groundfault.BreakerSettings`, again only with a resource given by name.

    ``timeout_s`` bounds connecting and each read of a request that brings no ``timeout`` of its own,
    and caps one that does; the whole call, its body included, is measured against it.
    What is left of the budget of the request being served caps it further.

    Raises :class:`~groundfault.SettingsError` for settings that make no sense.
    """

    def __init__(
        self,
        resource: str | Resource,
        *,
        command: str | Callable[[requests.PreparedRequest], str] | None = None,
        on_shed: Literal["return", "raise"] = "return",
        fallback: Fallback | None = None,
        sinks: Iterable[Sink] | None = None,
        pool_connections: int = 10,
        pool_maxsize: int = 10,
        pool_block: bool = False,
        max_retries: Any = 0,
        **settings: Any,
    ) -> None:
        if on_shed not in {"return", "raise"}:
            raise errors.SettingsError(f"on_shed must be 'return' or 'raise', not {on_shed!r}")
        if isinstance(resource, str):
            resource = Resource(resource, sinks=sinks, **settings)
        elif settings or sinks is not None:
            raise errors.SettingsError("settings and sinks belong to the Resource that was passed; set them there")
        super().__init__(pool_connections, pool_maxsize, max_retries, pool_block)
        if self.max_retries.total:
            _log.warning(
                "adapter for %s retries %s times below the circuit: each retry is hidden from its counters",
                resource.name,
                self.max_retries.total,
            )
        self._raise_when_shed = on_shed == "raise"
        self._fallback = fallback
        self._names: CommandNames[requests.PreparedRequest] = CommandNames(resource, command, _method_of)

    def send(  # noqa: PLR0917  the signature is requests' own
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002  as above
        timeout: Timeout = None,
        verify: bool | str = True,  # noqa: FBT001, FBT002  as above
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Send the request as one call of its command.

        Raises the rejections of this module, :class:`ShedError` if asked to, and whatever requests raises.
        """
        host = urlsplit(str(request.url)).hostname
        if not host:  # requests has the better error, and nothing was called
            return super().send(request, stream, timeout, verify, cert, proxies)
        command = self._names.command_for(request)
        try:
            attempt = command.begin(fallback=self._fallback is not None)
        except errors.RejectedError as rejection:
            error = _REJECTIONS[type(rejection)](*rejection.args, request=request)
            return self._instead(request, error, rejection)
        started = monotonic()
        try:
            _check_budget(command)
            response = super().send(
                _outgoing(request, command, attempt),
                stream,
                _bounded(timeout, attempt.timeout_s),
                verify,
                cert,
                proxies,
            )
        except BaseException as error:
            outcome = outcome_of(error)
            if outcome is None:
                attempt.fail_with(error)
                raise
            recoverable = self._fallback is not None and outcome is not Outcome.IGNORED
            attempt.settle(outcome, duration_s=monotonic() - started, carrier=error, fallback=recoverable)
            if recoverable:
                return self._instead(request, error)
            raise
        response.request = request
        return self._judge(response, host, command, attempt, monotonic() - started)

    def _judge(
        self, response: requests.Response, host: str, command: Command, attempt: Attempt, spent_s: float
    ) -> requests.Response:
        refusal = wire.read_refusal(response.status_code, response.headers)
        honor = command.settings.honor_handled
        if not (is_internal(host) if honor is None else honor):
            refusal = None
        outcome = judge(response.status_code, refusal)
        if outcome is Outcome.SUCCESS or (outcome is Outcome.FAILURE and self._fallback is None):
            body = WatchedBody(response, attempt, outcome, spent_s)
            response.raw = body
            body.settle_if_ended()
            return response
        _drain(response)
        error = None
        if refusal is not None and self._raise_when_shed:
            error = ShedError(command.resource, command.name, refusal.reason, refusal.origin, response)
        served = self._fallback is not None
        attempt.settle(outcome, duration_s=spent_s, refusal=refusal, carrier=error or response, fallback=served)
        if served:
            return self._instead(response.request, error or response)
        if error is not None:
            raise error
        return response

    def _instead(
        self, request: Any, original: BaseException | requests.Response, cause: BaseException | None = None
    ) -> requests.Response:
        """Serve the fallback, or what would be seen without one."""
        if self._fallback is not None:
            try:
                return self._fallback(request)
            except Exception as error:  # noqa: BLE001  the original error is the caller's, whatever the fallback's was
                cause = error
                note_internal_error("fallback of the requests adapter", error)
        if isinstance(original, BaseException):
            raise original from cause
        return original


def _method_of(request: requests.PreparedRequest) -> str:
    return request.method or "get"


def _outgoing(request: requests.PreparedRequest, command: Command, attempt: Attempt) -> requests.PreparedRequest:
    """Copy the request with this hop's headers: on the original they would follow a redirect to another host."""
    outgoing = request.copy()
    for name in [name for name in outgoing.headers if wire.is_ours(name)]:
        del outgoing.headers[name]
    outgoing.headers.update(hop_headers(command, attempt))
    return outgoing


def _bounded(timeout: Timeout, limit_s: float | None) -> Timeout:
    if limit_s is None:
        return timeout
    if timeout is None:
        return limit_s
    if isinstance(timeout, tuple):
        return tuple(limit_s if part is None else min(part, limit_s) for part in timeout)
    return min(timeout, limit_s) if isinstance(timeout, int | float) else timeout


def _check_budget(command: Command) -> None:
    """Send nothing for a request whose caller has already given up."""
    context = _context.current()
    if context is not None and context.deadline is not None and context.deadline <= monotonic():
        raise CommandTimeoutError(command.resource, command.name, 0.0)


def _drain(response: requests.Response) -> None:
    """Read a refusal's short body so that its connection can be used again."""
    length = response.headers.get("Content-Length", "")
    try:
        if length.isascii() and length.isdigit() and int(length) <= BODY_LIMIT:
            response.content  # noqa: B018  reading it keeps it on the response
        else:
            response.close()
    except exceptions.RequestException:
        response.close()
