"""The demo's phases as runs, reckoned by hand from the recording of conftest.py."""

import pytest

from groundfault.lab.parts import Phase
from groundfault.lab.phases import runs
from groundfault.lab.runs.record import Run, Verdict


@pytest.fixture(scope="module")
def found(recorded):
    return runs(recorded, {"python": "3.13"})


def test_each_phase_is_a_run_that_comes_back_as_it_was_written(found, tmp_path):
    assert list(found) == [phase.value for phase in Phase]
    for run in found.values():
        run.write(tmp_path / "run.json")
        assert Run.read(tmp_path / "run.json") == run
        assert (tmp_path / "run.json").stat().st_size < 20_000


def test_what_became_of_the_fans_and_of_the_innocents(found):
    fans, innocents = found["groundfault"].streams
    assert (sum(fans.due), sum(fans.good), sum(fans.shed), sum(fans.failed)) == (115, 75, 40, 0)
    assert sum(innocents.good) == sum(innocents.due) == 110
    plain = found["plain-503"].streams
    assert (sum(plain[0].shed), sum(plain[0].failed)) == (0, 40)  # nothing tells such a 503 from a failure
    assert sum(plain[1].failed) == 110
    bare = found["unprotected"].streams[0]
    assert (sum(bare.late), sum(bare.good)) == (80, 35)


def test_only_the_protected_phase_has_bounds(found):
    assert found["groundfault"].verdict is Verdict.PASSED
    assert sum(check.met is not None for check in found["groundfault"].checks) == 5
    for name in ("unprotected", "plain-503"):
        assert {check.met for check in found[name].checks} == {None}
        assert len(found[name].checks) == len(found["groundfault"].checks)


def test_services_edges_and_spans(found):
    plain = found["plain-503"]
    assert [service.name for service in plain.services] == ["saber"]
    assert (sum(plain.services[0].arrived), sum(plain.services[0].shed)) == (40, 20)
    assert {edge.name: edge.trips for edge in plain.edges} == {"grouper -> saber": [2.5], "topps -> grouper": [3.5]}
    assert found["unprotected"].services == []
    assert plain.spans == {"before": (0.0, 2.0), "spike": (2.0, 6.0), "after": (6.0, 11.0)}


def test_a_void_phase_is_a_void_run(recorded):
    phases = dict(recorded.phases)
    measured = phases[Phase.GROUNDFAULT]
    phases[Phase.GROUNDFAULT] = type(measured)(rows=measured.rows, events=measured.events, cpu=[1.0] * 11)
    busy = type(recorded)(capacity_rps=recorded.capacity_rps, curve=recorded.curve, phases=phases)
    assert runs(busy, {})["groundfault"].void == ["the host's CPU was 100% busy, more than 85%"]
