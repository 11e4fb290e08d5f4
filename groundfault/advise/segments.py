"""Whom a proposal would hurt: a few heavy users whose calls are slow by nature, and hardly seen in the whole."""

from collections.abc import Mapping
from typing import Final

from groundfault.advise import wording
from groundfault.advise.observed import Seen
from groundfault.advise.proposal import ORDINARY, SegmentView
from groundfault.advise.timeouts import TIMES

__all__ = ["MAY_LOSE", "caution", "views"]

MAY_LOSE: Final = 0.01
"""More of its successes than these may no segment lose without a word."""
LEAST_CALLS: Final = 50
"""Of a segment with fewer calls, nothing is known that chance could not have done."""
_HURT: Final = 0.05


def views(segments: Mapping[str, Seen], timeout_s: float | None) -> list[SegmentView]:
    """Return each segment under a timeout, those that lose most first. ``timeout_s``: None for no bound."""
    total = sum(each.made for each in segments.values())
    found = []
    for name, seen in segments.items():
        successes, given_up = seen.successes, seen.timed_out.count
        p95_s = successes.merged(seen.timed_out).quantile(0.95)
        cut = 0.0 if timeout_s is None else successes.share_above(timeout_s)
        view = SegmentView(
            name,
            seen.made,
            seen.made / total if total else 0.0,
            p95_s,
            given_up / (given_up + successes.count) if given_up else 0.0,
            cut,
            _sparing(seen, p95_s, cut, timeout_s),
        )
        found.append(view)
    return sorted(found, key=lambda view: (-view.cut_share, -view.p95_s, view.name))


def _sparing(seen: Seen, p95_s: float, cut: float, timeout_s: float | None) -> float | None:
    if timeout_s is None or seen.successes.count < LEAST_CALLS:
        return None
    wanted_s = TIMES * p95_s
    if cut <= MAY_LOSE and wanted_s <= timeout_s * (1 + ORDINARY):
        return None
    return wording.round_up(max(wanted_s, seen.successes.bound_for(MAY_LOSE)))


def caution(view: SegmentView, key: str, timeout_s: float, slow_call_s: float | None = None) -> str | None:
    """Return what the person must know of this segment before applying the timeout; None if all is well.

    ``slow_call_s``: the one that is proposed with it, None if there is none.
    """
    if view.sparing_s is None:
        if view.timed_out_share > _HURT and view.calls >= LEAST_CALLS:
            return (
                f"{key} {view.name} ({wording.percent(view.share)} of the calls) is cut off today: "
                f"{wording.percent(view.timed_out_share)} of its calls time out."
            )
        return None
    loses = (
        f"would lose {wording.percent(view.cut_share)} of its successes"
        if view.cut_share > MAY_LOSE
        else f"would have little to spare, with {wording.percent(view.cut_share)} of its successes cut off"
    )
    sparing, proposed = wording.setting(view.sparing_s), wording.setting(timeout_s)
    slow = wording.setting(slow_call_s or timeout_s)
    own = f"{key} {view.name}"
    return (
        f"{own} ({wording.percent(view.share)} of the calls) is slower by nature: its p95 is "
        f"{wording.seconds(view.p95_s)}. With timeout_s {proposed} it {loses}. Either give all timeout_s {sparing}, "
        f"with slow_call_s {slow} so that the circuit stays as alert, or give {own} a command of its own with "
        f"timeout_s {sparing}."
    )
