"""Runs as real ones look: a queue before a service that can do so much, under a spike, with and without protection."""

import random
from itertools import pairwise

from groundfault.lab.curves import Spike, arrivals
from groundfault.lab.runs.measures import Bound, judged
from groundfault.lab.runs.record import Edge, Mark, Run, Service, Stream
from groundfault.lab.runs.tally import Fate, Tally

DEADLINE_S = 1.0
CAPACITY = 20.0
BOUNDS = ("goodput@spike>=0.85", "success.innocent@spike>=0.99", "recovery_s@after<=4", "trips<=0", "shed@before<=0")
SHED, BREAKERS, UNPROTECTED = "groundfault", "plain-503", "unprotected"


def spike_run(variant=SHED, *, curve=None, seed="gronk", bounds=BOUNDS, capacity=CAPACITY, **changes):
    """Return what a spike makes of one queue: first come first served, refused at the door, or neither."""
    curve = curve or Spike(base_rps=12, factor=8, before_s=10, spike_s=20, after_s=20)
    dice = random.Random(f"{seed}{variant}")
    seconds = int(curve.total_s)
    fans, innocents = Tally(), Tally()
    free = 0.0
    waits = [0.0] * seconds
    came, shed = [0] * seconds, [0] * seconds
    for due in arrivals(curve, seed=seed):
        at = int(due)
        wait = max(0.0, free - due)
        waits[at] = max(waits[at], wait * 1000)
        came[at] += 1
        fans.send(due, due + dice.uniform(0, 0.003))
        if variant != UNPROTECTED and wait > 0.25:
            shed[at] += 1
            fans.settle(due, Fate.FAILED if variant == BREAKERS else Fate.SHED, 0.02)
            continue
        if variant == BREAKERS and curve.before_s < due < curve.spike_end_s and int(due) % 6 > 1:
            fans.settle(due, Fate.FAILED, 0.001)  # the circuit is open
            continue
        free = max(free, due) + dice.uniform(0.8, 1.2) / capacity
        latency = free - due + 0.02
        late = latency > DEADLINE_S
        fans.settle(due, Fate.LATE if late else Fate.GOOD, min(latency, DEADLINE_S))
    for due in arrivals(curve, scale=1 / 3, seed=f"{seed}-innocent"):
        innocents.send(due, due)
        backlog = waits[min(int(due), seconds - 1)] > 1500
        harmed = backlog if variant == UNPROTECTED else variant == BREAKERS and 3 < due - curve.before_s < 18
        innocents.settle(due, Fate.FAILED if harmed and dice.random() < 0.6 else Fate.GOOD, dice.uniform(0.005, 0.03))
    trips = [curve.before_s + 2, curve.before_s + 8, curve.before_s + 14] if variant == BREAKERS else []
    run = Run(
        **{
            "name": "gronk-spike",
            "title": "One touchdown, eight times the fans",
            "source": "locust",
            "variant": variant,
            "target": "topps, grouper and saber on this machine",
            "seed": seed,
            "seconds": seconds,
            "deadline_s": DEADLINE_S,
            "started_at": 1_795_436_400.0,
            "capacity_rps": capacity,
            "lag_p99_ms": 2.4,
            "streams": [
                Stream.of("fan", fans, seconds),
                Stream.of("lobby", innocents, seconds, innocent=True),
            ],
            "spans": {
                "before": (0.0, curve.before_s),
                "spike": (curve.before_s, curve.spike_end_s),
                "after": (curve.spike_end_s, curve.total_s),
            },
            "marks": [Mark(t=curve.before_s, text="touchdown"), Mark(t=curve.spike_end_s, text="the fans calm down")],
            "services": [
                Service(
                    name="saber",
                    arrived=came,
                    shed=shed,
                    answered=[a - s for a, s in zip(came, shed, strict=True)],
                    wait_p95_ms=waits,
                    busy=[min(1.0, a / capacity) for a in came],
                ),
                Service(name="grouper", arrived=came, shed=[0] * seconds, answered=came, wait_p95_ms=[1.5] * seconds),
            ],
            "edges": [
                Edge(caller="topps", callee="grouper", calls=came, bad=shed, refused=[0] * seconds),
                Edge(
                    caller="grouper",
                    callee="saber",
                    calls=came,
                    bad=shed,
                    refused=[0] * seconds,
                    trips=trips,
                    open=[(t, t + 4.5) for t in trips],
                ),
            ],
            "settings": {"spike": 8, "queue": {"max_wait_s": 0.25, "workers": [2, 16]}, "retries": None},
            "versions": {"groundfault": "0.1.0", "python": "3.13.5"},
            **changes,
        }
    )
    run.checks.extend(judged(run, [Bound.parse(text) for text in bounds]))
    return run


def fleet_run(services=30, seconds=120):
    """Return a run of many services, some of which suffer, with long names and more marks than fit side by side."""
    dice = random.Random("fleet")
    curve = Spike(base_rps=100, factor=6, before_s=40, spike_s=40, after_s=seconds - 80)
    names = [f"{word}-{number:02d}" for number, word in enumerate(("lineup", "contest-entry-service", "wallet") * 30)]
    names = names[:services]
    found = []
    for number, name in enumerate(names):
        heavy = 4 if number % 5 == 0 else 0.2
        came = [round(curve.rate(t) * dice.uniform(0.5, 1)) for t in range(seconds)]
        shed = [round(each * 0.4) if heavy > 1 and 40 <= t < 82 else 0 for t, each in enumerate(came)]
        wait = [None if t % 17 == 0 else heavy * curve.rate(t) * dice.uniform(0.2, 1) for t in range(seconds)]
        answered = [a - s for a, s in zip(came, shed, strict=True)]
        found.append(Service(name=name, arrived=came, shed=shed, answered=answered, wait_p95_ms=wait, instances=came))
    edges = [
        Edge(
            caller=caller,
            callee=callee,
            calls=[5] * seconds,
            bad=[1] * seconds,
            refused=[0] * seconds,
            trips=[41.0 + number] if number % 4 == 0 else [],
            open=[(41.0 + number, 60.0 + number)] if number % 4 == 0 else [],
        )
        for number, (caller, callee) in enumerate(pairwise(names))
    ]
    marks = [Mark(t=40 + number * 0.7, text=f"replica {number} fails over") for number in range(14)]
    return spike_run(curve=curve, capacity=220.0, services=found, edges=edges, marks=marks)


def sunday_run(hours=24):
    """Return a day by the second, with three spikes of some minutes."""
    seconds = hours * 3600
    dice = random.Random("sunday")
    touchdowns = [seconds // 2, int(seconds * 0.6), int(seconds * 0.8)]
    due, good, shed, latencies = [], [], [], {}
    for t in range(seconds):
        base = 20 + 60 * (t > seconds // 3) + 30 * (t > seconds // 2)
        rate = base * (6 if any(0 <= t - at < 180 for at in touchdowns) else 1)
        due.append(max(0, round(dice.gauss(rate, rate**0.5))))
        good.append(min(due[-1], 220))
        shed.append(due[-1] - good[-1])
        if t % 10 == 0:  # enough for each point of a plot
            latencies[str(t)] = {str(bucket): good[-1] // 5 for bucket in range(30, 35)}
    zero, waits = [0] * seconds, [float(10 + 200 * (s > 0)) for s in shed]
    fans = Stream(
        name="fan", due=due, sent=due, arrived=good, good=good, late=zero, shed=shed, failed=zero, unsent=zero,
        p50_ms=waits, p99_ms=waits, latencies=latencies,
    )  # fmt: skip
    services = [
        Service(name=f"service-{n}", arrived=due, shed=shed, answered=good, wait_p95_ms=waits) for n in range(4)
    ]
    spans = {f"spike-{n}": (float(at), at + 180.0) for n, at in enumerate(touchdowns, 1)}
    run = Run(
        name="nfl-sunday", title="An NFL Sunday", source="simulator", variant="groundfault", seconds=seconds,
        deadline_s=1.0, streams=[fans], capacity_rps=220.0, spans=spans, services=services,
        marks=[Mark(t=float(at), text=f"touchdown {n}") for n, at in enumerate(touchdowns, 1)],
    )  # fmt: skip
    run.checks.extend(judged(run, [Bound.parse("goodput@spike-1>=0.9"), Bound.parse("p99_ms<=300")]))
    return run
