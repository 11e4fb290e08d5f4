"""A report that says something of everything, for whoever sends reports."""

import pytest

from groundfault._histogram import Histogram
from groundfault.metrics.report import CommandReport, ProcessInfo, Report, ServerReport, StoreReport


def _histogram(*values_s):
    result = Histogram()
    for each in values_s:
        result.add(each)
    return result


def _full_report():
    """Return a report that says something of everything."""
    report = Report(processes=[ProcessInfo(1, "topps", 1000.0)], internal_errors={"breaker admission": 2})
    command = CommandReport("saber", "get", {"success": 3, "shed": 1}, {"success": _histogram(0.01, 0.01, 0.3)})
    command.fallbacks, command.moves, command.states = {"served": 1}, {"closed>open": 1}, {"open": 1}
    command.active, command.limit = 2, 5
    report.add_command(command)
    report.draw_edges("topps")
    server = ServerReport("topps", {("admitted", "critical"): 5, ("queue-wait", "critical"): 2}, _histogram(0.2))
    server.callers, server.signals, server.abandoned = {("fan", "admitted"): (3, 0.5)}, {"tcp-info": 1}, 1
    server.backlog, server.backlog_limit = 1, 100
    report.servers["topps"] = server
    report.stores["file"] = StoreReport("file", {"7": 1}, 2.5, rejected=1)
    return report


@pytest.fixture
def histogram():
    """Return a function that makes a histogram of values."""
    return _histogram


@pytest.fixture
def full_report():
    """Return a function that makes a report which says something of everything."""
    return _full_report
