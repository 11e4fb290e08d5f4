"""Counts of a run by second: bounded however long it lasts and however much it sends, and mergeable. Pure.

Seconds count from the start of the run. Locust's own figures are moving averages over ten seconds, in which a spike
that rises within one cannot be seen; these are exact.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Self

from groundfault._histogram import BOUNDS_S, Histogram

__all__ = ["Fate", "Second", "Tally"]


class Fate(StrEnum):
    """What became of a request that was due. Each has exactly one.

    * ``good``: answered well, within the deadline counted from the moment it was due.
    * ``late``: answered well after that, or not at all by then.
    * ``shed``: refused with an annotated 503: on purpose, by a service that is fine.
    * ``failed``: anything else: an error, a plain 503, a connection that broke.
    * ``unsent``: the generator did not send it, for it had as many open as it may. More than a few void the run.
    """

    GOOD = "good"
    LATE = "late"
    SHED = "shed"
    FAILED = "failed"
    UNSENT = "unsent"


FATES: Final = tuple(Fate)


class Second:
    """One second of one stream of requests.

    ``due``: requests that were due in it; ``fates``: what became of these, in the order of :class:`Fate`.
    ``sent``: requests that left in it. ``arrived``: good answers that came in it, whenever they were asked for.
    ``latencies``: of the good ones that were due in it, from the moment they were due.
    """

    __slots__ = ("arrived", "due", "fates", "latencies", "sent")

    def __init__(self) -> None:
        self.due = 0
        self.sent = 0
        self.arrived = 0
        self.fates = [0] * len(FATES)
        self.latencies = Histogram()

    def merge(self, other: Self) -> None:
        """Count what the other one has counted, too."""
        self.due += other.due
        self.sent += other.sent
        self.arrived += other.arrived
        self.fates = [mine + theirs for mine, theirs in zip(self.fates, other.fates, strict=True)]
        self.latencies.merge(other.latencies)


_INDEX: Final = {fate: index for index, fate in enumerate(FATES)}


class Tally:
    """Counts of one stream. Not thread-safe: whoever owns it guards it.

    ``lags``: how late requests were sent, as a histogram in seconds: 10 and 20 ms are among its bounds, so that what
    lies below these is known exactly.
    """

    __slots__ = ("lags", "seconds")

    def __init__(self) -> None:
        self.seconds: dict[int, Second] = {}
        self.lags = Histogram()

    def at(self, t: float) -> Second:
        """Return the second that holds the moment ``t``; what lies before the start belongs to the first."""
        number = int(t) if t > 0 else 0
        second = self.seconds.get(number)
        if second is None:
            second = self.seconds[number] = Second()
        return second

    def send(self, due: float, sent: float) -> None:
        """Count a request that was due at ``due`` and left at ``sent``."""
        self.at(due).due += 1
        self.at(sent).sent += 1
        self.lags.add(sent - due)

    def skip(self, due: float) -> None:
        """Count a request that was due and not sent."""
        second = self.at(due)
        second.due += 1
        second.fates[_INDEX[Fate.UNSENT]] += 1

    def settle(self, due: float, fate: Fate, latency_s: float) -> None:
        """Count what became of a request that was sent. ``latency_s`` counts from ``due``."""
        second = self.at(due)
        second.fates[_INDEX[fate]] += 1
        if fate is Fate.GOOD:
            second.latencies.add(latency_s)
            self.at(due + latency_s).arrived += 1

    def merge(self, other: Self) -> None:
        """Count what another generator has counted, too."""
        for number, second in other.seconds.items():
            mine = self.seconds.get(number)
            if mine is None:
                mine = self.seconds[number] = Second()
            mine.merge(second)
        self.lags.merge(other.lags)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON and Locust's messages can hold it."""
        return {
            "lags": self.lags.as_dict(),
            "seconds": {
                str(number): [each.due, each.sent, each.arrived, each.fates, each.latencies.as_dict()]
                for number, each in self.seconds.items()
            },
        }

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Self:
        """Return what :meth:`as_dict` was made from. Raises LookupError, TypeError or ValueError for anything else."""
        tally = cls()
        try:
            tally.lags = _histogram(said["lags"])
            for number, (due, sent, arrived, fates, latencies) in said["seconds"].items():
                second = tally.seconds[_count(number)] = Second()
                second.due, second.sent, second.arrived = _count(due), _count(sent), _count(arrived)
                second.fates = [_count(times) for _, times in zip(FATES, fates, strict=True)]
                second.latencies = _histogram(latencies)
        except (AttributeError, OverflowError) as error:
            raise ValueError(f"this is no tally: {error}") from error
        return tally


def _histogram(said: Mapping[str, Any]) -> Histogram:
    sum_s = float(said["sum_s"])
    if not 0 <= sum_s < float("inf"):
        raise ValueError(f"sum_s must be at least 0, not {sum_s:g}")
    return Histogram({_bucket(bucket): _count(times) for bucket, times in said["buckets"].items()}, sum_s)


def _bucket(said: Any) -> int:
    bucket = _count(said)
    if bucket > len(BOUNDS_S):
        raise ValueError(f"a bucket must be at most {len(BOUNDS_S)}, not {bucket}")
    return bucket


def _count(said: Any) -> int:
    count = int(said)
    if count < 0:
        raise ValueError(f"a count must be at least 0, not {count}")
    return count
