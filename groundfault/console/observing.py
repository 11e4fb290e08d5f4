"""Looks at the reports of one service once a second and remembers what came between. Pure: it reads no clock.

Reports hold totals since the processes began; people want rates, and what happened when.

**The report clock.** Each process writes once a second at a moment of its own, so what is read holds none, one or two
of its writes. A rate by the reader's clock would swing by a factor of two. So a rate is what was counted, by how much
the processes' own times of writing have advanced, in the mean over those that are in both looks. Where nobody has
written, a look brings no counts, and what it would have brought comes with the next. A process that is stale does not
hold the others back; when it returns, what it counted meanwhile is divided by the time that it was away.

**What is new, and what only seems so.** A command or a server that was not there before has counted from zero, unless
it is the first look: then everything is the base, and no rate is known before the second.
A total that falls (somebody has taken the directory away), a process that was there before and is again, or a file that
can be read again, bring totals of unknown age: nothing is known of that look, it counts nothing, and an episode of kind
``gap`` says so. So does a pause of more than half a minute between two looks, and a clock that was set back.
What cannot be told apart: a process that has counted for long and now writes for the first time in its life, its
directory having been read-only until now, say. What it has counted comes in one look.
"""

from collections import deque
from typing import Any, Final, NamedTuple, Self

from groundfault.breaker.registry import OTHER
from groundfault.console.episodes import RESUMED_S, Timeline
from groundfault.console.figures import number
from groundfault.console.noticing import (
    StoreMemory,
    Who,
    is_news,
    is_quiet,
    notice_command,
    notice_processes,
    notice_server,
    notice_stale,
    notice_store,
)
from groundfault.console.report_clock import GAP_S, ReportClock, named
from groundfault.console.tracks import BAD, NONE, Filled, Held, Points, Spark, Track
from groundfault.console.view import POINT_S, POINTS, WINDOW_S
from groundfault.metrics.report import ADMITTED, ProcessInfo, Report, ServerReport

__all__ = ["GAP_S", "Mark", "Observer"]

_SLACK_S: Final = 0.5  # a window of ten seconds may be as much shorter, or ten looks would not be enough for it
_FORMAT: Final = 1

Key = tuple[str, str]
Edge = tuple[str, str, str]


class Mark(NamedTuple):
    """What there was when the report clock advanced. ``clock_s``: where that stood since the first look."""

    number: int
    clock_s: float
    servers: dict[str, ServerReport]
    edges: dict[Edge, int]


class Observer:
    """One service, or one run directory. ``service``: None, the default, for what its processes call themselves.

    ``host``: whose processes these are, None where that goes without saying.
    """

    def __init__(self, service: str | None = None, *, host: str | None = None) -> None:
        self.host = host
        self.timeline = Timeline()
        self.stores: dict[str, StoreMemory] = {}
        self.tracks: dict[Key, Track] = {}
        self.servers: dict[str, Spark] = {}
        self.total = Spark()  # of all commands
        self.points: Points | None = None
        self.marks: deque[Mark] = deque()
        self.report: Report | None = None
        self.looked_at = 0.0
        self._service = service
        self._clock = ReportClock()
        self._time = 0.0  # as the wall clock, but never backwards
        self.drawn: dict[tuple[str, ...], float] = {}  # edges of the map, and when there was traffic last
        self._living: dict[Who, ProcessInfo] = {}
        self._active: dict[Key, Spark] = {}
        self._number = 0

    @property
    def service(self) -> str | None:
        """What it is called: as given, else as its processes say, if they agree."""
        return self._service

    # --- one look -----------------------------------------------------------------------------------------------------

    def see(self, report: Report, now: float) -> None:
        """Take in what all processes say. ``now``: seconds since the epoch; about once a second.

        The report is kept: nobody may change it afterwards.
        """
        first = self.report is None
        elapsed_s = 0.0 if first else now - self.looked_at
        self._move(now, elapsed_s)
        self.timeline.resume(now)
        living = named(report.processes)
        self._name(living)
        base, before, fallen = self._clock.base, None, 0
        step_s, why = self._clock.step(report, living, now=now, elapsed_s=elapsed_s, time=self._time)
        if base is None or why:
            self._rebase(report, living)
        elif step_s:
            before = base
            fallen = self._count(report, living, base, step_s)
        self._watch(report, before, now)
        if why or fallen:
            self._note_gap(why or _fallen(fallen), now)
        self._watch_processes(report, living, now, silent=first and now - self.looked_at > RESUMED_S)
        self.timeline.settle(now, counts=bool(step_s))
        self.report, self.looked_at = report, now

    def _name(self, living: dict[Who, ProcessInfo]) -> None:
        if self._service is None:
            services = {service for _, service, _ in living}
            if len(services) == 1:
                self._service = services.pop()

    def _move(self, now: float, elapsed_s: float) -> None:
        """Close the points that are over."""
        self._time = now if self.report is None else self._time + max(0.0, elapsed_s)
        index = int(self._time // POINT_S)
        points = self.points
        if points is None or (self.report is None and points.index > index):  # recalled, of a future that is none
            self.points = Points(index)
            self.total, self.servers, self._active = Spark(), {}, {}
            return
        if index - points.index > POINTS:
            points.index = index - POINTS  # what is older is not shown
        while points.index < index:
            span_s = points.close()
            self.total.close(span_s)
            for spark in self.servers.values():
                spark.close(span_s)
            over = [key for key, spark in self._active.items() if not spark.close(span_s)]
            for key in over:
                del self._active[key]

    def _rebase(self, report: Report, living: dict[Who, ProcessInfo]) -> None:
        """Count from here on."""
        self._number += 1
        mark = Mark(self._number, self.marks[-1].clock_s if self.marks else 0.0, report.servers, report.edges)
        self.marks.clear()
        self._mark(mark, report, living)
        if self.points is not None:
            self.points.forget()
        for key in self.tracks.keys() - report.commands.keys():
            self._forget(key)
        for key, command in report.commands.items():
            held = Held(mark.number, mark.clock_s, command)
            track = self.tracks.get(key)
            if track is None:
                self.tracks[key] = track = Track("/".join(key), held)
                track.spark = self._active.get(key, track.spark)  # recalled
            else:
                track.restart(held)
                track.seen = command

    def _mark(self, mark: Mark, report: Report, living: dict[Who, ProcessInfo]) -> None:
        marks = self.marks
        marks.append(mark)
        least = mark.clock_s - WINDOW_S + _SLACK_S
        while len(marks) > 1 and marks[1].clock_s <= least:
            marks.popleft()
        self._clock.mark(report, living, self._time)

    def _forget(self, key: Key) -> None:
        del self.tracks[key]
        self._active.pop(key, None)

    # --- its memory ---------------------------------------------------------------------------------------------------

    def remembered(self) -> dict[str, Any]:
        """Return what JSON can hold of the points and the timeline, so that another process can go on.

        Totals are not in it: who goes on begins with a base of its own. Some 150 kB with 400 busy commands.
        """
        points = self.points
        return {
            "format": _FORMAT,
            "service": self._service,
            "at": self.looked_at,
            "index": 0 if points is None else points.index,
            "known": None if points is None else [int(known) for known in points.known],
            "total": self.total.remembered(),
            "servers": {name: spark.remembered() for name, spark in self.servers.items()},
            "commands": [[*key, spark.remembered()] for key, spark in self._active.items()],
            "timeline": self.timeline.remembered(self.looked_at),
            "stores": {name: memory.remembered() for name, memory in self.stores.items()},
            "processes": list(self._living),
        }

    @classmethod
    def recalled(cls, said: Any, service: str | None = None, *, host: str | None = None) -> Self:
        """Return an observer that goes on where another one :meth:`remembered`; counts begin at its first look.

        Of what nobody can have said it forgets everything. Never raises an Exception.
        """
        made = cls(service, host=host)
        try:
            made._recall(said)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError):
            return cls(service, host=host)
        return made

    def _recall(self, said: Any) -> None:
        if said["format"] != _FORMAT:
            raise ValueError("this is of another release")
        self._service = self._service or (None if said["service"] is None else str(said["service"]))
        self.looked_at = number(said["at"])
        if said["known"] is not None:
            points = self.points = Points(int(said["index"]))
            points.known = [bool(known) for known in said["known"]][-POINTS + 1 :]
            length = len(points.known)
            self.total = Spark.recalled(said["total"], length)
            self.servers = {str(name): Spark.recalled(spark, length) for name, spark in said["servers"].items()}
            for resource, command, spark in said["commands"]:
                self._active[str(resource), str(command)] = Spark.recalled(spark, length)
        self.timeline = Timeline.recalled(said["timeline"])
        self.stores = {str(name): StoreMemory.recalled(memory) for name, memory in said["stores"].items()}
        for pid, name, nth in said["processes"]:
            who = int(pid), None if name is None else str(name), int(nth)
            self._living[who] = ProcessInfo(who[0], who[1], self.looked_at)

    # --- what was counted ---------------------------------------------------------------------------------------------

    def _count(self, report: Report, living: dict[Who, ProcessInfo], before: Report, step_s: float) -> int:
        """Take in what was counted since the last mark; return of how many commands the totals have fallen."""
        points = self.points
        if points is None:  # see() has made them
            return 0
        filled = points.fill(step_s)
        if filled.covered:
            for spark in (self.total, *self.servers.values(), *self._active.values()):
                spark.spread(filled)
        self._number += 1
        mark = Mark(self._number, self.marks[-1].clock_s + step_s, report.servers, report.edges)
        self._mark(mark, report, living)
        fallen = self._count_commands(report, mark, points, filled)
        for name, server in report.servers.items():
            earlier = before.servers.get(name)
            known = {} if earlier is None else earlier.requests
            count = ill = 0
            for key, times in server.requests.items():
                rise = times - known.get(key, 0)
                count += rise
                ill += rise if key[0] != ADMITTED else 0
            spark = self.servers.setdefault(name, Spark())
            if count:
                spark.add(count, ill, points, filled)
        return fallen

    def _count_commands(  # noqa: C901  the loop over a thousand commands, in one place for its speed
        self, report: Report, mark: Mark, points: Points, filled: Filled
    ) -> int:
        tracks, commands, active = self.tracks, report.commands, self._active
        first, number, clock_s = self.marks[0].number, mark.number, mark.clock_s
        gone = tracks.keys() - commands.keys() if len(tracks) >= len(commands) else set[Key]()
        fallen = total = total_ill = 0
        for key, command in commands.items():
            track = tracks.get(key)
            if track is None:
                tracks[key] = track = Track("/".join(key), Held(-1, 0.0, NONE))
                track.spark = active.get(key, track.spark)  # recalled
                gone = gone or tracks.keys() - commands.keys()
            earlier = track.held[-1].report
            calls, known = command.calls, earlier.calls
            if calls == known and command.fallbacks == earlier.fallbacks and command.moves == earlier.moves:
                continue
            count = ill = 0
            fell = not known.keys() <= calls.keys()
            for outcome, times in calls.items():
                rise = times - known.get(outcome, 0)
                if rise:
                    fell = fell or rise < 0
                    count += rise
                    if outcome in BAD:
                        ill += rise
            if fell or (gone and key[0] == OTHER):  # those that are gone have been added to it, old totals and all
                track.restart(Held(number, clock_s, command))
                fallen += fell
                continue
            track.hold(Held(number, clock_s, command), first)
            if count:
                total += count
                total_ill += ill
                track.spark.add(count, ill, points, filled)
                active[key] = track.spark
        for key in gone:
            self._forget(key)
        if total:
            self.total.add(total, total_ill, points, filled)
        return fallen + len(gone)

    # --- what is to be said -------------------------------------------------------------------------------------------

    def _watch(self, report: Report, before: Report | None, now: float) -> None:
        """Take in the gauges, and say what goes on."""
        timeline, service, earlier = self.timeline, self.service, {} if before is None else before.commands
        for key, command in report.commands.items():
            track = self.tracks.get(key)
            if track is None:  # nobody has written: it comes with the next look
                continue
            track.seen = command
            known = None if before is None else earlier.get(key, NONE)
            if known is not None and track.held[0].mark == self._number:
                known = None  # it was restarted
            if not is_quiet(command) or (known is not None and is_news(command, known)):
                notice_command(timeline, track.name, now, command, known, service=service)
        for name, server in report.servers.items():
            known_server = None if before is None else before.servers.get(name, ServerReport(name))
            notice_server(timeline, now, server, known_server)
        for name, store in report.stores.items():
            notice_store(timeline, self.stores.setdefault(name, StoreMemory()), now, store)

    def _note_gap(self, why: str, now: float) -> None:
        self.timeline.note(
            *("gap", self.service or "", now), level="warn", what=f"nothing is known here: {why}", service=self.service
        )

    def _watch_processes(self, report: Report, living: dict[Who, ProcessInfo], now: float, *, silent: bool) -> None:
        """Say who has begun, who has ended, and who reports nothing."""
        unread = {name.partition("-")[0] for name in report.unread}
        hidden = {who: each for who, each in self._living.items() if who not in living and str(who[0]) in unread}
        if not silent:
            begun = [who for who in living if who not in self._living]
            ended = [who for who in self._living if who not in living and who not in hidden]
            notice_processes(self.timeline, now, begun, ended)
        notice_stale(self.timeline, now, report)
        self._living = living | hidden


def _fallen(times: int) -> str:
    return f"the totals of {times} commands have fallen" if times > 1 else "the totals of a command have fallen"
