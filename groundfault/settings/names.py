"""The settings that a store may hold: what each of them may be, and why the others may not be there.

The bounds are narrower than those in code: whoever writes into a store acts on a whole fleet at once.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple

from groundfault.errors import SettingsError
from groundfault.shedding.settings import ShedderSettings
from groundfault.vocabulary import Mode

__all__ = ["LIVE", "NOT_LIVE", "SERVER", "Kind", "Live", "checked", "disables"]

SERVER: Final = "server."
"""What the names of a shedder's settings begin with."""

SHORTEST_S: Final = 0.001
LONGEST_S: Final = 300.0
MOST: Final = 1_000_000
_MOST_PATHS: Final = 100
_MOST_RULES: Final = 100


Kind = Literal["number", "whole", "choice", "flag", "json"]


class Live(NamedTuple):
    """One setting that a store may hold. ``bound`` says in words what its value must be; ``fits`` decides.

    For who makes a form of it: what ``kind`` of value it is, the ends of a number's range, a choice's ``choices``.
    """

    bound: str
    fits: Callable[[Any], bool]
    kind: Kind = "json"
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


def _is_number(value: object) -> bool:
    """Return whether it is a finite number; a truth value is none, though Python counts with it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _number(low: float, high: float) -> Live:
    bound = f"a number between {low:g} and {high:g}"
    return Live(bound, lambda value: _is_number(value) and low <= value <= high, "number", low, high)


def _whole(low: int, high: int) -> Live:
    return Live(
        f"a whole number between {low} and {high}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high,
        "whole",
        low,
        high,
    )


def _one_of(*allowed: str) -> Live:
    bound = " or ".join(map(repr, allowed))
    return Live(bound, lambda value: isinstance(value, str) and value in allowed, "choice", choices=allowed)


def _is_range(value: object) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 2:  # noqa: PLR2004  a range has two ends
        return False
    return all(map(_is_number, value)) and 0 <= value[0] <= value[1] <= LONGEST_S


def _are_paths(value: object) -> bool:
    return isinstance(value, list | tuple) and 1 <= len(value) <= _MOST_PATHS and all(map(_is_path, value))


def _is_path(value: object) -> bool:
    return isinstance(value, str) and value.startswith("/")


def _are_rules(value: object) -> bool:
    """Return whether a shedder would take them. It knows best, and its own error would be of another path."""
    if not isinstance(value, list | tuple) or len(value) > _MOST_RULES:
        return False
    if not all(isinstance(rule, Mapping) for rule in value):
        return False
    try:
        ShedderSettings(criticality=tuple(value))
    except (SettingsError, TypeError):
        return False
    return True


_FLAG: Final = Live("true or false", lambda value: isinstance(value, bool), "flag")
_SHARE: Final = Live(
    "a number above 0 and at most 1", lambda value: _is_number(value) and 0 < value <= 1, "number", 0.0, 1.0
)
_TIME: Final = _number(SHORTEST_S, LONGEST_S)

LIVE: Final[Mapping[str, Live]] = {
    "timeout_s": _TIME,
    "slow_call_s": _TIME,
    "failure_threshold": _SHARE,
    "minimum_volume_per_s": _number(0, MOST),
    "sleep_window_s": _TIME,
    "max_sleep_window_s": _TIME,
    "max_concurrent": _whole(1, MOST),
    "mode": _one_of("enforce", "shadow", "force_open", "force_closed"),
    "honor_handled": _FLAG,
    "handled_patience_s": _TIME,
    "on_saturated": _one_of("report", "open"),
    "health_check_ttl_s": _TIME,
    "isolation": _one_of("caller", "thread"),
    "probe": _one_of("call", "health_check"),
    "fallback_max_concurrent": _whole(1, MOST),
    "fallback_timeout_s": _TIME,
    "server.mode": _one_of("enforce", "shadow", "off"),
    "server.deadline_s": _number(0.01, LONGEST_S),
    "server.max_concurrency": _whole(1, MOST),
    "server.health_paths": Live(f"1 to {_MOST_PATHS} paths that begin with /", _are_paths),
    "server.health_rate_per_s": _number(1, MOST),
    "server.max_deadline_s": _number(0.01, LONGEST_S),
    "server.criticality": Live(f"at most {_MOST_RULES} rules: a criticality, and a path, method or header", _are_rules),
    "server.serve_half_closed": _FLAG,
    "server.retry_after_s": Live(f"two numbers, 0 <= low <= high <= {LONGEST_S:g}", _is_range),
}
"""Every name that this version knows."""

NOT_LIVE: Final[Mapping[str, str]] = {
    "ignored_errors": "it names classes",
    "health_check": "it is a function",
    "server.service": "it is what scopes are matched with",
    "server.trusted_callers": "whom to trust is decided where the service is deployed",
    "server.identity": "it is a function",
    "server.key_salt": "it is a secret",
}
"""The other settings of the two halves, with the reason why no store holds them."""


def checked(name: str, value: Any) -> str | None:
    """Return the bound that ``value`` breaks, None if it breaks none; only for names of ``LIVE``."""
    if value is None:
        return f"{LIVE[name].bound}; to have none, unset it"
    return None if LIVE[name].fits(value) else LIVE[name].bound


def disables(name: str, value: Any) -> bool:
    """Return whether the value takes the protection away or refuses everything, as every mode but enforce does."""
    return name in {"mode", f"{SERVER}mode"} and value != Mode.ENFORCE
