"""``groundfault simulate``: a scenario file, several seeds and variants, a table of verdicts."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from groundfault.lab.runs.record import Check, Run, Verdict
from groundfault.lab.simulator.figures import amount, trouble_with
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
    parser.add_argument(
        "scenario", nargs="?", metavar="SCENARIO", help="what is simulated: a TOML file, or a built-in scenario by name"
    )
    parser.add_argument("--list", action="store_true", help="list the built-in scenarios")
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
        "--sample",
        type=_sample,
        default=1,
        metavar="1/N",
        help="of the fleet and of its traffic, one in N (1/1: all); what that distorts is said",
    )
    what_if = parser.add_mutually_exclusive_group()
    what_if.add_argument(
        "--sweep",
        action="append",
        metavar="PLACE=VALUE,VALUE",
        help="what if: each of these values in turn, a table and a plot; twice for two settings",
    )
    what_if.add_argument(
        "--proposals",
        type=Path,
        metavar="FILE",
        help="check settings under the spike: what groundfault advise --json said",
    )
    parser.add_argument(
        "--measures", type=_measures, default=(), metavar="A,B", help="what a sweep looks at (goodput, p99, recovery)"
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


def _sample(text: str) -> int:
    one, slash, of = text.partition("/")
    if one != "1" or not slash or not of.isdecimal() or not 1 <= int(of[:6]) <= 10_000:  # noqa: PLR2004  see sampling.py
        raise argparse.ArgumentTypeError(f"must be 1/1 to 1/10000, not {text!r}")
    return int(of)


def _measures(text: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.split(","))


def _run(options: argparse.Namespace) -> int:  # noqa: PLR0911  a line for each way it can end
    from groundfault.lab.runs.measures import MeasureError  # noqa: PLC0415  what no other command needs
    from groundfault.lab.simulator import progress, running, sampling, scenario, what_if  # noqa: PLC0415  as above
    from groundfault.lab.simulator.cores import SwitchedOffError  # noqa: PLC0415  as above
    from groundfault.lab.simulator.scenarios import built_in  # noqa: PLC0415  as above

    if options.list:
        width = max(map(len, built_in.BUILT_IN))
        print("\n".join(f"{name:<{width}}  {title}" for name, title in built_in.BUILT_IN.items()))  # noqa: T201  this is the command line
        return 0
    if options.scenario is None:
        return _fail("say what is to be simulated: a TOML file, or a name that --list lists", USAGE)
    try:
        part = sampling.sampled(scenario.changed(built_in.said(options.scenario), options.changes), options.sample)
        said = scenario.scenario_of(part.document)
        options.out.mkdir(parents=True, exist_ok=True)
    except (scenario.ScenarioError, OSError) as error:
        return _fail(trouble_with(error), USAGE)
    variants = _variants(options.variant, said.variant)
    jobs = running.jobs_of(said, seed=options.seed, seeds=options.seeds, variants=variants)
    runs: list[Run] = []
    try:
        if options.sweep or options.proposals:
            return (what_if.vary if options.sweep else what_if.check)(options, part.document, part.notes)
        with progress.shown(said.name, len(jobs) * said.total_s) as told:
            for run in running.run_all(jobs, processes=options.jobs, progress=told):
                run.notes.extend(part.notes)
                run.write(options.out / f"{run.name}-{run.variant}-{run.seed}.json")
                runs.append(run)
    except KeyboardInterrupt:
        return _fail(f"stopped; {len(runs)} of {len(jobs)} runs are in {options.out}", STOPPED)
    except (MeasureError, scenario.ScenarioError, SwitchedOffError) as error:
        return _fail(str(error), USAGE)
    except running.ProcessDiedError as error:
        return _fail(str(error), VOID)
    except OSError as error:
        return _fail(trouble_with(error), FAILED)
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
        judged = any(each.check.met is not None for each in spreads)
        said = verdict.value if judged or verdict is Verdict.VOID else "not judged, for it has no bounds"
        lines = [f"{runs[0].title}, {variant}, {seeds}: {said}"]
        lines += [f"  void: {why}" for run in runs for why in run.void]
        width = max((len(each.check.title) for each in spreads), default=0)
        for each in spreads:
            missed = f"  MISSED by seed {', '.join(each.missed)}" if each.missed else ""
            lines.append(
                f"  {each.check.title:<{width}}  {_shown(each):>22}  {_bound(each.check):<10}{missed}".rstrip()
            )
        yield "\n".join(lines)
    notes = dict.fromkeys(note for _, _, runs in told.values() for run in runs for note in run.notes)
    yield "\n".join([*notes, f"The runs are in {out}."])


def _shown(spread: "Spread") -> str:
    if spread.mean is None:
        return "-"
    text = amount(spread.mean, spread.check.unit)
    if spread.deviation:
        text += f" ± {amount(spread.deviation, spread.check.unit)}"
    return text


def _bound(check: Check) -> str:
    if check.at_least is not None:
        return f">= {check.at_least:g}"
    return "" if check.at_most is None else f"<= {check.at_most:g}"


def _fail(message: str, code: int) -> int:
    print(f"groundfault: {message}", file=sys.stderr)  # noqa: T201  this is the command line
    return code
