"""Who reports what, when, and what happens to processes that fork."""

import json
import os
import subprocess
import sys
import threading

import pytest

from groundfault import Registry, Resource
from groundfault.events import internal_errors
from groundfault.metrics import rundir, writer
from groundfault.metrics._coding import decode, parse
from groundfault.metrics.collecting import collect
from groundfault.metrics.writer import Encoder, Writer

BOUND_S = 20.0


@pytest.fixture
def command(monkeypatch):
    """Return a command in the only registry there is."""
    registry = Registry()
    monkeypatch.setattr(writer, "all_registries", lambda: [registry])
    return Resource("db", registry=registry, sinks=[]).command("get")


@pytest.fixture
def one(tmp_path, command):
    made = Writer(tmp_path / "run", clock=lambda: 1000.0)
    yield made
    made._withdraw()


def read(one):
    return rundir.read(one.place.path, 1000.0)


def calls(report):
    return report.commands["db", "get"].calls


def test_what_is_encoded_is_what_is_collected(command):
    encoder = Encoder()
    for _ in range(3):
        command.call(lambda: None)
        mine = decode(parse(encoder.encode(5.0)[0]))
        assert mine == collect(5.0, writer.all_registries())


def test_a_command_that_has_not_changed_is_not_encoded_again(command, monkeypatch):
    encoder = Encoder()
    command.call(lambda: None)
    first = [encoder.encode(5.0)[0] for _ in range(2)][1]
    monkeypatch.setattr(writer, "encode_commands", lambda _: pytest.fail("it has not changed"))
    assert encoder.encode(5.0)[0] == first


@pytest.mark.parametrize(
    "change",
    [
        lambda command: command.call(lambda: None),
        lambda command: command.tune(max_concurrent=3),
        lambda command: command._gate.in_flight.append(None),
    ],
    ids=["a call", "a limit", "in flight"],
)
def test_whatever_changes_is_encoded_again(command, change):
    encoder = Encoder()
    before = decode(parse(encoder.encode(5.0)[0]))
    change(command)
    after = decode(parse(encoder.encode(5.0)[0]))
    assert before != after == collect(5.0, writer.all_registries())


def test_each_write_takes_the_place_of_the_one_before_and_its_process_lives(one, command):
    for times in (1, 2, 3):
        command.call(lambda: None)
        one.write()
        assert calls(read(one)) == {"success": times}
        assert len([path for path in one.place.path.iterdir() if path.name.endswith(".json")]) == 1
    assert [each.pid for each in read(one).processes] == [os.getpid()]
    seen = seen_by_another(one.place.path)
    assert (seen["calls"], seen["living"]) == ({"success": 3}, 1)


def seen_by_another(directory):
    """Return what another process reads."""
    code = (
        "import json, sys; from groundfault.metrics import read; report = read(sys.argv[1], 1000.0); print(json.dumps("
        "{'calls': report.commands['db', 'get'].calls, 'living': len(report.processes), 'unread': report.unread}))"
    )
    run = subprocess.run([sys.executable, "-c", code, directory], capture_output=True, check=True, timeout=BOUND_S)
    return json.loads(run.stdout)


def test_a_scrape_by_the_process_itself_in_the_middle_of_its_first_write_does_not_bury_it(one, command, monkeypatch):
    """It would let go of its lock if it opened its own file, and then count itself among the dead."""
    write = writer.write_locked

    def write_and_be_scraped(path, data):
        descriptor = write(path, data)
        assert len(read(one).processes) == 1
        return descriptor

    monkeypatch.setattr(writer, "write_locked", write_and_be_scraped)
    command.call(lambda: None)
    one.write()
    assert seen_by_another(one.place.path) == {"calls": {"success": 1}, "living": 1, "unread": {}}
    assert not (one.place.path / "totals.json").exists()


def test_who_has_forked_or_was_forked_reports_from_its_first_call_on(one, command, monkeypatch):
    monkeypatch.setattr("groundfault.metrics.collecting.live_shedders", list)  # other tests' may still be there
    one.write()
    assert len(read(one).processes) == 1
    one.waits_for_calls = True  # as the fork sets it in the parent, and in the child
    one.write()
    assert read(one).processes == []
    command.call(lambda: None)
    one.write()
    assert len(read(one).processes) == 1


def test_who_is_told_to_start_after_a_fork_reports_at_once(one):
    one.waits_for_calls = True
    one.start()
    assert one.flush(BOUND_S)
    assert len(read(one).processes) == 1


def test_a_directory_that_is_taken_away_is_made_again(one):
    one.write()
    for path in one.place.path.iterdir():
        path.unlink()
    one.place.path.rmdir()
    one.write()
    assert len(read(one).processes) == 1
    assert internal_errors() == {}


def test_a_directory_that_cannot_be_made_is_an_internal_error_logged_once(tmp_path, caplog):
    (tmp_path / "file").touch()
    lost = Writer(tmp_path / "file" / "run")
    for _ in range(3):
        lost.write()
    assert internal_errors() == {"run directory": 3}
    assert len(caplog.records) == 1
    assert "cannot be made" in caplog.text


def test_a_full_disk_leaves_the_last_report_and_is_an_internal_error(one, command, monkeypatch):
    command.call(lambda: None)
    one.write()

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "write_locked", full)
    command.call(lambda: None)
    one.write()
    assert calls(read(one)) == {"success": 1}
    assert internal_errors() == {"run directory": 1}
    monkeypatch.undo()


def test_a_file_system_that_hangs_stops_its_thread_and_no_call_and_no_scrape(one, command, monkeypatch):
    hangs, released = threading.Event(), threading.Event()

    def hang(path, data):
        hangs.set()
        released.wait(BOUND_S)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(writer, "write_locked", hang)
    one.start()
    try:
        assert not one.flush(0.05)
        assert hangs.wait(BOUND_S)
        assert command.call(lambda: "served") == "served"
        assert not one.flush(0.05)
    finally:
        released.set()
    assert one.flush(BOUND_S)


def test_a_flush_without_a_thread_says_so(one):
    assert one.flush(0.0) is False


def test_where_no_thread_can_be_had_nothing_is_raised(one, monkeypatch):
    def none_left(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    one.start()
    assert internal_errors() == {"run directory": 1}
    monkeypatch.undo()
    one.start()
    assert one.flush(BOUND_S)


def test_without_a_directory_nothing_is_started_and_a_scrape_is_of_this_process(command):
    assert writer.start() is False
    assert [each.pid for each in writer.scrape().processes] == [os.getpid()]


FORKING = """
import os, signal, sys, time
from groundfault import Resource
from groundfault.metrics import scrape, start
from groundfault.metrics.writer import writer_for

directory = sys.argv[1]
command = Resource("db").command("get", max_concurrent=5)
assert start(directory) and start(directory)  # as a master that loads the application


def work(times, end):
    child = os.fork()
    if child:
        return child
    for _ in range(times):
        command.call(lambda: None)
    if end == "flush":
        writer_for(directory).flush()
        os._exit(0)
    if end == "exit":
        sys.exit()
    if times:
        writer_for(directory).flush()
    print("ready", flush=True)
    time.sleep(60)


exited, flushed = work(3, "exit"), work(4, "flush")
for child in (exited, flushed):
    os.waitpid(child, 0)
killed, living, idle = work(10, "stay"), work(20, "stay"), work(0, "stay")
for _ in range(3):
    sys.stdin.readline()
os.kill(killed, signal.SIGKILL)
os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)  # a zombie from here on
for _ in range(2):
    report = scrape(directory)
    seen = report.commands["db", "get"]
    assert seen.calls == {"success": 37}, seen
    assert seen.durations["success"].count == 37
    assert (seen.states, seen.limit) == ({"closed": 1}, 5), seen  # neither the master's, nor the idle one's
    assert [each.pid for each in report.processes] == [living], report.processes
    assert report.internal_errors == {}, report.internal_errors
for child in (living, idle):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
assert scrape(directory).commands["db", "get"].calls == {"success": 37}
"""


@pytest.mark.e2e
def test_children_report_each_for_itself_and_the_dead_neither_linger_nor_vanish(tmp_path):
    """Killed, exited, flushed and idle ones, and a parent that only forks."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, tmp_path / "run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        lines = [process.stdout.readline() for _ in range(3)]
        _, complaint = process.communicate(b"".join(lines), timeout=BOUND_S)
    assert process.returncode == 0, complaint.decode()
