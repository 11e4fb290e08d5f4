"""``groundfault load``: the scenarios by name, wherever they are installed; the rest is Locust's command line."""

import argparse
import ast
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from groundfault.lab.generator import locustfile
from groundfault.lab.processes import DemoError

__all__ = ["add_to", "scenarios"]

FAILED: Final = 1
USAGE: Final = 2

_NOT_BY_NAME: Final = {"replay"}  # which `groundfault replay` starts, with a plan


def add_to(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "load",
        allow_abbrev=False,
        help="the talk's outages as Locust scenarios, each with a target of its own",
        description="Runs a scenario without a browser; everything behind its name goes to Locust. Without a name the "
        "scenarios are listed. Ends with 0 if the run passed, 1 if it failed, 2 for options that make no sense, "
        "3 if it is void.",
    )
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="NAME [OPTIONS OF LOCUST AND OF THE SCENARIO]")
    parser.set_defaults(run=lambda options: _run(options.rest))


def scenarios() -> dict[str, Path]:
    """Return the scenario files by name. Raises DemoError if they are not installed."""
    folder = locustfile().parent
    return {path.stem: path for path in sorted(folder.glob("*.py")) if path.stem not in _NOT_BY_NAME}


def _run(rest: list[str]) -> int:
    try:
        known = scenarios()
    except DemoError as error:
        return _refuse(FAILED, str(error))
    if not rest:
        _list(known)
        return 0
    name, *options = rest
    if name not in known:
        return _refuse(USAGE, f"the scenario must be one of {', '.join(known)}, not {name!r:.80}")
    if find_spec("locust") is None:
        return _refuse(FAILED, "the scenarios need Locust: pip install 'groundfault[lab]'")
    if {"--help", "-h"} & set(options):
        return _become("groundfault.lab.load.explaining", str(known[name]))
    headless = [] if "--headless" in options else ["--headless"]
    return _become("locust", "-f", str(known[name]), *headless, *options)


def _become(module: str, *arguments: str) -> int:
    sys.stdout.flush()
    os.execv(  # noqa: S606  our own program, and its signals and exit code are the answer
        sys.executable, [sys.executable, "-m", module, *arguments]
    )
    raise AssertionError("unreachable")  # this program is another one now


def _list(known: dict[str, Path]) -> None:
    for name, path in known.items():
        title = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n", 1)[0]
        print(f"{name:18} {title}")  # noqa: T201  the command line's answer
    print("\ngroundfault load NAME --help tells the options of one")  # noqa: T201  as above


def _refuse(code: int, message: str) -> int:
    print(f"groundfault load: {message}", file=sys.stderr)  # noqa: T201  the command line's answer
    return code
