"""What a simulation counts, second by second, and the document made from it."""

from bisect import bisect_left
from collections import Counter

from groundfault._histogram import BOUNDS_S, Histogram
from groundfault.lab.runs.record import Edge, Service, Stream
from groundfault.lab.runs.tally import Tally
from groundfault.vocabulary import State

__all__ = ["EdgeCounts", "ServiceCounts", "StreamCounts"]

_P95 = 0.95


class StreamCounts:
    """Requests of one stream: due, and what became of them, by the second they were due in.

    As :class:`~groundfault.lab.runs.tally.Tally`, at a fraction of its cost: each simulated request is counted here.
    """

    __slots__ = ("arrived", "due", "fates", "latencies", "sums")

    def __init__(self, seconds: int) -> None:
        self.due = [0] * seconds
        self.fates = [[0] * 5 for _ in range(seconds)]
        self.arrived: Counter[int] = Counter()
        self.latencies: list[dict[int, int]] = [{} for _ in range(seconds)]
        self.sums = [0.0] * seconds

    def settle(self, due: float, fate: int) -> None:
        """Count what became of a request; ``fate`` is its place in FATES."""
        self.fates[int(due)][fate] += 1

    def good(self, due: float, now: float) -> None:
        """Count a good answer that has come now."""
        second = int(due)
        self.fates[second][0] += 1
        self.arrived[int(now)] += 1
        taken = now - due
        buckets = self.latencies[second]
        bucket = bisect_left(BOUNDS_S, taken)
        buckets[bucket] = buckets.get(bucket, 0) + 1
        self.sums[second] += taken

    def as_stream(self, name: str, seconds: int, *, innocent: bool) -> Stream:
        """Return it as a run holds it."""
        tally = Tally()
        for number, due in enumerate(self.due):
            second = tally.at(number)
            second.due = second.sent = due
            second.fates = list(self.fates[number])
            second.latencies = Histogram(self.latencies[number], self.sums[number])
        for number, times in sorted(self.arrived.items()):
            tally.at(number).arrived += times
        return Stream.of(name, tally, seconds, innocent=innocent)


class ServiceCounts:
    """One service, second by second. ``held``: seconds of threads, or of a loop's CPU."""

    __slots__ = (
        "_held_before",
        "answered",
        "arrived",
        "busy",
        "held",
        "instances",
        "name",
        "p95",
        "rows",
        "shed",
        "using",
        "waits",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.arrived = self.shed = self.answered = 0
        self.held = 0.0
        self.using = 0
        self._held_before = 0.0
        self.waits: list[float] = []
        self.rows: list[tuple[int, int, int]] = []
        self.p95: list[float | None] = []
        self.busy: list[float | None] = []
        self.instances: list[int] = []

    def tick(self, now: float, places: int, instances: int) -> None:
        """End a second."""
        self.rows.append((self.arrived, self.shed, self.answered))
        self.arrived = self.shed = self.answered = 0
        waits = self.waits
        if waits:
            waits.sort()
            self.p95.append(round(waits[min(int(_P95 * len(waits)), len(waits) - 1)] * 1000, 3))
            waits.clear()
        else:
            self.p95.append(None)
        held = self.held + self.using * now
        self.busy.append(round(min(max(held - self._held_before, 0.0) / places, 1.0), 4) if places else None)
        self._held_before = held
        self.instances.append(instances)

    def as_service(self) -> Service:
        """Return it as a run holds it."""
        return Service(
            name=self.name,
            arrived=[row[0] for row in self.rows],
            shed=[row[1] for row in self.rows],
            answered=[row[2] for row in self.rows],
            wait_p95_ms=self.p95,
            busy=self.busy,
            instances=self.instances,
        )


class EdgeCounts:
    """One edge, second by second, and its circuits."""

    __slots__ = ("_not_closed", "_since", "bad", "callee", "caller", "calls", "refused", "rows", "spans", "trips")

    def __init__(self, caller: str, callee: str) -> None:
        self.caller = caller
        self.callee = callee
        self.calls = self.bad = self.refused = 0
        self.rows: list[tuple[int, int, int]] = []
        self.trips: list[float] = []
        self.spans: list[tuple[float, float]] = []
        self._not_closed = 0
        self._since = 0.0

    def moved(self, now: float, old: State, new: State) -> None:
        """Take note of a circuit's move."""
        if old is State.CLOSED:
            self.trips.append(round(now, 6))
            if not self._not_closed:
                self._since = now
            self._not_closed += 1
        elif new is State.CLOSED:
            self.gone(now)

    def gone(self, now: float) -> None:
        """Take note that one circuit less is not closed."""
        self._not_closed -= 1
        if not self._not_closed:
            self.spans.append((round(self._since, 6), round(now, 6)))

    def tick(self) -> None:
        """End a second."""
        self.rows.append((self.calls, self.bad, self.refused))
        self.calls = self.bad = self.refused = 0

    def as_edge(self, end: float) -> Edge:
        """Return it as a run holds it, which ends at ``end``: what circuits do after the last arrivals is not shown."""
        spans = list(self.spans)
        if self._not_closed:
            spans.append((round(self._since, 6), round(end, 6)))
        spans = [(start, min(over, end)) for start, over in spans if start < end]
        return Edge(
            caller=self.caller,
            callee=self.callee,
            calls=[row[0] for row in self.rows],
            bad=[row[1] for row in self.rows],
            refused=[row[2] for row in self.rows],
            trips=[moment for moment in self.trips if moment < end],
            open=spans,
        )
