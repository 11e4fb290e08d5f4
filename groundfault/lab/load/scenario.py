"""What a scenario is: who arrives when, for what, and what must come of it. Pure; nothing here imports Locust.

A scenario file holds one :class:`Scenario` and one user class that names it::

    SCENARIO = Scenario(name="gronk-spike", lanes=(Lane("fan", "/lineup/{n}"),), curve=curve)

    class Fans(ArrivalUser):
        scenario = SCENARIO
"""

from argparse import Namespace
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import isfinite
from typing import Any, Final, Protocol

from groundfault.lab.curves import Curve
from groundfault.lab.load.targets import Target

__all__ = ["Lane", "Options", "Played", "Request", "Scenario", "one_of"]

NUMBERS: Final = 499
"""``{n}`` in a path becomes a number from 1 to this."""


class Options(Protocol):
    """Where a scenario adds options of its own: a group of the command line's parser."""

    def add_argument(self, *names: str, **settings: Any) -> Any:
        """Add an option, as ``argparse`` does."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent. ``path`` starts with a slash; ``{n}`` in it becomes a random number.

    ``name`` is the line that it counts to in Locust's own statistics, None for the path.
    Raises ValueError for a path or a method that can not be sent.
    """

    path: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    name: str | None = None

    def __post_init__(self) -> None:
        if not self.path.startswith("/") or self.path.startswith("//"):
            raise ValueError(f"path must start with one slash, not {self.path!r:.200}")
        if not self.path.isascii() or any(letter <= " " or letter == "\x7f" for letter in self.path):
            raise ValueError(f"path must be of visible ASCII letters, percent-encoded, not {self.path!r:.200}")
        if "{" in self.path.replace("{n}", "") or "}" in self.path.replace("{n}", ""):
            raise ValueError(f"path may hold {{n}} and no other braces, not {self.path!r:.200}")
        if not self.method.isascii() or not self.method.isalpha() or not self.method.isupper():
            raise ValueError(f"method must be of capital letters, not {self.method!r:.40}")
        for name, value in self.headers.items():
            if not name or any(letter in f"{name}{value}" for letter in "\r\n\0") or ":" in name:
                raise ValueError(f"header {name!r:.40} must be one line, not {value!r:.80}")


Choose = Callable[[int, float], Request]
"""The request of the arrival with this number, given a number drawn for it from [0, 1); on all machines the same."""


def one_of(requests: Sequence[tuple[Request, float]]) -> Choose:
    """Return a mix: each of these requests as often as its weight says.

    Raises ValueError if there are none, or for a weight that is negative or not finite.
    """
    if not requests:
        raise ValueError("a mix must hold at least 1 request, not 0")
    for number, (_, weight) in enumerate(requests):
        if not (isfinite(weight) and weight >= 0):
            raise ValueError(f"weight[{number}] must be at least 0, not {weight:g}")
    bounds = list(accumulate(weight for _, weight in requests))
    if bounds[-1] <= 0:
        raise ValueError("one weight of a mix must be above 0")
    last = len(requests) - 1

    def choose(_number: int, drawn: float) -> Request:
        return requests[min(bisect_right(bounds, drawn * bounds[-1]), last)][0]

    return choose


def _success(status: int) -> bool:
    return 200 <= status < 400  # noqa: PLR2004  HTTP's own numbers


@dataclass(frozen=True, slots=True)
class Lane:
    """One stream of arrivals, counted by itself.

    ``request``: a path, a :class:`Request`, pairs of requests and weights, or a callable that is given the arrival's
    number and one drawn from [0, 1) and returns a Request; it must be pure, for every driver asks its own copy.
    ``share``: how many of them arrive for each one that the curve has. ``innocent``: they need nothing that is scarce.
    ``curve``: one of its own, in place of the scenario's. ``method``, ``headers`` and ``body`` go with a path.
    ``success``: statuses that are a good answer; None: 2xx and 3xx.
    ``deadline_s``: seconds after which this one gives up; None: the scenario's.
    Raises ValueError, naming the field.
    """

    name: str
    request: str | Request | Sequence[tuple[Request, float]] | Choose
    share: float = 1.0
    innocent: bool = False
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    success: frozenset[int] | None = None
    deadline_s: float | None = None
    curve: Curve | None = None
    choose: Choose = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.name or any(letter in self.name for letter in "@<>=. \t\n"):
            raise ValueError(f"name of a lane must be a word without @, <, >, = and dots, not {self.name!r:.80}")
        if not (isfinite(self.share) and self.share >= 0):
            raise ValueError(f"share of {self.name} must be at least 0, not {self.share:g}")
        if self.deadline_s is not None and not (isfinite(self.deadline_s) and self.deadline_s > 0):
            raise ValueError(f"deadline_s of {self.name} must be above 0, not {self.deadline_s:g}")
        object.__setattr__(self, "choose", self._chooser())

    def _chooser(self) -> Choose:
        wanted = self.request
        if isinstance(wanted, str):
            wanted = Request(wanted, self.method, self.headers, self.body)
        if isinstance(wanted, Request):
            only = wanted
            return lambda _number, _drawn: only
        return wanted if callable(wanted) else one_of(wanted)

    def succeeds(self, status: int) -> bool:
        """Return whether an answer with this status is a good one."""
        return _success(status) if self.success is None else status in self.success


@dataclass(frozen=True, slots=True)
class Played:
    """A curve played faster or slower: all its times multiplied by ``scale``; rates stay as they are."""

    curve: Curve
    scale: float = 1.0

    @property
    def total_s(self) -> float:
        """How long it all takes, in seconds."""
        return self.curve.total_s * self.scale

    @property
    def peak_rps(self) -> float:
        """The highest rate, in requests per second."""
        return self.curve.peak_rps

    def rate(self, t: float) -> float:
        """Return the requests per second due at that moment."""
        return self.curve.rate(t / self.scale)

    def expected(self, start: float, end: float) -> float:
        """Return how many requests are due between two moments on average."""
        return self.curve.expected(start / self.scale, end / self.scale) * self.scale


def _no_options(_group: Options) -> None:
    """Add none."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A load and what must come of it. Everything that is a callable is given the parsed options.

    ``name``: a word; ``title``: a line for a report, the name by default. ``lanes``: the streams, or a callable that
    returns them. ``curve``: returns the arrivals per second of a lane with the share 1. ``spans``: returns named
    stretches ``(start, end)`` in seconds; ``spike`` is the one that matters most. ``bounds``: what must come of it,
    expressions as in :mod:`groundfault.lab.runs.measures`, or a callable that returns them.
    ``options``: adds options of its own to a group of the parser. ``timeline``: returns ``(t, action, text)``: at ``t``
    seconds the target is asked to ``act(action)``, and ``text`` is marked; an empty action only marks.
    ``target``: returns what is started where no ``--host`` is given; None: there must be one.
    ``source``: what run.json names as its source. ``settings``: returns what run.json holds of the options; None: all
    that are the scenario's own.

    ``options.capacity`` is what the scarce service can do, in good answers per second: what ``--capacity`` says, else
    what the target knows of itself, else None, as it always is while the options are being checked, before anything
    has started. All times stretch with ``--scale-time``: the callables never see it.
    """

    name: str
    lanes: Sequence[Lane] | Callable[[Namespace], Sequence[Lane]]
    curve: Callable[[Namespace], Curve]
    title: str = ""
    spans: Callable[[Namespace], Mapping[str, tuple[float, float]]] = field(default=lambda _: {})
    bounds: Sequence[str] | Callable[[Namespace], Sequence[str]] = ()
    options: Callable[[Options], None] = _no_options
    timeline: Callable[[Namespace], Sequence[tuple[float, str, str]]] = field(default=lambda _: ())
    target: Callable[[Namespace], Target] | None = None
    deadline_s: float = 1.0
    source: str = "locust"
    settings: Callable[[Namespace], Mapping[str, Any]] | None = None
