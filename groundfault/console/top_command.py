"""``groundfault top``: the console in a terminal, or for a script."""

import argparse
import json
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from groundfault._clock import monotonic
from groundfault.console import _top_sources as sources
from groundfault.console._top_state import SORTS, Looking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from groundfault.console._top_sources import Looked, Source

__all__ = ["add_to"]

FAILED: Final = 1
BAD: Final = 3
WARN: Final = 4
APART_S: Final = 1.25
"""Between the two looks of one picture: each process reports once a second, and counters say how far they moved."""

INTERVAL_S: Final = 1.0
"""Between the lines of a stream."""

_DIGITS: Final = 4  # of a COLUMNS that makes sense
_WIDTH: Final = 120
"""Of a picture that goes into a file or a pipe, unless COLUMNS says another one."""


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "top",
        allow_abbrev=False,
        help="the console in a terminal: services, commands, map and timeline, once a second",
        description="Shows what the processes of this host report (GROUNDFAULT_RUN_DIR), or what a console says. "
        "Ends with 1 if nothing can be read, and with --fail-on with 3 if something is bad, with 4 for a warning.",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--run-dir",
        type=Path,
        action="append",
        metavar="DIR",
        help="where the processes of a service report (GROUNDFAULT_RUN_DIR); repeatable",
    )
    source.add_argument(
        "--url",
        type=_url,
        metavar="URL",
        help="a status port, a mounted console or a hub: http://127.0.0.1:9731/, or unix:/path; "
        "GROUNDFAULT_CONSOLE_USER and GROUNDFAULT_CONSOLE_PASSWORD, if it asks who you are",
    )
    parser.add_argument(
        "--once", action="store_true", help="print one picture and end; of a run directory it takes a second"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the view as JSON: with --once one, else a line a second"
    )
    parser.add_argument(
        "--fail-on", choices=("bad", "warn"), help="end with 3 if something is bad, with warn also with 4 for a warning"
    )
    parser.add_argument("--sort", choices=tuple(SORTS), default="trouble", help="the order of the commands (trouble)")
    parser.add_argument("--filter", default="", metavar="WORDS", help="only commands that have all of these words")
    parser.add_argument("--ascii", action="store_true", help="no signs beyond ASCII; as under LANG=C")
    parser.set_defaults(run=_run, parser=parser)


def _url(text: str) -> str:
    try:
        return sources.address_of(text).text
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _run(options: argparse.Namespace) -> int:
    once = options.once or not (options.json or _is_terminal())
    if options.fail_on and not once:
        options.parser.error("--fail-on needs --once")
    missing = _missing(options)
    if missing is not None:
        return _fail(missing)
    try:
        return _shown(options, sources.source_of(options.url, options.run_dir or ()), once=once)
    except sources.SourceError as error:
        return _fail(str(error))
    except BrokenPipeError:  # whoever read has enough
        _write_no_more()
        return 0
    except OSError as error:
        _write_no_more()
        return _fail(f"standard output takes no more: {error.strerror or error}")
    except KeyboardInterrupt:
        return 130


def _missing(options: argparse.Namespace) -> str | None:
    """Return what is not there to show anything with."""
    if sys.stdout is None:  # it was closed before this began
        return "standard output is closed"
    if not options.json and find_spec("rich") is None:
        return "top needs rich: pip install 'groundfault[top]'; --json needs nothing"
    return None


def _write_no_more() -> None:
    """Let what is left to be written go nowhere: the interpreter would try once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _shown(options: argparse.Namespace, source: "Source", *, once: bool) -> int:
    if once:
        return _once(options, source)
    if options.json:
        return _stream(source)
    from groundfault.console._top_live import watch  # noqa: PLC0415  needs rich and a terminal

    return watch(source, _looking(options), _signs(options))


def _is_terminal() -> bool:
    """Return whether there is a terminal on both sides that can be drawn on."""
    able = os.environ.get("TERM", "") not in {"", "dumb", "unknown"} and None not in {sys.stdin, sys.stdout}
    return able and sys.stdin.isatty() and sys.stdout.isatty()


def _looking(options: argparse.Namespace) -> Looking:
    return Looking(sort=options.sort, wanted=options.filter)


def _signs(options: argparse.Namespace) -> Any:
    from groundfault.console._top_words import ASCII, signs_for  # noqa: PLC0415  needs rich

    return ASCII if options.ascii else signs_for(sys.stdout.encoding, os.environ)


def _once(options: argparse.Namespace, source: "Source") -> int:
    looked = source.look()
    for _ in range(source.looks - 1):
        if sys.stderr is not None and sys.stderr.isatty():
            _say("looking twice, a second apart, for rates")
        time.sleep(APART_S)
        looked = source.look()
    if options.json:
        _write(json.dumps(looked.said, indent=2) + "\n")
    else:
        _print(options, looked)
    level = looked.view["headline"]["level"]
    if options.fail_on and level == "bad":
        return BAD
    return WARN if options.fail_on == "warn" and level == "warn" else 0


def _print(options: argparse.Namespace, looked: "Looked") -> None:
    from rich.console import Console  # noqa: PLC0415  an extra, and looked for before

    from groundfault.console.top import Situation, picture  # noqa: PLC0415  needs it

    columns = os.environ.get("COLUMNS", "")
    width = (int(columns) if columns.isdecimal() and len(columns) <= _DIGITS else 0) or _WIDTH
    if sys.stdout.isatty():
        width = os.get_terminal_size(sys.stdout.fileno()).columns or 80
    console = Console(highlight=False, markup=False, emoji=False, width=width, file=sys.stdout)
    lines = picture(
        looked.view, _looking(options), Situation(looked.age_s), width=width, height=None, signs=_signs(options)
    )
    with console.capture() as printed:  # a pipe that breaks is not for rich to handle: it would end with 1
        for line in lines:
            line.rstrip()
            console.print(line, soft_wrap=True)
    _write(printed.get())


def _stream(source: "Source") -> int:
    """Print a line a second until somebody ends it; what fails after the first is said, and tried again."""
    said: str | None = None
    for number, looked in enumerate(_looks(source)):
        if isinstance(looked, str):
            if not number:
                raise sources.SourceError(looked)
            if looked != said:
                _say(looked)
            said = looked
        else:
            _write(json.dumps(looked.said) + "\n")
            said = None
    return 0


def _looks(source: "Source") -> "Iterator[Looked | str]":
    while True:
        began = monotonic()
        try:
            yield source.look()
        except sources.SourceError as error:
            yield str(error)
        time.sleep(max(0.1, INTERVAL_S - (monotonic() - began)))


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(message: str) -> None:
    # What a console answers stands in some of them: it must not move the cursor, or worse.
    said = "".join(each if each.isprintable() else "\ufffd" for each in message)
    if sys.stderr is not None:  # else it would go among what is shown
        print(f"groundfault: {said}", file=sys.stderr)  # noqa: T201  this is the command line


def _fail(message: str) -> int:
    _say(message)
    return FAILED
