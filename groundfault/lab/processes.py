"""Server processes of the demo: started on free ports, awaited, and stopped with everything they started.

Each runs in a process group of its own, and only groups started here are ever signaled.
Should this process die without a chance to clean up, the kernel ends them (groundfault/lab/tether.py).
"""

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import sleep

from groundfault._clock import monotonic

__all__ = ["DemoError", "Process", "await_health", "free_port", "start", "start_server", "stop"]

READY_TIMEOUT_S = 20.0
"""A server that has not answered its health check by then is given up."""

TERM_S = 3.0
"""How long a group may take to end after SIGTERM before it is killed."""

PORT_ATTEMPTS = 5
"""A free port can be taken by someone else before the server binds it; then another one is tried."""

_FOREIGN_SETTINGS = ("GROUNDFAULT_", "GUNICORN_", "UVICORN_", "LOCUST_", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS")
_PORT_TAKEN = ("address already in use", "connection in use")


class DemoError(Exception):
    """Something outside this program keeps the demo from running. The message is one line: what, and what to do."""


class Process:
    """One program started here, with its group and its log."""

    def __init__(self, name: str, popen: "subprocess.Popen[bytes]", log: Path) -> None:
        self.name = name
        self.log = log
        self.popen = popen
        self.gone = False

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its group."""
        return self.popen.pid

    def ended(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self.popen.poll()

    def last_words(self) -> str:
        """Return the line of its log that says best why it ended: the last error, or the last line, or nothing."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if "Error" in line or "error" in line.split(":")[0]]
        return (errors or lines or [""])[-1][:200]


def free_port() -> int:
    """Return a port on 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(
    name: str, command: Sequence[str], *, directory: Path, environment: Mapping[str, str] | None = None
) -> Process:
    """Start ``python -m command...`` in ``directory``, its output going to ``<name>.log`` there.

    Settings for these programs that happen to be in the environment of this one are kept from it:
    the demo measures what is written here, not what a shell was set up for.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN_SETTINGS)}
    log = directory / f"{name}.log"
    tether = [sys.executable, "-m", "groundfault.lab.tether", str(os.getpid())]
    with log.open("ab") as output:
        popen = subprocess.Popen(  # noqa: S603  a fixed program with arguments made here, no shell
            [*tether, sys.executable, "-m", *command],
            cwd=directory,
            env={**kept, **(environment or {}), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Process(name, popen, log)


def start_server(
    name: str,
    command: Callable[[int], Sequence[str]],
    environment: Mapping[str, str],
    *,
    directory: Path,
    token: str,
    pick_port: Callable[[], int] = free_port,
) -> tuple[Process, str]:
    """Start a server, wait until it answers, and return it with its base URL.

    ``command`` is given the port. ``token`` is what the health check must show.
    Raises :class:`DemoError` if it ends or stays silent, on another port if the first was taken meanwhile.
    """
    for attempt in range(1, PORT_ATTEMPTS + 1):
        port = pick_port()
        process = start(name, command(port), directory=directory, environment=environment)
        try:
            await_health(process, port, token)
        except PortTakenError:
            stop([process])
            process.log.unlink()
            if attempt == PORT_ATTEMPTS:
                raise DemoError(
                    f"{name} found {PORT_ATTEMPTS} ports taken that were free a moment before; run the demo again"
                ) from None
        except BaseException:
            stop([process])
            raise
        else:
            return process, f"http://127.0.0.1:{port}"
    raise AssertionError("unreachable")  # the last attempt returns or raises


class PortTakenError(Exception):
    """Somebody else listens on the port."""


def await_health(process: Process, port: int, token: str) -> None:
    """Wait until the server on ``port`` answers ``/healthz`` with ``token``.

    Raises :class:`PortTakenError` if the port is another's, :class:`DemoError` if the server ends or stays silent.
    """
    give_up = monotonic() + READY_TIMEOUT_S
    while monotonic() < give_up:
        code = process.ended()
        # gunicorn tries a taken port again for some seconds; there is no point in waiting for that.
        log = process.log.read_text(errors="replace").lower()
        if any(phrase in log for phrase in _PORT_TAKEN):
            raise PortTakenError
        if code is not None:
            words = process.last_words() or "it said nothing"
            raise DemoError(f"{process.name} ended while starting (exit code {code}): {words}; full log: {process.log}")
        if _token_at(port) == token:
            return
        sleep(0.05)
    raise DemoError(
        f"{process.name} did not answer within {READY_TIMEOUT_S:g} s; is the machine busy? its log: {process.log}"
    )


def _token_at(port: int) -> str | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1.0)
    try:
        connection.request("GET", "/healthz", headers={"Connection": "close"})
        answer = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return str(answer.get("token")) if isinstance(answer, dict) else None


def new_token() -> str:
    """Return a token no other process knows."""
    return secrets.token_hex(8)


def stop(processes: Sequence[Process], *, term_s: float = TERM_S) -> None:
    """End the groups of these processes, gently first, and wait until nothing of them is left.

    ``term_s``: how long they may take to end by themselves before they are killed, 3.0 by default.
    """
    living = [process for process in processes if not process.gone]  # never a number that may be another's by now
    for process in living:
        _signal_group(process, signal.SIGTERM)
    give_up = monotonic() + term_s
    while monotonic() < give_up and any(_group_lives(process) for process in living):
        sleep(0.02)
    for process in living:
        if _group_lives(process):
            _signal_group(process, signal.SIGKILL)
        process.popen.wait()
        process.gone = True


def _signal_group(process: Process, number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):  # gone; the second is how macOS says so of a zombie
        return


def _group_lives(process: Process) -> bool:
    process.popen.poll()  # a dead leader is collected, or its group would seem to live
    try:
        os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
