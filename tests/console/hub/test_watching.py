"""From reports to views: what is said of hosts, processes and of what is not known."""

import json

import pytest
from hub_reports import START, PlainSeeing, pushed

from groundfault.console.hub.accepting import UnreadableError
from groundfault.console.hub.difference import applied
from groundfault.console.hub.sources import FullError
from groundfault.console.hub.watching import Watch, points_of


class Kept:
    def __init__(self):
        self.recalled = None
        self.points, self.episodes = [], []

    def offer(self, points, episodes):
        self.points.append(points)
        self.episodes.append(episodes)

    def unknown(self):
        return ["history has not been kept for 40 s"]


@pytest.fixture
def kept():
    return Kept()


@pytest.fixture
def watch(clock, kept):
    about = {"title": "hub", "host": "hub-1", "release": "0.1.0"}
    return Watch(**about, seeing=PlainSeeing(), keeps=kept, clock=clock, time=lambda: START + clock() - 1000.0)


def hear(watch, calls, *, pushed_by="10.0.0.1", **more):
    return watch.receive(pushed(calls, at=watch.now().wall, **more), pushed_by)


def test_there_is_a_view_before_anything_is_known(watch):
    view = watch.newest.view
    assert (view["sequence"], view["hosts"], view["title"]) == (1, [], "hub")


def test_a_view_holds_all_hosts_and_says_whose_each_process_is(watch, clock):
    hear(watch, {"get": 1}, host="web-1", pid=7)
    hear(watch, {"get": 1}, host="web-2", pid=7)
    hear(watch, {"put": 1}, host="web-2", title="saber", pid=8)
    view = watch.turn(1.0).view
    assert {(row["host"], row["pid"], row["service"]) for row in view["processes"]} == {
        ("web-1", 7, "topps"),
        ("web-2", 7, "topps"),
        ("web-2", 8, "saber"),
    }
    assert [(row["host"], row["services"]) for row in view["hosts"]] == [
        ("web-1", ["topps"]),
        ("web-2", ["saber", "topps"]),
    ]


def test_the_timeline_tells_processes_by_the_ids_their_hosts_know(watch):
    hear(watch, {"get": 1}, host="web-1", pid=4003)
    number = watch.sources.services["topps"].merged().processes[0].pid
    episode = {"kind": "process", "subject": str(number), "what": f"process {number} has ended; its totals stay"}
    named = watch._named(episode)
    assert (named["subject"], named["what"]) == ("4003 on web-1", "process 4003 on web-1 has ended; its totals stay")
    assert watch._spoken(f"process {number} of topps is silent") == "process 4003 on web-1 of topps is silent"
    assert watch._named({**episode, "kind": "circuit"})["subject"] == str(number)


def test_each_edition_is_what_the_change_makes_of_the_one_before(watch, clock):
    before = watch.newest
    for number in range(3):
        hear(watch, {"get": number, f"only-{number}": 1})
        edition = watch.turn(1.0)
        frame = edition.change.decode().splitlines()
        assert frame[0] == "event: change"
        assert applied(before.view, json.loads(frame[1].removeprefix("data: "))) == edition.view
        assert edition.follows == before.sequence
        before = edition
        clock.advance(1.0)


def test_what_cannot_be_read_is_a_host_of_its_own_until_it_can(watch, clock):
    with pytest.raises(UnreadableError):
        watch.receive(b"x", "10.0.0.9")
    row = watch.turn(1.0).view["hosts"][0]
    assert (row["host"], row["state"], row["why"]) == ("10.0.0.9", "unreadable", "it is no report")
    hear(watch, {"get": 1}, pushed_by="10.0.0.9")
    assert [row["host"] for row in watch.turn(1.0).view["hosts"]] == ["web-1"]


def test_a_console_that_does_not_answer_is_listed_with_the_reason(watch, clock):
    watch.miss("web-9:9731", "web-9:9731: Connection refused")
    clock.advance(30.0)
    (row,) = watch.turn(1.0).view["hosts"]
    assert (row["state"], row["why"], row["age_s"]) == ("late", "web-9:9731: Connection refused", 30.0)


def test_what_is_not_known_is_said_for_a_minute_and_how_often(watch, clock):
    for _ in range(3):
        watch.note("a report from 10.0.0.3 was dropped: it ended after 5 bytes, before it was whole")
    clock.advance(2.0)
    said = watch.turn(2.5).view["unknown"]
    assert said == [
        "history has not been kept for 40 s",
        "this hub cannot keep up: it makes a view each 2.5 s",
        "a report from 10.0.0.3 was dropped: it ended after 5 bytes, before it was whole, 3 times; last 2 s ago",
    ]
    clock.advance(61.0)
    assert watch.turn(1.0).view["unknown"] == ["history has not been kept for 40 s"]


def test_what_a_host_does_not_know_is_said_under_its_name_while_it_lives(watch, clock):
    hear(watch, {"get": 1}, unread={"9.report": "its checksum is wrong", "\x1b[2J": 7}, unknown=["a", "b", {}, "c"])
    said = watch.turn(1.0).view["unknown"]
    assert said[1:] == [
        "web-1: 9.report says nothing: its checksum is wrong",
        "web-1: \ufffd[2J says nothing: 7",
        "web-1: a",
        "web-1: and 2 things more",
    ]
    clock.advance(10.0)
    assert len(watch.turn(1.0).view["unknown"]) == 1
    hear(watch, {"get": 2}, unread=["odd"], unknown="odd")
    assert len(watch.turn(1.0).view["unknown"]) == 1


def test_who_sends_too_often_is_said(watch):
    hear(watch, {"get": 1})
    with pytest.raises(FullError):
        [hear(watch, {"get": 1}) for _ in range(5)]
    assert any("more than 2 reports a second" in line for line in watch.turn(1.0).view["unknown"])


def test_a_host_that_is_gone_is_on_the_timeline_until_it_is_back(watch, clock):
    hear(watch, {"get": 1})
    clock.advance(61.0)
    first = watch.turn(1.0)
    (going,) = first.view["timeline"]
    assert (going["kind"], going["subject"], going["ended_at"]) == ("host", "web-1", None)
    hear(watch, {"get": 1})
    second = watch.turn(1.0)
    assert second.view["timeline"][0]["ended_at"] == START + 61.0
    assert b'"timeline"' in second.change  # an episode that has ended is another value than the one sent before


def test_headline_numbers_are_kept_every_ten_seconds_and_episodes_but_those_recalled(watch, clock, kept):
    hear(watch, {"get": 1})
    recalled = {"id": "r0|e1", "kind": "circuit", "began_at": START - 500.0, "ended_at": START - 400.0}
    kept.recalled = [recalled]
    for _ in range(25):
        clock.advance(1.0)
        view = watch.turn(1.0).view
    assert [points[0]["at"] for points in kept.points] == [START, START + 10, START + 20]
    assert kept.episodes == [[], [], []]
    assert view["timeline"] == [recalled]


def test_a_service_that_serves_nothing_is_told_by_its_calls():
    row = {"service": "batch", "rate_per_s": 9.0, "counts": {"success": 80, "failure": 10}, "states": {"open": 1}}
    view = {"commands": [row, {**row, "states": {}}], "servers": [], "window_s": 10.0}
    (point,) = points_of(view, 1000)
    assert (point["rate_per_s"], point["goodput_per_s"], point["open_circuits"]) == (18.0, 16.0, 1)
