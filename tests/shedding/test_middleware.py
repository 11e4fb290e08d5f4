"""Both shells, one suite: what a client sees, and what the application is told."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from copy import copy

import pytest

from groundfault import _context
from groundfault._context import Fault
from groundfault.errors import (
    BulkheadFullError,
    CircuitOpenError,
    CommandTimeoutError,
    SettingsError,
    ShedError,
    ThrottledError,
    UnhealthyError,
)
from groundfault.events import RequestSeen, SheddingChanged, internal_errors
from groundfault.vocabulary import Criticality, Outcome, Reason


class _Response:
    """What a client library hands on with its error."""

    status_code = 503

    def __init__(self, **headers):
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class _HTTPError(Exception):
    def __init__(self, response):
        super().__init__("503 from below")
        self.response = response


def _annotated(reason="queue-wait", origin="saber"):
    class Headers(dict):
        def get(self, name, default=None):
            return super().get(name.lower(), default)

    response = _Response()
    response.headers = Headers(
        {"x-groundfault": "handled", "x-groundfault-reason": reason, "x-groundfault-origin": origin}
    )
    return response


def _noting(fault):
    return lambda: _context.current().note(fault)


_TIMED_OUT = Fault("db", "read", Outcome.TIMEOUT, Reason.DEPENDENCY, None, None)


def test_a_good_answer_passes_as_it_is(driver):
    answer = driver.send()
    assert (answer.status, answer.body) == (200, b"fine")
    assert answer.headers == [("Content-Type", "text/plain")]
    assert driver.shedder.snapshot().in_flight == 0


def test_who_waited_too_long_is_refused_before_the_application_runs(driver):
    answer = driver.send(wait_s=0.3)
    assert answer.status == 503
    assert driver.calls == 0
    assert answer.header("x-groundfault") == "handled"
    assert answer.header("x-groundfault-reason") == "queue-wait"
    assert answer.header("x-groundfault-origin") == "served"
    assert answer.header("cache-control") == "no-store"
    assert answer.header("retry-after") is None
    assert answer.header("content-type") == "application/problem+json"
    assert answer.header("content-length") == str(len(answer.body))
    assert answer.body.startswith(b'{"type":"about:blank"')


def test_a_refusal_is_text_where_json_is_not_wanted(driver):
    answer = driver.send(wait_s=0.3, headers=[("Accept", "text/html, text/plain")])
    assert answer.header("content-type") == "text/plain; charset=utf-8"
    assert answer.body.startswith(b"Ground Fault: ")


def test_a_refused_head_has_headers_only(driver):
    answer = driver.send(method="HEAD", wait_s=0.3)
    assert answer.body == b""
    assert int(answer.header("content-length")) > 0


def test_retry_after_is_jittered_and_only_where_a_retry_may_help(make_driver):
    driver = make_driver(retry_after_s=(2, 5))
    values = {driver.send(wait_s=0.3).header("retry-after") for _ in range(60)}
    assert values <= {"2", "3", "4", "5"}
    assert len(values) > 1
    late = driver.send(headers=[("X-GroundFault-Timeout-Ms", "0")])
    assert late.header("x-groundfault-reason") == "deadline"
    assert late.header("retry-after") is None


@pytest.mark.parametrize(
    ("budget_ms", "wait_s", "reason"),
    [
        ("0", 0.0, "deadline"),
        ("0", 0.3, "deadline"),
        ("100", 0.0, None),
        ("100", 0.004, None),
        ("100", 0.12, "deadline"),
        ("5000", 0.3, "queue-wait"),  # a longer budget does not lengthen the queue
        ("abc", 0.0, None),
        ("-5", 0.0, None),
        ("9" * 400, 0.0, None),
    ],
)
def test_a_budget_decides_about_its_own_request(driver, budget_ms, wait_s, reason):
    answer = driver.send(wait_s=wait_s, headers=[("X-GroundFault-Timeout-Ms", budget_ms)])
    assert answer.header("x-groundfault-reason") == reason


def test_the_application_s_own_annotations_are_taken_off(driver):
    """Copied from below or made up: only this service's decision may stand there."""
    copied = [
        ("X-GroundFault", "handled"),
        ("x-groundfault-reason", "queue-wait"),
        ("X-GROUNDFAULT-ORIGIN", "saber"),
        ("X-Groundfault-Anything", "1"),
        ("X-Ground", "kept"),
        ("Cache-Control", "max-age=60"),
    ]
    for status in (200, 500, 503):
        answer = driver.send(driver.script(status=status, headers=list(copied)))
        assert answer.status == status
        assert answer.headers == [("X-Ground", "kept"), ("Cache-Control", "max-age=60")]


@pytest.mark.parametrize(
    ("error", "reason", "origin"),
    [
        (CircuitOpenError("db", "read", 1.0), "circuit-open", "served"),
        (ThrottledError("db", "read", 0.5), "throttled", "served"),
        (BulkheadFullError("db", "read", 5), "dependency", "served"),
        (UnhealthyError("db", "read"), "dependency", "served"),
        (CommandTimeoutError("db", "read", 0.5), "dependency", "served"),
        (ShedError("saber", "get", Reason.QUEUE_WAIT, "saber"), "dependency", "saber"),
        (ShedError("saber", "get"), "dependency", "served"),
        (_HTTPError(_annotated()), "dependency", "saber"),
        (_HTTPError(_annotated("circuit-open", "db")), "dependency", "db"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_an_error_of_a_call_becomes_an_annotated_answer(driver, error, reason, origin):
    answer = driver.send(driver.script(raises=error))
    assert answer.status == 503
    assert answer.header("x-groundfault") == "handled"
    assert answer.header("x-groundfault-reason") == reason
    assert answer.header("x-groundfault-origin") == origin
    assert driver.shedder.snapshot().in_flight == 0


@pytest.mark.parametrize(
    "error",
    [
        ValueError("ours"),
        SettingsError("a mistake in the code"),
        _HTTPError(_Response()),  # a plain 503: nobody said that it was on purpose
        TimeoutError("not one of a command"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_other_error_goes_its_way_untouched(driver, error):
    with pytest.raises(type(error)) as caught:
        driver.send(driver.script(raises=error))
    assert caught.value is error
    assert internal_errors() == {}
    assert driver.shedder.snapshot().in_flight == 0


def test_an_error_that_comes_from_a_counted_failure_is_put_down_to_it(driver):
    cause = ConnectionError("refused")
    fault = Fault("db", "read", Outcome.FAILURE, Reason.DEPENDENCY, "db", cause)
    wrapped = RuntimeError("could not read")
    wrapped.__cause__ = cause
    answer = driver.send(driver.script(raises=wrapped, during=_noting(fault)))
    assert answer.header("x-groundfault-reason") == "dependency"
    assert answer.header("x-groundfault-origin") == "db"


def test_an_error_that_has_nothing_to_do_with_a_fault_goes_its_way(driver):
    fault = Fault("db", "read", Outcome.FAILURE, Reason.DEPENDENCY, None, ConnectionError())
    with pytest.raises(KeyError):
        driver.send(driver.script(raises=KeyError("a bug"), during=_noting(fault)))


@pytest.mark.parametrize("status", [502, 503, 504])
@pytest.mark.parametrize(
    ("outcome", "origin", "reason", "named"),
    [
        (Outcome.CIRCUIT_OPEN, None, "circuit-open", "served"),
        (Outcome.THROTTLED, None, "throttled", "served"),
        (Outcome.SHED, "saber", "dependency", "saber"),
        (Outcome.TIMEOUT, None, "dependency", "served"),
        (Outcome.FAILURE, None, "dependency", "served"),
        (Outcome.BULKHEAD_FULL, None, "dependency", "served"),
    ],
)
def test_the_application_s_own_answer_is_annotated_when_a_call_failed(driver, status, outcome, origin, reason, named):
    fault = Fault("db", "read", outcome, Reason.DEPENDENCY, origin, None)
    answer = driver.send(
        driver.script(
            status=status,
            headers=[("Content-Type", "text/html"), ("cache-control", "max-age=60"), ("X-GroundFault", "no")],
            chunks=(b"<h1>sorry</h1>",),
            during=_noting(fault),
        )
    )
    assert answer.status == 503
    assert answer.body == b"<h1>sorry</h1>"
    assert answer.header("content-type") == "text/html"
    assert answer.header("cache-control") == "no-store"
    assert answer.header("x-groundfault") == "handled"
    assert answer.header("x-groundfault-reason") == reason
    assert answer.header("x-groundfault-origin") == named


@pytest.mark.parametrize("name", ["Expires", "ETag", "Last-Modified", "Retry-After"])
def test_an_annotated_answer_is_neither_kept_nor_tried_again(driver, name):
    script = driver.script(status=503, headers=[(name, "10")], during=_noting(_TIMED_OUT))
    assert driver.send(script).header(name) is None
    assert driver.send(driver.script(status=503, headers=[(name, "10")])).header(name) == "10"  # nothing behind it


def test_the_newest_fault_speaks(driver):
    def two_faults():
        _context.current().note(_TIMED_OUT)
        _context.current().note(Fault("b", "c", Outcome.CIRCUIT_OPEN, Reason.CIRCUIT_OPEN, None, None))

    answer = driver.send(driver.script(status=503, during=two_faults))
    assert answer.header("x-groundfault-reason") == "circuit-open"


@pytest.mark.parametrize("status", [200, 404, 500, 501])
def test_an_unrelated_answer_is_never_changed(driver, status):
    answer = driver.send(driver.script(status=status, during=_noting(_TIMED_OUT)))
    assert answer.status == status
    assert answer.header("x-groundfault") is None


@pytest.mark.parametrize("status", [502, 503, 504])
def test_an_answer_without_a_fault_behind_it_is_never_annotated(driver, status):
    answer = driver.send(driver.script(status=status))
    assert answer.status == status
    assert answer.header("x-groundfault") is None


def test_once_bytes_are_out_nothing_can_be_changed(driver):
    error = CircuitOpenError("db", "read", 1.0)
    with pytest.raises(CircuitOpenError):
        driver.send(driver.script(raises=error, after=1, chunks=(b"one", b"two")))
    assert driver.shedder.snapshot().in_flight == 0


def test_the_context_says_what_is_known_and_ends_with_the_request(driver, clock):
    seen = []
    clock.now = 5000.0
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    driver.send(
        driver.script(during=lambda: seen.append(copy(_context.current()))),
        wait_s=0.1,
        headers=[
            ("X-GroundFault-Timeout-Ms", "800"),
            ("X-GroundFault-Criticality", "critical-plus"),
            ("X-GroundFault-Key", "00Ab"),
            ("X-GroundFault-Caller", "topps/saber.get"),
            ("traceparent", trace),
        ],
    )
    (context,) = seen
    assert context.service == "served"
    assert context.deadline == pytest.approx(5000.7)
    assert context.criticality is Criticality.CRITICAL_PLUS
    assert context.key == "00ab"
    assert context.caller == "topps/saber.get"
    assert context.traceparent == trace
    assert _context.current() is None


def test_a_deadline_of_ours_never_caps_what_the_application_calls(driver):
    seen = []
    driver.send(driver.script(during=lambda: seen.append(_context.current().deadline)), wait_s=0.1)
    assert seen == [None]


def test_a_stranger_can_only_hurt_itself(driver, clock):
    seen = []
    headers = [
        ("X-GroundFault-Timeout-Ms", "20000"),
        ("X-GroundFault-Criticality", "critical-plus"),
        ("X-GroundFault-Key", "00"),
        ("X-GroundFault-Caller", "topps"),
        ("X-Request-Start", "t=1599999999.5"),
    ]
    script = driver.script(during=lambda: seen.append(copy(_context.current())))
    driver.send(script, headers=headers, peer="203.0.113.9")
    driver.send(
        driver.script(during=lambda: seen.append(copy(_context.current()))),
        headers=[("X-GroundFault-Criticality", "sheddable")],
        peer="203.0.113.9",
    )
    raised, lowered = seen
    assert raised.deadline == pytest.approx(clock.now + 1.0)  # deadline_s, not the twenty seconds claimed
    assert raised.criticality is None
    assert raised.key is None
    assert raised.caller is None
    assert lowered.criticality is Criticality.SHEDDABLE


@pytest.mark.parametrize(
    ("trusted", "peer", "believed"),
    [
        (("127.0.0.0/8", "::1/128"), "127.0.0.1", True),
        (("127.0.0.0/8", "::1/128"), "::1", True),
        (("127.0.0.0/8", "::1/128"), "::ffff:127.0.0.1", True),
        (("127.0.0.0/8", "::1/128"), None, True),
        (("127.0.0.0/8", "::1/128"), "10.0.0.1", False),
        (("127.0.0.0/8", "::1/128"), "testclient", False),
        (("127.0.0.0/8", "::1/128"), "127.0.0.1, 10.0.0.1", False),
        (("10.0.0.0/8",), "10.9.8.7", True),
        ((), "127.0.0.1", False),
        (lambda peer: peer.startswith("10."), "10.0.0.1", True),
        (lambda peer: peer.startswith("10."), "11.0.0.1", False),
        (lambda peer: 1 / 0, "10.0.0.1", False),
    ],
)
def test_who_is_trusted(make_driver, trusted, peer, believed):
    driver = make_driver(trusted_callers=trusted)
    seen = []
    script = driver.script(during=lambda: seen.append(_context.current().key))
    for _ in range(2):  # the second answer is remembered
        driver.send(script, headers=[("X-GroundFault-Key", "ab")], peer=peer)
    assert seen == ["ab" if believed else None] * 2


def test_a_header_that_comes_twice_says_nothing(driver):
    twice = [("X-GroundFault-Timeout-Ms", "0"), ("X-GroundFault-Timeout-Ms", "0")]
    assert driver.send(headers=twice).status == 200


def test_the_application_may_class_requests_itself(make_driver, sink):
    def criticality(info):
        if info.path == "/report":
            return Criticality.SHEDDABLE
        return None if info.headers.get("Cookie") is None else Criticality.CRITICAL_PLUS

    driver = make_driver(criticality=criticality)
    driver.send(path="/report", headers=[("X-GroundFault-Criticality", "critical-plus")])
    driver.send(headers=[("cookie", "session=1")])
    driver.send(headers=[("X-GroundFault-Criticality", "sheddable-plus")])
    driver.send()
    assert [event.criticality for event in sink.of(RequestSeen)] == [
        Criticality.SHEDDABLE,
        Criticality.CRITICAL_PLUS,
        Criticality.SHEDDABLE_PLUS,
        Criticality.CRITICAL,
    ]


def test_a_key_is_made_of_an_identity_unless_a_trusted_one_came_in(make_driver):
    driver = make_driver(identity=lambda info: info.headers.get("X-User"), key_salt="pepper")
    seen = []
    script = driver.script(during=lambda: seen.append(_context.current().key))
    driver.send(script, headers=[("X-User", "ann")])
    driver.send(script, headers=[("X-User", "ann"), ("X-GroundFault-Key", "ab")], peer="203.0.113.9")
    driver.send(script, headers=[("X-User", "ann"), ("X-GroundFault-Key", "ab")])
    driver.send(script, headers=[("X-User", "bob")])
    driver.send(script)
    ann, forged, trusted, bob, nobody = seen
    assert ann == forged
    assert len(ann) == 16
    assert trusted == "ab"
    assert bob not in {ann, None}
    assert nobody is None


@pytest.mark.parametrize("name", ["criticality", "identity"])
def test_a_raising_callable_costs_nothing_but_its_answer(make_driver, name):
    driver = make_driver(**{name: lambda info: 1 / 0})
    assert driver.send().status == 200
    assert internal_errors() == {name: 1}


def test_health_paths_are_served_through_an_overload_up_to_their_rate(make_driver, clock):
    driver = make_driver(health_rate_per_s=3)
    statuses = [driver.send(path="/healthz", wait_s=0.5).status for _ in range(5)]
    assert statuses == [200, 200, 200, 503, 503]
    clock.advance(1.0)
    assert driver.send(path="/healthz", wait_s=0.5).status == 200
    assert driver.send(path="/healthz/deeper", wait_s=0.5).status == 503


def test_draining_refuses_everything_but_health_checks(driver, sink):
    driver.shedder.drain()
    refused = driver.send()
    assert refused.header("x-groundfault-reason") == "draining"
    assert driver.send(path="/readyz").status == 200
    assert driver.shedder.snapshot().draining
    assert sink.of(SheddingChanged) == []


def test_a_fixed_limit_refuses_what_is_beyond_it(make_driver):
    driver = make_driver(max_concurrency=1)
    inner = []
    outer = driver.send(driver.script(during=lambda: inner.append(_nested(driver))))
    assert outer.status == 200
    assert inner == ["concurrency"]
    assert driver.send().status == 200


def _nested(driver):
    """Send a request while another is being served; the ASGI driver needs a thread, for its loop is running."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(driver.send).result().header("x-groundfault-reason")


def test_shadow_mode_changes_nothing_that_a_client_can_see(make_driver, sink):
    driver = make_driver(mode="shadow")
    served = driver.send(wait_s=0.5)
    assert (served.status, driver.calls) == (200, 1)
    copied = driver.send(driver.script(headers=[("X-GroundFault", "handled")]))
    assert copied.headers == [("X-GroundFault", "handled")]
    answered = driver.send(driver.script(status=504, during=_noting(_TIMED_OUT)))
    assert answered.status == 504
    assert answered.header("x-groundfault") is None
    with pytest.raises(CircuitOpenError):
        driver.send(driver.script(raises=CircuitOpenError("db", "read", 1.0)))
    deadlines = []
    driver.send(
        driver.script(during=lambda: deadlines.append(_context.current().deadline)),
        headers=[("X-GroundFault-Timeout-Ms", "500")],
    )
    assert deadlines == [None]

    first = sink.of(RequestSeen)[0]
    assert first.reason is Reason.QUEUE_WAIT
    assert not first.enforced
    assert sink.of(SheddingChanged)[0].shedding
    snapshot = driver.shedder.snapshot()
    assert snapshot.shed == {(Reason.QUEUE_WAIT, Criticality.CRITICAL): 1}
    assert snapshot.in_flight == 0


def test_off_leaves_everything_alone(make_driver, sink):
    driver = make_driver(mode="off")
    contexts = []
    answer = driver.send(
        driver.script(headers=[("X-GroundFault", "handled")], during=lambda: contexts.append(_context.current())),
        wait_s=0.5,
        headers=[("X-GroundFault-Timeout-Ms", "0")],
    )
    assert answer.headers == [("X-GroundFault", "handled")]
    assert contexts == [None]
    assert sink.events == []


def test_the_kill_switch_in_the_environment_cannot_be_tuned_away(make_driver, monkeypatch):
    monkeypatch.setenv("GROUNDFAULT_DISABLED", "1")
    driver = make_driver()
    driver.shedder.tune(mode="enforce")
    assert driver.send(wait_s=0.5).status == 200


def test_an_error_of_ours_never_costs_a_request(driver, clock, monkeypatch):
    """It is counted; after ten within a minute requests pass untouched for a minute, then all is as before."""
    monkeypatch.setattr(driver.shedder, "decide", lambda *_, **__: 1 / 0)
    for _ in range(10):
        assert not driver.shedder.bypassed
        assert driver.send().body == b"fine"
        clock.advance(5.0)
    assert sum(internal_errors().values()) == 10
    assert driver.shedder.snapshot().stepped_aside
    assert driver.send().body == b"fine"
    assert sum(internal_errors().values()) == 10
    monkeypatch.undo()
    clock.advance(60.0)
    assert driver.send(wait_s=0.5).status == 503
    assert not driver.shedder.snapshot().stepped_aside


@pytest.mark.parametrize("methods", [("answered", "finish"), ("release", "finish")], ids="/".join)
def test_an_error_of_ours_at_the_end_never_costs_the_answer(driver, monkeypatch, methods):
    for method in methods:
        monkeypatch.setattr(driver.shedder, method, lambda *_, **__: 1 / 0)
    assert driver.send().body == b"fine"
    assert sum(internal_errors().values()) >= 1
    assert _context.current() is None


def test_without_a_kernel_signal_nobody_is_refused_for_waiting(driver, sink):
    assert driver.send(wait_s=None).status == 200
    (seen,) = sink.of(RequestSeen)
    assert (seen.queue_wait_s, seen.signal) == (None, "none")
    assert "tcp-info" in driver.shedder.snapshot().signals_refused


def test_without_a_kernel_signal_a_trusted_proxy_s_stamp_is_the_wait(driver, sink):
    """Its clock may differ: what all ages have in common is no wait."""
    now = 1_600_000_000.0
    for age in (0.2, 0.5, 0.2):
        driver.send(wait_s=None, peer=None, headers=[("X-Request-Start", f"t={now - age:.3f}")])
    assert [event.signal for event in sink.of(RequestSeen)] == ["request-start"] * 3
    assert [event.queue_wait_s for event in sink.of(RequestSeen)] == pytest.approx([0.0, 0.3, 0.0], abs=1e-6)
    assert [event.reason for event in sink.of(RequestSeen)] == [None, Reason.QUEUE_WAIT, None]


def test_with_a_kernel_signal_the_stamp_only_shortens_that_request_s_time(driver, sink):
    now = 1_600_000_000.0

    def send(age, budget_ms=None, wait_s=0.01):
        headers = [("X-Request-Start", f"t={now - age:.3f}")]
        if budget_ms is not None:
            headers.append(("X-GroundFault-Timeout-Ms", str(budget_ms)))
        return driver.send(wait_s=wait_s, headers=headers).header("x-groundfault-reason")

    assert send(0.5) is None
    assert send(0.5, budget_ms=600) is None
    assert send(0.5, budget_ms=490) == "deadline"
    assert send(0.995, wait_s=0.0) is None
    assert send(1.005) == "deadline"  # a whole deadline has gone, though only 10 ms of it here
    assert send(1.5) is None  # a stamp that much older than the connection's wait is not believed
    assert send(29.0, budget_ms=600) is None
    assert {event.queue_wait_s for event in sink.of(RequestSeen)} == {0.01, 0.0}


def test_an_episode_of_shedding_is_reported_once(driver, sink, clock):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for _ in range(3):
        driver.send(wait_s=0.4, headers=[("traceparent", trace)])
        clock.advance(0.1)
    driver.send(wait_s=0.0)
    clock.advance(1.0)
    driver.send(wait_s=0.3)
    clock.advance(2.5)
    driver.send()
    assert len(sink.of(SheddingChanged)) == 1
    clock.advance(1.0)
    driver.send()
    begun, ended = sink.of(SheddingChanged)
    assert (begun.shedding, begun.reason, begun.shed, begun.traceparent) == (True, Reason.QUEUE_WAIT, 1, trace)
    assert begun.queue_wait_s == 0.4
    assert (ended.shedding, ended.shed) == (False, 4)


def test_a_budget_that_is_used_up_is_no_episode(driver, sink):
    driver.send(headers=[("X-GroundFault-Timeout-Ms", "0")])
    assert sink.of(SheddingChanged) == []


@pytest.mark.parametrize("trace", ["x", "00-0AF7", "\r\nX: y", "0" * 55 + "0", 'a"' * 27 + "a"])
def test_a_trace_that_is_none_is_not_shown(driver, sink, trace):
    driver.send(wait_s=0.4, headers=[("traceparent", trace)])
    assert sink.of(SheddingChanged)[0].traceparent is None


def test_nothing_of_a_request_outlives_it(driver):
    """Neither the error nor its traceback is kept alive by us."""

    class Precious:
        pass

    references = []

    def fail():
        precious = Precious()
        references.append(weakref.ref(precious))
        error = ConnectionError(precious)
        _context.current().note(Fault("db", "read", Outcome.FAILURE, Reason.DEPENDENCY, None, error))
        raise error

    assert driver.send(driver.script(during=fail)).status == 503
    gc.collect()
    assert references[0]() is None


def test_a_kernel_that_failed_the_self_test_is_not_believed(driver, sink, monkeypatch):
    monkeypatch.setattr("groundfault.shedding._socket.self_test.failure", "self-test: the kernel reads 0 ms")
    assert driver.send(wait_s=0.5).status == 200
    assert sink.of(RequestSeen)[0].signal == "none"
    assert driver.shedder.snapshot().signals_refused == {"tcp-info": "self-test: the kernel reads 0 ms"}


_ESTABLISHED, _RESET, _CLOSE_WAIT = 1, 7, 8


@pytest.mark.parametrize(
    ("state", "wait_s", "path", "served"),
    [
        (_ESTABLISHED, 0.1, "/", True),
        (_RESET, 0.0, "/", False),
        (_RESET, 0.1, "/", False),
        (_RESET, 0.0, "/healthz", False),
        (_CLOSE_WAIT, 0.0, "/", True),  # nc, and whoever else says that it has sent all it will
        (_CLOSE_WAIT, 0.004, "/", True),  # one tick of the kernel's clock may go by on the way here
        (_CLOSE_WAIT, 0.1, "/", False),
        (_CLOSE_WAIT, 0.1, "/healthz", False),
    ],
)
def test_work_for_a_client_that_has_left_is_not_started(driver, sink, state, wait_s, path, served):
    answer = driver.send(state=state, wait_s=wait_s, path=path)
    assert (answer.status, driver.calls) == ((200, 1) if served else (503, 0))
    assert answer.header("x-groundfault-reason") == (None if served else "deadline")
    snapshot = driver.shedder.snapshot()
    assert snapshot.abandoned == (0 if served else 1)
    assert snapshot.shed == ({} if served else {(Reason.DEADLINE, Criticality.CRITICAL): 1})
    assert snapshot.in_flight == 0
    assert sink.of(SheddingChanged) == []


def test_who_left_says_nothing_but_how_long_it_waited(driver):
    """The ladder sees the wait that the kernel measured, as it sees everybody's."""
    driver.send(state=_RESET, wait_s=0.0)
    assert not driver.shedder.snapshot().shedding
    ladder = driver.shedder._law.loop if driver.on_loop else driver.shedder._law.workers
    assert not ladder.backlog
    driver.send(state=_RESET, wait_s=0.4)
    assert ladder.backlog
    assert not driver.shedder.snapshot().shedding


def test_who_has_closed_its_half_may_be_served_by_choice(make_driver):
    driver = make_driver(serve_half_closed=True)
    assert driver.send(state=_CLOSE_WAIT, wait_s=0.1).status == 200
    assert driver.send(state=_RESET).status == 503
    assert driver.shedder.snapshot().abandoned == 1


def test_in_shadow_mode_who_left_is_counted_and_served(make_driver):
    driver = make_driver(mode="shadow")
    assert driver.send(state=_RESET).status == 200
    assert driver.shedder.snapshot().abandoned == 1
    assert driver.shedder.snapshot().in_flight == 0


def test_without_a_believed_wait_only_who_is_gone_has_left(driver, monkeypatch):
    monkeypatch.setattr("groundfault.shedding._socket.self_test.failure", "self-test: the kernel reads 0 ms")
    assert driver.send(state=_CLOSE_WAIT, wait_s=0.5).status == 200
    assert driver.send(state=_RESET).status == 503


def test_a_preflight_is_a_request_like_any_other(make_driver, clock):
    """Let through by what it says of itself, it would be a door past the shedder; the operator may open it."""
    asks = [("Origin", "https://shop.example"), ("Access-Control-Request-Method", "POST")]
    driver = make_driver()
    assert driver.send(method="OPTIONS", headers=asks, wait_s=0.3).status == 503
    clock.advance(1.5)
    assert driver.send(method="OPTIONS", headers=asks, wait_s=0.06).status == 503
    driver.shedder.tune(criticality=[{"criticality": "critical-plus", "method": "OPTIONS"}])
    assert driver.send(method="OPTIONS", headers=asks, wait_s=0.06).status == 200


@pytest.mark.parametrize("headers", [[], [("Content-Length", "5")], [("Transfer-Encoding", "chunked")]])
@pytest.mark.parametrize("expect", [[], [("Expect", "100-continue")]])
def test_a_refusal_never_asks_for_the_body(driver, headers, expect):
    """Reading it would let a slow client hold the place that was just refused."""
    driver.shedder.drain()
    answer = driver.send(method="POST", headers=headers + expect)
    assert (answer.status, driver.calls) == (503, 0)
    assert answer.header("content-length") == str(len(answer.body))
