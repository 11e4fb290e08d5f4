"""GroundFault's own variables, here and in running processes."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from groundfault import _killswitch
from groundfault.doctor.finding import Finding, problem, warning
from groundfault.doctor.processes import Process
from groundfault.wire import NAME_GRAMMAR, valid_name

__all__ = ["judge_environment", "look_at_environments"]

_CHECK: Final = "environment"


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
    disabled = environ.get(_killswitch.NAME, "").strip().lower()
    seen = f"{_killswitch.NAME}={disabled[:40]!a}"
    if _killswitch.is_nonsense(disabled):
        yield warning(_CHECK, where, seen, "it switches nothing off", "1, or unset it")
    elif _killswitch.is_killed({_killswitch.NAME: disabled}):
        why = "shedding and circuits are off"
        yield warning(_CHECK, where, seen, why, "unset it and restart when the incident is over")
    service = environ.get("GROUNDFAULT_SERVICE")
    if service and not valid_name(service):
        seen = f"GROUNDFAULT_SERVICE={service[:60]!a}"
        why = "it is no name: the shedder raises SettingsError when it is made"
        yield problem(_CHECK, where, seen, why, f"a name that matches {NAME_GRAMMAR}")
