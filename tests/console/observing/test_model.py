"""The observer against processes that do as they please, and a model that remembers every call.

The model knows what was written when, and nothing of how the observer counts: it holds it to bounds that follow from
what is promised alone. No process makes more than ``RATE`` calls in a second of its life.
"""

import json
import random

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from groundfault.console.observing import Observer
from groundfault.console.rows import command_rows
from groundfault.console.view import POINT_S, POINTS, WINDOW_S
from groundfault.metrics.report import CommandReport, ProcessInfo, Report, merged

RATE = 50
START = 5_000_000.0
SLOW_S = 12.0  # by how much the report clock may lag behind: processes that hang hold it back until they are stale


class Process:
    def __init__(self, pid, now):
        self.pid = pid
        self.begun_at = self.counted_to = self.wrote_at = now
        self.good = self.ill = 0
        self.hangs = False
        self.said = None

    def write(self, now):
        calls = {"success": self.good, "failure": self.ill}
        report = Report(processes=[ProcessInfo(self.pid, "topps", now)])
        report.add_command(
            CommandReport("db", "get", {key: times for key, times in calls.items() if times}, states={"closed": 1})
        )
        report.draw_edges("topps")
        self.said, self.wrote_at = report, now
        self.said_counts = self.good, self.ill


class ObserverModel(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**16))
    def begin(self, seed):
        self.random = random.Random(seed)
        self.now = START
        self.pid = 0
        self.processes = []
        self.dead = Report()
        self.dead_counts = (0, 0)
        self.observer = Observer("topps")
        self.looks = []  # (now, total written)
        self.gaps = 0
        self.moment = self.moved_at = START
        self.alive = []  # (now, how many)
        self.start_process()

    def written(self):
        return tuple(
            folded + sum(process.said_counts[kind] for process in self.processes)
            for kind, folded in enumerate(self.dead_counts)
        )

    def live(self, until):
        """Let every process count up to then, at no more than its rate."""
        for process in self.processes:
            most = int(RATE * (until - process.counted_to))
            times = self.random.randint(0, max(0, most))
            ill = self.random.randint(0, times)
            process.good += times - ill
            process.ill += ill
            process.counted_to = until

    @rule()
    def start_process(self):
        if len(self.processes) < 6:
            self.pid += 1
            process = Process(self.pid, self.now)
            process.write(self.now)
            self.processes.append(process)

    @rule(which=st.integers(0, 5), says_last=st.booleans())
    def die(self, which, says_last):
        if which < len(self.processes):
            process = self.processes.pop(which)
            if says_last and not process.hangs:
                process.write(self.now)
            self.dead_counts = tuple(a + b for a, b in zip(self.dead_counts, process.said_counts, strict=True))
            process.said.bury()
            self.dead = merged([self.dead, process.said])

    @rule(which=st.integers(0, 5))
    def hang(self, which):
        if which < len(self.processes):
            self.processes[which].hangs = not self.processes[which].hangs

    @rule(seconds=st.integers(1, 20), phase=st.floats(0.02, 0.98))
    def go_on(self, seconds, phase):
        """Look every second or so; each process writes once in between, at a phase that wanders."""
        for _ in range(seconds):
            pause = self.random.uniform(0.7, 1.3)
            self.live(self.now + pause * phase)
            moment = self.now + pause * phase
            for process in self.processes:
                if not process.hangs and self.random.random() < 0.9 and moment > process.wrote_at:
                    process.write(moment)
            self.live(self.now + pause)
            self.now += pause
            self.look()

    def look(self):
        self.observer.see(merged([self.dead, *(process.said for process in self.processes)]), self.now)
        self.looks.append((self.now, sum(self.written())))
        moment = max((process.wrote_at for process in self.processes), default=self.now)
        self.moved_at = self.now if moment > self.moment else self.moved_at
        self.moment = moment
        self.alive.append((self.now, len(self.processes)))
        self.gaps = sum(each["kind"] == "gap" for each in self.observer.timeline.newest_first())

    @rule()
    def hand_over(self):
        """Another process takes over, with what this one remembered."""
        said = json.loads(json.dumps(self.observer.remembered(), allow_nan=False))
        self.observer = Observer.recalled(said)
        self.looks = []

    def row(self):
        return next(command_rows(self.observer, "topps"), None)

    @invariant()
    def the_window_holds_what_was_written_in_it(self):
        row = self.row()
        if row is None or not self.looks:
            return
        counted = sum(row["counts"].values())
        assert all(times > 0 for times in row["counts"].values())
        # While all hang, the window stays what it was: nothing newer is known.
        newest = self.looks[-1][1]
        oldest = [total for at, total in self.looks if at >= self.moved_at - WINDOW_S - SLOW_S]
        before = [total for at, total in self.looks if at < self.moved_at - WINDOW_S - SLOW_S]
        assert counted <= newest - (before[-1] if before else oldest[0])

    @precondition(lambda self: not any(process.hangs for process in self.processes))
    @invariant()
    def nothing_is_left_out_of_the_window(self):
        row = self.row()
        if row is None or len(self.looks) < 30 or self.gaps or self.hung_lately():
            return
        # What was written more than two looks ago has been counted, and what is younger than eight seconds is in.
        since = [total for at, total in self.looks if at <= self.now - 7.0][-1]
        assert sum(row["counts"].values()) >= self.looks[-6][1] - since

    def hung_lately(self):
        return any(self.now - process.wrote_at > 3 for process in self.processes)

    @invariant()
    def no_rate_is_beyond_what_processes_can_make(self):
        row = self.row()
        if row is None:
            return
        most = max((times for at, times in self.alive[-160:]), default=1)
        bound = 4 * RATE * (most + 1)
        assert 0.0 <= row["rate_per_s"] <= bound
        for values in (row["spark"], row["bad"] or [0.0] * POINTS):
            assert len(values) == POINTS
            assert all(value is None or 0.0 <= value <= bound for value in values)

    @invariant()
    def memory_is_bounded(self):
        assert len(self.observer.marks) <= 40
        assert all(len(track.held) <= 40 for track in self.observer.tracks.values())


TestObserver = ObserverModel.TestCase


@given(
    rates=st.lists(st.integers(0, RATE), min_size=1, max_size=5),
    seconds=st.integers(20, 110),
    seed=st.integers(0, 2**16),
    turnover=st.booleans(),
)
def test_the_points_conserve_what_was_counted(rates, seconds, seed, turnover):
    """Whatever the phases, and however few have written at a look: two minutes of points hold all calls, once."""
    chance = random.Random(seed)
    processes = [Process(pid, START) for pid in range(len(rates))]
    for process in processes:
        process.write(START)
    dead, buried, now = Report(), 0, START
    observer = Observer("topps")
    observer.see(merged([*(process.said for process in processes)]), now)
    due = {process.pid: START + chance.random() for process in processes}
    for second in range(seconds):
        now = START + second + 1 + chance.uniform(-0.2, 0.2)
        for place, process in enumerate(processes):
            while due[process.pid] <= now:
                moment = due[process.pid]
                process.good += round(rates[place] * (moment - process.counted_to))
                process.counted_to = moment
                process.write(moment)
                due[process.pid] = moment + chance.uniform(0.9, 1.1)
        if turnover and second % 15 == 14:
            gone = processes[0]
            buried += gone.good
            gone.said.bury()
            dead = merged([dead, gone.said])
            processes[0] = Process(1000 + second, now)
            processes[0].write(now)
            due[processes[0].pid] = now + 1
        observer.see(merged([dead, *(process.said for process in processes)]), now)
    truth = buried + sum(process.said_counts[0] for process in processes)
    row = next(command_rows(observer, "topps"))
    points = sum(value for value in row["spark"] if value is not None) * POINT_S
    assert abs(points - truth) <= 0.1 * truth + 3 * sum(rates) + 1
    assert not observer.timeline.newest_first() or turnover
