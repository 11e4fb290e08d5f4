"""Who has sent what: the sum over the hosts of a service, which neither falls nor jumps, whatever hosts do.

A *source* is one run directory of one host, as it reports it. For each service there is a *base*, a report that is
added to what its sources say now:

* A source that is new, or is heard of again after it was gone, counts from there on: what it had counted by then is
  taken away from the base. Nobody knows in which second that happened.
* Where a counter has fallen, because a host has rebooted or a run directory is gone, what was lost is added to the
  base. If it comes back within a minute, for a file could not be read for a moment, that is undone.
* A source that has been gone for an hour is forgotten; its totals go into the base.

Pure: the time is an argument. Ages of hosts are by the hub's own monotonic clock. The times at which processes have
written are moved from the host's clock to the hub's, by a difference that stays until it is off by more than a second:
so they advance as steadily as the host's clock does, whatever the network does.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from groundfault.console.hub.accepting import Arrival, Names, clean
from groundfault.console.hub.totals import add_totals, difference, has_fallen, is_within
from groundfault.console.view import Episode
from groundfault.metrics.report import ProcessInfo, Report, merged

__all__ = ["GONE_S", "KEPT_S", "LATE_S", "FullError", "Moment", "Service", "Source", "Sources"]

LATE_S: Final = 5.0
GONE_S: Final = 60.0
KEPT_S: Final = 3600.0

MAX_HOSTS: Final = 500
MAX_SERVICES: Final = 200
MAX_COMMANDS: Final = 2000
_MAX_EPISODES: Final = 200
_MAX_NUMBERS: Final = 4 * MAX_HOSTS
_RETURN_S: Final = 60.0
_STEADY_S: Final = 1.0
_BACK_S: Final = 2.0
_OVERTAKEN_S: Final = 2.0
_BURST: Final = 3.0
_RATE_PER_S: Final = 2.0
_FALLS: Final = 6  # in a minute: then it is not one host that begins anew
_PID_BITS: Final = 22  # Linux numbers no process higher
_PIDS: Final = (1 << _PID_BITS) - 1


class Moment(NamedTuple):
    """Now, by both clocks of the hub: ``at`` only ever grows; ``wall`` is what people read."""

    at: float
    wall: float


class FullError(Exception):
    """This is not taken: it comes too often, or there are too many already. ``status`` is HTTP's for it."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(slots=True)
class Source:
    """One run directory of one host. ``heard_at``: when it last said something new, by the hub's monotonic clock.

    ``unknown``: what the host says that it does not know itself.
    """

    host: str
    service: str
    directory: str
    number: int
    report: Report
    heard_at: float
    sent_at: float | None
    release: str | None
    via: str
    unknown: tuple[str, ...] = ()
    processes: list[ProcessInfo] = field(default_factory=list)
    offset_s: float | None = None
    gone: Episode | None = None
    tokens: float = _BURST
    filled_at: float = 0.0
    lost: Report | None = None
    lost_at: float = 0.0
    falls: deque[float] = field(default_factory=lambda: deque(maxlen=_FALLS))
    skews: deque[float] = field(default_factory=lambda: deque(maxlen=10))

    @property
    def skew_s(self) -> float | None:
        """By how much its clock is ahead. What is sent takes time, so the largest of the last differences is best."""
        return max(self.skews, default=None)

    def state(self, at: float) -> str:
        """Return ``live``, ``late`` or ``gone``."""
        age_s = at - self.heard_at
        return "gone" if age_s > GONE_S else "late" if age_s > LATE_S else "live"

    def is_two(self, at: float) -> bool:
        """Return whether its counters go back and forth, as those of two hosts of one name do."""
        return len(self.falls) == _FALLS and at - self.falls[0] < _RETURN_S

    def place(self, wall: float) -> None:
        """Put its processes on the hub's clock, under numbers that no other host's have. ``wall``: when they came."""
        said = self.report.processes
        sent_at = self.sent_at
        if sent_at is None:
            sent_at = max((each.written_at for each in said), default=wall)
        if self.offset_s is None or abs(sent_at - wall - self.offset_s) > _STEADY_S:
            self.offset_s = sent_at - wall
        before = {each.pid: each.written_at for each in self.processes}
        self.processes = []
        for each in said:
            pid = (self.number << _PID_BITS) | (each.pid & _PIDS)
            written_at = each.written_at - self.offset_s
            then = before.get(pid, written_at)
            if then - _BACK_S <= written_at < then:  # the difference was measured anew, and nothing was written
                written_at = then
            settings = tuple(
                (clean(store), version and clean(version), age_s) for store, version, age_s in each.settings
            )
            service = clean(each.service) if each.service else self.service
            self.processes.append(ProcessInfo(pid, service, written_at, settings))


@dataclass(slots=True)
class Service:
    """The sources of one service, by host and directory, and what has to be added to them."""

    name: str
    base: Report = field(default_factory=Report)
    sources: dict[tuple[str, str], Source] = field(default_factory=dict)
    names: Names = field(default_factory=lambda: Names(MAX_COMMANDS))
    is_folded: bool = False

    def merged(self) -> Report:
        """Return the report of all its hosts."""
        report = merged([self.base, *(source.report for source in self.sources.values())])
        report.processes = [each for source in self.sources.values() for each in source.processes]
        return report


class Sources:
    """All of them. Not thread-safe: one thread at a time."""

    def __init__(self) -> None:
        self.services: dict[str, Service] = {}
        self.episodes: dict[str, Episode] = {}
        self._numbers: dict[str, int] = {}  # the newest of each host
        self._hosts: dict[int, str] = {}  # by every number that may still be told of
        self._next_number = 1

    def all(self) -> Iterator[Source]:
        """Yield every source."""
        for service in self.services.values():
            yield from service.sources.values()

    def who(self, number: int) -> tuple[str | None, int]:
        """Return the host, and the process id there, of a process in a merged report."""
        host = number >> _PID_BITS
        return self._hosts.get(host), number & _PIDS

    def permit(self, arrival: Arrival, at: float) -> None:
        """Raise FullError for a source that sends more often than it may: three at once, two a second in the long run.

        To be asked before the report is looked at any closer.
        """
        source = self._source(arrival)
        if source is None:
            return
        source.tokens = min(_BURST, source.tokens + (at - source.filled_at) * _RATE_PER_S)
        source.filled_at = at
        if source.tokens < 1.0:
            raise FullError(429, f"{arrival.host} sends more than {_RATE_PER_S:g} reports a second")
        source.tokens -= 1.0

    def take(self, arrival: Arrival, now: Moment, via: str) -> None:
        """Take in a report. ``via``: the address that it came from. Raises FullError."""
        source = self._source(arrival)
        if source is None:
            self._begin(arrival, now, via)
            return
        if self._is_old(source, arrival, now.at):
            return
        service = self.services[source.service]
        service.is_folded |= service.names.fold(arrival.report)
        if source.gone is not None:
            source.gone["ended_at"], source.gone, source.lost = now.wall, None, None
            self._rebase(service, source, arrival.report)
            # Under another number, for its processes are as new to whoever has seen them end.
            source.number = self._number(source.host, is_new=True)
        elif has_fallen(arrival.report, source.report):
            source.falls.append(now.at)
            self._rebase(service, source, arrival.report)
            lost = difference(source.report, arrival.report)
            if source.lost is not None and now.at - source.lost_at < _RETURN_S:
                add_totals(lost, source.lost)
            source.lost, source.lost_at = lost, now.at
        elif source.lost is not None:
            if now.at - source.lost_at >= _RETURN_S:
                source.lost = None
            elif is_within(source.lost, arrival.report, source.report):
                add_totals(service.base, source.lost, -1)
                source.lost = None
        source.report, source.heard_at, source.sent_at = arrival.report, now.at, arrival.sent_at
        source.release, source.via, source.unknown = arrival.release, via, arrival.unknown
        source.place(now.wall)
        self._note_skew(source, now)

    @staticmethod
    def _is_old(source: Source, arrival: Arrival, at: float) -> bool:
        """Return whether this is nothing new: a console whose recorder stands still, or a report that was overtaken."""
        if arrival.sent_at is None or source.sent_at is None:
            return False
        behind_s = source.sent_at - arrival.sent_at  # by one clock, which may have been set back
        return behind_s == 0 or (0 < behind_s <= _OVERTAKEN_S and at - source.heard_at <= _OVERTAKEN_S)

    @staticmethod
    def _rebase(service: Service, source: Source, report: Report) -> None:
        add_totals(service.base, source.report)
        add_totals(service.base, report, -1)

    @staticmethod
    def _note_skew(source: Source, now: Moment) -> None:
        if source.sent_at is not None:
            source.skews.append(source.sent_at - now.wall)

    def _source(self, arrival: Arrival) -> Source | None:
        service = self.services.get(arrival.service)
        return None if service is None else service.sources.get((arrival.host, arrival.directory))

    def _begin(self, arrival: Arrival, now: Moment, via: str) -> None:
        if sum(1 for _ in self.all()) >= MAX_HOSTS:
            gone = min((each for each in self.all() if each.gone), key=lambda each: each.heard_at, default=None)
            if gone is None:
                raise FullError(503, f"this hub watches {MAX_HOSTS} hosts already")
            self._forget(gone)
        service = self.services.get(arrival.service)
        if service is None:
            if len(self.services) >= MAX_SERVICES:
                raise FullError(503, f"this hub watches {MAX_SERVICES} services already")
            service = self.services[arrival.service] = Service(arrival.service)
        service.is_folded |= service.names.fold(arrival.report)
        add_totals(service.base, arrival.report, -1)
        number = self._number(arrival.host, is_new=arrival.host not in self._numbers)
        source = Source(
            *(arrival.host, arrival.service, arrival.directory, number, arrival.report),
            *(now.at, arrival.sent_at, arrival.release, via, arrival.unknown),
            tokens=_BURST - 1.0,
            filled_at=now.at,
        )
        source.place(now.wall)
        self._note_skew(source, now)
        service.sources[arrival.host, arrival.directory] = source

    def _number(self, host: str, *, is_new: bool) -> int:
        if is_new:
            self._numbers[host] = self._next_number
            self._hosts[self._next_number] = host
            self._next_number += 1
            if len(self._hosts) > _MAX_NUMBERS:
                used = {source.number for source in self.all()}
                for number in list(self._hosts)[: -_MAX_NUMBERS // 2]:
                    if number not in used:
                        del self._hosts[number]
        return self._numbers[host]

    # --- time passes --------------------------------------------------------------------------------------------------

    def pass_time(self, now: Moment) -> None:
        """Bury those that are gone, forget those that have been for long."""
        for source in list(self.all()):
            age_s = now.at - source.heard_at
            if age_s > KEPT_S:
                self._forget(source)
            elif age_s > GONE_S and source.gone is None:
                source.report.bury()
                source.processes = []
                source.gone = self._episode(source, now)

    def _forget(self, source: Source) -> None:
        service = self.services[source.service]
        source.report.bury()
        add_totals(service.base, source.report)
        del service.sources[source.host, source.directory]
        if source.gone is not None and source.gone["ended_at"] is None:
            source.gone["what"] = "gone, and forgotten after an hour"
        if not service.sources:
            del self.services[service.name]
        if all(each.host != source.host for each in self.all()):
            del self._numbers[source.host]

    def _episode(self, source: Source, now: Moment) -> Episode:
        began_at = now.wall - (now.at - source.heard_at)
        episode: Episode = {
            "id": f"host|{source.service}|{source.host}|{source.directory}|{began_at:.0f}",
            "kind": "host",
            "level": "warn",
            "service": source.service,
            "subject": source.host,
            "what": "nothing is heard of it; its totals stay",
            "began_at": round(began_at, 3),
            "ended_at": None,
            "numbers": {},
        }
        self.episodes[episode["id"]] = episode
        for name in list(self.episodes)[:-_MAX_EPISODES]:
            del self.episodes[name]
        return episode


def spoken(seconds: float) -> str:
    """Return so long in words."""
    return f"{seconds:.0f} s" if seconds < 2 * 60 else f"{seconds / 60:.0f} min"


def newest(sources: Iterable[Source]) -> Source:
    """Return the one that was heard of last."""
    return max(sources, key=lambda each: each.heard_at)
