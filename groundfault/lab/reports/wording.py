"""Figures and verdicts in words, the same on a page, on the command line and in a pipeline's log. Pure."""

import re
from typing import Final

from groundfault.lab.runs.record import Check, Run, Verdict

__all__ = ["bound_of", "clock", "figure", "line", "missed", "name_of_run", "shown", "summary", "value_of"]

_UNPRINTABLE: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufffe\uffff\ud800-\udfff]+"
)


def shown(text: str, most: int = 200) -> str:
    """Return a text of the run as one line of printable characters, no longer than ``most``."""
    plain = _UNPRINTABLE.sub(" ", text).strip()
    return plain if len(plain) <= most else plain[: most - 1].rstrip() + "…"


def figure(value: float | None, unit: str) -> str:
    """Return a value with its unit; None is one that could not be had."""
    if value is None:
        return "not to be had"
    if unit == "share":
        return f"{value * 100:.{_places(value * 100)}f} %"
    if unit == "ms":
        return f"{value:,.{0 if abs(value) >= 100 else 1}f} ms"  # noqa: PLR2004  three digits tell enough
    if unit == "s":
        return f"{value:,.{0 if value == int(value) else 1}f} s"
    if unit == "1/s":
        return f"{value:,.1f}/s"
    text = f"{value:,.0f}" if value == int(value) else f"{value:,.3g}"
    return f"{text} {shown(unit, 20)}".rstrip()


def _places(percent: float) -> int:
    """Return how many decimals a percentage wants: near 0 and 100 the small ones matter."""
    near = min(abs(percent), abs(100 - percent))
    return 2 if 0 < near < 1 else int(percent != int(percent))


def value_of(check: Check) -> str:
    """Return what was measured, with its unit."""
    if check.value is None and check.measure.startswith("recovery_s"):
        return "not within the run"
    return figure(check.value, check.unit)


def bound_of(check: Check) -> str:
    """Return the bound in words; empty where there is none."""
    if check.at_least is not None:
        return f"at least {figure(check.at_least, check.unit)}"
    if check.at_most is not None:
        return f"at most {figure(check.at_most, check.unit)}"
    return ""


def missed(check: Check) -> str:
    """Return in one sentence what a missed bound is about."""
    return f"{shown(check.title)}: {value_of(check)}, and must be {bound_of(check)}"


def line(check: Check) -> str:
    """Return one line for a log, which no text of the run can break in two or begin."""
    state = {True: "ok", False: "MISSED", None: "shown"}[check.met]
    bound = bound_of(check)
    return (
        f"{state:<6}  {shown(check.measure, 60):<32}  {value_of(check):>18}  {bound:<20}  {shown(check.title)}".rstrip()
    )


def summary(run: Run) -> str:
    """Return the verdict in one sentence."""
    bounds = [check for check in run.checks if check.met is not None]
    failed = sum(check.met is False for check in bounds)
    if run.verdict is Verdict.VOID:
        return "Void: this run says nothing about what it measured."
    if not bounds:
        return "Not judged: the run has no bounds."
    if failed:
        return f"Failed: {_of(failed, len(bounds))} missed."
    return "Passed: the one bound is met." if len(bounds) == 1 else f"Passed: all {len(bounds)} bounds are met."


def _of(some: int, all_: int) -> str:
    if all_ == 1:
        return "the one bound is"
    return f"{some} of {all_} bounds {'is' if some == 1 else 'are'}"


def name_of_run(run: Run) -> str:
    """Return the name and what tells it from others of that name."""
    return shown(f"{run.name}, {run.variant}" if run.variant else run.name, 80)


def clock(t: float, whole: float) -> str:
    """Return a moment of a run that takes ``whole`` seconds: in seconds, or as ``h:mm:ss`` in a longer one."""
    if whole <= 600:  # noqa: PLR2004  ten minutes can still be counted in seconds
        return f"{t:g} s"
    total = round(t)
    return f"{total // 3600}:{total // 60 % 60:02d}:{total % 60:02d}"
