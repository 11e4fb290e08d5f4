"""``groundfault report`` and ``groundfault gate``: what a run.json says, to people and to pipelines."""

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from groundfault.lab.reports.judging import Judged
    from groundfault.lab.runs.record import Run

__all__ = ["add_to"]

FAILED: Final = 1
USAGE: Final = 2
_MOST: Final = 6
_NEEDS: Final = ("jinja2", "matplotlib")


def add_to(subparsers: Any) -> None:
    """Add both subcommands to the command line's."""
    report: argparse.ArgumentParser = subparsers.add_parser(
        "report",
        allow_abbrev=False,
        help="make a page of a run, or of several beside each other",
        description="Makes one HTML page that needs nothing else: of one run, or of up to six against the first.",
    )
    report.add_argument("runs", type=Path, nargs="+", metavar="run.json", help="what a run wrote")
    report.add_argument(
        "--out", type=Path, metavar="FILE", help="the page (report.html; none if only an image is wanted)"
    )
    report.add_argument("--image", type=Path, metavar="FILE", help="the headline plot as .svg or .png")
    report.add_argument("--dark", action="store_true", help="the image for dark surroundings")
    report.add_argument("--anyway", action="store_true", help="compare what cannot be compared, with a warning")
    report.set_defaults(run=_report)

    gate: argparse.ArgumentParser = subparsers.add_parser(
        "gate",
        allow_abbrev=False,
        help="judge a run, for a pipeline",
        description="Judges a run by bounds such as 'goodput@spike>=0.85', or by its own if none is given. Ends with "
        "0: passed, 1: failed, 3: void, for what measured it was at fault, 2: there is nothing to judge, or nothing to "
        "judge by.",
    )
    gate.add_argument("run_file", type=Path, metavar="run.json", help="what a run wrote")
    gate.add_argument("bounds", nargs="*", metavar="bound", help="measure[.stream][@span]>=bound, or with <=")
    gate.add_argument("--rules", type=Path, metavar="FILE", help="a TOML file with bounds, baseline and tolerance")
    gate.add_argument(
        "--baseline", type=Path, metavar="FILE", help="an earlier run that this one must not be worse than"
    )
    gate.add_argument("--tolerance", metavar="P%", help="how much worse than the baseline is let pass (5%%)")
    gate.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    gate.add_argument("--junit", type=Path, metavar="FILE", help="write the result as JUnit XML, too")
    gate.set_defaults(run=_gate)


def _fail(message: str, code: int) -> int:
    print(f"groundfault: {message}", file=sys.stderr)  # noqa: T201  this is the command line
    return code


class _UnreadableError(Exception):
    """A file cannot be read; the message says which and why."""


def _read(path: Path) -> "Run":
    from groundfault.lab.runs.record import Run, RunError  # noqa: PLC0415  other commands need not wait for it

    try:
        return Run.read(path)
    except RunError as error:
        raise _UnreadableError(str(error)) from error
    except OSError as error:
        raise _UnreadableError(f"cannot read {path}: {error.strerror}") from error


def _report(options: argparse.Namespace) -> int:
    missing = [name for name in _NEEDS if find_spec(name) is None]
    if missing:
        return _fail(f"a report needs {', '.join(missing)}: pip install 'groundfault[lab]'", FAILED)
    if len(options.runs) > _MOST:
        return _fail(f"runs must be at most {_MOST}, or nobody can tell them apart, not {len(options.runs)}", USAGE)
    image: Path | None = options.image
    if image is not None and image.suffix not in {".svg", ".png"}:
        return _fail(f"--image must end in .svg or .png, not {image.name!r}", USAGE)
    if options.dark and image is None:
        return _fail("--dark is for --image; the page follows its reader's setting", USAGE)
    try:
        runs = [_read(path) for path in options.runs]
    except _UnreadableError as error:
        return _fail(str(error), FAILED)
    page = options.out or (Path("report.html") if image is None else None)
    return _write(runs, [path.stem for path in options.runs], page, image, options)


def _write(
    runs: Sequence["Run"], stems: Sequence[str], page: Path | None, image: Path | None, options: argparse.Namespace
) -> int:
    from groundfault.lab.reports import comparing, wording  # noqa: PLC0415  other commands need not wait for it

    names = comparing.labels(runs, stems)
    mind = (
        {names[0]: [f"it is void, and nothing is compared with it: {wording.shown(runs[0].void[0])}"]}
        if runs[0].void
        else {}
    )
    for name, run in zip(names[1:], runs[1:], strict=True):
        found = comparing.obstacles(runs[0], run)
        if found.against and not options.anyway:
            reasons = "; ".join(found.against)
            return _fail(f"{name} cannot be compared with {names[0]}: {reasons}. --anyway does it all the same", USAGE)
        mind[name] = [*(f"it cannot really be compared: {reason}" for reason in found.against), *found.mind]
    for name, sentences in mind.items() if len(runs) > 1 else ():
        for sentence in sentences:
            print(f"groundfault: mind: {name}: {sentence}", file=sys.stderr)  # noqa: T201  this is the command line
    from groundfault.lab.reports import making  # noqa: PLC0415  needs what was just looked for

    target = page or image
    try:
        for target in filter(None, (page, image)):
            target.parent.stat()  # what is not there is said before anything is drawn
        target = page or image
        if page is not None:
            page.write_text(making.page_of(runs, names, mind), encoding="utf-8")
            print(f"report: {page.resolve()}")  # noqa: T201  this is the command line
        if image is not None:
            target = image
            image.write_bytes(making.image_of(runs, names, image.suffix, dark=options.dark))
            print(f"image: {image.resolve()}")  # noqa: T201  this is the command line
    except OSError as error:
        return _fail(f"cannot write to {target}: {error.strerror}", FAILED)
    return 0


def _gate(options: argparse.Namespace) -> int:
    from groundfault.lab.reports import judging  # noqa: PLC0415  other commands need not wait for it
    from groundfault.lab.runs.measures import Bound, MeasureError  # noqa: PLC0415  likewise

    try:
        rules = judging.Rules() if options.rules is None else judging.read_rules(options.rules)
        bounds = [*rules.bounds, *map(Bound.parse, options.bounds)]
        baseline: Path | None = options.baseline or rules.baseline
        if options.tolerance is not None and baseline is None:
            return _fail("--tolerance is for --baseline", USAGE)
        said = rules.tolerance if options.tolerance is None else judging.tolerance_of(options.tolerance)
        found = judging.judge(
            _read(options.run_file),
            bounds,
            baseline=None if baseline is None else _read(baseline),
            tolerance=0.05 if said is None else said,
        )
    except (MeasureError, judging.GateError, _UnreadableError) as error:
        return _fail(str(error), USAGE)
    except OSError as error:
        return _fail(f"cannot read {options.rules}: {error.strerror}", USAGE)
    if options.junit is not None:
        from groundfault.lab.reports.junit import junit  # noqa: PLC0415  only who asks needs XML

        try:
            options.junit.write_text(junit(found), encoding="utf-8")
        except OSError as error:
            return _fail(f"cannot write to {options.junit}: {error.strerror}", USAGE)
    _say(found, options)
    return judging.EXIT_CODES[found.verdict]


def _say(found: "Judged", options: argparse.Namespace) -> None:
    from groundfault.lab.reports import judging, wording  # noqa: PLC0415  as above

    if options.json:
        print(json.dumps(judging.as_dict(found)))  # noqa: T201  asked for on the command line
        return
    for check in found.checks:
        print(wording.line(check))  # noqa: T201  this is the command line
    for reason in found.void:
        print(f"VOID    {wording.shown(reason)}")  # noqa: T201  this is the command line
    failed = sum(check.met is False for check in found.checks)
    bounds = sum(check.met is not None for check in found.checks)
    counted = f"{failed} of {bounds} missed" if failed else f"{bounds} of {bounds} met"
    if found.void:
        counted = "it says nothing, whatever its figures are"
    print(f"{found.verdict.value}: {wording.name_of_run(found.run)}: {counted}")  # noqa: T201  this is the command line
