"""The queue in front of anyio's worker threads, where Starlette and FastAPI run what is declared with ``def``.

The kernel cannot see it: such a request has left the socket and waits inside the process for one of 40 threads.
Its wait is predicted at the door, and looked at once more when the request's turn has come: one that can no longer be
answered in time is not given the thread. For this the class of the limiter object is exchanged for one derived from
it, whose ``acquire`` asks the request being served, and hands the thread on if the request may not have it.
anyio is never imported here; it is looked at only where the application itself has loaded it.
"""

import inspect
import sys
from collections.abc import Mapping
from functools import partial
from math import inf
from typing import Any, Final, NamedTuple

from groundfault._context import serving
from groundfault.errors import GroundFaultError
from groundfault.vocabulary import Reason

__all__ = [
    "THREAD_START",
    "LateError",
    "ThreadQueue",
    "latest_start",
    "runs_in_thread",
    "thread_queue",
    "waits_for_thread",
]

THREAD_START: Final = "thread-start"
"""The name in the snapshot under which is said why turns are not looked at."""


class LateError(GroundFaultError):
    """The request's turn for a worker thread came too late for its answer. The shell makes the annotated 503 of it."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class ThreadQueue(NamedTuple):
    """Calls that wait for a thread, how many threads there are, and why turns are not looked at, None if they are."""

    waiting: int
    threads: float
    unwatched: str | None = None


def thread_queue() -> ThreadQueue | None:
    """Return the state of the running event loop's default thread limiter, or None without anyio.

    Raises whatever anyio does where it is asked outside an event loop; the caller counts that and goes on without.
    """
    to_thread: Any = sys.modules.get("anyio.to_thread")
    if to_thread is None:
        return None
    limiter = to_thread.current_default_thread_limiter()
    statistics = limiter.statistics()
    return ThreadQueue(statistics.tasks_waiting, statistics.total_tokens, _watch(limiter))


_derived: Final[dict[type, type | str]] = {}  # by the limiter's class: the class that asks, or why there is none


def _watch(limiter: Any) -> str | None:
    """Have ``limiter`` ask each request when its turn has come; return why that cannot be had, or None."""
    kind = type(limiter)
    asking = _derived.get(kind)
    if asking is None:
        asking = _derived[kind] = _derive(kind)
    if asking is kind or isinstance(asking, str):
        return asking if isinstance(asking, str) else None
    try:
        limiter.__class__ = asking  # a limiter has no attributes of its own, so an instance cannot be given a method
    except Exception as error:  # noqa: BLE001  a stranger's object, which then stays as it is
        _derived[kind] = f"anyio's thread limiter cannot be watched: {error}"
        return str(_derived[kind])
    return None


def _derive(kind: type[Any]) -> type | str:
    """Return a class like ``kind`` that asks before it gives a thread away, or why there can be none."""
    if kind.__module__.endswith("._trio"):
        return "anyio's thread limiter is trio's, which gives threads away by itself"
    if not inspect.iscoroutinefunction(getattr(kind, "acquire", None)) or not callable(getattr(kind, "release", None)):
        return f"anyio's thread limiter is a {kind.__name__} that is not known here"

    async def acquire(self: Any) -> None:
        await kind.acquire(self)
        try:
            _ask()
        except BaseException:
            self.release()  # nothing has waited in between, so no cancellation can have come: it is still held
            raise

    asking = type(kind.__name__, (kind,), {"__slots__": (), "acquire": acquire})
    _derived[asking] = asking
    return asking


def _ask() -> None:
    """Ask the request being served, once, whether it may still have a thread. Raises LateError if it may not."""
    context = serving.get()
    if context is not None and context.at_thread is not None:
        ask, context.at_thread = context.at_thread, None
        ask()


def latest_start(began: float, wait_s: float, own_s: float | None, deadline_s: float, natural_s: float) -> float:
    """Return until when a thread must begin for a request that came at ``began``, a reading of the monotonic clock.

    ``wait_s``: what it had waited before. ``own_s``: its own budget as of ``began - wait_s``, or None for
    ``deadline_s``. ``natural_s``: how long its route takes without a queue, infinite if that is not known yet.
    Never too late is a route that naturally takes longer than ``deadline_s``, unless the request says so itself:
    whoever calls it does not wait for that deadline.
    """
    takes_s = 0.0 if natural_s == inf else natural_s
    if own_s is not None:
        return began - wait_s + own_s - takes_s
    return inf if takes_s > deadline_s else began - wait_s + deadline_s - takes_s


def waits_for_thread(scope: Mapping[str, Any]) -> bool | None:
    """Return whether a request needs a worker thread before its answer can begin; None if that cannot be told.

    By what the router has left in the scope: the endpoint of Starlette's, and the dependencies of FastAPI's,
    which wait for a thread each if they are declared with ``def``.
    """
    endpoint = scope.get("endpoint")
    in_thread = runs_in_thread(endpoint)
    if in_thread is None and hasattr(endpoint, "dispatch"):  # Starlette's HTTPEndpoint: by the method of its class
        method = str(scope.get("method")).lower()
        handler = getattr(endpoint, method, None) or (getattr(endpoint, "get", None) if method == "head" else None)
        in_thread = None if handler is None else runs_in_thread(handler)
    if in_thread is False:
        dependant = getattr(scope.get("route"), "dependant", None)
        return dependant is not None and _depends_on_thread(dependant, _DEPTH)
    return in_thread


_DEPTH: Final = 16  # of dependencies of dependencies; a ring of them must not keep this going


def _depends_on_thread(dependant: Any, depth: int) -> bool:
    for each in dependant.dependencies if depth else ():
        call = each.call
        while isinstance(call, partial):
            call = call.func
        if inspect.isclass(call) or not _is_async(call) or _depends_on_thread(each, depth - 1):
            return True
    return False


def _is_async(call: Any) -> bool:
    return any(
        inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each)
        for each in (call, getattr(call, "__call__", None))  # noqa: B004  asked for its kind
    )


def runs_in_thread(endpoint: object) -> bool | None:
    """Return whether Starlette runs this endpoint in a thread; None for a class, which may do either."""
    while isinstance(endpoint, partial):
        endpoint = endpoint.func
    if inspect.isclass(endpoint) or not callable(endpoint):
        return None
    if inspect.iscoroutinefunction(endpoint):
        return False
    return not inspect.iscoroutinefunction(getattr(endpoint, "__call__", None))  # noqa: B004  asked for its kind
