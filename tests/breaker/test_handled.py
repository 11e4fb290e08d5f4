"""What an annotated 503 does: nothing to the circuit, much to the throttle, and it does not hide a sick callee."""

from types import SimpleNamespace

import pytest

from groundfault._context import RequestContext, serving
from groundfault.breaker import Registry, Resource
from groundfault.errors import CircuitOpenError, ThrottledError
from groundfault.events import CircuitChanged, SaturationChanged, ThrottleChanged
from groundfault.vocabulary import Criticality, Outcome, Reason, State
from groundfault.wire import Refusal

HERE = Refusal(Reason.QUEUE_WAIT)
BELOW = Refusal(Reason.DEPENDENCY)


@pytest.fixture
def send_all(clock, sink):
    """Return a resource whose throttle holds back nothing, whatever its share."""
    return Resource("saber", registry=Registry(clock=clock, draw=lambda: 0.0), sinks=[sink])


@pytest.fixture
def serve():
    """Return a function that sets the criticality of the request being served."""
    tokens = []

    def serve(criticality):
        tokens.append(serving.set(RequestContext("topps", criticality=criticality)))

    yield serve
    for token in reversed(tokens):
        serving.reset(token)


def shed(command, refusal=HERE, times=1):
    for _ in range(times):
        command.begin().settle(Outcome.SHED, refusal=refusal)


@pytest.mark.parametrize("refusal", [HERE, BELOW, None])
def test_sheds_never_trip(send_all, clock, refusal):
    command = send_all.command("c")
    for _ in range(60):
        shed(command, refusal, 50)
        clock.advance(0.5)
    snapshot = command.snapshot()
    assert snapshot.state is State.CLOSED
    assert snapshot.trips == 0
    assert snapshot.totals[Outcome.SHED] == 3000
    assert snapshot.p50_s is None


def test_sheds_do_not_hide_failures(send_all):
    """The case six of eight peers fail: of five calls four fail and one is shed."""
    command = send_all.command("c")
    for outcome in ([Outcome.SHED] + [Outcome.FAILURE] * 4) * 5:
        command.begin().settle(outcome, refusal=HERE if outcome is Outcome.SHED else None)
    assert command.snapshot().state is State.OPEN


def test_the_callee_s_own_refusals_throttle_within_a_second_and_recover(send_all, clock, sink):
    command = send_all.command("c")
    for _ in range(20):
        command.call(int)
    shed(command, HERE, 16)
    for _ in range(4):
        command.call(int)
    clock.advance(1.0)
    command.call(int)
    assert command.snapshot().admitted_share == pytest.approx(0.4)  # 4 of 20 since the first refusal
    for _ in range(3):
        clock.advance(1.0)
        command.call(int)
    assert command.snapshot().admitted_share == 1.0
    assert [each.admitted_share for each in sink.of(ThrottleChanged)] == [pytest.approx(0.4), 1.0]


@pytest.mark.parametrize("refusal", [BELOW, Refusal(Reason.CIRCUIT_OPEN), Refusal(Reason.THROTTLED), None])
def test_refusals_passed_on_from_below_throttle_nobody(send_all, clock, refusal):
    command = send_all.command("c")
    for _ in range(20):
        shed(command, refusal, 50)
        clock.advance(1.0)
    snapshot = command.snapshot()
    assert (snapshot.admitted_share, snapshot.saturated) == (1.0, False)


@pytest.mark.parametrize(("reason", "share"), [(Reason.QUEUE_WAIT, 0.01), (Reason.DEPENDENCY, 1.0)])
def test_whose_refusal_it_is_is_read_from_an_exception_as_well(way, send_all, clock, reason, share):
    class ResponseError(Exception):
        response = SimpleNamespace(
            status_code=503, headers={"X-GroundFault": "handled", "X-GroundFault-Reason": reason.value}
        )

    def fail():
        raise ResponseError

    command = send_all.command("c")
    for _ in range(20):
        with pytest.raises(ResponseError):
            way(command, fail)
    clock.advance(1.0)
    snapshot = command.snapshot()
    assert snapshot.counts[Outcome.SHED] == 20
    assert snapshot.admitted_share == share


def test_failures_throttle_nobody(send_all, clock):
    """Otherwise the throttle would keep the circuit from opening."""
    command = send_all.command("c", mode="force_closed")
    shed(command)
    for _ in range(100):
        command.begin().settle(Outcome.FAILURE)
    clock.advance(1.0)
    assert command.snapshot().admitted_share == 1.0


def throttled(resource, clock, name="c"):
    command = resource.command(name)
    shed(command, HERE, 100)
    clock.advance(1.0)
    assert command.snapshot().admitted_share == 0.01
    return command


def test_what_is_held_back_is_neutral(resource, clock, way):
    command = throttled(resource, clock)  # its draws are 0.5
    for _ in range(100):
        with pytest.raises(ThrottledError) as caught:
            way(command)
        assert caught.value.admitted_share == 0.01
    snapshot = command.snapshot()
    assert snapshot.counts[Outcome.THROTTLED] == 100
    assert (snapshot.state, snapshot.in_flight) == (State.CLOSED, 0)


@pytest.mark.parametrize(
    ("criticality", "sent"),
    [(Criticality.CRITICAL_PLUS, True), (Criticality.CRITICAL, False), (Criticality.SHEDDABLE, False), (None, False)],
)
def test_only_what_matters_most_is_exempt(resource, clock, way, serve, criticality, sent):
    command = throttled(resource, clock)
    serve(criticality)
    if sent:
        assert way(command) == "done"
    else:
        with pytest.raises(ThrottledError):
            way(command)


def test_a_probe_is_exempt(resource, clock, trip):
    command = resource.command("c")
    shed(command, HERE, 2000)
    trip(command)
    clock.advance(3.75)
    assert command.snapshot().admitted_share < 0.5
    assert command.call(lambda: 1) == 1
    assert command.snapshot().state is State.CLOSED


def test_silence_lets_the_throttle_go(resource, clock, way):
    command = throttled(resource, clock)
    clock.advance(28.0)
    assert way(command) == "done"
    clock.advance(1.0)
    assert way(command) == "done"
    assert command._gate.period.quiet_limit > 0  # the plain course again


@pytest.mark.parametrize("criticality", [None, Criticality.CRITICAL, Criticality.CRITICAL_PLUS])
def test_nothing_but_refusals_of_what_matters_is_saturation(send_all, clock, sink, serve, criticality):
    serve(criticality)
    command = send_all.command("c")
    for _ in range(19):
        shed(command)
        clock.advance(0.6)
    assert not command.snapshot().saturated
    shed(command)
    assert command.snapshot().saturated
    assert sink.of(SaturationChanged) == [SaturationChanged("saber", "c", saturated=True, refusals=20)]
    shed(command, HERE, 30)
    command.call(int)
    assert not command.snapshot().saturated
    assert sink.of(SaturationChanged)[1:] == [SaturationChanged("saber", "c", saturated=False, refusals=50)]
    assert sink.of(CircuitChanged) == []


def test_an_attempt_that_succeeds_disproves_it_too(send_all, clock):
    command = send_all.command("c")
    for _ in range(20):
        shed(command)
        clock.advance(0.6)
    assert command.snapshot().saturated
    command.begin().settle(Outcome.SUCCESS)
    assert not command.snapshot().saturated


@pytest.mark.parametrize("criticality", [Criticality.SHEDDABLE, Criticality.SHEDDABLE_PLUS])
def test_sheddable_traffic_that_is_shed_proves_nothing(send_all, clock, serve, criticality):
    serve(criticality)
    command = send_all.command("c")
    for _ in range(100):
        shed(command)
        clock.advance(0.6)
    assert not command.snapshot().saturated


def test_one_success_in_time_disproves_it(send_all, clock):
    command = send_all.command("c")
    for n in range(100):
        shed(command, HERE, 5)
        if n % 10 == 9:
            command.call(int)
        clock.advance(0.9)
    assert not command.snapshot().saturated


def test_failures_do_not_disprove_it(send_all, clock):
    command = send_all.command("c", mode="force_closed")
    for _ in range(30):
        shed(command)
        command.begin().settle(Outcome.FAILURE)
        clock.advance(0.6)
    assert command.snapshot().saturated


def test_a_patience_of_one_s_own(send_all, clock):
    command = send_all.command("c", handled_patience_s=2.0)
    for _ in range(21):
        shed(command)
        clock.advance(0.1)
    assert command.snapshot().saturated


def test_saturation_opens_the_circuit_on_demand_and_a_success_closes_it(send_all, clock, sink):
    command = send_all.command("c", on_saturated="open")
    for _ in range(20):
        shed(command)
        clock.advance(0.6)
    assert command.snapshot().state is State.OPEN
    assert sink.of(CircuitChanged)[0].volume == 20
    with pytest.raises(CircuitOpenError):
        command.call(int)
    clock.advance(5.0)
    shed(command)  # the probe is refused as well, which is neutral
    assert command.snapshot().state is State.HALF_OPEN
    assert command.snapshot().saturated
    command.call(int)
    snapshot = command.snapshot()
    assert (snapshot.state, snapshot.saturated) == (State.CLOSED, False)


def test_a_sick_callee_is_asked_a_hundredth_of_the_calls(clock):
    """Whatever it says, its load stays bounded."""
    draws = iter(n * 0.6180339887 % 1 for n in range(1, 10**6))
    resource = Resource("saber", registry=Registry(clock=clock, draw=lambda: next(draws)), sinks=[])
    command = resource.command("c")
    sent = 0
    for _ in range(60_000):
        clock.advance(0.001)
        try:
            attempt = command.begin()
        except ThrottledError:
            continue
        sent += 1
        attempt.settle(Outcome.SHED, refusal=HERE)
    assert command.snapshot().saturated
    assert 1000 + 59 * 9 < sent < 1000 + 59 * 11
