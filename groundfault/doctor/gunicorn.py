"""What gunicorn's settings do to shedding: of a configuration file, of the environment, of what runs here."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from groundfault.doctor.child import ChildError, ask
from groundfault.doctor.finding import Finding, ok, problem, warning
from groundfault.doctor.processes import RunningServer

__all__ = ["Surroundings", "judge_gunicorn", "look_at_configuration", "look_at_running"]

LIMIT_S: Final = 15.0
_CHECK: Final = "gunicorn"
_PAGE: Final = "docs/reference/gunicorn.md"
_OURS: Final = "groundfault.integrations."
_KIT: Final = {
    "sync": f"-k {_OURS}gunicorn.SyncWorker",
    "gthread": f"-k {_OURS}gunicorn.ThreadWorker",
    "uvicorn_worker.UvicornWorker": f"-k {_OURS}uvicorn_worker.UvicornWorker",
    "uvicorn.workers.UvicornWorker": f"-k {_OURS}uvicorn_worker.UvicornWorker",
}
_GOOD: Final = {
    "gevent": "a wait for the hub is seen; what a greenlet waits for inside the application is not",
    "asgi": "the middleware finds its signal",
    **dict.fromkeys(
        (f"{_OURS}gunicorn.SyncWorker", f"{_OURS}gunicorn.ThreadWorker", f"{_OURS}uvicorn_worker.UvicornWorker"),
        "GroundFault's own",
    ),
}
_LEAST_BACKLOG: Final = 256
_LEAST_TIMEOUT_S: Final = 10
_LEAST_GRACE_S: Final = 2


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is around a server: the kernel's cap on accept queues, None if unknown, and its environment."""

    somaxconn: int | None
    environ: Mapping[str, str]


def look_at_configuration(path: str, somaxconn: int | None) -> Iterator[Finding]:
    """Load a configuration file with gunicorn's own loader, as a start in this directory would, and judge it."""
    if find_spec("gunicorn") is None:
        yield _not_installed(path, problem)
        return
    try:
        facts = _load(["-c", path], os.environ.get("GUNICORN_CMD_ARGS", ""), str(Path.cwd()), [os.path.realpath(path)])
    except ChildError as error:
        yield _unloadable(path, error, problem)
        return
    yield from judge_gunicorn(path, facts["settings"], Surroundings(somaxconn, os.environ))


def look_at_running(server: RunningServer, allowed: Iterable[str], somaxconn: int | None) -> Iterator[Finding]:
    """Judge a running gunicorn by its command line, its environment, and its file if that is one of ``allowed``."""
    if server.arguments is None:
        why = "setproctitle has replaced the command line that it was started with"
        yield warning(_CHECK, server.where, "its settings cannot be read", why, "--gunicorn-config FILE")
        return
    if find_spec("gunicorn") is None:
        yield _not_installed(server.where, warning)
        return
    process = server.process
    given = process.environ.get("GUNICORN_CMD_ARGS", "")
    try:
        cwd = process.cwd if process.here else "/"
        facts = _load(list(server.arguments), given, cwd, [os.path.realpath(each) for each in allowed])
    except ChildError as error:
        yield _unloadable(server.where, error, warning)
        return
    unread = facts["file"] if not facts["loaded"] else ""
    where = f"{server.where} {facts['app']}".rstrip()
    yield from judge_gunicorn(
        where, facts["settings"], Surroundings(somaxconn, process.environ), unread=unread, given=facts["given"]
    )


def _load(arguments: list[str], given: str, cwd: str, allowed: list[str]) -> dict[str, Any]:
    request = {"arguments": arguments, "given": given, "cwd": cwd, "allowed": allowed}
    facts: dict[str, Any] = ask("groundfault.doctor._gunicorn_settings", request, limit_s=LIMIT_S)
    return facts


def _not_installed(where: str, kind: Callable[..., Finding]) -> Finding:
    why = "gunicorn's own loader reads its settings, and it is not installed where the doctor runs"
    return kind(_CHECK, where, "not looked at", why, "run the doctor in the application's environment")


def _unloadable(where: str, error: ChildError, kind: Callable[..., Finding]) -> Finding:
    seen = "\n".join([f"gunicorn does not load this: {error.args[0]}", *(f"| {line}" for line in error.said)])
    return kind(_CHECK, where, seen, "nothing is known of its settings", "gunicorn --check-config says the same")


def judge_gunicorn(
    where: str,
    settings: Mapping[str, Any],
    around: Surroundings,
    *,
    unread: str = "",
    given: Iterable[str] = (),
) -> Iterator[Finding]:
    """Judge the settings of one gunicorn.

    ``unread``: a file of its own that they leave out; then only those ``given`` otherwise, which go before the file,
    are known and judged.
    """
    if unread:
        yield ok(
            _CHECK, where, f"its configuration file is not looked into unless asked for: --gunicorn-config {unread}"
        )
    known = set(given) if unread else set(settings)
    for needed, judge in _JUDGES:
        if needed <= known:
            yield from judge(where, settings, around)


def _worker(where: str, settings: Mapping[str, Any], _: Surroundings) -> Iterator[Finding]:
    yield _judged_worker(where, settings)


def _judged_worker(where: str, settings: Mapping[str, Any]) -> Finding:
    named, threads = settings["worker_class"], settings["threads"]
    kind = "gthread" if named == "sync" and threads > 1 else named
    if named.endswith("SyncWorker") and threads > 1:
        seen = f"{named} with {threads} threads: gunicorn runs its own gthread instead"
        return problem(_CHECK, where, seen, "nothing is refused before it is parsed", _KIT["gthread"])
    if kind in {"sync", "gthread"}:
        why = "what has waited too long is parsed before it is refused, at three to nine times the cost"
        if kind == "sync":
            why += "; from gunicorn 26 on a worker waits up to 2 s for each client to close"
        return warning(_CHECK, where, f"worker class {kind}, gunicorn's own", why, f"{_KIT[kind]}; {_PAGE}")
    if kind in _KIT:
        seen = f"worker class {kind}" + (", deprecated by uvicorn" if kind.startswith("uvicorn.") else "")
        why = "it works; a stop closes idle kept connections under the next request, and a unix socket has no signal"
        return warning(_CHECK, where, seen, why, _KIT[kind])
    if kind in _GOOD:
        return ok(_CHECK, where, f"worker class {kind}: {_GOOD[kind]}")
    why = "what it tells of a wait is not known here"
    return warning(_CHECK, where, f"worker class {kind}", why, "look at snapshot().signal of a process under load")


def _preload(where: str, settings: Mapping[str, Any], around: Surroundings) -> Iterator[Finding]:
    telemetry = sorted(name for name in around.environ if name.startswith("OTEL_") and "EXPORTER" in name)
    if not settings["preload_app"]:
        yield ok(_CHECK, where, "preload_app is off: each worker imports the application")
    elif telemetry:
        why = (
            "threads started before the fork do not live in the workers: a metric reader made at import exports nothing"
        )
        seen = f"preload_app is on, and so is OpenTelemetry ({telemetry[0]})"
        yield warning(_CHECK, where, seen, why, "set OpenTelemetry up in post_fork")
    else:
        seen = "preload_app is on: threads that libraries start at import do not live in the workers"
        yield ok(_CHECK, where, seen)


def _backlog(where: str, settings: Mapping[str, Any], around: Surroundings) -> Iterator[Finding]:
    asked, most = settings["backlog"], around.somaxconn
    real = asked if most is None else min(asked, most)
    if real < asked:
        why = "the kernel takes the lesser without a word; who finds the queue full tries again after 1 s, 3 s, 7 s"
        advice = f"sysctl net.core.somaxconn={asked}, or a backlog of {real} on purpose"
        yield warning(_CHECK, where, f"backlog {asked}, but net.core.somaxconn is {most}", why, advice)
    elif real < _LEAST_BACKLOG:
        why = "a full accept queue is a wait that no server sees: the client's SYN is thrown away, and tried after 1 s"
        yield warning(_CHECK, where, f"backlog {asked}", why, "2048, gunicorn's default: the shedder keeps it short")
    else:
        yield ok(_CHECK, where, f"backlog {asked}")


def _restarts(where: str, settings: Mapping[str, Any], _: Surroundings) -> Iterator[Finding]:
    most, jitter = settings["max_requests"], settings["max_requests_jitter"]
    if most and not jitter:
        why = "under an even load all workers restart at once, and the capacity goes with them"
        advice = f"max_requests_jitter = {max(most // 10, 1)}"
        yield warning(_CHECK, where, f"max_requests {most} without a jitter", why, advice)


def _hooks(where: str, settings: Mapping[str, Any], around: Surroundings) -> Iterator[Finding]:
    multiprocess = any(name in around.environ for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"))
    if multiprocess and settings["child_exit"] is False:
        why = "gauges of workers that are gone stay in every scrape"
        advice = "def child_exit(server, worker): multiprocess.mark_process_dead(worker.pid)"
        yield warning(_CHECK, where, "Prometheus' multiprocess mode without a child_exit hook", why, advice)


def _times(where: str, settings: Mapping[str, Any], _: Surroundings) -> Iterator[Finding]:
    timeout = settings["timeout"]
    if timeout == 0:
        why = "a worker that hangs is never replaced"
        yield warning(_CHECK, where, "timeout 0", why, "30 s, gunicorn's default")
    elif timeout < _LEAST_TIMEOUT_S:
        why = "a worker that gets no processor for so long in an overload is killed, with all that it serves"
        yield warning(
            _CHECK, where, f"timeout {timeout} s", why, "30 s, gunicorn's default; deadline_s bounds requests"
        )
    else:
        yield ok(_CHECK, where, f"timeout {timeout} s")


def _grace(where: str, settings: Mapping[str, Any], _: Surroundings) -> Iterator[Finding]:
    grace = settings["graceful_timeout"]
    if grace < _LEAST_GRACE_S:
        why = "at a stop nobody can be told `draining`: callers see resets, and circuits count them"
        yield warning(_CHECK, where, f"graceful_timeout {grace} s", why, "30 s, gunicorn's default")


def _addresses(where: str, settings: Mapping[str, Any], _: Surroundings) -> Iterator[Finding]:
    unix = [address for address in settings["bind"] if address.startswith("unix:")]
    if unix:
        why = "the kernel keeps no times for unix sockets: without X-Request-Start no wait is seen, and nothing is shed"
        advice = 'TCP on loopback, or in nginx: proxy_set_header X-Request-Start "t=${msec}"'
        yield warning(_CHECK, where, f"listens on {unix[0]}", why, advice)


def _ports(where: str, settings: Mapping[str, Any], _: Surroundings) -> Iterator[Finding]:
    if settings["reuse_port"]:
        why = "each worker has a queue of its own: one waits while another is idle, and a reload looks like a stop"
        yield warning(_CHECK, where, "reuse_port", why, "do without it")


_JUDGES: Final = (
    ({"worker_class"}, _worker),
    ({"preload_app"}, _preload),
    ({"backlog"}, _backlog),
    ({"max_requests", "max_requests_jitter"}, _restarts),
    ({"child_exit"}, _hooks),
    ({"timeout"}, _times),
    ({"graceful_timeout"}, _grace),
    ({"bind"}, _addresses),
    ({"reuse_port"}, _ports),
)
"""The settings that each of them needs to know."""
