"""``groundfault plan``: what it prints and writes, and how it ends."""

import csv
import json

import pytest

from groundfault.cli import main
from groundfault.lab.curves import Points
from groundfault.lab.planning.checking import Spike, checked, worst_moment
from groundfault.lab.planning.demand import Fleet, PlanError, Service
from groundfault.lab.planning.reacting import Autoscaler
from groundfault.lab.planning.steps import planned

_CURVE = Points(((0.0, 20.0), (1200.0, 20.0), (1202.0, 120.0), (1260.0, 120.0), (1262.0, 20.0), (2400.0, 20.0)))
_CAPACITY = """
start_s = 60
warm_s = 0
step_s = 60
change_worth_h = 0
[services.saber]
rps_per_instance = 20
[services.topps]
rps_per_instance = 50
share = 1.5
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "day.csv").write_text("t,rps\n" + "".join(f"{t},{rps}\n" for t, rps in _CURVE.points))
    (tmp_path / "capacity.toml").write_text(_CAPACITY)
    return [
        "plan",
        "--curve",
        str(tmp_path / "day.csv"),
        "--capacity",
        str(tmp_path / "capacity.toml"),
        "--out",
        str(tmp_path / "out"),
    ]


def _services():
    return (
        Service(name="saber", rps_per_instance=20.0, start_s=60.0, warm_s=0.0),
        Service(name="topps", rps_per_instance=50.0, share=1.5, start_s=60.0, warm_s=20.0),
    )


@pytest.fixture(scope="module")
def fleets():
    fleet = Fleet(services=_services(), step_s=60.0)
    plans = [planned(_CURVE, each, fleet) for each in fleet.services]
    scaler = Autoscaler()
    at = worst_moment(_CURVE, fleet.services, scaler)
    return checked(_CURVE, plans, Spike(at=at, factor=1.2), scaler)


def test_the_worst_moment_is_where_the_curve_outruns_the_reactive_fleet():
    assert 1200 <= worst_moment(_CURVE, _services(), Autoscaler()) <= 1262


def test_the_plan_serves_the_spike_that_the_reactive_fleet_does_not(fleets):
    assert fleets.possible == 1
    assert fleets.served["plan"] >= 0.9
    assert fleets.served["reactive"] <= 0.6
    assert fleets.behind_s >= 50


def test_both_fleets_meet_the_same_arrivals_and_begin_where_they_were(fleets):
    assert fleets.plan.stream("users").due == fleets.reactive.stream("users").due
    ours = next(each for each in fleets.plan.services if each.name == "saber")
    theirs = next(each for each in fleets.reactive.services if each.name == "saber")
    assert ours.instances[0] == 9
    assert theirs.instances[0] == 2
    assert max(theirs.instances) > 2


def test_a_spike_that_is_not_in_the_curve_is_refused():
    plans = [planned(_CURVE, each, Fleet(services=_services())) for each in _services()]
    with pytest.raises(PlanError, match="the spike must be at a second from 0 to 2400 of the curve, not 2400"):
        checked(_CURVE, plans, Spike(at=2400.0, factor=2.0), Autoscaler())


def test_the_command_prints_the_changes_and_writes_them(files, tmp_path, capsys):
    assert main([*files, "--no-check"]) == 0
    printed = capsys.readouterr().out
    with (tmp_path / "out" / "plan.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    said = json.loads((tmp_path / "out" / "plan.json").read_text())

    assert "The plan holds." in printed
    assert [row["service"] for row in rows[:2]] == ["saber", "topps"]
    assert {row["order_at_s"] for row in rows if row["service"] == "saber" and row["instances"] == "9"} == {"240"}
    assert said["services"]["saber"]["most_needed"] == 9
    assert (tmp_path / "out" / "plan.svg").exists()


def test_a_plan_that_may_not_have_enough_does_not_hold(files, tmp_path, capsys):
    (tmp_path / "capacity.toml").write_text("[services.saber]\nrps_per_instance = 20\nmost = 3\n")

    assert main([*files, "--no-check"]) == 1
    assert "most is 3, and 6 more are needed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--capacity", "nowhere.toml"], "nowhere.toml"),
        (["--curve", "nowhere.csv"], "nowhere.csv"),
        (["--measured", "nowhere.json"], "nowhere.json"),
        (["--at", "noon"], "--at must be HH:MM or seconds, not 'noon'"),
        (["--at", "9000"], "the spike must be at a second from 0 to 2400"),
    ],
)
def test_bad_input_is_refused_in_one_line(files, more, said, capsys):
    assert main([*files, *more]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_without_any_capacity_it_says_what_to_give(files, capsys):
    assert main([*files[:3], *files[5:]]) == 2
    assert "--capacity or --measured must be given" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["0.5", "x", "2000"])
def test_a_spike_of_no_sense_is_refused(files, word, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*files, "--spike", word])
    assert caught.value.code == 2
    assert "must be a number from 1 to 1000" in capsys.readouterr().err
