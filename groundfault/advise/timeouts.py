"""Advice on how long a call may take: twice the 95th percentile, unless that cuts off what is normal."""

from dataclasses import dataclass
from math import ceil, inf, log
from typing import Final

from groundfault.advise import wording
from groundfault.advise.distribution import NOTHING, Distribution
from groundfault.advise.observed import Observed
from groundfault.advise.proposal import Advice, Wishes
from groundfault.vocabulary import Outcome

__all__ = ["HIDDEN", "Kinds", "kinds_of", "least_calls", "seen_timeout_s", "slow_advice", "timeout_advice"]

TIMES: Final = 2.0
"""The timeout is so many times the 95th percentile."""
LEAST_S: Final = 0.01
"""No shorter timeout is proposed: a pause of the process or of the network is longer than most caches take."""
MOST_S: Final = 300.0
"""No longer one either: live settings do not allow it."""
LEAST_CALLS: Final = 200
"""Below it a 95th percentile rests on fewer than ten calls."""
HIDDEN: Final = 0.05
"""If more calls than these time out, the 95th percentile lies beyond the timeout, and nobody knows where."""
LONG_TAIL: Final = 1.5
"""A timeout that is so many times longer than twice the p95 leaves slow calls unnoticed for long."""
_OWN_SPAN: Final = 1.35  # no span of a process's own histogram is wider
_FEW_TIMEOUTS: Final = 10
_ONE_TIMEOUT: Final = 1.7  # two neighboring spans of a process's own histogram


def least_calls(wishes: Wishes) -> int:
    """Return how many successes it takes to see a share as small as the one that may be cut off."""
    return max(LEAST_CALLS, ceil(1 / wishes.may_cut) if wishes.may_cut else LEAST_CALLS)


def seen_timeout_s(seen: Observed) -> float | None:
    """Return the timeout in force as the calls show it: all that were given up were after about the same time."""
    given_up = seen.timed_out
    if given_up.count < _FEW_TIMEOUTS:
        return None
    early, late = given_up.quantile(0.1), given_up.quantile(0.9)
    return wording.round_near(early) if early > 0 and late <= early * _ONE_TIMEOUT else None


def _ranked(seen: Observed) -> tuple[Distribution, float]:
    """Return successes and timeouts together, and the share of the latter.

    A call that was given up would have taken longer than it did. So the p95 of both is right as long as all those given
    up lie above it; the p95 of the successes alone would be too small.
    """
    given_up = max(seen.timed_out.count, seen.calls.get(Outcome.TIMEOUT, 0))
    missing = given_up - seen.timed_out.count
    longest = max((low for low, _, _ in seen.successes.spans), default=0.0)
    both = seen.successes.merged(seen.timed_out, Distribution([(longest, inf, missing)]) if missing else NOTHING)
    return both, given_up / both.count if both.count else 0.0


def timeout_advice(seen: Observed, current: float | None, wishes: Wishes) -> Advice:
    """Propose ``timeout_s``, or say why not."""
    shown = seen_timeout_s(seen)
    known, read = (shown, shown is not None) if current is None else (current, False)

    def advice(value: float | None, why: str) -> Advice:
        return Advice("timeout_s", value, why, known, read)

    successes, needed = seen.successes, least_calls(wishes)
    both, hidden = _ranked(seen)
    if hidden > HIDDEN:
        more = "" if known is None else f" Give them {wording.seconds(wording.round_up(known * 2))} for a while, or"
        return advice(
            None,
            f"{wording.percent(hidden)} of the calls time out, so how long 95 % take is not known: longer than that."
            f"{more or ' Give them longer, or'} mend what is called, and ask again.",
        )
    if successes.count < needed:
        return advice(
            None,
            f"{wording.count(successes.count)} successes are too few to know the slowest in {needed:,}: "
            f"{needed - successes.count:,} more are needed.",
        )
    p95_s = both.quantile(0.95)
    twice_s, floor_s = TIMES * p95_s, successes.bound_for(wishes.may_cut)
    value = wording.round_up(max(twice_s, floor_s, LEAST_S)) if floor_s < inf else inf
    if value > MOST_S:
        return advice(
            None, f"More than {wording.percent(wishes.may_cut)} of the successes take longer than any timeout."
        )
    cut = successes.above(value)
    low, high = both.span_of(0.95)
    rough = f" (between {wording.seconds(low)} and {wording.seconds(high)})" if high > low * _OWN_SPAN else ""
    said = f"The p95 is {wording.seconds(p95_s)}{rough}, twice that {wording.seconds(twice_s)}"
    if floor_s > twice_s and floor_s > LEAST_S:
        said += (
            f", which would cut off {wording.percent(successes.share_above(twice_s))} of today's successes; "
            f"{wording.seconds(value)} is where no more than {wording.percent(wishes.may_cut)} are."
        )
    elif value == LEAST_S:
        said += f"; below {wording.seconds(LEAST_S)} any pause of a process or network would count as a fault."
    else:
        said += f", rounded up {wording.seconds(value)}."
    return advice(
        value,
        f"{said} It cuts off {wording.count(cut) if cut else 'none'} of {wording.count(successes.count)} successes"
        f"{f' ({wording.percent(cut / successes.count)})' if cut else ''}.",
    )


def slow_advice(seen: Observed, timeout: Advice, current: float | None) -> Advice | None:
    """Propose ``slow_call_s`` where a long tail wants a timeout so long that the circuit would notice slowness late."""
    if timeout.value is None:
        return None
    twice_s = TIMES * _ranked(seen)[0].quantile(0.95)
    if timeout.value <= LONG_TAIL * twice_s or twice_s < LEAST_S:
        return None
    value = wording.round_up(twice_s)
    slow = seen.successes.share_above(value)
    return Advice(
        "slow_call_s",
        value,
        f"The timeout must be long for the slowest few; {wording.percent(slow)} of the calls take longer than "
        f"{wording.seconds(value)}, twice the p95. As slow calls they keep their results and still count against the "
        f"callee, so that the circuit notices as soon as most calls are that slow.",
        current,
    )


@dataclass(frozen=True, slots=True)
class Kinds:
    """Two kinds of calls under one name: what share of them is of the slow kind, and about how long either takes."""

    fast_s: float
    slow_s: float
    slow_share: float


_CELL: Final = log(1.5)
_APART: Final = 4.0
_LEAST_KIND: Final = 0.005
_VALLEY: Final = 0.4
_LEAST_PEAK: Final = 20


def kinds_of(durations: Distribution) -> Kinds | None:
    """Return the two kinds of calls, if there is a valley between them that chance did not dig."""
    cells = durations.density(_CELL)
    if not cells:
        return None
    first, last = min(cells), max(cells)
    heights = [cells.get(cell, 0.0) for cell in range(first, last + 1)]
    best: tuple[float, Kinds] | None = None
    for at in range(1, len(heights) - 1):
        left, right = max(heights[:at]), max(heights[at + 1 :])
        below = sum(heights[:at]) + heights[at] / 2
        lesser = min(below, durations.count - below)
        lower = min(left, right)
        fast, slow = heights.index(left), at + 1 + heights[at + 1 :].index(right)
        deep = heights[at] <= _VALLEY * lower and lower - heights[at] >= 4 * lower**0.5
        apart = (slow - fast) * _CELL >= log(_APART)
        if deep and apart and lower >= _LEAST_PEAK and lesser >= _LEAST_KIND * durations.count:
            depth = lower - heights[at]
            if best is None or depth > best[0]:
                share = 1 - below / durations.count
                best = depth, Kinds(1.5 ** (first + fast + 0.5), 1.5 ** (first + slow + 0.5), share)
    return None if best is None else best[1]
