"""One driver: a process that sends its share of the arrivals when they are due, and counts what becomes of them."""

import gc
import json
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TextIO

import gevent

from groundfault import wire
from groundfault._clock import monotonic
from groundfault.lab.load.judging import Counted
from groundfault.lab.load.options import Plan
from groundfault.lab.load.scenario import Request
from groundfault.lab.load.schedule import Due, schedule
from groundfault.lab.load.sending import Answer, BrokenError, Client
from groundfault.lab.runs.tally import Fate, Tally

__all__ = ["Driver"]

Fire = Callable[..., None]
"""Locust's own event for a request, from which its statistics and its web page live."""

_REPORT_S: Final = 1.0
_BURST: Final = 4
"""So many that are overdue are sent before answers that have come meanwhile are looked at."""

_YOUNG: Final = 20_000
"""Objects made before garbage is looked for. What was there before the run is left out of it altogether."""


class _SaidError(Exception):
    """What Locust lists as the reason of a failure."""

    def __repr__(self) -> str:
        """As it is shown: the words alone."""
        return str(self)


class Driver:
    """Sends its share and reports once a second, and a last time when all of it is settled.

    ``report`` is given what was counted since it was last called, and whether that is all.
    ``start``: the monotonic clock's reading at second 0.
    """

    def __init__(
        self,
        plan: Plan,
        options: Namespace,
        *,
        url: str,
        start: float,
        driver: int,
        drivers: int,
        fire: Fire,
        report: Callable[[Counted, bool], None],
    ) -> None:
        self._plan = plan
        self._start = start
        self._due = schedule(plan.lanes, plan.curve, seed=options.seed, driver=driver, drivers=drivers, time=plan.time)
        self._client = Client(url, connect_s=plan.grace_s, insecure=options.insecure)
        self._url = url
        self._fire = fire
        self._report = report
        self._max_open = options.max_open
        self._open = 0
        self._rows = _Rows(options.result_file)
        self._deadlines = [lane.deadline_s or plan.deadline_s for lane in plan.lanes]
        self._fresh = Counted()
        self._tallies: list[Tally] = []
        self._turn()
        self._errors: dict[str, _SaidError] = {}

    def run(self) -> None:
        """Send all of it and wait for the answers. To be called in a greenlet of its own."""
        with suppress(BrokenError):  # each request will say so
            self._client.warm()
        thresholds = gc.get_threshold()
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG, *thresholds[1:])
        reporter = gevent.spawn(self._report_on)
        try:
            gevent.sleep(max(0.0, self._start - monotonic()))
            self._rows.write({"start": self._start, "total_s": self._plan.total_s})
            self._send_all()
            gevent.sleep(max(0.0, self._start + self._plan.total_s - monotonic()))
            while self._open:  # each gives up by itself
                gevent.sleep(0.01)
        finally:
            reporter.kill()
            gc.set_threshold(*thresholds)
            gc.unfreeze()
            self._client.close()
            self._rows.close()
        self._report(self._turn(), True)  # noqa: FBT003  the signature is a callback's

    def _send_all(self) -> None:
        start, burst, wait_for, spawn = self._start, 0, gevent.sleep, gevent.spawn_raw
        for due in self._due:
            wait = start + due.t - monotonic()
            if wait > 0:
                burst = 0
                wait_for(wait)
            elif (burst := burst + 1) >= _BURST:
                burst = 0
                wait_for(0)
            if self._open >= self._max_open:
                self._tallies[due.lane].skip(due.t)
                continue
            self._open += 1
            spawn(self._one, due)

    def _one(self, due: Due) -> None:
        sent = monotonic() - self._start
        try:
            self._tallies[due.lane].send(due.t, sent)
            lane, deadline_s = self._plan.lanes[due.lane], self._deadlines[due.lane]
            try:
                request = lane.choose(due.number, due.drawn)
            except Exception as error:  # noqa: BLE001  a scenario's own code; its trouble is shown, and no lost request
                self._tallies[due.lane].settle(due.t, Fate.FAILED, sent - due.t)
                problem = f"the lane {lane.name} names no request: {type(error).__name__}: {error}"
                self._tell(Request(f"/{lane.name}"), Fate.FAILED, sent - due.t, None, problem)
                return
            timeout = gevent.Timeout(max(0.0, due.t + deadline_s - sent))
            timeout.start()
            answer: Answer | None = None
            problem = f"no answer within {deadline_s:g} s"
            fate = Fate.LATE
            try:
                answer = self._client.send(request, due.drawn)
            except BrokenError as error:
                fate, problem = Fate.FAILED, str(error)
                self._fresh.broken[problem] = self._fresh.broken.get(problem, 0) + 1
            except gevent.Timeout as error:
                if error is not timeout:
                    raise
            finally:
                timeout.close()
            latency = monotonic() - self._start - due.t
            handled = False
            if answer is not None:
                self._fresh.answered += 1
                handled = answer.status == wire.SHED_STATUS and wire.read_refusal(answer.status, answer) is not None
                if lane.succeeds(answer.status):
                    fate = Fate.GOOD if latency <= deadline_s else Fate.LATE
                else:
                    fate, problem = (Fate.SHED, "") if handled else (Fate.FAILED, f"status {answer.status}")
            self._tallies[due.lane].settle(due.t, fate, latency)
            self._tell(request, fate, latency, answer, problem)
            self._rows.request(lane.name, self._start + due.t, latency, answer, handled=handled, lag_s=sent - due.t)
        finally:
            self._open -= 1

    def _tell(self, request: Request, fate: Fate, latency: float, answer: Answer | None, problem: str) -> None:
        """Feed Locust's statistics. A refusal on purpose has a line of its own there and is no failure."""
        name = request.name or request.path
        self._fire(
            request_type=request.method,
            name=f"{name} [shed]" if fate is Fate.SHED else name,
            response_time=latency * 1000,
            response_length=answer.length if answer is not None else 0,
            exception=None if fate in {Fate.GOOD, Fate.SHED} else self._error(problem),
            context={},
            response=None,
            url=self._url + request.path,
        )

    def _error(self, problem: str) -> _SaidError:
        error = self._errors.get(problem)
        if error is None:
            error = self._errors[problem] = _SaidError(problem)
        return error

    def _report_on(self) -> None:
        while True:
            gevent.sleep(_REPORT_S)
            self._report(self._turn(), False)  # noqa: FBT003  as above

    def _turn(self) -> Counted:
        """Return what was counted since the last turn, and begin anew."""
        counted, self._fresh = self._fresh, Counted()
        self._tallies = [self._fresh.lanes.setdefault(lane.name, Tally()) for lane in self._plan.lanes]
        return counted


class _Rows:
    """One JSON line per request, written at once so that others may follow; or nowhere, if no file was asked for."""

    def __init__(self, name: str) -> None:
        self._file: TextIO | None = Path(name).open("a", encoding="utf-8", buffering=1) if name else None  # noqa: SIM115  open for as long as the run lasts

    def write(self, row: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(row) + "\n")

    def request(
        self, kind: str, due: float, latency_s: float, answer: Answer | None, *, handled: bool, lag_s: float
    ) -> None:
        if self._file is not None:
            status = answer.status if answer is not None else 0
            row = {"kind": kind, "due": due, "latency_s": latency_s, "status": status}
            self.write({**row, "handled": handled, "lag_s": lag_s})

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
