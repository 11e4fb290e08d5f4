"""Makes a plan of what was seen, and warns of what in it may not be as it was."""

from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Final

from groundfault.lab.replay.folding import OTHER
from groundfault.lab.replay.plan import MOST_SECONDS, MOST_TEMPLATES, Plan, PlanError, Template
from groundfault.lab.replay.seen import MOST_HOURS, Seen

__all__ = ["plan_of", "warnings_of"]

_HOUR_S: Final = 3600
_MINUTE_S: Final = 60
_STRAY_H: Final = 24
"""Requests that are farther than that from most of the others are strays: a clock was wrong."""
_GAP_S: Final = 60
_GAP_REQUESTS: Final = 20.0
"""A gap is as long that so many requests were to be expected in it."""
_MOST_SAID: Final = 3


def plan_of(seen: Seen) -> tuple[Plan, int]:
    """Return the plan of what was seen, and how many requests are not in it for their time is far from the others'.

    Raises PlanError if there is none, or more than a plan may hold.
    """
    seen.fold_again()
    seen.fold_rare()
    hours, strays = _together(seen)
    if not hours:
        raise PlanError("there is no request in it")
    curve: list[float] = []
    for hour in range(hours[0], hours[-1] + 1):
        curve += seen.hours.get(hour, bytes(_HOUR_S))
    first = next(at for at, times in enumerate(curve) if times) // _MINUTE_S * _MINUTE_S
    last = next(at for at in range(len(curve), 0, -1) if curve[at - 1])
    if last - first > MOST_SECONDS:
        raise PlanError(
            f"the log covers {(last - first) / 86_400:.1f} days; a plan holds at most {MOST_SECONDS // 86_400}: "
            "choose some with --from 2026-11-22T18:00 --for 24h"
        )
    curve = curve[first:last]
    mix: list[dict[str, int]] = []
    for minute in range(first // _MINUTE_S, -(-last // _MINUTE_S)):
        rows = seen.mix.get(hours[0] + minute // 60, {})
        mix.append({name: row[minute % 60] for name, row in rows.items() if row[minute % 60]})
    totals: Counter[str] = Counter()
    for counts in mix:
        totals.update(counts)
    other = totals.pop(OTHER, 0)
    ranked = sorted(totals, key=lambda name: (-totals[name], name))
    other += sum(totals[name] for name in ranked[MOST_TEMPLATES:])
    index = {name: at for at, name in enumerate(ranked[:MOST_TEMPLATES])}
    if not index:
        raise PlanError("none of its requests is of a kind that can be told apart")
    plan = Plan(
        start=_start(seen, hours[0] * _HOUR_S + first),
        rps=curve,
        templates=[_template(name) for name in index],
        mix=[{index[name]: times for name, times in counts.items() if name in index} for counts in mix],
        other=other,
        statuses=dict(seen.statuses),
        read={"lines": seen.lines, "parsed": seen.parsed, "refused": seen.refused.total()},
    )
    return plan, strays


def _together(seen: Seen) -> tuple[list[int], int]:
    """Return the hours that belong together, the most of them in requests, and how many requests the others have."""
    groups: list[list[int]] = []
    for hour in sorted(hour for hour, held in seen.hours.items() if any(held)):
        if not groups or hour - groups[-1][-1] > _STRAY_H:
            groups.append([])
        groups[-1].append(hour)
    sizes = [sum(sum(seen.hours[hour]) for hour in group) for group in groups]
    if not groups:
        return [], 0
    most = max(range(len(groups)), key=lambda at: (sizes[at], at))
    return groups[most], sum(sizes) - sizes[most]


def _start(seen: Seen, second: int) -> datetime:
    """Return a moment in the zone that most of the log is in."""
    zone = min(seen.zones, key=lambda each: (-seen.zones[each], each), default=0)
    return datetime.fromtimestamp(second, UTC if zone == 0 else timezone(timedelta(minutes=zone)))


def _template(name: str) -> Template:
    method, _, path = name.partition(" ")
    return Template(method=method, path=path)


def warnings_of(seen: Seen, plan: Plan, strays: int) -> list[str]:
    """Return what a person should know of the times, a sentence each."""
    said = []
    for name, number, by_s in seen.jumps:
        said.append(f"{name}:{number}: the time goes back by {_long(-by_s)}; was a clock set, or a file appended?")
    if seen.backwards > len(seen.jumps):
        share = seen.backwards / max(1, seen.parsed)
        said.append(
            f"the time goes back {seen.backwards:,} times ({share:.2%} of the lines): they stand in the order in which "
            "answers ended, or were merged; each counts in its own second"
        )
    if len(seen.zones) > 1:
        zones = ", ".join(_zone(zone) for zone, _ in sorted(seen.zones.items(), key=lambda each: (-each[1], each[0])))
        said.append(
            f"times have {len(seen.zones)} distances from UTC ({zones}), as when summer time ends; "
            "all are put on one clock"
        )
    said += _gaps(plan)
    if strays:
        said.append(
            f"{strays:,} requests are more than {_STRAY_H} h away from the others and left out; was a clock wrong?"
        )
    if seen.gave_way:
        said.append(
            f"{seen.gave_way:,} requests are left out: there are more than {MOST_HOURS} hours; see --from and --for"
        )
    if seen.outside:
        said.append(f"{seen.outside:,} requests lie outside of --from and --for")
    if seen.sampled:
        said.append(f"{seen.sampled:,} lines are samples: each counts for all requests that it stands for")
    if plan.other:
        said.append(f"{plan.other:,} requests are of kinds too many to tell apart; they are replayed as the others are")
    return said


def _gaps(plan: Plan) -> list[str]:
    busy = [at for at, times in enumerate(plan.rps) if times]
    least_s = max(_GAP_S, _GAP_REQUESTS / max(plan.total / plan.seconds, 1e-9))
    gaps = [(after - before - 1, before + 1) for before, after in pairwise(busy) if after - before - 1 >= least_s]
    said = [
        f"nothing came for {_long(gap_s)} from {_moment(plan, at)} on; is a part of the log missing?"
        for gap_s, at in gaps[:_MOST_SAID]
    ]
    if len(gaps) > _MOST_SAID:
        said.append(f"and there are {len(gaps) - _MOST_SAID} more such gaps")
    return said


def _moment(plan: Plan, at: int) -> str:
    return f"{at} s" if plan.start is None else f"{plan.start + timedelta(seconds=at):%Y-%m-%d %H:%M:%S}"


def _zone(minutes: int) -> str:
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}{abs(minutes) % 60:02}"


def _long(value_s: float) -> str:
    if value_s >= 2 * _HOUR_S:
        return f"{value_s / _HOUR_S:.1f} h"
    return f"{value_s / 60:.0f} min" if value_s >= 2 * _MINUTE_S else f"{value_s:.0f} s"
