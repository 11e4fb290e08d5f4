"""What the protected phase must reach, and how each number is shown. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Judged", "judge"]

JUDGED_PHASE = "groundfault"


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """One line of the table: what each phase measured and, if there is a target, whether the protected one met it."""

    key: str
    title: str
    shown: dict[str, str]
    target: str | None
    met: bool | None


def _percent(value: Any) -> str:
    return f"{value:.1%}"


def _seconds(value: Any) -> str:
    return "not within the run" if value is None else f"{value:.1f} s"


def _milliseconds(value: Any) -> str:
    return "none" if value is None else f"{value:.0f} ms"


@dataclass(frozen=True, slots=True)
class _Line:
    key: str
    title: str
    show: Callable[[Any], str]
    at_least: float | None = None
    at_most: float | None = None

    def target(self) -> str | None:
        if self.at_least is not None:
            return f"≥ {self.show(self.at_least)}"
        if self.at_most is not None:
            return f"≤ {self.show(self.at_most)}" if self.at_most else "0"
        return None

    def met(self, value: float | None) -> bool | None:
        if self.at_least is not None:
            return value is not None and value >= self.at_least
        if self.at_most is not None:
            return value is not None and value <= self.at_most
        return None


_LINES = (
    _Line("goodput_share_in_spike", "goodput during the spike, share of capacity", _percent, at_least=0.85),
    _Line("innocents_success_in_spike", "innocents served in time during the spike", _percent, at_least=0.99),
    _Line("recovery_s", "time after the spike until 99 % is good again", _seconds, at_most=4.0),
    _Line("trips", "circuits tripped", str, at_most=0),
    _Line("false_shed_share_before_spike", "falsely shed before the spike", _percent, at_most=0),
    _Line("admitted_p99_ms", "slowest admitted requests in the spike (p99)", _milliseconds),
    _Line("shed_share_in_spike", "fans refused with a 503 in the spike", _percent),
    _Line("generator_lag_p99_ms", "load generator's own lag (p99)", _milliseconds),
    _Line("cpu_peak", "host CPU at its peak", _percent),
)


def judge(phases: Mapping[str, Mapping[str, Any]]) -> list[Judged]:
    """Return the lines of the table for the metrics of each phase; a target speaks of the protected phase only."""
    return [
        Judged(
            key=line.key,
            title=line.title,
            shown={phase: line.show(metrics[line.key]) for phase, metrics in phases.items()},
            target=line.target(),
            met=line.met(phases[JUDGED_PHASE][line.key]),
        )
        for line in _LINES
    ]
