"""What the processes hold: memory, handles, threads, sockets; and which of them are there. Linux's /proc."""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression

import psutil

_MB = 1_000_000


@dataclass(frozen=True)
class Look:
    """One process at one moment; ``t`` in seconds from the start of the run, memory in MB (10^6 bytes)."""

    t: float
    role: str
    pid: int
    rss_mb: float
    uss_mb: float
    handles: int
    threads: int
    sockets: int


def look_at(t: float, role: str, pid: int) -> Look | None:
    """Return what a process holds; None if it has gone."""
    try:
        process = psutil.Process(pid)
        memory = process.memory_full_info()
        links = []
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                links.append(str(handle.readlink()))
        sockets = sum(link.startswith("socket:") for link in links)
        return Look(t, role, pid, memory.rss / _MB, memory.uss / _MB, len(links), process.num_threads(), sockets)
    except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError, PermissionError, ProcessLookupError):
        return None


@dataclass
class Seen:
    """All that was looked at."""

    looks: list[Look] = field(default_factory=list)
    lives: dict[int, tuple[str, float, float]] = field(default_factory=dict)
    """By pid: role, first seen, last seen."""

    def see(self, t: float, chain, *, closely: bool) -> None:
        """Note who lives, and ``closely`` what each holds."""
        for role, pid in _all(chain):
            first = self.lives.get(pid, (role, t, t))[1]
            self.lives[pid] = role, first, t
            if closely and (look := look_at(t, role, pid)) is not None:
                self.looks.append(look)

    def gone(self, living: set[int]) -> dict[int, str]:
        """Return those that were seen and do not live any more, with their roles."""
        return {pid: role for pid, (role, _, _) in self.lives.items() if pid not in living}

    def most(self, role: str, what: str, start: float, end: float) -> float | None:
        """Return the most that a process of this role held in this span; None if nobody looked."""
        return max(
            (getattr(look, what) for look in self.looks if look.role == role and start <= look.t <= end), default=None
        )

    def slopes(self, start: float, end: float, *, warm_s: float, least_s: float) -> dict[str, float]:
        """Return by role the steepest growth of unshared memory in MB a minute, of those that lived long enough.

        A process's first ``warm_s`` seconds are left out; of the rest at least ``least_s`` must lie in the span.
        """
        steepest: dict[str, float] = {}
        for pid, (role, first, _) in self.lives.items():
            points = [
                (look.t, look.uss_mb) for look in self.looks if look.pid == pid and start <= look.t <= end
                and look.t >= first + warm_s
            ]  # fmt: skip
            if len(points) > 2 and points[-1][0] - points[0][0] >= least_s:
                slope = linear_regression(*zip(*points, strict=True)).slope * 60
                steepest[role] = max(steepest.get(role, float("-inf")), slope)
        return steepest


def _all(chain) -> list[tuple[str, int]]:
    found = list(chain.roots().items())
    for service in chain.servers:
        found += [(f"{service} worker", pid) for pid in chain.workers(service)]
    return found


def living(chain) -> set[int]:
    """Return the ids of all that live."""
    return {pid for _, pid in _all(chain) if psutil.pid_exists(pid)}
