"""The services of the cascade benchmark: what protects them in each variant, and a chain of real processes."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from time import sleep

import psutil
import pytest
from cascading import apps
from cascading.chain import Chain
from cascading.guards import guarded, sickly
from cascading.judge import judge
from cascading.parts import Last, Part, Variant, names, timeout_s
from cascading.scenarios import SCENARIOS

from groundfault import wire
from groundfault._clock import monotonic
from groundfault.breaker import Registry
from groundfault.lab.targets.faults import Faults, FaultsFile

BENCH = Path(apps.__file__).parent.parent


def part(place=2, *, variant=Variant.GROUNDFAULT, directory="/nowhere", instance=0):
    return Part(
        service=names(3)[place],
        instance=instance,
        place=place,
        length=3,
        variant=variant,
        directory=str(directory),
        token="secret",  # noqa: S106  the token of a test
        callees=() if place == 2 else ("http://127.0.0.1:1",),
        last=Last(work_s=0.0),
    )


def ask(app, path="/need"):
    """Return status and the protocol's headers of an answer, and its body."""
    seen = []

    def start_response(status, headers, exc_info=None):
        seen.append((int(status[:3]), {name: value for name, value in headers if wire.is_ours(name)}))

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "SCRIPT_NAME": "", "REMOTE_ADDR": "127.0.0.1"}
    chunks = app(environ, start_response)
    body = b"".join(chunks)
    if hasattr(chunks, "close"):
        chunks.close()
    return (*seen[-1], body)


@pytest.fixture
def service(monkeypatch):
    """Build a service as gunicorn does, in a process of its own: with commands that no other test has made."""
    module = sys.modules[Registry.__module__]  # the package has a function of that name
    monkeypatch.setattr(module, "_default", Registry())

    def build(each):
        for name, value in each.environment().items():
            monkeypatch.setenv(name, value)
        return apps.create()

    return build


def test_a_part_survives_its_environment(monkeypatch):
    told = part(0, variant=Variant.PLAIN)
    for name, value in told.environment().items():
        monkeypatch.setenv(name, value)

    assert Part.from_environment() == told


def test_each_waits_a_little_less_than_who_waits_for_it():
    patience = [timeout_s(place) for place in range(5)]

    assert patience == sorted(patience, reverse=True)
    assert all(0.7 < each < 1.0 for each in patience)


def test_innocents_turn_back_one_service_before_the_last():
    assert [part(place).turns for place in range(3)] == [False, True, False]


@pytest.mark.parametrize("variant", Variant)
def test_a_service_answers_whatever_protects_it(service, tmp_path, variant):
    app = service(part(variant=variant, directory=tmp_path))

    assert ask(app)[0] == 200
    assert ask(app, "/nonsense")[0] == 404
    assert b"secret" in ask(app, "/healthz")[2]


@pytest.mark.parametrize(
    ("variant", "status", "annotated"),
    [
        (Variant.GROUNDFAULT, 503, True),
        (Variant.PLAIN, 503, False),
        (Variant.INTERLOCK, 502, False),
        (Variant.NONE, 502, False),
    ],
)
def test_a_service_whose_callee_is_gone_says_so_in_the_words_of_its_variant(
    service, tmp_path, variant, status, annotated
):
    app = service(part(1, variant=variant, directory=tmp_path))  # nobody listens on port 1

    answer = ask(app)

    assert answer[0] == status
    assert (wire.HANDLED in answer[1]) is annotated
    assert ask(app, "/free")[0] == 200  # which turns back here


def test_a_bulkhead_that_is_full_refuses_without_annotation():
    """One place in all, which the number of slots that makes it so says."""
    inside = []

    def app(environ, start_response):
        inside.append(ask(protected))  # while the only place is taken
        start_response("200 OK", [])
        return [b"ok"]

    protected = guarded(app, replace(part(variant=Variant.INTERLOCK), last=Last(slots=-4)))

    assert ask(protected)[0] == 200
    assert inside == [(503, {}, b"not now\n")]


def test_faults_reach_the_services_through_their_file(tmp_path):
    seen = FaultsFile(tmp_path)
    assert seen.now() == Faults()

    for faults in (Faults(slower=4.0), Faults(sick=(0, 1)), Faults()):
        faults.write(tmp_path)
        assert seen.now() == faults
        assert seen.now() == faults


@pytest.mark.parametrize("variant", Variant)
def test_a_sick_instance_refuses_everything_and_is_annotated_where_refusals_are(tmp_path, variant):
    Faults(sick=(1,)).write(tmp_path)

    def app(environ, start_response):
        start_response("200 OK", [])
        return [b"ok"]

    well, sick = (sickly(app, part(variant=variant, instance=number), FaultsFile(tmp_path)) for number in range(2))

    assert ask(well)[0] == 200
    status, annotations, _ = ask(sick)
    assert status == 503
    assert bool(annotations) is (variant is Variant.GROUNDFAULT)
    assert ask(sick, "/healthz")[0] == 200  # nobody takes it out of the balancer


# --- on real processes ------------------------------------------------------------------------------------------------


def left_in(directory):
    """Return the living processes that were started in ``directory``."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(directory):
                found.append(process)
        except psutil.Error:  # gone meanwhile, or somebody else's
            continue
    return found


def wait_for(condition, within_s):
    give_up = monotonic() + within_s
    while not condition() and monotonic() < give_up:
        sleep(0.05)
    return condition()


@pytest.mark.e2e
@pytest.mark.alone
@pytest.mark.long
@pytest.mark.parametrize("name", ["down", "sick-one"])
def test_a_chain_runs_comes_to_harm_recovers_and_leaves_nothing_behind(name, tmp_path):
    scenario = replace(SCENARIOS[name], calm_s=1.0, event_s=2.0, after_s=1.0)
    with Chain(scenario, Variant.GROUNDFAULT, 3, tmp_path) as chain:
        recorded = chain.run(1)

    assert left_in(tmp_path) == []
    assert recorded.died == []
    start, end = recorded.event
    assert start == 1.0
    assert end >= 3.0  # a service that was down is back when it answers
    assert sum(row.good for row in recorded.rows if row.due < start - 0.5) > 0
    assert sum(not row.good for row in recorded.rows if row.needs_saber and start <= row.due < end) > 0
    assert judge(scenario, recorded).attempts == len(recorded.rows) > 20
    for log in tmp_path.glob("*.log"):
        assert "Traceback" not in log.read_text()


@pytest.mark.e2e
@pytest.mark.alone
@pytest.mark.long
def test_circuits_that_trip_are_told_of_by_edge(tmp_path):
    scenario = replace(SCENARIOS["sick"], calm_s=0.5, event_s=4.0, after_s=0.5, innocents=0.1)
    with Chain(scenario, Variant.PLAIN, 3, tmp_path) as chain:
        recorded = chain.run(1)

    assert judge(scenario, recorded).trips_by_edge.get("b -> c", 0) >= 1


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_benchmark_and_everything_it_started(number, tmp_path):
    process = subprocess.Popen(
        [sys.executable, str(BENCH / "cascade.py"), "--quick", "--scenario", "spike"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert wait_for(lambda: len(left_in(tmp_path)) > 3, 30)  # itself, and a server with its worker
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)

    assert process.returncode == 128 + number
    assert stderr.splitlines()[-1] == "stopped; nothing is left running"
    assert left_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
