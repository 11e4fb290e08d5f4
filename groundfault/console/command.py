"""``groundfault status``: the console over run directories, served by a process of its own, or printed once.

A service that drowns may be slow to show itself. This process is nobody's but the engineer's.
"""

import argparse
import gzip
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any, Final

from groundfault.console.answering import RefusedError
from groundfault.console.assembling import SETTINGS, TOKEN, assembled
from groundfault.console.guarding import checked_token
from groundfault.console.port import PORT, Address, Port
from groundfault.console.recording import Recorder
from groundfault.errors import SettingsError
from groundfault.metrics.rundir import RUN_DIR, named_directory

__all__ = ["add_to"]

_FAILED: Final = 1
_MAX_TOKEN: Final = 4096


def add_to(subparsers: Any) -> None:
    """Add the subcommand to the command line's."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "status",
        allow_abbrev=False,
        help="serve the console over the run directories of services of this host",
        description="Serves what the processes of one or several services have put into their run directories, as a "
        "page, until it is interrupted. Nobody can change settings unless there is a token: in the environment "
        f"variable {TOKEN}, or in a file, for everybody on the machine sees a command line.",
    )
    parser.add_argument(
        "--run-dir",
        type=Path,
        action="append",
        metavar="DIR",
        help=f"the run directory of a service; may be repeated (default: what {RUN_DIR} names)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=_port, default=PORT, metavar="N", help=f"the port; 0 for any free one ({PORT})")
    parser.add_argument("--unix", type=Path, metavar="PATH", help="listen on a unix socket instead")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name, besides those of the loopback interface, that it may be addressed by; may be repeated",
    )
    parser.add_argument("--public", action="store_true", help="let everybody look who reaches the address")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help=f"holds the token (default: {TOKEN})")
    parser.add_argument(
        "--settings", metavar="URL", help=f"the store of live settings (default: what {SETTINGS} names)"
    )
    parser.add_argument("--title", help="of the page (default: the names of the services)")
    parser.add_argument("--once", action="store_true", help="print the view once instead, as JSON")
    parser.set_defaults(run=run)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > 65_535:  # noqa: PLR2004  what a port is
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 65535, not {text!r}")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Do what the command line asks for; return the exit code."""
    directories = options.run_dir or [each for each in [named_directory()] if each is not None]
    if not directories:
        return _fail(f"name the run directory: --run-dir DIR, or {RUN_DIR} in the environment")
    recorder = Recorder(directories, title=options.title)
    if options.once:
        return _print(recorder)
    try:
        address = Address(options.host, options.port, options.unix)
        if not (address.is_private or options.public):
            return _fail(f"{address.host} can be reached from elsewhere: say --public if everybody there may look")
        console = assembled(
            lambda: recorder,
            hosts=options.allow_host,
            token=_token(options.token_file),
            settings=options.settings,
        )
    except (SettingsError, OSError) as error:
        return _fail(str(error))
    for each in directories:
        if not each.is_dir():  # a service that has never reported makes it later; a slip of the pen does not
            _say(f"{each} is no directory yet: there is nothing to be seen until a service reports there")
    return _serve(recorder, Port(address, console))


def _serve(recorder: Recorder, port: Port) -> int:
    ended = threading.Event()
    caught: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        caught.append(number)
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        why = port.open()
        if why is not None:
            return _fail(f"cannot listen on {port.address}: {why}")
        recorder.link.want()
        recorder.start()
        port.start()
        print(f"serving {recorder.what} on {port.address}", file=sys.stderr, flush=True)  # noqa: T201  this is the command line
        ended.wait()
    finally:
        port.stop()
        recorder.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
    return 130 if caught[:1] == [signal.SIGINT] else 0


def _print(recorder: Recorder) -> int:
    recorder.record()
    try:
        view = gzip.decompress(recorder.newest())
    except RefusedError as error:
        return _fail("; ".join(error.lines))
    finally:
        recorder.stop()
    try:
        sys.stdout.buffer.write(view + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # as `head` leaves it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _token(path: Path | None) -> str | None:
    if path is None:
        return None
    with path.open("rb") as file:
        return checked_token(file.read(_MAX_TOKEN).decode("utf-8", "replace").strip(), str(path))


def _fail(message: str) -> int:
    _say(message)
    return _FAILED


def _say(message: str) -> None:
    print(f"groundfault: {message}", file=sys.stderr)  # noqa: T201  this is the command line
