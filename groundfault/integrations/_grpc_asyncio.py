"""The client interceptors of ``grpc.aio``, which wants one for each kind of call."""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Generator, Iterable, Mapping
from functools import partial
from inspect import isawaitable
from typing import Any, Final, Self

import grpc

from groundfault import errors
from groundfault.breaker import Attempt, Command, Resource
from groundfault.breaker.attempt import LATER
from groundfault.events import note_internal_error
from groundfault.integrations._grpc_client import Ending, Exchange, Guard, rejected
from groundfault.sinks import Sink
from groundfault.vocabulary import Outcome

__all__ = ["aio_interceptors"]

Continuation = Callable[[Any, Any], Awaitable[Any]]

_CANCELED_HERE: Final = frozenset({"Locally cancelled by application!", "Cancelled upon garbage collection!"})


def aio_interceptors(
    resource: str | Resource,
    *,
    command: str | Callable[[str], str] | None = None,
    fallback: Callable[[str, Any], Any] | None = None,
    outcomes: Mapping[grpc.StatusCode, Outcome] | None = None,
    sinks: Iterable[Sink] | None = None,
    **settings: Any,
) -> list[Any]:
    """Return the interceptors that send every call of a channel through a command.

    ``grpc.aio.insecure_channel(target, interceptors=aio_interceptors("saber"))``; others go before or after them.
    The arguments are those of :class:`~groundfault.integrations.grpc.GroundFaultInterceptor`. ``fallback`` may return
    an awaitable, and is called on the event loop.

    Raises :class:`~groundfault.SettingsError` for settings that make no sense.
    """
    guard = Guard(resource, command=command, fallback=fallback, outcomes=outcomes, sinks=sinks, settings=settings)
    return [_UnaryUnary(guard), _UnaryStream(guard), _StreamUnary(guard), _StreamStream(guard)]


class _Kind:
    """What the four have in common."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def _command_for(self, details: Any) -> Command:
        return self._guard.command_for(_name_of(details))

    async def _streamed(self, continuation: Continuation, details: Any, request: Any, *, streamed: bool) -> Any:
        command = self._command_for(details)
        if command.disabled:
            return await continuation(details, request)
        try:
            attempt = command.begin()
        except errors.RejectedError as rejection:
            raise rejected(rejection) from rejection
        exchange = Exchange(self._guard, command, attempt, streams=True)
        try:
            call = await continuation(_outgoing(exchange, details), _sent(exchange, request) if streamed else request)
        except BaseException as error:
            exchange.broke(error)
            raise
        _watch(call, lambda _call: exchange.complete(partial(_ending_of, call)))
        return _Responses(call, exchange)


class _UnaryUnary(_Kind, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]  # grpc has no types of its own
    """One request, one response."""

    async def intercept_unary_unary(self, continuation: Continuation, client_call_details: Any, request: Any) -> Any:
        command = self._command_for(client_call_details)
        if command.disabled:
            return await continuation(client_call_details, request)
        attempt = command.attempt()
        substitute = _Substitute(self._guard.fallback, client_call_details, request, attempt)
        try:
            attempt.begin(fallback=LATER)
        except errors.RejectedError as rejection:
            return await substitute.instead_of(rejected(rejection), rejection)
        exchange = Exchange(self._guard, command, attempt)
        call = None
        try:
            call = await continuation(_outgoing(exchange, client_call_details), request)
            await call
        except BaseException as error:  # noqa: BLE001  raised on, unless the fallback has stood in for it
            if call is None or not isinstance(error, grpc.aio.AioRpcError):
                exchange.broke(error, fallback=LATER)
                return await substitute.instead_of(error)
            exchange.complete(partial(_ending_of_error, error), fallback=LATER)
            return await substitute.instead_of(exchange.shed or error, error)
        exchange.complete(lambda: Ending(grpc.StatusCode.OK))
        return call


class _UnaryStream(_Kind, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc]  # as above
    """One request, many responses."""

    async def intercept_unary_stream(self, continuation: Continuation, client_call_details: Any, request: Any) -> Any:
        return await self._streamed(continuation, client_call_details, request, streamed=False)


class _StreamUnary(_Kind, grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[misc]  # as above
    """Many requests, one response. The call is handed out at once, for the application to write its requests to."""

    async def intercept_stream_unary(
        self, continuation: Continuation, client_call_details: Any, request_iterator: Any
    ) -> Any:
        command = self._command_for(client_call_details)
        if command.disabled:
            return await continuation(client_call_details, request_iterator)
        attempt = command.attempt()
        substitute = _Substitute(self._guard.fallback, client_call_details, request_iterator, attempt)
        try:
            attempt.begin(fallback=LATER)
        except errors.RejectedError as rejection:
            return _Given(await substitute.instead_of(rejected(rejection), rejection))
        exchange = Exchange(self._guard, command, attempt)
        try:
            call = await continuation(_outgoing(exchange, client_call_details), _sent(exchange, request_iterator))
        except BaseException as error:  # noqa: BLE001  as above
            exchange.broke(error, fallback=LATER)
            return _Given(await substitute.instead_of(error))
        return _Answer(call, exchange, substitute)


class _StreamStream(_Kind, grpc.aio.StreamStreamClientInterceptor):  # type: ignore[misc]  # as above
    """Many requests, many responses."""

    async def intercept_stream_stream(
        self, continuation: Continuation, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await self._streamed(continuation, client_call_details, request_iterator, streamed=True)


def _name_of(details: Any) -> str:
    method = details.method
    return method.decode() if isinstance(method, bytes) else str(method)


def _outgoing(exchange: Exchange, details: Any) -> Any:
    bound_s = exchange.bound(details.timeout)
    return grpc.aio.ClientCallDetails(
        details.method,
        bound_s,
        grpc.aio.Metadata(*exchange.metadata(details.metadata)),
        details.credentials,
        details.wait_for_ready,
    )


def _sent(exchange: Exchange, requests: Any) -> Any:
    return exchange.asent(requests) if isinstance(requests, AsyncIterable) else exchange.sent(requests)


def _watch(call: Any, over: Callable[[Any], None]) -> None:
    """Have somebody told when the call is over, even if nobody asks it any more."""
    try:
        call.add_done_callback(over)
    except Exception as error:  # noqa: BLE001  a stranger's; then it is settled when it is read to its end
        note_internal_error("gRPC call", error)


def _ending_of(call: Any) -> Ending:
    """Describe a call that is over."""
    code, details = _now(call.code()), _now(call.details())
    if code is grpc.StatusCode.OK:
        return Ending(code)
    error = grpc.aio.AioRpcError(
        code,
        _now(call.initial_metadata()),
        _now(call.trailing_metadata()),
        details=details,
        debug_error_string=_now(call.debug_error_string()),
    )
    return _ending_of_error(error)


def _ending_of_error(error: Any) -> Ending:
    canceled = error.code() is grpc.StatusCode.CANCELLED and error.details() in _CANCELED_HERE
    return Ending(error.code(), error.trailing_metadata(), error, error.details(), canceled)


def _now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine returns that has nothing to wait for, such as the status of a call that is over."""
    try:
        coroutine.send(None)
    except StopIteration as returned:
        return returned.value
    coroutine.close()
    return None


class _Responses:
    """The responses of a stream. The application's own object, around it, asks gRPC's call for everything else."""

    def __init__(self, call: Any, exchange: Exchange) -> None:
        self._call = call
        self._exchange = exchange
        self._iterator: Any = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        exchange = self._exchange
        exchange.listen()
        try:
            if self._iterator is None:
                self._iterator = aiter(self._call)
            return await anext(self._iterator)
        except StopAsyncIteration:
            exchange.complete(lambda: Ending(grpc.StatusCode.OK))
            raise
        except grpc.aio.AioRpcError as error:
            exchange.complete(partial(_ending_of_error, error))
            if exchange.error is None or exchange.error is error:
                raise
            raise exchange.error from error
        finally:
            exchange.heard()


class _Substitute:
    """What the fallback makes of a request."""

    def __init__(
        self, fallback: Callable[[str, Any], Any] | None, details: Any, request: Any, attempt: Attempt
    ) -> None:
        self._fallback = fallback
        self._details = details
        self._request = request
        self._attempt = attempt

    async def instead_of(self, error: BaseException, cause: BaseException | None = None) -> Any:
        """Return what the fallback serves, if it is due and can; else raise ``error``."""
        served = None
        try:
            served = await self._attempt.serve(None if self._fallback is None else self._serve)
        except Exception as failed:  # noqa: BLE001  the original error is the caller's, whatever the fallback's was
            if not isinstance(failed, errors.GroundFaultError):  # such as that of a limit, which has been counted
                note_internal_error("fallback of the gRPC interceptor", failed)
            cause = failed
        if served is not None:
            return served[0]
        if cause is None or cause is error:
            raise error
        raise error from cause

    async def _serve(self) -> tuple[Any]:
        """Return the response in a box, for nothing else tells None from nothing."""
        if self._fallback is None:
            raise LookupError("no fallback")
        value = self._fallback(_name_of(self._details), self._request)
        return (await value if isawaitable(value) else value,)


class _Answer:
    """A call with many requests and one response; all but the response is gRPC's.

    It may end while the application still writes. Its fallback is served at once then, whether anybody waits or not.
    """

    def __init__(self, call: Any, exchange: Exchange, substitute: _Substitute) -> None:
        self._call = call
        self._exchange = exchange
        self._substitute = substitute
        self._instead: asyncio.Future[Any] | None = None
        _watch(call, self._over)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_call"], name)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._answered().__await__()

    def _over(self, call: Any) -> None:
        self._end(partial(_ending_of, call))

    def _end(self, ending: Callable[[], Ending]) -> "asyncio.Future[Any] | None":
        exchange = self._exchange
        exchange.complete(ending, fallback=LATER)
        if self._instead is None and exchange.error is not None:
            self._instead = exchange.context.run(asyncio.ensure_future, self._substitute.instead_of(exchange.error))
            self._instead.add_done_callback(_retrieve)
        return self._instead

    async def _answered(self) -> Any:
        try:
            response = await self._call
        except grpc.aio.AioRpcError as error:
            instead = self._end(partial(_ending_of_error, error))
            if instead is None:  # an error of ours has kept its end from being seen
                raise
            return await asyncio.shield(instead)
        self._exchange.complete(lambda: Ending(grpc.StatusCode.OK))
        return response


def _retrieve(task: "asyncio.Future[Any]") -> None:
    """Look at an error, so that asyncio does not complain of one that nobody has waited for."""
    if not task.cancelled():
        task.exception()


class _Given:
    """A call that was not made, whose response is a fallback's."""

    _done_writing_flag = True  # what grpc.aio asks before it writes

    def __init__(self, response: Any) -> None:
        self._response = response

    def __await__(self) -> Generator[Any, None, Any]:
        return self._responded().__await__()

    async def _responded(self) -> Any:
        return self._response

    def done(self) -> bool:
        return True

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        callback(self)

    def time_remaining(self) -> None:
        return None

    async def initial_metadata(self) -> Any:
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> Any:
        return grpc.aio.Metadata()

    async def code(self) -> Any:
        return grpc.StatusCode.OK

    async def details(self) -> str:
        return ""

    async def debug_error_string(self) -> str:
        return ""

    async def wait_for_connection(self) -> None:
        return None


grpc.aio.StreamUnaryCall.register(_Answer)
grpc.aio.StreamUnaryCall.register(_Given)
