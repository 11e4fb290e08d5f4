"""Alerts in a chat, or wherever JSON can be posted to: what an operator should know, and nothing twice.

::

    groundfault.default_sinks().add(groundfault.integrations.webhook.Webhook(os.environ["SLACK_WEBHOOK"]))

    Warn: command concurrency high - contest-db/entrants, 4 of 5 in flight (topps, pid 123 on web-7)

Posted are warnings, and the recovery of what was warned of. What comes too often is held back: if it still holds when
its time has come it is posted then, with the number of times; if it is over by then it is not.

Everything happens on a thread of its own. The address is a secret: it is in no log, no error and no ``repr``.
"""

import json
import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request

from groundfault._clock import Clock, monotonic, wall
from groundfault._family import Family as Kin
from groundfault.events import Event, is_warning, name_of
from groundfault.integrations._trouble import Trouble
from groundfault.integrations._webhook_once import HostLedger
from groundfault.integrations._webhook_opener import opener_of
from groundfault.integrations._webhook_text import FAMILIES, Alert, alert_of, subject_of
from groundfault.sinks import Background

__all__ = ["Alert", "Webhook"]

Format = str | Callable[[Alert], "bytes | str | dict[str, Any]"]

_log: Final = logging.getLogger("groundfault")
_MINUTE_S: Final = 60.0
_LONGEST_PAUSE_S: Final = 10.0
_SERVER_ERRORS: Final = 500
_TOO_MANY: Final = 429


@dataclass(slots=True)
class _Told:
    """How far the readers are about one thing. ``warned``: the last they read was a warning.

    ``due``: the newest that they have not read, None if there is none. ``held_back``: how many they have not.
    """

    warned: bool = False
    due: Event | None = None
    held_back: int = 0


class _Due:
    """Stands in the queue: something may be due now."""


class Webhook:
    """A sink that posts warnings and their recoveries to ``url``, ``http`` or ``https``.

    ``format``: ``slack``, the default, which Mattermost and Discord's ``/slack`` understand too; ``json``, everything
    there is to know; or a callable that makes the body of an :class:`Alert`: bytes, text, or what is to be JSON.
    ``min_interval_s``: the same event of the same command, service or store comes at most so often, 60.0 s.
    ``max_per_minute``: all together at most so many, 20.
    ``timeout_s``: how long to wait for the other side, 5.0 s at each step, of which the whole answer is one.
    What fails for reasons that may pass is tried once more; then it is counted in ``lost``, and the log says so
    once a minute.
    ``service``: what this one is called; default None, ``GROUNDFAULT_SERVICE``.
    ``runbooks``: what the event's dotted name is appended to for a link, such as ``https://wiki/groundfault#``; None.
    ``once_per_host``: of the processes of a host only the first says a thing; default None: where
    ``GROUNDFAULT_RUN_DIR`` names a directory for them to agree in. The readers then learn of the first trip and of the
    first recovery, not of each.
    ``proxies``: use those that the environment names; default True.

    Redirects are not followed. Raises ValueError for what cannot be.
    """

    prompt: Final = True  # it queues by itself
    changes_only: Final = True

    def __init__(
        self,
        url: str,
        *,
        format: Format = "slack",  # noqa: A002  the word that a user looks for
        min_interval_s: float = 60.0,
        max_per_minute: int = 20,
        timeout_s: float = 5.0,
        service: str | None = None,
        runbooks: str | None = None,
        once_per_host: bool | None = None,
        proxies: bool = True,
        clock: Clock = monotonic,
        wall_clock: Clock = wall,
        pause: Callable[[float], None] = sleep,
    ) -> None:
        self._host = _valid_host(url)
        if not (callable(format) or format in _FORMATS):
            raise ValueError(f"format must be slack, json or callable, not {format!r}")
        for name, value in (("min_interval_s", min_interval_s), ("max_per_minute", max_per_minute)):
            if not value > 0:
                raise ValueError(f"{name} must be above 0, not {value}")
        if not 0 < timeout_s <= _MINUTE_S:
            raise ValueError(f"timeout_s must be above 0 and at most 60, not {timeout_s}")
        directory = os.environ.get("GROUNDFAULT_RUN_DIR")
        if once_per_host and not directory:
            raise ValueError("once_per_host needs a directory in GROUNDFAULT_RUN_DIR")
        self._url = url
        self._body = format if callable(format) else _FORMATS[format]
        self._min_interval_s = min_interval_s
        self._max_per_minute = max_per_minute
        self._timeout_s = timeout_s
        self._service = service or os.environ.get("GROUNDFAULT_SERVICE")
        self._runbooks = runbooks
        self._ledger = HostLedger(Path(directory), url) if directory and once_per_host is not False else None
        self._opener = opener_of(proxies=proxies)
        self._clock = clock
        self._wall_clock = wall_clock
        self._pause = pause
        self._trouble = Trouble(f"webhook to {self._host}", clock)
        self._queue: Background[Event | _Due] = Background(self._handle)
        self._begin_anew()
        _webhooks.add(self)

    def __repr__(self) -> str:
        return f"<Webhook to {self._host}>"

    @property
    def lost(self) -> int:
        """How many alerts could not be posted."""
        return self._trouble.lost

    def _begin_anew(self) -> None:
        """Know of nothing: what a parent has warned of is the parent's to take back. No lock: one thread uses these."""
        self._told: dict[tuple[str, str], _Told] = {}
        self._said_at: dict[tuple[str, str], float] = {}
        self._lately: deque[float] = deque()
        self._timer: threading.Timer | None = None

    def _after_fork(self) -> None:
        self._trouble.renew()
        self._begin_anew()

    def __call__(self, event: Event) -> None:
        """Queue what is news for a chat."""
        if name_of(event) in FAMILIES:
            self._queue(event)

    # Everything below runs on the queue's thread.

    def _handle(self, item: Event | _Due) -> None:
        if not isinstance(item, _Due):
            self._take(item)
        self._post_due()

    def _take(self, event: Event) -> None:
        family, subject = FAMILIES[name_of(event)], subject_of(event)
        told = self._told.setdefault((family.name, subject), _Told())
        if told.due is not None:
            told.held_back += 1
        # The recovery of what nobody has read of is no news: it only takes back what was to be said.
        told.due = event if told.warned or not family.recovers else None

    def _post_due(self) -> None:
        """Post what may be posted now, in the order in which it was first noticed, and come back for the rest."""
        wait_s = None
        for (family, subject), told in list(self._told.items()):
            event = told.due
            if event is None:
                continue
            left_s = self._left_s(event, subject)
            if left_s > 0:
                wait_s = left_s if wait_s is None else min(wait_s, left_s)
                continue
            told.due, told.warned = None, is_warning(event) and family not in _WITHOUT_END
            held_back, told.held_back = told.held_back, 0
            now = self._clock()
            self._said_at[name_of(event), subject] = now
            if self._is_first_here(event, subject):
                self._lately.append(now)
                self._post(event, held_back)
        if wait_s is not None:
            self._come_back(wait_s)

    def _left_s(self, event: Event, subject: str) -> float:
        """Return how long this has still to wait, by itself or for others; 0.0 or less: not any more."""
        now, lately = self._clock(), self._lately
        while lately and now - lately[0] >= _MINUTE_S:
            lately.popleft()
        crowd_s = lately[0] + _MINUTE_S - now if len(lately) >= self._max_per_minute else 0.0
        said_at = self._said_at.get((name_of(event), subject))
        return max(crowd_s, 0.0 if said_at is None else said_at + self._min_interval_s - now)

    def _come_back(self, wait_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(wait_s, self._queue, [_Due()])
        self._timer.daemon = True
        try:
            self._timer.start()
        except RuntimeError:  # no thread to be had: the next event brings it up
            self._timer = None

    def _is_first_here(self, event: Event, subject: str) -> bool:
        if self._ledger is None:
            return True
        try:
            key = f"{self._service or ''} {name_of(event)} {subject}"
            return self._ledger.claim(key, self._wall_clock(), self._min_interval_s)
        except OSError as error:
            _log.debug("webhook: cannot agree with the other processes: %s", type(error).__name__)
            return True

    def _post(self, event: Event, held_back: int) -> None:
        try:
            alert = alert_of(
                event,
                at=self._wall_clock(),
                service=self._service,
                host=socket.gethostname(),
                pid=os.getpid(),
                held_back=held_back,
                runbooks=self._runbooks,
            )
            body = self._body(alert)
            data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
        except Exception as error:  # noqa: BLE001  a format is anybody's code
            self._trouble.note(f"the alert could not be written: {type(error).__name__}")
            return
        why, again_s = self._send(data)
        if again_s is not None:
            self._pause(again_s)
            why, _ = self._send(data)
        if why:
            self._trouble.note(why)

    def _send(self, data: bytes) -> tuple[str, float | None]:
        """Post; return why that failed, or "", and after how many seconds to try again, or None."""
        request = Request(self._url, data, {"Content-Type": "application/json", "User-Agent": "groundfault"})  # noqa: S310  its scheme was looked at
        try:
            # Closed unread: what it has to say is of no use, and may have no end.
            with self._opener.open(request, timeout=self._timeout_s):
                return "", None
        except HTTPError as error:
            with error:
                passes = error.code >= _SERVER_ERRORS or error.code == _TOO_MANY
                after = error.headers.get("Retry-After") or "1"
                after_s = min(float(after), _LONGEST_PAUSE_S) if after.isascii() and after.isdigit() else 1.0
                return f"answered {error.code}", after_s if passes else None
        except URLError as error:
            return f"cannot be reached: {type(error.reason).__name__}", 1.0
        except Exception as error:  # noqa: BLE001  said without its text, which may hold the address
            return f"cannot be reached: {type(error).__name__}", 1.0


_WITHOUT_END: Final = frozenset({"failing", "backlog"})
_webhooks: Final[Kin[Webhook]] = Kin(Webhook._after_fork)  # noqa: SLF001  the child's end of the fork, for this class alone


def _valid_host(url: str) -> str:
    """Return the host of an address that can be posted to. Raises ValueError, which does not name the address."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except (ValueError, AttributeError) as error:
        raise ValueError("url must be an address; it is a secret, so it is not shown") from error
    if parts.scheme not in {"http", "https"} or not host:
        raise ValueError("url must begin with https:// or http:// and name a host; it is a secret, so it is not shown")
    if parts.username is not None or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("url must hold neither a user's name nor signs beyond ASCII; it is a secret, and not shown")
    return host


def _slack(alert: Alert) -> dict[str, Any]:
    lines = [alert.text]
    if alert.held_back:
        lines.append(f"{alert.held_back} more like it were held back before")
    if alert.traceparent:
        lines.append(f"trace {alert.traceparent.split('-')[1] if '-' in alert.traceparent else alert.traceparent}")
    if alert.runbook:
        lines.append(alert.runbook)
    text = "\n".join(lines).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {"text": text}


_FORMATS: Final[dict[str, Callable[[Alert], "bytes | str | dict[str, Any]"]]] = {"slack": _slack, "json": Alert.as_dict}
