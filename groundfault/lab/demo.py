"""`groundfault demo`: the same spike on the same chain, three times, and what came of it."""

import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from time import sleep
from types import FrameType
from typing import Any, NoReturn, Self

import psutil

from groundfault._clock import monotonic
from groundfault.lab import generator
from groundfault.lab.curves import Spike
from groundfault.lab.display import Display, Step
from groundfault.lab.journal import Reader
from groundfault.lab.measure import DEADLINE_S, SHED_STATUS, Measured, Row, capacity
from groundfault.lab.parts import CONNECTIONS, ROUND_TRIP_S, Phase
from groundfault.lab.processes import DemoError, Process, start, stop
from groundfault.lab.targets.chain import ChainServers
from groundfault.lab.watching import watched

__all__ = ["Plan", "Recorded", "StoppedError", "run", "stopped_by_signals"]

LOAD = 0.6
"""Base traffic as a share of capacity: a healthy service with room to spare."""

INNOCENT_SHARE = 1 / 3

_CAPACITY_SETTLE_S = 1.0
_TICK_S = 0.1
_GENERATOR_START_S = 30.0
_RESULTS = "requests.jsonl"
_JOURNALS = "*-*.jsonl"
_SERVICES = ("topps", "grouper", "saber")
_FREQUENT = frozenset({"request.seen", "command.done"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How long and how steep. Seconds; ``factor`` is how many times the base traffic the spike is."""

    factor: float = 8.0
    before_s: float = 10.0
    spike_s: float = 20.0
    after_s: float = 20.0
    capacity_s: float = 8.0

    @classmethod
    def quick(cls) -> "Plan":
        """Return a plan of about a minute: shorter everywhere, so its numbers are noisier."""
        return cls(before_s=3.0, spike_s=6.0, after_s=8.0, capacity_s=4.0)

    def scaled(self, scale: float, *, factor: float) -> "Plan":
        """Return the plan with all durations multiplied by ``scale``, and with another height of the spike."""
        return replace(
            self,
            factor=factor,
            before_s=self.before_s * scale,
            spike_s=self.spike_s * scale,
            after_s=self.after_s * scale,
            capacity_s=max(_CAPACITY_SETTLE_S + 1.0, self.capacity_s * scale),
        )

    def curve(self, capacity_rps: float) -> Spike:
        """Return the curve of the fans who need saber, for a saber of this capacity."""
        return Spike(
            base_rps=LOAD * capacity_rps,
            factor=self.factor,
            before_s=self.before_s,
            spike_s=self.spike_s,
            after_s=self.after_s,
            rise_s=min(1.0, self.spike_s),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """All that was recorded: the capacity, the curve, and what happened in each phase."""

    capacity_rps: float
    curve: Spike
    phases: Mapping[Phase, Measured]


class StoppedError(Exception):
    """A signal asked the demo to stop; ``args[0]`` is its number."""


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into :class:`StoppedError`, so that whoever started something can end it.

    A second signal while the first is being obeyed changes nothing: cleaning up takes a few seconds at most.
    """

    def stop_once(number: int, _: FrameType | None) -> NoReturn:
        for other in handled:
            signal.signal(other, signal.SIG_IGN)
        raise StoppedError(number)

    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop_once) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(
    plan: Plan,
    display: Display,
    *,
    keep: Path | None = None,
    watch: int | None = None,
    phases: Sequence[Phase] = tuple(Phase),
) -> Recorded:
    """Measure the capacity, run the three phases or those that are named, and return what was recorded.

    ``keep``: directory for the services' logs and journals; None: they are removed, unless something failed.
    ``watch``: the port for a console that shows the chain meanwhile, 0 for any free one; None: there is none.
    Raises :class:`~groundfault.lab.processes.DemoError` if something outside this program prevents it.
    """
    directory = Path(tempfile.mkdtemp(prefix="groundfault-demo-")) if keep is None else keep
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    remove = keep is None
    try:
        capacity_rps = _measure_capacity(plan, display, _fresh(directory / "capacity"))
        curve = plan.curve(capacity_rps)
        display.log.info(
            "capacity measured",
            saber_rps=round(capacity_rps, 1),
            base_rps=round(curve.base_rps, 1),
            peak_rps=round(curve.peak_rps, 1),
        )
        with nullcontext() if watch is None else watched(directory, _SERVICES, port=watch) as address:
            if address is not None:
                display.log.info("watch it", at=address)
            reports = None if watch is None else directory
            measured = {
                phase: _run_phase(phase, curve, display, _fresh(directory / phase.value), reports) for phase in phases
            }
    except DemoError:
        remove = False  # its message names a log
        raise
    finally:
        if remove:
            shutil.rmtree(directory, ignore_errors=True)
    return Recorded(capacity_rps=capacity_rps, curve=curve, phases=measured)


def _fresh(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def _measure_capacity(plan: Plan, display: Display, directory: Path) -> float:
    """Drive an unprotected saber alone with twice what its connections allow, and count what it completes."""
    nominal = CONNECTIONS / ROUND_TRIP_S
    curve = Spike(base_rps=2 * nominal, factor=1.0, before_s=plan.capacity_s, spike_s=0.0, after_s=0.0, rise_s=0.0)
    with _Chain(directory, Phase.UNPROTECTED) as chain:
        host = chain.start_saber()
        command = generator.command(
            host,
            curve,
            result_file=directory / _RESULTS,
            deadline_s=10 * plan.capacity_s,
            innocent_share=0.0,
            path="/entrants/{n}",
        )
        with display.step("capacity of saber", curve.total_s) as step:
            measured = chain.drive(command, curve, display, step, grace_s=0.0)
    try:
        return capacity(measured.rows, settle_s=_CAPACITY_SETTLE_S, until_s=curve.total_s)
    except ValueError as error:
        raise DemoError(f"the capacity of saber could not be measured: {error}; is the machine busy?") from error


def _run_phase(phase: Phase, curve: Spike, display: Display, directory: Path, reports: Path | None) -> Measured:
    """Run the spike against fresh processes."""
    display.log.info("phase", name=phase.value)
    with _Chain(directory, phase, reports=reports) as chain:
        host = chain.start_all()
        command = generator.command(
            host,
            curve,
            result_file=directory / _RESULTS,
            deadline_s=DEADLINE_S,
            innocent_share=INNOCENT_SHARE,
        )
        with display.step(phase.value, curve.total_s) as step:
            return chain.drive(command, curve, display, step, grace_s=2 * DEADLINE_S)


class _Chain:
    """The processes of one phase. Leaving it ends them all, whatever happened.

    ``reports``: the directory below which each service reports what it counts; None: they do not.
    """

    def __init__(self, directory: Path, phase: Phase, *, reports: Path | None = None) -> None:
        self._directory = directory
        self._processes: list[Process] = []
        self._servers = ChainServers(directory, phase, self._processes, reports=reports)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        stop(self._processes)

    def start_saber(self) -> str:
        """Start saber and return its URL."""
        return self._servers.start_saber()

    def start_all(self) -> str:
        """Start the chain, last service first, and return the URL of the first."""
        return self._servers.start_all()

    def drive(self, command: Sequence[str], curve: Spike, display: Display, step: Step, *, grace_s: float) -> Measured:
        """Send the curve and follow it: the progress, the machine's CPU, and what the services report.

        ``grace_s``: how long after the curve's end the generator may still wait for answers.
        """
        servers = tuple(self._processes)
        locust = start("locust", command, directory=self._directory)
        self._processes.append(locust)
        requests = Reader(self._directory, _RESULTS)
        journals = Reader(self._directory, _JOURNALS)
        begin, rows = _await_start(locust, requests)
        events: list[dict[str, Any]] = []
        cpu: list[float] = []
        psutil.cpu_percent()  # the first reading covers the time since the one before, so this one is thrown away
        while (elapsed := monotonic() - begin) < curve.total_s + grace_s and locust.ended() is None:
            rows += requests.new()
            for row in journals.new():
                events.append(row)
                if row["event"] not in _FREQUENT:
                    display.change(row["t"] - begin, row)
            if len(cpu) + 1 <= elapsed <= curve.total_s:
                cpu.append(psutil.cpu_percent() / 100)
            step.show(min(elapsed, curve.total_s), _tally(rows, monotonic()))
            sleep(_TICK_S)
        if monotonic() - begin < curve.total_s:
            raise DemoError(
                f"Locust ended too early (exit code {locust.ended()}): {_why(locust)}; its log: {locust.log}"
            )
        died = [server.name for server in servers if server.ended() is not None]
        stop([locust])
        rows += requests.new()
        events += journals.new()
        return Measured(
            rows=[_row(row, begin) for row in rows],
            events=[{**event, "t": event["t"] - begin} for event in events],
            cpu=cpu,
            died=died,
        )


def _await_start(locust: Process, requests: Reader) -> tuple[float, list[dict[str, Any]]]:
    """Wait until the generator says that it begins, and return when that was and the rows that came with it."""
    give_up = monotonic() + _GENERATOR_START_S
    while monotonic() < give_up and locust.ended() is None:
        if found := list(requests.new()):
            return float(found[0]["start"]), found[1:]
        sleep(0.02)
    raise DemoError(f"Locust did not start (exit code {locust.ended()}): {_why(locust)}; its log: {locust.log}")


def _why(process: Process) -> str:
    return process.last_words() or "it said nothing"


def _row(row: Mapping[str, Any], begin: float) -> Row:
    return Row(
        kind=row["kind"],
        due=row["due"] - begin,
        latency_s=row["latency_s"],
        status=row["status"],
        handled=row["handled"],
        lag_s=row["lag_s"],
    )


def _tally(rows: Sequence[Mapping[str, Any]], now: float) -> str:
    """Return the last second in words, for the progress display."""
    recent = [row for row in rows[-1000:] if now - 1.0 <= row["due"] + row["latency_s"]]
    good = sum(row["status"] == 200 for row in recent)  # noqa: PLR2004  HTTP's own number
    shed = sum(row["status"] == SHED_STATUS for row in recent)
    return f"{good:3d} served  {shed:3d} shed  {len(recent) - good - shed:3d} failed /s"
