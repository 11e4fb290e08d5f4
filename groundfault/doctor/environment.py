"""GroundFault's own variables, here and in running processes."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from groundfault.doctor.finding import Finding, problem, warning
from groundfault.doctor.processes import Process
from groundfault.wire import NAME_GRAMMAR, valid_name

__all__ = ["judge_environment", "look_at_environments"]

_CHECK: Final = "environment"
_ON: Final = frozenset({"1", "true", "yes", "on"})
_OFF: Final = frozenset({"", "0", "false", "no", "off"})


def look_at_environments(environ: Mapping[str, str], processes: Iterable[Process]) -> Iterator[Finding]:
    """Judge this environment and those of running processes; what several say alike is said once."""
    said: dict[Finding, list[int]] = {}
    for process in processes:
        for finding in judge_environment("", process.environ):
            said.setdefault(finding, []).append(process.pid)
    yield from judge_environment("this environment", environ)
    for finding, pids in said.items():
        more = f" and {len(pids) - 1} more" if len(pids) > 1 else ""
        yield replace(finding, where=f"pid {pids[0]}{more}")


def judge_environment(where: str, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Judge one environment."""
    disabled = environ.get("GROUNDFAULT_DISABLED", "").strip().lower()
    if disabled == "1" or disabled in _ON:
        seen = f"GROUNDFAULT_DISABLED={disabled}"
        which = "shedding and circuits are off" if disabled == "1" else "shedding is off, circuits are not: they want 1"
        yield warning(_CHECK, where, seen, which, "unset it and restart when the incident is over")
    elif disabled not in _OFF:
        seen = f"GROUNDFAULT_DISABLED={disabled[:40]!a}"
        yield warning(_CHECK, where, seen, "it switches nothing off", "1, or unset it")
    service = environ.get("GROUNDFAULT_SERVICE")
    if service and not valid_name(service):
        seen = f"GROUNDFAULT_SERVICE={service[:60]!a}"
        why = "it is no name: the shedder raises SettingsError when it is made"
        yield problem(_CHECK, where, seen, why, f"a name that matches {NAME_GRAMMAR}")
