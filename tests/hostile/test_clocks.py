"""Clocks that jump, and processes that are stopped and go on."""

import asyncio
import os
import signal

import pytest

from groundfault import wire
from groundfault.shedding.shedder import Shedder
from groundfault.shedding.wsgi import WSGILoadShedder
from groundfault.sinks import Sinks
from groundfault.testing import ManualClock

_START = "HTTP_" + wire.REQUEST_START.upper().replace("-", "_")


class Site:
    """A proxy and a service on two hosts, each with a wall clock; requests come as over a unix socket.

    ``jumped_s`` is what the service's wall clock has been set by.
    """

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.jumped_s = 0.0
        self.shedder = Shedder(
            service="served", sinks=Sinks(), clock=self.clock, wall_clock=lambda: self.true_time + self.jumped_s
        )
        self.app = WSGILoadShedder(self._fine, shedder=self.shedder)

    @property
    def true_time(self) -> float:
        return 1_600_000_000.0 + self.clock.now

    @staticmethod
    def _fine(_environ, start_response):
        start_response("200 OK", [])
        return [b"fine"]

    def serve(self, *, waited_s: float = 0.0) -> int:
        """Send one request, which came to the proxy so long ago; returns its status."""
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/",
            "REMOTE_ADDR": "",
            _START: f"t={self.true_time - waited_s}",
        }
        statuses = []
        body = self.app(environ, lambda status, *_: statuses.append(int(status[:3])))
        list(body)
        if hasattr(body, "close"):
            body.close()
        return statuses[0]

    def refused(self, requests: int = 50, *, every_s: float = 0.1, waited_s: float = 0.0) -> int:
        """Send that many requests, and return how many of them were refused."""
        statuses = []
        for _ in range(requests):
            self.clock.advance(every_s)
            statuses.append(self.serve(waited_s=waited_s))
        return statuses.count(503)


@pytest.fixture
def site() -> Site:
    site = Site()
    assert site.refused() == 0
    return site


def test_the_start_time_is_the_signal_where_the_kernel_has_none(site):
    """Else the jumps below would show nothing."""
    assert site.shedder.snapshot().signal == "request-start"
    assert site.refused(waited_s=2.0) > 40


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, 20.0, -20.0, 2.0, -2.0, 0.3, -0.3])
def test_a_wall_clock_that_is_set_refuses_nobody(site, jump_s):
    """Neither forward nor back, nor back again."""
    for jumped_s in (jump_s, 0.0):
        site.jumped_s = jumped_s
        assert site.refused(600) == 0
    assert site.shedder.snapshot().in_flight == 0


def test_a_wall_clock_that_drifts_refuses_nobody(site):
    """By 50 ppm, as much as two quartz clocks may differ."""
    for _ in range(1000):
        site.jumped_s += 0.00005
        assert site.refused(1, every_s=1.0) == 0


def test_a_queue_is_seen_again_after_a_jump(site):
    site.jumped_s = 7.0
    assert site.refused() == 0
    assert site.refused(waited_s=2.0) > 40


def test_a_clock_of_another_host_refuses_for_a_minute_at_most(site):
    """One that is set back makes every request look old, as a queue would, and nobody here can tell."""
    assert site.refused(700, waited_s=2.0) < 700
    assert site.refused(waited_s=2.0) == 0


@pytest.mark.e2e
def test_a_process_that_was_stopped_goes_on_as_before(start_kind):
    """For half a second and for three, under a light load; a second after it goes on nobody is refused any more.

    Up to three attempts: the machine may have other things to do.
    """
    servers = [start_kind(name) for name in ("uvicorn-httptools-uvloop", "gunicorn-gthread")]
    for pause_s in (0.5, 3.0):
        for _ in range(3):
            late = asyncio.run(_late_answers(servers, pause_s))
            if set(late) == {200}:
                break
        else:
            pytest.fail(f"{late.count(503)} of {len(late)} refused a second after a pause of {pause_s} s")
    for server in servers:
        server.assert_well()


async def _late_answers(servers, pause_s: float) -> list[int]:
    """Return the statuses of the requests sent more than a second after the pause."""
    paused = await asyncio.gather(*(_through_a_pause(server, pause_s) for server in servers))
    answers = [answer for answers in paused for answer in answers]
    assert {status for _, status in answers} <= {200, 503}
    late = [status for after_s, status in answers if after_s > 1.0]
    assert len(late) >= 20 * len(servers)
    return late


async def _through_a_pause(server, pause_s: float) -> list[tuple[float, int]]:
    """Return, of fifty requests a second around the pause, when each was sent after it, and its status."""
    pid = server.state()["pid"]
    loop = asyncio.get_running_loop()
    sent = []
    stopped = loop.time() + 0.3
    resumed = stopped + pause_s
    signals = [(stopped, signal.SIGSTOP), (resumed, signal.SIGCONT)]
    try:
        while loop.time() < resumed + 1.6:
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
