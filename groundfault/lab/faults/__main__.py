"""The proxy as a process: ``python -m groundfault.lab.faults [--control PORT] [--route NAME=HOST:PORT] ...``.

Prints one line of JSON when it is ready: the port of the control line, and of each route. Ends at SIGTERM and Ctrl-C.
"""

import argparse
import asyncio
import json
import signal
import sys
from typing import Any

from groundfault.lab.faults.control import Board
from groundfault.lab.faults.fault import FaultError


def _route(text: str) -> tuple[str, str, int]:
    name, _, place = text.partition("=")
    host, _, port = place.rpartition(":")
    if not name or not host or not port.isdigit():
        raise argparse.ArgumentTypeError(f"a route is NAME=HOST:PORT, not {text!r}")
    return name, host.strip("[]"), int(port)


def _refused(why: str) -> int:
    sys.stderr.write(f"{why}\n")
    return 2


async def _run(options: argparse.Namespace) -> int:
    try:
        board = Board(host=options.listen, anywhere=options.anywhere, max_connections=options.max_connections)
        ports = {}
        for name, host, port in options.route:
            said = await board.told(json.dumps({"do": "route", "name": name, "to": [host, port]}).encode())
            if not said["ok"]:
                return _refused(said["error"])
            ports[name] = said["port"]
    except FaultError as error:
        return _refused(str(error))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, board.end)
    ready: asyncio.Future[int] = loop.create_future()
    running = asyncio.ensure_future(board.run(port=options.control, ready=ready))
    first: list[asyncio.Future[Any]] = [running, ready]
    await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        sys.stdout.write(json.dumps({"control": ready.result(), "routes": ports}) + "\n")
        sys.stdout.flush()
    await running
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run it; return 0, or 2 if it was told something that cannot be."""
    parser = argparse.ArgumentParser(prog="python -m groundfault.lab.faults", description=__doc__)
    parser.add_argument("--route", type=_route, action="append", default=[], metavar="NAME=HOST:PORT")
    parser.add_argument("--control", type=int, default=0, metavar="PORT", help="of the control line, on loopback (any)")
    parser.add_argument("--listen", default="127.0.0.1", metavar="HOST", help="where routes listen (127.0.0.1)")
    parser.add_argument("--max-connections", type=int, default=4096, metavar="N", help="of each route (4096)")
    parser.add_argument("--anywhere", action="store_true", help="routes may listen and lead beyond loopback")
    return asyncio.run(_run(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
