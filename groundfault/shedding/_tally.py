"""What has been decided so far: the counts of one process, and its episodes of shedding. Pure; the caller guards it."""

from collections import Counter
from typing import Final

from groundfault._histogram import Histogram
from groundfault.events import SheddingChanged
from groundfault.vocabulary import Criticality, Reason

__all__ = ["Tally"]

QUIET_S: Final = 3.0
"""So long without a refusal ends an episode of shedding; shorter pauses within one overload are common."""

_USUAL: Final = Criticality.CRITICAL
_OVERLOAD: Final = frozenset({Reason.QUEUE_WAIT, Reason.CONCURRENCY})


class Tally:
    """``shed`` counts by reason and criticality; ``abandoned`` are those of them whose client had left.

    ``withdrawn`` are those of them that had been admitted first.
    ``waits``: how long requests had waited that a signal could tell of.
    ``callers``: requests of those that say who they are, by name and by the reason of the refusal, None if admitted,
    with the sum of their waits in seconds.
    ``episode``: whether one of shedding is going on. Where a method returns an event, the caller hands it to the sinks.
    """

    __slots__ = (
        "_episode_shed",
        "_refused_at",
        "abandoned",
        "admitted",
        "callers",
        "episode",
        "in_flight",
        "shed",
        "waits",
        "withdrawn",
    )

    def __init__(self) -> None:
        self.in_flight = 0
        self.admitted: Counter[Criticality] = Counter()
        self.shed: Counter[tuple[Reason, Criticality]] = Counter()
        self.withdrawn: Counter[Criticality] = Counter()
        self.abandoned = 0
        self.waits = Histogram()
        self.callers: dict[tuple[str, Reason | None], tuple[int, float]] = {}
        self.episode = False
        self._episode_shed = 0
        self._refused_at = 0.0

    def refuse(
        self,
        now: float,
        reason: Reason,
        criticality: Criticality,
        *,
        service: str,
        wait_s: float,
        predicted_s: float | None,
        traceparent: str | None,
        enforced: bool,
    ) -> SheddingChanged | None:
        """Count a refusal; return the event if it begins an episode."""
        self.shed[reason, criticality] += 1
        if reason not in _OVERLOAD:  # a budget that is used up may be any client's doing: no news of this server
            return None
        self._refused_at = now
        self._episode_shed += 1
        if self.episode:
            return None
        self.episode, self._episode_shed = True, 1
        return SheddingChanged(
            service=service,
            shedding=True,
            queue_wait_s=wait_s,
            shed=1,
            reason=reason,
            traceparent=traceparent,
            predicted_wait_s=predicted_s,
            enforced=enforced,
        )

    def note_caller(self, caller: str, reason: Reason | None, wait_s: float) -> None:
        """Count a request of a caller that has a name; ``reason``: of its refusal, None if it was admitted."""
        times, waited_s = self.callers.get((caller, reason), (0, 0.0))
        self.callers[caller, reason] = times + 1, waited_s + wait_s

    def refuse_more(self, now: float, reason: Reason) -> None:
        """Count one more refusal of the usual criticality, where none can begin an episode."""
        self.shed[reason, _USUAL] += 1
        if reason in _OVERLOAD:
            self._refused_at = now
            self._episode_shed += 1

    def withdraw(
        self,
        now: float,
        reason: Reason,
        criticality: Criticality,
        service: str,
        late_s: float,
        *,
        traceparent: str | None,
        enforced: bool,
    ) -> SheddingChanged | None:
        """Count as a refusal what has been counted as admitted ``late_s`` ago; return as :meth:`refuse` does."""
        self.admitted[criticality] -= 1
        self.withdrawn[criticality] += 1
        return self.refuse(
            now,
            reason,
            criticality,
            service=service,
            wait_s=0.0,
            predicted_s=late_s,
            traceparent=traceparent,
            enforced=enforced,
        )

    def end_of_episode(self, now: float, wait_s: float, service: str, *, enforced: bool) -> SheddingChanged | None:
        """Return the event if there has been no refusal for so long that the episode is over."""
        if not self.episode or now - self._refused_at < QUIET_S:
            return None
        self.episode = False
        shed = self._episode_shed
        return SheddingChanged(service=service, shedding=False, queue_wait_s=wait_s, shed=shed, enforced=enforced)
