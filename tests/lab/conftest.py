"""A recorded demo, made by hand, small enough to reckon with on paper."""

import pytest

from groundfault.lab.curves import Spike
from groundfault.lab.demo import Recorded
from groundfault.lab.measure import Measured, Row
from groundfault.lab.parts import Phase

CURVE = Spike(base_rps=6, factor=8, before_s=2, spike_s=4, after_s=5, rise_s=1)
CAPACITY = 10.0


def request(due, *, kind="fan", status=200, latency=0.1, handled=False, lag=0.001):
    return Row(kind=kind, due=due, latency_s=latency, status=status, handled=handled, lag_s=lag)


def every(step, start, end, **fields):
    """Return requests at equal distances."""
    return [request(start + step * number, **fields) for number in range(round((end - start) / step))]


def opened(t, by, resource, old="closed"):
    return {
        "t": t, "event": "circuit.open", "warning": True, "by": by,
        "pid": 1, "resource": resource, "command": "get", "old": old, "new": "open",
    }  # fmt: skip


def seen(t, *, wait_s=0.02, reason=None, by="saber"):
    return {"t": t, "event": "request.seen", "warning": False, "by": by, "queue_wait_s": wait_s, "reason": reason}


@pytest.fixture(scope="session")
def recorded():
    """Three phases of eleven seconds: everybody late, half refused, all well."""
    fans = (*every(0.2, 0, 2), *every(0.2, 6, 11))
    unprotected = [*fans, *every(0.05, 2, 6, latency=1.0001, status=0), *every(0.1, 0, 11, kind="innocent")]
    plain = [
        *fans,
        *every(0.1, 2, 6),
        *every(0.1, 2.05, 6, status=503),
        *every(0.1, 0, 11, kind="innocent", status=503),
    ]
    good = [
        *fans,
        *every(0.1, 2, 6),
        *every(0.1, 2.05, 6, status=503, handled=True),
        *every(0.1, 0, 11, kind="innocent"),
    ]
    trips = [
        opened(2.5, "grouper", "saber"),
        opened(3.5, "topps", "grouper"),
        opened(3.6, "topps", "grouper", "half-open"),
    ]
    shed = [seen(2 + 0.1 * at, wait_s=0.01 * at, reason="queue-wait" if at % 2 else None) for at in range(40)]
    idle = [0.2] * 11
    return Recorded(
        capacity_rps=CAPACITY,
        curve=CURVE,
        phases={
            Phase.UNPROTECTED: Measured(rows=unprotected, events=[], cpu=idle),
            Phase.PLAIN_503: Measured(rows=plain, events=[*trips, *shed], cpu=idle),
            Phase.GROUNDFAULT: Measured(rows=good, events=shed, cpu=idle),
        },
    )
