"""Starts the chain with the proxies between its services, and ends all of it again."""

import json
import os
from contextlib import suppress
from pathlib import Path
from time import sleep  # real processes, real time
from typing import Self

import psutil

from chaotic.services import VARIABLE
from groundfault._clock import monotonic
from groundfault.lab.faults.control import Remote
from groundfault.lab.processes import DemoError, Process, new_token, start, start_server, stop

WORKERS = 2
_HERE = Path(__file__).resolve().parent.parent
_ROOT = _HERE.parent
_READY_S = 20.0
_KIT = "groundfault.integrations.gunicorn.ThreadWorker"


def paths() -> dict[str, str]:
    """Return the environment in which these modules are found."""
    known = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(_HERE), str(_ROOT), *([known] if known else [])])}


class Chain:
    """All processes of a soak. Leaving it ends them, whatever happened."""

    def __init__(self, directory: Path, settings: Path, plant: str) -> None:
        self._directory = directory
        self._settings = settings
        self._plant = plant
        self._processes: list[Process] = []
        self.servers: dict[str, Process] = {}
        self.port = 0
        self.proxy: Remote

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(AttributeError):
            self.proxy.close()
        stop(self._processes)

    def _start(self) -> None:
        proxy = self.start("proxy", ["groundfault.lab.faults"])
        self.proxy = Remote(_control_port(proxy))
        port = self._serve("saber", "", lambda port: _gunicorn("saber", port, 5, "gthread"))
        port = self.proxy.route("saber", ("127.0.0.1", port))
        port = self._serve("grouper", _url(port), lambda port: _gunicorn("grouper", port, 16, _KIT))
        port = self.proxy.route("grouper", ("127.0.0.1", port))
        self.port = self._serve("topps", _url(port), _uvicorn)

    def _serve(self, service: str, callee: str, command) -> int:
        said = {"service": service, "callee": callee, "token": new_token(), "plant": self._plant}
        run_dir = self.run_dir(service)
        run_dir.mkdir(mode=0o700, parents=True)
        environment = {
            VARIABLE: json.dumps(said),
            "GROUNDFAULT_RUN_DIR": str(run_dir),
            "GROUNDFAULT_SETTINGS": f"file:{self._settings}",
            "GROUNDFAULT_SERVICE": service,
            **paths(),
        }
        process, url = start_server(service, command, environment, directory=self._directory, token=said["token"])
        self._processes.append(process)
        self.servers[service] = process
        return int(url.rsplit(":", 1)[1])

    def start(self, name: str, command: list[str]) -> Process:
        """Start one more process, which ends with the rest."""
        process = start(name, command, directory=self._directory, environment=paths())
        self._processes.append(process)
        return process

    def run_dir(self, service: str) -> Path:
        """Return where a service's processes report to."""
        return self._directory / "run" / service

    def workers(self, service: str) -> list[int]:
        """Return the living workers: children of the server that was started here."""
        try:
            children = psutil.Process(self.servers[service].pid).children()
            return [child.pid for child in children if _is_worker(child)]
        except psutil.NoSuchProcess:
            return []

    def roots(self) -> dict[str, int]:
        """Return the processes that were started here and are to live until the end, by name."""
        return {"proxy": self._processes[0].pid, **{name: process.pid for name, process in self.servers.items()}}

    def logs(self) -> dict[str, str]:
        """Return what all have said."""
        return {process.name: process.log.read_text(errors="replace") for process in self._processes}


def _is_worker(child: psutil.Process) -> bool:
    try:
        return child.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in " ".join(child.cmdline())
    except psutil.NoSuchProcess:
        return False


def _control_port(proxy: Process) -> int:
    give_up = monotonic() + _READY_S
    while monotonic() < give_up and proxy.ended() is None:
        said = proxy.log.read_text(errors="replace")
        if said.endswith("\n"):
            return int(json.loads(said)["control"])
        sleep(0.05)
    raise DemoError(f"the proxy did not start: {proxy.last_words() or 'it said nothing'}")


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _uvicorn(port: int) -> list[str]:
    return [
        "uvicorn", "chaotic.services:topps", "--factory", "--port", str(port), "--workers", str(WORKERS),
        "--no-access-log", "--log-level", "warning",
        "--timeout-graceful-shutdown", "5", "--timeout-worker-healthcheck", "30",
    ]  # fmt: skip


def _gunicorn(service: str, port: int, threads: int, worker_class: str) -> list[str]:
    return [
        "gunicorn", f"chaotic.services:{service}()", "--bind", f"127.0.0.1:{port}",
        "--workers", str(WORKERS), "--threads", str(threads), "--worker-class", worker_class,
        "--graceful-timeout", "5", "--log-level", "warning", "--no-control-socket",
    ]  # fmt: skip
