"""Which refusals may be tried again, and what a budget of retries allows."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault import Reason, RetryBudget, errors, retryable, wire
from groundfault.retries import RetryBudgetSnapshot
from groundfault.testing import ManualClock

RETRYABLE = {Reason.QUEUE_WAIT, Reason.CONCURRENCY, Reason.DRAINING}


def headers(reason=None):
    ours = {wire.HANDLED: "handled"}
    return ours if reason is None else {**ours, wire.REASON: reason.value}


def carriers(status, headers):
    """Yield every shape in which a client library hands over a response."""
    response = SimpleNamespace(status_code=status, headers=headers)
    yield response
    yield SimpleNamespace(status=status, headers=headers)
    error = RuntimeError("503")
    error.response = response
    yield error
    bare = RuntimeError("503")
    bare.status, bare.headers = status, headers
    yield bare
    error = RuntimeError("503")
    error.response = SimpleNamespace(status=status, headers=headers)
    yield error


@pytest.mark.parametrize("reason", [*Reason, None])
def test_only_a_refusal_by_the_callee_itself_with_time_left_may_be_tried_again(reason):
    expected = reason in RETRYABLE

    assert retryable(errors.ShedError("saber", "get", reason)) is expected
    for carrier in carriers(503, headers(reason)):
        assert retryable(carrier) is expected


@pytest.mark.parametrize(
    ("status", "sent"),
    [
        (200, headers(Reason.QUEUE_WAIT)),
        (500, headers(Reason.QUEUE_WAIT)),
        ("503", headers(Reason.QUEUE_WAIT)),
        (503, {}),
        (503, {wire.HANDLED: "perhaps", wire.REASON: "queue-wait"}),
        (503, {wire.REASON: "queue-wait"}),
        (503, {wire.HANDLED: "handled", wire.REASON: "no-such-reason"}),
        (503, {"Retry-After": "1"}),
        (503, None),
        (None, headers(Reason.QUEUE_WAIT)),
    ],
)
def test_anything_less_than_the_whole_annotation_is_not_ours(status, sent):
    for carrier in carriers(status, sent):
        assert retryable(carrier) is False


def test_finagles_retryable_nack_is_understood():
    assert retryable(SimpleNamespace(status=503, headers={wire.FINAGLE_NACK: "true"}))
    assert not retryable(SimpleNamespace(status=503, headers={wire.FINAGLE_NONRETRYABLE_NACK: "true"}))


class HostileError(Exception):
    @property
    def response(self):
        raise KeyError("no response here")


class HostileHeaders:
    status = 503

    @property
    def headers(self):
        raise ValueError


@pytest.mark.parametrize(
    "error",
    [
        errors.CircuitOpenError("saber", "get", 1.0),
        errors.ThrottledError("saber", "get", 0.5),
        errors.BulkheadFullError("saber", "get", 5),
        errors.UnhealthyError("saber", "get"),
        errors.CommandTimeoutError("saber", "get", 0.5),
        errors.SettingsError("no"),
        ConnectionError(),
        TimeoutError(),
        ExceptionGroup("", [errors.ShedError("saber", "get", Reason.QUEUE_WAIT)]),
        HostileError(),
        HostileHeaders(),
        HostileHeaders,
        None,
        503,
        "503",
        {},
        object(),
    ],
    ids=lambda error: repr(error).partition(" at 0x")[0],  # the same in every process
)
def test_everything_else_is_not_for_us_to_say(error):
    assert retryable(error) is False


# --- the budget -------------------------------------------------------------------------------------------------------


def spend(budget):
    """Return how many retries it allows at once."""
    count = 0
    while budget.withdraw():
        count += 1
    return count


@pytest.mark.parametrize(
    ("settings", "tries", "allowed"),
    [
        ({}, 0, 10),
        ({}, 100, 20),
        ({}, 9, 10),
        ({"minimum_per_s": 0}, 0, 0),
        ({"minimum_per_s": 0}, 9, 0),
        ({"minimum_per_s": 0}, 10, 1),
        ({"minimum_per_s": 0, "ratio": 0.29}, 100, 29),
        ({"minimum_per_s": 0, "ratio": 1}, 3, 3),
        ({"minimum_per_s": 0, "ratio": 0.0}, 1000, 0),
        ({"minimum_per_s": 0.1}, 0, 1),
        ({"minimum_per_s": 0.2, "window_s": 5.0}, 0, 1),
        ({"minimum_per_s": 2.0, "window_s": 5.0}, 10, 11),
    ],
)
def test_a_share_of_the_first_tries_and_a_few_more(clock, settings, tries, allowed):
    budget = RetryBudget(**settings, clock=clock)
    for _ in range(tries):
        budget.deposit()

    assert budget.balance == allowed
    assert spend(budget) == allowed
    assert budget.balance == 0


def test_what_is_old_is_forgotten(clock):
    budget = RetryBudget(minimum_per_s=0.5, clock=clock)
    for _ in range(100):
        budget.deposit()
    assert spend(budget) == 15
    clock.advance(10.0)
    assert spend(budget) == 0  # not before its time
    clock.advance(1.0)
    assert spend(budget) == 5
    clock.advance(1e9)
    assert spend(budget) == 5


def test_a_clock_that_steps_back_changes_nothing(clock):
    budget = RetryBudget(minimum_per_s=0, clock=clock)
    for _ in range(50):
        budget.deposit()
    clock.advance(-500.0)

    assert spend(budget) == 5
    for _ in range(50):
        budget.deposit()
    clock.advance(500.0)
    assert spend(budget) == 5


def test_a_snapshot_says_what_there_is(clock):
    budget = RetryBudget(ratio=0.5, minimum_per_s=0.1, clock=clock)
    for _ in range(4):
        budget.deposit()
    assert [budget.withdraw() for _ in range(5)] == [True, True, True, False, False]

    assert budget.snapshot() == RetryBudgetSnapshot(
        ratio=0.5, minimum_per_s=0.1, window_s=10.0, first_tries=4, retries=3, refused=2, balance=0
    )
    clock.advance(11.0)
    assert budget.snapshot() == RetryBudgetSnapshot(
        ratio=0.5, minimum_per_s=0.1, window_s=10.0, first_tries=0, retries=0, refused=0, balance=1
    )
    assert repr(budget) == "<RetryBudget 0.5 + 0.1/s, 1 left>"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": -0.1}, "ratio must be from 0 to 1, not -0.1"),
        ({"ratio": 1.1}, "ratio must be from 0 to 1, not 1.1"),
        ({"ratio": float("nan")}, "ratio must be from 0 to 1, not nan"),
        ({"ratio": "0.1"}, "ratio must be from 0 to 1, not '0.1'"),
        ({"ratio": True}, "ratio must be from 0 to 1, not True"),
        ({"window_s": 0}, "window_s must be above 0, not 0"),
        ({"window_s": float("inf")}, "window_s must be above 0, not inf"),
        ({"minimum_per_s": -1}, "minimum_per_s must be 0, or at least 0.1, one retry in window_s, not -1"),
        ({"minimum_per_s": 0.05}, "minimum_per_s must be 0, or at least 0.1, one retry in window_s, not 0.05"),
        ({"minimum_per_s": 0.2, "window_s": 2.0}, "minimum_per_s must be 0, or at least 0.5"),
    ],
)
def test_nonsense_is_refused_with_the_field_the_value_and_the_bound(settings, message):
    with pytest.raises(errors.SettingsError) as caught:
        RetryBudget(**settings)

    assert message in str(caught.value)


STEPS = st.lists(st.tuples(st.sampled_from(["try", "retry", "wait"]), st.floats(0.0, 30.0)), max_size=150)


@given(STEPS, st.sampled_from([0.0, 0.1, 0.25, 1.0]), st.sampled_from([0.0, 0.5, 2.0]), st.sampled_from([2.0, 10.0]))
def test_the_budget_agrees_with_a_list_of_all_that_happened(steps, ratio, minimum, window_s):
    """The model remembers every try and retry with the tenth of a window in which it came."""
    clock = ManualClock()
    began = clock()
    budget = RetryBudget(ratio=ratio, minimum_per_s=minimum, window_s=window_s, clock=clock)
    tries, retries = [], []
    for step, wait_s in steps:
        now = int(clock() / (window_s / 10))
        alive = [sum(now - then <= 10 for then in kind) for kind in (tries, retries)]
        affordable = int(round(minimum * window_s + ratio * alive[0], 9)) - alive[1] >= 1
        assert (budget.balance >= 1) is affordable
        if step == "try":
            budget.deposit()
            tries.append(now)
        elif step == "retry":
            assert budget.withdraw() is affordable
            retries += [now] * affordable
        else:
            clock.advance(wait_s)
    assert len(retries) <= ratio * len(tries) + minimum * (clock() - began + window_s) + 1e-6


def test_many_threads_spend_no_more_than_there_is(clock):
    budget = RetryBudget(minimum_per_s=0, clock=clock)
    barrier = threading.Barrier(8)

    def work():
        barrier.wait()
        allowed = 0
        for _ in range(500):
            budget.deposit()
            allowed += budget.withdraw()
        return allowed

    with ThreadPoolExecutor(8) as pool:
        allowed = sum(future.result() for future in [pool.submit(work) for _ in range(8)])

    assert allowed == 400
    assert budget.snapshot().first_tries == 4000


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_begins_anew_whoever_held_the_lock():
    budget = RetryBudget(minimum_per_s=0.1)
    assert spend(budget) == 1
    held, over = threading.Event(), threading.Event()

    def hold():
        with budget._lock:
            held.set()
            over.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    child = os.fork()
    if child == 0:
        os._exit(0 if budget.withdraw() and not budget.withdraw() else 1)
    over.set()
    holder.join()

    assert os.waitpid(child, 0)[1] == 0
    assert budget.balance == 0


# --- one retry --------------------------------------------------------------------------------------------------------

SHED = errors.ShedError("saber", "get", Reason.QUEUE_WAIT)
PASSED_ON = errors.ShedError("saber", "get", Reason.DEPENDENCY)


class Commanded:
    def __init__(self, share):
        self.share = share

    def snapshot(self):
        return SimpleNamespace(admitted_share=self.share)


def test_one_call_is_retried_once_at_most(clock):
    budget = RetryBudget(clock=clock)
    may_retry = budget.one_retry()

    assert [may_retry(SHED), may_retry(SHED)] == [True, False]
    assert (budget.snapshot().first_tries, budget.snapshot().retries) == (1, 1)


def test_what_is_not_retryable_costs_nothing_and_forbids_nothing(clock):
    budget = RetryBudget(clock=clock)
    may_retry = budget.one_retry()

    assert [may_retry(PASSED_ON), may_retry(SHED)] == [False, True]
    assert (budget.snapshot().retries, budget.snapshot().refused) == (1, 0)


def test_nothing_is_retried_while_the_command_is_throttled(clock):
    budget = RetryBudget(clock=clock)

    assert budget.one_retry(Commanded(0.99))(SHED) is False
    assert budget.one_retry(Commanded(1.0))(SHED) is True
    assert (budget.snapshot().retries, budget.snapshot().refused) == (1, 0)


def test_a_budget_that_is_used_up_allows_nothing_and_is_asked_once(clock):
    budget = RetryBudget(minimum_per_s=0, clock=clock)
    may_retry = budget.one_retry()

    assert [may_retry(SHED), may_retry(SHED)] == [False, False]
    assert budget.snapshot().refused == 1
