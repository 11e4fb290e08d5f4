"""The scenario ``replay``: a traffic plan as the kit's lanes and curve. Pure; ``locustfiles/replay.py`` runs it."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any

from groundfault.lab.load.scenario import Lane, Options, Scenario
from groundfault.lab.replay.folding import METHODS
from groundfault.lab.replay.plan import Plan, PlanError
from groundfault.lab.replay.traffic import Seconds, Traffic, traffic_of

__all__ = ["SCENARIO", "methods_of"]

LANE = "replayed"


def methods_of(text: str) -> frozenset[str]:
    """Read ``GET,HEAD``. Raises ValueError for a method that no plan holds."""
    methods = frozenset(part.strip().upper() for part in text.split(",") if part.strip())
    unknown = sorted(methods - METHODS)
    if unknown or not methods:
        raise ValueError(f"methods must be among {', '.join(sorted(METHODS))}, not {', '.join(unknown) or 'none'}")
    return methods


@lru_cache(maxsize=2)
def _traffic(plan: str, since: str, for_s: float, scale: float, methods: str) -> Traffic:
    try:
        return traffic_of(
            Plan.load(Path(plan)),
            since=since or None,
            for_s=for_s or None,
            scale=scale,
            methods=methods_of(methods),
        )
    except PlanError as error:
        raise ValueError(str(error)) from error


def _of(options: Namespace) -> Traffic:
    if not options.plan:
        raise ValueError("--plan must name a plan, as groundfault replay read writes it")
    for name, value, least in (("scale", options.scale, 0.0), ("for-s", options.for_s, -1.0)):
        if not (isfinite(value) and value > least):
            raise ValueError(f"{name} must be above {max(least, 0):g}, not {value:g}")
    return _traffic(options.plan, options.since, options.for_s, options.scale, options.methods)


def _options(group: Options) -> None:
    group.add_argument("--plan", default="", metavar="FILE", help="the plan that is replayed")
    group.add_argument("--scale", type=float, default=1.0, help="multiplies all rates")
    group.add_argument("--since", default="", metavar="TIME", help="begin there: 18:00, 2026-11-22T18:00 or 90s")
    group.add_argument("--for-s", type=float, default=0.0, metavar="S", help="so many seconds of the plan; 0: all")
    group.add_argument("--methods", default="GET,HEAD", help="only these are sent")


def _lanes(options: Namespace) -> Sequence[Lane]:
    return (Lane(LANE, _of(options).choose),)


def _curve(options: Namespace) -> Seconds:
    return _of(options).curve


def _spans(options: Namespace) -> Mapping[str, tuple[float, float]]:
    traffic = _of(options)
    start, end = traffic.spike
    spans = {"before": (0.0, start), "spike": (start, end), "after": (end, traffic.curve.total_s)}
    return {name: span for name, span in spans.items() if span[0] < span[1]}


def _settings(options: Namespace) -> Mapping[str, Any]:
    kept = ("scale", "since", "for_s", "methods", "scale_time", "deadline", "seed")
    return {"plan": Path(options.plan).name, **{name: getattr(options, name) for name in kept}}


SCENARIO = Scenario(
    name="replay",
    title="Traffic that was, replayed",
    lanes=_lanes,
    curve=_curve,
    spans=_spans,
    options=_options,
    source="replay",
    settings=_settings,
)
