"""What a person is told of a log that was read, and of the plan that came of it."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from groundfault.lab.replay.plan import Plan
from groundfault.lab.replay.reading import Read
from groundfault.lab.replay.traffic import Traffic

__all__ = ["as_json", "said_of", "said_of_traffic"]

_TOP: Final = 12


def said_of(read: Read) -> Iterator[str]:
    """Yield lines about a reading: counts, what was refused and where, the span, and the most frequent requests."""
    plan, seen = read.plan, read.seen
    if seen is not None:
        yield f"lines     {seen.lines:,}, of which {seen.parsed:,} are requests and {seen.refused.total():,} are not"
        for why, times in sorted(seen.refused.items(), key=lambda each: (-each[1], each[0])):
            yield f"          {times:,} x {why}"
        for name, number, why in seen.places:
            yield f"          {name}:{number}: {why}"
    at, peak = _peak(plan)
    yield f"span      {plan.covers()}"
    yield f"rate      mean {plan.total / plan.seconds:,.1f}/s, peak {peak:,.0f}/s at {_moment(plan, at)}"
    weights = plan.weights()
    whole = sum(weights) + plan.other
    for number, index in enumerate(sorted(range(len(weights)), key=lambda each: -weights[each])[:_TOP]):
        kind = plan.templates[index]
        label = "requests" if number == 0 else ""
        yield f"{label:9} {weights[index] / whole:6.1%}  {kind.method} {kind.path}"
    if len(weights) > _TOP:
        yield f"          and {len(weights) - _TOP} more kinds"
    answers = sum(plan.statuses.values())
    if answers:
        ranked = sorted(plan.statuses.items(), key=lambda each: (-each[1], each[0]))[:8]
        yield f"answers   {', '.join(f'{status} {times / answers:.1%}' for status, times in ranked)}"
    for note in read.notes:
        yield f"! {note}"


def as_json(read: Read) -> dict[str, Any]:
    """Return the same for programs."""
    plan, seen = read.plan, read.seen
    at, peak = _peak(plan)
    weights = plan.weights()
    return {
        "lines": plan.read.get("lines", 0),
        "parsed": plan.read.get("parsed", 0),
        "refused": {} if seen is None else dict(sorted(seen.refused.items())),
        "places": [] if seen is None else [f"{name}:{number}: {why}" for name, number, why in seen.places],
        "start": None if plan.start is None else plan.start.isoformat(),
        "seconds": plan.seconds,
        "mean_rps": round(plan.total / plan.seconds, 4),
        "peak_rps": peak,
        "peak_at_s": at,
        "templates": [
            {"method": each.method, "path": each.path, "requests": weight}
            for each, weight in zip(plan.templates, weights, strict=True)
        ],
        "other": plan.other,
        "statuses": dict(sorted(plan.statuses.items())),
        "notes": read.notes,
    }


def said_of_traffic(traffic: Traffic, speed: float, host: str, methods: str) -> Iterator[str]:
    """Yield lines about what is going to be sent."""
    curve = traffic.curve
    total = curve.expected(0.0, curve.total_s) / speed
    peak = f"peak {curve.peak_rps:,.0f}/s"
    yield f"replaying {curve.total_s / speed:,.0f} s against {host}: about {total:,.0f} requests, {peak}"
    if traffic.left_out > 0.0005:  # noqa: PLR2004  what is shown as 0.1 %
        yield f"! {traffic.left_out:.1%} of the requests are left out: only {methods} are sent; see --methods"


def _peak(plan: Plan) -> tuple[int, float]:
    at = max(range(plan.seconds), key=lambda second: (plan.rps[second], -second))
    return at, plan.rps[at]


def _moment(plan: Plan, at: int) -> str:
    return f"{at} s" if plan.start is None else f"{plan.start + timedelta(seconds=at):%Y-%m-%d %H:%M:%S%z}"
