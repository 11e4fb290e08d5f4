"""Numbers as a view holds them: short, finite, and in words."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Final, TypeVar

from groundfault._histogram import BOUNDS_S

__all__ = ["clipped", "finite", "less", "number", "percent", "quantiles", "short"]

Named = TypeVar("Named", bound=Any)

_LONGEST_NAME: Final = 80
_STEPS: Final = (10.0, 100.0, 1000.0, 10_000.0)


def short(value: float) -> float:
    """Return the number with four significant digits, or its whole part if that has more."""
    if value < 1:
        return float(f"{value:.4g}") if value else 0.0
    return round(value, 3 - bisect_left(_STEPS, value)) if value < _STEPS[-1] else round(value)


def finite(value: float | None) -> float | None:
    """Return the number, short; None for one that JSON cannot hold."""
    return short(value) if value is not None and isfinite(value) else None


def number(said: Any) -> float:
    """Return the number that was read from somewhere. Raises ValueError or TypeError for anything else."""
    value = float(said)
    if not isfinite(value):
        raise ValueError("a number must be finite")
    return value


def percent(share: float) -> str:
    """Return a share in words; never ``100 %`` or ``0 %`` of what is almost so."""
    value = share * 100
    if value >= 99.5:  # noqa: PLR2004  where rounding would say 100
        return "100 %" if share >= 1 else "more than 99 %"
    return f"{value:.0f} %" if value >= 1 else "less than 1 %"


def clipped(name: str) -> str:
    """Return a name that fits into a sentence."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def less(later: Mapping[Named, int], earlier: Mapping[Named, int]) -> dict[Named, int]:
    """Return by how much each count has risen, those alone that have."""
    known = earlier.get
    return {what: rise for what, times in later.items() if (rise := times - known(what, 0)) > 0}


def quantiles(buckets: Mapping[int, int], shares: Sequence[float]) -> list[float]:
    """Return what these shares, ascending, of the values stay below; as ``Histogram.quantile``, in one pass.

    ``buckets``: of a histogram, not empty.
    """
    total = sum(buckets.values())
    result: list[float] = []
    wanted = iter([share * total for share in shares])
    each = next(wanted)
    below = 0
    for bucket in sorted(buckets):
        times = buckets[bucket]
        while below + times >= each:
            if bucket >= len(BOUNDS_S):
                result.append(BOUNDS_S[-1])
            else:
                low = BOUNDS_S[bucket - 1] if bucket else 0.0
                result.append(low + (BOUNDS_S[bucket] - low) * (each - below) / times)
            if len(result) == len(shares):
                return result
            each = next(wanted)
        below += times
    return result + [BOUNDS_S[-1]] * (len(shares) - len(result))  # what rounding has left over
