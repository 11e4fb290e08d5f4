"""Processes that fork, are forked, are patched, are replaced, or die: on real servers, with requests in flight."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

pytestmark = pytest.mark.e2e

_GUNICORN = "gunicorn --log-level critical --graceful-timeout 5"
_UVICORN = "uvicorn --log-level critical --no-access-log"
_WORKERS = {
    "sync": f"{_GUNICORN} --workers 2 --worker-class sync",
    "gthread": f"{_GUNICORN} --workers 2 --worker-class gthread --threads 4",
    "kit-sync": f"{_GUNICORN} --workers 2 --worker-class groundfault.integrations.gunicorn.SyncWorker",
    "kit-thread": f"{_GUNICORN} --workers 2 --worker-class groundfault.integrations.gunicorn.ThreadWorker --threads 4",
    "uvicorn": f"{_UVICORN} --workers 2",
}


def _load(port: int, path: str, *, rate: float, seconds: float) -> list[tuple[int | None, bytes]]:
    """Send requests at a fixed rate, each on a connection of its own; returns status and body, None for no answer."""

    async def one() -> tuple[int | None, bytes]:
        try:
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(f"GET {path} HTTP/1.1\r\nHost: served\r\nConnection: close\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.read()
                writer.close()
                return int(head.split()[1]), body
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return None, b""

    async def all_of_them() -> list[tuple[int | None, bytes]]:
        loop = asyncio.get_running_loop()
        start = loop.time()
        tasks = []
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(start + number / rate - loop.time(), 0))
            tasks.append(asyncio.create_task(one()))
        return await asyncio.gather(*tasks)

    return asyncio.run(all_of_them())


def _pids(server, wanted: int) -> set[int]:
    """Return the workers that answer, as soon as there are so many."""
    found = set()
    end = time.monotonic() + 10  # noqa: TID251  a real process is waited for in real time
    while len(found) < wanted and time.monotonic() < end:  # noqa: TID251  as above
        with contextlib.suppress(OSError):
            found |= {
                int(body) for status, body in _load(server.address, "/pid", rate=400, seconds=0.1) if status == 200
            }
    return found


@pytest.mark.parametrize("name", ["gthread", "kit-sync"])
def test_a_worker_forked_from_a_used_parent_begins_at_zero(run_server, name):
    """The application is loaded, and its shedder used, before the workers are forked."""
    with run_server(name, _WORKERS[name] + " --preload", environment={"USED_IN_PARENT": "1"}) as server:
        assert server.process.pid not in _pids(server, 2)
        state = server.settle()
        assert state["pid"] != server.process.pid
        assert (state["in_flight"], state["internal_errors"]) == (0, {})


@pytest.mark.parametrize("name", ["sync", "kit-sync", "kit-thread"])
def test_workers_that_are_replaced_all_the_time_lose_no_request(run_server, name):
    """Each worker is replaced after some twenty requests. Those that wait for a new one may be too late for it.

    Up to three attempts: the machine may have other things to do.
    """
    with run_server(name, _WORKERS[name] + " --max-requests 20") as server:
        for _ in range(3):
            answers = _load(server.address, "/pid", rate=45, seconds=2.0)
            statuses = Counter(status for status, _ in answers)
            assert len({body for status, body in answers if status == 200}) >= 4
            if set(statuses) <= {200, 503} and statuses[200] >= 0.8 * len(answers):
                return
        pytest.fail(f"{statuses}")


@pytest.mark.parametrize("name", ["kit-sync", "uvicorn"])
def test_the_others_go_on_when_a_worker_is_killed(run_server, name):
    """And the master replaces it. Twice what the other can do is offered meanwhile; its goodput stays.

    Up to three attempts: the machine may have other things to do.
    """
    with run_server(name, _WORKERS[name]) as server:
        before = _pids(server, 2)
        assert len(before) == 2
        for _ in range(3):
            victim = before.pop()
            os.kill(victim, signal.SIGKILL)
            answers = _load(server.address, "/work", rate=100, seconds=1.5)
            statuses = Counter(status for status, _ in answers)
            assert set(statuses) <= {200, 503, None}
            assert statuses[None] <= 5 + 20  # those that the kernel had handed to the one that died
            after = _pids(server, 2)
            assert len(after) == 2
            assert victim not in after
            if statuses[200] >= 50:
                return
            before = after
        pytest.fail(f"{statuses}")


def test_a_child_of_a_process_with_requests_in_flight_begins_at_zero(server):
    """Forked by the application, in the midst of serving others."""
    if server.kind.single or server.name == "gunicorn-gevent":
        return  # one at a time has no others; gevent's own fork starts its hub anew, which is not ours to test
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(server.connect()).send("GET", "/hold")
        assert server.await_state(lambda state: state["in_flight"] == 3)["in_flight"] == 3
        assert server.ask("/fork").body == b"0\n"
        assert server.settle(0.0)["in_flight"] >= 3
        server.go()
    server.assert_well()


@pytest.mark.parametrize("name", ["gunicorn-gevent", "gunicorn-asgi", "uvicorn-httptools-uvloop", "hypercorn"])
def test_fifty_at_a_time(start_kind, name):
    server = start_kind(name)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(50)]
        for connection in connections:
            connection.send("GET", "/hold")
        assert server.await_state(lambda state: state["in_flight"] == 50)["in_flight"] == 50
        server.go()
        assert {connection.receive().body for connection in connections} == {b"held\n"}
    server.assert_well()


_PATCHED = """
from gevent import monkey
if {before}:
    monkey.patch_all()
from groundfault import WSGILoadShedder, Shedder
from groundfault._context import current
from groundfault.events import internal_errors
from groundfault.wire import KEY
if not {before}:
    monkey.patch_all()
import time
import gevent

shedder = Shedder(service="patched")
peak = 0

def app(environ, start_response):
    global peak
    mine = current().key
    time.sleep(0.02)
    peak = max(peak, shedder.snapshot().in_flight)
    assert current().key == mine == environ["HTTP_" + KEY.upper().replace("-", "_")]
    start_response("200 OK", [])
    return [b"fine"]

def one(number):
    environ = {{"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": "127.0.0.1"}}
    environ["HTTP_" + KEY.upper().replace("-", "_")] = f"{{number:x}}"
    body = WSGILoadShedder(app, shedder=shedder)(environ, lambda status, headers, *_: None)
    assert b"".join(body) == b"fine"
    body.close()

for greenlet in gevent.joinall([gevent.spawn(one, number) for number in range(50)], raise_error=True):
    greenlet.get()
assert current() is None
print(peak, shedder.snapshot().in_flight, internal_errors())
"""


@pytest.mark.parametrize("before", [True, False], ids=["patched-before-the-import", "patched-after-it"])
def test_greenlets_are_requests_of_their_own(before):
    """Patched by gevent before groundfault is imported or after: fifty at once, each in its own context."""
    pytest.importorskip("gevent")
    run = subprocess.run(
        [sys.executable, "-c", _PATCHED.format(before=before)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (run.returncode, run.stdout.strip()) == (0, "50 0 {}"), run.stderr
