"""A service with a cache in front of saber. Full, it asks saber for little; cleared, for everything at once.

One key in ``live`` is never kept, so that saber is always asked for something. Only an answer that came in time is
kept: a caller whose calls all time out never fills its cache again.
"""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundfault.lab.targets.faults import FaultsFile
from groundfault.lab.targets.part import Part
from groundfault.lab.targets.serving import NoSuchPageError, application, guarded, session_for

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["Cache", "create"]

CALLEE = "saber"


class Cache:
    """Answers by key, kept until all caches are cleared. It starts full, as after a quiet morning."""

    def __init__(self, keys: int, live: int) -> None:
        self._live = live
        self._lock = threading.Lock()  # guards both
        self._cleared = 0
        self._kept: dict[int, Any] = {key: "warm" for key in range(keys) if key % live}

    def get(self, key: int, cleared: int) -> Any:
        """Return what is kept, None if nothing is. ``cleared``: how many times the caches have been cleared by now."""
        with self._lock:
            if cleared != self._cleared:
                self._cleared = cleared
                self._kept.clear()
            return self._kept.get(key)

    def keep(self, key: int, answer: Any) -> None:
        """Keep an answer, unless its key is a live one."""
        if key % self._live:
            with self._lock:
                self._kept[key] = answer


def create() -> "WSGIApplication":
    """Build the application. gunicorn calls this in the worker."""
    part = Part.from_environment()
    part.report()
    keys = int(part.number("keys"))
    cache = Cache(keys, int(part.number("live")))
    faults = FaultsFile(Path(part.directory))
    session = session_for(part, CALLEE, timeout_s=part.number("timeout_s"))
    url = part.url(CALLEE)

    def answer(path: str) -> Any:
        match path.split("/")[1:]:
            case [part.service, number] if number.isdigit():
                key = int(number) % keys
            case _:
                raise NoSuchPageError
        kept = cache.get(key, faults.now().cleared)
        if kept is None:
            response = session.get(f"{url}/{part.service}/{key}")
            response.raise_for_status()
            kept = response.json()
            cache.keep(key, kept)
        return {part.service: kept}

    return guarded(application(part, answer), part)
