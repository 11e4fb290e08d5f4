"""The kit on Locust's engine: the user class of a scenario file, and what Locust's events are answered with.

Importing this imports Locust, and with that gevent patches the process: it is for scenario files only.

Locust starts users, connects master and workers, and shows statistics. Each *process* with a scenario is one driver,
whatever the number of its users: who sends what is settled by the arrivals, which all drivers draw alike.
"""

import ctypes
import logging
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final

import gevent
from locust import User, constant, events, task
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner

from groundfault._clock import monotonic
from groundfault.lab.load.conducting import Conductor
from groundfault.lab.load.driving import Driver
from groundfault.lab.load.judging import EXIT_CODES, Counted
from groundfault.lab.load.options import OptionError, add_options, host_of, plan
from groundfault.lab.load.scenario import Scenario
from groundfault.lab.load.telling import line, table
from groundfault.lab.runs.record import Run

__all__ = ["ArrivalUser", "ready"]

_BEGIN: Final = "groundfault-begin"
_PRESENT: Final = "groundfault-present"
_COUNTS: Final = "groundfault-counts"

_LOG: Final = logging.getLogger("groundfault.lab.load")
_LOCAL: Final = "local"
_FOREVER_S: Final = 10 * 86_400.0
_PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>


class ArrivalUser(User):
    """The user class of a scenario file: name the scenario, and that is all.

    However many of these Locust starts, requests leave as the scenario's curve says.
    """

    abstract = True
    scenario: ClassVar[Scenario]
    wait_time = constant(_FOREVER_S)

    def __init_subclass__(cls) -> None:
        """Make Locust ready for the scenario as soon as it is named."""
        super().__init_subclass__()
        if "scenario" in cls.__dict__:
            _Stage.set_for(cls.scenario)

    @task
    def be_there(self) -> None:
        """Do nothing: the driver of this process sends."""


def ready(scenario: Scenario) -> type[ArrivalUser]:
    """Return a user class for a scenario that a program has put together; a locustfile calls it ``Fans``, say."""
    return type("Arrivals", (ArrivalUser,), {"scenario": scenario, "abstract": False})


class _Stage:
    """Everything that this process does for its scenario, by Locust's events."""

    _only: ClassVar["_Stage | None"] = None

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self._environment: Any = None
        self._conductor: Conductor | None = None
        self._conducting: gevent.Greenlet | None = None
        self._driving: gevent.Greenlet | None = None
        self._last: Run | None = None

    @classmethod
    def set_for(cls, scenario: Scenario) -> None:
        """Answer Locust's events from now on. Raises RuntimeError if there is another scenario already."""
        if cls._only is not None:
            if cls._only.scenario is scenario:
                return
            raise RuntimeError(f"one scenario at a time: {cls._only.scenario.name} is loaded already")
        stage = cls._only = cls(scenario)
        answers: list[tuple[Any, Callable[..., None]]] = [
            (events.init_command_line_parser, stage.add_options),
            (events.init, stage.begin_process),
            (events.test_start, stage.start),
            (events.test_stop, stage.stop),
            (events.quitting, stage.quitting),
            (events.quit, stage.say),
        ]
        for event, answer in answers:
            event.add_listener(answer)

    def add_options(self, parser: ArgumentParser) -> None:
        """Add the scenario's options, and look at all of them before Locust starts any process."""
        add_options(parser.add_argument_group(self.scenario.title or self.scenario.name), self.scenario)
        parse = parser.parse_args

        def parse_and_look(*args: Any, **kwargs: Any) -> Namespace:
            options: Namespace = parse(*args, **kwargs)
            objection = self._objection(options)
            if objection is not None:
                parser.error(objection)
            return options

        parser.parse_args = parse_and_look  # type: ignore[method-assign, assignment]  # there is no event in between

    def _objection(self, options: Namespace) -> str | None:
        if getattr(options, "worker", False):
            return None  # the master's options count, and it has looked at them
        try:
            plan(self.scenario, options)
            if options.host:
                host_of(options.host)
        except OptionError as error:
            return str(error)
        if options.headless and not options.host and self.scenario.target is None:
            return f"{self.scenario.name} has no target of its own; name one with --host"
        return None

    def begin_process(self, environment: Any, runner: Any, **_: object) -> None:
        """Learn who else there is."""
        self._environment = environment
        if not isinstance(runner, MasterRunner):
            runner.register_message(_BEGIN, self._drive)
        if not isinstance(runner, WorkerRunner):
            runner.register_message(_PRESENT, self._present)
            runner.register_message(_COUNTS, self._counts)
        elif sys.platform == "linux" and environment.parsed_options.processes:
            # A master that is killed would leave the processes it has forked waiting for it for a minute.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    def start(self, environment: Any, **_: object) -> None:
        """Begin to conduct, where Locust is told to start; say that this driver is there, where it has started."""
        runner, options = environment.runner, environment.parsed_options
        if not isinstance(runner, WorkerRunner):
            orchestra = _Workers(runner) if isinstance(runner, MasterRunner) else _Alone(runner)
            self._conductor = Conductor(self.scenario, options, environment.host or "", orchestra)
            self._conducting = gevent.spawn(self._conduct, self._conductor)
        if not isinstance(runner, MasterRunner):
            runner.send_message(_PRESENT, {"scenario": self.scenario.name})

    def _conduct(self, conductor: Conductor) -> None:
        self._finish(conductor.conduct())
        if self._conducting is not gevent.getcurrent():  # it was broken off: whoever did that ends the rest
            return
        self._conducting = None
        runner, options = self._environment.runner, self._environment.parsed_options
        if options.headless:
            runner.quit()
        else:
            runner.stop()

    def _finish(self, run: Run) -> None:
        """Write the run and show it."""
        options = self._environment.parsed_options
        if options.run_file:
            try:
                run.write(Path(options.run_file))
            except OSError as error:
                run = replace(run, void=[*run.void, f"run-file {options.run_file}: {error.strerror}"])
        self._last = run
        print(table(run, options.run_file), file=sys.stderr, flush=True)  # noqa: T201  the user's console

    def _present(self, msg: Any, **_: object) -> None:
        if self._conductor is not None:
            self._conductor.present(msg.node_id, msg.data["scenario"])

    def _counts(self, msg: Any, **_: object) -> None:
        if self._conductor is not None:
            self._conductor.reported(msg.node_id, msg.data)

    def _drive(self, environment: Any, msg: Any, **_: object) -> None:
        """Send this driver's share, from the moment that the conductor names."""
        told: Mapping[str, Any] = msg.data
        start = monotonic() + told["start_in_s"]
        options = Namespace(**vars(environment.parsed_options))
        options.capacity, options.seed = told["capacity"], told["seed"]
        runner = environment.runner
        number = 0

        def report(counted: Counted, last: bool, problem: str = "") -> None:  # noqa: FBT001  a callback
            nonlocal number
            number += 1
            message = {"number": number, "last": last, "counted": counted.as_dict(), "problem": problem}
            runner.send_message(_COUNTS, message)

        def drive() -> None:
            try:
                driver = Driver(
                    plan(self.scenario, options),
                    options,
                    url=told["url"],
                    start=start,
                    driver=told["driver"],
                    drivers=told["drivers"],
                    fire=environment.events.request.fire,
                    report=report,
                )
                driver.run()
            except Exception as error:  # noqa: BLE001  whatever it is, the conductor must learn of it
                _LOG.exception("the driver ended")
                report(Counted(), True, f"{type(error).__name__}: {error}")  # noqa: FBT003  as above

        self._end_driving()
        self._driving = gevent.spawn(drive)

    def _end_driving(self) -> None:
        if self._driving is not None:
            self._driving.kill()
            self._driving = None

    def stop(self, **_: object) -> None:
        """Break off what has not come to its end."""
        self._break_off()

    def _break_off(self) -> None:
        conducting, conductor = self._conducting, self._conductor
        if conducting is not None and conductor is not None and conducting is not gevent.getcurrent():
            self._conducting = None
            conducting.kill()
            if conductor.run is None:  # it had not even begun
                self._finish(conductor.stopped())
        self._end_driving()

    def quitting(self, environment: Any, **_: object) -> None:
        """Leave nothing running, and set the exit code."""
        self._break_off()
        if isinstance(environment.runner, WorkerRunner):
            environment.process_exit_code = 0  # the master's says it
        elif self._last is not None:
            environment.process_exit_code = EXIT_CODES[self._last.verdict]

    def say(self, **_: object) -> None:
        """Say the verdict as the very last line."""
        environment = self._environment
        if environment is None or self._last is None or isinstance(environment.runner, WorkerRunner):
            return
        options = environment.parsed_options
        if options.headless:
            # Locust's own --json has stdout to itself.
            where = sys.stderr if options.json else sys.stdout
            print(line(self._last, options.run_file), file=where, flush=True)


class _Alone:
    """The drivers of a run without workers: this process."""

    lead_s = 0.2

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    def names(self) -> Sequence[str]:
        """Return the one name that Locust gives it."""
        return [_LOCAL]

    def gone(self, name: str) -> bool:
        """Return False: it is here."""
        return name != _LOCAL

    def tell(self, name: str, message: Mapping[str, Any]) -> None:
        """Pass it on."""
        self._runner.send_message(_BEGIN, message, client_id=name)


class _Workers:
    """The drivers of a distributed run: all workers that are connected when it starts."""

    lead_s = 1.0

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    def names(self) -> Sequence[str]:
        """Return them in the order of their indexes, so that the same one sends the same share each time."""
        clients = self._runner.clients
        ready_ = [client.id for client in (*clients.ready, *clients.running, *clients.spawning)]
        return sorted(ready_, key=self._runner.get_worker_index)

    def gone(self, name: str) -> bool:
        """Ask Locust, which listens for their heartbeats."""
        client = self._runner.clients.get(name)
        return client is None or client.state == STATE_MISSING

    def tell(self, name: str, message: Mapping[str, Any]) -> None:
        """Pass it on."""
        self._runner.send_message(_BEGIN, message, client_id=name)
