"""Fixtures and rules for every test.

Environment:

* ``GROUNDFAULT_NO_SKIPS=1`` turns each skipped test into a failure, so that a machine that has everything
  cannot quietly leave something out.
* ``HYPOTHESIS_PROFILE=nightly`` looks for counter-examples ten times as long.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from groundfault import events
from groundfault.sinks import default_sinks
from groundfault.testing import ManualClock, RecordingSink

_EXAMPLES = 60

settings.register_profile("fast", max_examples=_EXAMPLES, deadline=None)
settings.register_profile("nightly", max_examples=10 * _EXAMPLES, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport, name: str) -> None:
    """Make a report of a skip one of a failure; an expected failure is none."""
    if os.environ.get("GROUNDFAULT_NO_SKIPS") != "1" or not report.skipped or hasattr(report, "wasxfail"):
        return
    why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{name} was skipped, which GROUNDFAULT_NO_SKIPS=1 forbids: {why}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Forbid skipped tests on demand."""
    report = yield
    _forbid_skip(report, item.nodeid)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Forbid skipped modules on demand."""
    report = yield
    _forbid_skip(report, collector.nodeid)
    return report


@pytest.fixture
def clock() -> ManualClock:
    """Return a clock that stands at 1000.0 s until it is told to move."""
    return ManualClock()


@pytest.fixture
def sink() -> RecordingSink:
    """Return a sink that keeps every event."""
    return RecordingSink()


@pytest.fixture(autouse=True)
def _process_wide_state_as_new() -> Iterator[None]:
    """Give each test the default sinks, and no internal error counted or logged before it."""
    sinks = default_sinks()
    before = sinks.changes
    events._internal_errors.clear()
    events._last_logged.clear()
    yield
    sinks.use(*before)
    events._internal_errors.clear()
    events._last_logged.clear()
