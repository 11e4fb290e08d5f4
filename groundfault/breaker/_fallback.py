"""Serving a fallback: within limits of its own, and counted.

A fallback is called when something is already wrong, and often by everybody at once.
Without a limit, one that waits takes the place of the very calls that were refused to keep threads free.
"""

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any

from groundfault.breaker._isolation import GivenUp, run_on_thread
from groundfault.breaker.settings import BreakerSettings
from groundfault.errors import BulkheadFullError, CommandTimeoutError

__all__ = ["Fallbacks"]


class Fallbacks:
    """How many of one command's fallbacks run, and what became of the others."""

    __slots__ = ("_failed", "_lock", "_name", "_refused", "_running", "_served")

    def __init__(self, resource: str, command: str) -> None:
        self._name = (resource, f"{command} (fallback)")
        # Guards the counts. Re-entrant, for a signal handler may make a protected call.
        self._lock = threading.RLock()
        self._running: list[None] = []
        self._served = 0
        self._failed = 0
        self._refused = 0

    def counts(self) -> tuple[int, int, int]:
        """Return how many were served, failed and refused."""
        return self._served, self._failed, self._refused

    def count(self, *, served: bool) -> None:
        """Count one that was served, or that could not be."""
        with self._lock:
            if served:
                self._served += 1
            else:
                self._failed += 1

    def enter(self, settings: BreakerSettings) -> None:
        """Take a place for one. Raises BulkheadFullError if there is none."""
        running, limit = self._running, settings.fallback_max_concurrent
        running.append(None)
        if limit is not None and len(running) > limit:
            running.pop()
            with self._lock:
                self._refused += 1
            raise BulkheadFullError(*self._name, limit)

    def leave(self) -> None:
        """Give the place back."""
        self._running.pop()

    def run(self, settings: BreakerSettings, fallback: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Return what a plain function serves; whether that is something is for the caller to count.

        Raises BulkheadFullError, CommandTimeoutError, and what the function raises, which is counted.
        """
        self.enter(settings)
        timeout_s = settings.fallback_timeout_s
        try:
            if timeout_s is not None:
                return run_on_thread(fallback, args, kwargs, timeout_s, self.leave)
            try:
                return fallback(*args, **kwargs)
            finally:
                self.leave()
        except Exception as error:
            self.count(served=False)
            if isinstance(error, GivenUp):
                raise self._too_late(timeout_s) from None
            raise

    async def arun(self, settings: BreakerSettings, fallback: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Do as :meth:`run`, awaiting what the fallback returns if need be; only that can be cut short."""
        self.enter(settings)
        scope: asyncio.Timeout | None = None  # not made without need: it asks for asyncio's loop
        try:
            value = fallback(*args, **kwargs)
            if not inspect.isawaitable(value):
                return value
            if settings.fallback_timeout_s is None:
                return await value
            scope = asyncio.timeout(settings.fallback_timeout_s)
            async with scope:
                return await value
        except Exception as error:
            self.count(served=False)
            if isinstance(error, TimeoutError) and scope is not None and scope.expired():
                raise self._too_late(settings.fallback_timeout_s) from error
            raise
        finally:
            self.leave()

    def _too_late(self, timeout_s: float | None) -> CommandTimeoutError:
        return CommandTimeoutError(*self._name, timeout_s or 0.0)
