"""The workloads: how much arrives when, how long each request takes, and on what kind of server.

Loads are given in capacities of the server, which is measured before; a workload so means the same on any machine.
Every run begins with calm traffic for a while, because a server that has just been born is another question.
"""

import random
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from groundfault import wire
from openloop.generator import Plan

HEALTH, MAIN = 0, 1
CALM_S = 7.0
"""Long enough for a service time to be learned, which takes five seconds."""


@dataclass(frozen=True)
class Server:
    """How a workload's requests are served.

    ``kind``: what a request spends its time on: ``sleep`` in a worker, ``cpu``, ``pool`` of an event loop, ``io``
    without a limit, ``threads`` of an event loop. ``stack``: ``sync``, ``gthread``, ``uvloop`` or ``asyncio``.
    """

    stack: str
    kind: str
    places: int

    @property
    def on_loop(self) -> bool:
        return self.stack in {"uvloop", "asyncio"}


@dataclass(frozen=True)
class Lane:
    """A part of the traffic. ``takes``: seconds of service, of the dice and of whether the event is on."""

    name: str
    share: float
    path: str
    takes: Callable[[random.Random, bool], float]
    criticality: str | None = None


@dataclass(frozen=True)
class Workload:
    """``load``: in capacities, of seconds since the event began. The event lasts ``event_s``, then ``after_s``.

    ``below_capacity``: nothing of it should be shed. ``work_s``: the mean service time that capacity is measured with.
    """

    name: str
    server: Server
    work_s: float
    lanes: tuple[Lane, ...]
    load: Callable[[float], float]
    event_s: float
    after_s: float = 4.0
    calm_load: float = 0.6
    deadline_s: float = 1.0
    retries: int = 0
    pauses: bool = False
    below_capacity: bool = False
    health_per_s: float = 10.0

    @property
    def length_s(self) -> float:
        return CALM_S + self.event_s + self.after_s

    def plan(self, port: int, capacity: float, seed: int, cpu: int | None, *, keep_alive: bool = False) -> "Trace":
        """Draw all arrivals, by chance at the given rates."""
        dice = random.Random(f"{self.name} {seed}")
        arrivals: list[tuple[float, int, bytes, float]] = []
        at = 0.0
        shares = [lane.share for lane in self.lanes]
        while True:
            event_at = at - CALM_S
            on = 0 <= event_at < self.event_s
            rate = capacity * (self.load(event_at) if on else self.calm_load)
            at += dice.expovariate(rate)
            if at >= self.length_s:
                break
            on = CALM_S <= at < CALM_S + self.event_s
            index = dice.choices(range(len(self.lanes)), shares)[0]
            lane = self.lanes[index]
            takes = lane.takes(dice, on)
            arrivals.append((at, MAIN + index, _request(lane.path, takes, lane.criticality, keep_alive), takes))
        at = 0.0
        health = _request("/healthz", 0.0, None, keep_alive)
        while self.health_per_s and (at := at + dice.expovariate(self.health_per_s)) < self.length_s:
            arrivals.append((at, HEALTH, health, 0.0))
        arrivals.sort(key=lambda each: each[0])
        plan = Plan(
            port,
            self.deadline_s,
            array("d", [each[0] for each in arrivals]),
            [each[2] for each in arrivals],
            array("l", [each[1] for each in arrivals]),
            retries=self.retries,
            keep_alive=keep_alive,
            cpu=cpu,
            seed=seed,
        )
        return Trace(plan, array("d", [each[3] for each in arrivals]))


@dataclass(frozen=True)
class Trace:
    """A plan, and how long each of its requests keeps a place busy."""

    plan: Plan
    work: "array[float]"


def _request(path: str, takes: float, criticality: str | None, keep_alive: bool) -> bytes:  # noqa: FBT001  one caller
    lines = [f"GET {path}?s={takes:.6f} HTTP/1.1", "Host: bench"]
    if criticality is not None:
        lines.append(f"{wire.CRITICALITY}: {criticality}")
    if not keep_alive:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def request(takes: float) -> bytes:
    """Return a request as the main lane sends them."""
    return _request("/work", takes, None, keep_alive=False)


def _about(seconds: float) -> Callable[[random.Random, bool], float]:
    return lambda dice, _: seconds * dice.uniform(0.5, 1.5)


def _slower(seconds: float, times: float) -> Callable[[random.Random, bool], float]:
    return lambda dice, on: seconds * dice.uniform(0.5, 1.5) * (times if on else 1.0)


def _bimodal(seconds: float) -> Callable[[random.Random, bool], float]:
    return lambda dice, _: seconds * (100.0 if dice.random() < 0.01 else dice.uniform(0.5, 1.5))


def _pareto(mean_s: float) -> Callable[[random.Random, bool], float]:
    """Bounded Pareto with exponent 1.5 up to a hundred times the least, scaled to the mean."""
    alpha, span = 1.5, 100.0
    tail = 1 - span**-alpha
    mean = alpha / (alpha - 1) * (1 - span ** (1 - alpha)) / tail
    return lambda dice, _: mean_s / mean * (1 - dice.random() * tail) ** (-1 / alpha)


def _one(takes: Callable[[random.Random, bool], float]) -> tuple[Lane, ...]:
    return (Lane("main", 1.0, "/work", takes),)


def _mixed(seconds: float) -> tuple[Lane, ...]:
    takes = _about(seconds)
    return (
        Lane("critical-plus", 0.08, "/work", takes, "critical-plus"),
        Lane("critical", 0.62, "/work", takes),
        Lane("sheddable", 0.30, "/work", takes, "sheddable"),
    )


_SLOW_ENDPOINT = (Lane("fast", 0.95, "/fast", _about(0.01)), Lane("slow", 0.05, "/slow", _slower(0.01, 50)))


def _swing(t: float) -> float:
    return 2.0 if t % 5 < 2.5 else 0.3


def _ramp(peak: float, length_s: float) -> Callable[[float], float]:
    return lambda t: 0.6 + (peak - 0.6) * (1 - abs(2 * t / length_s - 1))


def _constant(load: float) -> Callable[[float], float]:
    return lambda _: load


def _steady(name: str, server: Server, work_s: float, load: float, seconds: float, **more: Any) -> Workload:
    more.setdefault("lanes", _one(_about(work_s)))
    same: dict[str, Any] = {
        "load": _constant(load),
        "calm_load": load,
        "event_s": seconds,
        "after_s": 0.0,
        "below_capacity": True,
    }
    return Workload(name, server, work_s, **same, **more)


def _step(name: str, server: Server, work_s: float, load: float, seconds: float = 10.0, **more: Any) -> Workload:
    more.setdefault("lanes", _one(_about(work_s)))
    return Workload(name, server, work_s, load=_constant(load), event_s=seconds, **more)


_W1, _W4, _W8, _W16 = (Server("sync", "sleep", places) for places in (1, 4, 8, 16))
_GT8 = Server("gthread", "sleep", 8)
_POOL, _IO = Server("uvloop", "pool", 20), Server("uvloop", "io", 20)
_POOL_H11 = Server("asyncio", "pool", 20)
_THREADS = Server("uvloop", "threads", 40)
_CPU_SYNC, _CPU_GT, _CPU_LOOP = Server("sync", "cpu", 1), Server("gthread", "cpu", 4), Server("uvloop", "cpu", 1)

_ALL = (
    _steady("steady 70%", _W8, 0.02, 0.7, 13),
    _steady("steady 80%", _W8, 0.02, 0.8, 23),
    _steady("steady 90%", _W8, 0.02, 0.9, 13),
    _steady("steady 80%, threads", _GT8, 0.02, 0.8, 13),
    _steady("steady 80%, pool", _POOL, 0.1, 0.8, 13),
    _step("step 8x, 2 ms", _W1, 0.002, 8),
    _step("step 8x, 20 ms", _W4, 0.02, 8),
    _step("step 8x, 100 ms", _W8, 0.1, 8, 15),
    _step("step 8x, 200 ms", _W16, 0.2, 8, 15),
    _step("step 1.5x, 20 ms", _W4, 0.02, 1.5),
    _step("step 8x, 20 ms, threads", _GT8, 0.02, 8),
    _step("step 8x, pool", _POOL, 0.1, 8),
    _step("step 8x, pool, h11", _POOL_H11, 0.1, 8),
    _step("step 1.5x, pool", _POOL, 0.1, 1.5),
    _step("step 8x, sync endpoints", _THREADS, 0.2, 8),
    _step("step 1.5x, sync endpoints", _THREADS, 0.2, 1.5),
    _step("step 8x, CPU, sync", _CPU_SYNC, 0.005, 8),
    _step("step 8x, CPU, threads", _CPU_GT, 0.005, 8),
    _step("step 8x, CPU, loop", _CPU_LOOP, 0.005, 8),
    _step("step 1.5x, CPU, loop", _CPU_LOOP, 0.005, 1.5),
    Workload("ramp 4x", _W4, 0.02, _one(_about(0.02)), _ramp(4, 15), 15),
    Workload("oscillation", _W4, 0.02, _one(_about(0.02)), _swing, 15),
    Workload("oscillation, pool", _POOL, 0.1, _one(_about(0.1)), _swing, 15),
    Workload("bimodal 2x", _W8, 0.02, _one(_bimodal(0.01)), _constant(2), 10),
    _steady("bimodal 70%", _W8, 0.02, 0.7, 13, lanes=_one(_bimodal(0.01))),
    Workload("heavy tail 2x", _W8, 0.02, _one(_pareto(0.02)), _constant(2), 10),
    Workload("brownout to a quarter", _W4, 0.02, _one(_slower(0.02, 4)), _constant(0.7), 10),
    Workload("brownout, pool", _POOL, 0.1, _one(_slower(0.1, 4)), _constant(0.7), 10),
    Workload("cold cache", _W4, 0.02, _one(_slower(0.02, 3)), lambda t: 2.5 if t < 1 else 0.8, 8),
    _step("retry storm", _W4, 0.02, 3, 5, retries=3, after_s=8.0),
    _step("retry storm, pool", _POOL, 0.1, 3, 5, retries=3, after_s=8.0),
    _step("mixed criticalities 8x", _W4, 0.02, 8, lanes=_mixed(0.02)),
    _step("mixed criticalities 8x, pool", _POOL, 0.1, 8, lanes=_mixed(0.1)),
    Workload("one slow endpoint", _W8, 0.01, _SLOW_ENDPOINT, _constant(0.6), 10),
    Workload("one slow endpoint, pool", _POOL, 0.01, _SLOW_ENDPOINT, _constant(0.6), 10),
    _step("low volume 3x", _W4, 0.5, 3, 20, deadline_s=5.0),
    _steady("low volume 70%", _W4, 0.5, 0.7, 20, deadline_s=5.0),
    _steady("pauses", _W8, 0.02, 0.6, 18, pauses=True),
    Workload("slow dependency", _IO, 0.05, _one(_slower(0.05, 4)), _constant(0.6), 10, below_capacity=True),
)

WORKLOADS = {each.name: each for each in _ALL}
"""By name; the order is that of the report."""

QUICK = ("step 8x, 20 ms", "step 8x, pool", "mixed criticalities 8x")
