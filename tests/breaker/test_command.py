"""What a call does, through ``call`` and ``acall`` alike."""

import asyncio
import json
import pickle
import threading
import traceback
from types import SimpleNamespace

import pytest

from groundfault import events
from groundfault.breaker import Registry, Resource
from groundfault.errors import (
    BulkheadFullError,
    CircuitOpenError,
    CommandTimeoutError,
    RejectedError,
    SettingsError,
    ShedError,
    ThrottledError,
)
from groundfault.events import CircuitChanged, CommandDone, CommandFailing, ConcurrencyChanged, SettingsChanged
from groundfault.sinks import Sinks
from groundfault.testing import RecordingSink
from groundfault.vocabulary import Mode, Outcome, Reason, State


class ResponseError(Exception):
    """What a client library raises for an answer."""

    def __init__(self, status, headers):
        super().__init__(status)
        self.response = SimpleNamespace(status_code=status, headers=headers)


def handled(reason=Reason.QUEUE_WAIT):
    return ResponseError(503, {"X-GroundFault": "handled", "X-GroundFault-Reason": reason.value})


def fail(error):
    raise error


def outcome_of(sink):
    return sink.of(CommandDone)[-1].outcome


def test_a_success_is_returned_and_counted(way, command, sink, clock):
    def fn(first, *, second):
        clock.advance(0.25)
        return first, second

    assert way(command, fn, 1, second=2) == (1, 2)
    assert sink.events == [CommandDone("saber", "entrants", Outcome.SUCCESS, 0.25)]
    snapshot = command.snapshot()
    assert snapshot.counts[Outcome.SUCCESS] == snapshot.totals[Outcome.SUCCESS] == 1
    assert 0.125 <= snapshot.p50_s <= 0.5
    assert snapshot.in_flight == 0


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError(), Outcome.FAILURE),
        (TimeoutError(), Outcome.TIMEOUT),
        (CommandTimeoutError("other", "one", 1.0), Outcome.TIMEOUT),
        (CircuitOpenError("other", "one", 1.0), Outcome.IGNORED),
        (ShedError("other", "one"), Outcome.IGNORED),
        (KeyError(), Outcome.IGNORED),  # among the ignored errors
        (KeyboardInterrupt(), Outcome.IGNORED),
        (SystemExit(), Outcome.IGNORED),
        (GeneratorExit(), Outcome.IGNORED),
        (asyncio.CancelledError(), Outcome.IGNORED),
        (handled(), Outcome.SHED),
        (handled(Reason.DEPENDENCY), Outcome.SHED),
        (ResponseError(503, {}), Outcome.FAILURE),
        (ResponseError(500, {"X-GroundFault": "handled"}), Outcome.FAILURE),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_an_exception_means(resource, sink, error, outcome):
    command = resource.command("c", ignored_errors=(KeyError,))
    with pytest.raises(type(error)) as caught:
        command.call(fail, error)
    assert caught.value is error
    assert outcome_of(sink) is outcome
    counts = command.snapshot().counts
    assert {each for each, times in counts.items() if times} == {outcome}
    assert command.snapshot().in_flight == 0


@pytest.mark.parametrize("error", [ValueError(), TimeoutError(), KeyError(), handled(), asyncio.CancelledError()])
def test_the_original_is_raised(way, command, error):
    with pytest.raises(type(error)) as caught:
        way(command, fail, error)
    if not isinstance(error, asyncio.CancelledError):  # asyncio.run raises a new one
        assert caught.value is error
        assert error.__context__ is None


def test_a_classification_that_fails_is_a_failure(way, resource, sink):
    class Fussy(type):
        def __instancecheck__(cls, instance):
            raise RuntimeError("none of your business")

    class FussyError(Exception, metaclass=Fussy):
        pass

    command = resource.command("c", ignored_errors=(FussyError,))
    with pytest.raises(KeyError):
        way(command, fail, KeyError())
    assert outcome_of(sink) is Outcome.FAILURE
    assert events.internal_errors() == {"classification of an error": 1}


@pytest.mark.parametrize(
    ("error", "duration_s", "outcome"),
    [
        (None, 1.0, Outcome.SUCCESS),
        (None, 1.1, Outcome.TIMEOUT),
        (handled(), 1.0, Outcome.SHED),
        (handled(), 1.1, Outcome.TIMEOUT),  # our own timeout counts, annotated or not
        (ValueError(), 1.1, Outcome.FAILURE),
        (asyncio.CancelledError(), 1.0, Outcome.IGNORED),
        (asyncio.CancelledError(), 1.1, Outcome.TIMEOUT),  # it had been given all its time
        (KeyboardInterrupt(), 1.1, Outcome.IGNORED),
        (GeneratorExit(), 1.1, Outcome.IGNORED),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_measured_timeout(resource, sink, clock, error, duration_s, outcome):
    command = resource.command("c", timeout_s=1.0)

    def fn():
        clock.advance(duration_s)
        if error is not None:
            raise error
        return "late"

    if error is None:
        assert command.call(fn) == "late"
    else:
        with pytest.raises(type(error)):
            command.call(fn)
    assert outcome_of(sink) is outcome


@pytest.mark.parametrize(
    ("settings", "duration_s", "outcome"),
    [
        ({"slow_call_s": 0.5}, 0.5, Outcome.SUCCESS),
        ({"slow_call_s": 0.5}, 0.6, Outcome.TIMEOUT),
        ({"slow_call_s": 0.5, "timeout_s": 9.0}, 0.6, Outcome.TIMEOUT),
        ({"slow_call_s": 9.0, "timeout_s": 0.5}, 0.6, Outcome.TIMEOUT),
        ({"slow_call_s": 9.0, "timeout_s": 0.7}, 0.6, Outcome.SUCCESS),
    ],
)
@pytest.mark.parametrize("attempted", [False, True])
def test_a_slow_call_is_returned_and_counts_against_the_callee(  # in every way of calling
    way, resource, sink, clock, settings, duration_s, outcome, attempted
):
    command = resource.command("c", **settings)
    if attempted:
        with command.attempt():
            clock.advance(duration_s)
    else:
        assert way(command, lambda: clock.advance(duration_s)) == clock.now
    assert outcome_of(sink) is outcome


def test_a_refusal_that_is_only_slow_stays_one(way, resource, sink, clock):
    command = resource.command("c", slow_call_s=0.5, timeout_s=9.0)

    def refused():
        clock.advance(0.6)
        raise handled()

    with pytest.raises(ResponseError):
        way(command, refused)
    assert outcome_of(sink) is Outcome.SHED


def test_handled_counts_as_failure_where_it_is_not_honored(way, resource, sink):
    command = resource.command("c", honor_handled=False, classify=lambda result: result)
    with pytest.raises(ResponseError):
        way(command, fail, handled())
    assert outcome_of(sink) is Outcome.FAILURE
    way(command, lambda: Outcome.SHED)
    assert outcome_of(sink) is Outcome.FAILURE


@pytest.mark.parametrize(
    "outcome",
    [None, "success", *[each for each in Outcome if each in {"success", "failure", "timeout", "shed", "ignored"}]],
)
def test_a_classifier_says_what_a_result_means(way, resource, sink, outcome):
    command = resource.command("c", classify=lambda result: outcome)
    assert way(command, lambda: 3) == 3
    assert outcome_of(sink) is Outcome(outcome or "success")


@pytest.mark.parametrize("verdict", ["fine", Outcome.CIRCUIT_OPEN, 3, ZeroDivisionError])
def test_a_classifier_that_fails_is_a_failure_and_changes_no_result(way, resource, sink, verdict):
    def classify(result):
        if verdict is ZeroDivisionError:
            raise verdict
        return verdict

    command = resource.command("c", classify=classify)
    assert way(command, lambda: 3) == 3
    assert outcome_of(sink) is Outcome.FAILURE
    assert events.internal_errors() == {"classifier": 1}


def test_a_coroutine_in_a_plain_call_is_refused_and_not_counted_as_success(command, sink):
    async def fn():
        return 1

    with pytest.raises(TypeError, match=r"saber/entrants: .*fn\(\) needs acall, not call"):
        command.call(fn)
    assert outcome_of(sink) is Outcome.IGNORED


# The circuit.


def test_an_outage_trips_and_a_probe_closes(way, command, sink, clock, trip):
    trip(command, 19)
    way(command, lambda: 1)
    assert command.snapshot().state is State.CLOSED
    trip(command, 1)
    assert command.snapshot().state is State.OPEN
    with pytest.raises(CircuitOpenError) as caught:
        way(command)
    assert caught.value.retry_after_s == 3.75
    assert str(caught.value) == "circuit saber/entrants is open; next probe in 3.8 s"
    clock.advance(3.75)
    assert way(command) == "done"
    assert command.snapshot().state is State.CLOSED
    assert [(each.old, each.new) for each in sink.of(CircuitChanged)] == [
        (State.CLOSED, State.OPEN),
        (State.OPEN, State.HALF_OPEN),
        (State.HALF_OPEN, State.CLOSED),
    ]
    tripped = sink.of(CircuitChanged)[0]
    assert (tripped.failures, tripped.volume, tripped.sleep_window_s) == (20, 21, 3.75)


@pytest.mark.parametrize("decorated", [False, True])
def test_a_success_that_began_before_the_trip_counts_in_no_window(way, command, trip, decorated):
    def fn():
        trip(command)
        return "late"

    assert (way.decorated(command, fn)() if decorated else way(command, fn)) == "late"
    snapshot = command.snapshot()
    assert snapshot.state is State.OPEN
    assert (snapshot.counts[Outcome.SUCCESS], snapshot.totals[Outcome.SUCCESS]) == (0, 1)


@pytest.mark.parametrize("decorated", [False, True])
def test_a_success_counts_in_the_window_in_which_it_ends(way, command, clock, decorated):
    def fn():
        clock.advance(10.5)

    way.decorated(command, fn)() if decorated else way(command, fn)
    clock.advance(20.0)  # three windows after it began, two after it ended
    assert command.snapshot().counts[Outcome.SUCCESS] == 1
    clock.advance(10.0)
    assert command.snapshot().counts[Outcome.SUCCESS] == 0


def test_calls_during_a_probe_are_refused(way, command, clock, trip):
    trip(command)
    clock.advance(4.0)
    seen = []

    def probe():
        with pytest.raises(CircuitOpenError) as caught:
            command.call(lambda: seen.append("stampede"))
        seen.append(caught.value.retry_after_s)

    way(command, probe)
    assert seen == [0.0]


@pytest.mark.parametrize("error", [handled(), KeyboardInterrupt(), CircuitOpenError("a", "b", 1.0)])
def test_a_neutral_probe_gives_the_slot_back(command, clock, trip, error):
    trip(command)
    clock.advance(4.0)
    for _ in range(5):
        with pytest.raises(type(error)):
            command.call(fail, error)
        assert command.snapshot().state is State.HALF_OPEN
    assert command.call(lambda: 1) == 1
    assert command.snapshot().state is State.CLOSED


def test_a_refusal_before_the_circuit_takes_no_probe(resource, clock, trip):
    """A bulkhead asked after the lease would strand it: a known hole in Hystrix."""
    command = resource.command("c", max_concurrent=1)
    held = command.begin()
    with pytest.raises(BulkheadFullError):
        command.call(lambda: 1)
    held.settle(Outcome.IGNORED)
    trip(command)
    clock.advance(4.0)
    command.tune(mode="shadow")
    command.tune(mode="enforce")
    assert command.snapshot().state is State.OPEN
    assert command.call(lambda: 1) == 1


def test_rejections_are_fresh_pickle_and_do_not_grow(way, command, trip):
    trip(command)
    caught = []
    for _ in range(50):
        with pytest.raises(CircuitOpenError) as info:
            way(command)
        caught.append(info.value)
    assert len({id(error) for error in caught}) == 50
    lengths = {len(traceback.extract_tb(error.__traceback__)) for error in caught}
    assert len(lengths) == 1
    copy = pickle.loads(pickle.dumps(caught[0]))  # noqa: S301  made right here
    assert (type(copy), copy.args, str(copy)) == (CircuitOpenError, caught[0].args, str(caught[0]))
    assert command.snapshot().totals[Outcome.CIRCUIT_OPEN] == 50


def test_refusals_that_are_folded_away_are_all_counted(command, trip, sink):
    trip(command)
    for _ in range(2000):
        with pytest.raises(CircuitOpenError):
            command.call(fail, ValueError())
    assert command.snapshot().counts[Outcome.CIRCUIT_OPEN] == 2000
    assert len(sink.of(CommandDone)) == 2020


def test_successes_that_are_folded_away_are_all_counted(way, command):
    for _ in range(600):
        way(command)
    assert command.snapshot().counts[Outcome.SUCCESS] == 600


# Concurrency.


def test_only_so_many_at_a_time(way, resource, sink):
    command = resource.command("c", max_concurrent=5)
    held = [command.begin() for _ in range(5)]
    with pytest.raises(BulkheadFullError, match="saber/c already has 5 calls in flight, its limit"):
        way(command)
    assert outcome_of(sink) is Outcome.BULKHEAD_FULL
    held.pop().settle(Outcome.SUCCESS)
    assert way(command) == "done"
    for attempt in held:
        attempt.settle(Outcome.SUCCESS)
    assert command.snapshot().in_flight == 0
    assert command.snapshot().state is State.CLOSED
    levels = [(each.level, each.in_flight, each.max_concurrent) for each in sink.of(ConcurrencyChanged)]
    assert levels == [("high", 4, 5), ("full", 5, 5), ("normal", 2, 5)]


def test_refusals_for_lack_of_room_are_neutral(resource):
    command = resource.command("c", max_concurrent=1)
    held = command.begin()
    for _ in range(100):
        with pytest.raises(BulkheadFullError):
            command.call(lambda: 1)
    held.settle(Outcome.FAILURE)
    snapshot = command.snapshot()
    assert snapshot.state is State.CLOSED
    assert snapshot.counts[Outcome.BULKHEAD_FULL] == 100


def test_a_limit_below_what_is_in_flight_is_safe(resource):
    command = resource.command("c", max_concurrent=5)
    held = [command.begin() for _ in range(5)]
    command.tune(max_concurrent=2)
    for left in (5, 4, 3, 2):
        assert command.snapshot().in_flight == left
        with pytest.raises(BulkheadFullError):
            command.begin()
        held.pop().settle(Outcome.SUCCESS)
    held.append(command.begin())
    for attempt in held:
        attempt.settle(Outcome.SUCCESS)
    assert command.snapshot().in_flight == 0


# Fallbacks.


@pytest.mark.parametrize(
    ("error", "served"),
    [
        (ValueError(), True),
        (TimeoutError(), True),
        (handled(), True),
        (CircuitOpenError("nested", "one", 1.0), True),  # neutral, yet there is no answer
        (ShedError("nested", "one"), True),
        (KeyError(), False),
        (KeyboardInterrupt(), False),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_fallback_is_served_for_what_went_wrong(way, resource, sink, error, served):
    command = resource.command("c", fallback="cached", ignored_errors=(KeyError,))
    if served:
        assert way(command, fail, error) == "cached"
    else:
        with pytest.raises(type(error)):
            way(command, fail, error)
    assert sink.of(CommandDone)[-1].fallback is served
    assert command.snapshot().fallbacks == served


def test_a_fallback_is_served_for_every_rejection(way, resource, trip, clock):
    command = resource.command("c", fallback=lambda n: -n, max_concurrent=1, health_check=lambda: True)
    held = command.begin()
    assert way(command, lambda n: n, 3) == -3
    held.settle(Outcome.SUCCESS)
    command.tune(mode="force_open")
    assert way(command, lambda n: n, 4) == -4
    assert command.snapshot().fallbacks == 2


@pytest.mark.parametrize("value", [None, 0, "", []])
def test_any_value_is_a_fallback(way, resource, value):
    assert way(resource.command("c", fallback=value), fail, ValueError()) is value


def test_a_fallback_for_a_result(way, resource, sink):
    command = resource.command("c", fallback="cached", classify=lambda result: result)
    assert way(command, lambda: Outcome.FAILURE) == "cached"
    assert way(command, lambda: Outcome.SHED) == "cached"
    assert way(command, lambda: Outcome.IGNORED) is Outcome.IGNORED
    assert way(command, lambda: None) is None


def test_a_late_result_is_returned_and_not_replaced(resource, clock, sink):
    command = resource.command("c", fallback="cached", timeout_s=1.0)
    assert command.call(clock.advance, 2.0) == 1002.0
    assert outcome_of(sink) is Outcome.TIMEOUT
    assert sink.of(CommandDone)[-1].fallback is False


def test_an_awaitable_fallback_is_awaited(resource):
    async def cached(n):
        await asyncio.sleep(0)
        return n * 10

    async def bad(n):
        raise ValueError

    command = resource.command("c", fallback=cached)
    assert asyncio.run(command.acall(bad, 7)) == 70


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("rejected", [False, True])
def test_a_fallback_that_raises_surfaces_as_the_original_error(way, resource, sink, nested, rejected):
    """Its own error is the context, and what the original came from is kept behind it, without a loop."""
    raised = []

    def give_up():
        raised.append(RuntimeError("no cache either"))
        raise raised[0]

    def fallback():
        if not nested:
            give_up()
        try:
            fail(LookupError())
        except LookupError:
            give_up()

    def fn():
        try:
            fail(OSError("root"))
        except OSError:
            fail(ValueError("original"))

    command = resource.command("c", fallback=fallback, mode="force_open" if rejected else "enforce")
    with pytest.raises(CircuitOpenError if rejected else ValueError) as caught:
        way(command, fn)
    error = caught.value
    assert error.__context__ is raised[0]
    assert error.__cause__ is None
    chain, link = [], error
    while link is not None:
        chain.append(type(link).__name__)
        assert len(chain) < 10
        link = link.__context__
    expected = ["CircuitOpenError" if rejected else "ValueError", "RuntimeError"]
    expected += ["LookupError"] * nested + ["OSError"] * (not rejected)
    assert chain == expected
    assert "no cache either" in "".join(traceback.format_exception(error))
    assert sink.of(CommandDone)[-1].fallback is False
    assert command.snapshot().fallbacks == 0


def test_a_fallback_that_raises_the_original_again_changes_nothing(way, resource):
    error = ValueError()
    command = resource.command("c", fallback=lambda: fail(error))
    with pytest.raises(ValueError, match=r"^$") as caught:
        way(command, lambda: fail(error))
    assert caught.value is error
    assert error.__context__ is None


def test_a_fallback_for_a_result_that_raises_leaves_the_result(way, resource):
    command = resource.command("c", fallback=lambda: fail(RuntimeError()), classify=lambda result: result)
    assert way(command, lambda: Outcome.FAILURE) is Outcome.FAILURE
    assert events.internal_errors() == {"fallback of saber/c": 1}


# Modes.


def test_forced_open_refuses_everything(way, resource, sink):
    command = resource.command("c", mode="force_open")
    for _ in range(3):
        with pytest.raises(CircuitOpenError) as caught:
            way(command)
        assert caught.value.retry_after_s == 0.0
    assert command.snapshot().mode is Mode.FORCE_OPEN
    assert command.snapshot().state is State.CLOSED
    command.tune(mode="enforce")
    assert way(command) == "done"
    assert sink.of(CircuitChanged) == []


def test_forced_closed_lets_everything_through_and_goes_on_counting(way, command, trip):
    trip(command)
    command.tune(mode="force_closed")
    assert way(command) == "done"
    trip(command, 50)
    snapshot = command.snapshot()
    assert snapshot.trips == 1
    assert snapshot.counts[Outcome.FAILURE] == 70
    command.tune(mode="enforce")
    with pytest.raises(CircuitOpenError):
        way(command)  # a change of settings does not close an open circuit


def test_shadow_mode_decides_and_refuses_nothing(way, resource, sink, clock, trip):
    command = resource.command("c", mode="shadow", max_concurrent=1)
    trip(command)
    assert command.snapshot().state is State.OPEN
    assert way(command) == "done"
    done = sink.of(CommandDone)[-1]
    assert (done.outcome, done.enforced) == (Outcome.CIRCUIT_OPEN, False)
    with pytest.raises(KeyError):
        way(command, fail, KeyError())
    counts = command.snapshot().counts
    assert (counts[Outcome.CIRCUIT_OPEN], counts[Outcome.SUCCESS], counts[Outcome.FAILURE]) == (2, 0, 20)
    clock.advance(4.0)
    way(command)  # the probe
    assert command.snapshot().state is State.CLOSED
    held = command.begin()
    assert way(command) == "done"
    assert sink.of(CommandDone)[-1].outcome is Outcome.BULKHEAD_FULL
    assert command.snapshot().in_flight == 1
    extra = command.begin()  # it would have been refused, so it is not in flight
    assert command.snapshot().in_flight == 1
    extra.settle(Outcome.SUCCESS)
    held.settle(Outcome.SUCCESS)
    assert command.snapshot().in_flight == 0


@pytest.mark.parametrize("said", ["1", " True", "on"])
def test_the_kill_switch_lets_everything_through(way, resource, sink, monkeypatch, said):
    monkeypatch.setenv("GROUNDFAULT_DISABLED", said)
    command = resource.command("c", mode="force_open", max_concurrent=1, fallback="cached", timeout_s=0.001)
    monkeypatch.delenv("GROUNDFAULT_DISABLED")  # read when a command is made
    assert way(command) == "done"
    assert way.decorated(command, lambda: "decorated")() == "decorated"
    with pytest.raises(ValueError, match=r"^x$"):
        way(command, fail, ValueError("x"))
    with command.attempt() as attempt, command.attempt():
        assert attempt.timeout_s is None
    held = [command.begin() for _ in range(3)]
    for each in held:
        assert each.fail_with(ValueError()) is Outcome.FAILURE
        each.settle(Outcome.FAILURE)
    assert list(command(lambda: iter([1]))()) == [1]
    assert sink.events == []
    snapshot = command.snapshot()
    assert sum(snapshot.totals.values()) == snapshot.in_flight == 0
    assert resource.command("d", max_concurrent=1).begin() is not None


# Tuning.


def test_tuning_keeps_the_windows_and_says_what_changed(way, command, sink, trip):
    trip(command, 10)
    tuned = command.tune(minimum_volume_per_s=1.1, timeout_s=2.0)
    assert command.settings is tuned
    assert sink.of(SettingsChanged) == [
        SettingsChanged(
            "saber/entrants",
            {"timeout_s": None, "minimum_volume_per_s": 2.0},
            {"timeout_s": 2.0, "minimum_volume_per_s": 1.1},
        )
    ]
    trip(command, 1)
    assert command.snapshot().state is State.OPEN


def test_tuning_to_the_same_is_no_news(command, sink):
    command.tune(sleep_window_s=5)
    command.tune()
    assert sink.events == []


@pytest.mark.parametrize("changes", [{"timeout_s": -1}, {"tmeout_s": 1}, {"max_sleep_window_s": 1}])
def test_nonsense_changes_nothing(command, sink, changes):
    before = command.settings
    with pytest.raises(SettingsError):
        command.tune(**changes)
    assert command.settings is before
    assert sink.events == []


def test_a_call_keeps_the_timeout_it_began_with(resource, clock, sink):
    command = resource.command("c", timeout_s=1.0)

    def fn():
        command.tune(timeout_s=10.0)
        clock.advance(2.0)

    command.call(fn)
    assert outcome_of(sink) is Outcome.TIMEOUT


# Fail open.


def test_an_error_of_our_own_lets_the_call_through(way, command, trip, monkeypatch):
    trip(command)

    def broken(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(type(command._gate._rolling), "roll", broken)
    command._gate.period.refuses_until = float("-inf")
    assert way(command) == "done"
    with pytest.raises(KeyError):
        way(command, fail, KeyError())
    assert events.internal_errors() == {"breaker admission": 2, "breaker settlement": 2}
    assert len(command._gate.in_flight) == 0


def test_a_sink_that_raises_changes_nothing(way, registry, trip):
    def broken(event):
        raise RuntimeError("disk full")

    command = Resource("saber", registry=registry, sinks=Sinks.direct(broken)).command("c", fallback="cached")
    assert way(command) == "done"
    assert way(command, fail, ValueError()) == "cached"
    for _ in range(30):
        assert way(command, fail, ValueError()) == "cached"
    assert command.snapshot().state is State.OPEN
    assert sum(events.internal_errors().values()) == 33  # one for each call and one for the trip


def test_sinks_run_outside_the_lock(way, registry, trip):
    """A sink may ask the command that is talking, from whatever thread."""
    seen, stuck = [], []

    def nosy(event):
        thread = threading.Thread(target=lambda: seen.append(command.snapshot().state))
        thread.start()
        thread.join(timeout=5.0)
        if thread.is_alive():
            stuck.append(event)

    command = Resource("saber", registry=registry, sinks=Sinks.direct(nosy)).command("c")
    trip(command)
    with pytest.raises(RejectedError):
        way(command)
    assert stuck == []
    assert len(seen) == 22


def test_calls_are_not_described_to_sinks_that_do_not_want_them(way, registry):
    def changes(event):
        raise AssertionError(event)

    changes.changes_only = True
    command = Resource("saber", registry=registry, sinks=Sinks.direct(changes)).command("c")
    assert way(command) == "done"
    assert events.internal_errors() == {}


def test_throttled_calls_are_refused_by_share(resource, clock, sink):
    draws = iter([0.3, 0.7])
    command = Resource("saber", registry=Registry(clock=clock, draw=lambda: next(draws)), sinks=[sink]).command("c")
    command._gate._callee.refused(clock.now)
    command._gate._callee._throttle.share = 0.5
    command._gate._callee._throttle.active = True
    command._gate._callee._throttle._since = clock.now
    command._gate._renew()
    assert command.call(lambda: 1) == 1
    with pytest.raises(ThrottledError, match="50% of the calls are sent"):
        command.call(lambda: 1)
    assert outcome_of(sink) is Outcome.THROTTLED


def test_a_failing_callee_is_told_of_at_once_and_then_once_a_minute(way, registry, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("groundfault.breaker._ending.monotonic", lambda: now[0])
    sink = RecordingSink()
    command = Resource("told", registry=registry, sinks=[sink]).command(f"c-{way.kind}")
    for wait_s in (0.0, 30.0, 29.9, 0.1):
        now[0] += wait_s
        with pytest.raises(ValueError, match="secret"):
            way(command, fail, ValueError("secret"))
    assert [(event.outcome, event.error_type) for event in sink.of(CommandFailing)] == 2 * [
        (Outcome.FAILURE, "ValueError")
    ]
    assert "secret" not in repr(sink.of(CommandFailing))


def test_a_snapshot_is_something_that_json_can_hold(resource):
    command = resource.command("c", health_check=fail, ignored_errors=(KeyError,), timeout_s=1.0)
    seen = json.loads(json.dumps(command.snapshot().as_dict()))
    assert seen["state"] == "closed"
    assert seen["counts"]["success"] == 0
    assert seen["settings"]["ignored_errors"] == ["KeyError"]
    assert seen["settings"]["health_check"] == "fail"
    assert seen["settings"]["mode"] == "enforce"


class _Answer:
    """A response of aiohttp's kind, or one whose attributes raise."""

    def __init__(self, status):
        self._status = status

    @property
    def status(self):
        if isinstance(self._status, Exception):
            raise self._status
        return self._status


@pytest.mark.parametrize(("held", "told"), [(502, 502), ("502", None), (RuntimeError(), None)])
def test_what_an_answer_says_of_itself_changes_no_result(way, registry, held, told):
    sink = RecordingSink()
    name = f"answers-{way.kind}-{type(held).__name__}".lower()
    command = Resource("told", registry=registry, sinks=[sink]).command(name, classify=lambda _: Outcome.FAILURE)
    answer = _Answer(held)
    assert way(command, lambda: answer) is answer
    assert [(event.error_type, event.status) for event in sink.of(CommandFailing)] == [(None, told)]
