"""The scenarios of locustfiles/, each with and without protection: what came of them, beside what is promised.

    python bench/scenarios.py [--scenario NAME] [--variant NAME] [--scale-time X] [--runs DIR] [--write PAGE]

Each runs against its own local target, one after the other, about 45 seconds each and twelve minutes in all.
Every run writes its ``run.json`` to ``--runs``. A run that is void, for the generator was late or a service died, is
made again, three times in all. A promise is one of GroundFault's: a variant without protection is expected to break
at least one of them, and if it does not, the scenario shows nothing, which is a failure too.
``--write`` puts a table for each scenario between its markers in a page such as docs/reference/scenarios.md.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from groundfault.lab.runs.record import Check, Run, RunError, Verdict

ROOT = Path(__file__).resolve().parent.parent
FILES = ROOT / "locustfiles"
NAMES = (
    "trial_by_query",
    "thundering_herd",
    "replica_failover",
    "nfl_sunday",
    "retry_storm",
    "rolling_deploy",
    "sick_node",
)
PROTECTED = "groundfault"
VARIANTS = (PROTECTED, "plain-503", "unprotected")
USUAL = (PROTECTED, "unprotected")
SICKNESSES = ("slow", "handled")
"""The kinds that ``sick_node`` is played with besides its usual one."""

TRIES = 3
LONGEST_S = 300.0


@dataclass(frozen=True, slots=True)
class Play:
    """One scenario, with options of its own beside those of the command line."""

    file: str
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What its row and its markers are called."""
        return "-".join([self.file.replace("_", "-"), *(word for word in self.options if not word.startswith("-"))])


def plays(wanted: Sequence[str]) -> list[Play]:
    """Return what is to be played, in order."""
    found = []
    for name in wanted:
        found.append(Play(name))
        if name == "sick_node":
            found += [Play(name, ("--sickness", kind)) for kind in SICKNESSES]
    return found


def play(one: Play, variant: str, words: Sequence[str], directory: Path) -> Run:
    """Run it once, again if the run is void, and return the last one. Raises RunError if there is none."""
    file = directory / f"{one.name}-{variant}.json"
    command = ["locust", "-f", str(FILES / f"{one.file}.py"), "--headless", "--only-summary", "--variant", variant]
    command += ["--run-file", str(file), *words, *one.options]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = None
    for number in range(TRIES):
        file.unlink(missing_ok=True)
        with (directory / f"{one.name}-{variant}.log").open("w") as log:
            code = subprocess.run(  # noqa: S603  a fixed program with arguments made here, no shell
                [sys.executable, "-m", *command],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": paths},
                timeout=LONGEST_S,
                check=False,
            ).returncode
        if not file.exists():
            raise RunError(f"{one.name} ended with {code} and left no run; its log: {log.name}")
        run = Run.read(file)
        if run.verdict is not Verdict.VOID:
            break
        print(f"  void, try {number + 1} of {TRIES}: {'; '.join(run.void)}", file=sys.stderr, flush=True)
    assert run is not None
    return run


def judged_by(run: Run, protected: Run | None) -> list[Check]:
    """Return the run's figures with the bounds of the protected one."""
    if run.variant == PROTECTED or protected is None:
        return run.checks
    bounds = {(check.measure, check.at_least, check.at_most): check for check in protected.checks}
    values = {check.measure: check.value for check in run.checks}
    return [replace(check, value=values.get(measure)) for (measure, _, _), check in bounds.items()]


def table(runs: Mapping[str, Run]) -> list[str]:
    """Return a markdown table: a line for each promise, a column for each variant."""
    protected = runs.get(PROTECTED)
    columns = {variant: judged_by(run, protected) for variant, run in runs.items()}
    first = next(iter(columns.values()))
    lines = ["| measure | promised | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]
    for number, check in enumerate(first):
        values = [_value(checks[number]) for checks in columns.values()]
        lines.append(f"| `{check.measure}` | {_bound(check)} | " + " | ".join(values) + " |")
    return lines


def _value(check: Check) -> str:
    shown = "never" if check.value is None else f"{check.value:.3g}"
    return f"**{shown}**" if check.met is False else shown


def _bound(check: Check) -> str:
    if check.at_least is not None:
        return f"≥ {check.at_least:g}"
    return "" if check.at_most is None else f"≤ {check.at_most:g}"


def objections(one: Play, runs: Mapping[str, Run]) -> list[str]:
    """Return what is not as it should be."""
    protected = runs.get(PROTECTED)
    found = []
    for variant, run in runs.items():
        missed = sum(check.met is False for check in judged_by(run, protected))
        if run.verdict is Verdict.VOID:
            found.append(f"{one.name}, {variant}: void: {'; '.join(run.void)}")
        elif variant == PROTECTED and missed:
            found.append(f"{one.name}: {missed} of {len(run.checks)} promises broken")
        elif variant == "unprotected" and protected is not None and not missed:
            found.append(f"{one.name}: all promises are kept without protection, too: they show nothing")
    return found


def written(text: str, name: str, lines: Sequence[str]) -> str:
    """Return a page with these lines between the markers of that name. ValueError if it has none."""
    begin, end = f"<!-- figures: {name} -->", "<!-- end of figures -->"
    before, found, rest = text.partition(begin)
    if not found or end not in rest:
        raise ValueError(f"the page must hold {begin} and then {end}")
    return before + "\n".join([begin, "", *lines, "", end]) + rest.partition(end)[2]


def main() -> int:
    """Run what was asked for; return 0 if all is as it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--scenario", action="append", choices=NAMES, help="only this one; may be repeated")
    parser.add_argument("--variant", action="append", choices=VARIANTS, help="only this one; may be repeated")
    parser.add_argument("--scale-time", type=float, default=1.0, help="multiplies all times; shorter runs are noisier")
    parser.add_argument("--runs", type=Path, help="where the run.json files go; a new directory below /tmp by default")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables between the markers of this page")
    parser.add_argument("--max-lag-ms", type=float, default=10.0, help="a run whose generator was later is void")
    options = parser.parse_args()
    words = [f"--scale-time={options.scale_time}", f"--max-lag-ms={options.max_lag_ms}"]
    directory = options.runs or Path(tempfile.mkdtemp(prefix="groundfault-scenarios-"))
    directory.mkdir(parents=True, exist_ok=True)
    found: list[str] = []
    for one in plays(options.scenario or NAMES):
        runs: dict[str, Run] = {}
        try:
            for variant in options.variant or USUAL:
                runs[variant] = play(one, variant, words, directory)
        except (RunError, subprocess.TimeoutExpired) as error:
            print(error, file=sys.stderr)
            return 1
        lines = table(runs)
        print(f"\n{one.name}: " + ", ".join(f"{variant} {run.verdict.value}" for variant, run in runs.items()))
        print("\n".join(lines), flush=True)
        found += objections(one, runs)
        if options.write:
            page = options.write.read_text(encoding="utf-8")
            options.write.write_text(written(page, one.name, lines), encoding="utf-8")
    print(f"\nruns: {directory}")
    for objection in found:
        print(objection, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
