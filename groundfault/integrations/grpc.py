"""The chokepoint and the load shedder for gRPC, blocking and ``grpc.aio``.

::

    channel = grpc.intercept_channel(channel, GroundFaultInterceptor("saber", timeout_s=0.5, max_concurrent=5))
    channel = grpc.aio.insecure_channel("saber:50051", interceptors=aio_interceptors("saber", timeout_s=0.5))

    server = grpc.server(pool, interceptors=(ServerInterceptor(service="saber"),))
    server = grpc.aio.server(interceptors=(AioServerInterceptor(service="saber"),))

A call is settled when its status is known. All errors raised for a call are ``grpc.RpcError`` s too.
Put a client interceptor nearest to the channel but for those that retry, and a server interceptor first of all.
"""

try:
    import grpc as _grpc  # noqa: F401  asked for here, so that its absence is told in one line
except ImportError as missing:  # pragma: no cover  shown only where the extra is missing
    raise ImportError("groundfault.integrations.grpc needs grpcio: pip install 'groundfault[grpc]'") from missing

from groundfault.integrations._grpc_asyncio import aio_interceptors
from groundfault.integrations._grpc_errors import (
    BulkheadFullError,
    CircuitOpenError,
    CommandTimeoutError,
    ShedError,
    ThrottledError,
    UnhealthyError,
)
from groundfault.integrations._grpc_server import ServerInterceptor
from groundfault.integrations._grpc_server_asyncio import AioServerInterceptor
from groundfault.integrations._grpc_sync import GroundFaultInterceptor

__all__ = [
    "AioServerInterceptor",
    "BulkheadFullError",
    "CircuitOpenError",
    "CommandTimeoutError",
    "GroundFaultInterceptor",
    "ServerInterceptor",
    "ShedError",
    "ThrottledError",
    "UnhealthyError",
    "aio_interceptors",
]
