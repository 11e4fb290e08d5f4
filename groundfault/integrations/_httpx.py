"""The chokepoint for httpx and httpx2: transports that send every request through a command.

Both libraries are one library twice, so everything is here, and ``httpx.py`` and ``httpx2.py`` only say which.
The synchronous and the asynchronous transport are twins that differ in nothing but the waiting.
"""

import inspect
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, ClassVar, Literal, Self

from groundfault import errors
from groundfault.breaker import Attempt, Command, Resource
from groundfault.breaker.attempt import LATER
from groundfault.integrations._http import (
    BODY_LIMIT,
    CommandNames,
    Substitute,
    budget_is_gone,
    checked_fallback,
    resource_of,
)
from groundfault.integrations._httpx_call import Call, Library, is_astray, next_or_none
from groundfault.integrations._httpx_network import bind_network
from groundfault.sinks import Sink
from groundfault.vocabulary import Outcome

__all__ = ["AsyncGuard", "Guard"]

_log = logging.getLogger("groundfault")
_warned: set[str] = set()


class _Guarding:
    library: ClassVar[Library]
    _base: ClassVar[str]
    _default: ClassVar[str]

    def __init__(
        self,
        resource: str | Resource,
        *,
        wrapping: Any = None,
        command: str | Callable[[Any], str] | None = None,
        on_shed: Literal["return", "raise"] = "return",
        fallback: Callable[[Any], Any] | None = None,
        sinks: Iterable[Sink] | None = None,
        **settings: Any,
    ) -> None:
        httpx = self.library.module
        ordinary = getattr(httpx, self._default)
        taken = inspect.signature(ordinary).parameters
        keywords = {name: settings.pop(name) for name in taken if name in settings}
        resource = resource_of(resource, on_shed=on_shed, sinks=sinks, settings=settings)
        if wrapping is None:
            wrapping = ordinary(**keywords)
        elif keywords:
            raise errors.SettingsError(f"{', '.join(keywords)} belong to the transport that was passed; set them there")
        elif not isinstance(wrapping, getattr(httpx, self._base)):
            raise errors.SettingsError(f"wrapping must be an {httpx.__name__}.{self._base}, not {wrapping!r}")
        self._inner = wrapping
        self._own_network = isinstance(wrapping, ordinary)
        self._raise_when_shed = on_shed == "raise"
        self._fallback = checked_fallback(fallback, awaited=self._default.startswith("Async"))
        self._who = f"{httpx.__name__} to {resource.name}"
        self._names: CommandNames[Any] = CommandNames(resource, command, _method_of)
        retries = getattr(getattr(wrapping, "_pool", None), "_retries", 0)
        if retries:
            _log.warning(
                "transport for %s retries to connect %s times below the circuit: each try is hidden from its counters",
                resource.name,
                retries,
            )
        self._prepare()

    def _prepare(self) -> None:
        pass

    def _command_for(self, request: Any) -> Command | None:
        """Return the command, None if the request is to go through as it is."""
        if not request.url.host:  # the library has the better error, and nothing is called
            return None
        if is_astray(request):
            return None
        command = self._names.command_for(request)
        return None if command.disabled else command

    def _substitute(self, request: Any) -> "_Substitute":
        return _Substitute(self._fallback, request, self.library.module.Response, self._who)

    def _call(self, command: Command, attempt: Attempt, request: Any) -> Call:
        return Call(self.library, command, attempt, request, own_network=self._own_network)

    def _refused(self, rejection: errors.RejectedError, substitute: "_Substitute", request: Any) -> Any:
        """Return what the fallback has served, or raise the library's kind of rejection."""
        if substitute.response is not None:
            return substitute.response
        rejection.__cause__ = substitute.error
        kind = self.library.rejections.get(type(rejection))
        if kind is None:
            raise rejection
        raise kind(*rejection.args, request=request) from rejection

    def _check_budget(self, command: Command) -> None:
        if budget_is_gone():
            raise self.library.timeout_error(command.resource, command.name, 0.0)

    def _is_drained(self, call: Call) -> bool:
        """Whether the body is read here: nobody else will, and its connection can be used again then."""
        return call.refusal is not None or (call.outcome is Outcome.FAILURE and self._fallback is not None)

    def _is_unbound(self, response: Any) -> bool:
        """Whether a settled call's body is still to be read from the callee, by nobody who looks at the time."""
        return not response.is_closed and not isinstance(
            response.stream, (self.library.module.ByteStream, self.library.body, self.library.async_body)
        )

    def _shed_error(self, call: Call, response: Any) -> BaseException | None:
        if call.refusal is None or not self._raise_when_shed:
            return None
        if isinstance(response.stream, self.library.module.ByteStream):
            with suppress(self.library.module.HTTPError):  # a body that does not unpack
                response.read()
        return call.shed_error(response)


class Guard(_Guarding):
    """Sends every request through a command of ``resource``.

    resource: name of the callee, or a :class:`~groundfault.Resource` that carries settings and sinks.
    wrapping: the transport that does the work, for instance an ``ASGITransport``; closed with this one.
      Default: the library's own HTTP transport, which is given the keywords that it knows
      (``verify``, ``http2``, ``limits``, ``proxy``, ``uds``, ``retries`` ...).
    command: the command's name, or a callable that names it from the ``Request``; default: the HTTP method.
      Give low-cardinality names, never the path; see :class:`~groundfault.integrations._http.CommandNames`.
    on_shed: ``"return"`` hands an annotated 503 back as it is, so that existing code sees a plain 503;
      ``"raise"`` raises ``ShedError``.
    fallback: a callable given the ``Request``, of the asynchronous transport also one to be awaited; the ``Response``
      it returns is served instead of a rejection, a failure, a timeout, a 5xx or a shed, and counted.
      One that raises leaves the original error as it is.
    sinks: where events go; default: the process-wide sinks. Only with a resource given by name.
    All other keywords are :class:`~groundfault.BreakerSettings`, again only with a resource given by name.

    ``timeout_s``, or what is left of the budget of the request being served if that is less, bounds the whole call:
    connecting, sending, and the wait for the headers and for the body, without the time that the body's consumer takes.
    It caps the timeouts that the request brings. A call that uses it up raises ``CommandTimeoutError``.
    ``GROUNDFAULT_DISABLED=1`` makes this the transport it wraps and nothing more.

    Raises :class:`~groundfault.SettingsError` for settings that make no sense.
    """

    _base = "BaseTransport"
    _default = "HTTPTransport"

    def _prepare(self) -> None:
        if self._own_network and not bind_network(self._inner):
            _warn_unbound(self.library.module)

    def handle_request(self, request: Any) -> Any:
        """Send the request as one call of its command. Raises this module's errors, and whatever the library raises."""
        command = self._command_for(request)
        if command is None:
            return self._inner.handle_request(request)
        substitute = self._substitute(request)
        attempt = command.attempt()
        try:
            attempt.begin(fallback=substitute.offer)
        except errors.RejectedError as rejection:
            substitute.collect(attempt)
            return self._refused(rejection, substitute, request)
        call = self._call(command, attempt, request)
        try:
            response = self._exchange(call)
        except BaseException as error:  # noqa: BLE001  it is raised on, or replaced
            call.fail(error, fallback=substitute.offer)
            substitute.collect(attempt)
            return substitute.instead_of(error)
        return self._judged(call, response, substitute)

    def _exchange(self, call: Call) -> Any:
        self._check_budget(call.command)
        response = call.wait(self._inner.handle_request, call.outgoing())
        call.judge(response)
        if self._is_drained(call) and not response.is_closed:
            self._drain(call, response)
        return response

    def _judged(self, call: Call, response: Any, substitute: "_Substitute") -> Any:
        if call.outcome is Outcome.SUCCESS and not response.is_closed:
            response.stream = self.library.body(call, response.stream)
            return response
        shed_error = self._shed_error(call, response)
        call.settle(shed_error or response, fallback=substitute.offer)
        substitute.collect(call.attempt)
        if substitute.response is not None or shed_error is not None:
            response.close()
            try:
                return substitute.instead_of(shed_error)
            finally:
                del shed_error  # as in `instead_of`
        if self._is_unbound(response):
            response.stream = self.library.body(call, response.stream)
        return response

    def _drain(self, call: Call, response: Any) -> None:
        stream, head, size = response.stream, [], 0
        rest = iter(stream)
        try:
            while size <= BODY_LIMIT:
                chunk = call.wait(next, rest, None)
                if chunk is None:
                    break
                head.append(chunk)
                size += len(chunk)
            else:  # the rest is for whoever reads it
                response.stream = self.library.body(call, stream, tuple(head), rest)
                return
        except self.library.module.TransportError:
            pass  # what was read stays; the status has said it all
        except BaseException:
            stream.close()
            raise
        stream.close()
        response.stream = self.library.module.ByteStream(b"".join(head))

    def close(self) -> None:
        """Close the transport that does the work."""
        self._inner.close()

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._inner.__exit__(kind, error, traceback)


class AsyncGuard(_Guarding):
    """Sends every request through a command of ``resource``; see :class:`Guard`, whose twin for coroutines it is.

    The time a call may take is enforced by cancellation, whatever the wrapped transport is, on asyncio and trio.
    """

    _base = "AsyncBaseTransport"
    _default = "AsyncHTTPTransport"

    async def handle_async_request(self, request: Any) -> Any:
        """Send the request as one call of its command. Raises this module's errors, and whatever the library raises."""
        command = self._command_for(request)
        if command is None:
            return await self._inner.handle_async_request(request)
        substitute = self._substitute(request)
        attempt = command.attempt()
        try:
            attempt.begin(fallback=LATER)
        except errors.RejectedError as rejection:
            await substitute.aserve(attempt)
            return self._refused(rejection, substitute, request)
        call = self._call(command, attempt, request)
        try:
            response = await self._exchange(call)
        except BaseException as error:  # noqa: BLE001  as above
            call.fail(error, fallback=LATER)
            await substitute.aserve(attempt)
            return substitute.instead_of(error)
        return await self._judged(call, response, substitute)

    async def _exchange(self, call: Call) -> Any:
        self._check_budget(call.command)
        response = await call.await_(self._inner.handle_async_request, call.outgoing())
        call.judge(response)
        if self._is_drained(call) and not response.is_closed:
            await self._drain(call, response)
        return response

    async def _judged(self, call: Call, response: Any, substitute: "_Substitute") -> Any:
        if call.outcome is Outcome.SUCCESS and not response.is_closed:
            response.stream = self.library.async_body(call, response.stream)
            return response
        shed_error = self._shed_error(call, response)
        call.settle(shed_error or response, fallback=LATER)
        try:
            await substitute.aserve(call.attempt)
        except BaseException:  # canceled while the fallback was awaited
            await response.aclose()
            raise
        if substitute.response is not None or shed_error is not None:
            await response.aclose()
            try:
                return substitute.instead_of(shed_error)
            finally:
                del shed_error
        if self._is_unbound(response):
            response.stream = self.library.async_body(call, response.stream)
        return response

    async def _drain(self, call: Call, response: Any) -> None:
        stream, head, size = response.stream, [], 0
        rest = aiter(stream)
        try:
            while size <= BODY_LIMIT:
                chunk = await call.await_(next_or_none, rest)
                if chunk is None:
                    break
                head.append(chunk)
                size += len(chunk)
            else:
                response.stream = self.library.async_body(call, stream, tuple(head), rest)
                return
        except self.library.module.TransportError:
            pass
        except BaseException:
            await stream.aclose()
            raise
        await stream.aclose()
        response.stream = self.library.module.ByteStream(b"".join(head))

    async def aclose(self) -> None:
        """Close the transport that does the work."""
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._inner.__aexit__(kind, error, traceback)


class _Substitute(Substitute[Any, Any]):
    def instead_of(self, error: BaseException | None) -> Any:
        """Return the response, or raise the error that it would have replaced."""
        if self.response is not None or error is None:
            return self.response
        try:
            if self.error is not None:
                raise error from self.error
            raise error
        finally:
            del error  # or it and this frame, which its traceback names, would keep each other


def _method_of(request: Any) -> str:
    return str(request.method)


def _warn_unbound(httpx: Any) -> None:
    if httpx.__name__ not in _warned:
        _warned.add(httpx.__name__)
        _log.warning(
            "%s %s is made differently than expected: a callee that sends its headers byte by byte is bounded by the"
            " timeout of each read only",
            httpx.__name__,
            httpx.__version__,
        )
