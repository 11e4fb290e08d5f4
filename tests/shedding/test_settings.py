import pytest

from groundfault.errors import SettingsError
from groundfault.shedding.settings import RequestInfo, ShedderSettings
from groundfault.vocabulary import Mode

_NONSENSE = [
    ("deadline_s", 10**400),  # no float is as large
    ("retry_after_s", (1, 10**400)),
    ("service", ""),
    ("service", "Upper"),
    ("service", "a\r\nb"),
    ("service", "x" * 65),
    ("service", 7),
    ("mode", "force_open"),
    ("mode", "on"),
    ("mode", None),
    ("deadline_s", 0),
    ("deadline_s", -1.0),
    ("deadline_s", float("nan")),
    ("deadline_s", float("inf")),
    ("deadline_s", 3601),
    ("deadline_s", "1"),
    ("deadline_s", True),
    ("max_deadline_s", 0),
    ("max_concurrency", 0),
    ("max_concurrency", -3),
    ("max_concurrency", 1.5),
    ("max_concurrency", True),
    ("health_paths", "/health"),
    ("health_paths", ("health",)),
    ("health_paths", 7),
    ("health_rate_per_s", -1),
    ("health_rate_per_s", float("nan")),
    ("trusted_callers", "10.0.0.0/8"),
    ("trusted_callers", ("10.0.0.0/33",)),
    ("trusted_callers", ("everybody",)),
    ("trusted_callers", (8,)),
    ("criticality", "critical"),
    ("identity", "user"),
    ("key_salt", ""),
    ("key_salt", b"salt"),
    ("retry_after_s", 1),
    ("retry_after_s", (2, 1)),
    ("retry_after_s", (1, 2, 3)),
    ("retry_after_s", (-1, 2)),
]


@pytest.mark.parametrize(("name", "value"), _NONSENSE)
def test_nonsense_is_refused_by_name(name, value):
    with pytest.raises(SettingsError, match=name):
        ShedderSettings(**{name: value})


def test_a_message_names_the_value_and_the_bound_but_never_a_secret():
    with pytest.raises(SettingsError, match=r"deadline_s must be a number between 0\.01 and 3600, not 0"):
        ShedderSettings(deadline_s=0)
    with pytest.raises(SettingsError) as caught:
        ShedderSettings(key_salt=b"s3cret")
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(ShedderSettings(key_salt="s3cret"))


def test_nothing_has_to_be_set():
    settings = ShedderSettings()
    assert settings.mode is Mode.ENFORCE
    assert settings.deadline_s == 1.0
    assert settings.max_concurrency is None
    assert settings.retry_after_s is None


def test_what_a_file_can_hold_is_accepted_in_its_plain_form():
    """Strings for enums, lists for tuples: what JSON and TOML make of them."""
    settings = ShedderSettings(
        mode="shadow", health_paths=["/up"], trusted_callers=["10.0.0.0/8"], retry_after_s=[1, 3]
    )
    assert settings.mode is Mode.SHADOW
    assert settings.health_paths == ("/up",)
    assert settings.trusted_callers == ("10.0.0.0/8",)
    assert settings.retry_after_s == (1.0, 3.0)


def test_a_change_is_checked_as_a_whole_and_leaves_the_old_value_alone():
    settings = ShedderSettings(deadline_s=2)
    assert settings.changed({"mode": "off"}).deadline_s == 2
    with pytest.raises(SettingsError, match="deadline is not a setting"):
        settings.changed({"deadline": 1})
    with pytest.raises(SettingsError, match="max_concurrency"):
        settings.changed({"deadline_s": 3, "max_concurrency": 0})
    assert settings == ShedderSettings(deadline_s=2)


def test_a_request_info_shows_headers_by_name_whatever_the_case():
    class Headers:
        def get(self, name, /):
            return {"cookie": "a=b"}.get(name.lower())

    info = RequestInfo("GET", "/", Headers(), "10.0.0.1")
    assert info.headers.get("Cookie") == "a=b"
