"""One call of a command on a database: a connection taken, a statement, and its rows where they are streamed."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, TypeVar

from groundfault import _context, errors
from groundfault._clock import monotonic
from groundfault.breaker import Command
from groundfault.integrations._sqlalchemy_errors import CommandTimeoutError, outcome_of, rejected
from groundfault.vocabulary import Outcome

__all__ = ["Call", "WatchedCursor", "drive"]

T = TypeVar("T")

_LEAST_S: Final = 0.001


class Call:
    """A call of ``command``, in flight from its making until it succeeds or fails; one that is forgotten is ignored.

    It consists of steps. The time between them is the application's and is not counted.
    Raises the adapter's rejections if the call must not be made,
    and CommandTimeoutError if the caller of the request being served has given up already.
    """

    __slots__ = ("__weakref__", "_attempt", "_begun", "_dialect", "_spent_s", "_waited_s", "command", "ended")

    def __init__(self, command: Command, dialect: Any) -> None:
        try:
            self._attempt = command.begin()
        except errors.RejectedError as rejection:
            raise rejected(rejection) from rejection
        self.command = command
        self.ended = False
        self._dialect = dialect
        self._begun = monotonic()
        self._spent_s = 0.0
        self._waited_s = 0.0
        context = _context.current()
        if context is not None and context.deadline is not None and context.deadline <= self._begun:
            error = CommandTimeoutError(command.resource, command.name, 0.0)
            self.ended = True
            self._attempt.settle(Outcome.IGNORED, carrier=error)
            raise error

    def step(self, do: Callable[[], T], *, enforce: bool) -> T:
        """Do one step; an error ends the call.

        ``enforce``: cancel it (asyncio) when the call's time is over, and raise CommandTimeoutError.
        """
        started = monotonic()
        left_s = self._left_s(started) if enforce else None
        try:
            try:
                result = do() if left_s is None else self._within(left_s, do)
            finally:
                self._spent_s += monotonic() - started
        except BaseException as error:
            self.fail(error)
            raise
        return result

    def excuse(self, waited_s: float) -> None:
        """Leave out of the call's duration a wait that was not for the database; it still uses up the timeout."""
        self._waited_s += waited_s

    def succeed(self) -> None:
        """End the call: the database has answered."""
        self._settle(Outcome.SUCCESS)

    def fail(self, error: BaseException) -> None:
        """End the call with what ``error`` means."""
        outcome = outcome_of(error, self._dialect)
        if outcome is not None and not isinstance(error, self.command.settings.ignored_errors):
            self._settle(outcome, error)
            return
        self.ended = True
        self._attempt.excuse(max(0.0, monotonic() - self._begun - self._duration_s))
        self._attempt.fail_with(error)

    @property
    def _duration_s(self) -> float:
        return max(0.0, self._spent_s - self._waited_s)

    def _settle(self, outcome: Outcome, carrier: object = None) -> None:
        self.ended = True
        self._attempt.settle(outcome, duration_s=self._duration_s, carrier=carrier)

    def _left_s(self, now: float) -> float | None:
        limit_s = self._attempt.timeout_s
        if limit_s is None:
            return None
        left_s = limit_s - self._spent_s
        context = _context.current()
        # The application's own time between the steps uses up the budget of the request being served, too.
        if context is not None and context.deadline is not None and context.deadline - now < left_s:
            left_s = context.deadline - now
            self._attempt.capped = True
        return max(left_s, _LEAST_S)

    def _within(self, left_s: float, do: Callable[[], T]) -> T:
        scope = asyncio.timeout(left_s)
        try:
            drive(scope.__aenter__())
        except RuntimeError:  # no task here: the driver has the better error
            return do()
        try:
            try:
                result = do()
            except BaseException as error:
                drive(scope.__aexit__(type(error), error, error.__traceback__))
                raise
            drive(scope.__aexit__(None, None, None))
        except Exception as error:
            # Some drivers make an error of their own of a cancellation. A cancellation by somebody else stays one.
            if not scope.expired():
                raise
            command = self.command
            raise CommandTimeoutError(command.resource, command.name, self._attempt.timeout_s or left_s) from error
        return result


def drive(coroutine: Coroutine[Any, Any, object]) -> None:
    """Run a coroutine that does not wait, from within a greenlet."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("a coroutine has waited where none may")


class WatchedCursor:
    """The driver's cursor, its rows still to be fetched; the call is in flight until they are, or it is closed.

    Everything else is passed through. It must not hold the result: one that is forgotten is to be collected at once.
    """

    __slots__ = ("_call", "_cursor")

    def __init__(self, cursor: Any, call: Call) -> None:
        object.__setattr__(self, "_cursor", cursor)
        object.__setattr__(self, "_call", call)

    def __getattr__(self, name: str) -> Any:
        if name in WatchedCursor.__slots__:  # not set yet, in a copy
            raise AttributeError(name)
        return getattr(self._cursor, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._cursor, name, value)

    def __iter__(self) -> Iterator[Any]:
        while (row := self.fetchone()) is not None:
            yield row

    def fetchone(self) -> Any:
        return self._call.step(self._cursor.fetchone, enforce=False)

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        return self._call.step(lambda: self._cursor.fetchmany(*args, **kwargs), enforce=False)

    def fetchall(self) -> Any:
        return self._call.step(self._cursor.fetchall, enforce=False)

    def close(self) -> None:
        try:
            self._cursor.close()
        finally:
            self._call.succeed()
