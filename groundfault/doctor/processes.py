"""The servers that run here: what they were started with, as /proc tells it to whoever they belong to."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["Process", "RunningServer", "read_processes", "servers_among"]

_PROC: Final = Path("/proc")
_SERVERS: Final = ("gunicorn", "uvicorn")
_INTERPRETERS: Final = ("python", "pypy")
_FURTHEST: Final = 8
"""Where in a command line the server's name is looked for: behind the interpreter and its options."""
_KEPT: Final = ("GROUNDFAULT_", "GUNICORN_", "UVICORN_", "WEB_CONCURRENCY", "OTEL_")
_DIRECTORIES: Final = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
_LONGEST: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Process:
    """A process of Python's. ``environ`` holds what matters here and nothing else: the rest may be secret.

    ``here``: it sees the same file systems as this process does; a container's does not.
    """

    pid: int
    parent: int
    words: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    here: bool = True


@dataclass(frozen=True, slots=True)
class RunningServer:
    """The first process of a server, the one that its workers come from. ``arguments``: None if they are hidden."""

    kind: str
    process: Process
    arguments: tuple[str, ...] | None

    @property
    def where(self) -> str:
        """How a finding names it."""
        return f"pid {self.process.pid}"


def read_processes(proc: Path = _PROC) -> list[Process]:
    """Return the processes of Python's that belong to this user; all of them if this is root. Raises nothing."""
    user = os.geteuid() if hasattr(os, "geteuid") else -1
    mounts = _link(proc / "self" / "ns" / "mnt")
    found = []
    for place in sorted(proc.glob("[0-9]*"), key=lambda place: int(place.name)):
        with suppress(OSError, ValueError, IndexError):  # it has ended meanwhile
            if user not in (0, place.stat().st_uid):
                continue
            words = tuple(_strings(place / "cmdline"))
            if not _is_python(words):
                continue
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            here = _link(place / "ns" / "mnt") == mounts
            found.append(
                Process(int(place.name), parent, words, _environment(place), _link(place / "cwd") or "/", here)
            )
    return found


def _link(place: Path) -> str:
    try:
        return str(place.readlink())
    except OSError:
        return ""


def _strings(place: Path) -> Iterator[str]:
    with place.open("rb") as file:
        content = file.read(_LONGEST)
    for word in content.rstrip(b"\0").split(b"\0"):
        yield word.decode("utf-8", "replace")


def _environment(place: Path) -> dict[str, str]:
    try:
        pairs = [word.partition("=") for word in _strings(place / "environ")]
    except OSError:  # another user's, or one that may not be looked into
        return {}
    return {name: value for name, _, value in pairs if name.startswith(_KEPT) or name in _DIRECTORIES}


def _is_python(words: tuple[str, ...]) -> bool:
    first = os.path.basename(words[0])  # noqa: PTH119  not a path of this system's necessarily
    return first.startswith((*_INTERPRETERS, *_SERVERS))


def servers_among(processes: Iterable[Process]) -> list[RunningServer]:
    """Return the servers, one for each that was started: workers have their parent's command line."""
    found = {each.pid: server for each in processes if (server := _server(each)) is not None}
    return [
        server
        for server in found.values()
        if (above := found.get(server.process.parent)) is None or above.kind != server.kind
    ]


def _server(process: Process) -> RunningServer | None:
    words = process.words
    if words[0].startswith(("gunicorn: ", "gunicorn [")):  # the name that setproctitle gives it
        return RunningServer("gunicorn", process, None)
    for number, word in enumerate(words[:_FURTHEST]):
        if word == "-c":
            return None
        name = os.path.basename(word)  # noqa: PTH119  as above
        module = number > 0 and words[number - 1] == "-m"
        if name in _SERVERS and (module or number == 0 or "/" in word or number == 1):
            return RunningServer(name, process, words[number + 1 :])
    return None
