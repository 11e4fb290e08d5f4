"""The plan: what of a file is refused, with place and bound; and what of it is sent when."""

import json
from collections import Counter

import pytest

from groundfault.lab.load.schedule import drawn
from groundfault.lab.replay.plan import Plan, PlanError
from groundfault.lab.replay.traffic import Seconds, traffic_of

GOOD = {
    "format": "groundfault-traffic-plan",
    "version": 1,
    "start": "2026-11-22T17:59:00+01:00",
    "rps": [1, 2.5],
    "templates": [{"method": "GET", "path": "/lobby"}],
    "mix": [[[0, 3]]],
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "groundfault-run"}, '"format" must be "groundfault-traffic-plan"'),
        ({"version": 2}, "version must be 1, not 2"),
        ({"rps": []}, "rps must be a list of 1 to 604800 values, not 0"),
        ({"rps": "1"}, "rps must be a list of 1 to 604800 values, not str"),
        ({"rps": [1, -1]}, "rps[1] must be a number from 0 to 1e+07, not -1"),
        ({"rps": [True]}, "rps[0] must be a number from 0"),
        ({"rps": [10**400]}, "rps[0] must be a number from 0"),
        ({"rps": [1e300]}, "rps[0] must be a number from 0"),
        ({"start": "yesterday"}, "start must be null or a date with time and zone"),
        ({"start": "2026-11-22T18:00:00"}, "start must be null or a date with time and zone"),
        ({"start": "9999-12-31T23:59:59+00:00"}, "start must be null or a date with time and zone"),
        ({"start": 7}, "start must be null or a date with time and zone"),
        ({"seconds": 3}, "seconds must be 2"),
        ({"templates": []}, "templates must be a list of 1 to 200 values, not 0"),
        ({"templates": [7]}, "templates[0] must be an object with method and path"),
        ({"templates": [{"method": "BREW", "path": "/"}]}, "templates[0].method must be one of"),
        ({"templates": [{"method": "GET", "path": "lobby"}]}, "templates[0].path must begin with /"),
        ({"templates": [{"method": "GET", "path": "/a b"}]}, "templates[0].path must begin with /"),
        ({"templates": [{"method": "GET", "path": "/a\r\nX: y"}]}, "templates[0].path must begin with /"),
        ({"templates": [{"method": "GET", "path": "/a" * 600}]}, "at most 1000 characters"),
        ({"templates": [{"method": "GET", "path": "//evil.example"}]}, "templates[0].path must begin with /"),
        ({"templates": [{"method": "GET", "path": "/{x}"}]}, "templates[0].path must begin with /"),
        ({"mix": []}, "mix must be a list of 1 values, not 0"),
        ({"mix": [7]}, "mix[0] must be a list of [template, weight]"),
        ({"mix": [[[0]]]}, "mix[0][0] must be [template, weight]"),
        ({"mix": [[[1, 1]]]}, "mix[0][0]: the template must be a whole number from 0 to 0, not 1"),
        ({"mix": [[[0, 1], [0, 5]]]}, "mix[0][1]: the template 0 is there twice"),
        ({"mix": [[[0, -1]]]}, "mix[0][0]: the weight must be a number from 0"),
        ({"statuses": {"200": "many"}}, "statuses.200 must be a number"),
        ({"other": None}, "other must be a number"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_with_place_and_bound(tmp_path, change, words):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(PlanError) as caught:
        Plan.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1", "\0\0", "[" * 100_000, "[]", "7"])
def test_a_file_that_is_no_plan_is_named(tmp_path, text):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(PlanError, match="plan"):
        Plan.load(path)
    with pytest.raises(PlanError, match="No such file"):
        Plan.load(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("since", "for_s", "window"),
    [
        (None, None, (0, 7200)),
        ("18:00", 600, (60, 660)),
        ("18:00:30", None, (90, 7200)),
        ("2026-11-22T18:00", 60, (60, 120)),
        ("2026-11-22T17:00:00+00:00", 60, (60, 120)),
        ("90s", 1e6, (90, 7200)),
    ],
)
def test_a_window_may_be_named_in_several_ways(plan_file, since, for_s, window):
    plan = Plan.load(plan_file([1] * 7200, start="2026-11-22T17:59:00+01:00"))
    assert plan.window(since, for_s) == window


@pytest.mark.parametrize(
    "since", ["17:58", "20:00", "2026-11-21T18:00", "9999s", "soon", "25:00", "1:2:3:4", "2026-99-99"]
)
def test_a_window_outside_of_the_plan_is_refused(plan_file, since):
    plan = Plan.load(plan_file([1] * 7200, start="2026-11-22T17:59:00+01:00"))
    with pytest.raises(PlanError, match="--from"):
        plan.window(since, None)
    with pytest.raises(PlanError, match="no date"):
        Plan.load(plan_file([1], start=None)).window("18:00", None)


def test_the_curve_is_flat_within_each_second():
    plan = Plan.from_dict({**GOOD, "rps": [4, 4, 10, 0]})
    points = plan.points()
    assert [points.rate(at) for at in (0, 1.9, 2, 2.9, 3)] == [4, 4, 10, 10, 0]
    curve = Seconds(plan.rps)
    for start, end in ((0, 4), (0.5, 2.25), (-5, 1), (3, 99), (2, 2)):
        assert curve.expected(start, end) == pytest.approx(points.expected(start, end))
    assert [curve.rate(at) for at in (-1, 0, 2.5, 4)] == [4 * 0, 4, 10, 0]
    assert [curve.second_of(count) for count in (0, 3.9, 4, 17.9, 18, 99)] == [0, 0, 1, 2, 3, 3]


def sent(traffic, arrivals):
    return [traffic.choose(number, drawn(7, number)) for number in range(arrivals)]


def test_each_minute_is_sent_with_its_own_mix(plan_file):
    templates = (("GET", "/a"), ("GET", "/b"))
    plan = Plan.load(plan_file([10] * 120, templates=templates, mix=[[[0, 3], [1, 1]], [[1, 5]]]))
    requests = sent(traffic_of(plan), 1200)
    first = Counter(each.path for each in requests[:590])
    assert 0.68 < first["/a"] / 590 < 0.82
    assert {each.path for each in requests[600:]} == {"/b"}


def test_only_safe_methods_are_sent_and_the_rate_is_lower_by_the_others(plan_file):
    templates = (("GET", "/a"), ("POST", "/b"))
    plan = Plan.load(plan_file([8] * 120, templates=templates, mix=[[[0, 1], [1, 3]], []]))
    traffic = traffic_of(plan, scale=2)
    assert traffic.curve.rate(0) == pytest.approx(4)
    assert traffic.curve.rate(60) == pytest.approx(4)
    assert traffic.left_out == pytest.approx(0.75)
    assert {each.method for each in sent(traffic, 480)} == {"GET"}
    every = traffic_of(plan, methods=frozenset({"GET", "POST"}))
    assert every.left_out == 0
    assert {each.method for each in sent(every, 480)} == {"GET", "POST"}
    with pytest.raises(PlanError, match="nothing to send"):
        traffic_of(plan, methods=frozenset({"DELETE"}))


def test_placeholders_are_filled_with_made_up_values_that_vary(plan_file):
    plan = Plan.load(plan_file([10] * 60, templates=(("GET", "/x/{id}/{n}/{id}?a={v}&{key}={v}"),)))
    requests = sent(traffic_of(plan), 600)
    assert len({each.path for each in requests}) == 64
    assert {each.name for each in requests} == {plan.templates[0].path}
    assert all(each.path.count("{") == each.path.count("{n}") == 3 for each in requests)


def test_the_spike_is_the_busiest_minute_and_idle_seconds_before_the_first_request_are_not_played(plan_file):
    plan = Plan.load(plan_file([0] * 30 + [1] * 200 + [9] * 60 + [1] * 10))
    traffic = traffic_of(plan, for_s=None)
    assert traffic.curve.total_s == 270
    assert traffic.spike == (200, 260)
    assert traffic_of(plan, since="0s").curve.total_s == 300
