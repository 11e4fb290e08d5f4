"""What a store says lies over what code declared: on commands and shedders alone, and for a whole document at once."""

import pytest

from groundfault import Shedder
from groundfault.breaker import BreakerSettings, Registry, Resource
from groundfault.errors import BulkheadFullError, SettingsError
from groundfault.events import SettingsChanged, internal_errors
from groundfault.settings.store import UNSET
from groundfault.testing import force_open, isolated_registry
from groundfault.vocabulary import Mode, State


@pytest.fixture
def command(clock, sink):
    return Resource("saber", registry=Registry(clock=clock), sinks=[sink]).command("c", timeout_s=1.0)


# --- one component ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["command", "shedder"])
def test_an_overlay_lies_over_what_is_declared_and_tune_changes_what_is_below(kind, request):
    target = request.getfixturevalue(kind)
    first, second = ("timeout_s", "max_concurrent") if kind == "command" else ("deadline_s", "max_concurrency")
    declared = getattr(target.settings, first)
    assert getattr(target.overlay({first: 0.5}), first) == 0.5
    assert getattr(target.tune(**{first: 2.0, second: 7}), first) == 0.5
    assert (getattr(target.settings, second), getattr(target.declared, first)) == (7, 2.0)
    assert target.overlay_in_force == {first: 0.5}
    assert getattr(target.overlay({}), first) == 2.0
    assert target.settings == target.declared
    assert not target.overlay_in_force
    assert declared == 1.0


@pytest.mark.parametrize("kind", ["command", "shedder"])
def test_an_overlay_takes_the_place_of_the_one_before(kind, request):
    target = request.getfixturevalue(kind)
    first, second = ("timeout_s", "max_concurrent") if kind == "command" else ("deadline_s", "max_concurrency")
    target.overlay({first: 0.5})
    target.overlay({second: 3})
    assert (getattr(target.settings, first), getattr(target.settings, second)) == (1.0, 3)


@pytest.mark.parametrize("kind", ["command", "shedder"])
def test_an_overlay_that_makes_no_sense_changes_nothing(kind, request, sink):
    target = request.getfixturevalue(kind)
    before = target.settings
    for nonsense in ({"unknown": 1}, {"mode": "sideways"}):
        with pytest.raises(SettingsError):
            target.overlay(nonsense)
    assert target.settings is before
    assert not target.overlay_in_force
    assert sink.of(SettingsChanged) == []


def test_tuning_below_an_overlay_that_does_not_fit_is_refused(command):
    command.overlay({"max_sleep_window_s": 8.0})
    before = command.settings
    with pytest.raises(SettingsError, match="max_sleep_window_s must be at least sleep_window_s, 9, not 8"):
        command.tune(sleep_window_s=9.0)
    assert command.settings is before


def test_each_swap_of_what_is_in_force_is_said_once(command, sink):
    command.overlay({"timeout_s": 0.5})
    command.overlay({"timeout_s": 0.5})
    command.tune(timeout_s=3.0)
    command.overlay({})
    assert [(event.old, event.new) for event in sink.of(SettingsChanged)] == [
        ({"timeout_s": 1.0}, {"timeout_s": 0.5}),
        ({"timeout_s": 0.5}, {"timeout_s": 3.0}),
    ]


def test_windows_circuit_and_calls_in_flight_outlive_an_overlay(command):
    for _ in range(20):
        with pytest.raises(ZeroDivisionError):
            command.call(lambda: 1 // 0)
    assert command.snapshot().state is State.OPEN
    command.overlay({"failure_threshold": 0.9, "max_concurrent": 3, "sleep_window_s": 30.0})
    assert command.snapshot().state is State.OPEN
    assert sum(command.snapshot().counts.values()) == 20


def test_a_lower_limit_is_in_force_for_the_next_call(command):
    with command.attempt():
        command.overlay({"max_concurrent": 1})
        with pytest.raises(BulkheadFullError):
            command.call(int)
        command.overlay({})
        assert command.call(int) == 0


def test_the_kill_switch_is_king(monkeypatch, sink):
    monkeypatch.setenv("GROUNDFAULT_DISABLED", "1")
    command = Resource("saber", registry=Registry(), sinks=[sink]).command("c")
    shedder = Shedder(service="topps", sinks=[sink])
    command.overlay({"mode": "force_open", "max_concurrent": 1})
    shedder.overlay({"mode": "enforce", "max_concurrency": 1})
    with command.attempt():
        assert command.call(int) == 0
    assert shedder.bypassed
    assert shedder.snapshot().mode is Mode.OFF


def test_a_forced_command_goes_back_to_what_was_declared(command):
    command.overlay({"timeout_s": 0.5})
    with force_open(command):
        assert command.settings.mode is Mode.FORCE_OPEN
    assert command.declared == BreakerSettings(timeout_s=1.0)
    assert command.settings.timeout_s == 0.5


def test_an_isolated_registry_keeps_both_layers():
    command = Resource("isolated-live").command("c", timeout_s=1.0)
    command.overlay({"timeout_s": 0.5})
    with isolated_registry():
        assert (command.declared.timeout_s, command.settings.timeout_s) == (1.0, 0.5)
        assert command.overlay({}).timeout_s == 1.0
    assert command.settings.timeout_s == 0.5
    command.overlay({})


# --- births -----------------------------------------------------------------------------------------------------------


def test_a_command_made_later_has_its_overlay_before_anybody_sees_it(driven):
    driven.set("*/contest-db", "timeout_s", 0.5)
    driven.look()
    made = driven.resource.command("entrants", timeout_s=2.0, max_concurrent=4)
    assert (made.settings.timeout_s, made.declared.timeout_s, made.settings.max_concurrent) == (0.5, 2.0, 4)
    assert driven.changes == [("contest-db/entrants", {"timeout_s": 0.5})]
    assert driven.resource.command("untouched").settings.timeout_s == 0.5


def test_asking_a_second_time_is_held_against_what_was_declared(driven):
    made = driven.resource.command("entrants", timeout_s=2.0)
    driven.set("*", "timeout_s", 0.5)
    driven.look()
    assert driven.resource.command("entrants", timeout_s=2.0) is made
    with pytest.raises(SettingsError, match=r"timeout_s of contest-db/entrants must be 2.0"):
        driven.resource.command("entrants", timeout_s=0.5)


def test_a_command_that_a_document_does_not_fit_is_born_as_declared_and_that_is_said_once(driven, caplog):
    driven.set("*", "max_sleep_window_s", 8.0)
    driven.look()
    made = driven.resource.command("entrants", sleep_window_s=9.0)
    assert made.settings == made.declared
    assert list(driven.live.status().misfits) == ["contest-db/entrants"]
    driven.live._overlays.renew()
    (record,) = caplog.records
    assert "version 2 of the live settings does not fit contest-db/entrants" in record.getMessage()


def test_an_error_of_ours_at_a_birth_leaves_the_command_as_declared(clock):
    registry = Registry(clock=clock)
    registry.overlay_with(lambda *_: 1 // 0)
    assert Resource("saber", registry=registry).command("c", timeout_s=1.0).settings.timeout_s == 1.0
    assert internal_errors() == {"live settings": 1}


def test_what_is_beyond_the_limit_goes_on_refusing_nothing(drive, clock):
    driven = drive(registry=Registry(limit=1, clock=clock))
    driven.resource.command("a")
    beyond = driven.resource.command("b")
    driven.set("*", "timeout_s", 0.5)
    driven.look()
    assert (beyond.settings.mode, beyond.settings.timeout_s) == (Mode.SHADOW, None)


def test_a_shedder_made_later_has_its_overlay_at_once(drive, sink):
    driven = drive(shedders=None)
    driven.set("topps", "server.deadline_s", 0.5)
    driven.look()
    assert Shedder(service="topps", sinks=[sink]).settings.deadline_s == 0.5
    assert Shedder(service="other", sinks=[sink]).settings.deadline_s == 1.0


def test_the_shedders_name_the_service_where_nothing_else_does(drive, monkeypatch, sink):
    monkeypatch.delenv("GROUNDFAULT_SERVICE", raising=False)
    shedder = Shedder(service="grouper", sinks=[sink])
    driven = drive(service=None, shedders=[shedder])
    made = driven.resource.command("entrants")
    driven.set("grouper/contest-db", "timeout_s", 0.5)
    driven.look()
    assert driven.live.status().service == "grouper"
    assert made.settings.timeout_s == 0.5


def test_the_environment_names_the_service_before_the_shedders_do(drive, monkeypatch, shedder):
    monkeypatch.setenv("GROUNDFAULT_SERVICE", "grouper")
    assert drive(service=None, shedders=[shedder]).live.status().service == "grouper"


def test_a_service_that_gets_its_name_later_gets_its_settings_then(drive, monkeypatch, sink):
    monkeypatch.delenv("GROUNDFAULT_SERVICE", raising=False)
    shedders = []
    driven = drive(service=None, shedders=())
    driven.live._overlays._shedders = shedders
    made = driven.resource.command("entrants")
    driven.set("grouper/contest-db", "timeout_s", 0.5)
    driven.look()
    assert (driven.live.status().service, made.settings.timeout_s) == ("service", None)
    shedders.append(Shedder(service="grouper", sinks=[sink]))
    driven.tick()
    assert made.settings.timeout_s == 0.5


# --- a whole document -------------------------------------------------------------------------------------------------


def test_a_document_is_in_force_everywhere_and_unset_returns_to_what_was_declared(drive, shedder):
    driven = drive(shedders=[shedder])
    made = driven.resource.command("entrants", timeout_s=2.0)
    driven.set("*/contest-db", "timeout_s", 0.5)
    driven.set("*", "server.deadline_s", 0.8)
    driven.look()
    assert (made.settings.timeout_s, shedder.settings.deadline_s) == (0.5, 0.8)
    driven.set("*/contest-db", "timeout_s", UNSET)
    driven.set("*", "server.deadline_s", UNSET)
    driven.look()
    assert (made.settings, shedder.settings) == (made.declared, shedder.declared)


@pytest.mark.parametrize("bad", ["first", "last", "shedder"])
def test_a_document_that_does_not_fit_one_is_laid_over_nobody(drive, shedder, sink, monkeypatch, bad):
    driven = drive(shedders=[shedder])
    made = [driven.resource.command(name) for name in ("first", "middle", "last")]
    if bad == "shedder":
        monkeypatch.setattr(shedder, "_declared", Refusing())
    else:
        driven.registry.get("contest-db", bad).tune(sleep_window_s=9.0)
    sink.events.clear()
    driven.set("*", "server.deadline_s", 0.8)
    driven.set("*", "max_sleep_window_s", 8.0)
    driven.look()
    assert [command.overlay_in_force for command in made] == [{}, {}, {}]
    assert shedder.settings.deadline_s == 1.0
    assert driven.changes == []
    assert [status for status, _ in driven.said] == ["rejected"]
    component = "topps" if bad == "shedder" else f"contest-db/{bad}"
    assert f"does not fit {component}" in driven.live.status().error
    monkeypatch.undo()


class Refusing:
    """Settings that nothing fits."""

    service = "topps"

    def changed(self, changes):
        if changes:
            raise SettingsError("nothing fits")
        return self


def test_what_does_not_fit_is_named_with_all_that_does_not_fit_together(driven):
    driven.resource.command("entrants")
    driven.set("*", "max_sleep_window_s", 8.0)
    driven.set("topps", "sleep_window_s", 9.0)
    driven.look()
    assert driven.live.status().error.startswith(
        "*:max_sleep_window_s with topps:sleep_window_s does not fit contest-db/entrants: "
        "max_sleep_window_s must be at least sleep_window_s, 9, not 8"
    )


def test_a_document_that_will_not_fit_once_an_override_has_ended_is_rejected_now(driven):
    driven.resource.command("entrants", max_sleep_window_s=8.0)
    driven.set("*", "max_sleep_window_s", 20.0, driven.wall.now + 60)
    driven.set("*", "sleep_window_s", 9.0)
    driven.look()
    assert "*:sleep_window_s does not fit contest-db/entrants" in driven.live.status().error


def test_an_override_ends_on_time_though_the_store_is_away(driven):
    made = driven.resource.command("entrants", max_concurrent=20)
    driven.set("*", "max_concurrent", 5, driven.wall.now + 60)
    driven.look()
    assert made.settings.max_concurrent == 5
    driven.wall.advance(59.9)
    driven.tick()
    assert made.settings.max_concurrent == 5
    assert 0 < driven.live._until_next() <= 0.1001
    driven.wall.advance(0.1)
    driven.tick()
    assert made.settings.max_concurrent == 20
    assert driven.live._until_next() == 1.0


def test_an_override_comes_back_when_the_wall_clock_is_set_back(driven):
    made = driven.resource.command("entrants", max_concurrent=20)
    driven.set("*", "max_concurrent", 5, driven.wall.now + 60)
    driven.look()
    driven.wall.advance(100)
    driven.tick()
    assert made.settings.max_concurrent == 20
    driven.wall.advance(-90)
    driven.tick()
    assert made.settings.max_concurrent == 5


def test_scopes_that_no_command_is_in_can_be_asked_for(driven):
    driven.resource.command("entrants")
    driven.set("topps/contest-bd", "timeout_s", 1.0)
    driven.set("topps/contest-db", "timeout_s", 1.0)
    driven.look()
    assert driven.live.unmatched() == ("topps/contest-bd",)


def test_several_registries_are_followed(drive, clock, sink):
    registries = [Registry(clock=clock), Registry(clock=clock)]
    driven = drive()
    driven.live._overlays._registries = tuple(registries)
    driven.live._overlays.begin()
    made = [Resource("r", registry=each, sinks=[sink]).command("c") for each in registries]
    driven.set("*", "timeout_s", 0.5)
    driven.look()
    assert [command.settings.timeout_s for command in made] == [0.5, 0.5]
