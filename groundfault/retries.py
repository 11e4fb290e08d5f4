"""Facts for whoever retries: which refusals may be tried once more, and how many retries a client can afford.

Retrying itself belongs to tenacity, stamina or urllib3, outside the command, so that each try is a call of it;
docs/reference/retries.md has the recipes.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from math import floor, isfinite
from typing import Any, Final, Protocol

from groundfault._clock import Clock, monotonic
from groundfault._family import Family
from groundfault.errors import CommandTimeoutError, RejectedError, SettingsError, ShedError
from groundfault.refusals import refusal_in

__all__ = ["RetryBudget", "RetryBudgetSnapshot", "retryable"]


def retryable(error_or_response: object) -> bool:
    """Return whether the callee itself refused, did nothing, and says that there is still time: try once, elsewhere.

    True for an annotated 503 with the reason ``queue-wait``, ``concurrency`` or ``draining``, given as

    * an error of this package (:class:`~groundfault.ShedError`) or of a client library that carries the response
      (requests, httpx) or its ``status`` and ``headers`` (aiohttp, urllib);
    * or a response with ``status_code`` or ``status`` and ``headers`` (requests, httpx, aiohttp, urllib3).

    False for everything else, so for the other reasons and for none: the time is gone, or something below has failed,
    was refused, and has been counted. For a call that was never made (an open circuit, a full bulkhead, a throttle,
    a health check): the command has decided, and would decide the same again. For what is not GroundFault's at all,
    a broken connection say: whether that may be tried again is the retry library's judgement and yours.

    Never raises. It does not know how often it was asked about one call: once is enough, see :class:`RetryBudget`.
    """
    try:
        return _retryable(error_or_response)
    except Exception:  # noqa: BLE001  a stranger's object: whatever its attributes do, it is not to be tried again
        return False


def _retryable(seen: Any) -> bool:
    if isinstance(seen, ShedError):
        return seen.reason is not None and seen.reason.retryable
    if isinstance(seen, RejectedError | CommandTimeoutError):
        return False
    refusal = refusal_in(seen)
    return refusal is not None and refusal.retryable


class _Throttled(Protocol):
    """What of a command is asked: the share of the calls that its throttle sends."""

    def snapshot(self) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBudgetSnapshot:
    """A budget at one moment.

    ``first_tries``, ``retries`` and ``refused`` (retries that the budget did not allow) are over the last
    ``window_s`` seconds and up to a tenth more; ``balance`` is how many retries it would allow now.
    """

    ratio: float
    minimum_per_s: float
    window_s: float
    first_tries: int
    retries: int
    refused: int
    balance: int


_PARTS: Final = 10
_SLOTS: Final = _PARTS + 1  # the newest is not over yet: nothing is forgotten before its time


class _Window:
    """First tries, retries and refusals of the window, in tenths of it. Pure: ``now`` is an argument."""

    __slots__ = ("_current", "_slot_s", "_slots", "first_tries", "refused", "retries")

    def __init__(self, window_s: float) -> None:
        self._slot_s = window_s / _PARTS
        self._slots = [[0, 0, 0] for _ in range(_SLOTS)]
        self._current: int | None = None
        self.first_tries = self.retries = self.refused = 0

    def advance(self, now: float) -> None:
        """Forget what is older than the window. A clock that steps back changes nothing."""
        slot = floor(now / self._slot_s)
        if self._current is None:
            self._current = slot
        for ended in range(max(self._current + 1, slot - _SLOTS + 1), slot + 1):
            old = self._slots[ended % _SLOTS]
            self.first_tries -= old[0]
            self.retries -= old[1]
            self.refused -= old[2]
            old[:] = (0, 0, 0)
        self._current = max(self._current, slot)

    def count(self, kind: int) -> None:
        """Count a first try (0), a retry (1) or a refused one (2) in the newest slot."""
        self._slots[(self._current or 0) % _SLOTS][kind] += 1
        self.first_tries += kind == 0
        self.retries += kind == 1
        self.refused += kind == 2  # noqa: PLR2004  as the docstring says


class RetryBudget:
    """How many retries a client may add to its first tries: a share of them, and a few a second in any case.

    ``ratio``: retries for each first try, 0.1 by default; in [0, 1].
    ``minimum_per_s``: retries per second and process that are allowed whatever the ratio says, 1.0 by default,
    so that a client with few calls may retry at all; 0, or large enough for one retry in ``window_s``.
    ``window_s``: seconds after which a first try or a retry is forgotten, 10.0 by default.
    Over any time T there are at most ``ratio`` times the first tries, plus ``minimum_per_s * (T + window_s)`` retries,
    so a callee that sheds everything is asked about 1.1 times as often and not twice.

    After Finagle's ``RetryBudget`` (com.twitter.finagle.service), with the SRE book's ten percent (chapter 21)
    for its twenty. Share one budget between all calls to one callee.
    Any number of threads may use it; it never waits, and a forked child begins with an empty window.
    Raises :class:`~groundfault.SettingsError` for settings that make no sense. ``clock`` is for tests.
    """

    def __init__(
        self,
        *,
        ratio: float = 0.1,
        minimum_per_s: float = 1.0,
        window_s: float = 10.0,
        clock: Clock = monotonic,
    ) -> None:
        self._window_s = _number("window_s", window_s, "above 0")
        if self._window_s <= 0.0:
            raise SettingsError(f"window_s must be above 0, not {window_s!r}")
        self._ratio = _number("ratio", ratio, "from 0 to 1")
        if not 0.0 <= self._ratio <= 1.0:
            raise SettingsError(f"ratio must be from 0 to 1, not {ratio!r}")
        least = 1.0 / self._window_s
        bound = f"0, or at least {least:g}, one retry in window_s"
        self._minimum_per_s = _number("minimum_per_s", minimum_per_s, bound)
        if self._minimum_per_s != 0.0 and self._minimum_per_s < least:
            raise SettingsError(f"minimum_per_s must be {bound}, not {minimum_per_s!r}")
        self._clock = clock
        self.after_fork()
        _budgets.add(self)

    def __repr__(self) -> str:
        return f"<RetryBudget {self._ratio:g} + {self._minimum_per_s:g}/s, {self.balance} left>"

    def after_fork(self) -> None:
        """Begin anew in a child process: another thread may have held the lock, and the tries were its parent's."""
        # Guards the window. Re-entrant, for a signal handler may retry something while its thread is in here.
        self._lock = threading.RLock()
        self._window = _Window(self._window_s)

    def deposit(self) -> None:
        """Count a first try."""
        with self._lock:
            self._window.advance(self._clock())
            self._window.count(0)

    def withdraw(self) -> bool:
        """Take one retry out of the budget and return True; or return False, and the retry must not be made."""
        with self._lock:
            self._window.advance(self._clock())
            affordable = self._left() >= 1
            self._window.count(1 if affordable else 2)
        return affordable

    def one_retry(self, command: _Throttled | None = None) -> Callable[[object], bool]:
        """Count a first try, and return what says, of its error or response, whether one retry may follow.

        That is the predicate which retry libraries ask; make a new one for each call.
        It returns True at most once: if the error or response is :func:`retryable`,
        ``command`` (default None: not asked) holds no call back for the callee's sake, and the budget has a retry left.
        """
        self.deposit()
        return _OneRetry(self, command)

    @property
    def balance(self) -> int:
        """How many retries would be allowed now."""
        with self._lock:
            self._window.advance(self._clock())
            return self._left()

    def snapshot(self) -> RetryBudgetSnapshot:
        """Describe the budget as it is now."""
        with self._lock:
            self._window.advance(self._clock())
            window = self._window
            return RetryBudgetSnapshot(
                ratio=self._ratio,
                minimum_per_s=self._minimum_per_s,
                window_s=self._window_s,
                first_tries=window.first_tries,
                retries=window.retries,
                refused=window.refused,
                balance=self._left(),
            )

    def _left(self) -> int:
        window = self._window
        earned = self._minimum_per_s * self._window_s + self._ratio * window.first_tries
        # Rounded first: 0.1 * 10 * 3 is 3.0000000000000004 in binary, and 0.29 * 100 is 28.999999999999996.
        return max(0, floor(round(earned, 9)) - window.retries)


class _OneRetry:
    """The answer to "may it be tried again?" for one call: yes once, at most."""

    __slots__ = ("_budget", "_command", "_left")

    def __init__(self, budget: RetryBudget, command: _Throttled | None) -> None:
        self._budget = budget
        self._command = command
        self._left = True

    def __call__(self, error_or_response: object) -> bool:
        if not self._left or not retryable(error_or_response):
            return False
        if self._command is not None and self._command.snapshot().admitted_share < 1.0:
            return False
        self._left = False  # refused or not: a budget that is used up is not asked for one call again and again
        return self._budget.withdraw()


def _number(name: str, value: Any, bound: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 0:
        raise SettingsError(f"{name} must be {bound}, not {value!r}")
    return float(value)


_budgets: Final = Family(RetryBudget.after_fork)
