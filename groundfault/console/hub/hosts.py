"""The hosts as people see them: those that are heard of, those that fell silent, those that cannot be read or reached.

Pure, as :mod:`groundfault.console.hub.sources`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from groundfault.console.hub.sources import KEPT_S, Source, newest, spoken
from groundfault.console.view import HostRow

__all__ = ["Troubles", "rows_of"]

SKEW_S: Final = 1.0
"""A clock that is off by less is right: so long may a report take from there to here."""

_MAX_TROUBLES: Final = 500
_LONGEST_WHY: Final = 300


@dataclass(slots=True)
class _Trouble:
    state: str
    why: str
    began_at: float
    last_at: float


class Troubles:
    """What is wrong with hosts beside silence: what they sent could not be read, or they could not be asked."""

    def __init__(self) -> None:
        self._by_host: dict[str, _Trouble] = {}

    def note(self, host: str, state: str, why: str, at: float) -> None:
        """Note that it went wrong again. ``state``: ``unreadable``, or ``late`` where there was no answer."""
        known = self._by_host.get(host)
        if known is None:
            if len(self._by_host) >= _MAX_TROUBLES:
                return
            known = self._by_host[host] = _Trouble(state, "", at, at)
        known.state, known.why, known.last_at = state, why[:_LONGEST_WHY], at

    def clear(self, host: str) -> None:
        """Note that it went well."""
        self._by_host.pop(host, None)

    def pass_time(self, at: float) -> None:
        """Forget what has been still for an hour."""
        for host in [host for host, known in self._by_host.items() if at - known.last_at > KEPT_S]:
            del self._by_host[host]

    def items(self) -> list[tuple[str, _Trouble]]:
        """Return all of them."""
        return list(self._by_host.items())

    def get(self, host: str) -> _Trouble | None:
        """Return what is wrong with a host, or None."""
        return self._by_host.get(host)


def rows_of(sources: Iterable[Source], troubles: Troubles, at: float) -> list[HostRow]:
    """Return a row for each host, by name. ``at``: now, by the hub's monotonic clock."""
    by_host: dict[str, list[Source]] = {}
    for source in sources:
        by_host.setdefault(source.host, []).append(source)
    rows = [_row(host, mine, troubles, at) for host, mine in by_host.items()]
    rows += [
        {
            "host": host,
            "state": known.state,
            "why": known.why,
            "age_s": _age(at - known.began_at),
            "skew_s": None,
            "release": None,
            "services": [],
            "processes": 0,
        }
        for host, known in troubles.items()
        if host not in by_host
    ]
    return sorted(rows, key=lambda row: row["host"])


def _row(host: str, sources: list[Source], troubles: Troubles, at: float) -> HostRow:
    last = newest(sources)
    states = {source.state(at) for source in sources}
    # A service that was taken off a host does not make the host gone: then the others say how it is.
    state = "late" if "late" in states else "live" if "live" in states else "gone"
    why = []
    trouble = troubles.get(host)
    if trouble is not None:
        state = trouble.state if trouble.state == "unreadable" else state
        why.append(trouble.why)
    silent = [source for source in sources if source.state(at) != "live"]
    if len(silent) == len(sources):
        why.append(f"nothing heard for {spoken(at - last.heard_at)}")
    else:
        why += [f"nothing heard of {source.service} for {spoken(at - source.heard_at)}" for source in silent]
    if any(source.is_two(at) for source in sources):
        why.append("its counters go back and forth: have two hosts this name?")
    skew_s = last.skew_s
    if skew_s is not None:
        skew_s = float(f"{skew_s:.3g}") if abs(skew_s) > SKEW_S else 0.0
    return {
        "host": host,
        "state": state,
        "why": "; ".join(why),
        "age_s": _age(at - last.heard_at),
        "skew_s": skew_s,
        "release": last.release,
        "services": sorted({source.service for source in sources}),
        "processes": sum(len(source.report.processes) for source in sources),
    }


def _age(seconds: float) -> float:
    return float(f"{max(0.0, seconds):.3g}")
