"""Several runs against the first: whether they can be compared, and what is better and worse, in words. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

from groundfault.lab.reports.thinning import Grid, added
from groundfault.lab.reports.wording import figure, shown, value_of
from groundfault.lab.runs.measures import Bound, MeasureError, evaluate
from groundfault.lab.runs.record import Check, Run

__all__ = ["Cell", "Line", "Obstacles", "direction", "labels", "lines", "obstacles"]

MOST: Final = 6
"""So many runs have a color and a dash of their own."""

_BETTER_MORE: Final = frozenset({"goodput", "goodput_rps", "success"})
_BETTER_LESS: Final = frozenset({"failed", "late", "unsent", "p50_ms", "p99_ms", "recovery_s", "below_s", "trips"})
_WORDS: Final = {"better": "better by", "worse": "worse by"}
_SAME_POINTS: Final = 0.005
_SAME_SHARE: Final = 0.02
_SIGMAS: Final = 5.0
_PARTS: Final = 12
_NEAR: Final = 0.05
_CAPACITY_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Obstacles:
    """Why another run cannot be compared with the first, and what is to be minded if it can. One sentence each."""

    against: list[str]
    mind: list[str]


def obstacles(first: Run, other: Run) -> Obstacles:
    """Return what stands between two runs. The same curve means: no further apart than chance puts two draws of it."""
    against, mind = [], []
    if first.deadline_s != other.deadline_s:
        against.append(f"its deadline is {other.deadline_s:g} s, not {first.deadline_s:g} s")
    ours, theirs = ({stream.name for stream in run.streams} for run in (first, other))
    if ours != theirs:
        against.append(f"its streams are {_listed(theirs)}, not {_listed(ours)}")
    if first.seconds != other.seconds:
        against.append(f"it took {other.seconds} s, not {first.seconds} s")
    elif ours == theirs:
        against += _other_curve(first, other)
    if first.seed != other.seed:
        mind.append(f"its seed is {_quoted(other.seed)}, not {_quoted(first.seed)}: its requests came at other moments")
    elif not against and any(stream.due != _due(other, stream.name) for stream in first.streams):
        mind.append("its requests came at other moments, though the seed is the same")
    if first.spans != other.spans:
        mind.append("its spans are others")
    mind += _other_capacity(first.capacity_rps, other.capacity_rps)
    if other.void:
        mind.append(f"it is void: {shown(other.void[0])}")
    return Obstacles(against, mind)


def _other_curve(first: Run, other: Run) -> list[str]:
    """Compare what was due part by part: two draws of one curve differ by chance, whose size Poisson knows."""
    grid = Grid.of(0, first.seconds, _PARTS)
    for stream in first.streams:
        worst, start_of_worst, total = 0.0, 0, 0.0
        both = zip(grid.rates(stream.due), grid.rates(_due(other, stream.name)), grid.starts, strict=True)
        for ours, theirs, start in both:
            length = min(grid.step, grid.end - start)
            apart = length * (ours - theirs) ** 2 / (ours + theirs) if ours or theirs else 0.0
            total += apart
            if apart > worst and abs(ours - theirs) > _NEAR * max(ours, theirs):
                worst, start_of_worst = apart, start
        parts = len(grid.starts)
        if worst and total > parts + _SIGMAS * sqrt(2 * parts):
            at = start_of_worst // grid.step
            rates = [grid.rates(each)[at] for each in (_due(other, stream.name), stream.due)]
            whose = f"of {shown(stream.name, 40)} from second {start_of_worst} on"
            return [f"its curve is another: {rates[0]:.1f}/s {whose}, not {rates[1]:.1f}/s"]
    return []


def _due(run: Run, name: str) -> list[int]:
    found = run.stream(name)
    return added([] if found is None else [found], "due", run.seconds)


def _other_capacity(ours: float | None, theirs: float | None) -> list[str]:
    if ours is None or theirs is None:
        return [] if ours is theirs else ["the capacity is known of one of the two only"]
    if abs(ours - theirs) <= _CAPACITY_SHARE * max(ours, theirs):
        return []
    return [f"its capacity is {theirs:,.1f}/s, not {ours:,.1f}/s, and goodput is a share of it"]


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(shown(name, 40) for name in names)) or "none"


def _quoted(seed: str) -> str:
    return f"“{shown(seed, 40)}”" if seed else "unknown"


def labels(runs: Sequence[Run], stems: Sequence[str]) -> list[str]:
    """Return what to call each run: its variant, or its name, or its file, whichever tells them apart."""
    for names in ([run.variant for run in runs], [run.name for run in runs], stems):
        short = [shown(name, 28) for name in names]
        if all(short) and len(set(short)) == len(short):
            return short
    return [f"{number}: {shown(stem, 24)}" for number, stem in enumerate(stems, 1)]


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure of one run: ``change`` is the difference from the first in words, ``kind`` better, worse or neither."""

    value: str
    change: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One measure, and its figure in each run."""

    measure: str
    title: str
    cells: list[Cell]


def lines(runs: Sequence[Run]) -> list[Line]:
    """Return the table: what a spike is judged by, and whatever these runs were judged by."""
    found = []
    for measure in _measures(runs):
        checks = [_figure(run, measure) for run in runs]
        known = next((check for check in checks if check is not None), None)
        if known is None or all(check is None or check.value is None for check in checks):
            continue
        first = checks[0]
        cells = [
            Cell(
                "not to be had" if check is None else value_of(check),
                *_change(first, check, runs[0].void or run.void, at),
            )
            for at, (check, run) in enumerate(zip(checks, runs, strict=True))
        ]
        found.append(Line(measure, shown(known.title), cells))
    return found


def _measures(runs: Sequence[Run]) -> list[str]:
    spans = set.intersection(*(set(run.spans) for run in runs))
    at = "@spike" if "spike" in spans else ""
    after = "@after" if "after" in spans else at
    names = [f"{name}{at}" for name in ("goodput", "goodput_rps", "success", "success.innocent")]
    names += [f"{name}{at}" for name in ("shed", "failed", "late", "p50_ms", "p99_ms")]
    names += [f"recovery_s{after}", "below_s", "trips", "unsent", "lag_p99_ms"]
    return list(dict.fromkeys([*names, *(check.measure for run in runs for check in run.checks)]))


def _figure(run: Run, measure: str) -> Check | None:
    try:
        return evaluate(run, Bound.parse(measure))
    except MeasureError:  # a figure of a producer's own, or a stream or span that this run has not
        return next((check for check in run.checks if check.measure == measure), None)


def direction(measure: str) -> int:
    """Return 1 if more of it is better, -1 if less is, 0 if neither can be said: to shed more may be right or wrong."""
    name = measure.partition("@")[0].partition(".")[0]
    return (name in _BETTER_MORE) - (name in _BETTER_LESS)


def _change(first: Check | None, check: Check | None, void: Sequence[str], at: int) -> tuple[str, str]:
    if at == 0 or first is None or check is None:
        return "", ""
    if void:
        return "void, not compared", ""
    if first.value is None or check.value is None:
        return _from_nothing(first, check)
    by = check.value - first.value
    if _same(by, first):
        return "about the same", ""
    wanted = direction(check.measure)
    if not wanted:
        return f"{_distance(by, check.unit)} {'more' if by > 0 else 'less'}", ""
    kind = "better" if by * wanted > 0 else "worse"
    return f"{_WORDS[kind]} {_distance(by, check.unit)}", kind


def _from_nothing(first: Check, check: Check) -> tuple[str, str]:
    """Compare a figure with one that could not be had: of a recovery, that says that there was none."""
    if first.value is check.value or not check.measure.startswith("recovery_s"):
        return "", ""
    return ("worse: not within the run", "worse") if check.value is None else ("better: within the run", "better")


def _same(by: float, first: Check) -> bool:
    assert first.value is not None  # noqa: S101  whoever asks has looked
    if first.unit == "share":
        return abs(by) < _SAME_POINTS
    return abs(by) <= _SAME_SHARE * abs(first.value)


def _distance(by: float, unit: str) -> str:
    if unit == "share":
        return f"{abs(by) * 100:.1f} points"
    return figure(abs(by), unit)
