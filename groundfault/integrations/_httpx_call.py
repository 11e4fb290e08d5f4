"""One call through httpx: what is sent, how long it may take, what its answer means, and the body it ends with.

``Library`` is httpx or httpx2, which are one library twice; nothing here knows which.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import anyio

from groundfault import errors, wire
from groundfault._clock import monotonic
from groundfault.breaker import Attempt, Command
from groundfault.breaker.attempt import Fallback
from groundfault.events import note_internal_error
from groundfault.integrations._http import honored_refusal, hop_headers, judge, least_s
from groundfault.integrations._httpx_network import Expired, call_ends, call_ends_at
from groundfault.vocabulary import Outcome

__all__ = ["AsyncBody", "Body", "Call", "Library", "Upload", "close_generator", "is_astray", "next_or_none"]

T = TypeVar("T")

_HOST: Final = "groundfault.host"
"""The host that a request was first meant for, in its extensions: those are the one thing that follows a redirect."""

_NEVER_LATE_S: Final = 0.001  # a timer may ring a moment before its time
_PHASES: Final = ("connect", "read", "write", "pool")


@dataclass(frozen=True)
class Library:
    """httpx or httpx2, and what one of our thin modules makes of it."""

    module: Any
    rejections: Mapping[type[errors.RejectedError], Any]
    shed_error: Any
    timeout_error: Any
    body: Any
    async_body: Any
    upload: Any


class Call:
    """An attempt at one request. ``spent_s`` is what was spent waiting for the callee, its consumer's time left out."""

    __slots__ = (
        "_began",
        "_callers_faults",
        "_host",
        "_limit_s",
        "_upload",
        "attempt",
        "command",
        "library",
        "outcome",
        "refusal",
        "request",
        "spent_s",
    )

    def __init__(
        self, library: Library, command: Command, attempt: Attempt, request: Any, *, own_network: bool
    ) -> None:
        self.library = library
        self.command = command
        self.attempt = attempt
        self.request = request
        self.spent_s = 0.0
        self.outcome = Outcome.SUCCESS
        self.refusal: wire.Refusal | None = None
        self._began = monotonic()
        self._limit_s = attempt.timeout_s
        self._host = request.url.host
        self._upload: Upload | None = None
        httpx = library.module
        faults: tuple[type[Exception], ...] = (httpx.InvalidURL, httpx.LocalProtocolError, httpx.UnsupportedProtocol)
        # No application below could have raised the last two, but a timeout that is no number does.
        self._callers_faults = (*faults, TypeError, ValueError) if own_network else faults
        request.extensions = {**request.extensions, _HOST: self._host}

    def outgoing(self) -> Any:
        """Return a copy of the request with this hop's headers and bounds: on the original they would follow it."""
        httpx, request = self.library.module, self.request
        try:
            extensions = dict(request.extensions)
            bounds = extensions.get("timeout") or {}
            budget_s = bounds.get("read")
            if self._limit_s is not None:
                budget_s = least_s(budget_s, self._limit_s)
                extensions["timeout"] = {phase: least_s(bounds.get(phase), self._limit_s) for phase in _PHASES}
            headers = request.headers.copy()
            for name in [name for name in headers if wire.is_ours(name)]:
                del headers[name]
            patience_s = budget_s if isinstance(budget_s, int | float) else None
            headers.update(dict(hop_headers(self.command, patience_s, tuple(headers))))
            stream = request.stream
            if not isinstance(stream, httpx.ByteStream):
                stream = self._upload = self.library.upload(stream)
            outgoing = httpx.Request(request.method, request.url, headers=headers, stream=stream, extensions=extensions)
            if self._upload is None:
                outgoing.read()  # from memory, as the original was: a transport below may ask for its `content`
            return outgoing
        except Exception as error:  # noqa: BLE001  the request goes out as it is, rather than not at all
            note_internal_error("headers of the httpx transport", error)
            return request

    def judge(self, response: Any) -> None:
        """Set ``outcome`` and ``refusal`` to what the head of the response says."""
        self.refusal = honored_refusal(response.status_code, response.headers, self._host, self.command)
        self.outcome = judge(response.status_code, self.refusal)

    def settle(self, carrier: object = None, *, fallback: Fallback = False) -> None:
        """Settle with ``outcome``, once."""
        self.attempt.settle(
            self.outcome, duration_s=self.spent_s, refusal=self.refusal, carrier=carrier, fallback=fallback
        )

    def fail(self, error: BaseException, *, fallback: Fallback = False) -> None:
        """Settle with what an error means, once."""
        outcome = self._outcome_of(error)
        if outcome is None or isinstance(error, self.command.settings.ignored_errors):
            self.attempt.excuse(max(0.0, monotonic() - self._began - self.spent_s))
            self.attempt.fail_with(error, fallback=fallback)
        else:
            self.attempt.settle(outcome, duration_s=self.spent_s, carrier=error, fallback=fallback)

    def _outcome_of(self, error: BaseException) -> Outcome | None:
        httpx = self.library.module
        if isinstance(error, self._callers_faults) or (self._upload is not None and self._upload.raised(error)):
            return Outcome.IGNORED
        if isinstance(error, httpx.TimeoutException):
            return Outcome.TIMEOUT
        return Outcome.FAILURE if isinstance(error, httpx.TransportError) else None

    def timeout_error(self) -> BaseException:
        """Return the error for a call that has used up its time."""
        error: BaseException = self.library.timeout_error(
            self.command.resource, self.command.name, self._limit_s or 0.0
        )
        return error

    def shed_error(self, response: Any) -> BaseException:
        """Return the error for a shed that is to be raised."""
        refusal = self.refusal or wire.Refusal()
        response.request = self.request
        error: Any = self.library.shed_error(
            self.command.resource, self.command.name, refusal.reason, refusal.origin, response
        )
        error.request = self.request
        return error  # type: ignore[no-any-return]  # an exception, of the library's kind

    def wait(self, step: Callable[..., T], *args: Any) -> T:
        """Take a step that waits for the callee. Raises the call's timeout error when its time is up."""
        started = monotonic()
        left_s = self._left_s()
        token = call_ends_at(None if left_s is None else started + left_s)
        try:
            try:
                return step(*args)
            finally:
                call_ends(token)
                self.spent_s += monotonic() - started
        except (Expired, self.library.module.TimeoutException) as error:
            if isinstance(error, Expired):
                raise self.timeout_error() from None
            if self._out_of_time():
                raise self.timeout_error() from error
            raise

    async def await_(self, step: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Do as :meth:`wait`, awaiting. A cancellation that is not ours goes on."""
        started = monotonic()
        left_s = self._left_s()
        try:
            try:
                if left_s is None:
                    return await step(*args)
                with anyio.move_on_after(left_s):
                    return await step(*args)
            finally:
                self.spent_s += monotonic() - started
        except self.library.module.TimeoutException as error:
            if self._out_of_time():
                raise self.timeout_error() from error
            raise
        raise self.timeout_error()

    def _left_s(self) -> float | None:
        if self._limit_s is None:
            return None
        if self.spent_s >= self._limit_s:
            raise self.timeout_error()
        return self._limit_s - self.spent_s

    def _out_of_time(self) -> bool:
        return self._limit_s is not None and self.spent_s >= self._limit_s - _NEVER_LATE_S


def is_astray(request: Any) -> bool:
    """Return whether a redirect has led the request to another host than the callee's; then ours come off it."""
    home = request.extensions.get(_HOST)
    if home is None or home == request.url.host:
        return False
    for name in [name for name in request.headers if wire.is_ours(name)]:
        del request.headers[name]
    return True


class Body:
    """A response's body: settles its call when it has been read to the end, or closed, or broke.

    ``head`` is what was read of it already. It must not hold the response: a forgotten one is to be collected at once.
    """

    def __init__(
        self, call: Call, stream: Any, head: tuple[bytes, ...] = (), rest: Iterator[bytes] | None = None
    ) -> None:
        self._call = call
        self._stream = stream
        self._head = head
        self._rest = rest

    def __iter__(self) -> Iterator[bytes]:
        yield from self._head
        rest = self._rest or iter(self._stream)
        try:
            while (chunk := self._call.wait(next, rest, None)) is not None:
                yield chunk
        except GeneratorExit:  # its consumer has had enough; `close` follows
            raise
        except BaseException as error:
            self._call.fail(error)
            raise
        self._call.settle()

    def close(self) -> None:
        self._call.settle()
        self._stream.close()


class AsyncBody:
    """Its twin for coroutines. Giving the permit back never waits, so no cancellation can come between."""

    def __init__(
        self, call: Call, stream: Any, head: tuple[bytes, ...] = (), rest: AsyncIterator[bytes] | None = None
    ) -> None:
        self._call = call
        self._stream = stream
        self._head = head
        self._rest = rest

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._head:
            yield piece
        rest = self._rest or aiter(self._stream)
        try:
            while (chunk := await self._call.await_(next_or_none, rest)) is not None:
                yield chunk
        except GeneratorExit:
            raise
        except BaseException as error:
            self._call.fail(error)
            raise
        finally:
            await close_generator(rest)
        self._call.settle()

    async def aclose(self) -> None:
        self._call.settle()
        await self._stream.aclose()


class Upload:
    """A request's body that is made while it is sent: an error in the making of it is not the callee's."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._error: BaseException | None = None

    def raised(self, error: BaseException) -> bool:
        """Return whether ``error`` is the body's own, or the library's version of it."""
        own = self._error
        return own is not None and (own is error or own is error.__cause__)

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except Exception as error:
            self._error = error
            raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = aiter(self._stream)
        try:
            async for chunk in chunks:
                yield chunk
        except Exception as error:
            self._error = error
            raise
        finally:
            await close_generator(chunks)


async def next_or_none(iterator: AsyncIterator[bytes]) -> bytes | None:
    """Return the next chunk, None after the last."""
    try:
        return await anext(iterator)
    except StopAsyncIteration:
        return None


async def close_generator(iterator: object) -> None:
    """Close what a consumer may have left in the middle; otherwise the event loop would have to, at some later time."""
    if isinstance(iterator, AsyncGenerator):
        await iterator.aclose()
