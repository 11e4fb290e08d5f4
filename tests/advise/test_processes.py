"""Running processes' own histograms, without any wait unless rates are wanted."""

import time
from pathlib import Path

import pytest

from groundfault._histogram import Histogram
from groundfault.advise.processes import RUN_DIR, observed_of, read_processes
from groundfault.advise.proposal import Wishes
from groundfault.advise.rules import propose
from groundfault.advise.sources import SourceError
from groundfault.breaker.registry import Registry, Resource
from groundfault.metrics._coding import decode, encode, parse
from groundfault.metrics.collecting import collect
from groundfault.metrics.report import CommandReport, ProcessInfo, Report, merged


def report(calls, processes=2, limit=20):
    spans = Histogram()
    for at in range(calls):
        spans.add(0.05 + at % 100 * 0.001)
    command = CommandReport("contest-db", "entrants", {"success": calls, "throttled": 3}, {"success": spans})
    command.states, command.limit = {"closed": processes - 1, "open": 1}, limit
    living = [ProcessInfo(pid, "topps", 1000.0) for pid in range(processes)]
    return Report(commands={("contest-db", "entrants"): command}, processes=living)


@pytest.fixture
def look(tmp_path):
    """Return a function that reads reports that are handed over one after the other."""

    def read(*reports, over_s=None):
        left, clock = list(reports), [1000.0]

        def sleep(seconds):
            clock[0] += seconds

        return read_processes(
            str(tmp_path), over_s=over_s, read=lambda *_: left.pop(0), wall=lambda: clock[0], sleep=sleep
        )

    return read


def test_durations_processes_and_limits_are_taken_from_the_reports(look):
    reading = look(report(4_000))
    (seen,) = reading.commands
    assert seen.successes.count == 4_000
    assert seen.calls == {"success": 4_000, "throttled": 3}
    assert (seen.processes, seen.settings, seen.rates) == (2, {"max_concurrent": 10}, None)
    assert "--over 60s" in reading.hint
    timeout = propose(seen, {}, Wishes()).of("timeout_s")
    assert timeout.value == 0.35  # the p95 lies between 125 and 160 ms, and nobody knows where


def test_two_looks_make_rates(look):
    reading = look(report(4_000), report(4_600), over_s=10.0)
    (seen,) = reading.commands
    assert (seen.rates.usual_per_s, seen.rates.peak_per_s) == (60.0, 60.0)
    assert "10 s just now" in seen.rates.note
    assert seen.successes.count == 4_600
    assert reading.hint == ""


def test_what_the_dead_have_counted_stays_and_is_called_that(look):
    dead = report(4_000)
    dead.bury()
    reading = look(dead)
    (seen,) = reading.commands
    assert (seen.successes.count, seen.processes, seen.settings) == (4_000, None, {})
    assert reading.notes[0].startswith("no living process reports")


def test_a_command_without_a_limit_has_none():
    (seen,) = observed_of(report(10, limit=None))
    assert seen.settings == {}


def test_a_report_of_this_very_process_is_understood():
    registry = Registry()
    command = Resource("contest-db", registry=registry).command("entrants", max_concurrent=7, timeout_s=5.0)
    for _ in range(3):
        command.call(lambda: None)
    report = merged([decode(parse(encode(collect(1000.0, [registry]))))] * 4)  # as four workers write it
    (seen,) = observed_of(report)
    assert (seen.path, seen.made, seen.processes) == ("contest-db/entrants", 12, 4)
    assert {"timeout_s": 5.0, "minimum_volume_per_s": 2.0, "max_concurrent": 7}.items() <= seen.settings.items()


def test_forty_commands_of_thirty_processes_take_less_than_a_second(look):
    def many():
        one = report(2_000).commands["contest-db", "entrants"]
        return Report(commands={("contest-db", f"command-{at}"): one for at in range(40)})

    reports = [many() for _ in range(30)]
    whole = Report()
    began = time.process_time()
    for each in reports:
        whole.add(each)
    proposals = [propose(seen, {}, Wishes()) for seen in look(whole).commands]
    assert len(proposals) == 40
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("named", [None, ""])
def test_without_a_directory_it_is_said_what_names_one(monkeypatch, named):
    monkeypatch.delenv(RUN_DIR, raising=False)
    with pytest.raises(SourceError, match=f"--run-dir DIR, or {RUN_DIR}"):
        read_processes(named, over_s=None, read=None, wall=None, sleep=None)


def test_the_environment_names_a_directory(monkeypatch, tmp_path):
    monkeypatch.setenv(RUN_DIR, str(tmp_path))
    asked = []

    def read(place: Path, now: float) -> Report:
        asked.append((place, now))
        return report(10)

    read_processes(None, over_s=None, read=read, wall=lambda: 5.0, sleep=None)
    assert asked == [(tmp_path, 5.0)]


def test_a_directory_that_cannot_be_read_is_named(tmp_path):
    def read(*_):
        raise PermissionError(13, "Permission denied")

    with pytest.raises(SourceError, match=f"{tmp_path} cannot be read: Permission denied"):
        read_processes(str(tmp_path), over_s=None, read=read, wall=lambda: 5.0, sleep=None)
    with pytest.raises(SourceError, match="is no directory"):
        read_processes(str(tmp_path / "none"), over_s=None, read=read, wall=lambda: 5.0, sleep=None)
