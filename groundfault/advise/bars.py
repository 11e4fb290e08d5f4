"""A distribution as lines of text, with what matters marked on it."""

from collections.abc import Iterator
from math import ceil, exp, log
from typing import Final

from groundfault.advise import wording
from groundfault.advise.distribution import Distribution
from groundfault.advise.proposal import Proposal

__all__ = ["bars", "marks_of"]

ROWS: Final = 14
WIDTH: Final = 36
_STEP: Final = log(1.25)
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


def marks_of(proposal: Proposal) -> list[tuple[float, str]]:
    """Return what is marked on a distribution, by seconds: percentiles, settings in force, and those proposed."""
    successes = proposal.seen.successes
    marks = [(successes.quantile(share / 100), f"p{share}") for share in (50, 95, 99)]
    for name in ("timeout_s", "slow_call_s"):
        advice = proposal.of(name)
        if advice is None:
            continue
        if advice.current is not None:
            marks.append((advice.current, f"{name} {wording.setting(advice.current)} now"))
        if advice.changes and advice.value is not None:
            marks.append((advice.value, f"{name} {wording.setting(advice.value)} proposed"))
    return sorted(marks)


def bars(proposal: Proposal, *, fine: bool = True) -> Iterator[str]:
    """Yield a row for each span of durations. ``fine``: with bars of block characters; else of number signs."""
    successes = proposal.seen.successes
    if not successes.count:
        return
    marks = marks_of(proposal)
    step, cells = _cells(successes, [at for at, _ in marks])
    first, last = min(cells), max(cells)
    most = max(cells.values())
    for cell in range(first, last + 1):
        times = cells.get(cell, 0.0)
        low, high = exp(cell * step), exp((cell + 1) * step)
        share = wording.percent(times / successes.count) if times >= 0.5 else ""  # noqa: PLR2004  half a call is none
        # The row holds what is above its beginning: a mark on a bound belongs to the row that ends there.
        said = ", ".join(text for at, text in marks if low < at <= high or (at <= low and cell == first))
        bar = _bar(times / most, fine=fine)
        line = f"{wording.seconds(high):>9} {bar:<{WIDTH}} {share:>8}"
        yield f"{line}  {'◀' if fine else '<'} {said}" if said else line.rstrip()


def _cells(durations: Distribution, marked: list[float]) -> tuple[float, dict[int, float]]:
    """Return the step, and counts by cell, as fine as the rows allow; the slowest calls of all share the last row."""
    low = durations.quantile(0.001) or durations.quantile(1.0)
    high = max(durations.bound_for(0.0005), *marked)
    spans = [bound for bound in (low, high) if bound > 0]
    high = spans[-1] if spans[-1] < float("inf") else max(durations.quantile(1.0), *marked)
    steps = ceil(max(1.0, log(max(high / low, 1.0001)) / _STEP) / ROWS)
    step = _STEP * steps
    # A mark that is exactly on a bound must not fall into the next row.
    least, most = int(log(low) / step // 1), int(log(high * (1 - 1e-9)) / step // 1)
    folded: dict[int, float] = {least: 0.0, most: 0.0}
    for cell, times in durations.density(step).items():
        within = min(max(cell, least), most)
        folded[within] = folded.get(within, 0.0) + times
    return step, folded


def _bar(share: float, *, fine: bool) -> str:
    eighths = round(share * WIDTH * 8)
    if not fine:
        return "#" * max(round(share * WIDTH), int(share > 0))
    eighths = max(eighths, int(share > 0))
    return _EIGHTHS[8] * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
