"""What one process, or several together, have counted: the one value that every way of showing it is made from.

Nothing here is called when a call ends. Commands and shedders count for themselves; a report is pulled from them.
So metrics cost the calls nothing, however many sinks there are.

*Totals* only ever grow, and stay when a process dies. *Gauges* are of the living; :meth:`Report.bury` takes them away.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from groundfault._histogram import Histogram
from groundfault.breaker.snapshot import CommandCounts, CommandSnapshot
from groundfault.shedding.snapshot import ShedderSnapshot
from groundfault.vocabulary import Mode

__all__ = [
    "ADMITTED",
    "SHOWN",
    "STALE_S",
    "UNKNOWN",
    "CommandReport",
    "ProcessInfo",
    "Report",
    "ServerReport",
    "StoreReport",
    "merged",
]

ADMITTED: Final = "admitted"
"""Stands for the reason of a request that was not refused."""

UNKNOWN: Final = "unknown"
"""The service of a process that has no name and no shedder, or several."""

STALE_S: Final = 5.0
"""A living process that has not written for so long cannot, or is stopped."""

SHOWN: Final = ("timeout_s", "slow_call_s", "minimum_volume_per_s", "failure_threshold", "sleep_window_s")
"""The settings, besides the limit, that a console shows and that advice compares its proposals with."""

Counts = dict[str, int]
Edge = tuple[str, str, str]


@dataclass(slots=True)
class CommandReport:
    """One command.

    Totals: ``calls`` and ``durations`` by outcome, ``fallbacks`` by ``served``, ``failed`` and ``refused``,
    ``moves`` of the circuit as ``closed>open``.

    Gauges: ``states``, in how many processes the circuit stands where; ``active`` calls, and the ``limit`` of all
    processes together, None where one has none; the least ``admitted_share``; in how many processes the callee is
    ``saturated`` or ``unhealthy``; those of :data:`SHOWN` among the ``settings`` of a process that are not None;
    ``modes``, in how many processes it is in one other than ``enforce``.
    """

    resource: str
    command: str
    calls: Counts = field(default_factory=dict)
    durations: dict[str, Histogram] = field(default_factory=dict)
    fallbacks: Counts = field(default_factory=dict)
    moves: Counts = field(default_factory=dict)
    states: Counts = field(default_factory=dict)
    active: int = 0
    limit: int | None = 0
    admitted_share: float = 1.0
    saturated: int = 0
    unhealthy: int = 0
    settings: dict[str, float] = field(default_factory=dict)
    modes: Counts = field(default_factory=dict)

    @classmethod
    def of(cls, seen: CommandSnapshot | CommandCounts) -> "CommandReport":
        """Return the report of one command in this process."""
        fallbacks = {"served": seen.fallbacks, "failed": seen.fallbacks_failed, "refused": seen.fallbacks_refused}
        return cls(
            seen.resource,
            seen.command,
            calls={outcome.value: times for outcome, times in seen.totals.items() if times},
            durations={outcome.value: histogram for outcome, histogram in seen.durations.items()},
            fallbacks={result: times for result, times in fallbacks.items() if times},
            moves={f"{old}>{new}": times for (old, new), times in seen.moves.items()},
            states={seen.state.value: 1},
            active=seen.in_flight,
            limit=seen.max_concurrent,
            admitted_share=seen.admitted_share,
            saturated=int(seen.saturated),
            unhealthy=int(not seen.healthy),
            settings={name: value for name in SHOWN if (value := getattr(seen.settings, name)) is not None},
            modes={} if seen.settings.mode is Mode.ENFORCE else {seen.settings.mode.value: 1},
        )

    def add(self, other: "CommandReport") -> None:
        """Take in what another process says of the same command."""
        _add(self.calls, other.calls)
        _add(self.states, other.states)
        if other.fallbacks:
            _add(self.fallbacks, other.fallbacks)
        if other.moves:
            _add(self.moves, other.moves)
        for outcome, histogram in other.durations.items():
            known = self.durations.get(outcome)
            if known is None:
                self.durations[outcome] = histogram.copy()
            else:
                known.merge(histogram)
        if other.states:  # it lives
            self.limit = None if self.limit is None or other.limit is None else self.limit + other.limit
            self.admitted_share = min(self.admitted_share, other.admitted_share)
            self.settings = other.settings
            if other.modes:
                _add(self.modes, other.modes)
        self.active += other.active
        self.saturated += other.saturated
        self.unhealthy += other.unhealthy


@dataclass(slots=True)
class ServerReport:
    """One service's server half.

    Totals: ``requests`` by reason (``admitted`` if not refused) and criticality;
    ``waits``; ``callers`` by name and reason, each with the number of requests and the sum of their waits in seconds;
    ``abandoned`` requests.

    Gauges: ``active`` requests; in how many processes it is ``shedding``, and has ``stepped_aside``; ``signals``, how
    many processes read the wait where; the accept queue that is fullest, ``backlog`` of ``backlog_limit``;
    ``threshold_s``, the least wait beyond which any of them now refuses, before criticality is looked at;
    ``deadline_s``, the least one; ``modes``, in how many processes it is in one other than ``enforce``.
    """

    service: str
    requests: dict[tuple[str, str], int] = field(default_factory=dict)
    waits: Histogram = field(default_factory=Histogram)
    callers: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)
    abandoned: int = 0
    active: int = 0
    shedding: int = 0
    stepped_aside: int = 0
    signals: Counts = field(default_factory=dict)
    backlog: int | None = None
    backlog_limit: int | None = None
    threshold_s: float | None = None
    deadline_s: float | None = None
    modes: Counts = field(default_factory=dict)

    @classmethod
    def of(cls, seen: ShedderSnapshot) -> "ServerReport":
        """Return the report of one shedder in this process."""
        # Those withdrawn too: what a total has counted it cannot take back, or it would seem to have begun anew.
        admitted = Counter(seen.admitted) + Counter(seen.withdrawn)
        requests = {(ADMITTED, criticality.value): times for criticality, times in admitted.items()}
        requests |= {(reason.value, criticality.value): times for (reason, criticality), times in seen.shed.items()}
        queue = seen.accept_queue
        return cls(
            seen.service,
            requests={key: times for key, times in requests.items() if times},
            waits=seen.waits,
            callers={
                (caller, ADMITTED if why is None else why.value): sums for (caller, why), sums in seen.callers.items()
            },
            abandoned=seen.abandoned,
            active=seen.in_flight,
            shedding=int(seen.shedding),
            stepped_aside=int(seen.stepped_aside),
            signals={seen.signal: 1},
            backlog=None if queue is None else queue.depth,
            backlog_limit=None if queue is None else queue.limit,
            threshold_s=min(seen.thresholds.values(), default=None),
            deadline_s=seen.settings.deadline_s,
            modes={} if seen.mode is Mode.ENFORCE else {seen.mode.value: 1},
        )

    def add(self, other: "ServerReport") -> None:
        """Take in what another process, or another shedder of this one, says of the same service."""
        for key, times in other.requests.items():
            self.requests[key] = self.requests.get(key, 0) + times
        for edge, (times, wait_s) in other.callers.items():
            known = self.callers.get(edge, (0, 0.0))
            self.callers[edge] = known[0] + times, known[1] + wait_s
        self.waits.merge(other.waits)
        _add(self.signals, other.signals)
        self.abandoned += other.abandoned
        self.active += other.active
        self.shedding += other.shedding
        self.stepped_aside += other.stepped_aside
        if other.backlog is not None and (self.backlog is None or other.backlog > self.backlog):
            self.backlog, self.backlog_limit = other.backlog, other.backlog_limit
        self.threshold_s = _least(self.threshold_s, other.threshold_s)
        self.deadline_s = _least(self.deadline_s, other.deadline_s)
        _add(self.modes, other.modes)


@dataclass(slots=True)
class StoreReport:
    """One store of live settings. ``versions``: how many processes run which; ``age_s``: the oldest of them.

    ``unreachable`` counts processes that cannot read it; ``rejected`` is a total.
    """

    store: str
    versions: Counts = field(default_factory=dict)
    age_s: float | None = None
    unreachable: int = 0
    rejected: int = 0

    def add(self, other: "StoreReport") -> None:
        """Take in what another process says of the same store."""
        _add(self.versions, other.versions)
        ages = [age_s for age_s in (self.age_s, other.age_s) if age_s is not None]
        self.age_s = max(ages, default=None)
        self.unreachable += other.unreachable
        self.rejected += other.rejected


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """Who reported. ``written_at``: seconds since the epoch.

    ``settings``: each store of live settings that it follows, the version in force (None: what code declares) and how
    many seconds ago that was last known to be the store's (None: never).
    """

    pid: int
    service: str | None
    written_at: float
    settings: Sequence[tuple[str, str | None, float | None]] = ()


@dataclass(slots=True)
class Report:
    """Everything, of one process or of several: by resource and command, by service, by store.

    ``edges``, a total: calls by the service that makes them, resource and outcome.
    ``processes``: those that live. ``unread``: files of a run directory that say nothing, and why.
    """

    commands: dict[tuple[str, str], CommandReport] = field(default_factory=dict)
    servers: dict[str, ServerReport] = field(default_factory=dict)
    stores: dict[str, StoreReport] = field(default_factory=dict)
    edges: dict[Edge, int] = field(default_factory=dict)
    internal_errors: Counts = field(default_factory=dict)
    processes: list[ProcessInfo] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)

    @property
    def is_idle(self) -> bool:
        """Whether no call and no request has been counted, and no error."""
        counted = any(command.calls for command in self.commands.values()) or any(
            server.requests for server in self.servers.values()
        )
        return not (counted or self.internal_errors)

    def stale(self, now: float, after_s: float = STALE_S) -> list[ProcessInfo]:
        """Return the living that have not written for longer than that. ``now``: seconds since the epoch."""
        return [each for each in self.processes if now - each.written_at > after_s]

    def add(self, other: "Report") -> None:
        """Take in another process's report."""
        for key, command in other.commands.items():
            self.commands.setdefault(key, CommandReport(*key)).add(command)
        self._add_rest(other)

    def take(self, other: "Report") -> None:
        """Take in another process's report that nobody uses any more: cheaper, for what is new is not copied."""
        mine = self.commands
        for key, command in other.commands.items():
            known = mine.get(key)
            if known is None:
                mine[key] = command
            else:
                known.add(command)
        self._add_rest(other)

    def add_command(self, command: CommandReport) -> None:
        """Take in one more command, which may be in several registries."""
        key = command.resource, command.command
        if key in self.commands:
            self.commands[key].add(command)
        else:
            self.commands[key] = command

    def _add_rest(self, other: "Report") -> None:
        for service, server in other.servers.items():
            self.servers.setdefault(service, ServerReport(service)).add(server)
        for name, store in other.stores.items():
            self.stores.setdefault(name, StoreReport(name)).add(store)
        for edge, times in other.edges.items():
            self.edges[edge] = self.edges.get(edge, 0) + times
        _add(self.internal_errors, other.internal_errors)
        self.processes += other.processes
        self.unread |= other.unread

    def draw_edges(self, service: str | None) -> None:
        """Fill ``edges`` from the commands, all of them of this service."""
        edges: dict[Edge, int] = {}
        caller = service or UNKNOWN
        for (resource, _), command in self.commands.items():
            for outcome, times in command.calls.items():
                edge = caller, resource, outcome
                edges[edge] = edges.get(edge, 0) + times
        self.edges = edges

    def bury(self) -> None:
        """Take away what only the living have, in a report of a process that has died."""
        for command in self.commands.values():
            command.states.clear()
            command.active = command.saturated = command.unhealthy = 0
            command.limit, command.admitted_share = 0, 1.0
            command.settings = {}
            command.modes.clear()
        for server in self.servers.values():
            server.signals.clear()
            server.active = server.shedding = server.stepped_aside = 0
            server.backlog = server.backlog_limit = server.threshold_s = server.deadline_s = None
            server.modes.clear()
        for store in self.stores.values():
            store.versions.clear()
            store.age_s, store.unreachable = None, 0
        self.processes.clear()


def _add(mine: Counts, theirs: Mapping[str, int]) -> None:
    for key, times in theirs.items():
        mine[key] = mine.get(key, 0) + times


def _least(mine: float | None, theirs: float | None) -> float | None:
    return min((each for each in (mine, theirs) if each is not None), default=None)


def merged(reports: Iterable[Report]) -> Report:
    """Return one report of all."""
    result = Report()
    for report in reports:
        result.add(report)
    return result
