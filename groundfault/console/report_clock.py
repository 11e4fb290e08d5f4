"""The report clock: how much time is behind what the processes have counted since the last look. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

from groundfault.console.noticing import Who
from groundfault.metrics.report import STALE_S, ProcessInfo, Report
from groundfault.metrics.rundir import TOTALS

__all__ = ["GAP_S", "ReportClock", "named"]

GAP_S: Final = 30.0
"""After a longer pause between two looks, what came between is not told as a rate."""

_REMEMBERED: Final = 2000  # processes of the past

Living = Mapping[Who, ProcessInfo]


class ReportClock:
    """Advances as the processes write; stands still while nobody does.

    ``base``: the report at which it last advanced, None before the first.
    """

    __slots__ = ("_based_at", "_known", "_written", "base")

    def __init__(self) -> None:
        self.base: Report | None = None
        self._based_at = 0.0
        self._written: dict[Who, float] = {}
        self._known: dict[Who, None] = {}  # all processes that were ever seen, up to a limit

    def mark(self, report: Report, living: Living, time: float) -> None:
        """Count from this report on. ``time``: of the observer."""
        self.base, self._based_at = report, time
        self._written = {who: each.written_at for who, each in living.items()}
        self._known |= dict.fromkeys(living)
        while len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]

    def step(  # noqa: C901, PLR0911  one for each thing that leaves it in the dark
        self, report: Report, living: Living, *, now: float, elapsed_s: float, time: float
    ) -> tuple[float, str]:
        """Return by how much it has advanced, and why that cannot be told, if it cannot.

        ``now``: seconds since the epoch, ``elapsed_s`` since the last look; ``time``: of the observer.
        """
        base = self.base
        if base is None:
            return 0.0, ""
        if elapsed_s > GAP_S:
            return 0.0, f"nobody has looked for {elapsed_s:.0f} s"
        written, steps = self._written, []
        for who, each in living.items():
            then = written.get(who)
            if then is None:
                if who in self._known:
                    return 0.0, f"process {who[0]} is back, with totals of unknown age"
                continue
            step_s = each.written_at - then
            if step_s < 0:
                return 0.0, "the clock was set back"
            if step_s > 0 or now - each.written_at <= STALE_S:
                steps.append(step_s)
        for who, then in written.items():
            if who not in living and now - then > STALE_S + elapsed_s:
                return 0.0, f"process {who[0]} has ended after it had said nothing for {now - then:.0f} s"
        why = self._unreadable(report, living, base) or _fallen(report, base)
        if why:
            return 0.0, why
        if steps:
            return sum(steps) / len(steps), ""
        # Nobody is in both looks. Those that are new have begun since then; where nobody lives, nothing happens.
        silent = living and all(who in written for who in living)
        return (0.0 if silent else max(0.0, time - self._based_at)), ""

    def _unreadable(self, report: Report, living: Living, base: Report) -> str:
        """Return why files that can no longer be read, or again, leave the totals in the dark, or nothing."""
        if report.unread.keys() == base.unread.keys():
            return ""
        pids = {str(who[0]) for who in (*living, *self._written)}
        for name in sorted(report.unread.keys() ^ base.unread.keys()):
            if name == TOTALS or name.partition("-")[0] in pids:
                return f"{name} can {'be read again' if name in base.unread else 'no longer be read'}"
        return ""


def _fallen(report: Report, base: Report) -> str:
    for name, server in base.servers.items():
        later = report.servers.get(name)
        if later is None or any(later.requests.get(key, 0) < times for key, times in server.requests.items()):
            return f"the totals of {name} have fallen"
    return ""


def named(processes: Sequence[ProcessInfo]) -> dict[Who, ProcessInfo]:
    """Return the processes, told apart where containers that share a directory number theirs alike."""
    result: dict[Who, ProcessInfo] = {}
    for each in processes:
        number = 0
        while (each.pid, each.service, number) in result:
            number += 1
        result[each.pid, each.service, number] = each
    return result
