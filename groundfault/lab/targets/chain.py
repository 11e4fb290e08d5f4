"""The demo's chain as a target: topps asks grouper, grouper asks saber, and what saber can do is the limit."""

import http.client
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from groundfault._clock import Clock, monotonic
from groundfault.lab.journal import Reader
from groundfault.lab.load.targets import TargetError
from groundfault.lab.measure import Row, capacity, percentile
from groundfault.lab.parts import GROUPER_THREADS, GROUPER_WORKERS, SABER_THREADS, Part, Phase
from groundfault.lab.processes import DemoError, Process, new_token, start_server, stop
from groundfault.lab.runs.record import Edge, Service
from groundfault.lab.targets.observing import edges_of
from groundfault.lab.watching import run_directory
from groundfault.metrics.rundir import RUN_DIR

__all__ = ["Chain", "ChainServers", "RunningChain", "services_seen"]

_JOURNALS: Final = "*-*.jsonl"

_CALLERS: Final = 4
"""So many ask saber at once while it is measured: enough to keep its two connections busy, too few to be shed."""

_MEASURE_S: Final = 2.5
_SETTLE_S: Final = 0.3


class ChainServers:
    """Starts the services of the chain, each in processes of its own, and notes them in ``processes``.

    ``reports``: the directory below which each service reports what it counts; None: they do not.
    """

    def __init__(self, directory: Path, phase: Phase, processes: list[Process], *, reports: Path | None = None) -> None:
        self._directory = directory
        self._reports = reports
        self._phase = phase
        self._processes = processes

    def start_saber(self) -> str:
        """Start saber and return its URL."""
        return self._start("saber", "", _gunicorn(workers=1, threads=SABER_THREADS))

    def start_before(self, saber: str) -> str:
        """Start what stands before saber, the last of it first, and return the URL of the first."""
        grouper = self._start("grouper", saber, _gunicorn(workers=GROUPER_WORKERS, threads=GROUPER_THREADS))
        return self._start("topps", grouper, _UVICORN)

    def start_all(self) -> str:
        """Start the chain, last service first, and return the URL of the first."""
        return self.start_before(self.start_saber())

    def _start(self, service: str, callee: str, server: Sequence[str]) -> str:
        token = new_token()
        part = Part(service=service, phase=self._phase, directory=str(self._directory), token=token, callee=callee)
        process, url = start_server(
            service,
            lambda port: [word.format(port=port, service=service) for word in server],
            {**part.environment(), **self._reporting(service)},
            directory=self._directory,
            token=token,
        )
        self._processes.append(process)
        return url

    def _reporting(self, service: str) -> Mapping[str, str]:
        return {} if self._reports is None else {RUN_DIR: str(run_directory(self._reports, service))}


class Chain:
    """The chain, to be started. ``measure``: what saber can do is measured first, which takes three seconds."""

    title = "topps, grouper and saber"

    def __init__(self, *, measure: bool = True) -> None:
        self._measure = measure

    def start(self, variant: str, directory: Path) -> "RunningChain":
        """Start it and wait until it answers. Raises TargetError."""
        running = RunningChain(Phase(variant), directory)
        try:
            running.begin(measure=self._measure)
        except DemoError as error:
            running.stop()
            raise TargetError(str(error)) from error
        except BaseException:
            running.stop()
            raise
        return running


class RunningChain:
    """The processes of the chain."""

    def __init__(self, phase: Phase, directory: Path) -> None:
        self._directory = directory
        self._phase = phase
        self._processes: list[Process] = []
        self.url = ""
        self.capacity_rps: float | None = None

    def begin(self, *, measure: bool) -> None:
        """Start all services. Raises DemoError, or TargetError if saber could not be measured."""
        servers = ChainServers(self._directory, self._phase, self._processes)
        saber = servers.start_saber()
        if measure:
            self.capacity_rps = _capacity(saber)
        self.url = servers.start_before(saber)

    def act(self, name: str) -> None:
        """Refuse: nothing can be done to it."""
        raise TargetError(f"{Chain.title} can do nothing, not {name!r:.40}")

    def died(self) -> Sequence[str]:
        """Return the names of the services that have ended."""
        return [process.name for process in self._processes if process.ended() is not None]

    def observed(self, began: float, seconds: int) -> tuple[list[Service], list[Edge]]:
        """Return what the services have said, by second of the run."""
        rows = [{**row, "t": row["t"] - began} for row in Reader(self._directory, _JOURNALS).new()]
        rows = sorted((row for row in rows if 0 <= row["t"] < seconds), key=lambda row: float(row["t"]))
        return services_seen(rows, seconds), edges_of(rows, seconds)

    def stop(self) -> None:
        """End all of it."""
        stop(self._processes)


def services_seen(rows: Sequence[Mapping[str, object]], seconds: int) -> list[Service]:
    """Return what each service says about the requests that it decided about, by the second of the decision."""
    services: dict[str, Service] = {}
    waits: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        if row["event"] != "request.seen":
            continue
        name, second = str(row["by"]), int(float(str(row["t"])))
        service = services.get(name)
        if service is None:
            none = [0] * seconds
            service = services[name] = Service(name=name, arrived=none, shed=none.copy(), answered=none.copy())
        service.arrived[second] += 1
        (service.answered if row["reason"] is None else service.shed)[second] += 1
        if row["queue_wait_s"] is not None:
            waits.setdefault((name, second), []).append(float(str(row["queue_wait_s"])) * 1000)
    for name, service in services.items():
        service.wait_p95_ms.extend(percentile(waits.get((name, second), []), 0.95) for second in range(seconds))
    return list(services.values())


def _capacity(saber: str, clock: Clock = monotonic) -> float:
    """Keep saber busy for a while, and return how many requests a second it completes. Raises TargetError."""
    began = clock()
    rows: list[Row] = []

    def ask() -> None:
        connection = http.client.HTTPConnection(saber.removeprefix("http://"), timeout=_MEASURE_S)
        try:
            while (asked := clock() - began) < _MEASURE_S:
                connection.request("GET", "/entrants/1")
                answer = connection.getresponse()
                answer.read()
                took = clock() - began - asked
                rows.append(Row("fan", asked, took, answer.status, handled=False, lag_s=0.0))
        except (OSError, http.client.HTTPException):
            return  # with too few completed it is said below
        finally:
            connection.close()

    callers = [threading.Thread(target=ask) for _ in range(_CALLERS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    try:
        return round(capacity(rows, settle_s=_SETTLE_S, until_s=_MEASURE_S), 2)
    except ValueError as error:
        raise TargetError(f"the capacity of saber could not be measured: {error}; is the machine busy?") from error


def _gunicorn(*, workers: int, threads: int) -> Sequence[str]:
    """Return how a WSGI service is served: threads, and connections that outlive every pause in the curve."""
    options = {
        "--bind": "127.0.0.1:{port}",
        "--worker-class": "gthread",
        "--workers": workers,
        "--threads": threads,
        "--keep-alive": 75,
        "--graceful-timeout": 1,
        "--log-level": "warning",
    }
    words = [f"{name}={value}" for name, value in options.items()]
    return ["gunicorn", *words, "--no-control-socket", "groundfault.lab.{service}:create()"]


_UVICORN = (
    *("uvicorn", "--factory", "groundfault.lab.{service}:create", "--host=127.0.0.1", "--port={port}"),
    *("--timeout-keep-alive=75", "--timeout-graceful-shutdown=1", "--log-level=warning", "--no-access-log"),
)
