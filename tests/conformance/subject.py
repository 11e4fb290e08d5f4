"""What a library under test looks like to the cases: a subject makes guards, a guard protects calls.

An adapter (``subjects/<library>.py``) drives its library by documented entry points and in the configuration
that suits the question best. It never works around what the library does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half-open"


class Broken(Exception):  # noqa: N818  it stands for whatever a failing dependency raises
    """What a failing callee raises."""


class Neutral(Exception):  # noqa: N818  as above
    """What says nothing about the callee: the error that a guard is told to leave out."""


class Can(StrEnum):
    """What a library must offer before a case can be put to it. The page prints the values."""

    SYNC = "plain functions"
    ASYNC = "coroutine functions"
    OVERLAP = "calls that overlap"
    CALL = "an entry point that takes a function"
    BLOCK = "a context manager"
    GENERATORS = "generators"
    ASYNC_GENERATORS = "asynchronous generators"
    LISTENER = "listeners"
    JUDGE = "a classifier of results or errors"
    FALLBACK = "fallbacks"
    TIMEOUT = "a timeout that is enforced"
    SLOW = "a bound on the duration of plain calls"
    LIMIT = "a concurrency limit"
    RATE = "a failure share with a minimum volume"
    WINDOW = "a window in time"
    BACKOFF = "a sleep that grows"
    TUNE = "settings changed while in use"
    TUNE_LIMIT = "a concurrency limit changed while in use"
    REGISTRY = "breakers by name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a case asks of a guard. An adapter that is asked for what its subject ``can`` not do is a mistake here.

    ``failures``: this many failures and nothing else trip it. ``sleep_s``: how long it stays open at most.
    ``max_sleep_s``: up to where the sleep grows with failed probes; None for one that does not grow.
    One good probe closes it. ``listener`` is told of whatever the library tells; its argument is whether it is
    the change to open. ``judge_raises`` installs a classifier that raises whenever it is asked.
    """

    failures: int = 5
    sleep_s: float = 30.0
    max_sleep_s: float | None = None
    ignored: tuple[type[Exception], ...] = ()
    timeout_s: float | None = None
    limit: int | None = None
    fallback: Callable[..., Any] | None = None
    judge_raises: bool = False
    listener: Callable[[bool], Any] | None = None


class Guard:
    """One breaker in one configuration. An adapter overrides what its subject has."""

    wanted: Wanted

    def call(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Call a plain function under protection."""
        return self.decorate(fn)(*args)

    async def acall(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Call a coroutine function under protection."""
        return await self.adecorate(fn)(*args)

    def decorate(self, fn: Callable[..., Any]) -> Any:
        """Return a plain function (or what stands for one) protected."""
        raise NotImplementedError

    def adecorate(self, fn: Callable[..., Any]) -> Any:
        """Return a coroutine function protected; most libraries have one decorator for both kinds."""
        return self.decorate(fn)

    def block(self) -> Any:
        """Return a context manager that protects a block."""
        raise NotImplementedError

    def ablock(self) -> Any:
        """Return an asynchronous context manager that protects a block."""
        raise NotImplementedError

    def state(self) -> str:
        """Return ``CLOSED``, ``OPEN`` or ``HALF_OPEN``."""
        raise NotImplementedError

    def tune(self, **changes: Any) -> None:
        """Change ``failures``, ``sleep_s`` or ``limit`` in use."""
        raise NotImplementedError


class Subject:
    """One library."""

    package: str
    can: frozenset[Can]
    refusals: tuple[type[BaseException], ...]
    """What it raises instead of making a call."""
    awaits_listeners = False
    """Whether what a listener returns is awaited where it is called."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        """Take the case's clock; None in cases that run in real time."""
        self.clock = clock

    def make(self, wanted: Wanted) -> Guard:
        """Make a guard."""
        raise NotImplementedError

    def nonsense(self, setting: str, value: Any) -> None:
        """Make a breaker whose ``threshold`` or ``sleep`` is the value; raises if the library refuses it."""
        raise NotImplementedError

    def same_name_twice(self) -> tuple[bool, str]:
        """Ask for one name twice with different settings; say whether nothing was lost in silence, and what was."""
        raise NotImplementedError


def state_named(value: str) -> str:
    """Translate a library's own word for a state."""
    return {
        "closed": CLOSED,
        "working": CLOSED,
        "open": OPEN,
        "opened": OPEN,
        "failing": OPEN,
    }.get(value.lower(), HALF_OPEN)
