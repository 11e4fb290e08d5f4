"""What a process that speaks for itself alone has to say."""

from collections.abc import Iterator
from typing import Final

from groundfault.metrics.catalogue import Metric
from groundfault.metrics.report import Report
from groundfault.metrics.samples import Row, families

__all__ = ["OF_FILES", "own_families"]

OF_FILES: Final = frozenset({"groundfault.report.age", "groundfault.reports.unread"})
"""Metrics of those who read the run directory."""


def own_families(report: Report, now: float) -> Iterator[tuple[Metric, list[Row]]]:
    """Yield each metric that has something to say, with its rows. ``now``: seconds since the epoch."""
    for metric, rows in families(report, now):
        if metric.dotted not in OF_FILES:
            yield metric, rows
