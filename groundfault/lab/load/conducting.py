"""The one that conducts a run: starts the target, gives all drivers one start, gathers what they count, and judges.

It runs where Locust decides: in its master, or in the only process there is.
"""

import importlib.metadata
import logging
import platform
import shutil
import tempfile
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

import gevent

from groundfault._clock import monotonic
from groundfault.lab.load.judging import Counted, Happened, judge, not_there
from groundfault.lab.load.options import OptionError, Plan, host_of, plan
from groundfault.lab.load.scenario import Scenario
from groundfault.lab.load.targets import Running, TargetError
from groundfault.lab.processes import DemoError
from groundfault.lab.runs.record import Mark, Run

__all__ = ["Conductor", "Orchestra"]

_LOG: Final = logging.getLogger("groundfault.lab.load")

_PRESENT_S: Final = 30.0
"""A driver that has not said by then that it is there is not waited for."""

_LAST_S: Final = 15.0
"""How much longer than it can take the last report of a driver is waited for."""

_SILENT_S: Final = 10.0
_ABSENT_S: Final = 5.0
_ABSENT_REQUESTS: Final = 20
"""Where after so long nothing has answered and no connection could be made, the rest need not be tried."""

_TICK_S: Final = 0.1
_VERSIONS: Final = ("groundfault", "locust", "gevent", "geventhttpclient")


class Orchestra(Protocol):
    """The drivers, as the conductor reaches them."""

    lead_s: float
    """How long before second 0 they are told of it."""

    def names(self) -> Sequence[str]:
        """Return the names of all that are to play."""

    def gone(self, name: str) -> bool:
        """Return whether this one is no longer there."""

    def tell(self, name: str, message: Mapping[str, Any]) -> None:
        """Tell this one when to begin, and what is its share."""


class Conductor:
    """Conducts one run. ``host``: the user's target, empty for the scenario's own."""

    def __init__(self, scenario: Scenario, options: Namespace, host: str, orchestra: Orchestra) -> None:
        self.run: Run | None = None
        self._scenario = scenario
        self._options = Namespace(**vars(options))
        self._host = host
        self._orchestra = orchestra
        self._names = list(orchestra.names())
        self._present: dict[str, tuple[str, float]] = {}
        self._reports: dict[str, int] = {}
        self._heard: dict[str, float] = {}
        self._finished: set[str] = set()
        self._counted = Counted()
        self._happened = Happened(url="")
        self._plan: Plan | None = None

    def present(self, name: str, scenario: str) -> None:
        """Take note that a driver is there, and what it is about to play."""
        self._present[name] = (scenario, monotonic())

    def reported(self, name: str, message: Mapping[str, Any]) -> None:
        """Take a driver's report."""
        if name not in self._names or self.run is not None:
            return
        self._heard[name] = monotonic()
        self._reports[name] = self._reports.get(name, 0) + 1
        if message["number"] != self._reports[name]:
            self._void(f"a report of worker {self._named(name)} was lost")
            self._reports[name] = message["number"]
        if message["problem"]:
            self._void(f"worker {self._named(name)} ended: {message['problem']}")
        self._counted.merge(Counted.from_dict(message["counted"]))
        if message["last"]:
            self._finished.add(name)

    def conduct(self) -> Run:
        """Conduct the run and return it, void if anything came between. To be called in a greenlet of its own."""
        try:
            self._play()
        except (OptionError, TargetError, DemoError) as error:
            self._void(str(error))
        except gevent.GreenletExit:
            return self.stopped()
        except Exception as error:  # noqa: BLE001  a scenario's own code; the run must end all the same, and void
            _LOG.exception("the run broke off")
            self._void(f"{type(error).__name__}: {error}")
        self.run = self._judged()
        return self.run

    def stopped(self) -> Run:
        """Return what there is of a run that was stopped."""
        self._void("it was stopped before its end")
        self.run = self._judged()
        return self.run

    def _play(self) -> None:
        self._plan = plan(self._scenario, self._options)
        if self._host:
            self._happened.url = host_of(self._host)
            self._happened.capacity_rps = self._options.capacity
            self._drive(None)
            return
        if self._scenario.target is None:
            raise TargetError(f"{self._scenario.name} has no target of its own; name one with --host")
        target = self._scenario.target(self._options)
        self._happened.target = target.title
        if self._options.scale_time < 1:
            self._happened.notes.append(
                "the times are shortened, those of restarts, retries and circuits are not: bounds may be missed"
            )
        directory = Path(tempfile.mkdtemp(prefix=f"groundfault-{self._scenario.name}-"))
        running = None
        keep = False
        try:
            running = target.start(self._options.variant, directory)
            self._happened.url = running.url.rstrip("/")
            if self._options.capacity is None:
                self._options.capacity = running.capacity_rps
            self._happened.capacity_rps = self._options.capacity
            self._plan = plan(self._scenario, self._options)  # once more, now that the capacity is known
            self._drive(running)
        except (TargetError, DemoError):
            keep = True  # its message may name a log
            raise
        finally:
            if running is not None:
                running.stop()
            if not keep:
                shutil.rmtree(directory, ignore_errors=True)

    def _drive(self, running: Running | None) -> None:
        """Give the start and follow the run to its end."""
        made = self._plan
        if made is None:
            raise OptionError("there is no plan")
        self._await_drivers()
        start = monotonic() + self._orchestra.lead_s
        self._happened.started_at = datetime.now(UTC).timestamp() + self._orchestra.lead_s
        for driver, name in enumerate(self._names):
            self._heard[name] = start
            message = {"driver": driver, "drivers": len(self._names), "start_in_s": max(0.0, start - monotonic())}
            told = {"url": self._happened.url, "capacity": self._options.capacity, "seed": self._options.seed}
            self._orchestra.tell(name, {**message, **told})
        timeline = gevent.spawn(self._follow_timeline, made, running, start)
        try:
            self._follow(made, running, start)
        finally:
            timeline.kill()
        if running is not None:
            self._happened.services, self._happened.edges = running.observed(start, made.seconds)

    def _await_drivers(self) -> None:
        if not self._names:
            raise TargetError("there is no worker to send anything")
        self._await(lambda: all(name in self._present for name in self._names), _PRESENT_S)
        for name in self._names:
            if name not in self._present:
                raise TargetError(f"worker {self._named(name)} did not begin within {_PRESENT_S:g} s")
            other = self._present[name][0]
            if other != self._scenario.name:
                raise TargetError(f"worker {self._named(name)} plays {other}, not {self._scenario.name}")

    def _await(self, condition: Callable[[], bool], within_s: float) -> None:
        give_up = monotonic() + within_s
        while not condition() and monotonic() < give_up:
            gevent.sleep(_TICK_S)

    def _follow(self, made: Plan, running: Running | None, start: float) -> None:
        """Return when all drivers have reported for the last time, or the run has come to nothing."""
        give_up = start + made.total_s + made.grace_s + _LAST_S
        while not self._finished.issuperset(self._names):
            gevent.sleep(_TICK_S)
            now = monotonic()
            died = [] if running is None else list(running.died())
            for name in died:
                self._void(f"ended during the run: {name}")
            lost = [name for name in self._names if name not in self._finished and self._lost(name, now)]
            for name in lost:
                self._void(f"worker {self._named(name)} went missing during the run")
            if died or lost or self._nobody_there(now - start):
                return
            if now > give_up:
                missing = [self._named(name) for name in self._names if name not in self._finished]
                self._void(f"worker {', '.join(missing)} did not finish in time")
                return

    def _lost(self, name: str, now: float) -> bool:
        return self._orchestra.gone(name) or now - self._heard[name] > _SILENT_S

    def _nobody_there(self, elapsed_s: float) -> bool:
        if elapsed_s < _ABSENT_S or self._counted.answered:
            return False
        return sum(self._counted.broken.values()) >= _ABSENT_REQUESTS and (
            not_there(self._counted, self._happened.url) is not None
        )

    def _follow_timeline(self, made: Plan, running: Running | None, start: float) -> None:
        left_out = 0
        for t, action, text in made.timeline:
            gevent.sleep(max(0.0, start + t - monotonic()))
            if action and running is None:
                left_out += 1
                if left_out == 1:
                    self._happened.notes.append("the timeline's actions need the scenario's own target: left out")
                continue
            self._happened.marks.append(Mark(t=round(monotonic() - start, 3), text=text))
            if action and running is not None:
                try:
                    running.act(action)
                except (TargetError, DemoError) as error:
                    self._void(str(error))

    def _named(self, name: str) -> str:
        return f"{self._names.index(name)} ({name.rpartition('_')[0] or name})"

    def _void(self, reason: str) -> None:
        if reason not in self._happened.void:
            self._happened.void.append(reason)

    def _judged(self) -> Run:
        self._happened.versions = _versions()
        if self._plan is not None:
            return judge(self._scenario, self._plan, self._options, self._counted, self._happened)
        return Run(
            name=self._scenario.name,
            title=self._scenario.title or self._scenario.name,
            source=self._scenario.source,
            seconds=1,
            deadline_s=self._scenario.deadline_s,
            streams=[],
            variant=self._options.variant,
            target=self._happened.target or self._happened.url,
            void=self._happened.void,
            versions=self._happened.versions,
        )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    return {**found, **{name: importlib.metadata.version(name) for name in _VERSIONS}}
