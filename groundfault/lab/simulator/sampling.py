"""A part of a fleet for the whole: so many instances for each hundred, and as much of the traffic. Pure."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

from groundfault.lab.simulator.table import ScenarioError

__all__ = ["Sampled", "sampled"]

_MOST: Final = 10_000
_OFF: Final = 0.2  # of its share that a service has too much or too little, from which on it is named
_NAMED: Final = 8


@dataclass(frozen=True, slots=True)
class Sampled:
    """A scenario's document with a part of its fleet and its traffic; ``notes``: what that distorts, in sentences."""

    document: dict[str, Any]
    notes: tuple[str, ...]


def sampled(document: Mapping[str, Any], of: int) -> Sampled:
    """Return one in ``of`` of everything: places to work at, requests, users. 1 changes nothing.

    Instances are divided, then, where none would be left, workers, then threads; each service keeps one place at
    least. Raises ScenarioError for a number that makes no sense; what else is wrong with the document is found later.
    """
    if not 1 <= of <= _MOST:
        raise ScenarioError(f"a sample must be 1/1 to 1/{_MOST}, not 1/{of}")
    made = deepcopy(dict(document))
    if of == 1:
        return Sampled(made, ())
    off: dict[str, float] = {}
    for name, service in _tables(made.get("services")):
        ratio = _shrink(service, of)
        if abs(ratio - 1) > _OFF:
            off[name] = ratio
    for stream in _listed(made.get("streams")):
        stream["scale"] = _divided(stream.get("scale", 1.0), of)
        if "users" in stream:
            stream["users"] = _whole(stream["users"], of)
    if "capacity_rps" in made:
        made["capacity_rps"] = _divided(made["capacity_rps"], of)
    for event in _listed(made.get("events")):
        event.update({key: _whole(event[key], of) for key in ("instances", "batch") if key in event})
    return Sampled(made, tuple(_notes(of, off)))


def _tables(value: Any) -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(value, Mapping):
        return []
    return [(name, each) for name, each in value.items() if isinstance(each, dict)]


def _listed(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _divided(value: Any, of: int) -> Any:
    return value / of if isinstance(value, int | float) and not isinstance(value, bool) else value


def _whole(value: Any, of: int) -> Any:
    return max(1, round(value / of)) if isinstance(value, int) and not isinstance(value, bool) else value


def _shrink(service: dict[str, Any], of: int) -> float:
    """Divide its places, and return how many times its share it has left."""
    loop = service.get("loop") is True
    keys = ("instances", "workers") if loop else ("instances", "workers", "threads")
    before = [service.get(key, 1) for key in keys]
    if not all(isinstance(each, int) and each >= 1 for each in before):
        return 1.0  # refused where scenarios are read
    wanted = 1.0
    for each in before:
        wanted *= each
    wanted /= of
    inner, left = 1, wanted
    for at, (key, each) in enumerate(zip(keys, before, strict=True)):
        inside = 1
        for one in before[at + 1 :]:
            inside *= one
        service[key] = kept = max(1, min(each, round(left / inside)))
        left /= kept
        inner *= kept
    return inner / wanted


def _notes(of: int, off: Mapping[str, float]) -> list[str]:
    notes = [
        (
            f"One in {of} of the fleet and of its traffic: rates are a {of}th, shares and times are as of the whole. "
            "Fewer places share a queue, so waits are longer than they would be and overload begins a little earlier; "
            "and a second with few requests says little."
        )
    ]
    if off:
        shown = sorted(off, key=lambda name: -abs(off[name] - 1))[:_NAMED]
        words = ", ".join(f"{name} {off[name]:.1f} times" for name in shown)
        more = f" and {len(off) - len(shown)} more" if len(off) > len(shown) else ""
        notes.append(f"Places are whole, so some services have more or less than their share: {words}{more}.")
    return notes
