"""Reading a scenario's tables: each value is checked where it stands, and an error names the place in the file."""

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any, Final

from groundfault.lab.simulator.distributions import (
    Bimodal,
    Distribution,
    Exponential,
    Fixed,
    LogNormal,
    Pareto,
    Quantiles,
    Uniform,
)

__all__ = ["ScenarioError", "Table"]

_SHOWN: Final = 60
_LONGEST_S: Final = 86_400.0


class ScenarioError(ValueError):
    """A scenario makes no sense. The message names the place in the file, the bound and the value."""


class Table:
    """One table of a scenario. Whoever has read all it knows calls :meth:`close`, which refuses what is left."""

    def __init__(self, said: object, place: str) -> None:
        if not isinstance(said, Mapping):
            raise ScenarioError(f"{place or 'the scenario'} must be a table, not {said!r:.{_SHOWN}}")
        self._said: Mapping[str, Any] = said
        self._known: set[str] = set()
        self.place = place

    def where(self, name: str) -> str:
        """Return how the place of a value is written."""
        return f"{self.place}.{name}" if self.place else name

    def wrong(self, name: str, bound: str, value: object) -> ScenarioError:
        """Return the error about a value."""
        return ScenarioError(f"{self.where(name)} must be {bound}, not {value!r:.{_SHOWN}}")

    def raw(self, name: str) -> Any:
        """Return the value as it is, None if there is none."""
        self._known.add(name)
        return self._said.get(name)

    def has(self, name: str) -> bool:
        """Return whether there is such a value."""
        self._known.add(name)
        return name in self._said

    def close(self) -> None:
        """Raise ScenarioError for a key that nobody has asked for."""
        for name in self._said:
            if name not in self._known:
                raise ScenarioError(f"{self.where(name)} is unknown; there are {', '.join(sorted(self._known))}")

    def number(
        self,
        name: str,
        default: float | None = None,
        *,
        low: float | None = None,
        above: float | None = None,
        high: float | None = None,
    ) -> Any:
        """Return a finite number within the bounds, or the default where there is none; without one it is needed."""
        value = self.raw(name)
        bound = _bound(low, above, high)
        if value is None:
            if default is None:
                raise ScenarioError(f"{self.where(name)} must be given: a number{bound}")
            return default
        number = _number(value)
        if (
            number is None
            or (low is not None and number < low)
            or (above is not None and number <= above)
            or (high is not None and number > high)
        ):
            raise self.wrong(name, f"a number{bound}", value)
        return number

    def maybe(self, name: str, **bounds: float) -> float | None:
        """Return a number within the bounds, or None where there is none."""
        return self.number(name, **bounds) if self.raw(name) is not None else None

    def whole(self, name: str, default: int | None = None, *, low: int = 0, high: int = 1_000_000) -> Any:
        """Return a whole number within the bounds."""
        value = self.raw(name)
        if value is None:
            if default is None:
                raise ScenarioError(f"{self.where(name)} must be given: a whole number from {low} to {high}")
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(name, f"a whole number from {low} to {high}", value)
        return value

    def share(self, name: str, default: float | None = None) -> Any:
        """Return a number from 0 to 1."""
        return self.number(name, default, low=0.0, high=1.0)

    def flag(self, name: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false", value)
        return value

    def text(self, name: str, default: str | None = None) -> Any:
        """Return a text that is not empty."""
        value = self.raw(name)
        if value is None:
            if default is None:
                raise ScenarioError(f"{self.where(name)} must be given: a text")
            return default
        if not isinstance(value, str) or not value:
            raise self.wrong(name, "a text that is not empty", value)
        return value

    def choice(self, name: str, allowed: tuple[str, ...], default: str | None = None) -> Any:
        """Return one of a few words."""
        value = self.raw(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or value not in allowed:
            raise self.wrong(name, f"one of {', '.join(allowed)}", value)
        return value

    def words(self, name: str) -> tuple[str, ...] | None:
        """Return a list of texts, or None where there is none."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
            raise self.wrong(name, "a list of texts", value)
        return tuple(value)

    def pairs(self, name: str) -> tuple[tuple[float, float], ...] | None:
        """Return a list of pairs of numbers, or None where there is none."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, list | tuple):
            raise self.wrong(name, "a list of pairs of numbers", value)
        made = []
        for number, pair in enumerate(value):
            numbers = [_number(each) for each in pair] if isinstance(pair, list | tuple) else []
            if len(numbers) != 2 or None in numbers:  # noqa: PLR2004  a pair has two
                raise self.wrong(f"{name}[{number}]", "a pair of numbers", pair)
            made.append((numbers[0], numbers[1]))
        return tuple(made)  # type: ignore[arg-type]  # None is none of them

    def table(self, name: str) -> "Table | None":
        """Return the table of that name, or None where there is none."""
        value = self.raw(name)
        return None if value is None else Table(value, self.where(name))

    def tables(self, name: str) -> Iterator["Table"]:
        """Yield the tables of a list of them."""
        value = self.raw(name)
        if value is None:
            return
        if not isinstance(value, list | tuple):
            raise self.wrong(name, "a list of tables", value)
        for number, each in enumerate(value):
            yield Table(each, f"{self.where(name)}[{number}]")

    def named(self, name: str) -> Iterator[tuple[str, "Table"]]:
        """Yield the tables of a table of them, by name."""
        value = self.raw(name)
        if value is None:
            return
        if not isinstance(value, Mapping):
            raise self.wrong(name, "a table of tables", value)
        for key, each in value.items():
            yield key, Table(each, f"{self.where(name)}.{key}")

    def seconds(self, name: str, default: Distribution | None = None) -> Any:
        """Return a distribution of seconds: a number, or a table with its kind; None where there is no default."""
        value = self.raw(name)
        if value is None:
            return default
        number = _number(value)
        if number is not None:
            if not 0 <= number <= _LONGEST_S:
                raise self.wrong(name, f"a number of at least 0 and at most {_LONGEST_S:g}", value)
            return Fixed(number)
        if not isinstance(value, Mapping):
            raise self.wrong(name, "a number of seconds or a table with a kind", value)
        return _distribution(Table(value, self.where(name)))


def _distribution(table: Table) -> Distribution:
    kind = table.choice("kind", tuple(_KINDS))
    made = _KINDS[kind](table)
    table.close()
    return made


def _fixed(table: Table) -> Distribution:
    return Fixed(table.number("seconds", low=0.0, high=_LONGEST_S))


def _exponential(table: Table) -> Distribution:
    return Exponential(table.number("mean_s", above=0.0, high=_LONGEST_S))


def _uniform(table: Table) -> Distribution:
    low = table.number("low_s", low=0.0, high=_LONGEST_S)
    return Uniform(low, table.number("high_s", low=low, high=_LONGEST_S))


def _lognormal(table: Table) -> Distribution:
    return LogNormal(table.number("median_s", above=0.0, high=_LONGEST_S), table.number("sigma", low=0.0, high=5.0))


def _pareto(table: Table) -> Distribution:
    low = table.number("low_s", above=0.0, high=_LONGEST_S)
    return Pareto(table.number("shape", low=0.01, high=100.0), low, table.number("high_s", above=low, high=_LONGEST_S))


def _bimodal(table: Table) -> Distribution:
    fast = table.number("fast_s", low=0.0, high=_LONGEST_S)
    return Bimodal(fast, table.number("slow_s", low=fast, high=_LONGEST_S), table.share("slow_share"))


def _quantiles(table: Table) -> Distribution:
    points = table.pairs("points")
    if points is None or len(points) < 2 or points[0][0] != 0 or points[-1][0] != 1:  # noqa: PLR2004  a line has two ends
        raise table.wrong("points", "pairs [share, seconds] from share 0 to share 1", points)
    before = (0.0, 0.0)
    for number, point in enumerate(points):
        if point[0] < before[0] or point[1] < before[1]:
            raise table.wrong(
                f"points[{number}]", f"at least {list(before)} in both, for neither descends", list(point)
            )
        before = point
    return Quantiles(points)


_KINDS: Final = {
    "fixed": _fixed,
    "exponential": _exponential,
    "uniform": _uniform,
    "lognormal": _lognormal,
    "pareto": _pareto,
    "bimodal": _bimodal,
    "quantiles": _quantiles,
}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return number if isfinite(number) else None


def _bound(low: float | None, above: float | None, high: float | None) -> str:
    parts = []
    if low is not None:
        parts.append(f"of at least {low:g}")
    if above is not None:
        parts.append(f"above {above:g}")
    if high is not None:
        parts.append(f"at most {high:g}")
    return " " + " and ".join(parts) if parts else ""
