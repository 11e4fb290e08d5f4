"""The client interceptor of gRPC's blocking stack, and the call objects that it hands out."""

import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Self

import grpc

from groundfault import errors
from groundfault.breaker import Attempt, Resource
from groundfault.events import note_internal_error
from groundfault.integrations._grpc_client import Ending, Exchange, Guard, rejected
from groundfault.integrations._grpc_errors import CommandTimeoutError
from groundfault.sinks import Sink
from groundfault.vocabulary import Outcome

__all__ = ["GroundFaultInterceptor"]

Continuation = Callable[[Any, Any], Any]


class _Fields(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Details(_Fields, grpc.ClientCallDetails):  # type: ignore[misc]  # grpc has no types of its own
    """What interceptors further in are told."""


class GroundFaultInterceptor(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc]  # grpc has no types of its own
    grpc.UnaryStreamClientInterceptor,  # type: ignore[misc]  # as above
    grpc.StreamUnaryClientInterceptor,  # type: ignore[misc]  # as above
    grpc.StreamStreamClientInterceptor,  # type: ignore[misc]  # as above
):
    """Sends every call of a channel through a command: ``grpc.intercept_channel(channel, this)``.

    resource: name of the callee, or a :class:`~groundfault.Resource` that carries settings and sinks.
    command: the command's name, or a callable that names it from the method's whole name, ``/package.Service/Method``;
      default: the method's own name in lower case. At most 200 names; all others count under ``other``.
    fallback: for calls with one response, a callable given the method's whole name and the request, or the iterator of
      requests; what it returns is the response instead of a rejection, a failure, a timeout or a shed, and counted.
      One that raises leaves the original error as it is. A ``future()`` is served it only for what is known when it is
      made, such as a rejection: what comes later comes on a thread of gRPC's own, where nothing may wait.
    outcomes: what statuses mean, for those that are to mean something else than by default: success, failure, timeout
      or ignored. An annotated ``UNAVAILABLE`` is a shed all the same.
    sinks: where events go; default: the process-wide sinks. Only with a resource given by name.
    All other keywords are :class:`~groundfault.BreakerSettings`, again only with a resource given by name.

    ``timeout_s`` and what is left of the budget of the request being served cap the deadline of every call: that of a
    stream covers all of it, as gRPC has it. Refusals are believed unless ``honor_handled`` is false.
    ``GROUNDFAULT_DISABLED=1`` makes it pass everything on as it is.

    Raises :class:`~groundfault.SettingsError` for settings that make no sense.
    """

    def __init__(
        self,
        resource: str | Resource,
        *,
        command: str | Callable[[str], str] | None = None,
        fallback: Callable[[str, Any], Any] | None = None,
        outcomes: Mapping[grpc.StatusCode, Outcome] | None = None,
        sinks: Iterable[Sink] | None = None,
        **settings: Any,
    ) -> None:
        self._guard = Guard(
            resource, command=command, fallback=fallback, outcomes=outcomes, sinks=sinks, settings=settings
        )

    def intercept_unary_unary(self, continuation: Continuation, client_call_details: Any, request: Any) -> Any:
        """Make a call with one request and one response."""
        return self._answered(continuation, client_call_details, request, streamed=False)

    def intercept_stream_unary(
        self, continuation: Continuation, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """Make a call with many requests and one response."""
        return self._answered(continuation, client_call_details, request_iterator, streamed=True)

    def intercept_unary_stream(self, continuation: Continuation, client_call_details: Any, request: Any) -> Any:
        """Make a call with one request and many responses."""
        return self._streamed(continuation, client_call_details, request, streamed=False)

    def intercept_stream_stream(
        self, continuation: Continuation, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """Make a call with many requests and many responses."""
        return self._streamed(continuation, client_call_details, request_iterator, streamed=True)

    def _answered(self, continuation: Continuation, details: Any, request: Any, *, streamed: bool) -> Any:
        guard = self._guard
        command = guard.command_for(details.method)
        if command.disabled:
            return continuation(details, request)
        substitute = _Substitute(guard.fallback, details.method, request)
        attempt = command.attempt()
        try:
            attempt.begin(fallback=substitute.serve)
        except errors.RejectedError as rejection:
            substitute.collect(attempt)
            return substitute.instead_of(rejected(rejection))
        exchange = Exchange(guard, command, attempt)
        try:
            outgoing = _outgoing(exchange, details)
            call = continuation(outgoing, exchange.sent(request) if streamed else request)
        except CommandTimeoutError as late:
            exchange.broke(late)
            return late
        except BaseException as error:
            exchange.broke(error, fallback=substitute.serve)
            substitute.collect(attempt)
            if substitute.call is not None:
                return substitute.call
            raise
        if not _is_over(call):
            return _Pending(call, exchange)
        exchange.complete(lambda: _ending_of(call), fallback=substitute.serve)
        substitute.collect(attempt)
        return substitute.instead_of(exchange.shed or call)

    def _streamed(self, continuation: Continuation, details: Any, request: Any, *, streamed: bool) -> Any:
        guard = self._guard
        command = guard.command_for(details.method)
        if command.disabled:
            return continuation(details, request)
        try:
            attempt = command.begin()
        except errors.RejectedError as rejection:
            return rejected(rejection)
        exchange = Exchange(guard, command, attempt, streams=True)
        try:
            outgoing = _outgoing(exchange, details)
            call = continuation(outgoing, exchange.sent(request) if streamed else request)
        except CommandTimeoutError as late:
            exchange.broke(late)
            return late
        except BaseException as error:
            exchange.broke(error)
            raise
        return _Stream(call, exchange)


def _outgoing(exchange: Exchange, details: Any) -> Any:
    bound_s = exchange.bound(details.timeout)
    return _Details(
        details.method,
        bound_s,
        exchange.metadata(details.metadata),
        details.credentials,
        getattr(details, "wait_for_ready", None),
        getattr(details, "compression", None),
    )


def _is_over(call: Any) -> bool:
    """Return whether the call has ended: it was made by ``stub.Method()`` or ``with_call``, not by ``future``."""
    try:
        return bool(call.done())
    except Exception as error:  # noqa: BLE001  a stranger's call object; its end shows when it is asked for
        note_internal_error("gRPC call", error)
        return False


def _ending_of(call: Any) -> Ending:
    """Describe a call that is over."""
    if getattr(call, "cancelled", bool)():
        return Ending(grpc.StatusCode.CANCELLED, error=call, canceled=True)
    code = call.code()
    if code is grpc.StatusCode.OK:
        return Ending(code)
    # The call itself, or what an interceptor further in, or Python, has raised.
    return Ending(code, call.trailing_metadata(), call.exception(), call.details())


class _Substitute:
    """What the fallback made of a request: a finished call, or the error it raised; neither if it was not asked."""

    def __init__(self, fallback: Callable[[str, Any], Any] | None, method: str, request: Any) -> None:
        self._fallback = fallback
        self._method = method
        self._request = request
        self.call: _Served | None = None
        self.error: Exception | None = None

    def serve(self) -> "_Served | None":
        return None if self._fallback is None else _Served(self._fallback(self._method, self._request))

    def collect(self, attempt: Attempt) -> None:
        """Take what ``attempt`` was served, after it was refused or settled with ``serve``."""
        self.call = attempt.served
        self.error = error = attempt.fallback_error
        if error is not None and not isinstance(error, errors.GroundFaultError):  # such as a rejection, counted already
            note_internal_error(f"fallback of gRPC to {self._method}", error)

    def instead_of(self, call: Any) -> Any:
        """Return the fallback's call if it has served one, else ``call``."""
        if self.call is not None:
            return self.call
        if self.error is not None and isinstance(call, BaseException):
            call.__cause__ = self.error
        return call


class _Call(grpc.Call, grpc.Future):  # type: ignore[misc]  # grpc has no types of its own
    """A call that hands every question on to gRPC's."""

    def __init__(self, call: Any, exchange: Exchange) -> None:
        self._call = call
        self._exchange = exchange
        _watch(call, exchange)

    def __getattr__(self, name: str) -> Any:  # what is not in gRPC's interfaces: debug_error_string()
        return getattr(self.__dict__["_call"], name)

    def initial_metadata(self) -> Any:
        return self._call.initial_metadata()

    def trailing_metadata(self) -> Any:
        return self._call.trailing_metadata()

    def code(self) -> Any:
        return self._call.code()

    def details(self) -> Any:
        return self._call.details()

    def is_active(self) -> Any:
        return self._call.is_active()

    def time_remaining(self) -> Any:
        return self._call.time_remaining()

    def cancel(self) -> Any:
        return self._call.cancel()

    def add_callback(self, callback: Any) -> Any:
        return self._call.add_callback(callback)

    def cancelled(self) -> Any:
        return self._call.cancelled()

    def running(self) -> Any:
        return self._call.running()

    def done(self) -> Any:
        return self._call.done()

    def result(self, timeout: float | None = None) -> Any:
        try:
            value = self._call.result(timeout)
        except grpc.RpcError as error:
            self._complete()
            if self._exchange.shed is not None:
                raise self._exchange.shed from error
            raise
        except grpc.FutureCancelledError:
            self._complete()
            raise
        self._complete()
        return value

    def exception(self, timeout: float | None = None) -> Any:
        try:
            error = self._call.exception(timeout)
        except grpc.FutureCancelledError:
            self._complete()
            raise
        self._complete()
        return self._exchange.shed or error

    def traceback(self, timeout: float | None = None) -> Any:
        return self._call.traceback(timeout)

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        def done(_call: object) -> None:
            self._complete()
            fn(self)

        self._call.add_done_callback(done)

    def _complete(self) -> None:
        call = self._call
        self._exchange.complete(lambda: _ending_of(call))


class _Pending(_Call):
    """What ``future`` returns for a call with one response."""


class _Stream(_Call):
    """A call with many responses."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        exchange = self._exchange
        exchange.listen()
        try:
            return next(self._call)
        except StopIteration:
            self._complete()
            raise
        except grpc.RpcError as error:
            self._complete()
            if exchange.shed is not None:
                raise exchange.shed from error
            raise
        finally:
            exchange.heard()

    def next(self) -> Any:
        """Do as ``next()`` does, as gRPC's own calls."""
        return next(self)


def _watch(call: Any, exchange: Exchange) -> None:
    """Have the exchange told when the call is over, even if nobody asks it any more.

    The call is held weakly: gRPC cancels one that everybody has forgotten, and what it calls back must not keep it.
    """
    held = weakref.ref(call)

    def over() -> None:
        ended = held()
        gone = Ending(grpc.StatusCode.CANCELLED, canceled=True)
        exchange.complete(lambda: gone if ended is None else _ending_of(ended))

    with suppress(AttributeError, NotImplementedError):  # a stranger's; then it is settled when it is read to its end
        if not call.add_callback(over):
            over()


class _Served(grpc.Call, grpc.Future):  # type: ignore[misc]  # grpc has no types of its own
    """A finished call whose response is a fallback's."""

    def __init__(self, response: Any) -> None:
        self._response = response

    def initial_metadata(self) -> Any:
        return ()

    def trailing_metadata(self) -> Any:
        return ()

    def code(self) -> Any:
        return grpc.StatusCode.OK

    def details(self) -> str:
        return ""

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> None:
        return None

    def cancel(self) -> bool:
        return False

    def add_callback(self, callback: Callable[[], object]) -> bool:  # noqa: ARG002  gRPC's signature
        return False

    def cancelled(self) -> bool:
        return False

    def running(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> Any:  # noqa: ARG002  as above
        return self._response

    def exception(self, timeout: float | None = None) -> None:  # noqa: ARG002  as above
        return None

    def traceback(self, timeout: float | None = None) -> None:  # noqa: ARG002  as above
        return None

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        fn(self)
