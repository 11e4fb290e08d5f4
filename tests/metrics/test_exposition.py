"""The text that Prometheus reads: the same samples in every format, as the catalogue has them."""

import shutil
import subprocess
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_reports import counted, full, histogram

from groundfault._histogram import Histogram
from groundfault.metrics.catalogue import BUCKETS_S, CATALOGUE
from groundfault.metrics.exposition import negotiated, render
from groundfault.metrics.report import Report, ServerReport
from groundfault.metrics.samples import cumulative, families

openmetrics = pytest.importorskip("prometheus_client.openmetrics.parser")
plain = pytest.importorskip("prometheus_client.parser")

NOW = 1000.0


def parsed(report, *, openmetrics_format):
    text = render(report, NOW, openmetrics=openmetrics_format).decode()
    parser = openmetrics if openmetrics_format else plain
    found = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found
            found[key] = sample.value
    return found


def expected(report):
    """Return the samples as the families have them, written in the plainest way."""
    found = {}
    for metric, rows in families(report, NOW):
        for values, value in rows:
            labels = dict(zip(metric.labels, values, strict=True))
            if not isinstance(value, Histogram):
                found[metric.name, frozenset(labels.items())] = value
                continue
            for bound, count in zip((*BUCKETS_S, inf), [*value.below(BUCKETS_S), value.count], strict=True):
                le = "+Inf" if bound == inf else str(bound)
                found[f"{metric.name}_bucket", frozenset({**labels, "le": le}.items())] = count
            found[f"{metric.name}_count", frozenset(labels.items())] = value.count
            found[f"{metric.name}_sum", frozenset(labels.items())] = value.sum_s
    return found


@pytest.mark.parametrize("openmetrics_format", [False, True], ids=["text", "openmetrics"])
@pytest.mark.parametrize("report", [Report(), counted(0), counted(3), full(), full('a"b\\n\n')])
def test_a_parser_finds_every_sample_and_no_other(report, openmetrics_format):
    assert parsed(report, openmetrics_format=openmetrics_format) == expected(report)


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_name_comes_through(service, where):
    report = full()
    report.servers = {service: ServerReport(service, waits=histogram(0.5))}
    report.internal_errors = {where: 3}
    clean = {name: name.replace("\0", "") for name in (service, where)}
    text = parsed(report, openmetrics_format=False)
    assert text["groundfault_internal_errors_total", frozenset({("where", clean[where])})] == 3
    assert text["groundfault_request_time_in_queue_seconds_count", frozenset({("service", clean[service])})] == 1


@given(st.lists(st.floats(0, 200) | st.sampled_from(BUCKETS_S)))
def test_the_buckets_that_are_shown_are_exact(values_s):
    made = histogram(*values_s)
    counts = cumulative(made)
    assert counts == [sum(value_s <= bound for value_s in values_s) for bound in (*BUCKETS_S, inf)]
    assert counts == [*made.below(BUCKETS_S), made.count]


def test_every_metric_of_the_catalogue_is_shown_where_there_is_something_and_in_its_order():
    shown = [metric.name for metric, _ in families(full(), NOW)]
    assert shown == [metric.name for metric in CATALOGUE]


def test_of_the_dead_only_totals_are_shown():
    report = full()
    report.bury()
    gauges = {metric.name for metric, _ in families(report, NOW) if metric.kind == "gauge"}
    # What is left says of a store and of the directory, not of a process.
    assert gauges == {"groundfault_settings_unreachable", "groundfault_reports_unread"}


@pytest.mark.parametrize("openmetrics_format", [False, True], ids=["text", "openmetrics"])
def test_the_head_of_a_metric(openmetrics_format):
    lines = render(counted(1), NOW, openmetrics=openmetrics_format).decode().splitlines()
    name = "groundfault_command_calls" if openmetrics_format else "groundfault_command_calls_total"
    assert lines[1] == f"# TYPE {name} counter"
    assert lines[2] == 'groundfault_command_calls_total{resource="db",command="get",outcome="success"} 1'
    assert ("# UNIT groundfault_command_duration_seconds seconds" in lines) is openmetrics_format
    assert (lines[-1] == "# EOF") is openmetrics_format


def test_promtool_finds_nothing_to_say():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    run = subprocess.run(
        [promtool, "check", "metrics"], input=render(full(), NOW), capture_output=True, check=False, timeout=30
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")


@pytest.mark.parametrize(
    ("accept", "wants_openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", True),
        ("application/openmetrics-text;version=9.0.0", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.5", False),
        ("application/openmetrics-text;q=nonsense", False),
        ("text/html;q=0.9", False),
        # Prometheus 2 and 3:
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            True,
        ),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            True,
        ),
    ],
)
def test_the_format_is_the_one_asked_for(accept, wants_openmetrics):
    assert negotiated(accept) is wants_openmetrics
