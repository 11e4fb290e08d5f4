"""The last good answers, served while the callee fails: a fallback on cachetools.

::

    cached = CachedFallback(max_age_s=300.0)
    command = saber.command("scores", timeout_s=0.5, fallback=cached)


    @command
    @cached.remember  # inside the command, or what the fallback serves would be remembered as new
    def scores(contest): ...
"""

import functools
import inspect
import math
import os
import threading
from collections.abc import Callable, Hashable
from typing import Any, Final, TypeVar
from weakref import WeakSet

try:
    from cachetools import TTLCache
    from cachetools.keys import hashkey
except ImportError as missing:  # pragma: no cover  shown only where the extra is missing
    raise ImportError(
        "groundfault.integrations.cachetools needs cachetools: pip install 'groundfault[cachetools]'"
    ) from missing

from groundfault._clock import Clock, monotonic
from groundfault.errors import GroundFaultError, SettingsError
from groundfault.events import note_internal_error

__all__ = ["CachedFallback", "NothingRememberedError"]

_NOTHING: Final[Any] = object()

F = TypeVar("F", bound=Callable[..., Any])


class NothingRememberedError(GroundFaultError, LookupError):
    """No answer for these arguments is remembered, or none that is young enough: the original error is raised."""


class CachedFallback:
    """Remembers good results by the arguments of their calls, and serves them as a command's fallback.

    maxsize: how many results are kept, at least 1; the least recently used goes first. Default 1024.
    max_age_s: how old a result may be and still be served, in seconds since it was returned. Default 300.0.
    key: makes a hashable key of a call's arguments; default ``cachetools.keys.hashkey``, all of them.
      ``cachetools.keys.methodkey`` leaves out the first, a method's ``self``.
    keep_if: looks at a result and says whether it is good enough to be remembered. Default None: whatever is returned.
      A command with ``classify`` needs one, or a result that it judges a failure would be served in its own place.
    clock: returns seconds and never steps back; for tests.

    Serving a result does not make it younger. Results are shared, not copied: whoever changes one changes it for all.
    Arguments that cannot be hashed are not remembered, and that is no error. A forked child begins with nothing.
    Threads and event loops may share one. Its lock is never held while a function of the user's runs,
    other than the arguments' own ``__eq__`` and ``__hash__``.

    Raises SettingsError for settings that make no sense.
    """

    def __init__(
        self,
        *,
        maxsize: int = 1024,
        max_age_s: float = 300.0,
        key: Callable[..., Hashable] | None = None,
        keep_if: Callable[[Any], bool] | None = None,
        clock: Clock = monotonic,
    ) -> None:
        _check(maxsize, max_age_s, key=key, keep_if=keep_if)
        self._key = key or hashkey
        self._keep_if = keep_if
        self._maxsize = maxsize
        self._max_age_s = float(max_age_s)
        self._clock = clock
        # Guards all below. Re-entrant, for dropping a result may run a finalizer that makes a call of its own.
        self._lock = threading.RLock()
        self._results = self._new_results()
        self._hits = 0
        self._misses = 0
        _all.add(self)

    def __repr__(self) -> str:
        return f"<CachedFallback of {len(self)}, hits {self._hits}, misses {self._misses}>"

    def __len__(self) -> int:
        """Return how many results are young enough to be served."""
        with self._lock:
            self._results.expire()
            return len(self._results)

    def __bool__(self) -> bool:
        """Return true, also while it is empty."""
        return True

    @property
    def hits(self) -> int:
        """How many results were served."""
        return self._hits

    @property
    def misses(self) -> int:
        """How often there was none to serve."""
        return self._misses

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the result that is remembered for a call with these arguments; this is the fallback.

        Raises NothingRememberedError if there is none, and whatever ``key`` raises.
        """
        key = self._key(*args, **kwargs)
        hashable = _is_hashable(key)
        with self._lock:
            result = self._results.get(key, _NOTHING) if hashable else _NOTHING
            if result is not _NOTHING:
                self._hits += 1
                return result
            self._misses += 1
        raise NothingRememberedError(f"no result of the last {self._max_age_s:g} s is remembered for these arguments")

    def keep(self, result: Any, /, *args: Any, **kwargs: Any) -> None:
        """Remember ``result`` for a call with these arguments, as of now. An error of ``key`` is noted, not raised."""
        try:
            if self._keep_if is not None and not self._keep_if(result):
                return
            key = self._key(*args, **kwargs)
            if _is_hashable(key):
                with self._lock:
                    self._results[key] = result
        except Exception as error:  # noqa: BLE001  the call has its result, which nothing here may take away
            note_internal_error("cached fallback", error)

    def clear(self) -> None:
        """Forget all results. The counters stay."""
        with self._lock:
            self._results.clear()

    def remember(self, fn: F) -> F:
        """Return ``fn`` so that each result it returns is kept for its arguments, of the same kind and signature.

        Functions, coroutine functions, methods, partials and callable objects.
        Whatever raises is not remembered, nor is an awaitable that a plain function returns.
        Put it inside the command: around it, it would remember what the fallback served as if it were new.
        Raises TypeError for generator functions, whose result can be used only once, and for what cannot be called.
        """
        if isinstance(fn, (classmethod, staticmethod)):
            return type(fn)(self.remember(fn.__func__))
        if not callable(fn):
            raise TypeError(f"a cached fallback remembers functions and other callables, not {fn!r}")
        run: Any = fn
        while isinstance(run, functools.partial):
            run = run.func
        if not inspect.isroutine(run) and not inspect.isclass(run):
            run = type(run).__call__
        if inspect.isgeneratorfunction(run) or inspect.isasyncgenfunction(run):
            raise TypeError(f"what {fn!r} yields can be used only once; remember a function that returns a list")
        wrap: Any = self._of_coroutines if inspect.iscoroutinefunction(run) else self._of_calls
        remembering: F = wrap(fn)
        return remembering

    def _of_calls(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def remembering(*args: Any, **kwargs: Any) -> Any:
            result = fn(*args, **kwargs)
            if not inspect.isawaitable(result):
                self.keep(result, *args, **kwargs)
            return result

        return remembering

    def _of_coroutines(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        async def remembering(*args: Any, **kwargs: Any) -> Any:
            result = await fn(*args, **kwargs)
            self.keep(result, *args, **kwargs)
            return result

        return remembering

    def after_fork(self) -> None:
        """Make a child process's copy usable: another thread may have held the lock, amid a change."""
        self._lock = threading.RLock()
        self._results = self._new_results()

    def _new_results(self) -> TTLCache[Hashable, Any]:
        return TTLCache(self._maxsize, self._max_age_s, timer=self._clock)


def _is_hashable(key: Hashable) -> bool:
    try:
        hash(key)
    except TypeError:  # a tuple of arguments is only as hashable as they are
        return False
    return True


def _check(maxsize: object, max_age_s: object, **callables: object) -> None:
    if isinstance(maxsize, bool) or not isinstance(maxsize, int) or maxsize < 1:
        raise SettingsError(f"maxsize must be a whole number of at least 1, not {maxsize!r}")
    if isinstance(max_age_s, bool) or not isinstance(max_age_s, (int, float)) or not 0 < max_age_s < math.inf:
        raise SettingsError(f"max_age_s must be finite and above 0, not {max_age_s!r}")
    for name, value in callables.items():
        if value is not None and not callable(value):
            raise SettingsError(f"{name} must be a callable or None, not {value!r}")


_all: WeakSet[CachedFallback] = WeakSet()


def _after_fork_in_child() -> None:
    for one in list(_all):
        one.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
