"""What the panels are made of: PromQL that is written once, and what a panel and a row are."""

from dataclasses import dataclass, field
from typing import Final

__all__ = [
    "BAD",
    "CALLS",
    "COMMAND",
    "EACH",
    "FAILED",
    "FAILING",
    "JOB",
    "JUDGED",
    "NOT_CLOSED",
    "REQUESTS",
    "SERVICE",
    "SHED",
    "SHEDDING",
    "STATE",
    "WAIT",
    "Panel",
    "Row",
    "news",
    "per",
    "quantile",
    "rate",
    "share",
    "worst",
]

SERVICE: Final = 'namespace=~"$namespace",job=~"$job",service=~"$service"'
COMMAND: Final = 'namespace=~"$namespace",job=~"$job",resource=~"$resource",command=~"$command"'
JOB: Final = 'namespace=~"$namespace",job=~"$job"'

REQUESTS: Final = "groundfault_requests_total"
WAIT: Final = "groundfault_request_time_in_queue_seconds"
CALLS: Final = "groundfault_command_calls_total"
STATE: Final = "groundfault_circuit_state"

EACH: Final = "job, resource, command"
FAILED: Final = 'outcome=~"failure|timeout"'
JUDGED: Final = 'outcome=~"success|failure|timeout"'
SHED: Final = 'result="shed"'

BAD: Final = ((None, "green"), (1, "red"))
FAILING: Final = ((None, "green"), (0.05, "yellow"), (0.2, "orange"), (0.5, "red"))
SHEDDING: Final = ((None, "green"), (0.01, "yellow"), (0.05, "orange"), (0.5, "red"))

Steps = tuple[tuple[float | None, str], ...]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel.

    ``queries``: expressions by legend, in a table by column. ``steps``: colors by the value from which on they count.
    ``stacked``: one upon the other, for parts of a whole. ``empty``: what is shown where there is nothing to show.
    ``labels``, ``units``, ``colored``: of a table the columns made of labels, columns of other units than ``unit``,
    and those with colors.
    """

    id: int
    title: str
    says: str
    queries: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    steps: Steps = ((None, "green"),)
    stacked: bool = False
    highest: float | None = None
    decimals: int | None = None
    empty: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    colored: dict[str, Steps] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of panels, under a title."""

    id: int
    title: str
    panels: tuple[Panel, ...]


def rate(metric: str, selector: str, by: str = "") -> str:
    """Return the sum of a counter's rates."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{{{selector}}}[$__rate_interval]))"


def news(metric: str, selector: str, by: str) -> str:
    """Return how often something rare has happened, the first time included: that one makes the series, so no rise."""
    chosen = f"{metric}{{{selector}}}"
    first = f"({chosen} unless {chosen} offset $__rate_interval)"
    return f"sum by ({by}) ({first} or increase({chosen}[$__rate_interval]))"


def share(metric: str, selector: str, by: str = "", *, part: str, whole: str = "") -> str:
    """Return how large a part of a counter's rate is: zero without such a part, nothing at all without any rate."""
    everything = rate(metric, f"{selector},{whole}" if whole else selector, by)
    return f"({rate(metric, f'{selector},{part}', by)} or 0 * {everything}) / ({everything} > 0)"


def worst(shares: str, volume: str) -> str:
    """Return the greatest of these shares, of those that have a call or request every five seconds to be judged by."""
    return f"max(({shares}) and ({volume} > 0.2))"


def quantile(which: float, metric: str, selector: str, by: str = "") -> str:
    """Return a percentile of a histogram."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({which:g}, {rate(metric + '_bucket', selector, labels)})"


def per(by: str, metric: str, selector: str, how: str = "sum") -> str:
    """Return a gauge, of all processes together."""
    return f"{how} by ({by}) ({metric}{{{selector}}})"


NOT_CLOSED: Final = per(EACH, STATE, f'{COMMAND},state!="closed"')
"""In how many processes a command's circuit is open or half-open."""
