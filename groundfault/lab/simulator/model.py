"""What a scenario says, as values: services, calls, streams of requests, and what happens when. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from groundfault.lab.curves import Curve
from groundfault.lab.runs.measures import Bound
from groundfault.lab.simulator.distributions import NOTHING, Distribution
from groundfault.vocabulary import Criticality

__all__ = [
    "VARIANTS",
    "Action",
    "Again",
    "Balance",
    "Cache",
    "Call",
    "Cold",
    "Happening",
    "Network",
    "Protection",
    "Retries",
    "Rule",
    "Scenario",
    "Service",
    "Stream",
    "Thrash",
    "Work",
]


class Protection(StrEnum):
    """What protects a service, and the calls it makes.

    * ``groundfault``: the shedder, annotated 503s, commands, and faults from below passed on as annotated 503s.
    * ``plain-503``: the same shedder and the same breakers, but nothing is annotated: each 503 is a failure.
    * ``breakers-only``: commands and nothing else.
    * ``unprotected``: timeouts and nothing else.
    """

    GROUNDFAULT = "groundfault"
    PLAIN = "plain-503"
    BREAKERS = "breakers-only"
    NONE = "unprotected"


VARIANTS: Final = tuple(each.value for each in Protection)


class Balance(StrEnum):
    """How calls to a service choose one of its instances."""

    ROUND_ROBIN = "round-robin"
    RANDOM = "random"
    LEAST_LOADED = "least-loaded"
    TWO_CHOICES = "two-choices"


class Rule(StrEnum):
    """After what a call is tried again.

    * ``plain``: whatever went wrong, if the call was made at all.
    * ``groundfault``: only what the callee refused doing nothing, once, elsewhere, and while nothing is throttled.
    """

    PLAIN = "plain"
    GROUNDFAULT = "groundfault"


class Action(StrEnum):
    """What happens to a service at a moment."""

    SLOW = "slow"
    FAIL = "fail"
    HANDLED = "handled"
    DOWN = "down"
    HANG = "hang"
    DEPLOY = "deploy"
    SCALE = "scale"
    CLEAR_CACHES = "clear-caches"


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a request costs a service by itself: before its calls, and after them. Seconds of CPU, and of waiting."""

    cpu: Distribution = NOTHING
    wait: Distribution = NOTHING
    after_cpu: Distribution = NOTHING
    after_wait: Distribution = NOTHING

    @property
    def mean_s(self) -> float:
        """All of it, on average."""
        return self.cpu.mean_s + self.wait.mean_s + self.after_cpu.mean_s + self.after_wait.mean_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Cache:
    """In front of a call: the share of calls it saves when warm, 0 after it was cleared.

    It warms by the clock: to 63 % in ``warm_s``; or by what is fetched: in ``warm_fetches`` fetches. Neither: at once.
    """

    hit: float
    warm_s: float | None = None
    warm_fetches: float | None = None
    cold: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Retries:
    """How often a call is tried again, after how long; ``budget``: as a share of first tries, None for no bound."""

    rule: Rule = Rule.PLAIN
    most: int = 1
    backoff_s: float = 0.0
    factor: float = 2.0
    jitter: bool = True
    budget: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A call that a service makes for a request: to whom, of which routes (None: all), how often, how guarded.

    ``together``: calls in a row with the same word are made at once; ``parallel``: the ``count`` calls of this one are.
    ``required``: without its answer the request fails; else something is served in its place.
    """

    to: str
    name: str
    routes: tuple[str, ...] | None = None
    probability: float = 1.0
    count: int = 1
    parallel: bool = False
    together: str | None = None
    timeout_s: float | None = None
    required: bool = True
    cache: Cache | None = None
    retries: Retries | None = None
    breaker: Mapping[str, Any] = field(default_factory=dict)
    protection: Protection | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Thrash:
    """With more than ``above`` at once in one instance, each takes ``slope`` of its time longer for each one more."""

    above: int
    slope: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Cold:
    """A new instance takes ``factor`` times as long at first, and as long as usual after ``warm_s``."""

    factor: float
    warm_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """One way to a service: how long it takes, and which share of messages has to be sent again after ``resend_s``."""

    delay: Distribution = NOTHING
    loss: float = 0.0
    resend_s: float = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """A service. ``threads``: of each worker, or None for an event loop. ``clock_s``: the kernel's tick, 0 for none."""

    name: str
    instances: int = 1
    workers: int = 1
    threads: int | None = 1
    backlog: int = 2048
    work: Work = field(default_factory=Work)
    routes: Mapping[str, Work] = field(default_factory=dict)
    shed_cost_s: float = 0.0003
    shedder: bool = True
    deadline_s: float = 1.0
    max_concurrency: int | None = None
    clock_s: float = 0.0
    balance: Balance = Balance.ROUND_ROBIN
    protection: Protection | None = None
    thrash: Thrash | None = None
    cold: Cold | None = None
    network: Network | None = None
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Again:
    """Users who ask again: this share of those who got nothing good, after so long, so often at most."""

    share: float
    delay: Distribution
    most: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """Requests of one kind: to which service, how many when, how long their users wait.

    ``users``: how many there are; None: each request is of another one. ``even``: at even distances.
    """

    name: str
    to: str
    route: str
    curve: Curve
    scale: float = 1.0
    deadline_s: float = 1.0
    innocent: bool = False
    criticality: tuple[tuple[Criticality, float], ...] = ((Criticality.CRITICAL, 1.0),)
    users: int | None = None
    even: bool = False
    again: Again | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Happening:
    """Something that happens to a service: from ``at``, for ``for_s`` seconds or for good; to all instances or some."""

    at: float
    action: Action
    service: str
    text: str
    for_s: float | None = None
    instances: int | None = None
    factor: float = 1.0
    share: float = 1.0
    batch: int = 1
    notice_s: float = 1.0
    start_s: float = 5.0
    caller: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """Everything a simulation is made from. ``document``: what it was read from, as JSON can hold it.

    ``propagates``: callers say how long they still wait, how much a request matters, and for whom it is.
    """

    name: str
    title: str
    total_s: float
    services: Mapping[str, Service]
    streams: tuple[Stream, ...]
    happenings: tuple[Happening, ...] = ()
    spans: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    bounds: tuple[Bound, ...] = ()
    capacity_rps: float | None = None
    variant: Protection = Protection.GROUNDFAULT
    propagates: bool = True
    document: Mapping[str, Any] = field(default_factory=dict)
