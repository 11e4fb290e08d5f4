"""Several simulations of one scenario: each seed and variant by itself, in as many processes as are wanted."""

import gc
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final

from groundfault.lab.runs.record import Check, Run, Verdict
from groundfault.lab.simulator.model import Protection, Scenario
from groundfault.lab.simulator.simulation import simulate

__all__ = ["Job", "ProcessDiedError", "Spread", "jobs_of", "run_all", "spreads", "verdict_of"]

_LOOK_S: Final = 0.1

Progress = Callable[[float], None]
"""Told how many seconds of virtual time are done, of all simulations together."""


class ProcessDiedError(RuntimeError):
    """A process that simulated has ended in the midst of it: for want of memory, or somebody ended it."""

    def __init__(self) -> None:
        super().__init__("a process that simulated has died, perhaps for want of memory: ask for fewer --jobs")


@dataclass(frozen=True, slots=True)
class Job:
    """One simulation to be made."""

    scenario: Scenario
    seed: str
    variant: Protection


def jobs_of(scenario: Scenario, *, seed: int, seeds: int, variants: Sequence[Protection]) -> list[Job]:
    """Return a job for each variant and each of ``seeds`` seeds from ``seed`` on, in this order."""
    return [Job(scenario, str(seed + number), variant) for variant in variants for number in range(seeds)]


def run_all(jobs: Sequence[Job], *, processes: int = 1, progress: Progress | None = None) -> Iterator[Run]:
    """Yield the run of each job, in the order of the jobs; which is the same however many processes work on them.

    With more than one process each has its own interpreter. Stopped midway, by Ctrl-C or by closing the generator,
    it ends them. Raises ProcessDiedError if one of them ends by itself.
    """
    if processes > 1 and len(jobs) > 1:
        yield from _in_processes(jobs, min(processes, len(jobs)), progress)
        return
    done = 0.0
    for job in jobs:
        before = done

        def told(now: float, before: float = before) -> None:
            if progress is not None:
                progress(before + now)

        with _without_looking_for_cycles():
            run = simulate(job.scenario, seed=job.seed, variant=job.variant, progress=told)
        done += run.seconds
        yield run


@contextmanager
def _without_looking_for_cycles() -> Iterator[None]:
    """Keep the collector from walking through thousands of requests again and again: no cycle is made of them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


_times: Any = None  # in a process of the pool: how far each job is, in seconds of virtual time


def _prepare(times: Any) -> None:
    global _times  # noqa: PLW0603  a process of the pool does nothing else
    _times = times
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the one that started this ends it


def _work(numbered: tuple[int, Job]) -> Run:
    number, job = numbered

    def told(now: float) -> None:
        _times[number] = now

    with _without_looking_for_cycles():
        return simulate(job.scenario, seed=job.seed, variant=job.variant, progress=told)


def _in_processes(jobs: Sequence[Job], processes: int, progress: Progress | None) -> Iterator[Run]:
    context = multiprocessing.get_context("spawn")  # a fork would take this process's threads' locks with it
    times = context.Array("d", len(jobs), lock=False)
    with context.Pool(processes, initializer=_prepare, initargs=(times,)) as pool:  # ends them, however it is left
        waiting = pool.imap(_work, list(enumerate(jobs)))
        begun = {each.pid for each in multiprocessing.active_children()}
        for _ in jobs:
            run = None
            while run is None:
                with suppress(multiprocessing.TimeoutError):
                    run = waiting.next(timeout=_LOOK_S)
                if run is None and not begun <= {each.pid for each in multiprocessing.active_children()}:
                    raise ProcessDiedError  # the pool would put another in its place, and wait for its answer for ever
                if progress is not None:
                    progress(sum(times))
            yield run


@dataclass(frozen=True, slots=True)
class Spread:
    """One check over several seeds. ``mean`` and the others are None if it could be had of none of them.

    ``deviation``: the standard deviation between seeds, 0 for one. ``missed``: seeds whose bound was not met.
    """

    check: Check
    mean: float | None
    deviation: float | None
    least: float | None
    most: float | None
    missed: tuple[str, ...]


def spreads(runs: Sequence[Run]) -> list[Spread]:
    """Return the checks of runs of one scenario and variant, over their seeds."""
    made = []
    for number, check in enumerate(runs[0].checks):
        each = [run.checks[number] for run in runs]
        values = [one.value for one in each if one.value is not None]
        mean = sum(values) / len(values) if values else None
        deviation = None
        if mean is not None:
            squares = sum((value - mean) ** 2 for value in values)
            deviation = sqrt(squares / (len(values) - 1)) if len(values) > 1 else 0.0
        missed = tuple(run.seed for run, one in zip(runs, each, strict=True) if one.met is False)
        made.append(Spread(check, mean, deviation, min(values, default=None), max(values, default=None), missed))
    return made


def verdict_of(runs: Sequence[Run]) -> Verdict:
    """Return void if any run is, else failed if any has, else passed."""
    verdicts = {run.verdict for run in runs}
    return next((each for each in (Verdict.VOID, Verdict.FAILED) if each in verdicts), Verdict.PASSED)
