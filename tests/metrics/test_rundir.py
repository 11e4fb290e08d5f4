"""The run directory: who may use it, what is read from it, and that the dead are counted exactly once."""

import os
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_reports import counted, full

from groundfault.events import internal_errors
from groundfault.metrics import _place, rundir
from groundfault.metrics._bounds import MAX_CALLERS, MAX_COMMANDS, bounded
from groundfault.metrics._coding import CodingError, decode, encode, parse
from groundfault.metrics._place import MAX_BYTES, RunDirError, place_of, replace_file
from groundfault.metrics.report import Report, ServerReport, merged

NOW = 1000.0


def name_of(number):
    return f"{number}-{number:016x}.json"


def put(place, number, report):
    replace_file(place.path / name_of(number), encode(report))


def listed(place):
    return sorted(path.name for path in place.path.iterdir())


def calls_of(report):
    return sum(command.calls.get("success", 0) for command in report.commands.values())


# --- the format -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("report", [Report(), counted(3), full()], ids=["empty", "usual", "everything"])
def test_what_is_written_is_read(report):
    report.unread = {}
    assert decode(parse(encode(report))) == report


def test_a_process_draws_its_edges_from_its_commands():
    report = counted(3)
    said = parse(encode(report))
    del said["edges"]
    assert decode(said).edges == {("saber", "db", "success"): 3}


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda data: b"", "it is no report"),
        (lambda data: data[: len(data) // 2], "it is damaged: its checksum is another"),
        (lambda data: data.replace(b'"success":3', b'"success":4'), "it is damaged: its checksum is another"),
        (lambda data: data.replace(b'"version":1', b'"version":2'), "its format has version '2', not 1"),
        (lambda data: b"[" * 100_000, "it is no report"),
        (lambda data: b"null\n" + data, "it is no report"),
        (lambda data: os.urandom(1000), "it is no report"),
    ],
    ids=["empty", "half", "a digit", "a later version", "deep", "no head", "noise"],
)
def test_a_spoiled_file_is_none(spoil, why):
    with pytest.raises(CodingError, match=why):
        decode(parse(spoil(encode(counted(3)))))


# --- the directory ----------------------------------------------------------------------------------------------------


def test_it_is_made_for_its_owner_alone(tmp_path):
    place = place_of(tmp_path / "a" / "b")
    place.ensure()
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("mode", "fit"), [(0o700, True), (0o750, True), (0o1777, True), (0o777, False), (0o702, False)]
)
def test_one_that_everybody_may_write_is_refused_unless_it_is_sticky(tmp_path, mode, fit):
    place = place_of(tmp_path / f"{mode:o}")
    place.path.mkdir()
    place.path.chmod(mode)
    for check in (place.ensure, place.check):
        if fit:
            check()
        else:
            with pytest.raises(RunDirError, match="can be written by everybody: chmod 700"):
                check()


def test_one_of_somebody_else_is_refused(tmp_path, monkeypatch):
    place = place_of(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    for check in (place.ensure, place.check):
        with pytest.raises(RunDirError, match="belongs to uid"):
            check()


def test_root_may_read_what_is_somebody_elses_and_folds_nothing(place, monkeypatch):
    put(place, 1, counted(3))
    owner = place.path.stat().st_uid

    class Stat:
        st_uid, st_mode = owner + 1, place.path.stat().st_mode

    monkeypatch.setattr(Path, "stat", lambda self, **_: Stat)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(rundir, "read_file", lambda path, owner, *, probe: (path.read_bytes(), False))
    assert calls_of(rundir.read(place.path, NOW)) == 3
    assert listed(place) == [name_of(1)]


def test_what_is_no_directory_or_not_there_is_said_to_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunDirError, match="cannot be made"):
        place_of(tmp_path / "file").ensure()
    with pytest.raises(RunDirError, match="is no directory"):
        rundir.read(tmp_path / "file", NOW)
    with pytest.raises(RunDirError, match="cannot be read: No such file"):
        rundir.read(tmp_path / "missing", NOW)


def test_who_waits_for_a_directory_that_is_busy_gives_up(place):
    holder = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, 2); print(flush=True); input()",
            str(place.path / "lock"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        holder.stdout.readline()
        with pytest.raises(RunDirError, match="is busy"):
            rundir.read(place.path, NOW, timeout_s=0.05)
        holder.communicate(b"\n")
    assert calls_of(rundir.read(place.path, NOW)) == 0


# --- reading ----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_named_and_the_rest_is_read(place):
    put(place, 1, counted(3))
    for number, content in {
        2: b"",
        3: b"noise",
        4: encode(counted(1)).replace(b'"version":1', b'"version":99'),
    }.items():
        (place.path / name_of(number)).write_bytes(content)
    (place.path / name_of(5)).symlink_to(place.path / name_of(1))
    (place.path / name_of(6)).mkdir()
    os.mkfifo(place.path / name_of(7))
    with (place.path / name_of(8)).open("wb") as huge:
        huge.truncate(MAX_BYTES + 1)
    (place.path / "notes.txt").write_text("not ours")
    read = rundir.read(place.path, NOW)
    assert calls_of(read) == 3
    assert read.unread == {
        name_of(2): "it is no report",
        name_of(3): "it is no report",
        name_of(4): "its format has version '99', not 1",
        name_of(5): "Too many levels of symbolic links",
        name_of(6): "it is no plain file",
        name_of(7): "it is no plain file",
        name_of(8): f"it is larger than {MAX_BYTES} bytes",
    }
    assert internal_errors() == {}


def test_the_dead_are_folded_and_their_gauges_buried(place):
    put(place, 1, counted(3))
    put(place, 2, counted(4))
    for _ in range(3):
        read = rundir.read(place.path, NOW)
        command = read.commands["db", "get"]
        assert (command.calls, command.states, command.active, read.processes) == ({"success": 7}, {}, 0, [])
        assert listed(place) == ["lock", "totals.json"]


def test_spoiled_totals_are_named_and_then_put_aside(place):
    (place.path / "totals.json").write_bytes(b"noise")
    put(place, 1, counted(3))
    first = rundir.read(place.path, NOW)
    assert (calls_of(first), first.unread) == (3, {"totals.json": "it is no report"})
    second = rundir.read(place.path, NOW)
    assert (calls_of(second), second.unread) == (3, {})
    assert (place.path / "totals.spoiled").read_bytes() == b"noise"


def test_totals_of_a_later_version_are_left_alone(place):
    later = encode(counted(9), folded=[]).replace(b'"version":1', b'"version":2')
    (place.path / "totals.json").write_bytes(later)
    put(place, 1, counted(3))
    for _ in range(2):
        assert calls_of(rundir.read(place.path, NOW)) == 3
    assert (place.path / "totals.json").read_bytes() == later


def test_what_the_dead_left_unreadable_goes_after_a_day_and_half_written_after_a_minute(place):
    spoiled, half = place.path / name_of(2), place.path / ".2-0000000000000002.json.tmp"
    for path in (spoiled, half):
        path.write_bytes(b"noise")
        os.utime(path, (NOW, NOW))
    rundir.fold(place.path, NOW + 59)
    assert listed(place) == [half.name, spoiled.name, "lock"]
    rundir.fold(place.path, NOW + 61)
    assert listed(place) == [spoiled.name, "lock"]
    rundir.fold(place.path, NOW + 86_401)
    assert listed(place) == ["lock"]


def test_a_directory_that_cannot_be_written_is_read_all_the_same(place, monkeypatch):
    put(place, 1, counted(3))

    def full_disk(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rundir, "replace_file", full_disk)
    for _ in range(2):
        assert calls_of(rundir.read(place.path, NOW)) == 3
    assert internal_errors() == {"run directory": 2}


def test_no_file_is_left_where_there_is_no_space(place, monkeypatch):
    def full_disk(descriptor, data):
        raise OSError(28, "No space left on device")

    put(place, 1, counted(3))
    monkeypatch.setattr(os, "write", full_disk)
    with pytest.raises(OSError, match="No space"):
        replace_file(place.path / name_of(1), b"more")
    monkeypatch.undo()
    assert listed(place) == [name_of(1)]
    assert calls_of(rundir.read(place.path, NOW)) == 3


def test_one_path_to_a_directory_has_one_lock(tmp_path):
    assert place_of(tmp_path) is place_of(str(tmp_path)) is place_of(os.path.join(tmp_path, ""))  # noqa: PTH118  a slash at the end


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_of_the_dead_no_more_names_are_kept_than_may_be():
    report = merged(counted(1, command=f"c{number}") for number in range(MAX_COMMANDS + 50))
    callers = {(f"caller{number}", "admitted"): (2, 0.5) for number in range(MAX_CALLERS + 10)}
    report.servers = {f"s{number}": ServerReport(f"s{number}", {("admitted", "critical"): 1}) for number in range(70)}
    report.servers["s0"].callers = dict(callers)
    report.internal_errors = {f"place{number}": 1 for number in range(250)}
    for _ in range(2):  # and once more, as at each fold
        kept = bounded(report)
        assert len(kept.commands) == MAX_COMMANDS + 1
        assert calls_of(kept) == MAX_COMMANDS + 50
        assert kept.commands["_other", "_other"].calls == {"success": 50}
        assert len({caller for caller, _ in kept.servers["s0"].callers}) == MAX_CALLERS + 1
        assert sum(times for times, _ in kept.servers["s0"].callers.values()) == 2 * (MAX_CALLERS + 10)
        assert len(kept.servers) == 65
        assert sum(kept.internal_errors.values()) == 250
        assert len(kept.internal_errors) == 201


# --- exactly once -----------------------------------------------------------------------------------------------------


class KilledError(BaseException):
    """kill -9, at the moment it is raised."""


class Fleet:
    """Processes that are simulated: they write and die as told, and may be killed between any two steps of a fold."""

    def __init__(self, place):
        self.place = place
        self.made = {}  # calls made, by number
        self.written = {}
        self.living = set()
        self.shown = 0
        self.steps_left = None

    def start(self):
        number = len(self.made) + 1
        self.made[number] = self.written[number] = 0
        self.living.add(number)
        self.write(number)

    def write(self, number):
        put(self.place, number, counted(self.made[number], pid=number))
        self.written[number] = self.made[number]

    def step(self):
        if self.steps_left is not None:
            if self.steps_left == 0:
                raise KilledError
            self.steps_left -= 1

    # What the module under test is given instead of the kernel's answers.

    def read_file(self, path, owner, *, probe):
        number = int(path.name.partition("-")[0]) if probe else 0
        return path.read_bytes(), number in self.living

    def replace_file(self, path, data):
        self.step()
        replace_file(path, data)
        self.step()

    def unlink(self, path, *, missing_ok=False):
        self.step()
        try:
            os.unlink(path)  # noqa: PTH108  the method itself is what is replaced
        except FileNotFoundError:
            if not missing_ok:
                raise
        self.step()

    def take_over(self, patch):
        patch.setattr(rundir, "read_file", self.read_file)
        patch.setattr(rundir, "replace_file", self.replace_file)
        fleet = self
        patch.setattr(Path, "unlink", lambda self, *, missing_ok=False: fleet.unlink(self, missing_ok=missing_ok))

    # What may happen.

    def do(self, what, who=None, times=0):
        if what == "start":
            if len(self.made) < 6:
                self.start()
        elif what == "fold":
            self.fold(who)
        elif who in self.living:
            getattr(self, what)(who, *([times] if times else []))

    def call(self, number, times):
        self.made[number] += times

    def kill(self, number):
        if len(self.living) > 1:
            self.living.discard(number)

    def exit(self, number):
        self.write(number)
        self.kill(number)

    def fold(self, steps):
        """Fold, and be killed after so many steps; None: not at all."""
        self.steps_left = steps
        with suppress(KilledError):
            rundir.fold(self.place.path, NOW)
        self.steps_left = None

    # The test's own questions.

    def scrape(self, number):
        """Let a process answer a scrape: no counter has gone backwards, and none says more than there was."""
        self.write(number)
        report = rundir.read(self.place.path, NOW)
        command = report.commands["db", "get"]
        calls = command.calls.get("success", 0)
        assert calls == sum(self.written.values()) >= self.shown
        assert calls == (command.durations["success"].count if calls else 0)
        assert sum(report.edges.values()) == calls
        assert {each.pid for each in report.processes} == self.living
        assert command.active == command.states["closed"] == len(self.living)
        assert report.unread == {}
        self.shown = calls


number = st.integers(1, 6)
step = st.one_of(
    st.just(("start",)),
    st.tuples(st.just("call"), number, st.integers(1, 9)),
    st.tuples(st.sampled_from(["write", "kill", "exit", "scrape", "scrape"]), number),
    st.tuples(st.just("fold"), st.one_of(st.none(), st.integers(0, 9))),
)


@given(st.lists(step, max_size=40))
def test_no_counter_goes_backwards_and_the_end_is_the_truth_whoever_is_killed_when(tmp_path_factory, steps):
    place = place_of(tmp_path_factory.mktemp("run"))
    fleet = Fleet(place)
    fleet.start()
    with pytest.MonkeyPatch.context() as patch:
        fleet.take_over(patch)
        for what, *how in steps:
            fleet.do(what, *how)
        for each in sorted(fleet.living):
            fleet.scrape(each)
    assert internal_errors() == {}


@pytest.mark.parametrize("steps", range(10))
def test_a_fold_that_is_killed_at_any_step_loses_and_doubles_nothing(place, monkeypatch, steps):
    fleet = Fleet(place)
    for _ in range(3):
        fleet.start()
        fleet.made[len(fleet.made)] = 10
        fleet.write(len(fleet.made))
    fleet.living = {3}
    fleet.take_over(monkeypatch)
    fleet.fold(steps)
    for _ in range(2):
        fleet.scrape(3)
    assert fleet.shown == 30
    assert listed(place) == [name_of(3), "lock", "totals.json"]


def test_a_process_that_replaces_its_file_while_it_is_looked_at_lives(place, monkeypatch):
    """It lets go of the old file only once the new one, locked, has its place."""
    path = place.path / name_of(1)
    path.write_bytes(b"old")
    seen = []

    def lock(descriptor, *, shared):
        seen.append(os.pread(descriptor, 10, 0))
        if len(seen) == 1:
            replace_file(path, b"new")
            return True
        return False

    monkeypatch.setattr(_place, "_lock", lock)
    assert _place.read_file(path, path.stat().st_uid, probe=True) == (b"new", True)
    assert seen == [b"old", b"new"]
