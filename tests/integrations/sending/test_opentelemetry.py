"""OpenTelemetry's SDK as a user sets it up: one report for each export, nothing twice, and a child with its own."""

import json
import logging
import subprocess
import sys
import threading

import pytest
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader

from groundfault import Shedder
from groundfault._context import RequestContext, serving
from groundfault.breaker import Registry, Resource
from groundfault.events import CommandDone, RequestSeen, internal_errors
from groundfault.integrations import opentelemetry
from groundfault.integrations._own_report import OF_FILES
from groundfault.integrations.opentelemetry import Meters, install
from groundfault.metrics.catalogue import BUCKETS_S, CATALOGUE
from groundfault.metrics.report import Report
from groundfault.sinks import Sinks, default_sinks
from groundfault.vocabulary import Criticality, Outcome

WAIT = "groundfault.server.request.time_in_queue"
DURATION = "groundfault.command.duration"


@pytest.fixture
def reader():
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader):
    made = MeterProvider([reader])
    yield made
    made.shutdown()


@pytest.fixture(autouse=True)
def _installed_nowhere(caplog):
    """Begin without any provider; and nothing may be logged by the SDK."""
    yield
    for each in opentelemetry._all:
        each.retired = True
    opentelemetry._all.clear()
    opentelemetry._given.clear()
    assert [record.getMessage() for record in caplog.records if record.name.startswith("opentelemetry")] == []


def read(reader):
    """Return what a reader has collected: points by name."""
    data = reader.get_metrics_data()
    return {
        metric.name: metric.data
        for resource in (data.resource_metrics if data is not None else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def values(data):
    return {tuple(sorted(point.attributes.items())): point.value for point in data.data_points}


# --- what is told -----------------------------------------------------------------------------------------------------


def test_everything_in_the_catalogue_is_told_under_its_name_and_attributes(provider, reader, full_report):
    meters = Meters(provider, source=lambda now: full_report())
    meters(CommandDone("saber", "get", Outcome.SUCCESS, 0.1))
    told = {name: set(data.data_points[0].attributes) for name, data in read(reader).items()}
    wanted = {metric.dotted: set(metric.labels) for metric in CATALOGUE if metric.dotted not in OF_FILES | {WAIT}}
    assert told == wanted | {f"{WAIT}.bucket": {"service", "le"}, f"{WAIT}.sum": {"service"}}


def test_counters_only_grow_and_what_cannot_be_added_up_is_a_gauge(provider, reader, full_report):
    Meters(provider, source=lambda now: full_report())
    kinds = {}
    for name, data in read(reader).items():
        kinds.setdefault((type(data).__name__, getattr(data, "is_monotonic", None)), set()).add(name)
    assert kinds["Gauge", None] == opentelemetry._NOT_ADDED_UP
    assert "groundfault.circuit.state" in kinds["Sum", False]
    assert "groundfault.command.calls" in kinds["Sum", True]


def test_units_and_descriptions_are_the_catalogues(provider, reader, full_report):
    Meters(provider, source=lambda now: full_report())
    (resource,) = reader.get_metrics_data().resource_metrics
    (scope,) = resource.scope_metrics
    assert scope.scope.name == "groundfault"
    told = {metric.name: (metric.unit, metric.description) for metric in scope.metrics}
    for metric in CATALOGUE:
        if metric.dotted in told:
            assert told[metric.dotted] == (metric.unit, metric.help)


def test_real_commands_and_shedders_are_told(provider, reader):
    registry = Registry()
    command = Resource("saber", registry=registry, sinks=[]).command("observed")
    shedder = Shedder(service="observed", sinks=[])
    install(provider)
    for _ in range(3):
        command.call(int)
    shedder.release(shedder.admit("GET /", 0.003))
    told = read(reader)
    key = (("command", "observed"), ("outcome", "success"), ("resource", "saber"))
    assert values(told["groundfault.command.calls"])[key] == 3
    buckets = {
        point.attributes["le"]: point.value
        for point in told[f"{WAIT}.bucket"].data_points
        if point.attributes["service"] == "observed"
    }
    assert len(buckets) == len(BUCKETS_S) + 1
    assert (buckets["0.0025"], buckets["0.005"], buckets["+Inf"]) == (0, 1, 1)
    command.call(int)
    assert values(read(reader)["groundfault.command.calls"])[key] == 4


def test_the_report_is_made_once_for_each_collection(full_report):
    made = []

    def source(now):
        made.append(now)
        return full_report()

    readers = [InMemoryMetricReader() for _ in range(2)]
    provider = MeterProvider(readers)
    Meters(provider, source=source)
    for times in range(1, 4):
        assert len(read(readers[0])) > 20
        assert len(made) == times
    provider.shutdown()


def test_a_report_that_is_not_fresh_is_not_told(provider, reader, clock, full_report):
    reports = []

    def source(now):
        reports.append(now)
        return full_report()

    meters = Meters(provider, source=source, clock=clock)
    assert list(meters._rows_of("groundfault.command.calls"))
    clock.advance(0.9)
    assert list(meters._rows_of("groundfault.circuit.state"))
    assert len(reports) == 1
    clock.advance(0.2)
    assert list(meters._rows_of("groundfault.command.active"))
    assert len(reports) == 2


def test_a_report_that_cannot_be_made_is_counted_and_the_sdk_hears_nothing(provider, reader):
    def broken(now):
        raise RuntimeError("report")

    Meters(provider, source=broken)
    assert read(reader) == {}
    assert set(internal_errors()) == {"opentelemetry"}


# --- durations --------------------------------------------------------------------------------------------------------


def test_how_long_calls_took_is_recorded_with_the_catalogues_buckets(provider, reader):
    meters = install(provider)
    assert meters.prompt
    sinks = Sinks(meters)
    assert sinks.requests == ()
    for event in (
        CommandDone("saber", "get", Outcome.SUCCESS, 0.004),
        CommandDone("saber", "get", Outcome.SUCCESS, 0.02),
        CommandDone("saber", "get", Outcome.FAILURE, 0.2, error_type="OSError"),
        CommandDone("saber", "get", Outcome.TIMEOUT, 0.5),
        CommandDone("saber", "get", Outcome.CIRCUIT_OPEN, 0.0, error_type="CircuitOpenError"),
    ):
        sinks.command(event)
    points = read(reader)[DURATION].data_points
    told = {(point.attributes["outcome"], point.attributes.get("error.type")): point for point in points}
    assert {key: (point.count, point.sum) for key, point in told.items()} == {
        ("success", None): (2, pytest.approx(0.024)),
        ("failure", "OSError"): (1, 0.2),
        ("timeout", "timeout"): (1, 0.5),
    }
    assert told["success", None].explicit_bounds == BUCKETS_S


def test_an_older_api_without_advice_about_buckets_does(monkeypatch, provider, reader):
    meter = provider.get_meter("old")
    create = meter.create_histogram

    def create_histogram(name, unit="", description=""):
        return create(name, unit, description)

    monkeypatch.setattr(meter, "create_histogram", create_histogram)
    opentelemetry._histogram(meter, opentelemetry._METRICS[DURATION]).record(0.1)
    assert DURATION in read(reader)


def seen(wait_s):
    return RequestSeen("topps", "GET /", None, Criticality.CRITICAL, wait_s, "tcp-info")


def test_waits_are_recorded_on_demand_instead_of_counted(provider, reader):
    meters = install(provider, requests=True)
    sinks = Sinks(meters)
    assert len(sinks.requests) == 1
    sinks.request(seen(0.3))
    sinks.request(seen(None))
    told = read(reader)
    (point,) = told[WAIT].data_points
    assert (dict(point.attributes), point.count, point.sum) == ({"service": "topps"}, 1, 0.3)
    assert f"{WAIT}.bucket" not in told


def test_a_recording_sees_the_context_of_the_call(sink):
    """As exemplars need; so the sink is called where the call ends."""
    token = serving.set(RequestContext("topps", traceparent="here"))
    try:
        threads = []
        meters = Meters(NoOpMeterProvider())
        meters._duration.record = lambda *_: threads.append(threading.current_thread())
        Sinks(meters).command(CommandDone("saber", "get", Outcome.SUCCESS, 0.1))
    finally:
        serving.reset(token)
    assert threads == [threading.current_thread()]


# --- installing -------------------------------------------------------------------------------------------------------


def test_installing_twice_is_installing_once(provider, reader, caplog):
    caplog.set_level(logging.DEBUG, "opentelemetry")
    first = install(provider)
    assert install(provider) is first
    assert [sink for sink in default_sinks().changes if isinstance(sink, Meters)] == [first]
    default_sinks().command(CommandDone("saber", "get", Outcome.SUCCESS, 0.1))
    (point,) = read(reader)[DURATION].data_points
    assert point.count == 1


def test_other_requests_for_the_same_provider_are_refused(provider):
    install(provider)
    with pytest.raises(ValueError, match="was installed with requests=False, which it keeps"):
        install(provider, requests=True)


def test_another_provider_takes_the_place_of_the_first_and_back_again(provider, reader, full_report):
    other_reader = InMemoryMetricReader()
    other = MeterProvider([other_reader])
    sinks = Sinks()
    command = Resource("saber", registry=(kept := Registry()), sinks=sinks).command("moved")
    first = install(provider, sinks=sinks)
    command.call(int)
    second = install(other, sinks=sinks)
    assert sinks.changes == (second,)
    command.call(int)
    assert "groundfault.command.calls" not in read(reader)
    assert read(other_reader)[DURATION].data_points[0].count == 1
    assert install(provider, sinks=sinks) is first
    command.call(int)
    assert sinks.changes == (first,)
    assert read(reader)[DURATION].data_points[0].count == 2
    assert "groundfault.command.calls" in read(reader)
    assert "groundfault.command.calls" not in read(other_reader)
    other.shutdown()
    assert list(kept)


def test_without_an_sdk_nothing_comes_of_it(monkeypatch):
    meters = install(NoOpMeterProvider())
    meters(CommandDone("saber", "get", Outcome.SUCCESS, 0.1))
    assert internal_errors() == {}


def test_deltas_are_the_sdks_business(full_report):
    report = full_report()
    reader = InMemoryMetricReader({ObservableCounter: AggregationTemporality.DELTA})
    provider = MeterProvider([reader])
    Meters(provider, source=lambda now: report)
    key = (("command", "get"), ("outcome", "success"), ("resource", "saber"))
    assert values(read(reader)["groundfault.command.calls"])[key] == 3
    report.commands["saber", "get"].calls["success"] += 1
    assert values(read(reader)["groundfault.command.calls"])[key] == 1
    provider.shutdown()


LATER = """
import json, logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from groundfault.breaker import Resource
from groundfault.integrations import opentelemetry

command = Resource("saber").command("get")
first = opentelemetry.install()
command.call(int)
reader = InMemoryMetricReader()
provider = MeterProvider([reader])
metrics.set_meter_provider(provider)
assert opentelemetry.install() is first
assert opentelemetry.install(provider) is first
command.call(int)

def read(reader):
    scopes = [scope for each in reader.get_metrics_data().resource_metrics for scope in each.scope_metrics]
    return {{metric.name: metric.data.data_points for scope in scopes for metric in scope.metrics}}

told = read(reader)
assert told["groundfault.command.calls"][0].value == 2
assert told["groundfault.command.duration"][0].count == 1  # the first was recorded before there was anybody to tell
{more}
"""

FORK = """
import os
from opentelemetry.sdk.resources import Resource as Origin

parts = os.pipe()
child = os.fork()
if child == 0:
    own = InMemoryMetricReader()
    opentelemetry.install(MeterProvider([own], resource=Origin({"service.instance.id": str(os.getpid())})))
    for _ in range(5):
        command.call(int)
    mine, theirs = read(own), read(reader)
    said = [
        mine["groundfault.command.calls"][0].value,
        mine["groundfault.command.duration"][0].count,
        "groundfault.command.calls" in theirs,
        own.get_metrics_data().resource_metrics[0].resource.attributes["service.instance.id"] == str(os.getpid()),
    ]
    os.write(parts[1], json.dumps(said).encode())
    os._exit(0)
os.close(parts[1])
assert os.waitpid(child, 0)[1] == 0
print(os.read(parts[0], 999).decode())
command.call(int)
assert read(reader)["groundfault.command.calls"][0].value == 3
"""


@pytest.mark.e2e
def test_a_provider_may_be_set_later_and_a_forked_child_have_its_own():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LATER.format(more=FORK)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [5, 5, False, True]


def test_a_fork_while_a_report_is_made_leaves_a_working_child(provider, reader, full_report):
    """What the child of a fork does with its copy."""
    meters = Meters(provider, source=lambda now: full_report())
    meters._lock.acquire()
    meters._forget()
    assert meters._rows_of("groundfault.command.calls")


def test_an_empty_process_has_little_to_say(provider, reader):
    Meters(provider, source=lambda now: Report())
    assert read(reader) == {}
