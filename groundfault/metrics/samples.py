"""A report as samples: for each metric of the catalogue, in its order, the values by labels."""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Final

from groundfault._histogram import BOUNDS_S, Histogram
from groundfault.metrics.catalogue import BUCKETS_S, CATALOGUE, Metric
from groundfault.metrics.report import ADMITTED, UNKNOWN, CommandReport, Report, ServerReport
from groundfault.vocabulary import State

__all__ = ["Row", "Value", "cumulative", "families"]

Value = int | float | Histogram
Row = tuple[tuple[str, ...], Value]
"""The values of the labels, in the order of the metric's, and the sample's."""

_Rows = Callable[[Report, float], Iterable[Row]]


def families(report: Report, now: float) -> list[tuple[Metric, list[Row]]]:
    """Return what there is to say, metric by metric; rows in the order of their names, a metric without any left out.

    ``now``: seconds since the epoch.
    """
    ordered = Report(
        dict(sorted(report.commands.items())),
        dict(sorted(report.servers.items())),
        dict(sorted(report.stores.items())),
        dict(sorted(report.edges.items())),
        dict(sorted(report.internal_errors.items())),
        report.processes,
        report.unread,
    )
    told = ((metric, list(_ROWS[metric.name](ordered, now))) for metric in CATALOGUE)
    return [(metric, rows) for metric, rows in told if rows]


_SHOWN_IN: Final = tuple(bisect_left(BUCKETS_S, bound) for bound in (*BOUNDS_S, float("inf")))
"""For each bucket of a histogram, by its index, the one of those shown that it is part of."""


def cumulative(histogram: Histogram) -> list[int]:
    """Return how many values are at most as large as each of ``BUCKETS_S``, and how many there are."""
    counts = [0] * (len(BUCKETS_S) + 1)
    for bucket, times in histogram.buckets.items():
        counts[_SHOWN_IN[bucket]] += times
    return list(accumulate(counts))


# --- commands ---------------------------------------------------------------------------------------------------------


def _each_living(of: Callable[[CommandReport], float]) -> _Rows:
    """Gauges are of commands that a living process has."""
    return lambda report, _: [(key, of(command)) for key, command in report.commands.items() if command.states]


def _calls(report: Report, _: float) -> Iterable[Row]:
    for key, command in report.commands.items():
        for outcome, times in command.calls.items():
            yield (*key, outcome), times


def _durations(report: Report, _: float) -> Iterable[Row]:
    for key, command in report.commands.items():
        for outcome, taken in command.durations.items():
            yield (*key, outcome), taken


def _limits(report: Report, _: float) -> Iterable[Row]:
    return [(key, command.limit) for key, command in report.commands.items() if command.states and command.limit]


def _fallbacks(report: Report, _: float) -> Iterable[Row]:
    for key, command in report.commands.items():
        for result, times in command.fallbacks.items():
            yield (*key, result), times


_STATES: Final = tuple(state.value for state in State)


def _states(report: Report, _: float) -> Iterable[Row]:
    for key, command in report.commands.items():
        if command.states:
            for state in _STATES:
                yield (*key, state), command.states.get(state, 0)


def _transitions(report: Report, _: float) -> Iterable[Row]:
    for key, command in report.commands.items():
        for move, times in command.moves.items():
            yield (*key, *move.split(">")), times


# --- servers ----------------------------------------------------------------------------------------------------------


def _each_server(of: Callable[[ServerReport], Value | None], *, living: bool = False) -> _Rows:
    def rows(report: Report, _: float) -> Iterable[Row]:
        for service, server in report.servers.items():
            value = of(server)
            if value is not None and (server.signals or not living):
                yield (service,), value

    return rows


def _result(reason: str) -> str:
    return ADMITTED if reason == ADMITTED else "shed"


def _requests(report: Report, _: float) -> Iterable[Row]:
    for service, server in report.servers.items():
        for (reason, criticality), times in server.requests.items():
            shown = "" if reason == ADMITTED else reason
            yield (service, _result(reason), shown, criticality), times


def _signals(report: Report, _: float) -> Iterable[Row]:
    for service, server in report.servers.items():
        for signal, processes in server.signals.items():
            yield (service, signal), processes


def _edges(report: Report, _: float) -> Iterable[Row]:
    return report.edges.items()


def _callers(which: int) -> _Rows:
    def rows(report: Report, _: float) -> Iterable[Row]:
        for service, server in report.servers.items():
            sums: dict[tuple[str, str], float] = {}
            for (caller, reason), told in server.callers.items():
                edge = caller, _result(reason)
                sums[edge] = sums.get(edge, 0) + told[which]
            for (caller, result), total in sorted(sums.items()):
                yield (caller, service, result), total

    return rows


# --- the rest ---------------------------------------------------------------------------------------------------------


def _versions(report: Report, _: float) -> Iterable[Row]:
    for name, store in report.stores.items():
        for version, processes in sorted(store.versions.items()):
            yield (name, version), processes


def _ages(report: Report, _: float) -> Iterable[Row]:
    return [((name,), store.age_s) for name, store in report.stores.items() if store.age_s is not None]


def _unreachable(report: Report, _: float) -> Iterable[Row]:
    return [((name,), store.unreachable) for name, store in report.stores.items()]


def _rejected(report: Report, _: float) -> Iterable[Row]:
    return [((name,), store.rejected) for name, store in report.stores.items()]


def _errors(report: Report, _: float) -> Iterable[Row]:
    return [((where,), times) for where, times in report.internal_errors.items()]


def _processes(report: Report, _: float) -> Iterable[Row]:
    counts: dict[str, int] = {}
    for each in report.processes:
        counts[each.service or UNKNOWN] = counts.get(each.service or UNKNOWN, 0) + 1
    return [((service,), processes) for service, processes in sorted(counts.items())]


def _report_ages(report: Report, now: float) -> Iterable[Row]:
    oldest: dict[str, float] = {}
    for each in report.processes:
        name = each.service or UNKNOWN
        oldest[name] = min(oldest.get(name, now), each.written_at)
    return [((service,), round(now - written_at, 3)) for service, written_at in sorted(oldest.items())]


def _unread(report: Report, _: float) -> Iterable[Row]:
    return [((), len(report.unread))]


_ROWS: Final[dict[str, _Rows]] = {
    "groundfault_command_calls_total": _calls,
    "groundfault_command_duration_seconds": _durations,
    "groundfault_command_active": _each_living(lambda command: command.active),
    "groundfault_command_limit": _limits,
    "groundfault_command_fallbacks_total": _fallbacks,
    "groundfault_command_admitted_ratio": _each_living(lambda command: command.admitted_share),
    "groundfault_command_saturated": _each_living(lambda command: command.saturated),
    "groundfault_command_unhealthy": _each_living(lambda command: command.unhealthy),
    "groundfault_circuit_state": _states,
    "groundfault_circuit_transitions_total": _transitions,
    "groundfault_request_time_in_queue_seconds": _each_server(lambda server: server.waits),
    "groundfault_requests_total": _requests,
    "groundfault_requests_abandoned_total": _each_server(lambda server: server.abandoned),
    "groundfault_requests_active": _each_server(lambda server: server.active, living=True),
    "groundfault_shedding": _each_server(lambda server: server.shedding, living=True),
    "groundfault_stepped_aside": _each_server(lambda server: server.stepped_aside, living=True),
    "groundfault_backlog": _each_server(lambda server: server.backlog),
    "groundfault_backlog_limit": _each_server(lambda server: server.backlog_limit),
    "groundfault_wait_signal": _signals,
    "groundfault_edge_calls_total": _edges,
    "groundfault_edge_requests_total": _callers(0),
    "groundfault_edge_time_in_queue_seconds_total": _callers(1),
    "groundfault_settings_version": _versions,
    "groundfault_settings_age_seconds": _ages,
    "groundfault_settings_unreachable": _unreachable,
    "groundfault_settings_rejected_total": _rejected,
    "groundfault_internal_errors_total": _errors,
    "groundfault_processes": _processes,
    "groundfault_report_age_seconds": _report_ages,
    "groundfault_reports_unread": _unread,
}
