"""From the command line's options to the files of one demo."""

import json
import platform
import sqlite3
import sys
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from groundfault.lab import phases, report
from groundfault.lab.demo import Plan, Recorded, StoppedError, run, stopped_by_signals
from groundfault.lab.display import Display, results_table
from groundfault.lab.goals import JUDGED_PHASE, judge
from groundfault.lab.measure import phase_metrics
from groundfault.lab.processes import DemoError

__all__ = ["DemoError", "StoppedError", "demo", "summary"]

_RUN_FILE = "run-{}.json"
"""One for each phase, as `groundfault report` and `groundfault gate` read it."""

_NAMED = ("groundfault", "gunicorn", "uvicorn", "starlette", "werkzeug", "requests", "locust")


def demo(
    *, out: Path, factor: float, quick: bool, as_json: bool, keep_logs: bool, scale: float, watch: int | None = None
) -> bool:
    """Run the demo, write the report into ``out``, and return whether the protected phase says something.

    Raises :class:`DemoError` or :class:`StoppedError`; by then nothing that was started is left running.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        for old in (out / "summary.json", *out.glob(_RUN_FILE.format("*"))):
            old.unlink(missing_ok=True)  # an old one must not pass for this run's
    except OSError as error:
        raise DemoError(f"cannot write to {out}: {error.strerror}; choose another directory with --out") from error
    plan = (Plan.quick() if quick else Plan()).scaled(scale, factor=factor)
    with stopped_by_signals(), redirect_stdout(sys.stderr):
        with Display(Console(stderr=True)) as display:
            recorded = run(plan, display, keep=out / "logs" if keep_logs else None, watch=watch)
            display.log.info("writing the report", directory=str(out))
        results = summary(recorded)
        report.write(out, recorded, results)
    (out / "summary.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    for name, phase in phases.runs(recorded, results["versions"]).items():
        phase.write(out / _RUN_FILE.format(name))
    results_table(results["phases"], judge(results["phases"]), sys.stderr if as_json else sys.stdout)
    print(f"report: {(out / 'report.html').resolve()}", file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(json.dumps(results, indent=2))  # noqa: T201  asked for on the command line
    return not results["phases"][JUDGED_PHASE]["void"]


def summary(recorded: Recorded) -> dict[str, Any]:
    """Return what summary.json holds; docs/reference/demo.md describes each field."""
    curve = recorded.curve
    phases = {
        phase.value: phase_metrics(measured, curve, recorded.capacity_rps).as_dict()
        for phase, measured in recorded.phases.items()
    }
    return {
        "capacity_rps": recorded.capacity_rps,
        "phases": phases,
        "targets_missed": [line.key for line in judge(phases) if line.met is False],
        "curve": {
            "base_rps": curve.base_rps,
            "factor": curve.factor,
            "before_s": curve.before_s,
            "spike_s": curve.spike_s,
            "after_s": curve.after_s,
            "rise_s": curve.rise_s,
        },
        "versions": {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "sqlite": sqlite3.sqlite_version,
            **{name: version(name) for name in _NAMED},
        },
    }
