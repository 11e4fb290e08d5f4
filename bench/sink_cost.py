"""What each sink adds to a call that succeeds, beside the same call with none.

    python bench/sink_cost.py [--quick] [--json]

Every case runs for a short slice in each round, all cases in turn, so that a neighbor's load meets all of them alike.
``call``: CPU nanoseconds per call of the calling thread; the minimum over the rounds, for noise only adds.
``over`` is what that is more than without a sink. ``all``: CPU nanoseconds per call of the whole process, with what
threads of the sinks do; queues are emptied at the end of each slice. It is the price where a core is all there is.
Logs go to a file, DogStatsD to a socket that is read by nobody, OpenTelemetry to a reader in memory.
A library that is not installed is left out and named.
"""

import argparse
import importlib
import json
import logging
import os
import platform
import socket
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import process_time_ns, thread_time_ns
from typing import Any

from groundfault.breaker import Registry, Resource
from groundfault.call_log import log_calls
from groundfault.integrations.dogstatsd import DogStatsD
from groundfault.sinks import Background, Sink, flush, log_changes

CALLS = 2000
QUICK_CALLS = 500


def payload(x: int) -> int:
    return x


@dataclass
class Case:
    """One row. ``flushed``: its sink has a thread with something to do after the calls."""

    name: str
    call: Callable[..., Any]
    own: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)

    def slice(self, calls: int) -> None:
        call = self.call
        whole, own = process_time_ns(), thread_time_ns()
        for _ in range(calls):
            call(payload, 1)
        self.own.append((thread_time_ns() - own) / calls)
        assert flush(60.0)
        self.whole.append((process_time_ns() - whole) / calls)


def guarded(name: str, *sinks: Sink) -> Case:
    return Case(name, Resource("saber", registry=Registry(), sinks=sinks).command("get").call)


def plain(event: object) -> None:
    """Take an event and do nothing."""


def file_logger(stack: ExitStack) -> logging.Logger:
    logger = logging.getLogger("bench.calls")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    handler = logging.StreamHandler(stack.enter_context(tempfile.TemporaryFile("w")))  # noqa: SIM115  the stack closes it
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    return logger


def structlog_case(stack: ExitStack) -> Case:
    structlog = importlib.import_module("structlog")
    ours = importlib.import_module("groundfault.integrations.structlog")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper("iso"),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(stack.enter_context(tempfile.TemporaryFile("w"))),  # noqa: SIM115  as above
    )
    return guarded("structlog.log_calls()", ours.log_calls())


def opentelemetry_case(stack: ExitStack) -> Case:
    sdk = importlib.import_module("opentelemetry.sdk.metrics")
    export = importlib.import_module("opentelemetry.sdk.metrics.export")
    ours = importlib.import_module("groundfault.integrations.opentelemetry")
    provider = sdk.MeterProvider([export.InMemoryMetricReader()])
    stack.callback(provider.shutdown)
    return guarded("opentelemetry.install()", ours.Meters(provider))


def dogstatsd_case(stack: ExitStack) -> Case:
    """Return one that takes no calls: it costs a thread that reads counts, once a second here instead of every ten."""
    agent = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    agent.bind(("127.0.0.1", 0))
    emitter = DogStatsD(f"udp://127.0.0.1:{agent.getsockname()[1]}", interval_s=1.0).start()
    stack.callback(emitter.stop)
    return guarded("dogstatsd.start()", emitter)


def cases(stack: ExitStack) -> tuple[list[Case], list[str]]:
    logger = file_logger(stack)

    def prompt(event: object) -> None:
        plain(event)

    prompt.prompt = True  # type: ignore[attr-defined]  # a function may carry attributes; mypy has no word for it
    made = [
        guarded("none"),
        guarded("log_changes", log_changes),
        guarded("a prompt callable", prompt),
        guarded("Background(callable)", Background(plain, capacity=10**6)),
        guarded("log_calls()", log_calls(logger=logger)),
        guarded("log_calls(sample=0.01)", log_calls(logger=logger, sample=0.01)),
        dogstatsd_case(stack),
    ]
    missing = []
    for case in (structlog_case, opentelemetry_case):
        try:
            made.append(case(stack))
        except ImportError as error:
            missing.append(str(error.name))
    return made, missing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few rounds, for a first impression")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    wanted = parser.parse_args()
    calls, rounds = (QUICK_CALLS, 10) if wanted.quick else (CALLS, 60)
    with ExitStack() as stack:
        made, missing = cases(stack)
        for case in made:
            case.slice(calls)
            case.own.clear()
            case.whole.clear()
        for _ in range(rounds):
            for case in made:
                case.slice(calls)
    base, base_whole = min(made[0].own), min(made[0].whole)
    rows = [
        {
            "sink": case.name,
            "call_ns": round(min(case.own)),
            "median_ns": round(statistics.median(case.own)),
            "over_ns": round(min(case.own) - base),
            "ratio": round(min(case.own) / base, 2),
            "all_over_ns": round(min(case.whole) - base_whole),
        }
        for case in made
    ]
    if wanted.json:
        print(json.dumps({"python": platform.python_version(), "cpus": os.cpu_count(), "rows": rows}, indent=2))
        return 0
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {rounds} rounds of {calls} calls")
    print(f"{'sink':<26}{'call':>8}{'median':>8}{'over':>8}{'ratio':>7}{'all over':>10}   ns")
    for row in rows:
        print(
            f"{row['sink']:<26}{row['call_ns']:>8}{row['median_ns']:>8}{row['over_ns']:>8}"
            f"{row['ratio']:>7}{row['all_over_ns']:>10}"
        )
    for name in missing:
        print(f"not installed: {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
