"""The rules and every panel's queries, asked of a real Prometheus that watches the demo's chain.

It sees a bad quarter of a minute: an overload, then a last service that does not answer, then one that does again.
"""

import http.client
import json
import os
import shutil
import signal
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from contextlib import contextmanager, suppress
from math import isnan
from pathlib import Path
from time import sleep

import pytest
import yaml

from groundfault import metrics
from groundfault._clock import monotonic, wall
from groundfault.breaker import Registry, Resource
from groundfault.events import note_internal_error
from groundfault.lab import demo
from groundfault.lab.parts import Part, Phase
from groundfault.lab.processes import free_port
from groundfault.metrics.collecting import collect
from groundfault.metrics.command import Exporter
from groundfault.metrics.report import merged
from groundfault.servicemap import drawing, sources
from groundfault.servicemap.graph import draw_up
from groundfault.settings.live import LiveSettings
from groundfault.settings.memory import MemoryStore
from groundfault.settings.store import Change

PROMETHEUS = shutil.which("prometheus")
RULES = Path(__file__).parents[2] / "contrib" / "prometheus" / "groundfault.rules.yml"
SERVICES = ("topps", "grouper", "saber")

CALM_S = 2.0
LEAST_S = 3.0
"""How long each trouble lasts at least: three scrapes."""

FANS = 100
"""Fans that ask again as soon as they have an answer: several times what saber can do."""

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        PROMETHEUS is None, reason="prometheus is not installed; Debian has it in a package of that name"
    ),
]


@contextmanager
def exported(pull):
    """Serve what ``pull`` returns, as ``groundfault metrics`` does, and give the address."""
    with Exporter(("127.0.0.1", 0), pull) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def a_fourth_service():
    """Give a function that pulls what the chain has not: fallbacks, errors of our own, a store of settings."""
    registry = Registry()
    store = MemoryStore({"*": {"failure_threshold": 0.4}})
    live = LiveSettings(store, service="lobby", poll_s=0.2, cache=False, registry=registry, shedders=(), sinks=())
    live.start()
    odds = Resource("odds", registry=registry).command("get", fallback=[], minimum_volume_per_s=1000.0)

    def pull():
        with suppress(ZeroDivisionError):
            odds.call(lambda: 1 / 0)
        note_internal_error("a sink", ValueError("of the test"))
        if live.status().state == "applied":
            store.write([Change("*", "failure_threshold", 4)], reason="a slip", actor="ann", based_on="1")
        report = collect(wall(), [registry])
        report.draw_edges("lobby")
        return report

    try:
        yield pull
    finally:
        live.stop()


def until(happens, what):
    """Wait until it has happened, and three scrapes long at least."""
    since = monotonic()
    while not happens() or monotonic() < since + LEAST_S:
        assert monotonic() < since + 20, f"{what}: not within 20 s"
        sleep(0.2)


class Crowd:
    """Asks the chain: a few at a steady pace, and fans that have no patience. All end with :meth:`leave`."""

    def __init__(self, host):
        self._host = host.removeprefix("http://")
        self._left = threading.Event()
        self._threads = []

    def come(self, how_many, path, *, pause_s, criticality="critical"):
        for _ in range(how_many):
            thread = threading.Thread(target=self._ask, args=(path, pause_s, criticality))
            self._threads.append(thread)
            thread.start()

    def _ask(self, path, pause_s, criticality):
        headers = {"X-GroundFault-Criticality": criticality}
        connection = http.client.HTTPConnection(self._host, timeout=5)
        while not self._left.wait(pause_s):
            try:
                connection.request("GET", path, headers=headers)
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                connection.close()
        connection.close()

    def leave(self):
        self._left.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def crowd(host):
    """Give a crowd that has left at the end."""
    made = Crowd(host)
    try:
        yield made
    finally:
        made.leave()


class Asked:
    """A Prometheus, and the time that it is asked about."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"
        self._since = wall()
        self._until = None

    def get(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}{path}?{query}", timeout=20) as answer:  # noqa: S310  http, on loopback
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                pytest.fail(f"{parameters}: {error.read().decode()}")

    def ready(self):
        with suppress(OSError):
            urllib.request.urlopen(f"{self.url}/-/ready", timeout=1).close()  # noqa: S310  as above
            return True
        return False

    def now(self, expression):
        """Return the series of this moment."""
        return self.get("/api/v1/query", query=expression)["result"]

    def end(self):
        self._until = wall()

    def series(self, expression):
        """Return labels and numbers, second by second, of all that an expression has returned meanwhile."""
        data = self.get("/api/v1/query_range", query=expression, start=self._since, end=self._until, step=1)
        found = [
            (each["metric"], [(at, float(value)) for at, value in each["values"] if not isnan(float(value))])
            for each in data["result"]
        ]
        return [(labels, values) for labels, values in found if values]


@contextmanager
def watched(targets, place):
    """Run a Prometheus that looks at ``targets``, addresses by job, every second; give what can be asked of it."""
    every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    scraped = [{"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in targets.items()]
    config = {"global": every, "rule_files": [str(RULES)], "scrape_configs": scraped}
    (place / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    asked = Asked(port)
    with (place / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                PROMETHEUS,
                f"--config.file={place / 'prometheus.yml'}",
                f"--storage.tsdb.path={place / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            give_up = monotonic() + 20
            while not asked.ready():
                assert process.poll() is None, (place / "prometheus.log").read_text()
                assert monotonic() < give_up, "prometheus does not get ready"
                sleep(0.05)
            yield asked
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    place = tmp_path_factory.mktemp("watched")
    run_dirs = {service: place / "run" / service for service in SERVICES}
    for each in run_dirs.values():
        each.mkdir(mode=0o700, parents=True)

    def told():
        return metrics.read(run_dirs["grouper"], wall()).commands["saber", "get"]

    def calls():
        return Counter(told().calls)

    def trouble():
        reports = [metrics.read(each, wall()) for each in run_dirs.values()]
        return {
            key for report in reports for key, of in report.commands.items() if {*+Counter(of.states)} != {"closed"}
        }

    def with_run_dir(part):
        return {**environment(part), "GROUNDFAULT_RUN_DIR": str(run_dirs[part.service])}

    environment = Part.environment
    with pytest.MonkeyPatch.context() as patch, demo._Chain(place, Phase.GROUNDFAULT) as chain:
        patch.setattr(Part, "environment", with_run_dir)
        host = chain.start_all()
        saber = chain._processes[0]
        with (
            exported(lambda: metrics.read(run_dirs["topps"], wall())) as topps,
            exported(lambda: metrics.read(run_dirs["grouper"], wall())) as grouper,
            exported(lambda: metrics.read(run_dirs["saber"], wall())) as last,
            a_fourth_service() as pull,
            exported(pull) as lobby,
            watched({"topps": topps, "grouper": grouper, "saber": last, "lobby": lobby}, place) as prometheus,
        ):
            until(lambda: len(prometheus.now("up == 1")) == len(SERVICES) + 1, "all are scraped")
            with crowd(host) as regulars:
                regulars.come(4, "/lineup/7", pause_s=0.3)
                regulars.come(2, "/lobby", pause_s=0.2)
                sleep(CALM_S)
                with crowd(host) as fans:
                    fans.come(FANS // 2, "/lineup/8", pause_s=0.0)
                    fans.come(FANS // 2, "/lineup/9", pause_s=0.0, criticality="sheddable")
                    until(lambda: calls()["throttled"] > 20, "calls are throttled")
                os.killpg(saber.pid, signal.SIGSTOP)
                try:
                    regulars.come(30, "/lineup/7", pause_s=0.1)
                    until(lambda: calls()["circuit-open"] > 20, "a circuit opens")
                finally:
                    os.killpg(saber.pid, signal.SIGCONT)
                until(lambda: not trouble(), "all circuits are closed")
                sleep(LEAST_S)  # until that, too, is scraped
            prometheus.end()
            prometheus.report = merged(metrics.read(each, wall()) for each in run_dirs.values())
            yield prometheus


def test_every_query_of_every_panel_has_an_answer(asked, dashboard, substituted):
    silent = [
        (panel["title"], target["expr"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
        if not asked.series(substituted(target["expr"], window="5s"))
    ]
    assert silent == []


def test_every_annotation_and_every_choice_has_something_to_show(asked, dashboard, substituted):
    for annotation in dashboard["annotations"]["list"]:
        assert asked.series(substituted(annotation["expr"], window="5s")), annotation["name"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query" and variable["name"] != "namespace":  # nothing has one here
            metric, label = variable["query"]["query"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
            assert [labels for labels, _ in asked.series(substituted(metric)) if labels.get(label)], variable["name"]


def test_every_rule_is_evaluated_without_an_error_and_every_recorded_series_is_there(asked, recorded, rules):
    groups = asked.get("/api/v1/rules")["groups"]
    seen = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert set(seen) == {rule.get("record") or rule["alert"] for rule in rules}
    assert {name: rule.get("lastError") for name, rule in seen.items() if rule["health"] != "ok"} == {}
    assert [name for name in sorted(recorded) if not asked.series(name)] == []


def test_the_pictures_tell_what_has_happened(asked, dashboard, substituted):
    def drawn(title):
        panel = next(each for each in dashboard["panels"] if each["title"] == title and "targets" in each)
        return {
            target["legendFormat"]: asked.series(substituted(target["expr"], window="5s"))
            for target in panel["targets"]
        }

    def highest(found):
        return max(value for _, values in found for _, value in values)

    requests = {labels["result"]: highest([(labels, values)]) for labels, values in drawn("Requests")["{{result}}"]}
    assert requests["shed"] > 20
    assert requests["admitted"] > 20
    assert highest(drawn("Shed, worst service")["shed"]) > 0.2
    assert highest(drawn("Commands cut off")["cut off"]) >= 1
    assert drawn("Commands cut off")["cut off"][0][1][-1][1] == 0  # all is over at the end
    circuits = {labels["circuits"] for labels, _ in drawn("Commands")["circuits"]}
    assert "0 of 2" in circuits
    assert circuits & {"1 of 2", "2 of 2"}
    outcomes = {labels["outcome"] for labels, _ in drawn("Calls")["{{outcome}}"]}
    assert {"success", "timeout", "shed", "throttled", "circuit-open"} <= outcomes
    edges = {(labels["caller"], labels["resource"]) for labels, _ in drawn("As the callers see it")["calls"]}
    assert {("topps", "grouper"), ("grouper", "saber"), ("saber", "contest-db"), ("lobby", "odds")} <= edges
    assert ("grouper/saber.get", "saber") in {
        (labels["caller"], labels["service"]) for labels, _ in drawn("As the callees see it")["requests"]
    }


CHAIN = {("(no name)", "topps"), ("topps", "grouper"), ("grouper", "saber"), ("saber", "contest-db")}


def test_the_map_of_the_chain_is_the_same_from_its_reports_and_from_prometheus(asked):
    seen = sources.seen_in_report(asked.report), sources.seen_in_samples(sources.ask_prometheus(asked.url, "2m"), 120.0)
    for drawn in map(draw_up, seen):
        edges = {(edge.caller, edge.callee): edge for edge in drawn.edges if edge.caller != "lobby"}
        asked_whether_ready = [edges.pop(("(no name)", each), None) for each in ("grouper", "saber")]
        assert all(edge is None or edge.volume < 50 for edge in asked_whether_ready)
        assert set(edges) == CHAIN
        assert edges["grouper", "saber"].share("shed", "throttled", "circuit-open") > 0
        assert edges["grouper", "saber"].wait_s is not None
        assert [edge.notes for edge in edges.values()] == [()] * len(CHAIN)
        assert [node.name for node in drawn.nodes if node.kind == "resource" and node.name != "odds"] == ["contest-db"]
        assert drawing.dot_of(drawn).count(" -> ") == len(drawn.edges)
