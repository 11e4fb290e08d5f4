import asyncio
import gc
import json
import random
import socket
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from groundfault._clock import monotonic
from groundfault.lab.faults.control import Board
from groundfault.lab.faults.fault import NONE, Fault, Kind
from groundfault.lab.faults.proxy import Route

BODY = b"x" * 1000
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + BODY
PATIENCE_S = 10.0


async def answering(reader, writer):
    """Serve as a keep-alive server does: an answer for each line."""
    try:
        while await reader.readline():
            writer.write(ANSWER)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def closing(reader, writer):
    """One that closes after each answer."""
    await reader.readline()
    writer.write(ANSWER)
    writer.close()


def handles():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture(autouse=True)
def on_linux(request):
    if "handle" in request.node.name and not Path("/proc/self/fd").is_dir():
        pytest.skip("handles are counted in /proc")


@asynccontextmanager
async def proxied(serve=answering, **options):
    async with asyncio.timeout(PATIENCE_S):
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        route = Route("callee", server.sockets[0].getsockname()[:2], **options)
        await route.start()
        try:
            yield route
        finally:
            await route.stop()
            server.close()


async def ask(route):
    reader, writer = await asyncio.open_connection("127.0.0.1", route.port)
    try:
        writer.write(b"hello\n")
        return await reader.readexactly(len(ANSWER))
    finally:
        writer.close()


def test_without_a_fault_bytes_go_through_as_they_are():
    async def main():
        async with proxied() as route:
            assert await ask(route) == ANSWER
            assert route.look()["counts"]["down"] == len(ANSWER)

    asyncio.run(main())


def test_latency_keeps_the_answer_back():
    async def main():
        async with proxied(draw=lambda: 0.5) as route:
            await route.set(Fault(kind=Kind.LATENCY, delay_s=0.3, jitter_s=0.1))
            began = monotonic()
            assert await ask(route) == ANSWER
            assert monotonic() - began >= 0.3

    asyncio.run(main())


@pytest.mark.parametrize("after", [0, 100])
def test_reset_is_an_rst(after):
    async def main():
        async with proxied() as route:
            await route.set(Fault(kind=Kind.RESET, after_bytes=after))
            with pytest.raises(ConnectionResetError):
                await ask(route)
            assert route.look()["counts"]["reset"] == 1

    asyncio.run(main())


def test_truncation_ends_in_the_middle_of_the_body_and_in_good_order():
    async def main():
        async with proxied() as route:
            await route.set(Fault(kind=Kind.TRUNCATION, after_bytes=300))
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await ask(route)
            assert caught.value.partial == ANSWER[:-700]

    asyncio.run(main())


def test_slow_close_keeps_the_end_back_and_not_the_answer():
    async def main():
        async with proxied(closing) as route:
            await route.set(Fault(kind=Kind.SLOW_CLOSE, delay_s=0.3))
            reader, writer = await asyncio.open_connection("127.0.0.1", route.port)
            writer.write(b"hello\n")
            assert await reader.readexactly(len(ANSWER)) == ANSWER
            began = monotonic()
            assert await reader.read() == b""
            assert monotonic() - began >= 0.2
            writer.close()

    asyncio.run(main())


def test_bandwidth_is_shared_by_the_connections_of_a_route():
    async def main():
        async with proxied() as route:
            await route.set(Fault(kind=Kind.BANDWIDTH, bytes_per_s=10_000))
            began = monotonic()
            assert await asyncio.gather(*(ask(route) for _ in range(4))) == [ANSWER] * 4
            assert monotonic() - began >= 0.35  # four thousand bytes and the heads

    asyncio.run(main())


def test_a_black_hole_answers_nothing_and_resets_what_has_lost_something_when_it_is_over():
    async def main():
        async with proxied() as route:
            await route.set(Fault(kind=Kind.BLACKHOLE))
            reader, writer = await asyncio.open_connection("127.0.0.1", route.port)
            writer.write(b"hello\n")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.2)
            await route.set(NONE)
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
            writer.close()
            assert await ask(route) == ANSWER

    asyncio.run(main())


def test_refused_means_that_nobody_listens_and_the_port_stays_ours():
    async def main():
        async with proxied() as route:
            await route.set(Fault(kind=Kind.REFUSE))
            with pytest.raises(ConnectionRefusedError):
                await ask(route)
            with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
                stranger.bind(("127.0.0.1", route.port))
            await route.set(NONE)
            assert await ask(route) == ANSWER

    asyncio.run(main())


def test_an_open_connection_gets_the_fault_too_and_goes_on_after_it():
    async def main():
        async with proxied(draw=lambda: 0.5) as route:
            reader, writer = await asyncio.open_connection("127.0.0.1", route.port)
            for fault, least_s in ((NONE, 0.0), (Fault(kind=Kind.LATENCY, delay_s=0.2), 0.2), (NONE, 0.0)):
                await route.set(fault)
                began = monotonic()
                writer.write(b"hello\n")
                assert await reader.readexactly(len(ANSWER)) == ANSWER
                assert monotonic() - began >= least_s
            writer.close()

    asyncio.run(main())


def test_a_share_of_the_connections_has_it():
    async def main():
        async with proxied(draw=random.Random(7).random) as route:
            await route.set(Fault(kind=Kind.RESET, share=0.5))
            results = await asyncio.gather(*(ask(route) for _ in range(60)), return_exceptions=True)
            assert 15 <= sum(isinstance(each, ConnectionResetError) for each in results) <= 45
            assert all(each == ANSWER for each in results if not isinstance(each, Exception))

    asyncio.run(main())


def test_more_connections_than_it_may_have_are_reset():
    async def main():
        async with proxied(max_connections=3) as route:
            held = [await asyncio.open_connection("127.0.0.1", route.port) for _ in range(3)]
            while route.look()["open"] < 3:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.01)
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await ask(route)
            assert route.look()["counts"]["crowded"] == 1
            for _, writer in held:
                writer.close()

    asyncio.run(main())


def test_nobody_behind_it_is_a_reset_and_not_a_silence():
    async def main():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            target = free.getsockname()
        route = Route("nobody", target)
        await route.start()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await ask(route)
        await route.stop()

    asyncio.run(main())


def test_a_thousand_connections_under_every_fault_leave_no_handle_behind():
    async def main():
        async with proxied(linger_s=0.2) as route:
            await ask(route)
            await asyncio.sleep(0.3)
            gc.collect()
            before = handles()
            for kind in Kind:
                await route.set(Fault(kind=kind, delay_s=0.01, after_bytes=10, bytes_per_s=1e7))
                waiting = [asyncio.wait_for(ask(route), 2.0) for _ in range(125)]
                if kind is Kind.BLACKHOLE:
                    asyncio.get_running_loop().call_later(0.3, lambda: asyncio.ensure_future(route.set(NONE)))
                await asyncio.gather(*waiting, return_exceptions=True)
            await route.set(NONE)
            assert await ask(route) == ANSWER
            while route.look()["open"]:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.05)
            gc.collect()
            assert handles() <= before + 4

    asyncio.run(main())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "Expecting"),
        (b"[]", "one JSON object"),
        (b'{"do": "dance"}', "do must be route"),
        (b'{"do": "fault", "name": "nobody"}', "no route 'nobody'"),
        (b'{"do": "route", "name": "a", "to": ["10.0.0.1", 80]}', "loopback"),
        (b'{"do": "route", "name": "a", "to": ["127.0.0.1", 0]}', "a host and a port"),
        (b'{"do": "route", "name": "", "to": ["127.0.0.1", 80]}', "name must be a text"),
        (b'{"do": "route", "name": "a", "to": ["127.0.0.1", 80], "port": -1}', "port must be"),
        (b'{"do": "fault", "name": "a", "fault": 3}', "must be an object"),
    ],
)
def test_a_line_that_cannot_be_done_is_answered_with_the_reason(line, words):
    async def main():
        answer = await Board().told(line)
        assert not answer["ok"]
        assert words in answer["error"]

    asyncio.run(main())


def test_what_is_told_on_the_line_is_what_is_looked_at():
    async def main():
        board = Board()
        ready = asyncio.get_running_loop().create_future()
        running = asyncio.ensure_future(board.run(ready=ready))
        reader, writer = await asyncio.open_connection("127.0.0.1", await ready)

        async def told(**said):
            writer.write(json.dumps(said).encode() + b"\n")
            return json.loads(await reader.readline())

        port = (await told(do="route", name="saber", to=["127.0.0.1", 1]))["port"]
        again = await told(do="route", name="saber", to=["127.0.0.1", 1])
        assert again["error"] == "there is a route 'saber' already"
        await told(do="fault", name="saber", fault={"kind": "refuse"})
        look = (await told(do="look"))["routes"]["saber"]
        assert (look["port"], look["fault"]["kind"], look["open"]) == (port, "refuse", 0)
        assert (await told(do="stop"))["ok"]
        await asyncio.wait_for(running, PATIENCE_S)
        writer.close()

    asyncio.run(main())
