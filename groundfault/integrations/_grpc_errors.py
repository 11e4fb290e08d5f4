"""What a call through the interceptors raises: errors that are GroundFault's and gRPC's at once.

gRPC asks an error for its status as it asks a call, and hands it to interceptors further out in the place of one.
So each of these is the call that it ended, too: over, in whatever way it is asked.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, NoReturn, Self

import grpc

from groundfault import errors
from groundfault.vocabulary import Reason

__all__ = [
    "REJECTIONS",
    "BulkheadFullError",
    "CircuitOpenError",
    "CommandTimeoutError",
    "Ended",
    "ShedError",
    "ThrottledError",
    "UnhealthyError",
]


class Ended(grpc.aio.AioRpcError, grpc.Call, grpc.Future):  # type: ignore[misc]  # grpc has no types of its own
    """An error that is a finished call of either stack, as ``grpc.RpcError`` s of the blocking one are."""

    _code = grpc.StatusCode.UNAVAILABLE
    _details: str | None = None
    _initial_metadata: Any = None
    _trailing_metadata: Any = None
    _debug_error_string: str | None = None

    def __init__(self, *args: Any) -> None:
        Exception.__init__(self, *args)  # that of AioRpcError would take the first for a status

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args

    def details(self) -> str:
        """Return the details that the callee gave, or what the error says."""
        return self._details if self._details is not None else str(self)

    def initial_metadata(self) -> Any:
        """Return the metadata that the callee began with, if it was called."""
        return self._initial_metadata if self._initial_metadata is not None else grpc.aio.Metadata()

    def trailing_metadata(self) -> Any:
        """Return the metadata that the callee ended with, if it was called."""
        return self._trailing_metadata if self._trailing_metadata is not None else grpc.aio.Metadata()

    def is_active(self) -> bool:
        """Return false: it is over."""
        return False

    def time_remaining(self) -> None:
        """Return None: no deadline lies before it."""

    def cancel(self) -> bool:
        """Return false: there is nothing left to cancel."""
        return False

    def cancelled(self) -> bool:
        """Return false: nobody has canceled it."""
        return False

    def running(self) -> bool:
        """Return false, as :meth:`is_active`."""
        return False

    def done(self) -> bool:
        """Return true."""
        return True

    def result(self, timeout: float | None = None) -> NoReturn:  # noqa: ARG002  gRPC's signature
        """Raise this error."""
        raise self

    def exception(self, timeout: float | None = None) -> Self:  # noqa: ARG002  as above
        """Return this error."""
        return self

    def traceback(self, timeout: float | None = None) -> TracebackType | None:  # noqa: ARG002  as above
        """Return where it was raised, if it was."""
        where: TracebackType | None = self.__traceback__
        return where

    def add_callback(self, callback: Callable[[], object]) -> bool:  # noqa: ARG002  as above
        """Return false: it is too late for that."""
        return False

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call ``fn`` at once."""
        fn(self)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> NoReturn:
        raise self

    def _repr(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class CircuitOpenError(errors.CircuitOpenError, Ended):
    """The circuit is open; also a ``grpc.RpcError`` with the status UNAVAILABLE."""


class BulkheadFullError(errors.BulkheadFullError, Ended):
    """As many calls are in flight as allowed; also a ``grpc.RpcError`` with the status UNAVAILABLE."""


class ThrottledError(errors.ThrottledError, Ended):
    """The callee is shedding and only a share of the calls is sent; also a ``grpc.RpcError``, as the others."""


class UnhealthyError(errors.UnhealthyError, Ended):
    """The health check says no; also a ``grpc.RpcError`` with the status UNAVAILABLE."""


class ShedError(errors.ShedError, Ended):
    """The callee answered with an annotated UNAVAILABLE; also a ``grpc.RpcError`` with its details and metadata.

    ``response`` is gRPC's own error, or call, that it stands for; it does not survive pickling.
    """

    def __init__(
        self,
        resource: str,
        command: str,
        reason: Reason | None = None,
        origin: str | None = None,
        response: Any = None,
    ) -> None:
        super().__init__(resource, command, reason, origin, response)
        if response is not None:
            self._details = response.details()
            self._trailing_metadata = response.trailing_metadata()

    def initial_metadata(self) -> Any:
        """Return the metadata that the callee began with; asked for late, because it may still be on its way."""
        return super().initial_metadata() if self.response is None else self.response.initial_metadata()

    def __str__(self) -> str:
        return str(self.args[0])


class CommandTimeoutError(errors.CommandTimeoutError, Ended):
    """The caller's budget was already used up; also a ``grpc.RpcError`` with the status DEADLINE_EXCEEDED."""

    _code = grpc.StatusCode.DEADLINE_EXCEEDED

    def __str__(self) -> str:
        return str(self.args[0])


REJECTIONS: Final[dict[type[errors.RejectedError], type[Ended]]] = {
    errors.CircuitOpenError: CircuitOpenError,
    errors.BulkheadFullError: BulkheadFullError,
    errors.ThrottledError: ThrottledError,
    errors.UnhealthyError: UnhealthyError,
}
