"""What a hub costs: many hosts with many busy commands, which all push once a second, and pages that listen.

    python bench/hub_load.py [--hosts 50] [--commands 200] [--seconds 20] [--streams 3] [--services 1] [--json]

The hub runs in a process of its own, on loopback, with its history in a SQLite file; this process is the hosts and the
pages. Every command of every host has counted something new in every report, which is more than any fleet does.
Printed: the hub's share of a core, all its threads together; the time from one view to the next, as a page sees it;
its memory; what it has taken in and what it refused.
"""

import argparse
import asyncio
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from groundfault._clock import monotonic, wall
from groundfault._histogram import Histogram
from groundfault.metrics._coding import encode
from groundfault.metrics.report import CommandReport, ProcessInfo, Report, ServerReport

PROCESSES = 4
WARM_UP_S = 5.0
HEAD = "POST /push HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"


class Host:
    """One host, whose commands have all just been busy."""

    def __init__(self, number: int, commands: int, services: int) -> None:
        self.random = Random(number)
        self.name = f"web-{number:03}"
        self.service = f"service-{number % services}"
        self.calls = [0] * commands
        self.buckets = [dict[int, int]() for _ in range(commands)]

    def report(self, now: float) -> bytes:
        report = Report(
            processes=[ProcessInfo(4000 + each, self.service, now - 0.2 * each) for each in range(PROCESSES)]
        )
        for number, buckets in enumerate(self.buckets):
            calls = self.random.randrange(20, 200)
            self.calls[number] += calls
            for _ in range(8):
                bucket = int(self.random.gauss(22, 4))
                buckets[bucket] = buckets.get(bucket, 0) + calls // 8
            report.add_command(
                CommandReport(
                    f"resource-{number % 12}",
                    f"get_{number:03}",
                    calls={"success": self.calls[number], "failure": number % 7},
                    durations={"success": Histogram(buckets, self.calls[number] * 0.01)},
                    states={"closed": PROCESSES},
                    active=number % 5,
                    limit=20 * PROCESSES,
                    settings={"timeout_s": 0.5, "failure_threshold": 0.5},
                )
            )
        total = sum(self.calls)
        report.servers[self.service] = ServerReport(
            self.service,
            requests={("admitted", "critical"): total},
            waits=Histogram({5: total}, total * 0.001),
            signals={"tcp-info": PROCESSES},
            threshold_s=0.25,
            deadline_s=1.0,
        )
        report.draw_edges(self.service)
        more = {"host": self.name, "release": "0.1.0", "sent_at": now, "title": self.service, "directory": "/run/gf"}
        return gzip.compress(encode(report, **more), 1)


class Seen:
    """What came of it."""

    def __init__(self) -> None:
        self.answers: dict[int, int] = {}
        self.bytes = 0
        self.intervals: list[float] = []
        self.rows = 0


async def push(host: Host, port: int, until: float, seen: Seen) -> None:
    await asyncio.sleep(host.random.random())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    due = monotonic()
    while monotonic() < until:
        body = host.report(wall())
        seen.bytes = len(body)
        writer.write(HEAD.format(len(body)).encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split()[1])
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                await reader.readexactly(int(line.split(b":")[1]))
        seen.answers[status] = seen.answers.get(status, 0) + 1
        due = max(due + 1.0, monotonic())
        await asyncio.sleep(due - monotonic())
    writer.close()


async def listen(port: int, counted_from: float, until: float, seen: Seen) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    writer.write(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    last = None
    while monotonic() < until:
        line = await reader.readline()
        if not line:
            break
        if line == b"event: change\n":
            now = monotonic()
            if last is not None and now > counted_from:
                seen.intervals.append(now - last)
            last = now
    writer.close()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


async def drive(port: int, pid: int, options: argparse.Namespace) -> dict[str, Any]:
    seen = Seen()
    until = monotonic() + WARM_UP_S + options.seconds
    hosts = [Host(number, options.commands, options.services) for number in range(options.hosts)]
    tasks = [asyncio.create_task(push(host, port, until, seen)) for host in hosts]
    tasks += [asyncio.create_task(listen(port, monotonic() + WARM_UP_S, until, seen)) for _ in range(options.streams)]
    await asyncio.sleep(WARM_UP_S)
    before, began = cpu_s(pid), monotonic()
    await asyncio.sleep(max(0.5, until - monotonic() - 1.0))
    share = (cpu_s(pid) - before) / (monotonic() - began)
    await asyncio.gather(*tasks)
    return {
        "cpu_share": round(share, 3),
        "interval_p50_s": round(quantile(seen.intervals, 0.5), 3),
        "interval_p99_s": round(quantile(seen.intervals, 0.99), 3),
        "memory_mb": round(memory_mb(pid), 1),
        "answers": seen.answers,
        "push_kb": round(seen.bytes / 1024, 1),
        "snapshot": await snapshot(port),
    }


async def snapshot(port: int) -> dict[str, Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /snapshot.json HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    view = json.loads((await reader.read(-1)).partition(b"\r\n\r\n")[2])
    writer.close()
    keep = ("interval_s", "unknown", "hidden", "internal_errors")
    counts = {name: len(view[name]) for name in ("commands", "hosts", "processes")}
    return {name: view[name] for name in keep} | counts | {"goodput_per_s": view["headline"]["goodput_per_s"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=50)
    parser.add_argument("--commands", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--streams", type=int, default=3)
    parser.add_argument("--services", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as place:
        program = "import argparse; from groundfault.console.hub.command import add_to; p = argparse.ArgumentParser(); "
        program += "add_to(p.add_subparsers()); o = p.parse_args(); raise SystemExit(o.run(o))"
        arguments = ["hub", "--port", str(port), "--database", f"sqlite:///{place}/hub.db"]
        hub = subprocess.Popen(  # noqa: S603  our own words
            [sys.executable, "-c", program, *arguments], stderr=subprocess.PIPE
        )
        try:
            assert hub.stderr is not None
            line = hub.stderr.readline().decode().strip()
            assert line.startswith("hub on"), line
            found = asyncio.run(drive(port, hub.pid, options))
        finally:
            hub.send_signal(signal.SIGTERM)
            began = monotonic()
            hub.wait(20)
        found["ended_in_s"] = round(monotonic() - began, 2)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{options.hosts} hosts x {options.commands} commands, {options.services} services, {options.streams} pages")
    for name, value in found.items():
        print(f"  {name:<15} {value}")


if __name__ == "__main__":
    main()
