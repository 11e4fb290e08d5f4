"""What a plan is made from: the projected curve, and what an instance of each service can do."""

import csv
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any, Final

from groundfault.lab.curves import Points
from groundfault.lab.runs.record import Run
from groundfault.lab.simulator.table import ScenarioError, Table
from groundfault.wire import NAME_GRAMMAR, valid_name

__all__ = ["Fleet", "Measured", "PlanError", "Service", "fleet_of", "measured", "read_curve", "read_fleet", "second_of"]

_MOST_RPS: Final = 1e8
_MOST_SECONDS: Final = 7 * 86_400.0
_MOST_LINES: Final = 700_000
_ENOUGH_BUSY: Final = 0.2
_ALL_WELL: Final = 0.99
_DAY_S: Final = 86_400.0


class PlanError(ValueError):
    """No plan can be made of this. The message names the field, the value and the bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service.

    ``rps_per_instance``: what an instance can do at most, as measured. ``share``: its requests for each request of the
    curve. ``headroom``: share of that to be left free. ``start_s``: from the order of an instance
    until it takes requests; ``warm_s``: from there until it is as fast as the others. ``least`` and ``most``:
    instances. ``service_s``: how long a request takes there, for the simulated check.
    """

    name: str
    rps_per_instance: float
    share: float = 1.0
    headroom: float = 0.3
    start_s: float = 240.0
    warm_s: float = 60.0
    least: int = 2
    most: int | None = None
    service_s: float = 0.02

    @property
    def lead_s(self) -> float:
        """How long before it is needed an instance must be ordered."""
        return self.start_s + self.warm_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """All services. ``ahead_s``: how long before they are needed instances are to be ready, for games begin early.

    ``keep_s``: how long they are kept after that. ``step_s``: the grid on which changes are made.
    ``change_worth_h``: a change is made if it saves so many hours of the service's whole fleet at its peak.
    """

    services: tuple[Service, ...]
    ahead_s: float = 900.0
    keep_s: float = 900.0
    step_s: float = 300.0
    change_worth_h: float = 0.25


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run tells of a service."""

    rps_per_instance: float | None
    share: float | None


def read_curve(path: Path) -> tuple[Points, float]:
    """Read ``t,rps`` lines, and return the curve from 0 on, and the second of the day or the moment that is its 0.

    ``t``: seconds, ``HH:MM``, ``HH:MM:SS``, or dates with times as ``groundfault replay`` writes and reads them; more
    columns are passed over. Raises PlanError, naming the line, and OSError.
    """
    points: list[tuple[float, float]] = []
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        rows = csv.reader(lines)
        for row in rows:
            if not row or not any(cell.strip() for cell in row) or row[0].lstrip().startswith("#"):
                continue
            if not points and rows.line_num == 1 and second_of(row[0]) is None:
                continue  # the names of the columns
            points.append(_point(row, f"{path}:{rows.line_num}", points[-1][0] if points else None))
            if len(points) > _MOST_LINES:
                raise PlanError(f"{path} must have at most {_MOST_LINES} lines")
    if len(points) < 2:  # noqa: PLR2004  a line has two ends
        raise PlanError(f"{path} must have at least 2 lines t,rps, not {len(points)}")
    start = points[0][0]
    if not 0 < points[-1][0] - start <= _MOST_SECONDS:
        raise PlanError(f"{path}: t must span above 0 and at most {_MOST_SECONDS:g} s, not {points[-1][0] - start:g}")
    if not any(rps for _, rps in points):
        raise PlanError(f"{path}: rps must be above 0 at least once")
    return Points(tuple((t - start, rps) for t, rps in points)), start % _DAY_S


def _point(row: list[str], place: str, before: float | None) -> tuple[float, float]:
    if len(row) < 2:  # noqa: PLR2004  a time and a rate
        raise PlanError(f"{place}: there must be a time and a rate, not {row[0]!r:.60}")
    t = second_of(row[0])
    if t is None:
        raise PlanError(f"{place}: t must be seconds, HH:MM or a date with a time, not {row[0].strip()!r:.40}")
    if before is not None and t < before:
        raise PlanError(f"{place}: t must be at least {before:g}, the one before it, not {t:g}")
    try:
        rps = float(row[1])
    except ValueError:
        rps = float("nan")
    if not 0 <= rps <= _MOST_RPS:
        raise PlanError(f"{place}: rps must be a number from 0 to {_MOST_RPS:g}, not {row[1].strip()!r:.40}")
    return t, rps


def second_of(text: str) -> float | None:
    """Return the seconds that ``90``, ``13:05``, ``13:05:30`` or a date with a time mean; None for anything else."""
    text = text.strip()
    try:
        value = float(text)
    except ValueError:
        pass
    else:
        return value if isfinite(value) and value >= 0 else None
    parts = text.split(":")
    if len(parts) in {2, 3} and all(part.isdecimal() for part in parts):
        hours, minutes, seconds = (*(int(part) for part in parts), 0)[:3]
        return None if hours > 167 or minutes > 59 or seconds > 59 else hours * 3600.0 + minutes * 60 + seconds  # noqa: PLR2004  a week, an hour, a minute
    try:
        dated = datetime.fromisoformat(text)
    except ValueError:
        return None
    midnight = dated.replace(hour=0, minute=0, second=0, microsecond=0)
    return dated.toordinal() * _DAY_S + (dated - midnight).total_seconds()


def read_fleet(path: Path, found: Mapping[str, Measured]) -> Fleet:
    """Read a capacity file. ``found``: what a run tells, which the file may leave out. Raises PlanError and OSError."""
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"{path} is not TOML: {error}") from error
    try:
        return fleet_of(said, found)
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from error


def fleet_of(said: Mapping[str, Any], found: Mapping[str, Measured]) -> Fleet:
    """Return the fleet that a mapping of a capacity file's shape describes. Raises PlanError."""
    try:
        table = Table(said, "")
        usual = _numbers(table, Service(name="all", rps_per_instance=1.0))
        named = dict(table.named("services"))
        services = [
            _service(name, named.get(name, Table({}, f"services.{name}")), usual, found.get(name))
            for name in dict.fromkeys([*named, *found])
        ]
        if not services:
            raise PlanError("services must hold one service at least, or a run must tell of some")
        fleet = Fleet(
            services=tuple(services),
            ahead_s=table.number("ahead_s", 900.0, low=0.0, high=_DAY_S),
            keep_s=table.number("keep_s", 900.0, low=0.0, high=_DAY_S),
            step_s=table.number("step_s", 300.0, low=1.0, high=3600.0),
            change_worth_h=table.number("change_worth_h", 0.25, low=0.0, high=24.0),
        )
        table.close()
    except ScenarioError as error:
        raise PlanError(str(error)) from error
    return fleet


def _numbers(table: Table, usual: Service) -> dict[str, Any]:
    most = usual.most
    return {
        "headroom": table.number("headroom", usual.headroom, low=0.0, high=0.9),
        "start_s": table.number("start_s", usual.start_s, low=0.0, high=_DAY_S),
        "warm_s": table.number("warm_s", usual.warm_s, low=0.0, high=_DAY_S),
        "least": table.whole("least", usual.least, low=1, high=100_000),
        "most": table.whole("most", low=1, high=100_000) if table.has("most") else most,
        "service_s": table.number("service_s", usual.service_s, above=0.0, high=60.0),
    }


def _service(name: str, table: Table, usual: Mapping[str, Any], found: Measured | None) -> Service:
    if not valid_name(name):
        raise PlanError(f"{table.place} must have a name that matches {NAME_GRAMMAR}")
    told = found or Measured(None, 1.0)
    if told.share is None and not table.has("share"):
        raise PlanError(f"{table.where('share')} must be given: in the run there was no second in which all was well")
    if found and told.rps_per_instance is None and not table.has("rps_per_instance"):
        raise PlanError(f"{table.where('rps_per_instance')} must be given: in the run it was never busy enough to tell")
    service = Service(
        name=name,
        rps_per_instance=table.number("rps_per_instance", told.rps_per_instance, above=0.0, high=_MOST_RPS),
        share=table.number("share", told.share, above=0.0, high=1000.0),
        **_numbers(table, Service(name=name, rps_per_instance=1.0, **usual)),
    )
    table.close()
    if service.most is not None and service.most < service.least:
        raise PlanError(f"{table.where('most')} must be at least least, {service.least}, not {service.most}")
    return service


def measured(run: Run) -> dict[str, Measured]:
    """Return what a run tells of its services: their share, and what an instance can do.

    The latter from answers and the share of the instances that was busy, in seconds in which that was a fifth at
    least; None where there was none: a service that had nothing to do does not show what it could.
    The former from seconds in which all was well, None where there was none: what is refused, throttled or given up
    on the way never arrives, and a share of the rest would order too few.
    """
    well = _well(run)
    due = sum(sum(stream.due[second] for second in well) for stream in run.streams)
    made = {}
    for service in run.services:
        if not sum(service.arrived):
            continue
        came = sum(service.arrived[second] for second in well if second < len(service.arrived))
        rates = [
            answered / (busy * instances)
            for answered, busy, instances in zip(service.answered, service.busy, service.instances, strict=False)
            if busy is not None and busy >= _ENOUGH_BUSY and instances and answered
        ]
        made[service.name] = Measured(median(rates) if rates else None, came / due if came else None)
    return made


def _well(run: Run) -> list[int]:
    """Return the seconds in which something was due, and nearly all of it was served in time."""
    length = min((min(len(stream.due), len(stream.good)) for stream in run.streams), default=0)
    made = []
    for second in range(length):
        due = sum(stream.due[second] for stream in run.streams)
        good = sum(stream.good[second] for stream in run.streams)
        if due and good >= _ALL_WELL * due:
            made.append(second)
    return made
