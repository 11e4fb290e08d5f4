"""The chokepoint for requests: a transport adapter.

::

    session = requests.Session()
    session.mount("http://saber/", GroundFaultAdapter("saber", timeout_s=0.5))

A command is settled when the response's body has been read to its end or closed, not when its headers arrive:
a body that stalls is a failure of the callee too. Without ``stream=True`` that is within ``send``.
With it the body is the application's to read: a response that is forgotten unread gives its permit back when it is
collected, and a 5xx is settled at once, for ``raise_for_status()`` leaves the body unread.
``timeout_s`` bounds the whole call, from connecting to the last byte of the body; see ``_urllib3_deadline`` for how.
One ``send`` covers all of urllib3's own retries, so with ``max_retries`` several attempts count as one call.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any, Final, Literal, cast
from urllib.parse import urlsplit

try:
    import requests
    from requests import exceptions
    from requests.adapters import HTTPAdapter
    from urllib3.exceptions import EmptyPoolError
    from urllib3.exceptions import HTTPError as Urllib3Error
    from urllib3.util import Timeout as Urllib3Timeout
except ImportError as missing:  # pragma: no cover  shown only where the extra is missing
    raise ImportError(
        "groundfault.integrations.requests needs requests: pip install 'groundfault[requests]'"
    ) from missing

from groundfault import errors, wire
from groundfault._clock import monotonic
from groundfault.breaker import Attempt, Command, Resource
from groundfault.integrations._http import (
    BODY_LIMIT,
    CommandNames,
    Substitute,
    budget_is_gone,
    checked_fallback,
    honored_refusal,
    hop_headers,
    judge,
    least_s,
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

    ``timeout_s`` bounds the whole call: connecting, sending, the headers and the body to its last byte;
    with ``stream=True`` the time spent waiting for the callee, without what the application takes between reads.
    It caps a ``timeout`` that the request brings, which bounds the connect and each wait as ever.
    What is left of the budget of the request being served caps it further.
    None, the default, bounds nothing: a long download wants a command of its own without one.
    ``GROUNDFAULT_DISABLED=1`` makes this an ``HTTPAdapter`` and nothing more: no timeout, no fallback, no header.
    It pickles, and so does its session, unless its resource is in a registry of its own.

    Raises :class:`~groundfault.SettingsError` for settings that make no sense.
    """

    __attrs__ = [*HTTPAdapter.__attrs__, "_resource", "_command", "_raise_when_shed", "_fallback"]  # noqa: RUF012  requests'

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
        resource = resource_of(resource, on_shed=on_shed, sinks=sinks, settings=settings)
        super().__init__(pool_connections, pool_maxsize, max_retries, pool_block)
        if self.max_retries.total:
            _log.warning(
                "adapter for %s retries %s times below the circuit: each retry is hidden from its counters",
                resource.name,
                self.max_retries.total,
            )
        self._resource = resource
        self._command = command
        self._raise_when_shed = on_shed == "raise"
        self._fallback = checked_fallback(fallback, awaited=False)
        self._names: CommandNames[requests.PreparedRequest] = CommandNames(resource, command, _method_of)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickle: ``HTTPAdapter`` restores what ``__attrs__`` names."""
        super().__setstate__(state)  # type: ignore[misc]  # the stubs leave it out
        self._names = CommandNames(self._resource, self._command, _method_of)

    def init_poolmanager(  # noqa: D102  as of HTTPAdapter
        self,
        connections: int,
        maxsize: int,
        block: bool = False,  # noqa: FBT001, FBT002  the signature is requests' own
        **pool_kwargs: Any,
    ) -> None:
        super().init_poolmanager(connections, maxsize, block, **pool_kwargs)
        bound(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:  # noqa: D102  as above
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        bound(manager)
        return manager

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
        if command.disabled:
            return super().send(request, stream, timeout, verify, cert, proxies)
        substitute = _Substitute(self._fallback, request, requests.Response, f"requests to {self._resource.name}")
        attempt = command.attempt()
        try:
            attempt.begin(fallback=substitute.offer)
        except errors.RejectedError as rejection:
            substitute.collect(attempt)
            if substitute.response is not None:
                return substitute.response
            rejection.__cause__ = substitute.error
            raise _REJECTIONS[type(rejection)](*rejection.args, request=request) from rejection
        started = monotonic()
        deadline = None if attempt.timeout_s is None else Deadline(started + attempt.timeout_s)
        try:
            _check_budget(command)
            bounds = _bounded(timeout, attempt.timeout_s)
            outgoing = _outgoing(request, command, _patience_s(bounds, attempt.timeout_s))
            with within(deadline), _known_to_requests(request):
                response = super().send(outgoing, stream, bounds, verify, cert, proxies)
            response.request = request
            refusal = _receive(response, host, command, stream=stream)
        except BaseException as error:
            _settle_failed(attempt, error, command, monotonic() - started, substitute)
            substitute.collect(attempt)
            if substitute.response is not None:
                return substitute.response
            if substitute.error is not None:
                raise error from substitute.error
            raise
        spent_s = monotonic() - started
        if stream:
            response.raw = WatchedBody(response.raw, attempt, spent_s=spent_s, deadline=deadline, response=response)
        return self._judged(response, refusal, command, attempt, substitute, spent_s, stream=stream)

    def _judged(  # noqa: PLR0917  the second half of ``send``
        self,
        response: requests.Response,
        refusal: wire.Refusal | None,
        command: Command,
        attempt: Attempt,
        substitute: "_Substitute",
        spent_s: float,
        *,
        stream: bool,
    ) -> requests.Response:
        outcome = judge(response.status_code, refusal)
        if stream and outcome is Outcome.SUCCESS:
            cast("WatchedBody", response.raw).settle_if_ended()
            return response
        error = None
        if refusal is not None and self._raise_when_shed:
            error = ShedError(command.resource, command.name, refusal.reason, refusal.origin, response)
        attempt.settle(
            outcome, duration_s=spent_s, refusal=refusal, carrier=error or response, fallback=substitute.offer
        )
        substitute.collect(attempt)
        if substitute.response is not None:
            response.close()
            return substitute.response
        if error is not None:
            response.close()
            try:
                raise error from substitute.error
            finally:
                del error  # or it and this frame, which its traceback names, would keep each other
        return response


class _Substitute(Substitute[requests.PreparedRequest, requests.Response]):
    pass


def _method_of(request: requests.PreparedRequest) -> str:
    return request.method or "get"


# The caller's own mistakes say nothing about the callee.
_CALLERS_FAULT: Final = (
    exceptions.InvalidURL,
    exceptions.InvalidHeader,
    exceptions.MissingSchema,
    exceptions.InvalidSchema,
    exceptions.InvalidProxyURL,
)


def _outcome_of(error: BaseException) -> Outcome | None:
    """Return what an error of requests or urllib3 means for the callee, None for one of neither."""
    # Requests wraps urllib3's errors in its own, not always in the like: a body that stalls is a ConnectionError.
    wrapped = error.args[0] if isinstance(error, exceptions.RequestException) and error.args else None
    if isinstance(wrapped, Urllib3Error):
        return outcome_of(wrapped)
    if isinstance(error, _CALLERS_FAULT):
        return Outcome.IGNORED
    if isinstance(error, exceptions.Timeout):
        return Outcome.TIMEOUT
    return Outcome.FAILURE if isinstance(error, exceptions.RequestException) else outcome_of(error)


def _settle_failed(
    attempt: Attempt,
    error: BaseException,
    command: Command,
    spent_s: float,
    substitute: _Substitute,
) -> None:
    outcome = _outcome_of(error)
    if outcome is None or isinstance(error, command.settings.ignored_errors):
        attempt.fail_with(error, fallback=substitute.offer)
    else:
        attempt.settle(outcome, duration_s=spent_s, carrier=error, fallback=substitute.offer)


def _outgoing(request: requests.PreparedRequest, command: Command, budget_s: float | None) -> requests.PreparedRequest:
    """Copy the request with this hop's headers: on the original they would follow a redirect to another host."""
    outgoing = copy(request)  # its own copy() copies the cookies too, which nobody changes here
    outgoing.headers = request.headers.copy()
    for name in [name for name in outgoing.headers if wire.is_ours(name)]:
        del outgoing.headers[name]
    outgoing.headers.update(list(hop_headers(command, budget_s, tuple(outgoing.headers))))
    return outgoing


def _bounded(timeout: Timeout, limit_s: float | None) -> Timeout:
    if limit_s is None:
        return timeout
    if isinstance(timeout, Urllib3Timeout):
        bounded = timeout.clone()
        bounded.total = least_s(timeout.total, limit_s)
        return bounded
    if isinstance(timeout, tuple):
        return tuple(least_s(part, limit_s) for part in timeout)
    return least_s(timeout, limit_s)


def _patience_s(bounds: Timeout, limit_s: float | None) -> float | None:
    """Return how long the callee may take to answer: a read that times out is the end of the call."""
    read_s = bounds[-1] if isinstance(bounds, tuple) and bounds else bounds
    return least_s(limit_s, read_s) if isinstance(read_s, int | float) else limit_s


def _check_budget(command: Command) -> None:
    if budget_is_gone():
        raise CommandTimeoutError(command.resource, command.name, 0.0)


@contextmanager
def _known_to_requests(request: requests.PreparedRequest) -> Iterator[None]:
    """Translate the one error that requests never meets: it sets no bound to waiting for a connection."""
    try:
        yield
    except EmptyPoolError as error:
        raise exceptions.ConnectTimeout(error, request=request) from error


def _receive(response: requests.Response, host: str, command: Command, *, stream: bool) -> wire.Refusal | None:
    refusal = honored_refusal(response.status_code, response.headers, host, command)
    if refusal is not None:
        _drain(response, stream=stream)
    elif not stream:
        response.content  # noqa: B018  reading it keeps it on the response
    return refusal


def _drain(response: requests.Response, *, stream: bool) -> None:
    """Read a refusal's body so that its connection can be used again; a long one is left to whoever streams it."""
    length = response.headers.get("Content-Length", "")
    if stream and not (length.isascii() and length.isdigit() and int(length) <= BODY_LIMIT):
        return
    try:
        response.content  # noqa: B018  what was read stays on the response
    except exceptions.RequestException:
        response.close()
