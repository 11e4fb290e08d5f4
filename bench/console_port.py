"""How soon the console answers while its service is asked for eight times what it can do.

    python bench/console_port.py [--quick] [--json]

Two services, each a single process that computes, behind the load shedder and bare: gunicorn with eight threads, where
nine threads want the interpreter's lock, and uvicorn, where two do. An open loop sends eight times their capacity.
Meanwhile two consoles are asked for the view 20 times a second, each time on a new connection: the one on the service's
own port (``groundfault.console.serve``) and ``groundfault status``, a process of its own. Latency counts from when a
question was due. In the same run, for contrast: the service's own, of the requests that were answered within 2 s.

Nothing is pinned: on a machine with two cores all of them share these, as they would in an incident.
"""

import argparse
import json
import multiprocessing
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep, thread_time  # noqa: TID251  real processes, real time
from typing import Any

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.append(str(HERE))

from openloop.generator import Outcome, Plan, drive  # noqa: E402  found beside this file

WORK_S = 0.01
TIMES = 8
COMMANDS = 400
DEADLINE_S = 2.0
EACH_S = 0.05
READY_S = 30.0
BUSY = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
ASK = b"GET /snapshot.json HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n"


# --- what is served ---------------------------------------------------------------------------------------------------


def _burn() -> None:
    until = thread_time() + WORK_S
    while thread_time() < until:
        pass


def _made() -> Any:
    """Return a call for each request to make, and begin to serve the console."""
    from groundfault import Resource  # noqa: PLC0415  in the server alone
    from groundfault.console import serve  # noqa: PLC0415  as above

    commands = [Resource(f"r{number % 20}").command(f"get_{number}", max_concurrent=20) for number in range(COMMANDS)]
    for command in commands:
        command.call(lambda: None)
    serve(port=int(os.environ["CONSOLE_BENCH_PORT"]))

    def work() -> None:
        commands[threading.get_ident() % COMMANDS].call(_burn)

    return work


def _wsgi() -> Any:
    from groundfault import WSGILoadShedder  # noqa: PLC0415  as above

    work = _made()

    def app(environ: Any, start_response: Any) -> list[bytes]:  # noqa: ARG001  WSGI's signature
        work()
        start_response("200 OK", [("Content-Length", "3")])
        return [b"ok\n"]

    return WSGILoadShedder(app, service="bench") if os.environ["CONSOLE_BENCH_SHIELD"] else app


def _asgi() -> Any:
    from groundfault import LoadShedder  # noqa: PLC0415  as above

    work = _made()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            for _ in range(2):
                await send({"type": (await receive())["type"] + ".complete"})
            return
        work()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.body", "body": b"ok\n"})

    return LoadShedder(app, service="bench") if os.environ["CONSOLE_BENCH_SHIELD"] else app


def __getattr__(name: str) -> Any:
    """Make the application that the server asks for."""
    if name in {"wsgi", "asgi"}:
        return {"wsgi": _wsgi, "asgi": _asgi}[name]()
    raise AttributeError(name)


# --- what is measured -------------------------------------------------------------------------------------------------


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _ask(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as sock:
        sock.settimeout(DEADLINE_S)
        sock.sendall(ASK)
        answer = b""
        while more := sock.recv(65536):
            answer += more
        return answer.startswith(b"HTTP/1.1 200 ")
    return False


def _poll(port: int, for_s: float, said: Any) -> None:
    """Ask when it is due; tell how long each answer took, None for none."""
    taken: list[float | None] = []
    begin = monotonic()
    for number in range(int(for_s / EACH_S)):
        due = begin + number * EACH_S
        sleep(max(0.0, due - monotonic()))
        taken.append(monotonic() - due if _ask(port) else None)
    said.send(taken)


def _load(plan: Plan, said: Any) -> None:
    outcome: Outcome = drive(plan)
    said.send(
        [latency if status == 200 else None for latency, status in zip(outcome.latency, outcome.status, strict=True)]
    )


def _together(*works: Any) -> list[list[float | None]]:
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for work, *arguments in works:
        mine, theirs = context.Pipe(duplex=False)
        processes.append(context.Process(target=work, args=(*arguments, theirs)))
        pipes.append(mine)
    for each in processes:
        each.start()
    found = [pipe.recv() for pipe in pipes]
    for each in processes:
        each.join()
    return found


def _summary(taken: list[float | None]) -> dict[str, Any]:
    known = sorted(1e3 * each for each in taken if each is not None)
    at = {
        f"p{share}_ms": round(known[min(len(known) - 1, len(known) * share // 100)], 1) for share in (50, 99) if known
    }
    return {"asked": len(taken), "answered": len(known), **at, "max_ms": round(known[-1], 1) if known else None}


@contextmanager
def _started(command: list[str], environ: dict[str, str]) -> Iterator[None]:
    with subprocess.Popen(  # noqa: S603  this script's own commands
        command, env=environ, cwd=HERE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(port: int) -> None:
    until = monotonic() + READY_S
    while not _ask(port):
        if monotonic() > until:
            raise SystemExit(f"nothing answers on port {port}")
        sleep(0.1)


def measure(server: str, *, shield: bool, for_s: float) -> dict[str, Any]:
    """Run one service and both of its consoles; return what was found."""
    port, own, status = _free_port(), _free_port(), _free_port()
    module = [sys.executable, "-m"]
    served = {
        "gthread": [
            *module,
            "gunicorn",
            "console_port:wsgi",
            "-b",
            f"127.0.0.1:{port}",
            "--threads",
            "8",
            "-k",
            "gthread",
        ],
        "uvicorn": [*module, "uvicorn", "console_port:asgi", "--port", str(port), "--log-level", "critical"],
    }[server]
    with tempfile.TemporaryDirectory(prefix="console-port-", dir=_memory()) as scratch:
        environ = {**os.environ, "PYTHONPATH": f"{HERE.parent}:{HERE}:{os.environ.get('PYTHONPATH', '')}"}
        environ |= {"GROUNDFAULT_RUN_DIR": f"{scratch}/run", "CONSOLE_BENCH_PORT": str(own)}
        environ |= {"CONSOLE_BENCH_SHIELD": "1" if shield else ""}
        with _started(served, environ), _started([*module, "groundfault", "status", "--port", str(status)], environ):
            for each in (own, status):
                _wait_for(each)
            due = array("d", (number * WORK_S / TIMES for number in range(int(for_s * TIMES / WORK_S))))
            plan = Plan(port, DEADLINE_S, due, [BUSY] * len(due), array("l", [0] * len(due)))
            asked_s = for_s - 1.0
            loaded, at_port, at_status = _together((_load, plan), (_poll, own, asked_s), (_poll, status, asked_s))
    return {
        "server": server,
        "shield": shield,
        "service": _summary(loaded),
        "port": _summary(at_port),
        "status": _summary(at_status),
    }


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  run directories are best in memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a few seconds for each")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    options = parser.parse_args()
    for_s = 8.0 if options.quick else 30.0
    found = [
        measure(server, shield=shield, for_s=for_s) for server in ("gthread", "uvicorn") for shield in (False, True)
    ]
    if options.json:
        print(json.dumps({"python": platform.python_version(), "found": found}))
        return
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {COMMANDS} commands, {TIMES} times the capacity")
    print(f"{'':28}{'asked':>8}{'answered':>10}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}")
    for each in found:
        shielded = "shedding" if each["shield"] else "bare"
        for name in ("port", "status", "service"):
            one = each[name]
            row = f"{each['server']}, {shielded}: {name}"
            print(f"{row:28}{one['asked']:8}{one['answered']:10}", end="")
            print("".join(f"{one.get(key) or float('nan'):9.1f}" for key in ("p50_ms", "p99_ms", "max_ms")))


if __name__ == "__main__":
    main()
