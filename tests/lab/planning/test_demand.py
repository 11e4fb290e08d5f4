"""What a plan is made from, and that whatever makes no sense is refused with its place, value and bound."""

import pytest

from groundfault.lab.planning.demand import Measured, PlanError, fleet_of, measured, read_curve
from groundfault.lab.runs.record import Run, Service, Stream


@pytest.mark.parametrize(
    ("text", "points", "origin"),
    [
        ("t,rps\n0,10\n60,20\n", ((0.0, 10.0), (60.0, 20.0)), 0.0),
        ("100,10\n\n160,20,GET /=1\n", ((0.0, 10.0), (60.0, 20.0)), 100.0),
        ("# a Sunday\n12:00,10\n13:05:30,20\n", ((0.0, 10.0), (3930.0, 20.0)), 43_200.0),
        ("\ufefft,rps\n2025-09-07T12:00:00,1\n2025-09-08T12:00:00,2\n", ((0.0, 1.0), (86_400.0, 2.0)), 43_200.0),
    ],
)
def test_a_curve_is_read_whichever_way_its_times_are_written(tmp_path, text, points, origin):
    path = tmp_path / "day.csv"
    path.write_text(text, encoding="utf-8")

    curve, start = read_curve(path)
    assert curve.points == points
    assert start == origin


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must have at least 2 lines t,rps, not 0"),
        ("t,rps\n0,1\n", "must have at least 2 lines t,rps, not 1"),
        ("0,1\n60\n", ":2: there must be a time and a rate, not '60'"),
        ("0,1\nsoon,2\n", ":2: t must be seconds, HH:MM or a date with a time, not 'soon'"),
        ("60,1\n0,2\n", ":2: t must be at least 60, the one before it, not 0"),
        ("0,1\n60,-2\n", ":2: rps must be a number from 0 to 1e+08, not '-2'"),
        ("0,1\n60,nan\n", ":2: rps must be a number from 0 to 1e+08, not 'nan'"),
        ("0,1\n0,2\n", "t must span above 0 and at most 604800 s, not 0"),
        ("0,0\n60,0\n", "rps must be above 0 at least once"),
        ("12:00,1\n12:61,2\n", ":2: t must be seconds"),
    ],
)
def test_a_curve_that_makes_no_sense_is_refused_with_its_line(tmp_path, text, said):
    path = tmp_path / "day.csv"
    path.write_text(text)

    with pytest.raises(PlanError) as caught:
        read_curve(path)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            Measured(20.0, None),
            "services.saber.share must be given: in the run there was no second in which all was well",
        ),
        (Measured(None, 0.5), "services.saber.rps_per_instance must be given: in the run it was never busy enough"),
    ],
)
def test_what_a_run_could_not_tell_is_asked_for(found, said):
    with pytest.raises(PlanError) as caught:
        fleet_of({"services": {"saber": {}}}, {"saber": found})
    assert said in str(caught.value)


def test_what_all_services_have_in_common_is_said_once():
    said = {
        "headroom": 0.4,
        "start_s": 10,
        "services": {"saber": {"rps_per_instance": 5}, "topps": {"rps_per_instance": 50, "headroom": 0.1, "share": 2}},
    }
    saber, topps = fleet_of(said, {}).services

    assert (saber.headroom, saber.start_s, saber.share) == (0.4, 10, 1.0)
    assert (topps.headroom, topps.start_s, topps.share) == (0.1, 10, 2)


def test_a_run_fills_in_what_is_left_out():
    found = {"saber": Measured(20.0, 0.5), "topps": Measured(99.0, 1.0)}
    saber, topps = fleet_of({"services": {"saber": {"share": 0.25}}}, found).services

    assert (saber.name, saber.rps_per_instance, saber.share) == ("saber", 20.0, 0.25)
    assert (topps.name, topps.rps_per_instance) == ("topps", 99.0)


def _saber(**more):
    return {"services": {"saber": {"rps_per_instance": 1, **more}}}


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({}, "services must hold one service at least"),
        ({"services": {"saber": {}}}, "services.saber.rps_per_instance must be given: a number above 0"),
        ({"services": {"saber": {"rps_per_instance": 0}}}, "services.saber.rps_per_instance must be a number above 0"),
        (_saber(share=-1), "services.saber.share must be a number above 0"),
        (_saber(color=1), "services.saber.color is unknown; there are"),
        (_saber(least=3, most=2), "services.saber.most must be at least least, 3, not 2"),
        ({"headroom": 1.0, **_saber()}, "headroom must be a number of at least 0 and at most 0.9, not 1.0"),
        ({"step_s": 0, **_saber()}, "step_s must be a number of at least 1"),
        ({"services": {"a b": {"rps_per_instance": 1}}}, "services.a b must have a name that matches"),
        ({"services": 3}, "services must be a table of tables, not 3"),
    ],
)
def test_a_fleet_that_makes_no_sense_is_refused_with_the_place(said, error):
    with pytest.raises(PlanError) as caught:
        fleet_of(said, {})
    assert error in str(caught.value)


def test_capacity_is_told_by_seconds_in_which_a_service_was_busy():
    nothing = dict.fromkeys(("arrived", "late", "failed", "unsent"), [0] * 4)
    percentiles = dict.fromkeys(("p50_ms", "p99_ms"), [None] * 4)
    stream = Stream(
        name="fan",
        due=[100] * 4,
        sent=[100] * 4,
        good=[100, 100, 100, 20],
        shed=[0, 0, 0, 80],
        **nothing,
        **percentiles,
    )
    busy = Service(
        name="saber",
        arrived=[50, 50, 50, 10],  # in the last second most was refused on the way, and tells nothing of its share
        shed=[0] * 4,
        answered=[40, 50, 60, 1],
        busy=[0.8, 1.0, None, 0.1],
        instances=[2] * 4,
    )
    idle = Service(
        name="topps", arrived=[100] * 4, shed=[0] * 4, answered=[100] * 4, busy=[0.01] * 4, instances=[1] * 4
    )
    run = Run(
        name="x", title="x", source="simulator", seconds=4, deadline_s=1.0, streams=[stream], services=[busy, idle]
    )

    assert measured(run) == {"saber": Measured(25.0, 0.5), "topps": Measured(None, 1.0)}
