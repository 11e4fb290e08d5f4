"""``groundfault simulate``: a scenario file, several seeds and variants, a table of verdicts."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from groundfault.lab.runs.record import Check, Run, Verdict
from groundfault.lab.simulator.model import VARIANTS, Protection

if TYPE_CHECKING:
    from groundfault.lab.simulator.running import Spread

__all__ = ["add_to"]

FAILED: Final = 1
USAGE: Final = 2
VOID: Final = 3
STOPPED: Final = 130
_CODES: Final = {Verdict.PASSED: 0, Verdict.FAILED: FAILED, Verdict.VOID: VOID}


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "simulate",
        allow_abbrev=False,
        help="a fleet in virtual time, driving the real shedding and breaker cores",
        description="Simulates a scenario file (docs/reference/simulator.md) and prints what became of it. "
        "Ends with 0 if each bound was met, 1 if one was missed, 2 if the scenario makes no sense, 3 if a run is void.",
    )
    parser.add_argument("scenario", type=Path, metavar="SCENARIO.toml", help="what is simulated")
    parser.add_argument("--seed", type=_whole(0), default=1, metavar="N", help="the first seed (1)")
    parser.add_argument("--seeds", type=_whole(1), default=1, metavar="N", help="how many seeds, from --seed on (1)")
    parser.add_argument("--jobs", type=_whole(1), default=1, metavar="N", help="processes that simulate at once (1)")
    parser.add_argument(
        "--variant",
        action="append",
        choices=(*VARIANTS, "all"),
        help="what protects services that do not say so themselves; repeatable (what the scenario says)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="changes",
        metavar="PLACE=VALUE",
        help="change the scenario, as --set services.saber.instances=3; repeatable",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("simulated"), metavar="DIR", help="where each run's run.json goes (simulated)"
    )
    parser.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    parser.set_defaults(run=_run)


def _whole(low: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {low}, not {text!r}")
        return int(text)

    return read


def _run(options: argparse.Namespace) -> int:
    from groundfault.lab.runs.measures import MeasureError  # noqa: PLC0415  what no other command needs
    from groundfault.lab.simulator import running, scenario  # noqa: PLC0415  as above
    from groundfault.lab.simulator.cores import SwitchedOffError  # noqa: PLC0415  as above

    try:
        said = scenario.read(options.scenario, options.changes)
        options.out.mkdir(parents=True, exist_ok=True)
    except (scenario.ScenarioError, OSError) as error:
        return _fail(str(error), USAGE)
    variants = _variants(options.variant, said.variant)
    jobs = running.jobs_of(said, seed=options.seed, seeds=options.seeds, variants=variants)
    runs: list[Run] = []
    try:
        with _progress(said.name, len(jobs) * said.total_s) as told:
            for run in running.run_all(jobs, processes=options.jobs, progress=told):
                run.write(options.out / f"{run.name}-{run.variant}-{run.seed}.json")
                runs.append(run)
    except KeyboardInterrupt:
        return _fail(f"stopped; {len(runs)} of {len(jobs)} runs are in {options.out}", STOPPED)
    except (MeasureError, SwitchedOffError) as error:
        return _fail(str(error), USAGE)
    except OSError as error:
        return _fail(str(error), FAILED)
    by_variant = {each.value: [run for run in runs if run.variant == each.value] for each in variants}
    told_of = {variant: (running.verdict_of(each), running.spreads(each), each) for variant, each in by_variant.items()}
    print(_as_json(said.name, told_of) if options.json else "\n\n".join(_as_tables(told_of, options.out)))  # noqa: T201  this is the command line
    return _CODES[running.verdict_of(runs)]


def _variants(asked: Sequence[str] | None, usual: Protection) -> list[Protection]:
    if asked is None:
        return [usual]
    if "all" in asked:
        return list(Protection)
    return [Protection(each) for each in dict.fromkeys(asked)]


_Told = dict[str, tuple[Verdict, "list[Spread]", list[Run]]]


def _as_json(name: str, told: _Told) -> str:
    return json.dumps(
        {
            "scenario": name,
            "variants": {
                variant: {
                    "verdict": verdict.value,
                    "seeds": [run.seed for run in runs],
                    "void": [why for run in runs for why in run.void],
                    "checks": [
                        {
                            "measure": each.check.measure,
                            "mean": each.mean,
                            "deviation": each.deviation,
                            "least": each.least,
                            "most": each.most,
                            "at_least": each.check.at_least,
                            "at_most": each.check.at_most,
                            "missed_by_seeds": list(each.missed),
                        }
                        for each in spreads
                    ],
                }
                for variant, (verdict, spreads, runs) in told.items()
            },
        }
    )


def _as_tables(told: _Told, out: Path) -> Iterator[str]:
    for variant, (verdict, spreads, runs) in told.items():
        seeds = "1 seed" if len(runs) == 1 else f"{len(runs)} seeds"
        lines = [f"{runs[0].title}, {variant}, {seeds}: {verdict.value}"]
        lines += [f"  void: {why}" for run in runs for why in run.void]
        width = max((len(each.check.title) for each in spreads), default=0)
        for each in spreads:
            missed = f"  MISSED by seed {', '.join(each.missed)}" if each.missed else ""
            lines.append(
                f"  {each.check.title:<{width}}  {_shown(each):>22}  {_bound(each.check):<10}{missed}".rstrip()
            )
        yield "\n".join(lines)
    yield f"The runs are in {out}."


def _shown(spread: "Spread") -> str:
    if spread.mean is None:
        return "-"
    text = _figure(spread.mean, spread.check.unit)
    if spread.deviation:
        text += f" ± {_figure(spread.deviation, spread.check.unit)}"
    return text


def _figure(value: float, unit: str) -> str:
    return f"{value:.3f}" if unit == "share" else f"{value:,.1f} {unit}".rstrip()


def _bound(check: Check) -> str:
    if check.at_least is not None:
        return f">= {check.at_least:g}"
    return "" if check.at_most is None else f"<= {check.at_most:g}"


@contextmanager
def _progress(name: str, total_s: float) -> Iterator[Callable[[float], None] | None]:
    """Show a bar on a terminal, if rich is there."""
    if not sys.stderr.isatty() or find_spec("rich") is None:
        yield None
        return
    from rich.console import Console  # noqa: PLC0415  needs what was just looked for
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn  # noqa: PLC0415  as above

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} s"),
    )
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(f"simulating {name}", total=total_s)
        yield lambda done: bar.update(task, completed=done)


def _fail(message: str, code: int) -> int:
    print(f"groundfault: {message}", file=sys.stderr)  # noqa: T201  this is the command line
    return code
