import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault._histogram import Histogram
from groundfault.breaker._rolling import WINDOW_S, WINDOWS, Rolling
from groundfault.vocabulary import Outcome


def filled(failures=(), successes=()):
    rolling = Rolling(0.0)
    events = sorted([(at, Outcome.FAILURE) for at in failures] + [(at, Outcome.SUCCESS) for at in successes])
    for at, outcome in events:
        rolling.roll(at)
        rolling.count(outcome, 0.001)
    return rolling


@pytest.mark.parametrize(
    ("failures", "successes", "now", "spans"),
    [
        ([], [], 0, [(0, 0)]),
        ([1, 2], [3], 5, [(2, 3)]),
        ([1, 2], [3], 10, [(0, 0), (2, 3)]),
        ([1], [11], 21, [(0, 0), (0, 1), (1, 2)]),
        ([1, 11], [11, 21], 29.9, [(0, 1), (1, 3), (2, 4)]),
        ([1], [], 29.9, [(0, 0), (0, 0), (1, 1)]),
        ([1], [], 30, [(0, 0)]),  # three windows on
        ([1], [12], 30, [(0, 0), (0, 0), (0, 1)]),
        ([9], [], 9.99 + 30, [(0, 0)]),  # a gap of 30 s leaves none
        ([1, 2, 3], [], 1e9, [(0, 0)]),
    ],
)
def test_the_spans_that_are_judged(failures, successes, now, spans):
    rolling = filled(failures, successes)
    rolling.roll(now)
    assert list(rolling.spans()) == spans


@given(
    st.lists(st.tuples(st.floats(0, 12), st.sampled_from(list(Outcome))), max_size=60),
    st.floats(0, 40),
)
def test_the_windows_agree_with_a_list_of_everything(steps, wait):
    """Against the plain model: remember every call, and ask which window it fell into."""
    rolling = Rolling(0.0)
    calls = []  # (index of window, outcome)
    now, index, ends_at = 0.0, 0, WINDOW_S
    for gap, outcome in [*steps, (wait, None)]:
        now += gap
        if now >= ends_at:
            passed = math.floor((now - ends_at) / WINDOW_S) + 1
            index += passed
            ends_at = now + WINDOW_S if passed >= WINDOWS else ends_at + passed * WINDOW_S
        rolling.roll(now)
        if outcome is not None:
            rolling.count(outcome, 0.002)
            calls.append((index, outcome))
    for span, (failures, volume) in enumerate(rolling.spans()):
        inside = [outcome for at, outcome in calls if at >= index - span]
        against = [each for each in inside if each in {Outcome.FAILURE, Outcome.TIMEOUT}]
        assert (failures, volume) == (len(against), len(against) + inside.count(Outcome.SUCCESS))
    recent = [outcome for at, outcome in calls if at > index - WINDOWS]
    assert rolling.counts() == {outcome: recent.count(outcome) for outcome in Outcome}
    everything = [outcome for _, outcome in calls]
    assert rolling.lifetime() == {outcome: everything.count(outcome) for outcome in Outcome}


def test_what_is_appended_without_the_lock_is_counted_once():
    rolling = Rolling(0.0)
    rolling.durations.extend([0.001] * 700)
    rolling.tallies.extend([Outcome.CIRCUIT_OPEN] * 3 + [Outcome.IGNORED])
    for _ in range(2):
        assert rolling.counts()[Outcome.SUCCESS] == 700
        assert rolling.counts()[Outcome.CIRCUIT_OPEN] == 3
        assert rolling.counts()[Outcome.IGNORED] == 1
    assert rolling.durations == []
    assert rolling.lifetime()[Outcome.SUCCESS] == 700


def test_a_window_that_rotates_keeps_what_was_appended_to_it():
    rolling = Rolling(0.0)
    appended = rolling.durations.append
    appended(0.001)
    rolling.roll(10.0)
    appended(0.001)  # by a thread that was interrupted between looking and appending
    assert list(rolling.spans()) == [(0, 0), (0, 2)]


def test_clearing_keeps_the_lifetime():
    rolling = filled(failures=[1], successes=[2])
    rolling.durations.append(0.1)
    rolling.clear(5.0)
    assert list(rolling.spans()) == [(0, 0)]
    assert rolling.lifetime()[Outcome.SUCCESS] == 2
    assert rolling.ends_at == 15.0


def test_a_clock_that_steps_back_changes_nothing():
    rolling = filled(failures=[12])
    rolling.roll(3.0)
    assert list(rolling.spans()) == [(1, 1), (1, 1)]
    rolling.count(Outcome.SUCCESS, -9.0)
    assert rolling.quantiles(0.5) == (5e-6,)  # below ten microseconds


def test_no_successes_have_no_quantiles():
    assert Rolling(0.0).quantiles(0.5, 0.99) == (None, None)
    assert filled(failures=[1]).quantiles(0.5) == (None,)


@given(st.lists(st.floats(1.01e-5, 100.0), min_size=1, max_size=300), st.sampled_from([0.5, 0.95, 0.99]), st.booleans())
def test_a_quantile_is_off_by_less_than_a_third(durations, share, appended):
    rolling = Rolling(0.0)
    if appended:
        rolling.durations.extend(durations)
    else:
        for duration in durations:
            rolling.count(Outcome.SUCCESS, duration)
    exact = sorted(durations)[math.ceil(share * len(durations)) - 1]
    (estimate,) = rolling.quantiles(share)
    assert exact / 1.34 <= estimate <= exact * 1.34


def test_calls_of_a_signal_handler_in_the_midst_of_folding_are_counted_once(monkeypatch):
    rolling, add_sorted, interrupts = Rolling(0.0), Histogram.add_sorted, iter([True])

    def interrupted(histogram, values):
        if next(interrupts, False):
            rolling.durations.extend([0.2] * 5)
            rolling.fold()
        add_sorted(histogram, values)

    monkeypatch.setattr(Histogram, "add_sorted", interrupted)
    rolling.durations.extend([0.1] * 10)
    rolling.fold()
    assert rolling.totals()[Outcome.SUCCESS] == 15
    assert rolling._taken[Outcome.SUCCESS].count == 15
    assert rolling.durations == []
