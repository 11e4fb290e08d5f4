"""The load generator of the soak, a process of its own: sends what is due when it is due, whatever became of the rest.

    python -m chaotic.load PLAN RESULT

PLAN and RESULT are JSON files. SIGTERM ends it early; what is open then is waited for, and the result written.
Lanes: ``fan`` needs saber, ``innocent`` does not, ``feed`` is a stream, and half of its clients break off midway.
"""

import asyncio
import json
import random
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path

from groundfault._clock import monotonic
from groundfault.lab.curves import Points, arrivals
from groundfault.lab.runs.tally import Fate, Tally

DEADLINE_S = 1.0
FEED_DEADLINE_S = 3.0
_RST = struct.pack("ii", 1, 0)
_FIRST = b"200\n"  # what topps got from grouper is what its feed begins with
_PATHS = {"fan": "/lineup/7", "innocent": "/lobby", "feed": "/feed"}


class Lane:
    """One kind of request and what became of them."""

    def __init__(self, name: str, port: int, most: int) -> None:
        self.name = name
        self.tally = Tally()
        self.answered = 0
        self.connected = 0
        self.aborted = 0
        self._port = port
        self._most = most
        self._open = 0
        self._dice = random.Random(name)
        self._request = f"GET {_PATHS[name]} HTTP/1.1\r\nHost: topps\r\nConnection: close\r\n\r\n".encode()
        self._deadline_s = FEED_DEADLINE_S if name == "feed" else DEADLINE_S

    async def run(self, points: list[tuple[float, float]], begin: float, stopped: asyncio.Event) -> None:
        """Send all that is due, and wait for the last fate."""
        async with asyncio.TaskGroup() as group:
            for due in arrivals(Points(tuple((t, rps) for t, rps in points)), seed=self.name):
                wait_s = begin + due - monotonic()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                if stopped.is_set():
                    return
                if self._open >= self._most:
                    self.tally.skip(due)
                    continue
                self._open += 1
                self.tally.send(due, monotonic() - begin)
                group.create_task(self._one(due, begin))

    async def _one(self, due: float, begin: float) -> None:
        fate = Fate.FAILED
        try:
            async with asyncio.timeout(begin + due + self._deadline_s - monotonic()):
                fate = await self._asked()
        except TimeoutError:
            fate = Fate.LATE
        except (OSError, asyncio.IncompleteReadError, ValueError):
            fate = Fate.FAILED
        finally:
            self._open -= 1
            self.tally.settle(due, fate, monotonic() - begin - due)

    async def _asked(self) -> Fate:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.connected += 1
        try:
            writer.write(self._request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            self.answered += 1
            status = int(head[9:12])
            if self.name == "feed" and self._dice.random() < 0.5:
                await reader.readline()  # how long the first piece is
                whole = await reader.readline() == _FIRST
                self.aborted += 1
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
            else:
                body = await reader.read()
                whole = _is_whole_feed(body) if self.name == "feed" else len(body) > 0
            if status == 200 and not whole:
                return Fate.FAILED
            if status == 200:
                return Fate.GOOD
            return Fate.SHED if status == 503 and b"x-groundfault: handled" in head else Fate.FAILED
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()


def _is_whole_feed(body: bytes) -> bool:
    return body.startswith(b"4\r\n" + _FIRST) and b"cut" not in body and body.endswith(b"0\r\n\r\n")


async def drive(plan: dict) -> dict:
    """Run the plan and return what became of it."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    lanes = [Lane(name, plan["port"], plan["most"]) for name in plan["lanes"]]
    async with asyncio.TaskGroup() as group:
        for lane in lanes:
            group.create_task(lane.run(plan["lanes"][lane.name], plan["begin"], stopped))
    return {
        lane.name: {
            "tally": lane.tally.as_dict(),
            "answered": lane.answered,
            "connected": lane.connected,
            "aborted": lane.aborted,
        }
        for lane in lanes
    }


def main() -> int:
    plan_file, result_file = map(Path, sys.argv[1:3])
    result = asyncio.run(drive(json.loads(plan_file.read_text(encoding="utf-8"))))
    unfinished = result_file.with_suffix(".tmp")
    unfinished.write_text(json.dumps(result), encoding="utf-8")
    unfinished.replace(result_file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
