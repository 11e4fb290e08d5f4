"""Reports as text that Prometheus reads: its own format, 0.0.4, and OpenMetrics 1.0.0.

A thousand commands make fifty thousand lines. So lines are made by formatting, a whole histogram by one.
"""

from typing import Final

from groundfault._histogram import Histogram
from groundfault.metrics.catalogue import BUCKETS_S, Metric
from groundfault.metrics.report import Report
from groundfault.metrics.samples import Row, cumulative, families

__all__ = ["OPENMETRICS", "TEXT", "negotiated", "render"]

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_BOUNDS: Final = (*map(repr, BUCKETS_S), "+Inf")


def render(report: Report, now: float, *, openmetrics: bool = False) -> bytes:
    """Return the report as text. ``now``: seconds since the epoch. Metrics come in the order of the catalogue."""
    escaped = _Escaped()
    parts: list[str] = []
    for metric, rows in families(report, now):
        parts.append(_head(metric, openmetrics=openmetrics))
        if metric.kind == "histogram":
            parts += _histograms(metric, rows, escaped)
        else:
            labels = _labels(metric)
            line = f"{metric.name}{{{labels}}} %s\n" if labels else f"{metric.name} %s\n"
            parts += [line % (*map(escaped.__getitem__, values), value) for values, value in rows]
    if openmetrics:
        parts.append("# EOF\n")
    return "".join(parts).encode()


def _head(metric: Metric, *, openmetrics: bool) -> str:
    name = metric.name
    unit = ""
    if openmetrics:
        name = name.removesuffix("_total")
        if name.endswith("_seconds"):
            unit = f"# UNIT {name} seconds\n"
    return f"# HELP {name} {metric.help}\n# TYPE {name} {metric.kind}\n{unit}"


def _labels(metric: Metric) -> str:
    return ",".join(f'{name}="%s"' for name in metric.labels)


def _histograms(metric: Metric, rows: list[Row], escaped: dict[str, str]) -> list[str]:
    name, labels = metric.name, _labels(metric)
    # The labels, which may hold anything, go in after the numbers. No escaped text holds a NUL.
    template = "".join(f'{name}_bucket{{\0,le="{bound}"}} %d\n' for bound in _BOUNDS)
    template += f"{name}_sum{{\0}} %s\n{name}_count{{\0}} %d\n"
    made = []
    for values, histogram in rows:
        if isinstance(histogram, Histogram):
            counts = cumulative(histogram)
            own = labels % (*map(escaped.__getitem__, values),)
            made.append((template % (*counts, histogram.sum_s, counts[-1])).replace("\0", own))
    return made


class _Escaped(dict[str, str]):
    """Values of labels as they are written, made when they are asked for."""

    def __missing__(self, value: str) -> str:
        text = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\0", "")
        self[value] = text
        return text


def negotiated(accept: str) -> bool:
    """Return whether OpenMetrics is what the header ``Accept`` asks for rather than the text format."""
    weights = {"application/openmetrics-text": 0.0, "text/plain": 0.0, "text/*": 0.0, "*/*": 0.0}
    for each in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in each.split(";"))
        if kind in weights:
            weights[kind] = max(weights[kind], _weight(parameters))
    text = max(weights["text/plain"], weights["text/*"], weights["*/*"])
    openmetrics = weights["application/openmetrics-text"]
    return openmetrics > 0.0 and openmetrics >= text


def _weight(parameters: list[str]) -> float:
    """Return a part's weight; 0 for a version that is not ours."""
    weight = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "q":
            try:
                weight = min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
        if name == "version" and value.strip('"') not in _VERSIONS:
            return 0.0
    return weight


_VERSIONS: Final = frozenset({"0.0.1", "0.0.4", "1.0.0"})
