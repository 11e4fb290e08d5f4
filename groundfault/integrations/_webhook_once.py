"""Which of the processes of a host says a thing: the one that comes first, for all others to keep quiet."""

import fcntl
import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from time import sleep
from typing import Any, Final

__all__ = ["HostLedger"]

_TRIES: Final = 20
_PAUSE_S: Final = 0.02
_MOST_BYTES: Final = 1 << 20
_KEPT_S: Final = 3600.0


class HostLedger:
    """What the processes of a host have said lately, in one small file that they lock in turn.

    Where the file cannot be used everybody speaks: rather twice than not at all.
    """

    def __init__(self, directory: Path, url: str) -> None:
        digest = hashlib.sha256(url.encode()).hexdigest()[:16]  # the address itself is a secret
        self._path = directory / f"webhook-{digest}.said"

    def claim(self, key: str, now: float, interval_s: float) -> bool:
        """Return whether nobody on this host has said ``key`` for ``interval_s``; then it is taken to be said now.

        ``now``: seconds since the epoch, which all processes share. Raises OSError.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _lock(descriptor)
            said = _read(descriptor)
            before = said.get(key)
            if isinstance(before, int | float) and 0.0 <= now - before < interval_s:
                return False  # a time that is yet to come is of a clock that was set back
            kept = {name: at for name, at in said.items() if isinstance(at, int | float) and 0 <= now - at < _KEPT_S}
            kept[key] = now
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(kept).encode(), 0)
            return True
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Take the lock, which closing lets go. Raises BlockingIOError after a moment: its owner may have been stopped."""
    for _ in range(_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        sleep(_PAUSE_S)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _read(descriptor: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(descriptor, _MOST_BYTES, 0) or b"{}")
    except ValueError:  # cut off, or somebody else's
        return {}
    return found if isinstance(found, dict) else {}
