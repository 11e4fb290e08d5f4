"""Puts a view together from what observers remember. Pure."""

from collections.abc import Iterable, Sequence
from typing import Final, Literal

from groundfault.console.figures import finite, short
from groundfault.console.headlines import headline_of
from groundfault.console.mapping import map_of
from groundfault.console.noticing import StoreMemory
from groundfault.console.observing import Observer
from groundfault.console.rows import command_rows, process_rows, server_rows
from groundfault.console.view import (
    FORMAT,
    POINT_S,
    WINDOW_S,
    CommandRow,
    Episode,
    HostRow,
    ProcessRow,
    ServerRow,
    StoreRow,
    View,
)
from groundfault.metrics.report import StoreReport

__all__ = ["COMMANDS", "EPISODES", "view_of"]

COMMANDS: Final = 1000
"""Rows of commands that a view has at most."""

EPISODES: Final = 500
_UNKNOWN: Final = 50  # lines


def view_of(
    observers: Sequence[Observer],
    *,
    now: float,
    kind: Literal["host", "process", "hub"],
    title: str,
    host: str,
    release: str,
    sequence: int,
    interval_s: float,
    hosts: Sequence[HostRow] = (),
    unknown: Sequence[str] = (),
) -> View:
    """Return the view of these services together. ``now``: seconds since the epoch.

    ``unknown``: lines, besides its own, about what nobody knows. The rest stands in the view as it is given.
    """
    prefixes = _prefixes(observers)
    commands: list[CommandRow] = []
    servers: list[ServerRow] = []
    processes: list[ProcessRow] = []
    timeline: list[Episode] = []
    errors: dict[str, int] = {}
    for observer, prefix in zip(observers, prefixes, strict=True):
        commands += command_rows(observer, prefix)
        servers += server_rows(observer)
        processes += process_rows(observer, now, None if kind == "hub" else host)
        timeline += [{**each, "id": f"{prefix}|{each['id']}"} for each in observer.timeline.newest_first()]
        for where, times in {} if observer.report is None else observer.report.internal_errors.items():
            errors[where] = errors.get(where, 0) + times
    hidden = max(0, len(commands) - COMMANDS)
    headline_rows = commands
    if hidden:
        commands = sorted(commands, key=lambda row: (-row["trouble"], -row["rate_per_s"], row["id"]))[:COMMANDS]
    commands = sorted(commands, key=lambda row: (-row["trouble"], row["id"]))
    servers.sort(key=lambda row: row["service"])
    timeline.sort(key=lambda each: each["began_at"], reverse=True)
    stores = _store_rows(observers, now)
    missing = _unknown(observers, processes, unknown)
    headline = headline_of(
        *(observers, headline_rows, servers),
        stores=stores,
        processes=processes,
        hosts=hosts,
        unknown=missing,
    )
    return {
        "format": FORMAT,
        "release": release,
        "kind": kind,
        "title": title,
        "host": host,
        "made_at": now,
        "sequence": sequence,
        "interval_s": interval_s,
        "window_s": WINDOW_S,
        "point_s": POINT_S,
        "headline": headline,
        "servers": servers,
        "commands": commands,
        "hidden": hidden,
        "map": map_of(observers),
        "timeline": timeline[:EPISODES],
        "stores": stores,
        "processes": processes,
        "hosts": list(hosts),
        "internal_errors": errors,
        "unknown": missing,
    }


def _prefixes(observers: Sequence[Observer]) -> list[str]:
    """Return what the ids of each begin with: the service, and a number where several are called the same."""
    taken: set[str] = set()
    prefixes = []
    for observer in observers:
        name = (observer.service or "").replace("\\", "\\\\").replace("|", "\\|")
        prefix, number = name, 1
        while prefix in taken:
            number += 1
            prefix = f"{name}|#{number}"
        taken.add(prefix)
        prefixes.append(prefix)
    return prefixes


def _store_rows(observers: Sequence[Observer], now: float) -> list[StoreRow]:
    stores: dict[str, StoreReport] = {}
    memories: dict[str, list[StoreMemory]] = {}
    for observer in observers:
        for name, store in {} if observer.report is None else observer.report.stores.items():
            stores.setdefault(name, StoreReport(name)).add(store)
            if name in observer.stores:
                memories.setdefault(name, []).append(observer.stores[name])
    return [_store_row(store, memories.get(name, []), now) for name, store in sorted(stores.items())]


def _store_row(store: StoreReport, memories: list[StoreMemory], now: float) -> StoreRow:
    seen = [(each.first_seen.get(each.newest, 0.0), each.newest) for each in memories if each.newest is not None]
    since, newest = max(seen, default=(now, None))
    behind = 0 if newest is None else sum(store.versions.values()) - store.versions.get(newest, 0)
    begun = [each.behind_since for each in memories if each.newest == newest and each.behind_since is not None]
    if any(each.newest != newest for each in memories):
        begun.append(since)  # a whole service is behind, since another one was not
    return {
        "store": store.store,
        "versions": {version: times for version, times in store.versions.items() if times},
        "newest": newest,
        "behind": behind,
        "lag_s": short(max(0.0, now - min(begun))) if behind and begun else 0.0,
        "age_s": finite(store.age_s),
        "unreachable": store.unreachable,
        "rejected": store.rejected,
    }


def _unknown(observers: Sequence[Observer], processes: Iterable[ProcessRow], more: Sequence[str]) -> list[str]:
    lines = list(more)
    for observer in observers:
        if observer.report is None:
            lines.append(f"nothing has been read of {observer.service or 'a run directory'} yet")
            continue
        lines += [f"{name} says nothing: {why}" for name, why in sorted(observer.report.unread.items())]
    for row in processes:
        if row["stale"]:
            of = f" of {row['service']}" if row["service"] else ""
            at = f" on {row['host']}" if row["host"] else ""
            lines.append(f"process {row['pid']}{of}{at} has said nothing for {row['age_s']:.0f} s")
    if len(lines) > _UNKNOWN:
        lines[_UNKNOWN:] = [f"and {len(lines) - _UNKNOWN} things more"]
    return lines
