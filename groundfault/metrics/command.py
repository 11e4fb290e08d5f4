"""``groundfault metrics``: the metrics of a run directory, served by a process of its own, or printed once.

A service that drowns answers no scrape. This one does, for it serves nothing else.
"""

import argparse
import os
import sys
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from groundfault._clock import wall
from groundfault.metrics.app import Answer, answered
from groundfault.metrics.report import Report
from groundfault.metrics.rundir import RUN_DIR, named_directory, read

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Exporter", "add_to"]

PORT: Final = 9732


def add_to(subparsers: Any) -> None:
    """Add the subcommand to the command line's."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "metrics",
        allow_abbrev=False,
        help="serve the metrics of a run directory to Prometheus, or print them",
        description="Serves what the processes of a service have put into their run directory, at /metrics, until it "
        "is interrupted. Ends with 1 if there is nothing to be served.",
    )
    parser.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help=f"the service's run directory (default: what {RUN_DIR} names)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=_port, default=PORT, metavar="N", help=f"the port; 0 for any free one ({PORT})")
    parser.add_argument("--once", action="store_true", help="print the metrics once instead")
    parser.set_defaults(run=run)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:  # noqa: PLR2004  what a port is
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 65535, not {text!r}")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Do what the command line asks for; return the exit code."""
    directory = named_directory(options.run_dir)
    if directory is None:
        return _fail(f"name the run directory: --run-dir DIR, or {RUN_DIR} in the environment")
    if options.once:
        answer = answered(partial(_pull, directory), "")
        if not answer.status.startswith("200"):
            return _fail(answer.body.decode().rstrip())
        try:
            sys.stdout.buffer.write(answer.body)
            sys.stdout.buffer.flush()
        except BrokenPipeError:  # as `head` leaves it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    try:
        server = Exporter((options.host, options.port), partial(_pull, directory))
    except OSError as error:
        return _fail(f"cannot listen on {options.host}:{options.port}: {error.strerror}")
    with server:
        host, port = server.server_address[:2]
        print(f"serving {directory} on http://{host!s}:{port}/metrics", file=sys.stderr, flush=True)  # noqa: T201  this is the command line
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 130
    return 0


def _pull(directory: Path) -> Report:
    return read(directory, wall())


def _fail(message: str) -> int:
    print(f"groundfault: {message}", file=sys.stderr)  # noqa: T201  this is the command line
    return 1


class Exporter(ThreadingHTTPServer):
    """Answers ``GET /metrics`` with what ``pull`` returns. Listens on ``address`` once it is made; raises OSError."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], pull: "Callable[[], Report]") -> None:
        self.pull = pull
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that leave early."""


class _Handler(BaseHTTPRequestHandler):
    server: Exporter
    server_version = "groundfault"
    timeout = 10.0  # for a client to send its request, and to take each part of the answer

    def do_GET(self) -> None:
        if self.path.partition("?")[0] in {"/", "/metrics"}:
            self._send(answered(self.server.pull, ",".join(self.headers.get_all("Accept", []))))
        else:
            self._send(Answer("404 Not Found", "text/plain; charset=utf-8", b"see /metrics\n"))

    do_HEAD = do_GET  # noqa: N815  as above

    def _send(self, answer: Answer) -> None:
        self.send_response(int(answer.status[:3]))
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the standard library's name
        """Log nothing: there is a request each few seconds."""
