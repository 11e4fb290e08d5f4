"""Rates, windows and points, from looks that hold none, one or two writes of a process."""

import pytest

from groundfault.console.view import POINT_S, POINTS
from groundfault.metrics.report import Report


def test_the_first_look_is_the_base_and_tells_no_rate(directory):
    directory.begin(1).call(5000)
    directory.look()
    assert directory.row()["rate_per_s"] == 0.0
    assert directory.row()["counts"] == {}
    assert directory.row()["spark"] == [None] * POINTS


def test_a_rate_is_by_the_processes_own_time_of_writing(directory):
    process = directory.begin(1)
    directory.look()
    for pause in (1.4, 0.6, 1.9, 0.1, 1.0):  # looks are uneven, and so is what they find
        process.call(round(100 * pause))
        directory.look(pause)
    assert directory.row()["rate_per_s"] == pytest.approx(100.0)
    assert all(value == pytest.approx(100.0) for value in directory.row()["spark"] if value is not None)


@pytest.mark.parametrize("phases", [(0.1, 0.2, 0.3, 0.4), (0.05, 0.95, 0.5, 0.55)])
def test_processes_that_write_at_phases_of_their_own_add_up(directory, phases):
    processes = directory.begin(1, 2, 3, 4)
    for process in processes:
        process.call(0)
    directory.look(write=False)
    for _ in range(20):
        begun = directory.now
        for process, phase in zip(processes, phases, strict=True):
            process.call(10)
            process.write(begun + phase)
        directory.look(write=False)
    assert directory.row()["rate_per_s"] == pytest.approx(40.0)
    # In the first look each process comes with less than a second, and as many calls.
    assert [value for value in directory.row()["spark"] if value is not None][2:] == pytest.approx([40.0] * 8)


def test_a_look_without_a_write_changes_no_rate_and_its_calls_come_with_the_next(directory):
    process = directory.begin(1)
    directory.look()
    for _ in range(3):
        process.call(10)
        directory.look()
    before = directory.row()
    process.call(10)
    directory.look(write=False)
    assert directory.row()["counts"] == before["counts"]
    directory.look()  # two seconds later, by both clocks
    assert directory.row()["counts"] == {"success": 40}
    assert directory.row()["rate_per_s"] == pytest.approx(40 / 5)


def test_two_seconds_in_which_nobody_writes_take_the_rate_of_the_next_write(directory):
    process = directory.begin(1)
    directory.look()
    for _ in range(4):
        process.call(10)
        directory.look()
    for _ in range(5):
        process.call(10)
        directory.look(write=False)
    directory.look()
    values = [value for value in directory.row()["spark"] if value is not None]
    assert len(values) >= 5
    assert sum(values) * POINT_S == pytest.approx(90, rel=0.2)


def test_the_window_forgets_what_is_older_than_ten_seconds(directory):
    process = directory.begin(1)
    directory.look()
    process.call(1000)
    for _ in range(10):
        directory.look()
    assert directory.row()["counts"] == {"success": 1000}
    directory.look()
    assert directory.row()["counts"] == {}
    assert directory.row()["p99_s"] is None


def test_a_command_seen_for_the_first_time_has_counted_from_zero(directory):
    process = directory.begin(1)
    process.call(1)
    directory.look()
    directory.look()
    process.call(30, name="put")
    directory.look()
    assert directory.row("db/put")["counts"] == {"success": 30}
    assert directory.row("db/put")["rate_per_s"] == pytest.approx(15.0)  # the window is two seconds long


def test_a_process_that_begins_brings_what_it_has_counted(directory):
    directory.begin(1).call(10)
    directory.look()
    directory.begin(2).call(7)
    directory.look()
    assert directory.row()["counts"] == {"success": 7}
    assert directory.row()["processes"] == 2


def test_totals_of_a_process_that_dies_are_folded_without_a_trace(directory):
    first, second = directory.begin(1, 2)
    first.call(100)
    second.call(100)
    directory.look()
    directory.look()
    directory.die(first)
    second.call(5)
    directory.look()
    assert directory.row()["counts"] == {"success": 5}
    assert directory.row()["processes"] == 1
    assert directory.episodes("gap") == []


def test_when_every_process_is_replaced_the_new_ones_are_counted_by_the_lookers_clock(directory):
    directory.begin(1).call(10)
    directory.look()
    directory.look()
    directory.die(directory.processes[0])
    directory.now += 0.5
    directory.begin(2).call(20)
    directory.look(0.5)
    assert directory.row()["counts"] == {"success": 20}
    assert directory.row()["rate_per_s"] == pytest.approx(10.0)


def test_a_process_that_hangs_does_not_hold_the_others_clock_back(directory):
    processes = directory.begin(1, 2)
    directory.look()
    for _ in range(10):
        processes[0].call(10)
        processes[0].write(directory.now + 1)
        directory.look(write=False)
    for _ in range(12):
        processes[0].call(10)
        processes[0].write(directory.now + 1)
        directory.look(write=False)
    assert directory.row()["rate_per_s"] == pytest.approx(10.0)


def test_a_process_that_reports_again_after_a_while_is_no_spike(directory):
    slow, quick = directory.begin(1, 2)
    directory.look()
    for _ in range(20):
        slow.call(10)
        quick.call(10)
        quick.write(directory.now + 1)
        directory.look(write=False)
    directory.look(0.1)  # 200 calls at once
    assert directory.row()["rate_per_s"] == pytest.approx(20.0, rel=0.35)
    assert max(value or 0.0 for value in directory.row()["spark"]) <= 21.0


@pytest.mark.parametrize("reset", ["all", "one"])
def test_totals_that_fall_are_a_gap_and_neither_negative_nor_a_spike(directory, reset):
    process = directory.begin(1)
    process.call(1000)
    process.call(1000, name="put")
    directory.look()
    process.call(10)
    directory.look()
    process.calls[("db", "get")] = {"success": 900}
    if reset == "all":
        process.calls[("db", "put")] = {"success": 3}
    directory.look()
    assert directory.row()["counts"] == {}
    [gap] = directory.episodes("gap")
    assert "have fallen" in gap["what"] or "has fallen" in gap["what"]
    process.call(20)
    directory.look()
    assert directory.row()["counts"] == {"success": 20}
    assert directory.row()["rate_per_s"] == pytest.approx(20.0)
    assert min(value for value in directory.row()["spark"] if value is not None) >= 0.0


def test_a_run_directory_that_is_taken_away_and_made_anew_is_no_spike(directory):
    first, second = directory.begin(1, 2)
    first.call(5000)
    second.call(5000)
    directory.look()
    directory.look()
    directory.observer.see(Report(), directory.now + 1.0)
    directory.now += 1.0
    second.write(directory.now + 0.5)
    directory.processes.remove(first)
    directory.look(write=False)
    directory.processes.append(first)
    directory.look()
    assert directory.row()["counts"] == {}
    assert directory.row()["rate_per_s"] == 0.0
    assert len(directory.episodes("gap")) == 1  # several looks, one line
    first.call(10)
    directory.look()
    assert directory.row()["counts"] == {"success": 10}


def test_a_file_that_can_be_read_again_brings_no_spike(directory):
    first, second = directory.begin(1, 2)
    first.call(5000)
    second.call(10)
    directory.look()
    directory.processes.remove(first)
    directory.unread = {"1-00ff00ff00ff00ff.json": "it is damaged"}
    directory.look()
    assert "1-00ff00ff00ff00ff.json says nothing: it is damaged" in directory.view()["unknown"]
    directory.processes.append(first)
    directory.unread = {}
    directory.look()
    assert directory.row()["counts"] == {}
    assert directory.episodes("process") == []  # it has neither ended nor begun


def test_totals_of_the_dead_that_can_be_read_again_bring_no_spike(directory):
    gone, process = directory.begin(1, 2)
    gone.call(5000)
    process.call(10)
    directory.look()
    directory.die(gone)
    directory.look()
    dead, directory.dead, directory.unread = directory.dead, Report(), {"totals.json": "it is damaged"}
    directory.look()
    directory.dead, directory.unread = dead, {}
    directory.look()
    assert directory.row()["counts"] == {}
    assert "totals.json can" in directory.episodes("gap")[0]["what"]


def test_what_a_process_says_at_its_end_after_it_had_said_nothing_for_long_is_no_spike(directory):
    quiet, other = directory.begin(1, 2)
    other.call(1)
    directory.look()
    for _ in range(10):
        other.call(10)
        other.write(directory.now + 1)
        directory.look(write=False)
    quiet.call(5000)
    quiet.write(directory.now)
    directory.die(quiet)
    directory.look()
    assert directory.row()["rate_per_s"] <= 10.0
    assert "has ended after it had said nothing for 11 s" in directory.episodes("gap")[0]["what"]


def test_a_pause_of_the_looker_is_a_gap(directory):
    process = directory.begin(1)
    directory.look()
    directory.look()
    process.call(100_000)
    directory.look(300.0)
    assert directory.row()["counts"] == {}
    assert "300 s" in directory.episodes("gap")[0]["what"]
    assert directory.row()["spark"] == [None] * POINTS


def test_a_clock_that_is_set_back_is_a_gap_and_counting_goes_on(directory):
    process = directory.begin(1)
    directory.look()
    for _ in range(4):
        process.call(10)
        directory.look()
    directory.look(-3600.0)
    assert directory.episodes("gap")[0]["what"].endswith("the clock was set back")
    for _ in range(4):
        process.call(10)
        directory.look()
    assert directory.row()["rate_per_s"] == pytest.approx(10.0)
    assert sum(value is not None for value in directory.row()["spark"]) >= 3


def test_a_command_leaves_once_nobody_has_it_and_its_traffic_is_past(directory):
    process = directory.begin(1)
    directory.begin(2).call(3, name="put")
    directory.look()
    process.call(10)
    directory.look()
    directory.die(process)
    directory.look()
    assert directory.row()["processes"] == 0
    assert directory.row()["limit"] is None
    for _ in range(10):
        directory.look()
    assert set(directory.rows()) == {"db/put"}


def test_pids_that_containers_share_are_told_apart(directory):
    first, second = directory.begin(7, 7)
    directory.look()
    for _ in range(5):
        first.call(10)
        second.call(10)
        directory.look()
    assert directory.row()["rate_per_s"] == pytest.approx(20.0)
    assert len(directory.view()["processes"]) == 2


def test_percentiles_are_of_successes_and_else_of_failures(directory):
    process = directory.begin(1)
    directory.look()
    process.call(99, took_s=0.009)
    process.call(50, "timeout", took_s=5.0)
    directory.look()
    row = directory.row()
    assert (row["p50_s"], row["p90_s"], row["p99_s"]) == pytest.approx((0.009, 0.009, 0.01), rel=0.35)
    for _ in range(11):
        directory.look()
    process.call(10, "failure", took_s=2.5)
    process.call(10, "shed")
    directory.look()
    assert directory.row()["p50_s"] == pytest.approx(2.5, rel=0.35)


def test_points_are_bad_for_two_minutes_and_then_forgotten(directory):
    process = directory.begin(1)
    directory.look()
    process.call(10)
    process.call(6, "failure")
    directory.look()
    assert max(value or 0.0 for value in directory.row()["bad"]) == pytest.approx(6.0, rel=0.01)
    for _ in range(125):
        process.call(1)
        directory.look()
    assert directory.row()["bad"] == []
    assert directory.row()["spark"] == pytest.approx([1.0] * POINTS)


def test_a_command_that_is_idle_costs_no_points(directory):
    process = directory.begin(1)
    directory.look()
    process.call(10)
    directory.look()
    for _ in range(2 * POINTS + 4):
        directory.look()
    assert directory.observer.tracks["db", "get"].spark.closed is None
    assert directory.row()["spark"] == [0.0] * POINTS


def test_servers_are_counted_in_the_same_way(directory):
    process = directory.begin(1)
    process.request(1000)
    directory.look()
    for _ in range(5):
        process.request(30, wait_s=0.002)
        process.request(60, "queue-wait", "sheddable", wait_s=0.3)
        process.request(10, "deadline", wait_s=0.3)
        directory.look()
    row = directory.server()
    assert row["counts"] == {"admitted": 150, "queue-wait": 300, "deadline": 50}
    assert row["criticalities"] == {
        "critical": {"admitted": 150, "shed": 50},
        "sheddable": {"admitted": 0, "shed": 300},
    }
    assert (row["rate_per_s"], row["goodput_per_s"], row["shed_share"]) == (100.0, 30.0, 0.7)
    assert row["wait_p99_s"] == pytest.approx(0.3, rel=0.35)
    assert row["level"] == "bad"
    assert row["why"][0] == "70 % of the requests are shed: queue-wait, deadline"
    assert row["bad"][-1] == pytest.approx(70.0)


def test_what_a_server_has_counted_that_falls_is_a_gap(directory):
    process = directory.begin(1)
    process.request(1000)
    directory.look()
    process.requests = {("admitted", "critical"): 900}
    directory.look()
    assert directory.server()["counts"] == {}
    assert directory.episodes("gap")


def test_commands_that_are_folded_into_the_others_are_no_spike_there(directory):
    process = directory.begin(1)
    process.call(5, resource="_other", name="_other")
    process.call(5000)
    directory.look()
    directory.look()
    process.calls = {("_other", "_other"): {"success": 5005}}
    directory.look()
    assert directory.row("_other/_other")["counts"] == {}


def test_trips_of_totals_that_have_fallen_are_no_news(directory):
    process = directory.begin(1)
    process.call(100)
    directory.look()
    directory.look()
    process.calls = {("db", "get"): {"success": 7}}
    process.rest = {"moves": {"closed>open": 3}}
    directory.look()
    assert directory.episodes("gap")
    assert directory.episodes("circuit") == []
