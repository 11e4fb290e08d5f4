"""A reactive autoscaler, for comparison: it looks at how busy instances are, and asks for more when they are. Pure."""

from dataclasses import dataclass
from math import ceil
from typing import Final

from groundfault.lab.curves import Curve
from groundfault.lab.planning.demand import Service
from groundfault.lab.planning.steps import wanted_for

__all__ = ["Autoscaler", "reacted"]

_HAIR: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoscaler:
    """It looks every ``every_s`` at the use in the last ``over_s``, and orders ``use / (1 - headroom)`` times as many.

    What is used is at most everything: an overloaded fleet of ten looks the same at twice and at ten times its load.
    Fewer are kept only after ``calm_s`` in which fewer would have done. ``tolerance``: what is close is left alone.
    The defaults are those of Kubernetes' horizontal autoscaler, with metrics by the minute.
    """

    every_s: float = 15.0
    over_s: float = 60.0
    calm_s: float = 300.0
    tolerance: float = 0.1


def reacted(
    curve: Curve, service: Service, scaler: Autoscaler, *, start: float = 0.0, end: float | None = None
) -> list[tuple[float, int]]:
    """Return when how many instances take requests: ``(moment, instances)``, the first for the start.

    It begins with as many as are needed at the start. Ordered ones come ``start_s`` later.
    """
    end = curve.total_s if end is None else end
    serving = ordered = _bounded(service, wanted_for(service, curve.rate(start)))
    made = [(start, serving)]
    coming: list[tuple[float, int]] = []  # when they are there, and how many there are then
    fewer: list[tuple[float, int]] = []
    target = 1 - service.headroom
    now = start
    while now < end:
        while coming and coming[0][0] <= now:
            moment, serving = coming.pop(0)
            made.append((moment, serving))
        since = max(start, now - scaler.over_s)
        offered = curve.expected(since, now) / (now - since) if now > since else curve.rate(now)
        use = min(offered * service.share / (service.rps_per_instance * serving), 1.0)
        ratio = use / target
        wanted = serving if abs(ratio - 1) <= scaler.tolerance else ceil(serving * ratio - _HAIR)
        wanted = _bounded(service, max(service.least, wanted))
        fewer = [each for each in fewer if each[0] > now - scaler.calm_s] + [(now, wanted)]
        if wanted > ordered:
            ordered = wanted
            coming.append((now + service.start_s, ordered))
        calm = max(each for _, each in fewer)
        if calm < ordered and not coming and now - start >= scaler.calm_s:
            ordered = serving = calm
            made.append((now, serving))
        now += scaler.every_s
    return made + [each for each in coming if each[0] < end]


def _bounded(service: Service, wanted: int) -> int:
    return wanted if service.most is None else min(wanted, service.most)
