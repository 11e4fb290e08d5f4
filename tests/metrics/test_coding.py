"""What a report says of modes, thresholds and settings comes back as it was, also where other releases wrote it."""

import json
import os
import threading
from zlib import crc32

import pytest
from sample_reports import counted, full

from groundfault.metrics._coding import CodingError, decode, encode, parse
from groundfault.metrics.report import CommandReport, Report, ServerReport, merged
from groundfault.metrics.rundir import read


def again(report, change=lambda said: None):
    """Return the report as it is read by this release if another one has written it with those changes."""
    _, _, body = encode(report).partition(b"\n")
    said = json.loads(body)
    change(said)
    body = json.dumps(said).encode()
    return decode(parse(b'{"version":1,"crc32":%d}\n' % crc32(body) + body))


def steered():
    report = Report(processes=counted(0).processes)
    settings = {"timeout_s": 0.5, "failure_threshold": 0.25}
    report.add_command(CommandReport("db", "get", states={"closed": 1}, settings=settings, modes={"shadow": 2}))
    report.servers["saber"] = ServerReport("saber", threshold_s=0.02, deadline_s=1.5, modes={"off": 1, "shadow": 2})
    return report


@pytest.mark.parametrize("report", [steered(), full(), counted(3), Report()], ids=["steered", "full", "usual", "empty"])
def test_a_report_comes_back_as_it_was(report):
    report.unread = {}  # of the directory, not of the file
    assert decode(parse(encode(report))) == report


def test_the_modes_and_thresholds_are_all_there():
    back = again(steered())
    command, server = back.commands["db", "get"], back.servers["saber"]
    assert command.modes == {"shadow": 2}
    assert command.settings == {"timeout_s": 0.5, "failure_threshold": 0.25}
    assert (server.threshold_s, server.deadline_s, server.modes) == (0.02, 1.5, {"off": 1, "shadow": 2})


def test_what_a_later_release_adds_is_passed_over():
    def later(said):
        said["commands"][0] += [{"more": 1}, None]
        said["servers"][0] += ["more", 7]
        said["stores"] += [["file:x", {"v": 1}, 0.5, 0, 0, "more"]]
        said["processes"][0] += [[], "more"] if len(said["processes"][0]) == 3 else ["more"]
        said["weather"] = "fine"

    back = again(steered(), later)
    assert back.commands == steered().commands
    assert back.servers == steered().servers
    assert back.stores["file:x"].versions == {"v": 1}
    assert [each.pid for each in back.processes] == [1]


def test_what_an_earlier_release_left_out_is_unknown():
    def earlier(said):
        said["servers"][0] = said["servers"][0][:11]
        said["commands"][0] = said["commands"][0][:-1]

    back = again(steered(), earlier)
    server = back.servers["saber"]
    assert (server.threshold_s, server.deadline_s, server.modes) == (None, None, {})
    assert back.commands["db", "get"].modes == {}


@pytest.mark.parametrize(
    "spoiled", [{"servers": [["saber"]]}, {"commands": [[1]]}, {"processes": [[]]}, {"errors": [1]}]
)
def test_what_makes_no_sense_is_no_report(spoiled):
    with pytest.raises(CodingError):
        again(steered(), lambda said: said.update(spoiled))


def test_what_is_nested_too_deeply_is_no_report_though_its_checksum_fits():
    body = b"[" * 100_000 + b"]" * 100_000
    with pytest.raises(CodingError, match="it is nested too deeply"):
        parse(b'{"version":1,"crc32":%d}\n' % crc32(body) + body)


def test_together_the_least_threshold_counts_and_modes_add_up():
    both = merged([steered(), steered()])
    both.servers["saber"].add(ServerReport("saber", threshold_s=0.01, deadline_s=None))
    server = both.servers["saber"]
    assert (server.threshold_s, server.deadline_s, server.modes) == (0.01, 1.5, {"off": 2, "shadow": 4})
    assert both.commands["db", "get"].modes == {"shadow": 4}
    both.bury()
    assert (server.threshold_s, server.deadline_s, server.modes) == (None, None, {})


def test_a_pipe_in_the_place_of_the_lock_holds_no_reader_up(tmp_path):
    tmp_path.chmod(0o700)
    os.mkfifo(tmp_path / "lock")
    found = []
    reader = threading.Thread(target=lambda: found.append(read(tmp_path, 0.0)), daemon=True)
    reader.start()
    reader.join(10.0)
    assert [each.processes for each in found] == [[]]
