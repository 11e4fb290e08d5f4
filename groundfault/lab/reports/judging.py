"""The gate: a run against bounds, and against an earlier run. Pure but for reading its rules."""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Final

from groundfault.lab.reports.comparing import direction, obstacles
from groundfault.lab.reports.wording import bound_of, shown
from groundfault.lab.runs.measures import Bound, MeasureError, evaluate
from groundfault.lab.runs.record import Check, Run, Verdict

__all__ = ["EXIT_CODES", "GateError", "Judged", "Rules", "as_dict", "judge", "read_rules", "tolerance_of"]

EXIT_CODES: Final = {Verdict.PASSED: 0, Verdict.FAILED: 1, Verdict.VOID: 3}

_USUAL: Final = ("goodput@spike", "success.innocent@spike", "recovery_s@after", "failed@spike", "trips")
_RESOLUTION: Final = {"recovery_s": 1.0, "below_s": 1.0}
"""These are known to a second, so a second more is no news."""


class GateError(ValueError):
    """The gate cannot judge: what it was asked makes no sense. The message names field, value and bound."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What to judge by. ``tolerance``: how much worse than the baseline is let pass; 0.05 is 5 %."""

    bounds: list[Bound] = field(default_factory=list)
    baseline: Path | None = None
    tolerance: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """What the gate says of a run."""

    run: Run
    checks: list[Check]
    void: list[str]

    @property
    def verdict(self) -> Verdict:
        """Void if the run or its baseline is, else failed if a bound is missed, else passed."""
        if self.void:
            return Verdict.VOID
        return Verdict.FAILED if any(check.met is False for check in self.checks) else Verdict.PASSED


def judge(run: Run, bounds: Sequence[Bound], baseline: Run | None = None, tolerance: float = 0.05) -> Judged:
    """Judge the run by these bounds, or by its own if there are none, and by the baseline. Raises GateError."""
    checks = [_evaluated(run, bound) for bound in bounds] if bounds else list(run.checks)
    void = list(run.void)
    if baseline is not None:
        void += [f"the baseline is void: {reason}" for reason in baseline.void]
        against = obstacles(baseline, run).against
        if against:
            raise GateError(f"the run cannot be compared with the baseline: {against[0]}")
        checks += _against(run, baseline, [check.measure for check in checks] or _USUAL, tolerance)
    if not void and not any(check.met is not None for check in checks):
        raise GateError(
            "nothing to judge by: the run has no bounds of its own; give some, such as 'goodput@spike>=0.85'"
        )
    return Judged(run=run, checks=checks, void=void)


def _evaluated(run: Run, bound: Bound) -> Check:
    try:
        return evaluate(run, bound)
    except MeasureError as error:
        raise GateError(f"{shown(str(bound), 80)}: {error}") from error


def _against(run: Run, baseline: Run, measures: Sequence[str], tolerance: float) -> list[Check]:
    found = []
    for measure in dict.fromkeys(measures):
        wanted = direction(measure)
        if not wanted:
            continue
        try:
            bound = Bound.parse(measure)
            ours, theirs = evaluate(run, bound), evaluate(baseline, bound)
        except MeasureError:  # one of a producer's own, or of a span that one of the two has not
            continue
        if theirs.value is None:
            continue
        limit = _limit(theirs, tolerance, wanted)
        found.append(
            Check(
                measure=measure,
                title=f"{ours.title}, against the baseline",
                value=ours.value,
                unit=ours.unit,
                at_least=limit if wanted > 0 else None,
                at_most=limit if wanted < 0 else None,
            )
        )
    return found


def _limit(theirs: Check, tolerance: float, wanted: int) -> float:
    """Return how bad the figure may be: of a share so many points less, of all else that part of it less."""
    value = theirs.value or 0.0
    slack = tolerance if theirs.unit == "share" else abs(value) * tolerance
    slack = max(slack, _RESOLUTION.get(theirs.measure.partition("@")[0].partition(".")[0], 0.0))
    return round(max(0.0, value - wanted * slack), 6)


_TOLERANCE: Final = re.compile(r"(\d+(?:\.\d+)?)(\s*%)?", re.ASCII)


def tolerance_of(said: Any) -> float:
    """Read ``5%``, or 0.05. Raises GateError for anything that is not from 0 to 100 %."""
    found = _TOLERANCE.fullmatch(str(said).strip()) if isinstance(said, str | int | float) else None
    value = float("nan") if found is None else float(found[1]) / (100 if found[2] else 1)
    if not isfinite(value) or not 0 <= value <= 1:
        raise GateError(f"tolerance must be from 0% to 100%, not {said!r:.40}")
    return value


def read_rules(path: Path) -> Rules:
    """Read a file of rules: ``bounds``, ``baseline`` (beside the file) and ``tolerance``. Raises GateError, OSError."""
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise GateError(f"{path} is not TOML: {error}") from error
    try:
        return _rules(said, path)
    except (GateError, MeasureError) as error:
        raise GateError(f"{path}: {error}") from error


def _rules(said: dict[str, Any], path: Path) -> Rules:
    unknown = sorted(set(said) - {"bounds", "baseline", "tolerance"})
    if unknown:
        raise GateError(f"{shown(unknown[0], 40)!r} is no key; there are bounds, baseline and tolerance")
    texts = said.get("bounds", [])
    if not isinstance(texts, list):
        raise GateError(f"bounds must be a list, not {type(texts).__name__}")
    bounds = []
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise GateError(f"bounds[{number}] must be a text such as 'goodput@spike>=0.85', not {text!r:.40}")
        bounds.append(Bound.parse(text))
    baseline = said.get("baseline")
    if baseline is not None and not isinstance(baseline, str):
        raise GateError(f"baseline must be the name of a file, not {baseline!r:.40}")
    return Rules(
        bounds=bounds,
        baseline=None if baseline is None else path.parent / baseline,
        tolerance=tolerance_of(said["tolerance"]) if "tolerance" in said else None,
    )


def as_dict(found: Judged) -> dict[str, Any]:
    """Return what the gate says as JSON can hold it."""
    run = found.run
    return {
        "verdict": found.verdict.value,
        "run": {"name": run.name, "variant": run.variant, "title": run.title, "seed": run.seed},
        "void": found.void,
        "checks": [
            {
                "measure": check.measure,
                "title": check.title,
                "value": check.value,
                "unit": check.unit,
                "at_least": check.at_least,
                "at_most": check.at_most,
                "bound": bound_of(check),
                "met": check.met,
            }
            for check in found.checks
        ],
    }
