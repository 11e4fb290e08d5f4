"""Running a plain function on a thread of its own, so that one can stop waiting for it.

Nothing in Python can interrupt a function that is waiting for a reply.
What can be done is to let it wait on a thread that nobody needs.
A new thread for each call keeps this simple: nothing is shared, nothing is left behind for a fork to lose,
and a function that hangs for ever holds up neither another call nor the exit of the process.
It is about a tenth of a millisecond, most of it the operating system's; bench/breaker_cost.py has it.
"""

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from groundfault.events import note_internal_error

__all__ = ["GivenUp", "run_on_thread"]


class GivenUp(Exception):  # noqa: N818  never seen outside: the caller turns it into an error of its own
    """The function takes longer than it may. It still runs."""


def run_on_thread(
    fn: Callable[..., Any], args: Any, kwargs: Any, timeout_s: float | None, ended: Callable[[], object]
) -> Any:
    """Call ``fn`` on a new daemon thread, in a copy of this context, and return or raise what it does.

    ``timeout_s``: default None, wait for ever. ``ended`` is called exactly once, on that thread, when ``fn`` really
    ends. Raises GivenUp after ``timeout_s``; what ``fn`` does after that is nobody's.
    Where no thread can be had, ``fn`` is called here.
    """
    outcome: list[tuple[bool, Any]] = []
    done = threading.Lock()
    done.acquire()  # released by another thread, which `with` cannot say
    left = [None]  # popping it is what makes `ended` happen once
    context = copy_context()

    def leave() -> None:
        try:
            left.pop()
        except IndexError:
            return
        ended()

    def run() -> None:
        try:
            outcome.append((True, context.run(fn, *args, **kwargs)))
        except BaseException as error:  # noqa: BLE001  raised again by the thread that waits
            outcome.append((False, error))
        finally:
            leave()
            done.release()

    try:
        threading.Thread(target=run, name="groundfault-call", daemon=True).start()
    except RuntimeError as error:
        note_internal_error("thread for a call", error)
        try:
            return fn(*args, **kwargs)
        finally:
            leave()
    except BaseException:  # a signal handler raised: nobody knows whether the thread has begun
        leave()
        raise
    if not done.acquire(timeout=-1 if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX)):
        raise GivenUp
    returned, value = outcome.pop()
    if returned:
        return value
    try:
        raise value
    finally:
        del value  # its traceback holds this frame
