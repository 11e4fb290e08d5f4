"""Numbers as people write them."""

from math import ceil, floor, inf, log10
from typing import Final

__all__ = ["bounded_text", "count", "number", "percent", "round_near", "round_up", "seconds", "setting"]

_STEPS: Final = (
    *(1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2.0, 2.2, 2.5, 2.8, 3.0, 3.5, 4.0, 4.5),
    *(5.0, 5.5, 6.0, 6.5, 7.0, 7.5, 8.0, 8.5, 9.0, 9.5, 10.0),
)
_ALMOST: Final = 1 - 1e-9  # 2 * 0.15 is no more than 0.3, whatever the machine says


def round_up(value: float) -> float:
    """Return the least human number that is not smaller; ``value`` is above 0."""
    power = floor(log10(value))
    for step in _STEPS:
        rounded = float(f"{step}e{power}")
        if rounded >= value * _ALMOST:
            return rounded
    return float(f"1e{power + 1}")


def round_near(value: float) -> float:
    """Return the nearest human number; ``value`` is above 0."""
    power = floor(log10(value))
    return min((float(f"{step}e{power}") for step in _STEPS), key=lambda rounded: abs(rounded - value))


def number(value: float) -> str:
    """Return up to three digits that count, without an exponent for anything that a call may take."""
    if value == inf:
        return "endless"
    if abs(value) >= 1000:  # noqa: PLR2004  three digits
        return f"{value:,.0f}"
    return f"{float(f'{value:.3g}'):.10f}".rstrip("0").rstrip(".")


def setting(value: float) -> str:
    """Return a value as a settings file has it."""
    return f"{value:.10g}"


def count(value: float) -> str:
    """Return a number of things."""
    return f"{ceil(value):,}"


def seconds(value_s: float) -> str:
    """Return a duration with the unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value_s >= size * 0.9995:
            return f"{number(value_s / size)} {unit}"
    return f"{number(value_s / 1e-6)} µs"


def percent(share: float) -> str:
    """Return a share: two digits that count, and never 0 % or 100 % for what is not."""
    value = share * 100
    if value in (0, 100):
        return f"{value:g} %"
    if value > 99.5:  # noqa: PLR2004  rounded, it would be all
        return f"{min(float(f'{value:.2f}'), 99.99):g} %"
    return f"{float(f'{value:.2g}'):g} %" if value >= 0.001 else "under 0.001 %"  # noqa: PLR2004  a call in 100,000


def bounded_text(text: str, most: int) -> str:
    """Return a text from outside as a terminal may show it: bounded, and without anything that steers a terminal."""
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:most])
    return shown if len(text) <= most else f"{shown}…"
