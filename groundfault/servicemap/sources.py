"""Where a map comes from: the reports of this host's processes, ``/metrics`` pages, or a Prometheus server."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from math import isfinite
from typing import Any, Final, NamedTuple

from groundfault.metrics.report import ADMITTED, Report
from groundfault.servicemap.graph import SHED, Seen

__all__ = ["Sample", "SourceError", "ask_prometheus", "read_page", "seen_in_pages", "seen_in_report", "seen_in_samples"]

_TIMEOUT_S: Final = 10.0
_LARGEST: Final = 64 * 2**20

CALLS: Final = "groundfault_edge_calls_total"
REQUESTS: Final = "groundfault_edge_requests_total"
WAITS: Final = "groundfault_edge_time_in_queue_seconds_total"
TOTALS: Final = "groundfault_requests_total"


class SourceError(Exception):
    """A source could not be read; the message names it and the cause."""


class Sample(NamedTuple):
    """One line of an exposition, or one series of a query's result."""

    name: str
    labels: Mapping[str, str]
    value: float


def seen_in_report(report: Report) -> Seen:
    """Return what the reports of processes say about edges, since they began."""
    requests: dict[tuple[str, str], dict[str, float]] = {}
    waits_s: dict[tuple[str, str], float] = {}
    totals: dict[str, dict[str, float]] = {}
    for server in report.servers.values():
        for (caller, reason), (times, wait_s) in server.callers.items():
            counts = requests.setdefault((caller, server.service), {})
            _add(counts, ADMITTED if reason == ADMITTED else SHED, times)
            waits_s[caller, server.service] = waits_s.get((caller, server.service), 0.0) + wait_s
        for (reason, _), times in server.requests.items():
            _add(totals.setdefault(server.service, {}), ADMITTED if reason == ADMITTED else SHED, times)
    calls: dict[tuple[str, str], dict[str, float]] = {}
    for (caller, resource, outcome), times in report.edges.items():
        _add(calls.setdefault((caller, resource), {}), outcome, times)
    return Seen(calls, requests, waits_s, totals)


def seen_in_samples(samples: Iterable[Sample], span_s: float | None = None) -> Seen:
    """Return what metrics say about edges. Samples that lack a label, and all other metrics, are passed over."""
    calls: dict[tuple[str, str], dict[str, float]] = {}
    requests: dict[tuple[str, str], dict[str, float]] = {}
    waits_s: dict[tuple[str, str], float] = {}
    totals: dict[str, dict[str, float]] = {}
    for name, labels, value in samples:
        if not (isfinite(value) and value >= 0):  # no count, whoever says so
            continue
        try:
            if name == CALLS:
                _add(calls.setdefault((labels["caller"], labels["resource"]), {}), labels["outcome"], value)
            elif name == REQUESTS:
                _add(requests.setdefault((labels["caller"], labels["service"]), {}), labels["result"], value)
            elif name == WAITS:
                edge = labels["caller"], labels["service"]
                waits_s[edge] = waits_s.get(edge, 0.0) + value
            elif name == TOTALS:
                _add(totals.setdefault(labels["service"], {}), labels["result"], value)
        except KeyError:
            continue
    return Seen(calls, requests, waits_s, totals, span_s)


def _add(counts: dict[str, float], what: str, times: float) -> None:
    counts[what] = counts.get(what, 0) + times


def read_page(url: str) -> Iterator[Sample]:
    """Yield the samples of a ``/metrics`` page. Raises SourceError."""
    try:
        from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415  only where it is wanted
    except ImportError as missing:
        raise SourceError(
            "reading a /metrics page needs prometheus-client: pip install 'groundfault[prometheus]'"
        ) from missing
    text = _fetch(url).decode("utf-8", "replace")
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                yield Sample(sample.name, sample.labels, float(sample.value))
    except ValueError as error:
        raise SourceError(f"{url} is no page of metrics: {error}") from None


def seen_in_pages(urls: Iterable[str]) -> Seen:
    """Return what several hosts' ``/metrics`` pages say about edges. Raises SourceError."""
    return seen_in_samples(sample for url in urls for sample in read_page(url))


def ask_prometheus(url: str, window: str) -> Iterator[Sample]:
    """Yield how much each edge's metrics have grown within the window, from a Prometheus server. Raises SourceError."""
    for name in (CALLS, REQUESTS, WAITS, TOTALS):
        labels = {CALLS: "caller, resource, outcome", TOTALS: "service, result"}.get(name, "caller, service, result")
        query = urllib.parse.urlencode({"query": f"sum by ({labels}) (increase({name}[{window}]))"})
        body = _fetch(f"{url.rstrip('/')}/api/v1/query?{query}")
        yield from (Sample(name, each, value) for each, value in _series(url, body))


def _series(url: str, body: bytes) -> Iterator[tuple[dict[str, str], float]]:
    try:
        answer: Any = json.loads(body)
        if answer["status"] != "success":
            raise SourceError(f"{url} refuses the query: {answer.get('error')}")
        found = [(dict(each["metric"]), float(each["value"][1])) for each in answer["data"]["result"]]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise SourceError(f"{url} does not answer as Prometheus does: {type(error).__name__} {error}") from None
    yield from ((labels, value) for labels, value in found if value > 0)  # nor is a NaN


def _fetch(url: str) -> bytes:
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise SourceError(f"{url} must be an http or https address")
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:  # noqa: S310  checked above
            body: bytes = response.read(_LARGEST + 1)
    except urllib.error.HTTPError as error:
        with error:
            raise SourceError(
                f"{url} answers {error.code}: {error.read(300).decode('utf-8', 'replace').strip()}"
            ) from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{url} cannot be read: {error}") from None
    if len(body) > _LARGEST:
        raise SourceError(f"{url} answers with more than {_LARGEST // 2**20} MiB")
    return body
