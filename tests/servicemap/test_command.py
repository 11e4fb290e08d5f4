"""``groundfault map``, from each of its sources."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from groundfault.cli import main
from groundfault.metrics import rundir
from groundfault.metrics.report import Report

PAGE = """\
# TYPE groundfault_edge_calls_total counter
groundfault_edge_calls_total{caller="topps",resource="saber",outcome="success"} 9
# TYPE groundfault_edge_requests_total counter
groundfault_edge_requests_total{caller="topps/saber.get",service="saber",result="admitted"} 9
groundfault_edge_requests_total{caller="no-service"} 9
# TYPE groundfault_edge_time_in_queue_seconds_total counter
groundfault_edge_time_in_queue_seconds_total{caller="topps/saber.get",service="saber",result="admitted"} 0.9
# TYPE groundfault_requests_total counter
groundfault_requests_total{service="saber",result="admitted",reason="",criticality="critical"} 10
# TYPE somebody_elses gauge
somebody_elses 1
"""


class Server(ThreadingHTTPServer):
    """Answers paths with what ``answers`` holds, by status and text; a callable is given the query."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = {}
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        parts = urlsplit(self.path)
        status, text = self.server.answers.get(parts.path, (404, "nothing here"))
        body = (text(parse_qs(parts.query)["query"][0]) if callable(text) else text).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    made = Server()
    yield made
    made.shutdown()
    made.server_close()


def run(capsys, *arguments):
    code = main(["map", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_map_of_metrics_pages(server, capsys):
    server.answers["/metrics"] = 200, PAGE
    code, out, _ = run(capsys, "--metrics", f"{server.url}/metrics", "--format", "json")
    edges = {(edge["caller"], edge["callee"]): edge for edge in json.loads(out)["edges"]}
    assert code == 0
    assert edges["topps", "saber"]["calls"] == {"success": 9}
    assert edges["topps", "saber"]["wait_s"] == pytest.approx(0.1)
    assert edges["(no name)", "saber"]["requests"] == {"admitted": 1}


def test_several_pages_are_added_up(server, capsys):
    server.answers["/a"] = server.answers["/b"] = 200, PAGE
    _, out, _ = run(capsys, "--metrics", f"{server.url}/a", "--metrics", f"{server.url}/b")
    assert "topps     -> saber  18 so far, waited 100 ms" in out


def test_two_looks_give_a_rate(server, capsys):
    looks = iter([PAGE, PAGE.replace('outcome="success"} 9', 'outcome="success"} 29')])
    server.answers["/metrics"] = 200, ""

    class Answers(dict):
        def get(self, key, default=None):
            return (200, next(looks))

    server.answers = Answers()
    _, out, _ = run(capsys, "--metrics", f"{server.url}/metrics", "--over", "100ms")
    assert "topps -> saber  200/s" in out


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "-5"])
def test_what_is_no_count_is_passed_over_and_json_stays_json(server, capsys, value):
    lie = f'groundfault_edge_calls_total{{caller="liar",resource="saber",outcome="success"}} {value}\n'
    server.answers["/metrics"] = 200, PAGE + lie
    code, out, _ = run(capsys, "--metrics", f"{server.url}/metrics", "--format", "json")
    assert code == 0
    assert json.loads(out, parse_constant=pytest.fail)["edges"]
    assert "liar" not in out


def test_a_map_of_a_fleet_from_prometheus(server, capsys):
    asked = []

    def answer(query):
        asked.append(query)
        result = []
        if "edge_calls" in query:
            result = [{"metric": {"caller": "topps", "resource": "saber", "outcome": "success"}, "value": [0, "600"]}]
        return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})

    server.answers["/api/v1/query"] = 200, answer
    code, out, _ = run(capsys, "--prometheus", server.url, "--over", "1m")
    assert code == 0
    assert "topps -> saber  10/s" in out
    assert "sum by (caller, resource, outcome) (increase(groundfault_edge_calls_total[1m]))" in asked


def test_it_is_written_to_a_file(server, capsys, tmp_path):
    server.answers["/metrics"] = 200, PAGE
    out = tmp_path / "map.dot"
    code, printed, _ = run(capsys, "--metrics", f"{server.url}/metrics", "--format", "dot", "--out", str(out))
    assert (code, printed) == (0, "")
    assert out.read_text().startswith("digraph groundfault {")


def test_services_with_a_run_directory_each_are_drawn_together(capsys, tmp_path, monkeypatch):
    edges = {"topps": ("grouper", 3), "grouper": ("saber", 5)}
    for caller in edges:
        (tmp_path / caller).mkdir()

    def reported(directory, now):
        callee, times = edges[directory.name]
        return Report(edges={(directory.name, callee, "success"): times})

    monkeypatch.setattr(rundir, "read", reported)
    topps, grouper = str(tmp_path / "topps"), str(tmp_path / "grouper")
    _, out, _ = run(capsys, "--run-dir", topps, "--run-dir", grouper, "--run-dir", grouper)
    assert "topps   -> grouper  3 so far" in out
    assert "grouper -> saber    5 so far" in out


REFUSED = [
    pytest.param([], "say where to look: --run-dir", id="no source"),
    pytest.param(["--run-dir", "/no/such/directory"], "/no/such/directory must be the directory", id="no directory"),
    pytest.param(["--run-dir", "{tmp}/open"], "can be written by everybody", id="a directory not to be believed"),
    pytest.param(["--metrics", "ftp://x/metrics"], "must be an http or https address", id="scheme"),
    pytest.param(["--metrics", "{url}/nowhere"], "answers 404: nothing here", id="status"),
    pytest.param(["--metrics", "{url}/garbage"], "is no page of metrics", id="garbage"),
    pytest.param(["--prometheus", "{url}/odd"], "does not answer as Prometheus does", id="not Prometheus"),
    pytest.param(["--prometheus", "{url}/refusing"], "refuses the query: too many samples", id="Prometheus refuses"),
    pytest.param(["--metrics", "http://127.0.0.1:1/metrics"], "cannot be read", id="nobody there"),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED)
def test_a_source_that_cannot_be_read_is_one_line(server, capsys, arguments, said, monkeypatch, tmp_path):
    monkeypatch.delenv("GROUNDFAULT_RUN_DIR", raising=False)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    server.answers["/garbage"] = 200, 'a{b="c" 1\n'
    server.answers["/odd/api/v1/query"] = 200, "[]"
    server.answers["/refusing/api/v1/query"] = 200, '{"status": "error", "error": "too many samples"}'
    code, out, err = run(
        capsys, *(argument.replace("{url}", server.url).replace("{tmp}", str(tmp_path)) for argument in arguments)
    )
    assert (code, out) == (1, "")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--over", "soon"], "must be a time such as 10s"),
        (["--over", "0s"], "from 100ms to 31d"),
        (["--limit", "0"], "from 1 to 2000"),
        (["--limit", "9999"], "from 1 to 2000"),
        (["--format", "png"], "invalid choice"),
    ],
)
def test_nonsense_is_refused_with_its_bound(capsys, arguments, said):
    with pytest.raises(SystemExit) as stopped:
        main(["map", *arguments])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
