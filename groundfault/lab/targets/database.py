"""A database as seen from outside: fine with a few queries at once, worse with more, and dead with too many.

``python -m groundfault.lab.targets.database PORT``. One query each connection, over the least of HTTP:
``/entrants/{n}`` is the unbounded one, ``/contest/{n}`` looks up one row.

Up to ``comfortable`` queries at once run at full speed. With more they take each other's pages and locks: each runs at
(comfortable / n)² of its speed, so all n together get less done the more they are. At ``dies_at`` the process is gone:
connections break, new ones are refused, and after ``dead_s`` it is back, empty.
While it is told to be silent it takes queries and answers none.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from groundfault._clock import monotonic
from groundfault.lab.targets.faults import FaultsFile
from groundfault.lab.targets.part import Part

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Database", "Queries"]

TICK_S: Final = 0.005
HEALTH_PATH: Final = "/healthz"


class Queries:
    """The queries that run, each with the work it has left in seconds alone on the machine. Pure.

    ``comfortable``: how many run at full speed. ``dies_at``: with so many it dies; 0: never.
    """

    def __init__(self, *, comfortable: int, dies_at: int) -> None:
        self._comfortable = comfortable
        self._dies_at = dies_at
        self._left: dict[int, float] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._left)

    @property
    def speed(self) -> float:
        """How fast each runs, 1 being full speed."""
        count = len(self._left)
        return 1.0 if count <= self._comfortable else (self._comfortable / count) ** 2

    @property
    def fatal(self) -> bool:
        """Whether they are too many."""
        return 0 < self._dies_at <= len(self._left)

    def begin(self, work_s: float) -> int:
        """Let one more run; return its number."""
        self._next += 1
        self._left[self._next] = work_s
        return self._next

    def forget(self, number: int) -> None:
        """Take one away, done or not."""
        self._left.pop(number, None)

    def run(self, seconds: float) -> list[int]:
        """Let them run for so long; return those that are done now."""
        done_s = seconds * self.speed
        self._left = {number: left - done_s for number, left in self._left.items()}
        done = [number for number, left in self._left.items() if left <= 0]
        for number in done:
            del self._left[number]
        return done

    def clear(self) -> None:
        """Forget them all."""
        self._left.clear()


class Database:
    """The process: a listener, the queries, and what is wrong with it."""

    def __init__(self, part: Part, port: int) -> None:
        self._port = port
        self._health = {"service": part.service, "token": part.token}
        self._faults = FaultsFile(Path(part.directory))
        self._dead_s = part.number("dead_s")
        self._work_s: Mapping[str, float] = {
            "entrants": part.number("entrants_s"),
            "contest": part.number("contest_s"),
        }
        self._queries = Queries(
            comfortable=int(part.number("comfortable")),
            dies_at=int(part.number("dies_at")),
        )
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self) -> None:
        """Live, die, and come back, until the process is ended."""
        while True:
            server = await asyncio.start_server(self._connection, "127.0.0.1", self._port, backlog=512)
            await self._live()
            server.close()
            for writer in self._writers:
                writer.transport.abort()
            for future in self._waiting.values():
                future.cancel()
            self._queries.clear()
            self._waiting.clear()
            print(f"too many clients; back in {self._dead_s:g} s", flush=True)  # noqa: T201  this program's log
            await asyncio.sleep(self._dead_s)

    async def _live(self) -> None:
        before = monotonic()
        while not self._queries.fatal:
            await asyncio.sleep(TICK_S)
            now = monotonic()
            if not self._faults.now().silent:
                for number in self._queries.run(now - before):
                    self._waiting.pop(number).set_result(None)
            before = now

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            path = head.split(" ", 2)[1]
            kind = path.split("/")[1]
            if path == HEALTH_PATH:
                body = self._health
            else:
                await self._query(kind)
                body = {"rows": kind}
            payload = json.dumps(body).encode()
            length = f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n".encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + length + payload)
            await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError, LookupError):
            writer.transport.abort()  # the other end is gone, or this one is
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _query(self, kind: str) -> None:
        number = self._queries.begin(self._work_s[kind])
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await future
        finally:
            # Nobody tells a database that its client has left: the query runs on. Only a death takes it away.
            self._waiting.pop(number, None)


def main() -> None:
    """Run it on the port that the command line names."""
    asyncio.run(Database(Part.from_environment(), int(sys.argv[1])).serve())


if __name__ == "__main__":
    main()
