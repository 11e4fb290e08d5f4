"""Starts the replay of a plan: Locust, as a program of its own, against a host that may be loaded."""

import os
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from groundfault.lab.generator import locustfile

__all__ = ["HostError", "checked_host", "replay"]

_PATIENCE_S: Final = 15.0
_INTERRUPTED: Final = 130


class HostError(ValueError):
    """This is no host that is loaded without being asked. The message says what to do."""


def checked_host(url: str, confirmed: str | None) -> str:
    """Return the URL if it may be loaded: on this machine, or confirmed by its name. Raises HostError."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise HostError(f"--host must be a URL as http://127.0.0.1:8000, not {url!r:.200} ({error})") from None
    if parts.scheme not in {"http", "https"} or not host:
        raise HostError(f"--host must be a URL as http://127.0.0.1:8000, not {url!r:.200}")
    if parts.username is not None or parts.query or parts.fragment:
        raise HostError("--host must be scheme, name and port, without a user, a query or a fragment")
    if not _is_here(host) and confirmed != host:
        raise HostError(
            f"{host} is not this machine; a replay is a real load. If it may be loaded, add --yes-this-host {host}"
        )
    return url


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def replay(plan: Path, host: str, options: dict[str, str | float], *, processes: int, gates: list[str]) -> int:
    """Replay a plan and return the exit code of the run: 0 passed, 1 failed, 2 it made no sense, 3 void.

    ``options``: those of ``locustfiles/replay.py``, by their names. ``processes`` send, together as much as one would.
    """
    arguments = [
        *(sys.executable, "-m", "locust", "--headless", "--only-summary", "--loglevel=WARNING"),
        f"--locustfile={locustfile('replay.py')}",
        f"--host={host}",
        f"--plan={plan}",
        f"--users={processes}",
        f"--spawn-rate={processes}",
        *(f"--{name}={value}" for name, value in options.items()),
        *(f"--gate={gate}" for gate in gates),
        *([f"--processes={processes}"] if processes > 1 else []),
    ]
    tether = [sys.executable, "-m", "groundfault.lab.tether", str(os.getpid())]
    with subprocess.Popen([*tether, *arguments]) as child:  # noqa: S603  our own program, no shell
        try:
            return child.wait()
        except KeyboardInterrupt:  # the terminal has told the child, too
            try:
                child.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                child.kill()
            return _INTERRUPTED
