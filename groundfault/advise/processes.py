"""Reads what running processes say of themselves, from their report files: no wait, no network."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from groundfault.advise import wording
from groundfault.advise.distribution import Distribution
from groundfault.advise.observed import MADE, Observed, Rates
from groundfault.advise.sources import Reading, SourceError
from groundfault.errors import GroundFaultError
from groundfault.metrics.report import CommandReport, Report

__all__ = ["RUN_DIR", "observed_of", "read_processes"]

RUN_DIR: Final = "GROUNDFAULT_RUN_DIR"


def read_processes(
    directory: str | None,
    *,
    over_s: float | None,
    read: Callable[[Path, float], Report],
    wall: Callable[[], float],
    sleep: Callable[[float], None],
) -> Reading:
    """Read the reports in a directory, by default the one that the environment names.

    ``over_s``: read them twice, so long apart, for rates as well; None, the default, knows no rates and does not wait.
    Raises SourceError.
    """
    named = directory or os.environ.get(RUN_DIR)
    if not named:
        raise SourceError(f"say where the processes report: --run-dir DIR, or {RUN_DIR}")
    place = Path(named)
    if not place.is_dir():
        raise SourceError(f"{place} is no directory; processes report there when {RUN_DIR} names it")
    began_at, before = wall(), None
    if over_s is not None:
        before = _read(read, place, began_at)
        sleep(over_s)
    now = wall()
    report = _read(read, place, now)
    commands = observed_of(report, before, now - began_at)
    count = len(report.processes)
    notes = [f"{count} processes report in {place}" if count > 1 else f"1 process reports in {place}"]
    if not report.processes:
        notes = [f"no living process reports in {place}; what is there was left by earlier ones"]
    hint = "" if over_s is not None else "--over 60s looks for so long and adds advice on volume and concurrency"
    return Reading(commands, notes, hint if commands else f"processes report there when {RUN_DIR} names it")


def _read(read: Callable[[Path, float], Report], place: Path, now: float) -> Report:
    try:
        return read(place, now)
    except OSError as error:
        raise SourceError(f"the reports in {place} cannot be read: {error.strerror or error}") from None
    except GroundFaultError as error:
        raise SourceError(str(error)) from None


def observed_of(report: Report, before: Report | None = None, over_s: float = 0.0) -> list[Observed]:
    """Return what a report says of each command; with an earlier one, ``over_s`` seconds before, its rates too."""
    found = []
    for key, each in sorted(report.commands.items()):
        seen = Observed(resource=each.resource, command=each.command)
        seen.durations = {outcome: Distribution.of_histogram(spans) for outcome, spans in each.durations.items()}
        seen.calls = dict(each.calls)
        seen.processes = sum(each.states.values()) or None
        seen.settings = _settings(each, seen.processes)
        if before is not None and over_s > 0:
            earlier = before.commands.get(key)
            made = _made(each) - (_made(earlier) if earlier is not None else 0)
            if made > 0:
                rate = made / over_s
                note = f"they are those of {wording.number(over_s)} s just now, which need not be the busiest"
                seen.rates = Rates(rate, rate, over_s, note)
        found.append(seen)
    return found


def _made(report: CommandReport) -> int:
    return sum(report.durations[outcome].count for outcome in MADE if outcome in report.durations)


def _settings(report: CommandReport, processes: int | None) -> dict[str, Any]:
    """Return what a report knows of settings; the limit in it is that of all processes together."""
    limit = {"max_concurrent": report.limit // processes} if report.limit and processes else {}
    return {**report.settings, **limit}
