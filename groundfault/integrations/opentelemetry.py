"""OpenTelemetry metrics, through the API alone: where the application has no SDK nothing comes of it.

::

    metrics.set_meter_provider(...)
    groundfault.integrations.opentelemetry.install()

Almost everything is observed, not recorded: when a reader collects, commands and shedders are asked what they have
counted, once for all instruments. Recorded is what must be, for the API takes no histograms that are made already:
how long each call took. Names and attributes are those of docs/reference/metrics.md, with dots.

How long requests waited would cost each of them the server half's cheap ways if it were recorded. So by default it is
observed as counters, ``groundfault.server.request.time_in_queue.bucket`` by the attribute ``le`` as in Prometheus, and
``….sum``; ``requests=True`` records a histogram instead.

A process that was forked and has a provider of its own calls :func:`install` with it. From then on nothing is told to
the parent's any more, in that process.
"""

import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

try:
    from opentelemetry import metrics
except ImportError as missing:  # pragma: no cover  shown only where the extra is missing
    raise ImportError(
        "groundfault.integrations.opentelemetry needs opentelemetry-api: pip install 'groundfault[opentelemetry]'"
    ) from missing

from groundfault._clock import Clock, monotonic, wall
from groundfault._family import Family
from groundfault._histogram import Histogram
from groundfault.breaker._rolling import MADE
from groundfault.events import CommandDone, Event, RequestSeen, note_internal_error
from groundfault.integrations._own_report import OF_FILES, own_families
from groundfault.metrics.catalogue import BUCKETS_S, CATALOGUE, Metric
from groundfault.metrics.collecting import collect
from groundfault.metrics.report import Report
from groundfault.metrics.samples import Row, cumulative
from groundfault.sinks import Sinks, default_sinks
from groundfault.vocabulary import Outcome

__all__ = ["Meters", "install"]

_FRESH_S: Final = 1.0
_DURATION: Final = "groundfault.command.duration"
_WAIT: Final = "groundfault.server.request.time_in_queue"
_NOT_ADDED_UP: Final = frozenset(
    {
        "groundfault.command.admitted_ratio",
        "groundfault.server.backlog",
        "groundfault.server.backlog.limit",
        "groundfault.settings.age",
    }
)
"""Of these the least or greatest of several processes says something, and their sum nothing."""

_AGAINST: Final = frozenset({Outcome.FAILURE, Outcome.TIMEOUT})
_LE: Final = (*(f"{bound:g}" for bound in BUCKETS_S), "+Inf")

_METRICS: Final = {metric.dotted: metric for metric in CATALOGUE}
_Observe = Callable[[metrics.CallbackOptions], Iterable[metrics.Observation]]


class Meters:
    """The instruments of one provider; a sink that records how long calls took. See :func:`install`."""

    prompt: Final = True  # an exemplar is the span that is current where the call ends

    def __init__(
        self,
        provider: metrics.MeterProvider | None,
        *,
        requests: bool = False,
        clock: Clock = monotonic,
        source: Callable[[float], Report] = collect,
    ) -> None:
        self.skips_requests = not requests
        self.requests = requests
        self.provider = provider
        self.retired = False
        self._clock = clock
        self._source = source
        self._forget()
        meter = metrics.get_meter("groundfault", _version(), provider)
        self._duration = _histogram(meter, _METRICS[_DURATION])
        self._wait = _histogram(meter, _METRICS[_WAIT]) if requests else None
        for metric in CATALOGUE:
            if metric.kind != "histogram" and metric.dotted not in OF_FILES:
                self._observe(meter, metric)
        if not requests:
            self._observe_waits(meter)
        _meters.add(self)

    def _forget(self) -> None:
        """Begin without a report: what was collected before a fork is the parent's."""
        self._lock = threading.RLock()  # guards the report; held while it is made, by no call
        self._rows: Mapping[str, list[Row]] = {}
        self._asked: set[str] = set()
        self._made_at = float("-inf")

    def __call__(self, event: Event) -> None:
        """Record how long a call took that was made, or a request had waited."""
        if self.retired:
            return
        if isinstance(event, CommandDone):
            if event.outcome in MADE:
                self._duration.record(event.duration_s, _attributes(event))
        elif isinstance(event, RequestSeen) and self._wait is not None and event.queue_wait_s is not None:
            self._wait.record(event.queue_wait_s, {"service": event.service})

    def _observe(self, meter: metrics.Meter, metric: Metric) -> None:
        if metric.kind == "counter":
            create: Callable[..., object] = meter.create_observable_counter
        elif metric.dotted in _NOT_ADDED_UP:
            create = meter.create_observable_gauge
        else:
            create = meter.create_observable_up_down_counter

        def observed(_: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
            return [
                metrics.Observation(value, dict(zip(metric.labels, labels, strict=True)))
                for labels, value in self._rows_of(metric.dotted)
                if not isinstance(value, Histogram)
            ]

        create(metric.dotted, callbacks=[observed], unit=metric.unit, description=metric.help)

    def _observe_waits(self, meter: metrics.Meter) -> None:
        def buckets(_: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
            return [
                metrics.Observation(times, {"service": labels[0], "le": le})
                for labels, waits in self._rows_of(_WAIT, ".bucket")
                if isinstance(waits, Histogram)
                for le, times in zip(_LE, cumulative(waits), strict=True)
            ]

        def sums(_: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
            return [
                metrics.Observation(waits.sum_s, {"service": labels[0]})
                for labels, waits in self._rows_of(_WAIT, ".sum")
                if isinstance(waits, Histogram)
            ]

        told: tuple[tuple[str, _Observe, str, str], ...] = (
            (".bucket", buckets, "{request}", "Requests that had waited no longer than le, in seconds."),
            (".sum", sums, "s", "How long they had waited, in all."),
        )
        for suffix, callback, unit, text in told:
            meter.create_observable_counter(_WAIT + suffix, callbacks=[callback], unit=unit, description=text)

    def _rows_of(self, name: str, suffix: str = "") -> list[Row]:
        """Return what there is to say of one metric. One report serves all instruments, but each of them once."""
        if self.retired:
            return []
        try:
            with self._lock:
                now = self._clock()
                if name + suffix in self._asked or now - self._made_at > _FRESH_S:
                    at = wall()
                    self._rows = {metric.dotted: rows for metric, rows in own_families(self._source(at), at)}
                    self._asked, self._made_at = set(), now
                self._asked.add(name + suffix)
                return self._rows.get(name, [])
        except Exception as error:  # noqa: BLE001  the SDK would log it for each instrument
            note_internal_error("opentelemetry", error)
            return []


_meters: Final[Family[Meters]] = Family(Meters._forget)  # noqa: SLF001  the child's end of the fork, for this class alone


def _version() -> str:
    try:
        return version("groundfault")
    except PackageNotFoundError:  # a checkout on the path
        return ""


def _histogram(meter: metrics.Meter, metric: Metric) -> metrics.Histogram:
    more: dict[str, Any] = {}
    # Since 1.30 of the API; before, whoever wants these buckets sets up a view.
    if "explicit_bucket_boundaries_advisory" in inspect.signature(meter.create_histogram).parameters:
        more["explicit_bucket_boundaries_advisory"] = BUCKETS_S
    return meter.create_histogram(metric.dotted, unit=metric.unit, description=metric.help, **more)


def _attributes(event: CommandDone) -> dict[str, str]:
    said = {"resource": event.resource, "command": event.command, "outcome": event.outcome.value}
    if event.outcome in _AGAINST:
        said["error.type"] = event.error_type or event.outcome.value
    return said


_all: Final[list[Meters]] = []  # of each provider that was ever told; the last one is told now
_given: Final[list[Sinks]] = []  # to which its sink was added


def _real(provider: metrics.MeterProvider | None) -> metrics.MeterProvider:
    return metrics.get_meter_provider() if provider is None else provider


def install(
    meter_provider: metrics.MeterProvider | None = None, *, requests: bool = False, sinks: Sinks | None = None
) -> Meters:
    """Tell a meter provider of all commands and shedders of this process, and return what tells it.

    ``meter_provider``: default None, the process-wide one, which may also be set later.
    ``requests``: record for each request how long it had waited, as a histogram; default False.
    ``sinks``: what the sink is added to that records calls; default None, the process-wide ones. Components with
    sinks of their own are observed, but their calls' durations are not recorded.

    A second call for the same provider changes nothing, for a provider keeps the instruments that it has;
    one for another provider takes the place of the first.
    Raises ValueError for the same provider with other ``requests``.
    """
    known = next((each for each in _all if _real(each.provider) is _real(meter_provider)), None)
    if known is not None and known.requests != requests:
        raise ValueError(f"this meter provider was installed with requests={known.requests}, which it keeps")
    target = sinks if sinks is not None else default_sinks()
    made = known if known is not None else Meters(meter_provider, requests=requests)
    for each in _all:
        each.retired = each is not made
    for each_sinks in _given:
        each_sinks.use(*(sink for sink in each_sinks.changes if not isinstance(sink, Meters)))
    target.add(made)
    _all[:] = [*(each for each in _all if each is not made), made]
    _given[:] = [target]
    return made
