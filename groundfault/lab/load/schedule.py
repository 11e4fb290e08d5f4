"""Which requests one driver sends when: its share of what all drivers draw. Pure.

Every driver draws the same arrivals of every lane and sends each its own share of them, so that together
they send exactly what was drawn, however many they are and wherever they run.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from heapq import merge
from typing import Final, NamedTuple

from groundfault.lab.curves import Curve, arrivals, share_of
from groundfault.lab.load.scenario import Lane, Played

__all__ = ["Due", "drawn", "expected", "schedule"]

_MASK: Final = (1 << 64) - 1


class Due(NamedTuple):
    """One arrival: when, on which lane (by its place), the how-manieth of that lane, and a number from [0, 1)."""

    t: float
    lane: int
    number: int
    drawn: float


def schedule(
    lanes: Sequence[Lane], curve: Curve, *, seed: str, driver: int = 0, drivers: int = 1, time: float = 1.0
) -> Iterator[Due]:
    """Yield what this driver of so many sends, in the order in which it is due.

    ``time`` stretches the curves of lanes that have one of their own; ``curve`` is taken as it is.
    Drawn as it is asked for: a day of arrivals takes no memory.
    """
    lanes_due = []
    for place, lane in enumerate(lanes):
        if lane.share > 0:
            own = Played(lane.curve, time) if lane.curve else curve
            lanes_due.append(_lane(place, lane, own, f"{seed}/{lane.name}", driver=driver, drivers=drivers))
    return merge(*lanes_due)


def _lane(place: int, lane: Lane, curve: Curve, seed: str, *, driver: int, drivers: int) -> Iterator[Due]:
    key = int.from_bytes(blake2b(seed.encode(), digest_size=8).digest())
    moments = share_of(arrivals(curve, scale=lane.share, seed=seed), driver, drivers)
    for count, t in enumerate(moments):
        number = driver + count * drivers
        yield Due(t, place, number, drawn(key, number))


def drawn(key: int, number: int) -> float:
    """Return a number from [0, 1) for the arrival with this number: drawn for it alone, without those before it.

    The finalizer of SplitMix64 (Steele, Lea and Flood 2014) over key + number * the golden ratio.
    """
    z = (key + (number + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((z ^ (z >> 31)) >> 11) / (1 << 53)


def expected(lanes: Sequence[Lane], curve: Curve, *, time: float = 1.0) -> float:
    """Return how many arrivals there are on average, of all lanes together."""
    total = 0.0
    for lane in lanes:
        own = Played(lane.curve, time) if lane.curve else curve
        total += lane.share * own.expected(0.0, own.total_s)
    return total
