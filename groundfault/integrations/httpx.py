"""The chokepoint for httpx: transports that send every request through a command.

::

    client = httpx.Client(transport=GroundFaultTransport("saber", timeout_s=0.5, max_concurrent=5))
    client = httpx.AsyncClient(transport=AsyncGroundFaultTransport("saber", timeout_s=0.5, max_concurrent=5))

A command is settled when the response's body has been read to its end or closed, not when its headers arrive;
a 5xx at once, for ``raise_for_status()`` may leave the body unread.
A response that is forgotten unread gives its permit back when it is collected.
Redirects and authentication happen above a transport, so each hop is a call of its own.
"""

try:
    import httpx
except ImportError as missing:  # pragma: no cover  shown only where the extra is missing
    raise ImportError("groundfault.integrations.httpx needs httpx: pip install 'groundfault[httpx]'") from missing

from groundfault import errors
from groundfault.integrations._httpx import AsyncGuard, Guard
from groundfault.integrations._httpx_call import AsyncBody, Body, Library, Upload
from groundfault.integrations._httpx_errors import Answered, NeverSent, TimedOut

__all__ = [
    "AsyncGroundFaultTransport",
    "BulkheadFullError",
    "CircuitOpenError",
    "CommandTimeoutError",
    "GroundFaultTransport",
    "ShedError",
    "ThrottledError",
    "UnhealthyError",
]


class CircuitOpenError(NeverSent, errors.CircuitOpenError, httpx.ConnectError):
    """The circuit is open; also an ``httpx.ConnectError``."""


class BulkheadFullError(NeverSent, errors.BulkheadFullError, httpx.ConnectError):
    """As many calls are in flight as allowed; also an ``httpx.ConnectError``."""


class ThrottledError(NeverSent, errors.ThrottledError, httpx.ConnectError):
    """The callee is shedding and only a share of the calls is sent; also an ``httpx.ConnectError``."""


class UnhealthyError(NeverSent, errors.UnhealthyError, httpx.ConnectError):
    """The health check says no; also an ``httpx.ConnectError``."""


class ShedError(errors.ShedError, Answered, httpx.HTTPStatusError):
    """The callee answered with an annotated 503; also an ``httpx.HTTPStatusError`` with its ``response``."""


class CommandTimeoutError(errors.CommandTimeoutError, TimedOut, httpx.ReadTimeout):
    """The call's time was up, or the caller's budget was before it was sent; also an ``httpx.ReadTimeout``."""


class _Body(Body, httpx.SyncByteStream):
    pass


class _AsyncBody(AsyncBody, httpx.AsyncByteStream):
    pass


class _Upload(Upload, httpx.SyncByteStream, httpx.AsyncByteStream):
    pass


_LIBRARY = Library(
    module=httpx,
    rejections={
        errors.CircuitOpenError: CircuitOpenError,
        errors.BulkheadFullError: BulkheadFullError,
        errors.ThrottledError: ThrottledError,
        errors.UnhealthyError: UnhealthyError,
    },
    shed_error=ShedError,
    timeout_error=CommandTimeoutError,
    body=_Body,
    async_body=_AsyncBody,
    upload=_Upload,
)


class GroundFaultTransport(Guard, httpx.BaseTransport):
    """For ``httpx.Client``: sends every request through a command of ``resource``.

    Takes what :class:`~groundfault.integrations._httpx.Guard` does: ``wrapping``, ``command``, ``on_shed``,
    ``fallback``, ``sinks``, the settings of a command, and the keywords of ``httpx.HTTPTransport``.
    """

    library = _LIBRARY


class AsyncGroundFaultTransport(AsyncGuard, httpx.AsyncBaseTransport):
    """For ``httpx.AsyncClient``: the same, with the keywords of ``httpx.AsyncHTTPTransport``.

    ``fallback`` may be a coroutine function.
    """

    library = _LIBRARY
