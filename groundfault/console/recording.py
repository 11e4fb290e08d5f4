"""Makes the view that the console shows, once a second, on a thread of its own.

No call and no request ever waits for it. It takes two percent of a CPU at most: where a view takes more than 20 ms,
views become fewer, and say so.

Where processes share a run directory, one of them records it, and the others serve what it has written. When it ends,
however it ends, another one takes over and recalls what it remembered. Where what is written grows old, as on a full
disk, each makes views of its own rather than show nothing.
"""

import atexit
import gzip
import os
import socket
import threading
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from math import inf
from pathlib import Path
from random import Random
from typing import Any, Final

from groundfault._clock import Clock, monotonic, thread_cpu, wall
from groundfault._family import Family
from groundfault.console._link import Link
from groundfault.console._packing import packed
from groundfault.console._post import Making, Observes, Post
from groundfault.console.answering import RefusedError
from groundfault.events import note_internal_error
from groundfault.metrics._coding import encode
from groundfault.metrics._place import place_of
from groundfault.metrics.app import has_siblings
from groundfault.metrics.collecting import collect, service_of
from groundfault.metrics.report import Report, merged
from groundfault.metrics.rundir import RUN_DIR, RunDirError, named_directory
from groundfault.metrics.writer import start

__all__ = ["Recorder", "recorder_in_service"]

INTERVAL_S: Final = 1.0
_MAX_INTERVAL_S: Final = 5.0
_STAND_BY_S: Final = 0.5
_SHARE: Final = 0.02  # of a CPU that views may take; beyond it they become fewer
_KEEP_S: Final = 10.0  # how often what is remembered is written
_FIRST_S: Final = 2.0  # so long who asks waits for the first view
_FAREWELL_S: Final = 1.0  # so long the end of the process waits for the last one
_ASKED_S: Final = 60.0  # so long after a question somebody is looking
_LEAVE_S: Final = 5.0  # so long nobody must record before who has forked does so again
_LOOK_AROUND_S: Final = 30.0  # how often it looks for processes like this one
_FEW: Final = 3

_random: Final = Random()  # its own: a thread that draws from everybody's would change what a test draws


class Recorder:
    """Records run directories, or this process alone. Its methods may be called on any thread.

    ``directories``: None, the default, for this process alone. With several, one view shows them together.
    ``title``: of the view; None for the names of the services, as far as they are known.

    In the child of a fork it begins anew, with a thread if the parent had one. The parent then leaves the recording to
    its children, for servers' masters have nothing to show; only if nobody records does it do so again.
    """

    def __init__(
        self,
        directories: Sequence[Path] | None = None,
        *,
        title: str | None = None,
        making: Making | None = None,
        clock: Clock = wall,
        steady: Clock = monotonic,
    ) -> None:
        self._title = title
        self._making = making
        self._clock = clock
        self._steady = steady
        self.link = Link(self.report)
        self._posts = [
            Post(place_of(path)) for path in dict.fromkeys(Path(each).absolute() for each in directories or ())
        ]
        self._begin_anew()
        _recorders.add(self)

    def __repr__(self) -> str:
        return f"<Recorder of {self.what}>"

    @property
    def what(self) -> str:
        """What is recorded, in words."""
        return ", ".join(str(post.place.path) for post in self._posts) or "this process"

    def _begin_anew(self) -> None:
        self._newest: bytes | None = None
        self._why = "no view has been made yet"
        self._observer: Observes | None = None  # of this process alone
        self._own: tuple[Report, float] | None = None
        self._sequence = 0
        self._left_at: float | None = None  # since when it leaves the recording to others, for it has forked
        self._asked_at = -inf
        self._kept_at = self._steady()
        self._looked_at = -inf
        self._several = False
        self._took_s = 0.0
        self._pause_s = INTERVAL_S
        self._ready = threading.Event()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # guards `_thread`

    def renew(self) -> None:
        """Begin anew in the child of a fork."""
        ran = self._thread is not None and not self._stopping
        for post in self._posts:
            post.inherit()
        self._begin_anew()
        if ran:
            self.start()

    def stand_down(self) -> None:
        """Leave the recording to the children: this process has forked."""
        self._left_at = self._steady()
        self._wake.set()

    # --- beginning and end --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to record, if it does not already. Never raises an Exception."""
        try:
            with self._lock:
                if self._thread is None:
                    self._stopping = False
                    thread = threading.Thread(target=self._run, name="groundfault-console", daemon=True)
                    thread.start()
                    self._thread = thread
        except Exception as error:  # noqa: BLE001  without a thread to be had there is nothing to show
            self._why = "no thread could be started"
            note_internal_error("console recorder", error)

    def stop(self, timeout_s: float = _FAREWELL_S) -> None:
        """Write what is remembered, and let another process record. Waits for that, but no longer than told."""
        with self._lock:
            thread, self._thread = self._thread, None
        self._stopping = True
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(0.0, timeout_s))

    def _run(self) -> None:
        wake = self._wake
        while not self._stopping:
            began = thread_cpu()
            self.record()
            self._took_s = thread_cpu() - began
            wake.wait(_random.uniform(0.9, 1.1) * self._pause_s)
            wake.clear()
        self._leave()

    def _leave(self) -> None:
        self.link.stand(up=False)
        for post in self._posts:
            if post.is_elected:
                self._try(post.keep)
                post.resign()

    # --- asked by others ----------------------------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether there is a view, so that :meth:`newest` does not wait."""
        return self._newest is not None

    def newest(self) -> bytes:
        """Return the newest view as compressed JSON. Waits for the first one; raises RefusedError if none comes."""
        self._asked_at = self._steady()
        view = self._newest
        if view is None:
            self._wake.set()
            if self._thread is not None:
                self._ready.wait(_FIRST_S)
            view = self._newest
            if view is None:
                raise RefusedError(503, f"there is nothing to show: {self._why}")
        return view

    def report(self) -> bytes:
        """Return the newest report of all processes, compressed, for a hub. Raises RefusedError if there is none."""
        self._asked_at = self._steady()
        now = self._clock()
        reports, unknown = [], []
        for post in self._posts:
            try:
                reports.append(post.newest_report(now, 1.5 * self._interval_s))
            except (OSError, RunDirError) as error:
                unknown.append(str(error))
        if self._posts and not reports:
            raise RefusedError(503, *unknown)
        if not self._posts:
            reports.append(collect(now))
        report = reports[0] if len(reports) == 1 else merged(reports)
        more: dict[str, Any] = {"host": socket.gethostname(), "release": _release(), "title": self._titled(reports)}
        unread = {name: why for each in reports for name, why in each.unread.items()}
        # A process alone has none: the next one that starts in its place goes on where it has ended.
        more["directory"] = ", ".join(str(post.place.path) for post in self._posts)
        data = encode(report, **more, sent_at=round(now, 3), unread=unread, unknown=unknown)
        return gzip.compress(data, 1, mtime=0)

    # --- one view -----------------------------------------------------------------------------------------------------

    def record(self) -> None:
        """Make the next view, or take up what another process has made; on this thread. Never raises an Exception."""
        if not self._try(self._record):
            self._pause_s = self._interval_s

    @property
    def _interval_s(self) -> float:
        return round(min(max(INTERVAL_S, self._took_s / _SHARE), _MAX_INTERVAL_S), 3)

    def _record(self) -> None:
        now, steady = self._clock(), self._steady()
        if self._stands_by(now, steady):
            self.link.stand(up=False)
            self._pause_s = max(_STAND_BY_S, self._took_s / _SHARE)
            return
        self.link.stand(up=all(post.is_elected for post in self._posts))
        making = self._making = self._making or Making.usual()
        self._pause_s = interval_s = self._interval_s
        if not self._posts:
            self._show(self._of_this_process(making, now, interval_s))
            return
        for post in self._posts:
            self._try(post.see, making, now)
        view = self._view(making, self._posts, now, interval_s)
        self._show(view)
        for post in self._posts:
            if post.is_elected:
                alone = view if len(self._posts) == 1 else self._view(making, [post], now, interval_s)
                self._try(post.put, alone)
        if steady - self._kept_at >= _KEEP_S:
            self._kept_at = steady
            for post in self._posts:
                self._try(post.keep)

    def _stands_by(self, now: float, steady: float) -> bool:
        """Whether there is nothing to be made here; what another process has made is then shown."""
        if not self._posts:
            if self._left_at is not None and steady - self._asked_at > _ASKED_S:
                self._newest, self._own, self._observer = None, None, None
                self._ready.clear()
                return True
            return False
        if self._left_at is not None:
            self._leave()
        elif [post.elect() for post in self._posts] != [False]:
            return False
        if len(self._posts) > 1:
            return False
        (post,) = self._posts
        found = post.found(now, steady)
        if found is None:
            if self._left_at is not None and steady - self._left_at > _LEAVE_S:
                self._left_at = None  # nobody else is at it, so this one may be, from the next turn on
            return False
        if self._left_at is not None:
            self._left_at = steady
        post.observer = None
        post.sequence = found.sequence
        self._show(found.data)
        return True

    def _show(self, view: bytes) -> None:
        self._newest = view
        self._ready.set()

    def _of_this_process(self, making: Making, now: float, interval_s: float) -> bytes:
        if self._observer is None:
            self._observer = making.anew()
        report = collect(now)
        self._own = report, now
        self._observer.see(report, now)
        self._sequence += 1
        steady = self._steady()
        if steady - self._looked_at > _LOOK_AROUND_S:
            self._looked_at = steady
            self._several = has_siblings()
        unknown = [f"this is process {os.getpid()} alone; set {RUN_DIR} for all of them"] if self._several else []
        unknown += self.link.troubles(now)
        view = making.view(
            [self._observer],
            now=now,
            kind="process",
            title=self._titled([report]),
            host=socket.gethostname(),
            release=_release(),
            sequence=self._sequence,
            interval_s=interval_s,
            unknown=unknown,
        )
        return packed(view)

    def _view(self, making: Making, posts: Sequence[Post], now: float, interval_s: float) -> bytes:
        sequence = 1 + max(post.sequence for post in posts)
        for post in posts:
            post.sequence = sequence
        view = making.view(
            [post.observer for post in posts if post.observer is not None],
            now=now,
            kind="host",
            title=self._titled([], posts),
            host=socket.gethostname(),
            release=_release(),
            sequence=sequence,
            interval_s=interval_s,
            unknown=[*(each for post in posts if (each := post.trouble) is not None), *self.link.troubles(now)],
        )
        return packed(view)

    def _titled(self, reports: Sequence[Report], posts: Sequence[Post] | None = None) -> str:
        if self._title:
            return self._title
        known = {each.service for report in reports for each in report.processes if each.service}
        # The dead of before a restart have a name, too: a hub would take another one for another service.
        known = known or {service for report in reports for service in report.servers if service}
        posts = self._posts if posts is None else posts
        for post in posts:
            if post.services or not known or len(posts) > 1:
                known |= post.services or {post.place.path.name}
        if not self._posts and not known:
            return service_of(Report()) or f"process {os.getpid()}"
        names = sorted(known)
        return ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW} more" if len(names) > _FEW else "")

    def _try(self, work: Callable[..., None], *arguments: Any) -> bool:
        """Whether it went well. The next second brings the next chance."""
        try:
            work(*arguments)
        except Exception as error:  # noqa: BLE001  a full disk, a view that cannot be made: nothing else must suffer
            self._why = "an internal error; see the log"
            note_internal_error("console recorder", error)
            return False
        return True


@cache
def _release() -> str:
    try:
        return version("groundfault")
    except PackageNotFoundError:  # run from a bare checkout
        return "unknown"


# --- all of this process ----------------------------------------------------------------------------------------------

_recorders: Final[Family[Recorder]] = Family(Recorder.renew)
_shared: Final[dict[Path | None, Recorder]] = {}


def _note_fork() -> None:
    for recorder in _recorders.members():
        recorder.stand_down()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_parent=_note_fork)


@atexit.register
def _say_farewell() -> None:
    until = monotonic() + _FAREWELL_S
    for recorder in _recorders.members():
        recorder.stop(until - monotonic())


def recorder_in_service(run_dir: str | os.PathLike[str] | None = None) -> Recorder:
    """Return the recorder of this process for that directory, started; there is one for each.

    ``run_dir``: None, the default, for the one that the environment variable ``GROUNDFAULT_RUN_DIR`` names; without one
    this process alone. The process reports to it from now on. Nothing is raised.
    """
    directory = named_directory(run_dir)
    if directory is not None:
        directory = directory.absolute()
        start(directory)
    recorder = _shared.get(directory) or _shared.setdefault(
        directory, Recorder(None if directory is None else [directory])
    )
    recorder.link.want()
    recorder.start()
    return recorder
