"""The server interceptors of both stacks, on real gRPC servers on loopback.

No protobuf: requests and responses are bytes. Nothing here forks, for gRPC's core would not survive it.
"""

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from groundfault import _context, errors, wire
from groundfault._clock import monotonic
from groundfault.breaker import Registry, Resource
from groundfault.events import CommandDone, RequestSeen, SheddingChanged
from groundfault.integrations import _grpc_served
from groundfault.integrations import grpc as adapter
from groundfault.integrations._grpc_served import address_of, is_exempt
from groundfault.integrations.grpc import (
    AioServerInterceptor,
    GroundFaultInterceptor,
    ServerInterceptor,
    aio_interceptors,
)
from groundfault.refusals import Joined
from groundfault.shedding._rpc import arrive
from groundfault.shedding.shedder import Shedder
from groundfault.vocabulary import Criticality, Outcome, Reason

LONG_S = 10.0
ROUNDED_S = 0.2  # gRPC writes a timeout with few digits, rounded up
SERVICE = "test.v1.Saber"
KINDS = ("unary_unary", "stream_unary", "unary_stream", "stream_stream")
HEALTH = "/grpc.health.v1.Health/Check"


class End(Exception):  # noqa: N818  not an error of anybody's: how a behavior asks for an end of its call
    """Ends the call with a status, as the stack that it is served by does it."""

    def __init__(self, code, trailing=()):
        super().__init__(code)
        self.code = code
        self.trailing = trailing


def blocking(behave, kind):
    """Make a handler's behavior, of the kind, of ``behave(request, context)``."""

    def one(request, context):
        try:
            return behave(request, context)
        except End as end:
            if end.trailing:
                context.set_trailing_metadata(end.trailing)
            context.abort(end.code, "as asked")

    def last(requests, context):
        return one(list(requests)[-1], context)

    def many(request, context):
        yield one(request, context)
        yield b"two"

    def each(requests, context):
        for request in requests:
            yield from many(request, context)

    return dict(zip(KINDS, (one, last, many, each), strict=True))[kind]


def awaited(behave, kind):
    """Do the same with coroutines; ``behave`` may return an awaitable."""

    async def one(request, context):
        try:
            response = behave(request, context)
            return await response if asyncio.iscoroutine(response) else response
        except End as end:
            if end.trailing:
                context.set_trailing_metadata(end.trailing)
            await context.abort(end.code, "as asked")

    async def last(requests, context):
        return await one([request async for request in requests][-1], context)

    async def many(request, context):
        yield await one(request, context)
        yield b"two"

    async def each(requests, context):
        async for request in requests:
            async for response in many(request, context):
                yield response

    return dict(zip(KINDS, (one, last, many, each), strict=True))[kind]


def handlers(methods, adapt):
    """Return generic handlers of ``{(path, kind): behave}``."""
    made = []
    for (path, kind), behave in methods.items():
        _, service, method = path.split("/")
        handler = getattr(grpc, f"{kind}_rpc_method_handler")(adapt(behave, kind))
        made.append(grpc.method_handlers_generic_handler(service, {method: handler}))
    return made


class Blocking:
    """A blocking server with as many threads as said."""

    waits = True

    def __init__(self, methods, shedder, threads=8):
        self.pool = ThreadPoolExecutor(threads)
        self.server = grpc.server(self.pool, interceptors=(ServerInterceptor(shedder=shedder),))
        self.server.add_generic_rpc_handlers(handlers(methods, blocking))
        self.target = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def stop(self):
        self.server.stop(None).wait(10)
        self.pool.shutdown()
        del self.server  # with it go threads of gRPC's core


class Asyncio:
    """A server of grpc.aio on a loop and a thread of its own."""

    waits = False
    adapt = staticmethod(awaited)

    def __init__(self, methods, shedder, threads=8):
        self.started = threading.Event()
        self.pool = ThreadPoolExecutor(threads)
        self.thread = threading.Thread(target=asyncio.run, args=(self._serve(methods, shedder),))
        self.thread.start()
        assert self.started.wait(10)

    async def _serve(self, methods, shedder):
        self.loop = asyncio.get_running_loop()
        self.ending = asyncio.Event()
        server = grpc.aio.server(self.pool, interceptors=(AioServerInterceptor(shedder=shedder),))
        server.add_generic_rpc_handlers(handlers(methods, self.adapt))
        self.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        self.started.set()
        await self.ending.wait()
        await server.stop(None)

    def stop(self):
        self.pool.shutdown()  # first, for grpc.aio's threads need the loop to come to their end
        self.loop.call_soon_threadsafe(self.ending.set)
        self.thread.join(10)
        assert not self.thread.is_alive()


class Threads(Asyncio):
    """The same, its handlers plain functions, which it runs in threads."""

    waits = True
    adapt = staticmethod(blocking)


STACKS = {"blocking": Blocking, "aio": Asyncio, "aio-threads": Threads}
EACH_STACK = pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
EACH_KIND = pytest.mark.parametrize("kind", KINDS)
WITH_A_POOL = pytest.mark.parametrize("stack", [Blocking, Threads], ids=["blocking", "aio-threads"])


def path_of(kind):
    return f"/{SERVICE}/{kind.title().replace('_', '')}"


@pytest.fixture(scope="module", autouse=True)
def _alone_again():
    """Let gRPC's core end its threads before the next module's tests fork."""
    yield
    gc.collect()
    until(lambda: len(list(Path("/proc/self/task").iterdir())) <= threading.active_count())


@pytest.fixture
def serve(sink):
    """Start a server for ``behave``, which answers all four kinds; return it, with its shedder."""
    started = []

    def start(stack, behave, *, threads=8, others=None, sinks=(sink,), **settings):
        shedder = Shedder(sinks=sinks, **{"service": "saber", **settings})
        methods = {(path_of(kind), kind): behave for kind in KINDS} | (others or {})
        server = stack(methods, shedder, threads)
        server.shedder = shedder
        started.append(server)
        return server

    yield start
    for server in reversed(started):
        server.stop()


@pytest.fixture
def dial():
    """Make a call of one kind over a plain channel; return the responses."""
    channels = {}

    def call(server, kind, request=b"?", *, path=None, **details):
        channel = channels.get(server.target)
        if channel is None:
            channel = channels[server.target] = grpc.insecure_channel(server.target)
        if kind.startswith("stream") and isinstance(request, bytes):
            request = iter([request])
        details.setdefault("timeout", LONG_S)
        answer = getattr(channel, kind)(path or path_of(kind))(request, **details)
        return [answer] if kind.endswith("unary") else list(answer)

    call.channel = lambda server: channels.setdefault(server.target, grpc.insecure_channel(server.target))
    yield call
    for channel in channels.values():
        channel.close()


def echo(request, context):
    return b"-" + request


def annotation(error):
    """Return reason and origin of an annotated UNAVAILABLE, None for every other error."""
    trailing = Joined(error.trailing_metadata())
    if trailing.get("x-groundfault") is None:
        assert trailing.get("x-groundfault-reason") is None
        return None
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert trailing.get("x-groundfault") == "handled"
    assert trailing.get("grpc-retry-pushback-ms") == "-1"
    assert trailing.get("cache-control") is None
    return trailing.get("x-groundfault-reason"), trailing.get("x-groundfault-origin")


def empty(server):
    """Wait until nothing is in flight: the client may have its answer a little earlier."""
    return until(lambda: server.shedder.snapshot().in_flight == 0)


def until(condition):
    deadline = monotonic() + 10
    while not condition() and monotonic() < deadline:
        threading.Event().wait(0.005)
    return condition()


@EACH_STACK
@EACH_KIND
def test_every_kind_is_served_as_without(serve, dial, sink, stack, kind):
    server = serve(stack, echo)

    assert dial(server, kind, b"a") == ([b"-a"] if kind.endswith("unary") else [b"-a", b"two"])
    assert empty(server)
    (seen,) = sink.of(RequestSeen)
    assert (seen.service, seen.route, seen.reason, seen.criticality) == ("saber", "other", None, Criticality.CRITICAL)
    assert seen.signal == ("thread-pool" if stack.waits else "none")
    assert (seen.queue_wait_s is not None) is stack.waits
    dial(server, kind, b"b")
    assert [event.route for event in sink.of(RequestSeen)] == ["other", path_of(kind)]
    assert server.shedder.snapshot().internal_errors == {}


@EACH_STACK
def test_a_stream_of_requests_is_read_as_it_comes(serve, dial, stack):
    server = serve(stack, echo)

    assert dial(server, "stream_stream", iter([b"a", b"b"])) == [b"-a", b"two", b"-b", b"two"]
    assert dial(server, "stream_unary", iter([b"a", b"b"])) == [b"-b"]


@EACH_STACK
@EACH_KIND
def test_the_context_is_gRPCs_in_everything_else(serve, dial, stack, kind):  # noqa: N802
    seen = {}

    def behave(request, context):
        seen.update(
            metadata=Joined(context.invocation_metadata()),
            peer=context.peer(),
            left_s=context.time_remaining(),
            known=isinstance(context, grpc.ServicerContext | grpc.aio.ServicerContext),
        )
        context.user = "an attribute of the application's"
        seen["user"] = context.user
        context.set_details("words of its own")
        context.set_code(grpc.StatusCode.NOT_FOUND)
        return b""

    with pytest.raises(grpc.RpcError) as caught:
        dial(serve(stack, behave), kind, metadata=[("x-own", "1")])

    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.NOT_FOUND, "words of its own")
    assert annotation(caught.value) is None
    assert seen["metadata"].get("X-Own") == "1"
    assert seen["peer"].startswith("ipv4:127.0.0.1:")
    assert 0 < seen["left_s"] <= LONG_S + ROUNDED_S
    assert seen["known"]
    assert seen["user"]


@EACH_STACK
@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
def test_a_call_without_its_only_request_ends_as_gRPC_ends_it(serve, dial, stack, kind):  # noqa: N802
    server = serve(stack, echo)
    as_stream = f"stream_{kind.partition('_')[2]}"
    with pytest.raises(grpc.RpcError) as caught:
        dial(server, as_stream, iter(()), path=path_of(kind), timeout=2.0)

    if stack is not Asyncio:  # which leaves it to the client's deadline
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "requires exactly one request message" in caught.value.details()
    assert empty(server)


@EACH_STACK
def test_a_method_that_is_not_there_is_gRPCs_to_answer(serve, dial, sink, stack):  # noqa: N802
    with pytest.raises(grpc.RpcError) as caught:
        dial(serve(stack, echo), "unary_unary", path=f"/{SERVICE}/Missing")

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert sink.of(RequestSeen) == []


@WITH_A_POOL
@EACH_KIND
def test_calls_that_waited_too_long_for_a_thread_are_refused(serve, dial, sink, stack, kind):
    behave = Held()
    server = serve(stack, behave, threads=1, deadline_s=0.4)
    with ThreadPoolExecutor(9) as callers, behave:
        first = callers.submit(dial, server, kind, b"hold")
        assert behave.entered.wait(10)
        waiting = [callers.submit(dial, server, kind, b"x") for _ in range(8)]
        threading.Event().wait(0.8)
        behave.release.set()
        assert first.result()[0] == b"hold"
        refusals = [future.exception() for future in waiting]

    assert behave.served == 1
    assert [annotation(error) for error in refusals] == [("queue-wait", "saber")] * 8
    assert "the request waited too long" in refusals[0].details()
    assert empty(server)
    snapshot = server.shedder.snapshot()
    assert snapshot.shed == {(Reason.QUEUE_WAIT, Criticality.CRITICAL): 8}
    assert snapshot.signal == "thread-pool"
    assert snapshot.signals_refused["tcp-info"] == "gRPC keeps its sockets to itself"
    assert snapshot.queue_wait_s > 0.1
    (begun,) = [event for event in sink.of(SheddingChanged) if event.shedding]
    assert begun.queue_wait_s > 0.1
    assert [event.enforced for event in sink.of(RequestSeen)] == [True] * 9


class Held:
    """A behavior that keeps its thread with a request ``hold`` until it is released."""

    def __init__(self):
        self.entered = threading.Event()
        self.release = threading.Event()
        self.served = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.release.set()

    def __call__(self, request, context):
        self.served += 1
        if request == b"hold":
            self.entered.set()
            self.release.wait(20)
        return request


@WITH_A_POOL
def test_shadow_mode_counts_and_refuses_nothing(serve, dial, sink, stack):
    behave = Held()
    server = serve(stack, behave, threads=1, deadline_s=0.4, mode="shadow")
    with ThreadPoolExecutor(5) as callers, behave:
        callers.submit(dial, server, "unary_unary", b"hold")
        assert behave.entered.wait(10)
        waiting = [callers.submit(dial, server, "unary_unary", b"x") for _ in range(4)]
        threading.Event().wait(0.8)
        behave.release.set()
        assert [future.result() for future in waiting] == [[b"x"]] * 4

    assert empty(server)
    assert sum(server.shedder.snapshot().shed.values()) == 4
    assert {event.enforced for event in sink.of(RequestSeen)} == {False}


@WITH_A_POOL
def test_the_health_service_is_answered_by_a_full_pool(serve, dial, sink, stack):
    behave = Held()
    server = serve(stack, behave, threads=1, deadline_s=0.4, others={(HEALTH, "unary_unary"): behave})
    with ThreadPoolExecutor(3) as callers, behave:
        callers.submit(dial, server, "unary_unary", b"hold")
        assert behave.entered.wait(10)
        checked = callers.submit(dial, server, "unary_unary", b"fine", path=HEALTH)
        refused = callers.submit(dial, server, "unary_unary", b"x")
        threading.Event().wait(0.8)
        behave.release.set()
        assert checked.result() == [b"fine"]
        assert annotation(refused.exception()) == ("queue-wait", "saber")


@EACH_STACK
@EACH_KIND
def test_a_server_that_drains_refuses_all_but_health_and_reflection(serve, dial, stack, kind):
    reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    others = {(HEALTH, "unary_unary"): echo, (reflection, "stream_stream"): echo}
    server = serve(stack, echo, others=others)
    server.shedder.drain()
    with pytest.raises(grpc.RpcError) as caught:
        dial(server, kind)

    assert annotation(caught.value) == ("draining", "saber")
    assert dial(server, "unary_unary", b"a", path=HEALTH) == [b"-a"]
    assert dial(server, "stream_stream", b"a", path=reflection) == [b"-a", b"two"]
    assert empty(server)


@EACH_STACK
@EACH_KIND
def test_only_so_many_calls_at_a_time(serve, dial, stack, kind):
    inside, release = threading.Event(), threading.Event()

    async def hold():
        inside.set()
        await asyncio.to_thread(release.wait, 20)
        return b"done"

    def behave(request, context):
        if request != b"hold":
            return request
        if stack is Asyncio:
            return hold()
        inside.set()
        release.wait(20)
        return b"done"

    server = serve(stack, behave, max_concurrency=1)
    with ThreadPoolExecutor(1) as callers:
        try:
            first = callers.submit(dial, server, kind, b"hold")
            assert inside.wait(10)
            with pytest.raises(grpc.RpcError) as caught:
                dial(server, kind, b"x")
        finally:
            release.set()
        assert first.result()[0] == b"done"
    assert annotation(caught.value) == ("concurrency", "saber")
    assert empty(server)
    assert dial(server, kind, b"x")[0] == b"x"


@EACH_STACK
@EACH_KIND
def test_a_call_whose_time_is_up_is_refused(serve, dial, stack, kind):
    server = serve(stack, echo)
    with pytest.raises(grpc.RpcError) as caught:
        dial(server, kind, metadata=[("x-groundfault-timeout-ms", "0")])

    assert annotation(caught.value) == ("deadline", "saber")


@WITH_A_POOL
def test_a_call_whose_caller_left_the_queue_is_not_begun(serve, dial, stack):
    behave = Held()
    server = serve(stack, behave, threads=1, deadline_s=30.0)
    with ThreadPoolExecutor(2) as callers, behave:
        callers.submit(dial, server, "unary_unary", b"hold")
        assert behave.entered.wait(10)
        with pytest.raises(grpc.RpcError) as caught:
            dial(server, "unary_unary", b"x", timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        threading.Event().wait(0.2)  # until the server knows
        behave.release.set()
        assert until(lambda: behave.served == 1 and server.shedder.snapshot().in_flight == 0)

    if stack is Blocking:  # grpc.aio takes the call back by itself
        assert until(lambda: server.shedder.snapshot().abandoned == 1)
        assert server.shedder.snapshot().shed == {(Reason.DEADLINE, Criticality.CRITICAL): 1}
    assert behave.served == 1


@EACH_STACK
@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
def test_a_client_that_sends_late_makes_no_queue(serve, dial, stack, kind):
    def late():
        threading.Event().wait(1.5)
        yield b"a"

    server = serve(stack, echo, deadline_s=0.4)
    as_stream = f"stream_{kind.partition('_')[2]}"

    assert dial(server, as_stream, late(), path=path_of(kind))[0] == b"-a"
    snapshot = server.shedder.snapshot()
    assert (snapshot.queue_wait_s or 0.0) < 1.0
    assert snapshot.shed == {}


@EACH_STACK
@pytest.mark.parametrize("trusted", [True, False])
def test_what_a_call_says_of_itself_is_believed_of_trusted_peers(serve, dial, sink, stack, trusted):
    seen = []

    def behave(request, context):
        current = _context.current()
        seen.append((current.criticality, current.key, current.caller, current.deadline - monotonic()))
        return b""

    said = [
        ("x-groundfault-criticality", "critical-plus"),
        ("x-groundfault-key", "0a1b"),
        ("x-groundfault-caller", "grouper/saber.scores"),
    ]
    server = serve(stack, behave, **({} if trusted else {"trusted_callers": ()}))
    dial(server, "unary_unary", metadata=said, timeout=8.0)

    ((criticality, key, caller, left_s),) = seen
    if trusted:
        assert (criticality, key, caller) == (Criticality.CRITICAL_PLUS, "0a1b", "grouper/saber.scores")
        assert [event.caller for event in sink.of(RequestSeen)] == ["grouper/saber.scores"]
    else:
        assert (criticality, key, caller) == (None, None, None)
    assert 2.0 < left_s <= 8.0 + ROUNDED_S  # gRPC's own deadline binds the call, whoever says it


@EACH_STACK
def test_no_context_is_left_behind(serve, dial, stack):
    seen = []

    def behave(request, context):
        seen.append(_context.current())
        return b""

    server = serve(stack, behave, threads=1)
    dial(server, "unary_unary")
    dial(server, "unary_stream")
    assert empty(server)

    assert [context.deadline for context in seen] == [None, None]
    assert seen[0] is not seen[1]
    assert server.pool.submit(_context.current).result() is None


def circuit_open(context):
    raise errors.CircuitOpenError("db", "scores", 1.0)


def throttled(context):
    raise adapter.ThrottledError("db", "scores", 0.5)


def full(context):
    raise errors.BulkheadFullError("db", "scores", 5)


def shed(context):
    raise errors.ShedError("db", "scores", Reason.QUEUE_WAIT, "database")


def late(context):
    raise errors.CommandTimeoutError("db", "scores", 0.5)


def plain_stub(context):
    trailing = grpc.aio.Metadata(("x-groundfault", "handled"), ("x-groundfault-origin", "database"))
    raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), trailing)


def noted(outcome, error):
    current = _context.current()
    current.note(_context.Fault("db", "scores", outcome, Reason.DEPENDENCY, None, error))
    return error


def counted(context):
    raise noted(Outcome.FAILURE, ConnectionError("refused"))


def counted_and_ended(context):
    noted(Outcome.CIRCUIT_OPEN, ConnectionError("refused"))
    raise End(grpc.StatusCode.UNAVAILABLE)


def counted_and_ended_late(context):
    noted(Outcome.TIMEOUT, ConnectionError("refused"))
    raise End(grpc.StatusCode.DEADLINE_EXCEEDED, (("x-groundfault", "handled"), ("x-own", "kept")))


def counted_and_set(context):
    noted(Outcome.THROTTLED, ConnectionError("refused"))
    context.set_code(grpc.StatusCode.UNAVAILABLE)


PASSED_ON = [
    (circuit_open, "circuit-open", "saber"),
    (throttled, "throttled", "saber"),
    (full, "dependency", "saber"),
    (shed, "dependency", "database"),
    (late, "dependency", "saber"),
    (plain_stub, "dependency", "database"),
    (counted, "dependency", "saber"),
    (counted_and_ended, "circuit-open", "saber"),
    (counted_and_ended_late, "dependency", "saber"),
    (counted_and_set, "throttled", "saber"),
]


@EACH_STACK
@EACH_KIND
@pytest.mark.parametrize(("fault", "reason", "origin"), PASSED_ON, ids=[each[0].__name__ for each in PASSED_ON])
def test_a_dependencys_fault_is_passed_on(serve, dial, stack, kind, fault, reason, origin):
    server = serve(stack, lambda request, context: fault(context) or b"")
    with pytest.raises(grpc.RpcError) as caught:
        dial(server, kind)

    assert annotation(caught.value) == (reason, origin)
    assert "Ground Fault: " in caught.value.details()
    assert Joined(caught.value.trailing_metadata()).get("x-own") == (
        "kept" if fault is counted_and_ended_late else None
    )
    assert empty(server)


def bug(context):
    raise KeyError("a bug")


def misconfigured(context):
    raise errors.SettingsError("a mistake")


def below(context):
    raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())


def counted_but_missing(context):
    noted(Outcome.FAILURE, ConnectionError("refused"))
    raise End(grpc.StatusCode.NOT_FOUND)


def own_trouble(context):
    raise End(grpc.StatusCode.UNAVAILABLE)


def impostor(context):
    raise End(
        grpc.StatusCode.UNAVAILABLE,
        (("x-groundfault", "handled"), ("x-groundfault-reason", "draining"), ("x-own", "kept")),
    )


OWN = [
    (bug, grpc.StatusCode.UNKNOWN),
    (misconfigured, grpc.StatusCode.UNKNOWN),
    (below, grpc.StatusCode.UNKNOWN),
    (counted_but_missing, grpc.StatusCode.NOT_FOUND),
    (own_trouble, grpc.StatusCode.UNAVAILABLE),
    (impostor, grpc.StatusCode.UNAVAILABLE),
]


@EACH_STACK
@EACH_KIND
@pytest.mark.parametrize(("fault", "code"), OWN, ids=[each[0].__name__ for each in OWN])
def test_what_is_the_applications_own_is_left_alone(serve, dial, caplog, stack, kind, fault, code):
    server = serve(stack, lambda request, context: fault(context) or b"")
    with pytest.raises(grpc.RpcError) as caught:
        dial(server, kind)

    assert caught.value.code() is code
    assert annotation(caught.value) is None
    assert Joined(caught.value.trailing_metadata()).get("x-own") == ("kept" if fault is impostor else None)
    assert empty(server)


@EACH_STACK
def test_metadata_that_the_application_ends_well_with_is_cleaned_too(serve, dial, stack):
    def behave(request, context):
        context.set_trailing_metadata((("x-groundfault-origin", "me"), ("x-own", "kept")))
        return b""

    method = dial.channel(serve(stack, behave)).unary_unary(path_of("unary_unary"))
    _, call = method.with_call(b"", timeout=LONG_S)

    assert [tuple(pair) for pair in call.trailing_metadata()] == [("x-own", "kept")]


@EACH_STACK
@pytest.mark.parametrize("fault", [circuit_open, counted_and_ended, impostor])
def test_in_shadow_mode_nothing_that_a_client_sees_changes(serve, dial, caplog, stack, fault):
    server = serve(stack, lambda request, context: fault(context) or b"", mode="shadow")
    with pytest.raises(grpc.RpcError) as caught:
        dial(server, "unary_unary")

    code = grpc.StatusCode.UNKNOWN if fault is circuit_open else grpc.StatusCode.UNAVAILABLE
    assert caught.value.code() is code
    trailing = Joined(caught.value.trailing_metadata())
    assert trailing.get("x-groundfault-reason") == ("draining" if fault is impostor else None)


@pytest.mark.parametrize("how", ["cancel", "deadline"])
@pytest.mark.parametrize(
    "stack", [Blocking, Asyncio], ids=["blocking", "aio"]
)  # grpc.aio never stops a plain generator
@pytest.mark.parametrize("kind", ["unary_stream", "stream_stream"])
def test_a_stream_that_its_client_leaves_gives_its_place_back(serve, dial, stack, kind, how):
    def endless(request, context):
        return b"one"

    server = serve(stack, endless)
    method = getattr(dial.channel(server), kind)(path_of(kind))
    stop = threading.Event()

    def requests():
        while not stop.wait(0.01):
            yield b"?"

    stream = method(requests() if kind == "stream_stream" else b"?", timeout=0.5 if how == "deadline" else LONG_S)
    assert next(stream) == b"one"
    try:
        if how == "cancel":
            stream.cancel()
        with pytest.raises(grpc.RpcError) if how == "cancel" or kind == "stream_stream" else _nothing():
            list(stream)
    finally:
        stop.set()
    assert empty(server)
    assert server.shedder.snapshot().internal_errors == {}


class _nothing:  # noqa: N801  a context manager
    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False


@EACH_STACK
def test_a_stream_is_in_flight_until_its_last_message(serve, dial, stack):
    sent, release = threading.Event(), threading.Event()

    def behave(request, context):
        if request == b"second":
            sent.set()
            release.wait(20)
        return request

    if stack is Asyncio:

        async def wait():
            sent.set()
            await asyncio.to_thread(release.wait, 20)
            return b"second"

        server = serve(stack, lambda request, context: wait() if request == b"second" else request)
    else:
        server = serve(stack, behave)
    stream = dial.channel(server).stream_stream(path_of("stream_stream"))(iter([b"first", b"second"]), timeout=LONG_S)
    try:
        assert next(stream) == b"first"
        assert sent.wait(10)
        assert server.shedder.snapshot().in_flight == 1
    finally:
        release.set()
    assert list(stream) == [b"two", b"second", b"two"]
    assert empty(server)


def test_readers_and_writers_of_aio_are_served_and_watched(serve, dial):
    """Coroutines that stream with ``context.read`` and ``context.write``."""

    async def behave(request, context):
        if request == b"bad":
            raise errors.CircuitOpenError("db", "scores", 1.0)
        await context.write(b"one")
        await context.write(b"two")

    async def each(requests, context):
        while (request := await context.read()) is not grpc.aio.EOF:
            await behave(request, context)

    class Writing(Asyncio):
        adapt = staticmethod(lambda behave, kind: {"unary_stream": behave, "stream_stream": each}.get(kind, behave))

    server = serve(Writing, behave)
    assert dial(server, "unary_stream", b"good") == [b"one", b"two"]
    assert dial(server, "stream_stream", iter([b"good", b"good"])) == [b"one", b"two"] * 2
    for kind in ("unary_stream", "stream_stream"):
        with pytest.raises(grpc.RpcError) as caught:
            dial(server, kind, b"bad")
        assert annotation(caught.value) == ("circuit-open", "saber")
    assert empty(server)


@EACH_STACK
@EACH_KIND
def test_an_error_of_ours_costs_no_call(serve, dial, monkeypatch, stack, kind):
    def broken(*arguments, **named):
        raise ArithmeticError("a bug of ours")

    monkeypatch.setattr(_grpc_served, "arrive", broken)
    server = serve(stack, echo)

    assert dial(server, kind, b"a")[0] == b"-a"
    assert server.shedder.snapshot().internal_errors == {"grpc arrival": 1}


@EACH_STACK
def test_the_kill_switch_leaves_the_handlers_alone(serve, dial, sink, monkeypatch, stack):
    monkeypatch.setenv("GROUNDFAULT_DISABLED", "1")
    server = serve(stack, echo)
    server.shedder.drain()

    assert dial(server, "unary_unary", b"a") == [b"-a"]
    assert sink.of(RequestSeen) == []


def test_a_handler_keeps_the_pool_that_it_has_asked_for():
    def behave(request, context):
        return request

    with ThreadPoolExecutor(1) as own:
        behave.experimental_thread_pool = own
        interceptor = ServerInterceptor(service="saber")
        guarded = interceptor.intercept_service(
            lambda _details: grpc.unary_unary_rpc_method_handler(behave), _Details()
        )

        assert guarded.stream_unary.experimental_thread_pool is own


def test_handlers_that_end_on_threads_of_their_own_are_left_alone():
    def behave(request, context, send):
        send(None)

    behave.experimental_non_blocking = True
    handler = grpc.unary_stream_rpc_method_handler(behave)

    assert ServerInterceptor(service="saber").intercept_service(lambda _details: handler, _Details()) is handler


class _Details(grpc.HandlerCallDetails):
    method = path_of("unary_unary")
    invocation_metadata = ()


@pytest.mark.parametrize("make", [ServerInterceptor, AioServerInterceptor])
def test_settings_are_those_of_the_shedder(make):
    assert make(service="saber", deadline_s=0.5).shedder.settings.deadline_s == 0.5
    with pytest.raises(errors.SettingsError, match="deadline_s"):
        make(deadline_s=-1)
    with pytest.raises(errors.SettingsError, match="belong to the shedder"):
        make(shedder=Shedder(), service="saber")


@pytest.fixture(params=["blocking", "aio"])
def chain(request, serve):
    """Build a chain of services in which topps calls grouper, and grouper calls saber; return the registries too."""
    stack = STACKS[request.param]
    made = {}
    channels = []
    registries = {"topps": Registry(draw=lambda: 0.0), "grouper": Registry(draw=lambda: 0.0)}

    def calling(name, callee, target, sink):
        resource = Resource(callee, registry=registries[name], sinks=(sink,), minimum_volume_per_s=0.4)
        if stack is Blocking:
            channel = grpc.insecure_channel(target)
            channels.append(channel)
            guarded = grpc.intercept_channel(channel, GroundFaultInterceptor(resource, command="scores"))
            method = guarded.unary_unary(path_of("unary_unary"))
            return lambda request, context: method(request, timeout=5.0)

        async def call(request, context):
            if name not in made:
                made[name] = grpc.aio.insecure_channel(
                    target, interceptors=aio_interceptors(resource, command="scores")
                )
            return await made[name].unary_unary(path_of("unary_unary"))(request, timeout=5.0)

        return call

    def build(saber, sink):
        last = serve(stack, saber, service="saber", sinks=())
        middle = serve(stack, calling("grouper", "saber", last.target, sink), service="grouper", sinks=())
        first = serve(stack, calling("topps", "grouper", middle.target, sink), service="topps", sinks=())
        return first, middle, last, registries

    yield build
    for channel in channels:
        channel.close()


def totals(registry):
    (command,) = registry
    return {outcome: count for outcome, count in command.snapshot().totals.items() if count}


def test_a_refusal_at_the_end_of_a_chain_moves_no_breaker(chain, dial, sink):
    first, _, last, registries = chain(echo, sink)
    assert dial(first, "unary_unary", b"a") == [b"-a"]
    last.shedder.drain()
    for _ in range(6):
        with pytest.raises(grpc.RpcError) as caught:
            dial(first, "unary_unary", b"a")
        assert annotation(caught.value) == ("dependency", "saber")

    assert totals(registries["grouper"]) == {Outcome.SUCCESS: 1, Outcome.SHED: 6}
    assert totals(registries["topps"]) == {Outcome.SUCCESS: 1, Outcome.SHED: 6}
    said = [(event.resource, event.reason, event.origin) for event in sink.of(CommandDone)][2:]
    assert (
        said
        == [
            ("saber", Reason.DRAINING, "saber"),
            ("grouper", Reason.DEPENDENCY, "saber"),
        ]
        * 6
    )


def test_a_fault_at_the_end_of_a_chain_is_counted_by_one_breaker(chain, dial, sink, caplog):
    first, _, _, registries = chain(lambda request, context: bug(context), sink)
    seen = []
    for _ in range(6):
        with pytest.raises(grpc.RpcError) as caught:
            dial(first, "unary_unary", b"a")
        seen.append(annotation(caught.value))

    assert seen == [("dependency", "grouper")] * 4 + [("dependency", "grouper")] * 2
    assert totals(registries["grouper"]) == {Outcome.FAILURE: 4, Outcome.CIRCUIT_OPEN: 2}
    assert totals(registries["topps"]) == {Outcome.SHED: 6}
    reasons = [event.reason for event in sink.of(CommandDone) if event.resource == "grouper"]
    assert reasons == [Reason.DEPENDENCY] * 4 + [Reason.CIRCUIT_OPEN] * 2


def test_one_hop_hands_on_what_is_left_of_the_time(chain, dial, sink):
    left = []

    def saber(request, context):
        left.append((context.time_remaining(), _context.current().caller))
        return b""

    first, *_ = chain(saber, sink)
    dial(first, "unary_unary", b"a", timeout=3.0)

    ((left_s, caller),) = left
    assert left_s <= 3.0 + ROUNDED_S
    assert caller == "grouper/saber.scores"


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:50123", "127.0.0.1"),
        ("ipv6:[::1]:50123", "::1"),
        ("ipv6:%5B::1%5D:50123", "::1"),
        ("ipv6:[fe80::1%25eth0]:50123", "fe80::1"),
        ("unix:", None),
        ("unix:/run/saber.sock", None),
        ("unix-abstract:saber", None),
        ("", ""),
        ("vsock:3:1024", ""),
        ("unknown", ""),
    ],
)
def test_who_the_peer_is(peer, address):
    assert address_of(peer) == address


@pytest.mark.parametrize(
    ("path", "exempt"),
    [
        (HEALTH, True),
        ("/grpc.health.v1.Health/Watch", True),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", True),
        ("/grpc.healthy.Shop/Buy", False),
        ("/shop.grpc.health.v1.Health/Check", False),
    ],
)
def test_what_is_exempt(path, exempt):
    assert is_exempt(path) is exempt


def test_metadata_is_read_as_headers_are():
    metadata = Joined([("X-GroundFault", "handled"), ("x-groundfault", "handled"), ("trace-bin", b"\xff")])

    assert metadata.get(wire.HANDLED) == "handled,handled"
    assert metadata.get("Trace-Bin") == "\xff"
    assert metadata.get("missing") is None
    assert Joined(None).get("missing") is None


@pytest.fixture
def shedder(clock):
    return Shedder(service="saber", clock=clock, wall_clock=clock, sinks=())


def said(**headers):
    return Joined([(f"x-groundfault-{name.replace('_', '-')}", value) for name, value in headers.items()])


@pytest.mark.parametrize(
    ("peer", "left_s", "header_ms", "deadline_s", "reason"),
    [
        ("127.0.0.1", None, None, None, None),
        ("127.0.0.1", 0.5, None, 0.5, None),
        ("127.0.0.1", 0.0, None, 0.0, Reason.DEADLINE),
        ("127.0.0.1", 0.5, "300", 0.3, None),
        ("127.0.0.1", 0.3, "500", 0.3, None),
        ("127.0.0.1", 0.5, "0", 0.0, Reason.DEADLINE),
        ("127.0.0.1", 120.0, None, 120.0, None),  # beyond what is believed: it decides nothing, but binds
        ("203.0.113.9", 0.5, None, 0.5, None),
        ("203.0.113.9", 5.0, None, 5.0, None),
        ("203.0.113.9", 5.0, "5000", 5.0, None),
        ("203.0.113.9", None, "300", 0.3, None),
    ],
)
def test_whose_time_counts(shedder, clock, peer, left_s, header_ms, deadline_s, reason):
    headers = said() if header_ms is None else said(timeout_ms=header_ms)
    visit = arrive(shedder, "/a.B/C", headers, peer, wait_s=0.0, left_s=left_s)

    assert visit.reason is reason
    deadline = visit.context.deadline
    assert (deadline is None) is (deadline_s is None)
    assert deadline is None or deadline - clock() == pytest.approx(deadline_s)


def test_a_wait_is_part_of_the_time_that_a_header_gives(shedder, clock):
    visit = arrive(shedder, "/a.B/C", said(timeout_ms="300"), "127.0.0.1", wait_s=0.1, left_s=None)

    assert visit.reason is None
    assert visit.context.deadline - clock() == pytest.approx(0.2)


def test_a_call_that_cannot_be_answered_in_time_behind_a_queue_is_refused(shedder, clock):
    for _ in range(12):  # the method takes 200 ms
        visit = arrive(shedder, "/a.B/C", said(), "127.0.0.1", wait_s=0.0, left_s=None)
        clock.advance(0.2)
        visit.finish(200)

    assert arrive(shedder, "/a.B/C", said(), "127.0.0.1", wait_s=0.05, left_s=0.1).reason is Reason.DEADLINE
    assert arrive(shedder, "/a.B/C", said(), "127.0.0.1", wait_s=0.05, left_s=0.4).reason is None
    assert arrive(shedder, "/a.B/D", said(), "127.0.0.1", wait_s=0.0, left_s=0.1).reason is None


def test_whoever_has_left_is_not_served(shedder):
    assert arrive(shedder, "/a.B/C", said(), "127.0.0.1", wait_s=0.0, left_s=None, gone=True).reason is Reason.DEADLINE
    assert shedder.snapshot().abandoned == 1


def test_on_a_loop_the_forecast_decides(shedder, clock):
    def call():
        return arrive(shedder, "/a.B/C", said(), "127.0.0.1", wait_s=None, left_s=None)

    for _ in range(20):
        visit = call()
        clock.advance(0.01)
        visit.finish(200)
    stuck = [call() for _ in range(10)]
    clock.advance(1.5)  # and nothing is answered for longer than callers wait

    assert {visit.reason for visit in stuck} == {None}
    assert call().reason is Reason.QUEUE_WAIT
    assert shedder.snapshot().signal == "none"


@pytest.mark.parametrize(
    ("path", "label"),
    [
        (
            "/test.v1.Saber/ListEveryEntrantOfEveryContestOfAllTimes",
            "/test.v1.Saber/ListEveryEntrantOfEveryContestOfAllTimes",
        ),
        ("/a.B/" + "x" * 200, "/*"),
        ("/a.B/\n", "/*"),
    ],
)
def test_the_label_of_a_method(shedder, path, label):
    assert arrive(shedder, path, said(), "127.0.0.1", wait_s=0.0, left_s=None).name == label


def test_rules_see_the_method_and_the_metadata(clock):
    rules = [{"criticality": "sheddable", "path": "/a.B/List*"}, {"criticality": "critical-plus", "header": "x-vip"}]
    shedder = Shedder(
        service="saber", clock=clock, wall_clock=clock, sinks=(), criticality=rules, identity=lambda info: info.peer
    )

    listed = arrive(shedder, "/a.B/ListAll", said(), "127.0.0.1", wait_s=0.0, left_s=None)
    vip = arrive(shedder, "/a.B/Get", Joined([("x-vip", "1")]), "127.0.0.1", wait_s=0.0, left_s=None)
    assert (listed.context.criticality, vip.context.criticality) == (Criticality.SHEDDABLE, Criticality.CRITICAL_PLUS)
    assert listed.context.key == vip.context.key == shedder.key_of("127.0.0.1")
