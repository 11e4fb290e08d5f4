"""For applications that have prometheus_client: our metrics in their registry.

``install()`` is enough in a single process, and with a run directory in several.
In prometheus_client's multiprocess mode, where a registry is made for each scrape, make the collector once, where the
application is loaded, and register it beside theirs::

    GROUNDFAULT = GroundFaultCollector()

    def metrics(request):
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        registry.register(GROUNDFAULT)
        ...

prometheus_client allows no custom collectors in that mode, for it cannot merge them. Ours merges for itself.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Lock
from weakref import WeakKeyDictionary

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.metrics_core import Metric as Family
    from prometheus_client.registry import Collector
    from prometheus_client.samples import Sample
except ImportError as missing:  # pragma: no cover  shown only where the extra is missing
    raise ImportError(
        "groundfault.integrations.prometheus needs prometheus_client: pip install 'groundfault[prometheus]'"
    ) from missing

from groundfault._clock import wall
from groundfault._histogram import Histogram
from groundfault.events import note_internal_error
from groundfault.metrics.app import warn_if_alone
from groundfault.metrics.catalogue import BUCKETS_S, CATALOGUE, Metric
from groundfault.metrics.rundir import named_directory
from groundfault.metrics.samples import Row, cumulative, families
from groundfault.metrics.writer import scrape, start

__all__ = ["GroundFaultCollector", "install"]

_BOUNDS = (*map(repr, BUCKETS_S), "+Inf")


class GroundFaultCollector(Collector):
    """Collects the metrics of all processes that share the run directory. Making one starts this process's reports.

    ``directory``: None, the default, for the one that ``GROUNDFAULT_RUN_DIR`` names; without that, in
    prometheus_client's multiprocess mode, for ``groundfault`` in ``PROMETHEUS_MULTIPROC_DIR``, which whoever empties
    that at a start empties, too. Otherwise the metrics are those of the process that is scraped.

    A directory that cannot be read is an internal error, and our metrics are missing from that scrape.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        self.directory = named_directory(directory)
        shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if self.directory is None and shared:
            self.directory = Path(shared) / "groundfault"
        start(self.directory)

    def describe(self) -> Iterable[Family]:
        """Return the metrics without samples, for the registry to see that no other has their names."""
        return [_family(metric) for metric in CATALOGUE]

    def collect(self) -> Iterator[Family]:
        """Return the metrics of now. Never raises an Exception: the registry's others are not ours to lose."""
        try:
            if self.directory is None:
                warn_if_alone()
            told = families(scrape(self.directory), wall())
        except Exception as error:  # noqa: BLE001  see above
            note_internal_error("prometheus", error)
            return
        for metric, rows in told:
            family = _family(metric)
            family.samples = list(_histograms(metric, rows) if metric.kind == "histogram" else _plain(metric, rows))
            yield family


def _family(metric: Metric) -> Family:
    return Family(metric.name.removesuffix("_total"), metric.help, metric.kind)


def _plain(metric: Metric, rows: list[Row]) -> Iterator[Sample]:
    names = metric.labels
    for values, value in rows:
        if not isinstance(value, Histogram):
            yield Sample(metric.name, dict(zip(names, values, strict=True)), value)


def _histograms(metric: Metric, rows: list[Row]) -> Iterator[Sample]:
    bucket, names = f"{metric.name}_bucket", metric.labels
    for values, value in rows:
        if isinstance(value, Histogram):
            labels = dict(zip(names, values, strict=True))
            counts = cumulative(value)
            for bound, count in zip(_BOUNDS, counts, strict=True):
                yield Sample(bucket, {**labels, "le": bound}, count)
            yield Sample(f"{metric.name}_sum", labels, value.sum_s)
            yield Sample(f"{metric.name}_count", labels, counts[-1])


_installed: WeakKeyDictionary[CollectorRegistry, GroundFaultCollector] = WeakKeyDictionary()
_lock = Lock()  # guards `_installed`


def install(
    registry: CollectorRegistry = REGISTRY, *, directory: str | os.PathLike[str] | None = None
) -> GroundFaultCollector:
    """Add our metrics to a registry, prometheus_client's own by default, once; return their collector.

    ``directory``: see :class:`GroundFaultCollector`. Asking again changes nothing.
    """
    with _lock:
        collector = _installed.get(registry)
        if collector is None:
            collector = GroundFaultCollector(directory)
            registry.register(collector)
            _installed[registry] = collector
    return collector
