import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault.breaker import BreakerSettings
from groundfault.errors import SettingsError
from groundfault.vocabulary import Mode


class Probe:
    async def __call__(self):
        return True


async def check():
    return True


NUMBERS = [
    "timeout_s",
    "slow_call_s",
    "failure_threshold",
    "minimum_volume_per_s",
    "sleep_window_s",
    "max_sleep_window_s",
    "handled_patience_s",
    "health_check_ttl_s",
    "fallback_timeout_s",
]


@pytest.mark.parametrize(
    ("field", "value", "bound"),
    [(field, value, "number") for field in NUMBERS for value in (True, "1", [1])]
    + [(field, value, "finite") for field in NUMBERS for value in (math.nan, math.inf, -math.inf, 10**400)]
    + [(field, -1, "a") for field in NUMBERS]
    + [(field, 0, "above 0") for field in NUMBERS if field != "minimum_volume_per_s"]
    + [
        ("failure_threshold", 1.01, "at most 1"),
        ("max_sleep_window_s", 4.9, "at least sleep_window_s, 5"),
        ("max_concurrent", 0, "at least 1"),
        ("max_concurrent", -3, "at least 1"),
        ("max_concurrent", 10**400, "at most 1000000"),
        ("max_concurrent", 2.0, "whole number"),
        ("max_concurrent", True, "whole number"),
        ("max_concurrent", math.nan, "whole number"),
        ("mode", "off", "GROUNDFAULT_DISABLED=1"),
        ("mode", Mode.OFF, "GROUNDFAULT_DISABLED=1"),
        ("mode", "loud", "'enforce'"),
        ("mode", None, "'enforce'"),
        ("fallback_max_concurrent", 0, "at least 1"),
        ("fallback_max_concurrent", True, "whole number"),
        ("isolation", "process", "'caller' or 'thread'"),
        ("isolation", None, "'caller' or 'thread'"),
        ("probe", "prayer", "'call' or 'health_check'"),
        ("probe", "health_check", "'call' while health_check is None"),
        ("honor_handled", 1, "True, False or None"),
        ("on_saturated", "close", "'report' or 'open'"),
        ("ignored_errors", KeyError, "tuple of exception types"),
        ("ignored_errors", (KeyError, 3), "tuple of exception types"),
        ("ignored_errors", (int,), "tuple of exception types"),
        ("health_check", 3, "function"),
        ("health_check", check, "plain function"),
        ("health_check", Probe(), "plain function"),
    ],
)
def test_nonsense_is_refused_with_field_and_bound(field, value, bound):
    with pytest.raises(SettingsError, match=bound) as caught:
        BreakerSettings(**{field: value})
    assert str(caught.value).startswith(f"{field} must be ")


def test_the_value_is_named():
    with pytest.raises(SettingsError) as caught:
        BreakerSettings(max_concurrent=0)
    assert str(caught.value) == "max_concurrent must be at least 1, not 0"


def test_an_unknown_setting_is_refused_by_name():
    for attempt in (BreakerSettings.of, BreakerSettings().changed):
        with pytest.raises(SettingsError, match="timeout is no setting of a command; there are timeout_s, "):
            attempt({"timeout": 1})


def test_the_defaults():
    assert BreakerSettings().as_dict() == {
        "timeout_s": None,
        "slow_call_s": None,
        "failure_threshold": 0.5,
        "minimum_volume_per_s": 2.0,
        "sleep_window_s": 5.0,
        "max_sleep_window_s": None,
        "max_concurrent": None,
        "mode": Mode.ENFORCE,
        "honor_handled": None,
        "handled_patience_s": 10.0,
        "on_saturated": "report",
        "ignored_errors": (),
        "health_check": None,
        "health_check_ttl_s": 1.0,
        "isolation": "caller",
        "probe": "call",
        "fallback_max_concurrent": 100,
        "fallback_timeout_s": None,
    }


def test_plain_values_become_what_they_stand_for():
    made = BreakerSettings(mode="shadow", timeout_s=1, max_concurrent=5)
    assert made.mode is Mode.SHADOW
    assert type(made.timeout_s) is float
    assert type(made.max_concurrent) is int


@pytest.mark.parametrize(
    ("rate", "calls"), [(0, 1), (0.01, 1), (0.3, 3), (0.7, 7), (1.1, 11), (2, 20), (2.01, 21), (100, 1000)]
)
def test_the_minimum_volume_is_rounded_up_but_not_by_binary_fractions(rate, calls):
    assert BreakerSettings(minimum_volume_per_s=rate).minimum_volume == calls


def test_a_change_is_validated_with_the_rest():
    base = BreakerSettings(sleep_window_s=30.0)
    assert base.changed({"timeout_s": 2.0}).as_dict() == {**base.as_dict(), "timeout_s": 2.0}
    with pytest.raises(SettingsError, match="at least sleep_window_s, 30"):
        base.changed({"max_sleep_window_s": 20.0})


@given(
    st.dictionaries(
        st.sampled_from([*BreakerSettings().as_dict(), "x"]), st.none() | st.floats() | st.integers() | st.text()
    )
)
def test_any_mapping_is_settings_or_a_settings_error(values):
    """Nothing else comes out, whatever a settings store holds."""
    try:
        made = BreakerSettings.of(values)
    except SettingsError:
        return
    assert made.lease_s >= made.sleep_window_s > 0
    assert made.minimum_volume >= 1
    assert 0 < made.failure_threshold <= 1


@pytest.mark.parametrize(
    ("settings", "longest_s"),
    [
        ({}, 10.0),
        ({"sleep_window_s": 30.0}, 30.0),
        ({"max_sleep_window_s": 60.0}, 60.0),
        ({"max_sleep_window_s": 5}, 5.0),
        ({"sleep_window_s": 1.0, "max_sleep_window_s": 2.0}, 2.0),
    ],
)
def test_the_sleep_window_grows_no_longer_than_this(settings, longest_s):
    assert BreakerSettings(**settings).longest_sleep_s == longest_s
