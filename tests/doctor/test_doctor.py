"""`groundfault doctor`: what it says of this machine and of servers, and how it ends."""

import json
import os
import socket
import subprocess
import sys
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path

import pytest

from groundfault.cli import main
from groundfault.doctor import machine as machine_module
from groundfault.doctor import report
from groundfault.doctor.machine import examine
from groundfault.doctor.report import FAILED, WRONG, diagnose, try_server
from groundfault.doctor.servers import SERVERS, Server, ServerError, running
from groundfault.doctor.waiting import Reading

# --- this machine -----------------------------------------------------------------------------------------------------

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has what is looked for")


@linux
def test_this_machine_is_what_it_is(monkeypatch):
    monkeypatch.setenv("GROUNDFAULT_SERVICE", "grouper")
    monkeypatch.setenv("GROUNDFAULT_SETTINGS", "postgresql+psycopg://ann:pepper@db/settings")
    monkeypatch.setenv("GROUNDFAULT_KEY_SALT", "secret")
    seen = examine()
    assert seen.self_test is None
    assert seen.tick_s in {0.001, 0.002, 0.003, 0.004, 0.01}
    assert seen.somaxconn > 0
    assert seen.environment["GROUNDFAULT_SERVICE"] == "grouper"
    assert seen.environment["GROUNDFAULT_KEY_SALT"] == "(hidden)"
    assert seen.environment["GROUNDFAULT_SETTINGS"] == "postgresql+psycopg://ann:***@db/settings"


def test_a_machine_that_says_nothing_is_no_error(monkeypatch, tmp_path):
    def refused(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(machine_module.sock_diag, "tcp_info", refused)
    monkeypatch.setattr(machine_module, "overflows", lambda: None)
    monkeypatch.setattr(machine_module, "_number", lambda _: None)
    seen = examine()
    assert seen.sock_diag == "Operation not permitted"
    assert (seen.somaxconn, seen.overflows) == (None, None)
    said = list(report._lines_of_machine(seen))
    assert not any("somaxconn" in line or "overflows" in line for line in said)


# --- verdicts ---------------------------------------------------------------------------------------------------------

SOME = Server("some", "pytest", ("-c", "pass"), ("pytest",))
BLIND = Server("some", "pytest", ("-c", "pass"), ("pytest",), blind=True)
ABSENT = Server("absent", "no-such-server", ("-c", "pass"), ("no_such_server",))


def reading(seen_s, true_s=0.2, signal="tcp-info"):
    return Reading(False, true_s, 0.0, seen_s, "none" if seen_s is None else signal, {"tcp-info": "a cause"})


@pytest.fixture
def saw(monkeypatch):
    """Let each attempt see what is given, in turn, without a server."""

    def give(*attempts):
        left = [each for attempt in attempts for each in ([attempt], [])]
        monkeypatch.setattr(report, "running", lambda _: nullcontext(report))
        monkeypatch.setattr(report, "port", 1, raising=False)
        monkeypatch.setattr(report, "hold_up", lambda *_, **__: left.pop(0))

    return give


@pytest.mark.parametrize(
    ("server", "attempts", "verdict", "code"),
    [
        (SOME, [reading(0.204)], "ok", 0),
        (SOME, [reading(0.3), reading(0.26), reading(0.2)], "ok", 0),  # the machine had other things to do
        (SOME, [reading(0.3), reading(0.26), reading(0.4)], "wrong", WRONG),
        (SOME, [reading(0.0), reading(0.0), reading(0.0)], "wrong", WRONG),
        (SOME, [reading(None)], "no signal", WRONG),
        (BLIND, [reading(None)], "blind", 0),
        (SOME, [reading(0.0, true_s=float("inf"))] * 3, "wrong", WRONG),
    ],
)
def test_the_verdict_of_a_server(saw, server, attempts, verdict, code):
    saw(*attempts)
    finding = try_server(server)
    assert (finding.verdict, finding.code) == (verdict, code)
    json.dumps(asdict(finding), allow_nan=False)


def test_what_is_set_for_others_does_not_change_how_a_server_is_tried(monkeypatch):
    for name in ("GROUNDFAULT_DISABLED", "GUNICORN_CMD_ARGS", "WEB_CONCURRENCY"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("GROUNDFAULT_SERVICE", "grouper")
    told = Server("told", "pytest", ("-c", "import os; raise SystemExit(' '.join(sorted(os.environ)))"), ())
    names = set(try_server(told).failure.split())
    assert "GROUNDFAULT_SERVICE" in names
    assert not names & {"GROUNDFAULT_DISABLED", "GUNICORN_CMD_ARGS", "WEB_CONCURRENCY"}


def test_the_error_is_that_of_the_best_attempt(saw):
    saw(reading(0.3), reading(0.26), reading(0.24))
    assert try_server(SOME).error_s == pytest.approx(0.04)


def test_what_cannot_be_tried_says_why():
    finding = try_server(ABSENT)
    assert (finding.verdict, finding.failure, finding.code) == ("failed", "not installed: no_such_server", FAILED)


def test_a_server_that_ends_at_once_says_its_last_words():
    dying = Server("dying", "pytest", ("-c", "raise SystemExit('no such option')"), ())
    assert try_server(dying).failure == "it ended: no such option"
    with pytest.raises(ServerError), running(dying):
        pytest.fail("it does not run")


def test_the_nearest_moment_of_the_sending_is_the_truth():
    """Between before and after it the kernel has got the request, and this process may have waited for its turn."""
    slow = Reading(False, 0.21, 0.02, 0.2, "tcp-info", {})
    assert slow.error_s == 0.0
    assert Reading(False, 0.21, 0.02, 0.18, "tcp-info", {}).error_s == pytest.approx(-0.01)
    assert Reading(False, 0.21, 0.02, 0.22, "tcp-info", {}).error_s == pytest.approx(0.01)
    assert Reading(False, 0.21, 0.02, None, "none", {}).error_s is None


@pytest.fixture
def stand_ins(monkeypatch, saw):
    monkeypatch.setattr(report, "SERVERS", (SOME, ABSENT))
    saw(reading(0.204), reading(0.204))


def test_without_names_all_that_are_installed_are_tried(stand_ins):
    said = []
    assert diagnose((), as_json=False, say=said.append) == 0
    text = "\n".join(said)
    assert "resolution" in text
    assert "some" in text
    assert "OK" in text
    assert "absent" not in text


def test_a_server_asked_for_must_be_there(stand_ins):
    said = []
    assert diagnose(["absent"], as_json=False, say=said.append) == FAILED
    assert "FAILED     not installed: no_such_server" in said[-1]


def test_the_json_holds_the_same(stand_ins):
    said = []
    assert diagnose(["some", "absent"], as_json=True, say=said.append) == FAILED
    (line,) = said
    answer = json.loads(line)
    assert [each["verdict"] for each in answer["servers"]] == ["ok", "failed"]
    assert set(answer["machine"]) >= {"tick_s", "self_test", "sock_diag", "somaxconn", "overflows", "environment"}


def test_an_unknown_server_is_an_error_of_usage(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--server", "apache"])
    assert ended.value.code == 2
    assert "invalid choice: 'apache'" in capsys.readouterr().err


def test_names_are_given_once():
    names = [server.name for server in SERVERS]
    assert len(set(names)) == len(names)


# --- real servers -----------------------------------------------------------------------------------------------------


@pytest.mark.e2e
@linux
def test_the_command_tries_real_servers_and_leaves_nothing_running():
    names = ["gunicorn-gthread", "uvicorn-h11-asyncio"]
    words = ["-m", "groundfault", "doctor", "--json", "--no-processes", *(f"--server={name}" for name in names)]
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, start_new_session=True) as run:
        said, _ = run.communicate(timeout=60)
    assert run.returncode == 0, said
    answer = json.loads(said)
    assert [each["server"] for each in answer["servers"]] == names
    for each in answer["servers"]:
        assert (each["verdict"], each["signal"], each["keeps_alive"]) == ("ok", "tcp-info", True)
        assert each["error_s"] < 0.03
    assert members_of(session=run.pid) == []


def members_of(*, session):
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getsid(int(place.name)) == session:
                found.append((place / "cmdline").read_text())
    return found


@pytest.mark.e2e
def test_whoever_interrupts_it_leaves_nothing_running():
    server = Server("sleeping", "pytest", ("-c", "import time; time.sleep(60)"), ())
    with pytest.raises(KeyboardInterrupt):
        interrupted(server)


def interrupted(server):
    def answers(port):
        raise KeyboardInterrupt

    with running(server, answers):
        pytest.fail("it does not answer")


def test_the_port_is_free_again_after_the_server_has_stopped():
    command = ("-m", "http.server", "--bind", "127.0.0.1", "{port}")
    with running(Server("http.server", "pytest", command, ()), answered) as instance:
        port = instance.port
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) != 0


def answered(port):
    socket.create_connection(("127.0.0.1", port), timeout=1).close()
    return True
