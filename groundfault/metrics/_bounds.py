"""How much is kept of the dead: a directory may outlive many deployments, each with names of its own."""

from typing import Final

from groundfault.breaker.registry import OTHER
from groundfault.metrics.report import Report, ServerReport

__all__ = ["MAX_CALLERS", "MAX_COMMANDS", "bounded"]

MAX_COMMANDS: Final = 2000
MAX_CALLERS: Final = 257
MAX_OTHERS: Final = 64  # services, stores
MAX_PLACES: Final = 200  # of internal errors

_OTHER: Final = "other"  # as shedders call callers beyond the first 256


def bounded(report: Report) -> Report:
    """Return the report of the dead with no more names than it may have; what is beyond is counted together."""
    _bound_commands(report)
    _bound_servers(report)
    for name in list(report.stores)[MAX_OTHERS:]:
        del report.stores[name]
    errors = report.internal_errors
    for where in set(list(errors)[MAX_PLACES:]) - {_OTHER}:
        errors[_OTHER] = errors.get(_OTHER, 0) + errors.pop(where)
    return report


def _bound_commands(report: Report) -> None:
    for key in list(report.commands)[MAX_COMMANDS:]:
        if key == (OTHER, OTHER):
            continue
        command = report.commands.pop(key)
        command.resource = command.command = OTHER
        report.add_command(command)
    for edge in list(report.edges)[4 * MAX_COMMANDS :]:
        caller, resource, outcome = edge
        if resource != OTHER:
            beyond = caller, OTHER, outcome
            report.edges[beyond] = report.edges.get(beyond, 0) + report.edges.pop(edge)


def _bound_servers(report: Report) -> None:
    for name in list(report.servers)[MAX_OTHERS:]:
        if name != OTHER:
            report.servers.setdefault(OTHER, ServerReport(OTHER)).add(report.servers.pop(name))
    for server in report.servers.values():
        names = dict.fromkeys(caller for caller, _ in server.callers)
        beyond = set(list(names)[MAX_CALLERS:]) - {_OTHER}
        for edge in [edge for edge in server.callers if edge[0] in beyond]:
            other = _OTHER, edge[1]
            mine, theirs = server.callers.get(other, (0, 0.0)), server.callers.pop(edge)
            server.callers[other] = mine[0] + theirs[0], mine[1] + theirs[1]
