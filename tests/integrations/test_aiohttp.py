"""The aiohttp middleware against real servers on loopback, on asyncio's own loop and on uvloop."""

import asyncio
import gc
import gzip
import pickle
import random
import socket
import threading
import weakref
from contextlib import suppress

import aiohttp
import pytest
import uvloop
from aiohttp import web

import groundfault.integrations.aiohttp as module
from groundfault import _context, errors, events, wire
from groundfault._clock import monotonic
from groundfault.breaker import Registry, Resource
from groundfault.events import CommandDone
from groundfault.integrations._aiohttp_answer import response_of
from groundfault.integrations.aiohttp import Answer, GroundFaultMiddleware
from groundfault.integrations.cachetools import CachedFallback, NothingRememberedError
from groundfault.refusals import refusal_in
from groundfault.vocabulary import Criticality, Outcome, Reason, State

LARGE = 4 * 2**20  # more than aiohttp reads ahead and the kernel keeps


class Server:
    """Answers as the path says, byte for byte, and remembers what it was asked."""

    def __init__(self):
        self.hits = []
        self.connections = 0
        self.asked = asyncio.Event()
        self.release = asyncio.Event()
        self._serving = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *exc):
        self.release.set()
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader, writer):
        self.connections += 1
        self._serving.add(asyncio.current_task())
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while await self._exchange(reader, writer) is None:
                pass
        writer.close()
        with suppress(ConnectionError, asyncio.CancelledError):
            await writer.wait_closed()

    async def _exchange(self, reader, writer):
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        method, path, _ = first.split()
        headers = dict(line.split(": ", 1) for line in lines)
        await reader.readexactly(int(headers.get("Content-Length", 0)))
        self.hits.append((method, path, headers))
        self.asked.set()

        async def send(data, pause_s=0.0):
            writer.write(data)
            await writer.drain()
            if pause_s:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.release.wait(), pause_s)

        self.head = method == "HEAD"
        return await getattr(self, "_" + path.strip("/").split("/")[0].split("?")[0].replace("-", "_"))(send)

    def _answer(self, status, body=b"ok", headers=(), length=None):
        lines = [f"HTTP/1.1 {status} {status}", *(f"{name}: {value}" for name, value in headers)]
        if not any(name in {"Content-Length", "Transfer-Encoding"} for name, _ in headers):
            lines.append(f"Content-Length: {len(body) if length is None else length}")
        return "\r\n".join([*lines, "", ""]).encode() + (b"" if self.head else body)

    async def _ok(self, send):
        await send(self._answer(200))

    async def _empty(self, send):
        await send(self._answer(204, b""))

    async def _missing(self, send):
        await send(self._answer(404))

    async def _broken(self, send):
        await send(self._answer(500))

    async def _plain_503(self, send):
        await send(self._answer(503))

    def _refusal(self, reason):
        whole = wire.answer(reason, "saber")
        return self._answer(503, whole.body, whole.headers)

    async def _shed(self, send):
        await send(self._refusal(Reason.QUEUE_WAIT))

    async def _passed_on(self, send):
        await send(self._refusal(Reason.DEPENDENCY))

    async def _doubled(self, send):
        await send(self._answer(503, headers=[(wire.HANDLED, "handled"), (wire.HANDLED, "handled")]))

    async def _almost(self, send):
        await send(self._answer(503, headers=[(wire.HANDLED, "handled; really")]))

    async def _handled_200(self, send):
        await send(self._answer(200, headers=[(wire.HANDLED, "handled")]))

    async def _handled_500(self, send):
        await send(self._answer(500, headers=[(wire.HANDLED, "handled")]))

    async def _shed_slowly(self, send):
        whole = self._refusal(Reason.QUEUE_WAIT)
        await send(whole[:-10], 0.05)
        await send(whole[-10:])

    async def _shed_and_stall(self, send):
        await send(self._refusal(Reason.QUEUE_WAIT)[:-10], 9)
        return False

    async def _shed_at_length(self, send):
        headers = wire.annotations(Reason.QUEUE_WAIT, "saber")
        await send(self._answer(503, b"x" * LARGE, headers))

    async def _shed_in_chunks(self, send):
        headers = [*wire.annotations(Reason.QUEUE_WAIT, "saber"), ("Transfer-Encoding", "chunked")]
        await send(self._answer(503, b"4\r\nbusy\r\n0\r\n\r\n", headers))

    async def _elsewhere(self, send):
        await send(self._answer(302, b"", [("Location", f"http://localhost:{self.port}/ok")]))

    async def _to_shed_elsewhere(self, send):
        await send(self._answer(302, b"", [("Location", f"http://localhost:{self.port}/shed")]))

    async def _there_and_back(self, send):
        await send(self._answer(302, b"", [("Location", f"http://localhost:{self.port}/back")]))

    async def _back(self, send):
        await send(self._answer(302, b"", [("Location", f"{self.url}/ok")]))

    async def _here(self, send):
        await send(self._answer(302, b"moved", [("Location", "/ok")]))

    async def _nowhere(self, send):
        await send(self._answer(302, b"", [("Location", "http://[/")]))

    async def _hang(self, send):
        await send(b"", 9)
        return False

    async def _dripping_head(self, send):
        for byte in self._answer(200):
            await send(bytes([byte]), 0.03)
        return False

    async def _stalling_body(self, send):
        await send(self._answer(200, b"half", length=8), 9)
        return False

    async def _broken_and_stalling(self, send):
        await send(self._answer(500, b"half", length=8), 9)
        return False

    async def _drip(self, send):
        await send(self._answer(200, b"", length=1000))
        for _ in range(1000):
            await send(b"x", 0.02)
            if self.release.is_set():
                break
        return False

    async def _cut_body(self, send):
        await send(self._answer(200, b"half", length=8))
        return False

    async def _hang_up(self, send):
        return False

    async def _garbage(self, send):
        await send(b"what?\r\n\r\n")
        return False

    async def _broken_chunk(self, send):
        await send(self._answer(200, b"3\r\none\r\nzz\r\n", [("Transfer-Encoding", "chunked")]), 0.05)
        return False

    async def _broken_gzip(self, send):
        await send(self._answer(200, b"no gzip at all", [("Content-Encoding", "gzip")]))

    async def _packed(self, send):
        await send(self._answer(200, gzip.compress(b"one\ntwo\n"), [("Content-Encoding", "gzip")]))

    async def _chunks(self, send):
        await send(self._answer(200, b"", [("Transfer-Encoding", "chunked")]), 0.02)
        for chunk in (b"one", b"two", b"three"):
            await send(b"%x\r\n%s\r\n" % (len(chunk), chunk), 0.02)
        await send(b"0\r\n\r\n")

    async def _large(self, send):
        await send(self._answer(200, b"x" * LARGE))

    async def _until_closed(self, send):
        await send(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 300_000)
        return False


class World:
    """One server, one resource, one session whose requests go through it."""

    def __init__(self, registry, sink, loop_factory):
        self.registry = registry
        self.sink = sink
        self.loop_factory = loop_factory

    def run(self, body, *, guard=None, session=None, **settings):
        async def main():
            async with Server() as server:
                resource = Resource("saber", registry=self.registry, sinks=(self.sink,), **settings)
                guards = (GroundFaultMiddleware(resource, **(guard or {})),)
                async with aiohttp.ClientSession(server.url, middlewares=guards, **(session or {})) as client:
                    return await body(client, server)

        with asyncio.Runner(loop_factory=self.loop_factory) as runner:
            return runner.run(asyncio.wait_for(main(), 60))

    def get(self, path, **options):
        """Get the path and read the body; return status and body, or the error that was raised."""

        async def body(session, _server):
            try:
                async with session.get(path) as response:
                    return response.status, await response.read()
            except (aiohttp.ClientError, errors.GroundFaultError) as error:
                return error

        return self.run(body, **options)

    @property
    def outcomes(self):
        return [event.outcome for event in self.sink.of(CommandDone)]

    def snapshot(self, name="get"):
        return self.registry.get("saber", name).snapshot()


@pytest.fixture
def registry():
    return Registry(draw=lambda: 0.0)  # the throttle sends every call


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def world(request, registry, sink):
    return World(registry, sink, request.param)


@pytest.fixture
def serving():
    """Pretend that a request is being served here."""
    context = _context.RequestContext("grouper", criticality=Criticality.SHEDDABLE, key="0a1b")
    token = _context.serving.set(context)
    yield context
    _context.serving.reset(token)


@pytest.mark.parametrize(
    ("path", "status", "outcome"),
    [
        ("/ok", 200, Outcome.SUCCESS),
        ("/empty", 204, Outcome.SUCCESS),
        ("/missing", 404, Outcome.SUCCESS),
        ("/chunks", 200, Outcome.SUCCESS),
        ("/packed", 200, Outcome.SUCCESS),
        ("/until-closed", 200, Outcome.SUCCESS),
        ("/large", 200, Outcome.SUCCESS),
        ("/broken", 500, Outcome.FAILURE),
        ("/plain-503", 503, Outcome.FAILURE),
        ("/shed", 503, Outcome.SHED),
        ("/passed-on", 503, Outcome.SHED),
        ("/shed-in-chunks", 503, Outcome.SHED),
        ("/shed-slowly", 503, Outcome.SHED),
        ("/shed-at-length", 503, Outcome.SHED),
        ("/doubled", 503, Outcome.FAILURE),
        ("/almost", 503, Outcome.FAILURE),
        ("/handled-200", 200, Outcome.SUCCESS),
        ("/handled-500", 500, Outcome.FAILURE),
    ],
)
def test_the_response_is_returned_as_it_is_and_judged(world, path, status, outcome):
    answered, _ = world.get(path, timeout_s=20.0)

    assert answered == status
    assert world.outcomes == [outcome]
    assert world.snapshot().in_flight == 0


@pytest.mark.parametrize("path", ["/cut-body", "/broken-chunk", "/broken-gzip", "/garbage", "/hang-up"])
def test_what_breaks_is_a_failure_with_aiohttps_own_error(world, path):
    async def body(session, _server):
        with pytest.raises(aiohttp.ClientError) as caught:
            async with session.post(path) as response:
                await response.read()
        return caught.value

    assert not isinstance(world.run(body), errors.GroundFaultError)
    assert world.outcomes == [Outcome.FAILURE]
    assert world.snapshot("post").in_flight == 0


@pytest.mark.parametrize(
    "path", ["/hang", "/dripping-head", "/stalling-body", "/drip", "/chunks/late"], ids=lambda path: path[1:]
)
def test_the_timeout_bounds_the_whole_exchange(world, path):
    began = monotonic()
    error = world.get(path, timeout_s=0.02 if path == "/chunks/late" else 0.2)

    assert isinstance(error, module.CommandTimeoutError)
    assert isinstance(error, aiohttp.ServerTimeoutError)
    assert monotonic() - began < 8  # they would take 9 s and more
    assert world.outcomes == [Outcome.TIMEOUT]
    assert world.snapshot().in_flight == 0


def test_a_body_that_is_judged_already_has_no_more_time_than_another(world):
    async def body(session, _server):
        async with session.get("/broken-and-stalling") as response:
            assert world.outcomes == [Outcome.FAILURE]
            assert world.snapshot().in_flight == 0
            with pytest.raises(module.CommandTimeoutError):
                await response.read()

    world.run(body, timeout_s=0.2)
    assert world.outcomes == [Outcome.FAILURE]


@pytest.mark.parametrize(
    "timeout", [aiohttp.ClientTimeout(total=0.1), aiohttp.ClientTimeout(sock_read=0.1)], ids=["total", "sock_read"]
)
@pytest.mark.parametrize("path", ["/hang", "/stalling-body"])
def test_a_smaller_timeout_of_aiohttps_own_stays_in_force(world, path, timeout):
    async def body(session, _server):
        with pytest.raises(TimeoutError) as caught:
            async with session.get(path) as response:
                await response.read()
        return caught.value

    error = world.run(body, session={"timeout": timeout}, timeout_s=20.0)

    assert not isinstance(error, errors.GroundFaultError)
    assert world.outcomes == [Outcome.TIMEOUT]
    assert world.snapshot().in_flight == 0


def test_the_wait_for_a_connection_of_aiohttps_pool_is_part_of_the_call(world):
    async def body(session, server):
        connector = aiohttp.TCPConnector(limit=1)
        async with aiohttp.ClientSession(
            session._base_url, connector=connector, middlewares=session._middlewares
        ) as narrow:
            holder = asyncio.create_task(narrow.get("/hang", middlewares=()))
            await server.asked.wait()
            with pytest.raises(module.CommandTimeoutError):
                await narrow.get("/ok")
            holder.cancel()
            with pytest.raises(asyncio.CancelledError):
                await holder

    world.run(body, timeout_s=0.1)
    assert world.outcomes == [Outcome.TIMEOUT]


@pytest.mark.parametrize("path", ["/hang", "/stalling-body"])
def test_a_foreign_timeout_or_cancellation_stays_one_and_is_neutral(world, path):
    async def fetch(session):
        async with session.get(path) as response:
            await response.read()

    async def body(session, _server):
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.1):
                await fetch(session)
        assert not isinstance(caught.value, errors.GroundFaultError)
        task = asyncio.create_task(fetch(session))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert world.snapshot().in_flight == 0

    world.run(body, timeout_s=20.0)
    assert world.outcomes == [Outcome.IGNORED] * 2


def test_running_out_of_a_callers_tiny_budget_is_neutral_and_is_served_no_fallback(world, serving):
    serving.deadline = monotonic() + 0.3

    error = world.get("/hang", timeout_s=30.0, guard={"fallback": cached})

    assert isinstance(error, module.CommandTimeoutError)
    assert error.timeout_s < 0.4
    assert world.outcomes == [Outcome.IGNORED]
    assert serving.faults == []


@pytest.mark.parametrize("path", ["/hang", "/stalling-body"])
def test_running_out_of_nearly_the_whole_timeout_is_not(world, serving, path):
    serving.deadline = monotonic() + 0.9
    world.get(path, timeout_s=1.0)

    assert world.outcomes == [Outcome.TIMEOUT]


def test_a_budget_already_gone_sends_nothing(world, serving):
    serving.deadline = monotonic() - 0.01

    async def body(session, server):
        with pytest.raises(module.CommandTimeoutError):
            await session.get("/ok")
        return server.connections

    assert world.run(body, timeout_s=3.0) == 0
    assert world.outcomes == [Outcome.IGNORED]


def test_an_annotated_503_leaves_its_connection_for_the_next(world):
    async def body(session, server):
        for path in ["/shed", "/shed-slowly", "/shed-in-chunks"] * 3:
            async with session.get(path) as response:
                assert response.status == 503  # nobody reads the body
        return server.connections

    assert world.run(body) == 1


def test_a_refusals_body_can_still_be_read(world):
    async def body(session, _server):
        async with session.get("/shed-slowly") as response:
            assert b"load" in await response.read()

    world.run(body)


def test_a_refusal_whose_body_stalls_is_a_shed_all_the_same(world):
    async def body(session, _server):
        async with session.get("/shed-and-stall") as response:
            return response.status

    assert world.run(body, timeout_s=0.2) == 503
    assert world.outcomes == [Outcome.SHED]


@pytest.mark.parametrize(("path", "open_at_20"), [("/shed", False), ("/passed-on", False), ("/plain-503", True)])
def test_sheds_never_open_the_circuit_and_plain_503s_do(world, path, open_at_20):
    async def body(session, _server):
        for _ in range(20):
            (await session.get(path)).close()

    world.run(body)
    assert (world.snapshot().state is State.OPEN) is open_at_20


@pytest.mark.parametrize("honored", [True, False])
def test_the_annotation_counts_only_if_the_resource_honors_it(world, honored):
    world.get("/shed", honor_handled=honored)

    assert world.outcomes == [Outcome.SHED if honored else Outcome.FAILURE]


class _Resolver(aiohttp.abc.AbstractResolver):
    async def resolve(self, host, port=0, family=socket.AF_INET):
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": 0}]

    async def close(self):
        pass


@pytest.mark.parametrize(
    ("host", "outcome"), [("saber.internal", Outcome.SHED), ("saber.example.com", Outcome.FAILURE)]
)
def test_strangers_are_not_believed(world, host, outcome):
    async def body(session, server):
        async with (
            aiohttp.TCPConnector(resolver=_Resolver()) as connector,
            aiohttp.ClientSession(connector=connector, middlewares=session._middlewares) as other,
        ):
            (await other.get(f"http://{host}:{server.port}/shed")).close()

    world.run(body)
    assert world.outcomes == [outcome]


def test_a_shed_is_raised_on_request_and_carries_the_response(world):
    async def body(session, server):
        with pytest.raises(aiohttp.ClientResponseError) as caught:
            await session.get("/shed")
        error = caught.value
        assert isinstance(error, errors.ShedError)
        assert (error.status, error.reason, error.origin) == (503, Reason.QUEUE_WAIT, "saber")
        assert error.request_info.method == "GET"
        assert error.headers[wire.HANDLED] == "handled"
        assert b"load" in await error.response.read()
        assert "was shed by saber" in str(error)
        await session.get("/ok")
        return server.connections

    assert world.run(body, guard={"on_shed": "raise"}) == 1
    assert world.outcomes == [Outcome.SHED, Outcome.SUCCESS]


def test_an_open_circuit_raises_an_error_that_is_both_ours_and_the_librarys(world):
    async def body(session, server):
        with pytest.raises(aiohttp.ClientConnectionError) as caught:
            await session.get("/ok")
        assert server.connections == 0
        return caught.value

    error = world.run(body, mode="force_open")

    assert isinstance(error, module.CircuitOpenError)
    assert isinstance(error, errors.CircuitOpenError)
    assert not isinstance(error, aiohttp.ClientOSError)  # aiohttp tries again after one of these
    assert "saber/get" in str(error)
    assert world.outcomes == [Outcome.CIRCUIT_OPEN]


@pytest.mark.parametrize(
    "error",
    [
        module.CircuitOpenError("saber", "get", 2.0),
        module.BulkheadFullError("saber", "get", 5),
        module.ThrottledError("saber", "get", 0.25),
        module.UnhealthyError("saber", "get"),
        module.ShedError("saber", "get", Reason.QUEUE_WAIT, "saber"),
        module.CommandTimeoutError("saber", "get", 0.5),
    ],
)
def test_the_middlewares_errors_are_aiohttps_errors_and_pickle(error):
    assert isinstance(error, aiohttp.ClientError)
    assert isinstance(error, errors.GroundFaultError)

    back = pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes

    assert type(back) is type(error)
    assert (str(back), repr(back)) == (str(error), repr(error))
    assert "saber/get" in str(error)


def test_a_shed_that_was_raised_pickles_without_its_response(world):
    error = world.get("/shed", guard={"on_shed": "raise"})
    back = pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes

    assert (str(back), back.reason, back.status, back.response) == (str(error), Reason.QUEUE_WAIT, 503, None)


def cached(_request):
    return Answer(b'{"scores": "old"}', 203, {"Content-Type": "application/json", "X-Age": "9"})


async def cached_by_coroutine(request):
    await asyncio.sleep(0)
    return cached(request)


async def from_the_replica(request):
    url = request.url.with_path("/ok")
    async with aiohttp.ClientSession() as replica:
        response = await replica.get(url)
        await response.read()
        return response


@pytest.mark.parametrize(
    ("fallback", "answer"),
    [
        (cached, (203, b'{"scores": "old"}')),
        (cached_by_coroutine, (203, b'{"scores": "old"}')),
        (from_the_replica, (200, b"ok")),
    ],
)
@pytest.mark.parametrize("path", ["/shed", "/passed-on", "/broken", "/plain-503", "/hang", "/hang-up", "/garbage"])
def test_a_fallback_is_served_and_counted(world, serving, path, fallback, answer):
    assert world.get(path, guard={"fallback": fallback}, timeout_s=0.5) == answer
    assert [event.fallback for event in world.sink.of(CommandDone)] == [True]
    assert world.snapshot().fallbacks == 1
    assert world.snapshot().in_flight == 0
    assert serving.faults == []


def test_an_answer_is_a_response_in_every_respect(world):
    async def body(session, _server):
        async with session.get("/broken", params={"page": "2"}, raise_for_status=True) as response:
            assert (response.status, response.reason) == (203, "Non-Authoritative Information")
            assert response.headers["x-age"] == "9"
            assert response.url.query == {"page": "2"}
            assert await response.json() == {"scores": "old"}
            assert await response.text() == '{"scores": "old"}'
        async with session.get("/broken") as response:
            assert [line async for line in response.content] == [b'{"scores": "old"}']
        async with session.head("/broken") as response:
            assert response.closed

    world.run(body, guard={"fallback": cached})


@pytest.mark.parametrize("on_shed", ["return", "raise"])
@pytest.mark.parametrize(("path", "mode"), [("/ok", "force_open"), ("/shed", "enforce")])
def test_a_fallback_is_served_for_a_rejection_and_for_a_shed_that_would_raise(world, serving, path, mode, on_shed):
    status, _ = world.get(path, guard={"fallback": cached_by_coroutine, "on_shed": on_shed}, mode=mode)

    assert status == 203
    assert [event.fallback for event in world.sink.of(CommandDone)] == [True]
    assert serving.faults == []


@pytest.mark.parametrize("path", ["/ok", "/missing"])
def test_a_fallback_is_not_served_where_nothing_is_wrong(world, path):
    assert world.get(path, guard={"fallback": cached})[0] in {200, 404}
    assert [event.fallback for event in world.sink.of(CommandDone)] == [False]


async def missing_from_the_cache(_request):
    return {}["cache"]


@pytest.mark.parametrize("fallback", [lambda _request: {}["cache"], missing_from_the_cache, lambda _request: b"bytes"])
@pytest.mark.parametrize(("path", "mode"), [("/ok", "force_open"), ("/hang", "enforce"), ("/hang-up", "enforce")])
def test_a_fallback_that_raises_leaves_the_original_error_and_its_fault(world, serving, path, mode, fallback):
    error = world.get(path, guard={"fallback": fallback}, timeout_s=0.2, mode=mode)

    causes = [error.__cause__, error.__cause__.__cause__]
    assert any(isinstance(cause, KeyError | TypeError) for cause in causes)
    assert serving.fault_behind(error) is not None
    assert {event.fallback for event in world.sink.of(CommandDone)} == {False}
    assert world.snapshot().fallbacks == 0
    assert sum(events.internal_errors().values()) > 0


@pytest.mark.parametrize("fallback", [lambda _request: {}["cache"], lambda _request: None])
def test_without_an_answer_from_the_fallback_the_original_response_is_returned(world, fallback):
    assert world.get("/broken", guard={"fallback": fallback}) == (500, b"ok")
    assert world.snapshot().fallbacks == 0


def test_the_last_good_answers_are_served_and_a_miss_is_no_mistake(world):
    last_good = CachedFallback(
        key=lambda request: (request.method, request.url.path), keep_if=lambda one: one.status == 200
    )

    async def body(session, _server):
        request = aiohttp.ClientRequest("GET", session._base_url / "broken", loop=asyncio.get_running_loop())
        async with session.get("/ok") as response:
            last_good.keep(Answer(await response.read(), response.status), request)
        async with session.get("/broken") as response:
            assert (response.status, await response.read()) == (200, b"ok")
        async with session.get("/hang-up") as response:
            raise AssertionError(response)

    with pytest.raises(aiohttp.ServerDisconnectedError) as caught:
        world.run(body, guard={"fallback": last_good})

    assert isinstance(caught.value.__cause__, NothingRememberedError)
    assert (last_good.hits, last_good.misses) == (1, 2)  # aiohttp tries twice
    assert not events.internal_errors()


def test_a_fallback_that_is_canceled_ends_the_call_and_its_response(world, serving):
    started = asyncio.Event

    async def body(session, _server):
        entered = started()

        async def slow(_request):
            entered.set()
            await asyncio.Event().wait()

        guard = GroundFaultMiddleware(Resource("saber", registry=world.registry), command="slow", fallback=slow)
        task = asyncio.create_task(session.get("/broken-and-stalling", middlewares=(guard,)))
        await entered.wait()
        assert world.snapshot("slow").in_flight == 0  # a fallback runs outside the limit
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    world.run(body)
    assert [fault.outcome for fault in serving.faults] == [Outcome.FAILURE]
    assert world.snapshot("slow").fallbacks == 0


@pytest.mark.parametrize("path", ["/stalling-body", "/cut-body", "/hang", "/hang-up", "/broken", "/plain-503", "/shed"])
def test_the_error_the_application_sees_is_found_in_the_ledger(world, serving, path):
    async def body(session, _server):
        async with session.get(path) as response:
            await response.read()

    with pytest.raises(aiohttp.ClientError) as caught:
        world.run(body, timeout_s=0.3, session={"raise_for_status": True})

    fault = serving.fault_behind(caught.value)
    assert fault is not None
    assert (fault.resource, fault.reason) == ("saber", Reason.DEPENDENCY)
    assert fault.origin == ("saber" if path == "/shed" else None)
    assert serving.fault_behind(KeyError("a bug of the application")) is None


@pytest.mark.parametrize("path", ["/broken", "/shed", "/missing"])
def test_a_session_that_raises_for_the_status_is_judged_right(world, path):
    async def body(session, _server):
        with pytest.raises(aiohttp.ClientResponseError):
            await session.get(path)
        assert world.snapshot().in_flight == 0

    world.run(body, session={"raise_for_status": True})
    expected = {"/broken": Outcome.FAILURE, "/shed": Outcome.SHED, "/missing": Outcome.SUCCESS}
    assert world.outcomes == [expected[path]]


def test_a_fallback_further_out_makes_good_what_the_middleware_noted(world, serving):
    outer = Resource("page", registry=world.registry).command("scores", fallback="old scores")

    async def body(session, _server):
        async def scores():
            async with session.get("/broken", raise_for_status=True) as response:
                return await response.text()

        return await outer.acall(scores)

    assert world.run(body) == "old scores"
    assert serving.faults == []


def test_a_body_is_in_flight_until_its_end_has_arrived(world):
    async def body(session, server):
        async with session.get("/stalling-body") as response:
            assert await response.content.read(4) == b"half"
            assert world.snapshot().in_flight == 1
            assert world.outcomes == []
        assert world.snapshot().in_flight == 0
        async with session.get("/chunks") as response:
            await asyncio.sleep(0.3)  # aiohttp reads it on its own
            assert world.snapshot().in_flight == 0
            assert await response.read() == b"onetwothree"

    world.run(body)
    assert world.outcomes == [Outcome.SUCCESS] * 2


@pytest.mark.parametrize("leave", ["close", "release"])
def test_a_body_left_early_is_judged_by_its_status(world, leave):
    async def body(session, _server):
        response = await session.get("/stalling-body")
        getattr(response, leave)()
        assert world.snapshot().in_flight == 0

    world.run(body, timeout_s=20.0)
    assert world.outcomes == [Outcome.SUCCESS]


def test_an_error_of_the_applications_own_amid_a_body_is_not_the_callees(world):
    async def body(session, _server):
        with pytest.raises(ZeroDivisionError):
            async with session.get("/stalling-body"):
                raise ZeroDivisionError

    world.run(body)
    assert world.outcomes == [Outcome.SUCCESS]


def test_the_time_an_application_takes_for_a_large_body_is_not_counted(world):
    async def body(session, _server):
        async with session.get("/large") as response:
            await asyncio.sleep(2.5)  # aiohttp's buffer is full long before
            assert world.snapshot().in_flight == 1
            return len(await response.read())

    assert world.run(body, timeout_s=2.0) == LARGE
    assert world.outcomes == [Outcome.SUCCESS]
    (event,) = world.sink.of(CommandDone)
    assert event.duration_s < 2.0


def test_a_small_body_nobody_reads_is_the_callees_matter(world):
    async def body(session, _server):
        async with session.get("/stalling-body") as response:
            await asyncio.sleep(0.5)
            assert world.outcomes == [Outcome.TIMEOUT]
            with pytest.raises(module.CommandTimeoutError):
                await response.read()

    world.run(body, timeout_s=0.2)


@pytest.mark.filterwarnings("ignore:Unclosed connection")  # aiohttp's own opinion of it
@pytest.mark.parametrize("timeout_s", [None, 0.2])
def test_a_forgotten_response_gives_its_permit_back(world, timeout_s):
    async def body(session, server):
        connector = aiohttp.TCPConnector()
        async with aiohttp.ClientSession(
            server.url, connector=connector, middlewares=session._middlewares
        ) as forgetful:
            forgotten = weakref.ref(await forgetful.get("/stalling-body"))
            await asyncio.sleep(0.5 if timeout_s else 0.0)
            assert world.snapshot().in_flight == (0 if timeout_s else 1)
        await asyncio.sleep(0)
        gc.collect()
        assert forgotten() is None
        assert world.snapshot().in_flight == 0

    world.run(body, timeout_s=timeout_s)
    snapshot = world.snapshot()
    assert snapshot.counts[Outcome.TIMEOUT if timeout_s else Outcome.IGNORED] == 1


def test_a_response_that_is_collected_gives_its_permit_back_without_settling(world):
    async def body(session, _server):
        response = await session.get("/stalling-body")
        response.content._eof_callbacks.clear()  # what keeps aiohttp from collecting it
        del response
        gc.collect()
        assert world.snapshot().in_flight == 0

    world.run(body)
    assert world.snapshot().counts[Outcome.IGNORED] == 1


def test_only_so_many_calls_at_a_time(world):
    async def body(session, _server):
        async with session.get("/stalling-body"):
            with pytest.raises(module.BulkheadFullError):
                await session.get("/ok")

    world.run(body, max_concurrent=1)
    assert world.snapshot().state is State.CLOSED


def test_one_hop_tells_the_callee_who_calls_and_how_long_it_waits(world, serving):
    serving.deadline = monotonic() + 9.0

    async def body(session, server):
        copied = {"X-GroundFault-Criticality": "critical-plus", "x-groundfault-odd": "1"}
        await session.get("/ok", headers=copied)
        assert copied == {"X-GroundFault-Criticality": "critical-plus", "x-groundfault-odd": "1"}
        return {name: value for name, value in server.hits[0][2].items() if wire.is_ours(name)}

    ours = world.run(body, timeout_s=30.0)

    assert 0 < int(ours.pop(wire.TIMEOUT_MS)) <= 9000
    assert ours == {wire.CALLER: "grouper/saber.get", wire.CRITICALITY: "sheddable", wire.KEY: "0a1b"}


def test_without_a_request_being_served_only_the_timeout_is_told(world, monkeypatch):
    monkeypatch.delenv("GROUNDFAULT_SERVICE", raising=False)

    async def body(session, server):
        await session.get("/ok")
        return {name: value for name, value in server.hits[0][2].items() if wire.is_ours(name)}

    assert world.run(body, timeout_s=3.0) == {wire.TIMEOUT_MS: "3000"}


@pytest.mark.parametrize(
    ("path", "labeled", "outcomes"),
    [
        ("/elsewhere", [True, False], [Outcome.SUCCESS]),
        ("/to-shed-elsewhere", [True, False], [Outcome.SUCCESS]),
        ("/there-and-back", [True, False, True], [Outcome.SUCCESS] * 2),
        ("/here", [True, True], [Outcome.SUCCESS] * 2),
    ],
)
def test_a_redirect_to_another_host_is_neither_labeled_nor_believed_nor_counted(
    world, serving, path, labeled, outcomes
):
    async def body(session, server):
        (await session.get(path, headers={wire.KEY: "ff"})).close()
        first = [wire.CALLER in headers for _, _, headers in server.hits]
        assert [wire.KEY in headers for _, _, headers in server.hits] == labeled
        server.hits.clear()
        (await session.get("/ok")).close()
        (await session.get(f"http://localhost:{server.port}/ok")).close()  # asked for by name, it is the resource's
        assert [wire.CALLER in headers for _, _, headers in server.hits] == [True, True]
        return first

    assert world.run(body) == labeled
    assert world.outcomes == [*outcomes, Outcome.SUCCESS, Outcome.SUCCESS]
    assert serving.faults == []


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http:///ok", aiohttp.InvalidURL),
        ("ftp://saber/ok", aiohttp.NonHttpUrlClientError),
        ("http://saber:notaport/", aiohttp.InvalidURL),
    ],
)
def test_a_url_without_a_host_is_the_callers_error_and_creates_nothing(world, url, error):
    async def body(session, _server):
        async with aiohttp.ClientSession(middlewares=session._middlewares) as other:
            with pytest.raises(error):
                await other.get(url)

    world.run(body)
    assert list(world.registry) == []


def test_a_redirect_to_nowhere_is_aiohttps_error(world):
    assert isinstance(world.get("/nowhere"), aiohttp.InvalidURL)
    assert world.outcomes == [Outcome.SUCCESS]


async def _a_body_that_raises():
    yield b"half"
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"headers": {"X-Bad": "a\r\nb"}}, ValueError),
        ({"data": _a_body_that_raises}, aiohttp.ClientConnectionError),
    ],
)
def test_the_callers_own_mistakes_are_ignored(world, arguments, expected):
    async def body(session, _server):
        made = {name: value() if callable(value) else value for name, value in arguments.items()}
        with pytest.raises(expected):
            await session.post("/ok", **made)

    world.run(body)
    assert world.outcomes == [Outcome.IGNORED]
    assert world.snapshot("post").in_flight == 0


def test_a_refused_connection_is_a_failure_with_aiohttps_own_error(world):
    async def body(session, _server):
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get("http://127.0.0.1:1/ok")

    world.run(body)
    assert world.outcomes == [Outcome.FAILURE]


def test_a_certificate_that_is_refused_is_a_failure_though_it_is_a_value_error():
    key = aiohttp.client_reqrep.ConnectionKey("saber", 443, True, True, None, None, None)
    error = aiohttp.ClientConnectorCertificateError(key, ValueError("self-signed"))

    assert isinstance(error, ValueError)
    assert module.outcome_of(error) is Outcome.FAILURE


def test_a_name_that_does_not_resolve_is_a_failure(world):
    class Nobody(_Resolver):
        async def resolve(self, host, port=0, family=socket.AF_INET):
            raise OSError("no such host")

    async def body(session, _server):
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=Nobody()), middlewares=session._middlewares
        ) as other:
            with pytest.raises(aiohttp.ClientConnectorError):
                await other.get("http://saber.invalid/ok")

    world.run(body)
    assert world.outcomes == [Outcome.FAILURE]


def test_the_second_try_that_aiohttp_makes_is_a_call_of_its_own(world):
    assert isinstance(world.get("/hang-up"), aiohttp.ServerDisconnectedError)
    assert world.outcomes == [Outcome.FAILURE] * 2


@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        ("/cut-body", aiohttp.ClientPayloadError),
        ("/hang-up", aiohttp.ServerDisconnectedError),
        ("/hang", aiohttp.SocketTimeoutError),
        ("/stalling-body", aiohttp.SocketTimeoutError),
    ],
)
def test_errors_that_the_settings_ignore_are_ignored(world, path, ignored):
    timeout = aiohttp.ClientTimeout(sock_read=0.1)
    error = world.get(path, session={"timeout": timeout}, ignored_errors=(ignored,))

    assert isinstance(error, ignored)
    assert set(world.outcomes) == {Outcome.IGNORED}


def test_commands_are_named_by_method_by_string_or_by_callable(world):
    async def body(session, _server):
        await session.post("/ok", data=b"x")

    world.run(body)
    world.get("/ok", guard={"command": "entrants"})
    world.get("/missing", guard={"command": lambda request: request.url.path.strip("/")})
    world.get("/ok", guard={"command": lambda _request: {}["route"]})

    assert [command.name for command in world.registry] == ["post", "entrants", "missing", "other"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_shed": "ignore"}, "on_shed must be 'return' or 'raise', not 'ignore'"),
        ({"timeout_s": -1}, "timeout_s"),
        ({"command": "Not A Name!"}, "Not A Name!"),
        ({"no_such_setting": 1}, "no_such_setting"),
    ],
)
def test_nonsense_is_refused_with_the_field_and_the_value(arguments, message):
    with pytest.raises(errors.SettingsError, match=message):
        GroundFaultMiddleware("saber-nonsense", **arguments)


@pytest.mark.parametrize("more", [{"timeout_s": 1.0}, {"sinks": ()}])
def test_settings_beside_a_resource_are_refused(registry, more):
    with pytest.raises(errors.SettingsError, match="belong to the Resource"):
        GroundFaultMiddleware(Resource("saber", registry=registry), **more)


def test_the_kill_switch_lets_everything_pass_straight_through(world, serving, monkeypatch):
    monkeypatch.setenv("GROUNDFAULT_DISABLED", "1")
    serving.deadline = monotonic() - 1

    async def body(session, server):
        async with session.get("/shed", headers={wire.KEY: "ff"}) as response:
            assert response.status == 503
        async with session.get("/chunks") as response:
            assert type(response.content._protocol) is aiohttp.client_proto.ResponseHandler
            assert await response.read() == b"onetwothree"
        return [name for _, _, headers in server.hits for name in headers if wire.is_ours(name)]

    ours = world.run(body, guard={"on_shed": "raise", "fallback": cached}, timeout_s=3.0, mode="force_open")

    assert ours == [wire.KEY]
    assert serving.faults == []
    assert world.outcomes == []


def test_a_websocket_is_one_call_until_it_is_open(world):
    async def echo(request):
        socket_ = web.WebSocketResponse()
        await socket_.prepare(request)
        async for message in socket_:
            await socket_.send_str(message.data)
        return socket_

    async def refuse(_request):
        whole = wire.answer(Reason.QUEUE_WAIT, "saber")
        return web.Response(status=503, body=whole.body, headers=wire.annotations(Reason.QUEUE_WAIT, "saber"))

    async def body(session, _server):
        application = web.Application()
        application.router.add_get("/echo", echo)
        application.router.add_get("/refuse", refuse)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        async with session.ws_connect(f"http://127.0.0.1:{port}/echo") as opened:
            assert world.snapshot().in_flight == 0
            assert world.outcomes == [Outcome.SUCCESS]
            await asyncio.sleep(0.6)
            await opened.send_str("still here")  # the timeout was the handshake's
            assert await opened.receive_str() == "still here"
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(f"http://127.0.0.1:{port}/refuse")
        assert refusal_in(caught.value) == wire.Refusal(Reason.QUEUE_WAIT, "saber")
        await runner.cleanup()

    world.run(body, guard={"fallback": cached}, timeout_s=0.5)
    assert world.outcomes == [Outcome.SUCCESS, Outcome.SHED]


def test_another_middleware_may_send_a_request_twice(world):
    async def twice(request, handler):
        first = await handler(request)
        first.release()
        return await handler(request)

    async def body(session, server):
        guards = (twice, *session._middlewares)
        async with session.get("/ok", middlewares=guards) as response:
            assert response.status == 200
        return [sum(wire.is_ours(name) for name in headers) for _, _, headers in server.hits]

    assert world.run(body, timeout_s=9.0) == [1, 1]
    assert world.outcomes == [Outcome.SUCCESS] * 2


def test_a_guarded_call_inside_another_is_counted_by_its_own_command_alone(world):
    async def body(session, _server):
        inner = GroundFaultMiddleware(
            Resource("inner", registry=world.registry, sinks=(world.sink,), mode="force_open")
        )
        with pytest.raises(module.CircuitOpenError, match="inner/get"):
            await session.get("/ok", middlewares=(*session._middlewares, inner))

    world.run(body)
    assert world.outcomes == [Outcome.CIRCUIT_OPEN, Outcome.IGNORED]


def test_a_reader_that_cannot_be_watched_costs_no_request(world, monkeypatch):
    def no_timer(*_arguments):
        raise AttributeError("_timer")

    monkeypatch.setattr("groundfault.integrations._aiohttp_body._Waits", no_timer)

    assert world.get("/chunks", timeout_s=20.0) == (200, b"onetwothree")
    assert world.outcomes == [Outcome.SUCCESS]
    assert sum(events.internal_errors().values()) == 1


def test_a_body_speaks_in_the_context_of_its_own_call(world):
    contexts = [_context.RequestContext("grouper", caller=f"fan-{n}") for n in range(3)]

    async def fetch(session, context):
        _context.serving.set(context)
        with suppress(aiohttp.ClientError):
            async with session.get("/chunks" if context is not contexts[2] else "/cut-body") as response:
                await response.read()

    async def body(session, server):
        for context in contexts:  # on one connection, made for the first of them
            await asyncio.create_task(fetch(session, context))
        return server.connections

    assert world.run(body) == 1
    assert [event.caller for event in world.sink.of(CommandDone)] == ["fan-0", "fan-1", "fan-2"]
    assert [len(context.faults) for context in contexts] == [0, 0, 1]


def test_two_loops_at_once_share_one_middleware(world):
    guard = GroundFaultMiddleware(
        Resource("saber", registry=world.registry, sinks=(world.sink,), timeout_s=20.0), on_shed="return"
    )
    paths = ["/ok", "/broken", "/shed", "/chunks"] * 10
    raised = []

    async def main():
        async with Server() as server, aiohttp.ClientSession(server.url, middlewares=(guard,)) as session:
            for path in paths:
                async with session.get(path) as response:
                    await response.read()

    def serve():
        try:
            with asyncio.Runner(loop_factory=world.loop_factory) as runner:
                runner.run(main())
        except BaseException as error:  # noqa: BLE001  told below
            raised.append(error)

    threads = [threading.Thread(target=serve) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert raised == []
    totals = world.snapshot().totals
    assert [totals[each] for each in (Outcome.SUCCESS, Outcome.FAILURE, Outcome.SHED)] == [40, 20, 20]
    assert world.snapshot().in_flight == 0


def test_a_storm_of_cancellations_over_sockets_leaves_nothing_in_flight(world):
    draw = random.Random(7)
    paths = ["/ok", "/chunks", "/stalling-body", "/drip", "/hang", "/shed-slowly", "/broken", "/dripping-head", "/here"]

    async def fetch(session, path):
        async with session.get(path) as response:
            await response.read()

    async def body(session, _server):
        for _ in range(40):
            tasks = [asyncio.create_task(fetch(session, draw.choice(paths))) for _ in range(20)]
            for _ in range(20):
                await asyncio.sleep(draw.choice([0, 0, 0.001, 0.003]))
                draw.choice(tasks).cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert world.snapshot().in_flight == 0

    world.run(body, guard={"command": "get"}, session={"connector": None}, timeout_s=0.02, mode="force_closed")
    counted = world.snapshot().totals
    assert counted[Outcome.IGNORED] > 10
    assert sum(counted.values()) >= 700


class _Line:
    """A connection as a response knows it."""

    def __init__(self):
        self.protocol = aiohttp.client_proto.ResponseHandler(asyncio.get_running_loop())
        self.protocol.transport = object()
        self._callbacks = []

    def add_callback(self, callback):
        self._callbacks.append(callback)

    def close(self):
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    release = close


def _answered_later(request, draw, status):
    """Make a response whose body is under way, or breaks, or stalls."""
    response = response_of(Answer(status=status, headers=wire.annotations(Reason.QUEUE_WAIT, "saber")), request)
    loop = asyncio.get_running_loop()
    response._body = None
    response._closed = False
    response._connection = line = _Line()
    response.content = content = aiohttp.StreamReader(line.protocol, 2**16, loop=loop)
    content.on_eof(response._response_eof)
    content.feed_data(b"half")
    what = draw.choice(["eof", "eof", "break", "stall"])
    if what == "eof":
        loop.call_soon(lambda: response.closed or content.feed_eof())
    elif what == "break":
        loop.call_soon(content.set_exception, aiohttp.ClientPayloadError("cut"))
    return response


class _Storm:
    """Calls of every kind, each canceled after a few steps of the loop."""

    def __init__(self, seed, registry):
        self.draw = random.Random(seed)
        resource = Resource("saber", registry=registry, timeout_s=20.0, mode="force_closed")
        self.guard = GroundFaultMiddleware(resource, fallback=self.draw.choice([None, self.fallback]))

    async def fallback(self, _request):
        await asyncio.sleep(0)

    async def handler(self, request):
        for _ in range(self.draw.randrange(3)):
            await asyncio.sleep(0)
        if self.draw.random() < 0.1:
            raise aiohttp.ServerDisconnectedError
        return _answered_later(request, self.draw, self.draw.choice([200, 200, 404, 500, 503]))

    async def fetch(self, request):
        async with await self.guard(request, self.handler) as response:
            await response.read()

    async def call(self, request):
        task = asyncio.create_task(self.fetch(request))
        for _ in range(self.draw.randrange(8)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("seed", range(3))
def test_a_storm_of_cancellations_at_any_point_leaves_nothing_in_flight(world, seed):
    calls = 3000
    storm = _Storm(seed, world.registry)

    async def body(session, _server):
        request = aiohttp.ClientRequest("GET", session._base_url, loop=asyncio.get_running_loop(), session=session)
        for _ in range(calls):
            await storm.call(request)
            assert world.registry.get("saber", "get")._gate.in_flight == []

    world.run(body, guard={"command": "other"})
    totals = world.snapshot().totals
    assert sum(totals.values()) <= calls  # a task may be canceled before its first step
    assert min(totals[each] for each in (Outcome.SUCCESS, Outcome.FAILURE, Outcome.SHED, Outcome.IGNORED)) > calls / 100


def test_a_redirect_that_is_not_followed_disarms_no_other_middleware():
    """The application asks for that place itself, through the session of that callee: it is that callee's call."""

    async def main():
        seen = []

        async def login(request):
            seen.append(request.path)
            return web.Response(text="login")

        async def redirect(_request):
            raise web.HTTPFound(f"http://127.0.0.1:{ports[0]}/")

        runners, ports = [], []
        for handler in (login, redirect):
            application = web.Application()
            application.router.add_get("/", handler)
            runner = web.AppRunner(application)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            runners.append(runner)
            ports.append(site._server.sockets[0].getsockname()[1])
        registry = Registry()
        first = GroundFaultMiddleware(Resource("saber", registry=registry, sinks=[]))
        second = GroundFaultMiddleware(Resource("login", registry=registry, sinks=[], mode="force_open"))
        async with (
            aiohttp.ClientSession(middlewares=(first,)) as saber,
            aiohttp.ClientSession(middlewares=(second,)) as other,
        ):
            async with saber.get(f"http://127.0.0.1:{ports[1]}/", allow_redirects=False) as response:
                assert response.status == 302
            for _ in range(2):
                with pytest.raises(errors.CircuitOpenError):
                    await other.get(f"http://127.0.0.1:{ports[0]}/")
        for runner in runners:
            await runner.cleanup()
        assert seen == []

    asyncio.run(main())
