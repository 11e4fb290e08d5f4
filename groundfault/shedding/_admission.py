"""The control law: the wait ladder, and for event loops the forecast. Pure: no clock, no lock, no dice.

**The ladder.** Where requests wait upstream of the application, the wait of the request at hand is the signal.
No backlog: admit whatever has waited up to a burst tolerance ``N``, a quarter of the deadline.
A backlog that stands: admit below a threshold that falls within a second from ``N`` to ``T``, about one service time,
higher for what is more critical, and within a class higher for some users than for others, the same ones everywhere.
Whoever finds the queue clear is admitted always, and ends the backlog.

The state of a ladder moves on waits that the kernel measured and on settings, on nothing a request says about itself.

**The forecast.** Inside an event loop requests pile up where no kernel sees them: before a connection pool, a lock,
a slow dependency. Little's law says when the next one would be answered: (open + 1) / completions per second.
If that is too late for its deadline, it is refused; see :func:`crowded` for when the forecast is believed.

Feedback on a rate (DAGOR, PID, success rate) is too slow for a step to eight times the load, and adaptive concurrency
limits (Vegas, Gradient) refuse half of a load that is no overload when they start too low; neither is used here.
"""

from dataclasses import dataclass
from math import inf, sqrt
from typing import Final, NamedTuple

from groundfault.shedding._routes import Crowd, Route
from groundfault.vocabulary import Criticality

__all__ = [
    "Bounds",
    "Ladder",
    "TokenBucket",
    "bounds",
    "crowded",
    "forecast",
    "loop_bounds",
    "observe",
    "passes",
    "threshold",
]

BURST_SHARE: Final = 1 / 4
"""N as a share of the deadline: what a burst may wait. Half of it refuses more of what a pause piled up."""
BURST_SERVICES: Final = 3.0
"""N in service times at least: a slow service may hold three requests in a row."""
FLOOR_S: Final = 0.005
"""T at least: the kernel's clock ticks every 4 ms, usually."""
LOOP_TARGET_S: Final = 0.02
"""T of an event loop: its service times are mostly spent waiting elsewhere, so they are no measure for its queue."""
CLEAR_S: Final = 0.002
"""A wait up to this, or a quarter of T, means that nothing stood in the queue."""
TIGHTEN_S: Final = 0.75
"""How long the threshold takes from N to T: a pause of half a second drains meanwhile instead of being refused.

With the quarter of a second after which a queue is one by default, it is short a second after the load has risen.
"""
MEMORY_S: Final = 2.0
"""How long a backlog is remembered. Meanwhile another begins at a wait that rises from T to N, and starts at T.

Beginning at N as the first one does, an overload of 1.5 swings between N and nothing, and each swing refuses a whole
queue that has become too long for everybody: a quarter of a simulated server's critical-plus requests, against none.
It costs 2 % of goodput there. Beginning at T throughout doubles what is refused for nothing at 0.9 of capacity.
"""
STANDING_S: Final = 1.0
"""Every wait above T for so long is a backlog, even below N: the net under a deadline that is set far too long."""
STANDING_SERVICES: Final = 20.0
"""The same in service times at least."""
LULL_S: Final = 1.0
"""Without a request for so long, nothing can be said to have stood: an idle spell or a stopped process."""

LADDER: Final = ((4.0, 0.0), (1.5, 1.2), (0.3, 0.2), (0.1, 0.0))
"""By rank of criticality, (a, b): the threshold is multiplied by a - b·u, where u in [0, 1) belongs to the user.

The spread within ``critical`` lets the same users through while others wait, instead of everybody now and then.
"""

COSTLY: Final = 4.0
"""A route that takes more than so many times as long as the average request finds its place on the ladder lower.

By as much as it costs more than that. In its place several others are served; when the queue clears it is admitted.
"""

CROWD: Final = 8
"""Up to so many open requests nothing is forecast: chance, not a queue."""
STANDING_CROWD: Final = 2
"""The same where a crowd stands: in front of a small pool eight are a queue, and open to every class alike."""
FORECAST: Final = ((0.8, 0.0), (0.6, 0.1), (0.4, 0.1), (0.3, 0.0))
"""As :data:`LADDER`, of the deadline: how late an answer may be forecast."""
QUEUEING: Final = 1.5
"""A route is queueing if it takes so many times as long as is natural to it.

Without this test a step to eight times the load that nothing stands in the way of is refused,
because completions follow arrivals by one service time.
"""


TIGHT: Final = 5.0
"""What a standing crowd is tightened to: the class's share, times this, in natural times; 3 - 0.5·u for ``critical``.

Enough that places never fall idle, and every answer within five service times.
"""
TIGHTEN_CROWD_S: Final = 1.0
"""How long that takes. Not sooner: what is completed meanwhile is what later completions are compared with."""
LEAST: Final = CROWD / 0.6
"""The same in open requests at least, times the share: 8 for ``critical``. Two or three would let a small pool idle."""
PRESSED: Final = 0.25
"""A crowd stands as long as so many are refused for each one that is answered. With less, the share of the deadline
is enough: what is a little too much, or a few long ones by chance, is not to be mistaken for a queue that must be kept
short."""
TRIAL_S: Final = 2.0
"""How long after its onset a crowd's completions are looked at: by then a whole second is of the tight threshold."""
KEPT: Final = 0.85
"""Fewer completions than this share of those at the onset, less chance: what was refused was slow, not queueing."""
SPARED_S: Final = 30.0
"""How long a route is then left alone. What the next attempt costs, if it fails too, is a twentieth of that time."""


class Bounds(NamedTuple):
    """The numbers of one ladder, seconds: burst tolerance N, target T, what counts as clear, patience G."""

    burst_s: float
    target_s: float
    clear_s: float
    standing_s: float


def bounds(deadline_s: float, service_s: float) -> Bounds:
    """Return the bounds for a queue in front of workers whose service time is ``service_s``."""
    burst = max(deadline_s * BURST_SHARE, BURST_SERVICES * service_s)
    target = min(max(FLOOR_S, service_s), burst)
    return Bounds(burst, target, min(CLEAR_S, target / 4), max(STANDING_S, STANDING_SERVICES * service_s))


def loop_bounds(deadline_s: float) -> Bounds:
    """Return the bounds for the queue in front of an event loop."""
    burst = deadline_s * BURST_SHARE
    target = min(LOOP_TARGET_S, burst)
    return Bounds(burst, target, min(CLEAR_S, target / 4), STANDING_S)


@dataclass(slots=True)
class Ladder:
    """The state of one queue. Times are readings of the monotonic clock.

    ``backlog``: a queue stands that was not clear since. ``onset``: when it began, -inf for no grace.
    ``cleared``: when the last one ended. ``above_since``: since when every wait exceeded T. ``seen``: the last wait.
    """

    backlog: bool = False
    onset: float = -inf
    cleared: float = -inf
    above_since: float = inf
    seen: float = -inf


def observe(ladder: Ladder, now: float, wait_s: float, limits: Bounds, *, exact: bool = True) -> None:
    """Move the state on one measured wait, before the request that waited is decided about.

    Not ``exact``: the wait is that at least. A client that drips bytes makes its own look short, so such a reading is
    no sign of a short queue, unless no better one has come for :data:`LULL_S`: then all requests are of its kind.
    """
    if not exact and wait_s <= limits.target_s and now - ladder.seen <= LULL_S:
        return
    if wait_s <= limits.target_s or now - ladder.seen > LULL_S:
        ladder.above_since = inf
    ladder.seen = now
    if wait_s <= limits.clear_s:
        if ladder.backlog:
            ladder.backlog = False
            ladder.cleared = now
        return
    if wait_s > limits.target_s and ladder.above_since == inf:
        ladder.above_since = now
    if ladder.backlog:
        return
    since = min((now - ladder.cleared) / MEMORY_S, 1.0)
    tolerated = limits.target_s + (limits.burst_s - limits.target_s) * since
    if wait_s > tolerated or now - ladder.above_since > limits.standing_s:
        ladder.backlog = True
        ladder.onset = now if since >= 1 else -inf


def threshold(ladder: Ladder, now: float, limits: Bounds) -> float:
    """Return the wait up to which a factor of 1 is admitted now, in seconds: N without a backlog, then down to T."""
    if not ladder.backlog:
        return limits.burst_s
    return max(limits.target_s, limits.burst_s * (1 - (now - ladder.onset) / TIGHTEN_S))


def passes(
    ladder: Ladder,
    now: float,
    wait_s: float,
    limits: Bounds,
    *,
    criticality: Criticality,
    u: float,
    cost: float = 1.0,
) -> bool:
    """Return whether a request of this wait, criticality and user fraction ``u`` in [0, 1) is admitted.

    ``cost``: how many times as long as the average request one of its route takes.
    """
    if wait_s <= limits.clear_s:
        return True
    if not ladder.backlog:
        return wait_s <= limits.burst_s
    at_zero, slope = LADDER[criticality.rank]
    factor = at_zero - slope * u
    if cost > COSTLY and criticality is not Criticality.CRITICAL_PLUS:
        factor *= COSTLY / cost
    return wait_s <= min(threshold(ladder, now, limits) * factor, limits.burst_s)


def crowded(
    now: float,
    route: Route,
    whole: Route,
    wait_s: float,
    *,
    criticality: Criticality,
    u: float,
    deadline_s: float,
    own_s: float | None,
) -> bool:
    """Return whether one more request on ``route`` is forecast to be answered too late.

    ``whole`` counts all routes together. ``own_s`` is the request's own deadline, or None for ``deadline_s``.

    A route with more than eight open requests is judged by itself: too late if ``wait + (open + 1) / rate`` exceeds
    the class's share of the deadline, and once a crowd stands there a few natural times (see :func:`_tightened`).
    Other routes are judged only if all requests together are forecast too late
    *and* their own recent time is too long as well, so that one slow endpoint never costs its innocent neighbors.
    The forecast is believed only of a route that is queueing (see :data:`QUEUEING`),
    and never of one that naturally takes longer than ``deadline_s``: whoever calls it does not wait for that deadline.
    Nothing finished for a whole deadline with more than eight open: the route is stuck, and eight are enough to notice
    when it is not any more.
    """
    itself = _is_judged_by_itself(now, route)
    if not (itself or whole.open > CROWD) or route.natural_s > deadline_s:
        return False
    if route.open > CROWD and now - route.done_at > deadline_s:
        return True
    at_zero, slope = FORECAST[criticality.rank]
    allowed = (at_zero - slope * u) * (deadline_s if own_s is None else own_s)
    if route.service_s <= QUEUEING * route.natural_s or not (itself or wait_s + route.service_s > allowed):
        return False
    crowd = route if itself else whole
    rate = crowd.rate.per_s(now)
    if rate <= 0:
        return False
    if itself:
        allowed = min(allowed, _tightened(now, route, at_zero - slope * u, deadline_s, rate))
    return wait_s + (crowd.open + 1) / rate > allowed


def _is_judged_by_itself(now: float, route: Route) -> bool:
    return route.open > (STANDING_CROWD if _stands(now, route.crowd) else CROWD)


def _stands(now: float, crowd: Crowd) -> bool:
    """Return whether some of this crowd were refused, and the route was seen queueing within the memory of a queue."""
    return crowd.onset < inf and now - crowd.queueing <= MEMORY_S


def _tightened(now: float, route: Route, share: float, deadline_s: float, rate: float) -> float:
    """Return how late an answer of a route that is queueing may be forecast, once some have been refused.

    A share of the deadline at first, and within a second a few natural times: a pool needs no longer queue to be busy,
    and every answer waits through the whole of it. That is right if the route is slow because it is queueing.
    If instead what it waits for has become slow, fewer open requests mean fewer answers: then it is left alone.
    """
    crowd = route.crowd
    if not _stands(now, crowd):
        crowd.onset = inf
    crowd.queueing = now
    standing = now - crowd.onset
    if standing < 0 or now < crowd.spared:
        return inf
    completed = route.rate.mean_per_s(now)
    if standing <= TIGHTEN_CROWD_S:
        crowd.rate = completed
    elif crowd.refused.mean_per_s(now) < PRESSED * completed:
        crowd.onset = inf
        return inf
    elif standing > TRIAL_S and completed < KEPT * crowd.rate - 2 * sqrt(crowd.rate):
        crowd.spared = now + SPARED_S
        crowd.onset = inf
        return inf
    alone_s = max(route.calm_s * max(crowd.before / rate, 1.0), FLOOR_S)
    least = share * max(TIGHT * alone_s, LEAST / rate)
    return max(least, share * deadline_s * (1 - standing / TIGHTEN_CROWD_S))


def forecast(now: float, route: Route, whole: Route) -> float:
    """Return how long a request that is :func:`crowded` out would have taken, in seconds.

    Where nothing finishes that is at least as long as nothing has.
    """
    crowd = route if _is_judged_by_itself(now, route) else whole
    rate = crowd.rate.per_s(now)
    return (crowd.open + 1) / rate if rate else now - crowd.done_at


class TokenBucket:
    """At most ``rate_per_s`` a second, with a burst of one second's worth; full at the start."""

    __slots__ = ("_at", "_tokens")

    def __init__(self) -> None:
        self._at = -inf
        self._tokens = 0.0

    def take(self, now: float, rate_per_s: float) -> bool:
        """Take one token; false if there is none."""
        if rate_per_s <= 0:
            return False
        gone = max(now - self._at, 0.0)
        self._tokens = min(self._tokens + gone * rate_per_s, max(rate_per_s, 1.0))
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
