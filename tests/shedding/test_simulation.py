"""The real shedder before simulated servers: what is left of the physical limit, and who is refused for nothing.

The servers are drawn as in the model the law was chosen with: one CPU whose ready queue is first in, first out,
a refusal costing 0.1 ms of it, callers who wait one second, a kernel clock of 4 ms.
Traffic is 10 % critical-plus, 60 % critical, 30 % sheddable-plus, each request of another user.
"""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from groundfault.shedding import _admission
from groundfault.shedding._threads import ThreadQueue
from groundfault.shedding.shedder import Shedder
from groundfault.sinks import Sinks
from groundfault.testing import ManualClock
from groundfault.vocabulary import Criticality
from groundfault.wire import key_fraction

_DEADLINE_S = 1.0
_SHED_COST_S = 0.0001
_JIFFY_S = 0.004
_CLASSES = (Criticality.CRITICAL_PLUS, Criticality.CRITICAL, Criticality.SHEDDABLE_PLUS)
_WEIGHTS = (0.1, 0.6, 0.3)


@dataclass
class _Seen:
    """What became of the requests that arrived in one span of time."""

    offered: int = 0
    good: int = 0
    shed: int = 0
    by_class: dict[Criticality, list[int]] = field(default_factory=lambda: {each: [0, 0] for each in _CLASSES})
    latencies: list[float] = field(default_factory=list)

    @property
    def p99_s(self) -> float:
        return sorted(self.latencies)[int(0.99 * len(self.latencies))]

    @property
    def shed_share(self) -> float:
        return self.shed / self.offered

    def good_share_of(self, criticality: Criticality) -> float:
        offered, good = self.by_class[criticality]
        return good / offered


class _World:
    """A virtual clock with a calendar, one CPU, and arrivals of which each second is watched apart."""

    def __init__(self, seed: int, *, on_loop: bool = True) -> None:
        self.dice = random.Random(seed)
        self.clock = ManualClock(0.0)
        self.shedder = Shedder(sinks=Sinks(), clock=self.clock, deadline_s=_DEADLINE_S)
        self.on_loop = on_loop
        self.spread = lambda: self.dice.uniform(0.8, 1.2)
        self._calendar: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._ready: deque[Callable[[], float]] = deque()
        self._busy = False
        self.seen: dict[tuple[str, int], _Seen] = {}
        self.critical: list[tuple[float, bool]] = []

    def served_share(self, low: float, high: float) -> float:
        """Return which share of critical requests was served, of users whose fraction lies in between."""
        fates = [served for u, served in self.critical if low <= u < high]
        return sum(fates) / len(fates)

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._calendar, (when, next(self._number), what))

    def run(self, until: float) -> None:
        while self._calendar and self._calendar[0][0] <= until:
            when, _, what = heapq.heappop(self._calendar)
            self.clock.now = when
            what()

    def ready(self, chunk: Callable[[], float]) -> None:
        """Queue a piece of work; it returns how many seconds of CPU it takes."""
        self._ready.append(chunk)
        if not self._busy:
            self._next()

    def stop(self, seconds: float) -> None:
        """Keep the whole process from running, as a garbage collection or a throttled container does."""
        self._ready.appendleft(lambda: seconds)
        if not self._busy:
            self._next()

    def _next(self) -> None:
        self._busy = bool(self._ready)
        if self._busy:
            cost = self._ready.popleft()()
            self.at(self.clock.now + cost, self._next)

    def arrivals(self, route: str, rate: Callable[[float], float], until: float, handler: "_Handler") -> None:
        """Let requests arrive at ``rate(t)`` a second, by chance, until ``until``."""

        def arrive() -> None:
            now = self.clock.now
            request = _Request(self, route, now, self.dice.choices(_CLASSES, _WEIGHTS)[0])
            handler.arrive(request)
            following = now + self.dice.expovariate(rate(now))
            if following < until:
                self.at(following, arrive)

        self.at(0.0, arrive)

    def between(self, route: str, start: int, end: int) -> _Seen:
        total = _Seen()
        for second in range(start, end):
            seen = self.seen.get((route, second), _Seen())
            total.offered += seen.offered
            total.good += seen.good
            total.shed += seen.shed
            total.latencies += seen.latencies
            for criticality in _CLASSES:
                for index in (0, 1):
                    total.by_class[criticality][index] += seen.by_class[criticality][index]
        return total


class _Request:
    def __init__(self, world: _World, route: str, arrived: float, criticality: Criticality) -> None:
        self.world = world
        self.route = route
        self.arrived = arrived
        self.criticality = criticality
        self.seen = world.seen.setdefault((route, int(arrived)), _Seen())
        self.seen.offered += 1
        self.seen.by_class[criticality][0] += 1

    def begin(self, handler: "_Handler") -> float:
        now = self.world.clock.now
        wait = int((now - self.arrived) / _JIFFY_S + self.world.dice.random()) * _JIFFY_S
        key = f"{self.world.dice.getrandbits(32):08x}"
        self.admission = self.world.shedder.admit(
            self.route,
            wait,
            on_loop=self.world.on_loop,
            age_s=0.95 if self.route == "liar" else None,
            criticality=self.criticality,
            key=key,
            threads=handler.threads() if self.world.shedder.route(self.route).sync else None,
        )
        if self.criticality is Criticality.CRITICAL:
            self.world.critical.append((key_fraction(key), not self.admission.refused))
        if self.admission.refused:
            self.seen.shed += 1
            return _SHED_COST_S
        return handler.begin(self)

    def end(self) -> None:
        self.world.shedder.answered(self.admission, 200)
        self.world.shedder.release(self.admission)
        latency = self.world.clock.now - self.arrived
        if latency <= _DEADLINE_S:
            self.seen.good += 1
            self.seen.latencies.append(latency)
            self.seen.by_class[self.criticality][1] += 1


class _Handler:
    """CPU, then something awaited, then CPU."""

    def __init__(self, world: _World, cpu_s: float, io_s: Callable[[float], float]) -> None:
        self.world = world
        self.cpu_s = cpu_s
        self.io_s = io_s

    def threads(self) -> ThreadQueue | None:
        return None

    def arrive(self, request: _Request) -> None:
        self.world.ready(lambda: request.begin(self))

    def begin(self, request: _Request) -> float:
        world = self.world
        io_s = self.io_s(world.clock.now) * world.dice.uniform(0.8, 1.2)
        world.at(world.clock.now + self.cpu_s + io_s, lambda: self.resume(request))
        return self.cpu_s

    def resume(self, request: _Request) -> None:
        def finish() -> float:
            self.world.at(self.world.clock.now + self.cpu_s, request.end)
            return self.cpu_s

        self.world.ready(finish)


class _Pool(_Handler):
    """Between the two, one of a fixed number of places is held: connections, or worker threads."""

    def __init__(self, world: _World, places: int, hold_s: Callable[[float], float], *, threads: bool = False) -> None:
        super().__init__(world, 0.0001, hold_s)
        self.places = places
        self.free = places
        self.queue: deque[_Request] = deque()
        self._are_threads = threads

    def threads(self) -> ThreadQueue | None:
        return ThreadQueue(len(self.queue), self.places) if self._are_threads else None

    def begin(self, request: _Request) -> float:
        self.queue.append(request)
        self.world.at(self.world.clock.now + self.cpu_s, self._take)
        return self.cpu_s

    def _take(self) -> None:
        if not self.free or not self.queue:
            return
        self.free -= 1
        request = self.queue.popleft()
        held = self.io_s(self.world.clock.now) * self.world.spread()

        def give_back() -> None:
            self.free += 1
            self.resume(request)
            self._take()

        self.world.at(self.world.clock.now + held, give_back)


class _Workers(_Handler):
    """Synchronous workers before which requests queue in the kernel, as on gunicorn; a refusal costs 2 % of one."""

    def __init__(self, world: _World, workers: int, service_s: Callable[[float], float]) -> None:
        super().__init__(world, 0.0, service_s)
        self.free = workers
        self.queue: deque[_Request] = deque()
        self.paused_until = 0.0

    def arrive(self, request: _Request) -> None:
        self.queue.append(request)
        self._take()

    def pause(self, seconds: float) -> None:
        self.paused_until = self.world.clock.now + seconds
        self.world.at(self.paused_until, self._take)

    def _take(self) -> None:
        while self.free and self.queue and self.world.clock.now >= self.paused_until:
            self.free -= 1
            request = self.queue.popleft()
            service_s = self.service_s(request)
            request.begin(self)
            served = self.refusal_s(request) if request.admission.refused else service_s
            self.world.at(self.world.clock.now + served, lambda request=request: self._done(request))

    def service_s(self, request: _Request) -> float:
        return self.io_s(self.world.clock.now) * self.world.dice.expovariate(1.0)

    def refusal_s(self, request: _Request) -> float:
        return 0.02 * self.io_s(self.world.clock.now)

    def begin(self, request: _Request) -> float:
        return 0.0

    def _done(self, request: _Request) -> None:
        if self.world.clock.now < self.paused_until:
            self.world.at(self.paused_until, lambda: self._done(request))
            return
        self.free += 1
        if not request.admission.refused:
            request.end()
        self._take()


def _spike(capacity: float, peak: float, start: float, end: float, base: float = 0.6) -> Callable[[float], float]:
    """Return arrivals per second over time: ``base`` of capacity, and ``peak`` times capacity from start to end."""
    return lambda t: capacity * (peak if start <= t < end else base)


@dataclass(frozen=True)
class _Case:
    """A server, its capacity a second without refusals, and what must be left of it."""

    build: Callable[[_World], _Handler]
    capacity: float
    peak: float
    goodput: float
    critical_plus: float
    on_loop: bool = True
    sync: bool = False


def _cpu(world: _World) -> _Handler:
    return _Handler(world, 0.002, lambda _: 0.05)


def _pool(world: _World) -> _Handler:
    return _Pool(world, 20, lambda _: 0.1)


def _worker_threads(world: _World) -> _Handler:
    return _Pool(world, 40, lambda _: 0.2, threads=True)


def _workers(world: _World) -> _Workers:
    return _Workers(world, 8, lambda _: 0.02)


_OVERLOADS = {
    # The ceiling of the first is (1 - 8 * 0.025) / (1 - 0.025) = 0.82, of the last (1 - 8 * 0.02) / 0.98 = 0.86.
    "CPU-bound 8x": _Case(_cpu, 250, 8, 0.80, 0.90),
    "CPU-bound 1.5x": _Case(_cpu, 250, 1.5, 0.95, 0.97),
    "in-process pool of 20, 8x": _Case(_pool, 200, 8, 0.97, 0.90),
    "in-process pool of 20, 1.5x": _Case(_pool, 200, 1.5, 0.97, 0.99),
    "40 worker threads 8x": _Case(_worker_threads, 200, 8, 0.97, 0.90, sync=True),
    "40 worker threads 1.5x": _Case(_worker_threads, 200, 1.5, 0.97, 0.99, sync=True),
    "8 workers 8x": _Case(_workers, 400, 8, 0.83, 0.90, on_loop=False),
    "8 workers 1.5x": _Case(_workers, 400, 1.5, 0.94, 0.98, on_loop=False),
}


@pytest.mark.parametrize("name", _OVERLOADS)
def test_goodput_under_overload_is_near_the_physical_limit(name):
    """Ten seconds of overload after ten of ordinary load, then ordinary load again."""
    case = _OVERLOADS[name]
    world = _World(seed=1, on_loop=case.on_loop)
    if case.sync:
        world.shedder._law.routes.learn("r", 0.0)
        world.shedder.route("r").sync = True
    world.arrivals("r", _spike(case.capacity, case.peak, 10, 20), 25, case.build(world))
    world.run(30)

    assert world.between("r", 0, 10).shed == 0
    spike = world.between("r", 10, 20)
    assert spike.good >= case.goodput * 10 * case.capacity
    assert spike.good_share_of(Criticality.CRITICAL_PLUS) >= case.critical_plus
    assert spike.good_share_of(Criticality.CRITICAL_PLUS) >= spike.good_share_of(Criticality.SHEDDABLE_PLUS)
    after = world.between("r", 21, 25)
    assert after.shed == 0
    assert after.good == after.offered


@pytest.mark.parametrize(
    ("build", "capacity", "on_loop", "goodput"),
    [(_pool, 200, True, 0.95), (_cpu, 250, True, 0.80), (_workers, 400, False, 0.82)],
    ids=["pool", "cpu", "workers"],
)
def test_a_process_born_in_the_middle_of_a_spike_holds_its_own(build, capacity, on_loop, goodput):
    """Nothing is known of how long a request takes without a queue; the first few answers must do."""
    world = _World(seed=1, on_loop=on_loop)
    world.arrivals("r", lambda _: 8 * capacity, 20, build(world))
    world.run(25)

    assert world.between("r", 0, 20).good >= goodput * 20 * capacity


def _io(before_s: float, during_s: float) -> Callable[[_World], _Handler]:
    return lambda world: _Handler(world, 0.002, lambda t: during_s if 10 <= t < 20 else before_s)


@pytest.mark.parametrize(
    ("build", "rate"),
    [
        (_io(0.05, 0.2), lambda _: 200.0),
        (_io(0.05, 0.05), lambda t: 25.0 if t < 10 else 200.0),
        (_io(0.2, 0.2), lambda t: 25.0 if t < 10 else 200.0),
        (_io(0.5, 0.5), lambda t: 25.0 if t < 10 else 200.0),
        (_io(0.8, 0.8), lambda t: 25.0 if t < 10 else 200.0),
        (_io(5.0, 5.0), lambda t: 25.0 if t < 10 else 200.0),
        (_io(0.2, 0.2), lambda t: 200.0),
    ],
    ids=["I/O slows 4x", "step, 50 ms", "step, 200 ms", "step, 500 ms", "step, 800 ms", "step, 5 s", "cold start"],
)
def test_waiting_for_something_that_is_not_a_queue_is_not_overload(build, rate):
    """Many open requests, and completions that lag behind a load that rises, are no reason to refuse."""
    world = _World(seed=1)
    world.arrivals("r", rate, 25, build(world))
    world.run(40)

    assert world.between("r", 0, 25).shed == 0


@pytest.mark.parametrize(("places", "hold_s"), [(20, 0.1), (20, 0.02), (5, 0.02), (40, 0.2)])
@pytest.mark.parametrize("peak", [3, 8])
def test_answers_of_a_busy_pool_take_a_few_times_as_long_as_without_a_queue(places, hold_s, peak):
    """From the second second on; six tenths of the deadline would be thirty times the natural 20 ms."""
    world = _World(seed=1)
    capacity = places / hold_s
    world.arrivals("r", _spike(capacity, peak, 10, 16), 17, _Pool(world, places, lambda _: hold_s))
    world.run(20)

    assert world.between("r", 12, 16).p99_s <= 5 * hold_s
    assert world.between("r", 12, 16).good >= 0.92 * 4 * capacity


@pytest.mark.parametrize(("places", "hold_s"), [(20, 0.1), (5, 0.1), (10, 0.02)])
@pytest.mark.parametrize("seed", [1, 2])
def test_times_that_differ_much_are_no_queue(places, hold_s, seed):
    """Before a spike and after it, with times that are as random as arrivals, hardly anybody is refused."""
    world = _World(seed=seed)
    world.spread = lambda: world.dice.expovariate(1.0)
    capacity = places / hold_s
    world.arrivals("r", _spike(capacity, 8, 10, 14), 24, _Pool(world, places, lambda _: hold_s))
    world.run(26)

    assert world.between("r", 1, 10).shed_share <= 0.02  # what is natural is still being learned
    assert world.between("r", 11, 14).good >= 0.9 * 3 * capacity
    assert world.between("r", 16, 24).shed_share <= 0.02


def test_the_classes_before_a_small_pool():
    world = _World(seed=1)
    world.arrivals("r", _spike(40, 8, 10, 20), 25, _Pool(world, 2, lambda _: 0.05))
    world.run(25)

    spike = world.between("r", 11, 20)
    assert spike.good_share_of(Criticality.CRITICAL_PLUS) >= 0.8
    assert spike.good_share_of(Criticality.SHEDDABLE_PLUS) <= 0.02


def test_what_has_become_slow_without_a_queue_is_soon_left_alone():
    """Eight times slower than ever, and not one more would be served by refusing some: that is found out in seconds."""
    world = _World(seed=1)
    world.arrivals("r", lambda _: 200.0, 30, _Handler(world, 0.002, lambda t: 0.4 if t >= 10 else 0.05))
    world.run(32)

    assert world.between("r", 10, 13).good >= 0.4 * 3 * 200
    later = world.between("r", 15, 30)
    assert later.good_share_of(Criticality.CRITICAL_PLUS) == 1
    assert later.good_share_of(Criticality.CRITICAL) >= 0.9


class _Mixed(_Workers):
    """Workers before which each route takes its own time."""

    def __init__(self, world: _World, workers: int, seconds: dict[str, Callable[[float], float]]) -> None:
        super().__init__(world, workers, lambda _: 0.0)
        self.seconds = seconds

    def service_s(self, request: _Request) -> float:
        return self.seconds[request.route](self.world.clock.now) * self.world.dice.uniform(0.5, 1.5)

    def refusal_s(self, request: _Request) -> float:
        return 0.0003


def _one_slow_endpoint(seed: int) -> tuple[float, float, float]:
    """One request in twenty takes fifty times as long for ten seconds; return what was good of both, and the work."""
    world = _World(seed=seed, on_loop=False)
    seconds = {"fast": lambda _: 0.01, "slow": lambda t: 0.5 if 10 <= t < 20 else 0.01}
    handler = _Mixed(world, 8, seconds)
    world.arrivals("fast", lambda _: 456.0, 20, handler)
    world.arrivals("slow", lambda _: 24.0, 20, handler)
    world.run(25)
    fast, slow = world.between("fast", 11, 20), world.between("slow", 11, 20)
    return fast.good / fast.offered, slow.good / slow.offered, (fast.good * 0.01 + slow.good * 0.5) / 9 / 8


def test_a_slow_endpoint_gives_way_to_the_others_but_is_not_starved(monkeypatch):
    """Against the same law without a cost: the others gain, and the workers are as busy."""
    fast, slow, work = (sum(each) / 2 for each in zip(*map(_one_slow_endpoint, (1, 2)), strict=True))
    monkeypatch.setattr(_admission, "COSTLY", float("inf"))
    fast_alike, _, _ = (sum(each) / 2 for each in zip(*map(_one_slow_endpoint, (1, 2)), strict=True))

    assert fast >= fast_alike + 0.05
    assert slow >= 0.35
    assert work >= 0.93


@pytest.mark.parametrize("workers", [True, False])
def test_liars_about_their_start_time_cost_the_honest_nothing(workers):
    """A tenth says to have waited for almost the whole deadline; an average over waits would refuse everybody."""
    world = _World(seed=1, on_loop=not workers)
    handler = _workers(world) if workers else _cpu(world)
    capacity = 400 if workers else 250
    world.arrivals("honest", lambda _: 0.72 * capacity, 20, handler)
    world.arrivals("liar", lambda _: 0.08 * capacity, 20, handler)
    world.run(22)

    assert world.between("honest", 0, 20).shed == 0


_OFTEN_TUNED = ("BURST_SHARE", "TIGHTEN_S", "MEMORY_S", "LADDER", "FLOOR_S", "TIGHT")


def _scaled(value, by):
    return tuple(_scaled(each, by) for each in value) if isinstance(value, tuple) else value * by


@pytest.mark.parametrize("by", [0.5, 2.0])
@pytest.mark.parametrize("name", _OFTEN_TUNED)
def test_no_goodput_hangs_on_one_constant(monkeypatch, name, by):
    """Each halved and doubled; `bench/ablation.py` has all of them, over more servers."""
    monkeypatch.setattr(_admission, name, _scaled(getattr(_admission, name), by))
    for build, capacity, on_loop, least in ((_workers, 400, False, 0.81), (_pool, 200, True, 0.90)):
        world = _World(seed=1, on_loop=on_loop)
        world.arrivals("r", _spike(capacity, 8, 6, 11), 11, build(world))
        world.run(13)
        assert world.between("r", 6, 11).good >= least * 5 * capacity


def test_a_pool_that_slows_to_a_quarter_still_gives_what_it_can():
    world = _World(seed=1)
    world.arrivals("r", lambda _: 120, 25, _Pool(world, 20, lambda t: 0.4 if 10 <= t < 20 else 0.1))
    world.run(30)

    assert world.between("r", 10, 20).good >= 0.85 * 10 * 50
    assert world.between("r", 22, 25).shed == 0


def test_one_slow_route_costs_its_innocent_neighbors_nothing():
    """A route that hangs on its pool is refused; one that needs no pool is not, and neither is a rare one."""
    world = _World(seed=1)
    world.arrivals("slow", _spike(200, 8, 10, 20), 25, _pool(world))
    world.arrivals("fast", lambda _: 100, 25, _Handler(world, 0.0005, lambda _: 0.02))
    world.arrivals("rare", lambda _: 2, 25, _Handler(world, 0.0005, lambda _: 0.02))
    world.run(30)

    assert world.between("slow", 10, 20).shed_share > 0.5
    assert world.between("fast", 0, 25).shed == 0
    assert world.between("rare", 0, 25).shed == 0


def test_a_route_that_hangs_keeps_eight_requests_and_recovers_by_itself():
    """A dependency stops answering for ten seconds: what piles up behind it is bounded by one deadline's arrivals."""
    world = _World(seed=1)
    answers_at = 25.0

    def hang(t: float) -> float:
        return max(answers_at - t, 0.05) if 10 <= t < 25 else 0.05

    world.arrivals("r", lambda _: 100, 40, _Handler(world, 0.0001, hang))
    world.run(24.0)
    assert world.shedder.snapshot().in_flight <= 100 * 1.5
    world.run(45)
    assert world.between("r", 32, 40).shed == 0


@pytest.mark.parametrize("load", [0.6, 0.9])
@pytest.mark.parametrize("workers", [True, False])
def test_a_pause_of_the_whole_process_causes_no_lasting_refusal(load, workers):
    """Half a second of standstill every five seconds: what cannot be served in time is refused, then it is over."""
    world = _World(seed=1, on_loop=not workers)
    handler = _workers(world) if workers else _cpu(world)
    world.arrivals("r", lambda _: load * (400 if workers else 250), 40, handler)
    for pause in range(5, 40, 5):
        world.at(pause, lambda: handler.pause(0.5) if workers else world.stop(0.5))
    world.run(45)

    assert world.between("r", 0, 40).shed_share < 0.11
    for pause in range(5, 40, 5):
        calm = world.between("r", pause + 2, pause + 5)
        assert calm.shed_share < 0.02


@pytest.mark.parametrize("workers", [True, False])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nobody_is_refused_below_capacity(workers, seed):
    world = _World(seed=seed, on_loop=not workers)
    world.arrivals("r", lambda _: 0.8 * (400 if workers else 250), 30, _workers(world) if workers else _cpu(world))
    world.run(35)

    assert world.between("r", 0, 30).shed == 0


@pytest.mark.parametrize("peak", [1.5, 8])
def test_the_same_users_get_through(peak):
    """Within one class those with a low fraction are served before those with a high one."""
    world = _World(seed=1, on_loop=False)
    world.arrivals("r", lambda _: peak * 400, 20, _workers(world))
    world.run(25)

    low, high = world.served_share(0.0, 0.25), world.served_share(0.75, 1.0)
    assert low > 1.5 * high
