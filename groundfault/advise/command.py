"""``groundfault advise``: its options, and what it prints."""

import argparse
import os
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from time import sleep
from typing import Any, Final

from groundfault._clock import wall
from groundfault.advise import shown
from groundfault.advise.current import Current, read_current
from groundfault.advise.log_fields import fields_of
from groundfault.advise.processes import read_processes
from groundfault.advise.prometheus import read_prometheus
from groundfault.advise.proposal import Proposal, Wishes
from groundfault.advise.rules import propose
from groundfault.advise.sources import Reading, SourceError
from groundfault.logfiles.progress import Progress

__all__ = ["FAILED", "add_to"]

FAILED: Final = 1
"""Nothing could be read, or nothing that advice could be given on."""
INTERRUPTED: Final = 130

_UNITS: Final = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST_LOOK_S: Final = 3600.0


def add_to(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "advise",
        allow_abbrev=False,
        help="timeouts, volumes and limits that fit how calls really behave, as a settings diff",
        description="Reads how long calls take and proposes settings, with the reasons: about twice the 95th "
        "percentile as timeout, a volume worth judging, and a limit by Little's law. Applies nothing. "
        "Ends with 0 if there is something to say, 1 if there is not.",
    )
    sources = parser.add_argument_group("where to read; running processes by default")
    source = sources.add_mutually_exclusive_group()
    source.add_argument("--run-dir", metavar="DIR", help="where the processes report (GROUNDFAULT_RUN_DIR)")
    source.add_argument("--log", nargs="+", metavar="FILE", help="JSON log lines, plain or .gz; - is standard input")
    source.add_argument("--prometheus", metavar="URL", help="a Prometheus server")
    sources.add_argument(
        "--over", type=_duration, metavar="TIME",
        help="processes: look for so long, for rates too; logs without times: what they cover",
    )  # fmt: skip
    sources.add_argument("--window", default="1d", metavar="TIME", help="Prometheus: how far back (1d)")
    sources.add_argument("--select", metavar="MATCHERS", help="Prometheus: only these series, e.g. 'job=\"topps\"'")
    sources.add_argument(
        "--fields", metavar="OURS=THEIRS,…", help="logs: other names, e.g. duration_s=elapsed_ms:ms,resource=service"
    )
    sources.add_argument("--segment", metavar="FIELD", help="logs: look at each value of this field, e.g. plan")
    sources.add_argument("--jobs", type=_whole, metavar="N", help="logs: processes that count")
    wishes = parser.add_argument_group("what is wanted")
    wishes.add_argument("--only", metavar="PATTERN", help="only these commands, e.g. 'contest-db/*'")
    wishes.add_argument("--current", type=Path, metavar="FILE", help="the settings in force, a JSON or TOML file")
    wishes.add_argument("--service", default="*", metavar="NAME", help="for this service only (* for all)")
    wishes.add_argument("--processes", type=_whole, metavar="N", help="how many processes call a command")
    wishes.add_argument(
        "--may-cut", type=_share, default=0.001, metavar="SHARE",
        help="of the successes, what a timeout may cut off (0.1%%)",
    )  # fmt: skip
    wishes.add_argument(
        "--peak-factor",
        type=_factor,
        default=1.0,
        metavar="N",
        help="the busiest time to expect, times the busiest seen",
    )
    output = parser.add_argument_group("what comes out")
    output.add_argument("--explain", action="store_true", help="each distribution, and the reasons")
    output.add_argument("--json", action="store_true", help="print one JSON object instead")
    output.add_argument("--diff", type=Path, metavar="FILE", help="write the diff, for groundfault settings apply FILE")
    output.add_argument("--plot", type=Path, metavar="PATH", help="draw: a .svg or .png file, or a directory")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        code = _advise(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read along has read enough; nothing more may be flushed at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SourceError as error:
        shown.say(f"groundfault: {error}", sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        shown.say("groundfault: stopped; nothing is left running", sys.stderr)
        return INTERRUPTED


def _advise(options: argparse.Namespace) -> int:
    current = Current() if options.current is None else read_current(options.current)
    reading = _read(options)
    wishes = Wishes(
        may_cut=options.may_cut,
        processes=options.processes,
        peak_factor=options.peak_factor,
    )
    proposals = [
        propose(seen, current.of(options.service, seen.resource, seen.command), wishes, options.segment)
        for seen in sorted(reading.commands, key=lambda seen: seen.path)
        if options.only is None or fnmatchcase(seen.path, options.only)
    ]
    if not proposals:
        _say_nothing_found(options, reading)
        return FAILED
    for each in proposals:
        if not shown.is_nameable(each):
            each.cautions.append("That is no name that a command can have, so the settings diff leaves it out.")
    written = _write(options, proposals)
    if options.json:
        shown.say(shown.as_json(proposals, reading.notes, reading.hint, options.service))
        return 0
    _print(options, reading, proposals, written)
    return 0


def _say_nothing_found(options: argparse.Namespace, reading: Reading) -> None:
    for note in reading.notes:
        shown.say(f"groundfault: {note}", sys.stderr)
    found = ", ".join(sorted(seen.path for seen in reading.commands)[:5])
    what = f"no command is called {options.only}; there are {found}" if found else "no call of a command was found"
    shown.say(f"groundfault: {what}{f'; {reading.hint}' if reading.hint and not found else ''}", sys.stderr)


def _read(options: argparse.Namespace) -> Reading:
    if options.segment is not None and options.log is None:
        raise SourceError("only logs know segments: --segment needs --log")
    if options.prometheus is not None:
        return read_prometheus(options.prometheus, window=options.window, select=options.select)
    if options.log is not None:
        from groundfault.advise.logs import read_logs  # noqa: PLC0415  it brings what starts processes

        try:
            fields = fields_of(options.fields, options.segment)
        except ValueError as error:
            raise SourceError(f"--fields: {error}") from None
        progress = Progress(quiet=options.json and not sys.stderr.isatty())
        return read_logs(options.log, fields, over_s=options.over, jobs=options.jobs, progress=progress)
    if options.over is not None and options.over > _LONGEST_LOOK_S:
        raise SourceError(f"--over: an hour is long enough to look at processes, not {options.over:g} s")
    read = import_module("groundfault.metrics.rundir").read
    return read_processes(options.run_dir, over_s=options.over, read=read, wall=wall, sleep=sleep)


def _write(options: argparse.Namespace, proposals: list[Proposal]) -> list[str]:
    """Write what was asked for, and return a line on each file."""
    said = []
    try:
        if options.diff is not None:
            held = shown.entries(proposals, options.service)
            shown.write_entries(options.diff, held)
            said.append(
                f"{len(held)} changes are in {options.diff}; to apply them: "
                f'groundfault settings apply {options.diff} --reason "…"'
            )
        if options.plot is not None:
            said += _plotted(options, proposals)
    except OSError as error:
        raise SourceError(f"{error.filename} cannot be written: {error.strerror or error}") from None
    return said


def _plotted(options: argparse.Namespace, proposals: list[Proposal]) -> list[str]:
    try:
        from groundfault.advise.plots import MOST, write_plots  # noqa: PLC0415  part of an extra
    except ImportError:
        raise SourceError("plots need matplotlib: pip install 'groundfault[advise]'") from None
    paths = write_plots(options.plot, proposals, options.segment)
    more = len(proposals) - MOST
    left = (
        f"; {more} more commands are not in it, a directory takes them all"
        if paths == [options.plot] and more > 0
        else ""
    )
    return [f"{len(paths)} plots are in {options.plot}{left}" if len(paths) != 1 else f"a plot is in {paths[0]}{left}"]


def _print(options: argparse.Namespace, reading: Reading, proposals: list[Proposal], written: list[str]) -> None:
    fine = shown.is_fine(sys.stdout)
    shown.print_table(proposals)
    for each in proposals:
        for line in _reasons(options, each, fine=fine, alone=len(proposals) == 1):
            shown.say(line)
    for each in proposals:
        for text in each.cautions:
            shown.say(f"! {each.path}: {text}")
    lines = list(shown.diff_lines(proposals, options.service))
    shown.say("\nThe settings diff, for a person to apply:\n" if lines else "\nNothing needs to be changed.")
    for line in lines:
        shown.say(line)
    shown.say("")
    more = [] if options.explain or len(proposals) == 1 else ["--explain says why"]
    for note in (*written, *reading.notes, *([reading.hint] if reading.hint else []), *more):
        shown.say(f"* {note}")


def _reasons(options: argparse.Namespace, proposal: Proposal, *, fine: bool, alone: bool) -> Iterator[str]:
    """Yield all reasons where they are wanted or there is room; elsewhere why there is no timeout."""
    if options.explain or alone:
        yield from shown.explained(proposal, options.segment, fine=fine)
        yield ""
        return
    timeout = proposal.of("timeout_s")
    if timeout is not None and timeout.value is None:
        yield f"{proposal.path}: {timeout.why}"


_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?\Z")


def _duration(text: str) -> float:
    found = _DURATION.match(text.strip())
    value = float(found[1]) * _UNITS[found[2] or "s"] if found else 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a time such as 10s, 5m or 2h, not {text!r}")
    return value


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:7]) <= 100_000:  # noqa: PLR2004  more is a slip
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 100000, not {text!r}")
    return int(text[:7])


def _share(text: str) -> float:
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = float("nan")
    if not 0.00001 <= value <= 0.05:  # noqa: PLR2004  one in a hundred thousand; as many as lie above the p95
        raise argparse.ArgumentTypeError(f"must be a share from 0.001% to 5%, not {text!r}")
    return value


def _factor(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0.1 <= value <= 100:  # noqa: PLR2004  a hundred times the busiest is no forecast
        raise argparse.ArgumentTypeError(f"must be a number from 0.1 to 100, not {text!r}")
    return value
