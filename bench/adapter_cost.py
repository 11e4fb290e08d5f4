"""What an adapter adds to a whole request, beside the same client without it and with interlock-cb's.

    python bench/adapter_cost.py [--quick] [--json]

One server on loopback (uvicorn, httptools and uvloop, a constant answer) in a process of its own; kept connections;
one request at a time, all clients in turn within each round, so that a neighbor's load meets all of them alike.
Microseconds per request as the caller sees them (wall) and of the caller's own CPU; the minimum over the rounds is
the estimator, for noise only adds. ``ratio`` is to the plain client of the same library.
A library or peer that is not installed is left out and named.
"""

import argparse
import asyncio
import contextlib
import importlib
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter, process_time  # noqa: TID251  a benchmark
from typing import Any

from openloop.servers import free_port

from groundfault.breaker import Registry, Resource

SETTINGS = {"timeout_s": 5.0, "max_concurrent": 100}


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer with ten bytes."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
    await send({"type": "http.response.body", "body": b"0123456789"})


@contextlib.contextmanager
def serving() -> Iterator[str]:
    port = free_port()
    words = ["-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port), "--log-level", "critical"]
    with subprocess.Popen(  # noqa: S603  our own words
        [sys.executable, *words, "--app-dir", str(Path(__file__).parent), f"{Path(__file__).stem}:application"]
    ) as process:
        try:
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()


@dataclass
class Client:
    """One row. ``ask`` makes one request on a kept connection and reads its body."""

    library: str
    who: str
    ask: Callable[[], Any]
    close: Callable[[], Any]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def resource(name: str) -> Resource:
    return Resource(name, registry=Registry(), sinks=[], **SETTINGS)


def requests_clients(url: str) -> list[Client]:
    requests = importlib.import_module("requests")
    ours = importlib.import_module("groundfault.integrations.requests")
    peer = importlib.import_module("interlock.integrations.requests")
    made = []
    for who, adapter in (
        ("plain", None),
        ("groundfault", ours.GroundFaultAdapter(resource("requests"))),
        ("interlock", peer.CircuitBreakerAdapter()),
    ):
        session = requests.Session()
        session.trust_env = False
        if adapter is not None:
            session.mount("http://", adapter)

        def ask(session: Any = session) -> None:
            assert len(session.get(url).content) == 10

        made.append(Client("requests", who, ask, session.close))
    return made


def urllib3_clients(url: str) -> list[Client]:
    urllib3 = importlib.import_module("urllib3")
    ours = importlib.import_module("groundfault.integrations.urllib3")
    made = []
    for who, pool in (
        ("plain", urllib3.PoolManager()),
        ("groundfault", ours.GroundFaultPoolManager(resource("urllib3"))),
    ):

        def ask(pool: Any = pool) -> None:
            assert len(pool.request("GET", url).data) == 10

        made.append(Client("urllib3", who, ask, pool.clear))
    return made


def httpx_clients(library: str, url: str) -> list[Client]:
    httpx = importlib.import_module(library)
    ours = importlib.import_module(f"groundfault.integrations.{library}")
    peer = importlib.import_module(f"interlock.integrations.{library}")
    made = []
    for who, transport in (
        ("plain", httpx.HTTPTransport()),
        ("groundfault", ours.GroundFaultTransport(resource(library))),
        ("interlock", peer.CircuitBreakerTransport(httpx.HTTPTransport())),
    ):
        client = httpx.Client(transport=transport, trust_env=False)

        def ask(client: Any = client) -> None:
            assert len(client.get(url).content) == 10

        made.append(Client(library, who, ask, client.close))
    return made


def async_httpx_clients(library: str, url: str, run: Callable[[Awaitable[Any]], Any]) -> list[Client]:
    httpx = importlib.import_module(library)
    ours = importlib.import_module(f"groundfault.integrations.{library}")
    peer = importlib.import_module(f"interlock.integrations.{library}")
    made = []

    def closed(close: Callable[[], Awaitable[Any]]) -> None:
        run(close())

    for who, transport in (
        ("plain", httpx.AsyncHTTPTransport()),
        ("groundfault", ours.AsyncGroundFaultTransport(resource(f"async-{library}"))),
        ("interlock", peer.AsyncCircuitBreakerTransport(httpx.AsyncHTTPTransport())),
    ):
        client = httpx.AsyncClient(transport=transport, trust_env=False)

        def ask(client: Any = client) -> Awaitable[Any]:
            answer: Awaitable[Any] = client.get(url)
            return answer

        made.append(Client(f"{library} async", who, ask, partial(closed, client.aclose)))
    return made


def aiohttp_clients(url: str, run: Callable[[Awaitable[Any]], Any]) -> list[Client]:
    aiohttp = importlib.import_module("aiohttp")
    ours = importlib.import_module("groundfault.integrations.aiohttp")
    peer = importlib.import_module("interlock.integrations.aiohttp")

    def closed(close: Callable[[], Awaitable[Any]]) -> None:
        run(close())

    async def session(*middlewares: Any) -> Any:
        return aiohttp.ClientSession(middlewares=middlewares)

    made = []
    for who, middlewares in (
        ("plain", ()),
        ("groundfault", (ours.GroundFaultMiddleware(resource("aiohttp")),)),
        ("interlock", (peer.CircuitBreakerMiddleware(),)),
    ):
        client = run(session(*middlewares))

        async def ask(client: Any = client) -> None:
            async with client.get(url) as response:
                assert len(await response.read()) == 10

        made.append(Client("aiohttp", who, ask, partial(closed, client.close)))
    return made


def measure(clients: list[Client], run: Callable[[Awaitable[Any]], Any], *, rounds: int, times: int) -> None:
    async def many(ask: Callable[[], Awaitable[Any]]) -> None:
        for _ in range(times):
            await ask()

    for number in range(rounds + 1):
        for client in clients:
            cpu, wall = process_time(), perf_counter()
            if client.library.endswith("async") or client.library == "aiohttp":
                run(many(client.ask))
            else:
                for _ in range(times):
                    client.ask()
            if number:  # the first round connects and warms up
                client.wall.append((perf_counter() - wall) / times)
                client.cpu.append((process_time() - cpu) / times)


def rows(clients: list[Client]) -> list[dict[str, Any]]:
    plain = {client.library: client for client in clients if client.who == "plain"}
    return [
        {
            "library": client.library,
            "who": client.who,
            "wall_us": round(min(client.wall) * 1e6),
            "wall_median_us": round(statistics.median(client.wall) * 1e6),
            "cpu_us": round(min(client.cpu) * 1e6),
            "wall_ratio": round(min(client.wall) / min(plain[client.library].wall), 2),
            "cpu_ratio": round(min(client.cpu) / min(plain[client.library].cpu), 2),
        }
        for client in clients
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds, rougher")
    parser.add_argument("--json", action="store_true", help="rows as JSON on stdout")
    options = parser.parse_args()
    loop = asyncio.new_event_loop()
    run = loop.run_until_complete
    clients: list[Client] = []
    missing = []
    with serving() as url:
        makers: list[Callable[[], list[Client]]] = [
            partial(requests_clients, url),
            partial(urllib3_clients, url),
            partial(httpx_clients, "httpx", url),
            partial(httpx_clients, "httpx2", url),
            partial(async_httpx_clients, "httpx", url, run),
            partial(async_httpx_clients, "httpx2", url, run),
            partial(aiohttp_clients, url, run),
        ]
        for make in makers:
            try:
                clients += make()
            except ImportError as error:
                missing.append(str(error))
        for _ in range(100):  # until the server is up
            with contextlib.suppress(Exception):
                clients[0].ask()
                break
            run(asyncio.sleep(0.05))
        measure(clients, run, rounds=5 if options.quick else 30, times=100 if options.quick else 300)
        for client in clients:
            client.close()
    loop.close()
    table = rows(clients)
    if options.json:
        json.dump({"python": platform.python_version(), "missing": missing, "rows": table}, sys.stdout, indent=1)
        print()
        return 0
    print(f"CPython {platform.python_version()}, microseconds per request")
    print(f"{'library':14}{'who':14}{'wall':>7}{'median':>8}{'ratio':>7}{'cpu':>7}{'ratio':>7}")
    for row in table:
        print(
            f"{row['library']:14}{row['who']:14}{row['wall_us']:7}{row['wall_median_us']:8}{row['wall_ratio']:7.2f}"
            f"{row['cpu_us']:7}{row['cpu_ratio']:7.2f}"
        )
    for name in missing:
        print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
