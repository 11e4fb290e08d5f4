"""What is started for a target, and what it can be asked to do."""

import pytest

from groundfault.lab.load.targets import TargetError
from groundfault.lab.parts import Phase
from groundfault.lab.targets import catalogue
from groundfault.lab.targets.fleet import Fleet, RunningFleet, Server

FLEETS = [
    catalogue.query(),
    catalogue.blips(),
    catalogue.herd(),
    catalogue.sunday(),
    catalogue.storm(),
    catalogue.deploy(),
    catalogue.one_of_seven("slow"),
]


@pytest.mark.parametrize("fleet", FLEETS, ids=lambda fleet: fleet.title)
def test_services_are_named_before_whoever_calls_them(fleet):
    known = set()
    for server in fleet.servers:
        assert set(server.calls) <= known
        known.add(server.service)


@pytest.mark.parametrize(
    ("variant", "worker"),
    [(Phase.GROUNDFAULT, "groundfault.integrations.gunicorn.ThreadWorker"), (Phase.UNPROTECTED, "gthread")],
)
def test_our_worker_serves_only_where_it_is_to_drain_and_may(variant, worker):
    saber = catalogue.deploy().servers[0]
    assert f"--worker-class={worker}" in saber.command(80, variant)
    stock = catalogue.sunday().servers[0]
    assert "--worker-class=gthread" in stock.command(80, variant)


def test_what_is_no_web_application_runs_itself():
    assert Server(service="db", module="database").command(80, Phase.GROUNDFAULT) == [
        "groundfault.lab.targets.database",
        "80",
    ]


def test_what_a_target_cannot_do_is_refused_with_what_it_can(tmp_path):
    running = RunningFleet(catalogue.blips(), Phase.GROUNDFAULT, tmp_path)
    running.act("silence")
    with pytest.raises(TargetError, match=r"a database node can do silence, answer, not 'dance'"):
        running.act("dance")


@pytest.mark.e2e
def test_a_service_that_cannot_start_leaves_nothing_running(tmp_path):
    fleet = Fleet(title="one", servers=(Server(service="nobody", module="no_such_module"),))
    with pytest.raises(TargetError, match="No module named"):
        fleet.start("groundfault", tmp_path)
