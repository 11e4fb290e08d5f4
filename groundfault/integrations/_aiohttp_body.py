"""What aiohttp hands over: which of its errors speak against the callee, and the body of a response.

aiohttp reads a body into a buffer of its own as it arrives, whether or not anybody has asked for it yet.
So the callee's time is told from the application's without looking at every read:
a body is the callee's matter until its end has arrived, except while aiohttp has stopped reading from the socket
because the application does not keep up.
"""

import asyncio
import weakref
from collections.abc import Callable
from contextvars import copy_context
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from aiohttp.helpers import BaseTimerContext

from groundfault.breaker import Attempt
from groundfault.errors import GroundFaultError
from groundfault.events import note_internal_error
from groundfault.vocabulary import Outcome

__all__ = ["WatchedBody", "outcome_of"]

_CALLERS_FAULT: Final = (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError)


def outcome_of(error: BaseException) -> Outcome | None:
    """Return what an error out of aiohttp means for the callee, None for one that is not aiohttp's own."""
    if isinstance(error, GroundFaultError):  # of a middleware further in: aiohttp's by its bases only
        return None
    if isinstance(error, aiohttp.ClientOSError):  # first: one of a bad certificate is a ValueError too
        return Outcome.FAILURE
    # The bare class stands for what went wrong on this side of the socket: the connector or the response was closed,
    # or the body that the application wanted to send raised. What the callee does has a class of its own.
    if isinstance(error, _CALLERS_FAULT) or type(error) is aiohttp.ClientConnectionError:
        return Outcome.IGNORED
    if isinstance(error, TimeoutError):
        return Outcome.TIMEOUT
    if isinstance(error, aiohttp.ClientError):
        return Outcome.FAILURE
    return None


class WatchedBody:
    """Settles an attempt when the body of its response has ended, and ends the body when its time is over.

    ends_at: when that is, on the loop's clock, None for never. late: makes the error that is raised then.

    It must not hold the response: one that nobody else holds is to be collected.
    What it tells, it tells in the context of the call, for the end of a body comes up in the connection's context,
    which is that of the request for which the connection was once opened.
    """

    __slots__ = ("_attempt", "_context", "_ends_at", "_ignored", "_late", "_loop", "_paused_at", "_response", "_timer")

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        attempt: Attempt,
        *,
        ends_at: float | None,
        late: Callable[[], Exception],
        ignored: tuple[type[BaseException], ...],
    ) -> None:
        self._attempt: Attempt | None = attempt
        self._context = copy_context()
        self._loop = asyncio.get_running_loop()
        self._ends_at = ends_at
        self._late = late
        self._ignored = ignored
        self._response = weakref.ref(response)
        self._timer: asyncio.TimerHandle | None = None
        self._paused_at: float | None = None
        connection, content = response.connection, response.content
        if connection is None or content.is_eof():
            self._settle(Outcome.SUCCESS)
            return
        self._arm()
        connection.add_callback(self._left)
        content.on_eof(self._left)
        try:
            # Both were handed to the reader when it was made; what stands in for them passes everything on.
            content._timer = _Waits(content._timer, self)  # noqa: SLF001  aiohttp tells nobody else of a failed read
            content._protocol = _Flow(content._protocol, self)  # type: ignore[assignment]  # noqa: SLF001  nor of this
        except AttributeError as error:
            note_internal_error("watching a body of aiohttp", error)
        if getattr(connection.protocol, "_reading_paused", False):
            self.paused()

    def paused(self) -> None:
        """Stop the clock: the application does not keep up with the callee."""
        if self._paused_at is None:
            self._paused_at = self._loop.time()
            self._disarm()

    def resumed(self) -> None:
        """Let the clock go on."""
        if self._paused_at is None:
            return
        paused_s = self._loop.time() - self._paused_at
        self._paused_at = None
        if self._attempt is not None:
            self._attempt.excuse(paused_s)
        if self._ends_at is not None:
            self._ends_at += paused_s
        self._arm()

    def failed(self, error: BaseException) -> None:
        """End the call: waiting for more of the body raised."""
        outcome = None if isinstance(error, self._ignored) else outcome_of(error)
        self._settle(outcome, error)

    def _left(self) -> None:
        """End the call: its connection is free again, or gone."""
        response = self._response()
        if response is None or not response.closed:
            # Nobody closed it, so it was forgotten. This may be the garbage collector calling, at any moment:
            # settling would take a lock, an attempt that is let go of gives its place back without one.
            self._attempt = None
            return
        self._disarm()
        error = response.content.exception()
        if error is None or response.content.is_eof() or type(error) is aiohttp.ClientConnectionError:
            self._settle(Outcome.SUCCESS)  # the last of the three is what closing by hand leaves in the reader
        else:
            self.failed(error)

    def _settle(self, outcome: Outcome | None, error: BaseException | None = None) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            self._context.run(_conclude, attempt, outcome, error)

    def _arm(self) -> None:
        if self._ends_at is not None:
            self._timer = self._loop.call_at(self._ends_at, self._expire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        response = self._response()
        if response is None or response.content.is_eof():
            return
        error = self._late()
        if response.content.exception() is None:
            response.content.set_exception(error)  # whoever reads, now or later, gets it
        self._settle(Outcome.TIMEOUT, error)
        response.close()


def _conclude(attempt: Attempt, outcome: Outcome | None, error: BaseException | None) -> None:
    # Without a fallback: none can take the place of a body that the application has begun to read.
    if outcome is not None:
        attempt.settle(outcome, carrier=error)
    elif error is not None:
        attempt.fail_with(error)


class _Waits(BaseTimerContext):
    """aiohttp's timer of one request, in which its reader does all its waiting."""

    __slots__ = ("_body", "_timer")

    def __init__(self, timer: Any, body: WatchedBody) -> None:
        self._timer = timer
        self._body = body

    def __enter__(self) -> Self:
        try:
            self._timer.__enter__()
        except BaseException as error:
            self._body.failed(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            swallowed: bool | None = self._timer.__exit__(kind, error, traceback)
        except BaseException as own:
            self._body.failed(own)  # aiohttp's total timeout, made of a cancellation
            raise
        if error is not None and not swallowed:
            self._body.failed(error)
        return swallowed

    def assert_timeout(self) -> None:
        self._timer.assert_timeout()


class _Flow:
    """aiohttp's connection as its reader knows it, to be told to pause when the buffer is full."""

    __slots__ = ("_body", "_protocol")

    def __init__(self, protocol: Any, body: WatchedBody) -> None:
        self._protocol = protocol
        self._body = body

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)

    def pause_reading(self) -> None:
        self._body.paused()
        self._protocol.pause_reading()

    def resume_reading(self, *args: Any, **kwargs: Any) -> None:
        self._body.resumed()  # first: what has been kept back comes in at once and may pause it again
        self._protocol.resume_reading(*args, **kwargs)
