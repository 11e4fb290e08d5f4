"""Starts the services of a target, makes trouble among them, and ends them."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from groundfault.lab.load.targets import TargetError
from groundfault.lab.parts import Phase
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
from groundfault.lab.runs.record import Edge, Service
from groundfault.lab.targets.observing import observed
from groundfault.lab.targets.part import Option, Part

__all__ = ["Action", "Fleet", "RunningFleet", "Server"]

_HERE: Final = "groundfault.lab.targets"

DRAIN_S: Final = 10.0
"""How long an instance may take to finish what it has: more than its own grace."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """One service of a target. ``module``: in this package; with ``threads`` gunicorn serves it, else it runs itself.

    ``calls``: names of services before it in the target's list. ``drains``: served by our worker class where protected.
    """

    service: str
    module: str
    threads: int = 0
    instances: int = 1
    calls: tuple[str, ...] = ()
    drains: bool = False
    options: Mapping[str, Option] = field(default_factory=dict)

    def command(self, port: int, variant: Phase) -> Sequence[str]:
        """Return the arguments of ``python -m`` that serve it."""
        if not self.threads:
            return [f"{_HERE}.{self.module}", str(port)]
        ours = self.drains and variant is Phase.GROUNDFAULT
        options = {
            "--bind": f"127.0.0.1:{port}",
            "--worker-class": "groundfault.integrations.gunicorn.ThreadWorker" if ours else "gthread",
            "--workers": 1,
            "--threads": self.threads,
            "--keep-alive": 75,
            "--graceful-timeout": 5 if self.drains else 1,
            "--log-level": "warning",
        }
        words = [f"{name}={value}" for name, value in options.items()]
        return ["gunicorn", *words, "--no-control-socket", f"{_HERE}.{self.module}:create()"]


Action = Callable[["RunningFleet"], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fleet:
    """A target: its services, whoever is called before whoever calls; the last one is what the load goes to.

    ``capacity_rps``: good answers a second that its scarce service can give; None: nothing is scarce.
    ``actions``: what a timeline may ask for, by name.
    """

    title: str
    servers: tuple[Server, ...]
    capacity_rps: float | None = None
    actions: Mapping[str, Action] = field(default_factory=dict)

    def start(self, variant: str, directory: Path) -> "RunningFleet":
        """Start all services at once and wait until each answers. Raises TargetError."""
        running = RunningFleet(self, Phase(variant), directory)
        try:
            running.begin()
        except DemoError as error:
            running.stop()
            raise TargetError(str(error)) from error
        except BaseException:
            running.stop()
            raise
        return running


class _Instance:
    """One process that serves, and where."""

    def __init__(self, server: Server, part: Part, port: int, process: Process) -> None:
        self.server = server
        self.part = part
        self.port = port
        self.process = process


class RunningFleet:
    """The processes of a target."""

    def __init__(self, fleet: Fleet, variant: Phase, directory: Path) -> None:
        self._fleet = fleet
        self._variant = variant
        self.directory = directory
        # Guards the two below it: a deploy goes on beside whoever asks who has died, or ends it all.
        self._lock = threading.Lock()
        self._instances: list[_Instance] = []
        self._errors: list[str] = []
        self._stopping = threading.Event()
        self._deploy: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where to send to."""
        return f"http://127.0.0.1:{self._instances[-1].port}"

    @property
    def capacity_rps(self) -> float | None:
        """Good answers a second that its scarce service can give; None: nothing is scarce."""
        return self._fleet.capacity_rps

    def begin(self) -> None:
        """Start everything. Raises DemoError."""
        for _ in range(PORT_ATTEMPTS):
            urls: dict[str, tuple[str, ...]] = {}
            for server in self._fleet.servers:
                ports = [self._start(server, number, free_port(), urls).port for number in range(server.instances)]
                urls[server.service] = tuple(f"http://127.0.0.1:{port}" for port in ports)
            try:
                for each in self._instances:
                    await_health(each.process, each.port, each.part.token)
            except PortTakenError:
                self._kill_all()
            else:
                return
        raise DemoError(f"ports were taken {PORT_ATTEMPTS} times that had been free a moment before; run it again")

    def _start(self, server: Server, number: int, port: int, urls: Mapping[str, tuple[str, ...]]) -> _Instance:
        part = Part(
            service=server.service,
            instance=number,
            variant=self._variant,
            directory=str(self.directory),
            token=new_token(),
            callees={name: urls[name] for name in server.calls},
            options=server.options,
        )
        instance = _Instance(server, part, port, self._process(server, part, port))
        with self._lock:
            self._instances.append(instance)
        return instance

    def _process(self, server: Server, part: Part, port: int) -> Process:
        command = server.command(port, self._variant)
        name = f"{part.service}{part.instance}"
        return start(name, command, directory=self.directory, environment=part.environment())

    def act(self, name: str) -> None:
        """Do what a timeline asks for. Raises TargetError for what this target cannot do."""
        try:
            action = self._fleet.actions[name]
        except KeyError:
            known = ", ".join(self._fleet.actions) or "nothing"
            raise TargetError(f"{self._fleet.title} can do {known}, not {name!r:.40}") from None
        action(self)

    def replace(self, service: str) -> None:
        """Begin to replace the instances of a service one after the other; returns at once.

        Each is told to stop, and another is started at its place as soon as it has gone. In the variant groundfault it
        drains: SIGTERM, and as long as it takes. In the others it is killed, as where nobody gives it the time.
        """
        with self._lock:
            before = [each for each in self._instances if each.server.service == service]
        self._deploy = threading.Thread(target=self._replace, args=(before,), name="rolling-deploy", daemon=True)
        self._deploy.start()

    def _replace(self, before: Iterable[_Instance]) -> None:
        try:
            for each in before:
                self._replace_one(each)
                if self._stopping.is_set():
                    return
        except (DemoError, PortTakenError, OSError) as error:
            with self._lock:
                self._errors.append(f"the deploy: {error}")
        # The kernel ends what this thread has started as soon as the thread has ended (groundfault/lab/tether.py).
        self._stopping.wait()

    def _replace_one(self, instance: _Instance) -> None:
        with self._lock:
            self._instances.remove(instance)  # from now on it is meant to end
        if self._variant is not Phase.GROUNDFAULT:
            _kill(instance.process)
        stop([instance.process], term_s=DRAIN_S)
        with self._lock:
            if self._stopping.is_set():
                return
            instance.process = self._process(instance.server, instance.part, instance.port)
            self._instances.insert(0, instance)
        await_health(instance.process, instance.port, instance.part.token)

    def died(self) -> list[str]:
        """Return the names of what has ended although nobody asked it to, and why a deploy did not go on."""
        with self._lock:
            ended = [each.process for each in self._instances if each.process.ended() is not None]
            return [f"{each.name}: {each.last_words() or 'it said nothing'}" for each in ended] + self._errors

    def observed(self, began: float, seconds: int) -> tuple[list[Service], list[Edge]]:
        """Return what the services have reported, by second of the run, which began at that reading of the clock."""
        return observed(self.directory, began, seconds)

    def stop(self) -> None:
        """End everything that was started."""
        self._stopping.set()
        self._kill_all()  # a deploy that waits for one of them ends at once
        if self._deploy is not None:
            self._deploy.join()
            self._kill_all()

    def _kill_all(self) -> None:
        with self._lock:
            instances, self._instances = self._instances, []
        for each in instances:
            _kill(each.process)  # nothing that they still do is wanted
        stop([each.process for each in instances])


def _kill(process: Process) -> None:
    if not process.gone:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a group started here
