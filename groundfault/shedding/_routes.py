"""What is remembered about one route, and the bounds on how many there are. Pure: ``now`` is an argument."""

from functools import lru_cache
from math import inf, log2
from typing import Final

__all__ = ["OTHER", "Baseline", "Crowd", "Rate", "Route", "Routes", "route_of"]

OTHER: Final = "other"
"""The route of all requests beyond the first 256 routes."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ._~-")
_MAX_SEGMENT: Final = 32
_MAX_SEGMENTS: Final = 4
_MAX_CACHED_PATH: Final = 256

# Of the module and not of the classes below: through an instance a constant of its class costs 50 ns at each use.
_BUCKETS: Final = 8
_PER_S: Final = 8.0
_BUCKET_S: Final = 5.0
_SPAN_S: Final = 60.0
_ENOUGH: Final = 10
_FLOOR_S: Final = 1e-5
_CELLS: Final = 88  # up to 41 s
_EWMA: Final = 1 / 8
_HALF_S: Final = 300.0
_MEAN_OF: Final = 64
_CALM: Final = 1.5


def route_of(method: str, path: str) -> str:
    """Fold a request line into a label: few enough to keep state for, and safe to show anywhere.

    A segment that holds a digit or anything but letters and ``._~-``, or is longer than 32 characters, becomes ``*``.
    After the fourth segment the rest becomes ``**``; a method outside the usual ones becomes ``OTHER``.
    """
    if len(path) > _MAX_CACHED_PATH:  # the cache must not hold what a client can make long
        return _fold(method, path[:_MAX_CACHED_PATH])
    return _cached_fold(method if method in _METHODS else "OTHER", path)


def _fold(method: str, path: str) -> str:
    segments = path.split("/", _MAX_SEGMENTS + 1)[1:]
    kept = [
        segment if len(segment) <= _MAX_SEGMENT and _PLAIN.issuperset(segment) else "*"
        for segment in segments[:_MAX_SEGMENTS]
    ]
    if len(segments) > _MAX_SEGMENTS:
        kept.append("**")
    return f"{method if method in _METHODS else 'OTHER'} /{'/'.join(kept)}"


_cached_fold = lru_cache(maxsize=2048)(_fold)


class Rate:
    """Completions per second: the second-highest of the last eight buckets of 125 ms.

    A server that is busy completes at its capacity in every bucket; one with gaps does so in the full ones.
    The highest is left out because it may hold a burst that had piled up behind a pause.
    """

    __slots__ = ("_counts", "_slot")

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self._slot = 0

    def _advance(self, now: float) -> None:
        slot = int(now * _PER_S)
        gone = slot - self._slot
        if gone >= _BUCKETS:
            self._counts = [0] * _BUCKETS
        else:
            for passed in range(self._slot + 1, slot + 1):
                self._counts[passed % _BUCKETS] = 0
        self._slot = max(slot, self._slot)

    def count(self, now: float) -> None:
        """Count one completion."""
        slot = int(now * _PER_S)
        if slot != self._slot:
            self._advance(now)
            slot = self._slot
        self._counts[slot % _BUCKETS] += 1

    def per_s(self, now: float) -> float:
        """Return completions per second; 0.0 if fewer than two buckets hold any."""
        self._advance(now)
        return sorted(self._counts)[-2] * _PER_S

    def mean_per_s(self, now: float) -> float:
        """Return completions per second over the last seven buckets that are over."""
        self._advance(now)
        current = self._counts[self._slot % _BUCKETS]
        return (sum(self._counts) - current) * _PER_S / (_BUCKETS - 1)


class Baseline:
    """The service time when nothing is wrong: the least of the last minute's medians over 5 s.

    A median is of ten samples at least: where there are fewer in 5 s it is taken over as long as ten need, up to a
    minute. A worker of half a second a request sees no more than that, and would be taken for one of 20 ms:
    ``service_s`` until a median is known.
    Samples are counted in a histogram of quarter octaves, so the result is right to a tenth at constant cost.
    """

    __slots__ = ("_counts", "_medians", "_since", "_total", "service_s")

    START_S: Final = 0.02

    def __init__(self, now: float) -> None:
        self.service_s = self.START_S
        self._since = now
        self._counts = [0] * _CELLS
        self._total = 0
        self._medians: list[tuple[float, float]] = []

    def sample(self, now: float, seconds: float) -> bool:
        """Count one service time; return true if ``service_s`` was looked at anew."""
        gone_s = now - self._since
        renewed = gone_s >= _BUCKET_S and (self._total >= _ENOUGH or gone_s >= _SPAN_S)
        if renewed:
            self._close(now)
        cell = int(4 * log2(seconds / _FLOOR_S)) if seconds > _FLOOR_S else 0
        self._counts[min(cell, _CELLS - 1)] += 1
        self._total += 1
        return renewed

    def _close(self, now: float) -> None:
        self._medians = [each for each in self._medians if now - each[0] <= _SPAN_S]
        if self._total >= _ENOUGH:
            self._medians.append((now, self._median()))
        if self._medians:
            self.service_s = min(median for _, median in self._medians)
        self._since = now
        self._counts = [0] * _CELLS
        self._total = 0

    def _median(self) -> float:
        left = (self._total + 1) // 2
        for cell, count in enumerate(self._counts):
            left -= count
            if left <= 0:
                return _FLOOR_S * float(2.0 ** ((cell + 0.5) / 4))
        return self.service_s


class Crowd:
    """What stands inside a route. Times are readings of the monotonic clock, -inf for never and inf for not now.

    ``onset``: when the first of this crowd was refused. ``queueing``: when the route was last found queueing.
    ``before``: completions per second at the onset. ``rate``: those of the first second after it.
    ``refused``: how many a second were. ``spared``: until when the route is not tightened, because it cost completions.
    """

    __slots__ = ("before", "onset", "queueing", "rate", "refused", "spared")

    def __init__(self) -> None:
        self.onset = inf
        self.queueing = -inf
        self.before = 0.0
        self.rate = 0.0
        self.refused = Rate()
        self.spared = -inf


class Route:
    """One route: how many of its requests are being worked on, how long they take, how many finish a second.

    A request is *open* from its admission until its answer begins: a client that reads slowly, or a stream that lasts
    for hours, says nothing about how fast this server answers.
    """

    __slots__ = (
        "_least",
        "_least_before",
        "_least_since",
        "_refused",
        "_samples",
        "_usual_s",
        "crowd",
        "done_at",
        "name",
        "open",
        "rate",
        "service_s",
        "sync",
        "used_at",
    )

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.open = 0
        self.service_s = 0.0  # 0.0: nothing has finished yet
        self.sync: bool | None = None  # None: not known
        self.rate = Rate()
        self.crowd = Crowd()
        self.used_at = now
        self.done_at = now
        self._least = inf
        self._least_before = inf
        self._least_since = now
        self._refused = False
        self._usual_s = 0.0
        self._samples = 0  # up to as many as the mean is of

    @property
    def calm_s(self) -> float:
        """How long a request takes on average when there is no queue inside; infinite until one has finished.

        Where times differ much from request to request, the least of many means of a few is far below what is usual.
        So this is a mean of many: of the first, then of all while the mean of a few is near it and no crowd stands.
        """
        return max(self._usual_s, self.natural_s)

    @property
    def natural_s(self) -> float:
        """How long a request takes when there is no queue inside: the least recent mean of the last 5 to 10 minutes.

        Infinite until one has finished. Time in which this route was refusing never raises it,
        or an overload that lasts would become what is natural.
        """
        return min(self._least, self._least_before)

    def enter(self, now: float) -> None:
        """Count a request that begins."""
        if self.open == 0:
            self.done_at = now  # nothing was open, so nothing could finish: patience starts here
        self.open += 1
        self.used_at = now

    def note_refusal(self, now: float) -> None:
        """Remember that this span of time is not a natural one, and since when requests are refused."""
        self._refused = True
        if self.crowd.onset == inf:
            self.crowd.onset = now
            self.crowd.before = self.rate.per_s(now)
        self.crowd.refused.count(now)

    def complete(self, now: float, seconds: float | None) -> None:
        """Count an answer that began ``seconds`` after the request was admitted; None keeps that out of the times."""
        self.done_at = now
        rate = self.rate
        slot = int(now * _PER_S)
        if slot == rate._slot:  # noqa: SLF001  as count(), without a call
            rate._counts[slot % _BUCKETS] += 1  # noqa: SLF001  as above
        else:
            rate.count(now)
        if seconds is None:
            return
        if self.service_s:
            self.service_s += (seconds - self.service_s) * _EWMA
        else:
            self.service_s = max(seconds, 1e-6)
        if now - self._least_since >= _HALF_S:
            self._least_before = min(self._least_before, self._least) if self._refused else self._least
            self._least = inf
            self._least_since = now
            self._refused = False
        if self.service_s < self._least:  # noqa: PLR1730  a call of min() costs a tenth of a microsecond
            self._least = self.service_s
        if self._samples < _MEAN_OF:
            self._samples += 1
        elif self.service_s > _CALM * self._usual_s or self.crowd.onset != inf:
            return
        self._usual_s += (seconds - self._usual_s) / self._samples

    def leave(self) -> None:
        """Take off a request whose answer begins, or that ended without one because its client has left."""
        if self.open:
            self.open -= 1


class Routes:
    """The routes of a process, at most 256 of them.

    A route is made when one of its requests has been answered, and until then shares the state of ``other``.
    Answers of 400 to 499 make none, and redirects and errors only while half of the places are free:
    whoever asks for paths that do not exist, or stands before a login, cannot use up the places.
    When all are taken, those idle for five minutes make room.
    """

    __slots__ = ("_looked_at", "_routes", "other")

    LIMIT: Final = 256
    _IDLE_S: Final = 300.0
    _LOOK_S: Final = 10.0

    def __init__(self, now: float) -> None:
        self.other = Route(OTHER, now)
        self._routes: dict[str, Route] = {}
        self._looked_at = -inf

    def find(self, name: str) -> Route:
        """Return the route's state, or that of ``other``."""
        return self._routes.get(name, self.other)

    def learn(self, name: str, now: float, *, sure: bool = True) -> None:
        """Make a state for the route unless there are too many; half as many where it is not sure that it is one."""
        if name in self._routes:
            return
        limit = self.LIMIT if sure else self.LIMIT // 2
        if sure and len(self._routes) >= limit:
            self._make_room(now)
        if len(self._routes) < limit:
            self._routes[name] = Route(name, now)

    def _make_room(self, now: float) -> None:
        if now - self._looked_at < self._LOOK_S:
            return
        self._looked_at = now
        self._routes = {
            name: route for name, route in self._routes.items() if route.open or now - route.used_at < self._IDLE_S
        }
