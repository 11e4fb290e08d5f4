"""Real servers with several workers that come and go: the dead neither linger nor vanish from the totals."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from groundfault._clock import monotonic, wall
from groundfault.metrics import RunDirError, read

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
        assert answer.status == 200
        return answer.read().decode()
    except (OSError, HTTPException):
        return None
    finally:
        client.close()


def wait_until(what, why):
    until = monotonic() + BOUND_S
    while not what():
        assert monotonic() < until, why()
        time.sleep(0.05)


@contextmanager
def serving(tmp_path, port, *command, **environment):
    log = tmp_path / "log"
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [sys.executable, "-m", *command],
            env={**os.environ, "GROUNDFAULT_RUN_DIR": str(tmp_path / "run"), **environment},
            cwd=HERE,
            stdout=file,
            stderr=file,
        ) as server,
    ):
        try:
            wait_until(lambda: get(port, "/metrics") is not None, log.read_text)
            yield log
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()


def counted(text, name="groundfault_command_calls_total"):
    return int(sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)))


def work(port, times):
    """Make requests one after the other; return the pids of those who answered."""
    answers = [json.loads(body)["pid"] for _ in range(times) if (body := get(port, "/")) is not None]
    assert len(answers) == times, "a request was lost"
    return answers


def reported(directory):
    try:
        report = read(directory, wall())
    except RunDirError:
        return 0, 0
    return sum(report.commands["db", "get"].calls.values()) if report.commands else 0, len(report.processes)


def kill_one_of(pids, directory, calls):
    """Kill -9 a worker that lives, once what it has counted is written."""
    wait_until(lambda: reported(directory)[0] == calls, lambda: str(reported(directory)))
    for pid in reversed(pids):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        return
    pytest.fail("none of them lives")


def test_under_gunicorn_workers_that_are_replaced_and_killed_stay_in_the_totals(tmp_path):
    pytest.importorskip("gunicorn")
    pytest.importorskip("prometheus_client")
    run, theirs, port = tmp_path / "run", tmp_path / "theirs", free_port()
    theirs.mkdir()
    (tmp_path / "conf.py").write_text(
        "from groundfault.integrations.gunicorn import install\n"
        f"bind = '127.0.0.1:{port}'\nworkers = 2\nmax_requests = 15\npreload_app = True\n"
        "install(globals())\n"
    )
    command = ("gunicorn", "-c", str(tmp_path / "conf.py"), "metrics_served:wsgi")
    shown = 0
    with serving(tmp_path, port, *command, PROMETHEUS_MULTIPROC_DIR=str(theirs)) as log:
        for turn in range(1, 4):
            pids = work(port, 20)  # some worker has been replaced by the end of it
            kill_one_of(pids, run, 20 * turn)
            now = [counted(get(port, "/metrics") or "") for _ in range(4)]  # by whichever worker
            assert now == [20 * turn] * 4 >= [shown] * 4, log.read_text()
            shown = now[-1]
        text = get(port, "/theirs")
        assert counted(text, "theirs_total") == counted(text) == 60
        wait_until(lambda: reported(run) == (60, 2), lambda: f"{reported(run)} {log.read_text()}")
        text = get(port, "/metrics")
        assert 'groundfault_circuit_state{resource="db",command="get",state="closed"} 2\n' in text
        assert 'groundfault_command_limit{resource="db",command="get"} 10\n' in text
        assert "groundfault_internal_errors_total" not in text
    assert reported(run) == (60, 0)
    assert sorted(path.name for path in run.iterdir()) == ["lock", "totals.json"]


def test_under_uvicorn_a_worker_that_is_killed_stays_in_the_totals(tmp_path):
    pytest.importorskip("uvicorn")
    run, port = tmp_path / "run", free_port()
    command = ("uvicorn", "--workers", "2", "--port", str(port), "--log-level", "warning", "metrics_served:asgi")
    with serving(tmp_path, port, *command) as log:
        kill_one_of(work(port, 20), run, 20)
        wait_until(lambda: reported(run)[1] == 2, lambda: f"{reported(run)} {log.read_text()}")
        work(port, 10)
        wait_until(lambda: reported(run) == (30, 2), lambda: f"{reported(run)} {log.read_text()}")
        assert counted(get(port, "/metrics")) == 30
    assert reported(run) == (30, 0)
