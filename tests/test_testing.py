"""The test kit itself: what it forces is what would have happened, everywhere, and nothing of it stays."""

import asyncio
import threading

import pytest
import requests

from groundfault._context import RequestContext, serving
from groundfault.breaker import Attempt, Registry, Resource
from groundfault.breaker import registry as process_registry
from groundfault.breaker._course import Course
from groundfault.breaker._gate import Gate
from groundfault.errors import CircuitOpenError, CommandTimeoutError, SettingsError, ShedError
from groundfault.events import CommandDone, SettingsChanged
from groundfault.integrations.requests import GroundFaultAdapter
from groundfault.testing import (
    ManualClock,
    fail,
    force_open,
    force_shed,
    isolated_registry,
    shed_response,
    slow,
)
from groundfault.vocabulary import Mode, Outcome, Reason, State
from groundfault.wire import read_refusal

# Every way in. Each is given a command and the function of the call, which it makes once.


def by_call(command, fn):
    return command.call(fn)


def by_acall(command, fn):
    async def coroutine_function():
        return fn()

    return asyncio.run(command.acall(coroutine_function))


def by_function(command, fn):
    return command(fn)()


def by_coroutine_function(command, fn):
    @command
    async def guarded():
        return fn()

    return asyncio.run(guarded())


def by_generator(command, fn):
    @command
    def guarded():
        yield fn()

    return [*guarded()].pop()


def by_async_generator(command, fn):
    @command
    async def guarded():
        yield fn()

    async def main():
        return [item async for item in guarded()].pop()

    return asyncio.run(main())


def by_attempt(command, fn):
    with command.attempt():
        return fn()


def by_begin(command, fn):
    attempt = command.begin()
    value = fn()
    attempt.settle(Outcome.SUCCESS)
    return value


ALL_WAYS = [
    by_call,
    by_acall,
    by_function,
    by_coroutine_function,
    by_generator,
    by_async_generator,
    by_attempt,
    by_begin,
]
WITH_FALLBACK = [by_call, by_acall, by_function, by_coroutine_function]
ENFORCED = [by_acall, by_coroutine_function]

each_way = pytest.mark.parametrize("way", ALL_WAYS, ids=lambda way: way.__name__)


@pytest.fixture
def registry(clock):
    return Registry(clock=clock, draw=lambda: 0.5)


@pytest.fixture
def resource(registry, sink):
    return Resource("saber", registry=registry, sinks=[sink])


@pytest.fixture
def command(resource):
    """Return a command; at the end it is what it was, and has nothing in flight."""
    command = resource.command("scores", timeout_s=1.0)
    gate, course = command._gate, command._course
    yield command
    assert (command._gate, command._course, course.gate) == (gate, course, gate)
    assert (type(gate), type(course)) == (Gate, Course)
    assert command.snapshot().in_flight == 0


def replaceable():
    registry = process_registry()
    patched = Attempt.enter, Registry.get_or_create, Resource.__init__, Resource.command
    return patched, dict(vars(registry)), dict(registry._made)


@pytest.fixture(autouse=True)
def _nothing_stays():
    """Whatever a test did: classes and the process-wide registry are as before."""
    before = replaceable()
    yield
    assert replaceable() == before


def ended(sink):
    return [event.outcome for event in sink.of(CommandDone)]


def not_called():
    raise AssertionError("the function was called")


# A circuit that is forced open.


@each_way
def test_a_command_that_is_forced_open_refuses(command, sink, way):
    with force_open(command):
        assert command.settings.mode is Mode.FORCE_OPEN
        with pytest.raises(CircuitOpenError):
            way(command, not_called)
    assert command.settings.mode is Mode.ENFORCE
    assert way(command, lambda: "answer") == "answer"
    assert ended(sink) == [Outcome.CIRCUIT_OPEN, Outcome.SUCCESS]
    assert len(sink.of(SettingsChanged)) == 2
    assert command.snapshot().state is State.CLOSED


def test_a_refusal_has_its_fallback_served(resource):
    command = resource.command("c", fallback="cached")
    with force_open(command):
        assert command.call(not_called) == "cached"


def test_the_mode_that_was_tuned_before_comes_back(command):
    command.tune(mode="shadow")
    with force_open(command), force_open(command):
        pass
    assert command.settings.mode is Mode.SHADOW


def test_blocks_that_overlap_hold_until_the_last_is_left(command):
    first, second = force_open(command), force_open(command)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with pytest.raises(CircuitOpenError):
        command.call(not_called)
    second.__exit__(None, None, None)
    assert command.call(lambda: "answer") == "answer"


# A callee that sheds.


@each_way
def test_a_callee_that_is_forced_to_shed_is_shed_for_every_way_in(command, sink, way):
    with force_shed(command, reason=Reason.CONCURRENCY), pytest.raises(ShedError) as caught:
        way(command, not_called)
    assert (caught.value.resource, caught.value.command) == ("saber", "scores")
    assert (caught.value.reason, caught.value.origin) == (Reason.CONCURRENCY, "saber")
    (event,) = sink.of(CommandDone)
    assert (event.outcome, event.reason, event.origin) == (Outcome.SHED, Reason.CONCURRENCY, "saber")
    assert event.error_type == "ShedError"
    assert way(command, lambda: "answer") == "answer"


@pytest.mark.parametrize("way", WITH_FALLBACK, ids=lambda way: way.__name__)
def test_a_shed_has_its_fallback_served(resource, sink, way):
    command = resource.command("c", fallback=lambda: "cached")
    with force_shed(command):
        assert way(command, not_called) == "cached"
    (event,) = sink.of(CommandDone)
    assert (event.outcome, event.fallback) == (Outcome.SHED, True)
    assert command.snapshot().fallbacks == 1


def test_sheds_never_trip(command):
    with force_shed(command):
        for _ in range(200):
            with pytest.raises(ShedError):
                command.call(not_called)
    assert command.snapshot().state is State.CLOSED


@pytest.mark.parametrize(
    ("reason", "slowed_down"),
    [(Reason.QUEUE_WAIT, True), (None, True), (Reason.DEPENDENCY, False)],
)
def test_a_refusal_by_the_callee_itself_slows_the_command_down(command, clock, reason, slowed_down):
    with force_shed(command, reason=reason):
        for _ in range(20):
            with pytest.raises(ShedError) as caught:
                command.call(not_called)
    assert caught.value.reason is reason
    clock.advance(1.0)
    assert (command.snapshot().admitted_share < 1.0) is slowed_down


@pytest.mark.parametrize("way", [by_call, by_acall, by_attempt], ids=lambda way: way.__name__)
def test_a_shed_is_a_fault_of_the_request_being_served(command, way):
    context = RequestContext("topps")
    token = serving.set(context)
    try:
        with force_shed(command, reason=Reason.DEPENDENCY, origin="contest-db"), pytest.raises(ShedError) as caught:
            way(command, not_called)
    finally:
        serving.reset(token)
    fault = context.fault_behind(caught.value)
    assert fault is not None
    assert (fault.outcome, fault.reason, fault.origin) == (Outcome.SHED, Reason.DEPENDENCY, "contest-db")


# A callee that fails.


@each_way
def test_a_command_that_is_made_to_fail_raises_that_error(command, sink, way):
    error = ConnectionError("no route")
    with fail(command, error), pytest.raises(ConnectionError) as caught:
        way(command, not_called)
    assert caught.value is error
    assert ended(sink) == [Outcome.FAILURE]
    assert way(command, lambda: "answer") == "answer"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ConnectionError, Outcome.FAILURE),
        (TimeoutError, Outcome.TIMEOUT),
        (KeyError("c"), Outcome.IGNORED),
        (KeyboardInterrupt, Outcome.IGNORED),
    ],
)
@pytest.mark.parametrize("way", [by_call, by_attempt], ids=lambda way: way.__name__)
def test_an_error_is_judged_as_ever(resource, sink, way, error, outcome):
    command = resource.command("c", ignored_errors=(KeyError,))
    with fail(command, error), pytest.raises(error if isinstance(error, type) else type(error)):
        way(command, not_called)
    assert ended(sink) == [outcome]


def test_enough_failures_trip_and_the_circuit_recovers(command, clock):
    with fail(command, ConnectionError):
        for _ in range(20):
            with pytest.raises(ConnectionError):
                command.call(not_called)
        with pytest.raises(CircuitOpenError):
            command.call(not_called)
    with pytest.raises(CircuitOpenError):
        command.call(not_called)
    clock.advance(5.0)
    assert command.call(lambda: "answer") == "answer"
    assert command.snapshot().state is State.CLOSED


def test_an_error_raised_again_and_again_does_not_grow(command):
    error = ConnectionError()
    command.tune(mode="force_closed")
    depths = []
    with fail(command, error):
        for _ in range(3):
            with pytest.raises(ConnectionError) as caught:
                command.call(not_called)
            depths.append(len(caught.traceback))
    assert len(set(depths)) == 1


@pytest.mark.parametrize("error", ["boom", 3, int, None])
def test_what_is_no_exception_cannot_be_raised(command, error):
    with pytest.raises(TypeError, match="error must be an exception"):
        fail(command, error)


# A callee that is slow.


@pytest.mark.parametrize("way", [way for way in ALL_WAYS if way not in ENFORCED], ids=lambda way: way.__name__)
@pytest.mark.parametrize(("seconds", "outcome"), [(0.5, Outcome.SUCCESS), (1.5, Outcome.TIMEOUT)])
def test_a_slow_call_takes_its_time_on_the_command_s_clock(command, sink, clock, way, seconds, outcome):
    with slow(command, seconds):
        assert way(command, lambda: "late") == "late"
    (event,) = sink.of(CommandDone)
    assert (event.outcome, event.duration_s) == (outcome, pytest.approx(seconds))
    assert clock.now == 1000.0
    assert way(command, lambda: "answer") == "answer"
    assert sink.of(CommandDone)[1].duration_s == 0.0


@pytest.mark.parametrize("way", ENFORCED, ids=lambda way: way.__name__)
def test_an_enforced_timeout_is_raised_without_a_call(command, sink, way):
    with slow(command, 0.5):
        assert way(command, lambda: "in time") == "in time"
    with slow(command, 1.5), pytest.raises(CommandTimeoutError) as caught:
        way(command, not_called)
    assert caught.value.timeout_s == 1.0
    assert [(event.outcome, event.duration_s) for event in sink.of(CommandDone)] == [
        (Outcome.SUCCESS, pytest.approx(0.5)),
        (Outcome.TIMEOUT, pytest.approx(1.0)),
    ]


@pytest.mark.parametrize(("budget_s", "outcome"), [(0.1, Outcome.IGNORED), (0.6, Outcome.TIMEOUT)])
def test_the_budget_of_the_request_being_served_bounds_a_slow_call(command, sink, clock, budget_s, outcome):
    """Running out of it is neutral unless the callee had half of its own timeout."""

    async def main():
        serving.set(RequestContext("topps", deadline=clock.now + budget_s))
        with pytest.raises(CommandTimeoutError) as caught:
            await command.acall(asyncio.sleep, 0)
        assert caught.value.timeout_s == pytest.approx(budget_s)

    with slow(command, 3.0):
        asyncio.run(main())
    assert ended(sink) == [outcome]


def test_slow_calls_that_run_at_once_are_not_added_up(command, sink):
    async def main():
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(command.acall(asyncio.sleep, 0))

    with slow(command, 0.5):
        asyncio.run(main())
    assert [event.duration_s for event in sink.of(CommandDone)] == [pytest.approx(0.5)] * 5


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_nonsense_is_no_time(command, seconds):
    with pytest.raises(ValueError, match="seconds must be finite and at least 0"):
        slow(command, seconds)


# Blocks.


def test_blocks_of_different_kinds_nest(command, sink):
    with slow(command, 0.4), fail(command, TimeoutError):
        with force_shed(command), pytest.raises(ShedError):
            command.call(not_called)
        with pytest.raises(TimeoutError):
            command.call(not_called)
        with slow(command, 0.6), pytest.raises(TimeoutError):
            command.call(not_called)
    assert command.call(lambda: "answer") == "answer"
    assert [(event.outcome, round(event.duration_s, 6)) for event in sink.of(CommandDone)] == [
        (Outcome.SHED, 0.4),
        (Outcome.TIMEOUT, 0.4),
        (Outcome.TIMEOUT, 0.6),
        (Outcome.SUCCESS, 0.0),
    ]


@pytest.mark.parametrize("block", [force_open, force_shed, lambda of: fail(of, OSError), lambda of: slow(of, 9.0)])
def test_a_block_that_is_left_by_an_error_is_left(command, block):
    with pytest.raises(ZeroDivisionError), block(command):
        1 // 0  # noqa: B018  it raises
    assert command.call(lambda: "answer") == "answer"


def test_a_block_is_entered_once(command):
    block = force_open(command)
    with block, pytest.raises(RuntimeError, match="entered already"), block:
        pass
    with block:
        pass


@pytest.mark.parametrize("target", ["saber", None, not_called])
def test_only_commands_and_resources_can_be_forced(target):
    with pytest.raises(TypeError, match="a Command or a Resource"):
        force_open(target)


@pytest.mark.parametrize("how", ["before", "inside"])
def test_a_resource_is_forced_with_all_its_commands_whenever_they_are_made(registry, how):
    handle, other = Resource("saber", registry=registry), Resource("cards", registry=registry)
    if how == "before":
        handle.command("c")
    untouched = Resource("saber", registry=Registry()).command("c")
    with force_shed(handle):
        made = Resource("saber", registry=registry).command("c")
        with pytest.raises(ShedError):
            made.call(not_called)
        assert other.command("c").call(lambda: "answer") == "answer"
        assert untouched.call(lambda: "answer") == "answer"
    assert made.call(lambda: "answer") == "answer"


def test_what_is_in_flight_when_a_block_is_entered_and_left_is_settled_once(command):
    with command.attempt():
        with force_shed(command), slow(command, 5.0):
            assert command.snapshot().in_flight == 1
            inside = command.attempt()
            with pytest.raises(ShedError):
                inside.__enter__()
            assert command.snapshot().in_flight == 1
        assert command.snapshot().in_flight == 1
    assert command.snapshot().totals[Outcome.SUCCESS] == 1


def test_real_refusals_come_first(command):
    command.tune(max_concurrent=1)
    held = command.begin()
    with force_shed(command), pytest.raises(Exception, match="already has 1 calls in flight"):
        command.call(not_called)
    held.settle(Outcome.SUCCESS)


def test_threads_may_force_the_same_command_at_once(command):
    problems = []

    def work():
        for _ in range(200):
            with fail(command, ConnectionError):
                try:
                    command.call(not_called)
                except ConnectionError:
                    continue
                problems.append(None)  # pragma: no cover  only if it fails

    command.tune(mode="force_closed")
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60.0)
    assert problems == []
    assert command.snapshot().totals[Outcome.FAILURE] == 800


def test_a_command_that_is_switched_off_acts_too_and_counts_nothing(monkeypatch, registry):
    monkeypatch.setenv("GROUNDFAULT_DISABLED", "1")
    command = Resource("saber", registry=registry).command("c")
    with fail(command, ConnectionError), pytest.raises(ConnectionError):
        command.call(not_called)
    with force_shed(command), pytest.raises(ShedError):
        command.call(not_called)
    assert sum(command.snapshot().totals.values()) == 0


# Adapters.


@pytest.fixture
def session(resource):
    """Return a session whose requests would fail: nobody answers at port 9 of a name that nobody has."""
    with requests.Session() as session:
        session.mount("http://", GroundFaultAdapter(resource, command="scores", fallback=lambda _: requests.Response()))
        session.trust_env = False
        yield session


def test_an_adapter_s_command_is_forced_open_before_it_is_made(session, resource, sink):
    with force_open(resource):
        assert session.get("http://saber.invalid:9/").status_code is None  # the fallback
    assert ended(sink) == [Outcome.CIRCUIT_OPEN]


@pytest.mark.parametrize(
    ("block", "raised", "outcome"),
    [
        (force_shed, ShedError, Outcome.SHED),
        (lambda of: fail(of, requests.ConnectTimeout), requests.ConnectTimeout, Outcome.FAILURE),
    ],
)
def test_an_adapter_raises_what_its_command_is_made_to(session, resource, sink, block, raised, outcome):
    with block(resource), pytest.raises(raised):
        session.get("http://saber.invalid:9/")
    assert ended(sink) == [outcome]


# The registry as new.


@pytest.fixture
def application(_nothing_stays):
    """Stand for a module: a resource and a command of the process-wide registry with an open circuit."""
    with isolated_registry():  # so that this module's are not those of others
        resource = Resource("app-db")
        command = resource.command("rows", minimum_volume_per_s=0.5)
        guarded = command(lambda: "rows")
        for _ in range(20):
            command.begin().settle(Outcome.FAILURE) if command.snapshot().state is State.CLOSED else None
        assert command.snapshot().state is State.OPEN
        yield resource, command, guarded


def test_a_command_made_before_is_as_new_inside_and_as_it_was_after(application):
    resource, command, guarded = application
    before = command.snapshot()
    with isolated_registry() as registry:
        assert registry is process_registry()
        assert resource.command("rows") is command is registry.get("app-db", "rows")
        assert Resource("app-db").command("rows") is command
        assert guarded() == "rows"
        assert command.call(lambda: "answer") == "answer"
        snapshot = command.snapshot()
        assert snapshot.state is State.CLOSED
        assert (snapshot.totals[Outcome.SUCCESS], snapshot.totals[Outcome.FAILURE]) == (2, 0)
        assert snapshot.settings == before.settings
    assert command.snapshot().state is State.OPEN
    assert command.snapshot().totals == before.totals
    with pytest.raises(CircuitOpenError):
        guarded()


def test_no_state_leaks_from_one_block_into_the_next(application):
    _, command, _ = application
    for _ in range(3):
        with isolated_registry():
            assert command.snapshot().state is State.CLOSED
            with fail(command, OSError):
                for _ in range(5):
                    with pytest.raises(OSError):  # noqa: PT011  the one just asked for
                        command.call(not_called)
            assert command.snapshot().state is State.OPEN


def test_a_clock_drives_every_command(application):
    _, command, guarded = application
    clock = ManualClock()
    with isolated_registry(clock=clock, draw=lambda: 0.0):
        new = Resource("new-db").command("rows")
        for each in (command, new):
            with fail(each, OSError):
                for _ in range(20):
                    with pytest.raises((OSError, CircuitOpenError)):
                        each.call(not_called)
            with pytest.raises(CircuitOpenError) as caught:
                each.call(not_called)
            assert caught.value.retry_after_s == pytest.approx(2.5)
        clock.advance(2.5)
        assert guarded() == "rows"
        assert new.call(lambda: "answer") == "answer"


def test_what_a_test_asks_for_is_forgotten(application):
    with isolated_registry() as registry:
        first = Resource("new-db").command("rows", timeout_s=1.0)
        assert registry.get("new-db", "rows") is first
    assert process_registry().get("new-db", "rows") is None
    with isolated_registry():
        second = Resource("new-db").command("rows", timeout_s=2.0)
        assert second is not first
        with pytest.raises(SettingsError):
            Resource("new-db").command("rows", timeout_s=3.0)


def test_what_the_application_asks_for_inside_stays_as_new(application):
    """As an adapter's command does, which is made at the first request and kept for the adapter's life."""
    resource, *_ = application
    with isolated_registry(clock=ManualClock()):
        late = resource.command("late", minimum_volume_per_s=0.1)
        late.begin().settle(Outcome.FAILURE)
        assert late.snapshot().state is State.OPEN
    assert process_registry().get("app-db", "late") is late
    assert late.snapshot().state is State.CLOSED
    with isolated_registry(clock=ManualClock()), force_open(Resource("app-db")):
        assert resource.command("late") is late
        with pytest.raises(CircuitOpenError):
            late.call(not_called)
    assert late.call(lambda: "answer") == "answer"
    assert late.snapshot().p50_s < 60.0, "measured with two clocks"


def test_what_a_test_asked_for_first_and_the_application_then_is_the_application_s(application):
    resource, *_ = application
    with isolated_registry():
        made = Resource("app-db").command("late")
        assert resource.command("late") is made
    assert process_registry().get("app-db", "late") is made


def test_a_command_that_is_forced_stays_so_inside(application):
    _, command, guarded = application
    with force_shed(command):
        with isolated_registry(), pytest.raises(ShedError):
            guarded()
        with isolated_registry():
            pass
    with isolated_registry():
        assert guarded() == "rows"


def test_a_call_in_flight_ends_where_it_began(application):
    _, command, _ = application
    with isolated_registry():
        outer = command.begin()
        with isolated_registry():
            assert command.snapshot().in_flight == 0
            inner = command.begin()
            outer.settle(Outcome.SUCCESS)
        inner.settle(Outcome.SUCCESS)
        assert command.snapshot().in_flight == 0
        assert command.snapshot().totals[Outcome.SUCCESS] == 1


def test_a_registry_of_one_s_own_is_not_touched(command):
    own = command.call
    with isolated_registry():
        own(lambda: "answer")
    assert command.snapshot().totals[Outcome.SUCCESS] == 1


# A shed on the wire.


@pytest.mark.parametrize("reason", list(Reason))
def test_a_shed_response_is_understood(reason):
    status, headers, body = shed_response(reason, origin="saber")
    refusal = read_refusal(status, headers)
    assert refusal is not None
    assert (refusal.reason, refusal.origin) == (reason, "saber")
    assert int(headers["Content-Length"]) == len(body)
    assert headers["Content-Type"] == "application/problem+json"


def test_a_shed_response_follows_the_request():
    plain = shed_response(accept="text/html", origin=None)
    assert plain.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert plain.body.startswith(b"Ground Fault: ")
    assert shed_response(head=True).body == b""
    assert set(plain._asdict()) == {"status", "headers", "body"}
