"""Writes this process's report into the run directory, once a second, on a thread of its own.

No call and no request ever waits for it: a directory that hangs stops this thread, and nothing else.
Reports take two percent of a CPU at most: where there are so many commands that one takes 20 ms, they become fewer.
"""

import atexit
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from random import Random
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

from groundfault._clock import Clock, monotonic, thread_cpu, wall
from groundfault._family import Family
from groundfault.breaker.registry import all_registries
from groundfault.events import note_internal_error
from groundfault.metrics import rundir
from groundfault.metrics._coding import encode_commands, join, plain
from groundfault.metrics._place import place_of, write_locked
from groundfault.metrics.collecting import collect, collect_servers
from groundfault.metrics.report import CommandReport, Report

if TYPE_CHECKING:
    from groundfault.breaker.command import Command

__all__ = ["INTERVAL_S", "Writer", "scrape", "start", "writer_for"]

INTERVAL_S: Final = 1.0
_SHARE: Final = 0.02  # of a CPU that reports may take; beyond it they become fewer
_MAX_INTERVAL_S: Final = 3.0
_FAREWELL_S: Final = 1.0  # so long the end of the process waits for the last report
_FLUSH_S: Final = 2.0  # so long a scrape waits for the newest one


@dataclass(slots=True)
class _Told:
    """What was last told of a command: with the mark of its counts, and the text once it has been told alone."""

    mark: object
    said: list[Any]
    text: str | None = None


class Encoder:
    """Turns what this process has counted into bytes. Commands that have not changed since are not encoded again."""

    def __init__(self) -> None:
        self._told: dict[Command, _Told] = {}

    def encode(self, now: float) -> tuple[bytes, bool]:
        """Return the report, and whether it is idle. ``now``: seconds since the epoch."""
        before, self._told = self._told, {}
        changed, texts = [], []
        for registry in all_registries():
            for command in registry:
                told = before.get(command)
                mark, counts = command.counts(None if told is None else told.mark)
                if counts is not None:
                    told = _Told(mark, plain(CommandReport.of(counts)))
                    changed.append(told.said)
                elif told is not None:
                    if told.text is None:
                        told.text = encode_commands([told.said])
                    texts.append(told.text)
                if told is not None:
                    self._told[command] = told
        if changed:
            texts.append(encode_commands(changed))
        rest = collect_servers(now)
        idle = rest.is_idle and not any(told.said[_CALLS] for told in self._told.values())
        return join(rest, ",".join(texts)), idle


_CALLS: Final = 2  # where they are in what is said of a command

_random: Final = Random()  # its own: a thread that draws from everybody's would change what a test draws


class Writer:
    """One process's part of one run directory.

    Where processes fork, nobody can tell a server's master, or a helper, from a worker. So who has forked or was forked
    reports from when it has counted its first call, request or error on; :meth:`start` makes it report at once.
    """

    def __init__(self, directory: str | os.PathLike[str], *, clock: Clock = wall) -> None:
        self.place = place_of(directory)
        self._clock = clock
        self._descriptor: int | None = None
        self._begin_anew()
        _writers.add(self)

    def __repr__(self) -> str:
        return f"<Writer to {self.place.path}>"

    def _begin_anew(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)  # the parent's, whose lock stays with the parent
        self._descriptor = None
        # The token, because pids are used again, and because containers that share a directory number theirs alike.
        self.name = f"{os.getpid()}-{token_hex(8)}.json"
        self.waits_for_calls = False
        self._encoder = Encoder()
        self._took_s = 0.0
        self._asked: SimpleQueue[threading.Event] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # guards `_thread`

    def start(self) -> None:
        """Begin to write, if it does not already. Never raises."""
        self.waits_for_calls = False
        self._run_thread()

    def renew(self) -> None:
        """Begin anew in the child of a fork: with a file of its own, and a thread if the parent had one."""
        ran = self._thread is not None
        self._begin_anew()
        self.waits_for_calls = True
        if ran:
            self._run_thread()

    def _run_thread(self) -> None:
        try:
            with self._lock:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="groundfault-report", daemon=True)
                    thread.start()
                    self._thread = thread
        except Exception as error:  # noqa: BLE001  without a thread to be had, this process goes unreported
            note_internal_error("run directory", error)

    def flush(self, timeout_s: float = _FLUSH_S) -> bool:
        """Have everything written that was counted up to now; return whether that was done within ``timeout_s``."""
        if self._thread is None:
            return False
        done = threading.Event()
        self._asked.put(done)
        return done.wait(max(0.0, timeout_s))

    def _run(self) -> None:
        asked = self._asked
        while True:
            waiting = []
            pause_s = min(max(INTERVAL_S, self._took_s / _SHARE), _MAX_INTERVAL_S)
            try:
                waiting.append(asked.get(timeout=_random.uniform(0.9, 1.1) * pause_s))
                while True:
                    waiting.append(asked.get_nowait())
            except Empty:
                pass
            began = thread_cpu()
            self.write()
            self._took_s = thread_cpu() - began
            for each in waiting:
                each.set()

    def write(self) -> None:
        """Write the report now, on this thread. Never raises an Exception: what goes wrong is an internal error."""
        try:
            data, idle = self._encoder.encode(self._clock())
            if idle and self.waits_for_calls:
                self._withdraw()
            else:
                self._put(data)
        except Exception as error:  # noqa: BLE001  the next second brings the next chance
            note_internal_error("run directory", error)

    def _put(self, data: bytes) -> None:
        path = self.place.path / self.name
        if self._descriptor is None:
            self.place.ensure()
            # Before the file is there: a scrape on another thread that opened it would let go of its lock.
            rundir.own_files.setdefault(self.name, data)
        try:
            descriptor = write_locked(path, data)
        except FileNotFoundError:  # somebody has taken the directory away
            self.place.ensure()
            descriptor = write_locked(path, data)
        rundir.own_files[self.name] = data
        before, self._descriptor = self._descriptor, descriptor
        if before is None:
            rundir.fold(self.place.path, self._clock())  # so that restarts leave no files behind where nobody reads
        else:
            os.close(before)

    def _withdraw(self) -> None:
        if self._descriptor is not None:
            (self.place.path / self.name).unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None
            rundir.own_files.pop(self.name, None)


_writers: Final[Family[Writer]] = Family(Writer.renew)
_started: Final[dict[Path, Writer]] = {}


def _note_fork() -> None:
    for writer in _writers.members():
        writer.waits_for_calls = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_parent=_note_fork)


@atexit.register
def _say_farewell() -> None:
    until = monotonic() + _FAREWELL_S
    for writer in list(_started.values()):
        writer.flush(until - monotonic())


def start(directory: str | os.PathLike[str] | None = None) -> bool:
    """Have this process report to the run directory each second; return whether there is one.

    ``directory``: None, the default, for the one that the environment variable ``GROUNDFAULT_RUN_DIR`` names; it is
    made, for this user alone, if it is not there. One in memory, as below ``/run`` or ``/dev/shm``, is best.
    Asking again changes nothing. Children that are forked later report, too.

    A directory that cannot be used is an internal error: counted, and logged once a minute. Nothing is raised.
    """
    named = rundir.named_directory(directory)
    if named is None:
        return False
    path = named.absolute()
    writer = _started.get(path) or _started.setdefault(path, Writer(path))
    writer.start()
    return True


def writer_for(directory: str | os.PathLike[str]) -> Writer | None:
    """Return what :func:`start` has started for that directory."""
    return _started.get(Path(directory).absolute())


def scrape(directory: str | os.PathLike[str] | None = None) -> Report:
    """Return the newest report: of all processes that share the run directory, else of this process alone.

    What this process has counted is written first, so that no later scrape of another process can say less.
    ``directory``: as for :func:`start`. May wait for files, some milliseconds as a rule and four seconds at most
    unless the file system hangs: not for an event loop. Raises RunDirError if the directory cannot be read.
    """
    named = rundir.named_directory(directory)
    now = wall()
    if named is None:
        return collect(now)
    writer = writer_for(named)
    if writer is not None:
        writer.flush()
    return rundir.read(named, wall())
