"""Reads a store on a thread of its own, which may hang for as long as the store does; nobody waits for it."""

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Final

from groundfault._clock import Clock
from groundfault.events import note_internal_error
from groundfault.settings._cache import Cache
from groundfault.settings.store import Document, MalformedError, SettingsStore

__all__ = ["Reader", "Reading"]

_VERDICT_S: Final = 10.0
_LEAST_PAUSE_S: Final = 0.1


class Reading:
    """What one look at the store has brought. Who takes it fills in the verdict, then calls :meth:`judged`."""

    def __init__(
        self,
        *,
        document: Document | None = None,
        error: Exception | None = None,
        cached_age_s: float | None = None,
    ) -> None:
        self.document = document
        self.error = error
        self.cached_age_s = cached_age_s
        self.keep: Document | None = None
        self.confirmed = False
        self.pause_s = 1.0
        # A queue, for its lock is made in C: a later monkey-patching changes nothing about it.
        self._verdict: SimpleQueue[None] = SimpleQueue()

    def judged(self) -> None:
        """Let the reader go on."""
        self._verdict.put(None)

    def await_verdict(self) -> None:
        """Wait until it is judged, but not for ever: whoever judges may be gone."""
        try:
            self._verdict.get(timeout=_VERDICT_S)
        except Empty:
            return


class Reader:
    """One thread that reads, hands over what it has read, waits for the next change, and reads again.

    ``busy_since``: since when it has been waiting for the store or the disk beyond the pause it was given; or None.
    ``known``: the version that the store is asked for news of.
    ``cold``: nothing is in force yet, so the cached copy is read first.
    """

    def __init__(
        self,
        store: SettingsStore,
        cache: Cache | None,
        hand_over: Callable[[Reading], None],
        *,
        known: str | None,
        cold: bool,
        clock: Clock,
    ) -> None:
        self._store = store
        self._cache = cache
        self._hand_over = hand_over
        self.known = known
        self._cold = cold
        self._clock = clock
        self.busy_since: float | None = None
        self._stop: SimpleQueue[None] = SimpleQueue()
        self._stopped = False
        self._thread = Thread(target=self._run, name="groundfault-settings-store", daemon=True)

    def start(self) -> None:
        """Begin. Raises RuntimeError where no thread can be had."""
        self._thread.start()

    def stop(self) -> None:
        """End as soon as the store has answered; without waiting for it."""
        self._stopped = True
        self._stop.put(None)

    @property
    def is_alive(self) -> bool:
        """Whether its thread still runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._begin()
            while not self._stopped:
                self._wait(self._look())
            self._store.close()
        except Exception as error:  # noqa: BLE001  a store breaks what it has promised: the next start begins anew
            note_internal_error("live settings", error)

    def _begin(self) -> None:
        self.busy_since = self._clock()
        cached = self._cache.read() if self._cache is not None and self._cold else None
        if cached is not None and not self._stopped:
            document, age_s = cached
            reading = Reading(document=document, cached_age_s=age_s)
            self._hand_over(reading)
            reading.await_verdict()

    def _look(self) -> Reading:
        self.busy_since = self._clock()
        try:
            reading = Reading(document=self._store.load(self.known))
        except Exception as error:  # noqa: BLE001  whatever a store raises, it could not be read
            reading = Reading(error=error)
        self.busy_since = None
        if not self._stopped:
            self._hand_over(reading)
            reading.await_verdict()
        if self._cache is not None and not self._stopped:
            self.busy_since = self._clock()
            if reading.keep is not None:
                self._cache.write(reading.keep)
            elif reading.confirmed:
                self._cache.touch()
            self.busy_since = None
        return reading

    def _wait(self, reading: Reading) -> None:
        """Wait for the next look: after a failure here, for the store may be beyond waiting, else for the store."""
        began = self._clock()
        self.busy_since = began + reading.pause_s
        away = reading.error is not None and not isinstance(reading.error, MalformedError)
        if not (away or self._stopped):
            try:
                self._store.wait(reading.pause_s)
            except Exception as error:  # noqa: BLE001  it promised not to; the next reading will tell what is the matter
                note_internal_error("live settings", error)
        waited_s = self._clock() - began
        pause_s = reading.pause_s if away else _LEAST_PAUSE_S
        if waited_s < pause_s:
            self._pause(pause_s - waited_s)
        self.busy_since = None

    def _pause(self, seconds: float) -> None:
        if not self._stopped:
            try:
                self._stop.get(timeout=seconds)
            except Empty:
                return
