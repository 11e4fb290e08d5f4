import pytest

from groundfault.breaker import BreakerSettings
from groundfault.breaker._machine import TRANSITIONS, Circuit, Permit, Trigger
from groundfault.breaker._rolling import Rolling
from groundfault.vocabulary import Mode, Outcome, State

CLOSED, OPEN, HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN
SUCCESS, FAILURE, TIMEOUT, SHED, IGNORED = (
    Outcome.SUCCESS,
    Outcome.FAILURE,
    Outcome.TIMEOUT,
    Outcome.SHED,
    Outcome.IGNORED,
)
QUICK = BreakerSettings(minimum_volume_per_s=0.1)  # one failure trips


class Driven:
    """A circuit with its windows and a hand-moved time."""

    def __init__(self, settings=QUICK):
        self.now = 0.0
        self.settings = settings
        self.circuit = Circuit()
        self.rolling = Rolling(0.0)

    def admit(self):
        assert self.circuit.wait_s(self.now) is None
        permit, _ = self.circuit.admit(self.now, self.settings)
        return permit

    def settle(self, permit, outcome, draw=0.0):
        self.rolling.roll(self.now)
        return self.circuit.settle(
            permit, outcome, self.now, settings=self.settings, rolling=self.rolling, duration_s=0.01, draw=draw
        )

    def opened(self):
        self.settle(self.admit(), FAILURE)
        assert self.circuit.state is OPEN
        return self

    def half_opened(self):
        self.opened()
        self.now = self.circuit.wakes_at
        return self.admit()


def test_the_table_is_this_and_nothing_else():
    assert {(old.value, trigger.name, new.value) for (old, trigger), new in TRANSITIONS.items()} == {
        ("closed", "FAILURES", "open"),
        ("closed", "SATURATION", "open"),
        ("open", "PROBE_SENT", "half-open"),
        ("half-open", "PROBE_SUCCEEDED", "closed"),
        ("half-open", "PROBE_FAILED", "open"),
    }


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("trigger", Trigger)
def test_what_is_not_in_the_table_cannot_happen(state, trigger):
    circuit = Circuit()
    circuit.state = state
    if (state, trigger) in TRANSITIONS:
        change = circuit._move(trigger)
        assert (change.old, change.new) == (state, TRANSITIONS[state, trigger])
        assert circuit.generation == 1
    else:
        with pytest.raises(KeyError):
            circuit._move(trigger)
        assert (circuit.state, circuit.generation) == (state, 0)


@pytest.mark.parametrize(
    ("outcome", "state", "slot_free"),
    [
        (SUCCESS, CLOSED, True),
        (FAILURE, OPEN, False),
        (TIMEOUT, OPEN, False),
        (SHED, HALF_OPEN, True),
        (IGNORED, HALF_OPEN, True),
    ],
)
def test_what_a_probe_does(outcome, state, slot_free):
    driven = Driven()
    driven.settle(driven.half_opened(), outcome)
    assert driven.circuit.state is state
    assert (driven.circuit.wait_s(driven.now) is None) is slot_free


@pytest.mark.parametrize("outcome", [SUCCESS, FAILURE, TIMEOUT, SHED, IGNORED])
@pytest.mark.parametrize("state", [OPEN, HALF_OPEN, CLOSED])
def test_what_began_before_the_last_change_moves_nothing(outcome, state):
    driven = Driven()
    late = driven.admit()
    if state is OPEN:
        driven.opened()
    else:
        probe = driven.half_opened()
        if state is CLOSED:
            driven.settle(probe, SUCCESS)
    before = (driven.circuit.state, driven.circuit.generation, driven.circuit.probe_out, driven.rolling.counts())
    assert driven.settle(late, outcome) is None
    assert before == (
        driven.circuit.state,
        driven.circuit.generation,
        driven.circuit.probe_out,
        driven.rolling.counts(),
    )
    assert driven.rolling.lifetime()[outcome] >= 1


def test_one_probe_at_a_time_until_its_lease_is_over():
    driven = Driven(BreakerSettings(minimum_volume_per_s=0.1, timeout_s=7.0))
    driven.half_opened()
    assert driven.circuit.wait_s(driven.now) == 0.0
    driven.now += 6.9
    assert driven.circuit.wait_s(driven.now) == 0.0
    driven.now += 0.2
    assert driven.circuit.wait_s(driven.now) is None  # lost or hung: the next call probes


def test_a_success_after_its_lease_still_closes():
    """Otherwise calls that outlast the lease would keep a healthy callee shut out for ever."""
    driven = Driven()
    slow = driven.half_opened()
    driven.now += 5.0
    driven.admit()
    driven.now += 1.0
    driven.settle(slow, SUCCESS)
    assert driven.circuit.state is CLOSED


@pytest.mark.parametrize("outcome", [SHED, IGNORED])
def test_a_probe_whose_lease_is_over_does_not_give_another_ones_slot_away(outcome):
    driven = Driven()
    slow = driven.half_opened()
    driven.now += 5.0
    driven.admit()
    driven.settle(slow, outcome)
    assert driven.circuit.wait_s(driven.now) == 0.0


def test_neutral_probes_neither_close_nor_wedge():
    driven = Driven()
    probe = driven.half_opened()
    for outcome in [SHED, IGNORED] * 50:
        driven.settle(probe, outcome)
        assert driven.circuit.state is HALF_OPEN
        probe = driven.admit()
    driven.settle(probe, SUCCESS)
    assert driven.circuit.state is CLOSED


@pytest.mark.parametrize(
    ("draw", "windows"),
    [
        (0.0, [2.5, 5, 5, 5]),
        (0.5, [3.75, 7.5, 7.5, 7.5]),
        (1.0, [5, 10, 10, 10]),
    ],
)
def test_the_sleep_window_doubles_up_to_its_cap_and_half_of_it_is_random(draw, windows):
    driven = Driven()
    changes = [driven.settle(driven.admit(), FAILURE, draw)]
    while len(changes) < len(windows):
        driven.now = driven.circuit.wakes_at
        changes.append(driven.settle(driven.admit(), FAILURE, draw))
    assert [change.sleep_window_s for change in changes] == windows


def test_no_number_of_failed_probes_overflows():
    driven = Driven()
    driven.circuit._failed_probes = 10**6
    assert driven.settle(driven.admit(), FAILURE, 1.0).sleep_window_s == 10.0


def test_closing_ends_the_growth_and_forgets_the_windows():
    driven = Driven(BreakerSettings())
    for _ in range(20):
        change = driven.settle(driven.admit(), FAILURE)
    assert change.sleep_window_s == 2.5
    driven.now = driven.circuit.wakes_at
    driven.settle(driven.admit(), FAILURE)
    driven.now = driven.circuit.wakes_at
    driven.settle(driven.admit(), SUCCESS)
    assert list(driven.rolling.spans()) == [(0, 1)]
    for _ in range(19):
        change = driven.settle(driven.admit(), FAILURE)
    assert (change.failures, change.volume, change.sleep_window_s) == (19, 20, 2.5)
    assert driven.circuit.trips == 2


@pytest.mark.parametrize(
    ("calls", "trips"),
    [
        # (seconds, outcome, times) in order; 20 calls are the minimum, a half the threshold
        ([(1, FAILURE, 19)], False),
        ([(1, FAILURE, 20)], True),
        ([(1, TIMEOUT, 20)], True),
        ([(1, SUCCESS, 10), (2, FAILURE, 10)], True),
        ([(1, SUCCESS, 11), (2, FAILURE, 10)], False),
        ([(1, SHED, 500), (2, FAILURE, 20)], True),  # sheds do not dilute
        ([(1, IGNORED, 500), (2, FAILURE, 20)], True),
        ([(1, SHED, 500), (2, FAILURE, 19)], False),  # nor make up the volume
        ([(1, FAILURE, 10), (11, FAILURE, 10)], True),  # the newest two
        ([(1, FAILURE, 7), (11, FAILURE, 7), (21, FAILURE, 6)], True),  # all three
        ([(1, FAILURE, 7), (11, FAILURE, 7), (31, FAILURE, 6)], False),
        ([(1, SUCCESS, 5000), (11, FAILURE, 20)], True),  # a sudden outage: the newest alone
        ([(1, SUCCESS, 5000), (9, FAILURE, 20)], False),
        ([(1, FAILURE, 19), (2, SUCCESS, 1)], False),  # a success never trips
        ([(1, FAILURE, 19), (2, SUCCESS, 1), (3, FAILURE, 1)], True),
        ([(1, FAILURE, 19), (45, FAILURE, 1)], False),  # the first call after a pause
    ],
)
def test_when_it_trips(calls, trips):
    driven = Driven(BreakerSettings())
    for at, outcome, times in calls:
        driven.now = float(at)
        for _ in range(times):
            driven.settle(driven.admit(), outcome)
    assert (driven.circuit.state is OPEN) is trips


def test_it_says_what_it_judged():
    driven = Driven(BreakerSettings())
    for outcome in [SUCCESS] * 8 + [FAILURE] * 12:
        change = driven.settle(driven.admit(), outcome, 0.5)
    assert change == (CLOSED, OPEN, 12, 20, 3.75)


def test_forced_closed_never_trips_nor_is_saturated():
    driven = Driven(BreakerSettings(mode=Mode.FORCE_CLOSED))
    for _ in range(100):
        driven.settle(driven.admit(), FAILURE)
    assert driven.circuit.saturate(0.0, settings=driven.settings, refusals=20, draw=0.0) is None
    assert driven.circuit.state is CLOSED


def test_a_saturated_callee_opens_a_closed_circuit_only():
    driven = Driven()
    change = driven.circuit.saturate(0.0, settings=driven.settings, refusals=33, draw=0.0)
    assert change == (CLOSED, OPEN, 0, 33, 2.5)
    assert driven.circuit.saturate(0.0, settings=driven.settings, refusals=34, draw=0.0) is None
    driven.now = driven.circuit.wakes_at
    driven.admit()
    assert driven.circuit.saturate(driven.now, settings=driven.settings, refusals=35, draw=0.0) is None


def test_a_permit_of_no_generation_moves_nothing():
    driven = Driven()
    assert driven.settle(Permit(-1), FAILURE) is None
    assert driven.circuit.state is CLOSED
