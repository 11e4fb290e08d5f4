"""Puts history into the database on a thread of its own, so that nobody ever waits for a database.

What is to be kept waits in two bounded heaps, by name: newer takes the place of older. A database that is locked, full,
slow or gone makes the heaps grow; beyond their bounds the oldest is given up, counted, and said. Each try is a new one,
so it all begins again by itself.
"""

import threading
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from groundfault._clock import Clock, monotonic, wall
from groundfault.console.hub.history import History, LaterSchemaError, Point, Span
from groundfault.console.hub.sources import spoken
from groundfault.console.view import Episode
from groundfault.events import note_internal_error
from groundfault.settings.store import NothingStoredError, StoreError

__all__ = ["Keeper"]

RECALLED_S: Final = 86_400.0
MAX_POINTS: Final = 20_000
MAX_EPISODES: Final = 2_000
_PATIENCE_S: Final = 15.0  # so long it may take before anybody needs to know
_LOST_SAID_S: Final = 600.0
_LONGEST_PAUSE_S: Final = 10.0
_CLEAN_EACH_S: Final = 600.0
_LONGEST_ID: Final = 500

Key = tuple[int, str]


class Keeper:
    """Keeps for ``keep_s`` seconds. ``recalled``: the episodes of the last day, once they have been read.

    ``run``: tells the episodes of this run of the hub from those of others, which are numbered alike.
    """

    def __init__(
        self,
        history: History,
        *,
        keep_s: float,
        run: str,
        clock: Clock = monotonic,
        time: Clock = wall,
    ) -> None:
        self._history = history
        self._keep_s = keep_s
        self._run = run
        self._clock = clock
        self._time = time
        self.recalled: list[Episode] | None = None
        self._lock = threading.Lock()  # guards all below; held for no longer than it takes to move a few names
        self._points: dict[Key, Point] = {}
        self._episodes: dict[str, Episode] = {}
        self._offered: dict[str, Episode] = {}
        self._waiting_since: float | None = None
        self._why = ""
        self._off = ""
        self._lost = 0
        self._lost_at = float("-inf")
        self._is_open = False
        self._clean_at = float("-inf")
        self._failures = 0
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    # --- those who have something to keep -----------------------------------------------------------------------------

    def offer(self, points: Iterable[Point], episodes: Iterable[Episode]) -> None:
        """Keep these when it can be done. Episodes that have not changed since they were last offered cost nothing."""
        with self._lock:
            if self._off:
                return
            before, self._offered = self._offered, {}
            for episode in episodes:
                # A copy, for its maker changes it when it ends.
                known = self._offered[episode["id"]] = episode.copy()
                if before.get(episode["id"]) != known or known["ended_at"] is None:
                    known = known.copy()
                    known["id"] = self._id(episode["id"])
                    self._episodes[known["id"]] = known
            self._points |= {(point["at"], point["service"]): point for point in points}
            self._bound()
            if self._waiting_since is None and (self._points or self._episodes):
                self._waiting_since = self._clock()
        self._wake.set()

    def _id(self, name: str) -> str:
        named = f"{self._run}|{name}"
        return named if len(named) <= _LONGEST_ID else f"{self._run}|{sha256(name.encode()).hexdigest()}"

    def _bound(self) -> None:
        old_points = list(self._points)[:-MAX_POINTS]
        old_episodes = list(self._episodes)[:-MAX_EPISODES]
        for slot in old_points:
            del self._points[slot]
        for name in old_episodes:
            del self._episodes[name]
        if old_points or old_episodes:
            self._lost += len(old_points) + len(old_episodes)
            self._lost_at = self._clock()

    def unknown(self) -> list[str]:
        """Return what is not known, or not kept, in words."""
        with self._lock:
            if self._off:
                return [f"history is not kept: {self._off}"]
            said = []
            at = self._clock()
            since = self._waiting_since
            if since is not None and at - since > _PATIENCE_S:
                why = self._why or f"{self._history.name} does not answer"
                said.append(f"history has not been kept for {spoken(at - since)}: {why}")
            if self._lost and at - self._lost_at < _LOST_SAID_S:
                said.append(f"{self._lost} rows of history are lost")
            return said

    # --- the thread ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run_on, name="groundfault-history", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Keep what there is left, if that is done within the time."""
        self._ending.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run_on(self) -> None:
        while True:
            self._wake.clear()
            last = self._ending.is_set()  # looked at before the turn: what came until the end is in it
            succeeded = self.turn()
            if last or self._off:
                break
            if succeeded:
                self._wake.wait()
            else:
                self._ending.wait(min(_LONGEST_PAUSE_S, 2.0 ** min(self._failures, 10) / 2))
        self._history.close()

    def turn(self) -> bool:
        """Open what is not open, keep what waits, forget what is old. Return whether all went well. Never raises."""
        points: dict[Key, Point] = {}
        episodes: dict[str, Episode] = {}
        try:
            self._ensure_open()
            with self._lock:
                points, self._points = self._points, {}
                episodes, self._episodes = self._episodes, {}
            now = self._time()
            if points or episodes:
                self._history.write(list(points.values()), list(episodes.values()), now)
            self._clean(now)
        except LaterSchemaError as error:
            with self._lock:
                self._off = str(error)
                self._points, self._episodes = {}, {}
            return False
        except Exception as error:  # noqa: BLE001  the thread goes on, whatever a driver raises
            self._fail(error, points, episodes)
            return False
        with self._lock:
            self._failures, self._why = 0, ""
            self._waiting_since = self._clock() if self._points or self._episodes else None
        return True

    def _ensure_open(self) -> None:
        if not self._is_open:
            self._history.open()
            self._is_open = True
        if self.recalled is None:
            now = self._time()
            self.recalled = self._history.episodes(Span(now - RECALLED_S, now + RECALLED_S))

    def _clean(self, now: float) -> None:
        at = self._clock()
        if at >= self._clean_at:
            self._history.forget(now - self._keep_s)
            self._clean_at = at + _CLEAN_EACH_S

    def _fail(self, error: Exception, points: dict[Key, Point], episodes: dict[str, Episode]) -> None:
        if not isinstance(error, StoreError):
            note_internal_error("hub history", error)
        if isinstance(error, NothingStoredError):  # somebody has taken the file or a table away
            self._is_open = False
        with self._lock:
            self._points = points | self._points
            self._episodes = episodes | self._episodes
            self._bound()
            self._failures += 1
            self._why = str(error)
            if self._waiting_since is None:
                self._waiting_since = self._clock()
