"""What each scenario file says: its curve, its bounds, and what it asks of its target."""

import csv
import json
import os
import subprocess
import sys
from itertools import pairwise

import pytest

from groundfault.lab.load.options import OptionError, plan
from groundfault.lab.rates import RatesError, read_rates
from groundfault.lab.targets.expected import promised

VARIANTS = ("groundfault", "plain-503", "unprotected")


def test_every_scenario_file_is_among_these(names, files):
    assert {path.stem for path in files.glob("*.py")} == {*names, "gronk_spike", "replay"}


def test_it_is_named_as_its_file_and_says_what_to_expect_of_both_variants(load, name, scenario):
    assert scenario.name == name.replace("_", "-")
    said = load(name)["__doc__"]
    assert f"locust -f locustfiles/{name}.py --headless" in said
    for words in ("expect", "groundfault", "unprotected", "--host"):
        assert words in said


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_can_be_played_in_a_minute_with_every_variant(scenario, options, variant):
    made = plan(scenario, options(scenario, "--variant", variant))
    assert 20 <= made.total_s <= 60
    assert all(0 <= start < end <= made.total_s for start, end in made.spans.values())
    assert all(0 <= t < made.total_s for t, _, _ in made.timeline)


def test_it_promises_for_groundfault_and_only_shows_the_same_figures_for_others(scenario, options):
    judged, shown = (plan(scenario, options(scenario, "--variant", variant)).bounds for variant in VARIANTS[:2])
    assert judged
    assert all(bound.at_least is not None or bound.at_most is not None for bound in judged)
    assert all(bound.at_least is None and bound.at_most is None for bound in shown)
    assert {str(bound) for bound in judged} == {str(bound) for bound in shown}


def test_its_target_can_do_what_the_timeline_asks(scenario, options):
    parsed = options(scenario)
    asked = {action for _, action, _ in scenario.timeline(parsed) if action}
    assert asked <= set(scenario.target(parsed).actions)


def test_its_options_can_be_handed_to_workers_elsewhere(scenario, options):
    said = vars(options(scenario))
    assert json.loads(json.dumps(said)) == said


def test_its_load_is_small_enough_for_a_machine_of_two_cores(scenario, options):
    made = plan(scenario, options(scenario))
    shares = sum(lane.share for lane in made.lanes)
    assert made.curve.expected(0, made.total_s) * shares / made.total_s <= 80


@pytest.mark.parametrize(
    ("scenario_name", "words", "rate_at", "rps"),
    [
        ("trial_by_query", (), 0.0, 8.0),
        ("trial_by_query", (), 15.0, 40.0),
        ("trial_by_query", ("--base-rps=4", "--spike=10"), 15.0, 40.0),
        ("thundering_herd", ("--rps=5",), 20.0, 5.0),
        ("replica_failover", (), 9.0, 30.0),
        ("retry_storm", (), 20.0, 12.0),
        ("rolling_deploy", (), 20.0, 24.0),
        ("sick_node", (), 20.0, 35.0),
    ],
)
def test_the_rate_is_what_the_options_say(load, options, scenario_name, words, rate_at, rps):
    scenario = load(scenario_name)["SCENARIO"]
    assert scenario.curve(options(scenario, *words)).rate(rate_at) == pytest.approx(rps)


@pytest.mark.parametrize("kind", ["error", "slow", "handled", "plain"])
def test_the_sick_node_is_as_sick_as_asked_for(load, options, kind):
    scenario = load("sick_node")["SCENARIO"]
    fleet = scenario.target(options(scenario, f"--sickness={kind}"))
    assert fleet.servers[0].options["sickness"] == kind
    assert fleet.servers[0].instances == 7


def test_bounds_are_taken_off_where_nothing_is_promised(load, options):
    bounds = promised("goodput@spike>=0.7", "failed<=0.02", "failed<=0.5")
    scenario = load("sick_node")["SCENARIO"]
    assert list(bounds(options(scenario, "--variant=unprotected"))) == ["goodput@spike", "failed"]


# --- the Sunday -------------------------------------------------------------------------------------------------------


def test_the_day_has_kickoffs_touchdowns_and_a_quiet_morning(files):
    day = read_rates(files / "curves" / "nfl_sunday.csv")
    assert day.total_s == 14 * 3600

    def at(hour, minute=0):
        return day.rate((hour - 10) * 3600 + minute * 60)

    assert at(10, 30) < at(12) < at(12, 58)  # lineups lock at one
    assert at(16, 25) > at(15, 58)  # the late games
    assert at(20, 20) > at(19, 50)  # the night game
    touchdowns = [t0 for (t0, r0), (t1, r1) in pairwise(day.points) if r1 > 4 * r0 and t1 - t0 <= 15]
    assert len(touchdowns) == 13
    assert max(rps for t, rps in day.points if t < 3 * 3600) <= 12  # at scale 1: 0.6 of what the target can do


@pytest.mark.parametrize("scale", [1, 3, 10])
@pytest.mark.parametrize("speed", [60, 900])
def test_scale_multiplies_the_rates_and_speed_the_time(files, sunday, scale, speed):
    day = read_rates(files / "curves" / "nfl_sunday.csv")
    made = sunday(f"--scale={scale}", f"--speed={speed}")
    assert made.total_s == pytest.approx(day.total_s / speed)
    assert made.curve.rate(7200 / speed) == pytest.approx(day.rate(7200) * scale)
    assert len(made.timeline) == 13


@pytest.mark.parametrize("words", [("--scale=0.5",), ("--scale=11",), ("--speed=0",), ("--speed=nan",)])
def test_a_scale_or_speed_out_of_bounds_is_refused(sunday, words, capsys):
    with pytest.raises(SystemExit):
        sunday(*words)
    assert "must be" in capsys.readouterr().err


def test_any_other_day_can_be_played(sunday, tmp_path):
    file = tmp_path / "day.csv"
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([("t_seconds", "rps", "note"), (0, 2, "x"), (100, 8, ""), (200, 8, ""), (300, 0, "")])
    made = sunday(f"--curve={file}", "--scale=2", "--speed=10")
    assert made.total_s == 30
    assert made.curve.rate(10.0) == pytest.approx(16)
    assert made.spans["spike"] == (0.0, pytest.approx(20.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"day.csv:1: the first line must be t_seconds,rps"),
        ("time,rate\n0,1\n", r"day.csv:1: the first line must be t_seconds,rps, not 'time,rate'"),
        ("t_seconds,rps\n0,1\n5,many\n", r"day.csv:3: a line must be two numbers, not '5,many'"),
        ("t_seconds,rps\n0,1\n5\n", r"day.csv:3: a line must be two numbers"),
        ("t_seconds,rps\n0,1\n", r"day.csv: points must be at least 2, not 1"),
        ("t_seconds,rps\n0,1\n5,-2\n", r"day.csv: points\[1\]: the rate must be at least 0, not -2"),
        ("t_seconds,rps\n0,1\n5,nan\n", r"day.csv: points\[1\]: the rate"),
        ("t_seconds,rps\n0,1\n9,1\n3,1\n", r"day.csv: points\[2\]: the time must be at least 9, not 3"),
    ],
)
def test_a_file_without_a_curve_is_refused_with_its_place(sunday, tmp_path, text, message):
    file = tmp_path / "day.csv"
    file.write_text(text)
    with pytest.raises(RatesError, match=message):
        read_rates(file)
    with pytest.raises(OptionError, match="curve"):
        sunday(f"--curve={file}")


def test_a_day_that_is_not_there_is_refused(sunday, tmp_path):
    with pytest.raises(OptionError, match="No such file"):
        sunday(f"--curve={tmp_path / 'none.csv'}")


# --- on real processes ------------------------------------------------------------------------------------------------


@pytest.mark.e2e
@pytest.mark.parametrize(("variant", "saved"), [("groundfault", True), ("unprotected", False)])
def test_the_query_kills_the_database_unless_its_command_has_a_limit(files, tmp_path, variant, saved):
    file = tmp_path / "run.json"
    paths = os.pathsep.join([str(files.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    words = [
        "-f",
        files / "trial_by_query.py",
        "--headless",
        "--only-summary",
        "--scale-time=0.12",
        "--max-lag-ms=1000",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "locust", *map(str, words), "--variant", variant, "--run-file", str(file)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert file.exists(), done.stderr
    run = json.loads(file.read_text())
    figures = {check["measure"]: check["value"] for check in run["checks"]}
    assert (figures["failed@spike"] <= 0.05) is saved
    assert (figures["success.innocent@spike"] >= 0.9) is saved
    assert [service["name"] for service in run["services"]] == ["contests"]
    assert bool(run["edges"]) is saved  # there are no commands where nothing protects
