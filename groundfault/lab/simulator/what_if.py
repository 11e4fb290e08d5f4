"""``groundfault simulate --sweep`` and ``--proposals``: their options, and what they print."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from groundfault.lab.runs.record import Run, Verdict
from groundfault.lab.simulator import progress, proposals, running, scenario, sweep
from groundfault.lab.simulator.figures import amount
from groundfault.lab.simulator.model import Protection
from groundfault.lab.simulator.table import ScenarioError

if TYPE_CHECKING:
    from groundfault.lab.simulator.running import Spread

__all__ = ["check", "vary"]

_FAILED: Final = 1
_VOID: Final = 3


def vary(options: argparse.Namespace, document: Mapping[str, Any], notes: Sequence[str]) -> int:
    """Sweep, print the table, write sweep.json and the pictures, and return the exit code."""
    if len(options.sweep) > sweep.MOST_AXES:
        raise ScenarioError(f"there must be at most {sweep.MOST_AXES} sweeps at once, not {len(options.sweep)}")
    axes = [sweep.Axis.parse(text, document) for text in options.sweep]
    if len({each.place for each in axes}) < len(axes):
        raise ScenarioError(f"{axes[0].place} must be swept over once")
    seeds = [str(options.seed + number) for number in range(options.seeds)]
    variants = options.variant or [None]
    if len(variants) > 1 or "all" in variants:
        raise ScenarioError("a sweep must be of one variant; sweep over variant=groundfault,plain-503 to compare them")
    total_s = sweep.total_s(document, axes, options.seeds)
    with progress.shown(str(document.get("name", "")), total_s) as told:
        made = sweep.swept(
            document,
            axes,
            seeds,
            measures=options.measures,
            variant=variants[0],
            processes=options.jobs,
            progress=told,
        )
    files = _written(options, made, notes)
    if options.json:
        print(json.dumps({**made.as_dict(), "notes": list(notes)}))  # noqa: T201  this is the command line
    else:
        print("\n".join(_sweep_lines(made, notes, files)))  # noqa: T201  as above
    return _VOID if any(point.void for point in made.points) else 0


def _written(options: argparse.Namespace, made: sweep.Sweep, notes: Sequence[str]) -> list[str]:
    path = options.out / "sweep.json"
    path.write_text(json.dumps({**made.as_dict(), "notes": list(notes)}) + "\n", encoding="utf-8")
    written = [str(path)]
    if find_spec("matplotlib") is None:
        return written
    from groundfault.lab import look  # noqa: PLC0415  needs what was just looked for
    from groundfault.lab.simulator.sweep_plot import draw  # noqa: PLC0415  as above

    (options.out / "sweep.svg").write_text(look.svg(draw(made, look.LIGHT), look.LIGHT), encoding="utf-8")
    (options.out / "sweep.png").write_bytes(look.png(draw(made, look.LIGHT), look.LIGHT))
    return [*written, str(options.out / "sweep.svg"), str(options.out / "sweep.png")]


def _sweep_lines(made: sweep.Sweep, notes: Sequence[str], files: Sequence[str]) -> Iterator[str]:
    seeds = "1 seed" if len(made.seeds) == 1 else f"{len(made.seeds)} seeds"
    yield f"{made.title}, {made.variant}, {seeds}"
    heads = [axis.place for axis in made.axes] + [sweep.title_of(each.measure) for each in made.points[0].figures]
    rows = [heads]
    for point in made.points:
        cells = [
            _value(value) + (" *" if value == axis.default else "")
            for axis, value in zip(made.axes, point.values, strict=True)
        ]
        rows.append(cells + ["-" if each.mean is None else _figure(each) for each in point.figures])
    widths = [max(len(row[at]) for row in rows) for at in range(len(heads))]
    for row in rows:
        yield ("  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))).rstrip()
    defaults = [each for each in made.axes if each.default is not None]
    if defaults:
        yield f"* the default: {', '.join(f'{each.place} = {_value(each.default)}' for each in defaults)}"
    yield from (f"void: {why}" for point in made.points for why in point.void)
    yield from notes
    yield f"Written: {', '.join(files)}."


def _figure(figure: sweep.Figure) -> str:
    assert figure.mean is not None  # noqa: S101  asked by who calls
    return amount(figure.mean, figure.unit) + (
        f" ± {amount(figure.deviation, figure.unit)}" if figure.deviation else ""
    )


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


# Proposals.


def check(options: argparse.Namespace, document: Mapping[str, Any], notes: Sequence[str]) -> int:
    """Run the scenario without and with the proposals, print both, and return 0 if they hold."""
    laid = proposals.laid_over(document, proposals.read(options.proposals))
    elsewhere = [f"{each.scope} {each.name}" for each in laid.elsewhere]
    if not laid.places:
        raise ScenarioError(f"{options.proposals}: no call and no service of the scenario is meant by {elsewhere[0]}")
    both = [proposals.looked_at(scenario.scenario_of(each)) for each in (document, laid.document)]
    variants = options.variant or [both[0].variant.value]
    if len(variants) > 1 or "all" in variants:
        raise ScenarioError("proposals must be checked with one variant")
    jobs = [
        job
        for each in both
        for job in running.jobs_of(each, seed=options.seed, seeds=options.seeds, variants=[Protection(variants[0])])
    ]
    runs: list[Run] = []
    with progress.shown(both[0].name, len(jobs) * both[0].total_s) as told:
        for run in running.run_all(jobs, processes=options.jobs, progress=told):
            which = "with" if len(runs) >= options.seeds else "without"
            run.notes.extend(notes)
            run.write(options.out / f"{run.name}-{which}-proposals-{run.seed}.json")
            runs.append(run)
    old, new = runs[: options.seeds], runs[options.seeds :]
    rows = proposals.compared(running.spreads(old), running.spreads(new))
    void = [why for run in runs for why in run.void]
    holds = not void and not any(each.worse for each in rows)
    if options.json:
        print(json.dumps(_as_json(both[0].name, laid, rows, void, holds=holds)))  # noqa: T201  this is the command line
    else:
        print("\n".join(_check_lines(both[0].title, laid, rows, void, holds=holds)))  # noqa: T201  as above
    return _VOID if running.verdict_of(runs) is Verdict.VOID else (0 if holds else _FAILED)


def _as_json(
    name: str, laid: proposals.Laid, rows: Sequence[proposals.Compared], void: Sequence[str], *, holds: bool
) -> dict[str, Any]:
    return {
        "scenario": name,
        "holds": holds,
        "void": list(void),
        "changed": list(laid.places),
        "elsewhere": [f"{each.scope} {each.name}" for each in laid.elsewhere],
        "figures": [
            {
                "measure": each.without.check.measure,
                "without": each.without.mean,
                "with": each.with_them.mean,
                "worse": each.worse,
            }
            for each in rows
        ],
    }


def _check_lines(
    title: str, laid: proposals.Laid, rows: Sequence[proposals.Compared], void: Sequence[str], *, holds: bool
) -> Iterator[str]:
    yield f"{title}: proposals checked under spike"
    yield f"  changed: {', '.join(laid.places)}"
    yield from (f"  not in this scenario: {change.scope} {change.name}" for change in laid.elsewhere)
    width = max(len(each.without.check.title) for each in rows)
    yield f"  {'':<{width}}  {'without':>12}  {'with':>12}"
    for each in rows:
        said = "" if each.worse is None else f"  {each.worse}"
        yield f"  {each.without.check.title:<{width}}  {_mean(each.without):>12}  {_mean(each.with_them):>12}{said}"
    yield from (f"  void: {why}" for why in void)
    yield "The proposals hold." if holds else "The proposals do not hold."


def _mean(spread: "Spread") -> str:
    return "-" if spread.mean is None else amount(spread.mean, spread.check.unit)
