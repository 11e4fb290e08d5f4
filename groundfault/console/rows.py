"""Rows of a view from what an observer remembers: commands, servers, processes. Pure."""

from collections.abc import Iterator, Mapping
from math import isfinite

from groundfault.console.figures import finite, less, quantiles, short
from groundfault.console.judging import judge_command, judge_server, refused_of
from groundfault.console.observing import Mark, Observer
from groundfault.console.tracks import ENOUGH_S, Points, Spark, Track
from groundfault.console.view import CommandRow, ProcessRow, ServerRow
from groundfault.metrics.report import ADMITTED, CommandReport, ServerReport

__all__ = ["command_rows", "process_rows", "server_rows"]

_SHARES = (0.5, 0.9, 0.99)
_WORST = ("open", "half-open", "closed")
_NOTHING: tuple[None, None, None] = (None, None, None)


def command_rows(observer: Observer, prefix: str) -> Iterator[CommandRow]:
    """Yield a row for each command that a living process has, or that was called in the window."""
    points = observer.points
    if not observer.marks or points is None:
        return
    first, last = observer.marks[0], observer.marks[-1]
    for key, track in observer.tracks.items():
        seen = track.seen
        if seen is None:
            continue
        newest, base, span_s = _window(track, first, last)
        counts = {} if newest is base else less(newest.calls, base.calls)
        if counts or seen.states:
            yield _command(
                identity=f"{prefix}|{_escaped(key[0])}|{_escaped(key[1])}",
                service=observer.service,
                seen=seen,
                counts=counts,
                newest=newest,
                base=base,
                span_s=span_s,
                sparks=track.spark.shown(points),
            )


def _window(track: Track, first: Mark, last: Mark) -> tuple[CommandReport, CommandReport, float]:
    held = track.held
    while len(held) > 1 and held[1].mark <= first.number:
        del held[0]
    base = held[0]
    begun_s = base.clock_s if base.mark > first.number else first.clock_s
    return held[-1].report, base.report, last.clock_s - begun_s


def _command(
    *,
    identity: str,
    service: str | None,
    seen: CommandReport,
    counts: dict[str, int],
    newest: CommandReport,
    base: CommandReport,
    span_s: float,
    sparks: tuple[list[float | None], list[float | None]],
) -> CommandRow:
    ill = counts.get("failure", 0) + counts.get("timeout", 0)
    share = short(ill / (ill + counts.get("success", 0))) if ill else 0.0
    fallbacks = less(newest.fallbacks, base.fallbacks) if newest.fallbacks else {}
    level, why, trouble = judge_command(seen, counts, fallbacks, share, span_s)
    p50, p90, p99 = _taken(newest, base) if counts else _NOTHING
    states = seen.states
    processes = sum(states.values())
    return {
        "id": identity,
        "service": service,
        "resource": seen.resource,
        "command": seen.command,
        "level": level,
        "why": why,
        "trouble": trouble,
        "rate_per_s": short(sum(counts.values()) / max(span_s, ENOUGH_S)),
        "counts": counts,
        "error_share": share,
        "fallbacks": fallbacks.get("served", 0),
        "p50_s": p50,
        "p90_s": p90,
        "p99_s": p99,
        "in_flight": seen.active,
        "limit": seen.limit or None,
        "state": next((state for state in _WORST if states.get(state)), "closed") if len(states) > 1 else _only(states),
        "states": states,
        "modes": seen.modes,
        "admitted_share": short(seen.admitted_share),
        "saturated": seen.saturated,
        "unhealthy": seen.unhealthy,
        "processes": processes,
        "settings": _finite(seen.settings),
        "spark": sparks[0],
        "bad": sparks[1],
    }


def _only(states: Mapping[str, int]) -> str:
    return next(iter(states), "closed")


def _finite(settings: dict[str, float]) -> dict[str, float]:
    for value in settings.values():
        if not isfinite(value):
            return {name: value for name, value in settings.items() if isfinite(value)}
    return settings


def _taken(newest: CommandReport, base: CommandReport) -> tuple[float, float, float] | tuple[None, None, None]:
    """Return how long the successes of the window took; where there are none, the failures and timeouts."""
    buckets = _buckets(newest, base, "success")
    if not buckets:
        for outcome in ("failure", "timeout"):
            for bucket, times in _buckets(newest, base, outcome).items():
                buckets[bucket] = buckets.get(bucket, 0) + times
    if not buckets:
        return _NOTHING
    p50, p90, p99 = quantiles(buckets, _SHARES)
    return short(p50), short(p90), short(p99)


def _buckets(newest: CommandReport, base: CommandReport, outcome: str) -> dict[int, int]:
    later, earlier = newest.durations.get(outcome), base.durations.get(outcome)
    if later is None:
        return {}
    if earlier is None:
        return dict(later.buckets)
    return less(later.buckets, earlier.buckets)


def server_rows(observer: Observer) -> Iterator[ServerRow]:
    """Yield a row for each server that a living process has, or that was asked in the window."""
    report, points = observer.report, observer.points
    if report is None or points is None or not observer.marks:
        return
    first, last = observer.marks[0], observer.marks[-1]
    for name, seen in report.servers.items():
        newest = last.servers.get(name) or ServerReport(name)
        base = first.servers.get(name) or ServerReport(name)
        spark = observer.servers.get(name) or Spark()
        row = _server(seen, newest, base, span_s=last.clock_s - first.clock_s, spark=spark, points=points)
        if seen.signals or row["counts"]:
            yield row


def _server(
    seen: ServerReport, newest: ServerReport, base: ServerReport, *, span_s: float, spark: Spark, points: Points
) -> ServerRow:
    counts: dict[str, int] = {}
    criticalities: dict[str, dict[str, int]] = {}
    for key, times in newest.requests.items():
        rise = times - base.requests.get(key, 0)
        if rise > 0:
            reason, criticality = key
            counts[reason] = counts.get(reason, 0) + rise
            each = criticalities.setdefault(criticality, {"admitted": 0, "shed": 0})
            each["admitted" if reason == ADMITTED else "shed"] += rise
    waits = less(newest.waits.buckets, base.waits.buckets)
    p50, p99 = quantiles(waits, (0.5, 0.99)) if waits else (None, None)
    abandoned = max(0, newest.abandoned - base.abandoned)
    processes = sum(seen.signals.values())
    level, why, _ = judge_server(seen, counts, abandoned=abandoned, wait_p99_s=p99, processes=processes)
    total = sum(counts.values())
    shown, bad = spark.shown(points)
    return {
        "service": seen.service,
        "level": level,
        "why": why,
        "rate_per_s": short(total / max(span_s, ENOUGH_S)),
        "goodput_per_s": short(counts.get(ADMITTED, 0) / max(span_s, ENOUGH_S)),
        "counts": counts,
        "criticalities": criticalities,
        "shed_share": short(refused_of(counts) / total) if total else 0.0,
        "abandoned": abandoned,
        "wait_p50_s": finite(p50),
        "wait_p99_s": finite(p99),
        "threshold_s": finite(seen.threshold_s),
        "deadline_s": finite(seen.deadline_s),
        "in_flight": seen.active,
        "shedding": seen.shedding,
        "stepped_aside": seen.stepped_aside,
        "modes": seen.modes,
        "signals": seen.signals,
        "backlog": seen.backlog,
        "backlog_limit": seen.backlog_limit,
        "processes": processes,
        "spark": shown,
        "bad": bad,
    }


def process_rows(observer: Observer, now: float, host: str | None) -> Iterator[ProcessRow]:
    """Yield a row for each living process. ``host``: where they run, if the observer does not say."""
    report = observer.report
    if report is None:
        return
    stale = {id(each) for each in report.stale(now)}
    for each in report.processes:
        yield {
            "pid": each.pid,
            "host": observer.host or host,
            "service": each.service,
            "age_s": short(max(0.0, now - each.written_at)),
            "stale": id(each) in stale,
            "versions": {store: version for store, version, *_ in each.settings},
        }


def _escaped(name: str) -> str:
    """Return a name so that no other three names make the same id."""
    if "|" not in name and "\\" not in name:
        return name
    return name.replace("\\", "\\\\").replace("|", "\\|")
