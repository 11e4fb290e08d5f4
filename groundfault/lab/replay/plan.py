"""The traffic plan: how many requests came in each second, and which, by minute. It names nobody, and is JSON.

The same log gives the same bytes.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Self

from groundfault.errors import GroundFaultError
from groundfault.lab.curves import Points
from groundfault.lab.replay.folding import METHODS

__all__ = ["FORMAT", "MOST_SECONDS", "VERSION", "Plan", "PlanError", "Template"]

FORMAT: Final = "groundfault-traffic-plan"
VERSION: Final = 1
MOST_SECONDS: Final = 7 * 86_400
MOST_TEMPLATES: Final = 200
MOST_RPS: Final = 1e7
MOST_BYTES: Final = 256 * 2**20
_LONGEST_PATH: Final = 1000
_PATH: Final = re.compile(r"/(?:(?!/)(?:[!-z|~]|\{(?:n|id|v|key)\})*)?\Z")
_MINUTE_S: Final = 60


class PlanError(GroundFaultError):
    """This is no traffic plan, or one that cannot be replayed. The message names the place and the bound."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """A kind of request: method, and path in which ``{n}``, ``{id}``, ``{v}`` and ``{key}`` stand for what varied."""

    method: str
    path: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Traffic that was.

    ``start``: the moment of the first second, with the zone of the log; None for a curve without a date.
    ``rps``: requests in each second. ``templates``: the most frequent kinds, most of them first.
    ``mix``: for each minute from the start, weights by index into ``templates``; a minute without any has the mix of
    all. ``other``: requests of kinds that found no place, which are replayed as the known ones are.
    ``statuses``: answers by status. ``read``: counts of the reading, for people.
    """

    start: datetime | None = None
    rps: list[float]
    templates: list[Template]
    mix: list[dict[int, float]]
    other: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)

    @property
    def seconds(self) -> int:
        """How long it takes, in seconds."""
        return len(self.rps)

    @property
    def total(self) -> float:
        """How many requests there are."""
        return sum(self.rps)

    def weights(self, methods: frozenset[str] | None = None) -> list[float]:
        """Return the weight of each template over all minutes; 0.0 for methods that are not among ``methods``."""
        whole = [0.0] * len(self.templates)
        for minute in self.mix:
            for index, weight in minute.items():
                if methods is None or self.templates[index].method in methods:
                    whole[index] += weight
        return whole

    def points(self) -> Points:
        """Return the curve: flat within each second, a step between two that differ."""
        return steps(self.rps)

    def window(self, since: str | None, for_s: float | None) -> tuple[int, int]:
        """Return the first second that ``--from`` and ``--for`` name, and the one after the last, from the start.

        ``since``: ``18:00`` or ``18:00:30``, of the first day on which the plan reaches it, in the log's own zone; a
        date with a time; or seconds from the start, as ``90s``. Raises PlanError for what the plan does not hold.
        """
        first = 0 if since is None else self._offset(since)
        if not 0 <= first < self.seconds:
            raise PlanError(f"--from {since} lies outside of the plan, which {self.covers()}")
        last = self.seconds if for_s is None else min(self.seconds, first + max(1, round(for_s)))
        return first, last

    def _offset(self, since: str) -> int:
        if since.endswith("s") and since[:-1].isascii() and since[:-1].isdecimal():
            return int(since[:-1][:9])
        if self.start is None:
            raise PlanError(f"--from must be seconds, as 90s, for this plan has no date; not {since!r:.40}")
        try:
            if "-" in since:
                asked = datetime.fromisoformat(since)
                asked = asked if asked.tzinfo else asked.replace(tzinfo=self.start.tzinfo)
                return int((asked - self.start).total_seconds())
            hour, minute, second = (
                int(part) for part in (f"{since}:00" if since.count(":") == 1 else since).split(":")
            )
            asked = self.start.replace(hour=hour, minute=minute, second=second)
        except (ValueError, OverflowError):
            raise PlanError(f"--from must be as 18:00, 2026-11-22T18:00 or 90s, not {since!r:.40}") from None
        return int((asked - self.start).total_seconds()) % 86_400

    def covers(self) -> str:
        """Say what it covers."""
        if self.start is None:
            return f"covers {self.seconds} s"
        end = self.start + timedelta(seconds=self.seconds)
        return f"covers {self.start:%Y-%m-%dT%H:%M:%S%z} to {end:%Y-%m-%dT%H:%M:%S%z}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "start": None if self.start is None else self.start.isoformat(),
            "seconds": self.seconds,
            "total": _plain(self.total),
            "other": self.other,
            "statuses": dict(sorted(self.statuses.items())),
            "read": dict(sorted(self.read.items())),
            "templates": [{"method": each.method, "path": each.path} for each in self.templates],
            "mix": [[[index, _plain(weight)] for index, weight in sorted(minute.items())] for minute in self.mix],
            "rps": [_plain(value) for value in self.rps],
        }

    def write(self, path: Path) -> None:
        """Write it as JSON. Raises OSError."""
        lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in self.as_dict().items()]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`write` wrote. Raises PlanError, naming file, place and bound."""
        try:
            if path.stat().st_size > MOST_BYTES:
                raise PlanError(f"{path} is no traffic plan: it has more than {MOST_BYTES >> 20} MiB")
            said = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise PlanError(f"{path} cannot be read: {error.strerror or error}") from None
        except (ValueError, RecursionError) as error:
            raise PlanError(f"{path} is no traffic plan: it is not JSON ({error})"[:300]) from None
        try:
            return cls.from_dict(said)
        except PlanError as error:
            raise PlanError(f"{path}: {error}") from None

    @classmethod
    def from_dict(cls, said: Any) -> Self:
        """Return the plan that :meth:`as_dict` described. Raises PlanError."""
        if not isinstance(said, Mapping) or said.get("format") != FORMAT:
            raise PlanError(f'"format" must be "{FORMAT}"')
        if said.get("version") != VERSION:
            raise PlanError(f"version must be {VERSION}, not {said.get('version')!r:.40}")
        rps = [_number(value, f"rps[{at}]", MOST_RPS) for at, value in enumerate(_listed(said, "rps", 1, MOST_SECONDS))]
        templates = [
            _template(each, f"templates[{at}]") for at, each in enumerate(_listed(said, "templates", 1, MOST_TEMPLATES))
        ]
        minutes = -(-len(rps) // _MINUTE_S)
        listed = _listed(said, "mix", minutes, minutes)
        mix = [_minute(each, f"mix[{at}]", len(templates)) for at, each in enumerate(listed)]
        if said.get("seconds", len(rps)) != len(rps):
            raise PlanError(f"seconds must be {len(rps)}, as many as rps holds, not {said.get('seconds')!r:.40}")
        return cls(
            start=_start(said.get("start"), len(rps)),
            rps=rps,
            templates=templates,
            mix=mix,
            other=int(_number(said.get("other", 0), "other", 1e15)),
            statuses=_counts(said, "statuses"),
            read=_counts(said, "read"),
        )


def steps(rps: Sequence[float]) -> Points:
    """Return a curve that is flat within each second."""
    points = [(0.0, rps[0])]
    for at, (before, after) in enumerate(pairwise(rps), start=1):
        if before != after:
            points += [(float(at), before), (float(at), after)]
    return Points((*points, (float(len(rps)), rps[-1])))


def _plain(value: float) -> float:
    """Return a whole number as one, so that it is written without a point."""
    rounded = round(value, 4)
    return int(rounded) if rounded == int(rounded) else rounded


def _listed(said: Mapping[str, Any], name: str, least: int, most: int) -> list[Any]:
    value = said.get(name)
    if not isinstance(value, list) or not least <= len(value) <= most:
        found = len(value) if isinstance(value, list) else type(value).__name__
        bound = f"{least}" if least == most else f"{least} to {most}"
        raise PlanError(f"{name} must be a list of {bound} values, not {found}")
    return value


def _number(value: Any, where: str, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise PlanError(f"{where} must be a number from 0 to {most:g}, not {value!r:.40}")
    return value


def _template(said: Any, where: str) -> Template:
    if not isinstance(said, Mapping):
        raise PlanError(f"{where} must be an object with method and path, not {type(said).__name__}")
    method, path = said.get("method"), said.get("path")
    if method not in METHODS:
        raise PlanError(f"{where}.method must be one of {', '.join(sorted(METHODS))}, not {method!r:.40}")
    if not isinstance(path, str) or len(path) > _LONGEST_PATH or not _PATH.match(path):
        raise PlanError(
            f"{where}.path must begin with /, but not two, hold printable ASCII without braces but those of {{n}}, "
            f"{{id}}, {{v}} and {{key}}, and have at most {_LONGEST_PATH} characters, not {path!r:.60}"
        )
    return Template(method=method, path=path)


def _minute(said: Any, where: str, templates: int) -> dict[int, float]:
    if not isinstance(said, list):
        raise PlanError(f"{where} must be a list of [template, weight], not {type(said).__name__}")
    minute: dict[int, float] = {}
    for number, pair in enumerate(said):
        place = f"{where}[{number}]"
        if not isinstance(pair, list) or len(pair) != 2:  # noqa: PLR2004  template and weight
            raise PlanError(f"{place} must be [template, weight], not {pair!r:.40}")
        index, weight = pair
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < templates:
            raise PlanError(
                f"{place}: the template must be a whole number from 0 to {templates - 1}, not {index!r:.40}"
            )
        if index in minute:
            raise PlanError(f"{place}: the template {index} is there twice")
        minute[index] = _number(weight, f"{place}: the weight", 1e15)
    return minute


def _start(said: Any, seconds: int) -> datetime | None:
    if said is None:
        return None
    try:
        start = datetime.fromisoformat(said)
        start + timedelta(seconds=seconds)
    except (TypeError, ValueError, OverflowError):
        start = None
    if start is None or start.tzinfo is None:
        raise PlanError(f"start must be null or a date with time and zone, not {said!r:.40}")
    return start


def _counts(said: Mapping[str, Any], name: str) -> dict[str, int]:
    held = said.get(name, {})
    if not isinstance(held, Mapping):
        raise PlanError(f"{name} must be an object, not {type(held).__name__}")
    return {str(key): int(_number(value, f"{name}.{key}", 1e15)) for key, value in held.items()}
