"""What a check says: a verdict, what was seen, why that matters and what to do."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["PROBLEM", "Finding", "Verdict", "guarded", "ok", "problem", "warning"]

Verdict = Literal["ok", "warning", "problem"]

PROBLEM: Final = 5
"""The exit code if a check has found a problem."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check has looked at.

    ``check``: which one, ``nginx`` say. ``where``: a file and its line, a process, a name; "" for this machine.
    ``seen``: what is there. ``why``: what that does to GroundFault; ``advice``: what to do; both "" if all is well.
    """

    check: str
    where: str
    verdict: Verdict
    seen: str
    why: str = ""
    advice: str = ""

    @property
    def code(self) -> int:
        """The exit code that this finding alone would make: a warning makes none."""
        return PROBLEM if self.verdict == "problem" else 0


def ok(check: str, where: str, seen: str) -> Finding:
    """Return a finding that asks for nothing."""
    return Finding(check, where, "ok", seen)


def warning(check: str, where: str, seen: str, why: str, advice: str) -> Finding:
    """Return a finding of something that hurts in an incident, or might."""
    return Finding(check, where, "warning", seen, why, advice)


def problem(check: str, where: str, seen: str, why: str, advice: str) -> Finding:
    """Return a finding of something that works against shedding or against circuits, or that stops a check."""
    return Finding(check, where, "problem", seen, why, advice)


def guarded(check: str, where: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Return what a check finds; an error of the check itself is a finding, for the others have yet to be made."""
    try:
        return list(look())
    except Exception as error:  # noqa: BLE001  whatever is wrong with one check, the others go on
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return [
            warning(check, where, f"this check failed: {said}", "nothing is known of what it looks at", "report it")
        ]
