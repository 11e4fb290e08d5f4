"""A scenario again and again, with one or two of its settings varied."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean, pstdev
from typing import Any, Final

from groundfault.breaker.settings import BreakerSettings
from groundfault.lab.runs.measures import MEASURES, Bound
from groundfault.lab.simulator import scenario as reading
from groundfault.lab.simulator.model import Scenario
from groundfault.lab.simulator.running import Job, Progress, run_all
from groundfault.lab.simulator.table import ScenarioError

__all__ = ["MOST_AXES", "Axis", "Figure", "Point", "Sweep", "default_of", "figures_of", "swept"]

MOST_AXES: Final = 2
_MOST_VALUES: Final = 100


@dataclass(frozen=True, slots=True)
class Axis:
    """A place in the scenario and the values it is given; ``default``: what it has by itself, None for none."""

    place: str
    values: tuple[Any, ...]
    default: Any = None

    @classmethod
    def parse(cls, text: str, document: Mapping[str, Any]) -> "Axis":
        """Read ``services.saber.instances=2,4,8``. Raises ScenarioError, also if a value makes no sense there."""
        place, equals, values = text.partition("=")
        words = [word.strip() for word in values.split(",")]
        if not equals or not place or not all(words):
            raise ScenarioError(f"a sweep must be place=value,value as services.saber.instances=2,4, not {text!r:.80}")
        if len(words) > _MOST_VALUES:
            raise ScenarioError(f"{place}: there must be at most {_MOST_VALUES} values to sweep over, not {len(words)}")
        if len(set(words)) != len(words):
            raise ScenarioError(f"{place}: each value must be given once, not as in {values!r:.80}")
        return cls(place, tuple(reading.value_of(word) for word in words), default_of(document, place))


@dataclass(frozen=True, slots=True)
class Figure:
    """What is looked at: a measure over several seeds. ``mean`` None: it could be had of none of them."""

    measure: str
    title: str
    unit: str
    mean: float | None
    deviation: float
    least: float | None
    most: float | None


@dataclass(frozen=True, slots=True)
class Point:
    """One combination of values, in the order of the axes, and what came of it. ``void``: why it says nothing."""

    values: tuple[Any, ...]
    figures: tuple[Figure, ...]
    void: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sweep:
    """All of it."""

    name: str
    title: str
    variant: str
    axes: tuple[Axis, ...]
    seeds: tuple[str, ...]
    points: tuple[Point, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "scenario": self.name,
            "variant": self.variant,
            "seeds": list(self.seeds),
            "axes": [{"place": each.place, "values": list(each.values), "default": each.default} for each in self.axes],
            "points": [
                {
                    "values": list(point.values),
                    "void": list(point.void),
                    "figures": {
                        each.measure: {
                            "mean": each.mean,
                            "deviation": each.deviation,
                            "least": each.least,
                            "most": each.most,
                        }
                        for each in point.figures
                    },
                }
                for point in self.points
            ],
        }


def figures_of(scenario: Scenario) -> tuple[Bound, ...]:
    """Return what a sweep looks at: goodput and p99 in the spike, and the recovery from it; of all, without a spike."""
    at = "@spike" if "spike" in scenario.spans else ""
    named = [f"goodput{at}", f"p99_ms{at}"]
    if "after" in scenario.spans:
        named.append("recovery_s@after")
    if any(each.innocent for each in scenario.streams):
        named.append(f"success.innocent{at}")
    return tuple(Bound.parse(each) for each in named)


def swept(
    document: Mapping[str, Any],
    axes: Sequence[Axis],
    seeds: Sequence[str],
    *,
    measures: Sequence[str] = (),
    variant: str | None = None,
    processes: int = 1,
    progress: Progress | None = None,
) -> Sweep:
    """Return what came of each combination with each seed. ``measures``: what is looked at instead of the usual.

    Each seed meets the same arrivals at every point, so points differ by the settings alone.
    Raises ScenarioError, naming the place, for a value that makes no sense; before anything is simulated.
    """
    grid = list(product(*(axis.values for axis in axes)))
    scenarios = list(_scenarios(document, axes, grid, measures, variant))
    jobs = [Job(each, seed, each.variant) for each in scenarios for seed in seeds]
    runs = run_all(jobs, processes=processes, progress=progress)
    points = []
    for values in grid:
        each = [next(runs) for _ in seeds]
        figures = []
        for number, check in enumerate(each[0].checks):
            found = [run.checks[number].value for run in each]
            had = [value for value in found if value is not None]
            whole = len(had) == len(found)  # of a recovery that one seed never saw, a mean would be a fair-weather one
            figures.append(
                Figure(
                    check.measure,
                    check.title,
                    check.unit,
                    fmean(had) if whole else None,
                    pstdev(had) if whole else 0.0,
                    min(had, default=None),
                    max(had, default=None) if whole else None,
                )
            )
        points.append(Point(values, tuple(figures), tuple(dict.fromkeys(why for run in each for why in run.void))))
    first = scenarios[0]
    return Sweep(first.name, first.title, first.variant.value, tuple(axes), tuple(seeds), tuple(points))


def total_s(document: Mapping[str, Any], axes: Sequence[Axis], seeds: int) -> float:
    """Return how many seconds of virtual time a sweep has."""
    points = 1
    for axis in axes:
        points *= len(axis.values)
    return reading.scenario_of(document).total_s * points * seeds


def _scenarios(
    document: Mapping[str, Any],
    axes: Sequence[Axis],
    grid: Sequence[tuple[Any, ...]],
    measures: Sequence[str],
    variant: str | None,
) -> Iterator[Scenario]:
    for values in grid:
        whole = dict(document)
        for axis, value in zip(axes, values, strict=True):
            whole = reading.put(whole, axis.place, value)
        if measures:
            whole["bounds"] = list(measures)
        if variant is not None:
            whole["variant"] = variant
        made = reading.scenario_of(whole)
        yield made if measures else replace(made, bounds=figures_of(made))


def default_of(document: Mapping[str, Any], place: str) -> Any:
    """Return what a place has without being varied: what the document says, or what holds where it says nothing.

    None if there is no such value, or none that can be written in one word. Raises ScenarioError.
    """
    steps = reading.steps_of(place)
    said: Any = document
    for step in steps:
        try:
            said = said[step]
        except (LookupError, TypeError):
            break
    else:
        return said if isinstance(said, bool | int | float | str) else None
    meant: Any = reading.scenario_of(document)
    for step in steps:
        if step == "breaker":
            meant = BreakerSettings.of(getattr(meant, "breaker", {}))
        elif isinstance(step, str) and not isinstance(meant, Mapping):
            meant = getattr(meant, step, None)
        else:
            try:
                meant = meant[step]
            except (LookupError, TypeError):
                return None
    return meant if isinstance(meant, bool | int | float | str) else None


def title_of(measure: str) -> str:
    """Return what a measure is called in a table's head or at an axis."""
    bound = Bound.parse(measure)
    known = MEASURES[bound.measure]
    words = known.title.partition(",")[0] if bound.measure == "goodput" else known.title
    whose = f", {bound.stream}" if bound.stream else ""
    where = f", {bound.span}" if bound.span and not bound.measure.startswith("recovery") else ""
    return words + whose + where
