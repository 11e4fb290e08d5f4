"""A part of the fleet for the whole: what is divided, what is not, and what is said of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault.lab.simulator.sampling import sampled
from groundfault.lab.simulator.scenario import scenario_of
from groundfault.lab.simulator.table import ScenarioError


def _document(instances, workers, threads):
    return {
        "total_s": 10,
        "capacity_rps": 100.0,
        "services": {"saber": {"instances": instances, "workers": workers, "threads": threads, "wait": 0.01}},
        "streams": [{"name": "fan", "to": "saber", "rate": 50, "users": 1000}],
        "events": [{"at": 1, "action": "slow", "factor": 2, "service": "saber", "instances": max(1, instances // 2)}],
    }


def test_one_in_one_is_the_same():
    document = _document(4, 2, 2)
    assert sampled(document, 1).document == document
    assert not sampled(document, 1).notes


def test_instances_rates_users_capacity_and_those_that_are_sick_are_divided():
    made = sampled(_document(20, 2, 2), 10).document

    assert made["services"]["saber"] == {"instances": 2, "workers": 2, "threads": 2, "wait": 0.01}
    assert made["streams"][0] == {"name": "fan", "to": "saber", "rate": 50, "scale": 0.1, "users": 100}
    assert made["capacity_rps"] == 10.0
    assert made["events"][0]["instances"] == 1


@given(
    instances=st.integers(1, 200),
    workers=st.integers(1, 8),
    threads=st.integers(1, 64),
    of=st.integers(2, 1000),
)
def test_places_are_divided_as_well_as_whole_ones_can_be(instances, workers, threads, of):
    document = _document(instances, workers, threads)
    part = sampled(document, of)
    service = part.document["services"]["saber"]
    places = service["instances"] * service["workers"] * service["threads"]
    wanted = instances * workers * threads / of

    assert scenario_of(part.document)
    assert document == _document(instances, workers, threads)
    assert places >= 1
    assert all(service[key] <= document["services"]["saber"][key] for key in ("instances", "workers", "threads"))
    assert places == 1 or 0.5 <= places / wanted <= 2
    assert ("saber" in " ".join(part.notes[1:])) == (abs(places / wanted - 1) > 0.2)


@pytest.mark.parametrize("of", [0, -1, 10_001])
def test_a_sample_that_makes_no_sense_is_refused(of):
    with pytest.raises(ScenarioError, match=rf"a sample must be 1/1 to 1/10000, not 1/{of}"):
        sampled(_document(1, 1, 1), of)
