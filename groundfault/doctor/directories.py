"""The directories that processes share: Prometheus' files of its multiprocess mode, and GroundFault's reports."""

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

from groundfault.doctor.finding import Finding, ok, problem, warning
from groundfault.doctor.processes import Process

__all__ = ["Directory", "judge_directory", "look_at_directories", "read_directory"]

RUN: Final = "GROUNDFAULT_RUN_DIR"
PROMETHEUS: Final = "PROMETHEUS_MULTIPROC_DIR"
OLD: Final = "prometheus_multiproc_dir"
_CHECKS: Final = {RUN: "run directory", PROMETHEUS: "prometheus", OLD: "prometheus"}
_DATABASE: Final = re.compile(r"(?P<kind>[a-z_]+?)_(?P<pid>\d+)\.db")
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_MOST_FILES: Final = 20_000
_MANY_FILES: Final = 100
_MANY_BYTES: Final = 50 << 20


@dataclass(frozen=True, slots=True)
class Directory:
    """What is known of a directory. ``mode``: None if it does not exist, 0 if it is something else.

    ``files``: of Prometheus' processes, as (kind, pid, bytes). ``system``: its file system's type, "" if unknown.
    ``mine``: it belongs to this user.
    """

    path: str
    mode: int | None
    writable: bool = False
    mine: bool = True
    system: str = ""
    files: tuple[tuple[str, int, int], ...] = ()


def look_at_directories(
    environ: Mapping[str, str], processes: Iterable[Process], read: Callable[[str], Directory] | None = None
) -> Iterator[Finding]:
    """Judge the directories that this environment and running processes name, each once. ``read`` looks at one."""
    read = read or read_directory
    named: dict[tuple[str, str], list[str]] = {}
    for name, check in _CHECKS.items():
        if name in environ:
            named.setdefault((name, environ[name]), []).append("this environment")
        for process in processes:
            if name in process.environ:
                value = process.environ[name]
                if not process.here:
                    yield ok(check, f"pid {process.pid}", f"{name}={value}, in a container: run the doctor in there")
                    continue
                path = value and str(Path(process.cwd) / value)
                named.setdefault((name, path), []).append(f"pid {process.pid}")
    for (name, path), users in named.items():
        more = f" and {len(users) - 1} more" if len(users) > 1 else ""
        for finding in judge_directory(name, read(path), lambda pid: Path(f"/proc/{pid}").exists()):
            yield replace(finding, where=f"{users[0]}{more}")


def read_directory(path: str) -> Directory:
    """Look at a directory; at most 20 000 of its files. Raises nothing."""
    if not path:
        return Directory("", None)
    try:
        found = os.stat(path)  # noqa: PTH116  the name is shown as it was given
    except (OSError, ValueError):
        return Directory(path, None)
    if not stat.S_ISDIR(found.st_mode):
        return Directory(path, 0)
    mine = not hasattr(os, "geteuid") or os.geteuid() in (0, found.st_uid)  # root asks on behalf of others
    return Directory(path, found.st_mode, os.access(path, os.W_OK | os.X_OK), mine, _system_of(path), _files(path))


def _files(path: str) -> tuple[tuple[str, int, int], ...]:
    files = []
    with suppress(OSError), os.scandir(path) as entries:
        for entry in islice(entries, _MOST_FILES):
            match = _DATABASE.fullmatch(entry.name)
            if match is not None:
                with suppress(OSError):
                    files.append((match["kind"], int(match["pid"]), entry.stat(follow_symlinks=False).st_size))
    return tuple(files)


def _system_of(path: str, mounts: Path = Path("/proc/self/mounts")) -> str:
    real, best, kind = os.path.realpath(path), "", ""
    with suppress(OSError, ValueError):
        for line in mounts.read_text().splitlines():
            _, place, system, *_ = line.split()
            if len(place) >= len(best) and (real + "/").startswith(place.rstrip("/") + "/"):
                best, kind = place, system
    return kind


def judge_directory(name: str, directory: Directory, lives: Callable[[int], bool]) -> Iterator[Finding]:
    """Judge the directory that the variable ``name`` names. ``lives``: whether a process exists."""
    check, path = _CHECKS[name], directory.path
    ours = name == RUN
    if name == OLD:
        why = "later versions of prometheus_client will not read it"
        yield warning(check, "", f"{OLD}={path}", why, f"name it {PROMETHEUS}")
    if directory.mode is None or not stat.S_ISDIR(directory.mode):
        what = (
            "is empty"
            if not path
            else f"{path} does not exist"
            if directory.mode is None
            else f"{path} is no directory"
        )
        if ours and path and directory.mode is None:
            why = "no process reports there yet; the first one makes it, if it may"
            yield warning(
                check, "", f"{name}: {what}", why, "start the service, or look whether its user may write there"
            )
            return
        why = "no process can report: no page, no scrape" if ours else "prometheus_client fails at the first metric"
        yield problem(check, "", f"{name}: {what}", why, "make it before the server starts, or unset the variable")
        return
    if not directory.writable:
        why = "no process of this user can report" if ours else "prometheus_client fails at the first metric"
        yield problem(check, "", f"{path} cannot be written to", why, "give it to the user that the server runs as")
    shared = directory.mode & stat.S_IWOTH
    if ours and (shared or not directory.mine):
        seen = f"{path} can be written to by everybody" if shared else f"{path} belongs to another user"
        why = "whoever writes there can say anything about this service, and take reports away"
        yield problem(check, "", seen, why, f"a directory of its own, chmod 700 {path}")
    system = directory.system
    if system and system not in _IN_MEMORY:
        why = "each process writes there all the time: a busy disk holds up requests"
        yield warning(
            check, "", f"{path} is on {system}", why, "a tmpfs: /dev/shm/NAME, or an emptyDir with medium Memory"
        )
    elif directory.writable:
        yield ok(check, "", f"{path} can be written to{', on ' + system if system else ''}")
    if not ours:
        yield from _dead(check, directory, lives)


def _dead(check: str, directory: Directory, lives: Callable[[int], bool]) -> Iterator[Finding]:
    alive = {pid: lives(pid) for _, pid, _ in directory.files}
    dead = [each for each in directory.files if not alive[each[1]]]
    pids, size = len({pid for _, pid, _ in dead}), sum(each for _, _, each in dead)
    gauges = sorted({kind for kind, _, _ in dead if kind.startswith("gauge_") and kind != "gauge_mostrecent"})
    path = directory.path
    if gauges:
        seen = f"{path}: {', '.join(gauges)} of processes that are gone ({pids})"
        why = "every scrape still reports their last values: circuits that are open nowhere any more"
        advice = "child_exit: multiprocess.mark_process_dead(pid), and gauges of the modes livesum, livemax"
        yield warning(check, "", seen, why, advice)
    if size > _MANY_BYTES or len(dead) > _MANY_FILES:
        seen = f"{path}: {_megabytes(size)} in files of processes that are gone ({len(dead)} of {pids})"
        why = "every scrape reads all of them, and each restarted worker adds its own"
        yield warning(check, "", seen, why, "empty it before each start of the server; max_requests makes it grow")
    elif not gauges:
        living = len(directory.files) - len(dead)
        yield ok(check, "", f"{living} files of living processes, {len(dead)} of others, {_megabytes(size)}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
