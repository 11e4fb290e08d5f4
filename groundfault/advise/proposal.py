"""What is proposed for one command, with the reasons, as values that a table, JSON or a plot are made from."""

from dataclasses import asdict, dataclass, field
from typing import Any, Final

from groundfault.advise.distribution import Distribution
from groundfault.advise.observed import Observed

__all__ = ["ORDINARY", "Advice", "Proposal", "SegmentView", "Wishes"]

ORDINARY: Final = 0.2
"""A current value that is within this share of the advice is left alone: no change is that exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the person asks for.

    ``may_cut``: the share of today's successes that a timeout may cut off, 0.001: one in a thousand.
    ``processes`` that call each command, None: as the source says.
    ``peak_factor``: how many times the greatest rate that was seen the busiest time brings, 1.0.
    ``scope``: where the settings are to hold, before resource and command; ``*`` for the whole fleet.
    """

    may_cut: float = 0.001
    processes: int | None = None
    peak_factor: float = 1.0
    scope: str = "*"


@dataclass(frozen=True, slots=True)
class Advice:
    """One setting. ``value`` is None where nothing can be said; ``why`` says why, or why this value.

    ``current`` is None where it is not known. ``read`` says that it was taken from the calls, not from settings.
    """

    name: str
    value: float | None
    why: str
    current: float | None = None
    read: bool = False

    @property
    def changes(self) -> bool:
        """Whether the value differs from the current one by more than is ordinary."""
        if self.value is None:
            return False
        return self.current is None or abs(self.current - self.value) > ORDINARY * self.current


@dataclass(frozen=True, slots=True)
class SegmentView:
    """One segment of a command's calls under the proposal.

    ``cut_share``: of its successes, cut off by the proposed timeout, or without one by the current one.
    ``sparing_s``: the timeout that would spare it, None where the proposal does.
    """

    name: str
    calls: int
    share: float
    p95_s: float
    timed_out_share: float
    cut_share: float
    sparing_s: float | None = None


@dataclass(slots=True)
class Proposal:
    """Everything that is said of one command. ``cautions`` are for the person who is about to apply it."""

    seen: Observed
    advice: list[Advice] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)
    segments: list[SegmentView] = field(default_factory=list)
    confidence: str = "none"

    @property
    def path(self) -> str:
        """``resource/command``."""
        return self.seen.path

    def of(self, name: str) -> Advice | None:
        """Return the advice on one setting, if there is any."""
        return next((each for each in self.advice if each.name == name), None)

    @property
    def changes(self) -> list[Advice]:
        """The advice that changes something."""
        return [each for each in self.advice if each.changes]

    @property
    def timeout_s(self) -> float | None:
        """The timeout that would be in force: the one proposed, or else the current one."""
        advice = self.of("timeout_s")
        if advice is None:
            return None
        return advice.value if advice.changes else advice.current

    @property
    def cut_share(self) -> float:
        """The share of today's successes that may be cut off by that timeout."""
        return 0.0 if self.timeout_s is None else self.seen.successes.share_above(self.timeout_s)

    def entries(self, scope: str) -> list[dict[str, Any]]:
        """Return the changes as entries of a settings document."""
        return [{"scope": f"{scope}/{self.path}", "name": each.name, "value": each.value} for each in self.changes]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        seen = self.seen
        return {
            "resource": seen.resource,
            "command": seen.command,
            "calls": dict(seen.calls),
            "successes": _figures(seen.successes),
            "rates": None if seen.rates is None else asdict(seen.rates),
            "processes": seen.processes,
            "confidence": self.confidence,
            "advice": [{**asdict(each), "changes": each.changes} for each in self.advice],
            "timeout_s": self.timeout_s,
            "cut_share": self.cut_share,
            "cautions": list(self.cautions),
            "segments": [asdict(each) for each in self.segments],
        }


def _figures(durations: Distribution) -> dict[str, float]:
    quantiles = {f"p{share:g}_s": durations.quantile(share / 100) for share in (50, 95, 99, 99.9)}
    return {"count": durations.count, "mean_s": durations.mean_s, **quantiles}
