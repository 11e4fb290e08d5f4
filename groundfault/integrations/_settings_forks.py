"""What a settings store does in view of forks: a thread may be reading in the parent at the very moment of one.

In the child that thread is gone, and whatever it held stays held for ever: the lock of a module that was being
imported, a mutex inside a C library. So all imports happen when a store is made, and where a library has mutexes for
the whole process, as SQLite has, a fork waits for the look that is under way, which takes a fraction of a millisecond.
"""

import encodings.idna  # noqa: F401  getaddrinfo imports it, on whatever thread asks first
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from weakref import WeakSet

from groundfault._clock import monotonic

__all__ = ["Undivided"]

_FORK_WAITS_S: Final = 0.2


class Undivided:
    """What one thread at a time does inside, no fork divides; unless it takes longer than a fifth of a second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held inside, and while this process forks
        self._stopped = False
        _all.add(self)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Go inside."""
        lock = self._lock
        with lock:
            yield

    def stop(self, until: float) -> None:
        """Let nobody inside while the process forks; wait for who is, until then."""
        self._stopped = self._lock.acquire(timeout=max(0.0, until - monotonic()))

    def go_on(self) -> None:
        """Let them inside again."""
        if self._stopped:
            self._stopped = False
            self._lock.release()

    def begin_anew(self) -> None:
        """Forget, in a child, who was inside."""
        self._lock = threading.Lock()
        self._stopped = False


_all: WeakSet[Undivided] = WeakSet()


def _members() -> list[Undivided]:
    """Return all; without a lock, for in a child other handlers of the fork may make new ones before these here run."""
    while True:
        try:
            return list(_all)
        except RuntimeError:  # another thread has added one while this one was listing them
            continue


def _before() -> None:
    until = monotonic() + _FORK_WAITS_S
    for each in _members():
        each.stop(until)


def _in_parent() -> None:
    for each in _members():
        each.go_on()


def _in_child() -> None:
    for each in _members():
        each.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
