"""What requests hands over of urllib3: which of their errors speak against the callee, and the body of a response."""

import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final

import requests
from requests import exceptions
from urllib3 import exceptions as urllib3_exceptions

from groundfault._clock import monotonic
from groundfault.breaker import Attempt
from groundfault.vocabulary import Outcome

__all__ = ["WatchedBody", "outcome_of"]

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
    if isinstance(error, _CALLERS_FAULT):
        return Outcome.IGNORED
    if isinstance(error, _TIMEOUTS):
        return Outcome.TIMEOUT
    if isinstance(error, exceptions.RequestException | urllib3_exceptions.HTTPError):
        return Outcome.FAILURE
    return None


class WatchedBody:
    """urllib3's response with its reads watched; everything else is passed through.

    Counts only the time spent waiting for the callee, so a consumer that dawdles between reads is not held against it.
    It must not hold the response: a forgotten one is to be collected at once, and its attempt with it.
    """

    def __init__(self, response: requests.Response, attempt: Attempt, outcome: Outcome, spent_s: float) -> None:
        self._raw = response.raw
        self._attempt = attempt
        self._outcome = outcome
        self._spent_s = spent_s
        self._response = weakref.ref(response)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

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
