"""All checks, one after another: what each needs is read here, and what it means is the checks' own."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from groundfault.doctor import answers, clients, clock, directories, environment, gunicorn, uvicorn
from groundfault.doctor.envoy import look_at_envoy
from groundfault.doctor.finding import Finding, guarded, ok
from groundfault.doctor.haproxy import look_at_haproxy
from groundfault.doctor.machine import Machine
from groundfault.doctor.nginx_rules import look_at_nginx
from groundfault.doctor.processes import Process, RunningServer, read_processes, servers_among

__all__ = ["Asked", "make_checks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line names. ``modules``: to be imported, ``module`` or ``module:app``.

    ``processes``: whether running ones are looked at. ``import_limit_s``: how long all imports may take.
    """

    modules: tuple[str, ...] = ()
    gunicorn: tuple[str, ...] = ()
    nginx: tuple[str, ...] = ()
    envoy: tuple[str, ...] = ()
    haproxy: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    processes: bool = True
    import_limit_s: float = clients.LIMIT_S


def make_checks(asked: Asked, machine: Machine) -> list[Finding]:
    """Return what all checks find; none of them raises."""
    found = guarded("clock", "", clock.look_at_clock)
    processes = _processes() if asked.processes else []
    found += guarded("environment", "", partial(environment.look_at_environments, os.environ, processes))
    found += guarded("prometheus", "", partial(directories.look_at_directories, os.environ, processes))
    found += _servers(asked, processes, machine.somaxconn)
    by_file: tuple[tuple[str, tuple[str, ...], Callable[[str], Iterable[Finding]]], ...] = (
        ("nginx", asked.nginx, look_at_nginx),
        ("envoy", asked.envoy, look_at_envoy),
        ("haproxy", asked.haproxy, look_at_haproxy),
        ("url", asked.urls, answers.look_at_url),
    )
    for check, names, look in by_file:
        for name in names:
            found += guarded(check, name, partial(look, name))
    if asked.modules:
        look = partial(clients.look_at_modules, asked.modules, limit_s=asked.import_limit_s)
        found += guarded("import", ", ".join(asked.modules), look)
    return found


def _processes() -> list[Process]:
    return [each for each in read_processes() if each.pid != os.getpid()]


def _servers(asked: Asked, processes: Iterable[Process], somaxconn: int | None) -> list[Finding]:
    running = servers_among(processes)
    found: list[Finding] = []
    for server in running:
        found += guarded(server.kind, server.where, partial(_running, server, asked.gunicorn, somaxconn))
    said = {each.seen for each in found if each.check == "gunicorn"}
    for path in asked.gunicorn:
        of_file = guarded("gunicorn", path, partial(gunicorn.look_at_configuration, path, somaxconn))
        new = [each for each in of_file if each.seen not in said]
        found += new or [ok("gunicorn", path, "says nothing that a running server does not show")]
    around = gunicorn.Surroundings(somaxconn, os.environ)
    found += guarded("uvicorn", "", partial(uvicorn.look_at_environment, around))
    if asked.processes and not running:
        found.append(ok("processes", "", "no gunicorn and no uvicorn of this user runs here"))
    return found


def _running(server: RunningServer, configurations: Iterable[str], somaxconn: int | None) -> Iterable[Finding]:
    if server.kind == "gunicorn":
        return gunicorn.look_at_running(server, configurations, somaxconn)
    return uvicorn.look_at_running_uvicorn(server, somaxconn)
