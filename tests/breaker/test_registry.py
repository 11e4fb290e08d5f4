import logging

import pytest

from groundfault.breaker import BreakerSettings, Registry, Resource, registry
from groundfault.errors import SettingsError
from groundfault.vocabulary import Mode, Outcome


def test_handles_of_one_name_share_their_commands(registry):
    made = Resource("saber", registry=registry).command("c", timeout_s=1.0)
    assert Resource("saber", registry=registry).command("c") is made
    assert Resource("saber", registry=registry).command("c", timeout_s=1) is made
    assert Resource("other", registry=registry).command("c") is not made
    assert (made.resource, made.name, made.settings.timeout_s) == ("saber", "c", 1.0)
    assert repr(made) == "<Command saber/c>"


def test_the_default_registry_is_shared():
    made = Resource("shared-by-default").command("c")
    assert Resource("shared-by-default").command("c") is made
    assert registry().get("shared-by-default", "c") is made
    assert made in list(registry())


def test_a_resource_gives_defaults(registry):
    resource = Resource("saber", registry=registry, timeout_s=1.0, max_concurrent=5)
    assert resource.command("c").settings == BreakerSettings(timeout_s=1.0, max_concurrent=5)
    assert resource.command("d", timeout_s=2.0).settings == BreakerSettings(timeout_s=2.0, max_concurrent=5)


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        (
            {"timeout_s": 1.0},
            {"timeout_s": 2.0},
            "timeout_s of saber/c must be 1.0 as where it was first asked for, not 2.0",
        ),
        ({}, {"max_concurrent": 5}, "max_concurrent"),
        ({"timeout_s": 1.0}, {"timeout_s": None}, "timeout_s"),
        ({}, {"fallback": None}, "fallback of saber/c must be NO_FALLBACK"),
        ({"fallback": 1}, {"fallback": 2}, "fallback"),
        ({}, {"classify": bool}, "classify"),
    ],
)
def test_asking_again_with_other_settings_is_an_error(resource, first, second, named):
    made = resource.command("c", **first)
    with pytest.raises(SettingsError, match=named):
        resource.command("c", **second)
    assert resource.command("c", **first) is made


def test_what_was_tuned_is_not_what_was_asked_for(resource):
    made = resource.command("c", timeout_s=1.0)
    made.tune(timeout_s=2.0)
    assert resource.command("c", timeout_s=1.0) is made
    assert made.settings.timeout_s == 2.0


@pytest.mark.parametrize("name", ["", "Saber", "a b", "-a", "a/b", "x" * 65, "ä", None, 3])
def test_names_must_fit_the_grammar(resource, registry, name):
    with pytest.raises(SettingsError, match="resource name must match"):
        Resource(name, registry=registry)
    with pytest.raises(SettingsError, match="command name must match"):
        resource.command(name)
    assert len(registry) == 0


def test_nonsense_is_refused_where_it_is_said(registry):
    with pytest.raises(SettingsError, match="timeout_s must be above 0"):
        Resource("saber", registry=registry, timeout_s=0)
    with pytest.raises(SettingsError, match="retries is no setting"):
        Resource("saber", registry=registry).command("c", retries=3)


def test_a_full_registry_hands_out_one_command_that_refuses_nothing(clock, caplog):
    """A flood of names neither grows memory, nor evicts an open circuit, nor fails callees for one another's sake."""
    registry = Registry(limit=3, clock=clock)
    resource = Resource("saber", registry=registry, sinks=[])
    kept = [resource.command(f"c{n}") for n in range(3)]
    with caplog.at_level(logging.WARNING, "groundfault"):
        beyond = {resource.command(f"flood{n}", timeout_s=n + 1.0) for n in range(100)}
    assert len(beyond) == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    (other,) = beyond
    assert (other.resource, other.name, other.settings.mode) == ("_other", "_other", Mode.SHADOW)
    assert [resource.command(f"c{n}") for n in range(3)] == kept
    assert list(registry) == [*kept, other]
    assert len(registry) == 4
    for _ in range(30):
        with pytest.raises(ZeroDivisionError):
            other.call(lambda: 1 // 0)
    assert other.call(lambda: 1) == 1


def test_a_snapshot_describes_everything(resource, registry):
    resource.command("a").call(int)
    resource.command("b")
    snapshots = registry.snapshot()
    assert [each.command for each in snapshots] == ["a", "b"]
    assert snapshots[0].counts[Outcome.SUCCESS] == 1
    assert set(snapshots[0].totals) == set(Outcome)


def test_a_snapshot_is_a_picture(command):
    before = command.snapshot()
    command.call(int)
    assert before.counts[Outcome.SUCCESS] == 0
    with pytest.raises(AttributeError):
        before.trips = 3


def test_a_resources_defaults_give_way_to_what_a_command_was_given_for_itself(registry):
    one = Resource("contest-db", registry=registry, max_concurrent=20, timeout_s=1.0)
    made = one.command("season-totals", max_concurrent=5)
    assert one.command("season-totals") is made
    assert one.command("season-totals", max_concurrent=5, timeout_s=1.0) is made
    assert (made.settings.max_concurrent, made.settings.timeout_s) == (5, 1.0)
    with pytest.raises(SettingsError, match="max_concurrent of contest-db/season-totals must be 5"):
        one.command("season-totals", max_concurrent=20)
    with pytest.raises(SettingsError, match="timeout_s of contest-db/season-totals must be 1"):
        Resource("contest-db", registry=registry, timeout_s=2.0).command("season-totals")
