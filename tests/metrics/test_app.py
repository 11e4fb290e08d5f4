"""``/metrics`` in an application, and from the command line."""

import asyncio
import gzip
import logging
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.client import HTTPConnection
from wsgiref.util import setup_testing_defaults

import pytest
from sample_reports import counted

from groundfault import cli
from groundfault.metrics import MetricsApp, WSGIMetricsApp, app
from groundfault.metrics._coding import encode
from groundfault.metrics._place import RunDirError, replace_file
from groundfault.metrics.command import Exporter
from groundfault.metrics.exposition import OPENMETRICS, TEXT

OM = "application/openmetrics-text; version=1.0.0"


@pytest.fixture(autouse=True)
def _nothing_is_started(monkeypatch):
    monkeypatch.setattr(app, "start", lambda _: True)
    monkeypatch.setattr(app, "_warned", set())


@pytest.fixture
def directory(place):
    """Return a run directory in which a process has left a report."""
    replace_file(place.path / "1-0000000000000001.json", encode(counted(3)))
    return place.path


def ask_asgi(made, method="GET", accept="", headers=()):
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "headers": [(b"accept", accept.encode()), *headers]}
    asyncio.run(made(scope, None, send))
    start, body = sent
    return start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, body["body"]


def ask_wsgi(made, method="GET", accept="", **more):
    environ = {"REQUEST_METHOD": method, "HTTP_ACCEPT": accept, **more}
    setup_testing_defaults(environ)
    answers = []
    body = b"".join(made(environ, lambda status, headers: answers.append((status, headers))))
    ((status, headers),) = answers
    return int(status[:3]), {name.lower(): value for name, value in headers}, body


BOTH = pytest.mark.parametrize(
    ("make", "ask"), [(MetricsApp, ask_asgi), (WSGIMetricsApp, ask_wsgi)], ids=["asgi", "wsgi"]
)


@BOTH
@pytest.mark.parametrize(("accept", "kind"), [("", TEXT), (OM, OPENMETRICS)])
def test_it_answers_in_the_format_asked_for(make, ask, directory, accept, kind):
    status, headers, body = ask(make(directory), accept=accept)
    assert (status, headers["content-type"], headers["content-length"]) == (200, kind, str(len(body)))
    assert b'{resource="db",command="get",outcome="success"} 3\n' in body


@BOTH
@pytest.mark.parametrize(
    ("encoding", "packed"),
    [("gzip", True), ("deflate, GZIP;q=0.5", True), ("", False), ("identity", False), ("gzip; q=0", False)],
)
def test_it_is_compressed_for_who_takes_that(make, ask, directory, encoding, packed):
    how = (
        {"headers": [(b"accept-encoding", encoding.encode())]}
        if make is MetricsApp
        else {"HTTP_ACCEPT_ENCODING": encoding}
    )
    _, headers, body = ask(make(directory), **how)
    assert headers.get("content-encoding") == ("gzip" if packed else None)
    assert b'outcome="success"} 3\n' in (gzip.decompress(body) if packed else body)


@BOTH
def test_head_has_no_body_and_other_methods_are_refused(make, ask, directory):
    status, headers, body = ask(make(directory), method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 0
    status, headers, _ = ask(make(directory), method="POST")
    assert (status, headers["allow"]) == (405, "GET, HEAD")


@BOTH
def test_a_directory_that_cannot_be_read_is_a_503_that_says_why(make, ask, tmp_path):
    status, _, body = ask(make(tmp_path / "missing"))
    assert status == 503
    assert b"cannot be read: No such file" in body


@BOTH
def test_an_internal_error_is_a_503_that_says_nothing(make, ask, directory, monkeypatch, caplog):
    def fail(report, now, *, openmetrics):
        raise ValueError("secret")

    monkeypatch.setattr(app, "render", fail)
    status, _, body = ask(make(directory))
    assert (status, body) == (503, b"internal error; see the log\n")
    assert "internal error in metrics" in caplog.text


@BOTH
def test_the_environment_names_the_directory(make, ask, directory, monkeypatch):
    monkeypatch.setenv("GROUNDFAULT_RUN_DIR", str(directory))
    assert b'outcome="success"} 3\n' in ask(make())[2]


def test_the_event_loop_goes_on_while_files_are_slow(directory, monkeypatch):
    released = threading.Event()

    def slow(named):
        released.wait(20.0)
        raise RunDirError("slow")

    monkeypatch.setattr(app, "scrape", slow)
    made = MetricsApp(directory)
    statuses = []

    async def send(message):
        statuses.append(message.get("status"))

    async def both():
        scraping = asyncio.create_task(made({"type": "http", "method": "GET", "headers": []}, None, send))
        await asyncio.sleep(0)
        released.set()  # reached at all only if the loop is not held up
        await scraping

    asyncio.run(both())
    assert statuses[0] == 503


def test_it_takes_part_in_a_lifespan_and_in_nothing_else_but_http(directory):
    sent = []

    async def send(message):
        sent.append(message["type"])

    async def drive():
        messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive():
            return next(messages)

        await MetricsApp(directory)({"type": "lifespan"}, receive, send)
        with pytest.raises(RuntimeError, match="serves http, not websocket"):
            await MetricsApp(directory)({"type": "websocket"}, receive, send)

    asyncio.run(drive())
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.parametrize("several", [False, True])
def test_one_of_several_without_a_directory_warns_once(caplog, monkeypatch, several):
    monkeypatch.setattr(app, "has_siblings", lambda: False)
    made = WSGIMetricsApp()
    with caplog.at_level(logging.WARNING, "groundfault"):
        for _ in range(2):
            assert ask_wsgi(made, **{"wsgi.multiprocess": several})[0] == 200
    assert len(caplog.records) == several
    assert all("GROUNDFAULT_RUN_DIR" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(("workers", "several"), [("", False), ("1", False), ("4", True)])
def test_several_are_told_by_the_number_of_workers(monkeypatch, workers, several):
    monkeypatch.setattr(os, "getppid", lambda: 0)
    monkeypatch.setenv("WEB_CONCURRENCY", workers)
    assert app.has_siblings() is several


SIBLINGS = """
import os, sys, time
from groundfault.metrics.app import has_siblings
children = []
for _ in range(int(sys.argv[1])):
    child = os.fork()
    if not child:
        time.sleep(0.2)
        os.write(1, str(has_siblings()).encode() + bytes([10]))  # in one piece
        time.sleep(0.3)
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
"""


@pytest.mark.e2e
@pytest.mark.parametrize(("workers", "said"), [("1", ["False"]), ("2", ["True", "True"])])
def test_several_are_told_by_a_parent_with_like_children(workers, said):
    if not os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children"):  # noqa: PTH110  a path of the kernel's
        pytest.skip("the kernel does not tell a process's children")
    run = subprocess.run(
        [sys.executable, "-c", SIBLINGS, workers], capture_output=True, check=True, timeout=30, text=True
    )
    assert run.stdout.split() == said


# --- the command line -------------------------------------------------------------------------------------------------


def test_once_prints_the_metrics(directory, capfdbinary):
    assert cli.main(["metrics", "--once", "--run-dir", str(directory)]) == 0
    assert b'outcome="success"} 3\n' in capfdbinary.readouterr().out


@pytest.mark.parametrize("named", [True, False])
def test_without_a_directory_it_says_so(named, tmp_path, capsys):
    arguments = ["--run-dir", str(tmp_path / "missing")] if named else []
    assert cli.main(["metrics", "--once", *arguments]) == 1
    said = capsys.readouterr().err
    assert said.startswith("groundfault: ")
    assert ("cannot be read" if named else "name the run directory: --run-dir DIR, or GROUNDFAULT_RUN_DIR") in said


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_port_that_is_none_is_refused(port, capsys):
    with pytest.raises(SystemExit):
        cli.main(["metrics", "--port", port])
    assert "must be a number from 0 to 65535" in capsys.readouterr().err


@contextmanager
def exporting(pull):
    with Exporter(("127.0.0.1", 0), pull) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def fetch(server, path, method="GET", **headers):
    client = HTTPConnection(*server.server_address[:2], timeout=20)
    try:
        client.request(method, path, headers=headers)
        answer = client.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read()
    finally:
        client.close()


def test_the_exporter_serves_metrics_in_both_formats_and_nothing_else():
    with exporting(lambda: counted(3)) as server:
        status, kind, body = fetch(server, "/metrics?x=1")
        assert (status, kind) == (200, TEXT)
        assert b'outcome="success"} 3\n' in body
        assert fetch(server, "/", Accept=OM)[1] == OPENMETRICS
        assert fetch(server, "/metrics", "HEAD")[2] == b""
        assert fetch(server, "/other")[0] == 404


def test_the_exporter_answers_503_until_there_is_a_directory(tmp_path):
    def missing():
        raise RunDirError("the run directory is not there")

    with exporting(missing) as server:
        assert fetch(server, "/metrics")[::2] == (503, b"the run directory is not there\n")


def test_a_port_that_is_taken_is_said_to_be(directory, capsys):
    with exporting(lambda: counted(3)) as server:
        port = str(server.server_address[1])
        assert cli.main(["metrics", "--run-dir", str(directory), "--port", port]) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
