"""Four gunicorn workers follow a file: how soon a change is in force in each, and what each makes of a bad one."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from groundfault._clock import monotonic

pytest.importorskip("gunicorn")

HERE = Path(__file__).parent
ROOT = str(HERE.parent.parent)
WORKERS = 4
BOUND_S = 30.0
LIVE_WITHIN_S = 1.5


class Fleet:
    """A gunicorn master, its workers, and the file that they follow."""

    def __init__(self, tmp_path, port, process):
        self.path = tmp_path / "gf.json"
        self.diaries = tmp_path / "diaries"
        self.port = port
        self.process = process

    def set(self, content):
        """Put a new file in the old one's place; return when that was done."""
        new = self.path.with_suffix(".new")
        new.write_text(content if isinstance(content, str) else json.dumps(content))
        new.replace(self.path)
        return monotonic()

    def workers(self):
        """Return what each worker has written down so far, by its number."""
        said = {}
        for diary in self.diaries.iterdir():
            lines = [json.loads(line) for line in diary.read_text().splitlines(keepends=True) if line.endswith("\n")]
            if lines and lines[0]["parent"] == self.process.pid:
                said[int(diary.name)] = lines
        return said

    def await_all(self, good):
        """Wait until the last line of every worker is good; return those lines."""
        ends_at = monotonic() + BOUND_S
        while True:
            said = {pid: lines[-1] for pid, lines in self.workers().items()}
            if len(said) == WORKERS and all(map(good, said.values())):
                return said
            assert self.process.poll() is None
            assert monotonic() < ends_at, said
            threading.Event().wait(0.02)

    def ask(self):
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/")
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@contextmanager
def fleet(tmp_path, *options):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "diaries").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "gf.json").write_text(json.dumps({"*/contest-db": {"timeout_s": 1.0}}))
    environ = {
        **os.environ,
        "PYTHONPATH": ROOT,
        "DIARY": str(tmp_path / "diaries"),
        "GROUNDFAULT_SETTINGS": f"file:{tmp_path / 'gf.json'}",
        "GROUNDFAULT_RUN_DIR": str(tmp_path / "run"),
    }
    command = [
        sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "-w", str(WORKERS), "--chdir", str(HERE),
        *options, "settings_served:application",
    ]  # fmt: skip
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, env=environ, stdout=log, stderr=log) as process:
        try:
            yield Fleet(tmp_path, port, process)
        finally:
            process.send_signal(signal.SIGQUIT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.mark.e2e
@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["each loads", "preload"])
def test_a_change_is_in_force_in_four_workers_in_time_and_a_bad_one_in_none(tmp_path, options):
    with fleet(tmp_path, *options) as served:
        served.await_all(lambda line: line["timeout_s"] == 1.0)

        changed_at = served.set({"*/contest-db": {"timeout_s": 0.5}, "topps": {"server.deadline_s": 0.8}})
        lines = served.await_all(lambda line: line["timeout_s"] == 0.5)
        took_s = sorted(line["at"] - changed_at for line in lines.values())
        print(f"in force after {', '.join(f'{each:.2f}' for each in took_s)} s")  # noqa: T201  shown with -s
        assert all(line["deadline_s"] == 0.8 for line in lines.values())
        assert took_s[-1] <= LIVE_WITHIN_S
        assert served.ask()["timeout_s"] == 0.5

        served.set({"*/contest-db": {"timeout_s": 0.4, "max_concurrent": 0}})
        for line in served.await_all(lambda line: line["status"] == "rejected").values():
            assert line["timeout_s"] == 0.5
            assert "*/contest-db:max_concurrent must be a whole number between 1 and 1000000, not 0" in line["error"]
        assert served.ask()["timeout_s"] == 0.5

        # A worker that starts now finds a bad file, and what was good before on the disk or in its parent.
        victim = min(served.workers())
        os.kill(victim, signal.SIGKILL)
        (served.diaries / str(victim)).unlink()
        successors = served.await_all(lambda line: line["status"] == "rejected" and line["timeout_s"] == 0.5)
        assert victim not in successors

        served.set({})
        served.await_all(lambda line: line["timeout_s"] == 2.0 and line["deadline_s"] == 1.0)
        assert "Traceback" not in (tmp_path / "log").read_text()
