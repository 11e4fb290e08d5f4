"""What goes on the timeline, and what does not."""

import json

import pytest

from groundfault.console.episodes import KEPT, KEPT_S, Timeline

AT = 2_000_000.0


def held(timeline, now, *, times=1, **more):
    timeline.hold("concurrency", "db/get", now, level="warn", what="full", sums={"refused": times}, **more)
    timeline.settle(now)


@pytest.mark.parametrize(
    ("looks", "lines"),
    [
        ([0, 1, 2], 1),
        ([0, 1, 4, 6], 1),  # away for less than five seconds
        ([0, 1, 12, 13], 2),
        ([0, 10, 20], 3),
    ],
)
def test_what_flaps_is_one_line(looks, lines):
    timeline = Timeline()
    for second in range(30):
        if second in looks:
            held(timeline, AT + second)
        else:
            timeline.settle(AT + second)
    episodes = timeline.newest_first()
    assert len(episodes) == lines
    assert sum(each["numbers"]["refused"] for each in episodes) == len(looks)
    assert all(each["ended_at"] is not None for each in episodes)
    assert len({each["id"] for each in episodes}) == lines


def test_an_episode_ends_at_the_first_look_at_which_it_is_over():
    timeline = Timeline()
    held(timeline, AT)
    [episode] = timeline.newest_first()
    assert (episode["began_at"], episode["ended_at"]) == (AT, None)
    timeline.settle(AT + 3)
    assert timeline.newest_first()[0]["ended_at"] == AT + 3
    assert timeline.newest_first()[0]["id"] == episode["id"]


def test_a_look_that_counts_nothing_new_ends_nothing_that_is_known_by_counts():
    timeline = Timeline()
    held(timeline, AT, counted=True)
    timeline.settle(AT + 1, counts=False)
    assert timeline.newest_first()[0]["ended_at"] is None
    timeline.settle(AT + 2, counts=True)
    assert timeline.newest_first()[0]["ended_at"] == AT + 2


def test_greatest_least_and_sums_are_kept():
    timeline = Timeline()
    for peak, least in ((3, 0.5), (8, 0.2), (1, 0.9)):
        timeline.hold("throttle", "x", AT, level="warn", what="", peaks={"n": peak}, leasts={"s": least}, sums={"c": 2})
    assert timeline.newest_first()[0]["numbers"] == {"n": 8, "s": 0.2, "c": 6}


def test_many_moments_at_once_are_one_line():
    timeline = Timeline()
    for number in range(8):
        timeline.note(
            *("process", str(number), AT + number), level="ok", what=f"process {number}", several="{} processes"
        )
    [episode] = timeline.newest_first()
    assert episode["what"] == "8 processes"
    assert (episode["began_at"], episode["ended_at"]) == (AT, AT + 7)


def test_at_most_so_many_are_kept_and_those_that_go_on_stay_longest():
    timeline = Timeline()
    timeline.hold("circuit", "old", AT, level="bad", what="open")
    for number in range(2 * KEPT):
        now = AT + number
        timeline.hold("circuit", "old", now, level="bad", what="open")
        timeline.note("gap", str(number), now, level="warn", what="gap")
        timeline.settle(now)
    assert len(timeline) == KEPT
    assert timeline.newest_first()[-1]["subject"] == "old"


def test_a_day_later_it_is_forgotten():
    timeline = Timeline()
    held(timeline, AT)
    timeline.settle(AT + 1)
    timeline.settle(AT + KEPT_S)
    assert len(timeline) == 1
    timeline.settle(AT + KEPT_S + 2)
    assert len(timeline) == 0


@pytest.mark.parametrize(("away_s", "lines"), [(20.0, 1), (3600.0, 2)])
def test_who_recalls_a_timeline_goes_on_unless_too_much_time_has_passed(away_s, lines):
    timeline = Timeline()
    held(timeline, AT)
    timeline = Timeline.recalled(json.loads(json.dumps(timeline.remembered(AT + 1))))
    later = AT + 1 + away_s
    timeline.resume(later)
    held(timeline, later)
    episodes = timeline.newest_first()
    assert len(episodes) == lines
    assert episodes[0]["ended_at"] is None
    if lines == 2:
        assert episodes[1]["ended_at"] == AT + 1
    assert len({each["id"] for each in episodes}) == lines


# --- from reports -----------------------------------------------------------------------------------------------------


def test_a_circuit_is_open_from_the_first_process_to_the_last(directory):
    processes = directory.begin(1, 2, 3)
    for process in processes:
        process.call(1)
    directory.look()
    processes[0].rest = {"states": {"open": 1}, "moves": {"closed>open": 1}}
    directory.look()
    processes[1].rest = {"states": {"open": 1}, "moves": {"closed>open": 1}}
    directory.look()
    began = directory.now - 1
    processes[0].rest = {"states": {"half-open": 1}, "moves": {"closed>open": 1, "open>half-open": 1}}
    processes[1].rest = processes[0].rest
    directory.look()
    [episode] = directory.episodes("circuit")
    assert (episode["began_at"], episode["ended_at"]) == (began, None)
    assert episode["numbers"] == {"processes": 2, "trips": 2}
    assert (episode["subject"], episode["service"], episode["level"]) == ("db/get", "topps", "bad")
    for process in processes:
        process.rest = {"moves": dict(process.rest.get("moves", {}))}
    directory.look()
    assert directory.episodes("circuit")[0]["ended_at"] == directory.now


def test_a_trip_that_is_over_before_the_next_look_is_seen(directory):
    process = directory.begin(1)
    process.call(1)
    directory.look()
    process.rest = {"moves": {"closed>open": 2, "open>half-open": 2, "half-open>closed": 2}}
    directory.look()
    directory.look()
    [episode] = directory.episodes("circuit")
    assert episode["numbers"] == {"trips": 2}
    assert episode["ended_at"] is not None


def test_trips_of_the_time_before_the_first_look_are_no_news(directory):
    process = directory.begin(1)
    process.call(1)
    process.rest = {"moves": {"closed>open": 9}}
    for _ in range(3):
        directory.look()
    assert directory.episodes("circuit") == []


@pytest.mark.parametrize(
    ("kind", "rest", "numbers", "what"),
    [
        ("throttle", {"admitted_share": 0.22}, {"admitted_share": 0.22, "refused": 0}, "sends 22 % of the calls"),
        ("saturated", {"saturated": 1}, {"processes": 1}, "the callee does nothing but refuse"),
        ("unhealthy", {"unhealthy": 1}, {"processes": 1}, "the health check says no"),
    ],
)
def test_gauges_that_say_trouble_are_episodes(directory, kind, rest, numbers, what):
    process = directory.begin(1)
    process.call(1)
    directory.look()
    process.rest = rest
    directory.look()
    directory.look(write=False)
    [episode] = directory.episodes(kind)
    assert (episode["numbers"], episode["what"], episode["ended_at"]) == (numbers, what, None)
    process.rest = {}
    directory.look()
    assert directory.episodes(kind)[0]["ended_at"] == directory.now


def test_calls_that_a_bulkhead_refuses_are_an_episode_through_looks_without_a_write(directory):
    process = directory.begin(1)
    process.call(1)
    directory.look()
    for _ in range(3):
        process.call(7, "bulkhead-full")
        directory.look()
        directory.look(0.5, write=False)
    [episode] = directory.episodes("concurrency")
    assert episode["numbers"] == {"refused": 21}
    assert episode["ended_at"] is None


def test_shedding_of_a_server_with_what_it_refused_and_the_longest_waits(directory):
    process = directory.begin(1)
    process.request(10)
    directory.look()
    process.server = {"shedding": 1}
    for wait_s in (0.1, 0.8, 0.2):
        process.request(100, "queue-wait", wait_s=wait_s)
        directory.look()
    process.server = {}
    directory.look()
    [episode] = directory.episodes("shedding")
    assert episode["numbers"]["refused"] == 300
    assert episode["numbers"]["wait_p99_s"] == pytest.approx(0.8, rel=0.35)
    assert episode["ended_at"] == directory.now


def test_a_few_deadlines_among_many_requests_are_no_episode(directory):
    process = directory.begin(1)
    directory.look()
    for _ in range(5):
        process.request(1000)
        process.request(6, "deadline")
        directory.look()
    assert directory.episodes("shedding") == []


def test_a_version_of_the_settings_from_first_to_last(directory):
    processes = directory.begin(1, 2, 3)
    for process in processes:
        process.stores = {"file:s": "1-a"}
    directory.look()
    assert directory.episodes("settings") == []
    processes[0].stores = {"file:s": "2-b"}
    directory.look()
    began = directory.now
    [episode] = directory.episodes("settings")
    assert (episode["what"], episode["subject"], episode["ended_at"]) == ("version 2-b in force", "file:s", None)
    directory.look()
    [store] = directory.view()["stores"]
    assert (store["newest"], store["behind"], store["lag_s"]) == ("2-b", 2, 1.0)
    assert directory.view()["headline"]["behind"] == 2
    assert "2 of 3 processes are not at the newest settings" in directory.view()["headline"]["words"]
    for process in processes[1:]:
        process.stores = {"file:s": "2-b"}
    directory.look()
    directory.look()
    [episode] = directory.episodes("settings")
    assert (episode["began_at"], episode["ended_at"]) == (began, began + 2)
    assert episode["numbers"]["processes"] == 3
    [store] = directory.view()["stores"]
    assert (store["newest"], store["behind"], store["lag_s"]) == ("2-b", 0, 0.0)


def test_a_process_that_starts_with_an_old_version_does_not_make_it_the_newest(directory):
    first = directory.begin(1)
    first.stores = {"file:s": "1-a"}
    directory.look()
    first.stores = {"file:s": "2-b"}
    directory.look()
    second = directory.begin(2)
    for version in ("1-a", None):
        second.stores = {"file:s": version}
        directory.look()
        [store] = directory.view()["stores"]
        assert (store["newest"], store["behind"]) == ("2-b", 1)


def test_a_return_of_all_to_an_older_version_is_followed(directory):
    process = directory.begin(1)
    for version in ("1-a", "2-b", "1-a"):
        process.stores = {"file:s": version}
        directory.look()
    assert directory.view()["stores"][0]["newest"] == "1-a"
    assert directory.view()["stores"][0]["behind"] == 0
    assert directory.episodes("settings")[0]["what"] == "version 1-a in force"


def test_the_first_version_that_a_store_ever_holds_is_news(directory):
    process = directory.begin(1)
    process.stores = {"file:s": None}
    directory.look()
    assert directory.view()["stores"][0]["newest"] is None
    process.stores = {"file:s": "1-a"}
    directory.look()
    assert [each["what"] for each in directory.episodes("settings")] == ["version 1-a in force"]


def test_rejected_versions_and_a_store_that_cannot_be_read(directory):
    process = directory.begin(1)
    process.stores = {"file:s": "1-a"}
    directory.look()
    for rejected, unreachable in ((1, 0), (1, 1), (1, 1), (1, 0)):
        directory.now += 1
        process.write(directory.now)
        process.written.stores["file:s"].rejected = rejected
        process.written.stores["file:s"].unreachable = unreachable
        directory.observer.see(directory.read(), directory.now)
    unread, rejected = directory.episodes("settings")
    assert rejected["what"].startswith("a version is rejected")
    assert unread["what"].startswith("the store cannot be read")
    assert unread["ended_at"] - unread["began_at"] == 2.0


def test_a_deployment_of_eight_workers_is_two_lines(directory):
    directory.begin(*range(1, 9))
    directory.look()
    for number in range(8):
        directory.die(directory.processes[0])
        directory.begin(100 + number)
        directory.look()
    episodes = directory.episodes("process")
    assert sorted(each["what"] for each in episodes) == [
        "8 processes have begun",
        "8 processes have ended; their totals stay",
    ]


def test_one_process_that_ends_is_named(directory):
    first, _ = directory.begin(4711, 4712)
    directory.look()
    directory.die(first)
    directory.look()
    [episode] = directory.episodes("process")
    assert (episode["subject"], episode["what"]) == ("4711", "process 4711 has ended; its totals stay")


def test_a_process_that_reports_nothing_for_a_while(directory):
    quiet, other = directory.begin(1, 2)
    directory.look()
    for _ in range(8):
        other.write(directory.now + 1)
        directory.look(write=False)
    [episode] = directory.episodes("process")
    assert (episode["what"], episode["ended_at"]) == ("process 1 reports nothing", None)
    [line] = directory.view()["unknown"]
    assert line == "process 1 of topps on web-1 has said nothing for 8 s"
    assert directory.view()["headline"]["stale"] == 1
    assert directory.view()["headline"]["level"] == "warn"
    quiet.write(directory.now)
    directory.look()
    assert directory.episodes("process")[0]["ended_at"] == directory.now


def test_a_recorder_that_takes_over_tells_nothing_twice(directory):
    directory.begin(1, 2)
    directory.look()
    said = json.loads(json.dumps(directory.observer.remembered()))
    directory.die(directory.processes[0])
    directory.observer = type(directory.observer).recalled(said)
    directory.look()
    assert [each["what"] for each in directory.episodes()] == ["process 1 has ended; its totals stay"]
