"""The command line: ``groundfault --version``, and one command for each room that has something to show."""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from groundfault.advise import command as advise
from groundfault.console import command as status
from groundfault.console import top_command as top
from groundfault.console.hub import command as hub
from groundfault.doctor import command as doctor
from groundfault.lab.load import command as load
from groundfault.lab.planning import command as plan
from groundfault.lab.replay import command as replay
from groundfault.lab.reports import command as reports
from groundfault.lab.simulator import command as simulate
from groundfault.metrics import command as metrics
from groundfault.servicemap import command as servicemap
from groundfault.settingscli.arguments import add_to as add_settings

__all__ = ["main"]

_DEMO_NEEDS = (
    *("gunicorn", "jinja2", "locust", "matplotlib", "psutil", "requests"),
    *("rich", "starlette", "structlog", "uvicorn", "werkzeug"),
)

FAILED = 1
"""The demo could not run; the last line on standard error says why and what to do."""

USAGE = 2
"""The command line made no sense (argparse's own code)."""

WATCH_PORT = 9731
"""Where a console listens, unless told otherwise."""

VOID = 3
"""The demo ran, but its protected phase says nothing, because the machine or the generator was at fault."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, one of the above, or 128 + the signal that stopped it."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.error("say what to do: groundfault demo, or groundfault doctor")
    return int(options.run(options))


def _demo(options: argparse.Namespace) -> int:
    if sys.platform == "win32":
        return _fail("the demo needs a POSIX system: gunicorn, one of its servers, does not run on Windows")
    missing = [name for name in _DEMO_NEEDS if find_spec(name) is None]
    if missing:
        return _fail(f"the demo needs {', '.join(missing)}: pip install 'groundfault[demo]'")
    from groundfault.lab import session  # noqa: PLC0415  needs what was just looked for

    try:
        valid = session.demo(
            out=options.out,
            factor=options.spike,
            quick=options.quick,
            as_json=options.json,
            keep_logs=options.keep_logs,
            scale=options.scale,
            watch=options.watch,
        )
    except session.DemoError as error:
        return _fail(str(error))
    except session.StoppedError as stopped:
        _fail("stopped; nothing is left running")
        return 128 + int(stopped.args[0])
    return 0 if valid else VOID


def _fail(message: str) -> int:
    print(f"groundfault: {message}", file=sys.stderr)  # noqa: T201  this is the command line
    return FAILED


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and where to read on, instead of repeating all options."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="groundfault", description="Overload protection for Python services.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"groundfault {version('groundfault')}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    demo = commands.add_parser(
        "demo",
        allow_abbrev=False,
        help="a spike on a real chain of services, with and without protection",
        description="Starts a chain of three services on this machine and drives an eightfold spike through it, three "
        "times: unprotected, with plain 503s, and with annotated ones. Takes about four minutes; writes a report.",
    )
    demo.add_argument("--quick", action="store_true", help="about a minute; shorter phases, noisier numbers")
    demo.add_argument(
        "--json", action="store_true", help="print the summary as JSON; everything else on standard error"
    )
    demo.add_argument(
        "--out", type=Path, default=Path("demo-report"), metavar="DIR", help="where the report goes (demo-report)"
    )
    demo.add_argument("--spike", type=_factor, default=8.0, metavar="N", help="how many times the usual traffic (8)")
    demo.add_argument("--keep-logs", action="store_true", help="keep the services' logs and journals in DIR/logs")
    demo.add_argument(
        "--watch",
        type=_port,
        nargs="?",
        const=WATCH_PORT,
        metavar="PORT",
        help=f"serve the console of the chain meanwhile, on 127.0.0.1 ({WATCH_PORT}); it takes some CPU itself",
    )
    demo.add_argument("--scale", type=_scale, default=1.0, help=argparse.SUPPRESS)  # the tests' way to a run of seconds
    demo.set_defaults(run=_demo)
    advise.add_to(commands)
    doctor.add_to(commands)
    metrics.add_to(commands)
    load.add_to(commands)
    replay.add_to(commands)
    servicemap.add_to(commands)
    status.add_to(commands)
    top.add_to(commands)
    hub.add_to(commands)
    simulate.add_to(commands)
    plan.add_to(commands)
    add_settings(commands)
    reports.add_to(commands)
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:  # noqa: PLR2004  what a port is
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 65535, not {text!r}")
    return int(text)


def _factor(text: str) -> float:
    return _between(text, 1.0, 50.0)


def _scale(text: str) -> float:
    return _between(text, 0.1, 10.0)


def _between(text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"must be a number from {low:g} to {high:g}, not {text!r}")
    return value
