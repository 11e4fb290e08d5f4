"""The pytest plugin, in test runs of its own."""

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from groundfault.breaker import Resource, registry
from groundfault.sinks import default_sinks

pytest_plugins = ["pytester"]

MODULE = "groundfault.integrations.pytest"
ROOT = Path(__file__).parents[2]


def declared():
    return [found.name for found in entry_points(group="pytest11") if found.value == MODULE]


@pytest.fixture
def run(pytester):
    """Return a function that writes a test file and runs it in this process, with the plugin."""
    plugin = [] if declared() else ["-p", MODULE]

    def run(text, *arguments):
        pytester.makepyfile(text)
        return pytester.runpytest_inprocess(*plugin, *arguments)

    return run


@pytest.fixture(autouse=True)
def _nothing_stays():
    """Each run leaves the sinks as they were, and in the registry what its modules made at import: ``app-...``."""
    made = vars(registry())["_made"]
    commands, sinks = set(made), default_sinks().changes
    yield
    left = set(made) - commands
    for key in left:
        del made[key]
    assert [resource for resource, _ in left if not resource.startswith("app-")] == []
    assert default_sinks().changes == sinks


def test_the_installed_package_brings_the_plugin():
    if not declared():
        pytest.skip("the installed distribution is older than the plugin: pip install --editable . again")
    assert declared() == ["groundfault"]


def test_its_fixtures_are_listed_with_what_they_do(run):
    result = run("", "--fixtures")
    result.stdout.re_match_lines(
        [
            r"groundfault .*",
            r"groundfault_clock .*",
            r" +Return a clock that stands at 1000\.0 s until ``advance`` moves it\.",
            r"groundfault_events .*",
            r"groundfault_registry .*",
        ]
    )


def test_what_is_forced_lasts_as_long_as_the_test(run):
    run(
        """
        import pytest
        from groundfault import CircuitOpenError, Outcome, Reason, Resource, ShedError
        from groundfault.events import CommandDone
        from groundfault.integrations.pytest import GroundFaultFixture

        db = Resource("app-plugin")

        @pytest.fixture
        def rows(groundfault):
            return db.command("rows", timeout_s=1.0)

        def test_open(groundfault: GroundFaultFixture, rows):
            groundfault.force_open(rows)
            with pytest.raises(CircuitOpenError):
                rows.call(int)

        def test_nothing_is_forced(groundfault, rows):
            assert rows.call(int) == 0
            assert rows.snapshot().totals[Outcome.CIRCUIT_OPEN] == 0

        def test_shed(groundfault, rows):
            groundfault.force_shed(db, reason=Reason.DRAINING, origin="rows-db")
            with pytest.raises(ShedError, match="draining"):
                rows.call(int)
            (event,) = groundfault.events.of(CommandDone)
            assert (event.reason, event.origin) == (Reason.DRAINING, "rows-db")

        def test_slow_and_failing(groundfault, rows):
            groundfault.slow(rows, 2.0)
            assert rows.call(int) == 0
            groundfault.fail(rows, ConnectionError)
            with pytest.raises(ConnectionError):
                rows.call(int)
            assert [event.outcome for event in groundfault.events.of(CommandDone)] == ["timeout", "failure"]
            assert groundfault.registry.get("app-plugin", "rows") is rows

        def test_still_nothing_is_forced(groundfault, rows):
            assert rows.call(int) == 0
            assert rows.snapshot().totals[Outcome.SUCCESS] == 1
        """
    ).assert_outcomes(passed=5)


def test_no_state_leaks_between_tests(run):
    run(
        """
        import pytest
        from groundfault import Outcome, Resource, State

        command = Resource("app-leaky").command("rows", minimum_volume_per_s=0.1)
        guarded = command(lambda: "rows")

        @pytest.mark.parametrize("time", range(3))
        def test_trip(groundfault_registry, time):
            assert command.snapshot().state is State.CLOSED
            assert guarded() == "rows"
            assert groundfault_registry.get("app-leaky", "rows") is command
            command.begin().settle(Outcome.FAILURE)
            assert command.snapshot().state is State.OPEN

        @pytest.mark.parametrize("timeout_s", [1.0, 2.0])
        def test_names_are_free_again(groundfault_registry, timeout_s):
            Resource("other-db").command("rows", timeout_s=timeout_s)
        """
    ).assert_outcomes(passed=5)


@pytest.mark.parametrize(
    "order", ["groundfault_clock, groundfault_registry", "groundfault_registry, groundfault_clock"]
)
def test_commands_run_on_the_clock_of_a_test_that_asks_for_both(run, order):
    run(
        f"""
        from groundfault import Outcome, Resource, State

        command = Resource("app-clocked").command("rows", minimum_volume_per_s=0.1, sleep_window_s=5.0)

        def test_it_recovers_after_its_sleep_window({order}):
            assert groundfault_clock() == 1000.0
            for each in (command, Resource("new-db").command("rows", minimum_volume_per_s=0.1)):
                each.begin().settle(Outcome.FAILURE)
                assert each.snapshot().state is State.OPEN
                groundfault_clock.advance(5.0)
                assert each.call(int) == 0
                assert each.snapshot().state is State.CLOSED

        def test_the_clock_alone_changes_nothing(groundfault_clock):
            before = command.snapshot()
            groundfault_clock.advance(1e6)
            assert command.snapshot() == before
        """
    ).assert_outcomes(passed=2)


def test_a_whole_suite_is_isolated_by_one_line(run, pytester):
    pytester.makeini("[pytest]\nusefixtures = groundfault_registry")
    run(
        """
        import pytest
        from groundfault import Outcome, Resource, State

        command = Resource("app-suite").command("rows", minimum_volume_per_s=0.1)

        @pytest.mark.parametrize("time", range(2))
        def test_trip(time):
            command.begin().settle(Outcome.FAILURE)
            assert command.snapshot().state is State.OPEN

        class TestClass:
            def test_it_is_closed(self):
                assert command.snapshot().state is State.CLOSED
        """
    ).assert_outcomes(passed=3)


def test_events_are_recorded_beside_the_sinks_in_use(run):
    seen = []
    default_sinks().add(seen.append)
    before = default_sinks().changes
    run(
        """
        from groundfault import Resource, default_sinks
        from groundfault.events import CommandDone

        def test_recorded(groundfault_registry, groundfault_events):
            Resource("seen-db").command("rows").call(int)
            Resource("quiet-db", sinks=[]).command("rows").call(int)
            assert [event.resource for event in groundfault_events.of(CommandDone)] == ["seen-db"]
            default_sinks().use()
        """
    ).assert_outcomes(passed=1)
    assert [event.resource for event in seen] == ["seen-db"]
    assert default_sinks().changes == before
    default_sinks().use(*before[:-1])


def test_asynchronous_tests_are_served_as_well(run):
    run(
        """
        import pytest
        from groundfault import CommandTimeoutError, Resource
        from groundfault.testing import force_shed
        from groundfault import ShedError

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        async def answer():
            return "rows"

        @pytest.mark.anyio
        async def test_slow(groundfault):
            command = Resource("async-db").command("rows", timeout_s=0.5)
            groundfault.slow(command, 60.0)
            with pytest.raises(CommandTimeoutError):
                await command.acall(answer)
            with force_shed(command):
                with pytest.raises(CommandTimeoutError):
                    await command.acall(answer)
        """,
        "-p",
        "anyio",
    ).assert_outcomes(passed=1)


def test_a_failing_test_leaves_nothing_behind(run):
    run(
        """
        from groundfault import Resource

        command = Resource("app-failing").command("rows", fallback="cached")

        def test_fails(groundfault):
            groundfault.force_shed(command)
            groundfault.force_open(command)
            assert command.call(int) == 0

        def test_passes():
            assert command.call(int) == 0
        """
    ).assert_outcomes(passed=1, failed=1)
    assert Resource("app-failing").command("rows", fallback="cached").call(int) == 0


LOOK = f"""
import json, sys, pytest
before = set(sys.modules)
import {MODULE}
loaded = set(sys.modules) - before
print(json.dumps({{
    "foreign": sorted({{name.partition(".")[0] for name in loaded}} - set(sys.stdlib_module_names) - {{"groundfault"}}),
    "ours": sorted(name for name in loaded if name.startswith("groundfault.")),
}}))
"""


@pytest.mark.e2e
def test_a_run_that_uses_no_fixture_loads_no_test_tools_and_no_library():
    seen = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert seen.returncode == 0, seen.stderr
    loaded = json.loads(seen.stdout)
    assert loaded["foreign"] == []
    assert [name for name in loaded["ours"] if "testing" in name] == []
    assert [name for name in loaded["ours"] if name.startswith("groundfault.integrations.")] == [MODULE]
