"""How services learn what is wrong with them, and how a sick one answers."""

import pytest

from groundfault import wire
from groundfault.lab.targets import faults as module
from groundfault.lab.targets.faults import Faults, FaultsFile, Sickness


def ask(app, path="/lineup/1"):
    answers = []
    body = b"".join(app({"PATH_INFO": path}, lambda *answer: answers.append(answer)))
    status, headers = answers[0][:2]
    return int(status[:3]), dict(headers), body


def well(_environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]


def test_faults_reach_the_services_through_their_file(tmp_path):
    seen = FaultsFile(tmp_path)
    assert seen.now() == Faults()
    for faults in (Faults(slower=4.0), Faults(sick=(0, 3)), Faults(silent=True), Faults(cleared=1), Faults()):
        faults.write(tmp_path)
        assert seen.now() == faults
        assert seen.now() == faults


@pytest.mark.parametrize(
    ("kind", "status", "annotated"),
    [("handled", 503, True), ("plain", 503, False), ("error", 500, False), ("slow", 200, False)],
)
def test_a_sick_instance_answers_as_its_kind_says(tmp_path, monkeypatch, kind, status, annotated):
    slept = []
    monkeypatch.setattr(module, "sleep", slept.append)
    sick = Sickness(well, service="saber", instance=3, kind=kind, faults=FaultsFile(tmp_path))
    assert ask(sick)[0] == 200

    Faults(sick=(3,)).write(tmp_path)

    code, headers, _ = ask(sick)
    assert code == status
    assert (wire.read_refusal(code, headers) is not None) is annotated
    assert slept == ([module.SLOW_S] if kind == "slow" else [])


def test_a_sick_instance_passes_its_health_checks_and_leaves_others_alone(tmp_path):
    Faults(sick=(3,)).write(tmp_path)
    seen = FaultsFile(tmp_path)
    sick, other = (Sickness(well, service="s", instance=number, kind="error", faults=seen) for number in (3, 4))
    assert ask(sick, "/healthz")[0] == 200
    assert ask(other)[0] == 200
