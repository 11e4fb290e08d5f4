"""From what was seen to figures with bounds. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from chaotic.looking import Seen
from chaotic.trouble import SERVICES
from groundfault.lab.runs.record import Check, Stream
from groundfault.lab.runs.tally import FATES
from groundfault.metrics.report import Report

_SERVER = {"handles": 8, "threads": 2, "sockets": 8, "uss_mb": 10}
GROWN: dict[str, dict[str, int]] = {
    "proxy": {"handles": 8, "threads": 0, "sockets": 8, "uss_mb": 20},
    **dict.fromkeys(SERVICES, _SERVER),
    "topps worker": {"handles": 32, "threads": 48, "sockets": 32, "uss_mb": 30},
    "grouper worker": {"handles": 32, "threads": 16, "sockets": 32, "uss_mb": 30},
    "saber worker": {"handles": 16, "threads": 6, "sockets": 16, "uss_mb": 20},
}
"""By so much the fullest process of a role may exceed the fullest one before the chaos.

Pools that little traffic leaves small are full after a spike, and stay so: forty threads of Starlette's and eight of
asyncio's executor in topps, gunicorn's sixteen and five; and sixteen connections kept to the callee and as many kept
from the caller. Nothing may be there beyond.
"""
SLOPE_MB_MIN = 2.0
WARM_S = 60.0
LEAST_S = 90.0
GOOD_SHARE = 0.99
LAG_LIMIT_MS = 250.0


@dataclass(frozen=True)
class Spans:
    """When it was what, in seconds from the start of the run."""

    before: tuple[float, float]
    chaos: tuple[float, float]
    calm: tuple[float, float]
    quiet_s: float
    """The last so many seconds of the calm in which nobody may be refused."""

    window_s: float
    """Recovered means: for so long, and from then on, 99 % are good."""


def of_processes(seen: Seen, spans: Spans, at_rest: tuple[tuple[float, float], tuple[float, float]]) -> list[Check]:
    """Judge what the processes hold: at rest before the chaos and after the calm, and what they grew by meanwhile."""
    checks = []
    for role, bounds in GROWN.items():
        for what, most in bounds.items():
            first, last = (seen.most(role, what, *span) for span in at_rest)
            grown = None if first is None or last is None else round(last - first, 1)
            name = what.removesuffix("_mb")
            checks.append(
                Check(
                    measure=f"{role.replace(' ', '_')}_{name}_grown",
                    title=f"{role}: {'unshared memory' if name == 'uss' else name}, after less before",
                    value=grown,
                    unit="MB" if name == "uss" else "",
                    at_most=most,
                )
            )
    for role, slope in sorted(seen.slopes(*spans.chaos, warm_s=WARM_S, least_s=LEAST_S).items()):
        title = f"{role}: growth of unshared memory in the chaos, the steepest process"
        measure = f"{role.replace(' ', '_')}_slope"
        checks.append(Check(measure=measure, title=title, value=round(slope, 3), unit="MB/min", at_most=SLOPE_MB_MIN))
    return checks


def none_of(measure: str, title: str, value: float | None) -> Check:
    """Return the check that there is none of it."""
    return Check(measure=measure, title=title, value=value, at_most=0)


def of_reports(reports: Mapping[str, Report], now: float, workers: int, spoiled: int) -> list[Check]:
    """Judge what the processes say of themselves in their run directories."""
    everything = list(reports.values())
    commands = [command for report in everything for command in report.commands.values()]
    servers = [server for report in everything for server in report.servers.values()]
    not_closed = sum(times for each in commands for state, times in each.states.items() if state != "closed")
    silent = sum(workers - len(report.processes) + len(report.stale(now, 5.0)) for report in everything)
    stores = [store for report in everything for store in report.stores.values()]
    versions = {version for store in stores for version in store.versions}
    rejected = sum(store.rejected for store in stores)
    return [
        none_of("permits_held", "permits of commands still in flight", sum(each.active for each in commands)),
        none_of("circuits_not_closed", "circuits that are not closed again", not_closed),
        none_of("requests_held", "requests that shedders still count as in flight", sum(s.active for s in servers)),
        none_of("still_shedding", "processes that still shed", sum(server.shedding for server in servers)),
        none_of("internal_errors", "internal errors", sum(sum(r.internal_errors.values()) for r in everything)),
        none_of("reports_missing", "workers that do not report", silent),
        none_of("reports_unread", "reports that cannot be read", sum(len(report.unread) for report in everything)),
        Check(measure="settings_versions", title="versions of the settings in force", value=len(versions), at_most=1),
        Check(
            measure="settings_rejected",
            title="spoiled documents that processes refused",
            value=rejected,
            at_least=1 if spoiled else None,
        ),
    ]


def of_traffic(streams: Sequence[Stream], spans: Spans) -> list[Check]:
    """Judge what became of the requests."""
    due = sum(sum(stream.due) for stream in streams)
    fates = sum(sum(getattr(stream, fate.value)) for stream in streams for fate in FATES)
    quiet = int(spans.calm[1] - spans.quiet_s)
    shed = sum(sum(stream.shed[quiet:]) for stream in streams)
    after = [
        (sum(stream.good[second] for stream in streams), sum(stream.due[second] for stream in streams))
        for second in range(int(spans.calm[0]), int(spans.calm[1]))
    ]
    start, end = int(spans.chaos[0]), int(spans.chaos[1])
    good = {s.name: (sum(s.good[start:end]), max(1, sum(s.due[start:end]))) for s in streams}
    recovered = recovery_s(after, spans.window_s)
    return [
        none_of("without_fate", "requests without a fate", due - fates),
        none_of("shed_in_calm", f"refused in the last {spans.quiet_s:g} s of the calm", shed),
        Check(
            measure="recovery", title="after the chaos, until 99 % is good again", value=recovered, unit="s", at_most=30
        ),
        *(
            Check(measure=f"{name}_good_in_chaos", title=f"{name}: good in the chaos", value=round(part / whole, 4))
            for name, (part, whole) in good.items()
        ),
    ]


def recovery_s(seconds: Sequence[tuple[int, int]], window_s: float) -> float | None:
    """Return from which second on 99 % were good: of the window that begins there, and of all that follows.

    ``seconds``: good and due. None if that was never so.
    """
    window = max(1, int(window_s))
    for start in range(len(seconds) - window + 1):
        near, rest = seconds[start : start + window], seconds[start:]
        if all(_share(span) >= GOOD_SHARE for span in (near, rest)):
            return float(start)
    return None


def _share(span: Sequence[tuple[int, int]]) -> float:
    due = sum(each[1] for each in span)
    return sum(each[0] for each in span) / due if due else 0.0


def of_counts(report: Report, sent: int, answered: int, kills: int, rate: float) -> list[Check]:
    """Compare what topps has counted with what the generator has sent, and with the answers it has seen.

    A worker that is killed takes with it what it had counted since its last report, a second ago or a little more:
    an answer that was seen may be missing for that, and for nothing else. No more than was sent can have been counted.
    """
    counted = sum(sum(server.requests.values()) for server in report.servers.values())
    may_lose = int(kills * rate * 1.5)
    return [
        Check(
            measure="counts_missing",
            title="answers that the generator saw and topps did not count",
            value=max(0, answered - counted),
            at_most=may_lose,
        ),
        none_of("counts_too_many", "requests that topps counted and nobody sent", max(0, counted - sent)),
    ]


def of_lives(
    seen: Seen, living: set[int], killed: set[int], leaving: set[int], ended: Iterable[str]
) -> tuple[list[Check], list[str]]:
    """Judge who has died: only those may that were killed or relieved. Return the names of the others, too."""
    strangers = [f"{role} {pid}" for pid, role in seen.gone(living).items() if pid not in killed | leaving]
    names = [*strangers, *ended]
    return [none_of("died", "processes that died and were not killed", len(names))], names


def of_logs(logs: Mapping[str, str]) -> list[Check]:
    """Look for what no log may hold."""
    found = Counter({name: text.count("Traceback (most recent call last)") for name, text in logs.items()})
    where = ", ".join(f"{name}: {times}" for name, times in found.items() if times)
    return [none_of("tracebacks", f"tracebacks in the logs{f' ({where})' if where else ''}", found.total())]


def of_troubles(done: Mapping[str, int], kinds: Iterable[str]) -> list[Check]:
    """Hold that the soak did what it is for: each sort of trouble at least once."""
    return [
        Check(measure=f"done_{kind}", title=f"{kind}: times", value=done.get(kind, 0), at_least=1) for kind in kinds
    ]
