"""What must be reached, and how a number is shown."""

import pytest

from groundfault.lab.goals import judge

GOOD = {
    "goodput_share_in_spike": 0.95,
    "innocents_success_in_spike": 0.999,
    "recovery_s": 1.5,
    "trips": 0,
    "trips_by_edge": {},
    "admitted_p99_ms": 312.4,
    "false_shed_share_before_spike": 0.0,
    "generator_lag_p99_ms": 2.1,
    "shed_share_in_spike": 0.8,
    "cpu_peak": 0.4,
}


def missed(**changes):
    lines = judge({"unprotected": GOOD, "groundfault": {**GOOD, **changes}})
    return [line.key for line in lines if line.met is False]


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({}, []),
        ({"goodput_share_in_spike": 0.85}, []),
        ({"goodput_share_in_spike": 0.849}, ["goodput_share_in_spike"]),
        ({"innocents_success_in_spike": 0.989}, ["innocents_success_in_spike"]),
        ({"recovery_s": 4.0}, []),
        ({"recovery_s": 4.1}, ["recovery_s"]),
        ({"recovery_s": None}, ["recovery_s"]),
        ({"trips": 1}, ["trips"]),
        ({"false_shed_share_before_spike": 0.001}, ["false_shed_share_before_spike"]),
        ({"admitted_p99_ms": None, "generator_lag_p99_ms": 99, "cpu_peak": 1.0}, []),
    ],
)
def test_a_miss_is_named(changes, keys):
    assert missed(**changes) == keys


def test_the_other_phases_have_no_targets():
    lines = judge({"unprotected": {**GOOD, "trips": 9, "recovery_s": None}, "groundfault": GOOD})
    assert not [line for line in lines if line.met is False]


def test_numbers_and_targets_as_they_are_shown():
    lines = {line.key: line for line in judge({"unprotected": {**GOOD, "recovery_s": None}, "groundfault": GOOD})}
    assert lines["goodput_share_in_spike"].shown["groundfault"] == "95.0%"
    assert lines["goodput_share_in_spike"].target == "≥ 85.0%"
    assert lines["recovery_s"].shown == {"unprotected": "not within the run", "groundfault": "1.5 s"}
    assert lines["trips"].target == "0"
    assert lines["admitted_p99_ms"].shown["groundfault"] == "312 ms"
    assert lines["admitted_p99_ms"].target is None
