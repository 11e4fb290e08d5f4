"""The command line: what it prints, writes and refuses, and that a log is really replayed."""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from groundfault.cli import main
from groundfault.lab.replay.driving import HostError, checked_host
from groundfault.lab.replay.plan import Plan
from groundfault.lab.runs.record import Run


@pytest.fixture
def log(tmp_path, line):
    path = tmp_path / "access.log"
    lines = [line(at // 10, f"{'POST' if at % 10 == 9 else 'GET'} /lineup/{at} HTTP/1.1") for at in range(30)]
    path.write_text("\n".join([*lines, "garbage", ""]))
    return path


def replay(capsys, *arguments):
    code = main(["replay", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_reading_says_what_was_seen_and_writes_the_plan(capsys, log, tmp_path):
    out = tmp_path / "plan.json"
    code, said, err = replay(capsys, "read", log, "--out", out)
    assert (code, err) == (0, "")
    for words in (
        "31, of which 30 are requests and 1 are not",
        f"{log}:31: is no access log line of a kind that is known",
        "covers 2026-11-22T18:00:00+0000 to 2026-11-22T18:00:03+0000",
        "mean 10.0/s, peak 10/s at 2026-11-22 18:00:00+0000",
        "90.0%  GET /lineup/{n}",
        "answers   200 100.0%",
        f"plan      {out}",
    ):
        assert words in said
    assert Plan.load(out).rps == [10, 10, 10]


def test_reading_may_print_json(capsys, log):
    code, said, err = replay(capsys, "read", log, "--json")
    told = json.loads(said)
    assert (code, err, told["parsed"], told["peak_rps"]) == (0, "", 30, 10)
    assert told["templates"][0] == {"method": "GET", "path": "/lineup/{n}", "requests": 27}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["read"], 2, "needs a log"),
        (["run"], 2, "needs a plan"),
        (["run", "LOG", "LOG", "--host", "http://localhost"], 2, "takes one plan"),
        (["LOG"], 2, "say what the load goes to"),
        (["read", "LOG", "--host", "http://localhost"], 2, "--host does not go with replay read"),
        (["run", "LOG", "--out", "x", "--host", "http://localhost"], 2, "--out does not go with replay run"),
        (["run", "LOG", "--host", "http://shop.example"], 2, "add --yes-this-host shop.example"),
        (["run", "LOG", "--host", "http://shop.example", "--yes-this-host", "other"], 2, "is not this machine"),
        (["run", "LOG", "--host", "localhost:80"], 2, "must be a URL"),
        (["read", "LOG", "--from", "18:00"], 2, "must be a date with a time here"),
        (["read", "LOG", "--for", "10m"], 2, "--for needs --from"),
        (["read", "LOG", "--for", "never"], 2, "must be a time"),
        (["read", "LOG", "--jobs", "0"], 2, "from 1 to 256"),
        (["run", "LOG", "--scale", "0"], 2, "from 0.001 to 100000"),
        (["run", "LOG", "--methods", "BREW"], 2, "methods must be among"),
        (["read", "absent.log"], 1, "absent.log cannot be read"),
        (["read", "LOG", "--out", "/nowhere/at/all.json"], 1, "/nowhere/at/all.json cannot be written"),
        (["run", "LOG", "--host", "http://127.0.0.1:9"], 1, "is no traffic plan"),
        (["run", "absent.json", "--host", "http://127.0.0.1:9"], 1, "absent.json cannot be read"),
    ],
)
def test_what_makes_no_sense_ends_with_a_line_and_a_code(capsys, log, arguments, code, words):
    given = [str(log) if each == "LOG" else each for each in arguments]
    try:
        ended, _, err = replay(capsys, *given)
    except SystemExit as left:  # argparse's own refusals
        ended, err = left.code, capsys.readouterr().err
    assert ended == code
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "confirmed", "fine"),
    [
        ("http://127.0.0.1:8000", None, True),
        ("http://127.8.8.8", None, True),
        ("http://[::1]:80/prefix", None, True),
        ("https://localhost", None, True),
        ("http://0.0.0.0:80", None, False),
        ("http://10.0.0.1", None, False),
        ("http://localhost.example", None, False),
        ("http://127.0.0.1.example", None, False),
        ("http://127.0.0.1@shop.example", "shop.example", False),
        ("http://shop.example:8000", "shop.example", True),
        ("http://shop.example:99999", "shop.example", False),
        ("ftp://127.0.0.1", None, False),
        ("http://", None, False),
    ],
)
def test_only_this_machine_is_loaded_unless_another_is_confirmed_by_name(url, confirmed, fine):
    if fine:
        assert checked_host(url, confirmed) == url
    else:
        with pytest.raises(HostError):
            checked_host(url, confirmed)


@pytest.fixture
def server():
    """Serve on loopback, and yield the URL and what was asked for."""
    asked = Counter()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            asked[f"GET {'/lineup/' if self.path.startswith('/lineup/') else self.path}"] += 1
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def do_POST(self):
            asked["POST"] += 1
            self.send_error(405)

        def log_message(self, *_):
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.daemon_threads = True
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}", asked
    served.shutdown()
    served.server_close()
    thread.join()


@pytest.mark.e2e
def test_a_log_is_replayed_at_a_scale_with_safe_methods_only(server, log, tmp_path):
    pytest.importorskip("msgspec")
    url, asked = server
    run_file = tmp_path / "run.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "groundfault", "replay", str(log), "--host", url, "--scale", "4"),
            *("--run-file", str(run_file), "--gate", "goodput@spike>=0.5"),
        ],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        cwd=tmp_path,
        env={**os.environ},
    )
    assert "10.0% of the requests are left out: only GET,HEAD are sent" in done.stderr, done.stderr
    run = Run.read(run_file)
    assert run.source == "replay"
    assert set(asked) == {"GET /lineup/"}, done.stderr
    (stream,) = run.streams
    due = sum(stream.due)
    assert 60 <= due <= 160  # 3 s of 4 times 9 a second
    # A machine that was too busy to send on time makes the run void, which says nothing of the replay.
    assert done.returncode == (3 if run.void else 0), done.stderr
    assert asked.total() >= 0.8 * (due - sum(stream.unsent))
    assert not [path for path in tmp_path.iterdir() if path.name not in {"access.log", "run.json"}]
