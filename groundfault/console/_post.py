"""One run directory, as the console watches it: who records it, what was written, and what is remembered of it.

Of all processes that are asked to, one records; a lock says which. It is one of those that belong to an open file
(``flock``), for two recorders of one process must exclude each other, too; the child of a fork closes what it inherits.
"""

import gzip
import json
import os
import re
import zlib
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from math import inf
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, Self

from groundfault.console.view import FORMAT
from groundfault.metrics._place import MAX_BYTES, Place, read_file, replace_file
from groundfault.metrics.report import Report
from groundfault.metrics.rundir import RunDirError, read

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]  # the module itself is not there

__all__ = ["MEMORY", "OLD_S", "VIEW", "Found", "Making", "Observes", "Post", "packed"]

VIEW: Final = "console.json.gz"
MEMORY: Final = "console-memory.json.gz"
LOCK: Final = "console.lock"

OLD_S: Final = 5.0
"""A view that has stood for so long, and for twice its interval, is nobody's any more."""

_HEAD: Final = re.compile(rb'\{"format":(\d{1,9}),"sequence":(\d{1,15}),"interval_s":(\d{1,5}(?:\.\d{1,9})?),')
_REMEMBERED: Final = 1  # the format of what is remembered


class Observes(Protocol):
    """What makes something of the reports of one run directory."""

    def see(self, report: Report, now: float) -> None:
        """Take in the newest report. ``now``: seconds since the epoch."""

    def remembered(self) -> dict[str, Any]:
        """Return what another one needs to go on, as JSON can hold it."""


class Making(NamedTuple):
    """How observers and views are made."""

    anew: Callable[[], Observes]
    recalled: Callable[[dict[str, Any]], Observes]
    view: Callable[..., Any]

    @classmethod
    def usual(cls) -> Self:
        """Import what makes them: only now, on the recorder's thread, so that no service starts slower for it."""
        observer = import_module("groundfault.console.observing").Observer
        return cls(observer, observer.recalled, import_module("groundfault.console.views").view_of)


class Found(NamedTuple):
    """A view that somebody has written, compressed. ``interval_s``: how often they do."""

    data: bytes
    sequence: int
    interval_s: float


def packed(value: Any) -> bytes:
    """Return it as compressed JSON. Raises ValueError for what JSON cannot hold."""
    return gzip.compress(json.dumps(value, separators=(",", ":"), allow_nan=False).encode(), 1, mtime=0)


class Post:
    """Not thread-safe but for :meth:`newest_report`: the recorder's thread alone is here."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.observer: Observes | None = None
        self.trouble: str | None = None
        self.sequence = 0
        self._held: int | None = None
        self._last: tuple[Report, float] | None = None
        self._mark: tuple[int, int, int] | None = None
        self._found: Found | None = None
        self._since = -inf

    def inherit(self) -> None:
        """Begin anew in the child of a fork: the lock stays the parent's."""
        held = self._held
        if held is not None:
            with suppress(OSError):
                os.close(held)
        self._begin_anew()

    # --- who records --------------------------------------------------------------------------------------------------

    def elect(self) -> bool:
        """Whether this process records the directory; become the one that does, if there is none."""
        path = self.place.path / LOCK
        if self._held is not None:
            if _is_named(self._held, path):
                return True
            self.resign()  # the directory was taken away, or emptied
        try:
            if fcntl is None:
                return False
            if not self.place.is_mine:
                return False
            self._held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # somebody else is it, or nobody can be
            self._let_go()
            return False
        if not _is_named(self._held, path):
            self._let_go()
            return False
        return True

    def resign(self) -> None:
        """Record no more, so that another one can at once."""
        if self._held is not None:
            with suppress(OSError):  # said aloud, for a child that was forked just now may still hold the file
                fcntl.flock(self._held, fcntl.LOCK_UN)
        self._let_go()

    def _let_go(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            with suppress(OSError):
                os.close(held)

    @property
    def is_elected(self) -> bool:
        """Whether this process has the lock."""
        return self._held is not None

    # --- what the processes report ------------------------------------------------------------------------------------

    def see(self, making: Making, now: float) -> None:
        """Show the newest report to the observer. A directory that cannot be read is a ``trouble``, in words."""
        if self.observer is None:
            self.observer = self._recalled(making)
        try:
            report = read(self.place.path, now, timeout_s=0.5)
        except (OSError, RunDirError) as error:
            self.trouble = f"nothing new is known: {error}"
            return
        self.trouble = None
        self._last = report, now
        self.observer.see(report, now)

    def newest_report(self, now: float, patience_s: float) -> Report:
        """Return the newest report, not older than that. Any thread may ask. Raises RunDirError, OSError."""
        last = self._last
        if last is not None and 0 <= now - last[1] <= patience_s:
            return last[0]
        return read(self.place.path, now)

    @property
    def services(self) -> set[str]:
        """The names of the services of which this process has seen reports."""
        return set() if self._last is None else {each.service for each in self._last[0].processes if each.service}

    # --- what is written ----------------------------------------------------------------------------------------------

    def put(self, view: bytes) -> None:
        """Write the view for those that stand by. Raises OSError."""
        replace_file(self.place.path / VIEW, view)

    def keep(self) -> None:
        """Write what the observer remembers. Raises OSError; ValueError for what JSON cannot hold."""
        if self.observer is not None and self.is_elected:
            said = {"format": _REMEMBERED, "sequence": self.sequence, "observer": self.observer.remembered()}
            replace_file(self.place.path / MEMORY, packed(said))

    def _recalled(self, making: Making) -> Observes:
        before = self._read(VIEW)
        if before is not None:
            self.sequence = max(self.sequence, before.sequence)
        try:
            data, _ = read_file(self.place.path / MEMORY, self.place.path.stat().st_uid, probe=False)
            said = json.loads(_unpacked(data))
            if said["format"] == _REMEMBERED:
                self.sequence = max(self.sequence, int(said["sequence"]))
                return making.recalled(said["observer"])
        except Exception:  # noqa: BLE001, S110  damaged, or of another release: whatever it is, history begins anew
            pass
        return making.anew()

    def found(self, now: float, steady: float) -> Found | None:
        """Return the view that somebody else has written, None if it is old, damaged or not there.

        ``now``: seconds since the epoch; ``steady``: those of a clock that is never set.
        """
        try:
            self.place.check()
            seen = os.lstat(self.place.path / VIEW)
        except (OSError, RunDirError):
            return None
        mark = seen.st_ino, seen.st_mtime_ns, seen.st_size
        if mark != self._mark:
            # Of the first one nobody here has seen when it came; after that no clock that is set can make one old.
            known = self._mark is not None or abs(now - seen.st_mtime) <= OLD_S
            self._mark, self._found, self._since = mark, self._read(VIEW), steady if known else -inf
        found = self._found
        if found is None or steady - self._since > max(OLD_S, 2 * found.interval_s):
            return None
        return found

    def _read(self, name: str) -> Found | None:
        try:
            data, _ = read_file(self.place.path / name, self.place.path.stat().st_uid, probe=False)
            head = _HEAD.match(_unpacked(data))
        except (OSError, ValueError, zlib.error):
            return None
        if head is None or int(head[1]) != FORMAT:
            return None
        return Found(data, int(head[2]), float(head[3]))


def _unpacked(data: bytes) -> bytes:
    """Return what was compressed, whole. Raises ValueError or zlib.error if it is not, or larger than is sensible."""
    unpacking = zlib.decompressobj(31)  # as gzip does
    text = unpacking.decompress(data, MAX_BYTES)
    if not unpacking.eof or unpacking.unused_data:
        raise ValueError("it is not whole")
    return text


def _is_named(descriptor: int, path: Path) -> bool:
    """Whether that file is still the one of this name."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    return False
