"""What requests hands over of urllib3: which of their errors speak against the callee, and the body of a response."""

import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

import requests
from requests import exceptions
from urllib3 import exceptions as urllib3_exceptions

from groundfault._clock import monotonic
from groundfault.breaker import Attempt
from groundfault.vocabulary import Outcome

__all__ = ["WatchedBody", "outcome_of", "read_within"]

# The caller's own mistakes say nothing about the callee.
_CALLERS_FAULT: Final = (
    exceptions.InvalidURL,
    exceptions.InvalidHeader,
    exceptions.MissingSchema,
    exceptions.InvalidSchema,
    exceptions.InvalidProxyURL,
    ValueError,
)
_TIMEOUTS: Final = (exceptions.Timeout, urllib3_exceptions.TimeoutError, TimeoutError)


def outcome_of(error: BaseException) -> Outcome | None:
    """Return what an error of requests or urllib3 means for the callee, None for one of neither."""
    # Requests wraps urllib3's errors in its own, not always in the like: a body that stalls is a ConnectionError.
    wrapped = error.args[0] if isinstance(error, exceptions.RequestException) and error.args else None
    if isinstance(wrapped, urllib3_exceptions.ReadTimeoutError):
        return Outcome.TIMEOUT
    if isinstance(wrapped, urllib3_exceptions.InvalidHeader):  # in the answer: two lengths, for instance
        return Outcome.FAILURE
    if isinstance(error, _CALLERS_FAULT):
        return Outcome.IGNORED
    if isinstance(error, _TIMEOUTS):
        return Outcome.TIMEOUT
    if isinstance(error, exceptions.RequestException | urllib3_exceptions.HTTPError):
        return Outcome.FAILURE
    return None


def read_within(response: requests.Response, ends_at: float | None) -> None:
    """Read the whole body, by ``ends_at`` on the monotonic clock; what was read is then ``response.content``.

    Raises what requests raises for a body that stalls. A last read may take its own timeout longer.
    """
    body = response.raw
    if ends_at is not None and hasattr(body, "read1"):  # urllib3 has it since 2.1
        response.raw = _HastyBody(body, ends_at)
    try:
        response.content  # noqa: B018  reading it keeps it on the response
    finally:
        response.raw = body


class _HastyBody:
    """urllib3's response, given up at a certain time: a timeout of each read never ends a body that trickles."""

    def __init__(self, raw: Any, ends_at: float) -> None:
        self._raw = raw
        self._ends_at = ends_at

    def stream(self, amt: int, *, decode_content: bool) -> Iterator[bytes]:
        while chunk := self._raw.read1(amt, decode_content=decode_content):
            yield chunk
            if monotonic() >= self._ends_at and not self._raw.closed:
                self._raw.close()
                raise urllib3_exceptions.ReadTimeoutError(None, None, "Read timed out.")  # type: ignore[arg-type]  # as where urllib3 has no pool at hand


class WatchedBody:
    """urllib3's response with its reads watched; everything else is passed through.

    Counts only the time spent waiting for the callee, so a consumer that dawdles between reads is not held against it.
    It must not hold the response: a forgotten one is to be collected at once, and its attempt with it.
    """

    __slots__ = ("_attempt", "_outcome", "_raw", "_response", "_spent_s")

    def __init__(self, response: requests.Response, attempt: Attempt, outcome: Outcome, spent_s: float) -> None:
        object.__setattr__(self, "_raw", response.raw)
        self._attempt = attempt
        self._outcome = outcome
        self._spent_s = spent_s
        self._response = weakref.ref(response)

    def __getattr__(self, name: str) -> Any:
        if name in WatchedBody.__slots__:  # not set yet, in a copy
            raise AttributeError(name)
        return getattr(self._raw, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in WatchedBody.__slots__:
            object.__setattr__(self, name, value)
        else:  # `response.raw.decode_content = True` is how one asks urllib3 to unpack
            setattr(self._raw, name, value)

    @property
    def data(self) -> Any:
        return self._watch(getattr, self._raw, "data")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def settle_if_ended(self) -> None:
        if self._raw.closed:
            self._settle()

    def _settle(self) -> None:
        self._attempt.settle(self._outcome, duration_s=self._spent_s, carrier=self._response())

    def _watch(self, read: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        started = monotonic()
        try:
            return read(*args, **kwargs)
        except BaseException as error:
            outcome = outcome_of(error)
            if outcome is None:
                self._attempt.fail_with(error)
            else:
                self._attempt.settle(outcome, duration_s=self._spent_s + monotonic() - started, carrier=error)
            raise
        finally:
            self._spent_s += monotonic() - started
            self.settle_if_ended()

    def _watched(self, chunks: Iterator[Any]) -> Iterator[Any]:
        end = object()
        while (chunk := self._watch(next, chunks, end)) is not end:
            yield chunk
        self._settle()

    def read(self, *args: Any, **kwargs: Any) -> bytes:
        return bytes(self._watch(self._raw.read, *args, **kwargs))

    def read1(self, *args: Any, **kwargs: Any) -> bytes:
        return bytes(self._watch(self._raw.read1, *args, **kwargs))

    def readinto(self, buffer: Any) -> int:
        return int(self._watch(self._raw.readinto, buffer))

    def readline(self, *args: Any) -> bytes:
        return bytes(self._watch(self._raw.readline, *args))

    def readlines(self, *args: Any) -> list[bytes]:
        return list(self._watch(self._raw.readlines, *args))

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        return self._watched(self._raw.stream(*args, **kwargs))

    def read_chunked(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        return self._watched(self._raw.read_chunked(*args, **kwargs))

    def __iter__(self) -> Iterator[bytes]:
        return self._watched(iter(self._raw))

    def drain_conn(self) -> None:
        self._watch(self._raw.drain_conn)

    def release_conn(self) -> None:
        self._raw.release_conn()
        self._settle()

    def close(self) -> None:
        self._raw.close()
        self._settle()
