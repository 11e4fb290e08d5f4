"""What a refusal and an admitted request cost a server, in CPU, beside the bare application and peers, in one run.

    python bench/shed_cost.py [--quick] [--json] [--only TEXT]

Every row is a server process of its own with one worker, started from this file and pinned to the first CPU;
``wrk`` (the Debian package) runs on the second, on connections that are kept, or made anew for each request.
Where all are to be admitted there are 16 of them; where they are refused 256, so many that each has waited for its
turn, as under overload, and its bytes are there when it comes.
CPU is what the kernel says that all threads of the worker have run (``/proc/<pid>/task/*/schedstat``, user and system,
the loopback device included), divided by the answers that wrk counted. So the load need not be open:
this is work per answer, not latency or capacity. All rows are measured in turns; the minimum over the rounds is the
estimator, for noise only adds. ``of its floor`` is the ratio to the row named so above it.

How everything comes to be refused: the shedder drains, so each request is read, decided about and refused with nothing
else in the way. In the rows ``under load`` it is the law that refuses, in front of an application that sleeps 20 ms;
what the few admitted requests cost is taken off at the price of an admitted one.
The floor of a worker class is that class with no decision in it: receive, send a constant 503, close (or keep).
"""

import argparse
import asyncio
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
BODY = b"hello\n"
CONSTANT = (
    b"HTTP/1.1 503 Service Unavailable\r\nServer: bare\r\nConnection: %b\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 6\r\n\r\nbusy.\n"
)
CONNECTIONS = {"200": 16, "503": 256, "both": 256}


# --- what the servers run, made when a server asks for it by name ---


def wsgi_raw(_environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]


def wsgi_slow(environ: Any, start_response: Any) -> list[bytes]:
    time.sleep(0.02)
    return wsgi_raw(environ, start_response)


async def asgi_raw(scope: Any, _receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": BODY})


def _wsgi(app: Any, *, drain: bool = False) -> Any:
    from groundfault import WSGILoadShedder  # noqa: PLC0415  the servers import this file too, most without it

    shell = WSGILoadShedder(app, service="bench")
    if drain:
        shell.shedder.drain()
    return shell


def _asgi(*, drain: bool = False) -> Any:
    from groundfault import LoadShedder  # noqa: PLC0415  as above

    shell = LoadShedder(asgi_raw, service="bench")
    if drain:
        shell.shedder.drain()
    return shell


def _base_http() -> Any:
    from starlette.middleware.base import BaseHTTPMiddleware  # noqa: PLC0415  as above

    async def passes(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    return BaseHTTPMiddleware(asgi_raw, dispatch=passes)


def _workers() -> dict[str, Any]:
    from gunicorn.workers import gthread, sync  # noqa: PLC0415  as above

    from groundfault.integrations import gunicorn as kit  # noqa: PLC0415  as above

    class ConstantSync(sync.SyncWorker):  # type: ignore[misc]  # gunicorn has no types
        def handle(self, _listener: Any, client: Any, _addr: Any) -> None:
            with suppress(OSError):
                client.recv(8192)
                client.sendall(CONSTANT % b"close")
            client.close()

    class ConstantThread(gthread.ThreadWorker):  # type: ignore[misc]  # as above
        def handle(self, conn: Any) -> bool:
            sock = conn.sock
            sock.settimeout(None)
            conn.init()
            data = sock.recv(8192)
            keep = bool(data) and b"close" not in data
            if data:
                sock.sendall(CONSTANT % (b"keep-alive" if keep else b"close"))
            if not keep:  # gunicorn's own way would half-close and wait
                sock.close()
            return keep

    class RefusingSync(kit.SyncWorker):
        def load_wsgi(self) -> None:
            super().load_wsgi()
            self.gate.drain()

    class RefusingThread(kit.ThreadWorker):
        def load_wsgi(self) -> None:
            super().load_wsgi()
            self.gate.drain()

    return {each.__name__: each for each in (ConstantSync, ConstantThread, RefusingSync, RefusingThread)}


_MADE = {
    "wsgi_admitted": lambda: _wsgi(wsgi_raw),
    "wsgi_refused": lambda: _wsgi(wsgi_raw, drain=True),
    "wsgi_busy": lambda: _wsgi(wsgi_slow),
    "asgi_admitted": _asgi,
    "asgi_refused": lambda: _asgi(drain=True),
    "asgi_base": _base_http,
}


@cache
def _make(name: str) -> Any:
    if name in _MADE:
        return _MADE[name]()
    if name in {"ConstantSync", "ConstantThread", "RefusingSync", "RefusingThread"}:
        return _workers()[name]
    raise AttributeError(name)


def __getattr__(name: str) -> Any:
    return _make(name)


def serve_bare(port: int) -> None:
    """Accept, receive, send a constant 503, close; nothing else."""
    with socket.create_server(("127.0.0.1", port), backlog=2048) as listener:
        answer = CONSTANT % b"close"
        while True:
            client, _ = listener.accept()
            with suppress(OSError):
                client.recv(8192)
                client.sendall(answer)
            client.close()


def serve_protocol(port: int) -> None:
    """Answer a constant 503 from an asyncio protocol on uvloop; nothing else."""
    import uvloop  # noqa: PLC0415  as above

    kept, closed = CONSTANT % b"keep-alive", CONSTANT % b"close"

    class Constant(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            if b"close" in data:
                self.transport.write(closed)
                self.transport.close()
            else:
                self.transport.write(kept)

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Constant, "127.0.0.1", port, backlog=2048)
        await server.serve_forever()

    uvloop.run(main())


# --- rows ---

KIT = "groundfault.integrations.gunicorn."


@dataclass
class Row:
    """One server under one kind of connection; ``floor`` names the row that it is compared with."""

    group: str
    what: str
    command: list[str]
    kept: bool
    answers: str  # what wrk must see: "200", "503", or "both"
    floor: str = ""
    port: int = 0
    process: Any = None
    rounds_us: list[float] = field(default_factory=list)
    per_s: list[float] = field(default_factory=list)
    served: float = 0.0  # share of the answers that were not refusals
    fault: str = ""

    @property
    def name(self) -> str:
        return f"{self.group}, {'kept' if self.kept else 'fresh'}: {self.what}"

    @property
    def us(self) -> float:
        return min(self.rounds_us)


def gunicorn(worker: str, app: str, *options: str) -> list[str]:
    return [
        "-m",
        "gunicorn",
        "-k",
        worker,
        "-b",
        "127.0.0.1:{port}",
        *options,
        "--log-level",
        "error",
        f"shed_cost:{app}",
    ]


def uvicorn(app: str, *options: str) -> list[str]:
    command = ["-m", "uvicorn", "--port", "{port}", "--no-access-log", "--log-level", "critical", *options]
    return [*command, f"shed_cost:{app}"]


def rows() -> list[Row]:
    out = []
    floor = "constant 503, same worker class"
    sync = "gunicorn sync"
    out += [
        Row(sync, "bare accept-recv-send-close loop", [str(HERE), "--serve", "bare", "{port}"], False, "503"),  # noqa: FBT003  the column "kept"
        Row(sync, floor, gunicorn("shed_cost.ConstantSync", "wsgi_raw"), False, "503"),  # noqa: FBT003  as above
    ]
    cases = [
        ("stock, bare application", "sync", "wsgi_raw", "200"),
        ("stock + middleware, admitted", "sync", "wsgi_admitted", "200"),
        ("stock + middleware, refused", "sync", "wsgi_refused", "503"),
        ("kit, admitted", f"{KIT}SyncWorker", "wsgi_admitted", "200"),
        ("kit, refused", "shed_cost.RefusingSync", "wsgi_admitted", "503"),
        ("kit, refused under load", f"{KIT}SyncWorker", "wsgi_busy", "both"),
    ]
    out += [Row(sync, what, gunicorn(worker, app), False, code, floor) for what, worker, app, code in cases]  # noqa: FBT003  as above
    threads = ("--threads", "4")
    cases = [
        ("stock, bare application", "gthread", "wsgi_raw", "200"),
        ("stock + middleware, admitted", "gthread", "wsgi_admitted", "200"),
        ("stock + middleware, refused", "gthread", "wsgi_refused", "503"),
        ("kit, admitted", f"{KIT}ThreadWorker", "wsgi_admitted", "200"),
        ("kit, refused", "shed_cost.RefusingThread", "wsgi_admitted", "503"),
        ("kit, refused under load", f"{KIT}ThreadWorker", "wsgi_busy", "both"),
    ]
    for kept in (True, False):
        group = "gunicorn gthread"
        out.append(Row(group, floor, gunicorn("shed_cost.ConstantThread", "wsgi_raw", *threads), kept, "503"))
        out += [
            Row(group, what, gunicorn(worker, app, *threads), kept, code, floor) for what, worker, app, code in cases
        ]
    bare = "bare application"
    for kept in (True, False):
        for group, options in (
            ("uvicorn httptools+uvloop", ("--http", "httptools", "--loop", "uvloop")),
            ("uvicorn h11+asyncio", ("--http", "h11", "--loop", "asyncio")),
        ):
            if "uvloop" in options:
                protocol = [str(HERE), "--serve", "protocol", "{port}"]
                out.append(Row(group, "constant 503, uvloop protocol", protocol, kept, "503", bare))
            out += [
                Row(group, bare, uvicorn("asgi_raw", *options), kept, "200"),
                Row(group, "LoadShedder, admitted", uvicorn("asgi_admitted", *options), kept, "200", bare),
                Row(group, "LoadShedder, refused", uvicorn("asgi_refused", *options), kept, "503", bare),
                Row(
                    group,
                    "--limit-concurrency 1",
                    uvicorn("asgi_raw", *options, "--limit-concurrency", "1"),
                    kept,
                    "503",
                    bare,
                ),
                Row(group, "BaseHTTPMiddleware, passing on", uvicorn("asgi_base", *options), kept, "200", bare),
            ]
    return out


# --- measuring ---


def start(row: Row, cpu: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        row.port = free.getsockname()[1]
    command = [sys.executable, *(part.format(port=row.port) for part in row.command)]
    path = os.pathsep.join([str(HERE.parent), str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")])
    row.process = subprocess.Popen(  # noqa: S603  our own command
        command,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.sched_setaffinity(row.process.pid, {cpu})


def await_up(row: Row) -> None:
    for _ in range(300):
        with suppress(OSError), socket.create_connection(("127.0.0.1", row.port), timeout=1) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            if client.recv(1024).startswith(b"HTTP/1.1"):
                return
        if row.process.poll() is not None:
            break
        time.sleep(0.1)
    row.fault = "did not start"


def worker_of(pid: int) -> int:
    """Return the pid of gunicorn's one worker, or of the process itself."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return int(children[0]) if children else pid


def cpu_ns(pid: int) -> int:
    total = 0
    for each in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # a thread that has just ended
            total += int((each / "schedstat").read_text(encoding="ascii").split()[0])
    return total


def measure(row: Row, seconds: float, cpu: int) -> None:
    headers = [] if row.kept else ["-H", "Connection: close"]
    url = f"http://127.0.0.1:{row.port}/"
    pid = worker_of(row.process.pid)
    command = ["wrk", "-t1", f"-c{CONNECTIONS[row.answers]}", f"-d{max(1, round(seconds))}s", *headers, url]
    before = cpu_ns(pid)
    done = subprocess.run(  # noqa: S603  as above
        ["taskset", "-c", str(cpu), *command],  # noqa: S607  Debian's own
        capture_output=True,
        text=True,
        check=True,
    )
    used = cpu_ns(pid) - before
    answers = int(re.findall(r"(\d+) requests in", done.stdout)[0])
    other = re.findall(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    refused = int(other[0]) if other else 0
    if (row.answers == "200" and refused) or (row.answers == "503" and refused != answers) or not answers:
        row.fault = f"{answers} answers, {refused} of them refusals, where {row.answers} was expected"
        return
    if row.answers == "both" and refused < answers / 2:
        row.fault = f"only {refused} of {answers} were refused"
        return
    row.served = 1 - refused / answers
    row.rounds_us.append(used / answers / 1e3)
    row.per_s.append(answers / seconds)


def correct(measured: list[Row]) -> None:
    """Take off what the admitted requests of a row under load have cost."""
    for row in measured:
        if row.answers != "both" or not row.rounds_us:
            continue
        admitted = next(
            (
                each
                for each in measured
                if each.rounds_us and each.name == row.name.replace("refused under load", "admitted")
            ),
            None,
        )
        if admitted is not None:
            row.rounds_us = [(us - row.served * admitted.us) / (1 - row.served) for us in row.rounds_us]


def end(rows: list[Row]) -> None:
    started = [row.process for row in rows if row.process is not None]
    for process in started:
        process.send_signal(signal.SIGINT)  # gunicorn's quick way out
    for process in started:
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def report(measured: list[Row], *, as_json: bool) -> None:
    by_name = {row.name: row for row in measured}
    table = []
    for row in measured:
        entry: dict[str, Any] = {"server": row.group, "connections": "kept" if row.kept else "fresh", "what": row.what}
        if row.fault or not row.rounds_us:
            entry["fault"] = row.fault or "not measured"
        else:
            floor = by_name.get(f"{row.group}, {'kept' if row.kept else 'fresh'}: {row.floor}")
            entry |= {
                "cpu_us": round(row.us, 1),
                "cpu_us_worst_round": round(max(row.rounds_us), 1),
                "per_s_seen": round(max(row.per_s)),
                "floor": row.floor or None,
                "of_its_floor": round(row.us / floor.us, 2) if floor is not None and floor.rounds_us else None,
            }
        table.append(entry)
    if as_json:
        print(json.dumps({"python": platform.python_version(), "kernel": platform.release(), "rows": table}, indent=2))
        return
    print(f"server CPU per answer, µs; Python {platform.python_version()}, Linux {platform.release()}")
    head = None
    for entry in table:
        title = f"{entry['server']}, {entry['connections']} connections"
        if title != head:
            head = title
            print(f"\n{title}\n  {'':34} {'CPU µs':>8} {'worst':>8} {'seen/s':>8}  of its floor")
        if "fault" in entry:
            print(f"  {entry['what']:34} {entry['fault']}")
            continue
        ratio = "" if entry["of_its_floor"] is None else f"{entry['of_its_floor']:.2f} of {entry['floor']}"
        print(
            f"  {entry['what']:34} {entry['cpu_us']:8.1f} {entry['cpu_us_worst_round']:8.1f} "
            f"{entry['per_s_seen']:8}  {ratio}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round of one second each: under a minute")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--serve", nargs=2, metavar=("WHAT", "PORT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        what, port = options.serve
        {"bare": serve_bare, "protocol": serve_protocol}[what](int(port))
        return
    if shutil.which("wrk") is None:
        print("wrk is not installed (Debian: apt-get install wrk); nothing was measured")
        return
    chosen = [row for row in rows() if options.only in row.name]
    cpus = sorted(os.sched_getaffinity(0))
    rounds, seconds = (1, 1.0) if options.quick else (5, 1.0)
    try:
        for row in chosen:
            start(row, cpus[0])
        for row in chosen:
            await_up(row)
        for _ in range(rounds):
            for row in chosen:
                if not row.fault:
                    measure(row, seconds, cpus[-1])
    finally:
        end(chosen)
    correct(chosen)
    report(chosen, as_json=options.json)


if __name__ == "__main__":
    main()
