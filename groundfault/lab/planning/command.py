"""``groundfault plan``: a scale plan from a curve and measured capacity, and how it meets a spike."""

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from groundfault.lab.curves import Points
    from groundfault.lab.planning.checking import Fleets
    from groundfault.lab.planning.steps import Change, Planned

__all__ = ["add_to"]

FAILED: Final = 1
USAGE: Final = 2
VOID: Final = 3
STOPPED: Final = 130
_NO_WORSE: Final = 0.01
_MOST_FACTOR: Final = 1000.0


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "plan",
        allow_abbrev=False,
        help="how many instances of each service must be up when, ahead of the game",
        description="From a projected curve and measured capacity: levels with few changes, ordered in time; checked "
        "in the simulator under a spike, beside a reactive autoscaler. Ends with 0 if the plan serves what its "
        "headroom promises, 1 if it does not, 2 if the input makes no sense, 3 if a simulation is void.",
    )
    parser.add_argument("--curve", type=Path, required=True, metavar="DAY.csv", help="t,rps lines: what is expected")
    parser.add_argument("--capacity", type=Path, metavar="FILE.toml", help="what an instance of each service can do")
    parser.add_argument(
        "--measured", type=Path, metavar="RUN.json", help="a run that tells what the capacity file leaves out"
    )
    parser.add_argument(
        "--spike", type=_factor, default=1.25, metavar="N", help="the check's spike: times the curve, a minute (1.25)"
    )
    parser.add_argument(
        "--at", metavar="TIME", help="when it comes, HH:MM or seconds as in the curve (where reacting is too slow)"
    )
    parser.add_argument("--no-check", action="store_true", help="plan only; simulate nothing")
    parser.add_argument("--jobs", type=_whole, default=1, metavar="N", help="processes that simulate at once (1)")
    parser.add_argument("--seed", type=_whole, default=1, metavar="N", help="the simulation's seed (1)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("scale-plan"),
        metavar="DIR",
        help="where plan.csv, .json and .svg go (scale-plan)",
    )
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.set_defaults(run=_run)


def _whole(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:9]) <= 1_000_000:  # noqa: PLR2004  more is a slip
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 1000000, not {text!r}")
    return int(text)


def _factor(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 1 <= value <= _MOST_FACTOR:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {_MOST_FACTOR:g}, not {text!r}")
    return value


def _run(options: argparse.Namespace) -> int:
    from groundfault.lab.planning import checking, demand, steps  # noqa: PLC0415  what no other command needs
    from groundfault.lab.planning.reacting import Autoscaler, reacted  # noqa: PLC0415  as above
    from groundfault.lab.runs.record import Run, RunError, Verdict  # noqa: PLC0415  as above
    from groundfault.lab.simulator import progress  # noqa: PLC0415  as above
    from groundfault.lab.simulator.cores import SwitchedOffError  # noqa: PLC0415  as above
    from groundfault.lab.simulator.figures import trouble_with  # noqa: PLC0415  as above
    from groundfault.lab.simulator.table import ScenarioError  # noqa: PLC0415  as above

    try:
        curve, origin_s = demand.read_curve(options.curve)
        found = {} if options.measured is None else demand.measured(Run.read(options.measured))
        if options.capacity is None and not found:
            what = (
                "--capacity or --measured must be given"
                if options.measured is None
                else f"{options.measured}: it tells of no service"
            )
            return _fail(what, USAGE)
        fleet = demand.fleet_of({}, found) if options.capacity is None else demand.read_fleet(options.capacity, found)
        plans = [steps.planned(curve, service, fleet) for service in fleet.services]
        scaler = Autoscaler()
        reactive = {each.name: reacted(curve, each, scaler) for each in fleet.services}
        fleets = None
        if not options.no_check:
            at = (
                checking.worst_moment(curve, fleet.services, scaler)
                if options.at is None
                else _moment(options.at, origin_s)
            )
            spike = checking.Spike(at=at, factor=options.spike)
            with progress.shown("both fleets", 2 * 600.0) as told:
                fleets = checking.checked(
                    curve, plans, spike, scaler, seed=str(options.seed), processes=options.jobs, progress=told
                )
        options.out.mkdir(parents=True, exist_ok=True)
        files = _written(options.out, curve, origin_s, plans, reactive=reactive, fleets=fleets)
    except KeyboardInterrupt:
        return _fail("stopped; nothing was written", STOPPED)
    except (demand.PlanError, RunError, ScenarioError, SwitchedOffError, OSError) as error:
        return _fail(trouble_with(error), USAGE)
    if options.json:
        print(json.dumps(_as_dict(origin_s, plans, fleets)))  # noqa: T201  this is the command line
    else:
        print("\n".join(_lines(origin_s, plans, fleets, files)))  # noqa: T201  as above
    if fleets is not None and Verdict.VOID in {fleets.plan.verdict, fleets.reactive.verdict}:
        return VOID
    return 0 if _holds(plans, fleets) else FAILED


def _moment(text: str, origin_s: float) -> float:
    from groundfault.lab.planning.demand import PlanError, second_of  # noqa: PLC0415  as above

    second = second_of(text)
    if second is None:
        raise PlanError(f"--at must be HH:MM or seconds, not {text!r:.40}")
    return second - origin_s if ":" in text else second


def _promised(fleets: "Fleets") -> float:
    """Return what the planned fleet should serve of the spike, if it can do what was measured."""
    return min(1.0, fleets.possible)


def _holds(plans: "Sequence[Planned]", fleets: "Fleets | None") -> bool:
    if any(plan.short for plan in plans):
        return False
    if fleets is None:
        return True
    served = fleets.served["plan"]
    return served is not None and served >= 0.9 * _promised(fleets)


def _written(
    out: Path,
    curve: "Points",
    origin_s: float,
    plans: "Sequence[Planned]",
    *,
    reactive: Any,
    fleets: "Fleets | None",
) -> list[str]:
    with (out / "plan.csv").open("w", encoding="utf-8", newline="") as lines:
        rows = csv.writer(lines)
        rows.writerow(("service", "order_at_s", "order_at", "ready_at_s", "ready_at", "instances_before", "instances"))
        for plan in plans:
            first = plan.levels[0].instances
            rows.writerow((plan.service.name, f"{-plan.service.lead_s:g}", "", "0", _clock(origin_s), "", first))
        for each in _changes(plans):
            rows.writerow(
                (each.service, f"{each.order_at:g}", _clock(origin_s + each.order_at), f"{each.ready_at:g}",
                 _clock(origin_s + each.ready_at), each.before, each.after)
            )  # fmt: skip
    (out / "plan.json").write_text(json.dumps(_as_dict(origin_s, plans, fleets)) + "\n", encoding="utf-8")
    files = ["plan.csv", "plan.json"]
    if fleets is not None:
        for name, run in (("plan", fleets.plan), ("reactive", fleets.reactive)):
            run.write(out / f"spike-{name}.json")
            files.append(f"spike-{name}.json")
    if find_spec("matplotlib") is None:
        return [str(out / name) for name in files]
    from groundfault.lab import look  # noqa: PLC0415  needs what was just looked for
    from groundfault.lab.planning import drawing  # noqa: PLC0415  as above

    figures = {"plan": drawing.draw_plan(curve, origin_s, plans, reactive, look.LIGHT)}
    if fleets is not None:
        figures["spike"] = drawing.draw_spike(fleets, look.LIGHT)
    for name, figure in figures.items():
        (out / f"{name}.svg").write_text(look.svg(figure, look.LIGHT), encoding="utf-8")
        (out / f"{name}.png").write_bytes(look.png(figure, look.LIGHT))
        files += [f"{name}.svg", f"{name}.png"]
    return [str(out / name) for name in files]


def _changes(plans: "Sequence[Planned]") -> "list[Change]":
    return sorted((each for plan in plans for each in plan.changes), key=lambda each: (each.order_at, each.service))


def _as_dict(origin_s: float, plans: "Sequence[Planned]", fleets: "Fleets | None") -> dict[str, Any]:
    return {
        "origin_s": origin_s,
        "services": {
            plan.service.name: {
                "levels": [
                    {"ready_at_s": level.start * plan.step_s, "instances": level.instances} for level in plan.levels
                ],
                "most_needed": max(plan.needs),
                "instance_hours": round(plan.instance_hours, 3),
                "lead_s": plan.service.lead_s,
                "short": plan.short,
            }
            for plan in plans
        },
        "changes": [
            {
                "service": each.service,
                "order_at_s": each.order_at,
                "ready_at_s": each.ready_at,
                "before": each.before,
                "after": each.after,
            }
            for each in _changes(plans)
        ],
        "check": None
        if fleets is None
        else {
            "spike_at_s": fleets.spike.at,
            "factor": fleets.spike.factor,
            "hold_s": fleets.spike.hold_s,
            "sample": fleets.sample,
            "could_be_served": round(_promised(fleets), 4),
            "served": fleets.served,
            "reactive_behind_s": fleets.behind_s,
        },
        "holds": _holds(plans, fleets),
    }


def _lines(origin_s: float, plans: "Sequence[Planned]", fleets: "Fleets | None", files: Sequence[str]) -> Iterator[str]:
    width = max(len("service"), *(len(plan.service.name) for plan in plans))
    yield f"  {'service':<{width}}  {'at first':>8}  {'at most':>8}  {'changes':>7}  {'instance-hours':>14}"
    for plan in plans:
        most = max(level.instances for level in plan.levels)
        yield (
            f"  {plan.service.name:<{width}}  {plan.levels[0].instances:>8}  {most:>8}  {len(plan.changes):>7}"
            f"  {plan.instance_hours:>14,.1f}"
        )
    yield ""
    yield f"  {'order':>9}  {'ready':>9}  {'service':<{width}}  instances"
    for each in _changes(plans):
        order = _clock(origin_s + each.order_at)
        yield (
            f"  {order:>9}  {_clock(origin_s + each.ready_at):>9}  {each.service:<{width}}"
            f"  {each.before} -> {each.after}"
        )
    for plan in plans:
        early = [each for each in plan.changes if each.order_at < 0]
        if early:
            yield f"! {plan.service.name}: the first order lies before the curve begins"
        if plan.short:
            yield f"! {plan.service.name}: most is {plan.service.most}, and {plan.short} more are needed"
    yield ""
    if fleets is not None:
        yield from _spike_lines(origin_s, fleets)
    unchecked = " It was not simulated." if fleets is None else ""
    yield ("The plan holds." if _holds(plans, fleets) else "The plan does not hold.") + unchecked
    yield f"Written: {', '.join(files)}."


def _spike_lines(origin_s: float, fleets: "Fleets") -> Iterator[str]:
    spike = fleets.spike
    sample = "" if fleets.sample == 1 else f" (simulated at 1/{fleets.sample} of the rates)"
    when = _clock(origin_s + spike.at)
    yield f"A spike of {spike.factor:g} times the curve at {when}, for {spike.hold_s:g} s{sample}:"
    yield f"  could be served by the plan  {_promised(fleets):.3f}"
    for name, share in fleets.served.items():
        shown = "-" if share is None else f"{share:.3f}"
        yield f"  served in time, {name:<12} {shown}"
    if fleets.behind_s:
        yield f"  The reactive fleet has fewer than it needs for {fleets.behind_s:.0f} s: {fleets.why}"


def _clock(second: float) -> str:
    day, rest = divmod(round(second), 86_400)
    shown = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return shown if not day else f"{day:+d}d {shown}"


def _fail(message: str, code: int) -> int:
    print(f"groundfault: {message}", file=sys.stderr)  # noqa: T201  this is the command line
    return code
