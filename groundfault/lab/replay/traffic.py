"""What is sent when a plan is replayed: its curve, faster or higher, and for each arrival a request. Pure."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from math import floor
from typing import Final

from groundfault.lab.load.scenario import Request
from groundfault.lab.replay.folding import ID, KEY, NUMBER, VALUE
from groundfault.lab.replay.plan import Plan, PlanError

__all__ = ["SAFE", "Seconds", "Traffic", "traffic_of"]

SAFE: Final = frozenset({"GET", "HEAD"})
_MINUTE_S: Final = 60
_SPIKE_S: Final = 60
_MOST_REQUESTS: Final = 8_000
_MOST_EACH: Final = 64


class Seconds:
    """A curve with one rate for each second, of any length: everything is looked up."""

    def __init__(self, rates: Sequence[float]) -> None:
        self._rates = list(rates)
        self._before = [0.0, *accumulate(self._rates)]
        self.total_s = float(len(self._rates))
        self.peak_rps = max(self._rates)

    def rate(self, t: float) -> float:
        """Return the requests per second due at that moment; 0.0 before the start and after the end."""
        return self._rates[int(t)] if 0 <= t < self.total_s else 0.0

    def expected(self, start: float, end: float) -> float:
        """Return how many requests are due between two moments on average."""
        return max(0.0, self._up_to(end) - self._up_to(start))

    def _up_to(self, t: float) -> float:
        if t <= 0:
            return 0.0
        second = floor(t)
        if second >= len(self._rates):
            return self._before[-1]
        return self._before[second] + self._rates[second] * (t - second)

    def second_of(self, count: float) -> int:
        """Return the second in which so many have come on average."""
        return min(max(0, bisect_right(self._before, count) - 1), len(self._rates) - 1)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is sent. ``left_out``: the share of requests that have other methods. ``spike``: the busiest minute."""

    curve: Seconds
    choose: Callable[[int, float], Request]
    left_out: float
    spike: tuple[float, float]


def traffic_of(
    plan: Plan, *, since: str | None = None, for_s: float | None = None, scale: float = 1.0,
    methods: frozenset[str] = SAFE,
) -> Traffic:  # fmt: skip
    """Return what is sent of a plan: of its seconds from ``since`` on so many, None for all; rates times ``scale``.

    Only these methods are sent; the rate is lower by what the others have in each minute. Without ``since`` it begins
    with the first request. Raises PlanError if nothing is left.
    """
    first, last = plan.window(since, for_s)
    if since is None:
        first = next((at for at, rps in enumerate(plan.rps) if rps), 0)
        last = plan.seconds if for_s is None else min(plan.seconds, first + max(1, round(for_s)))
    usual, usual_all = plan.weights(methods), plan.weights()
    minutes = [_shared(plan, minute, methods) for minute in range(first // _MINUTE_S, (last - 1) // _MINUTE_S + 1)]
    whole = sum(usual) / sum(usual_all) if any(usual_all) else 0.0
    mixes, shares = [], []
    for weights, share in minutes:
        mixes.append(_mix(weights if share is not None else dict(enumerate(usual))))
        shares.append(whole if share is None else share)
    offset = first // _MINUTE_S
    rates = [plan.rps[at] * scale * shares[at // _MINUTE_S - offset] for at in range(first, last)]
    if not any(rates):
        raise PlanError(
            f"nothing to send: no request with {' or '.join(sorted(methods))} from second {first} to {last}"
        )
    curve = Seconds(rates)
    requests = _requests(plan)

    def choose(number: int, drawn: float) -> Request:
        # The arrival with this number comes about when so many are expected: which minute's mix holds need not be
        # known better than that, and every driver finds the same.
        minute = (first + curve.second_of(number + 0.5)) // _MINUTE_S - offset
        indexes, bounds = mixes[minute]
        if not indexes:
            indexes, bounds = _nearest(mixes, minute)
        at = drawn * bounds[-1]
        place = min(bisect_right(bounds, at), len(indexes) - 1)
        kinds = requests[indexes[place]]
        below = bounds[place - 1] if place else 0.0
        width = bounds[place] - below
        return kinds[min(int((at - below) / width * len(kinds)), len(kinds) - 1)] if width > 0 else kinds[0]

    sent = sum(rates)
    return Traffic(curve, choose, 1.0 - sent / (scale * sum(plan.rps[first:last])), _busiest(curve))


def _shared(plan: Plan, minute: int, methods: frozenset[str]) -> tuple[dict[int, float], float | None]:
    """Return the weights that are left of a minute, and their share; None for a minute that has none at all."""
    held = plan.mix[minute]
    kept = {index: weight for index, weight in held.items() if plan.templates[index].method in methods and weight}
    whole = sum(held.values())
    return kept, sum(kept.values()) / whole if whole else None


_Mix = tuple[list[int], list[float]]


def _mix(weights: dict[int, float]) -> _Mix:
    kept = {index: weight for index, weight in weights.items() if weight}
    return list(kept), list(accumulate(kept.values()))


def _nearest(mixes: list[_Mix], minute: int) -> _Mix:
    """Return the mix of the nearest minute that has one: where one minute ends is not exact."""
    return min(((abs(at - minute), each) for at, each in enumerate(mixes) if each[0]), key=lambda pair: pair[0])[1]


def _requests(plan: Plan) -> list[list[Request]]:
    """Return for each template some requests with made-up values in them; numbers are drawn when they are sent."""
    several = sum(ID in each.path for each in plan.templates)
    kinds = min(_MOST_EACH, max(1, _MOST_REQUESTS // max(1, several)))
    made = []
    for each in plan.templates:
        path = each.path.replace(VALUE, NUMBER).replace(KEY, "key")
        made.append(
            [
                Request(_filled(path, number), each.method, name=each.path)
                for number in range(kinds if ID in path else 1)
            ]
        )
    return made


def _filled(path: str, number: int) -> str:
    pieces = path.split(ID)
    filled = pieces[0]
    for place, piece in enumerate(pieces[1:]):
        filled += blake2b(f"{number}/{place}".encode(), digest_size=8).hexdigest() + piece
    return filled


def _busiest(curve: Seconds) -> tuple[float, float]:
    width = min(float(_SPIKE_S), curve.total_s)
    starts = range(int(curve.total_s - width) + 1)
    start = max(starts, key=lambda at: (curve.expected(at, at + width), -at))
    return float(start), start + width
