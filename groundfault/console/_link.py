"""The link of a recorder to a hub: there while the recorder records, if the environment names a hub."""

import os
from collections.abc import Callable
from typing import Final

from groundfault.console.pushing import Pusher, push
from groundfault.errors import SettingsError

__all__ = ["HUB", "Link"]

HUB: Final = "GROUNDFAULT_HUB"
"""The environment variable that names the hub."""


class Link:
    """``report`` returns what is pushed. Nothing here raises: a hub that is named wrongly is said to be so."""

    def __init__(self, report: Callable[[], bytes]) -> None:
        self._report = report
        self._pusher: Pusher | None = None
        self._why: str | None = None  # there is no pusher, though there should be

    def want(self) -> None:
        """Push from now on, whenever :meth:`stand` says that it is this process's turn."""
        if self._pusher is None and os.environ.get(HUB):
            try:
                self._pusher = push(report=self._report)
            except SettingsError as error:
                self._why = f"nothing is pushed to a hub: {error}"

    def stand(self, *, up: bool) -> None:
        """Begin to push, or leave it to another process. Said again it changes nothing."""
        if self._pusher is not None:
            (self._pusher.start if up else self._pusher.stop)()

    def troubles(self, now: float) -> list[str]:
        """Return what is wrong, in words. ``now``: seconds since the epoch."""
        trouble = self._why if self._pusher is None else self._pusher.status().trouble(now)
        return [] if trouble is None else [trouble]
