"""Breakers that are wrong on purpose, so that the suite itself can be tried: each case fails at least one of them."""

import asyncio
import threading
from contextlib import nullcontext
from typing import Any

from conformance.subject import CLOSED, HALF_OPEN, OPEN, Can, Guard, Subject, Wanted


class RefusedError(Exception):
    """What they raise instead of making a call. It does not survive pickling with its message."""

    def __init__(self, who: str = "the breaker") -> None:
        super().__init__(f"{who} refuses")


class _OpenGuard(Guard):
    def __init__(self, subject: Subject, wanted: Wanted) -> None:
        self.subject = subject
        self.asked = wanted

    def call(self, fn: Any, *args: Any) -> Any:
        return fn(*args)

    async def acall(self, fn: Any, *args: Any) -> Any:
        return await fn(*args)

    def decorate(self, fn: Any) -> Any:
        return fn

    def block(self) -> Any:
        return nullcontext()

    ablock = block

    def state(self) -> str:
        return CLOSED

    def tune(self, **changes: Any) -> None:
        """Accept anything."""


class OpenDoor(Subject):
    """Lets every call through, whatever was asked of it."""

    package = "conformance.contrary"
    can = frozenset(Can)
    refusals = (RefusedError,)
    guard: type[Guard] = _OpenGuard

    def make(self, wanted: Wanted) -> Guard:
        return self.guard(self, wanted)

    def nonsense(self, setting: str, value: Any) -> None:
        """Accept anything."""

    def same_name_twice(self) -> tuple[bool, str]:
        return False, "the second gets the first one's settings"


class _HeavyGuard(_OpenGuard):
    def __init__(self, subject: Subject, wanted: Wanted) -> None:
        super().__init__(subject, wanted)
        self.ballast = bytearray(10_000)
        self.lock = threading.Lock()
        self.alock = asyncio.Lock()
        self.failures = 0

    def call(self, fn: Any, *args: Any) -> Any:
        results: list[Any] = []

        def work() -> None:
            try:
                fn(*args)
                results.append(fn(*args))
            except BaseException:  # noqa: BLE001  wrong on purpose
                self.failures += 1

        with self.lock:
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            thread.join()
        if not results:
            raise RuntimeError("something went wrong")
        return results[0]

    async def acall(self, fn: Any, *args: Any) -> Any:
        async with self.alock:
            try:
                await asyncio.create_task(fn(*args))
                return await fn(*args)
            except BaseException as error:
                self.failures += 1
                raise RuntimeError("something went wrong") from error

    def decorate(self, fn: Any) -> Any:
        return lambda *args: self.call(fn, *args)

    def adecorate(self, fn: Any) -> Any:
        return lambda *args: self.acall(fn, *args)

    def state(self) -> str:
        return OPEN if self.failures >= self.asked.failures else CLOSED


class HeavyHand(OpenDoor):
    """Runs calls twice, elsewhere, one at a time, hides their errors, and carries ten kilobytes around."""

    guard = _HeavyGuard


class _SulkingGuard(_OpenGuard):
    def __init__(self, subject: Subject, wanted: Wanted) -> None:
        super().__init__(subject, wanted)
        self.failures = 0

    def _enter(self) -> None:
        if self.failures >= self.asked.failures:
            raise RefusedError

    def call(self, fn: Any, *args: Any) -> Any:
        self._enter()
        try:
            return fn(*args)
        except BaseException:
            self.failures += 1
            raise

    async def acall(self, fn: Any, *args: Any) -> Any:
        self._enter()
        try:
            return await fn(*args)
        except BaseException:
            self.failures += 1
            raise

    def state(self) -> str:
        return OPEN if self.failures >= self.asked.failures else CLOSED


class Sulker(OpenDoor):
    """Counts everything that was ever raised, and never forgives."""

    guard = _SulkingGuard


class _NaiveGuard(_SulkingGuard):
    opened_at = 0.0
    refusal = RefusedError()

    def _enter(self) -> None:
        if self.state() == OPEN:
            raise self.refusal

    def call(self, fn: Any, *args: Any) -> Any:
        self._enter()
        try:
            result = fn(*args)
        except Exception as error:
            self._failed(error)
            raise
        except BaseException:
            self.failures = 0
            raise
        self.failures = 0
        return result

    async def acall(self, fn: Any, *args: Any) -> Any:
        self._enter()
        try:
            result = await fn(*args)
        except Exception as error:
            self._failed(error)
            raise
        except BaseException:
            self.failures = 0
            raise
        self.failures = 0
        return result

    def _failed(self, error: Exception) -> None:
        if isinstance(error, self.asked.ignored):
            self.failures = 0
            return
        self.failures += 1
        if self.failures >= self.asked.failures:
            self.opened_at = self.subject.clock()
        if self.asked.listener is not None:
            self.asked.listener(self.state() == OPEN)

    def state(self) -> str:
        if self.failures < self.asked.failures:
            return CLOSED
        return OPEN if self.subject.clock() < self.opened_at + self.asked.sleep_s else HALF_OPEN


class Naive(OpenDoor):
    """The breaker of a hundred tutorials: failures in a row, a fixed sleep, and then everybody."""

    guard = _NaiveGuard


CONTRARY = [OpenDoor, Sulker, Naive, HeavyHand]
