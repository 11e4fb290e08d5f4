"""The Gronk spike: one touchdown, and eight times the usual traffic within a second.

    locust -f locustfiles/gronk_spike.py --headless --host http://127.0.0.1:8000 --base-rps 10 --spike 8

Two streams of fans arrive: those whose request needs the service at the end of the chain (``--path``, ``{n}`` becomes
a random number), and ``--innocent-share`` times as many whose request does not (``--innocent-path``).
The load is open-loop: every request is due at a moment drawn beforehand from a Poisson process along the curve and is
sent then, however slow the answers are. Latency counts from the moment it was due. A fan gives up after ``--deadline``.

What to expect with ``--base-rps`` at 0.6 of what the last service can do (answers in time per second, C its capacity):

    before the spike           0.6 C, everybody is served
    during it, unprotected     C for about a second, then near 0: every answer comes too late to be of use,
                               and it stays so after the spike until the backlog is worked off
    during it, with shedding   C throughout; the rest are refused within milliseconds
    innocents                  unprotected or with plain 503s most of them fail although nothing they need is short;
                               with annotated 503s all of them are served
    after it, with shedding    0.6 C again within a few seconds

A 503 with ``X-GroundFault: handled`` is not a failure here: it is listed under a name of its own, "... [shed]".
``--result-file`` writes one JSON line per request: its kind, when it was due (seconds on the monotonic clock), latency
from then, status (0: no answer), whether it carried the header, and how late it was sent (the generator's own lag).
With ``-u N`` or ``--processes N`` each driver sends its share of the rate.
"""

import gc
import json
import random
import sys
from argparse import ArgumentParser, Namespace
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, TextIO

import gevent
from gevent.pool import Group
from locust import FastHttpUser, events, task
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from groundfault import wire
from groundfault._clock import monotonic
from groundfault.lab.curves import Spike, arrivals

_LAG_LIMIT_S = 0.020
"""A generator later than this at the 99th percentile was itself overloaded; its run says nothing about the service."""


_UNCOLLECTED = 50_000
"""Up to so many requests no garbage is collected during a run. Each that times out leaves some 10 kB."""


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]  # Locust's has no types
def add_options(parser: ArgumentParser) -> None:
    """Add the scenario's own options to Locust's."""
    group = parser.add_argument_group("Gronk spike")
    group.add_argument("--base-rps", type=float, default=10.0, help="fans per second before and after the spike")
    group.add_argument("--spike", type=float, default=8.0, help="how many times as many during it")
    group.add_argument("--before", type=float, default=10.0, help="seconds before the spike")
    group.add_argument("--hold", type=float, default=20.0, help="seconds the spike lasts, its rise included")
    group.add_argument("--after", type=float, default=20.0, help="seconds after it")
    group.add_argument("--rise", type=float, default=1.0, help="seconds the rise takes")
    group.add_argument("--deadline", type=float, default=1.0, help="seconds after which a fan gives up")
    group.add_argument("--path", default="/lineup/{n}", help="path that needs the last service")
    group.add_argument("--innocent-path", default="/lobby", help="path that does not")
    group.add_argument("--innocent-share", type=float, default=1 / 3, help="innocents per fan of the first kind")
    group.add_argument("--seed", default="gronk", help="the same seed gives the same arrivals")
    group.add_argument("--result-file", default="", help="write one JSON line per request to this file")


def _curve(options: Namespace) -> Spike:
    return Spike(
        base_rps=options.base_rps,
        factor=options.spike,
        before_s=options.before,
        spike_s=options.hold,
        after_s=options.after,
        rise_s=options.rise,
    )


def _objection(options: Namespace) -> str | None:
    """Return what is wrong with the options, naming option, value and bound, or None."""
    try:
        _curve(options)
    except ValueError as error:
        return str(error)
    if not options.deadline > 0:
        return f"deadline must be above 0, not {options.deadline:g}"
    if not options.innocent_share >= 0:
        return f"innocent-share must be at least 0, not {options.innocent_share:g}"
    for path in (options.path, options.innocent_path):
        try:
            path.format(n=1)
        except (LookupError, ValueError):
            return f"path may hold {{n}} and no other braces, not {path!r}"
    return None


@events.init.add_listener  # type: ignore[untyped-decorator]  # as above
def refuse_nonsense(environment: Environment, **_: object) -> None:
    """End with one line, before anything is sent, if the options make no sense."""
    objection = _objection(environment.parsed_options) if environment.parsed_options is not None else None
    if objection is not None:
        print(f"gronk_spike: {objection}", file=sys.stderr)  # noqa: T201  the user's console
        sys.exit(2)


class ResultFile:
    """One JSON line per request, written at once so that others may follow; or nowhere, if no file was asked for."""

    def __init__(self, name: str) -> None:
        self._file: TextIO | None = Path(name).open("a", encoding="utf-8", buffering=1) if name else None  # noqa: SIM115  open for as long as the run lasts

    def write(self, row: dict[str, Any]) -> None:
        """Append one row."""
        if self._file is not None:
            self._file.write(json.dumps(row) + "\n")


class Fans(FastHttpUser):
    """One driver: sends every request of its share of the arrivals when it is due, each in a greenlet of its own."""

    concurrency = 10_000  # the client's own limit must never be what holds a request back
    _numbers = count()
    _finished: ClassVar[list["Fans"]] = []

    def __init__(self, environment: Environment) -> None:
        options = environment.parsed_options
        if options is None:
            raise RuntimeError("the scenario needs its options; start it with locust -f")
        # Read when the client is built, so they come before it.
        self.network_timeout = self.connection_timeout = options.deadline
        super().__init__(environment)
        self._options = options
        self._results = ResultFile(options.result_file)
        self._lags: list[float] = []
        self._in_flight = Group()

    @task
    def send_them_all(self) -> None:
        """Send the whole curve, wait for the answers, and stop."""
        options = self._options
        drivers = max(1, options.num_users or 1)
        curve = _curve(options)
        seed = f"{options.seed}/{getattr(self.environment.runner, 'worker_index', 0)}/{next(self._numbers)}"
        share = options.innocent_share / drivers
        due = sorted(
            [(t, "fan") for t in arrivals(curve, scale=1 / drivers, seed=f"{seed}/fan")]
            + [(t, "innocent") for t in arrivals(curve, scale=share, seed=f"{seed}/innocent")]
        )
        contests = random.Random(f"{seed}/contest")
        if len(due) <= _UNCOLLECTED:
            # Collecting what timed-out requests leave behind stops this process for up to a tenth of a second,
            # in the middle of the spike.
            gc.disable()
        start = monotonic()
        self._results.write({"start": start, "total_s": curve.total_s})
        for offset, kind in due:
            gevent.sleep(max(0.0, start + offset - monotonic()))
            path = options.path if kind == "fan" else options.innocent_path
            self._in_flight.spawn(self._send, kind, path, path.format(n=contests.randrange(1, 500)), start + offset)
        gevent.sleep(max(0.0, start + curve.total_s - monotonic()))
        self._in_flight.join(timeout=2 * options.deadline)
        gc.enable()
        self._say_lag()
        self._finished.append(self)
        runner = self.environment.runner
        if (
            self._options.headless
            and runner is not None
            and not isinstance(runner, WorkerRunner)
            and len(self._finished) == drivers
        ):
            runner.quit()
        self.stop()

    def _send(self, kind: str, name: str, path: str, due: float) -> None:
        lag = monotonic() - due
        with self.client.get(path, name=name, catch_response=True) as response:
            latency = monotonic() - due
            handled = wire.read_refusal(response.status_code or 0, response.headers or {}) is not None
            response.request_meta["response_time"] = latency * 1000
            if handled:
                response.request_meta["name"] = f"{name} [shed]"
                response.success()
        self._lags.append(lag)
        row = {"kind": kind, "due": due, "latency_s": latency, "status": response.status_code or 0}
        self._results.write({**row, "handled": handled, "lag_s": lag})

    def _say_lag(self) -> None:
        lags = sorted(self._lags)
        p99 = lags[int(0.99 * (len(lags) - 1))] if lags else 0.0
        if p99 > _LAG_LIMIT_S:
            late = f"{p99 * 1000:.0f} ms"
            said = f"void: 1 % of the requests were sent {late} late or more; the generator was overloaded"
            print(said, file=sys.stderr)  # noqa: T201  the user's console; on stdout Locust's --json


@events.test_start.add_listener  # type: ignore[untyped-decorator]  # as above
def stop_in_time(environment: Environment, **_: object) -> None:
    """End a distributed run when every driver has had time to end: its master does not see them finish."""
    runner, options = environment.runner, environment.parsed_options
    if isinstance(runner, MasterRunner) and options is not None and options.headless:
        total_s = options.before + options.hold + options.after
        gevent.spawn_later(total_s + 2 * options.deadline + 1.0, runner.quit)
