"""Sums and differences of what reports have counted in total. Gauges are left as they are.

A difference is a Report too, whose numbers may be below zero. It stands for nothing until it is added to another one.
"""

from collections.abc import Mapping
from itertools import repeat
from operator import ge
from typing import Final, TypeVar

from groundfault._histogram import Histogram
from groundfault.metrics.report import CommandReport, Report, ServerReport, StoreReport

__all__ = ["add_totals", "difference", "has_fallen", "is_within"]

K = TypeVar("K")

_NONE: Final[dict[int, int]] = {}


def add_totals(into: Report, other: Report, sign: int = 1) -> None:
    """Add the totals of another report, or with the sign -1 take them away."""
    for key, command in other.commands.items():
        known = into.commands.get(key)
        if known is None:
            known = into.commands[key] = CommandReport(*key)
        _add(known.calls, command.calls, sign)
        _add(known.fallbacks, command.fallbacks, sign)
        _add(known.moves, command.moves, sign)
        for outcome, taken in command.durations.items():
            histogram = known.durations.get(outcome)
            if histogram is None:
                histogram = known.durations[outcome] = Histogram()
            _add_histogram(histogram, taken, sign)
    for service, server in other.servers.items():
        _add_server(into.servers.setdefault(service, ServerReport(service)), server, sign)
    for name, store in other.stores.items():
        into.stores.setdefault(name, StoreReport(name)).rejected += sign * store.rejected
    _add(into.edges, other.edges, sign)
    _add(into.internal_errors, other.internal_errors, sign)


def _add_server(known: ServerReport, server: ServerReport, sign: int) -> None:
    _add(known.requests, server.requests, sign)
    for edge, (times, wait_s) in server.callers.items():
        mine = known.callers.get(edge, (0, 0.0))
        known.callers[edge] = mine[0] + sign * times, mine[1] + sign * wait_s
    _add_histogram(known.waits, server.waits, sign)
    known.abandoned += sign * server.abandoned


def _add_histogram(known: Histogram, taken: Histogram, sign: int) -> None:
    _add(known.buckets, taken.buckets, sign)
    known.sum_s += sign * taken.sum_s


def _add(mine: dict[K, int], theirs: Mapping[K, int], sign: int) -> None:
    for key, times in theirs.items():
        mine[key] = mine.get(key, 0) + sign * times


def difference(later: Report, earlier: Report) -> Report:
    """Return what adds up to the later one with the earlier one."""
    result = Report()
    add_totals(result, later)
    add_totals(result, earlier, -1)
    return result


def has_fallen(later: Report, earlier: Report) -> bool:
    """Return whether any total of the later report is below the earlier one's: then something began anew."""
    mine = later.commands
    for key, before in earlier.commands.items():
        command = mine.get(key)
        if command is None:
            if any(before.calls.values()):
                return True
            continue
        if (
            _is_less(command.calls, before.calls)
            or (before.fallbacks and _is_less(command.fallbacks, before.fallbacks))
            or (before.moves and _is_less(command.moves, before.moves))
            or _are_less(command.durations, before.durations)
        ):
            return True
    for service, was in earlier.servers.items():
        server = later.servers.get(service, ServerReport(service))
        if (
            server.abandoned < was.abandoned
            or _is_less(server.requests, was.requests)
            or _is_less(server.waits.buckets, was.waits.buckets)
            or any(server.callers.get(edge, (0, 0.0))[0] < sums[0] for edge, sums in was.callers.items())
        ):
            return True
    return (
        _is_less(later.edges, earlier.edges)
        or _is_less(later.internal_errors, earlier.internal_errors)
        or any(
            later.stores.get(name, StoreReport(name)).rejected < was.rejected for name, was in earlier.stores.items()
        )
    )


def is_within(part: Report, later: Report, earlier: Report) -> bool:
    """Return whether everything has grown between the two by at least that part."""
    whole = Report()
    add_totals(whole, earlier)
    add_totals(whole, part)
    return not has_fallen(later, whole)


def _is_less(now: Mapping[K, int], before: Mapping[K, int]) -> bool:
    # In words of C: fifty hosts have a hundred thousand of these numbers, each second.
    return not all(map(ge, map(now.get, before, repeat(0)), before.values()))


def _are_less(now: Mapping[str, Histogram], before: Mapping[str, Histogram]) -> bool:
    for outcome, taken in before.items():
        histogram = now.get(outcome)
        if _is_less(_NONE if histogram is None else histogram.buckets, taken.buckets):
            return True
    return False
