"""`groundfault doctor`: servers that run here, and what their settings do to shedding."""

import json
import os
import subprocess
import sys

import pytest

from groundfault.doctor import gunicorn
from groundfault.doctor.child import ChildError
from groundfault.doctor.environment import judge_environment, look_at_environments
from groundfault.doctor.gunicorn import Surroundings, judge_gunicorn, look_at_configuration, look_at_running
from groundfault.doctor.processes import Process, RunningServer, read_processes, servers_among
from groundfault.doctor.servers import Server, running
from groundfault.doctor.uvicorn import judge_uvicorn, look_at_environment, look_at_running_uvicorn, options_of

# --- processes --------------------------------------------------------------------------------------------------------


@pytest.fixture
def proc(tmp_path):
    """Add a process to a /proc of one's own."""

    def add(pid, words, *, parent=1, environ=(), mounts="mnt:[1]"):
        place = tmp_path / str(pid)
        (place / "ns").mkdir(parents=True)
        (place / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))
        (place / "stat").write_text(f"{pid} (python (3) x) S {parent} 1 1 0")
        (place / "environ").write_bytes(b"".join(f"{pair}\0".encode() for pair in environ))
        (place / "ns" / "mnt").symlink_to(mounts)
        (place / "cwd").symlink_to("/srv/shop")

    (tmp_path / "self" / "ns").mkdir(parents=True)
    (tmp_path / "self" / "ns" / "mnt").symlink_to("mnt:[1]")
    return add


def test_processes_are_read_without_their_secrets(proc, tmp_path):
    proc(7, ["/usr/bin/python3", "app.py"], environ=["DB_PASSWORD=x", "GROUNDFAULT_SERVICE=shop", "WEB_CONCURRENCY=2"])
    proc(8, ["/bin/bash"], environ=["GROUNDFAULT_SERVICE=shop"])
    proc(9, ["python", "-m", "uvicorn", "a:b"], parent=7, mounts="mnt:[2]")
    (tmp_path / "10").mkdir()  # it has ended meanwhile
    first, second = read_processes(tmp_path)
    assert first == Process(
        7,
        1,
        ("/usr/bin/python3", "app.py"),
        {"GROUNDFAULT_SERVICE": "shop", "WEB_CONCURRENCY": "2"},
        "/srv/shop",
        here=True,
    )
    assert (second.pid, second.parent, second.here) == (9, 7, False)


def test_processes_of_others_are_left_alone(proc, tmp_path, monkeypatch):
    proc(7, ["python", "-m", "uvicorn", "a:b"])
    monkeypatch.setattr(os, "geteuid", lambda: 4711, raising=False)
    assert read_processes(tmp_path) == []


def test_a_system_without_proc_has_no_processes(tmp_path):
    assert read_processes(tmp_path / "absent") == []


@pytest.mark.parametrize(
    ("words", "kind", "arguments"),
    [
        (["/v/bin/python", "/v/bin/gunicorn", "-w", "2", "shop:app"], "gunicorn", ("-w", "2", "shop:app")),
        (["/v/bin/python3.11", "-X", "dev", "-m", "gunicorn", "shop:app"], "gunicorn", ("shop:app",)),
        (["python", "-m", "uvicorn", "shop:app", "--backlog", "9"], "uvicorn", ("shop:app", "--backlog", "9")),
        (["gunicorn: master [shop:app]"], "gunicorn", None),
        (["python", "manage.py", "check", "uvicorn"], None, None),
        (["python", "-c", "import os", "/x/gunicorn"], None, None),
        (["python", "-m", "pytest", "-k", "gunicorn"], None, None),
        (["python"], None, None),
    ],
)
def test_a_server_is_known_by_its_command_line(words, kind, arguments):
    found = servers_among([Process(7, 1, tuple(words))])
    assert [(each.kind, each.arguments) for each in found] == ([(kind, arguments)] if kind else [])


def test_workers_are_not_servers_of_their_own():
    words = ("python", "/v/bin/gunicorn", "shop:app")
    found = servers_among([Process(7, 1, words), Process(8, 7, words), Process(9, 7, words)])
    assert [each.process.pid for each in found] == [7]


# --- gunicorn ---------------------------------------------------------------------------------------------------------

USUAL = {
    "worker_class": "groundfault.integrations.gunicorn.ThreadWorker",
    "threads": 4,
    "preload_app": False,
    "backlog": 2048,
    "max_requests": 0,
    "max_requests_jitter": 0,
    "timeout": 30,
    "graceful_timeout": 30,
    "bind": ["127.0.0.1:8000"],
    "reuse_port": False,
    "child_exit": False,
}
MULTIPROCESS = {"PROMETHEUS_MULTIPROC_DIR": "/dev/shm/prom"}  # noqa: S108  a name
EXPORTER = {"OTEL_METRICS_EXPORTER": "otlp"}


@pytest.mark.parametrize(
    ("changes", "environ", "verdict", "words"),
    [
        ({}, {}, None, ""),
        ({"worker_class": "sync", "threads": 1}, {}, "warning", "worker class sync"),
        ({"worker_class": "sync", "threads": 2}, {}, "warning", "worker class gthread"),
        ({"worker_class": "groundfault.integrations.gunicorn.SyncWorker", "threads": 2}, {}, "problem", "own gthread"),
        ({"worker_class": "groundfault.integrations.gunicorn.SyncWorker", "threads": 1}, {}, None, ""),
        ({"worker_class": "uvicorn.workers.UvicornWorker"}, {}, "warning", "deprecated"),
        ({"worker_class": "uvicorn_worker.UvicornWorker"}, {}, "warning", "uvicorn_worker.UvicornWorker"),
        ({"worker_class": "tornado"}, {}, "warning", "tornado"),
        ({"worker_class": "gevent"}, {}, None, ""),
        ({"preload_app": True}, {}, None, ""),
        ({"preload_app": True}, EXPORTER, "warning", "OpenTelemetry"),
        ({"backlog": 8192}, {}, "warning", "backlog 8192, but net.core.somaxconn is 4096"),
        ({"backlog": 64}, {}, "warning", "backlog 64"),
        ({"max_requests": 500}, {}, "warning", "max_requests 500 without a jitter"),
        ({"max_requests": 500, "max_requests_jitter": 50}, {}, None, ""),
        ({}, MULTIPROCESS, "warning", "child_exit"),
        ({"child_exit": True}, MULTIPROCESS, None, ""),
        ({"child_exit": None}, MULTIPROCESS, None, ""),
        ({"timeout": 0}, {}, "warning", "timeout 0"),
        ({"timeout": 2}, {}, "warning", "timeout 2 s"),
        ({"graceful_timeout": 1}, {}, "warning", "graceful_timeout 1 s"),
        ({"bind": ["unix:/run/shop.sock"]}, {}, "warning", "unix:/run/shop.sock"),
        ({"reuse_port": True}, {}, "warning", "reuse_port"),
    ],
)
def test_settings_of_gunicorn(changes, environ, verdict, words):
    said = judge_gunicorn("pid 7", {**USUAL, **changes}, Surroundings(4096, environ))
    bad = [each for each in said if each.verdict != "ok"]
    assert [each.verdict for each in bad] == ([verdict] if verdict else [])
    assert all(words in each.seen and each.why and each.advice and each.where == "pid 7" for each in bad)


def test_a_file_that_was_not_read_may_have_said_anything_so_only_what_goes_before_it_is_judged():
    settings = {**USUAL, "worker_class": "sync", "threads": 1, "timeout": 0}
    said = list(judge_gunicorn("", settings, Surroundings(None, {}), unread="/srv/g.py", given=["timeout", "config"]))
    assert [each.seen for each in said if each.verdict != "ok"] == ["timeout 0"]
    assert "--gunicorn-config /srv/g.py" in said[0].seen


def test_a_hidden_command_line_is_said_to_be_hidden():
    server = RunningServer("gunicorn", Process(7, 1, ("gunicorn: master [shop]",)), None)
    (finding,) = look_at_running(server, (), 4096)
    assert (finding.verdict, finding.advice) == ("warning", "--gunicorn-config FILE")


def test_without_gunicorn_its_settings_are_not_looked_at(monkeypatch):
    monkeypatch.setattr(gunicorn, "find_spec", lambda _: None)
    (asked,) = look_at_configuration("gunicorn.conf.py", None)
    (found,) = look_at_running(RunningServer("gunicorn", Process(7, 1, ("gunicorn",)), ()), (), None)
    assert (asked.verdict, found.verdict) == ("problem", "warning")


def test_what_gunicorn_does_not_load_says_why(monkeypatch):
    def fails(*_, **__):
        raise ChildError("ended with code 1", ("NameError: name 'worker' is not defined",))

    monkeypatch.setattr(gunicorn, "ask", fails)
    (finding,) = look_at_configuration("gunicorn.conf.py", None)
    assert finding.verdict == "problem"
    assert "NameError" in finding.seen
    (running,) = look_at_running(RunningServer("gunicorn", Process(7, 1, ("gunicorn",)), ()), (), None)
    assert (running.verdict, running.where) == ("warning", "pid 7")  # it runs, after all


# --- uvicorn ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "environ", "expected"),
    [
        (["shop:app", "--backlog", "9"], {}, {"app": "shop:app", "backlog": "9"}),
        (["--backlog=9", "--no-access-log", "shop:app"], {}, {"backlog": "9", "access-log": "no", "app": "shop:app"}),
        (["--reload", "shop:app"], {}, {"reload": "", "app": "shop:app"}),
        ([], {"UVICORN_LIMIT_CONCURRENCY": "5", "UVICORN_UDS": ""}, {"limit-concurrency": "5"}),
        (["--limit-concurrency", "7"], {"UVICORN_LIMIT_CONCURRENCY": "5"}, {"limit-concurrency": "7"}),
        (["--uds"], {}, {"uds": ""}),
    ],
)
def test_options_of_uvicorn_are_read_as_it_reads_them(arguments, environ, expected):
    assert options_of(arguments, environ) == expected


@pytest.mark.parametrize(
    ("options", "verdict", "words"),
    [
        ({}, None, ""),
        ({"limit-concurrency": "100"}, "problem", "limit-concurrency 100"),
        ({"limit-concurrency": "5000"}, "warning", "limit-concurrency 5000"),
        ({"limit-concurrency": "many"}, None, ""),
        ({"backlog": "5000"}, "warning", "somaxconn is 4096"),
        ({"backlog": "16"}, "warning", "backlog 16"),
        ({"timeout-keep-alive": "1"}, "warning", "timeout-keep-alive 1 s"),
        ({"timeout-graceful-shutdown": "0"}, "warning", "timeout-graceful-shutdown 0"),
        ({"limit-max-requests": "100"}, "warning", "without a jitter"),
        ({"limit-max-requests": "100", "limit-max-requests-jitter": "10"}, None, ""),
        ({"uds": "/run/s"}, "warning", "listens on /run/s"),
        ({"uds": "/run/s", "http": "groundfault.integrations.uvicorn:AutoProtocol"}, None, ""),
    ],
)
def test_settings_of_uvicorn(options, verdict, words):
    bad = [each for each in judge_uvicorn("pid 7", options, Surroundings(4096, {})) if each.verdict != "ok"]
    assert [each.verdict for each in bad] == ([verdict] if verdict else [])
    assert all(words in each.seen and each.why and each.advice for each in bad)


def test_an_environment_that_says_nothing_of_uvicorn_is_not_mentioned():
    assert list(look_at_environment(Surroundings(4096, {"PATH": "/bin"}))) == []
    said = list(look_at_environment(Surroundings(4096, {"UVICORN_LIMIT_CONCURRENCY": "5"})))
    assert [each.verdict for each in said if each.verdict != "ok"] == ["problem"]
    assert {each.where for each in said} == {"this environment"}


def test_a_running_uvicorn_is_named_by_its_number_and_its_application():
    process = Process(7, 1, ("python",), {"UVICORN_LIMIT_CONCURRENCY": "5"})
    said = list(look_at_running_uvicorn(RunningServer("uvicorn", process, ("shop:app",)), 4096))
    assert {each.where for each in said} == {"pid 7 shop:app"}
    assert "problem" in {each.verdict for each in said}


# --- environments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "verdict", "why"),
    [
        ({}, None, ""),
        ({"GROUNDFAULT_DISABLED": "0", "GROUNDFAULT_SERVICE": "shop"}, None, ""),
        ({"GROUNDFAULT_DISABLED": "1"}, "warning", "shedding and circuits are off"),
        ({"GROUNDFAULT_DISABLED": "yes"}, "warning", "shedding and circuits are off"),
        ({"GROUNDFAULT_DISABLED": "please"}, "warning", "switches nothing off"),
        ({"GROUNDFAULT_SERVICE": "no name"}, "problem", "SettingsError"),
    ],
)
def test_variables_of_groundfault(environ, verdict, why):
    said = list(judge_environment("here", environ))
    assert [each.verdict for each in said] == ([verdict] if verdict else [])
    assert all(why in each.why for each in said)


def test_what_many_processes_say_is_said_once():
    processes = [Process(pid, 1, ("python",), {"GROUNDFAULT_DISABLED": "1"}) for pid in (7, 8, 9)]
    (finding,) = look_at_environments({}, processes)
    assert finding.where == "pid 7 and 2 more"


# --- for real ---------------------------------------------------------------------------------------------------------

CONFIGURATION = """
import os
open({marker!r}, "a").write("run\\n")
max_requests = 1000
worker_class = "sync"
"""


@pytest.mark.e2e
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows what runs in /proc")
def test_what_runs_is_found_with_its_settings_and_its_file_is_run_on_demand_only(tmp_path):
    marker, config = tmp_path / "marker", tmp_path / "shop_conf.py"
    config.write_text(CONFIGURATION.format(marker=str(marker)))
    bind = ("--bind", "127.0.0.1:{port}", "--log-level", "warning")
    words = ("-m", "gunicorn", *bind, "-c", str(config), "--timeout", "3", "groundfault.doctor.app:wsgi")
    limited = ("-m", "uvicorn", "--port", "{port}", "--limit-concurrency", "50", "--log-level", "warning")
    with (
        running(Server("g", "gunicorn", words, ())) as green,
        running(Server("u", "uvicorn", (*limited, "groundfault.doctor.app:asgi"), ())) as unicorn,
    ):
        marker.unlink()
        without = doctor()
        assert not marker.exists()
        given = doctor("--gunicorn-config", str(config))
    assert marker.read_text() == "run\n" * 2  # for the file itself, and for the process that was started with it

    assert {"limit-concurrency 50": "problem"}.items() <= seen_of(without, unicorn.pid).items()
    assert "max_requests 1000 without a jitter" not in seen_of(without, green.pid)
    assert {"timeout 3 s": "warning"}.items() <= seen_of(without, green.pid).items()
    told = {"timeout 3 s": "warning", "max_requests 1000 without a jitter": "warning"}
    assert told.items() <= seen_of(given, green.pid).items()


def doctor(*words):
    command = [sys.executable, "-m", "groundfault", "doctor", "--no-servers", "--json", *words]
    run = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=False)
    assert run.returncode == 5  # uvicorn's limit
    answer = json.loads(run.stdout)
    assert (set(answer), answer["servers"]) == ({"machine", "servers", "checks"}, [])
    return answer["checks"]


def seen_of(findings, pid):
    return {each["seen"]: each["verdict"] for each in findings if f"pid {pid} " in each["where"] + " "}
