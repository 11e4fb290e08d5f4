"""Every example application, as it stands in examples/, behind a real server."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from socket import create_server

import pytest

pytestmark = pytest.mark.e2e

_EXAMPLES = Path(__file__).parents[2] / "examples"
_START_S = 20.0

_GUNICORN = "gunicorn --bind 127.0.0.1:{port} --workers 1 --threads 2 --log-level critical"
_UVICORN = "uvicorn --host 127.0.0.1 --port {port} --log-level critical --no-access-log"
_SERVERS = {
    "flask": f"{_GUNICORN} flask_app:app",
    "django-wsgi": f"{_GUNICORN} django_app:application",
    "django-middleware": f"{_GUNICORN} django_app:plain_application",
    "django-asgi": f"{_UVICORN} django_app:asgi_application",
    "django-asgi-middleware": f"{_UVICORN} django_app:plain_asgi_application",
    "starlette": f"{_UVICORN} starlette_app:app",
    "fastapi": f"{_UVICORN} fastapi_app:app",
    "litestar": f"{_UVICORN} litestar_app:app",
    "quart": f"{_UVICORN} quart_app:app",
    "quart-hypercorn": "hypercorn --bind 127.0.0.1:{port} --log-level critical quart_app:app",
}


def _get(port: int, path: str) -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def _free_port() -> int:
    with create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module", params=_SERVERS)
def server(request) -> Iterator[tuple[str, int]]:
    """Run each example once for all tests here; yields its name and port. Nobody answers as saber."""
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", *_SERVERS[request.param].format(port=port).split()],
        cwd=_EXAMPLES,
        env={**os.environ, "SABER": f"http://127.0.0.1:{_free_port()}", "PYTHONPATH": str(_EXAMPLES.parent)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _await_answer(process, port)
        yield request.param, port
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def _await_answer(process: subprocess.Popen, port: int) -> None:
    end = time.monotonic() + _START_S  # noqa: TID251  a real process is waited for in real time
    while time.monotonic() < end:  # noqa: TID251  as above
        assert process.poll() is None, "the server died at its start"
        try:
            if _get(port, "/")[0] == 200:
                return
        except OSError:
            time.sleep(0.05)
    pytest.fail(f"no answer within {_START_S} s")


def test_it_answers_and_knows_how_long_requests_waited(server):
    _, port = server
    status, headers, body = _get(port, "/")
    assert (status, body[:13]) == (200, b"grouper is up")
    assert not any(name.startswith("x-groundfault") for name in headers)
    assert _get(port, "/signal")[2] == b"tcp-info"


def test_a_dependency_that_is_down_is_told_upstream(server):
    _, port = server
    status, headers, _ = _get(port, "/entrants")
    assert status == 503
    assert headers["x-groundfault"] == "handled"
    assert headers["x-groundfault-reason"] == "dependency"
    assert headers["x-groundfault-origin"] == "grouper"
    assert headers["cache-control"] == "no-store"


def test_a_path_that_is_none_is_a_404(server):
    _, port = server
    status, headers, _ = _get(port, "/nowhere")
    assert status == 404
    assert "x-groundfault" not in headers


def test_what_runs_in_threads_answers_too(server):
    name, port = server
    path = "/" if name.startswith(("flask", "django")) else "/thread"  # there everything runs in threads
    for _ in range(3):  # from the second on its turns for a thread are looked at
        assert _get(port, path)[0] == 200
