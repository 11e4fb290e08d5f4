"""Every setting of the two halves is either live, within bounds, or not, for a reason."""

import math
import re
from dataclasses import fields
from pathlib import Path

import pytest

from groundfault.breaker import BreakerSettings
from groundfault.settings.names import LIVE, NOT_LIVE, SERVER, checked, disables
from groundfault.shedding.settings import ShedderSettings

EVERY = [
    *(field.name for field in fields(BreakerSettings)),
    *(f"{SERVER}{field.name}" for field in fields(ShedderSettings)),
]

GOOD = {
    "timeout_s": 0.5,
    "slow_call_s": 1,
    "failure_threshold": 0.4,
    "minimum_volume_per_s": 0,
    "sleep_window_s": 5.0,
    "max_sleep_window_s": 10.0,
    "max_concurrent": 5,
    "mode": "shadow",
    "honor_handled": False,
    "handled_patience_s": 3,
    "on_saturated": "open",
    "health_check_ttl_s": 2.0,
    "isolation": "thread",
    "probe": "call",
    "fallback_max_concurrent": 3,
    "fallback_timeout_s": 0.2,
    "server.mode": "shadow",
    "server.deadline_s": 0.8,
    "server.max_concurrency": 50,
    "server.health_paths": ["/up"],
    "server.health_rate_per_s": 30,
    "server.max_deadline_s": 20.0,
    "server.criticality": [{"criticality": "sheddable", "path": "/suggest*"}],
    "server.serve_half_closed": True,
    "server.retry_after_s": [1, 3],
}


def test_every_setting_is_live_or_has_a_reason_not_to_be():
    assert sorted([*LIVE, *NOT_LIVE]) == sorted(EVERY)


def test_the_table_of_good_values_leaves_nothing_out():
    assert GOOD.keys() == LIVE.keys()


@pytest.mark.parametrize("name", LIVE)
def test_what_the_table_lets_through_the_settings_take_too(name):
    assert checked(name, GOOD[name]) is None
    kind = ShedderSettings() if name.startswith(SERVER) else BreakerSettings()
    changed = kind.changed({name.removeprefix(SERVER): GOOD[name]})
    assert kind.differences(changed) != ({}, {}) or getattr(kind, name.removeprefix(SERVER)) == GOOD[name]


@pytest.mark.parametrize("name", LIVE)
@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, -1, "nonsense", {}, [None], 10**400, object()])
def test_nonsense_breaks_a_bound(name, value):
    assert checked(name, value)


@pytest.mark.parametrize("name", [name for name in LIVE if not isinstance(GOOD[name], bool)])
@pytest.mark.parametrize("value", [True, False])
def test_a_truth_value_is_no_number(name, value):
    assert checked(name, value)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("timeout_s", 0.001, 300),
        ("sleep_window_s", 0.001, 300),
        ("max_concurrent", 1, 1_000_000),
        ("minimum_volume_per_s", 0, 1_000_000),
        ("server.deadline_s", 0.01, 300),
        ("server.health_rate_per_s", 1, 1_000_000),
    ],
)
def test_the_ends_of_a_range_are_in_it(name, low, high):
    assert [checked(name, value) for value in (low, high)] == [None, None]
    step = 1 if isinstance(low, int) else 1e-6
    assert all(checked(name, value) for value in (low - step, high + 1))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("server.health_paths", []),
        ("server.health_paths", ["up"]),
        ("server.health_paths", "/up"),
        ("server.retry_after_s", [3, 1]),
        ("server.retry_after_s", [1, True]),
        ("server.criticality", [{"criticality": "sheddable"}]),
        ("server.criticality", [{"criticality": "vital", "path": "/"}]),
        ("server.criticality", ["sheddable"]),
        ("server.criticality", [{"unknown": 1}]),
        ("mode", "off"),
        ("server.mode", "force_open"),
    ],
)
def test_what_has_a_form_of_its_own_is_held_to_it(name, value):
    assert checked(name, value)


def test_a_bound_for_none_says_what_to_do():
    assert checked("timeout_s", None) == "a number between 0.001 and 300; to have none, unset it"


@pytest.mark.parametrize(
    ("name", "value", "does"),
    [
        ("mode", "enforce", False),
        ("mode", "shadow", True),
        ("mode", "force_open", True),
        ("mode", "force_closed", True),
        ("server.mode", "off", True),
        ("server.mode", "enforce", False),
        ("timeout_s", 0.001, False),
    ],
)
def test_what_takes_the_protection_away(name, value, does):
    assert disables(name, value) is does


def test_the_reference_page_has_every_name_with_its_bound():
    page = (Path(__file__).parent.parent.parent / "docs/reference/settings.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| (.*?) \|$", page, re.MULTILINE))
    assert {name: rows.get(name) for name in LIVE} == {name: live.bound for name, live in LIVE.items()}
    assert {name: rows.get(name) for name in NOT_LIVE} == dict(NOT_LIVE)
