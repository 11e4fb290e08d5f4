"""How late the load generator is, and how exactly it sends what is due, beside Locust's own ways to send.

    python bench/generator_lag.py [--rate 1000] [--seconds 10] [--runs 3] [--json]

One generator process on the last CPU, a trivial service on the first. The ways:

* ``kit``: groundfault.lab.load, arrivals drawn beforehand.
* ``FastHttpUser, open``: the same arrivals by Locust's fast client, a greenlet for each request.
* ``FastHttpUser, closed``: a hundred users of ``constant_throughput``, as Locust's documentation has it.
  They have no due moments, so there is no lag to see; what they did not send shows only in the rate.

``sent`` is the worst second's distance from what was due in it. CPU is the generator's, for each request.
Of several runs the best counts: whatever else the machine does makes every figure worse.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep  # noqa: TID251  real processes, real time
from typing import Any

from groundfault.lab.curves import Spike, arrivals

SERVICE = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""

COST = """
import json, os, time
from locust import events

@events.test_start.add_listener
def began(**_):
    global cpu
    cpu = time.process_time()

@events.quitting.add_listener
def ended(environment, **_):
    said = {"cpu_s": time.process_time() - cpu, "requests": environment.stats.total.num_requests, "seconds": SECONDS}
    lags = sorted(globals().get("LAGS", ()))
    if lags:
        said["lag_p50_ms"], said["lag_p99_ms"] = lags[len(lags) // 2] * 1000, lags[int(len(lags) * 0.99)] * 1000
    said["by_second"] = globals().get("BY_SECOND", {})
    with open("cost.json", "w") as file:
        json.dump(said, file)
"""

KIT = """
from groundfault.lab.curves import Spike
from groundfault.lab.load.locusting import ArrivalUser
from groundfault.lab.load.scenario import Lane, Scenario

class Fans(ArrivalUser):
    scenario = Scenario(name="lag", lanes=(Lane("fan", "/{n}"),), curve=lambda _: CURVE)
"""

OPEN = """
import gevent
from time import monotonic
from locust import FastHttpUser, task
from groundfault.lab.curves import arrivals

LAGS, BY_SECOND = [], {}

class Fans(FastHttpUser):
    concurrency = 10_000

    @task
    def send_them_all(self):
        due = list(arrivals(CURVE, seed="gronk/fan"))
        start = monotonic() + 0.2
        def send(t):
            sent = monotonic() - start
            LAGS.append(sent - t)
            BY_SECOND[int(sent)] = BY_SECOND.get(int(sent), 0) + 1
            self.client.get("/1", name="/{n}")
        for t in due:
            gevent.sleep(max(0.0, start + t - monotonic()))
            gevent.spawn(send, t)
        gevent.sleep(1)
        self.environment.runner.quit()
"""

CLOSED = """
from time import monotonic
from locust import FastHttpUser, constant_throughput, events, task

BY_SECOND, USERS = {}, 100
start = None

class Fans(FastHttpUser):
    wait_time = constant_throughput(CURVE.base_rps / USERS)

    @task
    def send(self):
        global start
        if start is not None:
            second = int(monotonic() - start)
            BY_SECOND[second] = BY_SECOND.get(second, 0) + 1
        self.client.get("/1", name="/{n}")

@events.spawning_complete.add_listener
def all_there(**_):
    global start
    start = monotonic()
"""

WAYS = {"kit": KIT, "FastHttpUser, open": OPEN, "FastHttpUser, closed": CLOSED}


def pinned(cpu: int) -> Callable[[], None]:
    return lambda: os.sched_setaffinity(0, {cpu}) if hasattr(os, "sched_setaffinity") else None


def serve(directory: Path, cpu: int) -> tuple[subprocess.Popen[bytes], str]:
    (directory / "service.py").write_text(SERVICE)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["uvicorn", "service:app", "--port", str(port), "--no-access-log", "--log-level", "warning"]
    process = subprocess.Popen([sys.executable, "-m", *words], cwd=directory, preexec_fn=pinned(cpu))  # noqa: PLW1509, S603  one thread, fixed words
    give_up = monotonic() + 20
    while monotonic() < give_up:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            sleep(0.05)
        else:
            return process, f"http://127.0.0.1:{port}"
    process.kill()
    raise SystemExit("the service did not start")


def due_by_second(curve: Spike, seconds: int) -> list[int]:
    counts = [0] * seconds
    for t in arrivals(curve, seed="gronk/fan"):
        counts[int(t)] += 1
    return counts


def run(way: str, args: argparse.Namespace, url: str, directory: Path, cpu: int) -> dict[str, Any]:
    curve = Spike(base_rps=args.rate, factor=1, before_s=args.seconds, spike_s=0, after_s=0, rise_s=0)
    head = f"from groundfault.lab.curves import Spike\nSECONDS = {args.seconds}\nCURVE = {curve!r}\n"
    (directory / "way.py").write_text(head + WAYS[way] + COST)
    run_file = directory / "run.json"
    options = ["--run-file", str(run_file), "--max-lag-ms", "100000"] if way == "kit" else []
    if way == "FastHttpUser, closed":
        options = ["--users", "100", "--spawn-rate", "100", "--run-time", f"{args.seconds + 2}s"]
    words = ["locust", "-f", "way.py", "--headless", "--only-summary", "--loglevel", "ERROR", "--host", url, *options]
    subprocess.run(  # noqa: S603  fixed words, one thread
        [sys.executable, "-m", *words], cwd=directory, capture_output=True, preexec_fn=pinned(cpu), check=False
    )
    cost = json.loads((directory / "cost.json").read_text())
    due = due_by_second(curve, args.seconds)
    if way == "kit":
        said = json.loads(run_file.read_text())
        sent = said["streams"][0]["sent"]
        cost |= {name: said[name] for name in ("lag_p50_ms", "lag_p99_ms")}
    else:
        sent = [cost["by_second"].get(str(second), 0) for second in range(args.seconds)]
    if way == "FastHttpUser, closed":
        due = [args.rate] * args.seconds
    return {
        "way": way,
        "rate": sum(sent) / args.seconds,
        "lag_p50_ms": cost.get("lag_p50_ms"),
        "lag_p99_ms": cost.get("lag_p99_ms"),
        "sent_error": max(abs(one - other) / other for one, other in zip(sent, due, strict=True)),
        "cpu_us": cost["cpu_s"] / max(1, cost["requests"]) * 1e6,
    }


def best(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return each figure's best of several runs."""
    whole = dict(rows[0])
    for name in ("lag_p50_ms", "lag_p99_ms", "sent_error", "cpu_us"):
        values = [row[name] for row in rows if row[name] is not None]
        whole[name] = min(values) if values else None
    whole["rate"] = max(row["rate"] for row in rows)
    return whole


def shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        service, url = serve(directory, cpus[0])
        try:
            rows = [best([run(way, args, url, directory, cpus[-1]) for _ in range(args.runs)]) for way in WAYS]
        finally:
            service.terminate()
            service.wait()
    if args.json:
        print(json.dumps(rows))
        return
    print(f"{args.rate:g} requests/s due from one process, {args.seconds} s, best of {args.runs}")
    print(f"{'way':24}{'sent/s':>9}{'lag p50':>11}{'lag p99':>11}{'sent off':>10}{'CPU':>10}{'x kit':>8}")
    kit = rows[0]["cpu_us"]
    for row in rows:
        lags = f"{shown(row['lag_p50_ms'], '.2f'):>8} ms{shown(row['lag_p99_ms'], '.2f'):>8} ms"
        ratio = row["cpu_us"] / kit
        print(
            f"{row['way']:24}{row['rate']:>9.1f}{lags}{row['sent_error']:>10.2%}{row['cpu_us']:>7.0f} us{ratio:>8.2f}"
        )


if __name__ == "__main__":
    main()
