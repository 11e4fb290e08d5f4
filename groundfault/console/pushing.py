"""A host tells a hub how it is: one report each second, on a thread of its own. The host's side of push.

::

    pusher = push("http://hub.internal:9733", report=recorder.report)
    pusher.start()

A hub that is down, slow, or refuses what it is sent costs the service this thread and nothing else. Reports are not
kept: what could not be sent is out of date a second later.
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from random import Random
from typing import Final

from groundfault._clock import Clock, monotonic, wall
from groundfault._family import Family
from groundfault.console.asking import JSON
from groundfault.errors import SettingsError
from groundfault.events import note_internal_error
from groundfault.integrations._hub_address import address_of, checked_token, context_for
from groundfault.integrations._hub_line import Line, LineError, refusal_in
from groundfault.integrations._trouble import Trouble

__all__ = ["PushStatus", "Pusher", "push"]

_TIMEOUT_S: Final = 2.0
_LONGEST_PAUSE_S: Final = 30.0
_MOST_DOUBLINGS: Final = 10
_LEAST_SHARE: Final = 0.1  # of the interval there is always between two reports
_JITTER: Final = 0.1
_MOST_ANSWER: Final = 64 * 1024
_SILENT_S: Final = 10.0
_LONGEST_EVERY_S: Final = 3600.0
_HEADERS: Final = {"Content-Type": JSON, "Content-Encoding": "gzip"}

_random: Final = Random()  # its own: a thread that draws from everybody's would change what a test draws


@dataclass(frozen=True, slots=True, kw_only=True)
class PushStatus:
    """How a host stands with its hub.

    ``url``: the hub's, without credentials. ``running``: whether it is pushed to at all.
    ``sent``, ``failed``: how many reports were taken by the hub, and were not, in the life of this process.
    ``last_error``: why the last one was not taken; None: it was, or there was none.
    ``last_sent_at``: when the last one was taken, in seconds since the epoch; None: never.
    """

    url: str
    running: bool
    sent: int
    failed: int
    last_error: str | None
    last_sent_at: float | None

    def trouble(self, now: float) -> str | None:
        """Return in words that the hub takes no reports, and why; None: it does. ``now``: seconds since the epoch."""
        if not self.running:
            return None
        age_s = None if self.last_sent_at is None else max(0.0, now - self.last_sent_at)
        if self.last_error is None and (age_s is None or age_s <= _SILENT_S):
            return None
        since = "yet" if age_s is None else f"for {age_s:.0f} s"
        why = "" if self.last_error is None else f": {self.last_error}"
        return f"the hub at {self.url} has not taken a report {since}{why}"


class Pusher:
    """Sends what ``report`` returns to a hub; made by :func:`push`.

    In the child of a fork it stands still until :meth:`start` is called there: of the processes of a host one pushes.
    """

    def __init__(
        self,
        hub_url: str,
        *,
        report: Callable[[], bytes],
        token: str | None = None,
        every_s: float = 1.0,
        clock: Clock = monotonic,
        wall_clock: Clock = wall,
        draw: Callable[[], float] = _random.random,
    ) -> None:
        if isinstance(every_s, bool) or not 0.1 <= every_s <= _LONGEST_EVERY_S:  # noqa: PLR2004  said in the message
            raise SettingsError(f"every_s must be a number between 0.1 and {_LONGEST_EVERY_S:g}, not {every_s!r}")
        address = address_of(hub_url)
        self._url = address.name
        self._report = report
        self._every_s = every_s
        self._clock = clock
        self._wall_clock = wall_clock
        self._draw = draw
        self._trouble = Trouble(f"push to {self._url}", clock)
        self._line = Line(address, token=checked_token(token), context=context_for(address), most=_MOST_ANSWER)
        self._sent = 0
        self._failures = 0  # without a success in between
        self._last_error: str | None = None
        self._last_sent_at: float | None = None
        self._begin_anew()
        _pushers.add(self)

    def __repr__(self) -> str:
        return f"<Pusher to {self._url}>"

    def _begin_anew(self) -> None:
        self._thread: threading.Thread | None = None
        self._stop: SimpleQueue[None] = SimpleQueue()
        self._lock = threading.Lock()  # guards the two above
        self._turn = threading.Lock()  # held by the thread that sends: one that was stopped may still be at it

    def renew(self) -> None:
        """Stand still in the child of a fork, and leave the connection to the parent."""
        self._begin_anew()
        self._line.begin_anew()
        self._trouble.renew()
        self._sent = self._failures = 0
        self._last_error = self._last_sent_at = None

    def start(self) -> None:
        """Begin, unless it runs already. Never raises an Exception: without a thread to be had, a later call tries."""
        try:
            with self._lock:
                if self._thread is None or not self._thread.is_alive():
                    stop: SimpleQueue[None] = SimpleQueue()
                    thread = threading.Thread(target=self._run, args=(stop,), name="groundfault-push", daemon=True)
                    thread.start()
                    self._thread, self._stop = thread, stop
        except Exception as error:  # noqa: BLE001  nothing of the service depends on the hub
            note_internal_error("push", error)

    def stop(self) -> None:
        """End as soon as the hub has answered, within two seconds; without waiting for it. Again: nothing happens."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._stop.put(None)

    def status(self) -> PushStatus:
        """Return how this host stands with its hub."""
        thread = self._thread
        return PushStatus(
            url=self._url,
            running=thread is not None and thread.is_alive(),
            sent=self._sent,
            failed=self._trouble.lost,
            last_error=self._last_error,
            last_sent_at=self._last_sent_at,
        )

    # Everything below runs on the thread.

    def _run(self, stop: "SimpleQueue[None]") -> None:
        with self._turn:
            pause_s = self._every_s * self._draw()  # hosts that were started together shall not all come at once
            while self._is_to_go_on(stop, pause_s):
                pause_s = self.push_once()
            self._line.close()

    def _is_to_go_on(self, stop: "SimpleQueue[None]", pause_s: float) -> bool:
        try:
            stop.get(timeout=pause_s)
        except Empty:
            return True
        return False

    def push_once(self) -> float:
        """Send one report now, on this thread; return how long to wait for the next. Never raises an Exception."""
        began = self._clock()
        try:
            why = self._pushed()
        except Exception as error:  # noqa: BLE001  the next second brings the next chance
            note_internal_error("push", error)
            why = f"the report could not be made: {type(error).__name__}"
        if why is None:
            self._sent += 1
            self._failures = 0
            self._last_sent_at, self._last_error = self._wall_clock(), None
            pause_s = self._every_s * (1 - _JITTER + 2 * _JITTER * self._draw()) - (self._clock() - began)
            return max(pause_s, self._every_s * _LEAST_SHARE)
        self._failures += 1
        self._last_error = why
        self._trouble.note(why)
        longest_s = max(_LONGEST_PAUSE_S, self._every_s)
        pause_s = min(self._every_s * 2.0 ** min(self._failures, _MOST_DOUBLINGS), longest_s)
        return pause_s / 2 + pause_s / 2 * self._draw()

    def _pushed(self) -> str | None:
        """Send a report; return why the hub has not taken it, None: it has."""
        body = self._report()
        try:
            told = self._line.ask("POST", "/push", within_s=_TIMEOUT_S, body=body, headers=_HEADERS)
        except LineError as error:
            return str(error)
        return None if told.status in _TAKEN else refusal_in(told)


_TAKEN: Final = range(200, 300)
_pushers: Final[Family[Pusher]] = Family(Pusher.renew)


def push(
    hub_url: str | None = None,
    *,
    report: Callable[[], bytes],
    token: str | None = None,
    every_s: float = 1.0,
) -> Pusher:
    """Return what pushes this host's reports to a hub; :meth:`Pusher.start` makes it begin.

    ``hub_url``: ``http://`` or ``https://``; None: what ``GROUNDFAULT_HUB`` holds. Over ``https``,
    ``GROUNDFAULT_HUB_CA`` may name a file with the only authorities to trust.
    ``report``: returns a report in JSON that was compressed with gzip; called on the thread, once for each sending.
    ``token``: the hub's; None: what ``GROUNDFAULT_HUB_TOKEN`` holds, if it is set.
    ``every_s``: between two reports, each up to a tenth shorter or longer, 1.0; after failures twice as long each time,
    up to 30 s. Each sending is given up after two seconds.
    Raises SettingsError where there is no hub's address, or for one that is none, and for a token that cannot be.
    """
    url = hub_url if hub_url is not None else os.environ.get("GROUNDFAULT_HUB")
    if not url:
        raise SettingsError("there is no hub to push to: give its address, or set GROUNDFAULT_HUB")
    return Pusher(url, report=report, token=token, every_s=every_s)
