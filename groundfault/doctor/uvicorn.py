"""What uvicorn's options do to shedding: of the environment and of what runs here. uvicorn need not be installed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from groundfault.doctor.finding import Finding, ok, problem, warning
from groundfault.doctor.gunicorn import Surroundings
from groundfault.doctor.processes import RunningServer

__all__ = ["judge_uvicorn", "look_at_environment", "look_at_running_uvicorn", "options_of"]

_CHECK: Final = "uvicorn"
_ENVIRONMENT: Final = "UVICORN_"
_FLAGS: Final = frozenset({"reload", "access-log", "use-colors", "proxy-headers", "server-header", "date-header"})
_MORE_FLAGS: Final = frozenset({"factory", "ws-per-message-deflate", "reset-contextvars", "version", "help", "http2"})
_GUARD: Final = 1000
"""From here on a limit of connections is a last guard of memory rather than what meets an overload first."""
_LEAST_BACKLOG: Final = 256
_LEAST_KEEP_ALIVE_S: Final = 5
_KIT: Final = "--http groundfault.integrations.uvicorn:AutoProtocol"


def options_of(arguments: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return options by their long names without dashes; the command line goes before the environment.

    A flag is "" or, as ``--no-...``, "no"; ``app`` is what is served.
    """
    found = {
        name.removeprefix(_ENVIRONMENT).lower().replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith(_ENVIRONMENT) and value
    }
    words = iter(arguments)
    for word in words:
        if not word.startswith("--"):
            found["app"] = word
            continue
        name, given, value = word[2:].partition("=")
        if given:
            found[name] = value
        elif name.removeprefix("no-") in _FLAGS | _MORE_FLAGS:
            found[name.removeprefix("no-")] = "no" if name.startswith("no-") else ""
        else:
            found[name] = next(words, "")
    return found


def look_at_environment(around: Surroundings) -> Iterator[Finding]:
    """Judge what the environment of the doctor would have a uvicorn started with; nothing if it says nothing."""
    if any(name.startswith(_ENVIRONMENT) for name in around.environ):
        yield from judge_uvicorn("this environment", options_of((), around.environ), around)


def look_at_running_uvicorn(server: RunningServer, somaxconn: int | None) -> Iterator[Finding]:
    """Judge a running uvicorn by its command line and its environment."""
    options = options_of(server.arguments or (), server.process.environ)
    where = f"{server.where} {options.get('app', '')}".rstrip()
    yield from judge_uvicorn(where, options, Surroundings(somaxconn, server.process.environ))


def judge_uvicorn(where: str, options: Mapping[str, str], around: Surroundings) -> Iterator[Finding]:
    """Judge the options of one uvicorn."""
    yield _limit(where, options)
    yield _backlog(where, options, around)
    yield from _connections(where, options)
    yield from _restarts(where, options)
    if options.get("http", "auto").startswith("groundfault.integrations.uvicorn"):
        yield ok(_CHECK, where, f"protocol {options['http']}")
    elif "uds" in options:
        why = "the kernel keeps no times for unix sockets: without X-Request-Start no wait is seen, and nothing is shed"
        yield warning(_CHECK, where, f"listens on {options['uds']}", why, f"{_KIT}, or X-Request-Start by the proxy")
    else:
        seen = f"protocol {options.get('http', 'auto')}, uvicorn's own: idle connections are cut off at a stop"
        yield ok(_CHECK, where, f"{seen} ({_KIT})")


def _number(options: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(options.get(name, default))
    except ValueError:  # uvicorn would not start with that
        return default


def _limit(where: str, options: Mapping[str, str]) -> Finding:
    limit = _number(options, "limit-concurrency", 0)
    if not limit:
        return ok(_CHECK, where, "no limit-concurrency")
    seen = f"limit-concurrency {limit}"
    why = "beyond it uvicorn answers a plain 503, which circuits count as a failure; idle connections count, too"
    if limit < _GUARD:
        return problem(_CHECK, where, seen, why, "leave it out: the shedder refuses by the wait, and says so")
    advice = "as a last guard of memory: above all connections that callers and proxies keep, or left out"
    return warning(_CHECK, where, seen, why, advice)


def _backlog(where: str, options: Mapping[str, str], around: Surroundings) -> Finding:
    asked, most = _number(options, "backlog", 2048), around.somaxconn
    if most is not None and most < asked:
        why = "the kernel takes the lesser without a word; who finds the queue full tries again after 1 s, 3 s, 7 s"
        advice = f"sysctl net.core.somaxconn={asked}, or --backlog {most} on purpose"
        return warning(_CHECK, where, f"backlog {asked}, but net.core.somaxconn is {most}", why, advice)
    if asked < _LEAST_BACKLOG:
        why = "a full accept queue is a wait that no server sees: the client's SYN is thrown away, and tried after 1 s"
        return warning(_CHECK, where, f"backlog {asked}", why, "2048, uvicorn's default: the shedder keeps it short")
    return ok(_CHECK, where, f"backlog {asked}")


def _connections(where: str, options: Mapping[str, str]) -> Iterator[Finding]:
    kept = _number(options, "timeout-keep-alive", 5)
    if kept < _LEAST_KEEP_ALIVE_S:
        why = "a request that comes as its connection is closed is lost, and circuits count it"
        advice = "longer than callers and proxies keep idle connections; 5 s is uvicorn's default, nginx keeps 60 s"
        yield warning(_CHECK, where, f"timeout-keep-alive {kept} s", why, advice)
    else:
        yield ok(
            _CHECK, where, f"timeout-keep-alive {kept} s; callers and proxies must give idle connections up sooner"
        )
    if "timeout-graceful-shutdown" in options and _number(options, "timeout-graceful-shutdown", 1) == 0:
        why = "at a stop nobody can be told `draining`: callers see resets, and circuits count them"
        yield warning(_CHECK, where, "timeout-graceful-shutdown 0", why, "some seconds")


def _restarts(where: str, options: Mapping[str, str]) -> Iterator[Finding]:
    most = _number(options, "limit-max-requests", 0)
    if most and not _number(options, "limit-max-requests-jitter", 0):
        why = "under an even load all processes restart at once, and the capacity goes with them"
        advice = f"--limit-max-requests-jitter {max(most // 10, 1)}"
        yield warning(_CHECK, where, f"limit-max-requests {most} without a jitter", why, advice)
