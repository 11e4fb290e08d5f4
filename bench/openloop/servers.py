"""Starts what is under test, as it would be run, on a CPU of its own, and stops it again."""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep  # noqa: TID251  real processes, real time

from openloop.workloads import Server

_BENCH = Path(__file__).resolve().parent.parent
_BIN = Path(sys.executable).parent
_READY_S = 15.0


@dataclass(frozen=True)
class Variant:
    """One way of protecting a server. ``limit`` and ``queue_s`` are what a peer is tuned by."""

    name: str
    shield: str = "none"
    front: str = ""
    own_worker: bool = False
    limit: int = 0
    queue_s: float = 0.0

    @property
    def label(self) -> str:
        tuned = [f"{self.limit}"] if self.limit else []
        tuned += [f"{self.queue_s * 1e3:.0f} ms"] if self.queue_s else []
        return f"{self.name} ({', '.join(tuned)})" if tuned else self.name


def variants(server: Server, envoy: str | None, *, quick: bool = False) -> dict[str, list[Variant]]:
    """Return, by name, the variants there are for this server; those with several values are to be tuned.

    ``quick``: fewer values, those that were best before, and the peers that were.
    """
    places = server.places
    found = {
        "none": [Variant("none")],
        "groundfault": [Variant("groundfault", "groundfault")],
    }
    if not server.on_loop and importlib.util.find_spec("groundfault.integrations.gunicorn"):
        found["groundfault worker"] = [Variant("groundfault worker", "groundfault", own_worker=True)]
    if server.on_loop:
        limits = sorted({places + 1, 2 * places + 1, 4 * places + 1})
        found["limit-concurrency"] = [Variant("limit-concurrency", limit=each) for each in limits]
        if quick:
            found["limit-concurrency"] = found["limit-concurrency"][1:]
        elif importlib.util.find_spec("aioresilience"):
            found["aioresilience"] = [Variant("aioresilience", "aioresilience", limit=each) for each in limits]
    if shutil.which("haproxy"):
        found["haproxy"] = [
            Variant("haproxy", front="haproxy", limit=limit, queue_s=queue)
            for limit in ((places,) if quick else (places, 2 * places))
            for queue in ((0.1,) if quick else (0.1, 0.4))
        ]
    if envoy:
        found["envoy"] = [Variant("envoy", front="envoy")]
    return found


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _command(server: Server, variant: Variant, port: int) -> list[str]:
    if server.stack.startswith("bare"):
        return [sys.executable, str(_BENCH / "openloop" / "bare.py"), server.stack, str(port)]
    if server.on_loop:
        http = "h11" if server.stack == "asyncio" else "httptools"
        command = [f"{_BIN}/uvicorn", "openloop.apps:asgi", "--app-dir", str(_BENCH), "--port", str(port)]
        command += ["--loop", server.stack, "--http", http, "--no-access-log", "--log-level", "critical"]
        return command + (["--limit-concurrency", str(variant.limit)] if variant.name == "limit-concurrency" else [])
    threads = server.stack == "gthread"
    worker = server.stack
    if variant.own_worker:
        worker = "groundfault.integrations.gunicorn." + ("ThreadWorker" if threads else "SyncWorker")
    command = [f"{_BIN}/gunicorn", "openloop.apps:wsgi", "--chdir", str(_BENCH), "-k", worker]
    command += ["-b", f"127.0.0.1:{port}", "--backlog", "2048", "--log-level", "critical", "--keep-alive", "5"]
    command += ["-w", "1", "--threads", str(server.places)] if threads else ["-w", str(server.places)]
    return [*command, "--no-control-socket"]


_HAPROXY = """
global
    maxconn 8000
defaults
    mode http
    timeout connect 1s
    timeout client 10s
    timeout server 10s
    timeout queue {queue_ms}ms
frontend in
    bind 127.0.0.1:{port}
    default_backend out
backend out
    option httpclose
    server one 127.0.0.1:{behind} maxconn {limit}
"""

_ENVOY = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: "/"}}, route: {{cluster: out, timeout: 10s}}}}]
          http_filters:
          - name: envoy.filters.http.adaptive_concurrency
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency
              gradient_controller_config:
                sample_aggregate_percentile: {{value: 90}}
                concurrency_limit_params: {{concurrency_update_interval: 0.1s}}
                min_rtt_calc_params: {{jitter: {{value: 10}}, interval: 60s, request_count: 50}}
              enabled: {{default_value: true, runtime_key: adaptive_concurrency.enabled}}
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: out
    connect_timeout: 1s
    circuit_breakers:
      thresholds: [{{max_connections: 20000, max_pending_requests: 20000, max_requests: 20000}}]
    load_assignment:
      cluster_name: out
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {behind}}}}}}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        common_http_protocol_options: {{max_requests_per_connection: 1}}
        explicit_http_config: {{http_protocol_options: {{}}}}
"""


class Running:
    """A started server: where it listens, how much CPU it has used, and a way to stop it for a moment."""

    def __init__(self, port: int, processes: list[subprocess.Popen[bytes]]) -> None:
        self.port = port
        self._processes = processes

    def pause(self, seconds: float) -> None:
        """Keep it from running, as a throttled container is."""
        for process in self._processes:
            os.killpg(process.pid, signal.SIGSTOP)
        try:
            sleep(seconds)
        finally:
            for process in self._processes:
                os.killpg(process.pid, signal.SIGCONT)

    def cpu_s(self) -> float:
        """Return the CPU time used by all its processes so far."""
        total = 0
        groups = {process.pid for process in self._processes}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError, ProcessLookupError):
                    if os.getpgid(int(entry.name)) in groups:
                        total += sum(int(each.read_text().split()[0]) for each in entry.glob("task/*/schedstat"))
        return total / 1e9


@contextlib.contextmanager
def running(
    server: Server, variant: Variant, *, cpu: int | None, nice: int = 0, envoy: str | None = None
) -> Iterator[Running]:
    """Start a server with its protection; stop all of it at the end, whatever happens."""
    with tempfile.TemporaryDirectory(prefix="openloop-") as scratch:
        port = free_port()
        behind = free_port() if variant.front else port
        environ = dict(os.environ)
        environ |= {"OPENLOOP_KIND": server.kind, "OPENLOOP_PLACES": str(server.places)}
        environ |= {"OPENLOOP_SHIELD": variant.shield, "OPENLOOP_LIMIT": str(variant.limit)}
        environ["PYTHONPATH"] = f"{_BENCH.parent}:{_BENCH}"
        with contextlib.ExitStack() as stack:
            processes = [_start(stack, _command(server, variant, behind), environ, cpu, nice)]
            if variant.front:
                # The proxy opens a connection per request too: one it kept would hide the wait from the server.
                text = _HAPROXY if variant.front == "haproxy" else _ENVOY
                settings = {"port": port, "behind": behind, "limit": variant.limit}
                settings["queue_ms"] = round(variant.queue_s * 1e3)
                config = Path(scratch, "front.yaml" if variant.front == "envoy" else "front.cfg")
                config.write_text(text.format(**settings))
                command = ["haproxy", "-db", "-f", str(config)]
                if variant.front == "envoy":
                    command = [str(envoy), "--config-path", str(config), "--concurrency", "1", "--log-level", "off"]
                    command += ["--use-dynamic-base-id"]
                _wait_for(behind)
                processes.append(_start(stack, command, environ, cpu, nice))
            _wait_for(port)
            sleep(0.3)
            yield Running(port, processes)


def busy_s(cpu: int | None) -> float:
    """Return how long a CPU has been busy since the machine started; of all together for None."""
    wanted = "cpu" if cpu is None else f"cpu{cpu}"
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == wanted:
            return (sum(map(int, ticks[:8])) - int(ticks[3]) - int(ticks[4])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _start(
    stack: contextlib.ExitStack, command: list[str], environ: dict[str, str], cpu: int | None, nice: int
) -> subprocess.Popen[bytes]:
    pinned = ["taskset", "-c", str(cpu), *command] if cpu is not None else command
    pinned = ["nice", "-n", str(nice), *pinned] if nice else pinned
    process = subprocess.Popen(  # noqa: S603  the commands above
        pinned,
        env=environ,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if not os.environ.get("OPENLOOP_DEBUG") else None,
    )
    stack.callback(_stop, process)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGCONT, signal.SIGKILL):  # nothing it still does is of interest
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, sign)
    process.wait(5)


def _wait_for(port: int) -> None:
    until = monotonic() + _READY_S
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2) as sock:
                sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
                if sock.recv(4096):
                    return
        except OSError:
            pass
        if monotonic() > until:
            raise TimeoutError(f"nothing answers on port {port}")
        sleep(0.05)
