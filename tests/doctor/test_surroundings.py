"""`groundfault doctor`: clocks, answers of URLs, directories; and how findings look."""

import http.server
import os
import socket
import sys
import threading
from email.utils import formatdate

import pytest

from groundfault.cli import main
from groundfault.doctor import answers, checks, directories
from groundfault.doctor.answers import Answer, judge_answer, look_at_url
from groundfault.doctor.checks import Asked, make_checks
from groundfault.doctor.clock import KernelClock, judge_clock, read_kernel_clock
from groundfault.doctor.directories import Directory, judge_directory, look_at_directories, read_directory
from groundfault.doctor.finding import guarded, ok, problem, warning
from groundfault.doctor.machine import examine
from groundfault.doctor.processes import Process
from groundfault.doctor.report import diagnose
from groundfault.doctor.showing import shown

# --- clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clock", "verdict", "words"),
    [
        (None, "ok", "does not say"),
        (KernelClock(False, 0.0, 16.0), "warning", "not synchronized"),
        (KernelClock(True, -0.0002, 0.001), "ok", "within 1.2 ms"),
        (KernelClock(True, 0.2, 0.001), "warning", "within 201.0 ms"),
    ],
)
def test_the_kernels_word_on_its_clock(clock, verdict, words):
    finding = judge_clock(clock)
    assert finding.verdict == verdict
    assert words in finding.seen


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has what is asked")
def test_the_kernel_is_asked_and_answers():
    clock = read_kernel_clock()
    assert clock is None or (isinstance(clock.synchronized, bool) and clock.error_s >= 0)


def test_other_systems_say_nothing(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert read_kernel_clock() is None


# --- URLs -------------------------------------------------------------------------------------------------------------

NOON = 1_800_000_000.0
HANDLED = {"x-groundfault": "handled", "x-groundfault-reason": "queue-wait"}


def dated(seconds):
    return {"date": formatdate(seconds, usegmt=True)}


@pytest.mark.parametrize(
    ("headers", "asked", "took_s", "verdict", "words"),
    [
        (dated(NOON), NOON + 0.5, 0.01, "ok", "agrees"),
        (dated(NOON), NOON + 2.9, 0.01, "ok", "agrees"),  # up to a second old, and a second long
        (dated(NOON), NOON - 0.9, 0.01, "ok", "agrees"),
        (dated(NOON), NOON - 10, 6.0, "warning", "at least 4 s ahead of"),  # it may have been said at the very end
        (dated(NOON), NOON - 10, 0.0, "warning", "at least 10 s ahead of"),
        (dated(NOON), NOON + 60, 0.0, "warning", "at least 58 s behind"),
        ({"date": "yesterday"}, NOON, 0.0, "ok", "no usable Date"),
        ({}, NOON, 0.0, "ok", "no usable Date"),
    ],
)
def test_the_clock_of_another_is_compared_with_ours(headers, asked, took_s, verdict, words):
    finding, *_ = judge_answer("http://saber", Answer(200, headers, asked, took_s))
    assert finding.verdict == verdict
    assert words in finding.seen


@pytest.mark.parametrize(
    ("status", "headers", "verdict", "words"),
    [
        (200, {"server": "uvicorn"}, "ok", "200, Server: uvicorn"),
        (503, HANDLED, "ok", "it sheds just now, and says so: X-GroundFault: handled, queue-wait"),
        (503, {}, "warning", "503 without X-GroundFault"),
        (200, HANDLED, "problem", "200 with X-GroundFault"),
        (503, {**HANDLED, "retry-after": "1"}, "warning", "503 with Retry-After: 1"),
    ],
)
def test_what_an_answer_says_of_itself(status, headers, verdict, words):
    _, *said = judge_answer("http://saber", Answer(status, headers))
    assert said[-1].verdict == verdict
    assert words in said[-1].seen


@pytest.mark.parametrize("url", ["ftp://host/", "host:80", "http://", "http://[::1", "http://host:port/"])
def test_what_is_no_url_is_not_asked(url, monkeypatch):
    monkeypatch.setattr(answers, "HTTPConnection", None)
    (finding,) = look_at_url(url)
    assert (finding.verdict, finding.seen) == ("problem", "is no URL of http or https")


def test_a_server_is_asked_once_and_by_get_if_it_knows_no_head(monkeypatch):
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.command, self.path))
            self.send_response(503)
            self.send_header("X-GroundFault", "handled")
            self.end_headers()
            self.wfile.write(b"x" * 100)

        def do_HEAD(self):
            asked.append((self.command, self.path))
            self.send_error(405)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            skew, said = look_at_url(f"http://user:secret@127.0.0.1:{server.server_port}/a?b=c")
        finally:
            server.shutdown()
            thread.join()
    assert asked == [("HEAD", "/a?b=c"), ("GET", "/a?b=c")]
    assert skew.verdict == "ok"
    assert "sheds just now" in said.seen
    assert "secret" not in said.where


def test_a_server_that_is_not_there_is_a_problem():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    (finding,) = look_at_url(f"http://127.0.0.1:{port}/")
    assert finding.verdict == "problem"
    assert "refused" in finding.seen.lower()


# --- directories ------------------------------------------------------------------------------------------------------

PROMETHEUS = directories.PROMETHEUS
RUN = directories.RUN
MINE = 0o40700


def alive(pid):
    return pid < 100


@pytest.mark.parametrize(
    ("name", "directory", "verdict", "words"),
    [
        (PROMETHEUS, Directory("/d", MINE, writable=True, system="tmpfs"), None, ""),
        (PROMETHEUS, Directory("/d", None), "problem", "/d does not exist"),
        (PROMETHEUS, Directory("", None), "problem", "is empty"),
        (PROMETHEUS, Directory("/d", 0), "problem", "is no directory"),
        (PROMETHEUS, Directory("/d", MINE, writable=False, system="tmpfs"), "problem", "cannot be written"),
        (PROMETHEUS, Directory("/d", MINE, writable=True, system="ext4"), "warning", "is on ext4"),
        (directories.OLD, Directory("/d", MINE, writable=True), "warning", "prometheus_multiproc_dir=/d"),
        (
            PROMETHEUS,
            Directory("/d", MINE, writable=True, files=(("gauge_all", 300, 1), ("counter", 300, 1))),
            "warning",
            "gauge_all of processes that are gone (1)",
        ),
        (
            PROMETHEUS,
            Directory("/d", MINE, writable=True, files=(("gauge_livesum", 7, 1), ("counter", 300, 1))),
            None,
            "",
        ),
        (
            PROMETHEUS,
            Directory("/d", MINE, writable=True, files=(("counter", 300, 90 << 20),)),
            "warning",
            "94.4 MB in files of processes that are gone (1 of 1)",
        ),
        (
            PROMETHEUS,
            Directory("/d", MINE, writable=True, files=tuple(("counter", 300 + n, 9) for n in range(200))),
            "warning",
            "(200 of 200)",
        ),
        (RUN, Directory("/d", MINE, writable=True, system="tmpfs"), None, ""),
        (RUN, Directory("/d", 0o41777, writable=True, system="tmpfs"), "problem", "by everybody"),
        (RUN, Directory("/d", MINE, writable=True, mine=False, system="tmpfs"), "problem", "another user"),
        (RUN, Directory("/d", None), "problem", "does not exist"),
    ],
)
def test_directories_that_processes_share(name, directory, verdict, words):
    bad = [each for each in judge_directory(name, directory, alive) if each.verdict != "ok"]
    assert [each.verdict for each in bad] == ([verdict] if verdict else [])
    assert all(words in each.seen and each.why and each.advice for each in bad)


def test_a_directory_is_read_as_prometheus_fills_it(tmp_path):
    for name in ("counter_12.db", "gauge_livesum_13.db", "histogram_12.db", "notes.txt", "x.db"):
        (tmp_path / name).write_bytes(b"1234")
    found = read_directory(str(tmp_path))
    assert sorted(found.files) == [("counter", 12, 4), ("gauge_livesum", 13, 4), ("histogram", 12, 4)]
    assert found.writable
    assert found.mine
    (tmp_path / "file").touch()
    assert read_directory(str(tmp_path / "file")).mode == 0
    assert read_directory(str(tmp_path / "absent")).mode is None
    assert read_directory("\0").mode is None


def test_the_longest_mount_names_the_file_system(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\ntmpfs {tmp_path} tmpfs rw 0 0\nb {tmp_path}x xfs rw 0 0\n")
    assert directories._system_of(str(tmp_path / "d"), mounts) == "tmpfs"
    assert directories._system_of("/elsewhere", mounts) == "ext4"
    assert directories._system_of("/", tmp_path / "absent") == ""


def test_each_directory_is_looked_at_once_whoever_names_it():
    looked = []

    def read(path):
        looked.append(path)
        return Directory(path, MINE, writable=True, system="tmpfs")

    processes = [
        Process(7, 1, ("python",), {PROMETHEUS: "prom"}, "/srv"),
        Process(8, 1, ("python",), {PROMETHEUS: "/srv/prom"}, "/"),
        Process(9, 1, ("python",), {PROMETHEUS: "/srv/prom"}, "/", here=False),
    ]
    said = list(look_at_directories({RUN: "/run/gf"}, processes, read))
    assert looked == ["/run/gf", "/srv/prom"]
    assert {each.where for each in said} == {"this environment", "pid 7 and 1 more", "pid 9"}


# --- how it looks -----------------------------------------------------------------------------------------------------

FOUND = (
    problem("nginx", "n.conf:1", "bad", "because", "mend it"),
    ok("clock", "", "fine"),
    warning("url", "http://x", "odd\n| \x1b[31mline", "word " * 40, "look"),
    ok("clock", "", "and more"),
)


def test_what_matters_most_comes_last_and_what_is_well_is_one_line():
    lines = list(shown(FOUND, width=80))
    assert lines[0] == "OK       clock          fine; and more"
    tags = [line.split()[0] for line in lines if line and not line.startswith(" ")]
    assert tags == ["OK", "WARNING", "PROBLEM", "1"]
    assert lines[-1] == "1 problem, 1 warning, 2 ok"
    assert all(len(line) <= 80 for line in lines)
    text = "\n".join(lines)
    assert "do   mend it" in text
    assert "\x1b" not in text  # whatever a file or a header holds


def test_verdicts_are_colored_only_on_demand():
    assert "\033[1;31mPROBLEM\033[0m  nginx" in "\n".join(shown(FOUND, color=True))


def test_a_check_that_fails_is_a_warning_and_no_traceback():
    def look():
        yield ok("clock", "", "fine")
        raise RuntimeError("odd\nthing")

    (finding,) = guarded("clock", "", look)
    assert (finding.verdict, finding.seen) == ("warning", "this check failed: RuntimeError: odd thing")


@pytest.mark.parametrize(
    ("found", "code"),
    [((), 0), ((FOUND[1],), 0), ((FOUND[2],), 0), (FOUND, 5)],
    ids=["none", "ok", "warning", "problem"],
)
def test_a_problem_makes_an_exit_code_and_a_warning_makes_none(found, code):
    said = []
    assert diagnose((), as_json=False, say=said.append, checks=lambda _: found, servers=False) == code
    assert ("PROBLEM" in "\n".join(said)) == (code == 5)


def test_all_checks_are_made_of_what_is_asked_for(tmp_path, monkeypatch):
    running = [
        Process(7, 1, ("python", "/v/uvicorn", "shop:app")),
        Process(os.getpid(), 1, ("python", "-m", "uvicorn")),
    ]
    monkeypatch.setattr(checks, "read_processes", lambda: running)
    absent = str(tmp_path / "absent")
    asked = Asked(nginx=(absent,), envoy=(absent,), haproxy=(absent,), urls=("nowhere",))
    found = make_checks(asked, examine())
    assert {(each.check, each.verdict) for each in found} >= {
        ("uvicorn", "ok"),
        ("nginx", "problem"),
        ("envoy", "problem"),
        ("haproxy", "problem"),
        ("url", "problem"),
    }
    assert {each.where for each in found if each.check == "uvicorn"} == {"pid 7 shop:app"}  # the doctor is none
    without = make_checks(Asked(processes=False), examine())
    assert {"uvicorn", "processes"}.isdisjoint(each.check for each in without)


def test_the_command_takes_checks_alone(tmp_path, capsys):
    absent = tmp_path / "absent"
    assert main(["doctor", "--no-servers", "--no-processes", "--haproxy", str(absent)]) == 5
    said = capsys.readouterr().out
    assert f"PROBLEM  haproxy        {absent}: No such file or directory" in said.replace("\n" + " " * 24, " ")
    assert "\033" not in said


def test_servers_are_either_named_or_left_out(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--no-servers", "--server", "gunicorn-sync"])
    assert ended.value.code == 2
    assert "not allowed with" in capsys.readouterr().err
