"""The strip at the top of a view, and the one sentence that names the worst. Pure."""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Final

from groundfault.console.figures import clipped, percent, short
from groundfault.console.judging import refused_of
from groundfault.console.observing import Observer
from groundfault.console.view import POINTS, CommandRow, Headline, HostRow, Level, ProcessRow, ServerRow, StoreRow

__all__ = ["headline_of"]

_NAMED: Final = 4  # things in the sentence
_LEVELS: Final[tuple[Level, ...]] = ("ok", "warn", "bad")

Values = list[float | None]


def headline_of(
    observers: Sequence[Observer],
    commands: Sequence[CommandRow],
    servers: Sequence[ServerRow],
    *,
    stores: Sequence[StoreRow],
    processes: Sequence[ProcessRow],
    hosts: Sequence[HostRow],
    unknown: Sequence[str] = (),
) -> Headline:
    """Return the headline of these rows, which are all there are. ``unknown``: lines about what nobody knows."""
    if servers:
        rate = sum(row["rate_per_s"] for row in servers)
        goodput = sum(row["goodput_per_s"] for row in servers)
        total = sum(sum(row["counts"].values()) for row in servers)
        shed = sum(refused_of(row["counts"]) for row in servers)
    else:
        rate = sum(row["rate_per_s"] for row in commands)
        total = sum(sum(row["counts"].values()) for row in commands)
        shed = sum(row["counts"].get("shed", 0) for row in commands)
        good = sum(row["counts"].get("success", 0) for row in commands)
        goodput = rate * good / total if total else 0.0
    slowest = max(servers, key=_pressure, default=None)
    behind = _behind(stores, processes)
    stale = sum(row["stale"] for row in processes)
    saturated = {
        (row["service"], row["resource"])
        for row in commands
        if row["saturated"] or row["counts"].get("bulkhead-full") or _is_full(row)
    }
    spark, bad = _summed(_sparks(observers, of_servers=bool(servers)))
    lag = max(stores, key=lambda row: (row["behind"], row["lag_s"]), default=None)
    levels = {row["level"] for row in servers} | {row["level"] for row in commands}
    level: Level = max(levels, key=_LEVELS.index, default="ok")
    if level == "ok" and (stale or unknown or any(row["unreachable"] for row in stores)):
        level = "warn"
    return {
        "level": level,
        "words": _words(
            *(commands, servers, stores),
            processes=processes,
            saturated=len(saturated),
            behind=behind,
            unknown=len(unknown),
        ),
        "rate_per_s": short(rate),
        "goodput_per_s": short(goodput),
        "shed_share": short(shed / total) if total else 0.0,
        "wait_p99_s": None if slowest is None else slowest["wait_p99_s"],
        "threshold_s": None if slowest is None else slowest["threshold_s"],
        "open_circuits": sum(1 for row in commands if row["states"].get("open")),
        "saturated": len(saturated),
        "commands": len(commands),
        "processes": len(processes),
        "stale": stale,
        "hosts": len(hosts) or 1,
        "behind": behind,
        "lag_s": max((row["lag_s"] for row in stores), default=0.0),
        "version": None if lag is None else lag["newest"],
        "spark": spark,
        "bad": bad,
    }


def _pressure(row: ServerRow) -> float:
    """Return how near to its threshold the wait is."""
    if row["wait_p99_s"] is None:
        return -1.0
    return row["wait_p99_s"] / row["threshold_s"] if row["threshold_s"] else row["wait_p99_s"]


def _is_full(row: CommandRow) -> bool:
    return row["limit"] is not None and row["in_flight"] >= row["limit"]


def _behind(stores: Sequence[StoreRow], processes: Sequence[ProcessRow]) -> int:
    """Return how many processes do not run the newest version of a store that they follow."""
    newest = {row["store"]: row["newest"] for row in stores if row["newest"] is not None}
    return sum(
        any(store in newest and version != newest[store] for store, version in row["versions"].items())
        for row in processes
    )


def _sparks(observers: Iterable[Observer], *, of_servers: bool) -> Iterable[tuple[int, Values, Values]]:
    """Yield, for each spark that is summed, the index of its last point, and its points."""
    for observer in observers:
        points = observer.points
        if points is not None:
            for spark in observer.servers.values() if of_servers else (observer.total,):
                yield points.end, *spark.shown(points)


def _summed(sparks: Iterable[tuple[int, Values, Values]]) -> tuple[Values, Values]:
    """Return the sums, point by point; a point is known if one of the sparks knows it."""
    every = list(sparks)
    end = max((each[0] for each in every), default=0)
    known = [_shifted(values, end - at) for at, values, _ in every]
    ill = [_shifted(bad or [None if each is None else 0.0 for each in values], end - at) for at, values, bad in every]
    whole: Values = [_sum(each) for each in zip_longest(*known)] or [None] * POINTS
    bad = [_sum(each) for each in zip_longest(*ill)]
    return whole, bad if any(bad) else []


def _shifted(values: Values, by: int) -> Values:
    return [*values, *[None] * by][by : by + POINTS] if by else values


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return short(sum(known)) if known else None


def _words(
    commands: Sequence[CommandRow],
    servers: Sequence[ServerRow],
    stores: Sequence[StoreRow],
    *,
    processes: Sequence[ProcessRow],
    saturated: int,
    behind: int,
    unknown: int,
) -> str:
    said = [*_of_servers(servers), *_of_commands(commands, saturated)]
    if behind:
        are = "is" if behind == 1 else "are"
        said.append(f"{behind} of {len(processes)} processes {are} not at the newest settings")
    if stale := sum(row["stale"] for row in processes):
        said.append(f"{stale} of {len(processes)} processes {'reports' if stale == 1 else 'report'} nothing")
    if any(row["unreachable"] for row in stores):
        said.append("the store of settings cannot be read")
    if said:
        more = len(said) - _NAMED
        return "; ".join(said[:_NAMED]) + (f"; and {more} more" if more > 0 else "")
    held = sum(row["level"] == "warn" for row in commands)
    if held or any(row["level"] == "warn" for row in servers):
        things = f"{held} command{'s' if held > 1 else ''}" if held else "a server"
        return f"{things} to look at; nothing is wrong"
    if unknown:
        things = "1 thing is" if unknown == 1 else f"{unknown} things are"
        return f"{things} not known; nothing else is wrong"
    if not (commands or servers or processes):
        return "nothing has been counted yet"
    return "nothing is wrong"


def _of_servers(servers: Sequence[ServerRow]) -> list[str]:
    shedding = sorted((row for row in servers if row["level"] == "bad"), key=lambda row: -row["shed_share"])
    return [f"{clipped(row['service'])} sheds {percent(row['shed_share'])} of its requests" for row in shedding]


def _of_commands(commands: Sequence[CommandRow], saturated: int) -> list[str]:
    said = []
    if is_open := sum(1 for row in commands if row["states"].get("open")):
        said.append("1 circuit is open" if is_open == 1 else f"{is_open} circuits are open")
    bad = [row for row in commands if row["level"] == "bad" and not row["states"].get("open")]
    if len(bad) == 1:
        name = clipped(f"{bad[0]['resource']}/{bad[0]['command']}")
        said.append(f"{name}: {bad[0]['why'][0]}")
    elif bad:
        said.append(f"{len(bad)} commands fail without an open circuit")
    if saturated:
        said.append("1 resource is at its limit" if saturated == 1 else f"{saturated} resources are at their limit")
    return said
