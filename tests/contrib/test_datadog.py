"""Datadog's dashboard and monitors: sound files, and queries of metrics and tags that the emitter sends."""

import itertools
import json
import re
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from groundfault.breaker import Registry, Resource
from groundfault.integrations.dogstatsd import DogStatsD
from groundfault.metrics.catalogue import CATALOGUE
from groundfault.metrics.collecting import collect
from groundfault.metrics.report import Report, ServerReport, StoreReport

PLACE = Path(__file__).parents[2] / "contrib" / "datadog"
RUNBOOK = (PLACE.parents[1] / "docs" / "runbook.md").read_text()
METRICS = {metric.dotted: metric for metric in CATALOGUE}
OF_THE_AGENT = {"env", "service", "host"}
"""Tags that the agent adds, or the environment."""

NOT_SAID_THERE = {
    "GroundFaultOneSickNode": "hosts of each service compared among themselves",
    "GroundFaultSettingsVersionsDiffer": "groups counted group by group",
    "GroundFaultProcessHangs": "of run directories, which the emitter does not use",
    "GroundFaultReportsUnread": "likewise",
}
QUERY = re.compile(r"(\w+):(groundfault[\w.]+){([^}]*)}(?: by {([^}]*)})?((?:\.as_(?:rate|count)\(\))?)")
ALLOWED = {
    "counter": {("sum", ".as_rate()"), ("sum", ".as_count()")},
    "gauge": {("sum", ""), ("min", ""), ("max", "")},
    "histogram": {("p50", ""), ("p95", ""), ("p99", "")},
}
VALUES = {
    "outcome": "success failure timeout shed ignored circuit-open bulkhead-full throttled unhealthy",
    "state": "closed open half-open",
    "from": "closed open half-open",
    "to": "closed open half-open",
    "result": "admitted shed served failed refused",
    "reason": "queue-wait deadline concurrency draining",
    "criticality": "critical-plus critical sheddable-plus sheddable",
    "signal": "none",
}


def mistakes(query):
    """Return what is wrong with a query, as far as names go."""
    found = QUERY.findall(query)
    result = [] if found else [f"no query: {query}"]
    if query.count("groundfault.") != len(found) or query.count("(") != query.count(")"):
        result.append(f"cannot be read: {query}")
    for how, name, scope, by, suffix in found:
        if name not in METRICS:
            result.append(f"{name} is not in the catalogue")
            continue
        metric = METRICS[name]
        tags = {*metric.labels, *OF_THE_AGENT}
        if (how, suffix) not in ALLOWED[metric.kind]:
            result.append(f"{how}…{suffix} of a {metric.kind}, {name}")
        for each in scope.split(","):
            tag, _, value = each.lstrip("!").partition(":")
            if not each.startswith("$") and each != "*":
                result += [] if tag in tags else [f"{name} has no tag {tag}"]
                result += [] if value in VALUES[tag].split() else [f"{tag} is never {value}"]
            elif each.startswith("$") and each[1:] not in tags:
                result.append(f"{name} has no tag {each[1:]}")
        result += [f"{name} has no tag {tag}" for tag in by.split(",") if tag and tag not in tags]
    return result


@pytest.fixture(scope="module")
def dashboard():
    return json.loads((PLACE / "groundfault.json").read_text())


@pytest.fixture(scope="module")
def monitors():
    return json.loads((PLACE / "monitors.json").read_text())


@pytest.fixture(scope="module")
def widgets(dashboard):
    return [widget for group in dashboard["widgets"] for widget in group["definition"]["widgets"]]


@pytest.fixture(scope="module")
def queries(widgets):
    requests = [request for widget in widgets for request in widget["definition"]["requests"]]
    return [query["query"] for request in requests for query in request["queries"]]


def test_the_files_are_what_their_source_says():
    run = subprocess.run([sys.executable, PLACE / "build.py", "--check"], timeout=30, check=False)
    assert run.returncode == 0, f"run: python {PLACE / 'build.py'}"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("sum:groundfault.command.calls{outcome:shed} by {resource,command}.as_rate()", []),
        ("sum:groundfault.command.call{*}.as_rate()", ["groundfault.command.call is not in the catalogue"]),
        ("sum:groundfault.command.calls{*}", ["sum… of a counter, groundfault.command.calls"]),
        ("avg:groundfault.command.active{*}", ["avg… of a gauge, groundfault.command.active"]),
        ("p99:groundfault.command.duration{outcome:shedded}", ["outcome is never shedded"]),
        ("sum:groundfault.processes{*} by {pod}", ["groundfault.processes has no tag pod"]),
        ("sum:groundfault.processes{$resource}", ["groundfault.processes has no tag resource"]),
        ("sum:system.load{*}", ["no query: sum:system.load{*}"]),
    ],
)
def test_the_search_for_wrong_names_finds_them(query, found):
    assert mistakes(query) == found


def test_every_query_of_the_dashboard_is_of_metrics_and_tags_that_are_sent(queries):
    assert [mistakes(query) for query in queries] == [[]] * len(queries)


def test_every_query_of_a_monitor_is_of_metrics_and_tags_that_are_sent(monitors):
    for monitor in monitors:
        assert mistakes(monitor["query"]) == [], monitor["name"]


def test_every_metric_is_on_the_dashboard_but_those_of_run_directories(queries):
    shown = {name for query in queries for _, name, *_ in QUERY.findall(query)}
    assert {*METRICS} - shown == {"groundfault.report.age", "groundfault.reports.unread"}


def test_the_dashboard_has_the_shape_that_the_interface_takes(dashboard, widgets):
    assert dashboard["layout_type"] == "ordered"
    assert all(group["definition"]["type"] == "group" for group in dashboard["widgets"])
    for widget in widgets:
        definition = widget["definition"]
        assert definition["type"] in {"timeseries", "query_value"}
        for request in definition["requests"]:
            names = {query["name"] for query in request["queries"]}
            used = {name for each in request["formulas"] for name in re.findall(r"query\d+", each["formula"])}
            assert names == used, definition["title"]
            assert request["response_format"] == ("scalar" if definition["type"] == "query_value" else "timeseries")
            assert all(query["data_source"] == "metrics" for query in request["queries"])


def test_titles_are_given_once(dashboard, widgets):
    titles = [each["definition"]["title"] for each in [*dashboard["widgets"], *widgets]]
    assert [title for title, times in Counter(titles).items() if times > 1] == []


def test_widgets_have_room(dashboard):
    groups = [group["definition"]["widgets"] for group in dashboard["widgets"]]
    for places in ([each["layout"] for each in group] for group in [dashboard["widgets"], *groups]):
        for one, other in itertools.combinations(places, 2):
            beside = one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"]
            above = one["y"] + one["height"] <= other["y"] or other["y"] + other["height"] <= one["y"]
            assert beside or above, (one, other)
        assert max(place["x"] + place["width"] for place in places) <= 12


def test_choices_are_tags_that_queries_ask_for(dashboard, queries):
    offered = {each["name"] for each in dashboard["template_variables"]}
    assert offered == {name for query in queries for name in re.findall(r"\$(\w+)", query)}
    assert all(each["prefix"] == each["name"] for each in dashboard["template_variables"])


def test_a_monitor_has_the_threshold_that_its_query_has(monitors):
    for monitor in monitors:
        assert monitor["type"] == "query alert"
        compared = float(re.search(r"(?:>=|<=|>|<) (-?[\d.]+)$", monitor["query"]).group(1))
        assert monitor["options"]["thresholds"] == {"critical": compared}, monitor["name"]
        assert re.match(r"(?:avg|sum|min|max|pct_change\(avg)\(last_\d+m\)", monitor["query"]), monitor["name"]


def test_a_monitor_speaks_of_the_groups_that_it_has_and_leads_to_the_runbook(monitors):
    for monitor in monitors:
        groups = {tag for *_, by, _ in QUERY.findall(monitor["query"]) for tag in by.split(",")}
        assert set(re.findall(r"{{(\w+)\.name}}", monitor["message"])) <= groups, monitor["name"]
        assert f"docs/runbook.md#{monitor['name'].lower()}" in monitor["message"]
        assert f"## {monitor['name']}\n" in RUNBOOK


def test_there_is_a_monitor_for_each_alert_that_can_be_one(monitors, alerts):
    names = [monitor["name"] for monitor in monitors]
    assert len(names) == len(set(names))
    assert {*names} | {*NOT_SAID_THERE} == {*alerts}
    assert not {*names} & {*NOT_SAID_THERE}
    for monitor in monitors:
        assert f"severity:{alerts[monitor['name']]['labels']['severity']}" in monitor["tags"]


def test_what_the_emitter_sends_has_the_tags_that_are_asked_for(queries, monitors, monkeypatch):
    """Its own packets, of a process in which each of these metrics has something to say."""
    monkeypatch.setenv("DD_SERVICE", "grouper")
    monkeypatch.setenv("DD_ENV", "prod")
    sent = {name: {*tags} for name, tags in lines_of(everything())}
    asked = [found for query in [*queries, *(each["query"] for each in monitors)] for found in QUERY.findall(query)]
    assert {name for _, name, *_ in asked} <= {*sent}
    for _, name, scope, by, _ in asked:
        tags = {each.lstrip("$!").partition(":")[0] for each in scope.split(",") if each != "*"}
        tags |= {tag for tag in by.split(",") if tag}
        assert tags - {"host"} <= sent[name], name


def everything():
    """Return a report that says something of every metric."""
    registry = Registry()
    command = Resource("saber", registry=registry).command("get", max_concurrent=5, fallback=[])
    command.call(list)
    report = collect(1000.0, [registry])
    seen = report.commands["saber", "get"]
    seen.fallbacks["served"] = 1
    seen.moves["closed>open"] = 1
    report.draw_edges("grouper")
    server = ServerReport("grouper", requests={("admitted", "critical"): 3, ("queue-wait", "critical"): 1})
    server.waits.add(0.1)
    server.abandoned = 1
    server.callers["topps", "admitted"] = 3, 0.2
    server.signals["tcp-info"] = 1
    server.backlog, server.backlog_limit = 1, 128
    stores = {"redis": StoreReport("redis", versions={"7": 1}, age_s=1.0, unreachable=1, rejected=1)}
    return Report(report.commands, {"grouper": server}, stores, report.edges, {"sink": 1}, report.processes)


def lines_of(report):
    """Yield name and tags of each line that is sent of a report."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as agent:
        agent.bind(("127.0.0.1", 0))
        agent.settimeout(5)
        emitter = DogStatsD(f"udp://127.0.0.1:{agent.getsockname()[1]}", source=lambda _: report)
        emitter.flush()
        emitter.stop()
        agent.setblocking(False)
        while True:
            try:
                packet = agent.recv(65536).decode()
            except BlockingIOError:
                return
            for line in packet.splitlines():
                name, *_, tags = re.match(r"([\w.]+):([^|]*)\|(\w)(?:\|@[\d.]+)?\|#(.*)", line).groups()
                yield name, [tag.partition(":")[0] for tag in tags.split(",")]
