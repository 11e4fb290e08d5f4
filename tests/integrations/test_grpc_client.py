"""The client interceptors of both stacks against real gRPC servers on loopback.

No protobuf: requests and responses are bytes, and a request says what is to happen.
Nothing here forks, for gRPC's core would not survive it.
"""

import asyncio
import gc
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import grpc
import pytest

from groundfault import _context, errors, wire
from groundfault._clock import monotonic
from groundfault.breaker import Registry, Resource
from groundfault.events import CommandDone
from groundfault.integrations import grpc as adapter
from groundfault.integrations._grpc_wire import OUTCOMES, refusal
from groundfault.integrations.grpc import GroundFaultInterceptor, aio_interceptors
from groundfault.vocabulary import Criticality, Outcome, Reason, State

LONG_S = 10.0
SERVICE = "test.v1.Saber"
KINDS = ("unary_unary", "stream_unary", "unary_stream", "stream_stream")


def path_of(kind):
    return f"/{SERVICE}/{kind.title().replace('_', '')}"


class Callee:
    """Answers as the request says, and remembers what it was asked. ``ends``: how many calls have ended."""

    def __init__(self):
        self.hits = []
        self.entered = threading.Event()
        self.release = threading.Event()

    def close(self):
        self.release.set()

    def _do(self, word, context):
        """Do what the request says, but for what only a stream can."""
        self.entered.set()
        self.hits.append((word, dict(context.invocation_metadata()), context.time_remaining()))
        if word in {"shed", "passed-on", "doubled", "handled-elsewhere"}:
            self._refuse(word, context)
        if word == "hang" or word.startswith("slow-"):
            self.release.wait(10)
            word = word.removeprefix("slow-")
        if word == "bug":
            raise KeyError("a bug of the callee")
        if word.upper().replace("-", "_") in grpc.StatusCode.__members__:
            context.abort(grpc.StatusCode[word.upper().replace("-", "_")], "as asked")
        return b"done"

    @staticmethod
    def _refuse(word, context):
        reason = Reason.DEPENDENCY if word == "passed-on" else Reason.QUEUE_WAIT
        details, trailing = refusal(reason, "saber")
        if word == "doubled":
            trailing = (*trailing, trailing[0])
        context.set_trailing_metadata((*trailing, ("x-other", "kept")))
        code = grpc.StatusCode.INTERNAL if word == "handled-elsewhere" else grpc.StatusCode.UNAVAILABLE
        context.abort(code, details)

    def unary_unary(self, request, context):
        return self._do(request.decode(), context)

    def stream_unary(self, requests, context):
        response = b""
        for request in requests:
            response = self._do(request.decode(), context)
        return response

    def unary_stream(self, request, context):
        word, _, later = request.decode().partition(" then ")
        yield self._do(word, context)
        yield b"two"
        if later:
            self._do(later, context)
        yield b"three"

    def stream_stream(self, requests, context):
        for request in requests:
            yield from self.unary_stream(request, context)

    def handlers(self):
        made = {kind: getattr(grpc, f"{kind}_rpc_method_handler")(getattr(self, kind)) for kind in KINDS}
        return grpc.method_handlers_generic_handler(
            SERVICE, {kind.title().replace("_", ""): handler for kind, handler in made.items()}
        )


class Running:
    """A blocking server of handlers of any kind, with as many threads as said."""

    def __init__(self, *handlers, threads=8, interceptors=()):
        self.pool = ThreadPoolExecutor(threads)
        self.server = grpc.server(self.pool, interceptors=interceptors)
        self.server.add_generic_rpc_handlers(handlers)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        self.target = f"127.0.0.1:{self.port}"

    def stop(self):
        self.server.stop(None).wait(10)
        self.pool.shutdown()
        del self.server  # with it go threads of gRPC's core


def run(coroutine, *, timeout=30):
    """Run a coroutine on a loop of its own."""

    async def bounded():
        return await asyncio.wait_for(coroutine, timeout)

    return asyncio.run(bounded())


class Blocking:
    """Makes calls of one kind in one way with the blocking stack; returns the responses."""

    def __init__(self, target, kind, way, resource, arguments):
        self.channel = grpc.insecure_channel(target)
        guarded = grpc.intercept_channel(self.channel, GroundFaultInterceptor(resource, **arguments))
        self.method = getattr(guarded, kind)(path_of(kind))
        self.kind, self.way = kind, way

    def __call__(self, word, **details):
        request = iter([word.encode()]) if self.kind.startswith("stream") else word.encode()
        details.setdefault("timeout", LONG_S)
        if self.way == "with_call":
            response, call = self.method.with_call(request, **details)
            assert call.code() is grpc.StatusCode.OK
            return [response]
        if self.way == "future":
            return [self.method.future(request, **details).result()]
        answer = self.method(request, **details)
        return [answer] if self.kind.endswith("unary") else list(answer)

    def close(self):
        self.channel.close()
        self.channel = self.method = None  # with them go threads of gRPC's core


class Asyncio:
    """Does as ``Blocking`` with grpc.aio, on a loop of its own for each call."""

    def __init__(self, target, kind, way, resource, arguments):
        self.target, self.kind, self.way = target, kind, way
        self.interceptors = partial(aio_interceptors, resource, **arguments)

    def __call__(self, word, **details):
        return run(self._call(word, details))

    async def _call(self, word, details):
        details.setdefault("timeout", LONG_S)
        async with grpc.aio.insecure_channel(self.target, interceptors=self.interceptors()) as channel:
            method = getattr(channel, self.kind)(path_of(self.kind))
            if self.way == "write":
                call = method(**details)
                with suppress(asyncio.InvalidStateError):  # how gRPC tells a writer that the call is over
                    await call.write(word.encode())
                    await call.done_writing()
            else:
                call = method(_later([word.encode()]) if self.kind.startswith("stream") else word.encode(), **details)
            if self.kind.endswith("unary"):
                return [await call]
            if self.way == "read":
                return [response async for response in _read(call)]
            return [response async for response in call]

    def close(self):
        pass


async def _later(items):
    for item in items:
        yield item


async def _read(call):
    while (response := await call.read()) is not grpc.aio.EOF:
        yield response


WAYS = [
    pytest.param(Blocking, kind, way, id=f"{kind}-{way}")
    for kind, ways in {
        "unary_unary": ("call", "with_call", "future"),
        "stream_unary": ("call", "with_call", "future"),
        "unary_stream": ("iterate",),
        "stream_stream": ("iterate",),
    }.items()
    for way in ways
] + [
    pytest.param(Asyncio, kind, way, id=f"aio-{kind}-{way}")
    for kind, ways in {
        "unary_unary": ("await",),
        "stream_unary": ("await", "write"),
        "unary_stream": ("iterate", "read"),
        "stream_stream": ("iterate", "write"),
    }.items()
    for way in ways
]
EACH_WAY = pytest.mark.parametrize(("stack", "kind", "way"), WAYS)
ONE_WAYS = [each for each in WAYS if each.values[1].endswith("unary")]
ONE_RESPONSE = pytest.mark.parametrize(("stack", "kind", "way"), ONE_WAYS)
BLOCKING_AND_AIO = pytest.mark.parametrize(
    ("stack", "kind", "way"),
    [each for each in WAYS if each.id in {"unary_unary-call", "unary_unary-future", "unary_stream-iterate"}]
    + [each for each in WAYS if each.id in {"aio-unary_unary-await", "aio-unary_stream-iterate"}],
)


@pytest.fixture(scope="module", autouse=True)
def _alone_again():
    """Let gRPC's core end its threads before the next module's tests fork."""
    yield
    gc.collect()
    until(lambda: len(list(Path("/proc/self/task").iterdir())) <= threading.active_count())


@pytest.fixture(scope="module")
def running():
    callee = Callee()
    running = Running(callee.handlers())
    running.callee = callee
    yield running
    callee.close()
    running.stop()


@pytest.fixture
def callee(running):
    running.callee.hits.clear()
    running.callee.entered.clear()
    running.callee.release.clear()
    yield running.callee
    running.callee.release.set()


@pytest.fixture
def registry():
    return Registry(draw=lambda: 0.0)  # the throttle sends every call


@pytest.fixture
def guarded(running, callee, registry, sink):
    """Make what calls the server through a resource of its own."""
    made = []

    def make(stack, kind, way, *, interceptor=None, **settings):
        resource = Resource("saber", registry=registry, sinks=(sink,), **settings)
        made.append(stack(running.target, kind, way, resource, interceptor or {}))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def serving():
    """Pretend that a request is being served here."""
    context = _context.RequestContext("grouper", criticality=Criticality.SHEDDABLE, key="0a1b")
    token = _context.serving.set(context)
    yield context
    _context.serving.reset(token)


def outcomes(sink):
    return [event.outcome for event in sink.of(CommandDone)]


def in_flight(registry):
    return sum(command.snapshot().in_flight for command in registry)


def until(condition):
    deadline = monotonic() + 10
    while not condition() and monotonic() < deadline:
        threading.Event().wait(0.005)
    return condition()


def settled(sink, number=1):
    """Wait until so many calls have ended: some end on gRPC's own thread."""
    until(lambda: len(sink.of(CommandDone)) >= number)
    return outcomes(sink)


@EACH_WAY
def test_what_the_callee_answers_is_answered_and_a_success(guarded, registry, sink, stack, kind, way):
    responses = guarded(stack, kind, way)("fine")

    assert responses == ([b"done"] if kind.endswith("unary") else [b"done", b"two", b"three"])
    assert outcomes(sink) == [Outcome.SUCCESS]
    (command,) = registry
    assert command.name == kind.replace("_", "")
    assert command.snapshot().in_flight == 0


@EACH_WAY
@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_what_a_status_means(guarded, registry, sink, stack, kind, way, code):
    with pytest.raises(grpc.RpcError) as caught:
        guarded(stack, kind, way)(code.name.lower().replace("_", "-"))

    assert caught.value.code() is code
    assert caught.value.details() == "as asked"
    assert outcomes(sink) == [OUTCOMES[code]]
    assert in_flight(registry) == 0


def test_every_status_means_something():
    assert set(OUTCOMES) == set(grpc.StatusCode)


@EACH_WAY
@pytest.mark.parametrize(
    ("word", "outcome", "by_callee"),
    [
        ("shed", Outcome.SHED, True),
        ("passed-on", Outcome.SHED, False),
        ("doubled", Outcome.FAILURE, None),
        ("handled-elsewhere", Outcome.FAILURE, None),
        ("bug", Outcome.FAILURE, None),
    ],
)
def test_a_refusal_needs_the_status_and_exactly_one_annotation(
    guarded, registry, sink, caplog, stack, kind, way, word, outcome, by_callee
):
    with pytest.raises(grpc.RpcError) as caught:
        guarded(stack, kind, way)(word)

    assert outcomes(sink) == [outcome]
    assert in_flight(registry) == 0
    assert isinstance(caught.value, errors.ShedError) is (outcome is Outcome.SHED)
    if by_callee is None:
        return
    shed = caught.value
    assert isinstance(shed, adapter.ShedError)
    assert shed.code() is grpc.StatusCode.UNAVAILABLE
    assert "Ground Fault" in shed.details()
    assert ("x-other", "kept") in [tuple(pair) for pair in shed.trailing_metadata()]
    assert list(shed.initial_metadata()) is not None
    assert (shed.resource, shed.origin) == ("saber", "saber")
    assert shed.reason is (Reason.QUEUE_WAIT if by_callee else Reason.DEPENDENCY)
    copy = pickle.loads(pickle.dumps(shed))  # noqa: S301  our own
    assert (copy.reason, copy.code(), str(copy)) == (shed.reason, shed.code(), str(shed))


@BLOCKING_AND_AIO
def test_a_refusal_is_a_failure_where_it_is_not_honored(guarded, sink, stack, kind, way):
    with pytest.raises(grpc.RpcError) as caught:
        guarded(stack, kind, way, honor_handled=False)("shed")

    assert not isinstance(caught.value, errors.GroundFaultError)
    assert outcomes(sink) == [Outcome.FAILURE]


@EACH_WAY
def test_a_rejected_call_is_never_made_and_raises_both_libraries_errors(
    guarded, callee, registry, sink, stack, kind, way
):
    with pytest.raises(adapter.CircuitOpenError) as caught:
        guarded(stack, kind, way, mode="force_open")("fine")

    assert isinstance(caught.value, grpc.RpcError)
    assert isinstance(caught.value, errors.CircuitOpenError)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert caught.value.details() == str(caught.value)
    assert f"circuit saber/{kind.replace('_', '')} is open" in str(caught.value)
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  our own
    assert (type(copy), str(copy)) == (adapter.CircuitOpenError, str(caught.value))
    assert callee.hits == []
    assert outcomes(sink) == [Outcome.CIRCUIT_OPEN]
    assert in_flight(registry) == 0


@EACH_WAY
def test_only_so_many_calls_at_a_time(guarded, registry, stack, kind, way):
    call = guarded(stack, kind, way, max_concurrent=1)
    call("fine")
    (command,) = registry
    held = command.begin()
    with pytest.raises(adapter.BulkheadFullError):
        call("fine")
    held.settle(Outcome.SUCCESS)

    assert call("fine")[0] == b"done"
    assert command.snapshot().state is State.CLOSED


def test_a_rejection_is_a_finished_call_for_whoever_asks_for_one(guarded):
    future = guarded(Blocking, "unary_unary", "future", mode="force_open").method.future(b"fine")

    seen = []
    future.add_done_callback(seen.append)
    assert seen == [future]
    assert isinstance(future.exception(), adapter.CircuitOpenError)
    assert (future.done(), future.running(), future.cancelled(), future.cancel()) == (True, False, False, False)
    assert (future.is_active(), future.time_remaining(), future.add_callback(print)) == (False, None, False)
    assert future.code() is grpc.StatusCode.UNAVAILABLE
    assert future.traceback() is None
    assert "CircuitOpenError" in repr(future)
    assert [*future.trailing_metadata(), *future.initial_metadata()] == []
    with pytest.raises(adapter.CircuitOpenError):
        future.result()


class Outer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """An interceptor of somebody else's, that looks at how calls end."""

    def __init__(self):
        self.codes = []

    def intercept_unary_unary(self, continuation, client_call_details, request):
        call = continuation(client_call_details, request)
        self.codes.append(call.code())
        return call

    def intercept_unary_stream(self, continuation, client_call_details, request):
        return continuation(client_call_details._replace(timeout=5.0), request)


@pytest.mark.parametrize(
    ("word", "mode", "code"),
    [
        ("fine", "enforce", grpc.StatusCode.OK),
        ("shed", "enforce", grpc.StatusCode.UNAVAILABLE),
        ("internal", "enforce", grpc.StatusCode.INTERNAL),
        ("fine", "force_open", grpc.StatusCode.UNAVAILABLE),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_interceptors_of_others_see_how_a_call_ended(running, callee, registry, word, mode, code, inside):
    ours, outer = GroundFaultInterceptor(Resource("saber", registry=registry, mode=mode)), Outer()
    order = (ours, outer) if inside else (outer, ours)
    with grpc.insecure_channel(running.target) as channel:
        guarded = grpc.intercept_channel(channel, *order)
        method = guarded.unary_unary(path_of("unary_unary"))
        if code is grpc.StatusCode.OK:
            assert method(b"fine", timeout=LONG_S) == b"done"
            assert len(list(guarded.unary_stream(path_of("unary_stream"))(b"fine"))) == 3
        else:
            with pytest.raises(grpc.RpcError) as caught:
                method(word.encode(), timeout=LONG_S)
            assert caught.value.code() is code
            assert isinstance(caught.value, errors.ShedError) is (word == "shed")

    assert outer.codes == ([] if inside and mode == "force_open" else [code])
    assert in_flight(registry) == 0


def test_an_error_of_an_interceptor_further_in_is_raised_as_it_is(running, registry, sink):
    class Broken(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation, client_call_details, request):
            raise ArithmeticError("a bug of an interceptor")

    ours = GroundFaultInterceptor(Resource("saber", registry=registry, sinks=(sink,)))
    with grpc.insecure_channel(running.target) as channel:
        method = grpc.intercept_channel(channel, ours, Broken()).unary_unary(path_of("unary_unary"))
        with pytest.raises(ArithmeticError):
            method(b"fine")

    assert outcomes(sink) == [Outcome.FAILURE]
    assert in_flight(registry) == 0


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
def test_a_closed_channel_is_the_callers_own_doing(guarded, registry, sink, kind):
    call = guarded(Blocking, kind, "call")
    call.channel.close()
    with pytest.raises(ValueError, match=r"(?i)closed"):
        call("fine")

    assert outcomes(sink) == [Outcome.IGNORED]
    assert in_flight(registry) == 0


@EACH_WAY
@pytest.mark.parametrize("timeout", [None, 8.0])
def test_a_hanging_callee_is_given_up_after_the_timeout(guarded, registry, sink, stack, kind, way, timeout):
    with pytest.raises(grpc.RpcError) as caught:
        guarded(stack, kind, way, timeout_s=0.2)("hang", timeout=timeout)

    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert outcomes(sink) == [Outcome.TIMEOUT]
    assert in_flight(registry) == 0


@EACH_WAY
def test_running_out_of_a_callers_tiny_budget_is_neutral(guarded, sink, serving, stack, kind, way):
    serving.deadline = monotonic() + 0.1
    with pytest.raises(grpc.RpcError):
        guarded(stack, kind, way, timeout_s=30.0)("hang", timeout=None)

    assert outcomes(sink) == [Outcome.IGNORED]


@EACH_WAY
def test_running_out_of_nearly_the_whole_timeout_is_not(guarded, sink, serving, stack, kind, way):
    serving.deadline = monotonic() + 0.3
    with pytest.raises(grpc.RpcError):
        guarded(stack, kind, way, timeout_s=0.35)("hang", timeout=None)

    assert outcomes(sink) == [Outcome.TIMEOUT]


@EACH_WAY
def test_a_budget_already_gone_sends_nothing(guarded, callee, registry, sink, serving, stack, kind, way):
    serving.deadline = monotonic() - 0.01
    with pytest.raises(adapter.CommandTimeoutError) as caught:
        guarded(stack, kind, way, timeout_s=3.0)("fine")

    assert isinstance(caught.value, grpc.RpcError)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert type(pickle.loads(pickle.dumps(caught.value))) is adapter.CommandTimeoutError  # noqa: S301  our own
    assert callee.hits == []
    assert outcomes(sink) == [Outcome.IGNORED]
    assert in_flight(registry) == 0


@EACH_WAY
def test_one_hop_tells_the_callee_who_calls_and_how_long_it_waits(guarded, callee, serving, stack, kind, way):
    serving.deadline = monotonic() + 4.0
    copied = (("x-groundfault-criticality", "critical-plus"), ("x-groundfault-odd", "1"), ("x-own", "kept"))
    metadata = grpc.aio.Metadata(*copied) if stack is Asyncio else copied
    guarded(stack, kind, way, timeout_s=8.0)("fine", metadata=metadata, timeout=None)

    ((_, metadata, left_s),) = callee.hits
    ours = {name: value for name, value in metadata.items() if wire.is_ours(name)}
    assert 500 <= int(ours.pop("x-groundfault-timeout-ms")) <= 4000
    assert ours == {
        "x-groundfault-caller": f"grouper/saber.{kind.replace('_', '')}",
        "x-groundfault-criticality": "sheddable",
        "x-groundfault-key": "0a1b",
    }
    assert metadata["x-own"] == "kept"
    assert left_s < 4.5


@pytest.mark.parametrize(("own", "told"), [(2.5, "2500"), (9.0, "3000"), (None, "3000")])
def test_the_smaller_of_two_timeouts_is_told_and_kept(guarded, callee, monkeypatch, own, told):
    monkeypatch.delenv("GROUNDFAULT_SERVICE", raising=False)
    guarded(Blocking, "unary_unary", "call", timeout_s=3.0)("fine", timeout=own)

    ((_, metadata, left_s),) = callee.hits
    assert {name: value for name, value in metadata.items() if wire.is_ours(name)} == {"x-groundfault-timeout-ms": told}
    assert left_s <= int(told) / 1000 + 0.2  # gRPC rounds up


@pytest.mark.parametrize("stack", ["blocking", "aio"])
def test_an_open_stream_is_in_flight_until_its_end(running, callee, registry, sink, stack):
    resource = Resource("saber", registry=registry, sinks=(sink,))

    def look():
        assert in_flight(registry) == 1
        assert outcomes(sink) == []

    if stack == "blocking":
        with grpc.insecure_channel(running.target) as channel:
            guarded = grpc.intercept_channel(channel, GroundFaultInterceptor(resource))
            stream = guarded.unary_stream(path_of("unary_stream"))(b"fine then hang", timeout=LONG_S)
            assert next(stream) == b"done"
            look()
            callee.release.set()
            assert [stream.next(), *stream] == [b"two", b"three"]
            assert stream.code() is grpc.StatusCode.OK
    else:

        async def stream_on():
            interceptors = aio_interceptors(resource)
            async with grpc.aio.insecure_channel(running.target, interceptors=interceptors) as channel:
                stream = channel.unary_stream(path_of("unary_stream"))(b"fine then hang", timeout=LONG_S)
                assert await stream.read() == b"done"
                look()
                callee.release.set()
                assert [await stream.read(), await stream.read()] == [b"two", b"three"]
                assert await stream.read() is grpc.aio.EOF
                assert await stream.code() is grpc.StatusCode.OK

        run(stream_on())
    assert outcomes(sink) == [Outcome.SUCCESS]
    assert in_flight(registry) == 0


@pytest.mark.parametrize(
    ("word", "outcome"),
    [("fine", Outcome.SUCCESS), ("fine then shed", Outcome.SHED)],
)
def test_streams_that_gRPC_reads_on_the_callers_thread(running, callee, registry, sink, word, outcome):  # noqa: N802
    """With its experimental option nothing is called back, so the end is found by reading."""
    options = [("SingleThreadedUnaryStream", 1)]  # by name: to import grpc.experimental keeps gRPC's core running
    with grpc.insecure_channel(running.target, options=options) as channel:
        ours = GroundFaultInterceptor(Resource("saber", registry=registry, sinks=(sink,)))
        stream = grpc.intercept_channel(channel, ours).unary_stream(path_of("unary_stream"))(
            word.encode(), timeout=LONG_S
        )
        assert next(stream) == b"done"
        assert in_flight(registry) == 1
        if outcome is Outcome.SUCCESS:
            assert list(stream) == [b"two", b"three"]
        else:
            with pytest.raises(adapter.ShedError):
                list(stream)

    (command,) = registry
    snapshot = command.snapshot()
    assert (snapshot.counts[outcome], snapshot.in_flight) == (1, 0)


@EACH_WAY
@pytest.mark.parametrize("word", ["fine then internal", "fine then shed", "fine then deadline-exceeded"])
def test_a_stream_that_breaks_speaks_as_its_status_does(guarded, registry, sink, stack, kind, way, word):
    if kind.endswith("unary"):
        word = word.rpartition(" ")[2]
    with pytest.raises(grpc.RpcError):
        guarded(stack, kind, way)(word)

    expected = {"internal": Outcome.FAILURE, "shed": Outcome.SHED, "deadline-exceeded": Outcome.TIMEOUT}
    assert outcomes(sink) == [expected[word.rpartition(" ")[2]]]
    assert in_flight(registry) == 0


@pytest.mark.parametrize("how", ["cancel", "forget"])
@pytest.mark.parametrize("kind", ["unary_stream", "stream_stream", "unary_unary", "stream_unary"])
def test_a_call_that_its_caller_gives_up_is_neutral(guarded, registry, sink, kind, how):
    caller = guarded(Blocking, kind, "future")
    word = b"hang" if kind.endswith("unary") else b"fine then hang"
    request = iter([word]) if kind.startswith("stream") else word
    call = (caller.method.future if kind.endswith("unary") else caller.method)(request, timeout=LONG_S)
    if kind.endswith("stream"):
        assert next(call) == b"done"
    assert in_flight(registry) == 1
    if how == "cancel":
        assert call.cancel()
        assert call.cancelled()
        assert not call.running()
        assert call.code() is grpc.StatusCode.CANCELLED
        if kind.endswith("unary"):
            with pytest.raises(grpc.FutureCancelledError):
                call.result()
    del call
    gc.collect()

    assert settled(sink) == [Outcome.IGNORED]
    assert in_flight(registry) == 0


@pytest.mark.parametrize("how", ["cancel", "forget", "task"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_call_of_aio_that_its_caller_gives_up_is_neutral(running, callee, registry, sink, kind, how):
    async def give_up():
        interceptors = aio_interceptors(Resource("saber", registry=registry, sinks=(sink,)))
        async with grpc.aio.insecure_channel(running.target, interceptors=interceptors) as channel:
            word = b"hang" if kind.endswith("unary") else b"fine then hang"
            call = getattr(channel, kind)(path_of(kind))(
                _later([word]) if kind.startswith("stream") else word, timeout=LONG_S
            )
            if kind.endswith("stream"):
                assert await call.read() == b"done"
            assert await asyncio.to_thread(callee.entered.wait, 10)
            assert in_flight(registry) == 1
            if how == "cancel":
                assert call.cancel()
                while not call.cancelled():  # noqa: ASYNC110  grpc.aio tells of it some turns of the loop later
                    await asyncio.sleep(0.01)
            elif how == "task":
                waiting = asyncio.ensure_future(_end_of(call, kind))
                await asyncio.sleep(0.05)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            del call  # which grpc.aio itself cancels when its channel is closed, and not before

    run(give_up())
    assert outcomes(sink) == [Outcome.IGNORED]
    assert in_flight(registry) == 0


async def _end_of(call, kind):
    return await call if kind.endswith("unary") else [response async for response in _read(call)]


def test_a_future_that_is_not_waited_for_is_settled_all_the_same(guarded, registry, sink):
    future = guarded(Blocking, "unary_unary", "future").method.future(b"internal")

    assert settled(sink) == [Outcome.FAILURE]
    assert in_flight(registry) == 0
    assert future.code() is grpc.StatusCode.INTERNAL


def test_a_future_can_be_waited_for_in_vain(guarded, callee, registry, sink):
    future = guarded(Blocking, "unary_unary", "future").method.future(b"hang", timeout=LONG_S)
    with pytest.raises(grpc.FutureTimeoutError):
        future.result(timeout=0.05)

    assert in_flight(registry) == 1
    seen = threading.Event()
    future.add_done_callback(lambda done: seen.set() if done is future and done.done() else None)
    callee.release.set()
    assert future.result(timeout=10) == b"done"
    assert seen.wait(10)
    assert future.exception() is None
    assert future.traceback() is None
    assert outcomes(sink) == [Outcome.SUCCESS]


def test_the_error_of_a_future_is_that_of_the_refusal(guarded, sink):
    future = guarded(Blocking, "unary_unary", "future").method.future(b"shed", timeout=LONG_S)

    assert isinstance(future.exception(), adapter.ShedError)
    with pytest.raises(adapter.ShedError) as caught:
        future.result()
    assert caught.value is future.exception()
    assert outcomes(sink) == [Outcome.SHED]


@EACH_WAY
@pytest.mark.parametrize("word", ["internal", "shed", "bug", "unavailable"])
def test_the_error_the_application_sees_is_found_in_the_ledger(guarded, serving, stack, kind, way, word):
    with pytest.raises(grpc.RpcError) as caught:
        guarded(stack, kind, way)(word)

    fault = serving.fault_behind(caught.value)
    assert fault is not None
    assert (fault.resource, fault.reason) == ("saber", Reason.DEPENDENCY)
    assert fault.origin == ("saber" if word == "shed" else None)


@pytest.mark.parametrize("stack", ["blocking", "aio"])
def test_an_error_of_the_applications_own_requests_is_neutral(running, callee, registry, sink, stack):
    resource = Resource("saber", registry=registry, sinks=(sink,))

    def requests():
        yield b"fine"
        raise ArithmeticError("a bug of the application")

    async def arequests():
        yield b"fine"
        raise ArithmeticError("a bug of the application")

    async def call():
        async with grpc.aio.insecure_channel(running.target, interceptors=aio_interceptors(resource)) as channel:
            await channel.stream_unary(path_of("stream_unary"))(arequests(), timeout=LONG_S)

    if stack == "blocking":
        with grpc.insecure_channel(running.target) as channel:
            guarded = grpc.intercept_channel(channel, GroundFaultInterceptor(resource))
            with pytest.raises(grpc.RpcError):
                guarded.stream_unary(path_of("stream_unary"))(requests(), timeout=LONG_S)
    else:
        with pytest.raises(asyncio.CancelledError):
            run(call())

    assert settled(sink) == [Outcome.IGNORED]
    assert in_flight(registry) == 0


def test_a_request_that_cannot_be_serialized_is_neutral(running, callee, registry, sink):
    def refuse(request):
        raise ValueError("not serializable")

    ours = GroundFaultInterceptor(Resource("saber", registry=registry, sinks=(sink,)))
    with grpc.insecure_channel(running.target) as channel:
        method = grpc.intercept_channel(channel, ours).unary_unary(path_of("unary_unary"), request_serializer=refuse)
        with pytest.raises(grpc.RpcError):
            method(b"fine")

    assert outcomes(sink) == [Outcome.IGNORED]
    assert callee.hits == []


def test_the_time_that_the_application_takes_is_not_the_callees(running, callee, registry, sink):
    idle = threading.Event()

    def requests():
        idle.wait(0.5)  # longer than the deadline
        yield b"fine"

    ours = GroundFaultInterceptor(Resource("saber", registry=registry, sinks=(sink,), timeout_s=0.3))
    with grpc.insecure_channel(running.target) as channel:
        guarded = grpc.intercept_channel(channel, ours)
        with pytest.raises(grpc.RpcError) as caught:
            guarded.stream_unary(path_of("stream_unary"))(requests())
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        stream = guarded.unary_stream(path_of("unary_stream"))(b"fine then hang")
        assert next(stream) == b"done"
        idle.wait(0.5)
        with pytest.raises(grpc.RpcError):
            list(stream)

    assert settled(sink, 2) == [Outcome.IGNORED, Outcome.IGNORED]
    assert in_flight(registry) == 0


def served(method, request):
    return f"instead of {method}".encode()


async def served_later(method, request):
    await asyncio.sleep(0)
    return served(method, request)


@pytest.mark.parametrize(("stack", "kind", "way"), [each for each in ONE_WAYS if each.values[2] != "future"])
@pytest.mark.parametrize("word", ["internal", "shed", "bug"])
def test_a_fallback_is_served_and_counted(guarded, registry, sink, serving, stack, kind, way, word):
    call = guarded(stack, kind, way, interceptor={"fallback": served})
    assert call(word) == [f"instead of {path_of(kind)}".encode()]
    assert [event.fallback for event in sink.of(CommandDone)] == [True]
    assert serving.faults == []
    (command,) = registry
    assert (command.snapshot().fallbacks, command.snapshot().in_flight) == (1, 0)


@ONE_RESPONSE
def test_a_fallback_is_served_for_a_rejection(guarded, callee, registry, serving, stack, kind, way):
    fallback = served_later if stack is Asyncio and way == "await" else served
    call = guarded(stack, kind, way, interceptor={"fallback": fallback}, mode="force_open")
    assert call("fine") == [f"instead of {path_of(kind)}".encode()]
    assert callee.hits == []
    assert serving.faults == []
    (command,) = registry
    assert command.snapshot().fallbacks == 1


@ONE_RESPONSE
@pytest.mark.parametrize("mode", ["enforce", "force_open"])
def test_a_fallback_that_raises_leaves_the_original_error(guarded, sink, serving, stack, kind, way, mode):
    async def raises_later(method, request):
        raise KeyError("a bug of the fallback")

    def raises(method, request):
        raise KeyError("a bug of the fallback")

    for fallback in (raises, raises_later) if stack is Asyncio else (raises,):
        call = guarded(stack, kind, way, interceptor={"fallback": fallback}, mode=mode)
        with pytest.raises(grpc.RpcError) as caught:
            call("internal")

        if way != "future":
            assert isinstance(caught.value.__cause__, KeyError)
        assert serving.fault_behind(caught.value) is not None or mode == "force_open"
        serving.faults.clear()


def test_a_future_that_fails_on_a_thread_of_gRPCs_has_no_fallback(guarded, callee, sink):  # noqa: N802
    future = guarded(Blocking, "unary_unary", "future", interceptor={"fallback": served}).method.future(
        b"slow-internal"
    )
    callee.release.set()

    assert isinstance(future.exception(), grpc.RpcError)
    assert [event.fallback for event in sink.of(CommandDone)] == [False]


def test_a_future_that_was_canceled_says_so_and_is_settled(guarded, callee, sink):
    future = guarded(Blocking, "unary_unary", "future").method.future(b"hang")
    future.cancel()

    with pytest.raises(grpc.FutureCancelledError):
        future.exception()
    assert outcomes(sink) == [Outcome.IGNORED]


def test_streams_have_no_fallback(guarded, sink):
    with pytest.raises(grpc.RpcError):
        guarded(Blocking, "unary_stream", "iterate", interceptor={"fallback": served})("internal")

    assert [event.fallback for event in sink.of(CommandDone)] == [False]


@BLOCKING_AND_AIO
def test_what_a_status_means_can_be_chosen(guarded, sink, stack, kind, way):
    means = {grpc.StatusCode.RESOURCE_EXHAUSTED: Outcome.FAILURE, grpc.StatusCode.UNAVAILABLE: Outcome.IGNORED}
    call = guarded(stack, kind, way, interceptor={"outcomes": means})
    for word in ("resource-exhausted", "unavailable", "shed", "internal"):
        with pytest.raises(grpc.RpcError):
            call(word)

    assert outcomes(sink) == [Outcome.FAILURE, Outcome.IGNORED, Outcome.SHED, Outcome.FAILURE]


@BLOCKING_AND_AIO
def test_errors_that_the_settings_ignore_are_ignored(guarded, sink, stack, kind, way):
    with pytest.raises(grpc.RpcError):
        guarded(stack, kind, way, ignored_errors=(grpc.RpcError,))("internal")

    assert outcomes(sink) == [Outcome.IGNORED]


@EACH_WAY
def test_failures_open_the_circuit_and_refusals_do_not(guarded, registry, stack, kind, way):
    call = guarded(stack, kind, way, minimum_volume_per_s=0.4)
    for _ in range(8):
        with pytest.raises(adapter.ShedError):
            call("passed-on")
    (command,) = registry
    assert command.snapshot().state is State.CLOSED
    for _ in range(4):
        with pytest.raises(grpc.RpcError):
            call("internal")

    assert command.snapshot().state is State.OPEN
    with pytest.raises(adapter.CircuitOpenError):
        call("fine")


@EACH_WAY
def test_in_shadow_mode_every_call_is_made(guarded, callee, sink, stack, kind, way):
    call = guarded(stack, kind, way, mode="shadow", max_concurrent=1)

    assert call("fine")[0] == b"done"
    assert len(callee.hits) == 1


@EACH_WAY
def test_the_kill_switch_leaves_gRPC_alone(guarded, callee, registry, serving, monkeypatch, stack, kind, way):  # noqa: N802
    monkeypatch.setenv("GROUNDFAULT_DISABLED", "1")
    serving.deadline = monotonic() - 1
    call = guarded(stack, kind, way, interceptor={"fallback": served}, timeout_s=3.0, mode="force_open")

    assert call("fine")[0] == b"done"
    with pytest.raises(grpc.RpcError) as caught:
        call("shed")
    assert not isinstance(caught.value, errors.GroundFaultError)
    assert not any(wire.is_ours(name) for _, metadata, _ in callee.hits for name in metadata)
    assert serving.faults == []


def test_commands_are_named_by_method_by_string_or_by_callable(guarded, registry):
    guarded(Blocking, "unary_unary", "call")("fine")
    guarded(Blocking, "unary_unary", "call", interceptor={"command": "entrants"})("fine")
    by_package = {"command": lambda method: method.split(".")[0].strip("/")}
    guarded(Asyncio, "unary_unary", "await", interceptor=by_package)("fine")
    guarded(Blocking, "unary_unary", "call", interceptor={"command": lambda method: {}[method]})("fine")

    assert {command.name for command in registry} == {"unaryunary", "entrants", "test", "other"}


@pytest.mark.parametrize("make", [GroundFaultInterceptor, aio_interceptors])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fallback": b"a value"}, "fallback must be a callable or None, not b'a value'"),
        ({"outcomes": {14: Outcome.FAILURE}}, "outcomes must map a grpc.StatusCode to one of"),
        ({"outcomes": {grpc.StatusCode.ABORTED: Outcome.SHED}}, "outcomes must map a grpc.StatusCode to one of"),
        ({"timeout_s": -1}, "timeout_s"),
        ({"command": "Not A Name!"}, "Not A Name!"),
        ({"no_such_setting": 1}, "no_such_setting"),
    ],
)
def test_nonsense_is_refused_with_the_field_and_the_value(make, arguments, message):
    with pytest.raises(errors.SettingsError, match=message):
        make("saber-nonsense", **arguments)


@pytest.mark.parametrize("make", [GroundFaultInterceptor, aio_interceptors])
def test_settings_beside_a_resource_are_refused(make, registry):
    with pytest.raises(errors.SettingsError, match="belong to the Resource"):
        make(Resource("saber", registry=registry), timeout_s=1.0)


def test_many_threads_leave_nothing_in_flight(guarded, registry):
    calls = [guarded(Blocking, kind, "call") for kind in KINDS]
    words = ["fine", "internal", "shed", "not-found", "hang-not"] * 12

    def call(word):
        for each in calls:
            with suppress(grpc.RpcError):
                each(word)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, words))

    assert in_flight(registry) == 0
    counts = [command.snapshot().counts for command in registry]
    assert [count[Outcome.SHED] for count in counts] == [12] * 4
    assert [count[Outcome.FAILURE] for count in counts] == [12] * 4


def test_many_calls_of_one_loop_leave_nothing_in_flight(running, callee, registry):
    async def calls():
        interceptors = aio_interceptors(Resource("saber", registry=registry))
        async with grpc.aio.insecure_channel(running.target, interceptors=interceptors) as channel:
            method = channel.unary_unary(path_of("unary_unary"))
            words = [b"fine", b"internal", b"shed", b"not-found"] * 20
            return await asyncio.gather(*(method(word, timeout=LONG_S) for word in words), return_exceptions=True)

    answers = run(calls())
    assert sum(isinstance(answer, adapter.ShedError) for answer in answers) == 20
    assert sum(isinstance(answer, bytes) for answer in answers) == 20
    assert in_flight(registry) == 0
