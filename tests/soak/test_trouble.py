import json

import pytest
from chaotic.trouble import CALM_SETTINGS, FAULTS, INVALID, VALID, planned

from groundfault.errors import SettingsError
from groundfault.lab.faults.fault import Kind
from groundfault.settings.document import validate
from groundfault.settings.file import FileStore
from groundfault.settings.store import StoreError


@pytest.mark.parametrize("seconds", [3, 10, 60, 600])
def test_every_sort_of_trouble_has_its_turn_however_short(seconds):
    assert {act.kind for act in planned(seconds)} == {"fault", "kill", "freeze", "settings", "spoil", "reload"}


@pytest.mark.parametrize("seconds", [3, 60, 600])
def test_all_is_over_before_the_end_and_nobody_is_ended_in_the_last_two_fifths(seconds):
    acts = planned(seconds)
    assert all(act.t >= 0 and act.lasts_s >= 0 and act.t + act.lasts_s < seconds for act in acts)
    assert all(act.t < seconds * 0.6 for act in acts if act.kind in {"kill", "reload"})
    assert acts == sorted(acts, key=lambda act: act.t)


def test_the_plan_is_made_from_the_seed_alone():
    assert planned(60, seed=1) == planned(60, seed=1) != planned(60, seed=2)


def test_ten_minutes_have_every_fault_there_is_on_every_route():
    assert {fault.kind for fault in FAULTS} == set(Kind) - {Kind.NONE}
    pairs = {(act.who, act.number % len(FAULTS)) for act in planned(600) if act.kind == "fault"}
    assert len(pairs) == 2 * len(FAULTS)


def problems(place, data):
    file = place / "settings.json"
    file.write_bytes(data)
    return validate(FileStore(file).load(None))


@pytest.mark.parametrize("document", [CALM_SETTINGS, *VALID])
def test_a_valid_document_is_one(tmp_path, document):
    assert problems(tmp_path, json.dumps(document).encode()) == ()


@pytest.mark.parametrize("data", INVALID)
def test_a_spoiled_one_is_none(tmp_path, data):
    try:
        found = problems(tmp_path, data)
    except (SettingsError, StoreError):
        return
    assert found
