"""What is said at the end: a table for who looks at it, and one line of JSON for who does not. Pure."""

import json
from typing import Any, Final

from groundfault.lab.load.judging import verdict
from groundfault.lab.runs.record import Check, Run, Stream
from groundfault.lab.runs.tally import Fate

__all__ = ["line", "table"]

_SHARES: Final = tuple(Fate)


def line(run: Run, run_file: str = "") -> str:
    """Return the verdict as one line of JSON."""
    return json.dumps(verdict(run, run_file), allow_nan=False)


def table(run: Run, run_file: str = "") -> str:
    """Return what came of a run in words, a line for each stream and each check."""
    lines = ["", f"{run.title}: {run.target}, {run.variant}".rstrip(", ")]
    if any(sum(stream.due) for stream in run.streams):
        lines.append("  " + f"{'requests':24}{'due':>9}" + "".join(f"{fate.value:>9}" for fate in _SHARES))
        lines += [_stream(stream) for stream in run.streams]
    lines += [_check(check) for check in run.checks]
    if run.lag_p99_ms is not None:
        lines.append(f"  the generator's own lag (p99): {run.lag_p99_ms:.1f} ms")
    lines += [f"  note: {note}" for note in run.notes]
    lines += [f"  void: {reason}" for reason in run.void]
    if run_file:
        lines.append(f"  run: {run_file}")
    return "\n".join([*lines, f"{run.name}: {run.verdict.value}"])


def _stream(stream: Stream) -> str:
    counts = [sum(getattr(stream, fate.value)) for fate in _SHARES]
    return f"  {stream.name[:24]:24}{sum(stream.due):>9}" + "".join(f"{count:>9}" for count in counts)


def _check(check: Check) -> str:
    mark = {True: "met", False: "MISSED", None: "shown"}[check.met]
    bound = ""
    if check.at_least is not None:
        bound = f"at least {_number(check.at_least)}"
    elif check.at_most is not None:
        bound = f"at most {_number(check.at_most)}"
    return f"  {mark:7}{check.title:52}{_number(check.value):>10} {check.unit:6}{bound}"


def _number(value: Any) -> str:
    return "none" if value is None else f"{value:.4g}"
