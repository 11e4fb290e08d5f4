"""The one value that the page, the terminal and the hub show: plain JSON, with units in the names of its fields.

A view is made from reports by :mod:`groundfault.console.observing`, once a second. What it counts, it counts over the
last ``window_s`` seconds; the *points* of ``spark`` and ``bad`` are two minutes of two-second means, the oldest first,
None where nothing is known. What nobody knows is said in ``unknown``, in words.
"""

from typing import Final, Literal, NotRequired, TypedDict

__all__ = [
    "FORMAT",
    "POINTS",
    "POINT_S",
    "WINDOW_S",
    "CommandRow",
    "Episode",
    "EpisodeKind",
    "Headline",
    "HostRow",
    "Level",
    "MapEdge",
    "MapNode",
    "MapView",
    "ProcessRow",
    "ServerRow",
    "StoreRow",
    "View",
]

FORMAT: Final = 1
WINDOW_S: Final = 10.0
POINT_S: Final = 2.0
POINTS: Final = 60

Level = Literal["ok", "warn", "bad"]
"""``bad``: users suffer, or are refused, now. ``warn``: something is near its limit, or held back; words say what."""

EpisodeKind = Literal[
    "circuit", "shedding", "concurrency", "throttle", "saturated", "unhealthy", "settings", "process", "host", "gap"
]


class CommandRow(TypedDict):
    """One command of one service, all processes together.

    ``id`` is unique in the view and stays. ``counts`` by outcome, those above zero; ``rate_per_s`` of all outcomes.
    ``error_share``: failures and timeouts among the calls that were made and judged (with successes), 0.0 to 1.0.
    ``states``: in how many processes the circuit stands where; ``state``: the worst of them.
    ``limit``: of all processes together, None where one has none. ``modes``: processes in a mode other than enforce.
    ``saturated``, ``unhealthy``: in how many processes. ``settings``: those in force, by name, of one process.
    ``level`` and ``why``: how bad it is, and every reason in words, the worst first; ``trouble`` grows with it.
    ``bad``: calls per second that failed, timed out, were shed or never made; empty if there were none in two minutes.
    """

    id: str
    service: str | None
    resource: str
    command: str
    level: Level
    why: list[str]
    trouble: float
    rate_per_s: float
    counts: dict[str, int]
    error_share: float
    fallbacks: int
    p50_s: float | None
    p90_s: float | None
    p99_s: float | None
    in_flight: int
    limit: int | None
    state: str
    states: dict[str, int]
    modes: dict[str, int]
    admitted_share: float
    saturated: int
    unhealthy: int
    processes: int
    settings: dict[str, float]
    spark: list[float | None]
    bad: list[float | None]


class ServerRow(TypedDict):
    """One service's server half, all processes together.

    ``counts``: requests, ``admitted`` and by reason of refusal. ``goodput_per_s``: admitted and not abandoned.
    ``wait_p50_s``, ``wait_p99_s``: how long requests had waited; beyond ``threshold_s`` one is refused now.
    ``shedding``, ``stepped_aside``: in how many processes. ``spark``: requests, ``bad``: refusals, both per second.
    """

    service: str
    level: Level
    why: list[str]
    rate_per_s: float
    goodput_per_s: float
    counts: dict[str, int]
    criticalities: dict[str, dict[str, int]]
    shed_share: float
    abandoned: int
    wait_p50_s: float | None
    wait_p99_s: float | None
    threshold_s: float | None
    deadline_s: float | None
    in_flight: int
    shedding: int
    stepped_aside: int
    modes: dict[str, int]
    signals: dict[str, int]
    backlog: int | None
    backlog_limit: int | None
    processes: int
    spark: list[float | None]
    bad: list[float | None]


class MapNode(TypedDict):
    """``kind`` as in :class:`groundfault.servicemap.graph.Node`. ``layer``: from 0, callers first; ``row``: in it.

    ``suffers``: its calls fail, or are refused. ``sheds``: it refuses on purpose.
    """

    name: str
    kind: str
    layer: int
    row: int
    level: Level
    suffers: bool
    sheds: bool
    notes: list[str]


class MapEdge(TypedDict):
    """Shares are of the calls, 0.0 to 1.0. ``back``: it leads to the same or an earlier layer, and closes a circle."""

    caller: str
    callee: str
    resource: str | None
    rate_per_s: float
    failed_share: float
    shed_share: float
    not_sent_share: float
    wait_s: float | None
    level: Level
    back: bool
    notes: list[str]


class MapView(TypedDict):
    """Who calls whom, in layers."""

    nodes: list[MapNode]
    edges: list[MapEdge]
    notes: list[str]


class Episode(TypedDict):
    """Something that began and, unless ``ended_at`` is None, ended; a moment if both are the same.

    ``subject``: ``resource/command``, a service, a store, a process or a host. ``what``: in words.
    ``numbers``: what there is to count, such as ``{"refused": 1200, "processes": 3}``.
    """

    id: str
    kind: EpisodeKind
    level: Level
    service: str | None
    subject: str
    what: str
    began_at: float
    ended_at: float | None
    numbers: dict[str, float]
    by: NotRequired[str]
    reason: NotRequired[str]


class StoreRow(TypedDict):
    """A store of live settings: how many processes run which version, and how many are not at the ``newest``.

    ``newest``: what most of those that read the store last run; None where nobody has read it.
    ``lag_s``: since when some of them are behind, 0.0 where none is.
    """

    store: str
    versions: dict[str, int]
    newest: str | None
    behind: int
    lag_s: float
    age_s: float | None
    unreachable: int
    rejected: int


class ProcessRow(TypedDict):
    """A living process. ``age_s``: how old its last report is; ``stale``: too old to be believed."""

    pid: int
    host: str | None
    service: str | None
    age_s: float
    stale: bool
    versions: dict[str, str | None]


class HostRow(TypedDict):
    """A host as the hub sees it. ``state``: ``live``, ``late``, ``gone`` or ``unreadable``; ``why`` in words.

    ``skew_s``: by how much its clock is ahead of the hub's; None where that is not known.
    """

    host: str
    state: str
    why: str
    age_s: float
    skew_s: float | None
    release: str | None
    services: list[str]
    processes: int


class Headline(TypedDict):
    """The strip at the top.

    ``goodput_per_s``: requests admitted and not abandoned, or, where nothing is served, calls that succeeded.
    ``open_circuits``: commands with an open circuit in any process; ``saturated``: resources whose limit is reached, or
    whose callee only refuses. ``behind``: processes that do not run the newest settings, for ``lag_s``.
    """

    level: Level
    words: str
    rate_per_s: float
    goodput_per_s: float
    shed_share: float
    wait_p99_s: float | None
    threshold_s: float | None
    open_circuits: int
    saturated: int
    commands: int
    processes: int
    stale: int
    hosts: int
    behind: int
    lag_s: float
    version: str | None
    spark: list[float | None]
    bad: list[float | None]


class View(TypedDict):
    """All of it.

    ``made_at``: seconds since the epoch, by the clock of who made it; ``sequence`` grows by one each time.
    ``kind``: ``host``, all processes of a run directory; ``process``, one alone; ``hub``, several hosts.
    ``interval_s``: how often a new one is made at present. ``hidden``: commands left out, for there were too many.
    """

    format: int
    release: str
    kind: Literal["host", "process", "hub"]
    title: str
    host: str
    made_at: float
    sequence: int
    interval_s: float
    window_s: float
    point_s: float
    headline: Headline
    servers: list[ServerRow]
    commands: list[CommandRow]
    hidden: int
    map: MapView
    timeline: list[Episode]
    stores: list[StoreRow]
    processes: list[ProcessRow]
    hosts: list[HostRow]
    internal_errors: dict[str, int]
    unknown: list[str]
