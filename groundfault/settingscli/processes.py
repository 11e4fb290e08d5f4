"""Which version of the settings each live process of this host runs, as the processes themselves report it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from groundfault.settingscli.moments import span
from groundfault.settingscli.terminal import Terminal
from groundfault.settingscli.values import printable

__all__ = ["Report", "Reports", "Running", "no_reports", "running_versions", "show_running", "unknown_services"]

Report = tuple[int, str, str, str | None, float | None]
"""Process id, service, the store's name, the version in force (None: none yet), seconds since it was last confirmed."""

Reports = Callable[[], Iterable[Report]]
"""Returns the reports of the live processes of this host."""


@dataclass(frozen=True, slots=True)
class Running:
    """What one process runs. ``age_s``: how long ago that was last known to be the store's; None: never."""

    pid: int
    service: str
    store: str
    version: str | None
    age_s: float | None


def no_reports() -> Iterable[Report]:
    """Return nothing: what is known where processes write no reports."""
    return ()


def running_versions(reports: Iterable[Report]) -> list[Running]:
    """Return what each process runs, by service and process id."""
    return sorted((Running(*each) for each in reports), key=lambda each: (each.service, each.pid, each.store))


def show_running(terminal: Terminal, running: list[Running], version: str) -> None:
    """Print what each process runs, and which of them has not got ``version`` yet."""
    if not running:
        terminal.say("no process reports")
        return
    rows = [
        (
            str(each.pid),
            printable(each.service),
            printable(each.store),
            printable(each.version or "-"),
            "-" if each.age_s is None else f"{span(each.age_s)} ago",
            "" if each.version == version else "not this version",
        )
        for each in running
    ]
    terminal.table(("PID", "SERVICE", "STORE", "VERSION", "CONFIRMED", ""), rows)


def unknown_services(scopes: Iterable[str], running: list[Running]) -> list[str]:
    """Return those scopes whose service no process of this host is; none if no process reports anything."""
    services = {each.service for each in running}
    wanted = dict.fromkeys(scopes)
    return [scope for scope in wanted if services and not _is_any(scope.partition("/")[0], services)]


def _is_any(pattern: str, services: set[str]) -> bool:
    return any(fnmatchcase(service, pattern) for service in services)
