"""Threads that nobody waits for at the end: what hangs in a database must not keep the hub from stopping."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Full, Queue
from typing import Any, Final, TypeVar

from groundfault._clock import thread_cpu

__all__ = ["BusyError", "Daemons"]

T = TypeVar("T")

_Work = tuple[Future[Any], Callable[[], Any]]


class BusyError(Exception):
    """Too much waits for these threads already."""


class Daemons(Executor):
    """Up to ``threads`` of them, and ``waiting`` calls that wait for one.

    ``busy_s``: the seconds of CPU that their calls have used.
    """

    def __init__(self, name: str, *, threads: int, waiting: int) -> None:
        self._name: Final = name
        self._most: Final = threads
        self._queue: Queue[_Work | None] = Queue(waiting)
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._lock = threading.Lock()  # guards `_threads` and `_idle`
        self._closed = False
        self.busy_s = 0.0  # exact with one thread, which is what it is asked of

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have it called on one of the threads. Raises BusyError, RuntimeError after the end."""
        if self._closed:
            raise RuntimeError("these threads have ended")
        future: Future[T] = Future()
        try:
            self._queue.put_nowait((future, lambda: fn(*args, **kwargs)))
        except Full:
            raise BusyError(f"{self._queue.maxsize} calls wait for {self._name} already") from None
        with self._lock:
            if self._queue.qsize() > self._idle and len(self._threads) < self._most:
                thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = True) -> None:  # noqa: FBT001, FBT002, ARG002  as the Executor's
        """End the threads that have nothing to do; others end when they have done it. Never waits."""
        self._closed = True
        while not self._queue.empty():
            work = self._queue.get_nowait()
            if work is not None:
                work[0].cancel()
        for _ in self._threads:
            self._queue.put_nowait(None)

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            work = self._queue.get()
            with self._lock:
                self._idle -= 1
            if work is None:
                return
            future, call = work
            if not future.set_running_or_notify_cancel():
                continue
            began = thread_cpu()
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001  whoever waits for the result gets it
                future.set_exception(error)
            else:
                future.set_result(result)
            self.busy_s += thread_cpu() - began
            del work, future, call
