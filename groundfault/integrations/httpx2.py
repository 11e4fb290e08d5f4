"""The chokepoint for httpx2: transports that send every request through a command.

::

    client = httpx2.Client(transport=GroundFaultTransport("saber", timeout_s=0.5, max_concurrent=5))
    client = httpx2.AsyncClient(transport=AsyncGroundFaultTransport("saber", timeout_s=0.5, max_concurrent=5))

A command is settled when the response's body has been read to its end or closed, not when its headers arrive;
a 5xx at once, for ``raise_for_status()`` may leave the body unread.
A response that is forgotten unread gives its permit back when it is collected.
Redirects and authentication happen above a transport, so each hop is a call of its own.
"""

try:
    import httpx2
except ImportError as missing:  # pragma: no cover  shown only where the extra is missing
    raise ImportError("groundfault.integrations.httpx2 needs httpx2: pip install 'groundfault[httpx2]'") from missing

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


class CircuitOpenError(NeverSent, errors.CircuitOpenError, httpx2.ConnectError):
    """The circuit is open; also an ``httpx2.ConnectError``."""


class BulkheadFullError(NeverSent, errors.BulkheadFullError, httpx2.ConnectError):
    """As many calls are in flight as allowed; also an ``httpx2.ConnectError``."""


class ThrottledError(NeverSent, errors.ThrottledError, httpx2.ConnectError):
    """The callee is shedding and only a share of the calls is sent; also an ``httpx2.ConnectError``."""


class UnhealthyError(NeverSent, errors.UnhealthyError, httpx2.ConnectError):
    """The health check says no; also an ``httpx2.ConnectError``."""


class ShedError(errors.ShedError, Answered, httpx2.HTTPStatusError):
    """The callee answered with an annotated 503; also an ``httpx2.HTTPStatusError`` with its ``response``."""


class CommandTimeoutError(errors.CommandTimeoutError, TimedOut, httpx2.ReadTimeout):
    """The call's time was up, or the caller's budget was before it was sent; also an ``httpx2.ReadTimeout``."""


class _Body(Body, httpx2.SyncByteStream):
    pass


class _AsyncBody(AsyncBody, httpx2.AsyncByteStream):
    pass


class _Upload(Upload, httpx2.SyncByteStream, httpx2.AsyncByteStream):
    pass


_LIBRARY = Library(
    module=httpx2,
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


class GroundFaultTransport(Guard, httpx2.BaseTransport):
    """For ``httpx2.Client``: sends every request through a command of ``resource``.

    Takes what :class:`~groundfault.integrations._httpx.Guard` does: ``wrapping``, ``command``, ``on_shed``,
    ``fallback``, ``sinks``, the settings of a command, and the keywords of ``httpx2.HTTPTransport``.
    """

    library = _LIBRARY


class AsyncGroundFaultTransport(AsyncGuard, httpx2.AsyncBaseTransport):
    """For ``httpx2.AsyncClient``: the same, with the keywords of ``httpx2.AsyncHTTPTransport``.

    ``fallback`` may be a coroutine function.
    """

    library = _LIBRARY
