"""What of each look goes on the timeline: circuits, servers, stores and processes in words. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from groundfault.console.episodes import Timeline
from groundfault.console.figures import less, number, percent, quantiles
from groundfault.metrics.collecting import DECLARED
from groundfault.metrics.report import ADMITTED, CommandReport, Report, ServerReport, StoreReport

__all__ = [
    "StoreMemory",
    "Who",
    "is_news",
    "is_quiet",
    "notice_command",
    "notice_processes",
    "notice_server",
    "notice_stale",
    "notice_store",
]

Who = tuple[int, str | None, int]
"""A process: its pid, its service, and a number where several are called the same."""

_TRIP = "closed>open"
_SHED_SHARE = 0.05  # of the requests between two looks that makes refusals an episode, whatever the shedder says
_FEW = 5


def is_quiet(command: CommandReport) -> bool:
    """Return whether there is nothing to say of a command by its gauges."""
    states = command.states
    return (
        command.admitted_share >= 1.0
        and not command.saturated
        and not command.unhealthy
        and (not states or (len(states) == 1 and "closed" in states))
    )


def is_news(command: CommandReport, before: CommandReport) -> bool:
    """Return whether something was counted that belongs on the timeline, whatever the gauges say."""
    full = "bulkhead-full"
    return command.moves != before.moves or command.calls.get(full) != before.calls.get(full)


def notice_command(
    timeline: Timeline, name: str, now: float, seen: CommandReport, before: CommandReport | None, *, service: str | None
) -> None:
    """Say what goes on with a command. ``before``: its totals at the last look, None if nothing new was counted."""
    full = trips = throttled = 0
    if before is not None:
        full = _rise(seen.calls, before.calls, "bulkhead-full")
        trips = _rise(seen.moves, before.moves, _TRIP)
        throttled = _rise(seen.calls, before.calls, "throttled")
    is_open = seen.states.get("open", 0)
    going = timeline.is_open("circuit", name)
    if is_open or trips or (going and seen.states.get("half-open")):
        peaks = {"processes": is_open} if is_open else {}
        timeline.hold(
            *("circuit", name, now),
            level="bad",
            what="circuit open",
            service=service,
            peaks=peaks,
            sums={"trips": trips},
        )
    if full:
        timeline.hold(
            *("concurrency", name, now),
            level="warn",
            what="concurrency limit reached: calls are refused",
            service=service,
            sums={"refused": full},
            counted=True,
        )
    if seen.admitted_share < 1.0:
        episode = timeline.hold(
            *("throttle", name, now),
            level="warn",
            what="sends only a part of the calls",
            service=service,
            leasts={"admitted_share": seen.admitted_share},
            sums={"refused": throttled},
        )
        episode["what"] = f"sends {percent(episode['numbers']['admitted_share'])} of the calls"
    if seen.saturated:
        timeline.hold(
            *("saturated", name, now),
            level="bad",
            what="the callee does nothing but refuse",
            service=service,
            peaks={"processes": seen.saturated},
        )
    if seen.unhealthy:
        timeline.hold(
            *("unhealthy", name, now),
            level="bad",
            what="the health check says no",
            service=service,
            peaks={"processes": seen.unhealthy},
        )


def notice_server(timeline: Timeline, now: float, seen: ServerReport, before: ServerReport | None) -> None:
    """Say what goes on with a server. ``before``: its totals at the last look, None if nothing new was counted."""
    refused = total = 0
    if before is not None:
        for key, times in seen.requests.items():
            rise = max(0, times - before.requests.get(key, 0))
            total += rise
            refused += rise if key[0] != ADMITTED else 0
    if not (seen.shedding or (refused >= _FEW and refused >= _SHED_SHARE * total)):
        return
    peaks: dict[str, float] = {"processes": seen.shedding} if seen.shedding else {}
    if before is not None and (waits := less(seen.waits.buckets, before.waits.buckets)):
        peaks["wait_p99_s"] = quantiles(waits, (0.99,))[0]
    shadow = bool(seen.modes.get("shadow"))
    timeline.hold(
        *("shedding", seen.service, now),
        level="warn" if shadow else "bad",
        what="would shed, in shadow mode" if shadow else "shedding",
        service=seen.service,
        peaks=peaks,
        sums={"refused": refused},
        counted=not seen.shedding,
    )


class StoreMemory:
    """Which versions of a store were seen in force, the newest last, and since when processes have been behind.

    A version is *newest* if it was first seen last: a process that starts with what it had kept runs an old one. Where
    nobody runs that any more, as after a return to an older one, it is what most run. ``rejected``: the total
    of the last look, None before the first.
    """

    __slots__ = ("behind_since", "first_seen", "newest", "rejected")

    def __init__(self) -> None:
        self.first_seen: dict[str, float] = {}
        self.newest: str | None = None
        self.behind_since: float | None = None
        self.rejected: int | None = None

    def see(self, versions: Mapping[str, int], now: float) -> str | None:
        """Take in how many processes run what. Return a version that is newly the newest, if one is."""
        running = {version: times for version, times in versions.items() if version != DECLARED and times > 0}
        fresh = [
            version for version in sorted(running, key=lambda each: running[each]) if version not in self.first_seen
        ]
        is_first = self.rejected is None
        for version in fresh:
            self.first_seen[version] = now
        while len(self.first_seen) > _VERSIONS:
            del self.first_seen[next(iter(self.first_seen))]
        before = self.newest
        if fresh:
            self.newest = fresh[-1]
        elif running and self.newest not in running:
            self.newest = max(running, key=lambda each: (running[each], self.first_seen.get(each, 0.0)))
            self.first_seen[self.newest] = now
        behind = self.behind(versions)
        self.behind_since = None if not behind else now if self.behind_since is None else self.behind_since
        return self.newest if self.newest != before and not is_first else None

    def remembered(self) -> list[Any]:
        """Return what JSON can hold, for :meth:`recalled`."""
        return [self.first_seen, self.newest, self.behind_since, self.rejected]

    @classmethod
    def recalled(cls, said: Any) -> "StoreMemory":
        """Return the memory that said so. Raises ValueError, TypeError or LookupError for anything else."""
        made = cls()
        first_seen, newest, behind_since, rejected = said
        made.first_seen = {str(version): number(at) for version, at in first_seen.items()}
        made.newest = None if newest is None else str(newest)
        made.behind_since = None if behind_since is None else number(behind_since)
        made.rejected = None if rejected is None else int(rejected)
        return made

    def behind(self, versions: Mapping[str, int]) -> int:
        """Return how many processes do not run the newest version."""
        return 0 if self.newest is None else sum(versions.values()) - versions.get(self.newest, 0)


_VERSIONS = 100


def notice_store(timeline: Timeline, memory: StoreMemory, now: float, seen: StoreReport) -> None:
    """Say what goes on with a store."""
    fresh = memory.see(seen.versions, now)
    newest = memory.newest
    if newest is not None:
        behind = memory.behind(seen.versions)
        part = f"version {newest}"
        if fresh is not None or timeline.is_open("settings", seen.store, part):
            running = seen.versions.get(newest, 0)
            timeline.hold(
                *("settings", seen.store, now),
                level="ok",
                what=f"version {newest} in force",
                peaks={"processes": running},
                part=part,
            )
            if not behind:
                timeline.let_go("settings", seen.store, part)
    if memory.rejected is not None and seen.rejected > memory.rejected:
        times = seen.rejected - memory.rejected
        timeline.note(
            *("settings", seen.store, now),
            level="warn",
            what="a version is rejected; the last good one stays in force",
            part="rejected",
            times=times,
        )
    memory.rejected = seen.rejected
    if seen.unreachable:
        timeline.hold(
            *("settings", seen.store, now),
            level="warn",
            what="the store cannot be read; what was last read stays in force",
            peaks={"processes": seen.unreachable},
            part="unreachable",
        )


def notice_processes(timeline: Timeline, now: float, begun: Sequence[Who], ended: Sequence[Who]) -> None:
    """Say which processes have begun and ended; many within a few seconds are one line."""
    for who in ended:
        timeline.note(
            *("process", str(who[0]), now),
            level="ok",
            what=f"process {who[0]} has ended; its totals stay",
            service=who[1],
            part=f"ended {who[1]}",
            several="{} processes have ended; their totals stay",
        )
    for who in begun:
        timeline.note(
            *("process", str(who[0]), now),
            level="ok",
            what=f"process {who[0]} has begun",
            service=who[1],
            part=f"begun {who[1]}",
            several="{} processes have begun",
        )


def notice_stale(timeline: Timeline, now: float, report: Report) -> None:
    """Say which processes do not report any more, though they live."""
    by_service: dict[str | None, list[int]] = {}
    for each in report.stale(now):
        by_service.setdefault(each.service, []).append(each.pid)
    for service, pids in by_service.items():
        one = len(pids) == 1
        timeline.hold(
            *("process", service or str(pids[0]), now),
            level="warn",
            what=f"process {pids[0]} reports nothing" if one else f"{len(pids)} processes report nothing",
            service=service,
            peaks={"processes": len(pids)},
            part="stale",
        )


def _rise(later: Mapping[str, int], earlier: Mapping[str, int], what: str) -> int:
    return max(0, later.get(what, 0) - earlier.get(what, 0))
