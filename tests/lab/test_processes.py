"""Starting, awaiting and ending server processes."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
from time import sleep

import psutil
import pytest

from groundfault._clock import monotonic
from groundfault.lab.processes import DemoError, Process, free_port, start, start_server, stop

SERVER = """
import http.server, json, os, subprocess, sys
token, port = sys.argv[1], int(sys.argv[2])
if "--child" in sys.argv:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    open("child", "w").write(str(child.pid))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"token": token}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer.allow_reuse_address = False
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""

pytestmark = pytest.mark.e2e


@pytest.fixture
def server(tmp_path):
    """Return the command of a small server, a module that ``python -m`` finds in the directory it is started in."""
    (tmp_path / "small_server.py").write_text(SERVER)

    def command(*extra, token="secret"):  # noqa: S107  the token of a test
        return lambda port: ["small_server", token, str(port), *extra]

    return command


def gone(pid, within_s=5.0):
    """Return whether the process ends within that time; a zombie has ended."""
    give_up = monotonic() + within_s
    while monotonic() < give_up:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        sleep(0.02)
    return False


def test_a_server_is_awaited_and_ended_with_its_children(server, tmp_path):
    process, url = start_server("small", server("--child"), {}, directory=tmp_path, token="secret")  # noqa: S106  as above
    assert url.startswith("http://127.0.0.1:")
    child = int((tmp_path / "child").read_text())
    assert process.ended() is None
    stop([process])
    assert process.ended() is not None
    assert gone(child)
    stop([process])  # a second time does nothing


def test_a_taken_port_leads_to_another(server, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        ports = [other.getsockname()[1], free_port()]
        process, url = start_server(
            "small", server(), {}, directory=tmp_path, token="secret", pick_port=iter(ports).__next__  # noqa: S106  as above
        )  # fmt: skip
        stop([process])
    assert url == f"http://127.0.0.1:{ports[1]}"


def test_when_all_ports_are_taken_it_says_so(server, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(DemoError, match="found 5 ports taken"):
        start_server(
            "small", server(), {}, directory=tmp_path, token="secret", pick_port=lambda: other.getsockname()[1]  # noqa: S106  as above
        )  # fmt: skip


def test_a_server_that_dies_at_start_is_named_with_its_last_words(tmp_path):
    (tmp_path / "broken_server.py").write_text("print('hello'); raise ValueError('no database here')")
    with pytest.raises(DemoError) as caught:
        start_server("saber", lambda _: ["broken_server"], {}, directory=tmp_path, token="secret")  # noqa: S106  as above
    text = str(caught.value)
    assert "saber ended while starting (exit code 1): ValueError: no database here; full log:" in text
    assert "\n" not in text


def test_an_application_that_gunicorn_cannot_load_is_reported_and_nothing_is_left(tmp_path):
    (tmp_path / "broken_app.py").write_text("import no_such_module")
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.raises(DemoError, match="No module named 'no_such_module'"):
        start_server(
            "saber",
            lambda port: ["gunicorn", f"--bind=127.0.0.1:{port}", "--no-control-socket", "broken_app:app"],
            {},
            directory=tmp_path,
            token="secret",  # noqa: S106  as above
        )
    assert {child.pid for child in psutil.Process().children(recursive=True)} == before


def test_a_stranger_on_the_port_is_not_taken_for_ours(server, tmp_path, monkeypatch):
    monkeypatch.setattr("groundfault.lab.processes.READY_TIMEOUT_S", 0.5)
    with pytest.raises(DemoError, match="did not answer within"):
        start_server("small", server(token="other"), {}, directory=tmp_path, token="secret")  # noqa: S106  as above


def test_settings_in_the_environment_do_not_reach_the_servers(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDFAULT_DISABLED", "1")
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--workers=9")
    monkeypatch.setenv("WEB_CONCURRENCY", "9")
    (tmp_path / "show_environment.py").write_text("import os; print(*sorted(os.environ))")
    process = start("show", ["show_environment"], directory=tmp_path, environment={"GROUNDFAULT_DEMO_PART": "x"})
    process.popen.wait(10)
    names = process.log.read_text().split()
    stop([process])
    assert "GROUNDFAULT_DEMO_PART" in names
    assert not {"GROUNDFAULT_DISABLED", "GUNICORN_CMD_ARGS", "WEB_CONCURRENCY"} & set(names)


def test_one_that_ignores_the_gentle_signal_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("groundfault.lab.processes.TERM_S", 0.2)
    (tmp_path / "stubborn.py").write_text(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(60)"
    )
    process = start("stubborn", ["stubborn"], directory=tmp_path)
    while "up" not in process.log.read_text():
        sleep(0.02)
    stop([process])
    assert process.ended() == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="the tether is the Linux kernel's")
def test_a_server_does_not_outlive_a_runner_that_was_killed(server, tmp_path):
    runner = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from groundfault.lab.processes import start
        process = start("orphan", ["small_server", "secret", "0"], directory=Path(sys.argv[1]))
        print(process.pid, flush=True)
        time.sleep(60)
    """)
    server()
    with subprocess.Popen([sys.executable, "-c", runner, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        give_up = monotonic() + 10
        while "small_server" not in psutil.Process(pid).cmdline() and monotonic() < give_up:
            sleep(0.02)
        os.kill(parent.pid, signal.SIGKILL)
    assert gone(pid)


def test_last_words_prefer_the_error_to_what_follows_it(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("[INFO] starting\nModuleNotFoundError: No module named 'x'\n[INFO] Shutting down: Master\n")
    assert Process("x", None, log).last_words() == "ModuleNotFoundError: No module named 'x'"
    log.write_text("")
    assert Process("x", None, log).last_words() == ""
