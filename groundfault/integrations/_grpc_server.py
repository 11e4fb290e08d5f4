"""The server interceptor of gRPC's blocking stack.

A call comes to Python on the thread that serves the server's sockets, and its handler runs in the server's pool.
What lies between is the queue, and it is measured to the microsecond, if nothing else is. So a handler that takes one
request is given to gRPC as one that takes a stream: then it begins when its thread does, not when the request has come,
which is up to the client; and a refusal costs no reading.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Unpack

import grpc

from groundfault.integrations._grpc_served import Door, ServedContext
from groundfault.shedding._request import Visit, shedder_of
from groundfault.shedding.settings import ShedderOptions
from groundfault.shedding.shedder import Shedder
from groundfault.sinks import Sink, Sinks

__all__ = ["ServerInterceptor", "in_thread"]


class ServerInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]  # grpc has no types of its own
    """Refuses calls that waited too long for a thread, and annotates answers that a failing dependency is behind.

    ``grpc.server(pool, interceptors=(ServerInterceptor(service="saber"),))``: first of all interceptors, or those in
    front of it are run for refused calls too, and see every handler as one that takes a stream of requests.

    ``shedder``: one made before, to be tuned or looked at from elsewhere; None makes one of ``sinks`` and ``settings``,
    which are those of :class:`~groundfault.shedding.settings.ShedderSettings`. It is the attribute ``shedder``.
    The health service and reflection are never refused, as health paths are not.
    Raises :class:`~groundfault.errors.SettingsError`.

    A call is in flight while a thread serves it, until its last message has been handed over.
    """

    def __init__(
        self,
        *,
        shedder: Shedder | None = None,
        sinks: Iterable[Sink] | Sinks | None = None,
        **settings: Unpack[ShedderOptions],
    ) -> None:
        self.shedder = shedder_of(shedder, sinks, settings)

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Put the handler of one call behind the shedder."""
        shedder = self.shedder
        came_at = shedder.clock()
        handler = continuation(handler_call_details)
        if handler is None or shedder.bypassed:
            return handler
        try:
            return in_thread(handler, Door(shedder, handler_call_details.method, came_at))
        except Exception as error:  # noqa: BLE001  an error of ours must not cost the call
            shedder.failed("grpc handler", error)
            return handler


def in_thread(handler: Any, door: Door) -> Any:
    """Return the handler behind the door. Its behavior is run by a thread."""
    if handler.response_streaming:
        behavior = handler.stream_stream if handler.request_streaming else handler.unary_stream
        if getattr(behavior, "experimental_non_blocking", False):
            return handler  # it may end after it has returned, on any thread
        serve, wrap = (
            _streaming(behavior, door, one=not handler.request_streaming),
            grpc.stream_stream_rpc_method_handler,
        )
    else:
        behavior = handler.stream_unary if handler.request_streaming else handler.unary_unary
        serve, wrap = (
            _answering(behavior, door, one=not handler.request_streaming),
            grpc.stream_unary_rpc_method_handler,
        )
    own_pool = getattr(behavior, "experimental_thread_pool", None)
    if own_pool is not None:
        serve.experimental_thread_pool = own_pool  # type: ignore[attr-defined]  # where grpc looks for it
    return wrap(serve, handler.request_deserializer, handler.response_serializer)


def _answering(behavior: Callable[..., Any], door: Door, *, one: bool) -> Callable[..., Any]:
    def serve(requests: Iterator[Any], context: Any) -> Any:
        visit = door.admit(context)
        if visit is None:
            return behavior(_only(requests, context, door) if one else requests, context)
        served = _entered(visit, context)
        try:
            response = behavior(_only(requests, served, door) if one else requests, served)
        except BaseException as error:
            served.failed(error)
            raise
        served.ended()
        return response

    return serve


def _streaming(behavior: Callable[..., Any], door: Door, *, one: bool) -> Callable[..., Any]:
    def serve(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        visit = door.admit(context)
        if visit is None:
            yield from behavior(_only(requests, context, door) if one else requests, context)
            return
        served = _entered(visit, context)
        try:
            yield from behavior(_only(requests, served, door) if one else requests, served)
        except BaseException as error:
            served.failed(error)
            raise
        served.ended()

    return serve


def _entered(visit: Visit, context: Any) -> ServedContext:
    """Make the call that of the code that runs from here on, or refuse it, which raises."""
    served = ServedContext(context, visit)
    if visit.refused and visit.reason is not None:
        served.refuse(visit.reason)
    visit.enter()
    return served


def _only(requests: Iterator[Any], context: Any, door: Door) -> Any:
    """Return the only request of a call; ends it as gRPC does where there is none."""
    for request in requests:
        return request
    context.abort(grpc.StatusCode.UNIMPLEMENTED, f'"{door.path}" requires exactly one request message.')
    raise RuntimeError("the call is over")  # as in ServedContext
