"""Live settings of this process: what a store says, over what code declared, within a second or two.

::

    groundfault.settings.live.install("file:/etc/groundfault.toml")

No call and no request ever waits for a store, and none reads one. Two threads do the work: one reads the store and may
hang with it; the other watches the first, checks what it has read, lays it over commands and shedders, and ends
overrides on time, whether or not the store is there.
"""

import atexit
import os
from collections.abc import Callable, Iterable
from functools import partial
from queue import Empty, SimpleQueue
from random import Random
from threading import RLock, Thread, current_thread
from typing import Final, Literal

from groundfault._clock import Clock, monotonic, wall
from groundfault._family import Family
from groundfault.breaker import Registry
from groundfault.breaker import registry as process_registry
from groundfault.errors import SettingsError
from groundfault.events import note_internal_error
from groundfault.settings._applying import Overlays
from groundfault.settings._cache import cache_of
from groundfault.settings._reading import Reader, Reading
from groundfault.settings._standing import Standing, Status
from groundfault.settings.document import unmatched
from groundfault.settings.opening import open_store
from groundfault.settings.store import SettingsStore
from groundfault.shedding.shedder import Shedder
from groundfault.sinks import Sink, Sinks, sinks_of
from groundfault.wire import NAME_GRAMMAR, valid_name

__all__ = ["LiveSettings", "Status", "install", "installed", "live_settings"]

_LONGEST_TICK_S: Final = 1.0
_END_S: Final = 5.0
_LONGEST_S: Final = 3600.0


class LiveSettings:
    """Keeps commands and shedders of this process as a store says.

    ``store``: an address for :func:`~groundfault.settings.opening.open_store`, a callable that makes a store, or a
    store. In the child of a fork an address or a callable makes a store of its own; a store given as such is used on.
    ``service``: this service's name in scopes. None: ``GROUNDFAULT_SERVICE``, or else the one that all shedders of the
    process are named after, or ``service``.
    ``poll_s``: seconds between two looks, 1.0, each up to a fifth shorter or longer; a store may notice sooner.
    ``cache``: a file for the last good document. None: one in the directory that ``GROUNDFAULT_RUN_DIR`` names, or none
    where that is not set; False: none.
    ``registry``: one or several; None: that of the process. ``shedders``: None, all of the process.
    ``sinks``: who is told; None: the process-wide ones.
    ``allow_disable``: whether a scope that names nothing, such as ``*``, may set another mode than ``enforce``.
    ``patience_s``: a store that has not answered for so long, 3.0, is unreachable.
    ``clock``, ``wall_clock`` and ``draw`` (random numbers in [0, 1)) are for tests.
    Raises SettingsError for arguments that make no sense; never for what is the matter with a store.
    """

    def __init__(
        self,
        store: str | SettingsStore | Callable[[], SettingsStore],
        *,
        service: str | None = None,
        poll_s: float = 1.0,
        cache: "str | os.PathLike[str] | Literal[False] | None" = None,
        registry: Registry | Iterable[Registry] | None = None,
        shedders: Iterable[Shedder] | None = None,
        sinks: Iterable[Sink] | Sinks | None = None,
        allow_disable: bool = False,
        patience_s: float = 3.0,
        clock: Clock = monotonic,
        wall_clock: Clock = wall,
        draw: Callable[[], float] | None = None,
    ) -> None:
        service = service if service is not None else os.environ.get("GROUNDFAULT_SERVICE") or None
        if service is not None and not valid_name(service):
            raise SettingsError(f"service must be a name that matches {NAME_GRAMMAR}, not {service!r}")
        _check_time("poll_s", poll_s)
        _check_time("patience_s", patience_s)
        self._make = _maker(store)
        self._store = self._make()
        self._former: list[SettingsStore] = []  # a parent's, kept so that nothing of theirs is closed here
        self._patience_s = patience_s
        self._cache = cache_of(cache, self._store.name, wall_clock)
        self._clock = clock
        registries = [process_registry()] if registry is None else registry
        self._overlays = Overlays(
            service=service,
            registries=[registries] if isinstance(registries, Registry) else registries,
            shedders=shedders,
            wall_clock=wall_clock,
        )
        self._standing = Standing(
            self._overlays,
            self._store,
            poll_s=poll_s,
            allow_disable=allow_disable,
            sinks=sinks_of(sinks),
            clock=clock,
            draw=draw or Random().random,  # its own, as the writer of reports has
        )
        self._running = False
        self._reader: Reader | None = None
        self._renew()
        _all.add(self)

    def __repr__(self) -> str:
        return f"<LiveSettings {self._store.name} {self._standing.state}>"

    def _renew(self) -> None:
        # Guards starting and stopping. Re-entrant, for a signal handler may do either.
        self._lock = RLock()
        self._readings: SimpleQueue[Reading | None] = SimpleQueue()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Begin to follow the store, now and in every child that is forked; never waits. Again: changes nothing.

        Where no thread can be had, that is logged and counted, and tried again when :meth:`status` is asked.
        """
        with self._lock:
            if not self._running:
                self._running = True
                self._overlays.begin()
                atexit.register(self._end_threads)
            self._start_thread()

    def stop(self) -> None:
        """Follow the store no more, and return everything to what code declared; without waiting for the store."""
        with self._lock:
            was, self._running = self._running, False
            thread = self._thread
        if not was:
            return
        atexit.unregister(self._end_threads)
        self._end_threads()
        if thread is not None and thread is not current_thread():
            thread.join(_END_S)  # it waits for no store
        self._renew()
        self._standing.forget()
        self._overlays.end()

    def status(self) -> Status:
        """Return how things stand."""
        if self._running:
            self._start_thread()
        return self._standing.status()

    def unmatched(self) -> tuple[str, ...]:
        """Return the scopes of this service that no command made so far is in: misspelled, or for those to come."""
        return unmatched(self._overlays.document, self._overlays.service, self._overlays.commands())

    def _start_thread(self) -> None:
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            thread = Thread(target=self._run, args=(self._readings,), name="groundfault-settings", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # too many threads, or the interpreter is ending
                note_internal_error("live settings", error)
                return
            self._thread = thread

    def _end_threads(self) -> None:
        self._readings.put(None)
        self._end_reader()

    def _end_reader(self) -> None:
        if (reader := self._reader) is not None:
            reader.stop()

    def after_fork(self) -> None:
        """Go on in a child, with threads and, where it can be made, a store of its own. Called there."""
        self._renew()
        self._reader = None
        if not self._running:
            return
        self._former.append(self._store)
        try:
            self._store = self._make()
        except Exception as error:  # noqa: BLE001  fail open: what is in force stays
            note_internal_error("live settings", error)
            self._running = False
            return
        self._standing.begin_anew(self._store)
        self._start_thread()

    # Everything below runs on the thread.

    def _run(self, readings: "SimpleQueue[Reading | None]") -> None:
        self._guarded(self._overlays.renew)  # a fork may have come while a document was half laid
        self._guarded(self._tick)
        while True:
            try:
                reading = readings.get(timeout=self._until_next())
            except Empty:
                reading = _NOTHING_READ
            if reading is None or readings is not self._readings:
                self._end_reader()  # also one that has been made since the end was called
                return
            if reading is not _NOTHING_READ:
                self._guarded(partial(self._take, reading))
                reading.judged()
            self._guarded(self._tick)

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001  a thread that ended would leave the process without news
            note_internal_error("live settings", error)

    def _until_next(self) -> float:
        left_s = self._overlays.left_s()
        return _LONGEST_TICK_S if left_s is None else min(max(left_s, 0.001), _LONGEST_TICK_S)

    def _take(self, reading: Reading) -> None:
        self._standing.take(reading)
        if self._reader is not None:
            self._reader.known = self._standing.seen

    def _tick(self) -> None:
        """Do what time demands: a reader, the end of overrides, and a word when the store hangs."""
        self._read_on()
        if self._overlays.is_due():
            self._overlays.renew()
        since = self._reader.busy_since if self._reader is not None else None
        if since is not None and self._standing.state != "unreachable":
            hung_s = self._clock() - since
            if hung_s > self._patience_s:
                self._standing.unreachable(f"has not answered for {hung_s:.1f} s; as soon as it does, it is read", None)

    def _read_on(self) -> None:
        """Have exactly one reader. One that hangs is alive, and no second one is put beside it."""
        if self._running and (self._reader is None or not self._reader.is_alive):
            standing = self._standing
            reader = Reader(
                self._store,
                self._cache,
                self._readings.put,
                known=standing.seen,
                cold=standing.version is None,
                clock=self._clock,
            )
            self._reader = reader  # first: it may be told to stop before it has begun
            reader.start()


_NOTHING_READ: Final = Reading()
_all: Final = Family(LiveSettings.after_fork)
_installed: dict[str, LiveSettings] = {}


def live_settings() -> list[LiveSettings]:
    """Return all of this process, for exporters: their :meth:`~LiveSettings.status` is the gauge."""
    return _all.members()


def installed() -> LiveSettings | None:
    """Return what :func:`install` has started in this process, None if it has not."""
    return next(iter(_installed.values()), None)


def install(
    url: str | None = None,
    *,
    service: str | None = None,
    poll_s: float = 1.0,
    cache: "str | os.PathLike[str] | Literal[False] | None" = None,
    allow_disable: bool = False,
) -> LiveSettings | None:
    """Have this process, and every one forked from it, follow a store of live settings.

    For the place where an application begins.

    ``url``: see :func:`~groundfault.settings.opening.open_store`. None: what ``GROUNDFAULT_SETTINGS`` holds; without
    that nothing is done and None is returned. The others: see :class:`LiveSettings`.
    Again for the same address: returns what follows it already. Raises SettingsError for another one,
    ImportError where a library is missing.
    """
    url = url if url is not None else os.environ.get("GROUNDFAULT_SETTINGS")
    if not url:
        return None
    if url in _installed:
        return _installed[url]
    if _installed:
        raise SettingsError("this process follows a store of live settings already, and there can be only one")
    live = LiveSettings(url, service=service, poll_s=poll_s, cache=cache, allow_disable=allow_disable)
    _installed[url] = live
    live.start()
    return live


def _maker(store: str | SettingsStore | Callable[[], SettingsStore]) -> Callable[[], SettingsStore]:
    if isinstance(store, str):
        return lambda: open_store(store)
    if isinstance(store, SettingsStore):
        return lambda: store
    if callable(store):
        return store
    raise SettingsError(f"store must be an address, a store, or a callable that makes one, not {store!r}")


def _check_time(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LONGEST_S:
        raise SettingsError(f"{name} must be a number above 0 and at most {_LONGEST_S:g}, not {value!r}")
