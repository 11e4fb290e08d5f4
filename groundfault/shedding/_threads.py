"""The queue in front of anyio's worker threads, where Starlette and FastAPI run ``def`` endpoints.

The kernel cannot see it: such a request has left the socket and waits inside the process for one of 40 threads.
anyio is never imported here; it is looked at only where the application itself has loaded it.
"""

import inspect
import sys
from functools import partial
from typing import Any, NamedTuple

__all__ = ["ThreadQueue", "runs_in_thread", "thread_queue"]


class ThreadQueue(NamedTuple):
    """Calls that wait for a thread, and how many threads there are."""

    waiting: int
    threads: float


def thread_queue() -> ThreadQueue | None:
    """Return the state of the running event loop's default thread limiter, or None without anyio.

    Raises whatever anyio does where it is asked outside an event loop; the caller counts that and goes on without.
    """
    to_thread: Any = sys.modules.get("anyio.to_thread")
    if to_thread is None:
        return None
    statistics = to_thread.current_default_thread_limiter().statistics()
    return ThreadQueue(statistics.tasks_waiting, statistics.total_tokens)


def runs_in_thread(endpoint: object) -> bool | None:
    """Return whether Starlette runs this endpoint in a thread; None for a class, which may do either."""
    while isinstance(endpoint, partial):
        endpoint = endpoint.func
    if inspect.isclass(endpoint) or not callable(endpoint):
        return None
    if inspect.iscoroutinefunction(endpoint):
        return False
    return not inspect.iscoroutinefunction(getattr(endpoint, "__call__", None))  # noqa: B004  asked for its kind
