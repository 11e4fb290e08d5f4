"""Clocks that jump, and processes that are stopped and go on."""

import asyncio
import os
import signal

import pytest

from groundfault import wire
from groundfault.events import Sinks
from groundfault.shedding.shedder import Shedder
from groundfault.shedding.wsgi import WSGILoadShedder
from groundfault.testing import ManualClock

_START = "HTTP_" + wire.REQUEST_START.upper().replace("-", "_")


class Site:
    """A proxy and a service on one host, with one wall clock; requests come over a unix socket."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.wall = ManualClock(1_600_000_000.0)
        self.shedder = Shedder(service="served", sinks=Sinks(), clock=self.clock, wall_clock=self.wall)
        self.app = WSGILoadShedder(self._fine, shedder=self.shedder)

    @staticmethod
    def _fine(_environ, start_response):
        start_response("200 OK", [])
        return [b"fine"]

    def run(self, seconds: float) -> None:
        """Let the time pass on both clocks."""
        self.clock.advance(seconds)
        self.wall.advance(seconds)

    def serve(self, *, waits_s: float = 0.0, jump_s: float = 0.0) -> int:
        """Send one request, which waits between proxy and application while the wall clock jumps; returns its status."""
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": "", _START: f"t={self.wall.now:.3f}"}
        self.run(waits_s)
        self.wall.advance(jump_s)
        statuses = []
        body = self.app(environ, lambda status, *_: statuses.append(int(status[:3])))
        list(body)
        if hasattr(body, "close"):
            body.close()
        return statuses[0]

    def calm(self) -> None:
        """Serve for a few seconds without a queue."""
        for _ in range(50):
            self.run(0.1)
            assert self.serve() == 200


@pytest.fixture
def site() -> Site:
    site = Site()
    site.calm()
    return site


def test_the_start_time_is_the_signal_where_the_kernel_has_none(site):
    """Else the jumps below would show nothing."""
    assert site.shedder.snapshot().signal == "request-start"
    statuses = []
    for _ in range(100):  # a queue of two seconds stands
        site.run(0.02)
        statuses.append(site.serve(waits_s=2.0))
    assert statuses.count(503) > 50


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, 2.0, -2.0, 20.0, 0.3, -0.3])
def test_a_wall_clock_that_jumps_refuses_nobody(site, jump_s):
    """Neither those behind it nor, beyond the request it happened to, anybody's budget."""
    site.serve(jump_s=jump_s)
    site.calm()
    assert site.shedder.snapshot().in_flight == 0


def test_a_wall_clock_that_is_slewed_refuses_nobody(site):
    """500 ppm, what adjtime() does to half a second in a quarter of an hour."""
    for _ in range(1000):
        site.run(1.0)
        site.wall.advance(0.0005)
        assert site.serve() == 200


def test_a_queue_is_seen_again_after_a_jump(site):
    site.serve(jump_s=7.0)
    site.calm()
    statuses = []
    for _ in range(100):
        site.run(0.02)
        statuses.append(site.serve(waits_s=2.0))
    assert statuses.count(503) > 50


@pytest.mark.e2e
@pytest.mark.parametrize("pause_s", [0.5, 3.0])
@pytest.mark.parametrize("name", ["uvicorn-httptools-uvloop", "gunicorn-gthread"])
def test_a_process_that_was_stopped_goes_on_as_before(start_kind, name, pause_s):
    """Under a light load; a second after it goes on nobody is refused any more, and all are answered.

    Up to three attempts: the machine may have other things to do.
    """
    server = start_kind(name)
    for _ in range(3):
        answers = asyncio.run(_through_a_pause(server, pause_s))
        assert {status for _, status in answers} <= {200, 503}
        late = [status for after_s, status in answers if after_s > 1.0]
        assert len(late) >= 20
        if set(late) == {200}:
            server.assert_well()
            return
    pytest.fail(f"{late.count(503)} of {len(late)} refused a second after the pause")


async def _through_a_pause(server, pause_s: float) -> list[tuple[float, int]]:
    """Return, of fifty requests a second around the pause, when each was sent after it, and its status."""
    pid = server.state()["pid"]
    loop = asyncio.get_running_loop()
    sent = []
    stopped = loop.time() + 0.5
    resumed = stopped + pause_s
    signals = [(stopped, signal.SIGSTOP), (resumed, signal.SIGCONT)]
    try:
        while loop.time() < resumed + 2.0:
            if signals and loop.time() >= signals[0][0]:
                os.kill(pid, signals.pop(0)[1])
            sent.append(asyncio.create_task(_one(server.address, loop.time() - resumed)))
            await asyncio.sleep(0.02)
    finally:
        os.kill(pid, signal.SIGCONT)
    return await asyncio.gather(*sent)


async def _one(port: int, after_s: float) -> tuple[float, int]:
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: served\r\nConnection: close\r\n\r\n")
        status = int((await reader.readuntil(b"\r\n\r\n")).split()[1])
        await reader.read()
        writer.close()
    return after_s, status
