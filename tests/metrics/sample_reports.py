"""Reports to be written, read, merged and shown."""

from groundfault._histogram import Histogram
from groundfault.metrics.report import CommandReport, ProcessInfo, Report, ServerReport, StoreReport


def histogram(*values_s):
    made = Histogram()
    for value_s in values_s:
        made.add(value_s)
    return made


def counted(calls, *, pid=1, service="saber", command="get", at=1000.0):
    """Return the report of a process that has made so many calls, of an eighth of a second each."""
    report = Report(processes=[ProcessInfo(pid, service, at)])
    report.add_command(
        CommandReport(
            *("db", command),
            calls={"success": calls} if calls else {},
            durations={"success": histogram(*[0.125] * calls)} if calls else {},
            states={"closed": 1},
            active=1,
            limit=5,
        )
    )
    report.draw_edges(service)
    return report


def full(service="saber"):
    """Return a report in which there is something of everything, odd names included."""
    report = Report(processes=[ProcessInfo(7, service, 999.0), ProcessInfo(8, None, 990.0)])
    report.add_command(
        CommandReport(
            *("db", "get"),
            calls={"success": 4, "failure": 2, "circuit-open": 9},
            durations={"success": histogram(0.0, 0.003, 0.02, 50.0), "failure": histogram(2000.0, 0.001)},
            fallbacks={"served": 3, "refused": 1},
            moves={"closed>open": 2, "open>half-open": 1},
            states={"open": 1, "closed": 1},
            active=3,
            limit=10,
            admitted_share=0.25,
            saturated=1,
            unhealthy=1,
        )
    )
    report.add_command(CommandReport("db", "put", calls={"success": 1}, states={"closed": 2}, limit=None))
    report.servers[service] = ServerReport(
        *(service, {("admitted", "critical"): 5, ("queue-wait", "sheddable"): 2}, histogram(0.001, 0.3)),
        {("topps", "admitted"): (4, 0.5), ("topps", "queue-wait"): (1, 0.25), ("topps", "deadline"): (1, 0.5)},
        *(1, 2, 1, 0, {"tcp-info": 2}, 100, 2048),
    )
    report.stores['file:"odd"\\\n'] = StoreReport('file:"odd"\\\n', {"v1": 1, "v2": 1}, 3.5, 1, 2)
    report.internal_errors = {"sink a%sb": 2}
    report.draw_edges(service)
    report.unread = {"1-0000000000000000.json": "it is damaged"}
    return report
