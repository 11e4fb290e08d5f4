"""All objects of one kind in this process: to be found by kits, and to begin anew in the child of a fork."""

import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Generic, TypeVar

__all__ = ["Family", "aside"]

T = TypeVar("T")

_aside: Final[ContextVar[bool]] = ContextVar("groundfault_aside", default=False)


@contextmanager
def aside() -> Iterator[None]:
    """Make objects inside this block that belong to no family: those of a simulation are not this process's.

    No kit, no settings store and no report finds them, and a fork leaves them as they are.
    """
    token = _aside.set(True)
    try:
        yield
    finally:
        _aside.reset(token)


class Family(Generic[T]):
    """Knows its members as long as somebody else holds them; ``renew`` is called with each in the child of a fork."""

    def __init__(self, renew: Callable[[T], None]) -> None:
        self._members: weakref.WeakSet[T] = weakref.WeakSet()
        self._renew = renew
        self._told: tuple[Callable[[T], None], ...] = ()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew_all)

    def add(self, member: T) -> None:
        """Take in a new one, and tell who wants to know; not inside :func:`aside`."""
        if _aside.get():
            return
        self._members.add(member)
        for told in self._told:
            told(member)

    def tell(self, told: Callable[[T], None]) -> None:
        """Call ``told`` with each new member from now on, before anybody else has it. It must not raise."""
        self._told = (*self._told, told)

    def untell(self, told: Callable[[T], None]) -> None:
        """Call ``told`` no more."""
        self._told = tuple(each for each in self._told if each != told)

    def members(self) -> list[T]:
        """Return those alive, in no order."""
        while True:
            try:
                return list(self._members)
            except RuntimeError:  # another thread has added one while this one was listing them
                continue

    def _renew_all(self) -> None:
        for member in self.members():
            self._renew(member)
