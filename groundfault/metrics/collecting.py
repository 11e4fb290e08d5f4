"""Pulls the report of this process from its commands, its shedders and its live settings."""

import os
from collections.abc import Iterable
from typing import Final

from groundfault.breaker.registry import Registry, all_registries
from groundfault.events import internal_errors
from groundfault.metrics.report import CommandReport, ProcessInfo, Report, ServerReport, StoreReport
from groundfault.settings.live import Status, live_settings
from groundfault.shedding.shedder import live_shedders

__all__ = ["DECLARED", "collect", "collect_servers", "own_errors", "service_of"]


DECLARED: Final = "declared"
"""The version of the settings of a process that runs what code declares and nothing else."""


def collect(now: float, registries: Iterable[Registry] | None = None) -> Report:
    """Return what this process has counted. ``now``: seconds since the epoch.

    ``registries``: None, the default, for all of the process's.
    """
    report = collect_servers(now)
    for registry in all_registries() if registries is None else registries:
        for command in registry:
            counts = command.counts()[1]
            if counts is not None:
                report.add_command(CommandReport.of(counts))
    report.draw_edges(report.processes[0].service)
    return report


def collect_servers(now: float) -> Report:
    """Return everything but the commands."""
    statuses = [each.status() for each in live_settings()]
    report = Report(stores=_stores(statuses), internal_errors=own_errors())
    for shedder in live_shedders():
        server = ServerReport.of(shedder.snapshot())
        if server.service in report.servers:
            report.servers[server.service].add(server)
        else:
            report.servers[server.service] = server
    settings = tuple((each.store, each.version, each.age_s) for each in statuses)
    report.processes.append(ProcessInfo(os.getpid(), service_of(report), now, settings))
    return report


def _stores(statuses: Iterable[Status]) -> dict[str, StoreReport]:
    """Return the stores of live settings that this process follows, by name."""
    stores: dict[str, StoreReport] = {}
    for each in statuses:
        mine = StoreReport(
            each.store, {each.version or DECLARED: 1}, each.age_s, int(each.reachable is False), each.rejected
        )
        stores.setdefault(each.store, StoreReport(each.store)).add(mine)
    return stores


_inherited_errors: dict[str, int] = {}


def _note_inherited_errors() -> None:
    global _inherited_errors  # noqa: PLW0603  of the process, as what it corrects
    _inherited_errors = internal_errors()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_inherited_errors)


def own_errors() -> dict[str, int]:
    """Return the internal errors of this process by place, without those that its parent had before it forked."""
    own = {where: times - _inherited_errors.get(where, 0) for where, times in internal_errors().items()}
    return {where: times for where, times in own.items() if times > 0}


def service_of(report: Report) -> str | None:
    """Return what the process calls itself: the name in its environment, else that of its only shedder."""
    named = os.environ.get("GROUNDFAULT_SERVICE")
    return named or (next(iter(report.servers)) if len(report.servers) == 1 else None)
