"""Who records, what the others show, and what is left of it: with clocks that are set by hand, and without a thread."""

import errno
import gzip
import json
import os
from pathlib import Path

import pytest
from fake_making import MAKING, counting_view
from sample_reports import counted

from groundfault.console import _post, recording
from groundfault.console._post import MEMORY, VIEW, packed
from groundfault.console.answering import RefusedError
from groundfault.console.recording import Recorder
from groundfault.events import internal_errors
from groundfault.metrics._coding import encode, parse
from groundfault.metrics._place import replace_file
from groundfault.metrics.report import ProcessInfo, Report, ServerReport
from groundfault.metrics.rundir import read


@pytest.fixture
def recorders(clock):
    """Return what makes recorders that share a clock; they are stopped at the end."""
    made = []

    def make(*directories, **more):
        made.append(
            Recorder(list(directories) or None, making=more.pop("making", MAKING), clock=clock, steady=clock, **more)
        )
        return made[-1]

    yield make
    for each in made:
        each._leave()


@pytest.fixture(autouse=True)
def _files_are_of_the_clocks_time(monkeypatch, clock):
    """Let what is written be as old as the manual clock says."""

    def replace(path, data):
        replace_file(path, data)
        os.utime(path, (clock(), clock()))

    monkeypatch.setattr(_post, "replace_file", replace)


def shown(recorder):
    return json.loads(gzip.decompress(recorder.newest()))


def test_one_records_and_the_others_show_the_same(recorders, directory, clock):
    first, second = recorders(directory), recorders(directory)
    first.record()
    second.record()
    assert first.newest() == second.newest()
    view = shown(second)
    assert view["commands"] == [{"seen": 1, "calls": 3}]
    assert (view["kind"], view["sequence"], view["interval_s"], view["made_at"]) == ("host", 1, 1.0, clock())
    assert list(view)[:3] == ["format", "sequence", "interval_s"]
    clock.advance(1.0)
    first.record()
    second.record()
    assert shown(second)["sequence"] == 2
    assert (first._pause_s, second._pause_s) == (1.0, 0.5)


def test_when_the_recorder_ends_another_goes_on_with_its_memory(recorders, directory, clock):
    first, second = recorders(directory), recorders(directory)
    for _ in range(12):
        first.record()
        second.record()
        clock.advance(1.0)
    first._leave()
    second.record()
    view = shown(second)
    assert (view["commands"][0]["seen"], view["sequence"]) == (13, 13)


def test_the_memory_of_one_that_is_killed_is_ten_seconds_old_at_most(recorders, directory, clock):
    first, second = recorders(directory), recorders(directory)
    for _ in range(12):
        first.record()
        clock.advance(1.0)
    first._posts[0]._let_go()  # as the kernel does
    second.record()
    view = shown(second)
    assert view["commands"][0]["seen"] >= 12 - 10
    assert view["sequence"] == 13


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"\x1f\x8b", packed([]), packed({"format": 99}), packed({"format": 1, "sequence": "x"})],
    ids=["empty", "not compressed", "cut short", "a list", "later", "odd"],
)
def test_a_spoiled_memory_is_begun_anew(recorders, directory, content):
    (directory / MEMORY).write_bytes(content)
    recorder = recorders(directory)
    recorder.record()
    assert shown(recorder)["commands"][0]["seen"] == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:40] + b"xxxx" + data[44:],
        lambda data: b"{}",
        lambda data: data + b"more",
        lambda data: packed({"format": 2, "sequence": 1, "interval_s": 1.0}),
        lambda data: packed({"title": "x"}),
    ],
)
def test_a_spoiled_view_is_not_shown_but_one_of_its_own(recorders, directory, clock, spoil):
    first, second = recorders(directory, title="first"), recorders(directory, title="second")
    first.record()
    path = directory / VIEW
    path.write_bytes(spoil(path.read_bytes()))
    os.utime(path, (clock(), clock()))
    second.record()
    assert shown(second)["title"] == "second"
    first.record()
    second.record()
    assert shown(second)["title"] == "first"


def test_a_view_that_is_a_link_or_somebody_elses_is_not_shown(recorders, directory, tmp_path, clock):
    first, second = recorders(directory, title="first"), recorders(directory, title="second")
    first.record()
    path = directory / VIEW
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    second.record()
    assert shown(second)["title"] == "second"


def test_a_view_that_grows_old_is_replaced_by_one_of_its_own(recorders, directory, clock):
    first, second = recorders(directory, title="first"), recorders(directory, title="second")
    first.record()
    for title in ("first", "first", "second", "second"):
        second.record()
        assert shown(second)["title"] == title
        clock.advance(2.6)
    first.record()
    second.record()
    assert shown(second)["title"] == "first"


def test_a_view_of_long_ago_is_not_shown_to_who_comes_now(recorders, directory, clock):
    first = recorders(directory, title="first")
    first.record()
    clock.advance(60.0)
    second = recorders(directory, title="second")
    second.record()
    assert shown(second)["title"] == "second"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_disk_takes_nothing_but_the_file(recorders, directory, clock, monkeypatch, code):
    def full(path, data):
        raise OSError(code, os.strerror(code))

    first, second = recorders(directory), recorders(directory)
    monkeypatch.setattr(_post, "replace_file", full)
    for number in range(1, 13):
        first.record()
        second.record()
        assert shown(first)["commands"][0]["seen"] == shown(second)["commands"][0]["seen"] == number
        clock.advance(1.0)
    assert internal_errors()["console recorder"] >= 12
    first._leave()


def test_a_directory_that_is_not_there_is_said_to_be_and_tried_again(recorders, directory, tmp_path):
    recorder = recorders(tmp_path / "later")
    recorder.record()
    (said,) = shown(recorder)["unknown"]
    assert said.startswith("nothing new is known: the run directory")
    directory.rename(tmp_path / "later")
    recorder.record()
    recorder.record()
    assert shown(recorder)["unknown"] == []
    assert shown(recorder)["commands"][0]["calls"] == 3


def test_a_directory_that_anybody_can_write_to_is_not_believed(recorders, directory):
    recorders(directory).record()  # its view lies there
    directory.chmod(0o777)
    recorder = recorders(directory)
    recorder.record()
    assert "can be written by everybody" in shown(recorder)["unknown"][0]
    directory.chmod(0o700)


def test_a_directory_that_is_taken_away_is_recorded_again_when_it_is_back(recorders, directory, tmp_path):
    recorder = recorders(directory)
    recorder.record()
    directory.rename(tmp_path / "gone")
    recorder.record()
    assert shown(recorder)["unknown"]
    (tmp_path / "gone").rename(directory)
    (directory / "console.lock").unlink()
    recorder.record()
    other = recorders(directory, title="other")
    other.record()
    assert shown(other) == shown(recorder)


def test_several_directories_are_shown_together_and_each_is_written_for_itself(recorders, directory, tmp_path, clock):
    second = tmp_path / "second"
    second.mkdir(mode=0o700)
    replace_file(second / "2-0000000000000002.json", encode(counted(5, pid=2, service="topps")))
    together, alone = recorders(directory, second, directory), recorders(second)
    together.record()
    alone.record()
    assert [each["calls"] for each in shown(together)["commands"]] == [3, 5]
    assert [each["calls"] for each in shown(alone)["commands"]] == [5]
    assert "other" not in repr(together)
    fewer = recorders(directory, tmp_path / "missing")
    fewer.record()
    assert len(shown(fewer)["unknown"]) == 1


def test_what_is_written_is_for_this_user_alone_and_disturbs_no_report(recorders, directory, clock):
    recorder = recorders(directory)
    for _ in range(12):
        recorder.record()
        clock.advance(1.0)
    recorder._leave()
    names = {VIEW, MEMORY, "console.lock"}
    assert names <= {each.name for each in directory.iterdir()}
    assert all((directory / name).stat().st_mode & 0o777 == 0o600 for name in names)
    assert read(directory, clock()).unread == {}


def test_views_become_fewer_where_they_cost_much_and_say_so(recorders, directory):
    recorder = recorders(directory)
    for took_s, interval_s in ((0.001, 1.0), (0.02, 1.0), (0.05, 2.5), (9.0, 5.0)):
        recorder._took_s = took_s
        recorder.record()
        assert shown(recorder)["interval_s"] == recorder._pause_s == interval_s


def test_who_has_forked_leaves_it_to_others_and_comes_back_if_there_are_none(recorders, directory, clock):
    first, second = recorders(directory, title="first"), recorders(directory, title="second")
    first.record()
    first.stand_down()
    first.record()
    second.record()
    clock.advance(1.0)
    second.record()
    first.record()
    assert shown(first)["title"] == "second"
    second._leave()
    clock.advance(5.1)
    first.record()
    first.record()
    assert first._posts[0].is_elected
    assert shown(first)["title"] == "first"


def test_who_has_forked_waits_for_children_that_are_slow_to_begin(recorders, directory, clock):
    first, second = recorders(directory, title="first"), recorders(directory, title="second")
    first.stand_down()
    for _ in range(5):
        first.record()
        assert shown(first)["title"] == "first"
        assert not first._posts[0].is_elected
        clock.advance(1.0)
    second.record()
    first.record()
    assert shown(first)["title"] == "second"


def test_without_a_directory_it_shows_this_process_alone(recorders, monkeypatch):
    monkeypatch.setattr(recording, "has_siblings", lambda: False)
    recorder = recorders()
    recorder.record()
    view = shown(recorder)
    assert (view["kind"], view["unknown"], view["sequence"]) == ("process", [], 1)
    monkeypatch.setattr(recording, "has_siblings", lambda: True)
    several = recorders()
    several.record()
    expected = f"this is process {os.getpid()} alone; set GROUNDFAULT_RUN_DIR for all of them"
    assert shown(several)["unknown"] == [expected]


def test_without_a_directory_who_has_forked_records_only_while_it_is_asked(recorders, clock):
    recorder = recorders()
    recorder.record()
    recorder.newest()
    recorder.stand_down()
    recorder.record()
    assert recorder.is_ready
    clock.advance(61.0)
    recorder.record()
    assert not recorder.is_ready
    with pytest.raises(RefusedError):
        recorder.newest()
    recorder.record()
    assert shown(recorder)["kind"] == "process"


@pytest.mark.parametrize(
    "report", [Report(processes=[ProcessInfo(7, "shop", 0.0)]), Report(servers={"shop": ServerReport("shop")})]
)
def test_a_service_that_is_restarted_keeps_its_name_before_a_process_has_said_it_again(recorders, directory, report):
    assert recorders(directory)._titled([report]) == "shop"
    assert recorders(directory)._titled([Report()]) == "run"


def test_the_report_for_a_hub_is_that_of_all_processes(recorders, directory, tmp_path, clock):
    recorder = recorders(directory, tmp_path / "missing", title="shop")
    for recorded in (False, True):
        if recorded:
            recorder.record()
        said = parse(gzip.decompress(recorder.report()))
        assert said["commands"][0][:3] == ["db", "get", {"success": 3}]
        assert (said["title"], said["sent_at"], said["host"]) == ("shop", clock(), os.uname().nodename)
        assert said["release"]
        assert said["directory"] == f"{directory}, {tmp_path / 'missing'}"
        assert len(said["unknown"]) == 1
    assert parse(gzip.decompress(recorders().report()))["processes"][0][0] == os.getpid()
    with pytest.raises(RefusedError, match=r"503.*cannot be read"):
        recorders(tmp_path / "missing").report()


@pytest.mark.parametrize("broken", ["observer", "view"])
def test_what_fails_inside_is_counted_and_refused_with_a_reason(recorders, directory, broken):
    def fail(*arguments, **more):
        raise ZeroDivisionError

    making = MAKING._replace(**({"anew": fail} if broken == "observer" else {"view": fail}))
    recorder = recorders(directory, making=making)
    recorder.record()
    assert internal_errors()["console recorder"] >= 1
    if broken == "view":
        with pytest.raises(RefusedError, match="nothing to show: an internal error"):
            recorder.newest()
    else:
        assert shown(recorder)["commands"] == []


def test_a_view_that_cannot_be_made_leaves_the_one_before(recorders, directory):
    working = True

    def sometimes(*arguments, **more):
        return (
            counting_view(*arguments, **more) if working else {**counting_view(*arguments, **more), "x": float("nan")}
        )

    recorder = recorders(directory, making=MAKING._replace(view=sometimes))
    recorder.record()
    working = False
    recorder.record()
    assert shown(recorder)["sequence"] == 1


def test_the_thread_makes_views_and_leaves_at_the_end(directory):
    recorder = Recorder([Path(directory)], making=MAKING)
    recorder.start()
    recorder.start()
    try:
        assert shown(recorder)["commands"][0]["calls"] == 3
    finally:
        recorder.stop(20.0)
    assert (directory / MEMORY).exists()
    assert not recorder._posts[0].is_elected
    recorder.start()
    recorder.stop(20.0)


def test_one_recorder_is_shared_by_all_of_a_process(monkeypatch, tmp_path):
    monkeypatch.setattr(recording, "start", lambda directory: True)
    monkeypatch.setattr(Recorder, "start", lambda self: None)
    monkeypatch.setattr(recording, "_shared", {})
    monkeypatch.setenv("GROUNDFAULT_RUN_DIR", str(tmp_path))
    assert recording.recorder_in_service() is recording.recorder_in_service(tmp_path)
    assert recording.recorder_in_service() is not recording.recorder_in_service(tmp_path / "other")
