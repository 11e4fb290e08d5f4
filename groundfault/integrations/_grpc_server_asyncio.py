"""The server interceptor of ``grpc.aio``.

A coroutine is run by the loop that its call has come to, so between the two there is nothing to be measured: what
waits, waits inside the handlers. There the forecast decides, as under ASGI, and the calls' own deadlines.
Handlers that are plain functions run in the server's pool, and their wait for a thread is measured.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Any, Unpack

import grpc

from groundfault.integrations._grpc_served import Door, Served
from groundfault.integrations._grpc_server import in_thread
from groundfault.shedding._propagation import Verdict
from groundfault.shedding._request import Visit, shedder_of
from groundfault.shedding.settings import ShedderOptions
from groundfault.shedding.shedder import Shedder
from groundfault.sinks import Sink, Sinks

__all__ = ["AioServerInterceptor"]


class AioServerInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types of its own
    """Refuses calls that would be answered too late, and annotates answers that a failing dependency is behind.

    ``grpc.aio.server(interceptors=(AioServerInterceptor(service="saber"),))``, first of all interceptors.
    The arguments are those of :class:`~groundfault.integrations.grpc.ServerInterceptor`.
    """

    def __init__(
        self,
        *,
        shedder: Shedder | None = None,
        sinks: Iterable[Sink] | Sinks | None = None,
        **settings: Unpack[ShedderOptions],
    ) -> None:
        self.shedder = shedder_of(shedder, sinks, settings)

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Put the handler of one call behind the shedder."""
        shedder = self.shedder
        came_at = shedder.clock()
        handler = await continuation(handler_call_details)
        if handler is None or shedder.bypassed:
            return handler
        try:
            return _behind(handler, shedder, handler_call_details.method, came_at)
        except Exception as error:  # noqa: BLE001  an error of ours must not cost the call
            shedder.failed("grpc handler", error)
            return handler


_KINDS = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}


def _behind(handler: Any, shedder: Shedder, path: str, came_at: float) -> Any:
    name, wrap = _KINDS[bool(handler.request_streaming), bool(handler.response_streaming)]
    behavior = getattr(handler, name)
    if inspect.iscoroutinefunction(behavior):  # as gRPC tells them apart
        serve: Callable[..., Any] = _answering(behavior, Door(shedder, path, None))
    elif inspect.isasyncgenfunction(behavior):
        serve = _streaming(behavior, Door(shedder, path, None))
    else:
        return in_thread(handler, Door(shedder, path, came_at))
    return wrap(serve, handler.request_deserializer, handler.response_serializer)


def _answering(behavior: Callable[..., Awaitable[Any]], door: Door) -> Callable[..., Any]:
    async def serve(request: Any, context: Any) -> Any:
        visit = door.admit(context)
        if visit is None:
            return await behavior(request, context)
        served = await _entered(visit, context)
        try:
            response = await behavior(request, served)
        except BaseException as error:
            await served.failed(error)
            raise
        served.ended()
        return response

    return serve


def _streaming(behavior: Callable[..., Any], door: Door) -> Callable[..., Any]:
    async def serve(request: Any, context: Any) -> AsyncIterator[Any]:
        visit = door.admit(context)
        if visit is None:
            async for response in behavior(request, context):
                yield response
            return
        served = await _entered(visit, context)
        try:
            async with aclosing(behavior(request, served)) as responses:
                async for response in responses:
                    served.begins()
                    yield response
        except BaseException as error:
            await served.failed(error)
            raise
        served.ended()

    return serve


async def _entered(visit: Visit, context: Any) -> "_AioServedContext":
    """Make the call that of the code that runs from here on, or refuse it, which raises."""
    served = _AioServedContext(context, visit)
    if visit.refused and visit.reason is not None:
        await served.end(Verdict(visit.reason, visit.rules.settings.service))
    context.add_done_callback(lambda _context: visit.close())  # a generator may be left to the garbage collector
    visit.enter()
    return served


class _AioServedContext(Served):
    """What a coroutine is given in the place of gRPC's context."""

    async def write(self, message: Any) -> None:
        """Send a message."""
        self.begins()
        await self._context.write(message)

    async def abort(self, code: Any, details: str = "", trailing_metadata: Iterable[tuple[str, Any]] = ()) -> None:
        """End the call, as gRPC's does: this raises."""
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)
        verdict = self._verdict_on(code)
        self._aborted = True
        if verdict is not None:
            await self.end(verdict)
        self._code = code
        await self._context.abort(code, details)

    async def abort_with_status(self, status: Any) -> None:
        """End the call, as :meth:`abort`."""
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    async def failed(self, error: BaseException) -> None:
        """Note that ``error`` has left the handler; raises the end that takes its place, if any does."""
        verdict = self._verdict_on_error(error)
        if verdict is not None:
            await self.end(verdict)

    async def end(self, verdict: Verdict) -> None:
        """End the call with an annotated status: this raises."""
        details, trailing = self._annotated(verdict)
        self._code = grpc.StatusCode.UNAVAILABLE
        await self._context.abort(grpc.StatusCode.UNAVAILABLE, details, trailing)


grpc.aio.ServicerContext.register(_AioServedContext)
