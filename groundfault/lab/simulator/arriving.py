"""Users: when their requests are due, how long they wait, and whether they ask again."""

from collections.abc import Callable, Iterator
from itertools import accumulate
from math import ceil, log, nextafter
from random import Random
from typing import Final

from groundfault.lab.curves import Curve
from groundfault.lab.runs.tally import FATES, Fate
from groundfault.lab.simulator.calendar import Calendar, Timers
from groundfault.lab.simulator.calling import Calling
from groundfault.lab.simulator.counting import StreamCounts
from groundfault.lab.simulator.fleet import Request, ServiceState
from groundfault.lab.simulator.model import Stream
from groundfault.lab.simulator.serving import OK

__all__ = ["Source", "moments"]

_SLICE_S: Final = 0.1
_LATE: Final = FATES.index(Fate.LATE)
_SHED: Final = FATES.index(Fate.SHED)
_FAILED: Final = FATES.index(Fate.FAILED)


def moments(curve: Curve, scale: float, until: float, draw: Callable[[], float] | None) -> Iterator[float]:
    """Yield the moments at which requests are due: as many as the curve says, by chance or, without ``draw``, evenly.

    As :func:`groundfault.lab.curves.arrivals`, without candidates that are thrown away: unit gaps are laid along the
    curve's integral, which is taken tenth of a second by tenth, and is straight within one.
    """
    done, start, number = 0.0, 0.0, 0
    last = nextafter(until, 0.0)  # what is due as the end comes is due before it
    gap = 0.5 if draw is None else -log(1.0 - draw())
    while start < until:
        number += 1
        end = min(number * _SLICE_S, until)
        due = curve.expected(start, end) * scale
        if due > 0:
            while gap <= done + due:
                yield min(start + (end - start) * (gap - done) / due, last)
                gap += 1.0 if draw is None else -log(1.0 - draw())
            done += due
        start = end


class Source:
    """One stream of requests, and those of its users who ask again, which are counted apart."""

    def __init__(
        self, stream: Stream, service: ServiceState, calendar: Calendar, calling: Calling, *, seed: str, seconds: int
    ) -> None:
        self.stream = stream
        self.seconds = seconds
        self.counts = StreamCounts(seconds)
        self.again = StreamCounts(seconds) if stream.again is not None else None
        self.open = 0
        self._service = service
        self._calendar = calendar
        self._calling = calling
        dice = Random(f"{seed}/arrivals/{stream.name}")
        self._moments = moments(stream.curve, stream.scale, float(seconds), None if stream.even else dice.random)
        self._users = Random(f"{seed}/users/{stream.name}")
        self._draw = self._users.random
        self._delay = None if stream.again is None else stream.again.delay.draws(self._users)
        self._timers = Timers(calendar, calling.timed_out)
        self._criticalities = [each for each, _ in stream.criticality]
        self._shares = list(accumulate(share for _, share in stream.criticality))
        self._follow()

    def _follow(self) -> None:
        moment = next(self._moments, None)
        if moment is not None:
            self._calendar.at(moment, self._due)

    def _due(self, _: None) -> None:
        stream = self.stream
        criticality = self._criticalities[0]
        if len(self._criticalities) > 1:
            lot = self._draw()
            criticality = next(
                (each for each, share in zip(self._criticalities, self._shares, strict=True) if lot < share),
                self._criticalities[-1],
            )
        u = self._draw()
        if stream.users is not None:
            u = (int(u * stream.users) * 0.6180339887498949) % 1.0
        request = Request()
        request.criticality = criticality
        request.u = u
        request.tries = 0
        self._ask(request)
        self._follow()

    def _ask(self, request: Request) -> None:
        """Send a user's request: the first, or one who asks again."""
        now = self._calendar.now
        stream = self.stream
        counts = self.counts if not request.tries else self.again
        assert counts is not None  # noqa: S101  who asks again is counted there
        counts.due[int(now)] += 1
        self.open += 1
        request.parent = None
        request.edge = self
        request.attempt = None
        request.route = stream.route
        request.depth = 0
        request.budget_s = None
        request.due = now
        self._calling.send(request, self._service)
        self._timers.add(now + stream.deadline_s, request)

    def ended(self, request: Request) -> None:
        """Count what became of a request."""
        self.open -= 1
        counts = self.counts if not request.tries else self.again
        assert counts is not None  # noqa: S101  as above
        now = self._calendar.now
        if request.left:
            counts.settle(request.due, _LATE)
        elif request.status == OK:
            counts.good(request.due, now)
            return
        else:
            counts.settle(request.due, _SHED if request.refusal is not None else _FAILED)
        again = self.stream.again
        if again is None or self._delay is None or request.tries >= again.most or self._draw() >= again.share:
            return
        when = now + self._delay()
        if when >= self.seconds:
            return
        another = Request()
        another.criticality = request.criticality
        another.u = request.u
        another.tries = request.tries + 1
        self._calendar.at(when, self._ask, another)


def seconds_of(total_s: float) -> int:
    """Return how many whole seconds a run of so many seconds has."""
    return max(1, ceil(total_s - 1e-9))
