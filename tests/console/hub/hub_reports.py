"""Reports of made-up hosts, as hosts send them, and a maker of views that needs nothing but reports."""

import gzip

from groundfault._histogram import Histogram
from groundfault.console.hub.accepting import Arrival, accepted
from groundfault.console.view import FORMAT, POINT_S, WINDOW_S
from groundfault.metrics._coding import encode
from groundfault.metrics.report import CommandReport, ProcessInfo, Report, ServerReport

START = 1_763_930_000.0


def report_of(calls, *, at=START, pid=7, service="topps", errors=0):
    """Return a report with so many successful calls by command."""
    report = Report(processes=[ProcessInfo(pid, service, at)], internal_errors={"sink": errors} if errors else {})
    for command, times in calls.items():
        report.add_command(
            CommandReport(
                "db",
                command,
                calls={"success": times},
                durations={"success": Histogram({21: times}, times * 0.001)},
                states={"closed": 1},
                active=1,
                limit=5,
            )
        )
    report.servers[service] = ServerReport(
        service, requests={("admitted", "critical"): sum(calls.values())}, waits=Histogram({3: sum(calls.values())})
    )
    report.draw_edges(service)
    return report


def pushed(calls, *, host="web-1", at=START, title="topps", directory="/run/topps", **more):
    """Return the bytes that a host sends."""
    fields = {"host": host, "release": "0.1.0", "sent_at": at, "title": title, "directory": directory}
    known = {name: more.pop(name) for name in ("pid", "errors") if name in more}
    report = report_of(calls, at=at, service=title, **known)
    return gzip.compress(encode(report, **{**fields, **more}))


def arrival_of(calls, **more) -> Arrival:
    return accepted(pushed(calls, **more))


class PlainObserver:
    """Remembers the newest report."""

    def __init__(self, service):
        self.service = service
        self.reports = []

    def see(self, report, now):
        self.reports.append(report)


class PlainSeeing:
    """Makes the plainest views that have all their parts."""

    def observer(self, service):
        return PlainObserver(service)

    def view(self, observers, *, hosts, now, unknown, **about):
        newest = [each.reports[-1] for each in observers]
        commands = [
            {
                "id": f"{observer.service}|{resource}|{name}",
                "service": observer.service,
                "rate_per_s": 1.0,
                "counts": dict(command.calls),
                "states": dict(command.states),
                "in_flight": command.active,
            }
            for observer, report in zip(observers, newest, strict=True)
            for (resource, name), command in report.commands.items()
        ]
        processes = [
            {"pid": each.pid, "host": None, "service": each.service, "age_s": now - each.written_at, "versions": {}}
            for report in newest
            for each in report.processes
        ]
        return {
            "format": FORMAT,
            "kind": "hub",
            "made_at": now,
            "window_s": WINDOW_S,
            "point_s": POINT_S,
            "headline": {"hosts": len(hosts), "words": "nothing is wrong"},
            "servers": [],
            "commands": commands,
            "hidden": 0,
            "map": {"nodes": [], "edges": [], "notes": []},
            "timeline": [],
            "stores": [],
            "processes": processes,
            "hosts": list(hosts),
            "internal_errors": {},
            "unknown": list(unknown),
            **about,
        }
