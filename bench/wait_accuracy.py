"""How right the queue wait is, on every server and for every signal: the truth beside what the middleware saw.

    python bench/wait_accuracy.py [--server NAME ...] [--trials 10] [--requests 10] [--hold-ms 300] [--json]

Each server runs with one worker. In each trial a request holds it up for ``hold-ms``, and others come meanwhile, at
random moments (seeded), on fresh connections or on kept ones. The truth is the time from the sending of a request
to the entry of the application, both by CLOCK_MONOTONIC; what was seen is the ``queue_wait_s`` of the shedder's event.
So the error holds the tick of the kernel's clock, the way over loopback, and whatever else the machine had to do.
If a neighbor took the processor while a request was being sent, the nearer end of that time is taken for the truth.

``wait`` is the range of true waits; errors are in milliseconds: the mean with its sign, the others without.
The target for TCP is a p99 of one tick and one millisecond. ``in-process`` cannot see what waits in front of the
process, which is all there is in this test: its row shows why it is the last resort.
"""

import argparse
import json
import math
import platform
import random
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from groundfault.doctor.machine import examine
from groundfault.doctor.servers import SERVERS, Server, ServerError, running
from groundfault.doctor.waiting import Client, Reading, hold_up

SEED = 20
ASGI = "groundfault.doctor.app:asgi"
PLACE = Path(tempfile.gettempdir())


class UnixClient(Client):
    """Speaks over a unix socket, whose name is the port's."""

    def connect(self, port: int) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(5)
        try:
            client.connect(str(socket_of(port)))
        except OSError:
            client.close()
            raise
        return client


class ProxiedClient(UnixClient):
    """Says when it sent, as a proxy in front does."""

    def head(self) -> str:
        return f"X-Request-Start: t={time.time():.6f}\r\n"  # noqa: TID251  wall-clock time is what the header carries


def socket_of(port: int | str) -> Path:
    return PLACE / f"groundfault-{port}.sock"


def answers_on_a_unix_socket(port: int) -> bool:
    with UnixClient(port) as client:
        client.send("/ready")
        return client.receive() is not None


def over_a_unix_socket(name: str, *more: str) -> Server:
    command = ("-m", "uvicorn", "--uds", str(socket_of("{port}")), "--no-access-log", "--log-level", "warning", *more)
    return Server(name, "uvicorn", (*command, ASGI), ("uvicorn",))


@dataclass
class Case:
    server: Server
    connect: type[Client] = Client


KIT = ("--http", "groundfault.integrations.uvicorn:AutoProtocol")
CASES = [Case(server) for server in SERVERS if not server.blind] + [
    Case(over_a_unix_socket("uvicorn, unix socket, header"), ProxiedClient),
    Case(over_a_unix_socket("uvicorn's kit, unix socket", *KIT), UnixClient),
]


@dataclass
class Row:
    server: str
    connection: str
    signal: str
    n: int
    least_ms: float
    most_ms: float
    mean_ms: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    reached: bool | None


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def measure(case: Case, options: argparse.Namespace, target_ms: float) -> Iterator[Row]:
    chance = random.Random(SEED)
    over_tcp = case.connect is Client
    with running(case.server, None if over_tcp else answers_on_a_unix_socket) as instance:
        for _ in range(10):  # what two clocks differ by has to be learned before it can be subtracted
            with case.connect(instance.port) as client:
                client.send("/")
                client.receive()
        for kept_alive in (False, True):
            readings: list[Reading] = []
            for _ in range(options.trials):
                hold_s = options.hold_ms / 1e3
                delays = tuple(chance.uniform(0.02, hold_s - 0.02) for _ in range(options.requests))
                readings += hold_up(instance.port, hold_s, delays, kept_alive=kept_alive, connect=case.connect)
            if readings:
                yield row_of(case.server.name, readings, kept_alive, target_ms if over_tcp else None)


def row_of(name: str, readings: list[Reading], kept_alive: bool, target_ms: float | None) -> Row:  # noqa: FBT001  one caller
    errors = [reading.error_s * 1e3 for reading in readings if reading.error_s is not None]
    waits = [reading.true_s * 1e3 for reading in readings]
    sizes = [abs(error) for error in errors]
    p99 = percentile(sizes, 0.99)
    return Row(
        name,
        "kept" if kept_alive else "fresh",
        "/".join(sorted({reading.signal for reading in readings})),
        len(errors),
        min(waits),
        max(waits),
        statistics.fmean(errors),
        percentile(sizes, 0.5),
        p99,
        max(sizes),
        None if target_ms is None else p99 <= target_ms,
    )


HEAD = f"{'server':30} {'':5} {'signal':14} {'n':>4} {'wait':>9} {'mean':>7} {'p50':>6} {'p99':>6} {'max':>6}"


def line_of(row: Row) -> str:
    reached = {True: "ok", False: "missed", None: ""}[row.reached]
    return (
        f"{row.server:30} {row.connection:5} {row.signal:14} {row.n:4} {row.least_ms:4.0f}-{row.most_ms:<4.0f}"
        f" {row.mean_ms:+7.2f} {row.p50_ms:6.2f} {row.p99_ms:6.2f} {row.max_ms:6.2f}  {reached}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", action="append", default=[], metavar="NAME")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--requests", type=int, default=10)
    parser.add_argument("--hold-ms", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    machine = examine()
    tick_ms = (machine.tick_s or 0.004) * 1e3
    target_ms = tick_ms + 1
    if not options.json:
        python = platform.python_version()
        print(f"{machine.system}, Python {python}, tick {tick_ms:.0f} ms, target p99 {target_ms:.0f} ms")
        print(HEAD)
    rows, failed = [], False
    for case in CASES:
        if options.server and case.server.name not in options.server:
            continue
        if case.server.missing:
            print(f"{case.server.name:30} not installed: {', '.join(case.server.missing)}", file=sys.stderr)
            continue
        try:
            for row in measure(case, options, target_ms):
                rows.append(row)
                if not options.json:
                    print(line_of(row), flush=True)
        except (ServerError, OSError, ValueError) as error:
            failed = True
            print(f"{case.server.name:30} FAILED {error}", file=sys.stderr)
    if options.json:
        print(
            json.dumps({"tick_ms": tick_ms, "target_ms": target_ms, "seed": SEED, "rows": [vars(row) for row in rows]})
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
