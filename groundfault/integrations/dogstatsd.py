"""Metrics for a Datadog agent, over UDP or its unix socket.

::

    groundfault.integrations.dogstatsd.start()

Calls pay nothing: every ten seconds a thread of its own reads what commands and shedders have counted and sends what is
new since the last time, so the deltas of all processes of a host add up in the agent. A forked worker has a thread, and
deltas, of its own. Names and tags are those of docs/reference/metrics.md, with dots.

Counters are counts. Durations are distributions, one line for each bucket that is not empty, which stands for all
values in it: at most an eighth off each, with the right mean. Gauges are of one process; they carry the tag
``worker``, the least number that no other process of the service on this host has, so they are to be summed over it
(or for ratios and ages, the least or greatest taken), and there are never more series than workers at one time.
"""

import atexit
import errno
import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Self

from groundfault._clock import Clock, monotonic, wall
from groundfault._family import Family
from groundfault._histogram import BOUNDS_S, Histogram
from groundfault.events import Event, is_warning, name_of, note_internal_error
from groundfault.integrations._dogstatsd_wire import (
    Address,
    address_of,
    event_line,
    line,
    packed,
    tags_of,
    valid_prefix,
)
from groundfault.integrations._own_report import own_families
from groundfault.integrations._trouble import Trouble
from groundfault.metrics.collecting import collect
from groundfault.metrics.report import UNKNOWN, Report
from groundfault.sinks import said_of, shown

__all__ = ["DogStatsD", "start"]

_SEND_S: Final = 0.1
_FAREWELL_S: Final = 1.0
_LEAST_S: Final = 1.0
_MOST_S: Final = 3600.0
_MOST_WORKERS: Final = 1024
_TITLED: Final = frozenset({"resource", "command", "service", "store"})

Key = tuple[str, tuple[str, ...]]


class DogStatsD:
    """Sends what this process has counted. Begins with :meth:`start`.

    ``url``: ``udp://host:port`` or ``unix:///path``; default None: ``DD_DOGSTATSD_URL``, or ``DD_AGENT_HOST`` and
    ``DD_DOGSTATSD_PORT``, or port 8125 of this host.
    ``interval_s``: how often, 10.0 s, which is how often the agent itself sends; from 1 to 3600.
    ``tags``: more tags by name, beside ``env``, ``service`` and ``version`` of ``DD_ENV``, ``DD_SERVICE`` (or
    ``GROUNDFAULT_SERVICE``) and ``DD_VERSION``, and those of ``DD_TAGS``. A label of the same name goes before.
    ``prefix``: in front of each name, such as ``myteam.``; default "".
    ``durations``: ``d``, distributions, which the default is, or ``h``, the agent's histograms.
    ``worker_tag``: False leaves the tag of gauges out, where a process is the only one of its service on its host.
    ``source``: given the time in seconds since the epoch, returns what to send; default None, this process's report.
    Raises ValueError, also for what the environment says.

    While there is nobody to send to totals are kept back; where a packet is lost on the way, ``lost`` counts it,
    and the log says so once a minute. Sending never waits longer than a tenth of a second.

    It is a sink, too: added to the sinks, changes become events in Datadog's stream.
    """

    changes_only: Final = True

    def __init__(
        self,
        url: str | None = None,
        *,
        interval_s: float = 10.0,
        tags: Mapping[str, str] | None = None,
        prefix: str = "",
        durations: str = "d",
        worker_tag: bool = True,
        source: Callable[[float], Report] | None = None,
        clock: Clock = wall,
    ) -> None:
        if not _LEAST_S <= interval_s <= _MOST_S:
            raise ValueError(f"interval_s must be from 1 to 3600, not {interval_s}")
        if not valid_prefix(prefix):
            raise ValueError(
                f"prefix must be letters, digits, dots and underscores, the first a letter, not {prefix!r}"
            )
        if durations not in {"d", "h"}:
            raise ValueError(f"durations must be d or h, not {durations!r}")
        self._address: Address = address_of(url, os.environ)
        self._tags = tags_of(tags or {}, os.environ)
        self._prefix = prefix
        self._durations = durations
        self._wants_worker = worker_tag
        self._source = source or collect
        self._interval_s = interval_s
        self._clock = clock
        self._trouble = Trouble("dogstatsd", monotonic)
        self._wanted = False
        self._worker: tuple[socket.socket | None, str] | None = None
        self._begin_anew()
        _emitters.add(self)

    def __repr__(self) -> str:
        return f"<DogStatsD to {self._address.path or f'{self._address.host}:{self._address.port}'}>"

    @property
    def lost(self) -> int:
        """How many packets were lost on the way."""
        return self._trouble.lost

    def _begin_anew(self) -> None:
        """Begin with nothing sent: the counts of a forked child begin at zero, too."""
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._sending = threading.Lock()  # guards what follows; held while something is sent, by no call
        self._sent: dict[Key, float] = {}
        self._shown: dict[Key, Histogram] = {}

    def _after_fork(self) -> None:
        self._give_number_back()  # it stays the parent's, which holds it too
        self._trouble.renew()
        self._begin_anew()
        if self._wanted:
            self._run_again()

    def start(self) -> Self:
        """Begin to send; a second call changes nothing. Children of a fork send by themselves from then on."""
        self._wanted = True
        if self._thread is None:
            self._run_again()
        return self

    def _run_again(self) -> None:
        thread = threading.Thread(target=self._run, args=(self._stop,), name="groundfault-dogstatsd", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no thread to be had: this process sends nothing until it is started again
            note_internal_error("dogstatsd thread", error)
        else:
            self._thread = thread

    def stop(self, timeout_s: float = _FAREWELL_S) -> None:
        """Send the last, and end; waits for that for so long at most. At the end of a process this is done for it."""
        self._wanted = False
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(timeout_s)
        self._stop = threading.Event()
        self._give_number_back()

    def _give_number_back(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None and worker[0] is not None:
            worker[0].close()

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(self._interval_s):
            self.flush()
        self.flush()

    def take_over(self, other: Self) -> None:
        """Send what is new since ``other`` has sent, which has ended."""
        with self._sending:
            self._sent, self._shown = other._sent, other._shown

    def flush(self) -> None:
        """Send what is new now. Never raises an Exception."""
        try:
            with self._sending:
                self._flush()
        except Exception as error:  # noqa: BLE001  the next time may do better
            note_internal_error("dogstatsd", error)

    def _flush(self) -> None:
        sender = self._connect()
        if sender is None:
            return  # what was counted is kept back, for totals only grow
        with sender:
            now = self._clock()
            self._send(sender, self._lines(self._source(now), now))

    def _connect(self) -> socket.socket | None:
        """Return a socket, made anew each time: agents move, and nothing has to survive a fork."""
        try:
            return self._address.connect(_SEND_S)
        except (OSError, UnicodeError) as error:
            self._trouble.note(f"{self!r} cannot be reached: {type(error).__name__}", 0)
            return None

    def _send(self, sender: socket.socket, lines: list[bytes]) -> None:
        patient = True
        for packet, _ in packed(lines, self._address.packet_bytes):
            try:
                sender.send(packet)
            except TimeoutError:  # its buffer is full; waiting for it again and again would take all the time there is
                if patient:
                    sender.settimeout(0.0)
                patient = False
                self._trouble.note("its buffer is full")
            except ConnectionRefusedError as error:
                # Over UDP this is news of an earlier packet, which nobody has taken; this one has not been sent.
                self._trouble.note(f"cannot send: {type(error).__name__}")
                with suppress(OSError):
                    sender.send(packet)
            except OSError as error:
                self._trouble.note(f"cannot send: {type(error).__name__}")
        last = sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if last:  # of the last packet nobody would hear otherwise
            self._trouble.note(f"cannot send: {errno.errorcode.get(last, last)}")

    def _lines(self, report: Report, now: float) -> list[bytes]:
        lines: list[bytes] = []
        gauges = self._tags
        service = next((each.service for each in report.processes if each.service), UNKNOWN)
        if self._wants_worker:
            gauges = {**self._tags, "worker": self._number(service)}
        for metric, rows in own_families(report, now):
            name = self._prefix + metric.dotted
            for labels, value in rows:
                key, tags = (metric.name, labels), dict(zip(metric.labels, labels, strict=True))
                if isinstance(value, Histogram):
                    lines += self._durations_since(key, name, value, {**self._tags, **tags})
                elif metric.kind == "gauge":
                    lines.append(line(name, value, "g", {**gauges, **tags}))
                elif new := self._since(key, value):
                    lines.append(line(name, new, "c", {**self._tags, **tags}))
        return lines

    def _since(self, key: Key, value: float) -> float:
        """Return by how much a total has grown. It may shrink a little, when an admitted request is withdrawn."""
        known = self._sent.get(key, 0)
        if value < known / 2:  # whoever counted has been replaced
            known = 0
        if value <= known:
            return 0
        self._sent[key] = value
        return value - known

    def _durations_since(self, key: Key, name: str, now: Histogram, tags: Mapping[str, str]) -> list[bytes]:
        before = self._shown.get(key, Histogram())
        new = {bucket: times - before.buckets.get(bucket, 0) for bucket, times in now.buckets.items()}
        sum_s = now.sum_s - before.sum_s
        if sum_s < 0 or min(new.values(), default=0) < 0:  # as above
            new, sum_s = now.buckets, now.sum_s
        self._shown[key] = now.copy()
        told = {bucket: times for bucket, times in new.items() if times}
        return [
            line(name, value_s, self._durations, tags, times=told[bucket])
            for bucket, value_s in _values(told, sum_s).items()
        ]

    def _number(self, service: str) -> str:
        """Return the least number that no other process of the service has, or this one's pid where that is unknown.

        An abstract unix socket is the claim: the kernel takes it back when the process ends, however it does.
        """
        if self._worker is None:
            self._worker = _claim(service)
        return self._worker[1]

    def __call__(self, event: Event) -> None:
        """Send a change as an event. Waits for at most a tenth of a second; the sinks give it a thread."""
        said = said_of(event)
        subject = "/".join(str(value) for name, value in said.items() if name in _TITLED and value is not None)
        text = " ".join(f"{name}={shown(value)}" for name, value in said.items() if value is not None)
        tags = {**self._tags, **{name: str(said[name]) for name in _TITLED if said.get(name) is not None}}
        name = name_of(event)
        title, warning = f"{name} {subject}".rstrip(), is_warning(event)
        made = event_line(title, text, warning=warning, key=f"groundfault:{subject}", at=self._clock(), tags=tags)
        sender = self._connect()
        if sender is None:
            self._trouble.note("an event is lost")
            return
        with sender:
            self._send(sender, [made])


def _values(buckets: Mapping[int, int], sum_s: float) -> dict[int, float]:
    """Return the value that stands for each bucket: its middle, moved so that the mean is right, within its bounds."""
    middles = {}
    for bucket in buckets:
        low = BOUNDS_S[bucket - 1] if bucket else 0.0
        high = BOUNDS_S[bucket] if bucket < len(BOUNDS_S) else 2.0 * BOUNDS_S[-1]
        middles[bucket] = (low, (low + high) / 2.0, high)
    rough_s = sum(middles[bucket][1] * times for bucket, times in buckets.items())
    factor = sum_s / rough_s if rough_s else 1.0
    return {bucket: min(max(middle * factor, low), high) for bucket, (low, middle, high) in middles.items()}


def _claim(service: str) -> tuple[socket.socket | None, str]:
    with suppress(OSError, AttributeError):  # no abstract sockets here: another kernel than Linux
        held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        for number in range(_MOST_WORKERS):
            try:
                held.bind(f"\0groundfault-worker/{service[:64]}/{number}")
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    break
            else:
                return held, str(number)
        held.close()
    return None, str(os.getpid())


_emitters: Final[Family[DogStatsD]] = Family(DogStatsD._after_fork)  # noqa: SLF001  the child's end of the fork, for this class alone


@atexit.register
def _say_farewell() -> None:
    for each in _emitters.members():
        each.stop()


_started: DogStatsD | None = None


def start(url: str | None = None, **settings: Any) -> DogStatsD:
    """Send this process's metrics, and those of its children after a fork; return what sends them.

    The arguments are those of :class:`DogStatsD`. A second call ends the first one's and begins anew.
    """
    global _started  # noqa: PLW0603  one for each process: two would send everything twice
    made = DogStatsD(url, **settings)
    if _started is not None:
        _started.stop()
        made.take_over(_started)
    _started = made
    return made.start()
