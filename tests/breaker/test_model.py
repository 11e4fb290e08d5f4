"""Circuit, leases and windows against a model written from the rules alone.

The model remembers every call and recomputes everything from that; it shares no code with what it checks.
It drives a real command through its public door, so the lock-free course and the gate are under test as well.
"""

import math

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from groundfault.breaker import Registry, Resource
from groundfault.errors import BulkheadFullError, CircuitOpenError
from groundfault.testing import ManualClock
from groundfault.vocabulary import Outcome, State

AGAINST = (Outcome.FAILURE, Outcome.TIMEOUT)
MADE = [Outcome.SUCCESS, Outcome.FAILURE, Outcome.FAILURE, Outcome.TIMEOUT, Outcome.SHED, Outcome.IGNORED]
CAP = 10.0


class Held:
    """A call in flight, and what the model knew when it was admitted."""

    def __init__(self, attempt, episode, *, probe):
        self.attempt = attempt
        self.episode = episode
        self.probe = probe


class CircuitModel(RuleBasedStateMachine):
    @initialize(
        minimum=st.sampled_from([0.1, 0.3, 0.6]),
        threshold=st.sampled_from([0.3, 0.5, 1.0]),
        sleep=st.sampled_from([2.0, 5.0]),
        timeout=st.sampled_from([None, 9.0]),
        limit=st.sampled_from([None, 1, 3]),
    )
    def begin(self, minimum, threshold, sleep, timeout, limit):
        self.clock = ManualClock(0.0)
        self.minimum = math.ceil(minimum * 10)
        self.threshold, self.sleep, self.timeout, self.limit = threshold, sleep, timeout, limit
        registry = Registry(clock=self.clock, draw=lambda: 0.5)
        self.command = Resource("r", registry=registry, sinks=[]).command(
            "c",
            minimum_volume_per_s=minimum,
            failure_threshold=threshold,
            sleep_window_s=sleep,
            timeout_s=timeout,
            max_concurrent=limit,
        )
        self.state = State.CLOSED
        self.episode = 0  # grows with every state change
        self.window, self.window_ends = 0, 10.0
        self.calls = []  # (window, outcome) since the circuit last closed
        self.failed_probes = 0
        self.wakes_at = 0.0
        self.slot = None  # the probe that holds it
        self.lease_ends = 0.0
        self.held = []
        self.totals = dict.fromkeys(Outcome, 0)
        self.trips = 0

    # What the rules say.

    def rotate(self):
        now = self.clock.now
        if now < self.window_ends:
            return
        passed = math.floor((now - self.window_ends) / 10.0) + 1
        self.window += passed
        self.window_ends = now + 10.0 if passed >= 3 else self.window_ends + 10.0 * passed

    def move(self, state):
        self.state = state
        self.episode += 1
        self.slot = None

    def open(self):
        self.trips += self.state is State.CLOSED
        longest = min(self.sleep * 2**self.failed_probes, CAP)
        self.wakes_at = self.clock.now + longest * 0.75  # half of it, and half of the other half
        self.move(State.OPEN)

    def should_trip(self):
        for span in (1, 2, 3):
            inside = [outcome for window, outcome in self.calls if window > self.window - span]
            against = sum(outcome in AGAINST for outcome in inside)
            volume = against + inside.count(Outcome.SUCCESS)
            if volume >= self.minimum and against / volume >= self.threshold:
                return True
        return False

    def expected(self):
        """Say what begin() must do now: an error, or a permit of which kind."""
        if self.limit is not None and len(self.held) >= self.limit:
            return BulkheadFullError
        if self.state is State.OPEN:
            return CircuitOpenError if self.clock.now < self.wakes_at else "probe"
        if self.state is State.HALF_OPEN:
            free = self.slot is None or self.clock.now >= self.lease_ends
            return "probe" if free else CircuitOpenError
        return "call"

    # What can happen.

    def enter(self):
        """Ask for a permit; check what comes of it."""
        self.rotate()
        expected = self.expected()
        if isinstance(expected, type):
            with pytest.raises(expected) as caught:
                self.command.begin()
            if expected is CircuitOpenError:
                self.totals[Outcome.CIRCUIT_OPEN] += 1
                left = self.wakes_at - self.clock.now if self.state is State.OPEN else 0.0
                assert math.isclose(caught.value.retry_after_s, left, abs_tol=1e-9)
            else:
                self.totals[Outcome.BULKHEAD_FULL] += 1
            return None
        attempt = self.command.begin()
        if expected == "probe" and self.state is State.OPEN:
            self.move(State.HALF_OPEN)
        held = Held(attempt, self.episode, probe=expected == "probe")
        if held.probe:
            self.slot = held
            self.lease_ends = self.clock.now + max(self.timeout or 0.0, self.sleep)
        return held

    def end(self, held, outcome):
        """Settle a call; follow what the rules make of it."""
        self.rotate()
        held.attempt.settle(outcome, duration_s=0.01)
        self.totals[outcome] += 1
        if held.episode != self.episode:
            return
        if held is self.slot:
            self.slot = None
        if held.probe and outcome is Outcome.SUCCESS:
            self.move(State.CLOSED)
            self.failed_probes = 0
            self.window, self.window_ends, self.calls = 0, self.clock.now + 10.0, []
        self.calls.append((self.window, outcome))
        if outcome in AGAINST:
            if held.probe:
                self.failed_probes += 1
                self.open()
            elif self.state is State.CLOSED and self.should_trip():
                self.open()

    @rule()
    def admit(self):
        held = self.enter()
        if held is not None:
            self.held.append(held)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), outcome=st.sampled_from(MADE), twice=st.booleans())
    def settle(self, data, outcome, twice):
        held = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.end(held, outcome)
        if twice:
            held.attempt.settle(Outcome.FAILURE)

    @rule(outcomes=st.lists(st.sampled_from(MADE), min_size=1, max_size=8))
    def run(self, outcomes):
        """Make some calls one after the other."""
        for outcome in outcomes:
            held = self.enter()
            if held is not None:
                self.end(held, outcome)

    # Left to chance, hardly a history would meet a circuit just as it wakes, or a probe just as its lease ends.

    @precondition(lambda self: self.state is State.OPEN)
    @rule()
    def wake(self):
        self.clock.now = max(self.clock.now, self.wakes_at)

    @precondition(lambda self: self.slot is not None)
    @rule(late=st.sampled_from([None, *MADE]))
    def outlast(self, late):
        """Let the probe's lease end and another call ask for its place; then perhaps the probe ends, late."""
        probe = self.slot
        self.clock.now = max(self.clock.now, self.lease_ends)
        self.admit()
        if late is not None and probe in self.held:
            self.held.remove(probe)
            self.end(probe, late)
            self.admit()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def vanish(self, data):
        """Forget a call without settling it."""
        self.rotate()
        held = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        held.attempt = None  # collected; a probe's slot comes back with its lease
        self.totals[Outcome.IGNORED] += 1

    @rule(seconds=st.sampled_from([0.5, 4.0, 9.9, 10.0, 20.0, 30.0, 100.0]))
    def wait(self, seconds):
        self.clock.advance(seconds)

    @rule(
        minimum=st.sampled_from([0.1, 0.3, 0.6]),
        threshold=st.sampled_from([0.3, 0.5, 1.0]),
        limit=st.sampled_from([None, 1, 3]),
    )
    def tune(self, minimum, threshold, limit):
        self.command.tune(minimum_volume_per_s=minimum, failure_threshold=threshold, max_concurrent=limit)
        self.minimum, self.threshold, self.limit = math.ceil(minimum * 10), threshold, limit

    @invariant()
    def agree(self):
        if not hasattr(self, "command"):
            return
        self.rotate()
        snapshot = self.command.snapshot()
        assert snapshot.state is self.state
        assert snapshot.in_flight == len(self.held)
        assert snapshot.trips == self.trips
        assert dict(snapshot.totals) == self.totals
        recent = [outcome for window, outcome in self.calls if window > self.window - 3]
        for outcome in (Outcome.SUCCESS, Outcome.FAILURE, Outcome.TIMEOUT, Outcome.SHED):
            assert snapshot.counts[outcome] == recent.count(outcome)
        if self.state is State.OPEN:
            assert math.isclose(snapshot.sleep_left_s, max(0.0, self.wakes_at - self.clock.now), abs_tol=1e-9)


CircuitModel.TestCase.settings = hypothesis_settings(max_examples=200, stateful_step_count=40, deadline=None)
test_a_command_does_what_the_model_says = CircuitModel.TestCase
