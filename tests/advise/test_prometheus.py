"""Prometheus: what is made of its answers, of its errors, and of things that are no Prometheus."""

import json
import shutil
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs
from urllib.request import urlopen

import pytest

from groundfault._clock import monotonic, wall
from groundfault.advise import prometheus
from groundfault.advise.prometheus import read_prometheus
from groundfault.advise.sources import SourceError
from groundfault.metrics.catalogue import BUCKETS_S, CATALOGUE

NAMES = {"resource": "contest-db", "command": "entrants"}


def answer(*series):
    result = [{"metric": {**NAMES, **labels}, "value": [1_795_436_400, str(value)]} for labels, value in series]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def answers(query):
    """Answer as a server would that has seen 10,000 calls of 50 to 250 ms and 20 timeouts of half a second."""
    ok, late = {"outcome": "success"}, {"outcome": "timeout"}
    if "_bucket" in query:
        bounds = [*map(str, BUCKETS_S), "+Inf"]
        fast = [
            ({**ok, "le": le}, 0 if float(le) < 0.075 else 9_600.2 if float(le) < 0.25 else 9_999.8) for le in bounds
        ]
        slow = [({**late, "le": le}, 0 if float(le) < 0.75 else 20) for le in bounds]
        return answer(*fast, *slow)
    if "_sum" in query:
        return answer((ok, 800.0), (late, 10.0))
    if "calls_total" in query:
        return answer((ok, 9_999.8), (late, 20), ({"outcome": "circuit-open"}, 5))
    if "quantile_over_time" in query:
        return answer(({}, 10.0))
    if "max_over_time" in query:
        return answer(({}, 40.0), ({"command": "gone"}, "NaN"))
    return answer(({}, 4 if "circuit_state" in query else 80))


@pytest.fixture
def server():
    """Start a server on loopback that answers with ``answer(query)``: a value for JSON, or status and bytes."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            query = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())["query"][0]
            held.asked.append((self.path, query, self.headers.get("Authorization")))
            given = held.answer(query)
            status, body = given if isinstance(given, tuple) else (200, json.dumps(given).encode())
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    held = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    held.answer, held.asked = answers, []
    held.url = f"http://127.0.0.1:{held.server_port}"
    thread = threading.Thread(target=held.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield held
    held.shutdown()
    thread.join()
    held.server_close()


def test_everything_that_advice_needs_is_asked_for(server):
    reading = read_prometheus(server.url, window="6h", select='job="topps"')
    (seen,) = reading.commands
    assert seen.path == "contest-db/entrants"
    assert seen.successes.count == 10_000
    assert seen.successes.span_of(0.95) == (0.05, 0.075)
    assert seen.successes.sum_s == 800.0
    assert seen.calls == {"success": 10_000, "timeout": 20, "circuit-open": 5}
    assert (seen.rates.usual_per_s, seen.rates.peak_per_s) == (10.0, 40.0)
    assert seen.processes == 4
    assert seen.settings == {"max_concurrent": 20}
    assert all('{job="topps"}' in query for _, query, _ in server.asked)
    assert all("[6h" in query for _, query, _ in server.asked[:5])
    assert "as exactly as its buckets are fine" in reading.notes[0]


def test_every_name_that_is_asked_for_is_one_of_the_catalogue(server):
    read_prometheus(server.url, window="1d", select=None)
    known = {metric.name for metric in CATALOGUE}
    for _, query, _ in server.asked:
        assert any(name in query for name in known), query


def test_credentials_in_the_address_are_sent_and_never_shown(server):
    url = server.url.replace("//", "//ann:s3cret@") + "/prefix/"
    reading = read_prometheus(url, window="1d", select=None)
    path, _, sent = server.asked[0]
    assert (path, sent) == ("/prefix/api/v1/query", "Basic YW5uOnMzY3JldA==")
    assert "s3cret" not in str(reading.notes)
    server.answer = lambda _: (500, b"no")
    with pytest.raises(SourceError) as caught:
        read_prometheus(url, window="1d", select=None)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((400, b'{"status":"error","errorType":"bad_data","error":"parse error: unexpected"}'), "400: parse error"),
        ((503, b"<html>Service Unavailable"), "answers 503: <html>Service"),
        ((200, b"<html>Grafana"), "does not answer in JSON: <html>Grafana"),
        ({"status": "error"}, "does not answer as Prometheus does"),
        ({"status": "success", "data": {"resultType": "matrix", "result": []}}, "does not answer as Prometheus does"),
        ({"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}}]}}, "as Prometheus does"),
        (["?"], "does not answer as Prometheus does"),
        ((200, b"x" * 2_000), "more than 0 MiB"),
    ],
)
def test_what_is_no_good_answer_is_named_with_the_server(server, given, words, monkeypatch):
    monkeypatch.setattr(prometheus, "_MOST_BYTES", 1_000)
    server.answer = lambda _: given
    with pytest.raises(SourceError, match=words) as caught:
        read_prometheus(server.url, window="1d", select=None)
    assert str(caught.value).startswith(server.url)


def test_a_server_that_knows_no_command_is_no_error(server):
    server.answer = lambda _: answer()
    reading = read_prometheus(server.url, window="1d", select=None)
    assert reading.commands == []
    assert "knows no groundfault_command_duration_seconds_bucket" in reading.hint


def test_a_server_that_does_not_answer_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(SourceError, match="cannot be asked: timed out"):
            read_prometheus(url, window="1d", select=None, timeout_s=0.2)
    with pytest.raises(SourceError, match=r"cannot be asked: .*refused"):
        read_prometheus(url, window="1d", select=None)


@pytest.mark.parametrize("url", ["localhost:9090", "ftp://host", "file:///etc/passwd", "http://", ""])
def test_what_is_no_address_of_a_server_is_refused(url):
    with pytest.raises(SourceError, match="is no address of a Prometheus"):
        read_prometheus(url, window="1d", select=None)


@pytest.mark.parametrize("window", ["", "1", "a day", "1d]) or vector(1", "-1d"])
def test_what_is_no_window_is_refused(window):
    with pytest.raises(SourceError, match="is no window of time"):
        read_prometheus("http://127.0.0.1:1", window=window, select=None)


def history():
    """Yield two hours of two processes' metrics, 10 calls/s each, in the format of OpenMetrics."""
    now = int(wall())
    moments = list(enumerate(range(now - 7200, now + 1, 60)))

    def series(name, labels, value_of):
        for instance in "ab":
            named = f'resource="contest-db",command="entrants",instance="{instance}"{labels}'
            yield from (f"{name}{{{named}}} {value_of(at)} {moment}" for at, moment in moments)

    ok, duration = ',outcome="success"', "groundfault_command_duration_seconds"
    yield f"# TYPE {duration} histogram"
    for bound in (*BUCKETS_S, "+Inf"):
        each = 0 if float(bound) < 0.1 else 540 if float(bound) < 0.25 else 600
        yield from series(f"{duration}_bucket", f'{ok},le="{bound}"', each.__mul__)
    yield from series(f"{duration}_count", ok, (600).__mul__)
    yield from series(f"{duration}_sum", ok, (72).__mul__)
    yield "# TYPE groundfault_command_calls counter"
    yield from series("groundfault_command_calls_total", ok, (600).__mul__)
    yield "# TYPE groundfault_circuit_state gauge"
    yield from series("groundfault_circuit_state", ',state="closed"', lambda _: 4)
    yield "# TYPE groundfault_command_limit gauge"
    yield from series("groundfault_command_limit", "", lambda _: 40)
    yield "# EOF"


def is_ready(url):
    try:
        with urlopen(f"{url}/-/ready", timeout=1) as ready:  # noqa: S310  loopback
            return ready.status == 200
    except OSError:
        return False


@pytest.mark.e2e
def test_a_real_prometheus_understands_the_questions(tmp_path):
    if shutil.which("prometheus") is None or shutil.which("promtool") is None:
        pytest.skip("prometheus is not installed")
    (tmp_path / "history.txt").write_text("\n".join(history()) + "\n")
    (tmp_path / "config.yml").write_text("global: {}\n")
    blocks = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "history.txt", "data"]
    subprocess.run(blocks, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ["--config.file=config.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}"]
    process = subprocess.Popen(["prometheus", *arguments], cwd=tmp_path, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        until = monotonic() + 30
        while not is_ready(url):
            assert process.poll() is None
            assert monotonic() < until
            time.sleep(0.1)
        reading = read_prometheus(url, window="1h", select='instance=~"a|b"')
    finally:
        process.terminate()
        process.wait(20)
    (seen,) = reading.commands
    assert seen.successes.count == pytest.approx(72_000, rel=0.05)
    assert seen.successes.span_of(0.95) == (0.1, 0.25)
    assert seen.successes.mean_s == pytest.approx(0.12, rel=0.05)
    assert seen.rates.usual_per_s == pytest.approx(20, rel=0.05)
    assert seen.rates.peak_per_s == pytest.approx(20, rel=0.1)
    assert (seen.processes, seen.settings) == (8, {"max_concurrent": 10})
