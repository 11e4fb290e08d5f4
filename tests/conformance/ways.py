"""Two ways to make calls, threads and tasks, behind one face, so that a case is written once.

``call`` makes a call and waits for its end. ``start`` makes one whose function stays inside
until it is told how to end: a *pending* call, for everything that is about calls that overlap.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from conformance.subject import Guard

PATIENCE_S = 3.0
"""How long a thread may take for what takes microseconds, before it counts as blocked."""

_STEPS = 50
"""Rounds of an event loop after which a task that could go on has gone on."""


class Pending:
    """A call whose function is to be told how to end. ``inside``: the function has been entered."""

    def __init__(self) -> None:
        self.inside = False
        self.done = False
        self.error: BaseException | None = None

    @property
    def stuck(self) -> bool:
        """True if the call was neither made nor refused."""
        return not (self.inside or self.done)

    def end(self, error: BaseException | None = None) -> None:
        """Let the function return, or raise ``error``, and wait until the call is over."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Cancel the task that made the call and wait until it is over."""
        raise NotImplementedError


class Way:
    """How calls are made."""

    kind: str

    def call(self, guard: Guard, fn: Callable[..., Any], *args: Any) -> Any:
        """Make a call of a plain function's body and return or raise what comes of it."""
        raise NotImplementedError

    def start(self, guard: Guard) -> Pending:
        """Make a call that stays inside."""
        raise NotImplementedError

    def decorate(self, guard: Guard, fn: Callable[..., Any]) -> Any:
        """Return the function protected, as a plain callable."""
        raise NotImplementedError

    def close(self) -> None:
        """End what is still pending."""


class _PendingThread(Pending):
    def __init__(self, guard: Guard) -> None:
        super().__init__()
        self._guard = guard
        self._how: BaseException | None = None
        self._entered = threading.Event()
        self._go = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        self._entered.wait(PATIENCE_S)

    def _run(self) -> None:
        try:
            self._guard.call(self._body)
        except BaseException as error:  # noqa: BLE001  the case looks at it
            self.error = error
        self.done = True
        self._entered.set()

    def _body(self) -> None:
        self.inside = True
        self._entered.set()
        self._go.wait()
        if self._how is not None:
            raise self._how

    def end(self, error: BaseException | None = None) -> None:
        self._how = error
        self._go.set()
        self.thread.join(PATIENCE_S)


class Threads(Way):
    """Plain calls; pending ones each in a thread of its own."""

    kind = "sync"

    def __init__(self) -> None:
        self._pending: list[_PendingThread] = []

    def call(self, guard: Guard, fn: Callable[..., Any], *args: Any) -> Any:
        return guard.call(fn, *args)

    def start(self, guard: Guard) -> Pending:
        pending = _PendingThread(guard)
        self._pending.append(pending)
        return pending

    def decorate(self, guard: Guard, fn: Callable[..., Any]) -> Any:
        return guard.decorate(fn)

    def close(self) -> None:
        for pending in self._pending:
            pending.end()


class _PendingTask(Pending):
    def __init__(self, way: "Tasks", guard: Guard) -> None:
        super().__init__()
        self._way = way
        self._future = way.loop.create_future()
        self.task = way.loop.create_task(self._run(guard))
        way.step(lambda: not self.stuck)

    async def _run(self, guard: Guard) -> None:
        try:
            await guard.acall(self._body)
        except BaseException as error:  # noqa: BLE001  the case looks at it
            self.error = error
        self.done = True

    async def _body(self) -> None:
        self.inside = True
        error = await self._future
        if error is not None:
            raise error

    def end(self, error: BaseException | None = None) -> None:
        if not self._future.done():
            self._future.set_result(error)
        self._way.step(lambda: self.done)

    def cancel(self) -> None:
        self.task.cancel()
        self._way.step(lambda: self.done)


class Tasks(Way):
    """Coroutines on one event loop, which runs only as far as the case lets it."""

    kind = "async"

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._pending: list[_PendingTask] = []

    def step(self, until: Callable[[], bool]) -> None:
        """Run the loop until something is the case, or nothing can happen any more."""
        for _ in range(_STEPS):
            self.loop.run_until_complete(asyncio.sleep(0))
            if until():
                return

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine to its end."""
        return self.loop.run_until_complete(coroutine)

    def call(self, guard: Guard, fn: Callable[..., Any], *args: Any) -> Any:
        async def coroutine_function(*given: Any) -> Any:
            return fn(*given)

        return self.run(guard.acall(coroutine_function, *args))

    def start(self, guard: Guard) -> Pending:
        pending = _PendingTask(self, guard)
        self._pending.append(pending)
        return pending

    def decorate(self, guard: Guard, fn: Callable[..., Any]) -> Any:
        decorated = guard.adecorate(fn)
        return lambda *args: self.run(decorated(*args))

    def close(self) -> None:
        for pending in self._pending:
            with suppress(RuntimeError):  # a task of a library that will not be canceled
                pending.cancel()
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        self.step(lambda: all(task.done() for task in left))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


WAYS: dict[str, type[Way]] = {"sync": Threads, "async": Tasks}
