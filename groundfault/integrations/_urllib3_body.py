"""What urllib3 hands over: which of its errors speak against the callee, and the body of a response."""

import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

from urllib3 import exceptions

from groundfault._clock import monotonic
from groundfault.breaker import Attempt
from groundfault.integrations._urllib3_deadline import Deadline
from groundfault.vocabulary import Outcome

__all__ = ["WatchedBody", "outcome_of"]


_MEANINGS: Final[tuple[tuple[type[BaseException], Outcome], ...]] = (  # the first that fits
    (exceptions.InvalidHeader, Outcome.FAILURE),  # in the answer: two lengths, for instance
    (exceptions.EmptyPoolError, Outcome.IGNORED),  # no connection free: nothing was sent
    (ValueError, Outcome.IGNORED),  # the caller's own mistake, such as a bad URL
    (exceptions.NewConnectionError, Outcome.FAILURE),  # refused or unreachable; urllib3 counts it among the timeouts
    (exceptions.TimeoutError, Outcome.TIMEOUT),
    (TimeoutError, Outcome.TIMEOUT),
    (exceptions.HTTPError, Outcome.FAILURE),
)


def outcome_of(error: BaseException) -> Outcome | None:
    """Return what an error of urllib3 means for the callee, None for one that is not urllib3's."""
    cause: BaseException = error
    if isinstance(error, exceptions.MaxRetryError) and error.reason is not None:
        cause = error.reason
    if isinstance(cause, exceptions.ProtocolError):
        cause = next((inner for inner in cause.args if isinstance(inner, TimeoutError)), cause)
    return next((outcome for kind, outcome in _MEANINGS if isinstance(cause, kind)), None)


class WatchedBody:
    """urllib3's response with its reads watched; everything else is passed through.

    Counts only the time spent waiting for the callee, so a consumer that dawdles between reads is not held against it;
    ``deadline`` stands still between them.
    It settles its attempt as a success, or as what a read raises; one that is settled already stays as it is.
    It must not hold the response: a forgotten one is to be collected at once, and its attempt with it.
    """

    __slots__ = ("_attempt", "_began", "_deadline", "_raw", "_response", "_spent_s")

    def __init__(
        self,
        raw: Any,
        attempt: Attempt,
        *,
        spent_s: float,
        deadline: Deadline | None,
        response: object,
    ) -> None:
        object.__setattr__(self, "_raw", raw)
        self._attempt = attempt
        self._began = monotonic() - spent_s
        self._spent_s = spent_s
        self._deadline = deadline
        self._response = weakref.ref(response)
        if deadline is not None:
            deadline.pause()

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

    def json(self) -> Any:
        return self._watch(self._raw.json)

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
        self._attempt.settle(Outcome.SUCCESS, duration_s=self._spent_s, carrier=self._response())

    def _watch(self, read: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        started = monotonic()
        if self._deadline is not None:
            self._deadline.resume()
        try:
            return read(*args, **kwargs)
        except BaseException as error:
            outcome = outcome_of(error)
            now = monotonic()
            spent_s = self._spent_s + now - started
            if outcome is None:
                self._attempt.excuse(max(0.0, now - self._began - spent_s))  # what the consumer took
                self._attempt.fail_with(error)
            else:
                self._attempt.settle(outcome, duration_s=spent_s, carrier=error)
            raise
        finally:
            if self._deadline is not None:
                self._deadline.pause()
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
