"""The shedder without HTTP: counting, tuning, forking, threads; and what one request can do to another."""

import json
import os
import sys
import threading
from contextlib import suppress
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault import _killswitch
from groundfault.errors import SettingsError
from groundfault.events import RequestSeen, SettingsChanged, SheddingChanged, internal_errors
from groundfault.shedding._request import arrive
from groundfault.shedding._wait import IN_PROCESS, LEFT, Bracket
from groundfault.shedding.criticality import CriticalityRule
from groundfault.shedding.settings import ShedderSettings
from groundfault.shedding.shedder import Shedder
from groundfault.sinks import Sinks
from groundfault.testing import ManualClock
from groundfault.vocabulary import Criticality, Mode, Reason


@pytest.fixture
def shedder(clock, sink):
    return Shedder(sinks=Sinks(sink), clock=clock, wall_clock=lambda: 1_600_000_000.0, service="served")


def _serve(shedder, clock, seconds, *, status=200, route="GET /", **arrival):
    admission = shedder.admit(route, 0.0, **arrival)
    clock.advance(seconds)
    shedder.answered(admission, status)
    shedder.release(admission)
    return admission


def test_a_request_is_settled_exactly_once(shedder, clock):
    admission = shedder.admit("GET /", 0.0)
    assert shedder.snapshot().in_flight == 1
    for _ in range(3):
        shedder.answered(admission, 200)
        shedder.release(admission)
    assert shedder.snapshot().in_flight == 0
    assert shedder._law.whole.open == 0
    assert shedder.snapshot().admitted == {Criticality.CRITICAL: 1}


def test_a_refused_request_occupies_nothing(shedder):
    refused = shedder.admit("GET /", 0.5)
    assert refused.refused
    shedder.answered(refused, 503)
    shedder.release(refused)
    snapshot = shedder.snapshot()
    assert snapshot.in_flight == 0
    assert snapshot.shed == {(Reason.QUEUE_WAIT, Criticality.CRITICAL): 1}
    assert snapshot.shedding


def test_only_good_answers_are_service_times(shedder, clock):
    """A flood of failures in a millisecond each must not pass for how fast this service serves."""
    for status in (400, 401, 404, 500, 503):
        _serve(shedder, clock, 0.001, status=status, route="GET /slow")
    assert shedder.route("GET /slow").service_s == 0.0
    _serve(shedder, clock, 0.2, route="GET /slow")
    assert shedder.route("GET /slow").service_s == pytest.approx(0.2)


def test_health_checks_are_no_service_times(shedder, clock):
    """A slow service is asked for its health more often than for anything else, and is no fast one for that."""
    for _ in range(60):
        _serve(shedder, clock, 0.5, route="GET /slow")
        for _ in range(3):
            _serve(shedder, clock, 0.001, route="GET /healthz", health=True)
    assert shedder.snapshot().service_time_s == pytest.approx(0.5, rel=0.1)
    assert shedder._law.whole.service_s == pytest.approx(0.5, rel=0.1)  # of which a route may cost a multiple


def test_a_health_check_beyond_the_rate_is_judged_as_any_other_request(shedder, clock):
    """One that waits for a pool must not be a way past the forecast."""
    for _ in range(200):
        admission = shedder.admit("GET /healthz", 0.0, on_loop=True, health=True)
        clock.advance(0.02)
        shedder.finish(admission, 200)
    waiting, refused = [], 0
    for number in range(2500):  # 500 a second, of which the pool serves 20
        clock.advance(0.002)
        admission = shedder.admit("GET /healthz", 0.0, on_loop=True, health=True)
        if admission.refused:
            refused += 1
        else:
            waiting.append(admission)
        if number % 25 == 0 and waiting:
            shedder.finish(waiting.pop(0), 200)
    assert refused > 2000
    assert len(waiting) < 150  # twenty a second are exempt


def test_a_route_is_made_by_an_answer_and_never_by_asking(shedder, clock):
    for status in (401, 403, 404, 405, 429):
        _serve(shedder, clock, 0.01, status=status, route="GET /guess")
    assert shedder.route("GET /guess").name == "other"
    _serve(shedder, clock, 0.01, route="GET /real")
    assert shedder.route("GET /real").name == "GET /real"
    assert shedder.route("GET /real").service_s == pytest.approx(0.01)  # the answer that made it counts
    assert shedder.route("GET /real").open == 0
    assert shedder._law.routes.other.open == 0


def test_the_service_time_of_workers_becomes_the_target(shedder, clock):
    for _ in range(60):
        _serve(shedder, clock, 0.1)
    snapshot = shedder.snapshot()
    assert snapshot.service_time_s == pytest.approx(0.1, rel=0.1)
    assert snapshot.thresholds["workers"] == pytest.approx(0.3, rel=0.1)  # three service times
    assert snapshot.thresholds["loop"] == 0.25


def test_a_snapshot_can_be_written_as_json(shedder, clock):
    """While it is shedding above all, and with settings that JSON has no word for."""
    lock = threading.Lock()
    shedder.tune(
        criticality=[CriticalityRule("critical-plus", path="/pay", method="post"), lambda _: lock and None],
        identity=lambda _: None,
        key_salt="secret",
        retry_after_s=(1, 2),
    )
    _serve(shedder, clock, 0.01)
    shedder.admit("GET /", 0.5)
    said = json.loads(json.dumps(shedder.snapshot().as_dict()))
    assert said["shed"] == {"queue-wait/critical": 1}
    assert said["admitted"] == {"critical": 1}
    assert said["queue_wait_s"] == 0.5
    assert said["mode"] == "enforce"
    assert said["settings"]["criticality"][0] == {"criticality": "critical-plus", "path": "/pay", "method": ["POST"]}
    assert "<lambda>" in said["settings"]["identity"]
    assert "secret" not in json.dumps(said)
    assert said.keys() == {each.name for each in fields(shedder.snapshot())}


def test_shadow_mode_says_that_it_enforces_nothing(shedder, clock, sink):
    shedder.tune(mode="shadow")
    shedder.release(shedder.admit("GET /", 0.5))
    clock.advance(10)
    shedder.snapshot()
    assert [(each.shedding, each.enforced) for each in sink.of(SheddingChanged)] == [(True, False), (False, False)]


@pytest.mark.parametrize("said", ["2", "enabled"])
def test_a_kill_switch_that_does_nothing_says_so(monkeypatch, caplog, said):
    _killswitch._warn.cache_clear()
    monkeypatch.setenv("GROUNDFAULT_DISABLED", said)
    assert Shedder().settings.mode is Mode.ENFORCE
    assert not Shedder().bypassed
    assert "switches nothing off" in caplog.text


def test_a_request_with_a_budget_is_not_begun_when_it_cannot_be_finished(shedder, clock):
    """The more expensive the route, the sooner; somebody who finds the queue clear may try."""
    _serve(shedder, clock, 0.2, route="GET /slow")
    _serve(shedder, clock, 0.01, route="GET /fast")

    def reason(route, wait_s):
        admission = shedder.admit(route, wait_s, budget_s=0.25)
        shedder.release(admission)
        return admission.reason

    assert reason("GET /slow", 0.06) is Reason.DEADLINE
    assert reason("GET /fast", 0.06) is None
    assert reason("GET /slow", 0.001) is None


def test_settings_are_swapped_whole_and_reported(shedder, sink):
    shedder.tune(deadline_s=2.0, mode="shadow")
    assert shedder.snapshot().thresholds["loop"] == 0.5
    assert shedder.snapshot().mode is Mode.SHADOW
    (changed,) = sink.of(SettingsChanged)
    assert changed.component == "served"
    assert changed.old == {"mode": Mode.ENFORCE, "deadline_s": 1.0}
    assert changed.new == {"mode": Mode.SHADOW, "deadline_s": 2.0}
    with pytest.raises(SettingsError):
        shedder.tune(deadline_s=5.0, max_concurrency=-1)
    assert shedder.settings.deadline_s == 2.0
    shedder.tune(deadline_s=2.0)
    assert len(sink.of(SettingsChanged)) == 1


def test_a_salt_is_in_no_event(shedder, sink):
    shedder.tune(key_salt="s3cret")
    assert "s3cret" not in str(sink.events)
    assert "s3cret" not in str(shedder.snapshot())


def test_tuning_keeps_what_was_learned(shedder, clock):
    for _ in range(60):
        _serve(shedder, clock, 0.1)
    shedder.admit("GET /", 0.5)
    shedder.tune(deadline_s=4.0)
    snapshot = shedder.snapshot()
    assert snapshot.service_time_s == pytest.approx(0.1, rel=0.1)
    assert shedder._law.workers.backlog
    assert snapshot.shed == {(Reason.QUEUE_WAIT, Criticality.CRITICAL): 1}


def test_a_limit_lowered_below_what_is_in_flight_lets_it_run_out(shedder):
    inside = [shedder.admit("GET /", 0.0) for _ in range(3)]
    shedder.tune(max_concurrency=1)
    assert shedder.admit("GET /", 0.0).reason is Reason.CONCURRENCY
    for admission in inside:
        shedder.release(admission)
    assert shedder.admit("GET /", 0.0).reason is None


def test_settings_and_keywords_may_be_mixed(monkeypatch):
    base = ShedderSettings(service="base", deadline_s=3)
    assert Shedder(base).settings == base
    assert Shedder(base, deadline_s=4).settings == ShedderSettings(service="base", deadline_s=4)
    with pytest.raises(SettingsError, match="deadline is not"):
        Shedder(deadline=1)
    monkeypatch.setenv("GROUNDFAULT_SERVICE", "from-env")
    assert Shedder().settings.service == "from-env"
    assert Shedder(service="named").settings.service == "named"
    assert Shedder(base).settings.service == "base"
    monkeypatch.setenv("GROUNDFAULT_SERVICE", "Not A Name")
    with pytest.raises(SettingsError, match="GROUNDFAULT_SERVICE must be a name"):
        Shedder()


@pytest.mark.parametrize(("value", "off"), [("1", True), ("true", True), (" YES ", True), ("0", False), ("", False)])
def test_the_kill_switch(monkeypatch, value, off):
    monkeypatch.setenv("GROUNDFAULT_DISABLED", value)
    shedder = Shedder()
    assert shedder.bypassed is off
    assert (shedder.snapshot().mode is Mode.OFF) is off


def test_no_event_of_the_frequent_kind_is_built_for_nobody(clock, monkeypatch):
    """A sink that takes changes only costs nothing per request."""
    monkeypatch.setattr("groundfault.shedding.shedder.RequestSeen", lambda **_: 1 / 0)

    class Changes:
        changes_only = True

        def __call__(self, event):
            pass

    shedder = Shedder(sinks=Sinks.direct(Changes()), clock=clock)
    assert shedder.admit("GET /", 0.5).refused


def test_no_sink_is_called_under_the_lock(clock):
    """One that asks for a snapshot from another thread would wait for ever."""
    answers = []

    def ask(event):
        thread = threading.Thread(target=lambda: answers.append(shedder.snapshot()), daemon=True)
        thread.start()
        thread.join(5)

    shedder = Shedder(sinks=Sinks.direct(ask), clock=clock)
    shedder.admit("GET /", 0.5)
    shedder.tune(deadline_s=2)
    assert len(answers) == 3


def test_what_an_event_says_of_a_request(shedder, sink):
    shedder.release(shedder.admit("GET /", 0.004, criticality=Criticality.SHEDDABLE, caller="topps"))
    assert sink.of(RequestSeen) == [
        RequestSeen(
            service="served",
            route="other",
            reason=None,
            criticality=Criticality.SHEDDABLE,
            queue_wait_s=0.004,
            signal="tcp-info",
            caller="topps",
        )
    ]


def test_callers_beyond_256_are_others(shedder):
    labels = [shedder.fold_caller(f"caller-{number}") for number in range(300)]
    assert labels[:256] == [f"caller-{number}" for number in range(256)]
    assert set(labels[256:]) == {"other"}
    assert shedder.fold_caller("caller-3") == "caller-3"
    assert shedder.fold_caller(None) is None


def test_a_key_changes_every_hour_and_with_the_salt():
    now = [1_600_000_000.0]
    one, other = (Shedder(key_salt=salt, wall_clock=lambda: now[0]) for salt in ("a", "b"))
    key = one.key_of("ann")
    assert key == one.key_of("ann") == Shedder(key_salt="a", wall_clock=lambda: now[0]).key_of("ann")
    assert key != other.key_of("ann")
    assert key != one.key_of("bob")
    now[0] += 3600
    assert key != one.key_of("ann")
    assert len(one.key_of("\ud800 lone surrogate \x00")) == 16


def test_shedders_of_one_process_family_make_the_same_keys():
    assert Shedder().key_of("ann") == Shedder().key_of("ann")


def test_the_end_of_an_episode_is_seen_by_a_snapshot_too(shedder, sink, clock):
    shedder.admit("GET /", 0.5)
    assert shedder.snapshot().shedding
    clock.advance(3.1)
    assert not shedder.snapshot().shedding
    assert [event.shedding for event in sink.of(SheddingChanged)] == [True, False]


def test_threads_at_once_lose_no_count():
    shedder = Shedder(sinks=Sinks(), max_concurrency=10_000)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def work():
        for number in range(500):
            admission = shedder.admit(f"GET /{number % 7}", 0.0)
            shedder.answered(admission, 200)
            shedder.release(admission)

    threads = [threading.Thread(target=work) for _ in range(8)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    finally:
        sys.setswitchinterval(interval)
    snapshot = shedder.snapshot()
    assert snapshot.in_flight == 0
    assert snapshot.admitted == {Criticality.CRITICAL: 4000}
    assert shedder._law.whole.open == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_of_a_fork_begins_anew_even_if_the_lock_was_held(shedder):
    """What was in flight in the parent is not in the child, and ending it there changes nothing."""
    inherited = shedder.admit("GET /", 0.0)
    held, done = threading.Event(), threading.Event()

    def hold():
        with shedder._lock:
            held.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(5)
    child = os.fork()
    if child == 0:
        code = 1
        with suppress(BaseException):
            clean = shedder.snapshot().in_flight == 0
            shedder.answered(inherited, 200)
            shedder.release(inherited)
            own = shedder.admit("GET /", 0.0)
            one = shedder.snapshot().in_flight == 1
            shedder.release(own)
            code = 0 if clean and one and shedder.snapshot().in_flight == 0 else 2
        os._exit(code)
    done.set()
    holder.join(5)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert shedder.snapshot().in_flight == 1


def test_a_signal_handler_may_serve_a_request_of_its_own(shedder):
    with shedder._lock:
        shedder.release(shedder.admit("GET /", 0.0))
    assert shedder.snapshot().in_flight == 0


def test_a_wall_clock_that_steps_changes_no_decision(clock):
    wall = [1_600_000_000.0]
    shedder = Shedder(sinks=Sinks(), clock=clock, wall_clock=lambda: wall[0])
    shedder.admit("GET /", 0.5)
    wall[0] -= 7200
    clock.advance(0.5)
    assert shedder.admit("GET /", 0.2, key="80").reason is Reason.QUEUE_WAIT
    clock.advance(0.01)
    assert shedder.admit("GET /", 0.0).reason is None


class _Headers(dict):
    def get(self, name, default=None):
        return super().get(name.lower(), default)


_texts = st.one_of(
    st.text(max_size=100),
    st.integers(-(10**12), 10**20).map(str),
    st.floats(allow_nan=True, allow_infinity=True).map(str),
    st.sampled_from(["0", "1", "critical-plus", "sheddable", "f", "0" * 16, "t=1600000000.0", "1H", "0n", "topps/a.b"]),
)
_hostile_headers = st.dictionaries(
    st.sampled_from(
        [
            "x-groundfault-timeout-ms",
            "x-groundfault-criticality",
            "x-groundfault-key",
            "x-groundfault-caller",
            "x-envoy-expected-rq-timeout-ms",
            "grpc-timeout",
            "x-request-start",
            "x-queue-start",
            "traceparent",
            "cookie",
        ]
    ),
    _texts,
)


def _arrive(shedder, headers, wait_s, *, on_loop, peer="203.0.113.9", path="/"):
    return arrive(
        shedder,
        method="GET",
        path=path,
        headers=_Headers(headers),
        hinted=True,
        peer=peer,
        via=peer,
        reading=Bracket(wait_s, wait_s),
        on_loop=on_loop,
    )


@given(
    st.lists(st.tuples(_hostile_headers, st.floats(0, 1.5), st.floats(0, 0.5)), min_size=1, max_size=25),
    st.booleans(),
    st.sampled_from(["203.0.113.9", "127.0.0.1"]),
)
def test_hostile_headers_never_raise_and_never_change_another_request_s_fate(steps, on_loop, peer):
    """Two shedders side by side see the same waits, one of them with hostile headers, from strangers or friends.

    After each such request a third one, with no headers, must fare alike, whatever it has waited.
    """
    clock = ManualClock()
    hostile, plain = (Shedder(sinks=Sinks(), clock=clock, wall_clock=lambda: 1_600_000_000.0) for _ in range(2))
    for headers, wait_s, gone in steps:
        clock.advance(gone)
        for shedder, carried in ((hostile, headers), (plain, {})):
            visit = _arrive(shedder, carried, wait_s, on_loop=on_loop, peer=peer)
            visit.close()
        assert hostile._law.workers == plain._law.workers
        assert hostile._law.loop == plain._law.loop
        for probe_s in (0.0, 0.01, 0.02, 0.03, 0.1, 0.24, 0.26):
            fates = []
            for shedder in (hostile, plain):
                before = (shedder._law.workers, shedder._law.loop)
                limits = shedder._law.loop_bounds if on_loop else shedder._law.worker_bounds
                fates.append((before, limits, shedder.admit("third", probe_s, on_loop=on_loop, key="80").reason))
            assert fates[0] == fates[1]
    assert internal_errors() == {}


def test_a_client_that_drips_bytes_gains_its_own_admission_and_no_more(clock):
    """Its kernel wait stays near zero, so it is admitted and every backlog seems to end.

    Others are then admitted up to the burst tolerance, and never beyond: the queue stays bounded by N.
    """
    shedder = Shedder(sinks=Sinks(), clock=clock)
    for _ in range(200):
        clock.advance(0.01)
        assert shedder.admit("GET /", 0.001).reason is None
        assert shedder.admit("GET /", 0.3).reason is Reason.QUEUE_WAIT
        assert shedder.admit("GET /", 0.26).reason is Reason.QUEUE_WAIT


@pytest.mark.parametrize(
    ("reading", "wait_s", "signal"),
    [
        (Bracket(0.3, 0.3), None, "none"),
        (Bracket(0.3, 0.3, signal=IN_PROCESS), 0.3, IN_PROCESS),  # not the kernel's
        (LEFT, None, "none"),
    ],
)
def test_a_kernel_that_failed_its_test_is_believed_in_nothing(shedder, sink, monkeypatch, reading, wait_s, signal):
    monkeypatch.setattr("groundfault.shedding._socket.self_test.failure", "self-test: the kernel reads 0 ms")
    arrive(
        shedder,
        method="GET",
        path="/",
        headers=_Headers(),
        hinted=False,
        peer=None,
        via=None,
        reading=reading,
        on_loop=True,
    ).close()
    (seen,) = sink.of(RequestSeen)
    assert (seen.queue_wait_s, seen.signal) == (wait_s, signal)


def test_a_criticality_claimed_by_a_stranger_can_only_lower(clock):
    shedder = Shedder(sinks=Sinks(), clock=clock, wall_clock=lambda: 1_600_000_000.0)
    shedder.admit("GET /", 0.5)
    clock.advance(1.5)

    def reason(claim, peer):
        visit = _arrive(shedder, {"x-groundfault-criticality": claim}, 0.06, on_loop=False, peer=peer)
        visit.close()
        return visit.reason

    assert reason("critical-plus", "127.0.0.1") is None  # 4 T is 80 ms
    assert reason("critical-plus", "203.0.113.9") is Reason.QUEUE_WAIT
