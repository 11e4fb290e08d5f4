"""The queue wait on every server there is, on connections of every kind, compared with the truth."""

from pathlib import Path

import pytest

from groundfault.doctor.servers import SERVERS, Server, running
from groundfault.doctor.waiting import Client, hold_up

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

HERE = str(Path(__file__).parent)
HOLD_S = 0.3
DELAYS_S = (0.1, 0.15)
ATTEMPTS = 3
TOLERANCE_S = 0.03  # a tick of the kernel is 4 ms; the rest is for a machine that has other things to do

UVICORN = ("-m", "uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--app-dir", HERE, "--no-access-log")
BELOW = (*UVICORN, "--log-level", "warning", "served:below")


def skip_without(server):
    if server.missing:
        pytest.skip(f"{', '.join(server.missing)} not installed")


def check(port, *, kept_alive, signal):
    for _ in range(ATTEMPTS):
        readings = hold_up(port, HOLD_S, DELAYS_S, kept_alive=kept_alive)
        assert {reading.signal for reading in readings} <= {signal}, readings
        worst = max((abs(reading.error_s) for reading in readings), default=0.0)
        if worst <= TOLERANCE_S:
            return
    pytest.fail(f"off by {worst:.3f} s: {readings}")


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
def test_every_server_says_how_long_a_request_has_waited(server):
    """From the plain middleware, with nothing configured, on fresh connections and on kept ones."""
    skip_without(server)
    with running(server) as instance:
        if server.blind:
            readings = hold_up(instance.port, HOLD_S, DELAYS_S, kept_alive=False)
            assert all(reading.signal == "none" and reading.refused["tcp-info"] for reading in readings)
            return
        signal = "sock-diag" if server.name == "granian" else "tcp-info"
        for kept_alive in (False, True):
            check(instance.port, kept_alive=kept_alive, signal=signal)


VARIANTS = {
    "below BaseHTTPMiddleware and others": BELOW,
    "below them on uvloop with h11": (*BELOW, "--loop", "uvloop", "--http", "h11"),
    "log level trace": (*UVICORN, "--log-level", "trace", "groundfault.doctor.app:asgi"),
    "behind a proxy's headers": (*BELOW, "--proxy-headers", "--forwarded-allow-ips", "*"),
    "hypercorn below them": ("-m", "hypercorn", "--bind", "127.0.0.1:{port}", "served:below"),
    "daphne below them": ("-m", "daphne", "-b", "127.0.0.1", "-p", "{port}", "-v", "0", "served:below"),
    "granian below them": (
        *("-m", "granian", "--port", "{port}", "--interface", "asgi", "--working-dir", HERE),
        *("--log-level", "warning", "served:below"),
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_signal_is_found_behind_what_stands_in_front(name, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", HERE)
    server = Server(name, VARIANTS[name][1], VARIANTS[name], (VARIANTS[name][1],))
    skip_without(server)
    signal = "sock-diag" if "granian" in name else "tcp-info"
    with running(server) as instance:
        for kept_alive in (False, True):
            check(instance.port, kept_alive=kept_alive, signal=signal)


def test_each_of_several_workers_has_its_signal():
    """Uvicorn's ``--workers`` forks none: each process comes up by itself, and takes what it gets of one socket."""
    command = (*UVICORN, "--log-level", "warning", "--workers", "2", "groundfault.doctor.app:asgi")
    with running(Server("workers", "uvicorn", command, ("uvicorn",))) as instance:
        for _ in range(20):
            with Client(instance.port) as client:
                client.send("/")
                assert client.receive().signal == "tcp-info"
