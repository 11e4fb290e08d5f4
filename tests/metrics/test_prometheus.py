"""In prometheus_client's registries: the same samples, beside those of others, whatever happens to ours."""

import subprocess
import sys

import pytest
from sample_reports import counted, full

prometheus_client = pytest.importorskip("prometheus_client")
from prometheus_client import CollectorRegistry, Counter, generate_latest  # noqa: E402  after what it needs
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics  # noqa: E402  as above
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402  as above

from groundfault.events import internal_errors  # noqa: E402  as above
from groundfault.integrations import prometheus  # noqa: E402  as above
from groundfault.integrations.prometheus import GroundFaultCollector, install  # noqa: E402  as above
from groundfault.metrics.catalogue import CATALOGUE  # noqa: E402  as above
from groundfault.metrics.exposition import render  # noqa: E402  as above

NOW = 1000.0


@pytest.fixture
def started(monkeypatch):
    """Return the directories that reports are started for; nothing is."""
    asked = []
    monkeypatch.setattr(prometheus, "start", asked.append)
    monkeypatch.setattr(prometheus, "scrape", lambda directory: full())
    monkeypatch.setattr(prometheus, "wall", lambda: NOW)
    return asked


def samples(text):
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


def test_a_registry_shows_the_samples_that_our_own_text_has(started):
    registry = CollectorRegistry()
    registry.register(GroundFaultCollector())
    assert samples(generate_latest(registry).decode()) == samples(render(full(), NOW).decode())
    assert generate_openmetrics(registry).endswith(b"# EOF\n")


def test_install_registers_once_beside_what_is_there(started):
    registry = CollectorRegistry(auto_describe=True)
    Counter("mine", "of the application", registry=registry).inc()
    assert install(registry) is install(registry)
    text = generate_latest(registry).decode()
    assert "mine_total 1.0" in text
    assert text.count("# TYPE groundfault_processes gauge") == 1
    assert started == [None]


def test_names_are_described_without_a_scrape(started, monkeypatch):
    monkeypatch.setattr(prometheus, "scrape", lambda directory: pytest.fail("nobody has asked"))
    described = [family.name for family in GroundFaultCollector().describe()]
    assert described == [metric.name.removesuffix("_total") for metric in CATALOGUE]


def test_an_error_of_ours_costs_our_metrics_and_no_others(started, monkeypatch):
    def fail(directory):
        raise OSError("gone")

    monkeypatch.setattr(prometheus, "scrape", fail)
    registry = CollectorRegistry()
    Counter("mine", "of the application", registry=registry).inc()
    install(registry)
    assert "mine_total 1.0" in generate_latest(registry).decode()
    assert internal_errors() == {"prometheus": 1}


@pytest.mark.parametrize(
    ("environment", "given", "used"),
    [
        ({}, None, None),
        ({"GROUNDFAULT_RUN_DIR": "/a"}, None, "/a"),
        ({"PROMETHEUS_MULTIPROC_DIR": "/b"}, None, "/b/groundfault"),
        ({"GROUNDFAULT_RUN_DIR": "/a", "PROMETHEUS_MULTIPROC_DIR": "/b"}, None, "/a"),
        ({"GROUNDFAULT_RUN_DIR": "/a", "PROMETHEUS_MULTIPROC_DIR": "/b"}, "/c", "/c"),
    ],
)
def test_which_directory_is_used(started, monkeypatch, environment, given, used):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    collector = GroundFaultCollector(given)
    assert (collector.directory and str(collector.directory)) == used
    assert started == [collector.directory]


MULTIPROCESS = """
import os, signal, sys
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from groundfault import Resource
from groundfault.integrations.prometheus import GroundFaultCollector
from groundfault.metrics.writer import writer_for

GROUNDFAULT = GroundFaultCollector()
MINE = Counter("mine", "of the application")
command = Resource("db").command("get")


def metrics():
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    registry.register(GROUNDFAULT)
    return generate_latest(registry).decode()


for times in (2, 3):
    child = os.fork()
    if not child:
        for _ in range(times):
            MINE.inc()
            command.call(lambda: None)
        writer_for(GROUNDFAULT.directory).flush()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
MINE.inc()
command.call(lambda: None)
for _ in range(2):
    print(metrics())
"""


@pytest.mark.e2e
def test_in_multiprocess_mode_ours_are_right_beside_theirs_when_workers_die(tmp_path):
    run = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", MULTIPROCESS],
        env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines.count("mine_total 6.0") == 2
    assert lines.count('groundfault_command_calls_total{command="get",outcome="success",resource="db"} 6.0') == 2
    assert lines.count('groundfault_processes{service="unknown"} 1.0') == 2


def test_a_report_without_a_directory_is_of_this_process(monkeypatch):
    monkeypatch.setattr(prometheus, "scrape", lambda directory: counted(3))
    registry = CollectorRegistry()
    install(registry)
    assert 'outcome="success",resource="db"} 3.0' in generate_latest(registry).decode()
