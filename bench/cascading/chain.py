"""Starts the chain, sends the traffic, makes the trouble, and ends everything again."""

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import sleep  # real processes, real time
from typing import NamedTuple, Self

import psutil

from cascading.judge import Recorded, rows_of
from cascading.parts import Part, Variant, names
from cascading.scenarios import Scenario
from cascading.send import read_outcome, write_plan
from groundfault._clock import monotonic
from groundfault.lab.journal import Reader
from groundfault.lab.processes import (
    PORT_ATTEMPTS,
    DemoError,
    PortTakenError,
    Process,
    await_health,
    free_port,
    new_token,
    start,
    stop,
)
from groundfault.lab.targets.faults import Faults

__all__ = ["Chain"]

_BENCH = Path(__file__).resolve().parent.parent
_LEAD_S = 1.0
"""How long before its first request the generator is started: what it takes to import it, and then some."""

_GRACE_S = 10.0
"""How long after the end the last answers may still be on their way, and the generator write its file."""

_TICK_S = 0.02


class _Server(NamedTuple):
    """A service that was started, and where."""

    process: Process
    part: Part
    port: int

    def await_health(self) -> None:
        """Wait until it answers. Raises PortTakenError, or DemoError if it ends or stays silent."""
        await_health(self.process, self.port, self.part.token)


class Chain:
    """The processes of one run. Leaving it ends them all, whatever happened."""

    def __init__(self, scenario: Scenario, variant: Variant, length: int, directory: Path) -> None:
        self._scenario = scenario
        self._variant = variant
        self._length = length
        self._directory = directory
        self._processes: list[Process] = []
        self._last: list[_Server] = []
        self._dead_cpu_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end(self._processes)

    def run(self, seed: int) -> Recorded:
        """Start everything, last service first, send the scenario's traffic, and return what was recorded.

        Raises :class:`~groundfault.lab.processes.DemoError` if something outside this program prevents it.
        """
        root = self._start_services()
        plan_file, outcome_file = self._directory / "plan.json", self._directory / "outcome.json"
        begin = monotonic() + _LEAD_S
        plan = self._scenario.plan(root, seed, begin)
        write_plan(plan, plan_file)
        arguments = ["cascading.send", str(plan_file), str(outcome_file)]
        generator = start("generator", arguments, directory=self._directory, environment=_paths())
        self._processes.append(generator)
        while monotonic() < begin:
            sleep(_TICK_S)
        cpu, event, own_s = self._follow(begin)
        died = [process.name for process in self._processes if process is not generator and process.ended() is not None]
        self._await(generator, outcome_file)
        self._end(self._processes)
        events = [{**row, "t": row["t"] - begin} for row in Reader(self._directory, "*-*.jsonl").new()]
        return Recorded(
            rows=rows_of(plan, read_outcome(outcome_file)),
            events=sorted(events, key=lambda row: row["t"]),
            event=event,
            cpu=cpu,
            own_cpu=own_s / self._scenario.curve.total_s / (os.cpu_count() or 1),
            died=died,
        )

    def _start_services(self) -> int:
        """Start all of them at once, last first, wait until each answers, and return the port of the first."""
        for _ in range(PORT_ATTEMPTS):
            callees: tuple[str, ...] = ()
            started: list[_Server] = []
            for place in reversed(range(self._length)):
                here = [
                    self._start(self._part(place, instance, callees), free_port())
                    for instance in range(self._scenario.last.instances if place == self._length - 1 else 1)
                ]
                self._last = self._last or here
                started += here
                callees = tuple(f"http://127.0.0.1:{server.port}" for server in here)
            try:
                for server in started:
                    server.await_health()
            except PortTakenError:
                self._end(self._processes)
                self._last = []
            else:
                return started[-1].port
        raise DemoError(f"ports were taken {PORT_ATTEMPTS} times that had been free a moment before; run it again")

    def _part(self, place: int, instance: int, callees: tuple[str, ...]) -> Part:
        return Part(
            service=names(self._length)[place],
            instance=instance,
            place=place,
            length=self._length,
            variant=self._variant,
            directory=str(self._directory),
            token=new_token(),
            callees=callees,
            last=self._scenario.last,
        )

    def _start(self, part: Part, port: int) -> "_Server":
        name, environment = f"{part.service}{part.instance}", {**part.environment(), **_paths()}
        process = start(name, _gunicorn(port, part.threads), directory=self._directory, environment=environment)
        self._processes.append(process)
        return _Server(process, part, port)

    def _end(self, processes: Sequence[Process]) -> None:
        """Kill these and what they started, and wait until nothing of them is left: nothing they still do is wanted."""
        for process in list(processes):
            if not process.gone:
                self._dead_cpu_s += _group_cpu_s(process)
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # a group started here
            stop([process])
            self._processes.remove(process)

    def _follow(self, begin: float) -> tuple[list[float], tuple[float, float], float]:
        """Make the trouble when it is due; return the CPU's samples, when the event was, and the CPU time we used."""
        curve = self._scenario.curve
        start_at, end_at = curve.before_s, curve.spike_end_s
        hurt = healed = False
        cpu: list[float] = []
        used_s = self._cpu_s()
        psutil.cpu_percent()  # the first reading covers the time since the one before, so this one is thrown away
        while (now := monotonic() - begin) < curve.total_s:
            if not hurt and now >= start_at:
                hurt = True
                self._hurt()
            if not healed and now >= end_at:
                healed = True
                if self._heal():
                    end_at = monotonic() - begin
            if now >= len(cpu) + 1:
                cpu += [psutil.cpu_percent() / 100] * (int(now) - len(cpu))
            sleep(_TICK_S)
        return cpu, (start_at, end_at), self._cpu_s() - used_s

    def _hurt(self) -> None:
        scenario = self._scenario
        if scenario.kind == "slow":
            Faults(slower=1 / scenario.left).write(self._directory)
        elif scenario.kind == "sick":
            sick = round((1 - scenario.left) * scenario.last.instances)
            Faults(sick=tuple(range(sick))).write(self._directory)
        elif scenario.kind == "down":
            self._end([server.process for server in self._last])

    def _heal(self) -> bool:
        """End the trouble; return whether that took so long that the event has ended only now."""
        if self._scenario.kind in {"slow", "sick"}:
            Faults().write(self._directory)
        if self._scenario.kind != "down":
            return False
        self._last = [self._start(server.part, server.port) for server in self._last]
        for server in self._last:
            server.await_health()
        return True

    def _cpu_s(self) -> float:
        return self._dead_cpu_s + sum(_group_cpu_s(process) for process in self._processes)

    def _await(self, generator: Process, outcome_file: Path) -> None:
        give_up = monotonic() + _GRACE_S
        while monotonic() < give_up and not outcome_file.exists():
            if generator.ended() is not None and not outcome_file.exists():
                raise DemoError(f"the generator ended early: {generator.last_words()}; its log: {generator.log}")
            sleep(_TICK_S)
        if not outcome_file.exists():
            raise DemoError(f"the generator did not end within {_GRACE_S:g} s; its log: {generator.log}")


def _group_cpu_s(process: Process) -> float:
    """Return the CPU time used so far by a process and its children."""
    try:
        one = psutil.Process(process.pid)
        family = [one, *one.children(recursive=True)]
        return sum(sum(each.cpu_times()[:2]) for each in family)
    except psutil.NoSuchProcess:
        return 0.0


def _paths() -> dict[str, str]:
    paths = [str(_BENCH.parent), str(_BENCH), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def _gunicorn(port: int, threads: int) -> Sequence[str]:
    """Return how a service is served: one process of so many threads, with connections that outlive every pause."""
    options = {
        "--bind": f"127.0.0.1:{port}",
        "--worker-class": "gthread",
        "--workers": 1,
        "--threads": threads,
        "--keep-alive": 75,
        "--graceful-timeout": 1,
        "--log-level": "warning",
    }
    words = [f"{name}={value}" for name, value in options.items()]
    return ["gunicorn", *words, "--no-control-socket", "cascading.apps:create()"]
