"""What a simulated fleet is made of: services, their instances, the processes of these, and requests on their way."""

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from groundfault.lab.simulator import model
from groundfault.lab.simulator.counting import EdgeCounts, ServiceCounts
from groundfault.lab.simulator.model import Balance, Protection
from groundfault.vocabulary import Criticality, State

if TYPE_CHECKING:
    from groundfault.breaker.attempt import Attempt
    from groundfault.breaker.command import Command
    from groundfault.events import CircuitChanged
    from groundfault.lab.simulator.calendar import Calendar, Timers
    from groundfault.retries import RetryBudget
    from groundfault.shedding.shedder import Admission, Shedder
    from groundfault.vocabulary import Outcome
    from groundfault.wire import Refusal

__all__ = ["CircuitWatch", "Edge", "Instance", "Link", "Process", "Request", "ServiceState", "WorkDraws"]

Draw = Callable[[], float]


class Request:
    """One hop: what its caller knows of it, and what the service does that it is sent to.

    ``open``: its caller waits. ``left``: its caller has given it up. ``parent``: the request it is a call of, None for
    a user's. ``pending``: calls of its own that it waits for. ``fault``: the last of these that ended badly and was
    needed. ``budget_s``: what its caller said how long it waits; ``deadline``: the moment that this runs out.
    """

    __slots__ = (
        "admission",
        "arrived",
        "attempt",
        "budget_s",
        "criticality",
        "deadline",
        "depth",
        "due",
        "edge",
        "fault",
        "groups",
        "instance",
        "left",
        "open",
        "parent",
        "pending",
        "process",
        "refusal",
        "route",
        "service",
        "status",
        "step",
        "tries",
        "u",
        "work",
    )

    admission: "Admission | None"
    arrived: float
    attempt: "Attempt | None"
    budget_s: float | None
    criticality: Criticality
    deadline: float | None
    depth: int
    due: float
    edge: Any
    fault: "tuple[Edge, Outcome, Refusal | None] | None"
    groups: "list[tuple[Edge, ...]]"
    instance: Any  # an Instance, or None if there was none to send it to
    left: bool
    open: bool
    parent: "Request | None"
    pending: int
    process: "Process"
    refusal: "Refusal | None"
    route: str
    service: "ServiceState"
    status: int
    step: int
    tries: int
    u: float
    work: "WorkDraws"


class WorkDraws:
    """What a route costs a service, to be drawn. ``after``: whether it costs anything after its calls."""

    __slots__ = ("after", "after_cpu", "after_wait", "cpu", "has_cpu", "has_wait", "wait")

    def __init__(self, work: model.Work, dice: Random) -> None:
        self.cpu = work.cpu.draws(dice)
        self.wait = work.wait.draws(dice)
        self.after_cpu = work.after_cpu.draws(dice)
        self.after_wait = work.after_wait.draws(dice)
        self.has_cpu = work.cpu.mean_s > 0
        self.has_wait = work.wait.mean_s > 0
        self.after = work.after_cpu.mean_s + work.after_wait.mean_s > 0


class CircuitWatch:
    """Notes what a process's circuit does, for as long as its process is there."""

    __slots__ = ("_calendar", "_counts", "_not_closed", "_retired")

    def __init__(self, calendar: "Calendar", counts: EdgeCounts) -> None:
        self._calendar = calendar
        self._counts = counts
        self._not_closed = False
        self._retired = False

    def changed(self, event: "CircuitChanged") -> None:
        """Take note of a move."""
        if not self._retired:
            self._not_closed = event.new is not State.CLOSED
            self._counts.moved(self._calendar.now, event.old, event.new)

    def retire(self) -> None:
        """Take note that the process is going."""
        if self._not_closed and not self._retired:
            self._counts.gone(self._calendar.now)
        self._retired = True


class Link:
    """The client half of one process for one edge."""

    __slots__ = ("budget", "command", "watch")

    def __init__(self, command: "Command | None", budget: "RetryBudget | None", watch: CircuitWatch) -> None:
        self.command = command
        self.budget = budget
        self.watch = watch


class Edge:
    """Calls of one kind from one service to another. ``warm``: the share of its hit ratio that its cache has.

    ``tells``: the callee learns how long its caller waits.
    """

    __slots__ = (
        "callee",
        "caller",
        "counts",
        "hit_at",
        "honors",
        "index",
        "protection",
        "said",
        "tells",
        "timers",
        "warm",
        "warmed_at",
    )

    def __init__(
        self, caller: "ServiceState", callee: "ServiceState", said: model.Call, protection: Protection
    ) -> None:
        self.caller = caller
        self.callee = callee
        self.said = said
        self.protection = protection
        self.honors = protection is Protection.GROUNDFAULT
        self.index = len(caller.edges)
        self.counts = EdgeCounts(caller.name, callee.name)
        self.warm = 0.0 if said.cache is not None and said.cache.cold else 1.0
        self.warmed_at = 0.0
        self.tells = False
        self.timers: Timers


class Process:
    """One worker: its own shedder, its own circuits, one CPU."""

    __slots__ = ("instance", "links", "ready", "shedder", "spending")

    def __init__(self, instance: "Instance", shedder: "Shedder | None", links: list[Link]) -> None:
        self.instance = instance
        self.shedder = shedder
        self.links = links
        self.ready: deque[tuple[Request, float | None, Callable[[Request], None] | None]] = deque()
        self.spending = False


class Instance:
    """One host of a service: one accept queue, and the processes that take from it.

    ``free``: the threads that have nothing to do, as their processes; whoever was idle longest is next.
    ``load``: requests whose callers wait for it. ``inside``: requests being worked on.
    """

    __slots__ = (
        "born",
        "fails",
        "free",
        "hangs",
        "inside",
        "load",
        "plain",
        "processes",
        "queue",
        "refuses",
        "service",
        "shams",
        "slow",
        "turn",
    )

    def __init__(self, service: "ServiceState", born: float | None) -> None:
        self.service = service
        self.born = born  # None: warm from the start
        self.processes: list[Process] = []
        self.queue: deque[Request] = deque()
        self.free: deque[Process] = deque()
        self.load = 0
        self.inside = 0
        self.turn = 0
        self.slow = 1.0
        self.fails = 0.0
        self.shams = 0.0  # share of requests that are refused with an annotated 503 for no reason
        self.refuses = False
        self.hangs = False
        self.plain = True
        self.renew()

    def renew(self) -> None:
        """Note whether anything is the matter."""
        said = self.service.said
        cold = said.cold is not None and self.born is not None
        self.plain = not (
            cold
            or said.thrash is not None
            or self.slow != 1.0
            or self.fails
            or self.shams
            or self.refuses
            or self.hangs
        )

    def pace(self, now: float) -> float:
        """Return how many times as long as usual work that begins now takes."""
        said, pace = self.service.said, self.slow
        if said.thrash is not None and self.inside > said.thrash.above:
            pace *= 1 + said.thrash.slope * (self.inside - said.thrash.above)
        if said.cold is not None and self.born is not None:
            left = 1 - (now - self.born) / said.cold.warm_s
            if left > 0:
                pace *= 1 + (said.cold.factor - 1) * left
        return pace


class ServiceState:
    """A service as it is: its instances in rotation, and what its routes cost and call."""

    __slots__ = (
        "_draw",
        "_turn",
        "balance",
        "clock_s",
        "counts",
        "edges",
        "groups",
        "instances",
        "name",
        "network",
        "protection",
        "said",
        "single",
        "usual",
        "works",
    )

    def __init__(self, said: model.Service, protection: Protection, dice: Random) -> None:
        self.name = said.name
        self.said = said
        self.protection = protection
        self.balance = said.balance
        self.clock_s = said.clock_s
        self.single = said.threads == 1
        self.instances: list[Instance] = []
        self.edges: list[Edge] = []
        self.groups: dict[str, list[tuple[Edge, ...]]] = {}
        self.counts = ServiceCounts(said.name)
        self.usual = WorkDraws(said.work, dice)
        self.works = {route: WorkDraws(work, dice) for route, work in said.routes.items()}
        self.network = None if said.network is None else said.network.delay.draws(dice)
        self._draw = dice.random
        self._turn = 0

    def pick(self, other_than: Instance | None = None) -> Instance | None:
        """Return the instance that the next call goes to, None if there is none."""
        instances = self.instances
        size = len(instances)
        if size <= 1:
            return instances[0] if size else None
        found = self._pick(instances, size)
        if found is other_than:
            found = instances[(instances.index(found) + 1) % size]
        return found

    def _pick(self, instances: list[Instance], size: int) -> Instance:
        if self.balance is Balance.ROUND_ROBIN:
            self._turn = turn = (self._turn + 1) % size
            return instances[turn]
        first = instances[int(self._draw() * size)]
        if self.balance is Balance.RANDOM:
            return first
        if self.balance is Balance.TWO_CHOICES:
            second = instances[int(self._draw() * size)]
            return second if second.load < first.load else first
        self._turn = turn = (self._turn + 1) % size  # among equals they take turns, as balancers let them
        return min(instances[turn:] + instances[:turn], key=_load)

    def groups_of(self, route: str) -> list[tuple[Edge, ...]]:
        """Return the calls that a request of this route makes, in groups that are made at once."""
        made = self.groups.get(route)
        if made is None:
            made = self.groups[route] = list(_grouped(self.edges, route))
        return made


def _load(instance: Instance) -> int:
    return instance.load


def _grouped(edges: list[Edge], route: str) -> list[tuple[Edge, ...]]:
    groups: list[tuple[Edge, ...]] = []
    word: str | None = None
    for edge in edges:
        said = edge.said
        if said.routes is not None and route not in said.routes:
            continue
        calls = (edge,) * said.count
        if said.together is not None and said.together == word:
            groups[-1] += calls
        elif said.parallel or said.together is not None:
            groups.append(calls)
        else:
            groups += [(edge,)] * said.count
        word = said.together
    return groups
