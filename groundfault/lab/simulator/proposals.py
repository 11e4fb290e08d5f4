"""Proposed settings laid over a scenario, and whether they hold under its spike."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from groundfault.lab.runs.measures import Bound
from groundfault.lab.simulator.model import Scenario
from groundfault.lab.simulator.running import Spread
from groundfault.lab.simulator.table import ScenarioError

__all__ = ["Change", "Compared", "Laid", "compared", "laid_over", "looked_at", "read"]

_SHARE_SLACK: Final = 0.01
_RECOVERY_SLACK_S: Final = 2.0
_P99_SLACK: Final = 0.2
_OF_SERVICES: Final = ("deadline_s", "max_concurrency")
_HIGHER_IS_BETTER: Final = frozenset({"goodput", "goodput_rps", "success"})
_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Change:
    """A setting of a command, ``service/resource/command``, or of a service; each part may be a pattern, as ``*``."""

    scope: str
    name: str
    value: Any


def read(path: Path) -> list[Change]:
    """Read what ``groundfault advise --json`` or ``--diff`` wrote. Raises ScenarioError and OSError."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ScenarioError(f"{path} is not JSON: {error}") from error
    if isinstance(said, Mapping):
        said = said.get("diff")
    if not isinstance(said, list) or not said:
        raise ScenarioError(f"{path} must hold settings: the output of groundfault advise --json, or of --diff")
    changes = []
    for number, each in enumerate(said):
        place = f"{path}: entry {number}"
        if not isinstance(each, Mapping):
            raise ScenarioError(f"{place} must be an object, not {each!r:.{_SHOWN}}")
        for key in ("scope", "name"):
            if not isinstance(each.get(key), str) or not each[key]:
                raise ScenarioError(f"{place}: {key} must be a text, not {each.get(key)!r:.{_SHOWN}}")
        if "value" not in each:
            raise ScenarioError(f"{place}: value must be given")
        changes.append(Change(each["scope"], each["name"], each["value"]))
    return changes


@dataclass(frozen=True, slots=True)
class Laid:
    """A document with the changes in it; how many places each has changed; and those that nothing there is meant by."""

    document: dict[str, Any]
    places: tuple[str, ...]
    elsewhere: tuple[Change, ...]


def laid_over(document: Mapping[str, Any], changes: Sequence[Change]) -> Laid:
    """Return the document with the changes made wherever a call or a service is meant by one.

    Whether the values make sense is found out where the scenario is read.
    """
    whole = deepcopy(dict(document))
    places: list[str] = []
    elsewhere = []
    for change in changes:
        found = _lay(whole, change)
        places += found
        if not found:
            elsewhere.append(change)
    return Laid(whole, tuple(places), tuple(elsewhere))


def _lay(whole: Mapping[str, Any], change: Change) -> list[str]:
    parts = change.scope.split("/")
    found = []
    services = whole.get("services")
    for name, service in services.items() if isinstance(services, Mapping) else ():
        if not isinstance(service, dict) or not fnmatchcase(name, parts[0]):
            continue
        if len(parts) == 1 and change.name in _OF_SERVICES:
            service[change.name] = change.value
            found.append(f"services.{name}.{change.name}")
        for number, call in enumerate(service.get("calls") or () if len(parts) == 3 else ()):  # noqa: PLR2004  service/resource/command
            names = (call.get("to", ""), call.get("name", call.get("to", "")))
            if all(fnmatchcase(each, part) for each, part in zip(names, parts[1:], strict=True)):
                within = call if change.name == "timeout_s" else call.setdefault("breaker", {})
                within[change.name] = change.value
                where = "" if within is call else ".breaker"
                found.append(f"services.{name}.calls[{number}]{where}.{change.name}")
    return found


def looked_at(scenario: Scenario) -> Scenario:
    """Return the scenario with all the figures that tell whether settings hold, besides those it asks for."""
    at = "@spike" if "spike" in scenario.spans else ""
    wanted = [f"goodput{at}", f"success{at}", f"p99_ms{at}", "trips"]
    if any(each.innocent for each in scenario.streams):
        wanted.append(f"success.innocent{at}")
    if "before" in scenario.spans:
        wanted.append("success@before")
    if "after" in scenario.spans:
        wanted.append("recovery_s@after")
    asked = {str(each) for each in scenario.bounds}
    more = tuple(Bound.parse(each) for each in wanted if each not in asked)
    return replace(scenario, bounds=(*scenario.bounds, *more))


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure without the proposals and with them. ``worse``: why it is, None if it holds."""

    without: Spread
    with_them: Spread
    worse: str | None


def compared(without: Sequence[Spread], with_them: Sequence[Spread]) -> list[Compared]:
    """Return each figure of both, and whether it holds: no bound is missed that was met, and nothing is clearly worse.

    Clearly: a share by more than 0.01, a recovery by more than 2 s, a latency by more than a fifth, a trip more.
    """
    return [Compared(old, new, _worse(old, new)) for old, new in zip(without, with_them, strict=True)]


def _worse(old: Spread, new: Spread) -> str | None:
    if new.missed and not old.missed:
        return f"misses its bound, for seed {', '.join(new.missed)}"
    if old.mean is None or new.mean is None:
        return "cannot be had any more" if old.mean is not None else None
    measure = Bound.parse(old.check.measure).measure
    change = new.mean - old.mean
    if old.check.unit == "share":
        better = change if measure in _HIGHER_IS_BETTER else -change
        return f"is worse by {-better:.3f}" if better < -_SHARE_SLACK else None
    if measure == "goodput_rps":
        return f"is worse by {-change:.1f}" if change < -_SHARE_SLACK * old.mean else None
    if measure == "trips":
        return f"{change:.1f} circuits more trip" if change > 0.5 else None  # noqa: PLR2004  half of one, on average
    slack = _P99_SLACK * old.mean if old.check.unit == "ms" else _RECOVERY_SLACK_S
    return f"is {change:.1f} {old.check.unit} longer" if change > slack else None
