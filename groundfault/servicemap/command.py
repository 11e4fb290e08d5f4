"""``groundfault map``: the service map as text, JSON, DOT or SVG."""

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from groundfault._clock import wall
from groundfault.servicemap import drawing, sources
from groundfault.servicemap.graph import LIMIT, Seen, ServiceMap, draw_up

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["add_to"]

FAILED: Final = 1
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "map",
        allow_abbrev=False,
        help="who calls whom, how often, with what outcome, and how long it waits there",
        description="Draws the service map: of this host's processes from their reports (GROUNDFAULT_RUN_DIR), "
        "of several hosts from their /metrics pages, of a fleet from Prometheus. "
        "Ends with 1 if a source could not be read.",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--run-dir",
        type=Path,
        action="append",
        metavar="DIR",
        help="where the processes of a service report (GROUNDFAULT_RUN_DIR); repeatable",
    )
    source.add_argument("--metrics", action="append", metavar="URL", help="a /metrics page; repeatable")
    source.add_argument("--prometheus", metavar="URL", help="a Prometheus server")
    parser.add_argument(
        "--over",
        type=_span,
        default=None,
        metavar="TIME",
        help="look twice, so far apart, and draw what came between; with --prometheus the window (5m there). "
        "Without it: everything since the processes began",
    )
    parser.add_argument("--format", choices=("text", "json", "dot", "svg"), default="text", help="default: text")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write to a file instead")
    parser.add_argument("--limit", type=_limit, default=LIMIT, metavar="N", help=f"edges shown, {LIMIT} at most")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        drawn = draw_up(_look(options), limit=options.limit)
        text = _rendered(drawn, options.format)
        if options.out is None:
            sys.stdout.write(text)
        else:
            options.out.write_text(text, encoding="utf-8")
    except (sources.SourceError, drawing.DrawingError, OSError) as error:
        print(f"groundfault: {error}", file=sys.stderr)  # noqa: T201  this is the command line
        return FAILED
    except KeyboardInterrupt:
        return 130
    return 0


def _rendered(drawn: ServiceMap, form: str) -> str:
    if form == "json":
        return json.dumps(drawn.as_dict(), indent=2) + "\n"
    if form == "dot":
        return drawing.dot_of(drawn)
    if form == "svg":
        return drawing.svg_of(drawn)
    return "".join(f"{line}\n" for line in drawing.lines_of(drawn))


def _look(options: argparse.Namespace) -> Seen:
    if options.prometheus is not None:
        text, span_s = options.over or ("5m", 300.0)
        return sources.seen_in_samples(sources.ask_prometheus(options.prometheus, text), span_s)
    if options.metrics:
        return _twice(lambda: sources.seen_in_pages(options.metrics), options)
    named = os.environ.get("GROUNDFAULT_RUN_DIR")
    directories: list[Path] = options.run_dir or ([Path(named)] if named else [])
    if not directories:
        raise sources.SourceError("say where to look: --run-dir or GROUNDFAULT_RUN_DIR, --metrics, or --prometheus")
    for directory in directories:
        if not directory.is_dir():
            raise sources.SourceError(f"{directory} must be the directory that the processes report to; it is none")
    return _twice(lambda: _reported(directories), options)


def _reported(directories: list[Path]) -> Seen:
    from groundfault.metrics.report import merged  # noqa: PLC0415  only this source needs them
    from groundfault.metrics.rundir import RunDirError, read  # noqa: PLC0415  likewise

    try:
        return sources.seen_in_report(merged(read(directory, wall()) for directory in dict.fromkeys(directories)))
    except RunDirError as error:
        raise sources.SourceError(str(error)) from None


def _twice(look: "Callable[[], Seen]", options: argparse.Namespace) -> Seen:
    if options.over is None:
        return look()
    _, span_s = options.over
    first = look()
    time.sleep(span_s)
    return look().since(first, span_s)


def _span(text: str) -> tuple[str, float]:
    matched = _SPAN.fullmatch(text)
    seconds = float(matched[1]) * _UNITS_S[matched[2]] if matched else 0.0
    if not 0.1 <= seconds <= 31 * 86400:  # noqa: PLR2004  the bounds are in the message
        raise argparse.ArgumentTypeError(f"must be a time such as 10s, 5m or 1h, from 100ms to 31d, not {text!r}")
    return text, seconds


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= LIMIT:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {LIMIT}, not {text!r}")
    return int(text)
