"""What must fit together in a scenario: names, and calls that lead back to where they came from."""

from collections.abc import Iterator

from groundfault.lab.simulator.model import Scenario
from groundfault.lab.simulator.table import ScenarioError

__all__ = ["check"]


def check(scenario: Scenario) -> None:
    """Raise ScenarioError for a name that nothing has, and for a cycle of calls without a time-out."""
    _check_calls(scenario)
    _check_streams(scenario)
    _check_happenings(scenario)
    _check_bounds(scenario)
    _check_cycles(scenario)


def _check_service(scenario: Scenario, place: str, name: str) -> None:
    if name not in scenario.services:
        raise ScenarioError(f"{place} must be one of {', '.join(scenario.services)}, not {name!r:.60}")


def _check_calls(scenario: Scenario) -> None:
    for name, service in scenario.services.items():
        for number, call in enumerate(service.calls):
            _check_service(scenario, f"services.{name}.calls[{number}].to", call.to)


def _check_streams(scenario: Scenario) -> None:
    seen = set()
    for number, stream in enumerate(scenario.streams):
        _check_service(scenario, f"streams[{number}].to", stream.to)
        if stream.name in seen:
            raise ScenarioError(f"streams[{number}].name must be another one: {stream.name!r:.60} is taken")
        seen.add(stream.name)
    for number, stream in enumerate(scenario.streams):
        if stream.again is not None and f"{stream.name}-again" in seen:
            taken = f"{stream.name}-again"
            raise ScenarioError(f"streams[{number}].name must be another one: {taken!r:.60} is taken, too")


def _check_happenings(scenario: Scenario) -> None:
    for number, each in enumerate(scenario.happenings):
        _check_service(scenario, f"events[{number}].service", each.service)
        if each.caller is not None:
            _check_service(scenario, f"events[{number}].caller", each.caller)


def _check_bounds(scenario: Scenario) -> None:
    streams = [each.name for each in scenario.streams]
    streams += [f"{each.name}-again" for each in scenario.streams if each.again is not None]
    if any(each.innocent for each in scenario.streams):
        streams.append("innocent")
    for number, bound in enumerate(scenario.bounds):
        if bound.stream is not None and bound.stream not in streams:
            raise ScenarioError(f"bounds[{number}]: the stream must be one of {', '.join(streams)}, not {bound.stream}")
        if bound.span is not None and bound.span not in scenario.spans:
            spans = ", ".join(scenario.spans) or "none here"
            raise ScenarioError(f"bounds[{number}]: the span must be one of {spans}, not {bound.span}")


def _check_cycles(scenario: Scenario) -> None:
    """Raise ScenarioError for calls that lead back to where they came from without one timeout on the way."""
    done: set[str] = set()
    for start in scenario.services:
        if start not in done:
            _follow(scenario, start, done)


def _follow(scenario: Scenario, start: str, done: set[str]) -> None:
    """Walk down from a service, without Python's stack: a chain may be longer than that is deep."""
    way = {start: _waits(scenario, start)}
    while way:
        caller = next(reversed(way))
        number, to = next(way[caller], (0, None))
        if to is None:
            del way[caller]
            done.add(caller)
        elif to in way:
            names = list(way)
            circle = " -> ".join([*names[names.index(to) :], to])
            raise ScenarioError(
                f"services.{caller}.calls[{number}].timeout_s must be given: {circle} is a cycle without one"
            )
        elif to not in done:
            way[to] = _waits(scenario, to)


def _waits(scenario: Scenario, name: str) -> Iterator[tuple[int, str]]:
    calls = scenario.services[name].calls
    return ((number, call.to) for number, call in enumerate(calls) if call.timeout_s is None)
