"""The directory that the processes of a service share: whose it may be, its locks, and how files come into it.

The locks are POSIX record locks, for they belong to a process: no child inherits them, and the kernel takes them away
when their process ends, however it ends. So they say who lives, across reused pids, zombies and containers that share
the directory. They have one trap: a process that closes a file, opened for whatever purpose, loses its locks on it.
So it never opens what it has locked itself.
"""

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import sleep
from typing import Final

from groundfault._clock import monotonic
from groundfault._family import Family
from groundfault.errors import GroundFaultError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]  # the module itself is not there

__all__ = ["MAX_BYTES", "Place", "RunDirError", "place_of", "read_file", "replace_file", "write_locked"]

MAX_BYTES: Final = 16 * 2**20
"""A larger file is no report: a thousand commands with all outcomes take four megabytes."""

_LOCK: Final = "lock"
_TURN_S: Final = 0.005  # between two tries to get a lock


class RunDirError(GroundFaultError):
    """A run directory cannot be used. The message names it and says why."""


class Place:
    """One run directory, which need not be there yet. One object for each, from :func:`place_of`."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.path = Path(directory)
        self._renew()
        _places.add(self)

    def _renew(self) -> None:
        # Record locks do not stand between the threads of one process, and whoever closes the lock file lets go of
        # them all. So this one is held, in front of it, as long as the file is open.
        self._threads = threading.Lock()

    def ensure(self) -> None:
        """Make the directory, for its owner alone, if it is not there; raise RunDirError if it is not fit to write."""
        if fcntl is None:
            raise RunDirError("a run directory needs a POSIX system: its files are locked")
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.path.stat()
        except OSError as error:
            raise RunDirError(f"the run directory {self.path} cannot be made: {error.strerror}") from error
        if found.st_uid != os.geteuid():
            raise RunDirError(
                f"the run directory {self.path} belongs to uid {found.st_uid}, not to {os.geteuid()}; "
                "name one inside a directory that this process may write"
            )
        self._check(found)

    def check(self) -> None:
        """Raise RunDirError if the directory is not there, or if it is not to be believed."""
        try:
            found = self.path.stat()
        except OSError as error:
            raise RunDirError(f"the run directory {self.path} cannot be read: {error.strerror}") from error
        if os.geteuid() not in {found.st_uid, 0}:
            raise RunDirError(f"the run directory {self.path} belongs to uid {found.st_uid}, not to {os.geteuid()}")
        self._check(found)

    def _check(self, found: os.stat_result) -> None:
        if not stat.S_ISDIR(found.st_mode):
            raise RunDirError(f"the run directory {self.path} is no directory")
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            raise RunDirError(f"the run directory {self.path} can be written by everybody: chmod 700 {self.path}")

    @property
    def is_mine(self) -> bool:
        """Whether this process's user owns it. Another, such as root, reads only: it would leave files of its own."""
        return self.path.stat().st_uid == os.geteuid()

    @contextmanager
    def locked(self, *, shared: bool, timeout_s: float) -> Iterator[None]:
        """Hold the directory's lock, shared by readers. Raises RunDirError if it is not to be had in time."""
        until = monotonic() + timeout_s
        if not self._threads.acquire(timeout=max(0.0, timeout_s)):
            raise RunDirError(f"the run directory {self.path} is busy")
        try:
            while (descriptor := self._open_lock(shared=shared)) is not None:
                if _lock(descriptor, shared=shared):
                    if _is_still(descriptor, self.path / _LOCK):
                        break
                elif monotonic() >= until:
                    os.close(descriptor)
                    raise RunDirError(f"the run directory {self.path} is busy")
                else:
                    sleep(_TURN_S)
                os.close(descriptor)
            try:
                yield
            finally:
                if descriptor is not None:
                    os.close(descriptor)
        finally:
            self._threads.release()

    def _open_lock(self, *, shared: bool) -> int | None:
        """Open the file to be locked; None if a reader finds none that it may open: then nobody folds here."""
        if shared:
            with suppress(OSError):
                return os.open(self.path / _LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            if not self.is_mine:
                return None
        return os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


_places: Final[Family[Place]] = Family(Place._renew)  # noqa: SLF001  the child's end of the fork, for this class alone
_known: Final[dict[str, Place]] = {}


def place_of(directory: str | os.PathLike[str]) -> Place:
    """Return the one object for that directory: what its lock guards is guarded between threads, too."""
    path = str(Path(directory).absolute())
    return _known.get(path) or _known.setdefault(path, Place(path))


def _lock(descriptor: int, *, shared: bool) -> bool:
    try:
        fcntl.lockf(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX allows both for a lock that somebody else has
        return False
    return True


def _is_still(descriptor: int, path: Path) -> bool:
    """Whether that file is still the one of this name."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    return False


def read_file(path: Path, owner: int, *, probe: bool) -> tuple[bytes, bool]:
    """Return what is in a file, and with ``probe`` whether the process that wrote it lives.

    Raises OSError, or ValueError with a reason if it is not a plain file of that owner and of a sensible size.
    """
    while True:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise ValueError("it is no plain file")
            if found.st_uid != owner:
                raise ValueError(f"it belongs to uid {found.st_uid}")
            if found.st_size > MAX_BYTES:
                raise ValueError(f"it is larger than {MAX_BYTES} bytes")
            lives = probe and not _lock(descriptor, shared=True)
            if probe and not lives and not _is_still(descriptor, path):
                continue  # a newer one took its place just now, so its process let go of this one
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(MAX_BYTES + 1), lives
        finally:
            os.close(descriptor)


def write_locked(path: Path, data: bytes) -> int:
    """Put a file of this content in the place of what is there, at once; return its descriptor, which holds its lock.

    Raises OSError; then what is there stays.
    """
    return _replace(path, data, lock=True)


def replace_file(path: Path, data: bytes) -> None:
    """Put a file of this content in the place of what is there, at once. Raises OSError; then what is there stays."""
    os.close(_replace(path, data, lock=False))


def _replace(path: Path, data: bytes, *, lock: bool) -> int:
    made = path.with_name(f".{path.name}.tmp")
    with suppress(FileNotFoundError):
        made.unlink()
    descriptor = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if lock:  # before anybody else can see it under its name
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        made.replace(path)
    except BaseException:
        os.close(descriptor)
        with suppress(OSError):
            made.unlink()
        raise
    return descriptor
