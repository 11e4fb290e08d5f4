"""From a scenario file, or a mapping of the same shape, to a scenario that makes sense as a whole."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

from groundfault.lab.curves import Curve, Points, Spike
from groundfault.lab.runs.measures import Bound, MeasureError
from groundfault.lab.simulator.checking import check
from groundfault.lab.simulator.distributions import Fixed
from groundfault.lab.simulator.model import (
    VARIANTS,
    Action,
    Again,
    Happening,
    Protection,
    Scenario,
    Stream,
)
from groundfault.lab.simulator.services import read_service
from groundfault.lab.simulator.table import ScenarioError, Table
from groundfault.vocabulary import Criticality
from groundfault.wire import NAME_GRAMMAR, valid_name

__all__ = ["ScenarioError", "changed", "load", "put", "read", "scenario_of", "steps_of", "value_of"]

_LONGEST_S: Final = 7 * 86_400.0
_MOST_RPS: Final = 1e7
_CURVES: Final = ("rate", "points", "spike")


def read(path: Path, changes: Iterable[str] = ()) -> Scenario:
    """Return the scenario of a TOML file, with ``place=value`` changes laid over it; see :func:`changed`.

    Raises ScenarioError for what makes no sense, and OSError.
    """
    return scenario_of(changed(load(path), changes))


def load(path: Path) -> dict[str, Any]:
    """Return what stands in a TOML file; without a name of its own it has the file's. Raises ScenarioError, OSError."""
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # a number or a nesting too long for Python is no TOMLDecodeError
        raise ScenarioError(f"{path} is not TOML: {error}") from error
    said.setdefault("name", path.stem)
    return said


def changed(said: Mapping[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """Return the mapping with changes such as ``services.saber.instances=3`` and ``streams[0].rate=50`` made in it.

    A value is read as TOML's, and what is none as a text. Raises ScenarioError for a place that is not there;
    whether the key is known and the value makes sense is found out by :func:`scenario_of`.
    """
    whole = deepcopy(dict(said))
    for change in changes:
        place, equals, text = change.partition("=")
        if not equals or not place:
            raise ScenarioError(f"a change must be place=value, such as services.saber.instances=3, not {change!r:.80}")
        _put(whole, place, value_of(text))
    return whole


def put(said: Mapping[str, Any], place: str, value: Any) -> dict[str, Any]:
    """Return the mapping with one value changed. Raises ScenarioError for a place that is not there."""
    whole = deepcopy(dict(said))
    _put(whole, place, value)
    return whole


def _put(whole: dict[str, Any], place: str, value: Any) -> None:
    at: Any = whole
    steps = steps_of(place)
    for number, step in enumerate(steps):
        last = number == len(steps) - 1
        there = (
            step in at
            if isinstance(at, dict) and isinstance(step, str)
            else isinstance(at, list) and isinstance(step, int) and step < len(at)
        )
        if last and (there or (isinstance(at, dict) and isinstance(step, str))):
            at[step] = value
            return
        if not there:
            raise ScenarioError(f"{place}: there is no {step!r} to change anything in")
        at = at[step]


def steps_of(place: str) -> list[str | int]:
    """Return the keys and indexes on the way to a place. Raises ScenarioError for what is none."""
    return [step for part in place.split(".") for step in _steps(part, place)]


def _steps(part: str, place: str) -> list[str | int]:
    name, *indexes = part.split("[")
    numbers = [index.removesuffix("]") for index in indexes]
    if not name or not all(number.isdecimal() for number in numbers):
        raise ScenarioError(f"{place!r:.80} is no place: it must be like services.saber.calls[0].timeout_s")
    return [name, *(int(number) for number in numbers)]


def value_of(text: str) -> Any:
    """Return what a word means: a value of TOML, and what is none as a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError, KeyError):
        return text


def scenario_of(said: Mapping[str, Any]) -> Scenario:
    """Return the scenario that a mapping of a scenario file's shape describes. Raises ScenarioError."""
    table = Table(said, "")
    name = table.text("name", "scenario")
    if not valid_name(name):
        raise table.wrong("name", f"a name that matches {NAME_GRAMMAR}", name)
    services = {key: read_service(key, each) for key, each in table.named("services")}
    if not services:
        raise ScenarioError("services must hold one service at least")
    total_s = table.maybe("total_s", above=0.0, high=_LONGEST_S)
    deadline_s = table.number("deadline_s", 1.0, above=0.0, high=3600.0)
    streams = tuple(_stream(each, total_s, deadline_s) for each in table.tables("streams"))
    if not streams:
        raise ScenarioError("streams must hold one stream at least")
    total_s = total_s or max(each.curve.total_s for each in streams)
    if total_s > _LONGEST_S:
        raise ScenarioError(f"total_s must be at most {_LONGEST_S:g}, and the longest curve takes {total_s:g}")
    spans = _spans(table, streams, total_s)
    scenario = Scenario(
        name=name,
        title=table.text("title", name),
        total_s=total_s,
        services=services,
        streams=streams,
        happenings=tuple(_happening(each) for each in table.tables("events")),
        spans=spans,
        bounds=tuple(_bounds(table, streams, spans)),
        capacity_rps=table.maybe("capacity_rps", above=0.0, high=_MOST_RPS),
        variant=Protection(table.choice("variant", VARIANTS, Protection.GROUNDFAULT.value)),
        propagates=table.flag("propagates", default=True),
        document=dict(said),
    )
    table.close()
    check(scenario)
    return scenario


def _stream(table: Table, total_s: float | None, deadline_s: float) -> Stream:
    name = table.text("name")
    again = table.table("again")
    stream = Stream(
        name=name,
        to=table.text("to"),
        route=table.text("route", name),
        curve=_curve(table, total_s),
        scale=table.number("scale", 1.0, above=0.0, high=1e6),
        deadline_s=table.number("deadline_s", deadline_s, above=0.0, high=3600.0),
        innocent=table.flag("innocent", default=False),
        criticality=_criticality(table),
        users=table.whole("users", 0, low=0, high=1_000_000_000) or None,
        even=table.choice("arrivals", ("poisson", "even"), "poisson") == "even",
        again=None if again is None else _again(again),
    )
    table.close()
    peak_rps = stream.curve.peak_rps * stream.scale
    if peak_rps > _MOST_RPS:
        raise ScenarioError(
            f"{table.place} must have at most {_MOST_RPS:g} requests a second, scaled, not {peak_rps:g}"
        )
    return stream


def _again(table: Table) -> Again:
    made = Again(
        share=table.share("share"),
        delay=table.seconds("delay", Fixed(1.0)),
        most=table.whole("most", 1, low=1, high=100),
    )
    table.close()
    return made


def _curve(table: Table, total_s: float | None) -> Curve:
    given = [key for key in _CURVES if table.has(key)]
    if len(given) != 1:
        raise ScenarioError(f"{table.place} must have one of {', '.join(_CURVES)}, not {' and '.join(given) or 'none'}")
    rate = table.maybe("rate", low=0.0, high=_MOST_RPS)
    points = table.pairs("points")
    spike = table.table("spike")
    if rate is not None:
        if total_s is None:
            raise ScenarioError(f"total_s must be given: {table.where('rate')} says nothing of when it ends")
        return Points(((0.0, rate), (total_s, rate)))
    try:
        if points is not None:
            return Points(points)
        assert spike is not None  # noqa: S101  one of the three is given
        return _spike(spike)
    except ScenarioError:
        raise
    except ValueError as error:
        raise ScenarioError(f"{table.where(given[0])}: {error}") from error


def _spike(table: Table) -> Spike:
    said = {
        name: table.number(name)
        for name in ("base_rps", "factor", "before_s", "spike_s", "after_s", "rise_s")
        if table.has(name)
    }
    if "base_rps" not in said:
        raise ScenarioError(f"{table.where('base_rps')} must be given: a number above 0")
    table.close()
    return Spike(**said)


def _criticality(table: Table) -> tuple[tuple[Criticality, float], ...]:
    value = table.raw("criticality")
    allowed = tuple(each.value for each in Criticality)
    if value is None or isinstance(value, str):
        return ((Criticality(table.choice("criticality", allowed, Criticality.CRITICAL.value)), 1.0),)
    shares = Table(value, table.where("criticality"))
    made = tuple((each, shares.share(each.value)) for each in Criticality if shares.has(each.value))
    shares.close()
    total = sum(share for _, share in made)
    if abs(total - 1) > 1e-6:  # noqa: PLR2004  what decimal fractions leave
        raise ScenarioError(f"{shares.place} must add up to 1, not {total:g}")
    return made


def _happening(table: Table) -> Happening:
    action = Action(table.choice("action", tuple(each.value for each in Action)))
    service = table.text("service")
    slow = action is Action.SLOW
    made = Happening(
        at=table.number("at", low=0.0, high=_LONGEST_S),
        action=action,
        service=service,
        text=table.text("text", f"{action.value} {service}"),
        for_s=table.maybe("for_s", above=0.0, high=_LONGEST_S),
        instances=table.whole("instances", 0, low=1, high=100_000) or None,
        factor=table.number("factor", None if slow else 1.0, above=0.0, high=1e6),
        share=table.share("share", 1.0),
        batch=table.whole("batch", 1, low=1, high=100_000),
        notice_s=table.number("notice_s", 1.0, low=0.0, high=3600.0),
        start_s=table.number("start_s", 5.0, low=0.0, high=3600.0),
        caller=table.text("caller") if table.has("caller") else None,
    )
    if action is Action.SCALE and made.instances is None:
        raise ScenarioError(f"{table.where('instances')} must be given: a whole number of at least 1")
    table.close()
    return made


def _spans(table: Table, streams: tuple[Stream, ...], total_s: float) -> dict[str, tuple[float, float]]:
    given = table.table("spans")
    if given is None:
        spike = next((each.curve for each in streams if isinstance(each.curve, Spike)), None)
        if spike is None:
            return {}
        ends = (spike.before_s, spike.spike_end_s, spike.total_s)
        named = {"before": (0.0, ends[0]), "spike": (ends[0], ends[1]), "after": (ends[1], ends[2])}
        return {name: span for name, span in named.items() if span[0] < span[1]}
    spans = {}
    for name in table.raw("spans"):
        value = given.raw(name)
        if not _is_span(value, total_s):
            raise given.wrong(name, f"[start, end] in ascending order within {total_s:g} s", value)
        spans[name] = (float(value[0]), float(value[1]))
    return spans


def _bounds(table: Table, streams: tuple[Stream, ...], spans: Mapping[str, tuple[float, float]]) -> Iterator[Bound]:
    given = table.words("bounds")
    for number, text in enumerate(_shown(streams, spans) if given is None else given):
        try:
            yield Bound.parse(text)
        except MeasureError as error:
            raise ScenarioError(f"bounds[{number}]: {error}") from error


def _shown(streams: tuple[Stream, ...], spans: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """Return what is shown of a scenario that asks for nothing: figures without a bound."""
    at = "@spike" if "spike" in spans else ""
    shown = [f"goodput{at}", f"success{at}", f"shed{at}", f"p99_ms{at}", "trips"]
    if any(each.innocent for each in streams):
        shown.insert(1, f"success.innocent{at}")
    if "after" in spans:
        shown.append("recovery_s@after")
    return tuple(shown)


def _is_span(value: Any, total_s: float) -> bool:
    if not isinstance(value, list | tuple) or not all(isinstance(each, int | float) for each in value):
        return False
    return len(value) == 2 and 0 <= value[0] < value[1] <= total_s  # noqa: PLR2004  a span has two ends
