"""Real servers, and the command, that come and go: somebody always records, and somebody always answers."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from groundfault._clock import monotonic

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent
BOUND_S = 30.0


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def get(port, path):
    """Return the answer's body; None if there was none, as from a worker that is killed."""
    client = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        client.request("GET", path, headers={"Connection": "close"})
        answer = client.getresponse()
        return answer.read().decode() if answer.status == 200 else None
    except (OSError, HTTPException):
        return None
    finally:
        client.close()


def view(port, path="/snapshot.json"):
    found = get(port, path)
    return None if found is None else json.loads(found)


def wait_for(what, why):
    until = monotonic() + BOUND_S
    while not (found := what()):
        assert monotonic() < until, why()
        time.sleep(0.05)
    return found


@contextmanager
def running(tmp_path, *command, **environment):
    log = tmp_path / "log"
    own = {"GROUNDFAULT_RUN_DIR": str(tmp_path / "run"), "PYTHONPATH": f"{HERE}:{HERE.parents[2]}"}
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [sys.executable, *command], env={**os.environ, **own, **environment}, cwd=HERE, stdout=file, stderr=file
        ) as server,
    ):
        try:
            yield server, log
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()


def test_under_gunicorn_a_worker_records_and_when_it_is_killed_another_goes_on(tmp_path):
    pytest.importorskip("gunicorn")
    port, own = free_port(), free_port()
    command = ("-m", "gunicorn", "-b", f"127.0.0.1:{port}", "-w", "2", "--preload", "console_served:wsgi")
    with running(tmp_path, *command, CONSOLE_PORT=str(own)) as (server, log):
        said = log.read_text
        wait_for(lambda: get(port, "/"), said)
        first = wait_for(
            lambda: (found := view(own)) and found["commands"][0]["calls"] and found["made_by"] != server.pid and found,
            said,
        )
        mounted = wait_for(lambda: view(port, "/console/snapshot.json"), said)
        assert (mounted["kind"], mounted["title"], mounted["made_by"]) == ("host", "saber", first["made_by"])
        wait_for((tmp_path / "run" / "console.json.gz").exists, said)
        before = first["made_by"]
        os.kill(before, signal.SIGKILL)
        second = wait_for(lambda: (found := view(own)) and found["made_by"] != before and found, said)
        assert second["made_by"] != server.pid
        assert second["sequence"] > first["sequence"]
        assert view(own)["unknown"] == []
    assert "internal error" not in log.read_text()
    assert get(own, "/") is None


def test_under_uvicorn_it_is_mounted_and_leaves_what_it_showed(tmp_path):
    pytest.importorskip("uvicorn")
    port = free_port()
    with running(tmp_path, "-m", "uvicorn", "--port", str(port), "console_served:asgi") as (_, log):
        wait_for(lambda: get(port, "/"), log.read_text)
        wait_for(
            lambda: (found := view(port, "/console/snapshot.json")) and found["commands"][0]["calls"], log.read_text
        )
        assert "<html" in get(port, "/console/")
    assert (tmp_path / "run" / "console.json.gz").exists()
    assert "internal error" not in log.read_text()


COMMAND = (
    "import fake_making, sys; fake_making.install(); from groundfault import cli; sys.exit(cli.main(sys.argv[1:]))"
)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_the_command_serves_until_it_is_told_to_end(directory, tmp_path, number, code):
    token = tmp_path / "token"
    token.write_text("sixteen-or-more-characters\n")
    more = ("--run-dir", str(directory), "--port", "0", "--token-file", str(token), "--title", "shop")
    with running(tmp_path, "-c", COMMAND, "status", *more) as (command, log):
        where = wait_for(
            lambda: "serving" in log.read_text() and log.read_text().split(" on ")[-1].strip(), log.read_text
        )
        port = int(where.rstrip("/").rpartition(":")[2])
        found = wait_for(lambda: view(port), log.read_text)
        assert (found["title"], found["commands"][0]["calls"]) == ("shop", 3)
        command.send_signal(number)
        assert command.wait(15) == code
        assert log.read_text().count("\n") == 1
    assert (directory / "console-memory.json.gz").exists()


FORKS = """
import json, os, sys, time
import fake_making
fake_making.install()
from groundfault.console import recording, serve
from groundfault import Resource
command = Resource("db").command("get")
port = int(sys.argv[1])
served = serve(port=port)
own = recording.recorder_in_service()
while not served.is_listening:
    time.sleep(0.01)
own.newest()
child = os.fork()
if not child:
    command.call(lambda: None)
    for _ in range(600):
        if served.is_listening:
            break
        time.sleep(0.05)
    import gzip
    made = json.loads(gzip.decompress(own.newest()))
    print(json.dumps([served.is_listening, made["made_by"] == os.getpid(), made["kind"]]), flush=True)
    os._exit(0)
os.waitpid(child, 0)
for _ in range(600):
    if served.is_listening:
        break
    time.sleep(0.05)
print(json.dumps(served.is_listening), flush=True)
"""


def test_without_a_directory_a_child_gets_the_port_and_the_parent_has_it_back(tmp_path):
    environment = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parents[2]}", "GROUNDFAULT_RUN_DIR": ""}
    run = subprocess.run(
        [sys.executable, "-c", FORKS, str(free_port())],
        env=environment,
        capture_output=True,
        timeout=60,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert [json.loads(line) for line in run.stdout.splitlines()] == [[True, True, "process"], True]
    assert run.stderr == ""
