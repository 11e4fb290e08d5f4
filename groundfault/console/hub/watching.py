"""What the hub knows and makes of it: reports come in, and once a second a view goes out.

All of it happens on one thread, the hub's *mill*, so nothing here is locked; what other threads read is an
:class:`Edition`, which nobody changes any more.
"""

import re
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any, Final, Protocol

from groundfault._clock import Clock, monotonic, wall
from groundfault.console.hub.accepting import Arrival, UnreadableError, accepted
from groundfault.console.hub.editions import Edition
from groundfault.console.hub.history import GRID_S, Point
from groundfault.console.hub.hosts import Troubles, rows_of
from groundfault.console.hub.seeing import Observer, Seeing
from groundfault.console.hub.sources import MAX_COMMANDS, FullError, Moment, Sources, spoken
from groundfault.console.view import CommandRow, Episode, View
from groundfault.events import note_internal_error

__all__ = ["Keeps", "Watch"]

MAX_TIMELINE: Final = 500
_PROCESS: Final = re.compile(r"\bprocess (\d{7,18})\b")  # as observers know it: by 2^22 and above
_SAID_S: Final = 60.0  # so long it is said that something went wrong with what was sent
_MAX_NOTES: Final = 200
_MAX_SAID: Final = 40
_SLOWER: Final = 1.5  # times the interval that is wanted: then it is said


class Keeps(Protocol):
    """Where history goes; see :class:`groundfault.console.hub.keeping.Keeper`."""

    recalled: list[Episode] | None

    def offer(self, points: list[Point], episodes: list[Episode]) -> None:
        """Keep these when it can be done."""

    def unknown(self) -> list[str]:
        """Return what is not kept, in words."""


class Watch:
    """``title`` and ``host``: what the view says of the hub itself. ``keeps``: None: there is no history."""

    def __init__(
        self,
        *,
        title: str,
        host: str,
        release: str,
        seeing: Seeing,
        keeps: Keeps | None = None,
        clock: Clock = monotonic,
        time: Clock = wall,
    ) -> None:
        self._about: Final = {"title": title, "host": host, "release": release}
        self._seeing = seeing
        self._keeps = keeps
        self._clock = clock
        self._time = time
        self.sources: Final = Sources()
        self.troubles: Final = Troubles()
        self._observers: dict[str, Observer] = {}
        self._notes: deque[tuple[float, str]] = deque(maxlen=_MAX_NOTES)
        self._kept_at = 0
        self.newest = self._edition(None, 1.0)

    def now(self) -> Moment:
        """Return the time by both clocks."""
        return Moment(self._clock(), self._time())

    # --- what comes in ------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, via: str, *, pushed: bool = True) -> Arrival:
        """Take in what somebody sent, from the address ``via``. Raises UnreadableError, FullError."""
        now = self.now()
        try:
            arrival = accepted(data)
            if pushed:
                self.sources.permit(arrival, now.at)
            self.sources.take(arrival, now, via)
        except UnreadableError as error:
            self.troubles.note(error.host or via, "unreadable", str(error), now.at)
            raise
        except FullError as error:
            self.note(f"a report from {via} was not taken: {error}")
            raise
        self.troubles.clear(arrival.host)
        self.troubles.clear(via)
        return arrival

    def miss(self, name: str, why: str) -> None:
        """Note that a console did not answer. ``name``: its host if that is known, else its address."""
        self.troubles.note(name, "late", why, self._clock())

    def note(self, what: str) -> None:
        """Have something said for a minute. May be called from any thread."""
        self._notes.append((self._clock(), what))

    def running(self) -> Iterable[tuple[int, str, str, str | None, float | None]]:
        """Yield each process's settings as the newest view has them, for who steers. From any thread."""
        for row in self.newest.view["processes"]:
            for store, version in row["versions"].items():
                yield row["pid"], row["service"] or "-", store, version, row["age_s"]

    # --- what goes out ------------------------------------------------------------------------------------------------

    def turn(self, interval_s: float) -> Edition:
        """Return the newest view. ``interval_s``: how often this is called at present."""
        now = self.now()
        self.sources.pass_time(now)
        self.troubles.pass_time(now.at)
        for name, service in self.sources.services.items():
            observer = self._observers.get(name)
            if observer is None:
                observer = self._observers[name] = self._seeing.observer(name)
            observer.see(service.merged(), now.wall)
        for name in [name for name in self._observers if name not in self.sources.services]:
            del self._observers[name]
        self.newest = edition = self._edition(self.newest, interval_s)
        self._keep(edition.view, now)
        return edition

    def _edition(self, before: Edition | None, interval_s: float) -> Edition:
        now = self.now()
        view = self._seeing.view(
            list(self._observers.values()),
            now=now.wall,
            sequence=1 if before is None else before.sequence + 1,
            interval_s=interval_s,
            hosts=rows_of(self.sources.all(), self.troubles, now.at),
            unknown=self._unknown(now.at, interval_s),
            **self._about,
        )
        self._name_processes(view)
        self._complete(view)
        return Edition(view, before)

    def _name_processes(self, view: View) -> None:
        """Give processes the names that their hosts know them by; observers saw them by numbers of the hub's own."""
        rows = [row.copy() for row in view["processes"]]
        for row in rows:
            row["host"], row["pid"] = self.sources.who(row["pid"])
        view["processes"] = rows
        view["timeline"] = [self._named(episode) for episode in view["timeline"]]
        view["unknown"] = [self._spoken(line) for line in view["unknown"]]
        view["headline"] = view["headline"].copy()
        view["headline"]["words"] = self._spoken(view["headline"]["words"])

    def _named(self, episode: Episode) -> Episode:
        if episode["kind"] != "process":
            return episode
        named = episode.copy()  # the observer keeps its own
        named["what"] = self._spoken(named["what"])
        if named["subject"].isdecimal():
            named["subject"] = self._spoken(f"process {named['subject']}").removeprefix("process ")
        return named

    def _spoken(self, text: str) -> str:
        """Return what observers say of processes, by the names that people know."""

        def known(found: re.Match[str]) -> str:
            host, pid = self.sources.who(int(found[1]))
            return f"process {pid}" if host is None else f"process {pid} on {host}"

        return _PROCESS.sub(known, text)

    def _complete(self, view: View) -> None:
        """Put what happened to hosts into the timeline, and what the database remembers of before."""
        own = [episode.copy() for episode in self.sources.episodes.values()]
        recalled = [] if self._keeps is None else self._keeps.recalled or []
        together = [*view["timeline"], *own, *recalled]
        together.sort(key=lambda episode: (episode["ended_at"] is None, episode["began_at"]), reverse=True)
        view["timeline"] = together[:MAX_TIMELINE]

    def _unknown(self, at: float, interval_s: float) -> list[str]:
        said = [] if self._keeps is None else self._keeps.unknown()
        if interval_s >= _SLOWER:
            said.append(f"this hub cannot keep up: it makes a view each {interval_s:.1f} s")
        said += [
            f"{service.name} has more than {MAX_COMMANDS} commands; those seen last are counted together as _other"
            for service in self.sources.services.values()
            if service.is_folded
        ]
        times: Counter[str] = Counter()
        last: dict[str, float] = {}
        for noted_at, what in list(self._notes):
            if at - noted_at <= _SAID_S:
                times[what] += 1
                last[what] = noted_at
        for what, count in times.most_common(_MAX_SAID):
            often = f", {count} times" if count > 1 else ""
            said.append(f"{what}{often}; last {spoken(at - last[what])} ago")
        hosts = (source for source in self.sources.all() if source.state(at) == "live")
        return said + [f"{source.host}: {line}" for source in hosts for line in source.unknown]

    # --- what is kept -------------------------------------------------------------------------------------------------

    def _keep(self, view: View, now: Moment) -> None:
        slot = int(now.wall) // GRID_S * GRID_S
        if self._keeps is None or slot == self._kept_at:
            return
        self._kept_at = slot
        recalled = {episode["id"] for episode in self._keeps.recalled or ()}
        episodes = [episode for episode in view["timeline"] if episode["id"] not in recalled]
        try:
            self._keeps.offer(points_of(view, slot), episodes)
        except Exception as error:  # noqa: BLE001  the view matters more than its history
            note_internal_error("hub history", error)


def points_of(view: View, at: int) -> list[Point]:
    """Return a row of numbers for each service: of what it serves, or where it serves nothing of what it calls."""
    by_service: dict[str, list[CommandRow]] = {}
    for row in view["commands"]:
        by_service.setdefault(row["service"] or "", []).append(row)
    servers: dict[str, Any] = {row["service"]: row for row in view["servers"]}
    window_s = view["window_s"]
    points: list[Point] = []
    for name in dict.fromkeys((*servers, *by_service)):
        rows, server = by_service.get(name, []), servers.get(name)
        if server is None:
            rate = sum(row["rate_per_s"] for row in rows)
            goodput = sum(row["counts"].get("success", 0) for row in rows) / window_s
            shed_share, wait_p99_s = 0.0, None
        else:
            rate, goodput = server["rate_per_s"], server["goodput_per_s"]
            shed_share, wait_p99_s = server["shed_share"], server["wait_p99_s"]
        points.append(
            {
                "at": at,
                "service": name,
                "rate_per_s": rate,
                "goodput_per_s": goodput,
                "shed_share": shed_share,
                "wait_p99_s": wait_p99_s,
                "open_circuits": sum("open" in row["states"] for row in rows),
            }
        )
    return points
