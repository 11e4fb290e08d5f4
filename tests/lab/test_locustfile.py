"""The scenario file by itself, against a service that is not ours."""

import http.server
import json
import subprocess
import sys
import threading
from itertools import count

import pytest

from groundfault.lab.generator import locustfile

pytestmark = pytest.mark.e2e


class Service(http.server.BaseHTTPRequestHandler):
    """Serves ``/lobby``; refuses every other ``/lineup`` with the header, and every eighth without."""

    protocol_version = "HTTP/1.1"
    numbers = count()

    def do_GET(self):
        number = next(self.numbers) if self.path.startswith("/lineup/") else 1
        status = 200 if number % 2 else 503
        self.send_response(status)
        if status == 503 and number % 8:
            self.send_header("X-GroundFault", "handled")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


@pytest.fixture
def service():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def locust(*options, cwd):
    command = [sys.executable, "-m", "locust", "-f", str(locustfile()), "--headless", *options]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=40, check=False)


def test_it_tells_refusals_on_purpose_from_failures(service, tmp_path):
    result = locust(
        *("--host", service, "--base-rps=20", "--spike=4", "--before=0.5", "--hold=1", "--after=0.5"),
        *("--json", "--result-file", str(tmp_path / "rows.jsonl")),
        cwd=tmp_path,
    )
    start, *rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert start["total_s"] == 2
    assert all(row["due"] >= start["start"] and row["latency_s"] > 0 for row in rows)
    assert {row["kind"] for row in rows} == {"fan", "innocent"}
    fans = [row for row in rows if row["kind"] == "fan"]
    shed = [row for row in fans if row["handled"]]
    plain = [row for row in fans if row["status"] == 503 and not row["handled"]]
    assert len(shed) == pytest.approx(3 * len(plain), abs=4)
    assert all(row["status"] == 503 for row in shed)

    stats = {entry["name"]: entry for entry in json.loads(result.stdout)}
    assert stats["/lineup/{n} [shed]"]["num_requests"] == len(shed)
    assert stats["/lineup/{n} [shed]"]["num_failures"] == 0
    assert stats["/lineup/{n}"]["num_failures"] == len(plain)
    assert stats["/lobby"]["num_failures"] == 0
    assert result.returncode == 1  # Locust's own verdict: the plain 503s are failures


def test_nobody_there(tmp_path):
    result = locust(
        *("--host", "http://127.0.0.1:9", "--base-rps=20", "--before=0", "--hold=0", "--rise=0", "--after=0.5"),
        *("--result-file", str(tmp_path / "rows.jsonl")),
        cwd=tmp_path,
    )
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()[1:]]
    assert rows
    assert {row["status"] for row in rows} == {0}
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--base-rps=0", "base_rps must be above 0, not 0"),
        ("--spike=0.5", "factor must be at least 1, not 0.5"),
        ("--rise=30", "rise_s must be at most spike_s, 20, not 30"),
        ("--deadline=0", "deadline must be above 0, not 0"),
        ("--innocent-share=-1", "innocent-share must be at least 0, not -1"),
        ("--path=/lineup/{x}", "path may hold {n} and no other braces, not '/lineup/{x}'"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_one_line(option, words, tmp_path):
    result = locust("--host", "http://127.0.0.1:9", option, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith(words)
    assert "Traceback" not in result.stderr
