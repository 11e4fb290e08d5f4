"""What the console's observing costs: CPU milliseconds for each look, with every command busy.

    python bench/console_observe.py [--commands 400] [--processes 8] [--looks 40] [--json]

``see`` takes a merged report in, ``rows`` makes the rows of all commands, ``view`` the whole view with rows, map and
timeline, ``encode`` turns that into compressed JSON. Each is the least of the looks after the first twelve, the median
beside it, in milliseconds of the thread's CPU time. ``remember`` is what writing the history down would take.
"""

import argparse
import gzip
import json
from random import Random
from statistics import median
from time import thread_time_ns

from groundfault._histogram import Histogram
from groundfault.console.observing import Observer
from groundfault.console.rows import command_rows
from groundfault.console.views import view_of
from groundfault.metrics.report import CommandReport, ProcessInfo, Report, ServerReport

SETTINGS = {"timeout_s": 0.5, "minimum_volume_per_s": 2.0, "failure_threshold": 0.5, "sleep_window_s": 5.0}
WARMED = 12
NS_PER_MS = 1e6


def report_at(second: int, commands: int, processes: int) -> Report:
    """Return what a service has counted by that second; a tenth of the commands fail now and then."""
    random = Random(second)
    report = Report(processes=[ProcessInfo(pid, "topps", 1000.0 + second) for pid in range(processes)])
    for number in range(commands):
        total = (second + 1) * (20 + number % 50)
        calls = {"success": total, "timeout": total // 50} if number % 10 == 0 else {"success": total}
        taken = Histogram({bucket: total // (bucket - 17) for bucket in range(18, 32)}, total * 0.01)
        report.add_command(
            CommandReport(
                *(f"resource-{number % 20}", f"command-{number:03}", calls, {"success": taken}),
                states={"closed": processes},
                active=random.randrange(3),
                limit=5 * processes,
                settings=dict(SETTINGS),
            )
        )
    report.servers["topps"] = ServerReport(
        *("topps", {("admitted", "critical"): second * 900, ("queue-wait", "sheddable"): second * 90}),
        Histogram(dict.fromkeys(range(10, 30), second * 40), second * 1.0),
        {(f"caller-{number}/topps.get", "admitted"): (second * 40, second * 0.1) for number in range(20)},
        signals={"tcp-info": processes},
    )
    report.draw_edges("topps")
    return report


def measured(commands: int, processes: int, looks: int) -> dict[str, dict[str, float]]:
    """Return the least and the median of each step."""
    taken: dict[str, list[int]] = {"see": [], "rows": [], "view": [], "encode": [], "remember": []}
    observer = Observer("topps")
    for second in range(WARMED + looks):
        report, now = report_at(second, commands, processes), 1000.5 + second
        started = thread_time_ns()
        observer.see(report, now)
        taken["see"].append(thread_time_ns() - started)
        started = thread_time_ns()
        rows = list(command_rows(observer, "topps"))
        taken["rows"].append(thread_time_ns() - started)
        assert len(rows) == commands
        started = thread_time_ns()
        view = view_of(
            [observer],
            now=now,
            kind="host",
            title="topps",
            host="web-1",
            release="0",
            sequence=second,
            interval_s=1.0,
        )
        taken["view"].append(thread_time_ns() - started)
        started = thread_time_ns()
        gzip.compress(json.dumps(view, allow_nan=False, separators=(",", ":")).encode(), 1)
        taken["encode"].append(thread_time_ns() - started)
        started = thread_time_ns()
        json.dumps(observer.remembered())
        taken["remember"].append(thread_time_ns() - started)
    return {
        step: {"least_ms": min(each[WARMED:]) / NS_PER_MS, "median_ms": median(each[WARMED:]) / NS_PER_MS}
        for step, each in taken.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=400)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--looks", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measured(options.commands, options.processes, options.looks)
    if options.json:
        print(json.dumps(found))
        return
    for step, each in found.items():
        print(f"{step:9} {each['least_ms']:7.2f} ms, median {each['median_ms']:7.2f}")


if __name__ == "__main__":
    main()
