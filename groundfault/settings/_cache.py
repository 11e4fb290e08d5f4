"""The last good document on disk, for a process that starts while its store is away."""

import json
import logging
import os
import stat
from hashlib import blake2b
from pathlib import Path
from typing import Final, Literal

from groundfault._clock import Clock
from groundfault.settings.document import MAX_BYTES, as_mapping, parse
from groundfault.settings.store import Document

__all__ = ["Cache", "cache_of"]

_log = logging.getLogger("groundfault")

_MOST_BYTES: Final = 2 * MAX_BYTES  # the document, and what is written around it
_TOUCH_S: Final = 60.0


def cache_of(path: "str | os.PathLike[str] | Literal[False] | None", store: str, wall_clock: Clock) -> "Cache | None":
    """Return the cache at a path; None: in the directory that ``GROUNDFAULT_RUN_DIR`` names, if it does."""
    if path is False:
        return None
    if path is None:
        directory = os.environ.get("GROUNDFAULT_RUN_DIR")
        if not directory:
            return None
        path = Path(directory) / f"settings-{blake2b(store.encode(), digest_size=6).hexdigest()}.json"
    return Cache(Path(path), store, wall_clock)


class _UnfitError(Exception):
    """Why a file is not to be used."""


class Cache:
    """One file, replaced as a whole. Its time of change is when the document was last known to be the store's.

    Whatever is wrong with it is logged, and then there is no cached copy.
    """

    def __init__(self, path: Path, store: str, wall_clock: Clock) -> None:
        self.path = path
        self._store = store
        self._wall_clock = wall_clock
        self._touched_at = 0.0
        self._complained = False

    def read(self) -> tuple[Document, float] | None:
        """Return the document, not validated, and how old it is in seconds; None if there is none to be used."""
        try:
            return self._read()
        except FileNotFoundError:
            return None
        except OSError as error:
            why = error.strerror or str(error)
        except _UnfitError as error:
            why = str(error)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            why = f"it is damaged: {type(error).__name__}: {str(error)[:200]}"
        _log.warning("the copy of live settings in %s is ignored: %s", self.path, why)
        return None

    def _read(self) -> tuple[Document, float]:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            seen = os.fstat(descriptor)
            if not stat.S_ISREG(seen.st_mode):
                raise _UnfitError("it is no file")
            if seen.st_uid not in {0, os.geteuid()} or seen.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise _UnfitError("somebody else may have written it")
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise _UnfitError(f"it is larger than {_MOST_BYTES} bytes")
        content = json.loads(data)
        if content["store"] != self._store:
            raise _UnfitError(f"it is of another store, {ascii(content['store'])[:100]}")
        document = parse(content["settings"], str(content["version"]))
        return document, max(0.0, self._wall_clock() - seen.st_mtime)

    def write(self, document: Document) -> None:
        """Keep a document."""
        content = {"store": self._store, "version": document.version, "settings": as_mapping(document)}
        new = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # we may come before the first report
            new.unlink(missing_ok=True)  # of a process that had this number before
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file)
            new.replace(self.path)
            self._touched_at = self._wall_clock()
            self._complained = False
        except OSError as error:
            if not self._complained:  # a full disk is told once
                self._complained = True
                _log.warning("live settings are not kept in %s: %s", self.path, error.strerror or error)

    def touch(self) -> None:
        """Note that the document is the store's still. Once a minute, for that is as exact as its age need be."""
        now = self._wall_clock()
        if abs(now - self._touched_at) >= _TOUCH_S:
            self._touched_at = now
            try:
                os.utime(self.path, (now, now))
            except OSError:  # it is gone, or another user's: the next change will show
                return
