"""``groundfault doctor`` on the command line: its options, and where they lead."""

import argparse
import os
import shutil
import sys
from functools import partial
from typing import Any, Final

from groundfault.doctor.servers import server_names

__all__ = ["add_to", "run"]

_INTERRUPTED: Final = 130
_WIDEST: Final = 140
_NARROWEST: Final = 80


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to a command line."""
    parser = commands.add_parser(
        "doctor",
        allow_abbrev=False,
        help="what the environment does to shedding and circuits: servers, clients, proxies, clocks, directories",
        description="Looks at this machine; starts each server that is installed here on loopback, holds it up for "
        "300 ms, and compares how long requests waited with what was seen of it (two seconds a server); then checks "
        "what runs here and what it is given. Changes nothing. Ends with 0 if all is well or worth a warning, 1 if a "
        "server could not be tried, 4 if one has no signal or a wrong one, 5 if a check has found a problem.",
    )
    servers = parser.add_mutually_exclusive_group()
    servers.add_argument(
        "--server",
        action="append",
        default=[],
        choices=server_names(),
        metavar="NAME",
        help="try only this server; repeatable",
    )
    servers.add_argument("--no-servers", action="store_true", help="start no server: the checks alone")
    parser.add_argument("--no-processes", action="store_true", help="do not look at the servers that run here")
    for option, metavar, meaning in (
        ("--app", "MODULE:NAME", "import an application in a process of its own: clients, order of middleware"),
        ("--import", "MODULE", "import a module likewise, for the clients it makes"),
        ("--gunicorn-config", "FILE", "load a configuration of gunicorn's, in a process of its own"),
        ("--nginx", "FILE", "read a configuration of nginx's, with its includes"),
        ("--envoy", "FILE", "read one of Envoy's, YAML or JSON"),
        ("--haproxy", "FILE", "read one of HAProxy's"),
        ("--url", "URL", "make one request, and look at its clock and its headers"),
    ):
        destination = {"--import": "modules"}.get(option, option[2:].replace("-", "_"))
        help_text = f"{meaning}; repeatable"
        parser.add_argument(option, action="append", default=[], metavar=metavar, dest=destination, help=help_text)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from groundfault.doctor import checks, report, showing  # noqa: PLC0415  needed only if the doctor is called

    asked = checks.Asked(
        modules=(*options.app, *options.modules),
        gunicorn=tuple(options.gunicorn_config),
        nginx=tuple(options.nginx),
        envoy=tuple(options.envoy),
        haproxy=tuple(options.haproxy),
        urls=tuple(options.url),
        processes=not options.no_processes,
    )
    width = min(max(shutil.get_terminal_size((120, 24)).columns, _NARROWEST), _WIDEST)
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    try:
        return report.diagnose(
            options.server,
            as_json=options.json,
            say=_say,
            checks=partial(checks.make_checks, asked),
            servers=not options.no_servers,
            show=partial(showing.shown, width=width, color=color),
        )
    except KeyboardInterrupt:
        print("groundfault: stopped; nothing is left running", file=sys.stderr)  # noqa: T201  as below
        return _INTERRUPTED


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  this is the command line
