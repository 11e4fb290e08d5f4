"""Processes that count and write when a test says so, as a run directory would show them."""

import pytest

from groundfault._histogram import Histogram
from groundfault.console.observing import Observer
from groundfault.console.rows import command_rows, server_rows
from groundfault.console.views import view_of
from groundfault.metrics.report import CommandReport, ProcessInfo, Report, ServerReport, StoreReport, merged

START = 1_000_000.0


class Process:
    """One process. What it counts is seen once it has written."""

    def __init__(self, pid, service="topps", at=START):
        self.pid = pid
        self.service = service
        self.written_at = at
        self.calls = {}
        self.durations = {}
        self.requests = {}
        self.waits = Histogram()
        self.rest = {}  # fields of every command's report
        self.server = {}  # fields of the server's report
        self.stores = {}  # version by store
        self.written = Report()
        self.write(at)

    def call(self, times, outcome="success", *, name="get", resource="db", took_s=0.01):
        counts = self.calls.setdefault((resource, name), {})
        counts[outcome] = counts.get(outcome, 0) + times
        if outcome in {"success", "failure", "timeout"}:
            taken = self.durations.setdefault((resource, name, outcome), Histogram())
            for _ in range(times):
                taken.add(took_s)

    def request(self, times, reason="admitted", criticality="critical", *, wait_s=0.001):
        key = reason, criticality
        self.requests[key] = self.requests.get(key, 0) + times
        for _ in range(times):
            self.waits.add(wait_s)

    def write(self, at):
        self.written_at = at
        report = Report(processes=[self._info()])
        for (resource, name), counts in self.calls.items():
            durations = {
                outcome: taken.copy() for (*key, outcome), taken in self.durations.items() if key == [resource, name]
            }
            fields = {"states": {"closed": 1}, "limit": 5, **self.rest}
            report.add_command(CommandReport(resource, name, dict(counts), durations, **fields))
        if self.requests or self.server:
            fields = {"signals": {"tcp-info": 1}, "threshold_s": 0.25, **self.server}
            report.servers[self.service] = ServerReport(self.service, dict(self.requests), self.waits.copy(), **fields)
        for store, version in self.stores.items():
            report.stores[store] = StoreReport(store, {version or "declared": 1}, 0.5)
        report.draw_edges(self.service)
        self.written = report

    def _info(self):
        return ProcessInfo(
            self.pid,
            self.service,
            self.written_at,
            tuple((name, version, 0.5) for name, version in self.stores.items()),
        )


class Directory:
    """A run directory, and the observer that looks at it."""

    def __init__(self):
        self.now = START
        self.processes = []
        self.dead = Report()
        self.unread = {}
        self.observer = Observer("topps")

    def begin(self, *pids, **more):
        made = [Process(pid, at=self.now, **more) for pid in pids]
        self.processes += made
        return made[0] if len(made) == 1 else made

    def die(self, process):
        self.processes.remove(process)
        last = merged([process.written])
        last.bury()
        self.dead = merged([self.dead, last])

    def read(self):
        report = merged([self.dead, *(each.written for each in self.processes)])
        report.unread = dict(self.unread)
        return report

    def look(self, after_s=1.0, *, write=True):
        """Let time go by, have everybody write if that is wanted, and look."""
        self.now += after_s
        if write:
            for process in self.processes:
                process.write(self.now)
        self.observer.see(self.read(), self.now)

    def be_busy(self):
        """Have something of everything happen."""
        first, second = self.begin(1, 2)
        first.call(10)
        first.request(10)
        for process in (first, second):
            process.stores = {"file:s": "1-a"}
        self.look()
        first.rest = {"states": {"open": 1}, "moves": {"closed>open": 1}, "modes": {"shadow": 1}, "limit": None}
        first.stores = {"file:s": "2-b"}
        first.server = {"shedding": 1, "deadline_s": 1.0, "backlog": 60, "backlog_limit": 128}
        for _ in range(12):
            first.call(20)
            first.call(80, "failure", took_s=0.4)
            first.call(9, "shed", name="put", resource="saber")
            first.request(40)
            first.request(60, "queue-wait", "sheddable", wait_s=0.4)
            self.look()
        self.look(6.0, write=False)
        self.unread = {"9-00ff00ff00ff00ff.json": "it is damaged"}
        report = self.read()
        report.internal_errors = {"sink": 2}
        self.observer.see(report, self.now)

    def rows(self):
        return {f"{row['resource']}/{row['command']}": row for row in command_rows(self.observer, "topps")}

    def row(self, name="db/get"):
        return self.rows()[name]

    def server(self, name="topps"):
        return next(row for row in server_rows(self.observer) if row["service"] == name)

    def view(self, *observers, **more):
        fixed = {"kind": "host", "title": "topps", "host": "web-1", "release": "0", "sequence": 1, "interval_s": 1.0}
        return view_of([self.observer, *observers], now=self.now, **(fixed | more))

    def episodes(self, kind=None):
        return [each for each in self.observer.timeline.newest_first() if kind in {None, each["kind"]}]


@pytest.fixture
def directory():
    return Directory()
