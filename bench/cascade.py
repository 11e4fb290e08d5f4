"""One overloaded or broken service at the end of a chain: what becomes of everybody else.

    python bench/cascade.py [--quick] [--minute] [--services N] [--scenario NAME] [--variant NAME] [--seed N]
                            [--tries N] [--json FILE] [--write PAGE] [--keep DIR]

Real chains of three and of five services, each a process of its own on loopback, users who wait a second, and an
open-loop generator; the same arrivals for every variant. docs/reference/cascade.md says what is measured and how.
``--quick``: three services, groundfault and plain, shorter runs; under three minutes.
``--minute`` adds the one-minute spike with users who retry. A run that is void is made once more, but not with
``--quick``.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from cascading import report
from cascading.chain import Chain
from cascading.judge import judge
from cascading.parts import Variant
from cascading.scenarios import SCENARIOS, Scenario

from groundfault.lab.demo import StoppedError, stopped_by_signals
from groundfault.lab.processes import DemoError

_SHOWN = ("gunicorn", "requests", "interlock-cb")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="three services, groundfault and plain, shorter runs")
    parser.add_argument("--minute", action="store_true", help="add the one-minute spike with users who retry")
    parser.add_argument("--services", type=int, action="append", choices=(3, 5), help="only so many; may be repeated")
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS), help="only this one; may be repeated")
    parser.add_argument("--variant", action="append", choices=list(Variant), help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, default=1, help="another one, other arrivals")
    parser.add_argument("--tries", type=int, default=None, help="runs of each until one is not void (2, --quick 1)")
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables between the markers of this page")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep logs, journals and single requests here")
    return parser.parse_args()


def _planned(options: argparse.Namespace) -> list[tuple[Scenario, int, Variant]]:
    """Return what is to be run, in the order of the report."""
    wanted = options.scenario or [name for name in SCENARIOS if name != "minute"]
    if options.minute and "minute" not in wanted:
        wanted.append("minute")
    quick_variants = [Variant.GROUNDFAULT, Variant.PLAIN]
    variants = options.variant or (quick_variants if options.quick else None)
    planned = []
    for name in (name for name in SCENARIOS if name in wanted):
        scenario = SCENARIOS[name]
        for services in options.services or ((3,) if options.quick else (3, 5)):
            planned += [
                (scenario.quick() if options.quick else scenario, services, Variant(variant))
                for variant in variants or scenario.variants
            ]
    return planned


def _run(scenario: Scenario, services: int, variant: Variant, options: argparse.Namespace) -> dict[str, Any]:
    """Run once, once more if the machine or the generator was at fault; return the row."""
    row: dict[str, Any] = {}
    for _ in range(options.tries or (1 if options.quick else 2)):
        row = _attempt(scenario, services, variant, options)
        if not row["void"]:
            break
    return row


def _attempt(scenario: Scenario, services: int, variant: Variant, options: argparse.Namespace) -> dict[str, Any]:
    if options.keep:
        directory = (options.keep / f"{scenario.name}-{services}-{variant}").resolve()
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    else:
        directory = Path(tempfile.mkdtemp(prefix="cascade-"))
    kept = bool(options.keep)
    try:
        with Chain(scenario, variant, services, directory) as chain:
            recorded = chain.run(options.seed)
    except DemoError:
        kept = True  # its message names a log
        raise
    finally:
        if not kept:
            shutil.rmtree(directory, ignore_errors=True)
    named = {"scenario": scenario.name, "title": scenario.title, "services": services, "variant": variant.value}
    return {**named, "seed": options.seed, **judge(scenario, recorded).as_dict()}


def _machine() -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in _SHOWN)
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores, {system}, {versions}."


def main() -> int:
    """Run what was asked for, print a line per run and all of them as markdown, and return the exit code."""
    options = _options()
    try:
        if options.write:
            report.around(options.write)  # before an hour has been spent on what cannot be written
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    rows: list[dict[str, Any]] = []
    planned = _planned(options)
    try:
        with stopped_by_signals():
            for number, (scenario, services, variant) in enumerate(planned, 1):
                if not rows or rows[-1]["scenario"] != scenario.name:
                    print(f"\n{scenario.name}: {scenario.title}\n{report.title()}", flush=True)
                rows.append(_run(scenario, services, variant, options))
                print(f"{report.line(rows[-1])}", flush=True)
                print(f"{number} of {len(planned)} runs", file=sys.stderr, flush=True)
                if options.json:
                    options.json.write_text(json.dumps(rows, indent=1) + "\n")
    except StoppedError as stopped:
        print("stopped; nothing is left running", file=sys.stderr)
        return 128 + int(stopped.args[0])
    except DemoError as error:
        print(error, file=sys.stderr)
        return 1
    tables = report.markdown(rows, machine=_machine())
    print("\n" + tables)
    if options.write:
        report.write(options.write, tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
