import asyncio
import contextlib
import gc
import threading

import pytest

from groundfault._context import RequestContext, serving
from groundfault.errors import CircuitOpenError, RejectedError
from groundfault.events import CircuitChanged, CommandDone
from groundfault.vocabulary import Outcome, Reason, State
from groundfault.wire import Refusal


def fail_after(fn, *args):
    fn(*args)
    raise ConnectionError


@pytest.fixture
def request_context(clock):
    """Return the context of a request being served, with 2 s left."""
    context = RequestContext("topps", deadline=clock.now + 2.0, caller="web")
    token = serving.set(context)
    yield context
    serving.reset(token)


def test_a_with_statement_is_one_call(command, sink, clock):
    with command.attempt() as attempt:
        assert command.snapshot().in_flight == 1
        clock.advance(0.5)
    assert attempt.timeout_s is None
    assert sink.events == [CommandDone("saber", "entrants", Outcome.SUCCESS, 0.5)]
    assert command.snapshot().in_flight == 0


def test_a_with_statement_is_right_in_coroutines(command):
    async def one(n):
        with command.attempt():
            await asyncio.sleep(0)
            return command.snapshot().in_flight

    async def main():
        return await asyncio.gather(*(one(n) for n in range(10)))

    assert max(asyncio.run(main())) == 10
    assert command.snapshot().in_flight == 0
    assert command.snapshot().counts[Outcome.SUCCESS] == 10


def test_an_exception_is_classified_and_raised_as_it_is(command, sink):
    error = ValueError()
    with pytest.raises(ValueError, match=r"^$") as caught, command.attempt():
        raise error
    assert caught.value is error
    assert sink.of(CommandDone)[0].outcome is Outcome.FAILURE
    assert sink.of(CommandDone)[0].error_type == "ValueError"


def test_what_was_settled_inside_stands(command, sink):
    with pytest.raises(ConnectionError), command.attempt() as attempt:
        fail_after(attempt.settle, Outcome.SHED)
    assert [each.outcome for each in sink.of(CommandDone)] == [Outcome.SHED]


def test_nothing_is_taken_before_it_is_entered(command, trip):
    attempt = command.attempt()
    assert command.snapshot().in_flight == 0
    trip(command)
    with pytest.raises(CircuitOpenError), attempt:
        raise AssertionError
    attempt.settle(Outcome.SUCCESS)
    assert command.snapshot().in_flight == 0


def test_the_permit_is_taken_at_once_by_begin(command, sink):
    attempt = command.begin()
    assert command.snapshot().in_flight == 1
    with attempt:
        assert command.snapshot().in_flight == 1
    assert command.snapshot().in_flight == 0
    assert len(sink.events) == 1


@pytest.mark.parametrize("outcome", [Outcome.SUCCESS, Outcome.FAILURE, Outcome.TIMEOUT, Outcome.SHED, Outcome.IGNORED])
def test_only_the_first_settlement_counts(command, sink, outcome):
    attempt = command.begin()
    attempt.settle(outcome)
    for again in (Outcome.SUCCESS, Outcome.FAILURE):
        attempt.settle(again)
    assert attempt.fail_with(ValueError()) is Outcome.FAILURE
    assert [each.outcome for each in sink.of(CommandDone)] == [outcome]
    assert sum(command.snapshot().totals.values()) == 1


def test_settling_from_many_threads_counts_once(command):
    for _ in range(50):
        attempt, barrier = command.begin(), threading.Barrier(4)

        def settle(attempt=attempt, barrier=barrier):
            barrier.wait(timeout=5.0)
            attempt.settle(Outcome.SUCCESS)

        threads = [threading.Thread(target=settle) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=5.0)
    assert command.snapshot().in_flight == 0
    assert command.snapshot().totals[Outcome.SUCCESS] == 50


@pytest.mark.parametrize("outcome", [Outcome.CIRCUIT_OPEN, Outcome.THROTTLED, "nonsense"])
def test_a_call_that_was_made_cannot_end_as_one_that_was_not(command, outcome):
    attempt = command.begin()
    with pytest.raises(ValueError, match=f"not {outcome}"):
        attempt.settle(outcome)
    attempt.settle("failure")
    assert command.snapshot().totals[Outcome.FAILURE] == 1


def test_a_forgotten_attempt_gives_its_place_back(resource):
    command = resource.command("c", max_concurrent=2)
    for _ in range(10):
        command.begin()
        gc.collect()
    assert command.snapshot().in_flight == 0
    assert command.snapshot().totals[Outcome.IGNORED] == 10


@pytest.mark.parametrize(
    ("duration_s", "counted"), [(None, 3.0), (0.25, 0.25), (-1.0, 3.0), (float("nan"), 3.0), (0, 0.0)]
)
def test_the_duration_may_be_given(command, sink, clock, duration_s, counted):
    attempt = command.begin()
    clock.advance(3.0)
    attempt.settle(Outcome.SUCCESS, duration_s=duration_s)
    assert sink.of(CommandDone)[0].duration_s == counted
    assert command.snapshot().counts[Outcome.SUCCESS] == 1


def test_a_success_longer_than_the_timeout_is_a_timeout(resource, sink):
    command = resource.command("c", timeout_s=1.0)
    command.begin().settle(Outcome.SUCCESS, duration_s=1.0)
    command.begin().settle(Outcome.SUCCESS, duration_s=1.1)
    command.begin().settle(Outcome.SHED, duration_s=1.1)
    command.begin().settle(Outcome.FAILURE, duration_s=1.1)
    outcomes = [each.outcome for each in sink.of(CommandDone)]
    assert outcomes == [Outcome.SUCCESS, Outcome.TIMEOUT, Outcome.TIMEOUT, Outcome.FAILURE]


def test_a_shed_is_a_failure_where_it_is_not_honored(resource, sink):
    attempt = resource.command("c", honor_handled=False).begin()
    attempt.settle(Outcome.SHED, refusal=Refusal(Reason.QUEUE_WAIT))
    assert sink.of(CommandDone)[0].outcome is Outcome.FAILURE


@pytest.mark.parametrize(
    ("setting", "budget", "timeout_s", "capped"),
    [
        (None, None, None, False),
        (1.0, None, 1.0, False),
        (None, 0.5, 0.5, True),
        (1.0, 0.5, 0.5, True),
        (1.0, 1.0, 1.0, False),
        (1.0, 3.0, 1.0, False),
        (1.0, 0.0, 0.001, True),  # no client library takes a timeout of zero
        (1.0, -5.0, 0.001, True),
    ],
)
def test_the_tighter_of_setting_and_budget_is_the_bound(
    resource, clock, request_context, setting, budget, timeout_s, capped
):
    request_context.deadline = None if budget is None else clock.now + budget
    attempt = resource.command("c", timeout_s=setting).begin()
    assert attempt.timeout_s == (None if timeout_s is None else pytest.approx(timeout_s))
    assert attempt.capped is capped


@pytest.mark.parametrize(
    ("timeout_s", "budget", "duration_s", "outcome"),
    [
        (1.0, 0.4, 0.4, Outcome.IGNORED),
        (1.0, 0.5, 0.5, Outcome.TIMEOUT),  # half of its own timeout is long enough
        (1.0, 0.4, 1.1, Outcome.TIMEOUT),
        (1.0, 5.0, 0.4, Outcome.TIMEOUT),  # the budget was not the bound
        (None, 0.4, 9.0, Outcome.IGNORED),
    ],
)
@pytest.mark.parametrize("how", ["settle", "fail_with"])
def test_running_out_of_a_short_budget_is_neutral(
    resource, clock, sink, request_context, timeout_s, budget, duration_s, outcome, how
):
    """A caller in a hurry must not trip the circuit for everybody."""
    request_context.deadline = clock.now + budget
    attempt = resource.command("c", timeout_s=timeout_s).begin()
    clock.advance(duration_s)
    if how == "settle":
        attempt.settle(Outcome.TIMEOUT)
    else:
        attempt.fail_with(TimeoutError())
    assert sink.of(CommandDone)[0].outcome is outcome


# The ledger of the request being served.


def test_a_fault_is_written_down_with_what_the_application_sees(command, request_context):
    error = ValueError()
    command.begin().fail_with(error)
    response = object()
    command.begin().settle(Outcome.SHED, refusal=Refusal(Reason.QUEUE_WAIT, "contest-db"), carrier=response)
    command.begin().settle(Outcome.SUCCESS, carrier=response)
    command.begin().settle(Outcome.IGNORED, carrier=response)
    command.begin().settle(Outcome.FAILURE, carrier=object(), fallback=True)
    assert request_context.faults == [
        ("saber", "entrants", Outcome.FAILURE, Reason.DEPENDENCY, None, error),
        ("saber", "entrants", Outcome.SHED, Reason.DEPENDENCY, "contest-db", response),
    ]


@pytest.mark.parametrize(
    ("settings", "outcome", "reason"),
    [
        ({"mode": "force_open"}, Outcome.CIRCUIT_OPEN, Reason.CIRCUIT_OPEN),
        ({"max_concurrent": 1}, Outcome.BULKHEAD_FULL, Reason.DEPENDENCY),
    ],
)
def test_a_rejection_is_a_fault_of_the_request(way, resource, request_context, settings, outcome, reason):
    command = resource.command("c", **settings)
    if outcome is Outcome.BULKHEAD_FULL:
        _held = command.begin()
    with pytest.raises(RejectedError) as caught:
        way(command)
    assert request_context.faults == [("saber", "c", outcome, reason, None, caught.value)]


@pytest.mark.parametrize("fallback", [True, False])
def test_who_asks_may_have_a_fallback_of_its_own(resource, sink, request_context, fallback):
    command = resource.command("c", mode="force_open")
    with pytest.raises(CircuitOpenError):
        command.begin(fallback=fallback)
    assert sink.of(CommandDone)[0].fallback is fallback
    assert command.snapshot().fallbacks == fallback
    assert len(request_context.faults) == (not fallback)


def test_the_ledger_and_the_caller_of_a_call(way, command, sink, request_context):
    error = ValueError()

    def fn():
        raise error

    with pytest.raises(ValueError, match=r"^$"):
        way(command, fn)
    assert [fault.carrier for fault in request_context.faults] == [error]
    assert sink.of(CommandDone)[0].caller == "web"


def test_a_fallback_leaves_no_fault_nor_that_of_a_command_inside(way, resource, request_context):
    inner = resource.command("inner")
    outer = resource.command("outer", fallback="cached")

    def nested():
        return inner.call(int, "no number")

    assert way(outer, nested) == "cached"
    assert request_context.faults == []


@pytest.mark.parametrize("result", [0, False, "down", b"", (), Outcome.FAILURE, None])
def test_a_result_that_any_error_may_hold_explains_none(way, resource, request_context, result):
    command = resource.command("c", classify=lambda _result: Outcome.FAILURE)
    assert way(command, lambda: result) is result
    assert len(request_context.faults) == 1
    assert request_context.fault_behind(KeyError(result)) is None


def test_a_fallback_without_a_carrier_makes_no_other_fault_good(command, request_context):
    command.begin().settle(Outcome.FAILURE)
    command.begin().settle(Outcome.FAILURE, fallback=True)
    assert len(request_context.faults) == 1


@pytest.mark.parametrize("able", [True, False])
def test_a_fallback_is_asked_for_where_one_is_due_and_counts_if_it_was_able(command, sink, request_context, able):
    in_flight = []

    def serve():
        in_flight.append(command.snapshot().in_flight)
        return able

    command.begin().settle(Outcome.SUCCESS, fallback=serve)
    command.begin().settle(Outcome.IGNORED, fallback=serve)
    command.begin().fail_with(GeneratorExit(), fallback=serve)
    assert in_flight == []
    command.begin().fail_with(OSError(), fallback=serve)
    command.tune(mode="force_open")
    with pytest.raises(CircuitOpenError):
        command.begin(fallback=serve)
    assert in_flight == [0, 0]
    assert [each.fallback for each in sink.of(CommandDone)] == [False, False, False, able, able]
    assert command.snapshot().fallbacks == 2 * able
    assert len(request_context.faults) == 2 * (not able)


def test_a_result_that_came_too_late_is_no_fault(resource, clock, request_context):
    command = resource.command("c", timeout_s=1.0)
    command.call(clock.advance, 1.5)
    assert request_context.faults == []
    assert command.snapshot().totals[Outcome.TIMEOUT] == 1


def test_a_trip_carries_the_trace_of_the_request(command, sink, request_context, trip):
    request_context.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    trip(command)
    changed = sink.of(CircuitChanged)[0]
    assert changed.new is State.OPEN
    assert changed.traceparent == request_context.traceparent


def test_an_attempt_in_shadow_reports_what_it_would_have_been(resource, sink, request_context):
    command = resource.command("c", mode="shadow")
    for _ in range(20):
        command.begin().settle(Outcome.FAILURE)
    attempt = command.begin()
    attempt.settle(Outcome.SUCCESS)
    done = sink.of(CommandDone)[-1]
    assert (done.outcome, done.enforced) == (Outcome.CIRCUIT_OPEN, False)
    assert len(request_context.faults) == 16  # none of them by the call that succeeded


def test_an_attempt_that_shadow_mode_let_through_is_recorded_nowhere(resource, sink):
    """Also where the level was reported a moment ago and the command looks quiet again."""
    command = resource.command("c", mode="shadow", max_concurrent=2)
    for _ in range(3):
        held = [command.begin() for _ in range(3)]
        extra = held.pop()
        assert command.snapshot().in_flight == 2
        extra.settle(Outcome.SUCCESS)
        assert command.snapshot().in_flight == 2
        for attempt in held:
            attempt.settle(Outcome.IGNORED)
    totals = command.snapshot().totals
    assert (totals[Outcome.SUCCESS], totals[Outcome.BULKHEAD_FULL]) == (0, 3)
    assert [each.enforced for each in sink.of(CommandDone)] == [False, True, True] * 3


@pytest.mark.parametrize(
    ("setting", "budget_s", "duration_s", "outcome"),
    [
        (None, 30.0, 0.05, Outcome.TIMEOUT),  # the client library's own timeout, long before the budget ran out
        (None, 30.0, 30.0, Outcome.IGNORED),
        (None, 30.0, 29.0, Outcome.IGNORED),
        (2.0, 1.9, 0.05, Outcome.TIMEOUT),
        (2.0, 1.9, 1.9, Outcome.TIMEOUT),  # it had more than half of its own time
        (2.0, 0.5, 0.5, Outcome.IGNORED),
        (2.0, 0.5, 0.1, Outcome.TIMEOUT),
        (2.0, -1.0, 0.0, Outcome.IGNORED),  # nothing was sent
    ],
)
@pytest.mark.parametrize("how", ["settle", "fail_with", "with"])
def test_a_timeout_is_neutral_only_if_it_was_the_budget_that_ran_out(
    resource, clock, sink, request_context, setting, budget_s, duration_s, outcome, how
):
    request_context.deadline = clock() + budget_s
    command = resource.command("c", timeout_s=setting)
    if how == "with":
        with contextlib.suppress(TimeoutError), command.attempt():
            clock.advance(duration_s)
            raise TimeoutError
    else:
        attempt = command.begin()
        clock.advance(duration_s)
        attempt.settle(Outcome.TIMEOUT) if how == "settle" else attempt.fail_with(TimeoutError())
    assert sink.of(CommandDone)[-1].outcome is outcome


def test_what_a_fallback_serves_and_raises_is_handed_over(resource):
    command = resource.command("c")
    served, failed = command.begin(), command.begin()
    served.fail_with(ConnectionError(), fallback=lambda: "served")
    error = ValueError()

    def fail():
        raise error

    failed.fail_with(ConnectionError(), fallback=fail)
    assert (served.served, served.fallback_error) == ("served", None)
    assert (failed.served, failed.fallback_error) == (None, error)
    snapshot = command.snapshot()
    assert (snapshot.fallbacks, snapshot.fallbacks_failed) == (1, 1)
