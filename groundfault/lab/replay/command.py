"""``groundfault replay``: its options, and what it prints."""

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from groundfault.errors import GroundFaultError
from groundfault.logfiles.progress import Progress

__all__ = ["FAILED", "USAGE", "add_to"]

FAILED: Final = 1
"""Nothing could be read, or nothing that a plan could be made of; or the run missed a bound."""
USAGE: Final = 2
INTERRUPTED: Final = 130

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_OF_READING: Final = ("out", "jobs", "json")
_OF_RUNNING: Final = (
    *("host", "yes_this_host", "scale", "speed", "methods", "processes", "deadline", "gate", "capacity", "run_file"),
    *("seed", "variant"),
)


class _UsageError(Exception):
    """The command line makes no sense; the message says why."""


def add_to(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "replay",
        allow_abbrev=False,
        help="traffic that was, from access logs, driven at any scale",
        description="Turns access logs into an anonymous traffic plan, and drives it. 'replay read LOG …' writes it, "
        "'replay run PLAN' drives it, 'replay LOG … --host URL' does both. Ends with 0 if all went well and every gate "
        "is met, 1 if not, 2 if the command line makes no sense, 3 if the run is void.",
    )
    parser.add_argument(
        "words", nargs="+", metavar="read|run|FILE", help="what to do, and with what; - is standard input"
    )
    parser.add_argument("--from", dest="since", metavar="TIME", help="begin there: 18:00, 2026-11-22T18:00 or 90s")
    parser.add_argument("--for", dest="for_s", type=_duration, metavar="TIME", help="so long, as 90s, 10m or 2h")
    reading = parser.add_argument_group("reading")
    reading.add_argument("--out", type=Path, metavar="FILE", help="where the plan goes")
    reading.add_argument("--jobs", type=_whole, metavar="N", help="processes that read")
    reading.add_argument("--json", action="store_true", default=None, help="print what was read as one JSON object")
    running = parser.add_argument_group("running")
    running.add_argument("--host", metavar="URL", help="what the load goes to; on this machine, unless confirmed")
    running.add_argument(
        "--yes-this-host", metavar="NAME", help="confirm that this host, not this machine, may be loaded"
    )
    running.add_argument("--scale", type=_factor, metavar="N", help="times the rates that were (1)")
    running.add_argument("--speed", type=_factor, metavar="N", help="so many times as fast, at the same rates (1)")
    running.add_argument("--methods", type=_methods, metavar="LIST", help="what is sent (GET,HEAD)")
    running.add_argument("--processes", type=_whole, metavar="N", help="processes that send (1)")
    running.add_argument("--deadline", type=_factor, metavar="S", help="seconds after which a request is given up (1)")
    running.add_argument("--gate", action="append", metavar="EXPR", help="a bound to hold, as goodput@spike>=0.85")
    running.add_argument("--capacity", type=_factor, metavar="RPS", help="good answers a second that are possible")
    running.add_argument("--run-file", type=Path, metavar="FILE", help="write the run there, for groundfault report")
    running.add_argument("--seed", metavar="TEXT", help="the same seed gives the same arrivals")
    running.add_argument("--variant", choices=("groundfault", "plain-503", "unprotected"), help="a word for the report")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        code = _replay(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read along has read enough; nothing more may be flushed at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except _UsageError as error:
        return _fail(f"{error}; see groundfault replay --help", USAGE)
    except GroundFaultError as error:
        return _fail(str(error), FAILED)
    except OSError as error:
        return _fail(f"{error.filename} cannot be written: {error.strerror or error}", FAILED)
    except KeyboardInterrupt:
        return _fail("stopped; nothing is left running", INTERRUPTED)


def _fail(message: str, code: int) -> int:
    _say(f"groundfault: {message}", error=True)
    return code


def _say(text: str, *, error: bool = False) -> None:
    file = sys.stderr if error else sys.stdout
    encoding = file.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), file=file)


def _replay(options: argparse.Namespace) -> int:
    what, *names = options.words
    if what not in {"read", "run"}:
        what, names = "both", options.words
    elif not names:
        raise _UsageError(f"replay {what} needs {'a log' if what == 'read' else 'a plan'}")
    _refuse_others(options, what)
    if what == "read":
        return _read(options, names)
    host = _host(options)
    if what == "run":
        if len(names) > 1:
            raise _UsageError(f"replay run takes one plan, not {len(names)}")
        return _drive(options, Path(names[0]), host)
    with TemporaryDirectory(prefix="groundfault-replay-") as directory:
        options.out = options.out or Path(directory) / "plan.json"
        _write(options, names, None)
        return _drive(options, options.out, host)


def _refuse_others(options: argparse.Namespace, what: str) -> None:
    foreign = {"read": _OF_RUNNING, "run": _OF_READING, "both": ("json",)}[what]
    given = [f"--{name.replace('_', '-')}" for name in foreign if getattr(options, name) is not None]
    if given:
        raise _UsageError(f"{given[0]} does not go with replay {what if what != 'both' else 'of a log with --host'}")


def _read(options: argparse.Namespace, names: Sequence[str]) -> int:
    _write(options, names, _within(options))
    return 0


def _write(options: argparse.Namespace, names: Sequence[str], within: tuple[float, float] | None) -> None:
    from groundfault.lab.replay import shown  # noqa: PLC0415  it brings what starts processes
    from groundfault.lab.replay.reading import read_logs  # noqa: PLC0415  as above

    progress = Progress(quiet=bool(options.json) and not sys.stderr.isatty(), told="requests")
    read = read_logs(names, within=within, jobs=options.jobs, progress=progress)
    if options.out is not None:
        read.plan.write(options.out)
    if options.json:
        _say(json.dumps(shown.as_json(read), indent=1))
        return
    for line in shown.said_of(read):
        _say(line)
    if options.out is not None:
        _say(f"plan      {options.out}")


def _within(options: argparse.Namespace) -> tuple[float, float] | None:
    """Return what ``--from`` and ``--for`` ask for of a log, which has no day of its own yet."""
    if options.since is None:
        if options.for_s is not None:
            raise _UsageError("--for needs --from here, as --from 2026-11-22T18:00")
        return None
    try:
        start = datetime.fromisoformat(options.since)
    except ValueError:
        raise _UsageError(
            f"--from must be a date with a time here, as 2026-11-22T18:00, not {options.since!r}"
        ) from None
    began = (start if start.tzinfo else start.replace(tzinfo=UTC)).timestamp()
    return began, began + (options.for_s or float("inf"))


def _host(options: argparse.Namespace) -> str:
    if options.host is None:
        raise _UsageError("say what the load goes to: --host http://127.0.0.1:8000")
    from groundfault.lab.replay.driving import HostError, checked_host  # noqa: PLC0415  it brings what starts processes

    try:
        return checked_host(options.host, options.yes_this_host)
    except HostError as error:
        raise _UsageError(str(error)) from None


def _drive(options: argparse.Namespace, path: Path, host: str) -> int:
    missing = [name for name in ("locust", "gevent") if find_spec(name) is None]
    if missing:
        return _fail(f"a replay is sent by {' and '.join(missing)}: pip install 'groundfault[lab]'", FAILED)
    from groundfault.lab.replay import driving, shown  # noqa: PLC0415  it brings what starts processes
    from groundfault.lab.replay.plan import Plan  # noqa: PLC0415  as above
    from groundfault.lab.replay.replaying import methods_of  # noqa: PLC0415  as above
    from groundfault.lab.replay.traffic import traffic_of  # noqa: PLC0415  as above

    speed, methods = options.speed or 1.0, options.methods or "GET,HEAD"
    traffic = traffic_of(
        Plan.load(path),
        since=options.since,
        for_s=options.for_s,
        scale=options.scale or 1.0,
        methods=methods_of(methods),
    )
    for line in shown.said_of_traffic(traffic, speed, host, methods):
        _say(line, error=True)
    asked: dict[str, str | float] = {
        "scale": options.scale or 1.0,
        "scale-time": 1.0 / speed,
        "since": options.since or "",
        "for-s": options.for_s or 0.0,
        "methods": methods,
    }
    for name in ("deadline", "capacity", "run_file", "seed", "variant"):
        if getattr(options, name) is not None:
            asked[name.replace("_", "-")] = getattr(options, name)
    return driving.replay(path, host, asked, processes=options.processes or 1, gates=options.gate or [])


_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(s|m|h|d)?\Z")


def _duration(text: str) -> float:
    found = _DURATION.match(text.strip())
    value = float(found[1]) * _UNITS[found[2] or "s"] if found else 0.0
    if not 1 <= value <= 7 * _UNITS["d"]:
        raise argparse.ArgumentTypeError(f"must be a time from 1s to 7d, such as 90s, 10m or 2h, not {text!r}")
    return value


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:4]) <= 256 or len(text) > 3:  # noqa: PLR2004  more is a slip
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 256, not {text!r}")
    return int(text)


def _factor(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0.001 <= value <= 100_000:  # noqa: PLR2004  more is a slip
        raise argparse.ArgumentTypeError(f"must be a number from 0.001 to 100000, not {text!r}")
    return value


def _methods(text: str) -> str:
    from groundfault.lab.replay.replaying import methods_of  # noqa: PLC0415  only where it is needed

    try:
        return ",".join(sorted(methods_of(text)))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
