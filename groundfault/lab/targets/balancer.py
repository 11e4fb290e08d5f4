"""A load balancer, as small as it can be: ``python -m groundfault.lab.targets.balancer PORT``.

Requests go to the instances of a service in turn. Which service: the path's first part if there is one of that name,
else the ``default`` option. A health check four times a second takes an instance out after two misses, and in again
after one answer.

In the variant groundfault it also knows what it may send again: a refused or broken connection (requests here have no
body and change nothing) and an annotated 503 that says "somewhere else" go to the next instance, once, within a budget;
one that is ``draining`` gets nothing more until a health check finds its successor.
Otherwise whatever goes wrong is the answer: a 502.
"""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from groundfault import wire
from groundfault.lab.targets.part import Part
from groundfault.retries import RetryBudget
from groundfault.vocabulary import Reason

__all__ = ["Answer", "Balancer", "Instance", "parse_answer"]

CHECK_S: Final = 0.25
MISSES: Final = 2
TIMEOUT_S: Final = 2.0
BAD_GATEWAY: Final = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 12\r\n\r\nbad gateway\n"
_LIMIT: Final = 1 << 20


class Answer(NamedTuple):
    """An instance's answer: its status, its headers by small letters, and the bytes that are passed on."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def refusal(self) -> wire.Refusal | None:
        """What it says if it is an annotated 503."""
        return wire.read_refusal(self.status, _Lookup(self.headers))


class _Lookup:
    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def get(self, name: str, /) -> str | None:
        return self._headers.get(name.lower())


def parse_answer(data: bytes) -> Answer:
    """Read a whole answer. Hop-by-hop headers go, for the client's connection stays. ValueError for half of one."""
    head, found, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    if not found or not lines[0].startswith("HTTP/1.1 "):
        raise ValueError("no answer")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if len(body) != int(headers.get("content-length", "0")):
        raise ValueError("half an answer")
    kept = [line for line in lines if not line.lower().startswith(("connection:", "keep-alive:"))]
    return Answer(int(lines[0].split(" ", 2)[1]), headers, "\r\n".join(kept).encode("latin-1") + b"\r\n\r\n" + body)


class Instance:
    """One instance of a service and what is known of it."""

    def __init__(self, url: str) -> None:
        self.host = urlsplit(url).hostname or ""
        self.port = urlsplit(url).port or 80
        self.misses = 0
        self.draining = False

    @property
    def usable(self) -> bool:
        """Whether requests should go there."""
        return self.misses < MISSES and not self.draining


class Balancer:
    """Passes requests on. ``knows``: whether it reads annotations and sends again what it may."""

    def __init__(
        self, services: Mapping[str, Sequence[str]], *, default: str, knows: bool, health: bytes = b"{}"
    ) -> None:
        self._services = {name: [Instance(url) for url in urls] for name, urls in services.items()}
        self._turns = dict.fromkeys(services, 0)
        self._default = default
        self._knows = knows
        self._health = health
        self._budget = RetryBudget()

    async def serve(self, port: int) -> None:
        """Serve until canceled."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", port, backlog=1024, limit=_LIMIT)
        async with server:
            await asyncio.gather(server.serve_forever(), self._check_forever())

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self.answer(head))
                await writer.drain()
                if b"\r\nconnection: close" in head.lower():
                    break
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            pass  # the client has left
        finally:
            writer.close()

    async def answer(self, head: bytes) -> bytes:
        """Return the answer to one request."""
        path = head.split(b" ", 2)[1].decode("latin-1")
        if path == "/healthz":
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(self._health), self._health)
        first = path.split("/")[1]
        service = first if first in self._services else self._default
        self._budget.deposit()
        instance = self._next(service, None)
        answer = await self._ask(instance, head)
        if self._knows and self._may_retry(instance, answer) and self._budget.withdraw():
            answer = await self._ask(self._next(service, instance), head)
        return BAD_GATEWAY if answer is None else answer.raw

    def _may_retry(self, instance: Instance, answer: Answer | None) -> bool:
        if answer is None:
            return True
        refusal = answer.refusal
        if refusal is not None and refusal.reason is Reason.DRAINING:
            instance.draining = True
        return refusal is not None and refusal.retryable

    def _next(self, service: str, but: Instance | None) -> Instance:
        """Return whose turn it is: one that is usable and not the one that was just asked, if there is one."""
        instances = self._services[service]
        self._turns[service] += 1
        order = [instances[(self._turns[service] + step) % len(instances)] for step in range(len(instances))]
        others = [each for each in order if each is not but] or order
        return next((each for each in others if each.usable), others[0])

    async def _ask(self, instance: Instance, head: bytes) -> Answer | None:
        """Return what the instance answers, None if that is nothing."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reader, writer = await asyncio.open_connection(instance.host, instance.port, limit=_LIMIT)
                try:
                    writer.write(_closing(head))
                    return parse_answer(await reader.read(-1))
                finally:
                    writer.close()
        except (OSError, ValueError):  # a TimeoutError is an OSError
            return None

    async def _check_forever(self) -> None:
        while True:
            await asyncio.gather(*(self.check(each) for each in self.instances()))
            await asyncio.sleep(CHECK_S)

    def instances(self) -> list[Instance]:
        """Return the instances of all services."""
        return [each for instances in self._services.values() for each in instances]

    async def check(self, instance: Instance) -> None:
        """Ask one for its health."""
        answer = await self._ask(instance, b"GET /healthz HTTP/1.1\r\nHost: balancer\r\n\r\n")
        if answer is None or answer.status != 200:  # noqa: PLR2004  HTTP's own number
            instance.misses += 1
            instance.draining = False  # it has gone; who answers next at its place is another
        else:
            instance.misses = 0


def _closing(head: bytes) -> bytes:
    """Return a request's head as it is passed on: one request to a connection."""
    lines = head[:-4].split(b"\r\n")
    kept = [line for line in lines if not line.lower().startswith((b"connection:", b"keep-alive:"))]
    return b"\r\n".join([*kept, b"Connection: close", b"", b""])


def main() -> None:
    """Run it on the port that the command line names."""
    part = Part.from_environment()
    health = f'{{"service": "{part.service}", "token": "{part.token}"}}'.encode()
    balancer = Balancer(part.callees, default=str(part.options.get("default", "")), knows=part.annotated, health=health)
    asyncio.run(balancer.serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
