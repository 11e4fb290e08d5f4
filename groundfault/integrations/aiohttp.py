"""The chokepoint for aiohttp's client: a client middleware.

::

    saber = GroundFaultMiddleware("saber", timeout_s=0.5, max_concurrent=5)
    async with aiohttp.ClientSession("http://saber/", middlewares=(saber,)) as session:
        async with session.get("/scores") as response: ...

The permit is taken before aiohttp looks for a connection.
A command is settled when the end of the response's body has arrived, or it was closed, or reading it failed,
not when its headers arrive: a body that stalls is a failure of the callee too.
A 5xx is settled at once, for ``raise_for_status()`` leaves the body unread.
Every exchange is a call of its own: each hop of a redirect, and the second try that aiohttp makes of an idempotent
request whose connection broke before the answer.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Literal

try:
    import aiohttp
    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
except ImportError as missing:  # pragma: no cover  shown only where the extra is missing
    raise ImportError(
        "groundfault.integrations.aiohttp needs aiohttp 3.12: pip install 'groundfault[aiohttp]'"
    ) from missing

from groundfault import errors, wire
from groundfault.breaker import Attempt, Command, Resource
from groundfault.breaker.attempt import LATER
from groundfault.integrations._aiohttp_answer import Answer, response_of
from groundfault.integrations._aiohttp_body import WatchedBody, outcome_of
from groundfault.integrations._aiohttp_hops import follow, honored, is_astray, label, strip
from groundfault.integrations._http import (
    BODY_LIMIT,
    CommandNames,
    Substitute,
    budget_is_gone,
    checked_fallback,
    judge,
    resource_of,
)
from groundfault.sinks import Sink
from groundfault.vocabulary import Outcome

__all__ = [
    "Answer",
    "BulkheadFullError",
    "CircuitOpenError",
    "CommandTimeoutError",
    "GroundFaultMiddleware",
    "ShedError",
    "ThrottledError",
    "UnhealthyError",
]

Fallback = Callable[[ClientRequest], ClientResponse | Answer | Awaitable[ClientResponse | Answer | None] | None]

_SWITCHING_PROTOCOLS: Final = 101
_DRAIN_S: Final = 1.0
"""How long a refusal's body is waited for, so that its connection can be used again."""


class _NeverSent(aiohttp.ClientConnectionError):
    """A rejection that ``except aiohttp.ClientError`` catches too.

    Not an ``aiohttp.ClientOSError``: of those aiohttp makes a second try.
    """


class CircuitOpenError(errors.CircuitOpenError, _NeverSent):
    """The circuit is open; also an ``aiohttp.ClientConnectionError``."""


class BulkheadFullError(errors.BulkheadFullError, _NeverSent):
    """As many calls are in flight as allowed; also an ``aiohttp.ClientConnectionError``."""


class ThrottledError(errors.ThrottledError, _NeverSent):
    """The callee is shedding and only a share of the calls is sent; also an ``aiohttp.ClientConnectionError``."""


class UnhealthyError(errors.UnhealthyError, _NeverSent):
    """The health check says no; also an ``aiohttp.ClientConnectionError``."""


class _Answered(aiohttp.ClientResponseError):
    """aiohttp's error for an answer, made of a text alone: what it says of the answer is added if there is one."""

    request_info: Any
    history: Any

    def __init__(self, text: str) -> None:
        super().__init__(None, (), status=wire.SHED_STATUS, message=text)  # type: ignore[arg-type]  # not known yet
        self.args = (text,)

    def __str__(self) -> str:
        return self.message

    __repr__ = Exception.__repr__


class ShedError(errors.ShedError, _Answered):
    """The callee answered with an annotated 503; also an ``aiohttp.ClientResponseError``, with its ``response``."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if self.response is not None:
            self.request_info = self.response.request_info
            self.headers = self.response.headers


class CommandTimeoutError(errors.CommandTimeoutError, aiohttp.ServerTimeoutError):
    """The call took longer than ``timeout_s``, or than the caller's budget; also an ``aiohttp.ServerTimeoutError``."""


_REJECTIONS: Final[dict[type[errors.RejectedError], type[_NeverSent]]] = {
    errors.CircuitOpenError: CircuitOpenError,
    errors.BulkheadFullError: BulkheadFullError,
    errors.ThrottledError: ThrottledError,
    errors.UnhealthyError: UnhealthyError,
}


class GroundFaultMiddleware:
    """Sends every request through a command of ``resource``.

    resource: name of the callee, or a :class:`~groundfault.Resource` that carries settings and sinks.
    command: the command's name, or a callable that names it from the ``ClientRequest``; default: the HTTP method.
      Give low-cardinality names, never the path; see :class:`~groundfault.integrations._http.CommandNames`.
    on_shed: ``"return"`` hands an annotated 503 back as it is, so that existing code sees a plain 503;
      ``"raise"`` raises :class:`ShedError`.
    fallback: a callable or coroutine function given the ``ClientRequest``. The :class:`Answer` or ``ClientResponse``
      that it returns is served instead of a rejection, a failure, a timeout, a 5xx or a shed, and counted;
      None serves nothing. One that raises leaves the original error as it is. Not asked for WebSockets.
    sinks: where events go; default: the process-wide sinks. Only with a resource given by name.
    All other keywords are :class:`~groundfault.BreakerSettings`, again only with a resource given by name.

    ``timeout_s`` bounds the whole exchange, from the wait for a connection to the last byte of the body;
    what is left of the budget of the request being served caps it. aiohttp's own ``ClientTimeout`` stays in force.
    The time for which aiohttp has stopped reading because the application does not keep up is not counted.
    A WebSocket is one call until it is open.
    A hop that a redirect has led to another host or port passes through unguarded, and without GroundFault's headers.
    ``GROUNDFAULT_DISABLED=1`` lets everything pass straight through: no timeout, no fallback, no header.
    One middleware may serve any number of sessions, threads and event loops.

    Raises :class:`~groundfault.SettingsError` for settings that make no sense.
    """

    def __init__(
        self,
        resource: str | Resource,
        *,
        command: str | Callable[[ClientRequest], str] | None = None,
        on_shed: Literal["return", "raise"] = "return",
        fallback: Fallback | None = None,
        sinks: Iterable[Sink] | None = None,
        **settings: Any,
    ) -> None:
        resource = resource_of(resource, on_shed=on_shed, sinks=sinks, settings=settings)
        self._raise_when_shed = on_shed == "raise"
        self._fallback = checked_fallback(fallback, awaited=True)
        self._who = f"aiohttp to {resource.name}"
        self._names: CommandNames[ClientRequest] = CommandNames(resource, command, _method_of)

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send the request as one call of its command.

        Raises the rejections of this module, :class:`CommandTimeoutError`, :class:`ShedError` if asked to,
        and whatever aiohttp raises.
        """
        if not request.url.host:  # aiohttp has the better error, and nothing was called
            return await handler(request)
        response = None
        try:
            if is_astray(request, self):
                strip(request)
                response = await handler(request)
            else:
                command = self._names.command_for(request)
                if command.disabled:
                    return await handler(request)
                response = await self._send(request, handler, command)
        finally:
            follow(request, response, self)
        return response

    async def _send(self, request: ClientRequest, handler: ClientHandlerType, command: Command) -> ClientResponse:
        attempt = command.attempt()
        try:
            attempt.begin(fallback=LATER)
        except errors.RejectedError as rejection:
            served = await self._serve(request, attempt)
            if served.response is not None:
                return served.response
            rejection.__cause__ = served.error
            raise _REJECTIONS[type(rejection)](*rejection.args) from rejection
        limit_s = attempt.timeout_s
        ends_at = None if limit_s is None else asyncio.get_running_loop().time() + limit_s
        scope = asyncio.timeout_at(ends_at)
        try:
            async with scope:
                _check_budget(command)
                label(request, command, limit_s)
                response = await handler(request)
        except BaseException as error:  # noqa: BLE001  raised on, unless a fallback takes its place
            raised = error
            if isinstance(error, TimeoutError) and scope.expired():
                raised = _late(command, limit_s)
                raised.__cause__ = error
            _settle_failed(attempt, raised, command)
            return await self._made_good(request, attempt, raised)
        return await self._judged(request, response, command, attempt, ends_at)

    async def _made_good(self, request: ClientRequest, attempt: Attempt, error: BaseException) -> ClientResponse:
        """Return what the fallback serves in place of ``error``, or raise that."""
        served = await self._serve(request, attempt)
        if served.response is not None:
            return served.response
        if served.error is not None:
            raise error from served.error
        raise error

    async def _judged(
        self,
        request: ClientRequest,
        response: ClientResponse,
        command: Command,
        attempt: Attempt,
        ends_at: float | None,
    ) -> ClientResponse:
        refusal = honored(response, request, command)
        outcome = judge(response.status, refusal)
        if outcome is not Outcome.SUCCESS:
            error = None
            if refusal is not None and self._raise_when_shed:
                error = ShedError(command.resource, command.name, refusal.reason, refusal.origin, response)
            attempt.settle(outcome, refusal=refusal, carrier=error or response, fallback=LATER)
            try:
                if refusal is not None:
                    await _drain(response, ends_at)
                served = await self._serve(request, attempt)
            except BaseException:
                await attempt.serve(None)
                _discard(response)
                raise
            if served.response is not None:
                _discard(response)
                return served.response
            if error is not None:
                _discard(response)
                raise error from served.error
        elif response.status == _SWITCHING_PROTOCOLS:
            attempt.settle(outcome)
            return response
        # A body that is judged already has no more time than another.
        late = partial(_late, command, attempt.timeout_s)
        WatchedBody(response, attempt, ends_at=ends_at, late=late, ignored=command.settings.ignored_errors)
        return response

    async def _serve(self, request: ClientRequest, attempt: Attempt) -> Substitute[ClientRequest, ClientResponse]:
        """Ask the fallback if one is due, and let the attempt report how the call ended."""
        asked = None if self._fallback is None or "Upgrade" in request.headers else self._ask_fallback
        substitute: Substitute[ClientRequest, ClientResponse] = Substitute(asked, request, ClientResponse, self._who)
        await substitute.aserve(attempt)
        return substitute

    async def _ask_fallback(self, request: ClientRequest) -> ClientResponse | None:
        value = self._fallback(request) if self._fallback is not None else None
        return response_of(await value if inspect.isawaitable(value) else value, request)


def _method_of(request: ClientRequest) -> str:
    return request.method


def _late(command: Command, limit_s: float | None) -> CommandTimeoutError:
    return CommandTimeoutError(command.resource, command.name, limit_s or 0.0)


def _check_budget(command: Command) -> None:
    """Send nothing for a request whose caller has already given up."""
    if budget_is_gone():
        raise _late(command, None)


def _settle_failed(attempt: Attempt, error: BaseException, command: Command) -> None:
    outcome = None if isinstance(error, command.settings.ignored_errors) else outcome_of(error)
    if outcome is None:
        attempt.fail_with(error, fallback=LATER)
    else:
        attempt.settle(outcome, carrier=error, fallback=LATER)


async def _drain(response: ClientResponse, ends_at: float | None) -> None:
    """Wait for a refusal's body, so that its connection can be used again. It stays in aiohttp's buffer to be read."""
    if (response.content_length or 0) > BODY_LIMIT:
        return
    patience_ends_at = asyncio.get_running_loop().time() + _DRAIN_S
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout_at(patience_ends_at if ends_at is None else min(ends_at, patience_ends_at)):
            await response.content.wait_eof()


def _discard(response: ClientResponse) -> None:
    if not response.closed:  # closing one that has ended would keep whoever is given it from reading it
        response.close()
